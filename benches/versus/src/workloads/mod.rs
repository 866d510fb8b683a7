//! What is asked of each subject, by groups that have their subjects built anew: no group's leavings are in another's
//! way.

mod beside;
mod judge;
mod memory;
mod reads;
mod tail;
mod whole;
mod writes;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::jobs::{BATCH, Jobs, Random, finalizer};
use crate::peers::{self, Visitor};
use crate::subject::{Plain, Session, Stamped, Subject};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// What it takes, and what is allocated.
    Memory,
    /// Look-ups, nobody else there.
    Reads,
    /// Look-ups while a thread on the other core writes.
    Beside,
    /// Marks, clears and hand-overs.
    Writes,
    /// A mark and clear by peers that keep what livemark keeps.
    Stamped,
    Snapshot,
    /// How long the slowest look-ups take.
    Tail,
    /// A reaper's pass over many jobs, few of them owned: of one size only.
    Judge,
}

impl Group {
    pub const ALL: [Self; 8] =
        [Self::Memory, Self::Reads, Self::Beside, Self::Writes, Self::Stamped, Self::Snapshot, Self::Tail, Self::Judge];

    pub fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Beside => "beside",
            Self::Writes => "writes",
            Self::Stamped => "stamped",
            Self::Snapshot => "snapshot",
            Self::Tail => "tail",
            Self::Judge => "judge",
            Self::Memory => "memory",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Reads => "look-ups, nobody else there: ns per job",
            Self::Beside => "look-ups beside a thread that marks and clears: ns per job, and per its mark+clear",
            Self::Writes => "writes: ns per operation; of two writers, of both together",
            Self::Stamped => "mark+clear, the peers' with clock and generation: ns",
            Self::Snapshot => "snapshot, sorted by job: us",
            Self::Tail => "one look-up of 8 threads that also mark and clear: ns",
            Self::Judge => "a pass over 100 times as many running jobs, the owned ones past their grace: ns per job",
            Self::Memory => "memory: bytes, and allocations per operation",
        }
    }

    /// What need not be repeated.
    pub fn rounds(self, rounds: usize) -> usize {
        if self == Self::Memory { 1 } else { rounds }
    }
}

/// What [`Measured::repeat`] does.
pub const OPERATIONS: [&str; 5] = ["hit", "miss", "hit in batch", "miss in batch", "mark+clear"];

/// One figure, or why there is none.
pub struct Sample {
    pub workload: &'static str,
    pub value: Result<f64, &'static str>,
}

impl Sample {
    fn new(workload: &'static str, value: f64) -> Self {
        Self { workload, value: Ok(value) }
    }

    fn none(workload: &'static str, why: &'static str) -> Self {
        Self { workload, value: Err(why) }
    }
}

const ONE_THREAD: &str = "for one thread only";
/// How many jobs make each write of a subject that copies all of them take a tenth of a second.
const TOO_MANY_TO_COPY: usize = 500_000;
const STUCK: &str = "not done within 250 ms of writes at full speed";
const COPIES: &str = "skipped: each write copies all jobs";

/// A subject whose type is forgotten, since what is timed has been compiled with it.
pub trait Measured: Send {
    fn name(&self) -> &'static str;

    /// What is to be said with its figures.
    fn note(&self) -> &'static str;

    /// Does an operation so many times, one of [`OPERATIONS`]: the same work in every process.
    fn repeat(&mut self, operation: &str, times: usize);

    /// A round of the group: what is to be measured in it, or why it is not.
    fn round(&mut self, group: Group) -> Result<Vec<Sample>, &'static str>;
}

/// A subject, with its owned jobs in it.
struct Bed<S> {
    subject: S,
    jobs: Arc<Jobs>,
    /// Where the last round's draws ended.
    drawn: usize,
    /// Jobs to be marked and cleared: another one each time, as in job systems.
    ///
    /// With one job for all of it, papaya copies its whole table every few dozen operations, whatever its capacity: a
    /// removed entry's place is not taken again before the next copy, and the job's probe sequence fills up. That was
    /// seen as 0.9 us per operation at 1,024 owned jobs and 0.1 ms or more at 65,536: its worst case only.
    fresh: Random,
    writers: u64,
}

impl<S: Subject> Bed<S> {
    fn new(jobs: &Arc<Jobs>) -> Self {
        let subject = S::new(jobs.owned.len());
        subject.fill(&jobs.owned, &finalizer());
        verify(&subject, jobs);
        Self { subject, jobs: Arc::clone(jobs), drawn: 0, fresh: Random::new(1), writers: 1 }
    }

    fn copies_too_many(&self) -> bool {
        S::WRITES_COPY_ALL && self.jobs.owned.len() >= TOO_MANY_TO_COPY
    }

    /// A sequence of jobs for one more writer.
    fn another_writer(&mut self) -> Random {
        self.writers += 1;
        Random::new(self.writers)
    }
}

/// A subject that is built while it is measured.
struct Unbuilt<S>(Arc<Jobs>, PhantomData<S>);

impl<S: Subject> Measured for Unbuilt<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn note(&self) -> &'static str {
        S::BATCH.note()
    }

    fn repeat(&mut self, _: &str, _: usize) {}

    fn round(&mut self, _: Group) -> Result<Vec<Sample>, &'static str> {
        Ok(memory::round::<S>(&self.0))
    }
}

/// Asserts that a subject does what is measured.
fn verify<S: Subject>(subject: &S, jobs: &Jobs) {
    let (mut session, mut random, finalizer) = (subject.session(), Random::new(u64::MAX / 2), finalizer());
    let batch = &jobs.mixed[..BATCH];
    assert_eq!(session.count_active(batch), jobs.owned_of_mixed, "{}", S::NAME);
    assert_eq!(batch.iter().filter(|job| session.is_active(**job)).count(), jobs.owned_of_mixed, "{}", S::NAME);
    let job = random.next();
    let done = session.while_marked(job, &finalizer, |session| {
        assert!(session.is_active(job) && session.count_active(&[job]) == 1, "{}", S::NAME);
    });
    assert!(done && !session.is_active(job) && session.count_active(&[job]) == 0, "{}", S::NAME);
    session.take_over(&jobs.owned[..1], &finalizer);
    assert!(session.hand_over(0, jobs.owned[0], &finalizer) && session.is_active(jobs.owned[0]), "{}", S::NAME);
    assert_eq!(session.snapshot(), jobs.owned.len(), "{}", S::NAME);
}

impl<S: Subject> Measured for Bed<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn note(&self) -> &'static str {
        S::BATCH.note()
    }

    fn repeat(&mut self, operation: &str, times: usize) {
        let (mut session, finalizer) = (self.subject.session(), finalizer());
        let mut hits = self.jobs.hits.chunks_exact(BATCH).cycle();
        let mut misses = self.jobs.misses.chunks_exact(BATCH).cycle();
        for _ in 0..times.div_ceil(BATCH) {
            let [hits, misses] = [&mut hits, &mut misses].map(|draws| draws.next().unwrap_or_default());
            let done = match operation {
                "hit" => hits.iter().filter(|job| session.is_active(**job)).count() == BATCH,
                "miss" => !misses.iter().any(|job| session.is_active(*job)),
                "hit in batch" => session.count_active(hits) == BATCH,
                "miss in batch" => session.count_active(misses) == 0,
                "mark+clear" => misses.iter().all(|job| session.mark_and_clear(*job, &finalizer)),
                _ => false,
            };
            assert!(done, "{} of {}", operation, S::NAME);
        }
    }

    fn round(&mut self, group: Group) -> Result<Vec<Sample>, &'static str> {
        if !S::SHARED && matches!(group, Group::Beside | Group::Tail) {
            return Err(ONE_THREAD);
        }
        if group == Group::Tail && self.copies_too_many() {
            return Err(COPIES);
        }
        Ok(match group {
            Group::Reads => reads::round(self),
            Group::Beside => beside::round(self),
            Group::Writes => writes::round(self),
            Group::Stamped => writes::stamped(self),
            Group::Snapshot => whole::snapshot(self),
            Group::Tail => tail::round(self),
            Group::Judge => judge::round(self),
            Group::Memory => return Err("measured while it is built"),
        })
    }
}

/// All subjects for a group, with the same owned jobs.
pub fn subjects(group: Group, jobs: &Arc<Jobs>) -> Vec<Box<dyn Measured>> {
    let mut build = Build { group, jobs, built: Vec::new() };
    match group {
        Group::Stamped | Group::Memory => peers::each::<Stamped>(&mut build),
        _ => peers::each::<Plain>(&mut build),
    }
    build.built
}

struct Build<'a> {
    group: Group,
    jobs: &'a Arc<Jobs>,
    built: Vec<Box<dyn Measured>>,
}

impl Visitor for Build<'_> {
    fn visit<S: Subject>(&mut self) {
        self.built.push(match self.group {
            Group::Memory => Box::new(Unbuilt::<S>(Arc::clone(self.jobs), PhantomData)),
            _ => Box::new(Bed::<S>::new(self.jobs)),
        });
    }
}

/// Nanoseconds for one of what `run` does the given number of times. Done for some time first, to have code and data
/// in the caches, as in a hot loop, and to find out how often to look at the clock.
fn time(budget: Duration, mut run: impl FnMut(usize)) -> f64 {
    let mut chunk = 1;
    loop {
        let start = Instant::now();
        run(chunk);
        if start.elapsed() >= budget / 8 {
            break;
        }
        chunk *= 2;
    }
    let (start, mut runs) = (Instant::now(), 0);
    loop {
        run(chunk);
        runs += chunk;
        let took = start.elapsed();
        if took >= budget {
            return took.as_secs_f64() * 1e9 / runs as f64;
        }
    }
}
