//! What operators see of retired memory: [`ReclaimStats`] and [`reclaim_stats`].

use super::batch;

/// What was retired and what of it was freed, in all registries of the process: see [`reclaim_stats`].
///
/// ```
/// let livemark::ReclaimStats { retired, reclaimed, .. } = livemark::reclaim_stats();
/// assert!(reclaimed <= retired);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReclaimStats {
    /// Entries that were cleared, displaced or replaced, and arrays that changed, since the process started.
    pub retired: u64,
    /// Those that were freed. Counted when all of a batch are, up to 64.
    pub reclaimed: u64,
}

impl ReclaimStats {
    /// Returns how many wait to be freed.
    ///
    /// ```
    /// let stats = livemark::reclaim_stats();
    /// assert_eq!(stats.unreclaimed(), stats.retired - stats.reclaimed);
    /// ```
    #[must_use]
    pub fn unreclaimed(&self) -> u64 {
        self.retired.saturating_sub(self.reclaimed)
    }
}

/// Returns how much retired memory awaits reclamation, in all registries of the process.
///
/// [`unreclaimed`](ReclaimStats::unreclaimed) normally stays below a few hundred per marking thread. If it only grows,
/// a [`Reader`](crate::Reader) is being held without being used, and nothing is freed that was cleared after its last
/// look-up. The call takes one relaxed load for each thread that ever cleared at the same time as the others. The two
/// numbers are not of one instant.
///
/// ```
/// let stats = livemark::reclaim_stats();
/// println!("{} cleared marks wait to be freed", stats.unreclaimed());
/// ```
#[must_use]
pub fn reclaim_stats() -> ReclaimStats {
    // First what was freed, so that it is not more than what was retired.
    let reclaimed = batch::reclaimed();
    ReclaimStats { retired: batch::retired().max(reclaimed), reclaimed }
}
