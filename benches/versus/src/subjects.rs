//! What is measured: each subject under each workload.

use std::hint::black_box;

use foldhash::fast::RandomState;
use livemark::{Finalizer, Owner, Registry};

/// Drawn at random from the jobs, so that no short pattern can be learned by the branch predictor.
const DRAWS: usize = 16_384;
const WRITES: usize = 4_096;

/// What is asked of a subject in one round, and how many of the operations must succeed.
pub struct Workload {
    pub name: &'static str,
    pub operations: usize,
    pub successes: usize,
    /// The subject that the others' times are multiples of.
    pub against: &'static str,
}

const HIT: Workload = Workload { name: "hit", operations: DRAWS, successes: DRAWS, against: "map" };
const MISS: Workload = Workload { name: "miss", operations: DRAWS, successes: 0, against: "map" };
/// A job that is not among the owned ones, put in and taken out again. Another one each time, as job systems do.
///
/// With one job for all of it, papaya copies its whole table every few dozen operations, whatever its capacity: a
/// removed entry's place is not taken again before the next copy, and the job's probe sequence fills up. That was seen
/// as 0.9 us per operation at 1,024 owned jobs and 0.1 ms or more at 65,536: its worst case only.
const WRITE: Workload = Workload { name: "insert+remove", operations: WRITES, successes: WRITES, against: "papaya" };

pub struct Subject {
    pub name: &'static str,
    pub workload: Workload,
    /// Runs one round, and counts the operations that succeeded.
    pub run: Box<dyn FnMut() -> usize>,
}

/// All subjects over the same owned jobs. They live to the end of the process.
pub fn subjects(owned: u64) -> Vec<Subject> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let jobs: Vec<u64> = (0..owned).map(|_| random.next()).collect();
    let hits: &'static [u64] = (0..DRAWS).map(|_| jobs[random.next() as usize % jobs.len()]).collect::<Vec<_>>().leak();
    let misses: &'static [u64] = (0..DRAWS).map(|_| random.next()).collect::<Vec<_>>().leak();
    let finalizer: &'static Finalizer = Box::leak(Box::new(Finalizer::new(Some(1), "gates")));

    let registry: &'static Registry = Box::leak(Box::default());
    let map: &'static mut hashbrown::HashMap<u64, Owner<Finalizer>, RandomState> = Box::leak(Box::default());
    let writable: &'static mut hashbrown::HashMap<u64, Finalizer, RandomState> = Box::leak(Box::default());
    // Read and written apart, like the unsynchronised map: papaya's reads are dearer while its table is being copied,
    // and that is left unfinished when its writes stop.
    let [papaya, pinned_writes, papaya_writes] = [(); 3].map(|()| with_papaya(&jobs, finalizer));
    for job in jobs {
        std::mem::forget(registry.mark(job, finalizer.clone()));
        map.insert(job, registry.owner(&job).expect("just marked"));
        writable.insert(job, finalizer.clone());
    }
    let map = &*map;

    let in_map = |jobs: &'static [u64]| jobs.iter().filter(|job| map.contains_key(*job)).count();
    let in_reader = |jobs: &'static [u64]| {
        let mut reader = registry.reader();
        jobs.iter().filter(|job| reader.is_active(*job)).count()
    };
    let in_registry = |jobs: &'static [u64]| jobs.iter().filter(|job| registry.is_active(*job)).count();
    let in_papaya = |jobs: &'static [u64]| {
        let pinned = papaya.pin();
        jobs.iter().filter(|job| pinned.contains_key(*job)).count()
    };
    vec![
        subject(HIT, "map", move || in_map(hits)),
        subject(MISS, "map", move || in_map(misses)),
        subject(HIT, "Reader", move || in_reader(hits)),
        subject(MISS, "Reader", move || in_reader(misses)),
        subject(HIT, "is_active", move || in_registry(hits)),
        subject(MISS, "is_active", move || in_registry(misses)),
        subject(HIT, "papaya pinned", move || in_papaya(hits)),
        subject(MISS, "papaya pinned", move || in_papaya(misses)),
        writes("map", random.clone(), move |job| {
            writable.insert(job, finalizer.clone()).is_none() & writable.remove(&job).is_some()
        }),
        writes("mark+clear", random.clone(), move |job| registry.mark(job, finalizer.clone()).clear()),
        subject(WRITE, "papaya pinned", {
            let mut jobs = random.clone();
            move || {
                let pinned = pinned_writes.pin();
                let write = |job| pinned.insert(job, finalizer.clone()).is_none() & pinned.remove(&job).is_some();
                (0..WRITES).filter(|_| write(black_box(jobs.next()))).count()
            }
        }),
        writes("papaya", random, move |job| {
            papaya_writes.pin().insert(job, finalizer.clone()).is_none() & papaya_writes.pin().remove(&job).is_some()
        }),
    ]
}

/// With room for twice the jobs: papaya grown from empty can be left in the middle of copying its table, which makes
/// each look-up dearer.
fn with_papaya(jobs: &[u64], finalizer: &Finalizer) -> &'static papaya::HashMap<u64, Finalizer, RandomState> {
    let papaya = papaya::HashMap::with_capacity_and_hasher(2 * jobs.len(), RandomState::default());
    for job in jobs {
        papaya.pin().insert(*job, finalizer.clone());
    }
    Box::leak(Box::new(papaya))
}

fn subject(workload: Workload, name: &'static str, run: impl FnMut() -> usize + 'static) -> Subject {
    Subject { name, workload, run: Box::new(run) }
}

fn writes(name: &'static str, mut jobs: Random, mut write: impl FnMut(u64) -> bool + 'static) -> Subject {
    subject(WRITE, name, move || (0..WRITES).filter(|_| write(black_box(jobs.next()))).count())
}

/// Xorshift: the same jobs in every run, and none of them twice.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
