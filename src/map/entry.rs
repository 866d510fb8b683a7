//! A marked job in memory: [`Entry`].

use super::bucket::Item;
use crate::owner::Owner;
use crate::sync::Watch;

/// A marked job, in one allocation that never moves and is never written after it is published.
///
/// Owned by the map from the compare-exchange that publishes it to the one that unlinks it, which retires it.
/// Buckets point at entries; when a bucket is copied the entry stays, so that no user code runs.
#[repr(C)]
pub(crate) struct Entry<K, V> {
    /// Never [`NO_HASH`]. First, so that it is read through a pointer to the entry or to a `NO_HASH` alike.
    hash: u64,
    pub(crate) job: K,
    pub(crate) owner: Owner<V>,
    watch: Watch,
}

/// The hash of no job, found where an empty slot's entry would be.
pub(super) const NO_HASH: u64 = 0;

/// The hash of a job as the map uses it: never [`NO_HASH`].
#[inline]
pub(crate) fn job_hash(hash: u64) -> u64 {
    hash | 1 << (u64::BITS - 1)
}

impl<K, V> Entry<K, V> {
    /// An entry to be published: `JobMap::insert` gives it its generation.
    pub(crate) fn new(hash: u64, job: K, owner: Owner<V>) -> Box<Self> {
        debug_assert_ne!(hash, NO_HASH, "hashes go through `job_hash`");
        Box::new(Self { hash, job, owner, watch: Watch::new() })
    }

    /// The item that stands for this entry in its slot, which owns it from now on.
    pub(super) fn into_item(mut self: Box<Self>) -> Item<K, V> {
        self.watch = Watch::new(); // written to until now
        Item::new(self.hash, Box::into_raw(self))
    }

    /// The entry, where a thread that found it in a slot begins to read it.
    #[inline]
    pub(super) fn read(&self) -> &Self {
        self.watch.read();
        self
    }

    #[inline]
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}
