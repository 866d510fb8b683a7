//! The threads that run histories, one after the other.

use std::array;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use fastrand::Rng;
use livemark::Registry;

use crate::call::{Answer, Call, JOBS, Value};
use crate::hesitate::{self, AsChosen, Job, hesitate};
use crate::history::{Answered, History};
use crate::spec::Spec;
use crate::subject::{Bug, Guard, Jobs, Subject, read};

/// The most of a history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) threads: usize,
    pub(crate) calls: usize,
}

impl Size {
    /// Small enough for every order of its calls to be tried.
    pub(crate) const ANY: Self = Self { threads: CREW, calls: 4 };
}

const CREW: usize = 3;
/// How many histories have a slot of their own each, before the registry is made anew.
const HISTORIES: u64 = 8_192;
/// Marked neighbours: with two more their slot grows into a branch.
const NEIGHBOURS: u64 = 7;

/// Where the jobs of a history are.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Alone,
    OneSlot,
    EqualHashes,
    /// In one slot, which grows.
    Crowded,
}

/// What one thread does in a history.
struct Program {
    subject: Arc<Subject>,
    jobs: [Job; JOBS],
    others: usize,
    calls: usize,
    seed: u64,
    /// Guards of marks that were made before.
    guards: Vec<(usize, Guard)>,
}

/// What a thread called, and the guards that it has left.
type Done = (Vec<Answered>, Vec<(usize, Guard)>);

/// What the threads share.
#[derive(Default)]
struct Stage {
    /// Counts histories; the threads begin when it goes up.
    begun: AtomicUsize,
    /// How many threads are at the starting line of this history.
    ready: AtomicUsize,
    racing: AtomicUsize,
    ended: AtomicUsize,
    ticket: AtomicUsize,
    programs: Mutex<Vec<Program>>,
    results: Mutex<Vec<Done>>,
}

/// The threads, and the registry that they work on.
pub(crate) struct Crew {
    stage: Arc<Stage>,
    threads: Vec<JoinHandle<()>>,
    subject: Arc<Subject>,
    rng: Rng,
    histories: u64,
}

impl Crew {
    pub(crate) fn new(bug: Bug, seed: u64) -> Self {
        let stage = Arc::new(Stage::default());
        let member = |_| {
            let stage = Arc::clone(&stage);
            thread::spawn(move || {
                // The others would wait for it for ever.
                if catch_unwind(AssertUnwindSafe(|| stage.take_part())).is_err() {
                    std::process::abort();
                }
            })
        };
        // The caller's own thread is one of them.
        let threads = (1..CREW).map(member).collect();
        Self { threads, subject: subject(bug), rng: Rng::with_seed(seed), histories: 0, stage }
    }

    /// Runs a history of at most this size.
    pub(crate) fn run(&mut self, size: Size) -> History {
        if self.histories % HISTORIES == HISTORIES - 1 {
            self.subject = subject(self.subject.bug);
        }
        self.histories += 1;
        let registry = Arc::clone(&self.subject.registry);
        let (jobs, shape) = self.jobs();
        let crowd = if matches!(shape, Shape::Crowded) { NEIGHBOURS } else { 0 };
        let neighbours: Vec<Guard> =
            (0..crowd).map(|number| registry.mark_owned(neighbour(&jobs, number), 0)).collect();

        // Some jobs are marked already, and their guards are anyone's: late releases meet newer owners.
        let mut before = Spec { owners: [None; JOBS], greatest: [0; JOBS], others: neighbours.len() };
        let threads = self.rng.usize(2..=size.threads);
        let mut guards: Vec<Vec<(usize, Guard)>> = (0..threads).map(|_| Vec::new()).collect();
        for (place, job) in jobs.iter().enumerate() {
            for _ in 0..self.rng.usize(0..=2) {
                let value = self.rng.u64(1_000..2_000);
                let guard = registry.mark_owned(Job { ..*job }, value);
                before.greatest[place] = guard.generation().get();
                before.owners[place] = Some((guard.generation().get(), value));
                guards[self.rng.usize(..threads)].push((place, guard));
            }
        }

        let program = |(seed, guards): (u64, Vec<(usize, Guard)>)| Program {
            subject: Arc::clone(&self.subject),
            jobs: array::from_fn(|place| Job { ..jobs[place] }),
            others: neighbours.len(),
            calls: 1 + usize::try_from(seed % size.calls as u64).unwrap_or(0),
            seed,
            guards,
        };
        let seeds: Vec<u64> = guards.iter().map(|_| self.rng.u64(..)).collect();
        let programs: Vec<Program> = seeds.into_iter().zip(guards).map(program).collect();
        let (mut calls, left) = self.stage.run(programs);

        // What the registry says when all is quiet is the last call.
        let at = self.stage.ticket.fetch_add(2, Ordering::SeqCst);
        let answer = self.subject.snapshot(&jobs, neighbours.len());
        calls.push(Answered { thread: CREW, call: Call::Snapshot, answer, began: at, ended: at + 1 });
        calls.sort_by_key(|call| call.began);
        drop((left, neighbours));
        for job in &jobs {
            registry.clear(job);
        }
        assert!(registry.is_empty(), "the next history begins with nothing");
        History { before, calls }
    }

    /// Jobs that no history had before, in a slot that none had.
    fn jobs(&mut self) -> ([Job; JOBS], Shape) {
        let shapes = [Shape::Alone, Shape::OneSlot, Shape::EqualHashes, Shape::Crowded];
        let shape = shapes[self.rng.usize(..shapes.len())];
        let slot = self.histories % HISTORIES;
        let job = |place: usize| {
            let number = place as u64;
            let hash = match shape {
                // Far enough from the slots of other histories, as one runs at a time.
                Shape::Alone => ((slot + number * 2_731) % HISTORIES) | (self.histories << 16),
                Shape::OneSlot | Shape::Crowded => slot | (number << 13),
                Shape::EqualHashes => slot,
            };
            Job { id: self.histories * 100 + number, hash }
        };
        (array::from_fn(job), shape)
    }
}

/// A job in the slot of these, that nobody else touches.
fn neighbour(jobs: &[Job; JOBS], number: u64) -> Job {
    let place = number + JOBS as u64;
    Job { id: jobs[0].id + place, hash: (jobs[0].hash % HISTORIES) | (place << 13) }
}

fn subject(bug: Bug) -> Arc<Subject> {
    let registry: Arc<Jobs> = Arc::new(Registry::with_hasher(AsChosen::default()));
    Arc::new(Subject { registry, bug })
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stage.begun.store(usize::MAX, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A member that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Stage {
    /// Has the crew run these programs; gives what they called, and the guards that are left.
    fn run(&self, programs: Vec<Program>) -> Done {
        self.racing.store(programs.len(), Ordering::SeqCst);
        self.ready.store(0, Ordering::SeqCst);
        self.ended.store(0, Ordering::SeqCst);
        *self.programs() = programs;
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.play();
        wait_until(|| self.ended.load(Ordering::SeqCst) == CREW);
        let results = std::mem::take(&mut *self.results.lock().unwrap_or_else(PoisonError::into_inner));
        let (calls, guards): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        (calls.into_iter().flatten().collect(), guards.into_iter().flatten().collect())
    }

    /// A member's life.
    fn take_part(&self) {
        let mut seen = 0;
        loop {
            wait_until(|| self.begun.load(Ordering::SeqCst) != seen);
            seen = self.begun.load(Ordering::SeqCst);
            if seen == usize::MAX {
                return;
            }
            self.play();
        }
    }

    /// Takes one of the programs, if there is one left, and runs it beside the others.
    fn play(&self) {
        let program = {
            let mut programs = self.programs();
            let thread = programs.len();
            programs.pop().map(|program| (thread, program))
        };
        if let Some((thread, program)) = program {
            hesitate::seed(program.seed);
            self.ready.fetch_add(1, Ordering::SeqCst);
            wait_until(|| self.ready.load(Ordering::SeqCst) >= self.racing.load(Ordering::SeqCst));
            let result = program.run(thread, &self.ticket);
            self.results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn programs(&self) -> std::sync::MutexGuard<'_, Vec<Program>> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Program {
    /// Calls at random, and takes down what is answered.
    fn run(self, thread: usize, ticket: &AtomicUsize) -> Done {
        let Self { subject, jobs, others, calls, seed, mut guards } = self;
        let mut rng = Rng::with_seed(seed);
        let mut reader = rng.bool().then(|| subject.registry.reader());
        let mut answered = Vec::with_capacity(calls);
        for number in 0..calls {
            let place = rng.usize(..JOBS);
            let job = &jobs[place];
            let value: Value = (thread * 100 + number) as u64;
            let held = (!guards.is_empty()).then(|| rng.usize(..guards.len()));
            let choice = rng.u8(..12);
            hesitate();
            let before = subject.registry.is_active(job);
            let mut took = None;
            let began = ticket.fetch_add(1, Ordering::SeqCst);
            let (call, answer) = match (choice, held) {
                (0, _) => (Call::Mark(place, value), took_from(&mut took, subject.mark(job, value))),
                (1 | 2, _) => (Call::TryMark(place, value), took_from(&mut took, subject.try_mark(job, value))),
                (3, Some(held)) => {
                    let (place, guard) = guards.swap_remove(held);
                    (Call::Release(place, guard.generation().get()), subject.release(guard))
                }
                (4, Some(held)) => {
                    let (place, guard) = guards.swap_remove(held);
                    (Call::Drop(place, guard.generation().get()), subject.drop_guard(guard))
                }
                (5, Some(held)) => {
                    let (place, guard) = &mut guards[held];
                    (Call::Replace(*place, guard.generation().get(), value), subject.replace(guard, value))
                }
                (6, Some(held)) => {
                    let (place, guard) = &guards[held];
                    (Call::IsCurrent(*place, guard.generation().get()), Answer::Said(guard.is_current()))
                }
                (7, Some(held)) => {
                    let (place, guard) = &guards[held];
                    let cleared = subject.registry.clear_generation(&jobs[*place], guard.generation());
                    (Call::ClearGeneration(*place, guard.generation().get()), Answer::Said(cleared))
                }
                (8, _) => (Call::Clear(place), Answer::Said(subject.registry.clear(job))),
                (9, _) => (Call::Snapshot, subject.snapshot(&jobs, others)),
                (10, _) => match &mut reader {
                    Some(reader) => (Call::Owner(place), Answer::Owner(read(reader, job))),
                    None => (Call::Owner(place), subject.owner(job)),
                },
                _ => match &mut reader {
                    Some(reader) if rng.bool() => (Call::IsActive(place), Answer::Said(reader.is_active(job))),
                    _ => (Call::IsActive(place), subject.is_active(job, before)),
                },
            };
            let ended = ticket.fetch_add(1, Ordering::SeqCst);
            guards.extend(took.map(|guard| (place, guard)));
            answered.push(Answered { thread, call, answer, began, ended });
        }
        (answered, guards)
    }
}

fn took_from(took: &mut Option<Guard>, (answer, guard): (Answer, Option<Guard>)) -> Answer {
    *took = guard;
    answer
}

/// Spins for a moment; then others may need the core.
fn wait_until(done: impl Fn() -> bool) {
    let mut spins = 0_u32;
    while !done() {
        spins += 1;
        if spins > 200 {
            thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}
