//! What is replaced is freed beside a reader in use. Alone in its process: marks of other tests would let the epoch
//! pass.

mod support;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use livemark::Registry;
use support::{Census, wait_until};

/// Ends the reader's thread also where the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// Seen to fail (nothing was freed any more) with a `replace` that does not flush.
#[test]
fn a_reader_in_use_lets_what_is_replaced_be_freed() {
    let census = Census::default();
    let registry = Registry::new();
    let guard = registry.mark(7_u64, census.tracked(0));
    let (done, pinned) = (AtomicBool::new(false), Barrier::new(2));
    thread::scope(|scope| {
        let done = Done(&done);
        scope.spawn(|| {
            let mut reader = registry.reader();
            assert!(reader.is_active(&7));
            pinned.wait();
            while !done.0.load(Ordering::Relaxed) {
                assert!(reader.is_active(&7));
            }
        });
        pinned.wait();
        wait_until("what was replaced is freed", || {
            for _ in 0..64 {
                assert!(guard.replace(census.tracked(0)));
            }
            census.made() > census.live() + 1_000
        });
    });
}
