//! Waiting: for what another thread is about to do, and for memory to be freed.

use std::thread;
use std::time::{Duration, Instant};

use livemark::Registry;

/// How long anything may take that is only a matter of time. Generous: it is met on failure only.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `done`, while this thread makes the shared collector free what is due.
///
/// Every 64th mark of a stripe collects, whichever registry it is on, and garbage is free three epochs later.
/// Another test of the same process may be pinned for a while, so this tries again for as long as patience lasts.
pub(crate) fn reclaim_until(awaited: &str, done: impl Fn() -> bool) {
    assert!(reclaims_within(PATIENCE, done), "not reclaimed after {PATIENCE:?}: {awaited}");
}

/// Collects for a few epochs and a moment more: whatever nobody holds back is freed after it, as far as one can tell.
pub(crate) fn reclaim_for_a_moment() {
    reclaims_within(Duration::from_millis(20), || false);
}

fn reclaims_within(patience: Duration, done: impl Fn() -> bool) -> bool {
    let churned: Registry<u64, ()> = Registry::new();
    let start = Instant::now();
    loop {
        for _ in 0..64 * 16 {
            drop(churned.mark(0, ()));
        }
        if done() {
            return true;
        }
        if start.elapsed() > patience {
            return false;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// Spins until `done`: for the other side of a race, which is about to act.
pub(crate) fn wait_until(awaited: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {awaited}");
        thread::yield_now();
    }
}
