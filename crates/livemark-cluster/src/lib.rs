//! livemark over several processes: the same marks, the same reaper, and the same local look-ups, on an engine that all
//! processes share.
//!
//! A registry sees one process. Two processes over one queue, as in every rolling deploy, need marks that both see. This
//! crate keeps them in an [`Engine`] with leases, compare-and-set and an ordered watch, such as etcd. Each process has a
//! [`Session`], whose lease ends its marks when the process dies. A [mirror](View) of all marks is a local
//! [`Registry`](livemark::Registry), so that look-ups stay lock-free and ask nobody.
//!
//! The [guide] says what holds while what does, which two statements the job store needs, how to choose the TTL, and what
//! happens when something fails. [Planning](planning) says how many processes and marks an engine carries.
//!
//! # Example
//!
//! ```
//! use livemark::Finalizer;
//! use livemark_cluster::{Config, MemoryEngine, Session};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(async {
//! let engine = MemoryEngine::new(); // a real one is shared by several processes
//! let here: Session = Session::open(engine.client(), Config::default()).await?;
//! let there: Session = Session::open(engine.client(), Config::default()).await?;
//!
//! let guard = here.mark(7, Finalizer::new(Some(1), "merge")).await?;
//! assert!(there.try_mark(7, Finalizer::new(Some(2), "merge")).await.is_err());
//! there.view().barrier().await?;
//! assert!(there.view().registry().is_active(&7));
//! guard.clear().await?;
//! assert!(there.try_mark(7, Finalizer::new(Some(2), "merge")).await.is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).expect("the engine is there");
//! ```

#[doc = include_str!("guide.md")]
pub mod guide {}

#[doc = include_str!("planning.md")]
pub mod planning {}

mod any_engine;
mod clock;
mod codec;
mod collector;
mod config;
mod engine;
mod error;
mod follower;
mod guard;
mod held;
mod inner;
pub mod inspect;
mod keeper;
mod keys;
mod lease;
mod memory;
mod mirror;
mod prepared;
mod reaper;
mod session;
mod stats;
mod telemetry;

pub use crate::clock::{BootClock, Clock};
pub use crate::codec::{Context, JobKey};
pub use crate::config::{Config, ConfigError};
pub use crate::engine::{
    Engine, EngineError, Event, Grant, History, If, Lease, Listing, News, Revision, Row, Watch, Written,
};
pub use crate::error::{BarrierError, Loss, MarkError, OpenError, TryMarkError, Unavailable};
pub use crate::guard::{ClusterGuard, Token};
pub use crate::memory::{Faults, MemoryClient, MemoryEngine};
pub use crate::mirror::{Remote, View};
pub use crate::prepared::Prepared;
pub use crate::reaper::{Claim, ClusterReaper, Verdict};
pub use crate::session::{Session, Standing};
pub use crate::stats::SessionStats;
