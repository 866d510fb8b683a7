//! Whose time destructors take: writers', never that of a look-up. Alone in its process: other tests' threads would
//! free as well.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use livemark::{Reaper, Registry};
use support::{policy, wait_until};

/// Where values were dropped.
static DROPPED_ON: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

/// Notes the thread that drops it.
#[derive(Clone)]
struct Traced;

impl Drop for Traced {
    fn drop(&mut self) {
        DROPPED_ON.lock().unwrap_or_else(PoisonError::into_inner).push(thread::current().id());
    }
}

fn dropped_on(thread: ThreadId) -> usize {
    DROPPED_ON.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|on| **on == thread).count()
}

fn dropped() -> usize {
    DROPPED_ON.lock().unwrap_or_else(PoisonError::into_inner).len()
}

// Seen to fail, on the first count, with batches that are freed by whoever finds that their epoch has passed.
#[test]
fn look_ups_free_nothing_and_a_sweep_what_is_due() {
    let registry = Registry::new();
    let _owned = registry.mark(7_u64, Traced);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(registry.is_active(&7) && !registry.is_active(&8));
            }
            thread::current().id()
        });
        wait_until("what was cleared is freed", || {
            (100..200).for_each(|job| drop(registry.mark(job, Traced)));
            dropped() > 5_000
        });
        done.store(true, Ordering::Relaxed);
        let asking = asking.join().expect("the answers are right");
        assert_eq!(dropped_on(asking), 0, "a look-up ran a destructor");
        assert_eq!(dropped_on(thread::current().id()), dropped(), "the writer's, all of them");
    });

    // Nobody writes any more. Look-ups let the epoch of what was handed over pass; a sweep frees.
    let sweeping = thread::scope(|scope| {
        let sweep = || {
            let reaper = Reaper::with_claim(&registry, policy(), |_| Traced);
            wait_until("a sweep frees", || {
                assert!((0..1_000).all(|_| registry.is_active(&7)));
                drop(reaper.sweep());
                dropped_on(thread::current().id()) > 0
            });
        };
        scope.spawn(sweep).join()
    });
    sweeping.expect("it freed something");
}
