//! livemark is a lock-free, in-process **registry** of which jobs are being finalized right now, and a **reaper** that
//! redrives (finalizes again) only the ones nobody owns.
//!
//! While a monitor (the thread or task that ends a job) finalizes its job (checks, merges, commits: often minutes), it
//! holds a *mark*. Dropping the guard clears the mark, on return, on `?` and on panic. Before the reaper redrives a job
//! that looks dead in a stage declared as marking, it checks for a mark and *defers* to one. A hard deadline, where you
//! set one, ends the job whoever holds it.
//!
//! An `RwLock<HashMap>` with a flag lacks four properties of this crate. The reaper's look-up never waits for a
//! monitor. A late release never frees a newer owner. Check and claim are one step. A panic releases the mark.
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
//! [`guide::start`] is a whole program.
//!
//! # Trade-offs
//!
//! - **A registry sees one process**, and is empty after a restart. Queue again what was running, and then start
//!   the reaper. [`guide::processes`] is about more than one process.
//! - **A deferral is not exactly-once.** The job store must still compare and set the final state, and restart the
//!   stamp of a job that is redriven.
//! - **Only stages that the policy declares as marking are protected** ([`PolicyBuilder::marking_stage`]). In any other
//!   stage the reaper does not consult the registry, because there a missing mark proves nothing.
//! - **A leaked guard holds its job** until the hard deadline, and without one forever.
//! - **A registry takes 64 KiB or more** from its first mark or reader on. Make one for each process and not for each
//!   job.
//! - **Values are dropped later**, perhaps on another thread.
//!
//! # When to use something else
//!
//! - **A handful of jobs, and nobody in a hurry.** A `Mutex<HashMap>` is simpler and smaller, and its uncontended mark
//!   and clear are faster.
//! - **A general concurrent map**, with iteration and a large API. Use `papaya`, `scc` or `dashmap`.
//! - **A value that many read and few replace.** `arc-swap` alone is enough.
//! - **Ownership across machines.** Use leases with fencing tokens, in a database or in etcd.
//!
//! # Guide
//!
//! - [`guide::start`] goes from `cargo add` to a working reaper in five minutes.
//! - [`guide::embedding`] has the monitor, the job store, the loop, a restart, and async code.
//! - [`guide::pitfalls`] lists the usual mistakes and the limits, and what reports each.
//! - [`guide::consistency`] says what each operation promises.
//! - [`guide::migrating`] translates a reaper with a lock and a dict, in Python or Go.
//! - [`guide::operations`] has modes, limits, alerts, events, and the steps of an incident.
//! - [`guide::processes`] is about one job store and several processes.
//! - [`guide::glossary`] explains the words.
//! - [`guide::internals`] says how the crate is made, and is no part of the promise.
//!
//! # Features
//!
//! - `tracing` (default) sends events with the target `livemark`.
//! - `metrics` counts verdicts and shows owners through the `metrics` crate, whose recorder is yours.
//! - `serde` writes a [`Snapshot`], an [`Owner`] and the counts, as JSON say. It reads a [`Policy`] from a settings
//!   file, with the builder's checks, and writes it.
//!
//! [`guide::operations`] lists every event and every metric. All features are additive, and none costs `is_active`
//! anything.

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

mod context;
mod hasher;
#[expect(unsafe_code, reason = "the map handles pointers: every block says why it may")]
mod map;
mod owner;
mod reaper;
#[expect(unsafe_code, reason = "hands the map's promises to crossbeam-epoch")]
mod reclaim;
mod registry;
#[cfg(feature = "serde")]
mod serde_impls;
mod show;
mod sync;
mod telemetry;
mod unwind;

pub use crate::context::{Finalizer, Pulse};
pub use crate::hasher::{DefaultHashBuilder, DefaultHasher};
pub use crate::owner::{Generation, Owner};
pub use crate::reaper::{
    AsyncJobStore, Cause, Claim, Claimed, Claimer, DeferReason, Deferral, Explanation, Intent, JobStore, Mark, Mode,
    Outcome, ParseModeError, Policy, PolicyBuilder, PolicyError, Proposal, Proposed, Reaper, ReaperHandle, ReaperStats,
    RunError, RunningJob, StageLimits, StageRules, StopToken, Sweep, SweepReport, Takes, Verdict,
};
pub use crate::reclaim::{ReclaimStats, reclaim_stats};
pub use crate::registry::{
    Feed, MarkGuard, OccupiedError, OwnedMarkGuard, Reader, Registry, RegistryHandle, RegistryStats, Snapshot,
    SnapshotIter,
};

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
compile_error!("livemark needs a clock and threads, which wasm32-unknown-unknown does not have: every mark would trap");

pub mod guide {
    //! Pages that go before and beyond the reference.
    //!
    //! - [`start`]: from `cargo add` to a working reaper in five minutes
    //! - [`embedding`]: the monitor, the job store, the loop, a restart, async
    //! - [`pitfalls`]: the usual mistakes, the limits, and what reports each
    //! - [`consistency`]: what each operation promises
    //! - [`migrating`]: from a reaper with a lock and a dict, in Python or Go
    //! - [`operations`]: modes, limits, alerts, events, and the steps of an incident
    //! - [`processes`]: one job store and several processes
    //! - [`glossary`]: the words
    //! - [`internals`]: how it is made, which is no part of the promise

    // The pages name items as code spans, which rustdoc resolves here and every other viewer shows as they are.
    #[allow(unused_imports, clippy::wildcard_imports, reason = "for the links of the pages")]
    use super::*;

    /// Makes a module of each page. A page ends with relative links for viewers of its folder. The definitions of
    /// `links.md` come first, so that rustdoc takes those. (It reports a failing program as one of `links.md`, with the
    /// page's name.)
    macro_rules! pages {
        ($($page:ident)*) => {$(
            #[doc = include_str!("docs/links.md")]
            #[doc = include_str!(concat!("docs/", stringify!($page), ".md"))]
            pub mod $page {}
        )*};
    }

    pages! { start embedding pitfalls consistency migrating operations processes glossary }

    pub mod internals {
        //! How livemark is made, and why. Nothing on these pages is part of the promise, and any of it may change in
        //! any version.
        //!
        //! - [`orderings`]: why each atomic operation's ordering is right
        //! - [`performance`]: what costs what, and what was tried
        //! - [`testing`]: what is checked, how, and what is not

        #[allow(unused_imports, clippy::wildcard_imports, reason = "for the links of the pages")]
        use super::*;

        pages! { orderings performance testing }
    }
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
