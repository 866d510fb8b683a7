//! What guards share with their registry: [`Shared`], all of the registry but the hasher.

use super::unbeaten::UnbeatenPulses;
use crate::map::JobMap;
use crate::owner::Generation;
use crate::reclaim;
use crate::show::{Show, Shown};
use crate::sync::Counter;

/// A registry without its hasher. A guard kept the hash of its job, and needs no more.
pub(super) struct Shared<K, V> {
    pub(super) map: JobMap<K, V>,
    pub(super) displaced: Counter,
    pub(super) stale_clears: Counter,
    /// Marks that a [`Feed`](super::feed::Feed) has put in: nobody here made them.
    pub(super) fed: Counter,
    pub(super) unbeaten: UnbeatenPulses,
    /// Writes a job id, if the user says how.
    pub(super) show: Option<Show<K>>,
}

impl<K, V> Shared<K, V> {
    crate::sync::const_unless_loom! {
        /// Creates what a registry of this capacity starts with. Allocates nothing.
        pub(super) const fn with_capacity(owned: usize) -> Self {
            Self {
                map: JobMap::with_capacity(owned),
                displaced: Counter::new(),
                stale_clears: Counter::new(),
                fed: Counter::new(),
                unbeaten: UnbeatenPulses::new(),
                show: None,
            }
        }
    }

    /// Releases a guard's mark. Returns `true` if it still stood. Runs no `Hash`, `Eq` or `Clone` of the user's, so that
    /// a guard can be dropped while a panic unwinds.
    pub(super) fn release(&self, hash: u64, generation: Generation) -> bool {
        let pin = reclaim::pin_for_write();
        let cleared = self.map.remove(hash, &pin, |entry| entry.owner.generation == generation).is_some();
        if !cleared {
            self.stale_clears.increment();
        }
        cleared
    }

    /// Returns `true` if the mark of this generation stands.
    pub(super) fn is_current(&self, hash: u64, generation: Generation) -> bool {
        self.map.find_generation(hash, generation, &reclaim::pin()).is_some()
    }

    pub(super) fn shown<'a>(&self, job: &'a K) -> Shown<'a, K> {
        Shown { job, show: self.show }
    }
}
