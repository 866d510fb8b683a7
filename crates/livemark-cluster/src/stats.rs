//! What a session counts: [`SessionStats`].

use std::sync::atomic::{AtomicU64, Ordering};

/// What a session has done and met since it was opened. [`Session::stats`](crate::Session::stats) returns it.
///
/// Alert on `differences`, which are 0 while the engine's watch loses nothing, on a slack of the lease below the margin
/// ([`Standing`](crate::Standing)), and on the mirror's [age](crate::View::age).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// Marks that were made, those of its reapers too.
    pub marks: u64,
    /// Marks that its guards hold now.
    pub held: u64,
    /// Marks that somebody else took over, or an operator removed.
    pub displaced: u64,
    /// Renewals of its lease that were answered.
    pub renewals: u64,
    /// Renewals that were not.
    pub failed_renewals: u64,
    /// How often all keys were listed anew, because the watch missed states.
    pub relists: u64,
    /// Keys that the mirror had otherwise than the engine, when they were compared.
    pub differences: u64,
    /// Writes that arrived after they had been given up, and were removed.
    pub ghosts: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: usize) {
        // Relaxed (no edge): a number to look at.
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        // Relaxed (no edge): as above.
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) marks: Count,
    pub(crate) displaced: Count,
    pub(crate) renewals: Count,
    pub(crate) failed_renewals: Count,
    pub(crate) relists: Count,
    pub(crate) differences: Count,
    pub(crate) ghosts: Count,
}
