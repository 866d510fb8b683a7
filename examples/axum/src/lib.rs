//! A job system in tasks: an `Arc<Registry>` in axum's state, a reaper in an async loop, and an end.
//!
//! | request | what it does |
//! |---|---|
//! | `POST /jobs/{kind}` | submits a job: `quick`, `slow` (past its grace), `dies` (in its first run) or `hangs` |
//! | `PUT /mode/{mode}` | switches the reaper: `honor`, `ignore`, `defer_all` or `dry_run` |
//! | `GET /queue` | shows what happened to each job, and what the reaper counted |

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::io;
use std::panic::resume_unwind; // as `panic!`, without its message
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use livemark::{
    AsyncJobStore, Cause, Claim, Explanation, Finalizer, Mode, Outcome, Policy, Reaper, ReaperHandle, ReaperStats,
    Registry, RunningJob, StageRules, Verdict,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What all requests and tasks share.
#[derive(Clone)]
struct App {
    /// Which jobs are being finalized, and by whom. One for the process.
    finalizing: Arc<Registry>,
    jobs: Arc<Mutex<BTreeMap<u64, Job>>>,
    reaper: ReaperHandle,
    /// The finalizations under way.
    tasks: TaskTracker,
}

/// A row of the job store, which is a table in memory.
struct Job {
    kind: Kind,
    run: u64,
    started_at: Instant,
    finished_at: Instant,
    redrives: u32,
    is_running: bool,
    task: AbortHandle,
    history: Vec<String>,
}

/// How a job's finalization goes: minutes of gates, in earnest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Quick,
    Slow,
    Dies,
    Hangs,
}

impl Kind {
    fn stage(self) -> &'static str {
        if self == Self::Hangs { "deploy" } else { "merge" }
    }

    async fn gates(self, run: u64) {
        match (self, run) {
            (Self::Slow, _) => sleep(Duration::from_millis(900)).await,
            (Self::Dies, 1) => resume_unwind(Box::new("a gate blew up")),
            (Self::Hangs, _) => pending().await,
            (Self::Quick | Self::Dies, _) => {}
        }
    }
}

impl App {
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<u64, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a job by compare-and-set: `UPDATE .. WHERE id = :id AND state = 'running' AND run = :run`.
    fn update(&self, id: u64, run: u64, what: String, change: impl FnOnce(&mut Job)) -> Outcome {
        match self.jobs().get_mut(&id) {
            Some(job) if job.is_running && job.run == run => {
                change(job);
                job.history.push(what);
                Outcome::Done
            }
            _ => Outcome::Refused,
        }
    }

    /// What a monitor does when the process of its job has exited.
    fn submit(&self, kind: Kind) -> u64 {
        let mut jobs = self.jobs();
        let id = jobs.keys().next_back().map_or(1, |last| last + 1);
        let mark = self.finalizing.mark_owned(id, Finalizer::new(Some(1), kind.stage())); // before it becomes reapable
        let task = self.spawn(id, 1, kind, mark.into());
        let now = Instant::now();
        let (started_at, finished_at) = (now, now);
        let job =
            Job { kind, run: 1, started_at, finished_at, redrives: 0, is_running: true, task, history: Vec::new() };
        jobs.insert(id, job); // the stamp
        id
    }

    fn spawn(&self, id: u64, run: u64, kind: Kind, claim: Claim<'static>) -> AbortHandle {
        self.tasks.spawn(self.clone().finalize(id, run, kind, claim)).abort_handle()
    }

    /// Finalizes under the monitor's own mark, or again under the reaper's claim.
    async fn finalize(self, id: u64, run: u64, kind: Kind, claim: Claim<'static>) {
        claim.replace(Finalizer::new(Some(run), kind.stage())); // whoever works is the owner
        kind.gates(run).await;
        if claim.is_current() {
            let _refused = self.update(id, run, format!("merged by run {run}"), |job| job.is_running = false);
        }
    } // the mark is cleared after the commit, by a panic, and with a task that is aborted

    fn queue(&self) -> Queue {
        let jobs = self.jobs();
        Queue {
            running: jobs.values().filter(|job| job.is_running).count(),
            finalizer_owned: self.finalizing.len(),
            reaper: self.reaper.stats(),
            jobs: jobs.iter().map(|(id, job)| (*id, job.history.clone())).collect(),
        }
    }
}

/// What the service shows of itself.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Queue {
    /// How many jobs are running.
    pub running: usize,
    /// How many jobs are owned.
    pub finalizer_owned: usize,
    /// What the reaper counted.
    #[serde(flatten)]
    pub reaper: ReaperStats,
    /// What happened to each job.
    pub jobs: BTreeMap<u64, Vec<String>>,
}

/// The reaper's view of the store, and its hands.
struct Store(App);

struct Row {
    id: u64,
    run: u64,
    kind: Kind,
    running_for: Duration,
    finished_for: Duration,
    redrives: u32,
}

impl AsyncJobStore for Store {
    type Row = Row;
    type Error = Infallible;
    type Rows = Vec<Result<Row, Infallible>>;

    async fn list(&mut self) -> Result<Self::Rows, Infallible> {
        let row = |(&id, job): (&u64, &Job)| Row {
            id,
            run: job.run,
            kind: job.kind,
            running_for: job.started_at.elapsed(),
            finished_for: job.finished_at.elapsed(),
            redrives: job.redrives,
        };
        Ok(self.0.jobs().iter().filter(|(_, job)| job.is_running).map(row).map(Ok).collect())
    }

    fn job<'a>(&self, row: &'a Row) -> RunningJob<'a> {
        RunningJob::new(&row.id, row.kind.stage(), row.running_for)
            .finished_for(row.finished_for)
            .redrives(row.redrives)
    }

    async fn redrive(&mut self, row: Row, claim: Claim<'static>) -> Result<Outcome, Infallible> {
        // The stamp begins anew. The start stays: one deadline bounds all runs together.
        Ok(self.0.update(row.id, row.run, "redriven".to_owned(), |job| {
            job.run += 1;
            job.redrives += 1;
            job.finished_at = Instant::now();
            job.task = self.0.spawn(row.id, job.run, job.kind, claim);
        }))
    }

    async fn reap(&mut self, row: Row, cause: Cause, claim: Claim<'static>) -> Result<Outcome, Infallible> {
        let displaced = claim.displaced().and_then(|owner| owner.value.run_id);
        let what = displaced.map_or(String::new(), |run| format!(", displacing run {run}"));
        Ok(self.0.update(row.id, row.run, format!("reaped: {cause}{what}"), |job| {
            job.is_running = false;
            job.task.abort();
        }))
    }

    fn on_verdict(&mut self, row: &Row, verdict: &Verdict<'static>, explanation: &Explanation<'_>) {
        let what = match verdict {
            Verdict::Defer(deferral) => format!("deferred: {}", deferral.reason),
            Verdict::DryRun(proposed) => format!("would {proposed}"),
            // These are noted when the store has taken them.
            Verdict::Healthy | Verdict::Redrive(_) | Verdict::Reap(..) => return,
        };
        if explanation.is_news() {
            let _refused = self.0.update(row.id, row.run, what, |_| {});
        }
    }
}

/// Sweeps until told to stop.
async fn reap(reaper: Reaper<'static>, app: App, stop: CancellationToken) {
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut store = Store(app);
    // A sweep that has begun goes to its end.
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        reaper.run_once_async(&mut store).await;
    }
}

async fn set_mode(State(app): State<App>, Path(mode): Path<String>) -> Result<StatusCode, (StatusCode, String)> {
    let mode: Mode = mode.parse().map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))?;
    app.reaper.set_mode(mode);
    Ok(StatusCode::NO_CONTENT)
}

/// Serves until `stop` is canceled and all jobs have ended. Returns what happened to them.
///
/// # Errors
///
/// If the policy cannot work or the listener fails.
pub async fn serve(listener: TcpListener, stop: CancellationToken) -> Result<Queue, Box<dyn Error + Send + Sync>> {
    let policy = Policy::builder()
        .finalize_grace(Duration::from_millis(100)) // minutes, in earnest
        .hard_deadline(Duration::from_secs(3600))
        .marking_stage("merge")
        .stage(
            "deploy",
            StageRules::marking().lost_grace(Duration::from_millis(100)).hard_deadline(Duration::from_secs(1)),
        )
        .build()?;
    let finalizing: Arc<Registry> = Arc::default();
    let reaper = Reaper::new(&finalizing, policy);
    let app = App { finalizing, jobs: Arc::default(), reaper: reaper.handle(), tasks: TaskTracker::new() };
    let stop_reaping = CancellationToken::new();
    let reaping = tokio::spawn(reap(reaper, app.clone(), stop_reaping.clone()));

    let routes = Router::new()
        .route("/jobs/{kind}", post(|State(app): State<App>, Path(kind)| async move { Json(app.submit(kind)) }))
        .route("/mode/{mode}", put(set_mode))
        .route("/queue", get(|State(app): State<App>| async move { Json(app.queue()) }))
        .with_state(app.clone());
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await?;

    // Nothing new comes. The reaper goes last, since it is what ends a job whose finalizer has died or hangs.
    while app.jobs().values().any(|job| job.is_running) {
        sleep(Duration::from_millis(10)).await;
    }
    stop_reaping.cancel();
    reaping.await.map_err(io::Error::other)?;
    app.tasks.close();
    app.tasks.wait().await;
    Ok(app.queue())
}
