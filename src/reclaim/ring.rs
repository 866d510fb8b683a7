//! What a thread has retired and not handed over: [`Ring`], a single-producer ring. The thread puts in, and whoever
//! sweeps may take out.
#![allow(clippy::arithmetic_side_effects, reason = "counts of 64 bits; `put` is never behind `taken`")]

use std::fmt;
use std::mem::MaybeUninit;

use crate::sync::{AtomicU64, LOOM, Mutex, Ordering, UnsafeCell};

/// How many a ring has room for.
pub(crate) const CAPACITY: usize = if LOOM { 1 } else { 64 };

/// A single-producer ring: one thread fills it, its owner, and any thread empties it. Neither waits for the other.
///
/// ```text
///              taken              put
///                 │                │
///   ... free ... [ waits to be taken ] ... free ...
/// ```
///
/// What is left in it when it is dropped is leaked: the library's live as long as the process.
pub struct Ring<T> {
    /// How many were put in, ever. Written by the owner only.
    put: AtomicU64,
    /// How many were taken out, ever. Written by the holder of `taking` only.
    taken: AtomicU64,
    /// Only ever tried: a thread that finds it locked leaves the work to the one that holds it.
    taking: Mutex<()>,
    places: [UnsafeCell<MaybeUninit<T>>; CAPACITY],
}

// SAFETY: what is put in on one thread is taken out on another. A place is written by the owner while it is free, and
// read by the holder of `taking` while it is not (E10).
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    crate::sync::const_unless_loom! {
        /// Returns an empty ring.
        #[must_use]
        pub const fn new() -> Self {
            Self {
                put: AtomicU64::new(0),
                taken: AtomicU64::new(0),
                taking: Mutex::new(()),
                places: crate::sync::array_of!(UnsafeCell::new(MaybeUninit::uninit()); CAPACITY),
            }
        }
    }

    /// Puts `value` in, and returns how many are in it now. No read-modify-write.
    ///
    /// # Errors
    ///
    /// Gives the value back if the ring is full.
    ///
    /// # Safety
    ///
    /// No two threads call this at once. Who calls it after another thread did has synchronized with it.
    #[inline]
    pub unsafe fn put(&self, value: T) -> Result<usize, T> {
        let put = self.put.load(Ordering::Relaxed); // E10: this thread's own
        // E10, acquire half: the places that were taken have been read.
        let taken = self.taken.load(Ordering::Acquire);
        #[expect(clippy::cast_possible_truncation, reason = "there are `CAPACITY` at most")]
        let waiting = (put - taken) as usize;
        // Full: a sweep has begun to take, and was stopped.
        if waiting >= CAPACITY {
            return Err(value);
        }
        // SAFETY: the place is free, and stays so until the store below; the owner alone writes free ones.
        self.place(put).with_mut(|place| unsafe { (*place).write(value) });
        // E10, release half: whoever takes sees what the place holds.
        self.put.store(put + 1, Ordering::Release);
        Ok(waiting + 1)
    }

    /// Takes all out, and puts them into `batch`. Takes nothing if another thread is just here.
    pub fn take(&self, batch: &mut Vec<T>) {
        // Another thread is at it: the work is left to that one.
        let Ok(taking) = self.taking.try_lock() else { return };
        // So that nothing can panic between the two counts.
        batch.reserve(CAPACITY);
        let taken = self.taken.load(Ordering::Relaxed); // E10: the lock's holder alone writes it
        // E10, acquire half: the places up to it have been written.
        let put = self.put.load(Ordering::Acquire);
        let waiting = put - taken;
        // Read the places out before they are given back.
        batch.extend((0..waiting).map(|number| {
            // SAFETY: the place was written before `put` was stored, and is read by the holder of the lock only, once.
            self.place(taken + number).with(|place| unsafe { (*place).assume_init_read() })
        }));
        // E10, release half: the owner writes the places again after they were read.
        self.taken.store(put, Ordering::Release);
        drop(taking);
    }

    /// Returns how many were put in, ever.
    #[inline]
    pub fn count(&self) -> u64 {
        self.put.load(Ordering::Relaxed) // E6
    }

    /// Returns `true` if nothing waits to be taken. May be outdated.
    #[cfg(not(all(crossbeam_loom, feature = "loom")))]
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.load(Ordering::Relaxed) == self.count() // E6
    }

    #[inline]
    #[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "masked to the number of places")]
    fn place(&self, number: u64) -> &UnsafeCell<MaybeUninit<T>> {
        &self.places[number as usize % CAPACITY]
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}
