//! One pass over the running jobs: [`Sweep`], and the three tiers of its judgement.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use super::policy::Limits;
use super::{Cause, DeferReason, Deferral, Mode, Policy, Reaper, RunningJob, Verdict};
use crate::finalizer::Finalizer;
use crate::hasher::DefaultHashBuilder;
use crate::registry::{MarkGuard, Reader};
use crate::trace;

/// One pass over the running jobs, begun by [`Reaper::sweep`]: one policy and one pinned reader for all of it.
///
/// Not `Send`. The guards in its verdicts are, and outlive it.
pub struct Sweep<'a, 'r, K = u64, V = Finalizer, S = DefaultHashBuilder> {
    reaper: &'a Reaper<'r, K, V, S>,
    policy: Arc<Policy>,
    /// None where the registry is not to be touched.
    reader: Option<Reader<'r, K, V, S>>,
}

impl<'a, 'r, K, V, S> Sweep<'a, 'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    pub(super) fn new(reaper: &'a Reaper<'r, K, V, S>, policy: Arc<Policy>) -> Self {
        let session = match policy.mode() {
            Mode::Honor => Some(reaper.registry.reader()),
            Mode::Ignore => None,
        };
        Self { reaper, policy, reader: session }
    }

    /// Says what to do with one job. "Past" a limit means longer than it.
    ///
    /// 1. Its worker is lost, past `lost_grace`, and it is not finished: [`Verdict::Reap`] as [`Cause::WorkerLost`],
    ///    unless a live owner holds its mark.
    /// 2. It finished, past `finalize_grace`: [`Verdict::Redrive`], unless a live owner holds its mark.
    /// 3. It runs, past `hard_deadline`: [`Verdict::Reap`] as [`Cause::Backstop`], whoever holds its mark.
    ///
    /// A deferral of tier 1 or 2 is returned only if the job is not past tier 3. Owners are asked for in
    /// [`Mode::Honor`] and in stages that are declared as marking. The claim of tiers 1 and 2 is one step with its check
    /// ([`try_mark`](crate::Registry::try_mark)); that of tier 3 displaces the owner.
    ///
    /// Healthy jobs, and those deferred to an owner that was found at once, cost no allocation (but for the `Clone` of its
    /// context). Lock-free.
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
    pub fn judge(&mut self, job: &RunningJob<'_, K>) -> Verdict<'r, K, V, S> {
        let limits = *self.policy.limits(job.stage);
        let mut deferral = None;
        if let Some(due) = Due::of(job, &limits) {
            match self.claim_unless_owned(job, &limits) {
                Ok(claim) => return self.act(due, job, claim),
                Err(deferred) => deferral = Some(deferred),
            }
        }
        if limits.hard_deadline.is_some_and(|deadline| job.running_for > deadline) {
            let claim = self.reader_for(&limits).is_some().then(|| {
                let registry = self.reaper.registry;
                registry.mark(job.id.clone(), (self.reaper.claim)(job))
            });
            return self.act(Due::Reap(Cause::Backstop), job, claim);
        }
        match deferral {
            Some(deferral) => self.defer(job, deferral),
            None => Verdict::Healthy,
        }
    }

    /// The reader, where this stage's marks count.
    fn reader_for(&mut self, limits: &Limits) -> Option<&mut Reader<'r, K, V, S>> {
        self.reader.as_mut().filter(|_| limits.marks)
    }

    /// The claim of a job that no live owner holds; none where the registry is not to be touched.
    fn claim_unless_owned(
        &mut self,
        job: &RunningJob<'_, K>,
        limits: &Limits,
    ) -> Result<Option<MarkGuard<'r, K, V, S>>, Deferral<V>> {
        let Some(reader) = self.reader_for(limits) else { return Ok(None) };
        // What is due is rare, and was perhaps long in coming: the caller acts on verdicts between two jobs.
        reader.repin();
        if let Some(owner) = reader.owner(&job.id) {
            return Err(Deferral { reason: DeferReason::Owned, owner: Some(owner.clone()) });
        }
        match self.reaper.registry.try_mark(job.id.clone(), (self.reaper.claim)(job)) {
            Ok(claim) => Ok(Some(claim)),
            Err(occupied) => {
                self.reaper.counts.claim_conflicts.increment();
                Err(Deferral { reason: DeferReason::ClaimConflict, owner: Some(occupied.owner) })
            }
        }
    }

    fn act(&self, due: Due, job: &RunningJob<'_, K>, claim: Option<MarkGuard<'r, K, V, S>>) -> Verdict<'r, K, V, S> {
        let counts = &self.reaper.counts;
        let generation = claim.as_ref().map(MarkGuard::generation);
        match due {
            Due::Redrive => {
                counts.redrives.increment();
                trace::redriven(&job.id, job.stage, generation);
                Verdict::Redrive(claim)
            }
            Due::Reap(cause) => {
                let count = match cause {
                    Cause::WorkerLost => &counts.reaps_worker_lost,
                    Cause::Backstop => &counts.reaps_backstop,
                };
                count.increment();
                trace::reaped(&job.id, job.stage, cause, generation);
                Verdict::Reap(cause, claim)
            }
        }
    }

    fn defer(&self, job: &RunningJob<'_, K>, deferral: Deferral<V>) -> Verdict<'r, K, V, S> {
        self.reaper.counts.defers.increment();
        trace::deferred(&job.id, &deferral);
        Verdict::Defer(deferral)
    }
}

/// What a job's ages call for, if its mark does not forbid it.
#[derive(Clone, Copy)]
enum Due {
    Redrive,
    Reap(Cause),
}

impl Due {
    /// Tiers 1 and 2. They exclude each other: a lost job is one that is not finished.
    fn of<K>(job: &RunningJob<'_, K>, limits: &Limits) -> Option<Self> {
        match (job.finished_for, job.lost_for) {
            (Some(finished_for), _) => (finished_for > limits.finalize_grace).then_some(Self::Redrive),
            (None, Some(lost_for)) => (lost_for > limits.lost_grace).then_some(Self::Reap(Cause::WorkerLost)),
            (None, None) => None,
        }
    }
}

impl<K, V, S> fmt::Debug for Sweep<'_, '_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweep").field("reaper", &self.reaper).field("policy", &self.policy).finish_non_exhaustive()
    }
}
