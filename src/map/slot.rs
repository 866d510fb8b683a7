//! One place of the map, and the word in it: the only atomic that readers and writers meet on.

use std::marker::PhantomData;

use crossbeam_epoch::{Owned, Pointable, Pointer, Shared};

use super::branch::Branch;
use super::bucket::{Bucket, Item};
use crate::owner::{Generation, Owner};
use crate::reclaim::EpochGuard;
use crate::sync::{AtomicUsize, Ordering};

/// A marked job, in one allocation that never moves and is never written after it is published.
///
/// Owned by the map from the compare-exchange that publishes it to the one that unlinks it, which retires it.
/// Buckets point at entries; when a bucket is copied the entry stays, so no user code runs.
pub(crate) struct Entry<K, V> {
    pub(crate) hash: u64,
    pub(crate) job: K,
    pub(crate) owner: Owner<V>,
}

impl<K, V> Entry<K, V> {
    /// An entry to be published: `JobMap::insert` gives it its generation.
    pub(crate) fn new(hash: u64, job: K, owner: Owner<V>) -> Box<Self> {
        Box::new(Self { hash, job, owner })
    }
}

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
    // The cut to the pointer's width is meant: see "32-bit targets" in the limitations page.
    #[expect(clippy::cast_possible_truncation, reason = "32-bit targets keep the low bits")]
    pub(super) fn vacated(generation: Generation) -> Self {
        Self(((generation.get() as usize) << 2) | EMPTY)
    }

    pub(super) fn lone<K, V>(entry: *const Entry<K, V>) -> Self {
        Self(entry.addr() | LONE)
    }

    pub(super) fn bucket<K, V>(bucket: Owned<Bucket<K, V>>) -> Self {
        Self(bucket.into_usize() | BUCKET)
    }

    pub(super) fn branch<K, V>(branch: Box<Branch<K, V>>) -> Self {
        Self(Owned::<Branch<K, V>>::from(branch).into_usize() | BRANCH)
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
    ///
    /// # Safety
    ///
    /// The word is of the tag that stands for `T`.
    #[inline]
    unsafe fn pointer<'g, T: ?Sized + Pointable>(self) -> Shared<'g, T> {
        // SAFETY: by the caller's promise the word was made from an `Owned<T>` or a `Box<T>`.
        unsafe { Shared::from_usize(self.0 & !TAG) }
    }
}

/// What a leaf's word stands for.
pub(super) enum Node<'g, K, V> {
    Empty,
    Lone(&'g Entry<K, V>),
    Bucket(&'g [Item<K, V>]),
}

/// An atomic place for a [`Word`].
///
/// Written by the compare-exchange of [`Slot::publish`] only. A slot that holds a branch is never written again.
/// Dropping a slot frees the bucket or branch in it, not the entries (`JobMap` frees those).
pub(super) struct Slot<K, V> {
    word: AtomicUsize,
    _entries: PhantomData<(K, V)>,
}

impl<K, V> Slot<K, V> {
    crate::sync::const_unless_loom! {
        pub(super) const fn vacant() -> Self {
            Self { word: AtomicUsize::new(EMPTY), _entries: PhantomData }
        }
    }

    pub(super) fn holding(word: Word) -> Self {
        Self { word: AtomicUsize::new(word.0), _entries: PhantomData }
    }

    /// The newest word. It may be *compared* by anyone; decoding it needs a guard that was live at this load.
    #[inline]
    pub(super) fn load(&self) -> Word {
        // Acquire half, E1: whoever sees a pointer sees what it points to. SeqCst, E5: all slots in one order.
        Word(self.word.load(Ordering::SeqCst))
    }

    /// Puts `new` where `seen` is: the linearization point of every write. Says whether it did.
    #[inline]
    pub(super) fn publish(&self, seen: Word, new: Word) -> bool {
        // Release half, E1: what `new` points to is visible to whoever loads it. Acquire half, E2: later draws of
        // a generation come after the ones seen here. SeqCst, E5. On failure nothing is read: the caller loads again.
        self.word.compare_exchange(seen.0, new.0, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Decodes `word`, which is not a branch's.
    ///
    /// # Safety
    ///
    /// `word` was loaded from this slot while `guard` was live and has not been repinned since.
    #[inline]
    pub(super) unsafe fn decode<'g>(&'g self, word: Word, _guard: &'g EpochGuard) -> Node<'g, K, V> {
        debug_assert!(!word.is_branch(), "branches are walked, not decoded");
        match word.0 & TAG {
            // SAFETY: a LONE word was made from an entry (`Word::lone`), which was published and not retired before
            // the load under `_guard` (E3), and is immutable.
            LONE => Node::Lone(unsafe { word.pointer::<Entry<K, V>>().deref() }),
            // SAFETY: a BUCKET word was made from an `Owned<Bucket>` whose items are all written (`Word::bucket`,
            // `bucket.rs`); not retired before the load under `_guard` (E3), and immutable.
            BUCKET => Node::Bucket(unsafe { super::bucket::items(word.pointer::<Bucket<K, V>>()) }),
            _ => Node::Empty,
        }
    }

    /// The branch in this slot, if `word`, loaded from it, is one. Needs no guard.
    #[inline]
    pub(super) fn branch_of(&self, word: Word) -> Option<&Branch<K, V>> {
        // SAFETY: the word is of tag BRANCH, so it was made from a `Box<Branch>`, published by E1. A slot
        // never loses its branch, which is freed by the slot's own drop only (E4): it outlives `&self`.
        word.is_branch().then(|| unsafe { word.pointer::<Branch<K, V>>().deref() })
    }

    /// Retires the bucket that `word` pointed to, if it was one; its entries live on.
    ///
    /// # Safety
    ///
    /// The caller replaced `word` in this slot (its `publish` succeeded), and does this once.
    #[inline]
    pub(super) unsafe fn retire_bucket(word: Word, guard: &EpochGuard) {
        if word.0 & TAG == BUCKET {
            // SAFETY: unlinked by the caller's compare-exchange and, as no word comes back, for good (E3).
            unsafe { crate::reclaim::retire(word.pointer::<Bucket<K, V>>(), guard) };
        }
    }

    /// Frees what an unpublished `word` points to: a bucket or a branch, not the entries.
    ///
    /// # Safety
    ///
    /// Nobody else has the word, and it is not used again.
    pub(super) unsafe fn discard(word: Word) {
        match word.0 & TAG {
            // SAFETY: of tag BUCKET, and by the caller's promise this is its only owner.
            BUCKET => drop(unsafe { word.pointer::<Bucket<K, V>>().into_owned() }),
            // SAFETY: of tag BRANCH, and by the caller's promise this is its only owner.
            BRANCH => drop(unsafe { word.pointer::<Branch<K, V>>().into_owned() }),
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
