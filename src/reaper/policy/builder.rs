//! From settings, each given by itself, to a policy that can work: [`PolicyBuilder`].

use std::time::Duration;

use super::error::PolicyError;
use super::policy::{Policy, Stage};
use super::rules::StageRules;
use crate::reaper::mode::Mode;

/// A builder of a [`Policy`]. If a setting is given twice, the last value counts, but a stage is given once.
///
/// | setting | default |
/// |---|---|
/// | `mode` | [`Mode::Honor`] |
/// | `finalize_grace` | 300 s |
/// | `lost_grace` | 60 s |
/// | `hard_deadline` / `no_backstop` | none: give one of the two |
/// | `max_redrives` | 3 |
/// | `boot_grace` | none: the reaper acts from its first sweep on |
/// | `stale_after` | none: the reaper defers to an owner whatever its pulse |
/// | marking stages / `no_marking_stages` | none: give one of the two |
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
///     .max_redrives(3)
///     .boot_grace(Duration::from_secs(60))
///     .stale_after(Duration::from_secs(600))
///     .marking_stages(["gates", "merge"])
///     .stage("deploy", StageRules::marking().hard_deadline(Duration::from_secs(4 * 3600)))
///     .build()?;
/// assert_eq!((policy.finalize_grace(), policy.lost_grace()), (Duration::from_secs(300), Duration::from_secs(60)));
/// assert_eq!((policy.hard_deadline(), policy.max_redrives()), (Some(Duration::from_secs(3600)), 3));
/// assert_eq!(policy.boot_grace(), Some(Duration::from_secs(60)));
/// assert_eq!(policy.stale_after(), Some(Duration::from_secs(600)));
/// assert!(policy.marking_stages().eq(["deploy", "gates", "merge"]));
/// # Ok::<(), livemark::PolicyError>(())
/// ```
///
/// [`Policy::to_builder`] returns a builder with the settings of that policy.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct PolicyBuilder {
    given: Settings,
    /// The settings of the policy that this builder was made from.
    inherited: Settings,
}

#[derive(Clone, Debug, Default)]
struct Settings {
    mode: Option<Mode>,
    defaults: StageRules,
    stages: Vec<(Box<str>, StageRules)>,
    no_marking_stages: bool,
}

impl Policy {
    /// Starts a policy. It must be given a `hard_deadline` or `no_backstop`, and marking stages or `no_marking_stages`.
    ///
    /// ```
    /// use livemark::{Policy, PolicyError};
    ///
    /// assert_eq!(Policy::builder().build(), Err(PolicyError::NoDeadline));
    /// assert_eq!(Policy::builder().no_backstop().build(), Err(PolicyError::NoMarkingStages));
    /// assert!(Policy::builder().no_backstop().marking_stage("merge").build().is_ok());
    /// ```
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::default()
    }

    /// Returns a builder with the settings that this policy was given. A setting that is given again replaces the old one:
    ///
    /// - A stage that is given again gets the new rules alone, and other stages stay.
    /// - A `hard_deadline` replaces an inherited `no_backstop`, and the reverse.
    /// - A marking stage replaces an inherited `no_marking_stages`. With `no_marking_stages`, no inherited stage marks.
    /// - A stage follows a limit of the whole policy that is given again, unless it was given its own.
    ///
    /// ```
    /// use std::time::Duration;
    /// use livemark::{Policy, StageRules};
    ///
    /// let secs = Duration::from_secs;
    /// let policy = Policy::builder()
    ///     .hard_deadline(secs(3600))
    ///     .marking_stage("merge")
    ///     .stage("deploy", StageRules::marking().finalize_grace(secs(900)))
    ///     .build()?;
    /// assert_eq!(policy.to_builder().build()?, policy);
    ///
    /// let patient = policy.to_builder().finalize_grace(secs(600)).build()?;
    /// assert_eq!(patient.stage("merge").finalize_grace, secs(600));
    /// assert_eq!(patient.stage("deploy").finalize_grace, secs(900), "its own");
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn to_builder(&self) -> PolicyBuilder {
        PolicyBuilder::inheriting(self)
    }
}

impl PolicyBuilder {
    /// Starts with the settings of `policy`, to be replaced.
    pub(super) fn inheriting(policy: &Policy) -> Self {
        let stages = policy.stages.iter().map(|stage| (stage.name.clone(), stage.rules.clone())).collect();
        let inherited = Settings {
            mode: Some(policy.mode),
            defaults: policy.rules.clone(),
            stages,
            no_marking_stages: policy.marking_stages().next().is_none(),
        };
        Self { given: Settings::default(), inherited }
    }

    /// Starts with limits that were read together.
    #[cfg(feature = "serde")]
    pub(super) fn with_rules(rules: StageRules) -> Self {
        Self::default().with_defaults(|_| rules)
    }

    fn with_defaults(mut self, set: impl FnOnce(StageRules) -> StageRules) -> Self {
        self.given.defaults = set(self.given.defaults);
        self
    }

    /// Sets the mode.
    ///
    /// ```
    /// use livemark::{Mode, Policy};
    ///
    /// // On a first day in production the reaper proposes and does nothing.
    /// let policy = Policy::builder().mode(Mode::DryRun).no_backstop().marking_stage("merge").build()?;
    /// assert_eq!(policy.mode(), Mode::DryRun);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn mode(mut self, mode: Mode) -> Self {
        self.given.mode = Some(mode);
        self
    }

    /// Sets how long a job may be finished and not committed. The reaper redrives a job past this, unless a live owner
    /// holds its mark. An age that equals a limit is not past it.
    ///
    /// [`PolicyBuilder`] has an example.
    pub fn finalize_grace(self, grace: Duration) -> Self {
        self.with_defaults(|rules| rules.finalize_grace(grace))
    }

    /// Sets how long a job's worker may be lost. The reaper ends a job past this, unless a live owner holds its mark.
    ///
    /// [`PolicyBuilder`] has an example.
    pub fn lost_grace(self, grace: Duration) -> Self {
        self.with_defaults(|rules| rules.lost_grace(grace))
    }

    /// Sets how long a job may run in all. The reaper ends a job past this, owned or not. This is the backstop.
    ///
    /// [`PolicyBuilder`] has an example.
    pub fn hard_deadline(self, deadline: Duration) -> Self {
        self.with_defaults(|rules| rules.hard_deadline(deadline))
    }

    /// Declares that the reaper ends no job for its age. A finalizer that hangs then holds its job forever.
    ///
    /// ```
    /// use livemark::Policy;
    ///
    /// let policy = Policy::builder().no_backstop().marking_stage("merge").build()?; // somebody else ends what hangs
    /// assert_eq!(policy.hard_deadline(), None);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn no_backstop(self) -> Self {
        self.with_defaults(StageRules::no_backstop)
    }

    /// Sets how often a job may be redriven. A job that would be redriven once more is ended instead, with
    /// `Cause::RedrivesExhausted`. With 0 the reaper redrives no job.
    ///
    /// The job store counts the redrives. Where it reports none, the deadline alone bounds their number.
    ///
    /// [`PolicyBuilder`] has an example.
    pub fn max_redrives(self, redrives: u32) -> Self {
        self.with_defaults(|rules| rules.max_redrives(redrives))
    }

    /// Defers every job that looks dead for this long after the reaper starts, and after any gap between its looks that is
    /// longer than this.
    ///
    /// A reaper looks when it begins a sweep, and when it comes to a job past a limit. Owners have the boot grace to mark
    /// again after a restart or a suspended machine. Ages that jumped have it to settle.
    ///
    /// ```text
    ///  process        running          suspended        running
    ///  looks        | | | | | |                         | | | | | | | | | | |
    ///                         |<--- a pause: longer --->|<-- boot grace -->|
    ///                         |   than the boot grace   |                  |
    ///  looks dead    acts                                defers             acts
    ///  deadline      acts                                defers if it       acts
    ///                                                    passed during
    ///                                                    the pause
    /// ```
    ///
    /// The reaper measures gaps by the monotonic and by the wall clock. A long gap that follows a long one is no pause,
    /// but the pace of a slow reaper. [`guide::consistency`](crate::guide::consistency#pauses) says exactly what
    /// a pause is.
    ///
    /// Set the boot grace longer than the time from one sweep to the next.
    ///
    /// [`PolicyBuilder`] has an example.
    pub fn boot_grace(self, grace: Duration) -> Self {
        self.with_defaults(|rules| rules.boot_grace(grace))
    }

    /// Sets how long an owner with a [`Pulse`](crate::Pulse) may make no progress. The reaper treats a job whose owner is
    /// past this as unowned, and displaces the owner. An owner without a pulse never goes stale.
    ///
    /// [`PolicyBuilder`] has an example.
    pub fn stale_after(self, limit: Duration) -> Self {
        self.with_defaults(|rules| rules.stale_after(limit))
    }

    /// Adds a stage whose monitors mark, with the limits of the whole policy. In such a stage a missing mark means that no
    /// finalizer is alive.
    ///
    /// ```
    /// use livemark::Policy;
    ///
    /// let policy = Policy::builder().no_backstop().marking_stage("merge").build()?;
    /// assert!(policy.stage("merge").marking);
    /// assert!(!policy.stage("Merge").marking, "another stage: the reaper asks for none of its marks");
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn marking_stage(self, stage: impl Into<Box<str>>) -> Self {
        self.stage(stage, StageRules::marking())
    }

    /// Adds several stages whose monitors mark, each as by [`marking_stage`](Self::marking_stage).
    ///
    /// [`PolicyBuilder`] has an example.
    pub fn marking_stages(self, stages: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        stages.into_iter().fold(self, Self::marking_stage)
    }

    /// Declares that no stage's monitors mark. The reaper then consults the registry for no job.
    ///
    /// ```
    /// use livemark::{Policy, PolicyError};
    ///
    /// assert_eq!(Policy::builder().no_backstop().build(), Err(PolicyError::NoMarkingStages), "by oversight?");
    /// let policy = Policy::builder().no_backstop().no_marking_stages().build()?; // no
    /// assert_eq!(policy.marking_stages().next(), None);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn no_marking_stages(mut self) -> Self {
        self.given.no_marking_stages = true;
        self
    }

    /// Adds a stage with rules of its own. A limit that the rules leave open is that of the whole policy.
    ///
    /// ```
    /// use std::time::Duration;
    /// use livemark::{Policy, StageRules};
    ///
    /// let day = Duration::from_secs(24 * 3600);
    /// let policy = Policy::builder()
    ///     .hard_deadline(Duration::from_secs(3600))
    ///     .stage("migrate", StageRules::marking().hard_deadline(day))
    ///     .build()?;
    /// assert_eq!(policy.stage("migrate").hard_deadline, Some(day));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn stage(mut self, stage: impl Into<Box<str>>, rules: StageRules) -> Self {
        self.given.stages.push((stage.into(), rules));
        self
    }

    /// Builds the policy.
    ///
    /// # Errors
    ///
    /// Returns a [`PolicyError`] for settings that cannot work, in the whole policy or in a stage:
    ///
    /// - neither or both of `hard_deadline` and `no_backstop`
    /// - neither or both of marking stages and `no_marking_stages`, in every mode
    /// - a limit of zero
    /// - a `finalize_grace`, `lost_grace`, `boot_grace` or `stale_after` at or above the `hard_deadline` of its stage,
    ///   also if the limit is a default or inherited (but a stage that does not mark may inherit any `stale_after`)
    /// - a stage given twice
    ///
    /// ```
    /// use std::time::Duration;
    /// use livemark::{Policy, PolicyError};
    ///
    /// let error = Policy::builder().hard_deadline(Duration::from_secs(60)).marking_stage("merge").build().unwrap_err();
    /// assert!(matches!(error, PolicyError::NeverActs { setting: "finalize_grace", .. }));
    /// assert_eq!(
    ///     error.to_string(),
    ///     "hard_deadline (60s) must be longer than finalize_grace (300s): the backstop would act first",
    /// );
    /// ```
    pub fn build(self) -> Result<Policy, PolicyError> {
        let Self { given, inherited } = self;
        // The limits of the whole policy.
        let rules = given.defaults.or(&inherited.defaults);
        let defaults = rules.resolve_defaults()?;

        // No stage is given twice.
        let mut stages = given.stages;
        stages.sort_by(|(name, _), (other, _)| name.cmp(other));
        let pairs = stages.iter().zip(stages.iter().skip(1));
        if let Some((twice, _)) = pairs.map(|(one, next)| (&one.0, &next.0)).find(|(one, next)| one == next) {
            return Err(PolicyError::StageGivenTwice { stage: twice.clone() });
        }

        // Of marking stages and `no_marking_stages`, what was given replaces what was inherited.
        let marking = stages.iter().find(|(_, rules)| rules.marking);
        if let (Some((stage, _)), true) = (marking, given.no_marking_stages) {
            return Err(PolicyError::MarkingAndNoMarkingStages { stage: stage.clone() });
        }
        let may_mark_none = given.no_marking_stages || inherited.no_marking_stages;

        // The inherited stages that were not given again stay.
        let mut others = inherited.stages;
        others.retain(|(name, _)| stages.binary_search_by(|(given, _)| given.cmp(name)).is_err());
        if given.no_marking_stages {
            for (_, rules) in &mut others {
                rules.marking = false;
            }
        }
        stages.append(&mut others);
        stages.sort_by(|(name, _), (other, _)| name.cmp(other));
        if !may_mark_none && !stages.iter().any(|(_, rules)| rules.marking) {
            return Err(PolicyError::NoMarkingStages);
        }

        // The limits of each stage, from its own rules and those of the whole policy.
        let stages = stages.into_iter().map(|(name, own)| {
            let limits = own.resolve_stage(&name, &rules)?;
            Ok(Stage { name, limits, rules: own })
        });
        let stages = stages.collect::<Result<_, _>>()?;
        Ok(Policy { mode: given.mode.or(inherited.mode).unwrap_or_default(), defaults, stages, rules })
    }
}
