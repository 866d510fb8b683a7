//! What can go wrong, and what it is to the protocol.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use livemark_cluster::EngineError;
use tokio_postgres::error::SqlState;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The namespace is empty, or has a NUL, which PostgreSQL's text has not.
    Namespace,
    /// Nobody answered.
    Unreachable(String),
    /// The server does not let us: the user, the password, or the rights on the schema `livemark`.
    Denied(String),
    /// The server takes no writes, as a replica does. Where the connection has several hosts, `target_session_attrs=read-write`
    /// finds the one that does.
    ReadOnly,
    /// Somebody holds a lock that the schema needs, in a transaction that goes on. Nothing was done.
    Busy(String),
    /// The schema is not there, or is another one than this crate's: see [`Postgres::migrate`](crate::Postgres::migrate).
    Schema {
        /// Its version, if it is there.
        found: Option<i32>,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace => f.write_str("the namespace is empty, or has a NUL"),
            Self::Unreachable(why) => write!(f, "no PostgreSQL answers: {why}"),
            Self::Denied(why) => write!(f, "PostgreSQL refuses: {why}"),
            Self::ReadOnly => f.write_str(
                "the server takes no writes: is it a replica? `target_session_attrs=read-write` finds one that is none",
            ),
            Self::Busy(why) => write!(f, "another transaction is in the way: {why}"),
            Self::Schema { found: None } => f.write_str("the schema `livemark` is not there: migrate first"),
            Self::Schema { found: Some(found) } => {
                write!(
                    f,
                    "the schema `livemark` is of version {found}, and this program's is {}",
                    crate::engine::VERSION
                )
            }
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why a call came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    Server(tokio_postgres::Error),
    /// Nobody answered at all, for so long.
    Silent(Duration),
}

impl Failure {
    pub(crate) fn explain(&self) -> EngineError {
        match self {
            Self::Server(error) => explain(error),
            Self::Silent(limit) => EngineError::Unknown(format!("no connection is made in {limit:?}")),
        }
    }

    /// What it is to whoever connects.
    pub(crate) fn refusal(&self) -> ConnectError {
        let Self::Server(error) = self else { return ConnectError::Unreachable(self.explain().to_string()) };
        match explain(error) {
            _ if is_no_schema(error) => ConnectError::Schema { found: None },
            EngineError::Denied(why) => ConnectError::Denied(why),
            EngineError::ReadOnly(_) => ConnectError::ReadOnly,
            _ if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => ConnectError::Busy(in_words(error)),
            _ => ConnectError::Unreachable(in_words(error)),
        }
    }
}

/// Whether the server takes no writes: it says so, or that it recovers and has no state to write of.
pub(crate) fn is_read_only(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| ["25006", "55000"].contains(&code.code()))
}

/// Whether the schema is not there.
fn is_no_schema(error: &tokio_postgres::Error) -> bool {
    let absent = [&SqlState::INVALID_SCHEMA_NAME, &SqlState::UNDEFINED_FUNCTION, &SqlState::UNDEFINED_TABLE];
    error.code().is_some_and(|code| absent.contains(&code))
}

/// What a failure is to the protocol. What is not known to have done nothing may have been done.
pub(crate) fn explain(error: &tokio_postgres::Error) -> EngineError {
    let says = in_words(error);
    let Some(code) = error.code() else { return EngineError::Unknown(says) };
    // By their classes, or else by themselves.
    match code.code() {
        "53100" => EngineError::NoSpace,
        _ if is_read_only(error) => EngineError::ReadOnly(says),
        // Who we are, and what we may.
        code if code.starts_with("28") || code == "42501" => EngineError::Denied(says),
        // What is asked for is not there, or wrong.
        code if ["3D", "3F", "22", "42", "54"].iter().any(|class| code.starts_with(class)) => EngineError::Denied(says),
        _ => EngineError::Unknown(says),
    }
}

/// An error and what caused it, in one line.
fn in_words(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return server.message().to_owned();
    }
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
