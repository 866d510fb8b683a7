//! A job system on [`livemark`]: job store, monitor threads with real child processes, a reaper.
//!
//! It can [`replay`] the incident the library exists for, and run as a service ([`serve`]) with a page to watch it.
//! Two modules show how the library is used: [`monitor`] (who marks, when, and for how long) and [`reap`] (who asks,
//! and what is done with a verdict). [`engine`] puts the two together.

pub mod client;
pub mod config;
pub mod engine;
pub mod environment;
pub mod error;
pub mod feed;
pub mod gates;
pub mod marks;
pub mod monitor;
pub mod output;
pub mod reap;
pub mod replay;
pub mod serve;
pub mod show;
pub mod store;
pub mod supervise;
