//! The loop: [`Reaper::run`], and its single turns.

use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

use super::job_store::{AsyncJobStore, Claimer, JobStore};
use super::reaper::Reaper;
use super::stop::StopToken;
use super::sweep_report::SweepReport;

impl<'r, K, V, S> Reaper<'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Sweeps on this thread until `stop` is stopped: at once, and then every `every` from begin to begin.
    ///
    /// The loop judges a job of [`JobStore::list`] and carries the verdict out before it judges the next job. In a dry
    /// run it carries nothing out. A sweep that overruns `every` delays the next one, and missed sweeps are skipped.
    /// After a stop the loop finishes the current job and leaves the rest of the sweep.
    ///
    /// A listing that fails, a bad row, and an action that fails or panics cost themselves alone. The loop counts them
    /// in [`stats`](Self::stats), sends them as `error` events, and tells [`JobStore::on_error`]. Nothing is pinned while
    /// an action runs, so a slow action holds back no memory.
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
        // The first sweep is due at once, each later one `every` after the one before began.
        let mut wait = Duration::ZERO;
        while !stop.wait(wait) {
            let began = Instant::now();
            self.turn(&|| stop.is_stopped(), store);
            wait = every.saturating_sub(began.elapsed());
        }
    }

    /// Sweeps once on this thread. This is one turn of [`run`](Self::run), for a scheduler that has a loop of its own.
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
}

impl<K, V, S> Reaper<'static, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Sweeps once in a task. This is one turn of an async loop, whose timer and runtime are the user's.
    ///
    /// It differs from [`run_once`](Self::run_once) in that the store's answers are awaited. The future is `Send`, and
    /// holds no pin while it awaits. A panic inside a poll of the store's futures is caught. A future that is dropped
    /// before its end gives its claims back, because the store's future under way holds them.
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

    /// Sweeps once as [`run_once_async`](Self::run_once_async) does, with claims that `claimer` makes.
    ///
    /// The reaper's registry then mirrors the marks of several processes, and `claimer` asks the engine that they share.
    /// `livemark-cluster` has both.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use std::time::Duration;
    /// # use livemark::{AsyncJobStore, Cause, Claim, Outcome, Policy, Reaper, Registry, RunningJob};
    /// use livemark::{Claimed, Claimer, Intent, Mark};
    ///
    /// /// A mark that somebody else keeps.
    /// struct Ticket(u64);
    ///
    /// impl Mark for Ticket {
    ///     const NUMBER: &'static str = "ticket";
    ///
    ///     fn number(&self) -> u64 {
    ///         self.0
    ///     }
    /// }
    ///
    /// /// The one who keeps them. A real one is asked over the network.
    /// struct Office(u64);
    ///
    /// impl Claimer<u64, &'static str> for Office {
    ///     type Mark = Ticket;
    ///
    ///     async fn claim(&mut self, _job: u64, _context: &'static str, _intent: &Intent<&'static str>) -> Claimed<&'static str, Ticket> {
    ///         self.0 += 1;
    ///         Claimed::Won { mark: Ticket(self.0), displaced: None }
    ///     }
    /// }
    ///
    /// struct Jobs(Vec<u64>);
    ///
    /// impl AsyncJobStore<u64, &'static str, Ticket> for Jobs {
    /// #   type Row = u64;
    /// #   type Error = Infallible;
    /// #   type Rows = Vec<Result<u64, Infallible>>;
    /// #   async fn list(&mut self) -> Result<Self::Rows, Infallible> { Ok(self.0.iter().copied().map(Ok).collect()) }
    /// #   fn job<'a>(&self, id: &'a u64) -> RunningJob<'a> {
    /// #       RunningJob::new(id, "merge", Duration::from_secs(310)).finished_for(Duration::from_secs(310))
    /// #   }
    ///     async fn redrive(&mut self, job: u64, claim: Claim<'static, u64, &'static str, Ticket>) -> Result<Outcome, Infallible> {
    ///         let fence = claim.guard().map(Mark::number); // UPDATE .. SET fence = :fence WHERE fence < :fence
    ///         Ok(if fence > Some(0) { Outcome::Done } else { Outcome::Refused })
    ///     }
    /// #   async fn reap(&mut self, _: u64, _: Cause, _: Claim<'static, u64, &'static str, Ticket>) -> Result<Outcome, Infallible> {
    /// #       Ok(Outcome::Done)
    /// #   }
    /// }
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
    /// # let mirror: &'static Registry<u64, &str> = Box::leak(Box::new(Registry::new()));
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// let reaper = Reaper::with_claim(mirror, policy, |_job| "reaper");
    /// let report = reaper.run_once_claiming(&mut Jobs(vec![7, 8]), &mut Office(0)).await;
    /// assert_eq!(report.redriven, 2);
    /// # Ok::<(), livemark::PolicyError>(())
    /// # }).expect("the policy can be built");
    /// ```
    pub fn run_once_claiming<'s, J, C>(
        &'s self,
        store: &'s mut J,
        claimer: &'s mut C,
    ) -> impl Future<Output = SweepReport> + Send + 's
    where
        C: Claimer<K, V>,
        J: AsyncJobStore<K, V, C::Mark>,
    {
        self.turn_claiming(store, claimer)
    }
}
