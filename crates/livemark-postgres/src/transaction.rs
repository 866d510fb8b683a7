//! Marks and commits in a caller's own transaction: [`Postgres::try_mark_in`] and [`Postgres::holds_in`].

use std::fmt;

use livemark_cluster::{
    ClusterGuard, Context, EngineError, If, JobKey, MarkError, Prepared, Revision, Row, Session, Token, Written,
};
use tokio_postgres::types::Type;
use tokio_postgres::{Error, GenericClient};

use crate::engine::{PUT, PUT_TYPES, Postgres, condition, found, signed, writable, written};
use crate::error::explain;

/// A mark that is part of a transaction which is not committed yet.
///
/// It is nobody's until [`committed`](Self::committed) is called. Where it is dropped, what was committed all the same is
/// removed in the background.
#[must_use = "it is a mark once its transaction is committed, and a guard holds it"]
pub struct MarkedIn<K: JobKey, C: Context> {
    prepared: Prepared<K, C>,
    written_at: Revision,
}

impl<K: JobKey, C: Context> MarkedIn<K, C> {
    /// Returns the fencing token that the mark has.
    #[must_use]
    pub fn token(&self) -> Token {
        self.prepared.token(self.written_at)
    }

    /// Makes it a guard's. To be called when the transaction has been committed.
    pub fn committed(self) -> ClusterGuard<K, C> {
        self.prepared.hold(self.written_at)
    }
}

impl<K: JobKey + fmt::Debug, C: Context> fmt::Debug for MarkedIn<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MarkedIn").field("prepared", &self.prepared).field("token", &self.token()).finish()
    }
}

/// Why something was not done in a transaction, which is to be rolled back.
#[derive(Debug)]
#[non_exhaustive]
pub enum HoldError {
    /// The job has an owner. Nothing was changed.
    Occupied,
    /// It could not be tried.
    Mark(MarkError),
    /// The statement failed, perhaps for want of a lock or by a serialization failure.
    Statement(Error),
}

impl fmt::Display for HoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Occupied => f.write_str("the job is owned"),
            Self::Mark(error) => error.fmt(f),
            Self::Statement(error) => write!(f, "{}", explain(error)),
        }
    }
}

impl std::error::Error for HoldError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Occupied => None,
            Self::Mark(error) => Some(error),
            Self::Statement(error) => Some(error),
        }
    }
}

impl Postgres {
    /// Marks a job in a transaction of the caller's, unless it is marked: with the statement that ends its run, for example.
    ///
    /// The mark is there when the transaction is committed. Until then whoever else marks the job waits for that, for a
    /// second. Keep such transactions short.
    ///
    /// # Errors
    ///
    /// Returns an error if the job has an owner, or the statement failed. Roll back then.
    pub async fn try_mark_in<K: JobKey, C: Context>(
        &self,
        transaction: &impl GenericClient,
        session: &Session<K, C>,
        job: K,
        context: C,
    ) -> Result<MarkedIn<K, C>, HoldError> {
        self.marked_in(transaction, session.prepare(job, context).map_err(HoldError::Mark)?, false).await
    }

    /// Marks a job in a transaction of the caller's, whoever owns it. As [`try_mark_in`](Self::try_mark_in) otherwise.
    ///
    /// # Errors
    ///
    /// Returns an error if the statement failed. Roll back then.
    pub async fn mark_in<K: JobKey, C: Context>(
        &self,
        transaction: &impl GenericClient,
        session: &Session<K, C>,
        job: K,
        context: C,
    ) -> Result<MarkedIn<K, C>, HoldError> {
        self.marked_in(transaction, session.prepare(job, context).map_err(HoldError::Mark)?, true).await
    }

    async fn marked_in<K: JobKey, C: Context>(
        &self,
        transaction: &impl GenericClient,
        prepared: Prepared<K, C>,
        takes_over: bool,
    ) -> Result<MarkedIn<K, C>, HoldError> {
        // Before the statement, which would break the transaction.
        writable(prepared.key()).map_err(|error| match error {
            EngineError::Denied(why) => HoldError::Mark(MarkError::Denied(why)),
            error => HoldError::Mark(MarkError::Unavailable(error)),
        })?;
        let mut expected = If::Absent;
        loop {
            let (key, value, lease) = (prepared.key(), prepared.value(), signed(prepared.lease().0));
            let (expects, epoch) = (condition(expected), condition(prepared.epoch()));
            let [a, b, c, d, e, f] = PUT_TYPES;
            let params = [
                (&self.0.namespace as _, a),
                (&key as _, b),
                (&value as _, c),
                (&lease as _, d),
                (&expects as _, e),
                (&epoch as _, f),
            ];
            let rows = transaction.query_typed(PUT, &params).await.map_err(HoldError::Statement)?;
            match written(&rows) {
                Ok(Written::Done(written_at)) => return Ok(MarkedIn { prepared, written_at }),
                Ok(Written::Refused(Some(row))) if prepared.is_foreign(&row) => {
                    return Err(HoldError::Mark(MarkError::Foreign { key: prepared.key().to_owned() }));
                }
                // Its row is locked by now: the second try is the last.
                Ok(Written::Refused(Some(row))) if takes_over => expected = If::At(row.revision),
                Ok(Written::Refused(_)) => return Err(HoldError::Occupied),
                Err(EngineError::LeaseGone) => {
                    return Err(HoldError::Mark(MarkError::SessionLost(livemark_cluster::Loss::Expired)));
                }
                Err(EngineError::NewEpoch) => {
                    return Err(HoldError::Mark(MarkError::SessionLost(livemark_cluster::Loss::NewEpoch)));
                }
                Err(error) => return Err(HoldError::Mark(MarkError::Unavailable(error))),
            }
        }
    }

    /// Finds out in a transaction of the caller's whether a guard's mark is there, and keeps it there until the transaction is
    /// over: nobody takes it over, and its lease does not end with it, meanwhile. An exact fence, without a column for it.
    ///
    /// Where it returns `false`, roll back: somebody else has the job.
    ///
    /// # Errors
    ///
    /// Returns an error if the statement failed, which includes that somebody held the mark for a second.
    pub async fn holds_in<K: JobKey, C: Context>(
        &self,
        transaction: &impl GenericClient,
        guard: &ClusterGuard<K, C>,
    ) -> Result<bool, HoldError> {
        let key = guard.key();
        let params = [(&self.0.namespace as _, Type::TEXT), (&key as _, Type::TEXT)];
        let statement = "SELECT revision, value, lease FROM livemark.hold($1, $2)";
        let rows = transaction.query_typed(statement, &params).await.map_err(HoldError::Statement)?;
        let row = rows.first().and_then(|row| {
            let revision: Option<i64> = row.get(0);
            Some(found(revision?, row.get(1), row.get(2)))
        });
        Ok(row.is_some_and(|row: Row| guard.is_row(&row)))
    }
}
