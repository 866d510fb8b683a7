//! Buckets: immutable arrays of pointers to the entries whose hashes share a slot.
//!
//! A bucket is one allocation behind a thin pointer (crossbeam-epoch's slice support). It is copied to be changed;
//! the entries are not, so the copy runs no user code.

use std::mem::MaybeUninit;

use crossbeam_epoch::{Owned, Shared};

use super::slot::Entry;
use crate::reclaim::EpochGuard;

/// The allocation behind a bucket. Every element is written by [`filled`] before anyone else sees it.
pub(super) type Bucket<K, V> = [MaybeUninit<Item<K, V>>];

/// A pointer to an entry, with its hash: a reader that looks for another job need not follow the pointer.
pub(super) struct Item<K, V> {
    pub(super) hash: u64,
    /// Valid for as long as the bucket is reachable: an entry is retired only by the write that unlinks it.
    entry: *const Entry<K, V>,
}

impl<K, V> Clone for Item<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Item<K, V> {}

impl<K, V> Item<K, V> {
    pub(super) fn new(hash: u64, entry: *const Entry<K, V>) -> Self {
        Self { hash, entry }
    }

    pub(super) fn of(entry: &Entry<K, V>) -> Self {
        Self::new(entry.hash, entry)
    }

    pub(super) fn pointer(self) -> *const Entry<K, V> {
        self.entry
    }

    /// The entry.
    ///
    /// # Safety
    ///
    /// The item was read from a bucket that was loaded from its slot under `guard`.
    #[inline]
    pub(super) unsafe fn entry<'g>(self, _guard: &'g EpochGuard) -> &'g Entry<K, V> {
        // SAFETY: the bucket was reachable at the load under `_guard`, so its entries were not yet retired then (E3);
        // they are immutable.
        unsafe { &*self.entry }
    }
}

/// A bucket of `items`.
pub(super) fn of<K, V>(items: &[Item<K, V>]) -> Owned<Bucket<K, V>> {
    filled(items.len(), items.iter().copied())
}

/// A copy of `items` with one more.
pub(super) fn with<K, V>(items: &[Item<K, V>], item: Item<K, V>) -> Owned<Bucket<K, V>> {
    filled(items.len().saturating_add(1), items.iter().copied().chain([item]))
}

/// A copy of `items` with another item at `place`, which is below their number.
pub(super) fn replacing<K, V>(items: &[Item<K, V>], place: usize, item: Item<K, V>) -> Owned<Bucket<K, V>> {
    filled(items.len(), items.iter().enumerate().map(|(at, old)| if at == place { item } else { *old }))
}

/// A copy of `items` without the one at `place`, which is below their number.
pub(super) fn without<K, V>(items: &[Item<K, V>], place: usize) -> Owned<Bucket<K, V>> {
    let kept = items.iter().enumerate().filter(|(at, _)| *at != place);
    filled(items.len().saturating_sub(1), kept.map(|(_, item)| *item))
}

/// Private to this file: `items` must be `len` in number, which the four callers above can be seen to keep.
fn filled<K, V>(len: usize, mut items: impl Iterator<Item = Item<K, V>>) -> Owned<Bucket<K, V>> {
    let mut bucket = Owned::<Bucket<K, V>>::init(len);
    let mut written = 0_usize;
    for (place, item) in bucket.iter_mut().zip(&mut items) {
        place.write(item);
        written = written.saturating_add(1);
    }
    debug_assert!(written == len && items.next().is_none(), "a bucket of {len} was given {written} items");
    bucket
}

/// The items of a bucket.
///
/// # Safety
///
/// `bucket` came from one of this file's constructors and is live for `'g`.
#[inline]
pub(super) unsafe fn items<'g, K, V>(bucket: Shared<'g, Bucket<K, V>>) -> &'g [Item<K, V>] {
    // SAFETY: live by the caller's promise.
    let items = unsafe { bucket.deref() };
    // SAFETY: `filled` wrote every element, and `MaybeUninit<T>` has the layout of `T`.
    unsafe { &*(std::ptr::from_ref(items) as *const [Item<K, V>]) }
}
