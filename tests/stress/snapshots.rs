//! Snapshots beside writers: one that is called atomic shows a state that was.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use livemark::Registry;

use crate::support::{Stop, alone, jobs_of};

/// Lets `write` run on another thread, over and over, while `look` takes snapshots; returns how many were atomic.
fn snapshots_while(write: impl Fn() + Sync, mut look: impl FnMut() -> bool) -> u64 {
    let _alone = alone();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                write();
                // A moment of peace now and then, for an atomic reading to be had also on a slow machine.
                thread::yield_now();
            }
        });
        let start = Instant::now();
        let mut atomic = 0;
        // At least 500 ms, and for as long as it takes to see some.
        while start.elapsed() < Duration::from_millis(500) || (atomic < 20 && start.elapsed() < Duration::from_secs(30))
        {
            atomic += u64::from(look());
        }
        atomic
    })
}

// Seen to fail with a `double_collect` that called its first reading atomic.
#[test]
fn an_atomic_snapshot_shows_a_state_that_was() {
    const JOBS: u64 = 64;
    let registry: Registry<u64, ()> = Registry::new();
    // The jobs are marked in the order of their ids and cleared in the same order: those that are owned at one
    // instant are a run without gaps. They lie all over the map.
    let write = || {
        let guards: Vec<_> = (0..JOBS).map(|job| registry.mark(job, ())).collect();
        for guard in guards {
            assert!(guard.clear());
        }
    };
    let atomic = snapshots_while(write, || {
        let snapshot = registry.snapshot();
        let seen = jobs_of(&snapshot);
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "each job once, in order: {seen:?}");
        if snapshot.is_atomic() {
            assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "never at one instant: {seen:?}");
        }
        snapshot.is_atomic()
    });
    assert!(atomic > 0, "no snapshot was atomic, so nothing was checked");
}

// Seen to fail with a `double_collect` that called its first reading atomic, and with a `replace` that removed and inserted.
#[test]
fn an_atomic_snapshot_never_misses_a_job_that_is_handed_over() {
    let registry: Registry<u64, u64> = Registry::new();
    let kept = registry.mark(1_000, 0);
    let write = || {
        let mut held = registry.mark(0, 0);
        for job in 1..50 {
            // The next is marked before the last is cleared.
            held = registry.mark(job, job);
            assert!(kept.replace(job));
        }
        // Before the last one is cleared, the first of the next round has to be there.
        std::mem::forget(registry.mark(0, 0));
        drop(held);
    };
    write();
    let atomic = snapshots_while(write, || {
        let snapshot = registry.snapshot();
        assert!(snapshot.get(&1_000).is_some(), "a job that is only ever replaced is always owned");
        if snapshot.is_atomic() {
            assert!(snapshot.len() >= 2, "neither the old nor the new job: {:?}", jobs_of(&snapshot));
        }
        snapshot.is_atomic()
    });
    assert!(atomic > 0, "no snapshot was atomic, so nothing was checked");
}
