//! How far a reaper trusts the registry: [`Mode`].

use std::fmt;
use std::str::FromStr;

/// How far a reaper trusts the registry, and whether it acts at all.
///
/// | mode | tiers 1 and 2 (worker lost, finished) | tier 3 (backstop) | registry |
/// |---|---|---|---|
/// | `Honor` | a live owner is deferred to, other jobs are claimed and acted on | acts, displaces the owner | read and written |
/// | `Ignore` | act | acts | neither read nor written |
/// | `DeferAll` | wait, owned or not | acts, displaces the owner | read; written by the backstop |
/// | `DryRun` | as `Honor`, not to be acted on | as `Honor`, not to be acted on | read |
///
/// A `boot_grace` holds tiers 1 and 2 back in every mode.
///
/// As text (`Display`, [`FromStr`], `serde`): `honor`, `ignore`, `defer_all`, `dry_run`.
///
/// ```
/// use livemark::Mode;
///
/// assert_eq!("defer_all".parse(), Ok(Mode::DeferAll));
/// assert_eq!(Mode::default().to_string(), "honor");
/// assert!("defer".parse::<Mode>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Mode {
    /// A live owner is deferred to, until the backstop.
    #[default]
    Honor,
    /// The kill switch: as if no registry existed. It is neither read nor written.
    Ignore,
    /// Whatever looks dead is left alone, owned or not; only the backstop acts. For the time in which nobody knows
    /// whether marks can be trusted.
    DeferAll,
    /// The verdicts of `Honor`, to be looked at and *not* acted on: no job is claimed, nothing is counted. A redrive or
    /// a reap has no claim here, just as in `Ignore`, so ask [`Sweep::policy`](super::Sweep::policy) for the mode
    /// before acting ([`Reaper::run`](super::Reaper::run) does).
    DryRun,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Honor, Self::Ignore, Self::DeferAll, Self::DryRun];

    fn as_str(self) -> &'static str {
        match self {
            Self::Honor => "honor",
            Self::Ignore => "ignore",
            Self::DeferAll => "defer_all",
            Self::DryRun => "dry_run",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no [`Mode`].
///
/// ```
/// let error = "defer".parse::<livemark::Mode>().unwrap_err();
/// assert_eq!(error.to_string(), "\"defer\" is not a mode: one of honor, ignore, defer_all, dry_run");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMode(Box<str>);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| UnknownMode(text.into()))
    }
}

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a mode: one of honor, ignore, defer_all, dry_run", self.0)
    }
}

impl std::error::Error for UnknownMode {}
