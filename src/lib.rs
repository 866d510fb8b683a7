//! A lock-free, in-process **registry** of which jobs are being finalized right now, and a **reaper** that redrives
//! only the ones that nobody owns.
//!
//! While a monitor finalizes a job (gates, merges, commits: often minutes), it holds a *mark*. Dropping the guard
//! clears the mark, on return, on `?` and on panic. Before the reaper redrives a job that looks dead, it checks for a
//! mark and *defers* if there is one. A hard deadline reaps the job in any case.
//!
//! An `RwLock<HashMap>` with a flag does not do four things that this crate does. The reaper's look-up never waits for
//! a monitor. A late release never frees a newer owner. "Is it free?" and "then it is mine" are one step. And a panic
//! releases.
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
//!
//! // Started 400 s ago, finished 310 s ago, not committed. That is past the grace of 300 s: the job looks dead.
//! let job = RunningJob::new(&7, "merge", Duration::from_secs(400)).finished_for(Duration::from_secs(310));
//!
//! let guard = FINALIZING.mark(7, Finalizer::new(Some(1), "merge")); // but its monitor is alive
//! assert!(matches!(reaper.sweep().judge(&job), Verdict::Defer(_)));
//!
//! drop(guard); // it dies
//! assert!(matches!(reaper.sweep().judge(&job), Verdict::Redrive(_claim)));
//! # Ok::<(), livemark::PolicyError>(())
//! ```
//!
//! # Before using
//!
//! - A registry is in memory and sees **one process**. After a restart it is empty: re-queue what was running before
//!   the reaper starts.
//! - A deferral is not exactly-once: the job store must still **compare-and-set** the final state, and **restart the
//!   stamp** of a job that is redriven.
//! - Only stages that the policy **declares as marking** ([`PolicyBuilder::marking_stage`]) are protected. In any other
//!   stage the reaper does not consult the registry, because there a missing mark proves nothing.
//! - A leaked guard holds its job until the **hard deadline**, and without one for ever.
//! - A registry takes 64 KiB or more from its first mark or reader on: it is meant to be one per process, not one per
//!   job.
//!
//! [`guide::start`] is a whole program. The other pages:
//!
//! - for users: how to embed it in a scheduler ([`guide::embedding`]), coming from a lock and a dict
//!   ([`guide::migrating`]), what newcomers get wrong ([`guide::mistakes`]), what it cannot do
//!   ([`guide::limitations`]), what each operation promises ([`guide::consistency`]);
//! - about its making: why the orderings are right ([`guide::orderings`]), what it costs ([`guide::performance`]), and
//!   how it is tested ([`guide::testing`]).
//!
//! # Features
//!
//! - `tracing` (default): events with target `livemark`. A deferral is told at `info` when it begins or changes its
//!   reason, and at `debug` while it goes on, and so is what a dry run proposes. Redrives, reaps and likely mistakes
//!   are told at `warn`, failures of the loop at `error`. Marks and clears are told at `trace`, and a mark that
//!   displaces another one at `debug`. Integers, text (escaped) and `[u8; 16]` are shown as job ids. Other ids are
//!   shown by their type's name, or as [`Registry::showing`] says.
//! - `serde`: [`Snapshot`], [`Owner`] and the counts can be written as JSON, say. A [`Policy`] can be read from a
//!   settings file, with the builder's checks, and written.
//! - `metrics`: counts verdicts and shows owners through the `metrics` crate, whose recorder is yours. Each metric has
//!   the label `reaper`, which is the reaper's [name](Reaper::named), and starts at zero with its first sweep or
//!   [`handle`](Reaper::handle). The counters are `finalizer_defers_total`, `reaper_sweeps_total`,
//!   `reaper_redrives_total`, `reaper_reaps_total` (also by `cause`), `reaper_claim_conflicts_total`,
//!   `reaper_refused_total` and `reaper_failures_total`. The gauges, set at each sweep, are `finalizer_owned`,
//!   `finalizer_oldest_owner_age_seconds` (both 0 in [`Mode::Ignore`]) and `livemark_unreclaimed` (see
//!   [`reclaim_stats`]). In [`Mode::DryRun`] sweeps are counted, and no verdicts.
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
mod show;
mod sync;
mod telemetry;
mod unwind;

pub use crate::finalizer::{Finalizer, Pulse};
pub use crate::hasher::{DefaultHashBuilder, DefaultHasher};
pub use crate::owner::{Generation, Owner};
pub use crate::reaper::{
    AsyncJobStore, Cause, Claim, DeferReason, Deferral, Explanation, JobStore, Mode, Outcome, ParseModeError, Policy,
    PolicyBuilder, PolicyError, Proposed, Reaper, ReaperHandle, ReaperStats, RunError, RunningJob, StageLimits,
    StageRules, StopToken, Sweep, SweepReport, Verdict,
};
pub use crate::reclaim::{ReclaimStats, reclaim_stats};
pub use crate::registry::{
    MarkGuard, OccupiedError, OwnedMarkGuard, Reader, Registry, RegistryHandle, RegistryStats, Snapshot, SnapshotIter,
};

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
compile_error!("livemark needs a clock and threads, which wasm32-unknown-unknown does not have: every mark would trap");

pub mod guide {
    //! Pages that go before and beyond the reference.
    //!
    //! For users:
    //!
    //! - [`start`]: from `cargo add` to a working reaper, in five minutes
    //! - [`mistakes`]: what newcomers get wrong, and what tells them, or nothing does
    //! - [`embedding`]: monitor, job store, reaper, restart, async
    //! - [`migrating`]: from a Python or Go reaper with a lock and a dict
    //! - [`consistency`]: what each operation promises
    //! - [`limitations`]: what it cannot do, and when to use something else
    //!
    //! About its making, and no part of what is promised:
    //!
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
    pub use crate::reclaim::record::{Record, Records};
    pub use crate::reclaim::ring::Ring;
    pub use crate::reclaim::stack::{Node, TreiberStack};
    pub use crate::sync::turnstile::AtomicUsize;
}
