//! What the test files share: drop counting, reclamation on demand, hashers that collide, a fair start for races.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use livemark::{Cause, DeferReason, Policy, Proposed, Registry, RunningJob, Snapshot, Verdict};

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

/// Keeps the books of the [`Tracked`] values it makes, clones included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census(Arc<Mutex<Vec<Arc<AtomicUsize>>>>);

impl Census {
    /// A value that is counted until it is dropped.
    pub(crate) fn tracked(&self, number: u64) -> Tracked {
        let drops = Arc::new(AtomicUsize::new(0));
        self.0.lock().unwrap().push(Arc::clone(&drops));
        Tracked { number, drops, census: self.clone() }
    }

    /// How many were made, by [`Census::tracked`] or by cloning.
    pub(crate) fn made(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// How many are not dropped yet.
    pub(crate) fn live(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|drops| drops.load(Ordering::SeqCst) == 0).count()
    }

    /// Waits until each is dropped, and checks that none was dropped twice.
    pub(crate) fn assert_each_is_dropped_once(&self) {
        reclaim_until("every value is dropped", || self.live() == 0);
        let books = self.0.lock().unwrap();
        let drops = books.iter().map(|drops| drops.load(Ordering::SeqCst));
        assert_eq!(drops.max().unwrap_or(1), 1, "a value was dropped more than once");
    }
}

/// A context value whose every instance is in the books of a [`Census`].
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(crate) number: u64,
    drops: Arc<AtomicUsize>,
    census: Census,
}

impl Clone for Tracked {
    fn clone(&self) -> Self {
        self.census.tracked(self.number)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}

/// Hashes every key alike: all jobs share one bucket, at the last bits of the hash.
#[derive(Default)]
pub(crate) struct Constant;

impl Hasher for Constant {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        0x5EED_5EED_5EED_5EED
    }
}

/// Every key collides with every other.
pub(crate) type AllEqual = BuildHasherDefault<Constant>;

/// Hashes numbers so that they share the low 12 bits and differ in the next: they meet in one slot of the root, and
/// part in its branch.
#[derive(Default)]
pub(crate) struct Crowded(u64);

impl Hasher for Crowded {
    fn write(&mut self, _: &[u8]) {
        panic!("for u64 keys");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number << 12;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Every key goes through one slot of the root.
pub(crate) type OneRootSlot = BuildHasherDefault<Crowded>;

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

/// Returns the ids of the jobs in a snapshot, in its order.
pub(crate) fn jobs_of<V>(snapshot: &Snapshot<u64, V>) -> Vec<u64> {
    snapshot.iter().map(|(job, _)| *job).collect()
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The stage that [`policy`] declares as marking.
pub(crate) const MARKING: &str = "merge";
/// A stage that [`policy`] does not know.
pub(crate) const UNDECLARED: &str = "external";
/// The limits of [`policy`].
pub(crate) const FINALIZE_GRACE: Duration = Duration::from_secs(300);
pub(crate) const LOST_GRACE: Duration = Duration::from_secs(60);
pub(crate) const HARD_DEADLINE: Duration = Duration::from_secs(3600);

/// Honors marks in the stage `MARKING`.
pub(crate) fn policy() -> Policy {
    Policy::builder()
        .finalize_grace(FINALIZE_GRACE)
        .lost_grace(LOST_GRACE)
        .hard_deadline(HARD_DEADLINE)
        .marking_stage(MARKING)
        .build()
        .unwrap()
}

/// A job that runs well.
pub(crate) fn running(id: &u64) -> RunningJob<'_> {
    RunningJob::new(id, MARKING, seconds(10))
}

/// A job that finished longer ago than its grace.
pub(crate) fn finished(id: &u64) -> RunningJob<'_> {
    RunningJob::new(id, MARKING, seconds(400)).finished_for(seconds(301))
}

/// A job whose worker has been lost for longer than its grace.
pub(crate) fn lost(id: &u64) -> RunningJob<'_> {
    RunningJob::new(id, MARKING, seconds(400)).lost_for(seconds(61))
}

/// A job that has run past its hard deadline.
pub(crate) fn overdue(id: &u64) -> RunningJob<'_> {
    RunningJob::new(id, MARKING, seconds(3601))
}

/// A verdict without its claim and its owner, to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Healthy,
    Defer(DeferReason),
    Redrive(Claimed),
    Reap(Cause, Claimed),
    DryRun(Proposed),
}

/// Whether the verdict's claim holds a mark.
pub(crate) type Claimed = bool;

pub(crate) fn said<K, V>(verdict: &Verdict<'_, K, V>) -> Said {
    match verdict {
        Verdict::Healthy => Said::Healthy,
        Verdict::Defer(deferral) => Said::Defer(deferral.reason),
        Verdict::Redrive(claim) => Said::Redrive(claim.guard().is_some()),
        Verdict::Reap(cause, claim) => Said::Reap(*cause, claim.guard().is_some()),
        Verdict::DryRun(proposed) => Said::DryRun(*proposed),
    }
}
