//! What goes into [`Sweep::judge`](super::Sweep::judge) and what comes out: [`RunningJob`] and [`Verdict`]. Plain data,
//! but for the claim in a verdict.

use std::fmt;
use std::time::Duration;

use crate::finalizer::Finalizer;
use crate::hasher::DefaultHashBuilder;
use crate::owner::Owner;
use crate::registry::MarkGuard;

/// A running job as the job store shows it: an id, a stage, and ages.
///
/// Ages are `Duration`s: compute them with `saturating` subtraction, so that a clock that went backwards counts as
/// zero.
///
/// ```
/// use std::time::Duration;
/// use livemark::RunningJob;
///
/// let job = RunningJob {
///     id: 7_u64,
///     stage: "merge",
///     running_for: Duration::from_secs(400),
///     finished_for: Some(Duration::from_secs(310)), // its process exited; its final state is not committed
///     lost_for: None,
/// };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningJob<'a, K = u64> {
    /// The id that monitors mark.
    pub id: K,
    /// The stage whose rules apply.
    pub stage: &'a str,
    /// How long ago the job was started.
    pub running_for: Duration,
    /// How long ago the job's process exited (`finished_at`), if it has: then it is finished, and not lost.
    pub finished_for: Option<Duration>,
    /// How long ago the job's worker was last known to be there, if it is gone.
    pub lost_for: Option<Duration>,
}

/// What to do with a job: the answer of [`Sweep::judge`](super::Sweep::judge).
///
/// A redrive or a reap carries the claim of the job: whoever acts on it owns the job, and moves the guard to the thread
/// that does the work. It is `None` where the registry is not to be touched: in [`Mode::Ignore`](super::Mode::Ignore),
/// in stages that do not mark, and in [`Mode::DryRun`](super::Mode::DryRun), whose verdicts are not to be acted on.
///
/// Its `Display` says what was decided; [`explain`](Self::explain) says why.
///
/// ```
/// # use std::time::Duration;
/// # use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob};
/// use livemark::Verdict;
///
/// # let registry: Registry = Registry::new();
/// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// # let reaper = Reaper::new(&registry, policy);
/// # let past = Duration::from_secs(400);
/// # let job = RunningJob { id: 7, stage: "merge", running_for: past, finished_for: Some(past), lost_for: None };
/// # let _monitor = registry.mark(7, Finalizer::new(Some(1), "merge"));
/// match reaper.sweep().judge(&job) {
///     Verdict::Healthy => {}
///     Verdict::Defer(deferral) => println!("left alone: {}", deferral.reason),
///     Verdict::Redrive(claim) => drop(claim), // to be kept while the job is finalized again
///     Verdict::Reap(cause, claim) => drop((cause, claim)), // to be kept until the job store has the end
/// }
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[must_use = "dropping a verdict gives its claim back"]
pub enum Verdict<'r, K: 'static = u64, V = Finalizer, S = DefaultHashBuilder> {
    /// Nothing to do.
    Healthy,
    /// Leave it, for now: a live owner finalizes it, or the reaper is not to act yet.
    Defer(Deferral<V>),
    /// Run the finalization again: it finished, its grace has passed, and it has no live owner. An owner without
    /// progress was displaced.
    ///
    /// By the row that was judged: its owner may have committed and cleared since that row was read. So take the
    /// job over in the job store, by compare-and-set, before anything else; where that fails, drop the claim.
    Redrive(Option<MarkGuard<'r, K, V, S>>),
    /// End the job, by compare-and-set as well, and keep the claim until that has succeeded. For as long as the job
    /// store shows the job running, later sweeps judge it again: the backstop displaces whoever holds the mark, an
    /// earlier claim of the reaper's included; and a finished job whose claim was given back is unowned, so it is
    /// re-driven.
    Reap(Cause, Option<MarkGuard<'r, K, V, S>>),
}

/// Why a job is left alone, and for whom.
///
/// ```
/// # use std::time::Duration;
/// # use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
/// # let registry: Registry = Registry::new();
/// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// # let reaper = Reaper::new(&registry, policy);
/// # let past = Duration::from_secs(400);
/// # let job = RunningJob { id: 7, stage: "merge", running_for: past, finished_for: Some(past), lost_for: None };
/// let _monitor = registry.mark(7, Finalizer::new(Some(42), "merge"));
/// let Verdict::Defer(deferral) = reaper.sweep().judge(&job) else { unreachable!() };
/// assert_eq!(deferral.owner.and_then(|owner| owner.value.run_id), Some(42));
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Deferral<V = Finalizer> {
    /// Why.
    pub reason: DeferReason,
    /// Who owns the job, if the registry was asked and knew one.
    pub owner: Option<Owner<V>>,
}

/// Why a job is left alone.
///
/// ```
/// use livemark::DeferReason;
///
/// assert_eq!(DeferReason::ClaimConflict.to_string(), "claim conflict");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum DeferReason {
    /// A live owner held the mark when the reaper looked.
    Owned,
    /// The reaper has just started, or was away for long: it looks twice before it acts. Owners may have yet to mark.
    BootGrace,
    /// The mode is [`Mode::DeferAll`](super::Mode::DeferAll).
    DeferAll,
    /// Nobody (or nobody with progress) held the mark when the reaper looked, but someone did when it claimed the job a
    /// moment later.
    ClaimConflict,
}

/// Why a job is ended.
///
/// ```
/// use livemark::Cause;
///
/// let state = |cause| match cause {
///     Cause::WorkerLost => "failed",
///     Cause::Backstop => "timed out",
/// };
/// assert_eq!((Cause::Backstop.to_string().as_str(), state(Cause::Backstop)), ("backstop", "timed out"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Cause {
    /// Its worker is gone, it never finished, and it has no live owner. An owner without progress was displaced.
    WorkerLost,
    /// It ran past its hard deadline. An owner, if there was one, is displaced.
    Backstop,
}

impl DeferReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Owned => "owned",
            Self::BootGrace => "boot grace",
            Self::DeferAll => "defer all",
            Self::ClaimConflict => "claim conflict",
        }
    }
}

impl Cause {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::WorkerLost => "worker lost",
            Self::Backstop => "backstop",
        }
    }

    /// As dashboards and settings write it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::WorkerLost => "worker_lost",
            Self::Backstop => "backstop",
        }
    }
}

impl fmt::Display for DeferReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<K: fmt::Debug, V: fmt::Debug, S> fmt::Debug for Verdict<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("Healthy"),
            Self::Defer(deferral) => f.debug_tuple("Defer").field(deferral).finish(),
            Self::Redrive(claim) => f.debug_tuple("Redrive").field(claim).finish(),
            Self::Reap(cause, claim) => f.debug_tuple("Reap").field(cause).field(claim).finish(),
        }
    }
}
