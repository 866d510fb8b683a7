//! What can go wrong, each with its own type.

use std::fmt;
use std::time::Duration;

use livemark::Owner;

use crate::config::ConfigError;
use crate::engine::EngineError;
use crate::mirror::Remote;

/// How a session, or a mark of it, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// The engine ended the session's lease.
    Expired,
    /// Somebody else took the mark, or an operator removed it.
    Displaced,
    /// The session was closed.
    Closed,
    /// One of the session's tasks panicked, in the code of a job id or a context.
    Panicked,
    /// The engine is at an earlier state than it was: it was restored. Bump its epoch, and open another session.
    Behind,
    /// The engine's epoch was changed, so that the session's tokens would be less than those of newer ones. Open another
    /// session.
    NewEpoch,
    /// Nothing was heard in time: it is not certain that the mark is there. Its session is [`Suspect`](crate::Standing),
    /// and may be held again.
    Suspect,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "its lease has ended",
            Self::Displaced => "it was displaced",
            Self::Closed => "its session was closed",
            Self::Panicked => "one of its tasks panicked",
            Self::Behind => "the engine was put back to an earlier state",
            Self::NewEpoch => "the engine's epoch was changed",
            Self::Suspect => "nothing was heard of the engine in time",
        })
    }
}

impl std::error::Error for Loss {}

/// Why a session was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The settings cannot work.
    Config(ConfigError),
    /// The engine did not do it.
    Engine(EngineError),
    /// The engine would give tokens below those that the job store knows: it was restored or replaced. Bump its epoch.
    Behind {
        /// The token that it would give next, at least.
        token: u64,
        /// The greatest that is known.
        floor: u64,
    },
    /// The epoch that is written in the engine is none.
    Epoch,
    /// The namespace is another job store's.
    OtherStore {
        /// Whose it is.
        found: String,
    },
    /// The engine keeps marks for a shorter time than it was asked to.
    Lease {
        /// For how long.
        granted: Duration,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Engine(error) => error.fmt(f),
            Self::Behind { token, floor } => write!(
                f,
                "the engine is behind the job store: it would give token {token}, and {floor} is known. Was it restored? Bump its epoch"
            ),
            Self::Epoch => f.write_str("the key `epoch` of the engine is no number below 32768"),
            Self::OtherStore { found } => write!(f, "the namespace is for the job store {found:?}"),
            Self::Lease { granted } => write!(f, "the engine grants a lease of {granted:?} only"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Why a job was not marked. It is certain that it was not, or that the mark goes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MarkError {
    /// The session has ended.
    SessionLost(Loss),
    /// The engine did not answer for as long as the session may be believed in, or for a TTL. A mark that came through all
    /// the same is removed.
    Unavailable(EngineError),
    /// The engine has no room.
    NoSpace,
    /// The engine does not let us.
    Denied(String),
    /// The job's key holds what is no mark of this crate, or one whose context this program cannot read.
    Foreign {
        /// The key.
        key: String,
    },
    /// The job's id, or the context, does not read what it has written: nobody could tell whose the mark is.
    Unreadable {
        /// What was written.
        written: String,
    },
}

impl fmt::Display for MarkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionLost(loss) => write!(f, "the session has ended: {loss}"),
            Self::Unavailable(error) => error.fmt(f),
            Self::NoSpace => EngineError::NoSpace.fmt(f),
            Self::Denied(why) => write!(f, "the engine refuses: {why}"),
            Self::Foreign { key } => write!(f, "the key {key:?} holds what is no mark"),
            Self::Unreadable { written } => write!(f, "{written:?} is not read as it was written"),
        }
    }
}

impl std::error::Error for MarkError {}

/// Why a job was not marked that must be free.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TryMarkError<C> {
    /// It has an owner.
    Occupied(Box<Owner<Remote<C>>>),
    /// It could not be tried.
    Mark(MarkError),
}

impl<C> fmt::Display for TryMarkError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Occupied(owner) => {
                write!(f, "the job is owned by {}, token {}", owner.value.process, owner.value.token)
            }
            Self::Mark(error) => error.fmt(f),
        }
    }
}

impl<C: fmt::Debug> std::error::Error for TryMarkError<C> {}

impl<C> From<MarkError> for TryMarkError<C> {
    fn from(error: MarkError) -> Self {
        Self::Mark(error)
    }
}

/// The engine did not answer in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub(crate) EngineError);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unavailable {}

/// The mirror could not be shown to be up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BarrierError {
    /// The engine did not take the write that was to come back.
    Engine(EngineError),
    /// The write did not come back in time.
    Stale,
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Stale => f.write_str("the mirror did not hear of a write in time"),
        }
    }
}

impl std::error::Error for BarrierError {}
