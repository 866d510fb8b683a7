//! A policy, jobs on either side of its limits, and verdicts to be compared.

use std::time::Duration;

use livemark::{Cause, DeferReason, Finalizer, Policy, Proposed, RunningJob, Snapshot, Verdict};

/// Returns the ids of the jobs in a snapshot, in its order.
pub(crate) fn jobs_of<V>(snapshot: &Snapshot<u64, V>) -> Vec<u64> {
    snapshot.iter().map(|(job, _)| *job).collect()
}

/// Limits: what no test lasts, and what any moment is longer than.
pub(crate) const AN_HOUR: Duration = Duration::from_secs(3600);
pub(crate) const NANOSECOND: Duration = Duration::from_nanos(1);

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The stage that [`policy`] declares as marking.
pub(crate) const MARKING: &str = "merge";
/// A stage that [`policy`] does not know.
pub(crate) const UNDECLARED: &str = "external";
/// The limits of [`policy`].
pub(crate) const FINALIZE_GRACE: Duration = Duration::from_secs(300);
pub(crate) const LOST_GRACE: Duration = Duration::from_secs(60);
pub(crate) const HARD_DEADLINE: Duration = Duration::from_secs(3600);

/// Honors marks in the stage `MARKING`.
pub(crate) fn policy() -> Policy {
    Policy::builder()
        .finalize_grace(FINALIZE_GRACE)
        .lost_grace(LOST_GRACE)
        .hard_deadline(HARD_DEADLINE)
        .marking_stage(MARKING)
        .build()
        .unwrap()
}

/// A job that runs well.
pub(crate) fn running(id: &u64) -> RunningJob<'_> {
    RunningJob::new(id, MARKING, seconds(10))
}

/// A job that finished longer ago than its grace.
pub(crate) fn finished(id: &u64) -> RunningJob<'_> {
    RunningJob::new(id, MARKING, seconds(400)).finished_for(seconds(301))
}

/// A job whose worker has been lost for longer than its grace.
pub(crate) fn lost(id: &u64) -> RunningJob<'_> {
    RunningJob::new(id, MARKING, seconds(400)).lost_for(seconds(61))
}

/// A job that has run past its hard deadline.
pub(crate) fn overdue(id: &u64) -> RunningJob<'_> {
    RunningJob::new(id, MARKING, seconds(3601))
}

/// Whoever finalizes a job.
pub(crate) fn monitor() -> Finalizer {
    Finalizer::new(Some(1), MARKING)
}

/// A verdict without its claim and its owner, to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Healthy,
    Defer(DeferReason),
    Redrive(Claimed),
    Reap(Cause, Claimed),
    DryRun(Proposed),
}

/// Set if the verdict's claim holds a mark.
pub(crate) type Claimed = bool;

pub(crate) fn said<K, V>(verdict: &Verdict<'_, K, V>) -> Said {
    match verdict {
        Verdict::Healthy => Said::Healthy,
        Verdict::Defer(deferral) => Said::Defer(deferral.reason),
        Verdict::Redrive(claim) => Said::Redrive(claim.guard().is_some()),
        Verdict::Reap(cause, claim) => Said::Reap(*cause, claim.guard().is_some()),
        Verdict::DryRun(proposed) => Said::DryRun(*proposed),
    }
}
