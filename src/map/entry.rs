//! A marked job in memory: [`Entry`]. Not written after it is published, freed when it was unlinked and its epoch has
//! passed.

use super::spare;
use crate::owner::Owner;
use crate::sync::LoomTracked;

/// A marked job, in one allocation that never moves and is never written after it is published.
///
/// Owned by the map from the compare-exchange that publishes it to the one that unlinks it, which retires it.
/// Buckets point at entries; when a bucket is copied the entry stays, so that no user code runs.
#[repr(align(16))] // ENTRY_ALIGN
pub(crate) struct Entry<K, V> {
    hash: u64,
    pub(crate) job: K,
    pub(crate) owner: Owner<V>,
    tracked: LoomTracked,
}

/// What entries are aligned to, at least: on 64-bit targets what allocators give without being asked.
pub(super) const ENTRY_ALIGN: usize = align_of::<Entry<(), ()>>();

impl<K, V> Entry<K, V> {
    /// An entry to be published: `JobMap::insert` gives it its generation.
    pub(crate) fn new(hash: u64, job: K, owner: Owner<V>) -> Box<Self> {
        spare::boxed(Self { hash, job, owner, tracked: LoomTracked::new() })
    }

    /// A pointer to the entry, which is about to be published.
    pub(super) fn into_raw(mut self: Box<Self>) -> *mut Self {
        self.tracked = LoomTracked::new(); // written to until now
        Box::into_raw(self)
    }

    /// The entry, where a thread that found it in a slot begins to read it.
    #[inline]
    pub(super) fn read(&self) -> &Self {
        self.tracked.read();
        self
    }

    #[inline]
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}
