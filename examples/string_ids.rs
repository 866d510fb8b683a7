//! Jobs whose ids are strings: looked up by `&str`, without making a `String`.
//!
//! ```sh
//! cargo run --example string_ids
//! ```
//!
//! ```text
//! deploy/42 is owned: true
//! deploy/43 is owned: false
//! owned, in order: ["build/7", "deploy/42"]
//! cleared by hand: true, and once more: false
//! its own monitor sees it: current = false
//! ```

use std::sync::Arc;

use livemark::Registry;

// `Arc<str>`: a mark keeps a copy of the id, which costs a count. A `String` works as well, and is copied.
static FINALIZING: Registry<Arc<str>, &str> = Registry::new();

fn main() {
    let build = FINALIZING.mark("build/7".into(), "worker a");
    let deploy = FINALIZING.mark("deploy/42".into(), "worker b");

    for id in ["deploy/42", "deploy/43"] {
        println!("{id} is owned: {}", FINALIZING.is_active(id));
    }
    let snapshot = FINALIZING.snapshot();
    println!("owned, in order: {:?}", snapshot.iter().map(|(id, _)| &**id).collect::<Vec<_>>());

    // An operator lets go of a mark: by its id, whoever holds it.
    println!("cleared by hand: {}, and once more: {}", FINALIZING.clear("deploy/42"), FINALIZING.clear("deploy/42"));
    println!("its own monitor sees it: current = {}", deploy.is_current());
    drop((build, deploy));
}

#[test]
fn it_runs() {
    main();
    assert!(FINALIZING.is_empty());
}
