//! What a reaper shares with its handles: [`Control`].

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::boot_grace::SweepHistory;
use super::policy::Policy;
use super::stats::Counts;
use crate::telemetry;

/// The part of a reaper that has no types, and that its handles share.
pub(super) struct Control {
    pub(super) policy: ArcSwap<Policy>,
    pub(super) counts: Counts,
    pub(super) history: SweepHistory,
    /// The `reaper` label of its metrics.
    pub(super) name: &'static str,
    registered: OnceLock<()>,
    has_swept: OnceLock<()>,
    /// Set once it was reported that a dry run found no mark at all.
    pub(super) no_mark: OnceLock<()>,
}

impl Control {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy: ArcSwap::from_pointee(policy),
            counts: Counts::default(),
            history: SweepHistory::new(),
            name: "default",
            registered: OnceLock::new(),
            has_swept: OnceLock::new(),
            no_mark: OnceLock::new(),
        }
    }

    /// Registers the reaper's metrics at zero, for its first handle.
    pub(super) fn register(&self) {
        self.registered.get_or_init(|| telemetry::register(self.name));
    }

    /// Registers the reaper's metrics at zero, at its first sweep. A handle may have come before there was a recorder.
    pub(super) fn register_at_sweep(&self) {
        self.has_swept.get_or_init(|| telemetry::register(self.name));
    }

    /// Returns `true` as long as nothing was reported under the reaper's name.
    pub(super) fn is_new(&self) -> bool {
        self.registered.get().is_none() && self.has_swept.get().is_none()
    }

    /// Replaces the policy by what `change` makes of it. Calls `change` again if another update came first.
    pub(super) fn try_update_policy<E>(&self, mut change: impl FnMut(&Policy) -> Result<Policy, E>) -> Result<(), E> {
        let mut current = self.policy.load_full();
        loop {
            let changed = Arc::new(change(&current)?);
            // Stored only if nobody has stored another policy since this one was read.
            let found = Arc::clone(&self.policy.compare_and_swap(&current, changed));
            if Arc::ptr_eq(&found, &current) {
                return Ok(());
            }
            current = found;
        }
    }
}
