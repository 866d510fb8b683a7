//! One turn of the loop: the rows are listed, and each is judged and acted on. One job's error or panic costs that job's
//! turn.

use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::task::Poll;

use super::claim::{Claim, Mark};
use super::explain::Explanation;
use super::job::RunningJob;
use super::job_store::{AsyncJobStore, Claimer, JobStore, Outcome};
use super::judge::{judge, propose, settle};
use super::reaper::Reaper;
use super::run_error::{RunError, show_safely};
use super::sweep_report::SweepReport;
use super::sweep_state::SweepState;
use super::verdict::{Cause, Claimed, Proposal, Takes, Verdict};
use crate::registry::MarkGuard;
use crate::telemetry;
use crate::unwind::{Panicked, caught};

impl<'r, K, V, S> Reaper<'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Sweeps once over what the store lists. Leaves the rest when asked to stop.
    pub(super) fn turn<J>(&self, is_stopped: &dyn Fn() -> bool, store: &mut J) -> SweepReport
    where
        J: JobStore<'r, K, V> + ?Sized,
    {
        let mut turn = Turn::new(self, Blocking(store));
        // List the running jobs, and begin the sweep.
        let listed = caught(|| turn.store.0.list().map(IntoIterator::into_iter));
        let Some((mut rows, mut pass)) = turn.begin(listed) else { return turn.report };
        while !turn.record_stop(is_stopped()) {
            // Read a row, judge its job, and tell the store the verdict.
            let Some(row) = turn.next(&mut rows) else { break };
            let Some((job, action, row)) = turn.judge(&mut pass, row) else { continue };
            // Act. The claim goes to the store, which drops it when the job is done with.
            let is_redrive = action.is_redrive();
            let done = caught(|| match action {
                Action::Redrive(claim) => turn.store.0.redrive(row, claim),
                Action::Reap(cause, claim) => turn.store.0.reap(row, cause, claim),
            });
            turn.record_outcome(job, is_redrive, done);
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
    /// Sweeps once as [`turn`](Self::turn) does, and awaits the store's answers.
    pub(super) async fn turn_async<J>(&self, store: &mut J) -> SweepReport
    where
        J: AsyncJobStore<K, V>,
    {
        let mut turn = Turn::new(self, Awaited(store));
        let listed = caught_async(async { turn.store.0.list().await.map(IntoIterator::into_iter) }).await;
        let Some((mut rows, mut pass)) = turn.begin(listed) else { return turn.report };
        while let Some(row) = turn.next(&mut rows) {
            let Some((job, action, row)) = turn.judge(&mut pass, row) else { continue };
            turn.act(job, action, row).await;
        }
        turn.end(rows)
    }

    /// Sweeps once as [`turn_async`](Self::turn_async) does, with claims that somebody else makes.
    pub(super) async fn turn_claiming<J, C>(&self, store: &mut J, claimer: &mut C) -> SweepReport
    where
        C: Claimer<K, V>,
        J: AsyncJobStore<K, V, C::Mark>,
    {
        let mut turn = Turn::new(self, Awaited(store));
        let listed = caught_async(async { turn.store.0.list().await.map(IntoIterator::into_iter) }).await;
        let Some((mut rows, mut pass)) = turn.begin(listed) else { return turn.report };
        while let Some(row) = turn.next(&mut rows) {
            // Say what is to be done.
            let Some((proposal, row)) = turn.propose(&mut pass, row) else { continue };
            // Claim it, where it must be claimed. Who claims may panic as well, and then nobody has answered.
            let won = match &proposal {
                Proposal::Act(intent) if intent.takes != Takes::Nothing => {
                    let Ok((job, context)) = turn.context(&row) else {
                        let _: Result<(), Panicked> = caught(|| drop(proposal));
                        turn.lose::<()>(row);
                        continue;
                    };
                    let asked = caught_async(async { claimer.claim(job, context, intent).await }).await;
                    asked.unwrap_or_else(|Panicked| turn.record_claim_panic(&row))
                }
                _ => Claimed::NotAsked,
            };
            // Make the verdict of it, tell the store, and act.
            let settled = turn.settle(&mut pass, row, proposal, won);
            let Some((job, action, row)) = settled else { continue };
            turn.act(job, action, row).await;
        }
        turn.end(rows)
    }
}

impl<K, V, S, J, M> Turn<'_, 'static, K, V, S, Awaited<'_, J>, M>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
    M: Mark,
    J: AsyncJobStore<K, V, M>,
{
    /// Has the store act, and awaits what comes of it.
    async fn act(&mut self, job: K, action: Action<'static, K, V, M>, row: J::Row) {
        let is_redrive = action.is_redrive();
        let act = async {
            match action {
                Action::Redrive(claim) => self.store.0.redrive(row, claim).await,
                Action::Reap(cause, claim) => self.store.0.reap(row, cause, claim).await,
            }
        };
        let done = caught_async(act).await;
        self.record_outcome(job, is_redrive, done);
    }
}

/// A job that is to be acted on, and its row.
type Due<'r, K, V, M, R> = (K, Action<'r, K, V, M>, R);
/// One whose claim is in the reaper's own registry.
type DueHere<'r, K, V, R> = Due<'r, K, V, MarkGuard<'r, K, V>, R>;
/// A verdict that the store was told, and the job's id if it is to be acted on.
type Told<'r, K, V, M> = (Verdict<'r, K, V, M>, Option<K>);

/// What the store is to do with a job.
enum Action<'r, K: 'static, V, M> {
    Redrive(Claim<'r, K, V, M>),
    Reap(Cause, Claim<'r, K, V, M>),
}

impl<K: 'static, V, M> Action<'_, K, V, M> {
    fn is_redrive(&self) -> bool {
        matches!(self, Self::Redrive(_))
    }
}

/// The methods that both kinds of job stores have, and that nobody awaits.
trait Store<'r, K: 'static, V, M> {
    type Row;
    type Error: fmt::Display;
    fn job<'a>(&self, row: &'a Self::Row) -> RunningJob<'a, K>;
    fn on_verdict(&mut self, row: &Self::Row, verdict: &Verdict<'r, K, V, M>, explanation: &Explanation<'_>);
    fn on_error(&mut self, error: &RunError<K, Self::Error>);
}

struct Blocking<'a, J: ?Sized>(&'a mut J);
struct Awaited<'a, J>(&'a mut J);

/// Hands the methods on to the job store.
macro_rules! store {
    ($mark:ty) => {
        type Row = J::Row;
        type Error = J::Error;

        fn job<'a>(&self, row: &'a J::Row) -> RunningJob<'a, K> {
            self.0.job(row)
        }

        fn on_verdict(&mut self, row: &J::Row, verdict: &Verdict<'r, K, V, $mark>, explanation: &Explanation<'_>) {
            self.0.on_verdict(row, verdict, explanation);
        }

        fn on_error(&mut self, error: &RunError<K, J::Error>) {
            self.0.on_error(error);
        }
    };
}

impl<'r, K: 'static, V, J: JobStore<'r, K, V> + ?Sized> Store<'r, K, V, MarkGuard<'r, K, V>> for Blocking<'_, J> {
    store! { MarkGuard<'r, K, V> }
}

/// An async store's claims are `'static`, so `'r` is.
impl<'r: 'static, K: 'static, V, M, J: AsyncJobStore<K, V, M>> Store<'r, K, V, M> for Awaited<'_, J> {
    store! { M }
}

/// A turn of the loop under way: all of it but the calls that may be awaited.
struct Turn<'a, 'r, K, V, S, T, M> {
    reaper: &'a Reaper<'r, K, V, S>,
    store: T,
    report: SweepReport,
    /// What its claims hold.
    mark: PhantomData<fn() -> M>,
}

impl<'a, 'r, K, V, S, T, M> Turn<'a, 'r, K, V, S, T, M>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
    T: Store<'r, K, V, M>,
    M: Mark,
{
    fn new(reaper: &'a Reaper<'r, K, V, S>, store: T) -> Self {
        Self { reaper, store, report: SweepReport::default(), mark: PhantomData }
    }

    /// Begins the sweep, if the running jobs were listed.
    fn begin<I>(&mut self, listed: Result<Result<I, T::Error>, Panicked>) -> Option<(I, SweepState<'a>)> {
        let rows = match listed {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => return self.record_failure(RunError::List(error)),
            Err(Panicked) => return self.record_panic(None),
        };
        match caught(|| self.reaper.begin()) {
            Ok(state) => Some((rows, state)),
            Err(Panicked) => self.record_panic(None),
        }
    }

    /// Notes whether the loop was asked to stop, and returns it.
    fn record_stop(&mut self, is_stopped: bool) -> bool {
        self.report.stopped |= is_stopped;
        is_stopped
    }

    /// Returns the next row that can be read. A bad row costs only itself.
    fn next<I>(&mut self, rows: &mut I) -> Option<T::Row>
    where
        I: Iterator<Item = Result<T::Row, T::Error>>,
    {
        loop {
            let Ok(next) = caught(|| rows.next()) else {
                // What is left of a listing that panicked cannot be trusted.
                self.report.stopped = true;
                return self.record_panic(None);
            };
            let row = next?;
            count(&mut self.report.listed);
            match row {
                Ok(row) => return Some(row),
                Err(error) => self.record_failure::<()>(RunError::Row(error)),
            };
        }
    }

    /// Says what is to be done with a row's job.
    fn propose(&mut self, state: &mut SweepState<'a>, row: T::Row) -> Option<(Proposal<V>, T::Row)> {
        let (reaper, store) = (self.reaper, &self.store);
        match caught(|| propose(reaper, state, &store.job(&row))) {
            Ok(proposal) => Some((proposal, row)),
            Err(Panicked) => self.lose(row),
        }
    }

    /// Returns the id and the context of the reaper's own claim of a row's job.
    fn context(&self, row: &T::Row) -> Result<(K, V), Panicked> {
        caught(|| {
            let job = self.store.job(row);
            (job.id.clone(), (self.reaper.claim)(&job))
        })
    }

    /// Records that a claimer panicked at a row's job. It has not answered then.
    fn record_claim_panic(&mut self, row: &T::Row) -> Claimed<V, M> {
        let id = caught(|| self.store.job(row).id.clone()).ok();
        self.record_panic::<()>(id);
        Claimed::Unavailable
    }

    /// Settles what was proposed for a row's job, and tells the store the verdict.
    fn settle(
        &mut self,
        state: &mut SweepState<'a>,
        row: T::Row,
        proposal: Proposal<V>,
        claimed: Claimed<V, M>,
    ) -> Option<Due<'r, K, V, M, T::Row>> {
        self.conclude(state, row, |reaper, state, job| match proposal {
            Proposal::Healthy => Verdict::Healthy,
            Proposal::Defer(deferral) => Verdict::Defer(deferral),
            Proposal::DryRun(proposed) => Verdict::DryRun(proposed),
            Proposal::Act(intent) => settle(reaper, state, job, intent, claimed),
        })
    }

    /// Makes a row's verdict and tells it to the store. Returns what is to be done, if anything is.
    fn conclude(
        &mut self,
        state: &mut SweepState<'a>,
        row: T::Row,
        judge: impl FnOnce(&Reaper<'r, K, V, S>, &mut SweepState<'a>, &RunningJob<'_, K>) -> Verdict<'r, K, V, M>,
    ) -> Option<Due<'r, K, V, M, T::Row>> {
        let told = self.judge_and_tell(state, &row, judge);
        // Is there anything to do? A job that is left alone is counted, and its turn is over.
        let report = &mut self.report;
        let (action, id) = match told {
            Ok((Verdict::Redrive(claim), Some(id))) => (Action::Redrive(claim), id),
            Ok((Verdict::Reap(cause, claim), Some(id))) => (Action::Reap(cause, claim), id),
            Ok((verdict, _)) => {
                match verdict {
                    Verdict::Defer(_) => count(&mut report.deferred),
                    Verdict::DryRun(_) => count(&mut report.proposed),
                    _ => {}
                }
                return caught(|| drop((verdict, row))).err().and_then(|Panicked| self.record_panic(None));
            }
            Err(Panicked) => return self.lose(row),
        };
        Some((id, action, row))
    }

    /// Gives up a row whose turn panicked. Names the job, if the store can still say which it is.
    fn lose<N>(&mut self, row: T::Row) -> Option<N> {
        let id = caught(|| self.store.job(&row).id.clone()).ok();
        let _: Result<(), Panicked> = caught(|| drop(row));
        self.record_panic(id)
    }

    /// Judges a row and tells the store the verdict. Returns the verdict, and the job's id if it is to be acted on.
    fn judge_and_tell(
        &mut self,
        state: &mut SweepState<'a>,
        row: &T::Row,
        judge: impl FnOnce(&Reaper<'r, K, V, S>, &mut SweepState<'a>, &RunningJob<'_, K>) -> Verdict<'r, K, V, M>,
    ) -> Result<Told<'r, K, V, M>, Panicked> {
        let (reaper, store) = (self.reaper, &mut self.store);
        // The store says which job the row is. What is to be judged may hold values of the user's.
        let Ok(job) = caught(|| store.job(row)) else {
            let _: Result<(), Panicked> = caught(|| drop(judge));
            return Err(Panicked);
        };
        let verdict = caught(|| judge(reaper, state, &job))?;
        // The verdict stays outside of the call that may panic: dropped while a panic unwinds, it could panic as well.
        let told = caught(|| {
            store.on_verdict(row, &verdict, &Explanation::new(reaper, state, &job, &verdict));
            // An id is cloned only where a failure may have to name it.
            matches!(verdict, Verdict::Redrive(_) | Verdict::Reap(..)).then(|| job.id.clone())
        });
        let Ok(id) = told else {
            let _: Result<(), Panicked> = caught(|| drop(verdict));
            return Err(Panicked);
        };
        Ok((verdict, id))
    }

    /// Counts what the store made of a verdict.
    fn record_outcome(&mut self, job: K, is_redrive: bool, done: Result<Result<Outcome, T::Error>, Panicked>) {
        match done {
            Ok(Ok(Outcome::Done)) => {
                count(if is_redrive { &mut self.report.redriven } else { &mut self.report.reaped });
                self.discard(job);
            }
            Ok(Ok(Outcome::Refused)) => {
                count(&mut self.report.refused);
                self.reaper.control.counts.refused.increment();
                telemetry::refused(self.reaper.control.name, self.reaper.registry.shown(&job));
                self.discard(job);
            }
            Ok(Err(error)) => {
                let error = RunError::act(job, error, |job| self.show(job));
                self.record_failure::<()>(error);
            }
            Err(Panicked) => {
                self.record_panic::<()>(Some(job));
            }
        }
    }

    /// Ends the turn. What is left of the listing is dropped, which is the user's code as well.
    fn end<I>(mut self, rows: I) -> SweepReport {
        if let Err(Panicked) = caught(|| drop(rows)) {
            self.record_panic::<()>(None);
        }
        self.report
    }

    /// Drops a clone of a job's id, which is of the user's type.
    fn discard(&mut self, job: K) {
        if let Err(Panicked) = caught(|| drop(job)) {
            self.record_panic::<()>(None);
        }
    }

    fn show(&self, job: &K) -> Box<str> {
        show_safely(self.reaper.registry.shown(job))
    }

    /// Records that the user's code panicked, in the turn of `job` if it is known.
    fn record_panic<N>(&mut self, job: Option<K>) -> Option<N> {
        let error = RunError::panicked(job, |job| self.show(job));
        self.record_failure(error)
    }

    /// Counts a failure and reports it. Returns `None`, for callers that have nothing else to return.
    fn record_failure<N>(&mut self, error: RunError<K, T::Error>) -> Option<N> {
        let counts = &self.reaper.control.counts;
        let (counter, number) = match &error {
            RunError::List(_) => (&counts.failed_listings, &mut self.report.failed),
            RunError::Row(_) => (&counts.bad_rows, &mut self.report.failed),
            RunError::Act { .. } => (&counts.failed_actions, &mut self.report.failed),
            RunError::Panicked { .. } => (&counts.panics, &mut self.report.panicked),
        };
        counter.increment();
        count(number);
        telemetry::failed(self.reaper.control.name, &error);
        // Tell the store. Its method and the error's drop are the user's code, and may panic as well.
        let told = caught(|| self.store.on_error(&error));
        for Panicked in [told, caught(|| drop(error))].into_iter().filter_map(Result::err) {
            self.reaper.control.counts.panics.increment();
            count(&mut self.report.panicked);
        }
        None
    }
}

impl<'a, 'r, K, V, S, T> Turn<'a, 'r, K, V, S, T, MarkGuard<'r, K, V>>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
    T: Store<'r, K, V, MarkGuard<'r, K, V>>,
{
    /// Judges a row, with a claim in the reaper's own registry, and tells the store the verdict.
    fn judge(&mut self, state: &mut SweepState<'a>, row: T::Row) -> Option<DueHere<'r, K, V, T::Row>> {
        self.conclude(state, row, judge)
    }
}

/// Adds one to a number of a report, which has no time to overflow.
#[expect(clippy::arithmetic_side_effects, reason = "there are not 2^64 rows")]
fn count(number: &mut u64) {
    *number += 1;
}

/// Awaits `future`. Returns its output, or that a poll of it panicked.
async fn caught_async<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = Box::pin(future);
    let polled = poll_fn(|context| match caught(|| future.as_mut().poll(context)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(Panicked) => Poll::Ready(Err(Panicked)),
    });
    let result = polled.await;
    // Drop what the future still holds, which is the user's code. Where that panics, drop the output as well.
    match caught(|| drop(future)) {
        Ok(()) => result,
        Err(Panicked) => caught(|| drop(result)).and(Err(Panicked)),
    }
}
