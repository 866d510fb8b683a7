//! The reaper: decides what becomes of running jobs. Policy, verdicts, sweeps and counts; no I/O, no `unsafe`.

mod attendance;
mod explain;
mod mode;
mod policy;
mod run;
mod sweep;
mod tiers;
mod verdict;

use std::any::Any;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use arc_swap::ArcSwap;

pub use self::explain::Explanation;
pub use self::mode::{Mode, ParseModeError};
pub use self::policy::{Policy, PolicyBuilder, PolicyError, StageLimits, StageRules};
pub use self::run::{Failure, Scheduler};
pub use self::sweep::Sweep;
pub use self::verdict::{Cause, DeferReason, Deferral, RunningJob, Verdict};

use self::attendance::Attendance;
use crate::finalizer::{Finalizer, Pulse};
use crate::hasher::DefaultHashBuilder;
use crate::owner::Owner;
use crate::registry::Registry;
use crate::sync::Counter;
use crate::trace;

/// Decides what becomes of running jobs, by a [`Policy`] and a [`Registry`].
///
/// A scheduler's own loop opens a [`sweep`](Self::sweep), has each running job judged, and acts on the verdicts; or
/// [`run`](Self::run) is that loop. `Sync`: several threads may sweep with one reaper, and claims decide between them.
///
/// ```
/// use std::time::Duration;
/// use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
///
/// let registry: Registry = Registry::new();
/// let policy = Policy::builder()
///     .finalize_grace(Duration::from_secs(300))
///     .hard_deadline(Duration::from_secs(3600))
///     .marking_stage("merge")
///     .build()?;
/// let reaper = Reaper::new(&registry, policy);
///
/// let job = RunningJob {
///     id: 7,
///     stage: "merge",
///     running_for: Duration::from_secs(400),
///     finished_for: Some(Duration::from_secs(310)), // looks dead
///     lost_for: None,
/// };
/// let monitor = registry.mark(7, Finalizer::new(Some(1), "merge")); // but is alive
/// assert!(matches!(reaper.sweep().judge(&job), Verdict::Defer(_)));
///
/// drop(monitor); // dies
/// assert!(matches!(reaper.sweep().judge(&job), Verdict::Redrive(Some(_))));
/// # Ok::<(), livemark::PolicyError>(())
/// ```
pub struct Reaper<'r, K = u64, V = Finalizer, S = DefaultHashBuilder> {
    registry: &'r Registry<K, V, S>,
    policy: ArcSwap<Policy>,
    claim: Box<Claim<'r, K, V>>,
    pulse: Box<PulseOf<'r, V>>,
    attendance: Attendance,
    counts: Counts,
}

/// Gives the context value for the reaper's own claims.
type Claim<'r, K, V> = dyn Fn(&RunningJob<'_, K>) -> V + Send + Sync + 'r;

/// Gives the pulse in a context value, if it has one.
type PulseOf<'r, V> = dyn for<'v> Fn(&'v V) -> Option<&'v Pulse> + Send + Sync + 'r;

/// What a reaper has counted since it was made. Healthy jobs are not counted, nor is anything in [`Mode::DryRun`] but
/// what [`Reaper::run`] could not do.
///
/// Each number is exact, but they are read one after the other.
///
/// ```
/// # use std::time::Duration;
/// # use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
/// # let registry: Registry = Registry::new();
/// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// # let reaper = Reaper::new(&registry, policy);
/// let stats = reaper.stats();
/// if stats.redrives > 0 && stats.finalizer_defers_total == 0 {
///     eprintln!("redrives and never a deferral: is this the registry that the monitors mark in?");
/// }
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ReaperStats {
    /// Sweeps begun.
    pub sweeps: u64,
    /// Jobs left to a live owner, once per sweep that did.
    pub finalizer_defers_total: u64,
    /// Jobs left alone because the reaper had just started or been away, once per sweep that did.
    pub defers_boot_grace: u64,
    /// Jobs left alone in [`Mode::DeferAll`], once per sweep that did.
    pub defers_defer_all: u64,
    /// Jobs to be finalized again.
    pub redrives: u64,
    /// Jobs ended because their worker was lost.
    pub reaps_worker_lost: u64,
    /// Jobs ended because they ran past their hard deadline.
    pub reaps_backstop: u64,
    /// Claims that came second to another's mark.
    pub claim_conflicts: u64,
    /// Times that [`Reaper::run`] could not list the running jobs.
    pub failed_listings: u64,
    /// Rows that it could not read.
    pub bad_rows: u64,
    /// Verdicts that it could not carry out.
    pub failed_actions: u64,
    /// Panics that it caught.
    pub panics: u64,
}

#[derive(Default)]
struct Counts {
    sweeps: Counter,
    finalizer_defers: Counter,
    defers_boot_grace: Counter,
    defers_defer_all: Counter,
    redrives: Counter,
    reaps_worker_lost: Counter,
    reaps_backstop: Counter,
    claim_conflicts: Counter,
    failed_listings: Counter,
    bad_rows: Counter,
    failed_actions: Counter,
    panics: Counter,
}

impl<'r, K, S> Reaper<'r, K, Finalizer, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    S: BuildHasher,
{
    /// A reaper over `registry`, whose own claims are marked with no run and the job's stage.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, Reaper, Registry};
    ///
    /// static FINALIZING: Registry = Registry::new(); // the one that the monitors mark in
    ///
    /// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// let reaper = Reaper::new(&FINALIZING, policy);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn new(registry: &'r Registry<K, Finalizer, S>, policy: Policy) -> Self {
        Self::with_claim(registry, policy, |job| Finalizer::new(None, job.stage))
    }
}

impl<'r, K, V, S> Reaper<'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    /// A reaper over `registry`, whose own claims are marked with what `claim` gives for the job.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, Reaper, Registry};
    ///
    /// let registry: Registry<String, &str> = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).build()?;
    /// let reaper = Reaper::with_claim(&registry, policy, |_job| "reaper");
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn with_claim(
        registry: &'r Registry<K, V, S>,
        policy: Policy,
        claim: impl Fn(&RunningJob<'_, K>) -> V + Send + Sync + 'r,
    ) -> Self {
        Self {
            registry,
            policy: ArcSwap::from_pointee(policy),
            claim: Box::new(claim),
            // Where the contexts are finalizers, `stale_after` means something without more ado.
            pulse: Box::new(|value| (value as &dyn Any).downcast_ref::<Finalizer>()?.pulse.as_ref()),
            attendance: Attendance::new(),
            counts: Counts::default(),
        }
    }

    /// Says where the pulse is in a context that is not a [`Finalizer`]: what `stale_after` goes by.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, Pulse, Reaper, Registry};
    ///
    /// #[derive(Clone)]
    /// struct Deployment {
    ///     progress: Pulse,
    /// }
    ///
    /// let registry: Registry<u64, Deployment> = Registry::new();
    /// let policy = Policy::builder()
    ///     .hard_deadline(Duration::from_secs(3600))
    ///     .stale_after(Duration::from_secs(600))
    ///     .marking_stage("deploy")
    ///     .build()?;
    /// let reaper = Reaper::with_claim(&registry, policy, |_job| Deployment { progress: Pulse::new() })
    ///     .with_pulse(|deployment| Some(&deployment.progress));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn with_pulse(self, pulse: impl for<'v> Fn(&'v V) -> Option<&'v Pulse> + Send + Sync + 'r) -> Self {
        Self { pulse: Box::new(pulse), ..self }
    }

    /// Begins a pass over the running jobs, under the policy of this moment.
    ///
    /// Drop it when the pass is done: from the first job on that is due, it is pinned as a [`Reader`](crate::Reader)
    /// is.
    ///
    /// To begin one frees some of what was cleared, with its destructors, and with the feature `metrics` walks through
    /// the registry, for the gauges.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// # let running: Vec<RunningJob> = vec![];
    /// let mut sweep = reaper.sweep();
    /// for job in &running {
    ///     let verdict = sweep.judge(job);
    ///     println!("job {}: {verdict}", job.id);
    /// }
    /// drop(sweep); // before the thread sleeps until the next one
    /// assert_eq!(reaper.stats().sweeps, 1);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn sweep(&self) -> Sweep<'_, 'r, K, V, S> {
        let policy = self.policy.load_full();
        if policy.mode() != Mode::DryRun {
            self.counts.sweeps.increment();
            trace::sweep_begun();
        }
        if policy.mode() != Mode::Ignore {
            trace::owners(|| self.registry.census());
        }
        Sweep::new(self, policy)
    }
}

impl<K, V, S> Reaper<'_, K, V, S> {
    /// Whether an owner gives a pulse, and made no progress for too long.
    fn is_stale(&self, owner: &Owner<V>, limits: &StageLimits) -> bool {
        let Some(stale_after) = limits.stale_after else { return false };
        (self.pulse)(&owner.value).is_some_and(|pulse| pulse.age() > stale_after)
    }

    /// The policy in force.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy.clone());
    /// assert_eq!(*reaper.policy(), policy);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Puts another policy in force, from the next sweep on; sweeps under way keep theirs. Lock-free.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Mode, Policy, Reaper, Registry};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// reaper.set_policy(reaper.policy().with_mode(Mode::Ignore)); // the kill switch
    /// assert_eq!(reaper.policy().mode(), Mode::Ignore);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// What the reaper has counted so far.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// # let past = Duration::from_secs(400);
    /// # let job = RunningJob { id: 7, stage: "merge", running_for: past, finished_for: Some(past), lost_for: None };
    /// let _monitor = registry.mark(7, Finalizer::new(Some(1), "merge"));
    /// assert!(matches!(reaper.sweep().judge(&job), Verdict::Defer(_)));
    /// let stats = reaper.stats();
    /// assert_eq!((stats.sweeps, stats.finalizer_defers_total, stats.redrives), (1, 1, 0));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> ReaperStats {
        let counts = &self.counts;
        ReaperStats {
            sweeps: counts.sweeps.get(),
            finalizer_defers_total: counts.finalizer_defers.get(),
            defers_boot_grace: counts.defers_boot_grace.get(),
            defers_defer_all: counts.defers_defer_all.get(),
            redrives: counts.redrives.get(),
            reaps_worker_lost: counts.reaps_worker_lost.get(),
            reaps_backstop: counts.reaps_backstop.get(),
            claim_conflicts: counts.claim_conflicts.get(),
            failed_listings: counts.failed_listings.get(),
            bad_rows: counts.bad_rows.get(),
            failed_actions: counts.failed_actions.get(),
            panics: counts.panics.get(),
        }
    }
}

impl<K, V, S> fmt::Debug for Reaper<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reaper")
            .field("registry", &self.registry)
            .field("policy", &self.policy())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
