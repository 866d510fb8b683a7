//! How far a reaper trusts the registry: [`Mode`].

use std::fmt;
use std::str::FromStr;

/// How far a reaper trusts the registry, and if it acts at all.
///
/// | mode | a job that looks dead (lost, or finished) | deadline | registry |
/// |---|---|---|---|
/// | `Honor` | defers to a live owner, and claims other jobs to act on them | acts, displaces the owner | read and written |
/// | `Ignore` | acts, owned or not | acts | neither read nor written |
/// | `DeferAll` | defers, owned or not | acts, displaces the owner | read, written by the deadline |
/// | `DryRun` | says what `Honor` would do | says so only | read |
///
/// A [`boot_grace`](crate::PolicyBuilder::boot_grace) defers jobs that look dead in every mode.
/// [`Sweep::judge`](super::Sweep::judge) has the whole table of decisions.
///
/// A mode as text (`Display`, [`FromStr`], `serde`) is `honor`, `ignore`, `defer_all` or `dry_run`.
///
/// ```
/// use livemark::Mode;
///
/// assert_eq!("defer_all".parse(), Ok(Mode::DeferAll));
/// assert_eq!(Mode::default().to_string(), "honor");
/// assert!("defer".parse::<Mode>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The reaper defers to a live owner until the deadline.
    #[default]
    Honor,
    /// The reaper behaves as if no registry existed, and neither reads nor writes it. This is the bypass: live
    /// finalizers are redriven. [`DeferAll`](Self::DeferAll) is the brake.
    Ignore,
    /// The reaper leaves every job alone that looks dead, owned or not, until the deadline. This is the safe brake
    /// while nobody knows whether marks can be trusted.
    DeferAll,
    /// The reaper says what [`Honor`](Self::Honor) would do, as `Verdict::DryRun(Proposed)`, and does nothing. Such a
    /// verdict carries no claim and cannot be acted on.
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

/// An error for a text that names no [`Mode`].
///
/// ```
/// let error = "defer".parse::<livemark::Mode>().unwrap_err();
/// assert_eq!(error.to_string(), "\"defer\" is not a mode: one of honor, ignore, defer_all, dry_run");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseModeError(Box<str>);

impl FromStr for Mode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, ParseModeError> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| ParseModeError(text.into()))
    }
}

impl fmt::Display for ParseModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a mode: one of honor, ignore, defer_all, dry_run", self.0)
    }
}

impl std::error::Error for ParseModeError {}

#[cfg(feature = "serde")]
impl serde::Serialize for Mode {
    fn serialize<T: serde::Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Reads a mode from text only: a derived enum also takes the map `{"honor": null}`.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Mode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl serde::de::Visitor<'_> for Text {
            type Value = Mode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mode: one of honor, ignore, defer_all, dry_run")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Mode, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}
