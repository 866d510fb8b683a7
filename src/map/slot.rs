//! One place of the map, and the word in it: the only atomic that readers and writers meet on. No word comes back to
//! its slot while a thread that has seen it is pinned.

use std::marker::PhantomData;
use std::ptr;

use super::branch::Branch;
use super::bucket::{Bucket, Item, Items, position};
use super::entry::{ENTRY_ALIGN, Entry};
use crate::owner::Generation;
use crate::reclaim::{self, EpochGuard, WriteGuard};
use crate::sync::{AtomicUsize, LoomTracked, Ordering};

/// What a slot holds, as loaded: a tagged pointer, or the reason why there is none.
///
/// | kind | word |
/// |---|---|
/// | `EMPTY` | the generation that was cleared last, shifted; 0 in a slot that was never used |
/// | `LONE` | pointer to the only [`Entry`], some bits of its hash, and how often it was left alone here by others |
/// | `BUCKET` | pointer to a [`Bucket`] |
/// | `BRANCH` | pointer to a [`Branch`], for ever |
///
/// The bits of the hash answer nearly every look-up of a job that is not the one in the slot, without following the
/// pointer and so without a guard.
///
/// **No word comes back to its slot while a thread is pinned that has seen it** (no ABA): pointers are fresh
/// allocations that are freed by epoch; an entry that is left alone in its slot is counted up in its word (and stays in
/// a bucket of one when the count is at its end); and an empty word carries a generation, which is cleared at most
/// once. A compare-exchange that succeeds has therefore seen every write before it, and two equal reads of a slot mean
/// that nothing happened between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(usize);

const KIND: usize = 0b11;
const EMPTY: usize = 0b00;
const BUCKET: usize = 0b01;
const BRANCH: usize = 0b10;
/// All bits, so that the hash's need no masking before they are compared.
const LONE: usize = 0b11;

/// How far an entry's address is shifted up in a LONE word, to make room for bits of the hash. Together with those that
/// alignment leaves free, and the kind, they fill a byte.
const SHIFT: u32 = if usize::BITS == 64 { 4 } else { 0 };
/// The low bits of a LONE word: kind and bits of the hash.
const LOW_BITS: u32 = SHIFT + ENTRY_ALIGN.trailing_zeros();
const LOW: usize = (1 << LOW_BITS) - 1;
/// The high bits of a LONE word: how often the entry was left alone. Few addresses reach them on 64-bit targets (tagged
/// ones do: their entries are in buckets of one); on others there are none.
const FOLD_BITS: u32 = if usize::BITS == 64 { 8 } else { 0 };
const FOLDS_AT: u32 = usize::BITS - FOLD_BITS;
const ADDRESS: usize = (usize::MAX >> FOLD_BITS) & !LOW;

impl Word {
    pub(super) const VACANT: Self = Self(EMPTY);

    /// The word of a slot whose last entry, of `generation`, is cleared.
    #[expect(clippy::cast_possible_truncation, reason = "on 32-bit targets the low bits do: see the limitations page")]
    pub(super) fn vacated(generation: Generation) -> Self {
        Self(((generation.get() as usize) << 2) | EMPTY)
    }

    /// The word of a slot with this entry only. A bucket of one, where its address or its count does not fit.
    pub(super) fn lone<K, V>(item: Item<K, V>) -> Self {
        let address = item.pointer().expose_provenance();
        debug_assert_eq!(address & ENTRY_ALIGN.wrapping_sub(1), 0, "entries are aligned");
        let folds = usize::from(item.folds());
        let shifted = address.wrapping_shl(SHIFT);
        if (shifted & ADDRESS).wrapping_shr(SHIFT) != address || folds >> FOLD_BITS != 0 {
            return Self::bucket(Bucket::of(&[item]));
        }
        let high = folds.checked_shl(FOLDS_AT).unwrap_or(0);
        Self(high | shifted | Self::low(item.hash()))
    }

    pub(super) fn bucket<K, V>(bucket: *mut Bucket<K, V>) -> Self {
        Self(bucket.expose_provenance() | BUCKET)
    }

    pub(super) fn branch<K, V>(branch: Box<Branch<K, V>>) -> Self {
        Self(Box::into_raw(branch).expose_provenance() | BRANCH)
    }

    /// The low bits of a LONE word of this hash: from its high end, as the map uses the low one.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the bits that are left are few")]
    const fn low(hash: u64) -> usize {
        hash.wrapping_shr(u64::BITS - LOW_BITS) as usize | LONE
    }

    #[inline]
    fn kind(self) -> usize {
        self.0 & KIND
    }

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.kind() == EMPTY
    }

    #[inline]
    pub(super) fn is_branch(self) -> bool {
        self.kind() == BRANCH
    }

    /// Returns `true` if it says by itself that no job of this hash is here.
    #[inline]
    pub(super) fn rules_out(self, hash: u64) -> bool {
        // EMPTY or LONE, in one comparison.
        !self.may_be(hash) && self.kind().wrapping_add(1) & 0b10 == 0
    }

    /// Returns `true` if it is of a lone entry that may have this hash.
    #[inline]
    pub(super) fn may_be(self, hash: u64) -> bool {
        self.0 & LOW == Self::low(hash)
    }

    /// The entry of a LONE word.
    #[inline]
    fn entry<K, V>(self) -> *mut Entry<K, V> {
        ptr::with_exposed_provenance_mut((self.0 & ADDRESS).wrapping_shr(SHIFT))
    }

    /// How often the entry of a LONE word was left alone.
    #[expect(clippy::cast_possible_truncation, reason = "the bits that are left are few")]
    fn folds(self) -> u8 {
        self.0.checked_shr(FOLDS_AT).unwrap_or(0) as u8
    }

    /// The pointer of a BUCKET or BRANCH word.
    #[inline]
    fn pointer<T>(self) -> *mut T {
        ptr::with_exposed_provenance_mut(self.0 & !KIND)
    }
}

type Invariant<T> = fn(T) -> T;

/// An atomic place for a [`Word`].
///
/// Written by the compare-exchange of [`Slot::publish`] only. A slot that holds a branch is never written again.
/// Dropping a slot frees the bucket or branch in it, not the entries (`JobMap` frees those).
pub(super) struct Slot<K, V> {
    word: AtomicUsize,
    /// A model's atomics are there for all threads from the start; this shows it slots that are looked at before they
    /// are seen whole.
    tracked: LoomTracked,
    /// `Send` and `Sync` as the entries are.
    _entries: PhantomData<(K, V)>,
    /// Invariant in both: entries go in and come out through a shared reference, so a map of `for<'a> fn(&'a str)` that
    /// could be borrowed as one of `fn(&'static str)` would give out the one where the other was put in.
    _invariant: PhantomData<Invariant<(K, V)>>,
}

// SAFETY: the atomic and the entries are; `LoomTracked` is made to be used by several threads, and to find those
// that should not.
#[cfg(all(crossbeam_loom, feature = "loom"))]
unsafe impl<K: Sync, V: Sync> Sync for Slot<K, V> {}

impl<K, V> Slot<K, V> {
    crate::sync::const_unless_loom! {
        pub(super) const fn vacant() -> Self {
            Self::holding(Word::VACANT)
        }
    }

    /// Returns `number` vacant slots.
    pub(super) fn vacant_slots(number: usize) -> Box<[Self]> {
        // The compiler makes this one write of zeros.
        (0..number).map(|_| Self::vacant()).collect()
    }

    crate::sync::const_unless_loom! {
        pub(super) const fn holding(word: Word) -> Self {
            Self { word: AtomicUsize::new(word.0), tracked: LoomTracked::new(), _entries: PhantomData, _invariant: PhantomData }
        }
    }

    /// The newest word. It may be *compared* by anyone; looking into it needs a guard that was live at this load.
    #[inline]
    pub(super) fn load(&self) -> Word {
        self.tracked.read();
        // Acquire half, E1: whoever sees a pointer sees what it points to; E2: a generation drawn after this load is
        // greater than those seen by it. SeqCst, E5: all slots in one order.
        Word(self.word.load(Ordering::SeqCst))
    }

    /// Puts `new` where `seen` is: the linearization point of every write. Says whether it did.
    #[inline]
    pub(super) fn publish(&self, seen: Word, new: Word) -> bool {
        // Release half, E1: what `new` points to is visible to whoever loads it; E2: and so is the draw of its
        // generation. SeqCst, E5. On failure nothing is read: the caller loads again.
        self.word.compare_exchange(seen.0, new.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// The entries in `word`.
    ///
    /// # Safety
    ///
    /// `word`, not a branch's, was loaded from this slot while `guard` was live and has not been repinned since.
    #[inline]
    #[expect(clippy::unused_self, reason = "what is in the slot does not outlive it")]
    pub(super) unsafe fn items<'g>(&'g self, word: Word, guard: &'g EpochGuard) -> Items<'g, K, V> {
        // SAFETY: the caller's promise, handed on.
        unsafe { Self::items_of(word, guard) }
    }

    /// [`items`](Self::items) of a word whose slot is not at hand.
    ///
    /// # Safety
    ///
    /// The same as of `items`, and the slot that the word was loaded from outlives the result.
    #[inline]
    pub(super) unsafe fn items_of(word: Word, _guard: &EpochGuard) -> Items<'_, K, V> {
        // SAFETY: what was not retired before the load under `_guard` lives as long as that (E3).
        unsafe { Self::items_while(word) }
    }

    /// [`items`](Self::items) of a word that is protected by other means than a guard.
    ///
    /// # Safety
    ///
    /// `word`, not a branch's, was loaded from a slot of this type, and what it points to is not freed during `'a`.
    #[inline]
    pub(super) unsafe fn items_while<'a>(word: Word) -> Items<'a, K, V> {
        debug_assert!(!word.is_branch(), "branches are walked");
        match word.kind() {
            LONE => {
                // SAFETY: a LONE word is made from an entry, which was published whole (E1), is not freed by the
                // caller's promise, and is never written again.
                let entry = unsafe { &*word.entry::<K, V>() }.read();
                Items::Lone([Item::new(entry.hash(), word.entry(), word.folds())])
            }
            // SAFETY: the same of a BUCKET word, which is made from a bucket.
            BUCKET => Items::Bucket(unsafe { Bucket::items(word.pointer()) }),
            _ => Items::Bucket(&[]),
        }
    }

    /// The entry in `word` of this hash for which `is_it` says yes; it is also asked of some of other hashes.
    ///
    /// # Safety
    ///
    /// The same as of [`items`](Self::items).
    #[inline]
    pub(super) unsafe fn find<'g>(
        &'g self,
        word: Word,
        hash: u64,
        guard: &'g EpochGuard,
        mut is_it: impl FnMut(&Entry<K, V>) -> bool,
    ) -> Option<&'g Entry<K, V>> {
        if word.may_be(hash) {
            // SAFETY: the word is LONE: as in `items`.
            let entry = unsafe { &*word.entry::<K, V>() }.read();
            return is_it(entry).then_some(entry);
        }
        if word.kind() != BUCKET {
            return None;
        }
        // SAFETY: the caller's promise, handed on.
        let items = unsafe { self.items(word, guard) };
        position(&items, hash, guard, is_it).map(|(_, entry)| entry)
    }

    /// The branch in this slot, if `word`, loaded from it, is one. Needs no guard.
    #[inline]
    #[expect(clippy::unused_self, reason = "the branch does not outlive the slot")]
    pub(super) fn branch_of(&self, word: Word) -> Option<&Branch<K, V>> {
        // SAFETY: the word is of kind BRANCH, so it was made from a `Box<Branch>`, published by E1. A slot
        // never loses its branch, which is freed by the slot's own drop only (E4): it outlives `&self`.
        word.is_branch().then(|| unsafe { &*word.pointer::<Branch<K, V>>() })
    }

    /// Retires the bucket of `word`, if it has one of its own; the entries live on.
    ///
    /// # Safety
    ///
    /// The caller replaced `word` in this slot (its `publish` succeeded), and does this once.
    #[inline]
    pub(super) unsafe fn retire_bucket(word: Word, guard: &WriteGuard) {
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
    pub(super) unsafe fn discard(word: Word) {
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
        unsafe { Self::discard(self.load()) };
    }
}
