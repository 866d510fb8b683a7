//! What threads call, and what they are answered.

use std::fmt;

/// How many jobs a history has.
pub(crate) const JOBS: usize = 3;

/// A number that tells marks apart: the registry's generation.
pub(crate) type Generation = u64;
/// The context of a mark.
pub(crate) type Value = u64;
/// Who owns each job.
pub(crate) type Owners = [Option<(Generation, Value)>; JOBS];

/// A call, of the job of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Mark(usize, Value),
    TryMark(usize, Value),
    /// `clear` of a guard.
    Release(usize, Generation),
    /// Drop of a guard, which says nothing.
    Drop(usize, Generation),
    Replace(usize, Generation, Value),
    IsCurrent(usize, Generation),
    Clear(usize),
    ClearGeneration(usize, Generation),
    IsActive(usize),
    Owner(usize),
    Snapshot,
}

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Marked(Generation),
    Refused(Generation, Value),
    Said(bool),
    Nothing,
    Owner(Option<(Generation, Value)>),
    /// The jobs of the history, and how many others there were.
    Snapshot(Owners, usize),
    /// A snapshot that was not of one instant, as it said.
    Torn,
}

impl Call {
    /// The job it is about; none if about all.
    pub(crate) fn job(&self) -> Option<usize> {
        match *self {
            Self::Mark(job, _)
            | Self::TryMark(job, _)
            | Self::Release(job, _)
            | Self::Drop(job, _)
            | Self::Replace(job, ..)
            | Self::IsCurrent(job, _)
            | Self::Clear(job)
            | Self::ClearGeneration(job, _)
            | Self::IsActive(job)
            | Self::Owner(job) => Some(job),
            Self::Snapshot => None,
        }
    }

    /// Returns `true` if it left everything as it was, by its answer. (A guard's drop does not tell.)
    pub(crate) fn changed_nothing(&self, answer: &Answer) -> bool {
        match self {
            Self::IsCurrent(..) | Self::IsActive(_) | Self::Owner(_) | Self::Snapshot => true,
            Self::Mark(..) | Self::Drop(..) => false,
            _ => matches!(answer, Answer::Refused(..) | Answer::Said(false)),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark(job, value) => write!(f, "mark({job}, {value})"),
            Self::TryMark(job, value) => write!(f, "try_mark({job}, {value})"),
            Self::Release(job, generation) => write!(f, "guard {generation} of {job}: clear"),
            Self::Drop(job, generation) => write!(f, "guard {generation} of {job}: drop"),
            Self::Replace(job, generation, value) => write!(f, "guard {generation} of {job}: replace({value})"),
            Self::IsCurrent(job, generation) => write!(f, "guard {generation} of {job}: is_current"),
            Self::Clear(job) => write!(f, "clear({job})"),
            Self::ClearGeneration(job, generation) => write!(f, "clear_generation({job}, {generation})"),
            Self::IsActive(job) => write!(f, "is_active({job})"),
            Self::Owner(job) => write!(f, "owner({job})"),
            Self::Snapshot => f.write_str("snapshot"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Marked(generation) => write!(f, "generation {generation}"),
            Self::Refused(generation, value) => write!(f, "refused: generation {generation}, {value}"),
            Self::Said(said) => write!(f, "{said}"),
            Self::Nothing => f.write_str("()"),
            Self::Owner(None) => f.write_str("none"),
            Self::Owner(Some((generation, value))) => write!(f, "generation {generation}, {value}"),
            Self::Torn => f.write_str("not atomic"),
            Self::Snapshot(owners, others) => {
                for (job, owner) in owners.iter().enumerate() {
                    if let Some((generation, value)) = owner {
                        write!(f, "{job}: generation {generation}, {value}; ")?;
                    }
                }
                write!(f, "{others} others")
            }
        }
    }
}
