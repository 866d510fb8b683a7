//! What a job's ages call for, before anybody asks for its owner: [`Trigger`].

use std::time::Duration;

use super::job::RunningJob;
use super::policy::StageLimits;
use super::verdict::{Cause, Proposed};

/// Returns `true` if `age` is longer than `limit`: exactly at a limit is not past it.
#[inline]
pub(super) fn past(age: Duration, limit: Duration) -> bool {
    age > limit
}

/// Why a job is not healthy, by its ages and the limits of its stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// The job is past its deadline, which comes before all else.
    Deadline,
    /// The job finished and is past its grace. Holds what that calls for.
    Finished(Proposed),
    /// The job has not finished, and its worker is lost past its grace.
    Lost,
}

impl Trigger {
    #[inline]
    pub(super) fn of<K>(job: &RunningJob<'_, K>, limits: &StageLimits) -> Option<Self> {
        // The deadline comes first: a job past it is never redriven.
        if limits.hard_deadline.is_some_and(|deadline| past(job.running_for, deadline)) {
            return Some(Self::Deadline);
        }
        match (job.finished_for, job.lost_for) {
            // A finished job needs no worker, so that a lost one does not matter.
            (Some(finished_for), _) => {
                past(finished_for, limits.finalize_grace).then(|| Self::Finished(proposal_if_finished(job, limits)))
            }
            (None, Some(lost_for)) => past(lost_for, limits.lost_grace).then_some(Self::Lost),
            (None, None) => None,
        }
    }

    /// Returns what the reaper does if nothing defers it.
    pub(super) fn proposal(self) -> Proposed {
        match self {
            Self::Deadline => Proposed::Reap(Cause::Backstop),
            Self::Lost => Proposed::Reap(Cause::WorkerLost),
            Self::Finished(proposed) => proposed,
        }
    }

    /// Returns the word that explanations begin with.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Lost => "lost",
            Self::Finished(_) => "finished",
        }
    }
}

/// Returns what the reaper does with a finished job past its grace: it gives up after `max_redrives`.
#[inline]
pub(super) fn proposal_if_finished<K>(job: &RunningJob<'_, K>, limits: &StageLimits) -> Proposed {
    if job.redrives >= limits.max_redrives { Proposed::Reap(Cause::RedrivesExhausted) } else { Proposed::Redrive }
}
