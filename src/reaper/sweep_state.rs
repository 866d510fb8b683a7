//! What a sweep keeps between two jobs: [`SweepState`]. It pins nothing and has no types, so that it may live across an
//! `.await`.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::control::Control;
use super::findings::{Finding, Findings};
use super::grace_timer::Moment;
use super::job::RunningJob;
use super::policy::{Policy, StageLimits};
use super::sweep_history::HistoryState;
use super::trigger::{Trigger, past};

/// Keeps what a sweep knows between two jobs.
pub(super) struct SweepState<'a> {
    pub(super) control: &'a Control,
    pub(super) policy: Arc<Policy>,
    /// The least limits of all stages. Most jobs are within these, and their stages need not be looked up.
    strictest: StageLimits,
    history: Arc<HistoryState>,
    /// The latest look at a job that was past a limit, or the begin of the sweep.
    last_look: Moment,
    has_looked: bool,
    findings: Findings,
}

impl<'a> SweepState<'a> {
    pub(super) fn new(control: &'a Control, policy: Arc<Policy>) -> Self {
        // Recorded without a boot grace as well: a grace that is put in force later need not begin anew.
        let history = control.history.record_sweep(&policy.graces());
        let (strictest, last_look) = (policy.strictest(), history.last_look());
        Self { control, policy, strictest, history, last_look, has_looked: false, findings: Findings::default() }
    }

    /// Returns `true` for a job that no stage's limits call for an act on: nearly every one.
    #[inline]
    pub(super) fn is_within_all_limits<K>(&self, job: &RunningJob<'_, K>) -> bool {
        Trigger::of(job, &self.strictest).is_none()
    }

    /// Records a look at a job that is past a limit. Reads no clock unless a pause matters to some limit.
    pub(super) fn record_look(&mut self) {
        if self.history.is_timed() {
            self.has_looked = true;
            HistoryState::next_job(&mut self.history, &mut self.last_look);
        }
    }

    /// Records what was found of a job that is past a limit. Returns `true` if the sweep before found something else,
    /// or nothing.
    pub(super) fn record<K: Hash>(&mut self, job: &K, finding: Finding) -> bool {
        self.findings.record(job, finding, self.history.findings.as_deref())
    }

    /// Returns `true` unless the sweep before found the same of the job.
    pub(super) fn is_news<K: Hash>(&self, job: &K) -> bool {
        self.findings.is_news(job)
    }

    /// Returns how much of the stage's boot grace is left, if the stage has one and it runs.
    pub(super) fn boot_grace_left(&self, limits: &StageLimits) -> Option<Duration> {
        self.history.boot_grace_left(self.last_look, limits.boot_grace?)
    }

    /// Returns for how long the boot grace holds the job's deadline back, if the deadline passed during the pause.
    pub(super) fn deadline_held_back<K>(&self, job: &RunningJob<'_, K>, limits: &StageLimits) -> Option<Duration> {
        let (deadline, boot_grace) = (limits.hard_deadline?, limits.boot_grace?);
        let left = self.history.grace_since_pause(self.last_look, boot_grace)?;
        let pause = self.history.pause_before(boot_grace)?;
        // How old the job was when the reaper was back, and when it went away.
        let after = job.running_for.saturating_sub(boot_grace.saturating_sub(left));
        let before = after.saturating_sub(pause);
        (past(after, deadline) && !past(before, deadline)).then_some(left)
    }

    /// Returns how long a pulse may still be silent because of a pause of this process, in which it could not beat.
    pub(super) fn pulse_grace_left(&self, stale_after: Duration) -> Option<Duration> {
        self.history.pulse_grace_left(self.last_look, stale_after)
    }
}

impl Drop for SweepState<'_> {
    fn drop(&mut self) {
        // Most sweeps have found nothing due, and the one before as well.
        if !self.has_looked && self.findings.is_empty() && self.history.findings.is_none() {
            return;
        }
        self.control.history.record_end(&self.history, self.last_look, std::mem::take(&mut self.findings));
    }
}
