//! Buckets: immutable arrays of pointers to the entries whose hashes share a slot.
//!
//! A bucket is copied to be changed; the entries are not, so the copy runs no user code.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};

use super::entry::Entry;
use crate::reclaim::EpochGuard;
use crate::sync::LoomTracked;

/// The head of a bucket; its items follow it in the same allocation.
///
/// Handled by raw pointers, as a reference to the head would not reach the items.
#[repr(C)]
pub(super) struct Bucket<K, V> {
    len: usize,
    tracked: LoomTracked,
    /// Aligns the end of the head for what follows.
    items: [Item<K, V>; 0],
}

/// A pointer to an entry, with its hash: a look-up for another job need not follow the pointer.
pub(super) struct Item<K, V> {
    hash: u64,
    /// How often the entry was left alone in its slot by others that had joined it there: see
    /// [`Word`](super::slot::Word).
    folds: u8,
    /// Valid for as long as the bucket is reachable: an entry is retired only by the write that unlinks it.
    entry: *mut Entry<K, V>,
}

/// The entries of a slot, as items: no bucket is needed for one.
pub(super) enum Items<'g, K, V> {
    Lone([Item<K, V>; 1]),
    Bucket(&'g [Item<K, V>]),
}

impl<K, V> Clone for Item<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Item<K, V> {}

impl<K, V> Item<K, V> {
    pub(super) fn new(hash: u64, entry: *mut Entry<K, V>, folds: u8) -> Self {
        Self { hash, folds, entry }
    }

    /// The item that stands for `entry` in its slot, which owns it from now on.
    pub(super) fn owning(entry: Box<Entry<K, V>>) -> Self {
        Self::new(entry.hash(), entry.into_raw(), 0)
    }

    /// The item of the same entry when it is left alone in its slot again, unless that has been so too often.
    pub(super) fn left_alone(self) -> Option<Self> {
        let folds = self.folds.checked_add(1)?;
        Some(Self { folds, ..self })
    }

    pub(super) fn folds(&self) -> u8 {
        self.folds
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn pointer(&self) -> *mut Entry<K, V> {
        self.entry
    }

    /// The entry.
    ///
    /// # Safety
    ///
    /// The item is of a word that was loaded from its slot under `guard`.
    #[inline]
    pub(super) unsafe fn entry<'g>(&self, _guard: &'g EpochGuard) -> &'g Entry<K, V> {
        // SAFETY: the word was in its slot at the load under `_guard`, so its entries were not yet retired then (E3);
        // they are immutable.
        unsafe { (*self.entry).read() }
    }
}

impl<K, V> std::ops::Deref for Items<'_, K, V> {
    type Target = [Item<K, V>];

    fn deref(&self) -> &[Item<K, V>] {
        match self {
            Self::Lone(item) => item,
            Self::Bucket(items) => items,
        }
    }
}

impl<K, V> Bucket<K, V> {
    /// A bucket of `items`.
    pub(super) fn of(items: &[Item<K, V>]) -> *mut Self {
        Self::filled(items.len(), items.iter().copied())
    }

    /// A copy of `items` with one more.
    pub(super) fn with(items: &[Item<K, V>], item: Item<K, V>) -> *mut Self {
        Self::filled(items.len().saturating_add(1), items.iter().copied().chain([item]))
    }

    /// A copy of `items` with another item at `place`, which is below their number.
    pub(super) fn replacing(items: &[Item<K, V>], place: usize, item: Item<K, V>) -> *mut Self {
        Self::filled(items.len(), items.iter().enumerate().map(|(at, old)| if at == place { item } else { *old }))
    }

    /// A copy of `items` without the one at `place`, which is below their number.
    pub(super) fn without(items: &[Item<K, V>], place: usize) -> *mut Self {
        let kept = items.iter().enumerate().filter(|(at, _)| *at != place);
        Self::filled(items.len().saturating_sub(1), kept.map(|(_, item)| *item))
    }

    /// Private to this file: `items` must be `len` in number, which the four callers above can be seen to keep.
    fn filled(len: usize, items: impl Iterator<Item = Item<K, V>>) -> *mut Self {
        let layout = Self::layout(len);
        // SAFETY: the layout is not of size zero: it begins with the head.
        #[expect(clippy::cast_ptr_alignment, reason = "the layout's alignment is the head's")]
        let bucket = unsafe { alloc(layout) }.cast::<Self>();
        if bucket.is_null() {
            handle_alloc_error(layout);
        }
        let mut written = 0_usize;
        for item in items.take(len) {
            // SAFETY: `written` is below `len`, so the place is within the allocation, which nobody else has yet.
            unsafe { Self::first(bucket).cast_mut().add(written).write(item) };
            written = written.saturating_add(1);
        }
        debug_assert_eq!(written, len, "a bucket was given too few items");
        // SAFETY: the head is the beginning of the allocation, which nobody else has yet.
        unsafe { bucket.write(Self { len, tracked: LoomTracked::new(), items: [] }) };
        bucket
    }

    /// The items.
    ///
    /// # Safety
    ///
    /// `bucket` came from this file, with the provenance of its whole allocation, and is live for `'g`.
    #[inline]
    pub(super) unsafe fn items<'g>(bucket: *const Self) -> &'g [Item<K, V>] {
        // SAFETY: live by the caller's promise.
        unsafe { (*bucket).tracked.read() };
        // SAFETY: live by the caller's promise, with `len` items written behind the head by `filled`.
        unsafe { std::slice::from_raw_parts(Self::first(bucket), (*bucket).len) }
    }

    /// Frees a bucket, a pointer to one without its type; its entries live on.
    ///
    /// # Safety
    ///
    /// `bucket` came from this file, and nobody else has it.
    pub(super) unsafe fn free(bucket: *mut ()) {
        let bucket = bucket.cast::<Self>();
        // SAFETY: the caller's alone, and used no more.
        unsafe { std::ptr::drop_in_place(&raw mut (*bucket).tracked) };
        // SAFETY: live by the caller's promise; made by `filled` with this layout.
        unsafe { dealloc(bucket.cast(), Self::layout((*bucket).len)) };
    }

    /// In bytes.
    ///
    /// # Safety
    ///
    /// The same as of [`items`](Self::items).
    pub(super) unsafe fn size(bucket: *const Self) -> usize {
        // SAFETY: live by the caller's promise.
        Self::layout(unsafe { (*bucket).len }).size()
    }

    /// Where the items begin. To be read it needs the provenance of the whole allocation.
    #[inline]
    fn first(bucket: *const Self) -> *const Item<K, V> {
        bucket.wrapping_add(1).cast()
    }

    /// Returns the layout of a head and `len` items.
    fn layout(len: usize) -> Layout {
        Layout::array::<Item<K, V>>(len)
            .and_then(|items| Layout::new::<Self>().extend(items))
            .map_or_else(|_| handle_alloc_error(Layout::new::<Self>()), |(layout, _)| layout)
    }
}

/// Where in a slot's items the entry of this hash is for which `is_it` says yes.
#[inline]
pub(super) fn position<'g, K, V>(
    items: &[Item<K, V>],
    hash: u64,
    guard: &'g EpochGuard,
    mut is_it: impl FnMut(&Entry<K, V>) -> bool,
) -> Option<(usize, &'g Entry<K, V>)> {
    items.iter().enumerate().filter(|(_, item)| item.hash == hash).find_map(|(place, item)| {
        // SAFETY: callers pass the items of a word that was loaded under `guard`.
        let entry = unsafe { item.entry(guard) };
        is_it(entry).then_some((place, entry))
    })
}
