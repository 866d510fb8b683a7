//! A lock-free **ownership registry** for job systems, and the **reaper** that trusts it.
//!
//! A monitor *marks* a job while it finalizes it (minutes of gates, merges, commits). The mark is *cleared* on return,
//! on `?`, on panic. A reaper asks *`is_active`* before it re-drives a job that looks dead: a live finalizer is
//! deferred to, a dead one is re-driven, a stuck one is ended by a hard backstop that ignores the mark.
//!
//! What it does that an `RwLock<HashMap>` with a flag does not: the reaper's look-up never waits for a monitor; a late
//! release never frees a newer owner; "is it free?" and "then it is mine" are one step; and a panic releases.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
//!
//! static FINALIZING: Registry = Registry::new();
//!
//! let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
//! let reaper = Reaper::new(&FINALIZING, policy);
//! let job = RunningJob {
//!     id: 7,
//!     stage: "merge",
//!     running_for: Duration::from_secs(400),
//!     finished_for: Some(Duration::from_secs(310)), // past the grace of 300 s: looks dead
//!     lost_for: None,
//! };
//!
//! let guard = FINALIZING.mark(7, Finalizer::new(Some(1), "merge")); // but its monitor is alive
//! assert!(matches!(reaper.sweep().judge(&job), Verdict::Defer(_)));
//!
//! drop(guard); // it dies
//! assert!(matches!(reaper.sweep().judge(&job), Verdict::Redrive(Some(_claim))));
//! # Ok::<(), livemark::PolicyError>(())
//! ```
//!
//! # Before using
//!
//! - The registry is in memory and sees **one process**. After a restart it is empty: re-queue what was running before
//!   the reaper starts.
//! - A deferral is not exactly-once: the job store must still **compare-and-set** the final state.
//! - Only stages that the policy **declares as marking** ([`PolicyBuilder::marking_stage`]) are protected: for any
//!   other, a missing mark says nothing, and the registry is never asked.
//! - A leaked guard holds its job until the **hard deadline**; without one, for ever.
//! - A registry takes 64 KiB or more from its first mark or reader on: it is meant to be one per process, not one per
//!   job.
//!
//! New here? [`guide::start`] is a whole program. Then: how to embed it in a scheduler ([`guide::embedding`]), coming
//! from a lock and a dict ([`guide::migrating`]), what newcomers get wrong ([`guide::mistakes`]), what it cannot do
//! ([`guide::limitations`]), what each operation promises ([`guide::consistency`]), why the orderings are right
//! ([`guide::orderings`]), what it costs ([`guide::performance`]), and how it is tested ([`guide::testing`]).
//!
//! # Features
//!
//! - `tracing` (default): marks and clears at `trace`, deferrals at `info`, redrives, reaps and likely mistakes at
//!   `warn`, failures of the ready-made loop at `error`, with target `livemark`. Job ids of integers, strings and `[u8;
//!   16]` are shown, ids of other types by the name of their type.
//! - `serde`: [`Snapshot`], [`Owner`] and the counts can be written as JSON, say; a [`Policy`] can be read from a
//!   settings file, with the builder's checks, and written.
//! - `metrics`: counts verdicts and shows owners through the `metrics` crate, whose recorder is yours: counters
//!   `finalizer_defers_total`, `reaper_sweeps_total`, `reaper_redrives_total`, `reaper_reaps_total` (by `cause`),
//!   `reaper_claim_conflicts_total`, `reaper_failures_total`; and at each sweep the gauges `finalizer_owned`,
//!   `finalizer_oldest_owner_age_seconds` and `livemark_unreclaimed` (see [`reclaim_stats`]).
//!
//! All are additive, and none costs `is_active` anything.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_debug_implementations, clippy::pedantic)]
// No public function panics, and pointers stay in the map: exceptions are argued where they stand.
#![deny(
    missing_docs,
    unsafe_code,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
#![allow(clippy::unnecessary_box_returns, reason = "entries are made in the box that they are published in")]

mod finalizer;
mod hasher;
#[cfg(feature = "serde")]
mod json;
#[expect(unsafe_code, reason = "the map handles pointers: every block says why it may")]
mod map;
mod owner;
mod reaper;
#[expect(unsafe_code, reason = "hands the map's promises to crossbeam-epoch")]
mod reclaim;
mod registry;
mod sync;
mod trace;
mod unwind;

pub use crate::finalizer::{Finalizer, Pulse};
pub use crate::hasher::{DefaultHashBuilder, DefaultHasher};
pub use crate::owner::{Generation, Owner};
pub use crate::reaper::{
    Cause, DeferReason, Deferral, Explanation, Failure, Mode, Policy, PolicyBuilder, PolicyError, Reaper, ReaperStats,
    RunningJob, Scheduler, StageRules, Sweep, UnknownMode, Verdict,
};
pub use crate::reclaim::{ReclaimStats, reclaim_stats};
pub use crate::registry::{
    Guard, Handle, MarkGuard, Occupied, OwnedMarkGuard, Reader, Registry, RegistryStats, Snapshot,
};

pub mod guide {
    //! Pages that go before and beyond the reference.
    //!
    //! - [`start`]: from `cargo add` to a working reaper, in five minutes
    //! - [`mistakes`]: what newcomers get wrong, and what tells them
    //! - [`embedding`]: monitor, job store, reaper, restart, async
    //! - [`migrating`]: from a Python or Go reaper with a lock and a dict
    //! - [`consistency`]: what each operation promises
    //! - [`limitations`]: what it cannot do, and when to use something else
    //! - [`orderings`]: why each atomic operation's ordering is right
    //! - [`performance`]: what costs what
    //! - [`testing`]: what is checked, how, and what is not

    #[doc = include_str!("docs/start.md")]
    pub mod start {}
    #[doc = include_str!("docs/mistakes.md")]
    pub mod mistakes {}
    #[doc = include_str!("docs/embedding.md")]
    pub mod embedding {}
    #[doc = include_str!("docs/migrating.md")]
    pub mod migrating {}
    #[doc = include_str!("docs/consistency.md")]
    pub mod consistency {}
    #[doc = include_str!("docs/limitations.md")]
    pub mod limitations {}
    #[doc = include_str!("docs/orderings.md")]
    pub mod orderings {}
    #[doc = include_str!("docs/performance.md")]
    pub mod performance {}
    #[doc = include_str!("docs/testing.md")]
    pub mod testing {}
}

/// The README's examples, tested.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// What the models of `loom-tests` need besides the public API. Not part of it.
#[cfg(all(crossbeam_loom, feature = "loom"))]
#[doc(hidden)]
pub mod model {
    pub use crate::reclaim::participant::Participant;
    pub use crate::reclaim::ring::Ring;
    pub use crate::reclaim::stack::{Node, Stack};
    pub use crate::sync::turnstile::AtomicUsize;
}
