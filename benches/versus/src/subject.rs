//! What is measured: a way to build the registry, and what a thread does with it.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use livemark::{Finalizer, RunningJob};

/// A way to build the registry.
pub trait Subject: Send + Sync + Sized + 'static {
    const NAME: &'static str;
    /// `true` if several threads can use it at once.
    const SHARED: bool = true;
    const BATCH: Batch;
    /// `true` if a write takes the longer the more jobs are owned, without bound.
    const WRITES_COPY_ALL: bool = false;

    /// What a thread uses it through: with the handle that the crate's documentation has each thread keep, if there is
    /// one.
    type Session<'s>: Session
    where
        Self: 's;

    /// An empty one, with room for so many jobs where that can be said.
    fn new(room: usize) -> Self;

    fn session(&self) -> Self::Session<'_>;

    /// Marks all of `jobs`, in one step where the cost of a step grows with the registry.
    fn fill(&self, jobs: &[u64], finalizer: &Finalizer);
}

/// The form in which many look-ups cost least, and what writers meanwhile do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// There is none: one look-up after the other.
    Single,
    /// A lock, or what amounts to one: writers wait.
    Lock,
    /// A pin, or one version of the whole: writers go on, and what they remove is kept for as long.
    Pin,
}

impl Batch {
    pub fn note(self) -> &'static str {
        match self {
            Self::Single => "no batched form",
            Self::Lock => "batch: a writer waits for it",
            Self::Pin => "batch: writers go on",
        }
    }
}

/// A reaper leaves a finished job alone for so long.
pub const GRACE: Duration = Duration::from_secs(300);

/// What a thread does. The answers are used, so that none of the work can be left out.
pub trait Session {
    /// One look-up, by itself.
    fn is_active(&mut self, job: u64) -> bool;

    /// How many of `jobs` are owned, in the batched form.
    fn count_active(&mut self, jobs: &[u64]) -> usize;

    /// How many of the running jobs are past their grace and owned: a reaper's pass, in the batched form.
    ///
    /// A peer's reaper need not know stages, modes, deadlines, lost workers, nor count what it does.
    fn deferred(&mut self, running: &[RunningJob<'static>]) -> usize {
        let past: Vec<u64> = running.iter().filter(|job| job.finished_for > Some(GRACE)).map(|job| *job.id).collect();
        self.count_active(&past)
    }

    /// Runs `act` in the middle of a batch.
    fn during_batch<R>(&mut self, job: u64, act: impl FnOnce() -> R) -> R;

    /// Marks a job that is not owned, runs `act`, and clears the job. Says whether there was no owner before, and
    /// one after.
    ///
    /// Each in a step of its own, as a finalization lies between them. Of the peers no more is asked: a later owner
    /// would not be safe from an earlier one's release.
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool;

    /// Takes over all of `jobs`, for them to be handed over: what their monitors hold.
    fn take_over(&mut self, _jobs: &[u64], _finalizer: &Finalizer) {}

    /// Puts another context in the place of the one of `job`, at `place` among those taken over. Says whether there was
    /// one.
    fn hand_over(&mut self, place: usize, job: u64, finalizer: &Finalizer) -> bool;

    /// An owned copy of all marks, sorted by job: how many there are.
    fn snapshot(&mut self) -> usize;

    fn mark_and_clear(&mut self, job: u64, finalizer: &Finalizer) -> bool {
        self.while_marked(black_box(job), finalizer, |_| ())
    }
}

/// What the peers keep for a job.
pub trait Value: Clone + Debug + Eq + Hash + Send + Sync + 'static {
    fn of(finalizer: &Finalizer) -> Self;
}

/// The context alone. It favours the peers, as livemark also keeps what [`Stamped`] does.
#[derive(Clone, Debug)]
pub struct Plain(Finalizer);

impl Value for Plain {
    #[inline]
    fn of(finalizer: &Finalizer) -> Self {
        Self(finalizer.clone())
    }
}

// For evmap, whose values are bags.

impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        (self.0.run_id, &self.0.stage) == (other.0.run_id, &other.0.stage)
    }
}

impl Eq for Plain {}

impl Hash for Plain {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.run_id, &self.0.stage).hash(state);
    }
}

/// The context, and what a registry cannot do without: since when, and a number that tells one mark from the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stamped {
    generation: u64,
    marked_at: Instant,
    context: Plain,
}

impl Value for Stamped {
    #[inline]
    fn of(finalizer: &Finalizer) -> Self {
        static GENERATIONS: AtomicU64 = AtomicU64::new(0);
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Self { generation, marked_at: Instant::now(), context: Plain::of(finalizer) }
    }
}

/// A [`Session::snapshot`] of what a peer iterates over.
pub fn sorted<V>(marks: impl IntoIterator<Item = (u64, V)>) -> usize {
    let mut marks: Vec<(u64, V)> = marks.into_iter().collect();
    marks.sort_unstable_by_key(|(job, _)| *job);
    black_box(&marks).len()
}

/// [`Session::count_active`] where every look-up is made the same way.
pub fn count(jobs: &[u64], mut is_active: impl FnMut(&u64) -> bool) -> usize {
    jobs.iter().filter(|job| is_active(job)).count()
}
