//! The allocator fails: the process aborts, as Rust's does by default, and until that instant every mark stands.
//!
//! Run in a process of its own for each allocation of a mark, which this starts: an abort cannot be caught.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use livemark::Registry;

use crate::heap;
use crate::process::{assert_passed, child, said};
use crate::support::AllEqual;

/// Which allocation fails, in the process that is started.
const FAILS: &str = "LIVEMARK_TEST_FAILING_ALLOCATION";
/// Equal hashes: one slot, which grows a bucket.
const JOBS: u64 = 20;

/// An allocation has failed, and waits for the registry to be looked at.
static FAILED: AtomicBool = AtomicBool::new(false);
static LOOKED: AtomicBool = AtomicBool::new(false);

/// Called in the middle of the allocation that fails.
fn wait_for_the_look() {
    FAILED.store(true, Ordering::SeqCst);
    while !LOOKED.load(Ordering::SeqCst) {
        thread::yield_now();
    }
}

/// In the process that is started: marks until the allocator fails.
fn mark_until_it_fails(allocation: u64) {
    static REGISTRY: Registry<u64, u64, AllEqual> = Registry::with_hasher(AllEqual::new());
    // The process's collector is made once, and whoever needs it meanwhile waits: so it is made before.
    drop(Registry::<u64, ()>::new().mark(0, ()));
    let watcher = thread::spawn(|| {
        while !FAILED.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        // In the middle of another thread's mark.
        let snapshot = REGISTRY.snapshot();
        let jobs: Vec<u64> = snapshot.iter().map(|(job, _)| *job).collect();
        let whole = snapshot.is_atomic()
            && jobs.iter().copied().eq(0..jobs.len() as u64)
            && snapshot.iter().all(|(job, owner)| owner.value == job * 3 && REGISTRY.is_active(job));
        // Others go on as if nothing had happened.
        let guard = REGISTRY.mark(1_000, 1);
        let goes_on = guard.replace(2) && guard.clear() && !REGISTRY.is_active(&1_000);
        eprintln!("looked: {} jobs, {}", jobs.len(), if whole && goes_on { "whole" } else { "CORRUPT" });
        LOOKED.store(true, Ordering::SeqCst);
    });
    heap::fail_after(allocation, wait_for_the_look);
    let guards: Vec<_> = (0..JOBS).map(|job| REGISTRY.mark(job, job * 3)).collect();
    heap::fail_no_more();
    assert_eq!(REGISTRY.len(), guards.len());
    eprintln!("no allocation failed");
    FAILED.store(true, Ordering::SeqCst);
    watcher.join().expect("it looks");
}

#[test]
fn an_allocation_that_fails_aborts_and_leaves_every_mark_as_it_was() {
    if let Ok(allocation) = env::var(FAILS) {
        return mark_until_it_fails(allocation.parse().expect("a number"));
    }
    let mut failures = 0;
    for allocation in 0.. {
        let mut child = child().expect("no child without an allocation that fails");
        // A backtrace of each abort takes most of the time.
        child.env("RUST_BACKTRACE", "0");
        let ran = child.env(FAILS, allocation.to_string()).output().expect("the child starts");
        let said = said(&ran);
        assert!(said.contains("whole") && !said.contains("CORRUPT"), "allocation {allocation}: {said}");
        if said.contains("no allocation failed") {
            assert_passed(&ran);
            break;
        }
        assert!(!ran.status.success() && said.contains("memory allocation of"), "allocation {allocation}: {said}");
        failures += 1;
    }
    // One for each mark at least, and those of the slots, the thread and the collector.
    assert!(failures > JOBS, "only {failures} allocations were made to fail");
}
