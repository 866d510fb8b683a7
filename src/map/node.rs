//! The nodes of a grow-only trie: [`Slot`], the only atomic that readers and writers meet on, and [`Branch`], the array
//! of slots that a slot grows into when more jobs share it than a bucket should hold.

use std::marker::PhantomData;

use super::bucket::{Bucket, Entries, position};
use super::entry::{Entry, EntryPtr};
use super::layout::{BRANCH_BITS, BRANCH_SLOTS, BUCKET_MAX};
use super::word::{BRANCH, BUCKET, SINGLE, TaggedWord};
use crate::reclaim::{self, EpochGuard, WriteGuard};
use crate::sync::{AtomicUsize, LoomTracked, Ordering};

type Invariant<T> = fn(T) -> T;

/// An atomic place for a [`TaggedWord`].
///
/// Written by the compare-exchange of [`Slot::publish`] only. A slot that holds a branch is never written again.
/// Dropping a slot frees the bucket or branch in it, not the entries (`JobMap` frees those).
pub(super) struct Slot<K, V> {
    word: AtomicUsize,
    /// A model's atomics are there for all threads from the start. This shows it slots that are looked at before they
    /// are seen whole.
    tracked: LoomTracked,
    /// `Send` and `Sync` as the entries are.
    _entries: PhantomData<(K, V)>,
    /// Invariant in both: entries go in and come out through a shared reference, so a map of `for<'a> fn(&'a str)` that
    /// could be borrowed as one of `fn(&'static str)` would give out the one where the other was put in.
    _invariant: PhantomData<Invariant<(K, V)>>,
}

/// Slots for the next bits of the hash.
///
/// Published complete, and never removed before the map is dropped: so a walk through branches needs no pin.
#[repr(align(64))] // no more cache lines than it needs
pub(super) struct Branch<K, V> {
    slots: [Slot<K, V>; BRANCH_SLOTS],
}

// SAFETY: the atomic and the entries are; `LoomTracked` is made to be used by several threads, and to find those that
// should not.
#[cfg(all(crossbeam_loom, feature = "loom"))]
unsafe impl<K: Sync, V: Sync> Sync for Slot<K, V> {}

impl<K, V> Slot<K, V> {
    crate::sync::const_unless_loom! {
        pub(super) const fn new(word: TaggedWord) -> Self {
            Self {
                word: AtomicUsize::new(word.0),
                tracked: LoomTracked::new(),
                _entries: PhantomData,
                _invariant: PhantomData,
            }
        }
    }

    /// Creates `number` unused slots.
    pub(super) fn unused(number: usize) -> Box<[Self]> {
        // The compiler makes this one write of zeros.
        (0..number).map(|_| Self::new(TaggedWord::UNUSED)).collect()
    }

    /// Returns the newest word. Anyone may *compare* it. To look into it needs a guard that was live at this load.
    #[inline]
    pub(super) fn load(&self) -> TaggedWord {
        self.tracked.read();
        // Acquire half, E1: whoever sees a pointer sees what it points to; E2: a generation drawn after this load is
        // greater than those seen by it. SeqCst, E5: all slots in one order.
        TaggedWord(self.word.load(Ordering::SeqCst))
    }

    /// Puts `new` where `seen` is, and returns `true` if it was there: the linearization point of every write.
    #[inline]
    pub(super) fn publish(&self, seen: TaggedWord, new: TaggedWord) -> bool {
        // Release half, E1: what `new` points to is visible to whoever loads it; E2: and so is the draw of its
        // generation. SeqCst, E5. On failure nothing is read: the caller loads again.
        self.word.compare_exchange(seen.0, new.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Returns the entries in `word`.
    ///
    /// # Safety
    ///
    /// `word`, not a branch's, was loaded from this slot while `guard` was live and has not been repinned since.
    #[inline]
    #[expect(clippy::unused_self, reason = "what is in the slot does not outlive it")]
    pub(super) unsafe fn entries<'g>(&'g self, word: TaggedWord, guard: &'g EpochGuard) -> Entries<'g, K, V> {
        // SAFETY: the caller's promise, handed on.
        unsafe { Self::entries_of(word, guard) }
    }

    /// Returns the [`entries`](Self::entries) of a word whose slot is not at hand.
    ///
    /// # Safety
    ///
    /// The same as of `entries`, and the slot that the word was loaded from outlives the result.
    #[inline]
    pub(super) unsafe fn entries_of(word: TaggedWord, _guard: &EpochGuard) -> Entries<'_, K, V> {
        // SAFETY: what was not retired before the load under `_guard` lives as long as that (E3).
        unsafe { Self::entries_unguarded(word) }
    }

    /// Returns the [`entries`](Self::entries) of a word that is protected by other means than a guard.
    ///
    /// # Safety
    ///
    /// `word`, not a branch's, was loaded from a slot of this type, and what it points to is not freed during `'a`.
    #[inline]
    pub(super) unsafe fn entries_unguarded<'a>(word: TaggedWord) -> Entries<'a, K, V> {
        debug_assert!(!word.is_branch(), "branches are walked");
        match word.kind() {
            SINGLE => {
                // SAFETY: a SINGLE word is made from an entry, which was published whole (E1), is not freed by the
                // caller's promise, and is never written again.
                let entry = unsafe { &*word.entry::<K, V>() }.read();
                Entries::Single([EntryPtr::new(entry.hash(), word.entry(), word.aba_tag())])
            }
            // SAFETY: the same of a BUCKET word, which is made from a bucket.
            BUCKET => Entries::Bucket(unsafe { Bucket::entries(word.pointer()) }),
            _ => Entries::Bucket(&[]),
        }
    }

    /// Returns the entry in `word` of this hash for which `is_it` says yes, which is also asked of some of other
    /// hashes.
    ///
    /// # Safety
    ///
    /// The same as of [`entries`](Self::entries).
    #[inline]
    pub(super) unsafe fn find<'g>(
        &'g self,
        word: TaggedWord,
        hash: u64,
        guard: &'g EpochGuard,
        mut is_it: impl FnMut(&Entry<K, V>) -> bool,
    ) -> Option<&'g Entry<K, V>> {
        if word.matches_tag(hash) {
            // SAFETY: the word is SINGLE: as in `entries`.
            let entry = unsafe { &*word.entry::<K, V>() }.read();
            return is_it(entry).then_some(entry);
        }
        if word.kind() != BUCKET {
            return None;
        }
        // SAFETY: the caller's promise, handed on.
        let entries = unsafe { self.entries(word, guard) };
        position(&entries, hash, guard, is_it).map(|(_, entry)| entry)
    }

    /// Returns the branch in this slot, if `word`, loaded from it, is one. Needs no guard.
    #[inline]
    #[expect(clippy::unused_self, reason = "the branch does not outlive the slot")]
    pub(super) fn branch_of(&self, word: TaggedWord) -> Option<&Branch<K, V>> {
        // SAFETY: the word is of kind BRANCH, so it was made from a `Box<Branch>`, published by E1. A slot
        // never loses its branch, which is freed by the slot's own drop only (E4): it outlives `&self`.
        word.is_branch().then(|| unsafe { &*word.pointer::<Branch<K, V>>() })
    }

    /// Retires the bucket of `word`, if it has one of its own. The entries live on.
    ///
    /// # Safety
    ///
    /// The caller replaced `word` in this slot (its `publish` succeeded), and does this once.
    #[inline]
    pub(super) unsafe fn retire_bucket(word: TaggedWord, guard: &WriteGuard) {
        if word.kind() == BUCKET {
            // SAFETY: of kind BUCKET, and not yet retired.
            let size = unsafe { Bucket::<K, V>::size(word.pointer()) };
            // SAFETY: of kind BUCKET; unlinked by the caller's compare-exchange, and for good, as no word comes
            // back (E3). A bucket owns nothing, so any thread may free it.
            unsafe { reclaim::retire(guard, word.pointer::<()>(), size, Bucket::<K, V>::free) };
        }
    }

    /// Frees what `word` points to: a bucket of its own or a branch, not the entries.
    ///
    /// # Safety
    ///
    /// Nobody else has the word, and it is not used again.
    pub(super) unsafe fn free(word: TaggedWord) {
        match word.kind() {
            // SAFETY: of kind BUCKET, and by the caller's promise this is its only owner.
            BUCKET => unsafe { Bucket::<K, V>::free(word.pointer()) },
            // SAFETY: of kind BRANCH, and by the caller's promise this is its only owner.
            BRANCH => drop(unsafe { Box::<Branch<K, V>>::from_raw(word.pointer()) }),
            _ => {}
        }
    }
}

impl<K, V> Drop for Slot<K, V> {
    fn drop(&mut self) {
        // SAFETY: `&mut self`: no other thread has this slot (E7), and it is gone after this.
        unsafe { Self::free(self.load()) };
    }
}

impl<K, V> Branch<K, V> {
    /// Creates a branch at `shift` that holds `entries`, in nested branches where one place gets too many.
    pub(super) fn new(entries: &[EntryPtr<K, V>], shift: u32) -> Box<Self> {
        let slots = std::array::from_fn(|place| {
            let here = entries.iter().filter(|entry| Self::place(entry.hash(), shift) == place);
            Slot::new(from_entries(&here.copied().collect::<Vec<_>>(), deeper(shift)))
        });
        Box::new(Self { slots })
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "`place` is masked to the array's length")]
    pub(super) fn slot(&self, hash: u64, shift: u32) -> &Slot<K, V> {
        &self.slots[Self::place(hash, shift)]
    }

    pub(super) fn slots(&self) -> &[Slot<K, V>] {
        &self.slots
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked to the branch's width")]
    fn place(hash: u64, shift: u32) -> usize {
        // There is no branch at 64 or more: no bits of the hash are left.
        (hash >> shift) as usize & (BRANCH_SLOTS - 1)
    }
}

/// Returns the shift of the level below `shift`.
#[inline]
pub(super) fn deeper(shift: u32) -> u32 {
    shift + BRANCH_BITS
}

/// Returns the word of a slot at `shift` that holds `entries`.
fn from_entries<K, V>(entries: &[EntryPtr<K, V>], shift: u32) -> TaggedWord {
    match entries {
        [] => TaggedWord::UNUSED,
        [entry] => TaggedWord::single(*entry),
        // At the last bits of the hash a bucket just grows: equal hashes stay correct.
        _ if entries.len() <= BUCKET_MAX || shift >= u64::BITS => TaggedWord::bucket(Bucket::new(entries)),
        _ => TaggedWord::branch(Branch::new(entries, shift)),
    }
}
