//! What each thread that clears has of its own, and others look at: [`Record`], in a list of [`Records`].

use std::fmt;
use std::ptr;

use super::ring::Ring;
use crate::sync::{AtomicPtr, AtomicUsize, LoomTracked, Ordering};

/// A thread's ring, from the thread's first clear to its end. Then another thread's: records are made when all are
/// owned, so that there are as many as threads that cleared at the same time.
#[repr(align(128))] // written with each clear: on cache lines of its own
pub struct Record<T> {
    /// What the thread has retired and not handed over. Its count goes on from thread to thread, so that the sum over
    /// all records is of all threads that ever were.
    pub ring: Ring<T>,
    /// 1 while a thread has it.
    owned: AtomicUsize,
    /// The one that was made before it. Not written after the record is published.
    older: *const Self,
    tracked: LoomTracked,
}

/// All records that were made: a list that only grows, and is freed as a whole.
///
/// What is left in the rings then is leaked. The library's list is `static`.
pub struct Records<T> {
    /// The one that was made last.
    newest: AtomicPtr<Record<T>>,
}

// SAFETY: the ring and the atomic are `Sync` where `T` is `Send`, and `older` is not written after the record is
// published.
unsafe impl<T: Send> Sync for Record<T> {}

const FREE: usize = 0;
const OWNED: usize = 1;

impl<T> Records<T> {
    crate::sync::const_unless_loom! {
        /// Returns a list of no records.
        #[must_use]
        pub const fn new() -> Self {
            Self { newest: AtomicPtr::new(ptr::null_mut()) }
        }
    }

    /// Returns all records, the newest first.
    pub fn all(&self) -> impl Iterator<Item = &Record<T>> {
        let newest: *const Record<T> = self.newest.load(Ordering::Acquire); // E10: seen whole
        // SAFETY: records came from boxes, published whole by `make` (E10), and are freed with the list, which is
        // borrowed.
        let records = std::iter::successors(unsafe { newest.as_ref() }, |record| unsafe { record.older.as_ref() });
        records.inspect(|record| record.tracked.read())
    }

    /// Returns a record that is the caller's until it is [released](Record::release).
    #[cold]
    pub fn claim(&self) -> &Record<T> {
        // One that no thread has any more.
        let is_free = |record: &&Record<T>| record.owned.load(Ordering::Relaxed) == FREE; // E10: the exchange decides
        // E10, acquire half: this thread goes on where the one before has stopped.
        let take = |record: &&Record<T>| {
            record.owned.compare_exchange(FREE, OWNED, Ordering::Acquire, Ordering::Relaxed).is_ok() // E10
        };
        self.all().filter(is_free).find(take).unwrap_or_else(|| self.make())
    }

    /// Makes a record, the caller's, and shows it to those that walk over all.
    #[cold]
    fn make(&self) -> &Record<T> {
        let mut newest = self.newest.load(Ordering::Relaxed); // E10: it is only compared
        let made =
            Record { ring: Ring::new(), owned: AtomicUsize::new(OWNED), older: newest, tracked: LoomTracked::new() };
        let made = Box::into_raw(Box::new(made));
        // E10, release half: it is seen whole.
        while let Err(other) = self.newest.compare_exchange(newest, made, Ordering::Release, Ordering::Relaxed) {
            newest = other;
            // SAFETY: this thread's alone until the exchange succeeds.
            unsafe { (*made).older = newest };
        }
        // SAFETY: published now: not borrowed mutably any more, and freed with the list, which is borrowed.
        unsafe { &*made }
    }
}

impl<T> Record<T> {
    /// Lets another thread have it. What is in the ring may be taken out by anyone, now or later.
    pub fn release(&self) {
        self.owned.store(FREE, Ordering::Release); // E10, release half
    }
}

impl<T> Drop for Records<T> {
    fn drop(&mut self) {
        let mut newest = self.newest.load(Ordering::Relaxed); // E7
        while !newest.is_null() {
            // SAFETY: it came from a box (`make`), and `&mut self`: nobody has it any more (E7).
            let record = unsafe { Box::from_raw(newest) };
            newest = record.older.cast_mut();
        }
    }
}

impl<T> fmt::Debug for Record<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Records<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}
