//! The crate's collector, and each thread's place in it.
//!
//! The collector is the crate's own, not crossbeam's default one: another crate's long pin must not stop our
//! reclamation, and another crate's garbage must not be run by our readers. All registries of the process share it, so
//! that a thread has one participant however many registries it uses.

use std::sync::OnceLock;

pub(crate) use crossbeam_epoch::Guard as EpochGuard;
use crossbeam_epoch::{Collector, LocalHandle};

fn collector() -> &'static Collector {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    COLLECTOR.get_or_init(Collector::new)
}

crate::sync::thread_local! {
    static PARTICIPANT: LocalHandle = collector().register();
}

/// Pins the current thread: nothing that it loads from a map while the guard lives is freed.
///
/// A thread's first pin registers it (one allocation). In a thread whose locals are being destroyed, each pin registers
/// anew.
#[inline]
pub(crate) fn pin() -> EpochGuard {
    PARTICIPANT.try_with(LocalHandle::pin).unwrap_or_else(|_| collector().register().pin())
}

/// Returns `true` if the thread has a guard.
pub(super) fn is_pinned() -> bool {
    PARTICIPANT.try_with(LocalHandle::is_pinned).unwrap_or(false)
}
