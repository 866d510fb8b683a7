//! Verdicts in words, and what comes next: [`Explanation`].

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::Duration;

use super::claim::{Claim, Mark};
use super::erased::{Erased, ErasedReaper, Holder};
use super::job::RunningJob;
use super::liveness::Liveness;
use super::mode::Mode;
use super::policy::StageLimits;
use super::reaper::Reaper;
use super::sweep_state::SweepState;
use super::trigger::{Trigger, past, proposal_if_finished};
use super::verdict::{Cause, DeferReason, Deferral, Proposed, Verdict};

/// Explains a verdict, and says what comes next. [`Sweep::explain`](super::Sweep::explain) makes it.
///
/// Its `Display` is one line that begins with the job. The line has what is wrong with the job, its owner, each age
/// beside its limit, and what the reaper does next. It is for logs and people, not for parsers. Text of the user's is
/// escaped. The explanation formats nothing and looks nothing up until it is asked.
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

/// A verdict, without its types.
#[derive(Clone, Copy)]
pub(super) enum Decision<'a> {
    Healthy,
    Defer(DeferReason, Option<Holder<'a>>),
    /// What is done, what the claim's mark is numbered by and its number, and whom the claim displaced.
    Act(Proposed, Option<(&'static str, u64)>, Option<Holder<'a>>),
    DryRun(Proposed),
}

impl<'a> Decision<'a> {
    pub(super) fn deferred<V: Send + Sync + 'static>(deferral: &'a Deferral<V>) -> Self {
        Self::Defer(deferral.reason, deferral.owner.as_ref().map(Holder::new))
    }

    fn act<K: 'static, V: Send + Sync + 'static, M: Mark>(proposed: Proposed, claim: &'a Claim<'_, K, V, M>) -> Self {
        let numbered = claim.guard().map(|mark| (M::NUMBER, mark.number()));
        Self::Act(proposed, numbered, claim.displaced().map(Holder::new))
    }
}

impl<'a> Explanation<'a> {
    pub(super) fn new<K, V, S, M>(
        reaper: &'a Reaper<'_, K, V, S>,
        state: &'a SweepState<'_>,
        job: &'a RunningJob<'_, K>,
        verdict: &'a Verdict<'_, K, V, M>,
    ) -> Self
    where
        M: Mark,
        K: Clone + Eq + Hash + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        let decision = match verdict {
            Verdict::Healthy => Decision::Healthy,
            Verdict::Defer(deferral) => Decision::deferred(deferral),
            Verdict::Redrive(claim) => Decision::act(Proposed::Redrive, claim),
            Verdict::Reap(cause, claim) => Decision::act(Proposed::Reap(*cause), claim),
            Verdict::DryRun(proposed) => Decision::DryRun(*proposed),
        };
        Self::of(reaper, state, job, decision)
    }

    pub(super) fn of<K, V, S>(
        reaper: &'a Reaper<'_, K, V, S>,
        state: &'a SweepState<'_>,
        job: &'a RunningJob<'_, K>,
        decision: Decision<'a>,
    ) -> Self
    where
        K: Clone + Eq + Hash + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
        S: BuildHasher + Send + Sync + 'static,
    {
        let &RunningJob { id, stage, running_for, finished_for, lost_for, held, redrives } = job;
        let job = RunningJob { id: &(), stage, running_for, finished_for, lost_for, held, redrives };
        Self { reaper, state, id, job, decision }
    }

    fn limits(&self) -> &'a StageLimits {
        self.state.policy.stage(self.job.stage)
    }

    /// Returns `true` unless the sweep before said the same of this job.
    ///
    /// A deferral that goes on is no news, and neither is a dry run's proposal that stands. An act is always news, and
    /// a healthy job never is. Logs and dashboards can tell each change once by it.
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
            Decision::Defer(..) | Decision::DryRun(_) => self.reaper.is_news(self.id, self.state),
        }
    }

    /// Returns what the reaper does next with the job if nothing changes, and in how long.
    ///
    /// Returns `None` for a verdict that acts or would act, and where nothing is ahead. The first sweep after that time
    /// acts. A live owner without a pulse keeps its job until the deadline. Where the policy watches the pulse, the
    /// owner keeps its job until the pulse is older than `stale_after`.
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
            let left = deadline.saturating_sub(self.job.running_for);
            // A deadline that has passed and not acted is held back by a boot grace.
            let held_back = self.state.deadline_held_back(&self.job, limits).unwrap_or_default();
            (Proposed::Reap(Cause::Backstop), left.max(held_back))
        });
        // If both act at the same time, the deadline comes first.
        deadline.into_iter().chain(self.upcoming_if_dead()).min_by_key(|(_, left)| *left)
    }

    /// Returns what the reaper does with a finished or a lost job, if its deadline does not come first.
    fn upcoming_if_dead(&self) -> Option<(Proposed, Duration)> {
        let (job, limits) = (&self.job, self.limits());
        // The grace: how much of it is left?
        let (proposed, left) = match (job.finished_for, job.lost_for) {
            (Some(age), _) => (proposal_if_finished(job, limits), limits.finalize_grace.saturating_sub(age)),
            (None, Some(age)) => (Trigger::Lost.proposal(), limits.lost_grace.saturating_sub(age)),
            (None, None) => return None,
        };
        // The brake, and other signs of life: these have no end that can be known.
        let mode = self.state.policy.mode();
        if mode == Mode::DeferAll || job.held {
            return None;
        }
        if mode != Mode::Ignore && self.reaper.gate(self.id).is_some() {
            return None;
        }
        // The owner, looked up now: for how long does it keep the job?
        let asks = limits.marking && mode != Mode::Ignore;
        let protected = match asks.then(|| self.reaper.liveness(self.id, self.state, limits)).flatten() {
            Some(Liveness::UntilCleared) => return None,
            Some(Liveness::For(left)) => left,
            Some(Liveness::Stale) | None => Duration::ZERO,
        };
        // The boot grace. Whatever takes longest decides.
        let booting = self.state.boot_grace_left(limits).unwrap_or_default();
        Some((proposed, left.max(protected).max(booting)))
    }

    /// Returns `true` if the owner would be displaced by what a dry run proposes.
    fn would_displace(&self, proposed: Proposed) -> bool {
        let limits = self.limits();
        let is_stale = || self.reaper.liveness(self.id, self.state, limits) == Some(Liveness::Stale);
        limits.marking && (proposed == Proposed::Reap(Cause::Backstop) || is_stale())
    }

    fn write_decision(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decision {
            Decision::Healthy => f.write_str("healthy"),
            Decision::Defer(reason, holder) => {
                write!(f, "defer, {reason}")?;
                if let (DeferReason::BootGrace, Some(grace)) = (reason, self.limits().boot_grace) {
                    write!(f, " of {:?}", Rounded(grace))?;
                }
                let by = if reason.is_for_the_owner() { " by " } else { ", owned by " };
                self.write_holder(f, by, holder.as_ref())
            }
            Decision::DryRun(proposed) => {
                write!(f, "{proposed}")?;
                if self.would_displace(proposed) {
                    let write = &mut |holder: &Holder<'_>| self.write_holder(f, ", displacing ", Some(holder));
                    self.reaper.with_holder(self.id, write)?;
                } else if !self.limits().marking {
                    f.write_str(", without a claim in a stage that does not mark")?;
                }
                f.write_str(", not to be done in mode dry_run")
            }
            Decision::Act(proposed, Some((kind, number)), displaced) => {
                write!(f, "{proposed}, claimed as {kind} {number}")?;
                self.write_holder(f, ", displacing ", displaced.as_ref())
            }
            Decision::Act(proposed, None, _) => {
                let why = match self.state.policy.mode() {
                    Mode::Ignore => "in mode ignore",
                    _ if self.limits().marking => "since none could be had",
                    _ => "in a stage that does not mark",
                };
                write!(f, "{proposed}, without a claim {why}")
            }
        }
    }

    /// Writes who holds the job, if anybody does, after `by`.
    fn write_holder(&self, f: &mut fmt::Formatter<'_>, by: &str, holder: Option<&Holder<'_>>) -> fmt::Result {
        let Some(holder) = holder else { return Ok(()) };
        f.write_str(by)?;
        if self.reaper.write_context(holder.owner, f)? {
            f.write_str(", ")?;
        }
        write!(f, "generation {}, for {:?}", holder.generation, Rounded(holder.marked_at.elapsed()))?;
        match self.reaper.pulse_age(holder.owner) {
            Some(age) => write!(f, ", pulse {:?} ago", Rounded(age)),
            None => Ok(()),
        }
    }

    /// Writes the age of the holder's pulse beside its limit, where the policy watches it.
    fn write_pulse(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = self.limits();
        let Some(stale_after) = limits.stale_after.filter(|_| limits.marking) else { return Ok(()) };
        let mut write = |holder: &Holder<'_>| match self.reaper.pulse_age(holder.owner) {
            Some(age) => write_age(f, "without progress", age, "stale_after", stale_after),
            None => Ok(()),
        };
        match self.decision {
            Decision::Defer(_, Some(holder)) | Decision::Act(_, _, Some(holder)) => write(&holder),
            Decision::DryRun(proposed) if self.would_displace(proposed) => self.reaper.with_holder(self.id, &mut write),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The job, what is wrong with it, and what was decided.
        f.write_str("job ")?;
        self.reaper.write_job(self.id, f)?;
        let limits = self.limits();
        if let Some(trigger) = Trigger::of(&self.job, limits) {
            write!(f, ": {}", trigger.as_str())?;
        }
        f.write_str(": ")?;
        self.write_decision(f)?;

        // Each age beside its limit.
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
        self.write_pulse(f)?;
        match hard_deadline {
            Some(hard_deadline) => write_age(f, "running", self.job.running_for, "hard_deadline", hard_deadline)?,
            None => write!(f, "; running for {:?}, no backstop", Rounded(self.job.running_for))?,
        }

        // What comes next.
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
