//! One registry for the process, as a `static`: monitor threads mark, and anyone asks.
//!
//! ```sh
//! cargo run --example static_registry
//! ```
//!
//! ```text
//! job 1 is owned by run 10, in test
//! job 2 is owned by run 20, in merge
//! job 3 is not owned
//! the second claim of job 1 is refused: run 10 is at it
//! all monitors have ended: 0 jobs are owned
//! ```

use std::sync::Barrier;
use std::thread;

use livemark::{Finalizer, Registry};

static FINALIZING: Registry = Registry::new();

fn main() {
    let (marked, seen) = (Barrier::new(3), Barrier::new(3));
    thread::scope(|scope| {
        for (job, stage) in [(1, "test"), (2, "merge")] {
            let (marked, seen) = (&marked, &seen);
            scope.spawn(move || {
                let _mark = FINALIZING.mark(job, Finalizer::new(Some(job * 10), stage));
                marked.wait();
                seen.wait(); // minutes of gates, here
            }); // the mark is cleared
        }

        marked.wait();
        for job in 1..=3 {
            match FINALIZING.owner(&job) {
                Some(owner) => println!("job {job} is owned by run {}, in {}", run(&owner.value), owner.value.stage),
                None => println!("job {job} is not owned"),
            }
        }
        let occupied = FINALIZING.try_mark(1, Finalizer::new(Some(99), "test")).expect_err("its monitor has it");
        println!("the second claim of job 1 is refused: run {} is at it", run(&occupied.owner.value));
        seen.wait();
    });
    println!("all monitors have ended: {} jobs are owned", FINALIZING.len());
}

fn run(finalizer: &Finalizer) -> u64 {
    finalizer.run_id.unwrap_or_default()
}

#[test]
fn it_runs() {
    main();
    assert!(FINALIZING.is_empty());
}
