//! One pass over the running jobs: [`Sweep`], and how it decides.
//!
//! An owner is looked up under a pin of its own and copied: nothing of the user's runs under it but `Eq` and `Clone`.

use std::fmt;
use std::hash::{BuildHasher, Hash};

use super::explain::{Ask, Explanation};
use super::handle::Control;
use super::memory::Left;
use super::pass::{Liveness, Pass};
use super::policy::StageLimits;
use super::trigger::Trigger;
use super::{Cause, Claim, DeferReason, Deferral, Mode, Policy, Proposed, Reaper, RunningJob, Verdict};
use crate::context::Finalizer;
use crate::hasher::DefaultHashBuilder;
use crate::owner::Owner;
use crate::registry::Displaces;
use crate::telemetry;
use crate::unwind;

/// One pass over the running jobs, begun by [`Reaper::sweep`]: one policy for all of it.
///
/// A sweep pins nothing between two jobs, so that whoever acts on its verdicts may take time. The claims in its
/// verdicts outlive it.
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
    pass: Pass<'a>,
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
        &self.pass.policy
    }
}

impl<'a, 'r, K, V, S> Sweep<'a, 'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    pub(super) fn new(reaper: &'a Reaper<'r, K, V, S>, pass: Pass<'a>) -> Self {
        Self { reaper, pass }
    }

    /// Says what to do with one job. "Past" a limit means longer than it.
    ///
    /// First comes the deadline. A job that runs past its `hard_deadline` is a [`Verdict::Reap`] as
    /// [`Cause::Backstop`], whatever its mark, its stamp or the mode, and is never redriven. Only the boot grace holds
    /// it back, where the deadline passed while the reaper was away.
    ///
    /// 1. Its worker is lost, past `lost_grace`, and it is not finished: `Reap` as [`Cause::WorkerLost`].
    /// 2. It finished, past `finalize_grace`: [`Verdict::Redrive`], or `Reap` as [`Cause::RedrivesExhausted`] if it was
    ///    redriven `max_redrives` times already.
    ///
    /// Tiers 1 and 2 are deferred, by the first of these that holds: in [`Mode::DeferAll`]; for a job that is
    /// [`held`](RunningJob::held); to a live owner, in stages that mark, in `Honor` and `DryRun`; for the `boot_grace`.
    /// An owner is live unless its pulse is older than `stale_after`. The pulse in a reaper's own claim counts from its
    /// first beat on, and what a pause of the process hid from pulses does not count.
    ///
    /// | | deadline | tier 1 or 2, owned | tier 1 or 2, free | claim |
    /// |---|---|---|---|---|
    /// | `Honor` | reap | defer | redrive or reap | yes |
    /// | `Honor`, a stage that does not mark | reap | redrive or reap | redrive or reap | none |
    /// | `Ignore` | reap | redrive or reap | redrive or reap | none |
    /// | `DeferAll` | reap | defer | defer | of the deadline |
    /// | `DryRun` | `DryRun` | defer | `DryRun` | none |
    ///
    /// The claim of tiers 1 and 2 is one step with its check: [`try_mark`](crate::Registry::try_mark), or the same for
    /// exactly the owner that made no progress. Whoever has marked the job meanwhile keeps it. The claim of the
    /// deadline displaces whoever holds the mark.
    ///
    /// Healthy jobs cost no allocation. Deferred ones cost the `Clone` of the owner's context and the sweep's memory of
    /// them. Lock-free, but for a short lock where an owner's pulse is watched: reapers of one registry share it, and no
    /// monitor takes it.
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
        judge(self.reaper, &mut self.pass, job)
    }

    /// Says why a verdict of this sweep is what it is, and what comes next. Nothing is formatted or looked up until the
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
    /// assert!(why.to_string().starts_with("job 7: tier 2: defer, owned by run 42 at `merge`, generation "));
    /// assert_eq!(why.upcoming(), Some((Proposed::Reap(Cause::Backstop), Duration::from_secs(3200))));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn explain<'e>(&'e self, job: &'e RunningJob<'_, K>, verdict: &'e Verdict<'_, K, V>) -> Explanation<'e> {
        explain(self.reaper, &self.pass, job, verdict)
    }
}

/// Judges as [`Sweep::judge`] does, for a pass.
#[inline]
pub(super) fn judge<'r, K, V, S>(
    reaper: &Reaper<'r, K, V, S>,
    pass: &mut Pass<'_>,
    job: &RunningJob<'_, K>,
) -> Verdict<'r, K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    if pass.is_within_all_limits(job) { Verdict::Healthy } else { Judge { reaper, pass }.judge(job) }
}

/// How one job is judged that is past the limits of some stage.
struct Judge<'s, 'p, 'r, K, V, S> {
    reaper: &'s Reaper<'r, K, V, S>,
    pass: &'s mut Pass<'p>,
}

impl<'r, K, V, S> Judge<'_, '_, 'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Judges a job that is past the limits of some stage: few are.
    #[cold]
    fn judge(&mut self, job: &RunningJob<'_, K>) -> Verdict<'r, K, V> {
        // A pause since the last look is noticed before anything is decided.
        self.pass.look();
        let limits = *self.pass.policy.stage(job.stage);
        match Trigger::of(job, &limits) {
            None => Verdict::Healthy,
            Some(Trigger::Deadline) => self.judge_overdue(job, &limits),
            Some(Trigger::Tier(proposed)) => match self.claim_unless_deferred(job, &limits) {
                Ok(claim) => self.decide(job, &limits, proposed, claim),
                Err(deferral) => self.defer(job, deferral),
            },
        }
    }

    /// Ends a job that is past its deadline, whoever holds it.
    fn judge_overdue(&mut self, job: &RunningJob<'_, K>, limits: &StageLimits) -> Verdict<'r, K, V> {
        // A machine that slept past the deadlines of all its jobs ends nobody on waking.
        if self.pass.deadline_held_back(job, limits).is_some() {
            let owner = self.owner(job.id, limits);
            return self.defer(job, Deferral::new(DeferReason::BootGrace, owner));
        }
        let claims = limits.marking && matches!(self.pass.policy.mode(), Mode::Honor | Mode::DeferAll);
        let claim = if claims {
            // Nobody keeps a job from a claim that displaces anyone.
            self.claim(job, Displaces::Anyone).unwrap_or_else(|_| Claim::without_a_mark())
        } else {
            Claim::without_a_mark()
        };
        self.decide(job, limits, Proposed::Reap(Cause::Backstop), claim)
    }

    /// Claims a job. A pulse in the claim is nobody's yet.
    fn claim(&self, job: &RunningJob<'_, K>, displaces: Displaces) -> Result<Claim<'r, K, V>, Owner<V>> {
        let context = (self.reaper.claim)(job);
        let pulse = (self.reaper.pulse)(&context).map(|pulse| (pulse.clone(), pulse.stamp()));
        let (guard, earlier) = self.reaper.registry.claim(job.id, context, displaces)?;
        if let Some((pulse, stamp)) = pulse {
            self.reaper.registry.record_claim_pulse(&guard, pulse, stamp);
        }
        Ok(Claim::new(guard, earlier))
    }

    /// The owner to be deferred to or displaced, where marks count.
    fn owner(&self, job: &K, limits: &StageLimits) -> Option<Owner<V>> {
        let asks = limits.marking && self.pass.policy.mode() != Mode::Ignore;
        asks.then(|| self.reaper.registry.owner(job)).flatten()
    }

    /// Claims a job that nothing protects. Claims nothing where the registry is not to be written.
    fn claim_unless_deferred(
        &mut self,
        job: &RunningJob<'_, K>,
        limits: &StageLimits,
    ) -> Result<Claim<'r, K, V>, Deferral<V>> {
        let mode = self.pass.policy.mode();
        let reaper = self.reaper;
        let owner = self.owner(job.id, limits);
        if let Some(reason) = self.reason_to_defer(job, limits, owner.as_ref()) {
            return Err(Deferral::new(reason, owner));
        }

        // Where another has taken over since from an owner without progress, the mark is not the reaper's to take.
        let displaceable = owner.map(|owner| owner.generation);
        if mode != Mode::Honor || !limits.marking {
            return Ok(Claim::without_a_mark());
        }
        // Check and claim are one step.
        match self.claim(job, Displaces::Only(displaceable)) {
            Ok(claim) => {
                if let Some(generation) = displaceable {
                    telemetry::stale_owner(reaper.registry.shown(job.id), generation);
                }
                Ok(claim)
            }
            Err(owner) => {
                self.pass.control.counts.claim_conflicts.increment();
                telemetry::claim_conflict(self.pass.control.name);
                Err(Deferral::new(DeferReason::ClaimConflict, Some(owner)))
            }
        }
    }

    /// Returns the first reason that holds, if any does.
    fn reason_to_defer(
        &self,
        job: &RunningJob<'_, K>,
        limits: &StageLimits,
        owner: Option<&Owner<V>>,
    ) -> Option<DeferReason> {
        if self.pass.policy.mode() == Mode::DeferAll {
            return Some(DeferReason::DeferAll);
        }
        if job.held {
            return Some(DeferReason::Held);
        }
        let is_live = |owner| self.pass.liveness(self.reaper, owner, limits) != Liveness::Stale;
        if owner.is_some_and(is_live) {
            return Some(DeferReason::Owned);
        }
        self.pass.boot_grace_left(limits).map(|_| DeferReason::BootGrace)
    }

    /// Turns a proposal into the verdict of this mode, and counts and tells it.
    fn decide(
        &mut self,
        job: &RunningJob<'_, K>,
        limits: &StageLimits,
        proposed: Proposed,
        claim: Claim<'r, K, V>,
    ) -> Verdict<'r, K, V> {
        let registry = &self.reaper.registry;
        let shown = registry.shown(job.id);
        let mode = self.pass.policy.mode();
        if mode == Mode::DryRun {
            let verdict = Verdict::DryRun(proposed);
            if self.tell_dry_run(job, Left::Proposed(proposed), &verdict) {
                self.warn(job, limits, proposed);
                if limits.marking && registry.marks() == 0 {
                    self.pass.control.no_mark.get_or_init(|| telemetry::only_mark(shown, job.stage));
                }
            }
            return verdict;
        }
        if mode == Mode::Honor {
            self.warn(job, limits, proposed);
        }
        // A reaper with a registry of its own finds every job unowned. Said once: the next claim is not the only mark.
        if claim.guard().is_some() && registry.marks() == 1 {
            telemetry::only_mark(shown, job.stage);
        }
        let told = telemetry::Acted {
            reaper: self.pass.control.name,
            stage: job.stage,
            claim: claim.generation(),
            displaced: claim.displaced().map(|owner| owner.generation),
        };
        match proposed {
            Proposed::Redrive => {
                self.pass.control.counts.redrives.increment();
                telemetry::redriven(shown, &told);
                // So soon again: what was begun then is either still going on, or was never begun.
                // An id whose `Hash` panics must not undo the claim.
                if unwind::caught(|| self.pass.note(job.id, Left::Redriven)).is_ok_and(|is_news| !is_news) {
                    telemetry::redriven_again(shown);
                }
                Verdict::Redrive(claim)
            }
            Proposed::Reap(cause) => {
                let counts = &self.pass.control.counts;
                match cause {
                    Cause::WorkerLost => &counts.reaps_worker_lost,
                    Cause::Backstop => &counts.reaps_backstop,
                    Cause::RedrivesExhausted => &counts.reaps_redrives_exhausted,
                }
                .increment();
                telemetry::reaped(shown, cause.as_str(), cause.label(), &told);
                Verdict::Reap(cause, claim)
            }
        }
    }

    /// Warns of a job that is marked, and acted on all the same since its stage is not declared as marking: a stage
    /// that is misspelt would bring the incident back in silence. Looked up for this only, and only where something is
    /// done.
    fn warn(&self, job: &RunningJob<'_, K>, limits: &StageLimits, proposed: Proposed) {
        if limits.marking || proposed == Proposed::Reap(Cause::Backstop) {
            return;
        }
        if let Some(owner) = self.reaper.registry.owner(job.id) {
            telemetry::unprotected(self.reaper.registry.shown(job.id), job.stage, owner.generation);
        }
    }

    fn defer(&mut self, job: &RunningJob<'_, K>, deferral: Deferral<V>) -> Verdict<'r, K, V> {
        let reason = deferral.reason;
        let left = Left::Deferred(reason);
        if self.pass.policy.mode() == Mode::DryRun {
            let verdict = Verdict::Defer(deferral);
            self.tell_dry_run(job, left, &verdict);
            return verdict;
        }
        let is_news = self.pass.note(job.id, left);
        let Control { counts, name, .. } = self.pass.control;
        match reason {
            DeferReason::Owned | DeferReason::ClaimConflict => &counts.finalizer_defers_total,
            DeferReason::Held => &counts.defers_held,
            DeferReason::BootGrace => &counts.defers_boot_grace,
            DeferReason::DeferAll => &counts.defers_defer_all,
        }
        .increment();
        let told = telemetry::Deferred {
            reaper: name,
            reason: reason.as_str(),
            to_owner: reason.is_for_the_owner(),
            owner: deferral.owner.as_ref(),
            is_news,
        };
        telemetry::deferred(self.reaper.registry.shown(job.id), &told);
        Verdict::Defer(deferral)
    }

    /// Tells what a dry run found. Counts nothing. Returns whether it is news.
    fn tell_dry_run(&mut self, job: &RunningJob<'_, K>, left: Left, verdict: &Verdict<'r, K, V>) -> bool {
        let is_news = self.pass.note(job.id, left);
        let explanation = explain(self.reaper, self.pass, job, verdict);
        telemetry::dry_run(self.reaper.registry.shown(job.id), &explanation, is_news);
        is_news
    }
}

/// Explains as [`Sweep::explain`] does, for a pass.
pub(super) fn explain<'e, K, V, S>(
    reaper: &'e Reaper<'_, K, V, S>,
    pass: &'e Pass<'_>,
    job: &'e RunningJob<'_, K>,
    verdict: &'e Verdict<'_, K, V>,
) -> Explanation<'e>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    let ask: &'e dyn Ask = reaper;
    Explanation::new(ask, pass, job, verdict)
}

impl<K, V, S> fmt::Debug for Sweep<'_, '_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweep").field("reaper", &self.reaper).field("policy", &self.pass.policy).finish_non_exhaustive()
    }
}
