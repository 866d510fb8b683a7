//! The entries whose hashes share a slot: [`Entries`], in a copy-on-write [`Bucket`] if there are several.
//!
//! A bucket is an immutable array of pointers. To change it a writer copies it. The entries are not copied, so that no
//! user code runs.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};

use super::entry::{Entry, EntryPtr};
use crate::reclaim::EpochGuard;
use crate::sync::LoomTracked;

/// The head of a bucket. Its entries follow it in the same allocation.
///
/// Handled by raw pointers, as a reference to the head would not reach the entries.
#[repr(C)]
pub(super) struct Bucket<K, V> {
    len: usize,
    tracked: LoomTracked,
    /// Aligns the end of the head for what follows.
    entries: [EntryPtr<K, V>; 0],
}

/// The entries of a slot. No bucket is needed for one.
pub(super) enum Entries<'g, K, V> {
    Single([EntryPtr<K, V>; 1]),
    Bucket(&'g [EntryPtr<K, V>]),
}

impl<K, V> std::ops::Deref for Entries<'_, K, V> {
    type Target = [EntryPtr<K, V>];

    fn deref(&self) -> &[EntryPtr<K, V>] {
        match self {
            Self::Single(entry) => entry,
            Self::Bucket(entries) => entries,
        }
    }
}

impl<K, V> Bucket<K, V> {
    /// Creates a bucket of `entries`.
    pub(super) fn new(entries: &[EntryPtr<K, V>]) -> *mut Self {
        Self::filled(entries.len(), entries.iter().copied())
    }

    /// Creates a copy of `entries` with one more.
    pub(super) fn with(entries: &[EntryPtr<K, V>], entry: EntryPtr<K, V>) -> *mut Self {
        Self::filled(entries.len() + 1, entries.iter().copied().chain([entry]))
    }

    /// Creates a copy of `entries` with another one at `place`, which is below their number.
    pub(super) fn replacing(entries: &[EntryPtr<K, V>], place: usize, entry: EntryPtr<K, V>) -> *mut Self {
        Self::filled(entries.len(), entries.iter().enumerate().map(|(at, old)| if at == place { entry } else { *old }))
    }

    /// Creates a copy of `entries` without the one at `place`, which is below their number.
    pub(super) fn without(entries: &[EntryPtr<K, V>], place: usize) -> *mut Self {
        let kept = entries.iter().enumerate().filter(|(at, _)| *at != place);
        Self::filled(entries.len() - 1, kept.map(|(_, entry)| *entry))
    }

    /// Private to this file: `entries` must be `len` in number, which the four callers above can be seen to keep.
    fn filled(len: usize, entries: impl Iterator<Item = EntryPtr<K, V>>) -> *mut Self {
        let layout = Self::layout(len);
        // SAFETY: the layout is not of size zero: it begins with the head.
        #[expect(clippy::cast_ptr_alignment, reason = "the layout's alignment is the head's")]
        let bucket = unsafe { alloc(layout) }.cast::<Self>();
        if bucket.is_null() {
            handle_alloc_error(layout);
        }
        let mut written = 0_usize;
        for entry in entries.take(len) {
            // SAFETY: `written` is below `len`, so the place is within the allocation, which nobody else has yet.
            unsafe { Self::first(bucket).cast_mut().add(written).write(entry) };
            written += 1;
        }
        debug_assert_eq!(written, len, "a bucket was given too few entries");
        // SAFETY: the head is the beginning of the allocation, which nobody else has yet.
        unsafe { bucket.write(Self { len, tracked: LoomTracked::new(), entries: [] }) };
        bucket
    }

    /// Returns the entries.
    ///
    /// # Safety
    ///
    /// `bucket` came from this file, with the provenance of its whole allocation, and is live for `'g`.
    #[inline]
    pub(super) unsafe fn entries<'g>(bucket: *const Self) -> &'g [EntryPtr<K, V>] {
        // SAFETY: live by the caller's promise.
        unsafe { (*bucket).tracked.read() };
        // SAFETY: live by the caller's promise, with `len` entries written behind the head by `filled`.
        unsafe { std::slice::from_raw_parts(Self::first(bucket), (*bucket).len) }
    }

    /// Frees a bucket, by a pointer without its type. Its entries live on.
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

    /// Returns the size in bytes.
    ///
    /// # Safety
    ///
    /// The same as of [`entries`](Self::entries).
    pub(super) unsafe fn size(bucket: *const Self) -> usize {
        // SAFETY: live by the caller's promise.
        Self::layout(unsafe { (*bucket).len }).size()
    }

    /// Returns where the entries begin. To be read it needs the provenance of the whole allocation.
    #[inline]
    fn first(bucket: *const Self) -> *const EntryPtr<K, V> {
        bucket.wrapping_add(1).cast()
    }

    /// Returns the layout of a head and `len` entries.
    fn layout(len: usize) -> Layout {
        Layout::array::<EntryPtr<K, V>>(len)
            .and_then(|entries| Layout::new::<Self>().extend(entries))
            .map_or_else(|_| handle_alloc_error(Layout::new::<Self>()), |(layout, _)| layout)
    }
}

/// Returns where in a slot's entries the one of this hash is for which `is_it` says yes.
#[inline]
pub(super) fn position<'g, K, V>(
    entries: &[EntryPtr<K, V>],
    hash: u64,
    guard: &'g EpochGuard,
    mut is_it: impl FnMut(&Entry<K, V>) -> bool,
) -> Option<(usize, &'g Entry<K, V>)> {
    entries.iter().enumerate().filter(|(_, entry)| entry.hash() == hash).find_map(|(place, entry)| {
        // SAFETY: callers pass the entries of a word that was loaded under `guard`.
        let entry = unsafe { entry.entry(guard) };
        is_it(entry).then_some((place, entry))
    })
}
