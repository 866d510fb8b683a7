//! Verdicts in words, and what comes next: [`Explanation`].

use std::any::Any;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

use super::claim::Claim;
use super::job::RunningJob;
use super::liveness::{Liveness, pulse_that_counts};
use super::mode::Mode;
use super::policy::StageLimits;
use super::reaper::{Reaper, Summarize};
use super::sweep_state::SweepState;
use super::trigger::{Trigger, past, proposal_if_finished};
use super::verdict::{Cause, DeferReason, Proposed, Verdict};
use crate::context::{Finalizer, Pulse};
use crate::owner::{Generation, Owner};
use crate::show::{Escaped, write_plain};

/// Why a verdict is what it is, and what comes next: made by [`Sweep::explain`](super::Sweep::explain).
///
/// Its `Display` is one line that begins with the job: tier, owner, each age beside its limit, and what the reaper does
/// next. It is for logs and people, not to be parsed. Text of the user's is escaped. Nothing is formatted or looked up
/// until the explanation is asked.
///
/// ```
/// # use std::time::Duration;
/// # use livemark::{Policy, Reaper, Registry, RunningJob};
/// # let registry: Registry = Registry::new();
/// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// # let reaper = Reaper::new(&registry, policy);
/// let job = RunningJob::new(&7, "build", Duration::from_secs(4000));
/// let mut sweep = reaper.sweep();
/// let verdict = sweep.judge(&job);
/// assert_eq!(
///     sweep.explain(&job, &verdict).to_string(),
///     "job 7: deadline: reap, backstop, without a claim in a stage that does not mark; running for 4000s, past hard_deadline of 3600s",
/// );
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Explanation<'a> {
    reaper: &'a dyn ErasedReaper,
    state: &'a SweepState<'a>,
    id: Erased<'a>,
    /// The job's stage and ages, without its id.
    job: RunningJob<'a, ()>,
    decision: Decision<'a>,
}

/// A job id or an owner, without its type.
type Erased<'a> = &'a (dyn Any + Send + Sync);

/// A verdict, without its types.
#[derive(Clone, Copy)]
enum Decision<'a> {
    Healthy,
    Defer(DeferReason, Option<Holder<'a>>),
    Act(Proposed, Option<Generation>, Option<Holder<'a>>),
    DryRun(Proposed),
}

/// Who holds a job.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    generation: Generation,
    marked_at: Instant,
    owner: Erased<'a>,
}

/// What an explanation asks the reaper, which knows the types. Each method is called with what it was made for.
pub(super) trait ErasedReaper: Send + Sync {
    fn write_job(&self, id: Erased<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    /// Writes the owner's context. Returns `false` if nothing is known about contexts of its type.
    fn write_context(&self, owner: Erased<'_>, f: &mut fmt::Formatter<'_>) -> Result<bool, fmt::Error>;
    fn pulse_age(&self, owner: Erased<'_>) -> Option<Duration>;
    /// Looks the job's owner up, and shows it to `look`.
    fn with_owner(&self, id: Erased<'_>, look: &mut dyn FnMut(&Holder<'_>) -> fmt::Result) -> fmt::Result;
    /// Looks the job's owner up.
    fn liveness(&self, state: &SweepState<'_>, id: Erased<'_>, limits: &StageLimits) -> Option<Liveness>;
    fn is_news(&self, state: &SweepState<'_>, id: Erased<'_>) -> bool;
}

impl<K, V, S> ErasedReaper for Reaper<'_, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    fn write_job(&self, id: Erased<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id: &dyn Any = id;
        id.downcast_ref().map_or(Ok(()), |id| fmt::Display::fmt(&self.registry.shown(id), f))
    }

    fn write_context(&self, owner: Erased<'_>, f: &mut fmt::Formatter<'_>) -> Result<bool, fmt::Error> {
        let owner: &dyn Any = owner;
        let Some(Owner { value, .. }) = owner.downcast_ref::<Owner<V>>() else { return Ok(false) };
        if let Some(summary) = &self.summary {
            write!(f, "{}", Escaped(Summary(&**summary, value)))?;
            return Ok(true);
        }
        let value: &dyn Any = value;
        let Some(finalizer) = value.downcast_ref::<Finalizer>() else { return write_plain(value, f) };
        match finalizer.run_id {
            Some(run) => write!(f, "run {run} at `{}`", Escaped(&finalizer.stage))?,
            None => write!(f, "a claim at `{}`", Escaped(&finalizer.stage))?,
        }
        Ok(true)
    }

    fn pulse_age(&self, owner: Erased<'_>) -> Option<Duration> {
        let owner: &dyn Any = owner;
        pulse_that_counts(self, owner.downcast_ref::<Owner<V>>()?).map(Pulse::age)
    }

    fn with_owner(&self, id: Erased<'_>, look: &mut dyn FnMut(&Holder<'_>) -> fmt::Result) -> fmt::Result {
        let id: &dyn Any = id;
        let owner = id.downcast_ref::<K>().and_then(|id| self.registry.owner(id));
        owner.map_or(Ok(()), |owner| look(&Holder::new(&owner)))
    }

    fn liveness(&self, state: &SweepState<'_>, id: Erased<'_>, limits: &StageLimits) -> Option<Liveness> {
        let id: &dyn Any = id;
        let owner = self.registry.owner(id.downcast_ref::<K>()?)?;
        Some(Liveness::of(&owner, self, state, limits))
    }

    fn is_news(&self, state: &SweepState<'_>, id: Erased<'_>) -> bool {
        let id: &dyn Any = id;
        id.downcast_ref::<K>().is_none_or(|id| state.is_news(id))
    }
}

struct Summary<'a, V>(&'a Summarize<'a, V>, &'a V);

impl<V> fmt::Display for Summary<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(self.1, f)
    }
}

impl<'a> Explanation<'a> {
    pub(super) fn new<K, V, S>(
        reaper: &'a Reaper<'_, K, V, S>,
        state: &'a SweepState<'_>,
        job: &'a RunningJob<'_, K>,
        verdict: &'a Verdict<'_, K, V>,
    ) -> Self
    where
        K: Clone + Eq + Hash + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        let &RunningJob { id, stage, running_for, finished_for, lost_for, held, redrives } = job;
        let decision = match verdict {
            Verdict::Healthy => Decision::Healthy,
            Verdict::Defer(deferral) => Decision::Defer(deferral.reason, deferral.owner.as_ref().map(Holder::new)),
            Verdict::Redrive(claim) => Decision::acts(Proposed::Redrive, claim),
            Verdict::Reap(cause, claim) => Decision::acts(Proposed::Reap(*cause), claim),
            Verdict::DryRun(proposed) => Decision::DryRun(*proposed),
        };
        let job = RunningJob { id: &(), stage, running_for, finished_for, lost_for, held, redrives };
        Self { reaper, state, id, job, decision }
    }

    fn limits(&self) -> &'a StageLimits {
        self.state.policy.stage(self.job.stage)
    }

    /// Returns `true` unless the sweep before told the same of this job: a deferral that goes on, or a dry run's
    /// proposal that stands. Acting is always news, and a healthy job never is.
    ///
    /// For logs and dashboards that tell each change once.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// let _monitor = registry.mark(7, Finalizer::new(Some(42), "merge"));
    /// let job = RunningJob::new(&7, "merge", Duration::from_secs(400)).finished_for(Duration::from_secs(310));
    /// let news = [(); 3].map(|()| {
    ///     let mut sweep = reaper.sweep();
    ///     let verdict = sweep.judge(&job);
    ///     sweep.explain(&job, &verdict).is_news()
    /// });
    /// assert_eq!(news, [true, false, false]);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn is_news(&self) -> bool {
        match self.decision {
            Decision::Healthy => false,
            Decision::Act(..) => true,
            Decision::Defer(..) | Decision::DryRun(_) => self.reaper.is_news(self.state, self.id),
        }
    }

    /// Returns what the reaper does next with the job if nothing changes, and in how long. `None` for a verdict that
    /// acts or would act, and where nothing is ahead.
    ///
    /// A live owner without a pulse keeps its job until the deadline. Where the pulse is watched, the owner keeps it
    /// until the pulse is older than `stale_after`. What acts is the first sweep after that time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Policy, Proposed, Reaper, Registry, RunningJob};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// let job = RunningJob::new(&7, "merge", Duration::from_secs(20)).finished_for(Duration::from_secs(10));
    /// let mut sweep = reaper.sweep();
    /// let verdict = sweep.judge(&job);
    /// let upcoming = sweep.explain(&job, &verdict).upcoming();
    /// assert_eq!(upcoming, Some((Proposed::Redrive, Duration::from_secs(290))));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn upcoming(&self) -> Option<(Proposed, Duration)> {
        if !matches!(self.decision, Decision::Healthy | Decision::Defer(..)) {
            return None;
        }
        let limits = self.limits();
        let deadline = limits.hard_deadline.map(|deadline| {
            // One that has passed is held back by a boot grace.
            let left = deadline.saturating_sub(self.job.running_for);
            let held_back = self.state.deadline_held_back(&self.job, limits).unwrap_or_default();
            (Proposed::Reap(Cause::Backstop), left.max(held_back))
        });
        // Of two at the same time the deadline comes first.
        deadline.into_iter().chain(self.next_of_tiers()).min_by_key(|(_, left)| *left)
    }

    /// What tier 1 or 2 does if the deadline does not come first.
    fn next_of_tiers(&self) -> Option<(Proposed, Duration)> {
        let (job, limits) = (&self.job, self.limits());
        let (proposed, left) = match (job.finished_for, job.lost_for) {
            (Some(age), _) => (proposal_if_finished(job, limits), limits.finalize_grace.saturating_sub(age)),
            (None, Some(age)) => (Proposed::Reap(Cause::WorkerLost), limits.lost_grace.saturating_sub(age)),
            (None, None) => return None,
        };
        let mode = self.state.policy.mode();
        if mode == Mode::DeferAll || job.held {
            return None;
        }
        let asks = limits.marking && mode != Mode::Ignore;
        let protected = match asks.then(|| self.reaper.liveness(self.state, self.id, limits)).flatten() {
            Some(Liveness::UntilCleared) => return None,
            Some(Liveness::For(left)) => left,
            Some(Liveness::Stale) | None => Duration::ZERO,
        };
        let booting = self.state.boot_grace_left(limits).unwrap_or_default();
        Some((proposed, left.max(protected).max(booting)))
    }

    /// Returns `true` if the owner would be displaced by what a dry run proposes.
    fn would_displace(&self, proposed: Proposed) -> bool {
        let limits = self.limits();
        let is_stale = || self.reaper.liveness(self.state, self.id, limits) == Some(Liveness::Stale);
        limits.marking && (proposed == Proposed::Reap(Cause::Backstop) || is_stale())
    }

    fn write_holder(&self, f: &mut fmt::Formatter<'_>, holder: &Holder<'_>) -> fmt::Result {
        if self.reaper.write_context(holder.owner, f)? {
            f.write_str(", ")?;
        }
        write!(f, "generation {}, for {:?}", holder.generation, Rounded(holder.marked_at.elapsed()))?;
        match self.reaper.pulse_age(holder.owner) {
            Some(age) => write!(f, ", pulse {:?} ago", Rounded(age)),
            None => Ok(()),
        }
    }

    fn write_decision(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decision {
            Decision::Healthy => f.write_str("healthy"),
            Decision::Defer(reason, holder) => {
                write!(f, "defer, {reason}")?;
                if let (DeferReason::BootGrace, Some(grace)) = (reason, self.limits().boot_grace) {
                    write!(f, " of {:?}", Rounded(grace))?;
                }
                match holder {
                    Some(holder) => {
                        f.write_str(if reason.is_for_the_owner() { " by " } else { ", owned by " })?;
                        self.write_holder(f, &holder)
                    }
                    None => Ok(()),
                }
            }
            Decision::DryRun(proposed) => {
                write!(f, "{proposed}")?;
                if self.would_displace(proposed) {
                    self.reaper.with_owner(self.id, &mut |holder| {
                        f.write_str(", displacing ")?;
                        self.write_holder(f, holder)
                    })?;
                } else if !self.limits().marking {
                    f.write_str(", without a claim in a stage that does not mark")?;
                }
                f.write_str(", not to be done in mode dry_run")
            }
            Decision::Act(proposed, Some(generation), displaced) => {
                write!(f, "{proposed}, claimed as generation {generation}")?;
                match displaced {
                    Some(holder) => {
                        f.write_str(", displacing ")?;
                        self.write_holder(f, &holder)
                    }
                    None => Ok(()),
                }
            }
            Decision::Act(proposed, None, _) => {
                let why = match self.state.policy.mode() {
                    Mode::Ignore => "in mode ignore",
                    _ => "in a stage that does not mark",
                };
                write!(f, "{proposed}, without a claim {why}")
            }
        }
    }
}

impl<'a> Holder<'a> {
    fn new<V: Send + Sync + 'static>(owner: &'a Owner<V>) -> Self {
        Self { generation: owner.generation, marked_at: owner.marked_at(), owner }
    }
}

impl<'a> Decision<'a> {
    fn acts<K: 'static, V: Send + Sync + 'static>(proposed: Proposed, claim: &'a Claim<'_, K, V>) -> Self {
        Self::Act(proposed, claim.generation(), claim.displaced().map(Holder::new))
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("job ")?;
        self.reaper.write_job(self.id, f)?;
        let limits = self.limits();
        if let Some(trigger) = Trigger::of(&self.job, limits) {
            write!(f, ": {}", trigger.as_str())?;
        }
        f.write_str(": ")?;
        self.write_decision(f)?;

        let StageLimits { finalize_grace, lost_grace, hard_deadline, max_redrives, .. } = *limits;
        if let Some(finished) = self.job.finished_for {
            write_age(f, "finished", finished, "finalize_grace", finalize_grace)?;
        }
        if let Some(lost) = self.job.lost_for {
            write_age(f, "lost", lost, "lost_grace", lost_grace)?;
        }
        if self.job.redrives > 0 {
            write!(f, "; redriven {} of {max_redrives} times", self.job.redrives)?;
        }
        if let Some(stale_after) = limits.stale_after.filter(|_| limits.marking) {
            let mut write = |holder: &Holder<'_>| match self.reaper.pulse_age(holder.owner) {
                Some(age) => write_age(f, "without progress", age, "stale_after", stale_after),
                None => Ok(()),
            };
            match self.decision {
                Decision::Defer(_, Some(holder)) | Decision::Act(_, _, Some(holder)) => write(&holder)?,
                Decision::DryRun(proposed) if self.would_displace(proposed) => {
                    self.reaper.with_owner(self.id, &mut write)?;
                }
                _ => {}
            }
        }
        match hard_deadline {
            Some(hard_deadline) => write_age(f, "running", self.job.running_for, "hard_deadline", hard_deadline)?,
            None => write!(f, "; running for {:?}, no backstop", Rounded(self.job.running_for))?,
        }
        match self.upcoming() {
            Some((proposed, left)) => write!(f, "; next: {proposed}, in {:?}", Rounded(left)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Explanation").field(&format_args!("{self}")).finish()
    }
}

fn write_age(f: &mut fmt::Formatter<'_>, what: &str, age: Duration, setting: &str, limit: Duration) -> fmt::Result {
    let place = if past(age, limit) { "past" } else { "within" };
    write!(f, "; {what} for {:?}, {place} {setting} of {:?}", Rounded(age), Rounded(limit))
}

/// A duration to milliseconds, where it is longer than some.
struct Rounded(Duration);

impl fmt::Debug for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beyond = Duration::from_nanos(u64::from(self.0.subsec_nanos() % 1_000_000));
        let rounded = if self.0 < Duration::from_millis(1) { self.0 } else { self.0.saturating_sub(beyond) };
        rounded.fmt(f)
    }
}
