//! When memory is freed: [`pin`] protects what a thread loads, and [`retire`] hands over what it has unlinked.
//!
//! ```text
//!   retire ──► batch: the thread's ring, then a stack of batches, then crossbeam-epoch, then a stack of what is ready
//!    pin   ──► participant: the thread's place in crossbeam-epoch's collector
//! ```
//!
//! crossbeam-epoch says when nobody can see a thing any more. Batches say who frees it: the writers and the sweeps,
//! never a look-up.

#[cfg(not(all(crossbeam_loom, feature = "loom")))]
mod batch;
#[cfg(all(crossbeam_loom, feature = "loom"))]
#[path = "batch_loom.rs"]
mod batch;
#[cfg(not(all(crossbeam_loom, feature = "loom")))]
mod participant;
#[cfg(all(crossbeam_loom, feature = "loom"))]
#[path = "participant_loom.rs"]
pub(crate) mod participant;
#[cfg_attr(
    not(all(crossbeam_loom, feature = "loom")),
    expect(unreachable_pub, reason = "the models have it from `livemark::model`")
)]
pub(crate) mod record;
mod retired;
#[cfg_attr(
    not(all(crossbeam_loom, feature = "loom")),
    expect(unreachable_pub, reason = "the models have it from `livemark::model`")
)]
pub(crate) mod ring;
#[cfg_attr(
    not(all(crossbeam_loom, feature = "loom")),
    expect(unreachable_pub, reason = "the models have it from `livemark::model`")
)]
pub(crate) mod stack;
mod stats;

use std::cell::Cell;
use std::ops::Deref;

pub(crate) use self::batch::{collect, handed_over};
pub(crate) use self::participant::{EpochGuard, pin};
use self::retired::Retired;
pub use self::stats::{ReclaimStats, reclaim_stats};
use crate::sync::{Ordering, fence, schedule_point};

/// A pin of the current thread, to write: what it retires it may have to pay for.
///
/// The thread frees what it owes when the guard is dropped, and so when it is no longer pinned. A destructor that takes
/// its time must not hold back everybody's memory.
pub(crate) struct WriteGuard {
    // Dropped in this order: it unpins, and then it frees.
    pin: EpochGuard,
    debt: Debt,
}

/// Set if the thread has something to free.
struct Debt(Cell<bool>);

impl Deref for WriteGuard {
    type Target = EpochGuard;

    #[inline]
    fn deref(&self) -> &EpochGuard {
        &self.pin
    }
}

impl Drop for Debt {
    #[inline]
    fn drop(&mut self) {
        if self.0.get() {
            batch::free_owed();
        }
    }
}

/// Pins the current thread for a write.
#[inline]
pub(crate) fn pin_for_write() -> WriteGuard {
    WriteGuard { pin: pin(), debt: Debt(Cell::new(false)) }
}

/// Lets the epoch pass, as if the thread unpinned and pinned again: what was loaded under `guard` may be freed.
pub(crate) fn repin(guard: &mut EpochGuard) {
    schedule_point();
    guard.repin();
    // As `pin` does and crossbeam's `repin` does not. A later load of a slot must not be satisfied before `repin` has
    // read the epoch: it could give an entry that was retired in the epoch before, which the new pin does not hold.
    fence(Ordering::SeqCst); // E3
}

/// Calls `free` with `pointer` once every thread that is pinned now has unpinned or repinned.
///
/// A look-up never pays for it: what is retired waits in batches, and writers and sweeps free those that are ready.
/// `size` is how many bytes it has itself, so that a batch holds fewer of large things.
///
/// # Safety
///
/// What `pointer` points to was unlinked: no thread that pins from now on can reach it. It is freed by nobody else, and
/// may be freed on another thread and at any later time, as if it were `Send + 'static`. `free` may be called with
/// `pointer` once, and does not panic.
#[inline]
pub(crate) unsafe fn retire(guard: &WriteGuard, pointer: *mut (), size: usize, free: unsafe fn(*mut ())) {
    // SAFETY: the caller's promise, handed on.
    let retired = unsafe { Retired::new(pointer, free) };
    // What the thread owes is freed when the guard has gone.
    if batch::wait(guard, retired, size) {
        guard.debt.0.set(true);
    }
}
