//! The job store's side of the loop: [`JobStore`] and [`AsyncJobStore`], and what they answer, [`Outcome`].

use std::fmt;

use super::claim::{Claim, Mark};
use super::explain::Explanation;
use super::job::RunningJob;
use super::run_error::RunError;
use super::verdict::{Cause, Claimed, Intent, Verdict};
use crate::context::Finalizer;
use crate::registry::OwnedMarkGuard;

/// A job system's side of [`Reaper::run`](super::Reaper::run). It lists the running jobs, and does what the reaper says.
///
/// A method that returns an error or panics costs its own job's turn in this sweep, and no more.
///
/// The job borrows its id and its stage from the row. So `list` converts ids, and a stage is a literal or in the row.
/// rustc refuses `fn job(&self, row: &Row) -> RunningJob<'_>`, and its help gives the `'a` that is missing.
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
    /// The running jobs. Each row is read by itself, so that a bad row costs only itself.
    type Rows: IntoIterator<Item = Result<Self::Row, Self::Error>>;

    /// Lists all running jobs.
    ///
    /// # Errors
    ///
    /// Returns an error if the jobs cannot be listed. There is no sweep this time.
    fn list(&mut self) -> Result<Self::Rows, Self::Error>;

    /// Returns the job that a row is, for the reaper to judge.
    fn job<'a>(&self, row: &'a Self::Row) -> RunningJob<'a, K>;

    /// Has the job finalized again, under `claim`.
    ///
    /// First take the job over in the job store by compare-and-set, since the row may be outdated, and restart its stamp.
    /// Give long work to a thread, since the other jobs wait.
    ///
    /// # Errors
    ///
    /// Returns whatever went wrong. Dropping the claim gives the job back. A compare-and-set that says no is
    /// [`Outcome::Refused`], and no error.
    fn redrive(&mut self, row: Self::Row, claim: Claim<'r, K, V>) -> Result<Outcome, Self::Error>;

    /// Ends the job by compare-and-set. Keep `claim` until that has succeeded.
    ///
    /// If the end is left to another thread, the job is still running for the next sweep, whose claim displaces this one.
    ///
    /// # Errors
    ///
    /// Returns whatever went wrong, as [`redrive`](Self::redrive) does.
    fn reap(&mut self, row: Self::Row, cause: Cause, claim: Claim<'r, K, V>) -> Result<Outcome, Self::Error>;

    /// Called with every verdict, also [`Verdict::Healthy`], before it is acted on. In a dry run nothing else follows.
    fn on_verdict(&mut self, row: &Self::Row, verdict: &Verdict<'r, K, V>, explanation: &Explanation<'_>) {
        let _ = (row, verdict, explanation);
    }

    /// Called when listing, reading a row, or acting on a verdict failed. The reaper also counts failures in
    /// [`ReaperStats`](super::ReaperStats), and sends `error` events.
    fn on_error(&mut self, error: &RunError<K, Self::Error>) {
        let _ = error;
    }
}

/// A job system's side of [`Reaper::run_once_async`](super::Reaper::run_once_async), whose answers are awaited.
///
/// It differs from [`JobStore`] in its futures, which are `Send`, and in its claims, which are `'static`. An `async fn`
/// implements each of the three methods that return a future. The trait has no lifetime parameter, since rustc could not
/// prove such futures `Send` (rust-lang/rust#100013).
///
/// Give each action a time limit of its own, by `tokio::time::timeout` say. A row whose action hangs keeps the others
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
pub trait AsyncJobStore<K: 'static = u64, V = Finalizer, M = OwnedMarkGuard<K, V>>: Send {
    /// A running job as the job store has it.
    type Row: Send;
    /// What can go wrong with the job store.
    type Error: fmt::Display + Send;
    /// The running jobs. Each row is read by itself, so that a bad row costs only itself.
    type Rows: IntoIterator<Item = Result<Self::Row, Self::Error>, IntoIter: Send>;

    /// Lists all running jobs: see [`JobStore::list`].
    fn list(&mut self) -> impl Future<Output = Result<Self::Rows, Self::Error>> + Send;

    /// Returns the job that a row is, for the reaper to judge.
    fn job<'a>(&self, row: &'a Self::Row) -> RunningJob<'a, K>;

    /// Has the job finalized again, under `claim`: see [`JobStore::redrive`].
    fn redrive(
        &mut self,
        row: Self::Row,
        claim: Claim<'static, K, V, M>,
    ) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// Ends the job: see [`JobStore::reap`].
    fn reap(
        &mut self,
        row: Self::Row,
        cause: Cause,
        claim: Claim<'static, K, V, M>,
    ) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// Called with every verdict, also [`Verdict::Healthy`], before it is acted on. In a dry run nothing else follows.
    fn on_verdict(&mut self, row: &Self::Row, verdict: &Verdict<'static, K, V, M>, explanation: &Explanation<'_>) {
        let _ = (row, verdict, explanation);
    }

    /// Called when listing, reading a row, or acting on a verdict failed: see [`JobStore::on_error`].
    fn on_error(&mut self, error: &RunError<K, Self::Error>) {
        let _ = error;
    }
}

/// Who claims jobs for a reaper whose marks are not in this process. [`Reaper::run_once_claiming`] asks it.
///
/// ```
/// use livemark::{Claimed, Claimer, Intent, OwnedMarkGuard};
///
/// /// Nobody answers: what looks dead is left alone, and the backstop acts without a mark.
/// struct Offline;
///
/// impl Claimer for Offline {
///     type Mark = OwnedMarkGuard;
///
///     async fn claim(&mut self, _: u64, _: livemark::Finalizer, _: &Intent) -> Claimed<livemark::Finalizer, OwnedMarkGuard> {
///         Claimed::Unavailable
///     }
/// }
/// ```
///
/// [`Reaper::run_once_claiming`]: super::Reaper::run_once_claiming
pub trait Claimer<K = u64, V = Finalizer>: Send {
    /// The mark of a claim that was won.
    type Mark: Mark + Send;

    /// Claims a job as its intent says, with `context` as the mark's context.
    ///
    /// It is not asked where an intent [takes nothing](super::Takes::Nothing). It answers in bounded time: the jobs
    /// after this one wait.
    fn claim(&mut self, job: K, context: V, intent: &Intent<V>) -> impl Future<Output = Claimed<V, Self::Mark>> + Send;
}

/// A job store's answer to a verdict that it was to carry out.
///
/// The enum is exhaustive, since a compare-and-set says yes or no.
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
    /// The store took the verdict. The job is ended, or its finalization is begun.
    Done,
    /// The store's compare-and-set said no: the job has moved on since the row was read. This is counted by itself, and
    /// is no error.
    Refused,
}
