//! Marks in async tasks: held across `.await`, and cleared however the task ends.
//!
//! ```sh
//! cargo run --example tokio_cancellation
//! ```
//!
//! ```text
//! while it waits:        owned
//! after an abort:        free
//! after a timeout:       free
//! after a lost select:   free
//! after a panic:         free
//! after its end:         free
//! ```

use std::sync::Arc;
use std::time::Duration;

use livemark::Registry;
use tokio::time::{sleep, timeout};

/// Shared by tasks, so in an `Arc`: its guards keep it alive. (Those of a `static` need not.)
type Jobs = Arc<Registry<u64, &'static str>>;

const JOB: u64 = 7;

async fn finalize(registry: Jobs, gates: Duration) {
    let _mark = registry.mark_owned(JOB, "run 1");
    sleep(gates).await;
}

async fn finalize_badly(registry: Jobs) {
    let _mark = registry.mark_owned(JOB, "run 1");
    std::panic::resume_unwind(Box::new("a gate blew up")); // as `panic!`, without its message
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let registry = Jobs::default();
    let minutes = Duration::from_secs(600);
    let told = |when: &str| println!("{when:22} {}", if registry.is_active(&JOB) { "owned" } else { "free" });

    let task = tokio::spawn(finalize(Arc::clone(&registry), minutes));
    while !registry.is_active(&JOB) {
        tokio::task::yield_now().await;
    }
    told("while it waits:");
    task.abort();
    assert!(task.await.is_err_and(|error| error.is_cancelled()));
    told("after an abort:");

    assert!(timeout(Duration::from_millis(1), finalize(Arc::clone(&registry), minutes)).await.is_err());
    told("after a timeout:");

    tokio::select! {
        () = finalize(Arc::clone(&registry), minutes) => unreachable!("it takes minutes"),
        () = sleep(Duration::from_millis(1)) => {}
    }
    told("after a lost select:");

    assert!(tokio::spawn(finalize_badly(Arc::clone(&registry))).await.is_err_and(|error| error.is_panic()));
    told("after a panic:");

    finalize(Arc::clone(&registry), Duration::ZERO).await;
    told("after its end:");
}

#[test]
fn it_runs() {
    main();
}
