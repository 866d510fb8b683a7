//! What a builder refuses: [`PolicyError`].

use std::fmt;
use std::time::Duration;

/// Why a [`Policy`](crate::Policy) cannot work. Names the stage, where it is one's own rules, and the settings at odds.
///
/// ```
/// use std::time::Duration;
/// use livemark::{Policy, PolicyError, StageRules};
///
/// let impatient = StageRules::marking().hard_deadline(Duration::from_secs(60));
/// let error = Policy::builder().hard_deadline(Duration::from_secs(3600)).stage("deploy", impatient).build().unwrap_err();
/// assert!(matches!(&error, PolicyError::DeadlineWithinGrace { stage: Some(stage), .. } if **stage == *"deploy"));
/// assert_eq!(
///     error.to_string(),
///     "stage \"deploy\": hard_deadline (60s) must be longer than finalize_grace (300s): the backstop would act first",
/// );
/// ```
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
