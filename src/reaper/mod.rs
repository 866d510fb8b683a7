//! The reaper: decides what becomes of running jobs. No `unsafe`, and no I/O but through the user's job store.
//!
//! From the top down, each file knowing only those below it:
//!
//! | file | what it holds |
//! |---|---|
//! | `run.rs`, `turn.rs` | the loop, and one turn of it: list, judge, act |
//! | `sweep.rs` | [`Sweep`]: one pass over the running jobs, which judges and explains |
//! | `judge.rs` | how one job is judged |
//! | `job_store.rs`, `run_error.rs`, `sweep_report.rs` | the job store's side of the loop, what can go wrong, what came of a turn |
//! | `explain.rs` | [`Explanation`]: a verdict in words, and what comes next |
//! | `erased.rs` | a reaper without its types, which an explanation asks |
//! | `liveness.rs` | for how long an owner keeps its job |
//! | `reaper.rs` | [`Reaper`]: its registry, its policy, and what it is told about contexts |
//! | `sweep_state.rs` | what a sweep keeps between two jobs |
//! | `handle.rs`, `control.rs` | [`ReaperHandle`], and what it shares with its reaper |
//! | `sweep_history.rs`, `grace_timer.rs` | since when the reaper has looked regularly: the boot grace |
//! | `findings.rs` | what the latest sweep found of each job, so that news can be told from repetition |
//! | `trigger.rs` | what a job's ages call for |
//! | `policy/` | [`Policy`]: the mode and the limits, its builder, its settings file |
//! | `stats.rs` | what a reaper counts |
//! | `verdict.rs`, `claim.rs` | what comes out of a judgment |
//! | `job.rs`, `mode.rs`, `stop.rs` | plain data that goes in |

mod claim;
mod control;
mod erased;
mod explain;
mod findings;
mod grace_timer;
mod handle;
mod job;
mod job_store;
mod judge;
mod liveness;
mod mode;
mod policy;
#[expect(clippy::module_inception, reason = "the type that the module is named for")]
mod reaper;
mod run;
mod run_error;
mod stats;
mod stop;
mod sweep;
mod sweep_history;
mod sweep_report;
mod sweep_state;
mod trigger;
mod turn;
mod verdict;

pub use self::claim::{Claim, Mark};
pub use self::explain::Explanation;
pub use self::handle::ReaperHandle;
pub use self::job::RunningJob;
pub use self::job_store::{AsyncJobStore, Claimer, JobStore, Outcome};
pub use self::mode::{Mode, ParseModeError};
pub use self::policy::{Policy, PolicyBuilder, PolicyError, StageLimits, StageRules};
pub use self::reaper::Reaper;
pub use self::run_error::RunError;
pub use self::stats::ReaperStats;
pub use self::stop::StopToken;
pub use self::sweep::Sweep;
pub use self::sweep_report::SweepReport;
pub use self::verdict::{Cause, Claimed, DeferReason, Deferral, Intent, Proposal, Proposed, Takes, Verdict};
