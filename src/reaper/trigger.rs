//! What a job's ages call for, by the limits of its stage and before anybody asks for its owner: [`Trigger`].

use std::time::Duration;

use super::job::RunningJob;
use super::policy::StageLimits;
use super::verdict::{Cause, Proposed};

/// Returns `true` if `age` is longer than `limit`: exactly at a limit is not past it.
#[inline]
pub(super) fn past(age: Duration, limit: Duration) -> bool {
    age > limit
}

/// What a job's ages call for, by the limits of its stage and before anybody asks for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// Past the deadline, which comes first.
    Deadline,
    /// Tier 1: lost and not finished. Tier 2: finished.
    Tier(Proposed),
}

impl Trigger {
    #[inline]
    pub(super) fn of<K>(job: &RunningJob<'_, K>, limits: &StageLimits) -> Option<Self> {
        if limits.hard_deadline.is_some_and(|deadline| past(job.running_for, deadline)) {
            return Some(Self::Deadline);
        }
        match (job.finished_for, job.lost_for) {
            (Some(finished_for), _) => {
                past(finished_for, limits.finalize_grace).then(|| Self::Tier(Self::of_finished(job, limits)))
            }
            (None, Some(lost_for)) => {
                past(lost_for, limits.lost_grace).then_some(Self::Tier(Proposed::Reap(Cause::WorkerLost)))
            }
            (None, None) => None,
        }
    }

    /// What tier 2 proposes.
    #[inline]
    pub(super) fn of_finished<K>(job: &RunningJob<'_, K>, limits: &StageLimits) -> Proposed {
        if job.redrives >= limits.max_redrives { Proposed::Reap(Cause::RedrivesExhausted) } else { Proposed::Redrive }
    }
}
