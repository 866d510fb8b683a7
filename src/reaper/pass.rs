//! What one pass over the running jobs remembers, and what it asks of time: [`Pass`]. It is not pinned and has no
//! types, so that it may live across an `.await`.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::boot_grace::{HistoryState, Moment};
use super::handle::Control;
use super::memory::{Left, Told};
use super::policy::StageLimits;
use super::trigger::{Trigger, past};
use super::{Policy, Reaper, RunningJob};
use crate::context::Pulse;
use crate::owner::Owner;

/// What a sweep keeps between two jobs, without the types: it may live across an `.await`.
pub(super) struct Pass<'a> {
    pub(super) control: &'a Control,
    pub(super) policy: Arc<Policy>,
    /// The least limits of all stages: most jobs are within these, and their stages need not be looked up.
    strictest: StageLimits,
    history: Arc<HistoryState>,
    /// The latest look at a job that was due, or the begin of the sweep.
    last: Moment,
    has_looked: bool,
    told: Told,
}

impl<'a> Pass<'a> {
    pub(super) fn new(control: &'a Control, policy: Arc<Policy>) -> Self {
        // Noted without a boot grace as well: one that is put in force later need not begin anew.
        let history = control.history.begin(&policy.graces());
        let (strictest, last) = (policy.strictest(), history.last());
        Self { control, policy, strictest, history, last, has_looked: false, told: Told::default() }
    }

    /// Returns `true` for a job that is due in no stage: nearly every one.
    #[inline]
    pub(super) fn is_within_all_limits<K>(&self, job: &RunningJob<'_, K>) -> bool {
        Trigger::of(job, &self.strictest).is_none()
    }

    /// Looks at a job that is due. Where no limit is one that a pause matters to, no clock is read.
    pub(super) fn look(&mut self) {
        if self.history.is_timed() {
            self.has_looked = true;
            HistoryState::next_job(&mut self.history, &mut self.last);
        }
    }

    /// Notes what is told of a job that is left alone. Returns whether it is news.
    pub(super) fn note<K: Hash>(&mut self, job: &K, left: Left) -> bool {
        self.told.note(job, left, self.history.told.as_deref())
    }

    pub(super) fn is_news<K: Hash>(&self, job: &K) -> bool {
        self.told.is_news(job)
    }

    pub(super) fn boot_grace_left(&self, limits: &StageLimits) -> Option<Duration> {
        self.history.boot_grace_left(self.last, limits.boot_grace?)
    }

    /// Returns how long a deadline is still held back that passed while the reaper was away: until one boot grace
    /// later.
    pub(super) fn deadline_held_back<K>(&self, job: &RunningJob<'_, K>, limits: &StageLimits) -> Option<Duration> {
        let (deadline, boot_grace) = (limits.hard_deadline?, limits.boot_grace?);
        let left = self.history.boot_grace_left(self.last, boot_grace)?;
        let pause = self.history.pause_before(boot_grace)?;
        // How old the job was when the reaper was back, and when it went away.
        let after = job.running_for.saturating_sub(boot_grace.saturating_sub(left));
        let before = after.saturating_sub(pause);
        (past(after, deadline) && !past(before, deadline)).then_some(left)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        // Most sweeps have found nothing due, and the one before as well.
        if !self.has_looked && self.told.is_empty() && self.history.told.is_none() {
            return;
        }
        self.control.history.end(&self.history, self.last, std::mem::take(&mut self.told));
    }
}

/// Returns the owner's pulse, unless it came with a reaper's claim and nobody has beaten it: perhaps nobody can.
pub(super) fn pulse_that_counts<'v, K, V, S>(reaper: &Reaper<'_, K, V, S>, owner: &'v Owner<V>) -> Option<&'v Pulse> {
    let pulse = (reaper.pulse)(&owner.value)?;
    (!reaper.registry.is_unbeaten(owner.generation, pulse)).then_some(pulse)
}

impl Pass<'_> {
    /// Says whether an owner keeps its job, as of the latest look.
    pub(super) fn liveness<K, V, S>(
        &self,
        reaper: &Reaper<'_, K, V, S>,
        owner: &Owner<V>,
        limits: &StageLimits,
    ) -> Liveness {
        let Some(stale_after) = limits.stale_after else { return Liveness::UntilCleared };
        let Some(pulse) = pulse_that_counts(reaper, owner) else { return Liveness::UntilCleared };
        let of_its_own = stale_after.checked_sub(pulse.age());
        // What a pause of the process hid from the pulse does not count.
        let after_a_pause = self.history.pulse_grace_left(self.last, stale_after);
        of_its_own.into_iter().chain(after_a_pause).max().map_or(Liveness::Stale, Liveness::For)
    }
}

/// For how long an owner keeps its job from tiers 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    /// It gives no pulse, or none that counts.
    UntilCleared,
    For(Duration),
    /// It made no progress for too long.
    Stale,
}
