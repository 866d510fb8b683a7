//! What ends a run: [`BenchError`].

use std::fmt;
use std::io;
use std::time::Duration;

use livemark_cluster::{BarrierError, EngineError, MarkError, OpenError, Unavailable};
use livemark_etcd::ConnectError;
use tokio::task::JoinError;

/// Why a figure could not be measured. The run ends with the first one.
#[derive(Debug)]
pub(crate) enum BenchError {
    /// A file or a process could not be used.
    Io {
        what: String,
        error: io::Error,
    },
    /// There is no etcd to start.
    NoEtcd,
    /// The servers that were started do not answer.
    NotReady {
        error: ConnectError,
        log: String,
    },
    Connect(ConnectError),
    Open(OpenError),
    Engine(EngineError),
    Mark(MarkError),
    Clear(Unavailable),
    Barrier(BarrierError),
    /// A mark of this run was gone before it was cleared.
    MarkGone {
        job: u64,
    },
    /// Something that must happen did not.
    Late {
        what: &'static str,
        limit: Duration,
    },
    /// The mirror has another number of marks than there are.
    Marks {
        found: usize,
        expected: usize,
    },
    /// The mirror gave a wrong answer.
    Answers {
        found: usize,
        expected: usize,
    },
    /// The other process answered something else, or nothing.
    Mirror(String),
    /// PostgreSQL did not do what it was asked to.
    Postgres(String),
    /// A task of this process ended early.
    Task(JoinError),
}

impl BenchError {
    /// Names what an error of the system was about.
    pub(crate) fn io(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_string();
        move |error| Self::Io { what, error }
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, error } => write!(f, "{what}: {error}"),
            Self::NoEtcd => f.write_str("there is no etcd to start (Debian: apt-get install etcd-server)"),
            Self::NotReady { error, log } => write!(f, "etcd does not start: {error}\n{log}"),
            Self::Connect(error) => error.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Engine(error) => error.fmt(f),
            Self::Mark(error) => error.fmt(f),
            Self::Clear(error) => error.fmt(f),
            Self::Barrier(error) => error.fmt(f),
            Self::MarkGone { job } => write!(f, "the mark of job {job} was gone before it was cleared"),
            Self::Late { what, limit } => write!(f, "after {limit:?} there was still not: {what}"),
            Self::Marks { found, expected } => write!(f, "the mirror has {found} marks, and there are {expected}"),
            Self::Answers { found, expected } => write!(f, "{found} jobs were found, and {expected} are marked"),
            Self::Mirror(said) => write!(f, "the process with the mirror answered {said:?}"),
            Self::Postgres(said) => write!(f, "PostgreSQL: {said}"),
            Self::Task(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<tokio_postgres::Error> for BenchError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string))
    }
}

macro_rules! wraps {
    ($($variant:ident($error:ty)),* $(,)?) => {$(
        impl From<$error> for BenchError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

wraps! {
    Connect(ConnectError),
    Open(OpenError),
    Engine(EngineError),
    Mark(MarkError),
    Clear(Unavailable),
    Barrier(BarrierError),
    Task(JoinError),
}
