//! Look-ups, one by one and in batches, with nobody else there.

use std::hint::black_box;
use std::time::Duration;

use super::{Bed, Sample, time};
use crate::jobs::{BATCH, Jobs};
use crate::subject::{Session, Subject};

const BUDGET: Duration = Duration::from_millis(1);

pub fn round<S: Subject>(bed: &mut Bed<S>) -> Vec<Sample> {
    let (mut session, jobs, drawn) = (bed.subject.session(), &bed.jobs, &mut bed.drawn);
    let [hit, miss, hit_in_batch, miss_in_batch] = look_ups(&mut session, jobs, drawn, BUDGET);
    let sweep = sweeps(&mut session, jobs, drawn, BUDGET);
    vec![
        Sample::new("hit", hit),
        Sample::new("miss", miss),
        Sample::new("hit in batch", hit_in_batch),
        Sample::new("miss in batch", miss_in_batch),
        Sample::new("sweep", sweep),
    ]
}

/// Nanoseconds per job: hit and miss singly, hit and miss in batches.
pub fn look_ups(session: &mut impl Session, jobs: &Jobs, drawn: &mut usize, budget: Duration) -> [f64; 4] {
    [
        single(session, &jobs.hits, BATCH, drawn, budget),
        single(session, &jobs.misses, 0, drawn, budget),
        batched(session, &jobs.hits, BATCH, drawn, budget),
        batched(session, &jobs.misses, 0, drawn, budget),
    ]
}

/// A sweep is a batch, of jobs of which half are owned.
pub fn sweeps(session: &mut impl Session, jobs: &Jobs, drawn: &mut usize, budget: Duration) -> f64 {
    batched(session, &jobs.mixed, jobs.owned_of_mixed, drawn, budget)
}

fn batched(session: &mut impl Session, draws: &[u64], owned: usize, drawn: &mut usize, budget: Duration) -> f64 {
    per_job(draws, owned, drawn, budget, |batch| session.count_active(batch))
}

fn single(session: &mut impl Session, draws: &[u64], owned: usize, drawn: &mut usize, budget: Duration) -> f64 {
    per_job(draws, owned, drawn, budget, |batch| batch.iter().filter(|job| session.is_active(**job)).count())
}

/// Goes on in the draws where the last round ended.
///
/// # Panics
///
/// If the answers are wrong.
#[inline]
fn per_job(
    draws: &[u64],
    owned: usize,
    drawn: &mut usize,
    budget: Duration,
    mut ask: impl FnMut(&[u64]) -> usize,
) -> f64 {
    let run = |batches| {
        for _ in 0..batches {
            *drawn = if *drawn < draws.len() { *drawn } else { 0 };
            let batch = black_box(&draws[*drawn..][..BATCH]);
            *drawn += BATCH;
            assert_eq!(ask(batch), owned);
        }
    };
    time(budget, run) / BATCH as f64
}
