//! The pulses that came with reapers' claims and that nobody has beaten since: [`UnbeatenPulses`].
//!
//! A reaper makes its claim with a context of its own. The worker that will run under the claim has yet to put its own
//! context in, so a pulse in the claim may be in nobody's hands. Such a pulse does not count before its first beat, for
//! every reaper of the registry.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::context::Pulse;
use crate::hasher::DefaultHashBuilder;
use crate::owner::Generation;

/// The fewest claims at which those that are over are forgotten.
const MIN_FORGET_AT: usize = 64;

/// Holds the claims whose pulses nobody has beaten.
///
/// Only reapers take the lock: for an owner that gives a pulse, under a policy that watches it.
pub(super) struct UnbeatenPulses(Mutex<Claims>);

struct Claims {
    by_generation: HashMap<Generation, ClaimPulse, DefaultHashBuilder>,
    /// Claims that are over are forgotten when there are so many.
    forget_at: usize,
}

struct ClaimPulse {
    /// The hash of the claim's job, by which the registry finds the mark.
    hash: u64,
    pulse: Pulse,
    /// What the pulse showed when the claim was made.
    stamp: u64,
}

impl UnbeatenPulses {
    pub(super) const fn new() -> Self {
        let by_generation = HashMap::with_hasher(DefaultHashBuilder::new());
        Self(Mutex::new(Claims { by_generation, forget_at: MIN_FORGET_AT }))
    }

    /// Records the pulse of a claim, which showed `stamp` when the claim was made. `stands` tells whether a mark does.
    pub(super) fn record(
        &self,
        hash: u64,
        generation: Generation,
        pulse: Pulse,
        stamp: u64,
        stands: impl Fn(u64, Generation) -> bool,
    ) {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Claims { by_generation, forget_at } = &mut *claims;
        if by_generation.len() >= *forget_at {
            by_generation.retain(|generation, claim| claim.is_unbeaten() && stands(claim.hash, *generation));
            // Doubled, so that walking through the claims costs each of them a constant share.
            *forget_at = by_generation.len().saturating_mul(2).max(MIN_FORGET_AT);
        }
        by_generation.insert(generation, ClaimPulse { hash, pulse, stamp });
    }

    /// Returns `true` if the mark of this generation is a reaper's claim that came with `pulse`, and nobody has beaten
    /// the pulse since.
    pub(super) fn contains(&self, generation: Generation, pulse: &Pulse) -> bool {
        let claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let claim = claims.by_generation.get(&generation);
        claim.is_some_and(|claim| claim.pulse.is_same(pulse) && claim.is_unbeaten())
    }
}

impl ClaimPulse {
    fn is_unbeaten(&self) -> bool {
        self.pulse.stamp() == self.stamp
    }
}
