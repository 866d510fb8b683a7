//! One pass over the running jobs: [`Sweep`], and the three tiers of its judgement.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use super::attendance::Looks;
use super::policy::Limits;
use super::tiers::{Due, past_deadline};
use super::{Cause, DeferReason, Deferral, Mode, Policy, Reaper, RunningJob, Verdict};
use crate::finalizer::Finalizer;
use crate::hasher::DefaultHashBuilder;
use crate::owner::Owner;
use crate::registry::{MarkGuard, Reader};
use crate::trace;

/// One pass over the running jobs, begun by [`Reaper::sweep`]: one policy and one pinned reader for all of it.
///
/// Not `Send`. The guards in its verdicts are, and outlive it.
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
    policy: Arc<Policy>,
    /// Of all stages: most jobs are within these, and their stages need not be looked up.
    soonest: Limits,
    /// Made when the first job asks for an owner.
    reader: Option<Reader<'r, K, V, S>>,
    /// Since when the reaper looks regularly.
    looks: Arc<Looks>,
}

impl<K, V, S> Sweep<'_, '_, K, V, S> {
    /// The policy that this sweep judges by.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Mode, Policy, Reaper, Registry};
    ///
    /// # let registry: Registry = Registry::new();
    /// let policy = Policy::builder().mode(Mode::DryRun).hard_deadline(Duration::from_secs(3600)).build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// let sweep = reaper.sweep();
    /// reaper.set_policy(reaper.policy().with_mode(Mode::Honor)); // from the next sweep on
    /// assert_eq!(sweep.policy().mode(), Mode::DryRun);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Lets go of the pin until another job asks for an owner.
    pub(super) fn unpin(&mut self) {
        self.reader = None;
    }
}

impl<'a, 'r, K, V, S> Sweep<'a, 'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    pub(super) fn new(reaper: &'a Reaper<'r, K, V, S>, policy: Arc<Policy>) -> Self {
        // Writers free what they clear, but it may be that nobody writes any more.
        crate::reclaim::collect();
        // Noted without a boot grace as well: one that is put in force later need not begin anew.
        let looks = reaper.attendance.look(&policy.boot_graces());
        let soonest = policy.soonest();
        Self { reaper, policy, soonest, reader: None, looks }
    }

    /// Says what to do with one job. "Past" a limit means longer than it.
    ///
    /// 1. Its worker is lost, past `lost_grace`, and it is not finished: [`Verdict::Reap`] as [`Cause::WorkerLost`],
    ///    unless it is deferred.
    /// 2. It finished, past `finalize_grace`: [`Verdict::Redrive`], unless it is deferred.
    /// 3. It runs, past `hard_deadline`: [`Verdict::Reap`] as [`Cause::Backstop`], whoever holds its mark.
    ///
    /// Tiers 1 and 2 are deferred in [`Mode::DeferAll`]; else to a live owner (one whose pulse, if it has one, is not
    /// older than `stale_after`), in stages that are declared as marking and not in [`Mode::Ignore`]; else for the
    /// `boot_grace`. A deferral is returned only if the job is not past tier 3.
    ///
    /// The claim of tiers 1 and 2 is one step with its check ([`try_mark`](crate::Registry::try_mark), or the same for
    /// an owner without progress: whoever has marked the job meanwhile keeps it); that of tier 3 displaces whoever
    /// holds it. Claims are made in `Honor`, by the backstop in `DeferAll` too, and only in stages that mark.
    ///
    /// Healthy jobs, and those deferred to an owner that was found at once, cost no allocation (but for the `Clone` of
    /// its context). Lock-free.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// # let seconds = Duration::from_secs;
    /// # let running: Vec<RunningJob> =
    /// #     vec![RunningJob { id: 7, stage: "merge", running_for: seconds(400), finished_for: Some(seconds(310)), lost_for: None }];
    /// # fn finalize_again(_claim: impl Send) {}
    /// # fn end(_job: u64) {}
    /// std::thread::scope(|scope| {
    ///     let mut sweep = reaper.sweep();
    ///     for job in &running {
    ///         match sweep.judge(job) {
    ///             Verdict::Healthy | Verdict::Defer(_) => {}
    ///             // The claim moves to the thread that does the work.
    ///             Verdict::Redrive(claim) => drop(scope.spawn(move || finalize_again(claim))),
    ///             // By compare-and-set; the claim is given back after it.
    ///             Verdict::Reap(_cause, _claim) => end(job.id),
    ///         }
    ///     }
    /// });
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[inline]
    pub fn judge(&mut self, job: &RunningJob<'_, K>) -> Verdict<'r, K, V, S> {
        let within = Due::of(job, &self.soonest).is_none() && !past_deadline(job, &self.soonest);
        if within { Verdict::Healthy } else { self.judge_by_stage(job) }
    }

    /// For jobs that are past the limits of some stage: few.
    #[cold]
    fn judge_by_stage(&mut self, job: &RunningJob<'_, K>) -> Verdict<'r, K, V, S> {
        let limits = *self.policy.limits(job.stage);
        let mut deferral = None;
        if let Some(due) = Due::of(job, &limits) {
            match self.claim_unless_deferred(job, &limits) {
                Ok(claim) => return self.act(due, job, claim),
                Err(deferred) => deferral = Some(deferred),
            }
        }
        if past_deadline(job, &limits) {
            let claims = limits.marks && matches!(self.policy.mode(), Mode::Honor | Mode::DeferAll);
            let claim = claims.then(|| self.reaper.registry.mark(job.id.clone(), (self.reaper.claim)(job)));
            return self.act(Due::Reap(Cause::Backstop), job, claim);
        }
        match deferral {
            Some(deferral) => self.defer(job, deferral),
            None => Verdict::Healthy,
        }
    }

    /// The owner to be deferred to or displaced, where marks count.
    fn owner(&mut self, job: &K, limits: &Limits) -> Option<&Owner<V>> {
        if !limits.marks || self.policy.mode() == Mode::Ignore {
            return None;
        }
        let registry = self.reaper.registry;
        let reader = self.reader.get_or_insert_with(|| registry.reader());
        // What is due is rare, and was perhaps long in coming: the caller acts on verdicts between two jobs.
        reader.repin();
        reader.owner(job)
    }

    /// The claim of a job that nothing protects; none where the registry is not to be written.
    fn claim_unless_deferred(
        &mut self,
        job: &RunningJob<'_, K>,
        limits: &Limits,
    ) -> Result<Option<MarkGuard<'r, K, V, S>>, Deferral<V>> {
        let mode = self.policy.mode();
        let booting = limits.boot_grace.is_some_and(|grace| self.looks.is_within(grace));
        let reaper = self.reaper;
        let owner = self.owner(&job.id, limits);
        let stale = owner.is_some_and(|owner| reaper.is_stale(owner, limits));

        let reason = match owner {
            _ if mode == Mode::DeferAll => Some(DeferReason::DeferAll),
            Some(_) if !stale => Some(DeferReason::Owned),
            _ => booting.then_some(DeferReason::BootGrace),
        };
        if let Some(reason) = reason {
            return Err(Deferral { reason, owner: owner.cloned() });
        }
        // Where another has taken over since from an owner without progress, the mark is not ours to take.
        let displaceable = owner.map(|owner| owner.generation);
        let tell_displaced = || {
            if let Some(generation) = displaceable {
                trace::stale_owner(&job.id, generation);
            }
        };
        if mode != Mode::Honor || !limits.marks {
            tell_displaced();
            return Ok(None);
        }
        match reaper.registry.try_take_over(job.id.clone(), (reaper.claim)(job), displaceable) {
            Ok(claim) => {
                tell_displaced();
                Ok(Some(claim))
            }
            Err(occupied) => {
                reaper.counts.claim_conflicts.increment();
                trace::claim_conflict();
                Err(Deferral { reason: DeferReason::ClaimConflict, owner: Some(occupied.owner) })
            }
        }
    }

    fn act(&self, due: Due, job: &RunningJob<'_, K>, claim: Option<MarkGuard<'r, K, V, S>>) -> Verdict<'r, K, V, S> {
        let generation = claim.as_ref().map(MarkGuard::generation);
        // A reaper with a registry of its own finds every job unowned. Said once: the next claim is not the only mark.
        if claim.is_some() && self.reaper.registry.marks() == 1 {
            trace::only_mark(&job.id, job.stage);
        }
        let counts = (self.policy.mode() != Mode::DryRun).then_some(&self.reaper.counts);
        match due {
            Due::Redrive => {
                if let Some(counts) = counts {
                    counts.redrives.increment();
                    trace::redriven(&job.id, job.stage, generation);
                }
                self.told(job, Verdict::Redrive(claim))
            }
            Due::Reap(cause) => {
                if let Some(counts) = counts {
                    match cause {
                        Cause::WorkerLost => &counts.reaps_worker_lost,
                        Cause::Backstop => &counts.reaps_backstop,
                    }
                    .increment();
                    trace::reaped(&job.id, job.stage, cause.as_str(), cause.label(), generation);
                }
                self.told(job, Verdict::Reap(cause, claim))
            }
        }
    }

    fn defer(&self, job: &RunningJob<'_, K>, deferral: Deferral<V>) -> Verdict<'r, K, V, S> {
        if self.policy.mode() != Mode::DryRun {
            let counts = &self.reaper.counts;
            let (count, to_owner) = match deferral.reason {
                DeferReason::Owned | DeferReason::ClaimConflict => (&counts.finalizer_defers, true),
                DeferReason::BootGrace => (&counts.defers_boot_grace, false),
                DeferReason::DeferAll => (&counts.defers_defer_all, false),
            };
            count.increment();
            trace::deferred(&job.id, deferral.reason.as_str(), to_owner, deferral.owner.as_ref());
        }
        self.told(job, Verdict::Defer(deferral))
    }

    /// A dry run's verdicts are reported as such.
    fn told(&self, job: &RunningJob<'_, K>, verdict: Verdict<'r, K, V, S>) -> Verdict<'r, K, V, S> {
        if self.policy.mode() == Mode::DryRun {
            trace::dry_run(&job.id, &verdict.explain(job, &self.policy));
        }
        verdict
    }
}

impl<K, V, S> fmt::Debug for Sweep<'_, '_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweep").field("reaper", &self.reaper).field("policy", &self.policy).finish_non_exhaustive()
    }
}
