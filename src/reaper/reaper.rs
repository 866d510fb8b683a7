//! The reaper itself: [`Reaper`], its registry, its policy, and what it is told about contexts.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use super::control::Control;
use super::handle::{ReaperHandle, control_methods};
use super::job::RunningJob;
use super::mode::Mode;
use super::policy::Policy;
use super::stats::ReaperStats;
use super::verdict::DeferReason;
use crate::context::{Finalizer, Pulse};
use crate::hasher::DefaultHashBuilder;
use crate::registry::RegistryHandle;

/// A reaper decides what becomes of running jobs, by a [`Policy`] and a [`Registry`](crate::Registry).
///
/// [`run`](Self::run) is the loop, over a [`JobStore`](super::JobStore). [`run_once`](Self::run_once) and
/// [`run_once_async`](Self::run_once_async) are one turn of it, for a scheduler that has a loop. A scheduler whose turns
/// are its own begins a [`sweep`](Self::sweep), has each running job judged, and acts on the verdicts. A reaper is
/// `Sync`: several threads may sweep with it, and claims decide between them.
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
/// // Past the grace: the job looks dead.
/// let job = RunningJob::new(&7, "merge", Duration::from_secs(400)).finished_for(Duration::from_secs(310));
/// let monitor = registry.mark(7, Finalizer::new(Some(1), "merge")); // but its monitor is alive
/// assert!(matches!(reaper.sweep().judge(&job), Verdict::Defer(_)));
///
/// drop(monitor); // dies
/// assert!(matches!(reaper.sweep().judge(&job), Verdict::Redrive(_)));
/// # Ok::<(), livemark::PolicyError>(())
/// ```
///
/// A reaper over an `Arc` is `'static`, and so are its claims. It moves into a task, or lives in an application's state.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use livemark::{Policy, Reaper, Registry};
/// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// let registry: Arc<Registry> = Arc::default();
/// let reaper: Reaper<'static> = Reaper::new(&registry, policy);
/// std::thread::spawn(move || drop(reaper.sweep())).join().expect("the thread ends well");
/// # Ok::<(), livemark::PolicyError>(())
/// ```
pub struct Reaper<'r, K = u64, V = Finalizer, S = DefaultHashBuilder> {
    pub(super) registry: RegistryHandle<'r, K, V, S>,
    pub(super) claim: Box<MakeClaim<'r, K, V>>,
    pub(super) pulse: Box<PulseOf<'r, V>>,
    pub(super) summary: Option<Box<Summarize<'r, V>>>,
    pub(super) gate: Option<Box<Gate<'r, K>>>,
    pub(super) control: Arc<Control>,
}

/// Returns the context of the reaper's own claim of a job.
pub(super) type MakeClaim<'r, K, V> = dyn Fn(&RunningJob<'_, K>) -> V + Send + Sync + 'r;

/// Returns the pulse in a context, if it has one.
pub(super) type PulseOf<'r, V> = dyn for<'v> Fn(&'v V) -> Option<&'v Pulse> + Send + Sync + 'r;

/// Returns why a job that looks dead is left alone, if it is to be.
pub(super) type Gate<'r, K> = dyn Fn(&K) -> Option<DeferReason> + Send + Sync + 'r;

/// Writes a context in an explanation.
pub(super) type Summarize<'r, V> = dyn Fn(&V, &mut fmt::Formatter<'_>) -> fmt::Result + Send + Sync + 'r;

impl<'r, K, S> Reaper<'r, K, Finalizer, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Creates a reaper over `registry`. Its own claims have a [`Finalizer`] with no run and the job's stage.
    ///
    /// The registry is a reference, an `Arc`, or a [`RegistryHandle`]. A `LazyLock` is dereferenced first:
    /// `&*REGISTRY`.
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
    pub fn new(registry: impl Into<RegistryHandle<'r, K, Finalizer, S>>, policy: Policy) -> Self {
        Self::with_claim(registry, policy, |job| Finalizer::new(None, job.stage))
    }
}

impl<'r, K, V, S> Reaper<'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Creates a reaper over `registry`. Its own claims have the context that `claim` returns for the job.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, Reaper, Registry};
    ///
    /// let registry: Registry<String, &str> = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// let reaper = Reaper::with_claim(&registry, policy, |_job| "reaper");
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn with_claim(
        registry: impl Into<RegistryHandle<'r, K, V, S>>,
        policy: Policy,
        claim: impl Fn(&RunningJob<'_, K>) -> V + Send + Sync + 'r,
    ) -> Self {
        Self {
            registry: registry.into(),
            claim: Box::new(claim),
            // Where contexts are finalizers, `stale_after` works without `with_pulse`.
            pulse: Box::new(|context| Finalizer::downcast(context)?.pulse.as_ref()),
            summary: None,
            gate: None,
            control: Arc::new(Control::new(policy)),
        }
    }

    /// Sets where the pulse is in a context that is not a [`Finalizer`]. The policy's `stale_after` goes by it.
    ///
    /// The reaper's own claim needs no pulse. A pulse in it does not count before its first beat, since nobody may know
    /// it. Whoever works under the claim first puts in a context with a pulse of its own, by
    /// [`Claim::replace`](super::Claim::replace).
    ///
    /// Write the closure in place. A closure that is bound to a variable is not general enough for rustc.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, Pulse, Reaper, Registry};
    ///
    /// #[derive(Clone)]
    /// struct Deployment {
    ///     progress: Option<Pulse>,
    /// }
    ///
    /// let registry: Registry<u64, Deployment> = Registry::new();
    /// let policy = Policy::builder()
    ///     .hard_deadline(Duration::from_secs(3600))
    ///     .stale_after(Duration::from_secs(600))
    ///     .marking_stage("deploy")
    ///     .build()?;
    /// let reaper = Reaper::with_claim(&registry, policy, |_job| Deployment { progress: None })
    ///     .with_pulse(|deployment| deployment.progress.as_ref());
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn with_pulse(self, pulse: impl for<'v> Fn(&'v V) -> Option<&'v Pulse> + Send + Sync + 'r) -> Self {
        Self { pulse: Box::new(pulse), ..self }
    }

    /// Sets how a context looks in an [`Explanation`](super::Explanation). Without it, finalizers are shown by run and
    /// stage, numbers and text as such, and other contexts not at all.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, Reaper, Registry, RunningJob};
    ///
    /// #[derive(Clone)]
    /// struct Deployment {
    ///     host: &'static str,
    /// }
    ///
    /// let registry: Registry<u64, Deployment> = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("deploy").build()?;
    /// let reaper = Reaper::with_claim(&registry, policy, |_job| Deployment { host: "reaper" })
    ///     .with_summary(|deployment, f| write!(f, "host {}", deployment.host));
    ///
    /// let _monitor = registry.mark(7, Deployment { host: "a1" });
    /// let job = RunningJob::new(&7, "deploy", Duration::from_secs(400)).finished_for(Duration::from_secs(310));
    /// let mut sweep = reaper.sweep();
    /// let verdict = sweep.judge(&job);
    /// assert!(sweep.explain(&job, &verdict).to_string().contains("owned by host a1, generation"));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn with_summary(self, summary: impl Fn(&V, &mut fmt::Formatter<'_>) -> fmt::Result + Send + Sync + 'r) -> Self {
        Self { summary: Some(Box::new(summary)), ..self }
    }

    /// Sets a gate, which can leave alone a job that looks dead and that no live owner protects.
    ///
    /// It is asked before the job's mark is claimed, with the job's id, in [`Mode::Honor`] and [`Mode::DryRun`].
    /// [`Explanation::upcoming`](crate::Explanation::upcoming) asks it as well. A reaper whose registry mirrors the marks
    /// of other processes defers by it while it cannot see them well ([`DeferReason::ViewStale`],
    /// [`DeferReason::Settling`]). Another reason is counted and told as if it held. The backstop does not ask the gate:
    /// one that stays shut costs no deadline.
    ///
    /// ```
    /// # use std::sync::atomic::{AtomicBool, Ordering};
    /// # use std::time::Duration;
    /// # use livemark::{Policy, Reaper, Registry, RunningJob, Verdict};
    /// use livemark::DeferReason;
    ///
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// static FRESH: AtomicBool = AtomicBool::new(false);
    ///
    /// let reaper = Reaper::new(&registry, policy)
    ///     .with_gate(|_job| (!FRESH.load(Ordering::Relaxed)).then_some(DeferReason::ViewStale));
    /// let past = Duration::from_secs(400);
    /// let job = RunningJob::new(&7, "merge", past).finished_for(past);
    /// assert!(matches!(reaper.sweep().judge(&job), Verdict::Defer(_)));
    /// let overdue = RunningJob::new(&7, "merge", Duration::from_secs(3601));
    /// assert!(matches!(reaper.sweep().judge(&overdue), Verdict::Reap(..)));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn with_gate(self, gate: impl Fn(&K) -> Option<DeferReason> + Send + Sync + 'r) -> Self {
        Self { gate: Some(Box::new(gate)), ..self }
    }

    /// Names the reaper. Its metrics carry the name as the label `reaper`, which is `default` without one. Two reapers of
    /// one process need two names.
    ///
    /// Name a reaper before its first sweep and its first [`handle`](Self::handle). Later names change nothing.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Policy, Reaper, Registry};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// let reaper = Reaper::new(&registry, policy).named("deploys");
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        if let Some(control) = Arc::get_mut(&mut self.control).filter(|control| control.is_new()) {
            control.name = name;
        }
        self
    }

    /// Returns a handle for whoever switches the reaper and watches it.
    ///
    /// The first handle and the first sweep register the reaper's metrics, described and at zero. Install the recorder of
    /// `metrics` before the first sweep.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Mode, Policy, Reaper, Registry};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// let handle = reaper.handle();
    /// std::thread::spawn(move || handle.set_mode(Mode::DeferAll)).join().expect("the thread ends well");
    /// assert_eq!(reaper.policy().mode(), Mode::DeferAll);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> ReaperHandle {
        self.control.register();
        ReaperHandle(Arc::clone(&self.control))
    }
}

impl<K, V, S> Reaper<'_, K, V, S> {
    /// Begins the boot grace anew for jobs that look dead. Call it between two sweeps.
    ///
    /// This is for a reaper that could not see who owns its jobs, and can again. Deadlines are not held back by it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// let policy = Policy::builder()
    ///     .hard_deadline(Duration::from_secs(3600))
    ///     .boot_grace(Duration::from_millis(200))
    ///     .marking_stage("merge")
    ///     .build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// let past = Duration::from_secs(400);
    /// let job = RunningJob::new(&7, "merge", past).finished_for(past);
    /// let acts = || matches!(reaper.sweep().judge(&job), Verdict::Redrive(_));
    /// while !acts() {
    ///     std::thread::yield_now(); // at first it only looks
    /// }
    /// reaper.restart_boot_grace();
    /// assert!(!acts());
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn restart_boot_grace(&self) {
        self.control.history.restart();
    }

    fn control(&self) -> &Control {
        &self.control
    }

    control_methods! {}
}

impl<K, V, S> fmt::Debug for Reaper<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reaper")
            .field("name", &self.control.name)
            .field("registry", &*self.registry)
            .field("policy", &self.policy())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
