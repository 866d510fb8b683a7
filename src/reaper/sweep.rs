//! One pass over the running jobs: [`Sweep`].

use std::fmt;
use std::hash::{BuildHasher, Hash};

use super::claim::Mark;
use super::explain::Explanation;
use super::job::RunningJob;
use super::judge::{judge, propose, settle};
use super::mode::Mode;
use super::policy::Policy;
use super::reaper::Reaper;
use super::sweep_state::SweepState;
use super::verdict::{Claimed, Intent, Proposal, Verdict};
use crate::context::Finalizer;
use crate::hasher::DefaultHashBuilder;
use crate::reclaim;
use crate::telemetry::{self, Gauges};

/// One pass over the running jobs, under one policy. [`Reaper::sweep`] begins it.
///
/// A sweep pins nothing between two jobs, so whoever acts on its verdicts may take time. The claims in its verdicts
/// outlive it.
///
/// ```
/// # use std::time::Duration;
/// # use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
/// # let registry: Registry = Registry::new();
/// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// # let reaper = Reaper::new(&registry, policy);
/// # let running: Vec<RunningJob> = vec![];
/// let mut sweep = reaper.sweep();
/// let deferred = running.iter().filter(|job| matches!(sweep.judge(job), Verdict::Defer(_))).count();
/// # assert_eq!(deferred, 0);
/// # Ok::<(), livemark::PolicyError>(())
/// ```
pub struct Sweep<'a, 'r, K = u64, V = Finalizer, S = DefaultHashBuilder> {
    reaper: &'a Reaper<'r, K, V, S>,
    state: SweepState<'a>,
}

impl<K, V, S> Sweep<'_, '_, K, V, S> {
    /// Returns the policy that this sweep judges by.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Mode, Policy, Reaper, Registry};
    ///
    /// # let registry: Registry = Registry::new();
    /// let policy = Policy::builder().mode(Mode::DryRun).hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// let sweep = reaper.sweep();
    /// reaper.set_mode(Mode::Honor); // from the next sweep on
    /// assert_eq!(sweep.policy().mode(), Mode::DryRun);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.state.policy
    }
}

impl<'r, K, V, S> Sweep<'_, 'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Decides what to do with one job.
    ///
    /// A job within its limits is healthy. An age is *past* a limit if it is longer. The first of these that holds says
    /// what the reaper proposes:
    ///
    /// | the job is | past its | proposal |
    /// |---|---|---|
    /// | running, finished or lost | `hard_deadline` | `Reap(Backstop)` |
    /// | finished, and was redriven `max_redrives` times | `finalize_grace` | `Reap(RedrivesExhausted)` |
    /// | finished | `finalize_grace` | `Redrive` |
    /// | lost, and not finished | `lost_grace` | `Reap(WorkerLost)` |
    ///
    /// A finished or lost job past its grace *looks dead*. The stage, the mode, the job's owner and the
    /// [`boot_grace`](crate::PolicyBuilder::boot_grace) say what becomes of the proposal. The first row that fits
    /// decides:
    ///
    /// | job | stage | mode | owner | boot grace | verdict | claims |
    /// |---|---|---|---|---|---|---|
    /// | past its deadline since a pause | any | any | any | runs | `Defer(BootGrace)` | no |
    /// | past its deadline | any | `DryRun` | any | any | `DryRun` | no |
    /// | past its deadline | marks | `Honor`, `DeferAll` | any | any | as proposed | yes |
    /// | past its deadline | any | any | any | any | as proposed | no |
    /// | looks dead | any | `DeferAll` | any | any | `Defer(DeferAll)` | no |
    /// | looks dead, held | any | any | any | any | `Defer(Held)` | no |
    /// | looks dead | marks | `Honor`, `DryRun` | live, unbeaten | any | `Defer(Owned)` | no |
    /// | looks dead | any | any | any | runs | `Defer(BootGrace)` | no |
    /// | looks dead, gate shut | any | `Honor`, `DryRun` | any | any | `Defer`, as the gate says | no |
    /// | looks dead | any | `DryRun` | any | any | `DryRun` | no |
    /// | looks dead | marks | `Honor` | any | any | as proposed | yes |
    /// | looks dead | any | any | any | any | as proposed | no |
    ///
    /// - **Since a pause**: the deadline passed while the reaper was away, and the boot grace counts from its return.
    /// - **Held**: the job store says that the job is alive by other means. See [`RunningJob::held`].
    /// - **Gate shut**: the reaper's [gate](Reaper::with_gate), if it has one, says that nobody can know well enough.
    /// - **Marks**: the policy declares that the stage's monitors mark. In other stages nobody asks for an owner.
    /// - **Live**: the owner gives no pulse, or its pulse is not older than `stale_after`. Time in which a pause of the
    ///   process hid the pulse does not count.
    /// - **Unbeaten**: the owner is a reaper's claim, and nobody has beaten the pulse that came with it. Such a pulse
    ///   counts from its first beat on.
    /// - **Claims**: the verdict's [`Claim`](crate::Claim) holds the job's mark, and displaces the owner.
    ///
    /// The claim of a job that looks dead is one step with its check, like [`try_mark`](crate::Registry::try_mark). It
    /// displaces nobody but the stale owner that was seen. If someone has marked the job in between, the verdict is
    /// `Defer(ClaimConflict)`. The claim of a job past its deadline displaces whoever holds the mark.
    ///
    /// A healthy job costs no allocation. A deferred one costs a `Clone` of the owner's context, and an entry in the
    /// sweep's memory. Judging is lock-free, but for a short lock where an owner's pulse is watched. Reapers of one
    /// registry share this lock, and no monitor takes it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// # let seconds = Duration::from_secs;
    /// # let running: Vec<RunningJob> = vec![RunningJob::new(&7, "merge", seconds(400)).finished_for(seconds(310))];
    /// # fn finalize_again(_claim: impl Send) {}
    /// # fn end(_job: u64) {}
    /// std::thread::scope(|scope| {
    ///     let mut sweep = reaper.sweep();
    ///     for job in &running {
    ///         match sweep.judge(job) {
    ///             Verdict::Healthy | Verdict::Defer(_) | Verdict::DryRun(_) => {}
    ///             // The claim moves to the thread that does the work.
    ///             Verdict::Redrive(claim) => drop(scope.spawn(move || finalize_again(claim))),
    ///             // By compare-and-set. The claim is given back after it.
    ///             Verdict::Reap(_cause, _claim) => end(*job.id),
    ///         }
    ///     }
    /// });
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[inline]
    pub fn judge(&mut self, job: &RunningJob<'_, K>) -> Verdict<'r, K, V> {
        judge(self.reaper, &mut self.state, job)
    }

    /// Says what is to be done with one job, and claims nothing. This is [`judge`](Self::judge) up to its claim.
    ///
    /// It is for reapers whose marks are not in this process: those of an engine that several processes share. They
    /// claim what the [`Intent`] says, and then [`settle`](Self::settle) it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Policy, Proposed, Reaper, Registry, RunningJob};
    /// use livemark::{Claimed, OwnedMarkGuard, Proposal, Takes, Verdict};
    ///
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// let past = Duration::from_secs(400);
    /// let job = RunningJob::new(&7, "merge", past).finished_for(past);
    /// let mut sweep = reaper.sweep();
    /// let Proposal::Act(intent) = sweep.propose(&job) else { unreachable!() };
    /// assert_eq!((intent.proposed(), intent.takes()), (Proposed::Redrive, Takes::Unowned));
    /// // Asked elsewhere, and not answered in time.
    /// let claimed: Claimed<_, OwnedMarkGuard> = Claimed::Unavailable;
    /// assert!(matches!(sweep.settle(&job, intent, claimed), Verdict::Defer(_)));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[inline]
    pub fn propose(&mut self, job: &RunningJob<'_, K>) -> Proposal<V> {
        propose(self.reaper, &mut self.state, job)
    }

    /// Makes a verdict of an intent and of what came of its claim. Counts it and reports it.
    ///
    /// A conflict is `Defer(ClaimConflict)`, and a silence `Defer(ClaimUnavailable)`. Neither keeps a job from the
    /// backstop, whose claim then holds no mark: the job store's compare-and-set decides alone.
    ///
    /// [`propose`](Self::propose) has an example.
    pub fn settle<'c, M: Mark>(
        &mut self,
        job: &RunningJob<'_, K>,
        intent: Intent<V>,
        claimed: Claimed<V, M>,
    ) -> Verdict<'c, K, V, M> {
        settle(self.reaper, &mut self.state, job, intent, claimed)
    }

    /// Explains a verdict of this sweep, and says what comes next. Formats nothing and looks nothing up until the
    /// explanation is asked.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Finalizer, Policy, Proposed, Cause, Reaper, Registry, RunningJob};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// let _monitor = registry.mark(7, Finalizer::new(Some(42), "merge"));
    /// let job = RunningJob::new(&7, "merge", Duration::from_secs(400)).finished_for(Duration::from_secs(310));
    /// let mut sweep = reaper.sweep();
    /// let verdict = sweep.judge(&job);
    /// let why = sweep.explain(&job, &verdict);
    /// assert!(why.to_string().starts_with("job 7: finished: defer, owned by run 42 at `merge`, generation "));
    /// assert_eq!(why.upcoming(), Some((Proposed::Reap(Cause::Backstop), Duration::from_secs(3200))));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn explain<'e, M: Mark>(
        &'e self,
        job: &'e RunningJob<'_, K>,
        verdict: &'e Verdict<'_, K, V, M>,
    ) -> Explanation<'e> {
        Explanation::new(self.reaper, &self.state, job, verdict)
    }
}

impl<'r, K, V, S> Reaper<'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Begins a pass over the running jobs, under the policy of this moment.
    ///
    /// Beginning a sweep frees retired memory, which runs destructors. With the feature `metrics` it also walks through
    /// the registry for the gauges.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Policy, Reaper, Registry, RunningJob};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// # let running: Vec<RunningJob> = vec![];
    /// let mut sweep = reaper.sweep();
    /// for job in &running {
    ///     let verdict = sweep.judge(job);
    ///     println!("{}", sweep.explain(job, &verdict));
    /// }
    /// assert_eq!(reaper.stats().sweeps, 1);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use = "a sweep does nothing until it judges"]
    pub fn sweep(&self) -> Sweep<'_, 'r, K, V, S> {
        Sweep { reaper: self, state: self.begin() }
    }

    /// Begins a sweep, without the types.
    pub(super) fn begin(&self) -> SweepState<'_> {
        // Writers free what they clear, but perhaps nobody writes any more.
        reclaim::collect();
        let control = &*self.control;
        control.register_at_sweep();
        control.counts.sweeps.increment();
        telemetry::sweep_begun(control.name);
        let policy = control.policy.load_full();
        let asks = policy.mode() != Mode::Ignore;
        telemetry::gauges(control.name, || {
            // Nobody asks the registry in `Mode::Ignore`.
            let (owned, oldest) = if asks { self.registry.census() } else { (0, None) };
            Gauges { owned, oldest, unreclaimed: reclaim::reclaim_stats().unreclaimed() }
        });
        SweepState::new(control, policy)
    }
}

impl<K, V, S> fmt::Debug for Sweep<'_, '_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweep")
            .field("reaper", &self.reaper)
            .field("policy", &self.state.policy)
            .finish_non_exhaustive()
    }
}
