//! livemark over several processes: the same marks, the same reaper, and the same local look-ups, on an engine that all
//! processes share.
//!
//! A registry sees one process. Two processes over one queue, as in every rolling deploy, need marks that both see. This
//! crate keeps them in an [`Engine`] with leases, compare-and-set and an ordered watch, such as etcd. Each process has a
//! [`Session`], whose lease ends its marks when the process dies. A [mirror](View) of all marks is a local
//! [`Registry`](livemark::Registry), so that look-ups stay lock-free and ask nobody.
//!
//! # What holds, and while what does
//!
//! | | holds while | rests on |
//! |---|---|---|
//! | at most one process is given a job's mark at a time | the engine is linearizable | no clocks |
//! | tokens of a job grow | the engine is not restored to an earlier state, or its epoch was bumped | `token_floor` finds it at the open |
//! | a job is committed once | always | the job store's compare-and-set: no clocks, no engine |
//! | `is_current` is false before the engine gives the mark away by expiry | clocks run at rates within margin / TTL | the boot-time clock, send times |
//! | a live owner is not redriven | it renews its lease, or the engine is away for everybody | the lease |
//! | a dead process's jobs are free | after its TTL and `settle` | the engine is there |
//! | without the engine there is no mark, no claim and no redrive, and the backstop acts | always | the job store |
//!
//! A token fences nothing until its owner has written it into the job's row: `UPDATE jobs SET fence = :t WHERE id = :id
//! AND fence < :t`, first thing with the mark, and `.. AND fence = :t` in the commit.
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

mod clock;
mod codec;
mod config;
mod engine;
mod error;
mod guard;
mod lease;
mod memory;
mod mirror;
mod reaper;
mod session;
mod stats;
mod telemetry;

pub use crate::clock::{BootClock, Clock};
pub use crate::codec::{Context, JobKey};
pub use crate::config::{Config, ConfigError};
pub use crate::engine::{Engine, EngineError, Event, Grant, If, Lease, Listing, Revision, Row, Watch, Written};
pub use crate::error::{BarrierError, Loss, MarkError, OpenError, TryMarkError, Unavailable};
pub use crate::guard::{ClusterGuard, Token};
pub use crate::memory::{Faults, MemoryClient, MemoryEngine};
pub use crate::mirror::{Remote, View};
pub use crate::reaper::{Claim, ClusterReaper, Verdict};
pub use crate::session::{Session, Standing};
pub use crate::stats::SessionStats;
