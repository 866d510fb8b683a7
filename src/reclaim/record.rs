//! What each thread that clears has of its own, and others look at: [`Record`], in a list that only grows, [`Records`].

use std::fmt;
use std::marker::PhantomData;
use std::ptr;

use super::ring::Ring;
use crate::sync::{AtomicPtr, AtomicUsize, LoomTracked, Ordering};

/// A thread's ring, from the thread's first clear to its end. Then the next thread takes it over.
///
/// A record is made only when all are owned. So there are as many as threads that cleared at the same time.
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
/// What is left in the rings then is leaked. The library's list is `static`, a model's is not.
pub struct Records<T> {
    /// The one that was made last.
    newest: AtomicPtr<Record<T>>,
    /// `Send` and `Sync` as a lock around what the rings hold: whoever sees the list may take that out.
    _taken_by_anyone: PhantomData<std::sync::Mutex<T>>,
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
            Self { newest: AtomicPtr::new(ptr::null_mut()), _taken_by_anyone: PhantomData }
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

    /// Returns a record that is the caller's until it is [released](Record::release): a free one, or a new one.
    #[cold]
    pub fn claim(&self) -> &Record<T> {
        // A look first, so that records of threads that live are not written to.
        let is_free = |record: &&Record<T>| record.owned.load(Ordering::Relaxed) == FREE; // E10: the exchange decides
        // Then the exchange, which one thread wins. E10, acquire half: it goes on in the ring where the thread before has
        // stopped.
        let take = |record: &&Record<T>| {
            record.owned.compare_exchange(FREE, OWNED, Ordering::Acquire, Ordering::Relaxed).is_ok() // E10
        };
        self.all().filter(is_free).find(take).unwrap_or_else(|| self.make())
    }

    /// Makes a record, the caller's, and puts it at the head of the list.
    #[cold]
    fn make(&self) -> &Record<T> {
        let mut newest = self.newest.load(Ordering::Relaxed); // E10: it is only compared
        let made =
            Record { ring: Ring::new(), owned: AtomicUsize::new(OWNED), older: newest, tracked: LoomTracked::new() };
        let made = Box::into_raw(Box::new(made));
        // E10, release half: it is seen whole.
        while let Err(other) = self.newest.compare_exchange(newest, made, Ordering::Release, Ordering::Relaxed) {
            // Another record came first: this one goes before it.
            newest = other;
            // SAFETY: this thread's alone until the exchange succeeds.
            unsafe { (*made).older = newest };
        }
        // SAFETY: published now: not borrowed mutably any more, and freed with the list, which is borrowed.
        unsafe { &*made }
    }
}

impl<T> Record<T> {
    /// Lets another thread have it. Anyone may take out what is in the ring, now or later.
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
