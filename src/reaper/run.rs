//! The loop: [`Reaper::run`], and its single turns. One job's error or panic costs that job's turn.

use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::job_store::show_safely;
use super::judge::{explain, judge};
use super::pass::Pass;
use super::{
    AsyncJobStore, Cause, Claim, Explanation, JobStore, Outcome, Reaper, RunError, RunningJob, StopToken, SweepReport,
    Verdict,
};
use crate::telemetry;
use crate::unwind::{Panicked, caught};

impl<'r, K, V, S> Reaper<'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Sweeps on this thread, at once and then every `every` from begin to begin, until `stop` is stopped.
    ///
    /// Each job of [`JobStore::list`] is judged and its verdict carried out before the next one is judged. A sweep that
    /// overruns `every` delays the next one, and missed sweeps are skipped. After a stop the loop finishes the job at
    /// hand and leaves the rest of the sweep. In a dry run nothing is carried out.
    ///
    /// A listing that fails, a bad row, an action that fails or panics cost themselves alone. They are counted in
    /// [`stats`](Self::stats), sent as `error` events, and told to [`JobStore::on_error`]. Nothing is
    /// pinned while an action runs, so that a slow one holds back no memory.
    ///
    /// In async code use [`run_once_async`](Self::run_once_async), or run the loop on a thread.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    /// use livemark::{Cause, Claim, JobStore, Outcome, Policy, Reaper, Registry, RunningJob, StopToken};
    ///
    /// struct Jobs(Vec<u64>); // a real one has a connection to the job store
    ///
    /// impl<'r> JobStore<'r> for Jobs {
    ///     type Row = u64;
    ///     type Error = Infallible;
    ///     type Rows = Vec<Result<u64, Infallible>>;
    ///
    ///     fn list(&mut self) -> Result<Self::Rows, Infallible> {
    ///         Ok(self.0.iter().copied().map(Ok).collect())
    ///     }
    ///
    ///     fn job<'a>(&self, id: &'a u64) -> RunningJob<'a> {
    ///         let past = Duration::from_secs(310);
    ///         RunningJob::new(id, "merge", past).finished_for(past)
    ///     }
    ///
    ///     fn redrive(&mut self, job: u64, claim: Claim<'r>) -> Result<Outcome, Infallible> {
    ///         self.0.retain(|other| *other != job); // compare-and-set, then a thread that finalizes under the claim
    ///         drop(claim);
    ///         Ok(Outcome::Done)
    ///     }
    ///
    ///     fn reap(&mut self, job: u64, _: Cause, claim: Claim<'r>) -> Result<Outcome, Infallible> {
    ///         self.redrive(job, claim)
    ///     }
    /// }
    ///
    /// let registry = Registry::new();
    /// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// let stop = StopToken::new();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| reaper.run(Duration::from_millis(1), &stop, &mut Jobs(vec![7, 8])));
    ///     while reaper.stats().redrives < 2 {
    ///         std::thread::yield_now();
    ///     }
    ///     stop.stop();
    /// });
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn run<J>(&self, every: Duration, stop: &StopToken, store: &mut J)
    where
        J: JobStore<'r, K, V> + ?Sized,
    {
        let mut wait = Duration::ZERO;
        while !stop.wait(wait) {
            let began = Instant::now();
            self.turn(&|| stop.is_stopped(), store);
            wait = every.saturating_sub(began.elapsed());
        }
    }

    /// Sweeps once on this thread: one turn of [`run`](Self::run), for a scheduler that has a loop of its own.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Policy, Reaper, Registry};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// # use livemark::{Cause, Claim, JobStore, Outcome, RunningJob};
    /// # struct Jobs;
    /// # impl<'r> JobStore<'r> for Jobs {
    /// #     type Row = u64;
    /// #     type Error = String;
    /// #     type Rows = Vec<Result<u64, String>>;
    /// #     fn list(&mut self) -> Result<Self::Rows, String> { Ok(vec![Ok(7)]) }
    /// #     fn job<'a>(&self, id: &'a u64) -> RunningJob<'a> {
    /// #         RunningJob::new(id, "merge", Duration::from_secs(400)).finished_for(Duration::from_secs(310))
    /// #     }
    /// #     fn redrive(&mut self, _: u64, _: Claim<'r>) -> Result<Outcome, String> { Ok(Outcome::Done) }
    /// #     fn reap(&mut self, _: u64, _: Cause, _: Claim<'r>) -> Result<Outcome, String> { Ok(Outcome::Done) }
    /// # }
    /// let report = reaper.run_once(&mut Jobs);
    /// assert_eq!((report.listed, report.redriven), (1, 1));
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    pub fn run_once<J>(&self, store: &mut J) -> SweepReport
    where
        J: JobStore<'r, K, V> + ?Sized,
    {
        self.turn(&|| false, store)
    }

    /// One sweep over what the store lists. Breaks off when asked to stop.
    fn turn<J>(&self, is_stopped: &dyn Fn() -> bool, store: &mut J) -> SweepReport
    where
        J: JobStore<'r, K, V> + ?Sized,
    {
        let mut turn = Turn::new(self, Blocking(store));
        let listed = caught(|| turn.store.0.list().map(IntoIterator::into_iter));
        let Some((mut rows, mut pass)) = turn.begin(listed) else { return turn.report };
        while !turn.stops(is_stopped()) {
            let Some(row) = turn.next(&mut rows) else { break };
            let Some((job, action, row)) = turn.judge(&mut pass, row) else { continue };
            let is_redrive = action.is_redrive();
            let done = caught(|| match action {
                Action::Redrive(claim) => turn.store.0.redrive(row, claim),
                Action::Reap(cause, claim) => turn.store.0.reap(row, cause, claim),
            });
            turn.end_of_action(job, is_redrive, done);
        }
        turn.end(rows)
    }
}

impl<K, V, S> Reaper<'static, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Sweeps once in a task: one turn of an async loop, whose timer and whose runtime are the user's.
    ///
    /// It differs from [`run_once`](Self::run_once) in that the store's answers are awaited. The future is `Send`, and
    /// holds no pin while it awaits. A panic inside of a poll of the store's futures is caught. A future that is
    /// dropped before its end gives its claims back, as the store's future under way holds them.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use livemark::{AsyncJobStore, Cause, Claim, Outcome, Policy, Reaper, Registry, RunningJob};
    ///
    /// struct Jobs(Vec<u64>);
    ///
    /// impl AsyncJobStore for Jobs {
    ///     type Row = u64;
    ///     type Error = String;
    ///     type Rows = Vec<Result<u64, String>>;
    ///
    ///     async fn list(&mut self) -> Result<Self::Rows, String> {
    ///         Ok(self.0.iter().copied().map(Ok).collect())
    ///     }
    ///
    ///     fn job<'a>(&self, id: &'a u64) -> RunningJob<'a> {
    ///         let past = Duration::from_secs(310);
    ///         RunningJob::new(id, "merge", past).finished_for(past)
    ///     }
    ///
    ///     async fn redrive(&mut self, job: u64, _claim: Claim<'static>) -> Result<Outcome, String> {
    ///         self.0.retain(|other| *other != job); // compare-and-set, then a task that finalizes under the claim
    ///         Ok(Outcome::Done)
    ///     }
    ///
    ///     async fn reap(&mut self, job: u64, _: Cause, claim: Claim<'static>) -> Result<Outcome, String> {
    ///         self.redrive(job, claim).await
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), livemark::PolicyError> {
    /// let registry: Arc<Registry> = Arc::default();
    /// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// let reaper = Reaper::new(&registry, policy);
    /// let swept = tokio::spawn(async move {
    ///     let mut jobs = Jobs(vec![7, 8]);
    ///     reaper.run_once_async(&mut jobs).await
    /// });
    /// assert_eq!(swept.await.expect("the task ends well").redriven, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn run_once_async<'s, J>(&'s self, store: &'s mut J) -> impl Future<Output = SweepReport> + Send + 's
    where
        J: AsyncJobStore<K, V>,
    {
        self.turn_async(store)
    }

    async fn turn_async<J>(&self, store: &mut J) -> SweepReport
    where
        J: AsyncJobStore<K, V>,
    {
        let mut turn = Turn::new(self, Awaited(store));
        let listed = caught_async(async { turn.store.0.list().await.map(IntoIterator::into_iter) }).await;
        let Some((mut rows, mut pass)) = turn.begin(listed) else { return turn.report };
        while let Some(row) = turn.next(&mut rows) {
            let Some((job, action, row)) = turn.judge(&mut pass, row) else { continue };
            let is_redrive = action.is_redrive();
            let act = async {
                match action {
                    Action::Redrive(claim) => turn.store.0.redrive(row, claim).await,
                    Action::Reap(cause, claim) => turn.store.0.reap(row, cause, claim).await,
                }
            };
            let done = caught_async(act).await;
            turn.end_of_action(job, is_redrive, done);
        }
        turn.end(rows)
    }
}

/// What is to be done with a job.
enum Action<'r, K: 'static, V> {
    Redrive(Claim<'r, K, V>),
    Reap(Cause, Claim<'r, K, V>),
}

impl<K: 'static, V> Action<'_, K, V> {
    fn is_redrive(&self) -> bool {
        matches!(self, Self::Redrive(_))
    }
}

/// What both kinds of job stores answer at once.
trait Store<'r, K: 'static, V> {
    type Row;
    type Error: fmt::Display;
    fn job<'a>(&self, row: &'a Self::Row) -> RunningJob<'a, K>;
    fn on_verdict(&mut self, row: &Self::Row, verdict: &Verdict<'r, K, V>, explanation: &Explanation<'_>);
    fn on_error(&mut self, error: &RunError<K, Self::Error>);
}

struct Blocking<'a, J: ?Sized>(&'a mut J);
struct Awaited<'a, J>(&'a mut J);

/// Hands the methods on.
macro_rules! store {
    () => {
        type Row = J::Row;
        type Error = J::Error;

        fn job<'a>(&self, row: &'a J::Row) -> RunningJob<'a, K> {
            self.0.job(row)
        }

        fn on_verdict(&mut self, row: &J::Row, verdict: &Verdict<'r, K, V>, explanation: &Explanation<'_>) {
            self.0.on_verdict(row, verdict, explanation);
        }

        fn on_error(&mut self, error: &RunError<K, J::Error>) {
            self.0.on_error(error);
        }
    };
}

impl<'r, K: 'static, V, J: JobStore<'r, K, V> + ?Sized> Store<'r, K, V> for Blocking<'_, J> {
    store! {}
}

/// Claims are `'static`, so that `'r` is.
impl<'r: 'static, K: 'static, V, J: AsyncJobStore<K, V>> Store<'r, K, V> for Awaited<'_, J> {
    store! {}
}

/// One turn of the loop under way: all of it but the calls that may be awaited.
struct Turn<'a, 'r, K, V, S, T> {
    reaper: &'a Reaper<'r, K, V, S>,
    store: T,
    report: SweepReport,
}

impl<'a, 'r, K, V, S, T> Turn<'a, 'r, K, V, S, T>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
    T: Store<'r, K, V>,
{
    fn new(reaper: &'a Reaper<'r, K, V, S>, store: T) -> Self {
        Self { reaper, store, report: SweepReport::default() }
    }

    /// Begins the sweep, if the running jobs were listed.
    fn begin<I>(&mut self, listed: Result<Result<I, T::Error>, Panicked>) -> Option<(I, Pass<'a>)> {
        let rows = match listed {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => return self.fail(RunError::List(error)),
            Err(Panicked) => return self.panicked(None),
        };
        match caught(|| self.reaper.begin()) {
            Ok(pass) => Some((rows, pass)),
            Err(Panicked) => self.panicked(None),
        }
    }

    fn stops(&mut self, is_stopped: bool) -> bool {
        self.report.stopped |= is_stopped;
        is_stopped
    }

    /// The next row that can be read. A bad one costs only itself.
    fn next<I>(&mut self, rows: &mut I) -> Option<T::Row>
    where
        I: Iterator<Item = Result<T::Row, T::Error>>,
    {
        loop {
            let Ok(next) = caught(|| rows.next()) else {
                // What is left of a listing that panicked cannot be trusted.
                self.report.stopped = true;
                return self.panicked(None);
            };
            let row = next?;
            self.report.listed = self.report.listed.saturating_add(1);
            match row {
                Ok(row) => return Some(row),
                Err(error) => self.fail::<()>(RunError::Row(error)),
            };
        }
    }

    /// Judges a row and tells the verdict. Returns what is to be done, if anything is.
    fn judge(&mut self, pass: &mut Pass<'a>, row: T::Row) -> Option<(K, Action<'r, K, V>, T::Row)> {
        let (reaper, store) = (self.reaper, &mut self.store);
        let job = caught(|| store.job(&row));
        let judged = job.and_then(|job| caught(|| judge(reaper, pass, &job)).map(|verdict| (job, verdict)));
        // Told in a call of its own: a verdict that is dropped while a panic of the store's unwinds may panic as well.
        let told = judged.and_then(|(job, verdict)| {
            let told = caught(|| {
                store.on_verdict(&row, &verdict, &explain(reaper, pass, &job, &verdict));
                // An id is cloned only where a failure may have to name it.
                matches!(verdict, Verdict::Redrive(_) | Verdict::Reap(..)).then(|| job.id.clone())
            });
            if let Ok(id) = told {
                return Ok((verdict, id));
            }
            let _: Result<(), Panicked> = caught(|| drop(verdict));
            Err(Panicked)
        });
        let report = &mut self.report;
        let (action, id) = match told {
            Ok((Verdict::Redrive(claim), Some(id))) => (Action::Redrive(claim), id),
            Ok((Verdict::Reap(cause, claim), Some(id))) => (Action::Reap(cause, claim), id),
            Ok((verdict, _)) => {
                match verdict {
                    Verdict::Defer(_) => report.deferred = report.deferred.saturating_add(1),
                    Verdict::DryRun(_) => report.proposed = report.proposed.saturating_add(1),
                    _ => {}
                }
                return caught(|| drop((verdict, row))).err().and_then(|Panicked| self.panicked(None));
            }
            Err(Panicked) => {
                let id = caught(|| self.store.job(&row).id.clone()).ok();
                let _: Result<(), Panicked> = caught(|| drop(row));
                return self.panicked(id);
            }
        };
        Some((id, action, row))
    }

    /// Counts what the store made of a verdict.
    fn end_of_action(&mut self, job: K, is_redrive: bool, done: Result<Result<Outcome, T::Error>, Panicked>) {
        match done {
            Ok(Ok(Outcome::Done)) => {
                let done = if is_redrive { &mut self.report.redriven } else { &mut self.report.reaped };
                *done = done.saturating_add(1);
                self.discard(job);
            }
            Ok(Ok(Outcome::Refused)) => {
                self.report.refused = self.report.refused.saturating_add(1);
                self.reaper.control.counts.refused.increment();
                telemetry::refused(self.reaper.control.name, self.reaper.registry.shown(&job));
                self.discard(job);
            }
            Ok(Err(error)) => {
                let error = RunError::act(job, error, |job| self.show(job));
                self.fail::<()>(error);
            }
            Err(Panicked) => {
                self.panicked::<()>(Some(job));
            }
        }
    }

    /// Ends the turn. What is left of the listing is dropped, which is the user's code as well.
    fn end<I>(mut self, rows: I) -> SweepReport {
        if let Err(Panicked) = caught(|| drop(rows)) {
            self.panicked::<()>(None);
        }
        self.report
    }

    /// Drops a clone of a job's id, which is of the user's type.
    fn discard(&mut self, job: K) {
        if let Err(Panicked) = caught(|| drop(job)) {
            self.panicked::<()>(None);
        }
    }

    fn show(&self, job: &K) -> Box<str> {
        show_safely(self.reaper.registry.shown(job))
    }

    fn panicked<N>(&mut self, job: Option<K>) -> Option<N> {
        let error = RunError::panicked(job, |job| self.show(job));
        self.fail(error)
    }

    /// Counts a failure and tells it. Returns `None`, for callers that have nothing else to return.
    fn fail<N>(&mut self, error: RunError<K, T::Error>) -> Option<N> {
        let counts = &self.reaper.control.counts;
        let (count, number) = match &error {
            RunError::List(_) => (&counts.failed_listings, &mut self.report.failed),
            RunError::Row(_) => (&counts.bad_rows, &mut self.report.failed),
            RunError::Act { .. } => (&counts.failed_actions, &mut self.report.failed),
            RunError::Panicked { .. } => (&counts.panics, &mut self.report.panicked),
        };
        count.increment();
        *number = number.saturating_add(1);
        telemetry::failed(self.reaper.control.name, &error);
        // The store and the error are the user's.
        let told = caught(|| self.store.on_error(&error));
        for Panicked in [told, caught(|| drop(error))].into_iter().filter_map(Result::err) {
            self.reaper.control.counts.panics.increment();
            self.report.panicked = self.report.panicked.saturating_add(1);
        }
        None
    }
}

/// Awaits `future`, and returns what it returns, or that a poll of it panicked.
async fn caught_async<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = Box::pin(future);
    let polled = poll_fn(|context| match caught(|| future.as_mut().poll(context)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(Panicked) => Poll::Ready(Err(Panicked)),
    });
    let result = polled.await;
    // What the future still holds is dropped here, and what it returned where that panics: the user's code as well.
    match caught(|| drop(future)) {
        Ok(()) => result,
        Err(Panicked) => caught(|| drop(result)).and(Err(Panicked)),
    }
}
