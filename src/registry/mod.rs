//! The registry of who finalizes which job: a safe face of the map.
//!
//! From the top down, each file knowing only those below it:
//!
//! | file | what it holds |
//! |---|---|
//! | `handle.rs` | [`RegistryHandle`]: a registry that is borrowed or shared |
//! | `reader.rs` | [`Reader`]: look-ups in a loop, under one pin |
//! | `feed.rs` | [`Feed`]: what a mirror writes |
//! | `registry.rs` | [`Registry`]: marks, clears, look-ups and snapshots |
//! | `guard.rs` | [`MarkGuard`]: a held mark, which its drop clears |
//! | `held.rs` | how a guard holds its registry, without the type of the hasher |
//! | `shared.rs` | what guards share with their registry: the map, counters, how ids are shown |
//! | `unbeaten.rs` | pulses in reapers' claims that nobody has beaten yet |
//! | `error.rs`, `snapshot.rs`, `stats.rs` | what the methods return |

mod error;
mod feed;
mod guard;
mod handle;
mod held;
mod reader;
#[expect(clippy::module_inception, reason = "the type that the module is named for")]
mod registry;
mod shared;
mod snapshot;
mod stats;
mod unbeaten;

pub use self::error::OccupiedError;
pub use self::feed::Feed;
pub use self::guard::{MarkGuard, OwnedMarkGuard};
pub use self::handle::RegistryHandle;
pub use self::reader::Reader;
pub use self::registry::Registry;
pub use self::snapshot::{Snapshot, SnapshotIter};
pub use self::stats::RegistryStats;

pub(crate) use self::guard::Displaces;
