//! What one pass over the running jobs remembers, and what it asks of time: [`Pass`]. It is not pinned and has no types,
//! so that it may live across an `.await`.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::boot_grace::{HistoryState, Moment};
use super::handle::Control;
use super::memory::{Left, Told};
use super::policy::StageLimits;
use super::trigger::{Trigger, past};
use super::{Policy, Reaper, RunningJob};
use crate::finalizer::Pulse;
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

    pub(super) fn look(&mut self) {
        self.has_looked = true;
        HistoryState::next_job(&mut self.history, &mut self.last);
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

    /// Returns how long a deadline is still held back that passed while the reaper was away.
    ///
    /// Only what was within its deadline before the pause is: its age less the pause.
    pub(super) fn deadline_held_back<K>(&self, job: &RunningJob<'_, K>, limits: &StageLimits) -> Option<Duration> {
        let left = self.boot_grace_left(limits)?;
        let pause = self.history.pause_before(limits.boot_grace?)?;
        let before = job.running_for.saturating_sub(pause);
        limits.hard_deadline.is_some_and(|deadline| !past(before, deadline)).then_some(left)
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

/// A pulse that counts, and how old it may get.
#[derive(Clone, Copy)]
pub(super) struct Watched<'v> {
    pulse: &'v Pulse,
    stale_after: Duration,
}

/// Returns the owner's pulse, where it counts. Elsewhere the owner keeps its job until the mark is cleared.
pub(super) fn watched_pulse<'v, K, V, S>(
    reaper: &Reaper<'_, K, V, S>,
    owner: &'v Owner<V>,
    limits: &StageLimits,
) -> Option<Watched<'v>> {
    let stale_after = limits.stale_after?;
    let pulse = (reaper.pulse)(&owner.value)?;
    // It came with a reaper's claim, and whoever works under the claim has not beaten it: perhaps nobody can.
    (!pulse.waits_for_first_beat()).then_some(Watched { pulse, stale_after })
}

impl Pass<'_> {
    /// Says whether an owner with this pulse keeps its job, as of the latest look.
    pub(super) fn liveness_by(&self, Watched { pulse, stale_after }: Watched<'_>) -> Liveness {
        let of_its_own = stale_after.checked_sub(pulse.age());
        // What a pause of the process hid from the pulse does not count.
        let after_a_pause = self.history.pulse_grace_left(self.last, stale_after);
        of_its_own.into_iter().chain(after_a_pause).max().map_or(Liveness::Stale, Liveness::For)
    }

    /// Says whether an owner keeps its job, as of the latest look.
    pub(super) fn liveness<K, V, S>(
        &self,
        reaper: &Reaper<'_, K, V, S>,
        owner: &Owner<V>,
        limits: &StageLimits,
    ) -> Liveness {
        let watched = watched_pulse(reaper, owner, limits);
        watched.map_or(Liveness::UntilCleared, |watched| self.liveness_by(watched))
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
