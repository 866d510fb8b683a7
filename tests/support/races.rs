//! A fair start for races, their end, and what makes them meet.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::waiting::wait_until;

/// Keeps the other races of this process waiting: racers that share a core with theirs hardly ever meet.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TRACK: Mutex<()> = Mutex::new(());
    TRACK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets its flag when dropped: the threads that run until it is set end also where an assertion fails.
#[derive(Debug)]
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets threads start at the same instant, again and again, without sleeping in between.
#[derive(Debug)]
pub(crate) struct StartingLine {
    racers: usize,
    arrived: AtomicUsize,
}

impl StartingLine {
    pub(crate) fn new(racers: usize) -> Self {
        Self { racers, arrived: AtomicUsize::new(0) }
    }

    /// Returns when all racers are here.
    pub(crate) fn wait(&self) {
        let place = self.arrived.fetch_add(1, Ordering::SeqCst);
        let all_here = (place / self.racers + 1) * self.racers;
        for _ in 0..200 {
            if self.arrived.load(Ordering::SeqCst) >= all_here {
                return;
            }
            std::hint::spin_loop();
        }
        // The other racer may need this core; or it has failed, and will never come.
        wait_until("the other racers", || self.arrived.load(Ordering::SeqCst) >= all_here);
    }
}

/// Wastes a little time, more or less of it: so that a race is run at many offsets.
pub(crate) fn dawdle(round: u64) {
    for _ in 0..round % 37 {
        std::hint::spin_loop();
    }
}

/// A job id that takes its time to be cloned: a claim that looks before it makes its entry, and does not look again
/// when it puts it in, has a window that others hit.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SlowToClone(pub(crate) u64);

impl Clone for SlowToClone {
    fn clone(&self) -> Self {
        dawdle(36);
        Self(self.0)
    }
}
