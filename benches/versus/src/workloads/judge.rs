//! A pass over many running jobs, few of them owned, as a reaper makes it.

use std::time::Duration;

use livemark::RunningJob;

use super::{Bed, Sample, time};
use crate::jobs::{Jobs, Random};
use crate::subject::{Session, Subject};

/// Some passes over a million jobs.
const BUDGET: Duration = Duration::from_millis(20);
/// How many running jobs there are to each owned one.
const ONE_IN: usize = 100;

pub fn round<S: Subject>(bed: &mut Bed<S>) -> Vec<Sample> {
    let running = bed.jobs.running.get_or_init(|| running(&bed.jobs));
    let (mut session, owned) = (bed.subject.session(), bed.jobs.owned.len());
    let pass = time(BUDGET, |times| {
        for _ in 0..times {
            assert_eq!(session.deferred(running), owned, "{}", S::NAME);
        }
    });
    vec![Sample::new("pass", pass / running.len() as f64)]
}

/// The owned jobs, past their grace, among others that still run. Their rows are kept for good: a running job borrows its
/// id, and a list is made once for each number of owned jobs.
fn running(jobs: &Jobs) -> Vec<RunningJob<'static>> {
    let mut others = Random::new(u64::MAX / 4);
    let mut owned = jobs.owned.iter();
    let rows = (0..jobs.owned.len() * ONE_IN).map(|place| {
        let finalizing = if place % ONE_IN == 0 { owned.next() } else { None };
        (finalizing.copied().unwrap_or_else(|| others.next()), finalizing.is_some())
    });
    let mut rows: Vec<(u64, bool)> = rows.collect();
    others.shuffle(&mut rows);
    let rows: &'static [(u64, bool)] = rows.leak();
    let running = rows.iter().map(|(id, is_finalizing)| {
        let mut job = RunningJob::new(id, crate::jobs::STAGE, Duration::from_secs(600));
        job.finished_for = is_finalizing.then_some(Duration::from_secs(400));
        job
    });
    running.collect()
}
