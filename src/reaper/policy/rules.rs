//! What was given for one stage, or for all: [`StageRules`].

use std::time::Duration;

use super::error::PolicyError;
use super::limits::StageLimits;

const DEFAULT_FINALIZE_GRACE: Duration = Duration::from_secs(300);
const DEFAULT_LOST_GRACE: Duration = Duration::from_secs(60);
const DEFAULT_MAX_REDRIVES: u32 = 3;

/// The rules of one stage: if its monitors mark, and the limits in which it differs from the policy.
///
/// Each setter does for this stage what the setter of [`PolicyBuilder`](crate::PolicyBuilder) does for all. A limit that
/// the rules leave open is that of the whole policy.
///
/// ```
/// use std::time::Duration;
/// use livemark::{Policy, StageRules};
///
/// let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
/// let policy = Policy::builder()
///     .hard_deadline(hour)
///     // These monitors are not ours and never mark: dead means past the grace.
///     .stage("external", StageRules::new().finalize_grace(Duration::from_secs(30)).max_redrives(0))
///     .stage("migrate", StageRules::marking().no_backstop().stale_after(Duration::from_secs(600)))
///     .stage("deploy", StageRules::marking().hard_deadline(day).lost_grace(hour).boot_grace(hour))
///     .build()?;
/// assert_eq!(policy.stage("external").finalize_grace, Duration::from_secs(30));
/// assert_eq!(policy.stage("migrate").hard_deadline, None);
/// assert_eq!(policy.stage("deploy").hard_deadline, Some(day));
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "rules do nothing until a policy is built with them"]
pub struct StageRules {
    pub(super) marking: bool,
    pub(super) finalize_grace: Option<Duration>,
    pub(super) lost_grace: Option<Duration>,
    pub(super) hard_deadline: Option<Duration>,
    pub(super) no_backstop: bool,
    pub(super) max_redrives: Option<u32>,
    pub(super) boot_grace: Option<Duration>,
    pub(super) stale_after: Option<Duration>,
}

impl StageRules {
    /// Creates the rules of a stage whose monitors do not mark. The reaper consults the registry for none of its jobs.
    ///
    /// ```
    /// use livemark::{Policy, StageRules};
    ///
    /// let policy = Policy::builder().no_backstop().marking_stage("merge").stage("external", StageRules::new()).build()?;
    /// assert!(!policy.stage("external").marking);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the rules of a stage whose monitors mark.
    ///
    /// ```
    /// use livemark::{Policy, StageRules};
    ///
    /// let one = Policy::builder().no_backstop().stage("merge", StageRules::marking()).build()?;
    /// let other = Policy::builder().no_backstop().marking_stage("merge").build()?;
    /// assert_eq!(one, other);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn marking() -> Self {
        Self { marking: true, ..Self::default() }
    }

    /// Sets the stage's own [`finalize_grace`](crate::PolicyBuilder::finalize_grace). [`StageRules`] has an example.
    pub fn finalize_grace(self, grace: Duration) -> Self {
        Self { finalize_grace: Some(grace), ..self }
    }

    /// Sets the stage's own [`lost_grace`](crate::PolicyBuilder::lost_grace). [`StageRules`] has an example.
    pub fn lost_grace(self, grace: Duration) -> Self {
        Self { lost_grace: Some(grace), ..self }
    }

    /// Sets the stage's own [`hard_deadline`](crate::PolicyBuilder::hard_deadline), which also replaces the policy's
    /// `no_backstop`. [`StageRules`] has an example.
    pub fn hard_deadline(self, deadline: Duration) -> Self {
        Self { hard_deadline: Some(deadline), ..self }
    }

    /// Declares that the stage has [`no_backstop`](crate::PolicyBuilder::no_backstop), whatever the policy's deadline.
    /// [`StageRules`] has an example.
    pub fn no_backstop(self) -> Self {
        Self { no_backstop: true, ..self }
    }

    /// Sets the stage's own [`max_redrives`](crate::PolicyBuilder::max_redrives). [`StageRules`] has an example.
    pub fn max_redrives(self, redrives: u32) -> Self {
        Self { max_redrives: Some(redrives), ..self }
    }

    /// Sets the stage's own [`boot_grace`](crate::PolicyBuilder::boot_grace). [`StageRules`] has an example.
    pub fn boot_grace(self, grace: Duration) -> Self {
        Self { boot_grace: Some(grace), ..self }
    }

    /// Sets the stage's own [`stale_after`](crate::PolicyBuilder::stale_after). [`StageRules`] has an example.
    pub fn stale_after(self, limit: Duration) -> Self {
        Self { stale_after: Some(limit), ..self }
    }

    /// Takes the limits that these rules leave open from `fallback`. The two settings of the backstop count as one.
    pub(super) fn or(&self, fallback: &Self) -> Self {
        let gives_backstop = self.no_backstop || self.hard_deadline.is_some();
        let backstop = if gives_backstop { self } else { fallback };
        Self {
            marking: self.marking,
            finalize_grace: self.finalize_grace.or(fallback.finalize_grace),
            lost_grace: self.lost_grace.or(fallback.lost_grace),
            hard_deadline: backstop.hard_deadline,
            no_backstop: backstop.no_backstop,
            max_redrives: self.max_redrives.or(fallback.max_redrives),
            boot_grace: self.boot_grace.or(fallback.boot_grace),
            stale_after: self.stale_after.or(fallback.stale_after),
        }
    }

    /// Resolves and checks the limits of the whole policy.
    pub(super) fn resolve_defaults(&self) -> Result<StageLimits, PolicyError> {
        self.resolve(None, self.stale_after)
    }

    /// Resolves and checks the limits of a stage with these rules, in a policy with these defaults.
    pub(super) fn resolve_stage(&self, stage: &str, defaults: &Self) -> Result<StageLimits, PolicyError> {
        // In a stage that does not mark nobody asks for owners, so an inherited limit does no harm there.
        let stale_after = if self.marking { self.stale_after.or(defaults.stale_after) } else { self.stale_after };
        self.or(defaults).resolve(Some(stage), stale_after)
    }

    /// Fills in the defaults, and checks each limit. The deadline is compared with `stale_after`, not with the rules' own.
    fn resolve(&self, stage: Option<&str>, stale_after: Option<Duration>) -> Result<StageLimits, PolicyError> {
        let in_stage = || stage.map(Box::from);

        // Exactly one of the backstop's two settings.
        let hard_deadline = match (self.hard_deadline, self.no_backstop) {
            (Some(_), true) => return Err(PolicyError::DeadlineAndNoBackstop { stage: in_stage() }),
            (None, false) => return Err(PolicyError::NoDeadline),
            (deadline, _) => deadline,
        };
        let limits = StageLimits {
            marking: self.marking,
            finalize_grace: self.finalize_grace.unwrap_or(DEFAULT_FINALIZE_GRACE),
            lost_grace: self.lost_grace.unwrap_or(DEFAULT_LOST_GRACE),
            hard_deadline,
            max_redrives: self.max_redrives.unwrap_or(DEFAULT_MAX_REDRIVES),
            boot_grace: self.boot_grace,
            stale_after: self.stale_after,
        };

        // A limit of zero would act on every job.
        let zero = |limit: Option<Duration>| limit == Some(Duration::ZERO);
        let settings = [
            ("finalize_grace", Some(limits.finalize_grace)),
            ("lost_grace", Some(limits.lost_grace)),
            ("hard_deadline", hard_deadline),
            ("boot_grace", limits.boot_grace),
            ("stale_after", limits.stale_after),
        ];
        if let Some((setting, _)) = settings.into_iter().find(|(_, limit)| zero(*limit)) {
            return Err(PolicyError::Zero { setting, stage: in_stage() });
        }

        // A limit that is not below the deadline would never act.
        let bounded = [
            ("finalize_grace", Some(limits.finalize_grace)),
            ("lost_grace", Some(limits.lost_grace)),
            ("boot_grace", limits.boot_grace),
            ("stale_after", stale_after),
        ];
        if let Some(hard_deadline) = hard_deadline {
            let late = |(setting, limit): (&'static str, Option<Duration>)| {
                Some((setting, limit.filter(|limit| *limit >= hard_deadline)?))
            };
            if let Some((setting, limit)) = bounded.into_iter().find_map(late) {
                return Err(PolicyError::NeverActs { setting, limit, hard_deadline, stage: in_stage() });
            }
        }
        Ok(limits)
    }
}
