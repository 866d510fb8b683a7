//! The ready-made loop: [`Reaper::run`], and what a scheduler does for it. One job's error or panic costs that job's
//! turn.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::{Cause, Mode, Policy, Reaper, RunningJob, Sweep, Verdict};
use crate::finalizer::Finalizer;
use crate::hasher::DefaultHashBuilder;
use crate::registry::MarkGuard;
use crate::trace;
use crate::unwind::{Panicked, caught};

/// A job system's side of [`Reaper::run`]: lists the running jobs, and does what the reaper says.
///
/// A method that returns an error or panics costs its own job's turn in this sweep, no more.
///
/// See [`Reaper::run`] for a whole one, [`guide::start`](crate::guide::start) for a program around it, and
/// [`guide::embedding`](crate::guide::embedding) for one that goes by a job store.
///
/// ```
/// use std::time::Duration;
/// use livemark::{Cause, Failure, MarkGuard, Policy, RunningJob, Scheduler, Verdict};
///
/// struct Row { id: u64, stage: String, secs: u64 }
///
/// struct Jobs;
///
/// impl<'r> Scheduler<'r> for Jobs {
///     type Row = Row;
///     type Error = std::io::Error;
///
///     fn running(&mut self) -> Result<Vec<Result<Row, Self::Error>>, Self::Error> {
///         Ok(vec![]) // SELECT .. WHERE state = 'running'
///     }
///
///     fn describe<'a>(&self, row: &'a Row) -> RunningJob<'a> {
///         let running_for = Duration::from_secs(row.secs);
///         RunningJob { id: row.id, stage: &row.stage, running_for, finished_for: None, lost_for: None }
///     }
///
///     fn redrive(&mut self, _row: Row, _claim: Option<MarkGuard<'r>>) -> Result<(), Self::Error> {
///         Ok(()) // UPDATE .. SET run_id = :new WHERE run_id = :old; then a thread that keeps the claim
///     }
///
///     fn reap(&mut self, _row: Row, _cause: Cause, _claim: Option<MarkGuard<'r>>) -> Result<(), Self::Error> {
///         Ok(()) // UPDATE .. SET state = 'failed' WHERE run_id = :old
///     }
///
///     fn judged(&mut self, row: &Row, verdict: &Verdict<'r>, policy: &Policy) {
///         println!("{}", verdict.explain(&self.describe(row), policy));
///     }
///
///     fn failed(&mut self, failure: &Failure<Self::Error>) {
///         eprintln!("{failure}");
///     }
/// }
/// ```
pub trait Scheduler<'r, K: 'static = u64, V = Finalizer, S = DefaultHashBuilder> {
    /// A running job as the job store has it.
    type Row;
    /// What can go wrong with the job store.
    type Error: fmt::Display;

    /// The running jobs: all of them, each read for itself, so that a bad row costs only itself.
    ///
    /// # Errors
    ///
    /// If they cannot be listed: then there is no sweep this time.
    #[expect(clippy::type_complexity, reason = "a list that can fail, of rows that can fail: an alias would hide it")]
    fn running(&mut self) -> Result<Vec<Result<Self::Row, Self::Error>>, Self::Error>;

    /// The row as the reaper is to see it.
    fn describe<'a>(&self, row: &'a Self::Row) -> RunningJob<'a, K>;

    /// Has the job finalized again, under `claim`. First takes the job over in the job store, by compare-and-set; the
    /// row may be outdated. Hands long work to a thread: the other jobs wait.
    ///
    /// # Errors
    ///
    /// Whatever went wrong; the claim is given back where it is dropped.
    fn redrive(&mut self, row: Self::Row, claim: Option<MarkGuard<'r, K, V, S>>) -> Result<(), Self::Error>;

    /// Ends the job, by compare-and-set, and keeps `claim` until that has succeeded.
    ///
    /// # Errors
    ///
    /// As [`redrive`](Self::redrive).
    fn reap(&mut self, row: Self::Row, cause: Cause, claim: Option<MarkGuard<'r, K, V, S>>) -> Result<(), Self::Error>;

    /// Is told every verdict, before it is carried out; in [`Mode::DryRun`] nothing else follows. For logs and
    /// dashboards: see [`Verdict::explain`].
    fn judged(&mut self, row: &Self::Row, verdict: &Verdict<'r, K, V, S>, policy: &Policy) {
        let _ = (row, verdict, policy);
    }

    /// Is told what went wrong, beside the counters of [`ReaperStats`](super::ReaperStats) and the `error` events.
    fn failed(&mut self, failure: &Failure<Self::Error>) {
        let _ = failure;
    }
}

/// What went wrong in a turn of [`Reaper::run`], which goes on.
///
/// ```
/// use livemark::Failure;
///
/// let failure = Failure::Row("no such stage");
/// assert_eq!(failure.to_string(), "a bad row, left out: no such stage");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure<E> {
    /// The running jobs could not be listed: there was no sweep.
    Listing(E),
    /// A row could not be read: its job was not judged.
    Row(E),
    /// A job was not re-driven or reaped. A later sweep will find it again.
    Action(E),
    /// A method of the scheduler panicked, or other code of the user's that a sweep runs: `Hash`, `Eq` or `Clone` of a
    /// job id, a claim's function, a subscriber, a recorder.
    Panic,
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listing(error) => write!(f, "the running jobs cannot be listed: {error}"),
            Self::Row(error) => write!(f, "a bad row, left out: {error}"),
            Self::Action(error) => write!(f, "a verdict could not be carried out: {error}"),
            Self::Panic => f.write_str("panicked"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for Failure<E> {}

impl<'r, K, V, S> Reaper<'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    /// Sweeps on this thread, at once and then every `interval`, until `stop` is sent something or its sender is gone.
    ///
    /// Each job of [`Scheduler::running`] is judged and its verdict carried out before the next one is judged. A sweep
    /// that takes longer than the interval delays the next; none is made up for. What is asked to stop finishes the job
    /// at hand, not the sweep. In [`Mode::DryRun`] nothing is carried out.
    ///
    /// A listing that fails, a bad row, an action that fails or panics cost themselves alone: they are counted in
    /// [`stats`](Self::stats), sent as `error` events, and told to [`Scheduler::failed`]; the other jobs have their
    /// turn. While an action runs, the sweep is not pinned, so that a slow one holds back no memory.
    ///
    /// In async code run it by `spawn_blocking` or on a thread: see [`guide::embedding`](crate::guide::embedding).
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    /// use livemark::{Cause, MarkGuard, Policy, Reaper, Registry, RunningJob, Scheduler};
    ///
    /// struct Jobs(Vec<u64>); // a real one has a connection to the job store
    ///
    /// impl<'r> Scheduler<'r> for Jobs {
    ///     type Row = u64;
    ///     type Error = Infallible;
    ///
    ///     fn running(&mut self) -> Result<Vec<Result<u64, Infallible>>, Infallible> {
    ///         Ok(self.0.iter().copied().map(Ok).collect())
    ///     }
    ///
    ///     fn describe<'a>(&self, &id: &'a u64) -> RunningJob<'a> {
    ///         let past = Duration::from_secs(310);
    ///         RunningJob { id, stage: "merge", running_for: past, finished_for: Some(past), lost_for: None }
    ///     }
    ///
    ///     fn redrive(&mut self, job: u64, claim: Option<MarkGuard<'r>>) -> Result<(), Infallible> {
    ///         self.0.retain(|other| *other != job); // compare-and-set, then a thread that finalizes under the claim
    ///         drop(claim);
    ///         Ok(())
    ///     }
    ///
    ///     fn reap(&mut self, job: u64, _: Cause, claim: Option<MarkGuard<'r>>) -> Result<(), Infallible> {
    ///         self.redrive(job, claim)
    ///     }
    /// }
    ///
    /// let registry = Registry::new();
    /// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// let (stop, stopped) = mpsc::channel();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| reaper.run(Duration::from_millis(1), stopped, &mut Jobs(vec![7, 8])));
    ///     while reaper.stats().redrives < 2 {
    ///         std::thread::yield_now();
    ///     }
    ///     drop(stop);
    /// });
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a receiver is not Sync: by reference a thread could not borrow it"
    )]
    pub fn run<J>(&self, interval: Duration, stop: Receiver<()>, scheduler: &mut J)
    where
        J: Scheduler<'r, K, V, S> + ?Sized,
    {
        let (mut wait, mut has_swept) = (Duration::ZERO, false);
        while stop.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            has_swept = true;
            let began = Instant::now();
            if self.turn(&stop, scheduler).is_break() {
                break;
            }
            wait = interval.saturating_sub(began.elapsed());
        }
        if !has_swept {
            trace::never_swept();
        }
    }

    /// One sweep over what the scheduler lists; breaks off when asked to stop.
    fn turn<J>(&self, stop: &Receiver<()>, scheduler: &mut J) -> ControlFlow<()>
    where
        J: Scheduler<'r, K, V, S> + ?Sized,
    {
        // A recorder of metrics is the user's as well.
        let begun = caught(|| scheduler.running().map(|rows| (rows.into_iter(), self.sweep())));
        let (mut rows, mut sweep) = match begun {
            Ok(Ok(begun)) => begun,
            Ok(Err(error)) => {
                self.report(scheduler, Failure::Listing(error));
                return ControlFlow::Continue(());
            }
            Err(Panicked) => {
                self.report(scheduler, Failure::Panic);
                return ControlFlow::Continue(());
            }
        };
        while let Some(row) = rows.next() {
            if stop.try_recv() != Err(TryRecvError::Empty) {
                if let Err(Panicked) = caught(|| drop((row, rows))) {
                    self.counts.panics.increment();
                }
                return ControlFlow::Break(());
            }
            let failure = match row {
                Err(error) => Some(Failure::Row(error)),
                Ok(row) => match caught(|| carry_out(&mut sweep, scheduler, row)) {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(Failure::Action(error)),
                    Err(Panicked) => Some(Failure::Panic),
                },
            };
            if let Some(failure) = failure {
                sweep.unpin();
                self.report(scheduler, failure);
            }
        }
        ControlFlow::Continue(())
    }

    fn report<J>(&self, scheduler: &mut J, failure: Failure<J::Error>)
    where
        J: Scheduler<'r, K, V, S> + ?Sized,
    {
        match &failure {
            Failure::Listing(_) => &self.counts.failed_listings,
            Failure::Row(_) => &self.counts.bad_rows,
            Failure::Action(_) => &self.counts.failed_actions,
            Failure::Panic => &self.counts.panics,
        }
        .increment();
        // The event's subscriber, the scheduler and the error are the user's.
        let told = caught(|| {
            trace::failed(&failure);
            scheduler.failed(&failure);
        });
        for Panicked in [told, caught(|| drop(failure))].into_iter().filter_map(Result::err) {
            self.counts.panics.increment();
        }
    }
}

/// Judges one row, tells the verdict, and does it.
fn carry_out<'r, J, K, V, S>(sweep: &mut Sweep<'_, 'r, K, V, S>, scheduler: &mut J, row: J::Row) -> Result<(), J::Error>
where
    J: Scheduler<'r, K, V, S> + ?Sized,
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    let verdict = sweep.judge(&scheduler.describe(&row));
    if !matches!(verdict, Verdict::Healthy) {
        sweep.unpin(); // what the scheduler does now may take its time
    }
    scheduler.judged(&row, &verdict, sweep.policy());
    match verdict {
        _ if sweep.policy().mode() == Mode::DryRun => Ok(()),
        Verdict::Healthy | Verdict::Defer(_) => Ok(()),
        Verdict::Redrive(claim) => scheduler.redrive(row, claim),
        Verdict::Reap(cause, claim) => scheduler.reap(row, cause, claim),
    }
}
