//! What a reaper is allowed to do, and when: [`Policy`]. A policy that exists can work: its builder refuses any other.

mod builder;
mod error;
mod rules;
#[cfg(feature = "serde")]
mod settings;

use std::time::Duration;

pub use self::builder::PolicyBuilder;
pub use self::error::PolicyError;
pub use self::rules::StageRules;

use super::Mode;

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
    ///
    /// ```
    /// use livemark::{Policy, PolicyError};
    ///
    /// assert_eq!(Policy::builder().build(), Err(PolicyError::NoDeadline));
    /// assert!(Policy::builder().no_backstop().build().is_ok());
    /// ```
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder::default()
    }

    /// The mode this policy is for.
    ///
    /// ```
    /// use livemark::{Mode, Policy};
    ///
    /// let policy = Policy::builder().mode(Mode::DryRun).no_backstop().build()?;
    /// assert_eq!(policy.mode(), Mode::DryRun);
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
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
