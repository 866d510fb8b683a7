//! What touches all owned jobs.

use std::time::Duration;

use super::{Bed, Sample, time};
use crate::subject::{Session, Subject};

const BUDGET: Duration = Duration::from_millis(1);

/// In microseconds, its being dropped included.
pub fn snapshot<S: Subject>(bed: &mut Bed<S>) -> Vec<Sample> {
    let (mut session, owned) = (bed.subject.session(), bed.jobs.owned.len());
    let snapshot = time(BUDGET, |times| {
        for _ in 0..times {
            assert_eq!(session.snapshot(), owned, "{}", S::NAME);
        }
    });
    vec![Sample::new("snapshot", snapshot / 1e3)]
}
