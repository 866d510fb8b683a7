//! What a job's ages call for, by the limits of its stage and before anybody asks for its owner.

use std::time::Duration;

use super::{Cause, RunningJob, StageLimits};

/// Exactly at a limit is not past it.
#[inline]
pub(super) fn past(age: Duration, limit: Duration) -> bool {
    age > limit
}

/// Tier 3.
#[inline]
pub(super) fn past_deadline<K>(job: &RunningJob<'_, K>, limits: &StageLimits) -> bool {
    limits.hard_deadline.is_some_and(|deadline| past(job.running_for, deadline))
}

/// What a job's ages call for, if its mark does not forbid it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Redrive,
    Reap(Cause),
}

impl Due {
    /// Tiers 1 and 2. They exclude each other: a lost job is one that is not finished.
    #[inline]
    pub(super) fn of<K>(job: &RunningJob<'_, K>, limits: &StageLimits) -> Option<Self> {
        match (job.finished_for, job.lost_for) {
            (Some(finished_for), _) => past(finished_for, limits.finalize_grace).then_some(Self::Redrive),
            (None, Some(lost_for)) => past(lost_for, limits.lost_grace).then_some(Self::Reap(Cause::WorkerLost)),
            (None, None) => None,
        }
    }
}
