//! For how long an owner keeps its job from the reaper: [`Liveness`], which goes by the owner's pulse.

use std::time::Duration;

use super::policy::StageLimits;
use super::reaper::Reaper;
use super::sweep_state::SweepState;
use crate::context::Pulse;
use crate::owner::Owner;

/// For how long an owner keeps a job that looks dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    /// It gives no pulse, or none that counts.
    UntilCleared,
    For(Duration),
    /// It made no progress for too long.
    Stale,
}

impl Liveness {
    /// Says whether an owner keeps its job, as of the sweep's latest look.
    pub(super) fn of<K, V, S>(
        owner: &Owner<V>,
        reaper: &Reaper<'_, K, V, S>,
        state: &SweepState<'_>,
        limits: &StageLimits,
    ) -> Self {
        let Some(stale_after) = limits.stale_after else { return Self::UntilCleared };
        let Some(pulse) = pulse_that_counts(reaper, owner) else { return Self::UntilCleared };
        let of_its_own = stale_after.checked_sub(pulse.age());
        // What a pause of the process hid from the pulse does not count.
        let after_a_pause = state.pulse_grace_left(stale_after);
        of_its_own.into_iter().chain(after_a_pause).max().map_or(Self::Stale, Self::For)
    }
}

/// Returns the owner's pulse, unless it came with a reaper's claim and nobody has beaten it: perhaps nobody can.
pub(super) fn pulse_that_counts<'v, K, V, S>(reaper: &Reaper<'_, K, V, S>, owner: &'v Owner<V>) -> Option<&'v Pulse> {
    let pulse = (reaper.pulse)(&owner.value)?;
    (!reaper.registry.is_unbeaten(owner.generation, pulse)).then_some(pulse)
}
