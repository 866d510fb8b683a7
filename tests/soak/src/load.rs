//! The threads of the soak.

use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use livemark::{Cause, Generation, Mode, OwnedMarkGuard, Policy, Reaper, Registry, RunningJob, Verdict, reclaim_stats};

use crate::books::{Books, Context, Quiet};
use crate::store::{End, Row, Store};

type Jobs = Registry<u64, Context>;
type Guard = OwnedMarkGuard<u64, Context>;

const MONITORS: usize = 4;
const REAPERS: usize = 2;
/// With a closer, a reader, one that hands two jobs over and over, a snapshot taker, one for private jobs, and who
/// swaps policies.
pub(crate) const THREADS: usize = MONITORS + REAPERS + 6;

/// The job system's times, a hundred thousandth of real ones.
const GRACE: Duration = Duration::from_millis(3);
const DEADLINE: Duration = Duration::from_millis(60);
/// How often everybody pauses for the books.
const ROUND: Duration = Duration::from_secs(2);
const STAGE: &str = "merge";
/// Ids beyond those of the store's jobs.
const PRIVATE: u64 = 1 << 60;
const TWINS: [u64; 2] = [PRIVATE - 1, PRIVATE - 2];

/// What finalizers panic with.
pub(crate) struct OnPurpose;

/// A run.
#[derive(Debug, Default)]
pub(crate) struct Soak {
    pub(crate) books: Books,
    registry: Arc<Jobs>,
    store: Store,
    next_job: AtomicU64,
    done: AtomicBool,
    /// No snapshot is taken any more.
    looked: AtomicBool,
    /// Held for reading by whoever acts.
    gate: RwLock<()>,
}

/// A guard whose release is counted: it is not to be leaked but by `leak`.
struct Held<'s> {
    guard: Option<Guard>,
    books: &'s Books,
}

impl Deref for Held<'_> {
    type Target = Guard;

    fn deref(&self) -> &Guard {
        self.guard.as_ref().expect("it is taken by what consumes it")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.guard.take().is_some() {
            self.books.counts.releases.one();
        }
    }
}

/// A finalizer at work; it leaves when it is done and when it panics, before its mark is cleared.
struct Inside<'s> {
    store: &'s Store,
    job: u64,
    generation: u64,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.store.leave(self.job, self.generation);
    }
}

/// Sets its flag also where its thread panics.
struct SetAtEnd<'s>(&'s AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Soak {
    /// Runs for so long, then checks the books for the last time.
    pub(crate) fn run(&self, time: Duration, seed: u64) {
        let started = Instant::now();
        let reaper = Reaper::with_claim(&*self.registry, policy(Mode::Honor, GRACE), |job: &RunningJob<'_>| {
            Context::new(*job.id)
        });
        let (closer, arrived) = channel();
        let twin = self.held(self.registry.mark_owned(TWINS[0], Context::new(TWINS[0])));
        thread::scope(|scope| {
            for number in 0..MONITORS {
                let (rng, closer) = (Rng::with_seed(seed.wrapping_add(number as u64)), closer.clone());
                scope.spawn(move || self.monitor(rng, &closer));
            }
            drop(closer);
            scope.spawn(move || self.close(&arrived));
            for _ in 0..REAPERS {
                scope.spawn(|| self.reap(&reaper));
            }
            scope.spawn(|| self.read());
            scope.spawn(move || self.hand_over(twin));
            scope.spawn(|| self.snapshot());
            scope.spawn(|| self.keep_to_itself(Rng::with_seed(seed ^ 7)));
            scope.spawn(|| self.swap_policies(&reaper, Rng::with_seed(seed ^ 9)));
            self.keep_books(started, time);
            self.done.store(true, Ordering::Relaxed);
        });
        self.audit();
        self.books.close(started.elapsed());
    }

    /// Pauses everybody now and then and compares.
    fn keep_books(&self, started: Instant, time: Duration) {
        let mut said = Instant::now();
        while started.elapsed() < time {
            thread::sleep(ROUND.min(time.saturating_sub(started.elapsed())));
            let pause = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            self.audit();
            drop(pause);
            if said.elapsed() > Duration::from_secs(10) {
                said = Instant::now();
                let (jobs, kib) = (self.books.counts.created.get(), self.books.memory().last);
                println!("after {} s: {jobs} jobs, {kib} KiB allocated", started.elapsed().as_secs());
            }
        }
    }

    /// Frees what waits to be freed, while nobody is pinned, so that what is left is what is lost.
    fn drain() {
        let scratch: Registry<u64, ()> = Registry::new();
        for _ in 0..10_000 {
            (0..64 * 4).for_each(|_| drop(scratch.mark(0, ())));
            if reclaim_stats().unreclaimed() < 1_000 {
                return;
            }
        }
    }

    fn audit(&self) {
        Self::drain();
        self.books.audit(Quiet {
            registry: self.registry.stats(),
            marked: self.registry.len() as u64,
            jobs_left: self.store.len(),
            live_values: Context::alive(),
            unreclaimed: reclaim_stats().unreclaimed(),
        });
    }

    /// Says if the load goes on. Nobody pauses while the answer is held.
    fn goes_on(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let acting = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        (!self.done.load(Ordering::Relaxed)).then_some(acting)
    }

    fn held(&self, guard: Guard) -> Held<'_> {
        Held { guard: Some(guard), books: &self.books }
    }

    /// Creates jobs, and finalizes them, or not.
    fn monitor<'s>(&'s self, mut rng: Rng, closer: &Sender<Guard>) {
        // Finalizers that stand still with their guards, until the backstop has displaced them; and slow ones, which
        // take their time.
        let mut hung: Vec<Held<'s>> = Vec::new();
        let mut slow: Vec<(Instant, Held<'s>)> = Vec::new();
        while let Some(_acting) = self.goes_on() {
            let counts = &self.books.counts;
            hung.retain(|held| {
                let current = held.is_current();
                counts.displaced.add(u64::from(!current));
                current
            });
            let before = slow.len() + hung.len();
            for (_, held) in slow.extract_if_due() {
                self.commit(&held);
            }
            // No more of them than a machine could have.
            let may_wait = before < 50;
            let job = self.next_job.fetch_add(1, Ordering::Relaxed);
            self.store.create(job);
            counts.created.one();
            let choice = rng.u32(..1_000);
            if choice < 20 {
                // Its worker is lost: it never finishes.
                self.store.lose(job);
                continue;
            }
            if choice < 40 {
                // It dies before it marks.
                self.store.finish(job);
                continue;
            }
            let marked = if rng.bool() {
                self.registry.try_mark_owned(job, Context::new(job)).ok()
            } else {
                Some(self.registry.mark_owned(job, Context::new(job)))
            };
            let Some(guard) = marked else {
                self.books.violated(format!("job {job} has an owner before it is finished"));
                continue;
            };
            let held = self.held(guard);
            if !self.store.enter(job, held.generation().get(), &self.books) {
                // This thread was held up for so long that the backstop came first.
                counts.outdated.one();
                continue;
            }
            self.store.finish(job);
            self.look_at(&held);
            match choice {
                40..60 if may_wait => {
                    counts.hung.one();
                    hung.push(held);
                }
                60..100 if may_wait => {
                    counts.slow.one();
                    slow.push((Instant::now() + GRACE * rng.u32(2..6), held));
                }
                100..160 => {
                    let inside = Inside { store: &self.store, job, generation: held.generation().get() };
                    let panicked = catch_unwind(AssertUnwindSafe(move || {
                        // Dropped in this order as well.
                        let (_mark, _inside) = (held, inside);
                        panic_any(OnPurpose);
                    }));
                    counts.panicked.add(u64::from(panicked.is_err()));
                }
                160..165 => {
                    // Nobody is at work any more; the mark stands until the backstop.
                    counts.leaked.one();
                    let mut held = held;
                    self.store.leave(job, held.generation().get());
                    std::mem::forget(held.guard.take());
                }
                165..300 => {
                    counts.travelled.one();
                    let mut held = held;
                    if let Some(guard) = held.guard.take() {
                        closer.send(guard).expect("the closer outlives the monitors");
                    }
                }
                300..400 => {
                    if held.replace(Context::new(job)) {
                        counts.replaced.one();
                    }
                    self.look_at(&held);
                    self.commit(&held);
                }
                400..450 => {
                    // Its generation is cleared by whoever was told of it.
                    let mut held = held;
                    let generation = held.generation();
                    self.commit(&held);
                    std::mem::forget(held.guard.take());
                    self.registry.clear_generation(&job, generation);
                    counts.releases.one();
                }
                _ => self.commit(&held),
            }
        }
        // They die with their monitor, a moment before the reapers stop.
        for held in hung.iter().chain(slow.iter().map(|(_, held)| held)) {
            self.store.leave(*held.job(), held.generation().get());
        }
    }

    /// Commits the final state and leaves.
    fn commit(&self, held: &Held<'_>) {
        let (job, generation) = (*held.job(), held.generation().get());
        let current = held.is_current();
        let committed = self.store.end(job, generation, End::Committed, &self.books);
        if !current {
            self.books.counts.displaced.one();
        }
        // Whoever ended the job in its place has displaced it first.
        if !committed && held.is_current() {
            self.books.violated(format!("job {job} was ended beside its live owner {generation}"));
        }
        self.store.leave(job, generation);
    }

    /// While a mark stands, nobody says that it does not.
    fn look_at(&self, held: &Held<'_>) {
        let job = *held.job();
        let before = held.is_current();
        let active = self.registry.is_active(&job);
        let owner = self.registry.owner(&job);
        let read = self.registry.reader().is_active(&job);
        self.books.counts.looks.add(3);
        if before && held.is_current() {
            if !active || !read {
                self.books.violated(format!("job {job} is owned, and said not to be"));
            }
            let right = owner.is_some_and(|owner| owner.generation == held.generation() && owner.value.is_of(job));
            if !right {
                self.books.violated(format!("job {job} is owned, by another than its owner"));
            }
        }
    }

    /// Ends what was begun on other threads.
    fn close(&self, guards: &Receiver<Guard>) {
        for guard in guards {
            let held = self.held(guard);
            let _acting = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            self.look_at(&held);
            self.commit(&held);
            drop(held);
        }
    }

    /// Sweeps over all jobs, and acts.
    fn reap(&self, reaper: &Reaper<'_, u64, Context>) {
        let mut rows = Vec::new();
        while let Some(_acting) = self.goes_on() {
            self.store.list(&mut rows);
            let now = Instant::now();
            let mut sweep = reaper.sweep();
            self.books.counts.sweeps.one();
            for (id, row) in &rows {
                self.act(*id, sweep.judge(&running(id, row, now)));
            }
        }
    }

    fn act(&self, job: u64, verdict: Verdict<'_, u64, Context>) {
        let counts = &self.books.counts;
        let (end, claim) = match verdict {
            Verdict::Redrive(claim) => (End::Redriven, claim),
            Verdict::Reap(Cause::WorkerLost, claim) => (End::ReapedLost, claim),
            Verdict::Reap(Cause::Backstop, claim) => (End::ReapedBackstop, claim),
            Verdict::Reap(Cause::RedrivesExhausted, _) => return self.books.violated("a job was redriven too often"),
            Verdict::Defer(_) => return counts.deferred.one(),
            Verdict::Healthy | Verdict::DryRun(_) => return,
        };
        let Some(generation) = claim.generation().map(Generation::get) else {
            return self.books.violated(format!("job {job} was given without a claim where marks count"));
        };
        let listed = end != End::Redriven || self.store.enter(job, generation, &self.books);
        if !listed || !self.store.end(job, generation, end, &self.books) {
            counts.outdated.one();
        }
        drop(claim);
        counts.releases.one();
    }

    /// Looks jobs up as fast as it can: what it finds is alive, and of the job that was asked for.
    fn read(&self) {
        while let Some(_acting) = self.goes_on() {
            let newest = self.next_job.load(Ordering::Relaxed);
            let mut reader = self.registry.reader();
            for job in newest.saturating_sub(2_000)..newest {
                if reader.owner(&job).is_some_and(|owner| !owner.value.is_of(job)) {
                    self.books.violated(format!("job {job} was read with a context that is not its own"));
                }
            }
            self.books.counts.looks.add(newest.min(2_000));
        }
    }

    /// Goes from one of two jobs to the other, and never has neither.
    fn hand_over<'s>(&'s self, mut here: Held<'s>) {
        while let Some(_acting) = self.goes_on() {
            for _ in 0..100 {
                let other = if *here.job() == TWINS[0] { TWINS[1] } else { TWINS[0] };
                here = self.held(self.registry.mark_owned(other, Context::new(other)));
            }
        }
        // It goes when nobody looks any more.
        while !self.looked.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    }

    fn snapshot(&self) {
        let _end = SetAtEnd(&self.looked);
        while let Some(_acting) = self.goes_on() {
            let snapshot = self.registry.snapshot();
            let jobs: Vec<u64> = snapshot.iter().map(|(job, _)| *job).collect();
            if !jobs.is_sorted_by(|one, other| one < other) {
                self.books.violated("a snapshot is not sorted, or has a job twice");
            }
            if snapshot.iter().any(|(job, owner)| !owner.value.is_of(*job)) {
                self.books.violated("a snapshot has a context that is not its job's");
            }
            if !snapshot.is_atomic() {
                self.books.counts.torn.one();
                continue;
            }
            self.books.counts.snapshots.one();
            if TWINS.iter().all(|twin| snapshot.get(twin).is_none()) {
                self.books.violated("an atomic snapshot missed a job that was handed over");
            }
        }
    }

    /// With jobs that nobody else touches, everything is as if there were nobody else.
    fn keep_to_itself(&self, mut rng: Rng) {
        let books = &self.books;
        let registry = &self.registry;
        while let Some(_acting) = self.goes_on() {
            for _ in 0..100 {
                let job = PRIVATE + rng.u64(..1_000);
                let mut held = self.held(registry.mark_owned(job, Context::new(job)));
                if registry.try_mark(job, Context::new(job)).is_ok() {
                    books.violated(format!("private job {job} was claimed twice"));
                }
                books.counts.refused.one();
                let cleared = if rng.bool() {
                    books.counts.cleared.one();
                    registry.clear(&job)
                } else {
                    books.counts.releases.one();
                    held.guard.take().is_some_and(Guard::clear)
                };
                if !cleared || registry.is_active(&job) || registry.reader().is_active(&job) {
                    books.violated(format!("private job {job} is kept after its clear"));
                }
            }
        }
    }

    /// Modes in which marks count. Not `Ignore`, under which a live finalizer is redriven: that is what it is for.
    fn swap_policies(&self, reaper: &Reaper<'_, u64, Context>, mut rng: Rng) {
        while let Some(acting) = self.goes_on() {
            let mode = [Mode::Honor, Mode::Honor, Mode::Honor, Mode::DeferAll, Mode::DryRun][rng.usize(..5)];
            reaper.set_policy(policy(mode, GRACE * rng.u32(1..4)));
            self.books.counts.swaps.one();
            drop(acting);
            thread::sleep(Duration::from_millis(rng.u64(1..10)));
        }
        reaper.set_policy(policy(Mode::Honor, GRACE));
    }
}

/// Takes those whose time has come.
trait ExtractDue<'s> {
    fn extract_if_due(&mut self) -> Vec<(Instant, Held<'s>)>;
}

impl<'s> ExtractDue<'s> for Vec<(Instant, Held<'s>)> {
    fn extract_if_due(&mut self) -> Vec<(Instant, Held<'s>)> {
        let now = Instant::now();
        let (due, later) = std::mem::take(self).into_iter().partition(|(at, _)| *at <= now);
        *self = later;
        due
    }
}

fn policy(mode: Mode, grace: Duration) -> Policy {
    let policy = Policy::builder().mode(mode).finalize_grace(grace).lost_grace(grace).hard_deadline(DEADLINE);
    policy.marking_stage(STAGE).build().expect("the deadline is beyond the grace")
}

fn running<'a>(id: &'a u64, row: &Row, now: Instant) -> RunningJob<'a> {
    let since = |at: Instant| now.saturating_duration_since(at);
    let mut job = RunningJob::new(id, STAGE, since(row.started));
    (job.finished_for, job.lost_for) = (row.finished.map(since), row.lost.map(since));
    job
}
