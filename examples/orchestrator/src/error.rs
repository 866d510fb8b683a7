//! Every way to fail, each told in one line.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::store::BadColumn;

/// A result of the orchestrator.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. None of these means that a scenario did not hold: that is a result, not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense.
    #[error("{0} (try --help)")]
    Usage(String),
    /// The settings file cannot be read, parsed or used.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The settings file.
        path: PathBuf,
        /// What is wrong with it, and where.
        reason: String,
    },
    /// The database is to be in a directory that is not there.
    #[error("{}: no such directory", .0.display())]
    NoDirectory(PathBuf),
    /// The file is something else than an SQLite database.
    #[error("{}: not a database", .0.display())]
    NotADatabase(PathBuf),
    /// An SQLite database, but not one of ours.
    #[error("{}: a database of another program, left as it is", .0.display())]
    ForeignDatabase(PathBuf),
    /// Another process holds the database.
    #[error("{}: the database is locked by another process", .0.display())]
    Locked(PathBuf),
    /// The database cannot be opened for some other reason.
    #[error("{}: {source}", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A statement failed on an open database.
    #[error("job store: {0}")]
    Store(#[from] rusqlite::Error),
    /// A statement failed on a server, or was refused by it.
    #[error("job store: {0}")]
    Postgres(String),
    /// The server has no space left.
    #[error("job store: its disk is full: {0}")]
    Full(String),
    /// The schema on the server is another program's.
    #[error("{0}: tables of another program, left as they are")]
    ForeignTables(String),
    /// The schema on the server is of a version that is still to come.
    #[error("{place}: version {found} of the tables, and this program knows versions up to {known}")]
    TooNew {
        /// Where they are.
        place: String,
        /// Their version.
        found: i64,
        /// The last one that is known here.
        known: u64,
    },
    /// A row makes no sense, or is missing.
    #[error("job store: {0}")]
    Column(BadColumn),
    /// The row of a running job makes no sense.
    #[error("job {job}: {source}")]
    Row {
        /// The job.
        job: u64,
        /// What is wrong with it.
        source: BadColumn,
    },
    /// What several processes share does not answer, or refuses.
    #[error("{what}: {reason}")]
    Shared {
        /// What was tried.
        what: &'static str,
        /// Why it was not done.
        reason: String,
    },
    /// The limits cannot work together.
    #[error("limits: {0}")]
    Policy(#[from] livemark::PolicyError),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it was refused.
        source: io::Error,
    },
    /// Another orchestrator serves the database.
    #[error("{}: another orchestrator serves it{}", path.display(), holder.as_deref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Served {
        /// The database.
        path: PathBuf,
        /// The process id of the other one, if it said so.
        holder: Option<String>,
    },
    /// The database has several names, under each of which SQLite would keep journals of its own.
    #[error("{}: the file has {names} names (hard links), and is served under none of them", path.display())]
    Linked {
        /// One of the names.
        path: PathBuf,
        /// How many there are.
        names: u64,
    },
    /// The database that is served is no longer where it was.
    #[error("{}: the job store was removed or replaced while it was served", .0.display())]
    Replaced(PathBuf),
    /// The address to listen on cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Taken as it was given.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// No server answers.
    #[error("{url}: {reason}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// Why it cannot be asked.
        reason: String,
    },
    /// A server refuses, or is none of ours.
    #[error("{url}: {reason}")]
    Server {
        /// Where it is.
        url: String,
        /// What it said.
        reason: String,
    },
    /// A check of the service's health could not write.
    #[error("nothing can be written: {0}")]
    Unwritable(String),
    /// A command could not be started, for want of something that may be there again soon.
    #[error("not started for now: {0}")]
    NotNow(String),
    /// Something did not happen within its time limit.
    #[error("gave up waiting for {0}")]
    TimedOut(String),
    /// A thread that should report errors panicked instead.
    #[error("the {0} thread panicked")]
    Panicked(&'static str),
}

impl Error {
    /// For `map_err`: what went wrong with what processes share, and what was being done.
    #[cfg(feature = "cluster")]
    pub(crate) fn shared<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Self {
        move |reason| Self::Shared { what, reason: reason.to_string() }
    }

    /// Names the trouble SQLite has with opening `path`.
    pub(crate) fn open(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotADatabase(path),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked(path),
            _ => Self::Open { path, source },
        }
    }

    /// For `map_err`: an I/O error and what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
