//! A marked job in memory: [`Entry`], and [`EntryPtr`], by which slots and buckets hold it.

use super::free_list;
use crate::owner::Owner;
use crate::reclaim::EpochGuard;
use crate::sync::LoomTracked;

/// A marked job, in one allocation that never moves and is never written after it is published.
///
/// The map owns it from the compare-exchange that publishes it to the one that unlinks it, which retires it. It is
/// freed when its epoch has passed. Buckets point at entries. When a bucket is copied its entries stay, so that no user
/// code runs.
#[repr(align(16))] // ENTRY_ALIGN
pub(crate) struct Entry<K, V> {
    hash: u64,
    pub(crate) job: K,
    pub(crate) owner: Owner<V>,
    tracked: LoomTracked,
}

/// What entries are aligned to, at least: on 64-bit targets what allocators give without being asked.
pub(super) const ENTRY_ALIGN: usize = align_of::<Entry<(), ()>>();

/// A pointer to an entry, with its hash: a look-up for another job need not follow the pointer.
pub(super) struct EntryPtr<K, V> {
    hash: u64,
    /// How often the slot collapsed from a bucket to this entry alone. Tells the words of those times apart: see
    /// [`TaggedWord`](super::word::TaggedWord).
    aba_tag: u8,
    /// Valid for as long as the slot or the bucket that it is in is reachable: an entry is retired only by the write
    /// that unlinks it.
    entry: *mut Entry<K, V>,
}

impl<K, V> Entry<K, V> {
    /// Creates an entry to be published: `JobMap::insert` gives it its generation.
    pub(crate) fn new(hash: u64, job: K, owner: Owner<V>) -> Box<Self> {
        free_list::boxed(Self { hash, job, owner, tracked: LoomTracked::new() })
    }

    /// Returns the entry, where a thread that found it in a slot begins to read it.
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

impl<K, V> Clone for EntryPtr<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for EntryPtr<K, V> {}

impl<K, V> EntryPtr<K, V> {
    pub(super) fn new(hash: u64, entry: *mut Entry<K, V>, aba_tag: u8) -> Self {
        Self { hash, aba_tag, entry }
    }

    /// Creates the pointer by which a slot owns `entry` from now on.
    pub(super) fn owning(mut entry: Box<Entry<K, V>>) -> Self {
        entry.tracked = LoomTracked::new(); // written to until now
        Self::new(entry.hash, Box::into_raw(entry), 0)
    }

    /// Returns the pointer to the same entry for a slot that collapses from a bucket to it alone, with the next tag.
    /// None if the tags are used up: the entry then stays in a bucket of one.
    pub(super) fn collapse(self) -> Option<Self> {
        let aba_tag = self.aba_tag.checked_add(1)?;
        Some(Self { aba_tag, ..self })
    }

    pub(super) fn aba_tag(&self) -> u8 {
        self.aba_tag
    }

    #[inline]
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn pointer(&self) -> *mut Entry<K, V> {
        self.entry
    }

    /// Returns the entry.
    ///
    /// # Safety
    ///
    /// The pointer is of a word that was loaded from its slot under `guard`.
    #[inline]
    pub(super) unsafe fn entry<'g>(&self, _guard: &'g EpochGuard) -> &'g Entry<K, V> {
        // SAFETY: the word was in its slot at the load under `_guard`, so its entries were not yet retired then (E3);
        // they are immutable.
        unsafe { (*self.entry).read() }
    }
}
