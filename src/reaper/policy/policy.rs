//! The policy itself: [`Policy`], the mode and the limits in force in each stage.

use std::fmt;
use std::time::Duration;

use super::limits::StageLimits;
use super::rules::StageRules;
use crate::reaper::mode::Mode;

/// A reaper's mode and its limits in each stage. A policy never changes.
/// [`Reaper::set_policy`](crate::Reaper::set_policy) puts another one in its place.
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
/// Two policies are equal if their modes, the names of their stages and all limits in force are equal. It makes no
/// difference which limits a stage was given and which it inherited.
///
/// # Settings files
///
/// With the feature `serde` a policy can be part of a settings file or of a request. The keys are the builder's
/// setters, durations are in seconds, and the builder's checks apply:
///
/// ```
/// # #[cfg(feature = "serde")] {
/// let settings = r#"
///     mode = "honor"
///     finalize_grace = 300
///     hard_deadline = 3600
///     marking_stages = ["gates", "merge"]
///
///     [stages]
///     deploy = { marking = true, hard_deadline = 14400 }
///     external = { max_redrives = 0 }
/// "#;
/// let policy: livemark::Policy = toml::from_str(settings).unwrap();
/// # assert_eq!(policy, livemark::Policy::builder()
/// #     .hard_deadline(std::time::Duration::from_secs(3600))
/// #     .marking_stages(["gates", "merge"])
/// #     .stage("deploy", livemark::StageRules::marking().hard_deadline(std::time::Duration::from_secs(14400)))
/// #     .stage("external", livemark::StageRules::new().max_redrives(0))
/// #     .build().unwrap());
/// # }
/// ```
///
/// - `no_backstop` and `no_marking_stages` are `true` or `false`. `false` means the same as no key, and so does a limit
///   of `null`.
/// - `marking_stage` takes one name. `stage` is another word for `stages`, and `marks` for `marking`.
/// - A duration may also be `{ secs, nanos }`, as serde has it.
/// - Unknown and duplicate keys are refused, and so is a list in the place of a map.
/// - A policy is written with all limits in force, in each stage, and is read back as an equal one. TOML has no integer
///   for a limit of 2<sup>63</sup> seconds or more, and refuses to write it.
///
/// Give the policy a key of its own in a larger file. In a `#[serde(flatten)]` field serde gives a struct only the keys
/// that it knows, and **a misspelled setting vanishes**. `#[serde(deny_unknown_fields)]` on the struct *around* the
/// policy refuses the setting there, although serde does not promise this. Never flatten an `Option<Policy>`, because
/// serde makes `None` of a policy that is refused.
#[derive(Clone)]
pub struct Policy {
    pub(super) mode: Mode,
    /// The limits in every stage that has no rules of its own.
    pub(super) defaults: StageLimits,
    /// Sorted by name, each once. Stages are few, so a search in order is as good as any.
    pub(super) stages: Vec<Stage>,
    /// The settings that the defaults were made from.
    pub(super) rules: StageRules,
}

#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) name: Box<str>,
    pub(super) limits: StageLimits,
    /// The settings that the limits were made from.
    pub(super) rules: StageRules,
}

impl Policy {
    /// Returns the same limits in another mode. A kill switch does this.
    ///
    /// ```
    /// use livemark::{Mode, Policy};
    ///
    /// let policy = Policy::builder().no_backstop().marking_stage("merge").build()?;
    /// assert_eq!(policy.mode(), Mode::Honor);
    /// assert_eq!(policy.with_mode(Mode::Ignore).mode(), Mode::Ignore);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn with_mode(&self, mode: Mode) -> Self {
        Self { mode, ..self.clone() }
    }

    /// Returns the mode.
    ///
    /// ```
    /// use livemark::{Mode, Policy};
    ///
    /// let policy = Policy::builder().mode(Mode::DryRun).no_backstop().marking_stage("merge").build()?;
    /// assert_eq!(policy.mode(), Mode::DryRun);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns the policy's [`finalize_grace`](crate::PolicyBuilder::finalize_grace), which a stage may replace.
    /// [`PolicyBuilder`](crate::PolicyBuilder) has an example.
    #[must_use]
    pub fn finalize_grace(&self) -> Duration {
        self.defaults.finalize_grace
    }

    /// Returns the policy's [`lost_grace`](crate::PolicyBuilder::lost_grace), which a stage may replace.
    /// [`PolicyBuilder`](crate::PolicyBuilder) has an example.
    #[must_use]
    pub fn lost_grace(&self) -> Duration {
        self.defaults.lost_grace
    }

    /// Returns the policy's [`hard_deadline`](crate::PolicyBuilder::hard_deadline), which a stage may replace. Returns `None`
    /// for a policy with [`no_backstop`](crate::PolicyBuilder::no_backstop). [`PolicyBuilder`](crate::PolicyBuilder) has
    /// an example.
    #[must_use]
    pub fn hard_deadline(&self) -> Option<Duration> {
        self.defaults.hard_deadline
    }

    /// Returns the policy's [`max_redrives`](crate::PolicyBuilder::max_redrives), which a stage may replace.
    /// [`PolicyBuilder`](crate::PolicyBuilder) has an example.
    #[must_use]
    pub fn max_redrives(&self) -> u32 {
        self.defaults.max_redrives
    }

    /// Returns the policy's [`boot_grace`](crate::PolicyBuilder::boot_grace), which a stage may replace.
    /// [`PolicyBuilder`](crate::PolicyBuilder) has an example.
    #[must_use]
    pub fn boot_grace(&self) -> Option<Duration> {
        self.defaults.boot_grace
    }

    /// Returns the policy's [`stale_after`](crate::PolicyBuilder::stale_after), which a stage may replace.
    /// [`PolicyBuilder`](crate::PolicyBuilder) has an example.
    #[must_use]
    pub fn stale_after(&self) -> Option<Duration> {
        self.defaults.stale_after
    }

    /// Returns the names of the stages whose monitors mark, sorted. A policy with
    /// [`no_marking_stages`](crate::PolicyBuilder::no_marking_stages) has none.
    ///
    /// ```
    /// use livemark::{Policy, StageRules};
    ///
    /// let policy = Policy::builder().no_backstop().marking_stage("merge").stage("build", StageRules::new()).build()?;
    /// assert!(policy.marking_stages().eq(["merge"]));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn marking_stages(&self) -> impl Iterator<Item = &str> {
        self.stages().filter(|(_, limits)| limits.marking).map(|(stage, _)| stage)
    }

    /// Returns the stages that were given, sorted by name, with the limits in force there.
    ///
    /// ```
    /// use livemark::{Policy, StageRules};
    ///
    /// let policy = Policy::builder().no_backstop().marking_stage("merge").stage("build", StageRules::new()).build()?;
    /// let marking: Vec<_> = policy.stages().map(|(stage, limits)| (stage, limits.marking)).collect();
    /// assert_eq!(marking, [("build", false), ("merge", true)]);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn stages(&self) -> impl Iterator<Item = (&str, &StageLimits)> {
        self.stages.iter().map(|stage| (&*stage.name, &stage.limits))
    }

    /// Returns the limits in force in a stage. A stage that was not given has those of the whole policy, and its monitors
    /// do not mark.
    ///
    /// ```
    /// use livemark::{Policy, StageRules};
    ///
    /// let policy = Policy::builder()
    ///     .no_backstop()
    ///     .max_redrives(5)
    ///     .stage("merge", StageRules::marking().max_redrives(1))
    ///     .build()?;
    /// assert_eq!((policy.stage("merge").marking, policy.stage("merge").max_redrives), (true, 1));
    /// assert_eq!((policy.stage("other").marking, policy.stage("other").max_redrives), (false, 5));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn stage(&self, name: &str) -> &StageLimits {
        self.stages.iter().find(|stage| *stage.name == *name).map_or(&self.defaults, |stage| &stage.limits)
    }

    /// Returns the least of each limit that calls for an act. A job within these is within the limits of its stage.
    pub(in crate::reaper) fn strictest(&self) -> StageLimits {
        self.stages.iter().fold(self.defaults, |strictest, stage| StageLimits {
            finalize_grace: strictest.finalize_grace.min(stage.limits.finalize_grace),
            lost_grace: strictest.lost_grace.min(stage.limits.lost_grace),
            hard_deadline: strictest.hard_deadline.into_iter().chain(stage.limits.hard_deadline).min(),
            ..strictest
        })
    }

    /// Returns each limit that a pause of the reaper matters to, once: each `boot_grace`, and each `stale_after`.
    pub(in crate::reaper) fn graces(&self) -> Vec<Duration> {
        let limits = self.stages.iter().map(|stage| &stage.limits).chain([&self.defaults]);
        let mut graces: Vec<_> = limits.flat_map(|limits| [limits.boot_grace, limits.stale_after]).flatten().collect();
        graces.sort_unstable();
        graces.dedup();
        graces
    }
}

/// Compares the limits in force, not the settings that they were made from.
impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.mode == other.mode && self.defaults == other.defaults && self.stages().eq(other.stages())
    }
}

impl Eq for Policy {}

/// Shows the limits in force, not the settings that they were made from.
impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Stages<'a>(&'a Policy);

        impl fmt::Debug for Stages<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_map().entries(self.0.stages()).finish()
            }
        }

        f.debug_struct("Policy")
            .field("mode", &self.mode)
            .field("defaults", &self.defaults)
            .field("stages", &Stages(self))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_strictest_limits_are_those_of_any_stage_or_of_none() {
        let policy = Policy::builder()
            .finalize_grace(seconds(300))
            .lost_grace(seconds(60))
            .no_backstop()
            .stage("a", StageRules::marking().finalize_grace(seconds(200)).hard_deadline(seconds(5000)))
            .stage("b", StageRules::new().lost_grace(seconds(50)).hard_deadline(seconds(4000)))
            .stage("c", StageRules::new().finalize_grace(seconds(900)).lost_grace(seconds(900)))
            .build()
            .unwrap();
        let strictest = policy.strictest();
        assert_eq!((strictest.finalize_grace, strictest.lost_grace), (seconds(200), seconds(50)));
        assert_eq!(strictest.hard_deadline, Some(seconds(4000)));
        let patient =
            policy.to_builder().stage("a", StageRules::marking().finalize_grace(seconds(400))).build().unwrap();
        assert_eq!(patient.strictest().finalize_grace, seconds(300), "in a stage that was not given");
    }

    #[test]
    fn each_limit_that_a_pause_matters_to_is_listed_once() {
        let policy =
            Policy::builder().no_backstop().marking_stage("a").stage("b", StageRules::new().boot_grace(seconds(9)));
        assert_eq!(policy.clone().build().unwrap().graces(), [seconds(9)]);
        let policy = policy.stale_after(seconds(30)).stage("c", StageRules::new().boot_grace(seconds(30)));
        assert_eq!(policy.build().unwrap().graces(), [seconds(9), seconds(30)]);
    }
}
