//! What is the whole process's: the memory that waits to be freed, allocations, subscribers and panic hooks, aborts and
//! pauses. Each test runs in a process of its own, in which nobody else marks, frees or reports.
//!
//! Each begins with [`process::isolated`], which starts this binary again for that test alone.

mod allocations;
mod collection;
mod hash_collisions;
mod out_of_memory;
#[cfg(unix)]
mod pauses;
mod reclamation;
#[cfg(feature = "tracing")]
mod subscriber_gone;
#[cfg(feature = "tracing")]
mod tracing;

#[path = "../support/heap.rs"]
mod heap;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/mod.rs"]
mod support;
