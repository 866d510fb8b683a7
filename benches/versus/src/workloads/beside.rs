//! Look-ups while a thread on the other core marks and clears jobs that nobody asks about.

use std::time::Duration;

use super::reads::{look_ups, sweeps};
use super::{Bed, Sample};
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
    let ([hit, miss, hit_in_batch, miss_in_batch], _) =
        beside_a_writer(subject, Pace::FullSpeed, first, || look_ups(&mut session, jobs, drawn, BUDGET));
    let (sweep, mark_and_clear) =
        beside_a_writer(subject, Pace::FullSpeed, second, || sweeps(&mut session, jobs, drawn, 2 * BUDGET));
    let (paced, _) = beside_a_writer(subject, PACE, third, || sweeps(&mut session, jobs, drawn, PACED_BUDGET));
    vec![
        Sample::new("hit beside a writer", hit),
        Sample::new("miss beside a writer", miss),
        Sample::new("hit in batch beside a writer", hit_in_batch),
        Sample::new("miss in batch beside a writer", miss_in_batch),
        Sample::new("sweep beside a writer", sweep),
        Sample::new("mark+clear beside sweeps", mark_and_clear),
        Sample::new("sweep beside a paced writer", paced),
    ]
}
