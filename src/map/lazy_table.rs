//! The root's array of slots, made once: [`LazyTable`].

use std::marker::PhantomData;
use std::ptr;

use super::layout::{ROOT_SLOTS_MAX, ROOT_SLOTS_MIN};
use super::node::Slot;
use super::table::Table;
use crate::sync::{OncePtr, Ordering};

/// The slots of the root, made at their first use and never moved: an idle registry takes no memory.
pub(super) struct LazyTable<K, V> {
    /// Null until the first mark or reader, then the same forever.
    slots: OncePtr<Slot<K, V>>,
    /// How many slots there are or will be, a power of two, less one.
    mask: usize,
    /// They are owned, and `Send` and `Sync` as they are.
    _slots: PhantomData<Box<[Slot<K, V>]>>,
}

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
        // freed by `drop` only, which has `&mut self`, so that no guard is needed.
        (!slots.is_null()).then(|| Table::new(unsafe { &*self.all(slots) }))
    }

    /// Returns the slots, made now if they have not been.
    #[inline]
    pub(super) fn get_or_init(&self) -> Table<'_, K, V> {
        self.get().unwrap_or_else(|| self.make())
    }

    /// Makes the slots. Of several threads that do so at once, the first one's stay.
    #[cold]
    fn make(&self) -> Table<'_, K, V> {
        let made = Box::into_raw(Slot::<K, V>::unused(self.mask + 1));
        // E8 and E5, as in `get`.
        match self.slots.compare_exchange(ptr::null_mut(), made.cast(), Ordering::SeqCst, Ordering::SeqCst) {
            // SAFETY: freed by `drop` only, which has `&mut self`.
            Ok(_) => Table::new(unsafe { &*made }),
            Err(others) => {
                // SAFETY: made above, and nobody else has it: another thread's came first.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: that thread published them by the same exchange, seen whole by E8; freed by `drop` only.
                Table::new(unsafe { &*self.all(others) })
            }
        }
    }

    /// Returns all slots, of which `first` is the first one.
    #[inline]
    fn all(&self, first: *mut Slot<K, V>) -> *mut [Slot<K, V>] {
        ptr::slice_from_raw_parts_mut(first, self.mask + 1)
    }
}

/// Returns how many slots are best for so many jobs, before rounding up.
///
/// Sixteen for each leave nearly every job alone in its slot. Of larger numbers there are fewer, as then the size of
/// caches matters more, and memory.
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
