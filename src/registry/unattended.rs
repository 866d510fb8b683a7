//! The pulses that came with reapers' claims and that nobody has beaten since: [`Unattended`].
//!
//! A reaper makes its claim with a context of its own. A pulse in it is perhaps nobody's: the worker that is to run
//! under the claim has yet to put its own context in. So such a pulse does not count before somebody beats it, also for
//! other reapers of the registry.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::context::Pulse;
use crate::owner::Generation;

/// Claims with pulses that nobody has beaten. Only reapers come here, for owners that give a pulse and under a policy
/// that watches it.
pub(crate) struct Unattended(Mutex<Claims>);

struct Claims {
    /// None until the first claim with a pulse: so that a registry can be a `static`.
    by_generation: Option<HashMap<Generation, Claimed>>,
    /// Claims that are over are forgotten when there are so many.
    forget_at: usize,
}

struct Claimed {
    hash: u64,
    pulse: Pulse,
    /// What the pulse showed when the claim was made.
    stamp: u64,
}

impl Unattended {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Claims { by_generation: None, forget_at: 64 }))
    }

    /// Notes a claim's pulse, which showed `stamp` when the claim was made. `stands` tells whether a mark does.
    pub(super) fn note(
        &self,
        (hash, generation): (u64, Generation),
        pulse: Pulse,
        stamp: u64,
        stands: impl Fn(u64, Generation) -> bool,
    ) {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Claims { by_generation, forget_at } = &mut *claims;
        let by_generation = by_generation.get_or_insert_default();
        if by_generation.len() >= *forget_at {
            by_generation.retain(|generation, claimed| claimed.waits() && stands(claimed.hash, *generation));
            *forget_at = by_generation.len().saturating_mul(2).max(64);
        }
        by_generation.insert(generation, Claimed { hash, pulse, stamp });
    }

    /// Returns `true` if the mark of this generation is a reaper's claim, `pulse` came with it, and nobody has beaten
    /// it.
    pub(super) fn has(&self, generation: Generation, pulse: &Pulse) -> bool {
        let claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let claimed = claims.by_generation.as_ref().and_then(|claims| claims.get(&generation));
        claimed.is_some_and(|claimed| claimed.pulse.is_same(pulse) && claimed.waits())
    }
}

impl Claimed {
    fn waits(&self) -> bool {
        self.pulse.stamp() == self.stamp
    }
}

impl fmt::Debug for Unattended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unattended").finish_non_exhaustive()
    }
}
