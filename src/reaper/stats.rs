//! What a reaper counts: [`ReaperStats`]. A macro spells each counter once.

use super::verdict::{Cause, DeferReason};
use crate::sync::Counter;

macro_rules! counters {
    ($($(#[$attr:meta])* $name:ident,)*) => {
        /// The counts of a reaper's *verdicts* since it was created. [`Reaper::stats`](super::Reaper::stats) returns them.
        ///
        /// Healthy jobs are not counted. In [`Mode::DryRun`](super::Mode::DryRun) only sweeps are counted, and failures
        /// of the loop. Each number is exact, but they are read one after the other.
        ///
        /// ```
        /// # use std::time::Duration;
        /// # use livemark::{Policy, Reaper, Registry};
        /// # let registry: Registry = Registry::new();
        /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
        /// # let reaper = Reaper::new(&registry, policy);
        /// let stats = reaper.stats();
        /// if stats.redrives > 0 && stats.finalizer_defers_total == 0 {
        ///     eprintln!("redrives and never a deferral: is this the registry that the monitors mark in?");
        /// }
        /// # Ok::<(), livemark::PolicyError>(())
        /// ```
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[non_exhaustive]
        pub struct ReaperStats {
            $($(#[$attr])* pub $name: u64,)*
        }

        #[derive(Default)]
        pub(super) struct Counts {
            $(pub(super) $name: Counter,)*
        }

        impl Counts {
            pub(super) fn read(&self) -> ReaperStats {
                ReaperStats { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Sweeps begun.
    sweeps,
    /// Jobs left to a live owner, once per sweep that did.
    finalizer_defers_total,
    /// Jobs left alone because they are alive by other means, once per sweep that did.
    defers_held,
    /// Jobs left alone because the reaper had just started or been away, once per sweep that did.
    defers_boot_grace,
    /// Jobs left alone in [`Mode::DeferAll`](super::Mode::DeferAll), once per sweep that did.
    defers_defer_all,
    /// Jobs left alone because the marks of other processes were not known well enough, once per sweep that did.
    defers_view_stale,
    /// Jobs left alone because their owner's process was lost a moment ago, once per sweep that did.
    defers_settling,
    /// Jobs left alone because nobody could be asked for their mark, once per sweep that did.
    defers_claim_unavailable,
    /// Verdicts to finalize a job again.
    redrives,
    /// Verdicts to end a job because its worker was lost.
    reaps_worker_lost,
    /// Verdicts to end a job because it ran past its hard deadline.
    reaps_backstop,
    /// Verdicts to end a job because it was redriven too often.
    reaps_redrives_exhausted,
    /// Claims that came second to another's mark.
    claim_conflicts,
    /// Verdicts that the job store's compare-and-set refused.
    refused,
    /// Listings of the running jobs that failed.
    failed_listings,
    /// Rows that could not be read.
    bad_rows,
    /// Verdicts that could not be carried out.
    failed_actions,
    /// Panics that the loop caught.
    panics,
}

impl Counts {
    /// Returns the counter of jobs that are left alone for this reason.
    pub(super) fn defers(&self, reason: DeferReason) -> &Counter {
        match reason {
            DeferReason::Owned | DeferReason::ClaimConflict => &self.finalizer_defers_total,
            DeferReason::Held => &self.defers_held,
            DeferReason::BootGrace => &self.defers_boot_grace,
            DeferReason::DeferAll => &self.defers_defer_all,
            DeferReason::ViewStale => &self.defers_view_stale,
            DeferReason::Settling => &self.defers_settling,
            DeferReason::ClaimUnavailable => &self.defers_claim_unavailable,
        }
    }

    /// Returns the counter of jobs that are ended for this cause.
    pub(super) fn reaps(&self, cause: Cause) -> &Counter {
        match cause {
            Cause::WorkerLost => &self.reaps_worker_lost,
            Cause::Backstop => &self.reaps_backstop,
            Cause::RedrivesExhausted => &self.reaps_redrives_exhausted,
        }
    }
}
