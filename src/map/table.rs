//! From a hash to its slot: [`LazyTable`], the root's array of slots, made at its first use and never moved; [`Table`],
//! a look at it that needs no pin; and [`Leaf`], a slot at the end of a walk, as it was loaded.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::ptr;

use super::entry::{Entry, EntryPtr};
use super::free_list;
use super::layout::{ROOT_SLOTS_MAX, ROOT_SLOTS_MIN};
use super::node::{Slot, deeper};
use super::word::TaggedWord;
use crate::reclaim::{self, EpochGuard, WriteGuard};
use crate::sync::{OncePtr, Ordering};

/// The slots of the root, once there are any.
pub(super) struct LazyTable<K, V> {
    /// Null until the first mark or reader; then the same for ever.
    slots: OncePtr<Slot<K, V>>,
    /// How many slots there are or will be, a power of two, less one.
    mask: usize,
    /// They are owned, and `Send` and `Sync` as they are.
    _slots: PhantomData<Box<[Slot<K, V>]>>,
}

/// The slots of the root.
pub(crate) struct Table<'m, K, V> {
    /// Two to some power.
    slots: &'m [Slot<K, V>],
}

/// A slot that held no branch when it was last looked at.
pub(super) struct Leaf<'m, K, V> {
    pub(super) slot: &'m Slot<K, V>,
    pub(super) word: TaggedWord,
    /// How many bits of the hash were used to get here.
    pub(super) shift: u32,
}

impl<K, V> Clone for Table<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Table<'_, K, V> {}

impl<K, V> LazyTable<K, V> {
    crate::sync::const_unless_loom! {
        /// Creates a table with room for so many jobs, nearly all of them alone in their slots. Allocates nothing yet.
        pub(super) const fn with_capacity(jobs: usize) -> Self {
            let slots = slots_for(jobs);
            let slots = if slots >= ROOT_SLOTS_MAX {
                ROOT_SLOTS_MAX
            } else if slots <= ROOT_SLOTS_MIN {
                ROOT_SLOTS_MIN
            } else {
                slots.next_power_of_two()
            };
            Self { slots: OncePtr::new(ptr::null_mut()), mask: slots - 1, _slots: PhantomData }
        }
    }

    /// Returns the slots, if they have been made.
    #[inline]
    pub(super) fn get(&self) -> Option<Table<'_, K, V>> {
        // E8: whoever sees the pointer sees the slots. SeqCst, E5: before the slots are made no job is marked, in the
        // one order of all slots.
        let slots = self.slots.load(Ordering::SeqCst);
        // SAFETY: not null at this load, it came from `make`'s boxed slice of this length, seen whole by E8. It is
        // freed by `drop` only, which has `&mut self`; so no guard is needed.
        (!slots.is_null()).then(|| Table { slots: unsafe { &*self.all(slots) } })
    }

    /// Returns the slots, made now if they have not been.
    #[inline]
    pub(super) fn get_or_init(&self) -> Table<'_, K, V> {
        self.get().unwrap_or_else(|| self.make())
    }

    #[cold]
    fn make(&self) -> Table<'_, K, V> {
        let made = Box::into_raw(Slot::<K, V>::unused(self.mask + 1));
        // E8 and E5, as in `get`.
        match self.slots.compare_exchange(ptr::null_mut(), made.cast(), Ordering::SeqCst, Ordering::SeqCst) {
            // SAFETY: freed by `drop` only, which has `&mut self`.
            Ok(_) => Table { slots: unsafe { &*made } },
            Err(others) => {
                // SAFETY: made above, and nobody else has it: another thread's came first.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: that thread published them by the same exchange, seen whole by E8; freed by `drop` only.
                Table { slots: unsafe { &*self.all(others) } }
            }
        }
    }

    /// Returns all slots, of which `first` is the first one.
    #[inline]
    fn all(&self, first: *mut Slot<K, V>) -> *mut [Slot<K, V>] {
        ptr::slice_from_raw_parts_mut(first, self.mask + 1)
    }
}

/// Returns how many slots are best for so many jobs, before rounding up. Sixteen for each leave nearly every job alone in its
/// slot; of larger numbers fewer, as then the size of caches matters more, and memory.
const fn slots_for(jobs: usize) -> usize {
    match jobs {
        0..=4_096 => jobs * 16,
        4_097..=16_384 => 65_536,
        16_385..=65_536 => jobs * 4,
        65_537..=131_072 => 262_144,
        _ => jobs.saturating_mul(2),
    }
}

impl<K, V> Drop for LazyTable<K, V> {
    fn drop(&mut self) {
        let slots = self.slots.load(Ordering::SeqCst); // E7
        if !slots.is_null() {
            // SAFETY: from `make`'s boxed slice of this length; `&mut self`: nobody looks at it any more (E7).
            drop(unsafe { Box::from_raw(self.all(slots)) });
        }
    }
}

impl<'m, K, V> Table<'m, K, V> {
    /// Returns `true` if the slot's word alone says that no job of this hash is marked. Needs no guard.
    ///
    /// Linearizes at the load of the slot.
    #[inline]
    pub(crate) fn excludes(self, hash: u64) -> bool {
        let word = self.slot(hash).load();
        word.excludes(hash) || (word.is_branch() && self.leaf(hash).word.excludes(hash))
    }

    /// Returns the entry of `job`. Linearizes at the load of the slot.
    #[inline]
    pub(crate) fn find<'g, Q>(self, hash: u64, job: &Q, guard: &'g EpochGuard) -> Option<&'g Entry<K, V>>
    where
        'm: 'g,
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.find_where(hash, guard, move |entry| entry.job.borrow() == job)
    }

    /// Returns the entry of this hash for which `is_it` says yes. Linearizes at the load of the slot.
    #[inline]
    pub(super) fn find_where<'g>(
        self,
        hash: u64,
        guard: &'g EpochGuard,
        is_it: impl FnMut(&Entry<K, V>) -> bool,
    ) -> Option<&'g Entry<K, V>>
    where
        'm: 'g,
    {
        let slot = self.slot(hash);
        let word = slot.load();
        if word.matches_tag(hash) {
            // SAFETY: the word was just loaded from this slot, while `guard` was live.
            return unsafe { slot.find(word, hash, guard, is_it) };
        }
        if word.excludes(hash) {
            return None;
        }
        self.find_below(hash, guard, is_it)
    }

    /// Looks where several jobs share the slot. Not inlined, so that the rest is, wherever it is.
    #[inline(never)]
    fn find_below<'g>(
        self,
        hash: u64,
        guard: &'g EpochGuard,
        is_it: impl FnMut(&Entry<K, V>) -> bool,
    ) -> Option<&'g Entry<K, V>>
    where
        'm: 'g,
    {
        let Leaf { slot, word, .. } = self.leaf(hash);
        // SAFETY: the word was just loaded from this slot, while `guard` was live.
        unsafe { slot.find(word, hash, guard, is_it) }
    }

    #[inline]
    fn slot(self, hash: u64) -> &'m Slot<K, V> {
        let place = place(hash, self.slots.len());
        // SAFETY: `place` is masked to the number of slots, which is a power of two and so not zero.
        unsafe { self.slots.get_unchecked(place) }
    }

    /// Makes one pass over all slots that are not branches, loading each once, in the same order every time.
    pub(super) fn for_each(self, mut each: impl FnMut(&'m Slot<K, V>, TaggedWord)) {
        walk(self.slots, &mut each);
    }

    /// Walks from the root to the slot of `hash` and loads it.
    #[inline]
    pub(super) fn leaf(self, hash: u64) -> Leaf<'m, K, V> {
        let mut slot = self.slot(hash);
        let mut shift = self.slots.len().trailing_zeros();
        loop {
            let word = slot.load();
            match slot.branch_of(word) {
                Some(branch) => slot = branch.slot(hash, shift),
                None => return Leaf { slot, word, shift },
            }
            shift = deeper(shift);
        }
    }
}

impl<K, V> Leaf<'_, K, V> {
    /// Puts `new` in the place of this leaf's word and retires what that unlinks: the old bucket, and `unlinked`.
    /// Returns `false` where the slot has changed, and frees `new`.
    ///
    /// # Safety
    ///
    /// The word of this leaf was loaded while `guard` was live. `new` is nowhere else. `unlinked` is an entry of
    /// the leaf's word that is not in `new`, and every other entry of that word is in `new`. The types of the entry
    /// are `Send + Sync + 'static`.
    pub(super) unsafe fn publish(
        &self,
        new: TaggedWord,
        unlinked: Option<&EntryPtr<K, V>>,
        guard: &WriteGuard,
    ) -> bool {
        // One compare-exchange. Another write to the slot came first: nothing is changed, and the caller starts again.
        if !self.slot.publish(self.word, new) {
            // SAFETY: `new` is nowhere else, by the caller's promise and as it was not published.
            unsafe { Slot::<K, V>::free(new) };
            return false;
        }
        // Retire, not free: other threads may still be reading what the old word points to.
        // SAFETY: this thread's compare-exchange took the word out of the slot.
        unsafe { Slot::<K, V>::retire_bucket(self.word, guard) };
        if let Some(unlinked) = unlinked {
            let entry = unlinked.pointer();
            // SAFETY: this thread's compare-exchange unlinked the entry, which no write can bring back: it was in
            // this slot only, and it is not in `new`. It came from a box (`EntryPtr::owning`), and its types are
            // `Send + Sync + 'static` by the caller's promise.
            unsafe { reclaim::retire(guard, entry.cast(), size_of::<Entry<K, V>>(), free_list::free::<Entry<K, V>>) };
        }
        true
    }
}

/// Walks as deep as there are branches: a hash has bits for nine levels of them at most.
fn walk<'m, K, V>(slots: &'m [Slot<K, V>], each: &mut impl FnMut(&'m Slot<K, V>, TaggedWord)) {
    for slot in slots {
        let word = slot.load();
        match slot.branch_of(word) {
            Some(branch) => walk(branch.slots(), each),
            None => each(slot, word),
        }
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "masked to the number of slots")]
fn place(hash: u64, slots: usize) -> usize {
    hash as usize & (slots - 1)
}
