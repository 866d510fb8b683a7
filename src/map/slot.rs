//! One place of the map, and the word in it: the only atomic that readers and writers meet on.

use std::marker::PhantomData;
use std::ptr;

use super::branch::Branch;
use super::bucket::{Bucket, Item, Items, position};
use super::entry::{Entry, NO_HASH};
use crate::owner::Generation;
use crate::reclaim::{self, EpochGuard};
use crate::sync::{AtomicUsize, Ordering};

/// What a slot holds, as loaded: a tagged pointer, or the reason why there is none.
///
/// | tag | word |
/// |---|---|
/// | `EMPTY` | the generation that was cleared last, shifted; 0 in a slot that was never used |
/// | `LONE` | pointer to the only [`Entry`] |
/// | `BUCKET` | pointer to a [`Bucket`] |
/// | `BRANCH` | pointer to a [`Branch`], for ever |
///
/// **No word comes back to its slot while a thread is pinned that has seen it** (no ABA): pointers are fresh
/// allocations that are freed by epoch, an entry is lone only from the moment it is published, and an empty word
/// carries a generation, which is cleared at most once. A compare-exchange that succeeds has therefore seen
/// every write before it, and two equal reads of a slot mean that nothing happened between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(usize);

const TAG: usize = 0b11;
const EMPTY: usize = 0b00;
const LONE: usize = 0b01;
const BUCKET: usize = 0b10;
const BRANCH: usize = 0b11;

impl Word {
    pub(super) const VACANT: Self = Self(EMPTY);

    /// The word of a slot whose last entry, of `generation`, is cleared.
    #[expect(clippy::cast_possible_truncation, reason = "on 32-bit targets the low bits do: see the limitations page")]
    pub(super) fn vacated(generation: Generation) -> Self {
        Self(((generation.get() as usize) << 2) | EMPTY)
    }

    pub(super) fn lone<K, V>(entry: *mut Entry<K, V>) -> Self {
        Self(entry.expose_provenance() | LONE)
    }

    pub(super) fn bucket<K, V>(bucket: *mut Bucket<K, V>) -> Self {
        Self(bucket.expose_provenance() | BUCKET)
    }

    pub(super) fn branch<K, V>(branch: Box<Branch<K, V>>) -> Self {
        Self(Box::into_raw(branch).expose_provenance() | BRANCH)
    }

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0 & TAG == EMPTY
    }

    #[inline]
    pub(super) fn is_branch(self) -> bool {
        self.0 & TAG == BRANCH
    }

    /// The pointer without its tag.
    #[inline]
    fn pointer<T>(self) -> *mut T {
        ptr::with_exposed_provenance_mut(self.0 & !TAG)
    }
}

type Invariant<T> = fn(T) -> T;

/// An atomic place for a [`Word`].
///
/// Written by the compare-exchange of [`Slot::publish`] only. A slot that holds a branch is never written again.
/// Dropping a slot frees the bucket or branch in it, not the entries (`JobMap` frees those).
pub(super) struct Slot<K, V> {
    word: AtomicUsize,
    /// `Send` and `Sync` as the entries are.
    _entries: PhantomData<(K, V)>,
    /// Invariant in both: entries go in and come out through a shared reference, so a map of `for<'a> fn(&'a str)` that
    /// could be borrowed as one of `fn(&'static str)` would give out the one where the other was put in.
    _invariant: PhantomData<Invariant<(K, V)>>,
}

impl<K, V> Slot<K, V> {
    crate::sync::const_unless_loom! {
        pub(super) const fn vacant() -> Self {
            Self { word: AtomicUsize::new(EMPTY), _entries: PhantomData, _invariant: PhantomData }
        }
    }

    pub(super) fn holding(word: Word) -> Self {
        Self { word: AtomicUsize::new(word.0), _entries: PhantomData, _invariant: PhantomData }
    }

    /// The newest word. It may be *compared* by anyone; looking into it needs a guard that was live at this load.
    #[inline]
    pub(super) fn load(&self) -> Word {
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
    #[expect(clippy::unused_self, reason = "what is in the slot does not outlive it")]
    pub(super) unsafe fn items<'g>(&'g self, word: Word, _guard: &'g EpochGuard) -> Items<'g, K, V> {
        debug_assert!(!word.is_branch(), "branches are walked");
        match word.0 & TAG {
            LONE => {
                // SAFETY: a LONE word is made from an entry, which was published whole (E1), was not retired before
                // the load under `_guard` (E3), and is never written again.
                let entry = unsafe { &*word.pointer::<Entry<K, V>>() }.read();
                Items::Lone([Item::new(entry.hash(), word.pointer())])
            }
            // SAFETY: the same of a BUCKET word, which is made from a bucket.
            BUCKET => Items::Bucket(unsafe { Bucket::items(word.pointer()) }),
            _ => Items::Bucket(&[]),
        }
    }

    /// The entry in `word` of this hash for which `is_it` says yes.
    ///
    /// An empty word and a lone entry's take the same path, to the entry's hash or to `vacant` with the hash of no job: where
    /// the compiler makes a conditional move of it, the branch predictor need not guess which of the two it was.
    ///
    /// # Safety
    ///
    /// As of [`items`](Self::items).
    #[inline]
    pub(super) unsafe fn find<'g>(
        &'g self,
        word: Word,
        vacant: &'g u64,
        hash: u64,
        guard: &'g EpochGuard,
        mut is_it: impl FnMut(&Entry<K, V>) -> bool,
    ) -> Option<&'g Entry<K, V>> {
        debug_assert_eq!(*vacant, NO_HASH, "nothing else is told from an entry");
        if word.0 & TAG == BUCKET {
            // SAFETY: the caller's promise, handed on.
            let items = unsafe { self.items(word, guard) };
            return position(&items, hash, guard, is_it).map(|(_, entry)| entry);
        }
        let place = if word.is_empty() { ptr::from_ref(vacant) } else { word.pointer::<Entry<K, V>>().cast::<u64>() };
        // SAFETY: `vacant`, or the first field of an entry (`repr(C)`): of a LONE word, as in `items`.
        if unsafe { *place } != hash {
            return None;
        }
        // SAFETY: `vacant` has no job's hash, so the word is LONE: as in `items`.
        let entry = unsafe { &*word.pointer::<Entry<K, V>>() }.read();
        is_it(entry).then_some(entry)
    }

    /// The branch in this slot, if `word`, loaded from it, is one. Needs no guard.
    #[inline]
    #[expect(clippy::unused_self, reason = "the branch does not outlive the slot")]
    pub(super) fn branch_of(&self, word: Word) -> Option<&Branch<K, V>> {
        // SAFETY: the word is of tag BRANCH, so it was made from a `Box<Branch>`, published by E1. A slot
        // never loses its branch, which is freed by the slot's own drop only (E4): it outlives `&self`.
        word.is_branch().then(|| unsafe { &*word.pointer::<Branch<K, V>>() })
    }

    /// Retires the bucket of `word`, if it has one of its own; the entries live on.
    ///
    /// # Safety
    ///
    /// The caller replaced `word` in this slot (its `publish` succeeded), and does this once.
    #[inline]
    pub(super) unsafe fn retire_bucket(word: Word, guard: &EpochGuard) {
        if word.0 & TAG == BUCKET {
            // SAFETY: of tag BUCKET; unlinked by the caller's compare-exchange, and for good, as no word comes
            // back (E3). A bucket owns nothing, so any thread may free it.
            unsafe { reclaim::retire(guard, move || Self::discard(word)) };
        }
    }

    /// Frees what `word` points to: a bucket of its own or a branch, not the entries.
    ///
    /// # Safety
    ///
    /// Nobody else has the word, and it is not used again.
    pub(super) unsafe fn discard(word: Word) {
        match word.0 & TAG {
            // SAFETY: of tag BUCKET, and by the caller's promise this is its only owner.
            BUCKET => unsafe { Bucket::<K, V>::free(word.pointer()) },
            // SAFETY: of tag BRANCH, and by the caller's promise this is its only owner.
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
