//! What each part of the library promises, through its public API: a module for a part.
//!
//! The tests run on several threads of one process, as a service's code does. What counts something of the whole
//! process is in `isolated`, and what wants the cores for itself in `stress`.

mod claiming;
mod explain;
mod guard;
mod incident;
#[cfg(feature = "metrics")]
mod metrics;
mod modes;
mod policy;
#[cfg(feature = "serde")]
mod policy_settings;
mod reader;
mod reaper;
mod registry;
mod run_loop;
mod scopes;
#[cfg(feature = "serde")]
mod serde;
mod snapshot;
mod tasks;
mod unwind;

#[path = "../support/mod.rs"]
mod support;
