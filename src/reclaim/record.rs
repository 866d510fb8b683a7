//! What each thread that clears has of its own, and others look at: [`Record`].

use std::ptr;

use super::Retired;
use super::ring::Ring;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};

/// A thread's ring, from the thread's first clear to its end. Then another thread's: records are made when all are
/// owned, and never freed, so that there are as many as threads that cleared at the same time.
#[repr(align(128))] // written with each clear: on cache lines of its own
pub(super) struct Record {
    /// What the thread has retired and not handed over. Its count goes on from thread to thread, so that the sum over
    /// all records is of all threads that ever were.
    pub(super) ring: Ring<Retired>,
    /// 1 while a thread has it.
    owned: AtomicUsize,
    /// The one that was made before it.
    older: *const Self,
}

// SAFETY: the ring and the atomic are `Sync`, and `older` is not written after the record is published.
unsafe impl Sync for Record {}

const FREE: usize = 0;
const OWNED: usize = 1;

/// The one that was made last.
static NEWEST: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());

/// Returns all records, the newest first.
pub(super) fn all() -> impl Iterator<Item = &'static Record> {
    let newest: *const Record = NEWEST.load(Ordering::Acquire); // E10: seen whole
    // SAFETY: records are leaked boxes, published whole by `claim` (E10), and never freed.
    std::iter::successors(unsafe { newest.as_ref() }, |record| unsafe { record.older.as_ref() })
}

/// Returns a record that is the caller's until it is [released](Record::release).
#[cold]
pub(super) fn claim() -> &'static Record {
    // One that no thread has any more.
    let is_free = |record: &&Record| record.owned.load(Ordering::Relaxed) == FREE; // E10: the exchange decides
    // E10, acquire half: this thread goes on where the one before has stopped.
    let take = |record: &&Record| {
        record.owned.compare_exchange(FREE, OWNED, Ordering::Acquire, Ordering::Relaxed).is_ok() // E10
    };
    all().filter(is_free).find(take).unwrap_or_else(make)
}

/// Makes a record, the caller's, and shows it to those that walk over all.
#[cold]
fn make() -> &'static Record {
    let mut newest = NEWEST.load(Ordering::Relaxed); // E10: it is only compared
    let made = Box::leak(Box::new(Record { ring: Ring::new(), owned: AtomicUsize::new(OWNED), older: newest }));
    loop {
        let pointer: *mut Record = made;
        // E10, release half: it is seen whole.
        match NEWEST.compare_exchange(newest, pointer, Ordering::Release, Ordering::Relaxed) {
            // SAFETY: leaked above, published now, and never freed or borrowed mutably again.
            Ok(_) => return unsafe { &*pointer },
            Err(other) => {
                newest = other;
                made.older = newest;
            }
        }
    }
}

impl Record {
    /// Lets another thread have it. What is in the ring may be taken out by anyone, now or later.
    pub(super) fn release(&self) {
        self.owned.store(FREE, Ordering::Release); // E10, release half
    }
}
