//! A job system on [`livemark`]: SQLite job store, monitor threads with real child processes, a reaper.
//!
//! Its main job is to [`replay`] the incident the library exists for. To learn how the library is used,
//! read [`monitor`] (who marks, when, and for how long) and [`reap`] (who asks, and what is done with a
//! verdict); [`engine`] puts the two together.

pub mod config;
pub mod engine;
pub mod error;
pub mod gates;
pub mod monitor;
pub mod reap;
pub mod replay;
pub mod store;
