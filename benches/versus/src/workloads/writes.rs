//! Marks, clears, hand-overs.

use std::time::Duration;

use super::{Bed, COPIES, ONE_THREAD, STUCK, Sample, time};
use crate::jobs::finalizer;
use crate::subject::{Session, Subject};
use crate::threads::{Pace, beside_a_writer};

const BUDGET: Duration = Duration::from_millis(2);

pub fn round<S: Subject>(bed: &mut Bed<S>) -> Vec<Sample> {
    let mut samples = vec![Sample::new("mark+clear", mark_and_clear(bed))];
    if !S::SHARED {
        samples.push(Sample::none("two writers", ONE_THREAD));
    } else if bed.copies_too_many() {
        samples.push(Sample::none("two writers", COPIES));
    } else {
        let other = bed.another_writer();
        let subject = &bed.subject;
        let fresh = &mut bed.fresh;
        let both = beside_a_writer(subject, Pace::FullSpeed, other, || {
            // Of its own, as the other writer's is: else they would share the count of its stage's owners.
            let (mut session, finalizer) = (subject.session(), finalizer());
            time(2 * BUDGET, |times| {
                for _ in 0..times {
                    assert!(session.mark_and_clear(fresh.next(), &finalizer), "{}", S::NAME);
                }
            })
        });
        let together = both.map(|(one, other)| 1.0 / (1.0 / one + 1.0 / other));
        samples.push(Sample { workload: "two writers", value: together.ok_or(STUCK) });
    }
    samples.push(Sample::new("hand-over", hand_over(bed)));
    samples
}

pub fn stamped<S: Subject>(bed: &mut Bed<S>) -> Vec<Sample> {
    vec![Sample::new("mark+clear stamped", mark_and_clear(bed))]
}

fn mark_and_clear<S: Subject>(bed: &mut Bed<S>) -> f64 {
    let (mut session, finalizer) = (bed.subject.session(), finalizer());
    time(BUDGET, |times| {
        for _ in 0..times {
            assert!(session.mark_and_clear(bed.fresh.next(), &finalizer), "{}", S::NAME);
        }
    })
}

fn hand_over<S: Subject>(bed: &mut Bed<S>) -> f64 {
    let (mut session, finalizer) = (bed.subject.session(), finalizer());
    let (owned, drawn) = (&bed.jobs.owned, &mut bed.drawn);
    session.take_over(owned, &finalizer);
    time(BUDGET, |times| {
        for _ in 0..times {
            *drawn = if *drawn < owned.len() { *drawn } else { 0 };
            assert!(session.hand_over(*drawn, owned[*drawn], &finalizer), "{}", S::NAME);
            *drawn += 1;
        }
    })
}
