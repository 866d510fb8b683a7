//! What a builder refuses: [`PolicyError`].

use std::fmt;
use std::time::Duration;

/// An error of settings that cannot work as a [`Policy`](crate::Policy), with the settings and the stage at odds.
///
/// Its `Debug` is its `Display`, because a `main` that returns the error shows its `Debug`.
///
/// ```
/// use std::time::Duration;
/// use livemark::{Policy, PolicyError, StageRules};
///
/// let impatient = StageRules::marking().hard_deadline(Duration::from_secs(60));
/// let error = Policy::builder().hard_deadline(Duration::from_secs(3600)).stage("deploy", impatient).build().unwrap_err();
/// assert!(matches!(&error, PolicyError::NeverActs { setting: "finalize_grace", stage: Some(stage), .. } if **stage == *"deploy"));
/// assert_eq!(
///     error.to_string(),
///     "stage \"deploy\": hard_deadline (60s) must be longer than finalize_grace (300s): the backstop would act first",
/// );
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// Neither `hard_deadline` nor `no_backstop` was given. Without a backstop, a finalizer that hangs holds its job
    /// forever, and a policy must ask for that.
    NoDeadline,
    /// Both `hard_deadline` and `no_backstop` were given.
    DeadlineAndNoBackstop {
        /// The stage whose rules contradict each other, or `None` for the whole policy.
        stage: Option<Box<str>>,
    },
    /// Neither marking stages nor `no_marking_stages` were given. Without a marking stage, the reaper redrives live
    /// finalizers, and a policy must ask for that.
    NoMarkingStages,
    /// Both a marking stage and `no_marking_stages` were given.
    MarkingAndNoMarkingStages {
        /// The first marking stage, by name.
        stage: Box<str>,
    },
    /// A limit is not shorter than the `hard_deadline` of its stage. The backstop would always act first.
    NeverActs {
        /// The name of the limit's setting.
        setting: &'static str,
        /// The limit in force there.
        limit: Duration,
        /// The deadline in force there.
        hard_deadline: Duration,
        /// The stage that this concerns, or `None` for the whole policy.
        stage: Option<Box<str>>,
    },
    /// A stage was given rules twice. The second rules would silently undo the first, their marking included.
    StageGivenTwice {
        /// The stage's name.
        stage: Box<str>,
    },
    /// A limit is zero, and every job would be past it at once. (A policy without a `boot_grace` leaves it out.)
    Zero {
        /// The name of the limit's setting.
        setting: &'static str,
        /// The stage that this concerns, or `None` for the whole policy.
        stage: Option<Box<str>>,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self {
            Self::NoDeadline | Self::NoMarkingStages | Self::MarkingAndNoMarkingStages { .. } => None,
            Self::StageGivenTwice { stage } => Some(stage),
            Self::DeadlineAndNoBackstop { stage } | Self::NeverActs { stage, .. } | Self::Zero { stage, .. } => {
                stage.as_ref()
            }
        };
        if let Some(stage) = stage {
            write!(f, "stage {stage:?}: ")?;
        }
        match self {
            Self::NoDeadline => f.write_str("neither hard_deadline nor no_backstop is given: choose one"),
            Self::DeadlineAndNoBackstop { .. } => {
                f.write_str("both hard_deadline and no_backstop are given: they contradict each other")
            }
            Self::NoMarkingStages => f.write_str("neither a marking stage nor no_marking_stages is given: choose one"),
            Self::MarkingAndNoMarkingStages { stage } => write!(
                f,
                "both a marking stage ({stage:?}) and no_marking_stages are given: they contradict each other",
            ),
            Self::NeverActs { setting, limit, hard_deadline, .. } => write!(
                f,
                "hard_deadline ({hard_deadline:?}) must be longer than {setting} ({limit:?}): \
                 the backstop would act first",
            ),
            Self::StageGivenTwice { .. } => f.write_str("is given twice: its rules contradict each other"),
            Self::Zero { setting: "boot_grace", .. } => f.write_str("boot_grace is zero: leave it out to have none"),
            Self::Zero { setting, .. } => write!(f, "{setting} is zero: every job would be past it at once"),
        }
    }
}

/// Shows the same as `Display`.
impl fmt::Debug for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for PolicyError {}
