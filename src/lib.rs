#![doc = "placeholder"]
mod finalizer;
mod hasher;
mod map;
mod owner;
mod reaper;
mod reclaim;
mod registry;
mod sync;
mod trace;

pub use crate::finalizer::{Finalizer, Pulse};
pub use crate::hasher::{DefaultHashBuilder, DefaultHasher};
pub use crate::owner::{Generation, Owner};
pub use crate::reaper::{
    Cause, DeferReason, Deferral, Mode, Policy, PolicyBuilder, PolicyError, Reaper, ReaperStats, RunningJob,
    StageRules, Sweep, Verdict,
};
pub use crate::registry::{
    Guard, Handle, MarkGuard, Occupied, OwnedMarkGuard, Reader, Registry, RegistryStats, Snapshot,
};
pub mod guide {}

/// What the models of `loom-tests` need besides the public API. Not part of it.
#[cfg(all(crossbeam_loom, feature = "loom"))]
#[doc(hidden)]
pub mod model {
    pub use crate::reclaim::participant::Participant;
    pub use crate::sync::turnstile::AtomicUsize;
}
