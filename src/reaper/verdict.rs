//! What comes out of [`Sweep::judge`](super::Sweep::judge): [`Verdict`], and its reasons. Plain data, but for the claim
//! in a verdict that acts.

use std::fmt;

use super::claim::Claim;
use crate::context::Finalizer;
use crate::owner::{Generation, Owner};

/// What to do with a job: the answer of [`Sweep::judge`](super::Sweep::judge).
///
/// A redrive or a reap carries the [`Claim`] of the job. Whoever acts on it owns the job, and moves the claim to the
/// thread or task that does the work. A dry run's verdict carries nothing that could be acted on.
///
/// Its `Display` says what was decided, and [`Sweep::explain`](super::Sweep::explain) says why. The enum is exhaustive:
/// a loop that acts on verdicts has to say what it does with each.
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
/// # let job = RunningJob::new(&7, "merge", past).finished_for(past);
/// # let _monitor = registry.mark(7, Finalizer::new(Some(1), "merge"));
/// match reaper.sweep().judge(&job) {
///     Verdict::Healthy => {}
///     Verdict::Defer(deferral) => println!("left alone: {}", deferral.reason),
///     Verdict::Redrive(claim) => drop(claim), // to be kept while the job is finalized again
///     Verdict::Reap(cause, claim) => drop((cause, claim)), // to be kept until the job store has the end
///     Verdict::DryRun(proposed) => println!("would {proposed}"),
/// }
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[must_use = "dropping a verdict gives its claim back"]
pub enum Verdict<'r, K: 'static = u64, V = Finalizer> {
    /// Nothing is to be done.
    Healthy,
    /// The job is left alone for now: it is alive, or the reaper is not to act yet.
    Defer(Deferral<V>),
    /// The finalization is to be run again: the job finished, its grace has passed, and nobody alive holds it.
    ///
    /// The verdict is about the row that was judged. The owner may have committed since the row was read, so take the
    /// job over by compare-and-set first, restart its stamp in the same statement, and drop the claim if that fails.
    Redrive(Claim<'r, K, V>),
    /// The job is to be ended, by compare-and-set as well. Keep the claim until that has succeeded.
    ///
    /// For as long as the job store shows the job running, later sweeps judge it again.
    Reap(Cause, Claim<'r, K, V>),
    /// What [`Mode::Honor`](super::Mode::Honor) would have done. Nothing is claimed, and there is nothing to act on.
    DryRun(Proposed),
}

/// What a reaper would do with a job: a verdict without a claim.
///
/// ```
/// use livemark::{Cause, Proposed};
///
/// assert_eq!(Proposed::Reap(Cause::Backstop).to_string(), "reap, backstop");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Proposed {
    /// Run the finalization again.
    Redrive,
    /// End the job.
    Reap(Cause),
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
/// # let job = RunningJob::new(&7, "merge", past).finished_for(past);
/// let _monitor = registry.mark(7, Finalizer::new(Some(42), "merge"));
/// let Verdict::Defer(deferral) = reaper.sweep().judge(&job) else { unreachable!() };
/// assert_eq!(deferral.owner.and_then(|owner| owner.value.run_id), Some(42));
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Deferral<V = Finalizer> {
    /// The first reason that holds.
    pub reason: DeferReason,
    /// Who owns the job, if the registry was asked and knew one.
    pub owner: Option<Owner<V>>,
}

impl<V> Deferral<V> {
    pub(super) fn new(reason: DeferReason, owner: Option<Owner<V>>) -> Self {
        Self { reason, owner }
    }
}

/// Why a job is left alone. Of several reasons the first one in this order is told.
///
/// ```
/// use livemark::DeferReason;
///
/// assert_eq!(DeferReason::ClaimConflict.to_string(), "claim conflict");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum DeferReason {
    /// The mode is [`Mode::DeferAll`](super::Mode::DeferAll).
    DeferAll,
    /// The job store says that the job is alive by other means: see [`RunningJob::held`](super::RunningJob::held).
    Held,
    /// A live owner held the mark when the reaper looked.
    Owned,
    /// The reaper has just started, or was away for long: it looks twice before it acts.
    BootGrace,
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
///     Cause::WorkerLost | Cause::RedrivesExhausted => "failed",
///     Cause::Backstop => "timed out",
/// };
/// assert_eq!((Cause::Backstop.to_string().as_str(), state(Cause::Backstop)), ("backstop", "timed out"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Cause {
    /// Its worker is gone, it never finished, and nobody alive holds it. An owner without progress was displaced.
    WorkerLost,
    /// It ran past its hard deadline. An owner, if there was one, is displaced.
    Backstop,
    /// It finished, nobody alive holds it, and it was redriven as often as the policy allows.
    RedrivesExhausted,
}

impl DeferReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::DeferAll => "defer all",
            Self::Held => "held",
            Self::Owned => "owned",
            Self::BootGrace => "boot grace",
            Self::ClaimConflict => "claim conflict",
        }
    }

    /// Returns `true` if the job is left to the owner of its mark.
    pub(super) fn is_for_the_owner(self) -> bool {
        matches!(self, Self::Owned | Self::ClaimConflict)
    }
}

impl Cause {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::WorkerLost => "worker lost",
            Self::Backstop => "backstop",
            Self::RedrivesExhausted => "redrives exhausted",
        }
    }

    /// Returns the name in a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::WorkerLost => "worker_lost",
            Self::Backstop => "backstop",
            Self::RedrivesExhausted => "redrives_exhausted",
        }
    }
}

impl fmt::Display for DeferReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Proposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redrive => f.pad("redrive"),
            Self::Reap(cause) => write!(f, "reap, {cause}"),
        }
    }
}

/// What was decided, without ages and limits: for those see [`Sweep::explain`](super::Sweep::explain).
impl<K: 'static, V> fmt::Display for Verdict<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("healthy"),
            Self::Defer(deferral) => {
                write!(f, "defer, {}", deferral.reason)?;
                match &deferral.owner {
                    Some(owner) => write!(f, ", owned by generation {}", owner.generation),
                    None => Ok(()),
                }
            }
            Self::Redrive(claim) => write_claimed(f, Proposed::Redrive, claim.generation()),
            Self::Reap(cause, claim) => write_claimed(f, Proposed::Reap(*cause), claim.generation()),
            Self::DryRun(proposed) => write!(f, "dry run: {proposed}"),
        }
    }
}

fn write_claimed(f: &mut fmt::Formatter<'_>, proposed: Proposed, claim: Option<Generation>) -> fmt::Result {
    match claim {
        Some(generation) => write!(f, "{proposed}, claimed as generation {generation}"),
        None => write!(f, "{proposed}"),
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Verdict<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("Healthy"),
            Self::Defer(deferral) => f.debug_tuple("Defer").field(deferral).finish(),
            Self::Redrive(claim) => f.debug_tuple("Redrive").field(claim).finish(),
            Self::Reap(cause, claim) => f.debug_tuple("Reap").field(cause).field(claim).finish(),
            Self::DryRun(proposed) => f.debug_tuple("DryRun").field(proposed).finish(),
        }
    }
}
