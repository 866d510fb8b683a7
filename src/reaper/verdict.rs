//! What comes out of [`Sweep::judge`](super::Sweep::judge): [`Verdict`], and its reasons.

use std::fmt;

use super::claim::{Claim, Mark};
use crate::context::Finalizer;
use crate::owner::Owner;
use crate::registry::MarkGuard;

/// The decision about one job. [`Sweep::judge`](super::Sweep::judge) returns it.
///
/// A redrive or a reap carries the [`Claim`] of the job. Whoever acts on the verdict owns the job, and moves the claim to
/// the thread or task that does the work. A dry run's verdict carries nothing that could be acted on.
///
/// Its `Display` says what was decided, and [`Sweep::explain`](super::Sweep::explain) says why. The enum is exhaustive,
/// so that a loop that acts on verdicts says what it does with each.
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
pub enum Verdict<'r, K: 'static = u64, V = Finalizer, M = MarkGuard<'r, K, V>> {
    /// The job is within its limits.
    Healthy,
    /// The job is left alone for now. It is alive, or the reaper is not to act yet.
    Defer(Deferral<V>),
    /// The job is to be finalized again. It finished, its grace has passed, and nobody alive holds it.
    ///
    /// The verdict is about the row that was judged, and the owner may have committed since that row was read. So take
    /// the job over by compare-and-set first, and restart its stamp in the same statement. Drop the claim if that fails.
    Redrive(Claim<'r, K, V, M>),
    /// The job is to be ended, by compare-and-set as well. Keep the claim until that has succeeded.
    ///
    /// Later sweeps judge the job again as long as the job store shows it running.
    Reap(Cause, Claim<'r, K, V, M>),
    /// [`Mode::Honor`](super::Mode::Honor) would have done this. Nothing is claimed, and there is nothing to act on.
    DryRun(Proposed),
}

/// An act that a reaper would do: a verdict without a claim.
///
/// ```
/// use livemark::{Cause, Proposed};
///
/// assert_eq!(Proposed::Reap(Cause::Backstop).to_string(), "reap, backstop");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Proposed {
    /// Finalize the job again.
    Redrive,
    /// End the job.
    Reap(Cause),
}

/// The reason why a job is left alone, and its owner.
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
    /// The owner of the job, if the registry was asked and knew one.
    pub owner: Option<Owner<V>>,
}

impl<V> Deferral<V> {
    pub(super) fn new(reason: DeferReason, owner: Option<Owner<V>>) -> Self {
        Self { reason, owner }
    }
}

/// The reason why a job is left alone. If several hold, the first in this order is given.
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
    /// The reaper has just started, or was away for long. It looks twice before it acts.
    BootGrace,
    /// Nobody, or nobody with progress, held the mark when the reaper looked. When the reaper claimed the job a moment
    /// later, someone did.
    ClaimConflict,
    /// What the reaper knows of the marks of other processes is too old. A [gate](super::Reaper::with_gate) says so.
    ViewStale,
    /// The job's mark went with its owner's process a moment ago, and the process may be alive. A
    /// [gate](super::Reaper::with_gate) says so.
    Settling,
    /// Nobody could be asked for the mark, or nobody answered in time: see [`Claimer`](super::Claimer).
    ClaimUnavailable,
}

/// What a reaper would do with a job, before anything is claimed. [`Sweep::propose`](super::Sweep::propose) returns it.
///
/// The enum is exhaustive, as [`Verdict`] is.
///
/// ```
/// # use std::time::Duration;
/// # use livemark::{Finalizer, Policy, Pulse, Reaper, Registry, RunningJob};
/// use livemark::Proposal;
///
/// # let registry: Registry = Registry::new();
/// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// # let reaper = Reaper::new(&registry, policy);
/// # let past = Duration::from_secs(400);
/// let job = RunningJob::new(&7, "merge", past).finished_for(past);
/// let mark = registry.mark(7, Finalizer::new(Some(42), "merge"));
/// assert!(matches!(reaper.sweep().propose(&job), Proposal::Defer(_)));
/// drop(mark);
/// assert!(matches!(reaper.sweep().propose(&job), Proposal::Act(_)));
/// assert!(!registry.is_active(&7), "nothing is claimed");
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an intent does nothing until it is settled"]
pub enum Proposal<V = Finalizer> {
    /// The job is within its limits.
    Healthy,
    /// The job is left alone for now.
    Defer(Deferral<V>),
    /// The job is to be redriven or reaped, once its mark is claimed where it must be.
    Act(Intent<V>),
    /// [`Mode::Honor`](super::Mode::Honor) would have done this.
    DryRun(Proposed),
}

/// An act that is due, and what must be claimed first. [`Sweep::settle`](super::Sweep::settle) takes it back with what
/// came of the claim.
///
/// ```
/// # use std::time::Duration;
/// # use livemark::{Policy, Proposal, Reaper, Registry, RunningJob};
/// use livemark::{Cause, Proposed};
///
/// # let registry: Registry = Registry::new();
/// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// # let reaper = Reaper::new(&registry, policy);
/// let lost = RunningJob::new(&7, "merge", Duration::from_secs(400)).lost_for(Duration::from_secs(310));
/// let Proposal::Act(intent) = reaper.sweep().propose(&lost) else { unreachable!() };
/// assert_eq!(intent.proposed(), Proposed::Reap(Cause::WorkerLost));
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an intent does nothing until it is settled"]
pub struct Intent<V = Finalizer> {
    pub(super) proposed: Proposed,
    pub(super) takes: Takes,
    pub(super) stale: Option<Owner<V>>,
}

/// Whom a reaper's claim may take a job from.
///
/// The enum is exhaustive: whoever claims for a reaper must know each case.
///
/// ```
/// # use std::time::Duration;
/// # use livemark::{Finalizer, Policy, Pulse, Reaper, Registry, RunningJob};
/// use livemark::{Proposal, Takes};
///
/// # let registry: Registry = Registry::new();
/// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// # let reaper = Reaper::new(&registry, policy);
/// # let past = Duration::from_secs(400);
/// let overdue = RunningJob::new(&7, "merge", Duration::from_secs(3601));
/// let Proposal::Act(intent) = reaper.sweep().propose(&overdue) else { unreachable!() };
/// assert_eq!(intent.takes(), Takes::Anyone);
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Takes {
    /// From nobody: no mark is in play, and the job store alone decides.
    Nothing,
    /// From nobody, or from exactly the stale owner that was seen. The check and the claim must be one step.
    Unowned,
    /// From whoever holds it: the job is past its deadline.
    Anyone,
}

impl<V> Intent<V> {
    /// Returns what is to be done.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Cause, Policy, Proposal, Proposed, Reaper, Registry, RunningJob};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// let overdue = RunningJob::new(&7, "merge", Duration::from_secs(3601));
    /// let Proposal::Act(intent) = reaper.sweep().propose(&overdue) else { unreachable!() };
    /// assert_eq!(intent.proposed(), Proposed::Reap(Cause::Backstop));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn proposed(&self) -> Proposed {
        self.proposed
    }

    /// Returns from whom the job's mark may be taken.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Finalizer, Policy, Pulse, Reaper, Registry, RunningJob};
    /// use livemark::{Proposal, Takes};
    ///
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// # let past = Duration::from_secs(400);
    /// let overdue = RunningJob::new(&7, "merge", Duration::from_secs(3601));
    /// let Proposal::Act(intent) = reaper.sweep().propose(&overdue) else { unreachable!() };
    /// assert_eq!(intent.takes(), Takes::Anyone);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn takes(&self) -> Takes {
        self.takes
    }

    /// Returns the owner without progress from which an [unowned](Takes::Unowned) job may be taken, if it has one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Finalizer, Policy, Proposal, Pulse, Reaper, Registry, RunningJob};
    /// # let registry: Registry = Registry::new();
    /// let policy = Policy::builder()
    ///     .hard_deadline(Duration::from_secs(3600))
    ///     .stale_after(Duration::from_secs(600))
    ///     .marking_stage("merge")
    ///     .build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// let _stuck = registry.mark(7, Finalizer::new(Some(42), "merge").with_pulse(Pulse::aged(Duration::from_secs(601))));
    /// let job = RunningJob::new(&7, "merge", Duration::from_secs(900)).finished_for(Duration::from_secs(800));
    /// let Proposal::Act(intent) = reaper.sweep().propose(&job) else { unreachable!() };
    /// assert_eq!(intent.stale_owner().and_then(|owner| owner.value.run_id), Some(42));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn stale_owner(&self) -> Option<&Owner<V>> {
        self.stale.as_ref()
    }
}

/// What came of a claim. [`Sweep::settle`](super::Sweep::settle) makes a verdict of it.
///
/// ```
/// use livemark::{Claimed, OwnedMarkGuard, Registry, RegistryHandle};
///
/// /// As the reaper does it in its own process.
/// fn claim(registry: &RegistryHandle<'static, u64, &'static str>) -> Claimed<&'static str, OwnedMarkGuard<u64, &'static str>> {
///     match registry.try_mark(7, "reaper") {
///         Ok(mark) => Claimed::Won { mark, displaced: None },
///         Err(occupied) => Claimed::Conflict(occupied.owner),
///     }
/// }
///
/// static MARKS: Registry<u64, &str> = Registry::new();
/// let _monitor = MARKS.mark(7, "run 1");
/// assert!(matches!(claim(&(&MARKS).into()), Claimed::Conflict(_)));
/// ```
#[derive(Debug)]
#[must_use = "a mark that was won is cleared when it is dropped"]
pub enum Claimed<V, M> {
    /// Nothing was to be claimed. Where something was, this counts as [`Unavailable`](Self::Unavailable).
    NotAsked,
    /// The mark is the reaper's.
    Won {
        /// The mark.
        mark: M,
        /// The owner that it displaced, if that is known.
        displaced: Option<Owner<V>>,
    },
    /// Somebody else has the mark.
    Conflict(Owner<V>),
    /// Nobody could be asked, or nobody answered in time.
    Unavailable,
}

/// The reason why a job is ended.
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
    /// The job's worker is gone, the job never finished, and nobody alive holds it. An owner without progress is
    /// displaced.
    WorkerLost,
    /// The job ran past its hard deadline. An owner, if there is one, is displaced.
    Backstop,
    /// The job finished, nobody alive holds it, and it was redriven as often as the policy allows.
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
            Self::ViewStale => "view stale",
            Self::Settling => "settling",
            Self::ClaimUnavailable => "claim unavailable",
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

    /// Returns the cause as a metric's label has it.
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

/// Shows what was decided. Ages and limits are in [`Sweep::explain`](super::Sweep::explain).
impl<K: 'static, V, M: Mark> fmt::Display for Verdict<'_, K, V, M> {
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
            Self::Redrive(claim) => write_claimed(f, Proposed::Redrive, claim.guard()),
            Self::Reap(cause, claim) => write_claimed(f, Proposed::Reap(*cause), claim.guard()),
            Self::DryRun(proposed) => write!(f, "dry run: {proposed}"),
        }
    }
}

fn write_claimed<M: Mark>(f: &mut fmt::Formatter<'_>, proposed: Proposed, mark: Option<&M>) -> fmt::Result {
    match mark {
        Some(mark) => write!(f, "{proposed}, claimed as {} {}", M::NUMBER, mark.number()),
        None => write!(f, "{proposed}"),
    }
}

impl<K: fmt::Debug, V: fmt::Debug, M: fmt::Debug> fmt::Debug for Verdict<'_, K, V, M> {
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
