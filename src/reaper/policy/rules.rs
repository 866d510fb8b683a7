//! What is said of one stage, or of all: [`StageRules`]; and how the two are settled to limits.

use std::time::Duration;

use super::{Limits, PolicyError};

const DEFAULT_FINALIZE_GRACE: Duration = Duration::from_secs(300);
const DEFAULT_LOST_GRACE: Duration = Duration::from_secs(60);

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
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, StageRules};
    ///
    /// let rules = StageRules::new().finalize_grace(Duration::from_secs(30)); // dead means past the grace, mark or no mark
    /// let policy = Policy::builder().no_backstop().stage("external", rules).build()?;
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a stage whose monitors mark.
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
        Self { marks: true, ..Self::default() }
    }

    /// As [`PolicyBuilder::finalize_grace`](crate::PolicyBuilder::finalize_grace), for this stage.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, StageRules};
    ///
    /// let rules = StageRules::marking().finalize_grace(Duration::from_secs(900));
    /// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).stage("deploy", rules).build()?;
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn finalize_grace(self, grace: Duration) -> Self {
        Self { finalize_grace: Some(grace), ..self }
    }

    /// As [`PolicyBuilder::lost_grace`](crate::PolicyBuilder::lost_grace), for this stage.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, StageRules};
    ///
    /// let rules = StageRules::marking().lost_grace(Duration::from_secs(300));
    /// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).stage("deploy", rules).build()?;
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn lost_grace(self, grace: Duration) -> Self {
        Self { lost_grace: Some(grace), ..self }
    }

    /// As [`PolicyBuilder::hard_deadline`](crate::PolicyBuilder::hard_deadline), for this stage.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, StageRules};
    ///
    /// let rules = StageRules::marking().hard_deadline(Duration::from_secs(4 * 3600));
    /// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).stage("deploy", rules).build()?;
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn hard_deadline(self, deadline: Duration) -> Self {
        Self { hard_deadline: Some(deadline), ..self }
    }

    /// As [`PolicyBuilder::no_backstop`](crate::PolicyBuilder::no_backstop), for this stage.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, StageRules};
    ///
    /// let rules = StageRules::marking().no_backstop();
    /// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).stage("deploy", rules).build()?;
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn no_backstop(self) -> Self {
        Self { no_backstop: true, ..self }
    }

    /// As [`PolicyBuilder::boot_grace`](crate::PolicyBuilder::boot_grace), for this stage.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, StageRules};
    ///
    /// let rules = StageRules::marking().boot_grace(Duration::from_secs(120));
    /// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).stage("deploy", rules).build()?;
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn boot_grace(self, grace: Duration) -> Self {
        Self { boot_grace: Some(grace), ..self }
    }

    /// As [`PolicyBuilder::stale_after`](crate::PolicyBuilder::stale_after), for this stage.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use livemark::{Policy, StageRules};
    ///
    /// let rules = StageRules::marking().stale_after(Duration::from_secs(600));
    /// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).stage("deploy", rules).build()?;
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn stale_after(self, limit: Duration) -> Self {
        Self { stale_after: Some(limit), ..self }
    }

    /// These rules with what they leave open taken from `fallback`, checked.
    pub(super) fn settle(&self, stage: Option<&str>, fallback: &Self) -> Result<Limits, PolicyError> {
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
