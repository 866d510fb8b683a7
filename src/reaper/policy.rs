//! What a reaper is allowed to do, and when: [`Policy`], its builder, and what a builder refuses.

use std::fmt;
use std::time::Duration;

use super::Mode;

const DEFAULT_FINALIZE_GRACE: Duration = Duration::from_secs(300);
const DEFAULT_LOST_GRACE: Duration = Duration::from_secs(60);

/// A reaper's limits, per stage, and its mode. Immutable: [`Reaper::set_policy`](super::Reaper::set_policy) swaps it.
///
/// ```
/// use std::time::Duration;
/// use livemark::{Policy, StageRules};
///
/// let policy = Policy::builder()
///     .finalize_grace(Duration::from_secs(300))
///     .hard_deadline(Duration::from_secs(3600))
///     .marking_stage("gates")
///     .stage("deploy", StageRules::marking().hard_deadline(Duration::from_secs(4 * 3600)))
///     .build()?;
/// # Ok::<(), livemark::PolicyError>(())
/// ```
///
/// With the feature `serde` it can be part of a settings file or of a request, in the same words, with durations in
/// seconds and with the builder's checks:
///
/// ```
/// # #[cfg(feature = "serde")] {
/// let settings = r#"
///     mode = "honor"
///     finalize_grace = 300
///     hard_deadline = 3600
///
///     [stages]
///     gates = { marks = true }
///     deploy = { marks = true, hard_deadline = 14400 }
/// "#;
/// let policy: livemark::Policy = toml::from_str(settings).unwrap();
/// # assert_eq!(policy, livemark::Policy::builder()
/// #     .hard_deadline(std::time::Duration::from_secs(3600))
/// #     .marking_stage("gates")
/// #     .stage("deploy", livemark::StageRules::marking().hard_deadline(std::time::Duration::from_secs(14400)))
/// #     .build().unwrap());
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(super) mode: Mode,
    /// Of every stage that has no rules of its own: it is not declared as marking.
    pub(super) undeclared: Limits,
    /// Sorted, so that equal policies are equal. Few, so a search in order is as good as any.
    pub(super) stages: Vec<(Box<str>, Limits)>,
}

/// The limits of one stage, all settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) marks: bool,
    pub(super) finalize_grace: Duration,
    pub(super) lost_grace: Duration,
    pub(super) hard_deadline: Option<Duration>,
    pub(super) boot_grace: Option<Duration>,
    pub(super) stale_after: Option<Duration>,
}

impl Policy {
    /// Starts a policy. A `hard_deadline`, or an explicit `no_backstop`, must be given.
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::default()
    }

    /// The mode this policy is for.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The same limits in another mode: what a kill switch sets.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Mode, Policy};
    ///
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).build()?;
    /// assert_eq!(policy.mode(), Mode::Honor);
    /// assert_eq!(policy.with_mode(Mode::Ignore).mode(), Mode::Ignore);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn with_mode(&self, mode: Mode) -> Self {
        Self { mode, ..self.clone() }
    }

    #[inline]
    pub(super) fn limits(&self, stage: &str) -> &Limits {
        self.stages.iter().find(|(name, _)| **name == *stage).map_or(&self.undeclared, |(_, limits)| limits)
    }

    /// The least of each limit over all stages: who is within these is within those of any stage.
    pub(super) fn soonest(&self) -> Limits {
        self.stages.iter().fold(self.undeclared, |soonest, (_, limits)| Limits {
            finalize_grace: soonest.finalize_grace.min(limits.finalize_grace),
            lost_grace: soonest.lost_grace.min(limits.lost_grace),
            hard_deadline: soonest.hard_deadline.into_iter().chain(limits.hard_deadline).min(),
            ..soonest
        })
    }

    /// Each boot grace that some stage has, once.
    pub(super) fn boot_graces(&self) -> Vec<Duration> {
        let limits = self.stages.iter().map(|(_, limits)| limits).chain([&self.undeclared]);
        let mut graces: Vec<_> = limits.filter_map(|limits| limits.boot_grace).collect();
        graces.sort_unstable();
        graces.dedup();
        graces
    }

    /// Whether it is meant to honour marks but never asks for one.
    pub(super) fn honors_nothing(&self) -> bool {
        matches!(self.mode, Mode::Honor | Mode::DryRun) && !self.stages.iter().any(|(_, limits)| limits.marks)
    }
}

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
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct PolicyBuilder {
    pub(super) mode: Mode,
    pub(super) everywhere: StageRules,
    pub(super) stages: Vec<(Box<str>, StageRules)>,
}

impl PolicyBuilder {
    /// Sets the mode.
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// How long a job may be finished but not committed before it is re-driven, unless a live owner holds its mark.
    pub fn finalize_grace(self, grace: Duration) -> Self {
        Self { everywhere: self.everywhere.finalize_grace(grace), ..self }
    }

    /// How long a job's worker may be lost before the job is reaped.
    pub fn lost_grace(self, grace: Duration) -> Self {
        Self { everywhere: self.everywhere.lost_grace(grace), ..self }
    }

    /// How long a job may run in all before it is reaped, owned or not: the backstop.
    pub fn hard_deadline(self, deadline: Duration) -> Self {
        Self { everywhere: self.everywhere.hard_deadline(deadline), ..self }
    }

    /// Says that no job is ever reaped for its age: a finalizer that hangs then holds its job for ever.
    pub fn no_backstop(self) -> Self {
        Self { everywhere: self.everywhere.no_backstop(), ..self }
    }

    /// How long the reaper leaves alone what looks dead (the backstop acts) after its own start, and after it was away
    /// for longer than this: then it looks twice before it acts. For finalizers that have yet to mark again, and for ages
    /// that jumped while the machine slept.
    ///
    /// It was away if nobody began a sweep for that time, by the monotonic or by the wall clock; not if the sweep before came as
    /// late, which is then its pace, and not if that has begun the grace anew twice already. So choose it longer than the time from one sweep to the next.
    pub fn boot_grace(self, grace: Duration) -> Self {
        Self { everywhere: self.everywhere.boot_grace(grace), ..self }
    }

    /// How long an owner with a [`Pulse`](crate::Pulse) may make no progress and still be deferred to. After it, the job is
    /// treated as unowned, and the owner displaced. Owners without a pulse never go stale.
    pub fn stale_after(self, limit: Duration) -> Self {
        Self { everywhere: self.everywhere.stale_after(limit), ..self }
    }

    /// Declares a stage whose monitors mark, with the limits of the whole policy.
    ///
    /// In such a stage "no mark" means "no live finalizer".
    pub fn marking_stage(self, stage: impl Into<Box<str>>) -> Self {
        self.stage(stage, StageRules::marking())
    }

    /// Gives a stage rules of its own. Limits that they leave open are those of the whole policy. Each stage once.
    pub fn stage(mut self, stage: impl Into<Box<str>>, rules: StageRules) -> Self {
        self.stages.push((stage.into(), rules));
        self
    }

    /// Settles the policy.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] for settings that cannot work, here or in a stage: a limit of zero, a `hard_deadline` that is
    /// not beyond the `finalize_grace`, a `stale_after` (where monitors mark) that is not within the `hard_deadline`, neither or both of `hard_deadline` and
    /// `no_backstop`, a stage given twice.
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

/// The rules of one stage: whether its monitors mark, and limits that differ from the policy's.
///
/// ```
/// use std::time::Duration;
/// use livemark::{Policy, StageRules};
///
/// let policy = Policy::builder()
///     .hard_deadline(Duration::from_secs(3600))
///     // Its monitors are not ours and never mark: dead means past the grace.
///     .stage("external", StageRules::new().finalize_grace(Duration::from_secs(30)))
///     .stage("migrate", StageRules::marking().no_backstop())
///     .build()?;
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "rules do nothing until a policy is built with them"]
pub struct StageRules {
    pub(super) marks: bool,
    pub(super) finalize_grace: Option<Duration>,
    pub(super) lost_grace: Option<Duration>,
    pub(super) hard_deadline: Option<Duration>,
    pub(super) no_backstop: bool,
    pub(super) boot_grace: Option<Duration>,
    pub(super) stale_after: Option<Duration>,
}

impl StageRules {
    /// Of a stage whose monitors do not mark: the registry is never consulted for it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a stage whose monitors mark.
    pub fn marking() -> Self {
        Self { marks: true, ..Self::default() }
    }

    /// As [`PolicyBuilder::finalize_grace`], for this stage.
    pub fn finalize_grace(self, grace: Duration) -> Self {
        Self { finalize_grace: Some(grace), ..self }
    }

    /// As [`PolicyBuilder::lost_grace`], for this stage.
    pub fn lost_grace(self, grace: Duration) -> Self {
        Self { lost_grace: Some(grace), ..self }
    }

    /// As [`PolicyBuilder::hard_deadline`], for this stage.
    pub fn hard_deadline(self, deadline: Duration) -> Self {
        Self { hard_deadline: Some(deadline), ..self }
    }

    /// As [`PolicyBuilder::no_backstop`], for this stage.
    pub fn no_backstop(self) -> Self {
        Self { no_backstop: true, ..self }
    }

    /// As [`PolicyBuilder::boot_grace`], for this stage.
    pub fn boot_grace(self, grace: Duration) -> Self {
        Self { boot_grace: Some(grace), ..self }
    }

    /// As [`PolicyBuilder::stale_after`], for this stage.
    pub fn stale_after(self, limit: Duration) -> Self {
        Self { stale_after: Some(limit), ..self }
    }

    /// These rules with what they leave open taken from `fallback`, checked.
    fn settle(&self, stage: Option<&str>, fallback: &Self) -> Result<Limits, PolicyError> {
        let in_stage = || stage.map(Box::from);
        let has_backstop_rule = |rules: &Self| rules.no_backstop || rules.hard_deadline.is_some();
        let backstop = if has_backstop_rule(self) { self } else { fallback };

        let hard_deadline = match (backstop.hard_deadline, backstop.no_backstop) {
            (Some(_), true) => return Err(PolicyError::DeadlineAndNoBackstop { stage: in_stage() }),
            (None, false) => return Err(PolicyError::NoDeadline),
            (deadline, _) => deadline,
        };
        let finalize_grace = self.finalize_grace.or(fallback.finalize_grace).unwrap_or(DEFAULT_FINALIZE_GRACE);
        let lost_grace = self.lost_grace.or(fallback.lost_grace).unwrap_or(DEFAULT_LOST_GRACE);
        let boot_grace = self.boot_grace.or(fallback.boot_grace);
        let stale_after = self.stale_after.or(fallback.stale_after);

        let settings = [
            ("finalize_grace", Some(finalize_grace)),
            ("lost_grace", Some(lost_grace)),
            ("hard_deadline", hard_deadline),
            ("boot_grace", boot_grace),
            ("stale_after", stale_after),
        ];
        if let Some((setting, _)) = settings.into_iter().find(|(_, limit)| *limit == Some(Duration::ZERO)) {
            return Err(PolicyError::Zero { setting, stage: in_stage() });
        }
        if let Some(hard_deadline) = hard_deadline {
            if hard_deadline <= finalize_grace {
                return Err(PolicyError::DeadlineWithinGrace { stage: in_stage(), hard_deadline, finalize_grace });
            }
            // Where nobody marks there is no owner to be found stale.
            let has_owners = stage.is_none() || self.marks;
            if let Some(stale_after) = stale_after.filter(|limit| has_owners && hard_deadline <= *limit) {
                return Err(PolicyError::DeadlineWithinStaleAfter { stage: in_stage(), hard_deadline, stale_after });
            }
        }
        Ok(Limits { marks: self.marks, finalize_grace, lost_grace, hard_deadline, boot_grace, stale_after })
    }
}

/// Why a [`Policy`] cannot work. Names the stage, where it is one's own rules, and the settings at odds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// Neither `hard_deadline` nor `no_backstop` was given: a finalizer that hangs would hold its job for ever,
    /// which must be asked for.
    NoDeadline,
    /// Both `hard_deadline` and `no_backstop` were given.
    DeadlineAndNoBackstop {
        /// The stage whose rules these are; `None` for the whole policy.
        stage: Option<Box<str>>,
    },
    /// `hard_deadline` is not longer than `finalize_grace`: the backstop would end jobs that are still in their grace.
    DeadlineWithinGrace {
        /// The stage that this concerns; `None` for the whole policy.
        stage: Option<Box<str>>,
        /// The deadline in force there.
        hard_deadline: Duration,
        /// The grace in force there.
        finalize_grace: Duration,
    },
    /// `hard_deadline` is not longer than `stale_after`: the backstop would act before any owner could be found stale.
    DeadlineWithinStaleAfter {
        /// The stage that this concerns; `None` for the whole policy.
        stage: Option<Box<str>>,
        /// The deadline in force there.
        hard_deadline: Duration,
        /// The limit in force there.
        stale_after: Duration,
    },
    /// A stage was given rules twice: the second would silently undo the first, its marking included.
    StageGivenTwice {
        /// The stage's name.
        stage: Box<str>,
    },
    /// A limit is zero: everything would be past it at once. (A `boot_grace` of none is left out.)
    Zero {
        /// The setting's name.
        setting: &'static str,
        /// The stage that this concerns; `None` for the whole policy.
        stage: Option<Box<str>>,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self {
            Self::NoDeadline => None,
            Self::StageGivenTwice { stage } => Some(stage),
            Self::DeadlineAndNoBackstop { stage }
            | Self::DeadlineWithinGrace { stage, .. }
            | Self::DeadlineWithinStaleAfter { stage, .. }
            | Self::Zero { stage, .. } => stage.as_ref(),
        };
        if let Some(stage) = stage {
            write!(f, "stage {stage:?}: ")?;
        }
        match self {
            Self::NoDeadline => f.write_str("neither hard_deadline nor no_backstop is given: choose one"),
            Self::DeadlineAndNoBackstop { .. } => {
                f.write_str("both hard_deadline and no_backstop are given: they contradict each other")
            }
            Self::DeadlineWithinGrace { hard_deadline, finalize_grace, .. } => write!(
                f,
                "hard_deadline ({hard_deadline:?}) must be longer than finalize_grace ({finalize_grace:?}): \
                 the backstop would act first",
            ),
            Self::DeadlineWithinStaleAfter { hard_deadline, stale_after, .. } => write!(
                f,
                "hard_deadline ({hard_deadline:?}) must be longer than stale_after ({stale_after:?}): \
                 the backstop would act first",
            ),
            Self::StageGivenTwice { .. } => f.write_str("is given twice: its rules contradict each other"),
            Self::Zero { setting: "boot_grace", .. } => f.write_str("boot_grace is zero: leave it out to have none"),
            Self::Zero { setting, .. } => write!(f, "{setting} is zero: every job would be past it at once"),
        }
    }
}

impl std::error::Error for PolicyError {}
