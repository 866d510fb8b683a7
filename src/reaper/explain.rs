//! Verdicts in words: [`Explanation`].

use std::any::Any;
use std::fmt;
use std::time::Duration;

use super::tiers::{Due, past};
use super::{Cause, DeferReason, Mode, Policy, RunningJob, StageLimits, Verdict};
use crate::finalizer::{Finalizer, Pulse};
use crate::owner::{Generation, Owner};
use crate::registry::MarkGuard;

/// Why a verdict is what it is, in one line: tier, owner, and each age beside its limit.
///
/// Made by [`Verdict::explain`]; for logs and people, not to be parsed. An owner that was
/// displaced because it made no progress is not in it: the event `stale owner` names its generation.
///
/// ```
/// # use std::time::Duration;
/// # use livemark::{Policy, Reaper, Registry, RunningJob};
/// # let registry: Registry = Registry::new();
/// # let reaper = Reaper::new(&registry, Policy::builder().hard_deadline(Duration::from_secs(3600)).build()?);
/// let old = RunningJob { id: 7, stage: "build", running_for: Duration::from_secs(4000), finished_for: None, lost_for: None };
/// let mut sweep = reaper.sweep();
/// let why = sweep.judge(&old).explain(&old, sweep.policy()).to_string();
/// assert_eq!(
///     why,
///     "tier 3: reap, backstop, without a claim in a stage that does not mark; running for 4000s, past hard_deadline of 3600s",
/// );
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'a> {
    said: Said<'a>,
    due: Option<Due>,
    ages: Ages,
    limits: StageLimits,
    mode: Mode,
}

/// A verdict without its types.
#[derive(Clone, Copy, Debug)]
enum Said<'a> {
    Healthy,
    Defer(DeferReason, Option<OwnerInWords<'a>>),
    Redrive(Option<Generation>),
    Reap(Cause, Option<Generation>),
}

#[derive(Clone, Copy, Debug)]
struct OwnerInWords<'a> {
    generation: Generation,
    age: Duration,
    /// Of contexts of another type nothing is known.
    finalizer: Option<&'a Finalizer>,
}

#[derive(Clone, Copy, Debug)]
struct Ages {
    running: Duration,
    finished: Option<Duration>,
    lost: Option<Duration>,
}

impl<K, V, S> Verdict<'_, K, V, S>
where
    V: 'static,
{
    /// Why it was said of `job` under `policy`: those that it was judged by.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// # let past = Duration::from_secs(400);
    /// let job = RunningJob { id: 7, stage: "merge", running_for: past, finished_for: Some(past), lost_for: None };
    /// let mut sweep = reaper.sweep();
    /// let verdict = sweep.judge(&job);
    /// let why = verdict.explain(&job, sweep.policy()).to_string();
    /// assert!(why.starts_with("tier 2: redrive, claimed as generation "));
    /// assert!(why.ends_with("; finished for 400s, past finalize_grace of 300s; running for 400s, within hard_deadline of 3600s"));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn explain(&self, job: &RunningJob<'_, K>, policy: &Policy) -> Explanation<'_> {
        let limits = *policy.stage(job.stage);
        Explanation {
            said: self.said(),
            due: Due::of(job, &limits),
            ages: Ages { running: job.running_for, finished: job.finished_for, lost: job.lost_for },
            limits,
            mode: policy.mode(),
        }
    }

    fn said(&self) -> Said<'_> {
        let generation = |claim: &Option<MarkGuard<'_, K, V, S>>| claim.as_ref().map(MarkGuard::generation);
        match self {
            Self::Healthy => Said::Healthy,
            Self::Defer(deferral) => Said::Defer(deferral.reason, deferral.owner.as_ref().map(OwnerInWords::of)),
            Self::Redrive(claim) => Said::Redrive(generation(claim)),
            Self::Reap(cause, claim) => Said::Reap(*cause, generation(claim)),
        }
    }
}

/// What was said and to whom, without ages and limits: for those see [`explain`](Verdict::explain).
impl<K, V: 'static, S> fmt::Display for Verdict<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.said();
        said.write(f, None)?;
        match said {
            Said::Redrive(Some(generation)) | Said::Reap(_, Some(generation)) => claimed(f, generation),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tier) = self.tier() {
            write!(f, "tier {tier}: ")?;
        }
        self.said.write(f, self.limits.boot_grace)?;
        match self.said {
            Said::Redrive(Some(generation)) | Said::Reap(_, Some(generation)) => claimed(f, generation)?,
            Said::Redrive(None) | Said::Reap(_, None) => f.write_str(match self.mode {
                Mode::Ignore => ", without a claim in mode ignore",
                Mode::DryRun => ", not to be done in mode dry_run",
                Mode::Honor | Mode::DeferAll => ", without a claim in a stage that does not mark",
            })?,
            Said::Healthy | Said::Defer(..) => {}
        }
        let StageLimits { finalize_grace, lost_grace, hard_deadline, .. } = self.limits;
        if let Some(finished) = self.ages.finished {
            age(f, "finished", finished, "finalize_grace", finalize_grace)?;
        }
        if let Some(lost) = self.ages.lost {
            age(f, "lost", lost, "lost_grace", lost_grace)?;
        }
        if let (Some(pulse), Some(stale_after)) = (self.said.pulse(), self.limits.stale_after) {
            age(f, "without progress", pulse.age(), "stale_after", stale_after)?;
        }
        match hard_deadline {
            Some(hard_deadline) => age(f, "running", self.ages.running, "hard_deadline", hard_deadline),
            None => write!(f, "; running for {:?}, no backstop", Rounded(self.ages.running)),
        }
    }
}

impl Explanation<'_> {
    /// The tier that the verdict is of.
    fn tier(&self) -> Option<u8> {
        match (self.said, self.due) {
            (Said::Healthy, _) => None,
            (Said::Reap(Cause::Backstop, _), _) => Some(3),
            (Said::Reap(Cause::WorkerLost, _), _) => Some(1),
            (Said::Redrive(_), _) => Some(2),
            (Said::Defer(..), due) => due.map(|due| if due == Due::Redrive { 2 } else { 1 }),
        }
    }
}

impl Said<'_> {
    /// Of the owner that is deferred to.
    fn pulse(&self) -> Option<&Pulse> {
        match self {
            Self::Defer(_, Some(owner)) => owner.finalizer?.pulse.as_ref(),
            _ => None,
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, boot_grace: Option<Duration>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("healthy"),
            Self::Redrive(_) => f.write_str("redrive"),
            Self::Reap(cause, _) => write!(f, "reap, {cause}"),
            Self::Defer(reason, owner) => {
                write!(f, "defer, {reason}")?;
                if let (DeferReason::BootGrace, Some(grace)) = (reason, boot_grace) {
                    write!(f, " of {:?}", Rounded(grace))?;
                }
                match owner {
                    Some(owner) if matches!(reason, DeferReason::Owned | DeferReason::ClaimConflict) => {
                        write!(f, " by {owner}")
                    }
                    Some(owner) => write!(f, ", owned by {owner}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl<'a> OwnerInWords<'a> {
    fn of<V: 'static>(owner: &'a Owner<V>) -> Self {
        let finalizer = (&owner.value as &dyn Any).downcast_ref();
        Self { generation: owner.generation, age: owner.age(), finalizer }
    }
}

/// "run 42 at `merge`, generation 7, for 95s, pulse 3s ago"
impl fmt::Display for OwnerInWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(finalizer) = self.finalizer {
            match finalizer.run_id {
                Some(run) => write!(f, "run {run} at `{}`, ", finalizer.stage)?,
                None => write!(f, "a claim at `{}`, ", finalizer.stage)?,
            }
        }
        write!(f, "generation {}, for {:?}", self.generation, Rounded(self.age))?;
        match self.finalizer.and_then(|finalizer| finalizer.pulse.as_ref()) {
            Some(pulse) => write!(f, ", pulse {:?} ago", Rounded(pulse.age())),
            None => Ok(()),
        }
    }
}

fn claimed(f: &mut fmt::Formatter<'_>, generation: Generation) -> fmt::Result {
    write!(f, ", claimed as generation {generation}")
}

fn age(f: &mut fmt::Formatter<'_>, what: &str, age: Duration, setting: &str, limit: Duration) -> fmt::Result {
    let place = if past(age, limit) { "past" } else { "within" };
    write!(f, "; {what} for {:?}, {place} {setting} of {:?}", Rounded(age), Rounded(limit))
}

/// To milliseconds, where it is longer than some.
struct Rounded(Duration);

impl fmt::Debug for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beyond = Duration::from_nanos(u64::from(self.0.subsec_nanos() % 1_000_000));
        let rounded = if self.0 < Duration::from_millis(1) { self.0 } else { self.0.saturating_sub(beyond) };
        rounded.fmt(f)
    }
}
