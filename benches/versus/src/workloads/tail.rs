//! How long the slowest look-ups take.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::{Bed, Sample};
use crate::jobs::{Jobs, Random, finalizer};
use crate::subject::{Session, Subject};
use crate::threads::stay_on_core;

/// More than there are cores, so that threads are preempted in the middle of a write, locks in hand.
const THREADS: usize = 8;
/// For each mark and clear.
const LOOK_UPS: usize = 16;
const LASTS: Duration = Duration::from_millis(60);

/// Each look-up is timed by itself, the clock included; marks and clears are not timed.
pub fn round<S: Subject>(bed: &mut Bed<S>) -> Vec<Sample> {
    let writers = [(); THREADS].map(|()| bed.another_writer());
    let (subject, jobs, go) = (&bed.subject, &*bed.jobs, &Barrier::new(THREADS));
    let mut times = histogram();
    thread::scope(|scope| {
        let run = |(place, fresh): (usize, Random)| {
            scope.spawn(move || {
                stay_on_core(place);
                go.wait();
                look_up_and_write(subject, jobs, place, fresh)
            })
        };
        let threads: Vec<_> = writers.into_iter().enumerate().map(run).collect();
        for thread in threads {
            times += thread.join().expect("its jobs were not owned");
        }
    });
    let percentile = |of: f64| times.value_at_percentile(of) as f64;
    vec![
        Sample::new("p50", percentile(50.0)),
        Sample::new("p99", percentile(99.0)),
        Sample::new("p99.9", percentile(99.9)),
        Sample::new("p99.99", percentile(99.99)),
    ]
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds in order")
}

fn look_up_and_write<S: Subject>(subject: &S, jobs: &Jobs, place: usize, mut fresh: Random) -> Histogram<u64> {
    let (mut session, finalizer, mut times) = (subject.session(), finalizer(), histogram());
    let mut draws = jobs.mixed.chunks_exact(LOOK_UPS).cycle().skip(place * 7);
    let start = Instant::now();
    while start.elapsed() < LASTS {
        for job in draws.next().into_iter().flatten() {
            let asked = Instant::now();
            black_box(session.is_active(*job));
            times.saturating_record(asked.elapsed().as_nanos() as u64);
        }
        assert!(session.mark_and_clear(fresh.next(), &finalizer), "{}", S::NAME);
    }
    times
}
