//! What a slot holds, as loaded: [`TaggedWord`], a pointer with tag bits, or the reason why there is none.

use std::ptr;

use super::bucket::Bucket;
use super::entry::{ENTRY_ALIGN, Entry, EntryPtr};
use crate::owner::Generation;

/// The word of a slot, by its lowest two bits:
///
/// ```text
///          63         56 55                          8 7            2 1  0
/// SINGLE  │   ABA tag   │    address of the entry / 16  │ hash 63..58  │ 1 1 │
/// BUCKET  │    address of the bucket                                  │ 0 1 │
/// BRANCH  │    address of the branch, forever                         │ 1 0 │
/// EMPTY   │    generation that was cleared last, 0 before the first   │ 0 0 │
/// ```
///
/// (On 32-bit targets a SINGLE word has two bits of the hash and no tag.)
///
/// The bits of the hash answer nearly every look-up of a job that is not the one in the slot, without following the
/// pointer and so without a guard.
///
/// **No word comes back to its slot while a thread is pinned that has seen it** (no ABA):
///
/// - Pointers are of fresh allocations, which are freed by epoch.
/// - An entry that others join in its slot and leave again has the next ABA tag each time. When the tags are used up, it
///   stays in a bucket of one.
/// - An empty word carries a generation, which is cleared at most once.
///
/// A compare-exchange that succeeds has therefore seen every write before it, and two equal reads of a slot mean that
/// nothing happened between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct TaggedWord(pub(super) usize);

/// The lowest two bits say what the others are.
const KIND: usize = 0b11;
pub(super) const EMPTY: usize = 0b00;
pub(super) const BUCKET: usize = 0b01;
pub(super) const BRANCH: usize = 0b10;
/// All bits, so that the hash's need no masking before they are compared.
pub(super) const SINGLE: usize = 0b11;

/// How far an entry's address is shifted up in a SINGLE word, to make room for bits of the hash. Together with those
/// that alignment leaves free, and the kind, they fill a byte.
const SHIFT: u32 = if usize::BITS == 64 { 4 } else { 0 };
/// The low bits of a SINGLE word: kind and bits of the hash.
const LOW_BITS: u32 = SHIFT + ENTRY_ALIGN.trailing_zeros();
const LOW: usize = (1 << LOW_BITS) - 1;
/// The high bits of a SINGLE word. Few addresses reach them on 64-bit targets (tagged ones do: their entries are in
/// buckets of one). On others there are none.
const ABA_TAG_BITS: u32 = if usize::BITS == 64 { 8 } else { 0 };
const ABA_TAG_AT: u32 = usize::BITS - ABA_TAG_BITS;
const ADDRESS: usize = (usize::MAX >> ABA_TAG_BITS) & !LOW;

impl TaggedWord {
    /// The word of a slot that was never used.
    pub(super) const UNUSED: Self = Self(EMPTY);

    /// Returns the word of a slot whose last entry, of `generation`, is cleared.
    #[expect(clippy::cast_possible_truncation, reason = "on 32-bit targets the low bits do: see the pitfalls page")]
    pub(super) fn cleared(generation: Generation) -> Self {
        Self(((generation.get() as usize) << 2) | EMPTY)
    }

    /// Returns the word of a slot with this entry only. A bucket of one, where its address or its tag does not fit.
    pub(super) fn single<K, V>(entry: EntryPtr<K, V>) -> Self {
        let address = entry.pointer().expose_provenance();
        debug_assert_eq!(address & (ENTRY_ALIGN - 1), 0, "entries are aligned");
        let shifted = address << SHIFT;
        let aba_tag = usize::from(entry.aba_tag());
        if (shifted & ADDRESS) >> SHIFT != address || aba_tag >> ABA_TAG_BITS != 0 {
            return Self::bucket(Bucket::new(&[entry]));
        }
        // Where there are no bits for a tag, it is 0.
        let high = aba_tag.checked_shl(ABA_TAG_AT).unwrap_or(0);
        Self(high | shifted | Self::low(entry.hash()))
    }

    /// Returns the word of a slot with this bucket.
    pub(super) fn bucket<K, V>(bucket: *mut Bucket<K, V>) -> Self {
        Self(bucket.expose_provenance() | BUCKET)
    }

    /// Returns the word of a slot with this branch.
    pub(super) fn branch<B>(branch: Box<B>) -> Self {
        Self(Box::into_raw(branch).expose_provenance() | BRANCH)
    }

    /// Returns the low bits of a SINGLE word of this hash: from its high end, as the map uses the low one.
    #[inline]
    const fn low(hash: u64) -> usize {
        (hash >> (u64::BITS - LOW_BITS)) as usize | SINGLE
    }

    #[inline]
    pub(super) fn kind(self) -> usize {
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

    /// Returns `true` if the word says by itself that no job of this hash is in the slot.
    #[inline]
    pub(super) fn excludes(self, hash: u64) -> bool {
        // EMPTY or SINGLE, in one comparison.
        !self.matches_tag(hash) && (self.kind() + 1) & 0b10 == 0
    }

    /// Returns `true` if the word is of a single entry that may have this hash.
    #[inline]
    pub(super) fn matches_tag(self, hash: u64) -> bool {
        self.0 & LOW == Self::low(hash)
    }

    /// Returns the entry of a SINGLE word.
    #[inline]
    pub(super) fn entry<K, V>(self) -> *mut Entry<K, V> {
        ptr::with_exposed_provenance_mut((self.0 & ADDRESS) >> SHIFT)
    }

    /// Returns the ABA tag of a SINGLE word.
    #[expect(clippy::cast_possible_truncation, reason = "the bits that are left are few")]
    pub(super) fn aba_tag(self) -> u8 {
        self.0.checked_shr(ABA_TAG_AT).unwrap_or(0) as u8
    }

    /// Returns the pointer of a BUCKET or BRANCH word.
    #[inline]
    pub(super) fn pointer<T>(self) -> *mut T {
        ptr::with_exposed_provenance_mut(self.0 & !KIND)
    }
}
