//! The jobs: the same for all subjects.

use std::sync::OnceLock;

use livemark::{Finalizer, RunningJob};

/// What a batch asks about, and a sweep.
pub const BATCH: usize = 1_024;
/// At least so many jobs are asked about in turn, so that the branch predictor cannot learn which of them are owned. Of
/// 16,384 jobs it did: a sweep of an unsynchronised map took 1.3 ns for a job, less than hits or misses alone, instead
/// of 7. With more owned jobs it is at least as many as are owned, so that a round does not find its data where the
/// last one left it.
const DRAWS: usize = 256 * BATCH;

/// The owned jobs of one number, and jobs to ask about.
pub struct Jobs {
    pub owned: Vec<u64>,
    pub hits: Vec<u64>,
    pub misses: Vec<u64>,
    /// Half of them owned.
    pub mixed: Vec<u64>,
    /// How many of each batch of `mixed` are owned.
    pub owned_of_mixed: usize,
    /// For a reaper's pass, made when there is one.
    pub running: OnceLock<Vec<RunningJob<'static>>>,
}

impl Jobs {
    /// Those of one build of the subjects: each has others.
    pub fn new(owned: usize, build: usize) -> Self {
        let mut random = Random::new(u64::MAX / 8 + build as u64);
        let owned: Vec<u64> = (0..owned).map(|_| random.next()).collect();
        let draws = owned.len().next_multiple_of(BATCH).max(DRAWS);
        let mut hits: Vec<u64> = owned.iter().cycle().take(draws).copied().collect();
        random.shuffle(&mut hits);
        let misses: Vec<u64> = (0..draws).map(|_| random.next()).collect();
        let mut mixed: Vec<u64> = hits.clone();
        for batch in mixed.chunks_mut(BATCH) {
            for job in batch.iter_mut().step_by(2) {
                *job = random.next();
            }
            random.shuffle(batch);
        }
        Self { owned, hits, misses, mixed, owned_of_mixed: BATCH / 2, running: OnceLock::new() }
    }
}

pub const STAGE: &str = "gates";

pub fn finalizer() -> Finalizer {
    Finalizer::new(Some(1), STAGE)
}

/// Xorshift: the same jobs in every run, and none of them twice in one sequence.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of that number: one for the owned jobs, and one for each writer.
    pub fn new(number: u64) -> Self {
        Self(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(2 * number + 1))
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn shuffle<T>(&mut self, jobs: &mut [T]) {
        for place in (1..jobs.len()).rev() {
            jobs.swap(place, self.next() as usize % (place + 1));
        }
    }
}
