//! In a model: each thing is retired by itself, so that loom explores when each is freed.

use super::participant::EpochGuard;
use super::retired::Retired;

/// Has `retired` freed once its epoch has passed. The thread owes nothing.
pub(super) fn wait(guard: &EpochGuard, retired: Retired, _: usize) -> bool {
    // SAFETY: the promise of whoever made `retired`. The closure owns it.
    unsafe { guard.defer_unchecked(move || retired.free()) };
    false
}

pub(super) fn free_owed() {}

pub(super) fn retired() -> u64 {
    0
}

pub(super) fn reclaimed() -> u64 {
    0
}

pub(crate) fn handed_over() -> u64 {
    0
}

pub(crate) fn collect() {}
