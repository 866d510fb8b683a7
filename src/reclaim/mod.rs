//! When memory is freed: the crate's epoch collector, the pins of its threads, and retirement.
//!
//! The collector is the crate's own, not crossbeam's default one: another crate's long pin must not stop
//! our reclamation, and another crate's garbage must not be run by our readers. It is shared by all
//! registries of the process, so that a thread has one participant however many registries it uses.

use std::cell::Cell;
use std::ops::Deref;

pub(crate) use batch::collect;
pub(crate) use crossbeam_epoch::Guard as EpochGuard;
#[cfg(not(all(crossbeam_loom, feature = "loom")))]
use participant::is_pinned;
pub(crate) use participant::pin;

use crate::sync::{CachePadded, Counter, Ordering, fence, schedule_point};

/// A pin of the current thread, to write: what it retires it may have to pay for.
///
/// What the thread owes it frees when the guard is dropped, and so when it is no longer pinned: a destructor that takes
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

impl Debt {
    /// Lets the thread free what it owes when the guard has gone.
    #[inline]
    fn owe(&self) {
        self.0.set(true);
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

/// Calls `free` with `pointer` once every thread that is pinned now has unpinned or repinned.
///
/// Never on a look-up's time: what is retired waits in batches, and writers free those that are due. `size` is how many
/// bytes it has itself: of large things a batch has fewer.
///
/// # Safety
///
/// What `pointer` points to was unlinked: no thread that pins from now on can reach it. It is freed by nobody else, and
/// may be freed on another thread and at any later time, as if it were `Send + 'static`. `free` may be called with
/// `pointer` once, and does not panic.
#[inline]
pub(crate) unsafe fn retire(guard: &WriteGuard, pointer: *mut (), size: usize, free: unsafe fn(*mut ())) {
    let retired = Retired { pointer, free };
    if crate::sync::LOOM {
        // SAFETY: the caller's promise, handed on.
        return unsafe { guard.defer_unchecked(move || retired.free()) };
    }
    batch::wait(guard, retired, size);
}

/// What is to be freed, and how: see [`retire`].
struct Retired {
    pointer: *mut (),
    free: unsafe fn(*mut ()),
}

impl Retired {
    /// Called when no thread is pinned any more that was when it was retired.
    fn free(self) {
        // SAFETY: by the promise of `retire`'s caller, and as `self` is gone after this.
        unsafe { (self.free)(self.pointer) };
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

/// How often something was handed over, or a sweep wants an epoch to pass: who stays pinned repins when it was more,
/// and need not count its own look-ups.
static HANDED_OVER: CachePadded<Counter> = CachePadded::new(Counter::new());
/// How many things were freed.
static RECLAIMED: CachePadded<Counter> = CachePadded::new(Counter::new());

/// A number that changes when there is more to free.
#[inline]
pub(crate) fn retired() -> u64 {
    HANDED_OVER.get()
}

/// What was retired and what of it was freed, in all registries of the process: see [`reclaim_stats`].
///
/// ```
/// let livemark::ReclaimStats { retired, reclaimed, .. } = livemark::reclaim_stats();
/// assert!(reclaimed <= retired);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReclaimStats {
    /// Entries that were cleared, displaced or replaced, and arrays that changed, since the process started.
    pub retired: u64,
    /// Those that were freed. Counted when all of a batch are, up to 64.
    pub reclaimed: u64,
}

impl ReclaimStats {
    /// How many wait to be freed.
    ///
    /// ```
    /// let stats = livemark::reclaim_stats();
    /// assert_eq!(stats.unreclaimed(), stats.retired - stats.reclaimed);
    /// ```
    #[must_use]
    pub fn unreclaimed(&self) -> u64 {
        self.retired.saturating_sub(self.reclaimed)
    }
}

/// How much memory waits to be freed, in all registries of the process.
///
/// [`unreclaimed`](ReclaimStats::unreclaimed) goes up and down between nothing and some hundreds for each thread that
/// marks. If it only grows, a [`Reader`](crate::Reader) is kept and not used: nothing is freed that was cleared after
/// its last look-up. One relaxed load for each thread that ever cleared at the same time as
/// the others; the two numbers are not of one instant.
///
/// ```
/// let stats = livemark::reclaim_stats();
/// println!("{} cleared marks wait to be freed", stats.unreclaimed());
/// ```
#[must_use]
pub fn reclaim_stats() -> ReclaimStats {
    // First what was freed, so that it is not more than what was retired.
    let reclaimed = RECLAIMED.get();
    ReclaimStats { retired: batch::retired().max(reclaimed), reclaimed }
}

#[cfg_attr(
    not(all(crossbeam_loom, feature = "loom")),
    expect(unreachable_pub, reason = "the models have it from `livemark::model`")
)]
pub(crate) mod record;
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

#[cfg(not(all(crossbeam_loom, feature = "loom")))]
mod batch;
#[cfg(all(crossbeam_loom, feature = "loom"))]
mod batch {
    /// A model retires one by one, so that it explores when each is freed.
    pub(super) fn wait(guard: &super::WriteGuard, _: super::Retired, _: usize) {
        guard.debt.owe();
    }
    pub(super) fn free_owed() {}
    pub(super) fn retired() -> u64 {
        0
    }
    pub(crate) fn collect() {}
}

#[cfg(not(all(crossbeam_loom, feature = "loom")))]
mod participant {
    use std::sync::OnceLock;

    use crossbeam_epoch::{Collector, LocalHandle};

    use super::EpochGuard;

    fn collector() -> &'static Collector {
        static COLLECTOR: OnceLock<Collector> = OnceLock::new();
        COLLECTOR.get_or_init(Collector::new)
    }

    crate::sync::thread_local! {
        static PARTICIPANT: LocalHandle = collector().register();
    }

    /// Pins the current thread: nothing that it loads from a map while the guard lives is freed.
    ///
    /// A thread's first pin registers it (one allocation). In a thread whose locals are being destroyed, each
    /// pin registers anew.
    #[inline]
    pub(crate) fn pin() -> EpochGuard {
        PARTICIPANT.try_with(LocalHandle::pin).unwrap_or_else(|_| collector().register().pin())
    }

    /// Returns `true` if the thread has a guard.
    pub(crate) fn is_pinned() -> bool {
        PARTICIPANT.try_with(LocalHandle::is_pinned).unwrap_or(false)
    }
}

#[cfg(all(crossbeam_loom, feature = "loom"))]
pub(crate) mod participant {
    use std::cell::Cell;

    use crossbeam_epoch::{Collector, LocalHandle};

    use super::EpochGuard;
    use crate::sync::schedule_point;

    crate::sync::thread_local! {
        static CURRENT: Cell<Option<*const Participant>> = Cell::new(None);
    }

    /// A thread's place in the model's own collector, made before the thread is spawned and moved into it.
    ///
    /// Registering inside the threads would multiply the states by a thousand.
    #[derive(Debug)]
    pub struct Participant {
        handle: LocalHandle,
        /// Set if its pins pass the turnstile, as slots' loads do.
        turns: bool,
    }

    // SAFETY: a participant is moved to a thread before that thread first pins with it and is never shared;
    // no guard of it is alive while it moves (`new` drops the one it makes).
    unsafe impl Send for Participant {}

    impl Participant {
        /// Registers with `collector` and pins once: a first pin runs a collection, which belongs here.
        ///
        /// With `turns`, loom explores every order of its pins and of others' flushes. Where nothing is freed that
        /// finds nothing, in several times as many executions.
        pub fn new(collector: &Collector, turns: bool) -> Self {
            let handle = collector.register();
            drop(handle.pin());
            Self { handle, turns }
        }

        /// Runs `thread` with this participant behind every `pin()` of the crate.
        pub fn enter<R>(&self, thread: impl FnOnce() -> R) -> R {
            CURRENT.with(|current| current.set(Some(self)));
            let result = thread();
            CURRENT.with(|current| current.set(None));
            result
        }

        /// A guard of this participant: what the crate's own `pin()` gives inside [`enter`](Self::enter).
        pub fn pin(&self) -> EpochGuard {
            if self.turns {
                schedule_point();
            }
            self.handle.pin()
        }

        /// Seals the thread's garbage and collects what is due: three rounds free all that nobody can see.
        pub fn flush(&self) {
            schedule_point();
            self.handle.pin().flush();
        }
    }

    #[expect(clippy::expect_used, reason = "a model whose thread has no participant must fail")]
    pub(crate) fn pin() -> EpochGuard {
        let participant = CURRENT.with(Cell::get).expect("a model's thread runs inside Participant::enter");
        // SAFETY: `enter` keeps the participant borrowed while it is the current one.
        unsafe { (*participant).pin() }
    }
}
