//! What the tests share. A binary that needs the counting allocator (`heap.rs`), a process for each test (`process.rs`)
//! or any policy (`any_policy.rs`) declares that by itself.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

mod hashers;
mod job_store;
mod jobs;
mod races;
mod tracked;
mod waiting;

pub(crate) use hashers::{AllEqual, OneRootSlot};
pub(crate) use job_store::{Troubled, blow_up, troubled};
pub(crate) use jobs::{
    AN_HOUR, FINALIZE_GRACE, HARD_DEADLINE, LOST_GRACE, MARKING, NANOSECOND, Said, UNDECLARED, finished, jobs_of, lost,
    monitor, overdue, policy, running, said, seconds,
};
pub(crate) use races::{SlowToClone, StartingLine, Stop, alone, dawdle};
pub(crate) use tracked::{Census, Tracked};
pub(crate) use waiting::{reclaim_for_a_moment, reclaim_until, wait_until};
