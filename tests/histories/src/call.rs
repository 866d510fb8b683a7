//! What threads call, and what they are answered.

use std::sync::Arc;

/// How many jobs a history may touch: the first so many.
pub(crate) const TOUCHED: usize = 3;
/// How many jobs a history has, with the neighbours in the slot that nobody touches.
pub(crate) const JOBS: usize = TOUCHED + 9;

/// A number that tells marks apart: the registry's generation.
pub(crate) type Generation = u64;
/// The context of a mark, as a number.
pub(crate) type Value = u64;
/// Who owns a job.
pub(crate) type Mark = (Generation, Value);
/// Who owns each job.
pub(crate) type Owners = [Option<Mark>; JOBS];

/// Which operation a call is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mark,
    TryMark,
    /// `clear` of a guard.
    Release,
    /// Drop of a guard, which says nothing.
    Drop,
    Replace,
    IsCurrent,
    Clear,
    ClearGeneration,
    IsActive,
    Owner,
    ReaderIsActive,
    ReaderOwner,
    Snapshot,
    /// A snapshot when all threads are done, which has to be of one instant.
    Last,
}

impl Kind {
    pub(crate) const COUNT: usize = Self::Last as usize + 1;

    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::Mark,
        Self::TryMark,
        Self::Release,
        Self::Drop,
        Self::Replace,
        Self::IsCurrent,
        Self::Clear,
        Self::ClearGeneration,
        Self::IsActive,
        Self::Owner,
        Self::ReaderIsActive,
        Self::ReaderOwner,
        Self::Snapshot,
        Self::Last,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::TryMark => "try_mark",
            Self::Release => "guard.clear",
            Self::Drop => "guard dropped",
            Self::Replace => "guard.replace",
            Self::IsCurrent => "guard.is_current",
            Self::Clear => "clear",
            Self::ClearGeneration => "clear_generation",
            Self::IsActive => "is_active",
            Self::Owner => "owner",
            Self::ReaderIsActive => "reader.is_active",
            Self::ReaderOwner => "reader.owner",
            Self::Snapshot => "snapshot",
            Self::Last => "snapshot, at last",
        }
    }

    /// Whether it is about all jobs.
    pub(crate) fn is_of_all(self) -> bool {
        matches!(self, Self::Snapshot | Self::Last)
    }

    /// Whether it only reads.
    pub(crate) fn is_look(self) -> bool {
        use Kind::{IsActive, IsCurrent, Last, Owner, ReaderIsActive, ReaderOwner, Snapshot};
        matches!(self, IsCurrent | IsActive | Owner | ReaderIsActive | ReaderOwner | Snapshot | Last)
    }
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    /// The number of the job that it is about; of snapshots it says nothing.
    pub(crate) job: usize,
    /// The guard's, or the one that was given; 0 where there is none.
    pub(crate) generation: Generation,
    /// The one that was given; 0 where there is none.
    pub(crate) value: Value,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Marked(Generation),
    /// Who the owner was, and the value given back.
    Refused(Mark, Value),
    Said(bool),
    Nothing,
    Owner(Option<Mark>),
    /// The jobs that were marked, in their order. One that is not of the history has the number [`JOBS`].
    Snapshot(Arc<[(usize, Mark)]>),
    /// A snapshot that was not of one instant, as it said.
    Torn,
}

impl Call {
    /// Whether it left everything as it was, by its answer. (Of a guard's drop that cannot be told.)
    pub(crate) fn changed_nothing(&self, answer: &Answer) -> bool {
        self.kind.is_look() || matches!(answer, Answer::Refused(..) | Answer::Said(false))
    }
}
