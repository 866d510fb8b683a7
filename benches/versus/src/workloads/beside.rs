//! Look-ups while a thread on the other core marks and clears jobs that nobody asks about.

use std::time::Duration;

use super::reads::{look_ups, sweeps};
use super::{Bed, STUCK, Sample};
use crate::subject::Subject;
use crate::threads::{Pace, beside_a_writer};

const BUDGET: Duration = Duration::from_millis(2);
/// Long enough for some dozen paced writes.
const PACED_BUDGET: Duration = Duration::from_millis(10);
const PACE: Pace = Pace::Writes(10_000);

pub fn round<S: Subject>(bed: &mut Bed<S>) -> Vec<Sample> {
    let fresh = [(); 3].map(|()| bed.another_writer());
    let (subject, jobs, drawn) = (&bed.subject, &bed.jobs, &mut bed.drawn);
    let mut session = subject.session();
    let [first, second, third] = fresh;
    let look_ups = beside_a_writer(subject, Pace::FullSpeed, first, || look_ups(&mut session, jobs, drawn, BUDGET));
    let sweep = beside_a_writer(subject, Pace::FullSpeed, second, || sweeps(&mut session, jobs, drawn, 2 * BUDGET));
    let paced = beside_a_writer(subject, PACE, third, || sweeps(&mut session, jobs, drawn, PACED_BUDGET));
    let look_up = |place: usize| look_ups.map(|(times, _)| times[place]);
    let samples = [
        ("hit beside a writer", look_up(0)),
        ("miss beside a writer", look_up(1)),
        ("hit in batch beside a writer", look_up(2)),
        ("miss in batch beside a writer", look_up(3)),
        ("sweep beside a writer", sweep.map(|(sweep, _)| sweep)),
        ("mark+clear beside sweeps", sweep.map(|(_, mark_and_clear)| mark_and_clear)),
        ("sweep beside a paced writer", paced.map(|(sweep, _)| sweep)),
    ];
    samples.into_iter().map(|(workload, time)| Sample { workload, value: time.ok_or(STUCK) }).collect()
}
