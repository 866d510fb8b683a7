//! What a reaper shares with its handles: [`Control`].

use std::sync::{Arc, Once};

use arc_swap::ArcSwap;

use super::policy::Policy;
use super::stats::Counts;
use super::sweep_history::SweepHistory;
use crate::telemetry;

/// The part of a reaper that has no types, and that its handles share.
pub(super) struct Control {
    pub(super) policy: ArcSwap<Policy>,
    pub(super) counts: Counts,
    pub(super) history: SweepHistory,
    /// The `reaper` label of its metrics.
    pub(super) name: &'static str,
    registered: Once,
    has_swept: Once,
    /// Completed once it was reported that a dry run found no mark at all.
    pub(super) no_mark: Once,
}

impl Control {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy: ArcSwap::from_pointee(policy),
            counts: Counts::default(),
            history: SweepHistory::new(),
            name: "default",
            registered: Once::new(),
            has_swept: Once::new(),
            no_mark: Once::new(),
        }
    }

    /// Registers the reaper's metrics at zero, for its first handle.
    pub(super) fn register(&self) {
        self.registered.call_once(|| telemetry::register(self.name)); // which catches a recorder's panics
    }

    /// Registers the reaper's metrics at zero, at its first sweep. A handle may have come before there was a recorder.
    pub(super) fn register_at_sweep(&self) {
        self.has_swept.call_once(|| telemetry::register(self.name)); // as above
    }

    /// Returns `true` as long as nothing was reported under the reaper's name.
    pub(super) fn is_new(&self) -> bool {
        !self.registered.is_completed() && !self.has_swept.is_completed()
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
