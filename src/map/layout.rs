//! The shape of the map. A model has the same code in a shape of few states.

use crate::sync::LOOM;

/// How many slots the root has: powers of two. The least take 64 KiB. With fewer, jobs would share slots sooner.
pub(super) const ROOT_SLOTS_MIN: usize = if LOOM { 2 } else { 1 << 13 };
pub(super) const ROOT_SLOTS_MAX: usize = if LOOM { 2 } else { 1 << 24 };
/// How many bits of the hash choose a slot of a branch.
pub(super) const BRANCH_BITS: u32 = if LOOM { 1 } else { 6 };
pub(super) const BRANCH_SLOTS: usize = 1 << BRANCH_BITS;
/// The most entries in a bucket before its slot grows into a branch.
pub(super) const BUCKET_MAX: usize = if LOOM { 2 } else { 8 };
