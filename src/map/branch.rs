//! Branches: what a slot grows into when more jobs share it than a bucket should hold. Never removed before the map is
//! dropped.

use super::bucket::{Bucket, Item};
use super::slot::{Slot, Word};
use super::{BRANCH_BITS, BRANCH_SLOTS, BUCKET_MAX};

/// Slots for the next bits of the hash.
///
/// Published complete, and never removed before the map is dropped: so a walk through branches needs no pin.
#[repr(align(64))] // no more cache lines than it needs
pub(super) struct Branch<K, V> {
    slots: [Slot<K, V>; BRANCH_SLOTS],
}

impl<K, V> Branch<K, V> {
    /// A branch at `shift` that holds `items`, in nested branches where one place gets too many.
    pub(super) fn holding(items: &[Item<K, V>], shift: u32) -> Box<Self> {
        let slots = std::array::from_fn(|place| {
            let here = items.iter().filter(|item| Self::place(item.hash(), shift) == place);
            Slot::holding(word_of(&here.copied().collect::<Vec<_>>(), deeper(shift)))
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
        hash.wrapping_shr(shift) as usize & BRANCH_SLOTS.wrapping_sub(1)
    }
}

/// The shift of the level below `shift`.
#[inline]
pub(super) fn deeper(shift: u32) -> u32 {
    shift.saturating_add(BRANCH_BITS)
}

/// The word of a slot at `shift` that holds `items`.
pub(super) fn word_of<K, V>(items: &[Item<K, V>], shift: u32) -> Word {
    match items {
        [] => Word::VACANT,
        [item] => Word::lone(*item),
        // At the last bits of the hash a bucket just grows: equal hashes stay correct.
        _ if items.len() <= BUCKET_MAX || shift >= u64::BITS => Word::bucket(Bucket::of(items)),
        _ => Word::branch(Branch::holding(items, shift)),
    }
}
