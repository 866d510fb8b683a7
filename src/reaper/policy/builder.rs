//! From settings, each given by itself, to a policy that can work: [`PolicyBuilder`].

use std::time::Duration;

use super::{Policy, PolicyError, StageRules};
use crate::reaper::Mode;

/// Builds a [`Policy`]; of a setting that is given twice the last value counts, but a stage is given once.
///
/// | setting | default |
/// |---|---|
/// | `mode` | [`Mode::Honor`] |
/// | `finalize_grace` | 300 s |
/// | `lost_grace` | 60 s |
/// | `hard_deadline` / `no_backstop` | none: one of the two must be given |
/// | `boot_grace` | none: the reaper acts from its first sweep on |
/// | `stale_after` | none: an owner is deferred to whatever its pulse |
/// | stages | none: a stage that is not declared as marking never consults the registry |
///
/// ```
/// use std::time::Duration;
/// use livemark::{Mode, Policy, StageRules};
///
/// let policy = Policy::builder()
///     .mode(Mode::DryRun)
///     .finalize_grace(Duration::from_secs(300))
///     .lost_grace(Duration::from_secs(60))
///     .hard_deadline(Duration::from_secs(3600))
///     .boot_grace(Duration::from_secs(60))
///     .stale_after(Duration::from_secs(600))
///     .marking_stage("gates")
///     .stage("deploy", StageRules::marking().hard_deadline(Duration::from_secs(4 * 3600)))
///     .build()?;
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct PolicyBuilder {
    pub(super) mode: Mode,
    pub(super) everywhere: StageRules,
    pub(super) stages: Vec<(Box<str>, StageRules)>,
}

impl PolicyBuilder {
    /// Sets the mode.
    ///
    /// ```
    /// use livemark::{Mode, Policy};
    ///
    /// // A first day in production: look at the verdicts, act on none.
    /// let policy = Policy::builder().mode(Mode::DryRun).no_backstop().build()?;
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// How long a job may be finished but not committed before it is re-driven, unless a live owner holds its mark.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// let policy = Policy::builder().finalize_grace(Duration::from_secs(30)).no_backstop().build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// # let zero = Duration::ZERO;
    /// let finished = |secs| RunningJob { id: 7, stage: "merge", running_for: zero, finished_for: Some(Duration::from_secs(secs)), lost_for: None };
    /// assert!(matches!(reaper.sweep().judge(&finished(30)), Verdict::Healthy)); // exactly at a limit is not past it
    /// assert!(matches!(reaper.sweep().judge(&finished(31)), Verdict::Redrive(_)));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn finalize_grace(self, grace: Duration) -> Self {
        Self { everywhere: self.everywhere.finalize_grace(grace), ..self }
    }

    /// How long a job's worker may be lost before the job is reaped.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Cause, Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// let policy = Policy::builder().lost_grace(Duration::from_secs(10)).no_backstop().build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// # let zero = Duration::ZERO;
    /// let lost = |secs| RunningJob { id: 7, stage: "build", running_for: zero, finished_for: None, lost_for: Some(Duration::from_secs(secs)) };
    /// assert!(matches!(reaper.sweep().judge(&lost(10)), Verdict::Healthy));
    /// assert!(matches!(reaper.sweep().judge(&lost(11)), Verdict::Reap(Cause::WorkerLost, _)));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn lost_grace(self, grace: Duration) -> Self {
        Self { everywhere: self.everywhere.lost_grace(grace), ..self }
    }

    /// How long a job may run in all before it is reaped, owned or not: the backstop.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Cause, Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// let stuck = registry.mark(7, Finalizer::new(Some(1), "merge"));
    /// let job = RunningJob { id: 7, stage: "merge", running_for: Duration::from_secs(3601), finished_for: None, lost_for: None };
    /// assert!(matches!(reaper.sweep().judge(&job), Verdict::Reap(Cause::Backstop, Some(_))));
    /// assert!(!stuck.is_current(), "displaced: it must not commit");
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn hard_deadline(self, deadline: Duration) -> Self {
        Self { everywhere: self.everywhere.hard_deadline(deadline), ..self }
    }

    /// Says that no job is ever reaped for its age: a finalizer that hangs then holds its job for ever.
    ///
    /// ```
    /// use livemark::Policy;
    ///
    /// let policy = Policy::builder().no_backstop().marking_stage("merge").build()?; // somebody else ends what hangs
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn no_backstop(self) -> Self {
        Self { everywhere: self.everywhere.no_backstop(), ..self }
    }

    /// How long the reaper leaves alone what looks dead (the backstop acts) after its own start, and after it was away
    /// for longer than this: then it looks twice before it acts. For finalizers that have yet to mark again, and for
    /// ages that jumped while the machine slept.
    ///
    /// - Away: nobody began a sweep for longer than the grace, by the monotonic or by the wall clock.
    /// - Not away: the gap before was too long as well. That is the pace of a slow reaper.
    /// - A grace that has not run to its end begins anew twice at most.
    ///
    /// So choose it longer than the time from one sweep to the next.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{DeferReason, Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// let policy = Policy::builder().boot_grace(Duration::from_secs(60)).no_backstop().build()?;
    /// let reaper = Reaper::new(&registry, policy); // has just started
    /// let past = Duration::from_secs(400);
    /// let job = RunningJob { id: 7, stage: "merge", running_for: past, finished_for: Some(past), lost_for: None };
    /// let Verdict::Defer(deferral) = reaper.sweep().judge(&job) else { unreachable!() };
    /// assert_eq!(deferral.reason, DeferReason::BootGrace);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn boot_grace(self, grace: Duration) -> Self {
        Self { everywhere: self.everywhere.boot_grace(grace), ..self }
    }

    /// How long an owner with a [`Pulse`](crate::Pulse) may make no progress and still be deferred to. After it, the
    /// job is treated as unowned, and the owner displaced. Owners without a pulse never go stale.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Finalizer, Policy, Pulse, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// let policy = Policy::builder().stale_after(Duration::from_millis(1)).no_backstop().marking_stage("merge").build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// let hangs = registry.mark(7, Finalizer::new(Some(1), "merge").with_pulse(Pulse::new()));
    /// std::thread::sleep(Duration::from_millis(5)); // without a beat
    /// let past = Duration::from_secs(400);
    /// let job = RunningJob { id: 7, stage: "merge", running_for: past, finished_for: Some(past), lost_for: None };
    /// assert!(matches!(reaper.sweep().judge(&job), Verdict::Redrive(Some(_))));
    /// assert!(!hangs.is_current());
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn stale_after(self, limit: Duration) -> Self {
        Self { everywhere: self.everywhere.stale_after(limit), ..self }
    }

    /// Declares a stage whose monitors mark, with the limits of the whole policy.
    ///
    /// In such a stage "no mark" means "no live finalizer".
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// let policy = Policy::builder().no_backstop().marking_stage("merge").build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// let guard = registry.mark(7, Finalizer::new(Some(1), "merge"));
    /// let past = Duration::from_secs(400);
    /// let job = |stage| RunningJob { id: 7, stage, running_for: past, finished_for: Some(past), lost_for: None };
    /// assert!(matches!(reaper.sweep().judge(&job("merge")), Verdict::Defer(_)));
    /// assert!(matches!(reaper.sweep().judge(&job("Merge")), Verdict::Redrive(None)), "not that stage: its marks are not asked for");
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn marking_stage(self, stage: impl Into<Box<str>>) -> Self {
        self.stage(stage, StageRules::marking())
    }

    /// Gives a stage rules of its own. Limits that they leave open are those of the whole policy. Each stage once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use livemark::{Policy, StageRules};
    ///
    /// let policy = Policy::builder()
    ///     .hard_deadline(Duration::from_secs(3600))
    ///     .stage("migrate", StageRules::marking().hard_deadline(Duration::from_secs(24 * 3600)))
    ///     .build()?;
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn stage(mut self, stage: impl Into<Box<str>>, rules: StageRules) -> Self {
        self.stages.push((stage.into(), rules));
        self
    }

    /// Settles the policy.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] for settings that cannot work, here or in a stage: a limit of zero, a `hard_deadline` that is
    /// not beyond the `finalize_grace`, a `stale_after` (where monitors mark) that is not within the `hard_deadline`,
    /// neither or both of `hard_deadline` and `no_backstop`, a stage given twice.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, PolicyError};
    ///
    /// let error = Policy::builder().hard_deadline(Duration::from_secs(60)).build().unwrap_err();
    /// assert!(matches!(error, PolicyError::DeadlineWithinGrace { .. }));
    /// assert_eq!(
    ///     error.to_string(),
    ///     "hard_deadline (60s) must be longer than finalize_grace (300s): the backstop would act first",
    /// );
    /// ```
    pub fn build(self) -> Result<Policy, PolicyError> {
        let undeclared = self.everywhere.settle(None, &StageRules::new())?;
        let names = self.stages.iter().map(|(name, _)| name);
        if let Some((_, twice)) =
            names.clone().enumerate().find(|(place, name)| names.clone().take(*place).any(|other| other == *name))
        {
            return Err(PolicyError::StageGivenTwice { stage: twice.clone() });
        }
        let stages = self.stages.into_iter().map(|(stage, rules)| {
            let limits = rules.settle(Some(&stage), &self.everywhere)?;
            Ok((stage, limits))
        });
        let mut stages: Vec<_> = stages.collect::<Result<_, _>>()?;
        stages.sort_unstable_by(|(stage, _), (other, _)| stage.cmp(other));
        Ok(Policy { mode: self.mode, undeclared, stages })
    }
}
