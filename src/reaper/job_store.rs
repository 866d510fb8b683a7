//! The job store's side of the loop: [`JobStore`] and [`AsyncJobStore`], and what they answer, [`Outcome`].

use std::fmt;

use super::claim::Claim;
use super::explain::Explanation;
use super::job::RunningJob;
use super::run_error::RunError;
use super::verdict::{Cause, Verdict};
use crate::context::Finalizer;

/// A job system's side of [`Reaper::run`](super::Reaper::run): lists the running jobs, and does what the reaper says.
///
/// A method that returns an error or panics costs its own job's turn in this sweep, and no more.
///
/// Two things that rustc may say: `fn job(&self, row: &Row) -> RunningJob<'_>` is refused, and its help gives the `'a`
/// that is missing. The job borrows its id and its stage from the row, so `list` converts ids, and a stage is a literal
/// or in the row.
///
/// ```
/// use std::time::Duration;
/// use livemark::{Cause, Claim, Explanation, JobStore, Outcome, RunError, RunningJob, Verdict};
///
/// struct Row { id: u64, run: u64, stage: String, secs: u64 }
///
/// struct Jobs;
///
/// impl<'r> JobStore<'r> for Jobs {
///     type Row = Row;
///     type Error = std::io::Error;
///     type Rows = Vec<Result<Row, Self::Error>>;
///
///     fn list(&mut self) -> Result<Self::Rows, Self::Error> {
///         Ok(vec![]) // SELECT .. WHERE state = 'running'
///     }
///
///     fn job<'a>(&self, row: &'a Row) -> RunningJob<'a> {
///         RunningJob::new(&row.id, &row.stage, Duration::from_secs(row.secs))
///     }
///
///     fn redrive(&mut self, _row: Row, _claim: Claim<'r>) -> Result<Outcome, Self::Error> {
///         // UPDATE .. SET run = :new, finished_at = now WHERE id = :id AND run = :run: the stamp begins anew.
///         // No row changed: `Outcome::Refused`. Else a thread that keeps the claim.
///         Ok(Outcome::Done)
///     }
///
///     fn reap(&mut self, _row: Row, _cause: Cause, _claim: Claim<'r>) -> Result<Outcome, Self::Error> {
///         Ok(Outcome::Done) // UPDATE .. SET state = 'failed' WHERE id = :id AND run = :run
///     }
///
///     fn on_verdict(&mut self, _row: &Row, _verdict: &Verdict<'r>, explanation: &Explanation<'_>) {
///         if explanation.is_news() {
///             println!("{explanation}");
///         }
///     }
///
///     fn on_error(&mut self, error: &RunError<u64, Self::Error>) {
///         eprintln!("{error}");
///     }
/// }
/// ```
pub trait JobStore<'r, K: 'static = u64, V = Finalizer> {
    /// A running job as the job store has it.
    type Row;
    /// What can go wrong with the job store.
    type Error: fmt::Display;
    /// The running jobs. Each row is read for itself, so that a bad one costs only itself.
    type Rows: IntoIterator<Item = Result<Self::Row, Self::Error>>;

    /// Lists all running jobs.
    ///
    /// # Errors
    ///
    /// If they cannot be listed. There is no sweep this time.
    fn list(&mut self) -> Result<Self::Rows, Self::Error>;

    /// Returns the row as the reaper is to see it.
    fn job<'a>(&self, row: &'a Self::Row) -> RunningJob<'a, K>;

    /// Has the job finalized again, under `claim`. First takes the job over in the job store, by compare-and-set, and
    /// restarts its stamp: the row may be outdated. Hands long work to a thread, since the other jobs wait.
    ///
    /// # Errors
    ///
    /// Whatever went wrong. The claim is given back where it is dropped. A compare-and-set that says no is
    /// [`Outcome::Refused`], and no error.
    fn redrive(&mut self, row: Self::Row, claim: Claim<'r, K, V>) -> Result<Outcome, Self::Error>;

    /// Ends the job, by compare-and-set, and keeps `claim` until that has succeeded.
    ///
    /// A job whose end is handed on is still running for the next sweep, whose claim then displaces this one.
    ///
    /// # Errors
    ///
    /// The same as of [`redrive`](Self::redrive).
    fn reap(&mut self, row: Self::Row, cause: Cause, claim: Claim<'r, K, V>) -> Result<Outcome, Self::Error>;

    /// Called with every verdict, also [`Verdict::Healthy`], before it is acted on. In a dry run nothing else follows.
    fn on_verdict(&mut self, row: &Self::Row, verdict: &Verdict<'r, K, V>, explanation: &Explanation<'_>) {
        let _ = (row, verdict, explanation);
    }

    /// Called when listing, reading a row, or acting on a verdict failed. The counters of
    /// [`ReaperStats`](super::ReaperStats) and the `error` events say so as well.
    fn on_error(&mut self, error: &RunError<K, Self::Error>) {
        let _ = error;
    }
}

/// A job store whose answers are awaited: the side of [`Reaper::run_once_async`](super::Reaper::run_once_async).
///
/// It differs from [`JobStore`] in its futures, which are `Send`, and in its claims, which are `'static`. An `async fn`
/// with these arguments implements each of the three. The trait has no lifetime parameter, since rustc could not prove
/// such futures `Send` (rust-lang/rust#100013).
///
/// Give each action a time limit of its own (`tokio::time::timeout`, say): a row whose action hangs keeps the others
/// waiting.
///
/// ```
/// use std::time::Duration;
/// use livemark::{AsyncJobStore, Cause, Claim, Outcome, RunningJob};
///
/// struct Row { id: u64, secs: u64 }
///
/// struct Jobs; // a real one has a pool of connections
///
/// impl AsyncJobStore for Jobs {
///     type Row = Row;
///     type Error = std::io::Error;
///     type Rows = Vec<Result<Row, Self::Error>>;
///
///     async fn list(&mut self) -> Result<Self::Rows, Self::Error> {
///         Ok(vec![]) // SELECT .. WHERE state = 'running'
///     }
///
///     fn job<'a>(&self, row: &'a Row) -> RunningJob<'a> {
///         RunningJob::new(&row.id, "merge", Duration::from_secs(row.secs))
///     }
///
///     async fn redrive(&mut self, _row: Row, claim: Claim<'static>) -> Result<Outcome, Self::Error> {
///         // UPDATE .. SET run = :new, finished_at = now() WHERE id = :id AND run = :run, then spawn:
///         drop(async move { let _claim = claim; /* finalize, commit */ });
///         Ok(Outcome::Done)
///     }
///
///     async fn reap(&mut self, _row: Row, _cause: Cause, _claim: Claim<'static>) -> Result<Outcome, Self::Error> {
///         Ok(Outcome::Done) // UPDATE .. SET state = 'failed' WHERE id = :id AND run = :run
///     }
/// }
/// ```
pub trait AsyncJobStore<K: 'static = u64, V = Finalizer>: Send {
    /// A running job as the job store has it.
    type Row: Send;
    /// What can go wrong with the job store.
    type Error: fmt::Display + Send;
    /// The running jobs. Each row is read for itself, so that a bad one costs only itself.
    type Rows: IntoIterator<Item = Result<Self::Row, Self::Error>, IntoIter: Send>;

    /// Lists all running jobs: see [`JobStore::list`].
    fn list(&mut self) -> impl Future<Output = Result<Self::Rows, Self::Error>> + Send;

    /// Returns the row as the reaper is to see it.
    fn job<'a>(&self, row: &'a Self::Row) -> RunningJob<'a, K>;

    /// Has the job finalized again, under `claim`: see [`JobStore::redrive`].
    fn redrive(
        &mut self,
        row: Self::Row,
        claim: Claim<'static, K, V>,
    ) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// Ends the job: see [`JobStore::reap`].
    fn reap(
        &mut self,
        row: Self::Row,
        cause: Cause,
        claim: Claim<'static, K, V>,
    ) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// Called with every verdict, also [`Verdict::Healthy`], before it is acted on. In a dry run nothing else follows.
    fn on_verdict(&mut self, row: &Self::Row, verdict: &Verdict<'static, K, V>, explanation: &Explanation<'_>) {
        let _ = (row, verdict, explanation);
    }

    /// Called when listing, reading a row, or acting on a verdict failed: see [`JobStore::on_error`].
    fn on_error(&mut self, error: &RunError<K, Self::Error>) {
        let _ = error;
    }
}

/// What a job store made of a verdict.
///
/// The enum is exhaustive: a compare-and-set says yes or no.
///
/// ```
/// use livemark::Outcome;
///
/// let rows_changed = 0; // by UPDATE .. WHERE id = :id AND run = :run
/// let outcome = if rows_changed == 1 { Outcome::Done } else { Outcome::Refused };
/// assert_eq!(outcome, Outcome::Refused);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "the loop counts what the store took"]
pub enum Outcome {
    /// The store took it: the job is ended, or its finalization begun.
    Done,
    /// Its compare-and-set said no: the job has moved on since the row was read. Counted by itself, and no error.
    Refused,
}
