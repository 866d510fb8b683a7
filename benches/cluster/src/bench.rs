//! What the benchmarks share: sessions, many marks at once, and waiting.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use livemark::{Finalizer, Registry};
use livemark_cluster::{ClusterGuard, Config, Remote, Session};
use livemark_etcd::{Etcd, Options};
use tokio::task::JoinSet;

use crate::error::BenchError;

/// How many marks are made at once where only the outcome matters.
const MAKERS: u64 = 128;
/// For how long something that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Calls in a round, where they are made one at a time.
    pub(crate) calls: usize,
    /// For how long a load runs in a round.
    pub(crate) load: Duration,
    /// How many marks are many.
    pub(crate) many: u64,
    /// How many marks are made and cleared while events are counted, in a round.
    pub(crate) foreign: u64,
    /// Rounds of what has to make many marks, or to keep them.
    pub(crate) dear_rounds: usize,
    /// Rounds of local look-ups.
    pub(crate) look_up_rounds: usize,
}

impl Plan {
    pub(crate) const FULL: Self = Self {
        rounds: 15,
        calls: 200,
        load: Duration::from_secs(1),
        many: 10_000,
        foreign: 1_000,
        dear_rounds: 5,
        look_up_rounds: 201,
    };
    /// In some seconds. The figures say nothing then, but that all is measured.
    pub(crate) const QUICK: Self = Self {
        rounds: 2,
        calls: 10,
        load: Duration::from_millis(100),
        many: 300,
        foreign: 100,
        dear_rounds: 1,
        look_up_rounds: 5,
    };
}

/// Where is measured, and how much.
pub(crate) struct Bench {
    pub(crate) endpoints: Vec<String>,
    /// A directory on the disk of the servers, if they were started here.
    pub(crate) dir: PathBuf,
    pub(crate) plan: Plan,
    /// What the namespaces of this run begin with.
    pub(crate) run: String,
    namespaces: AtomicU64,
}

impl Bench {
    pub(crate) fn new(endpoints: Vec<String>, dir: PathBuf, plan: Plan, run: String) -> Self {
        Self { endpoints, dir, plan, run, namespaces: AtomicU64::new(0) }
    }

    /// Returns the name of a namespace that nobody has used.
    pub(crate) fn namespace(&self) -> String {
        // Relaxed (no edge): a number that is drawn once.
        format!("{}-{}", self.run, self.namespaces.fetch_add(1, Ordering::Relaxed))
    }

    /// Connects as another process would: with a connection of its own.
    pub(crate) async fn etcd(&self, namespace: &str) -> Result<Etcd, BenchError> {
        Ok(Etcd::connect(self.endpoints.clone(), namespace, Options::default()).await?)
    }

    pub(crate) async fn session(&self, namespace: &str) -> Result<Session, BenchError> {
        Ok(Session::open(self.etcd(namespace).await?, config()).await?)
    }
}

/// A machine that stalls for seconds shows in the times, and ends no run.
pub(crate) fn config() -> Config {
    let mut config = Config::with_ttl(Duration::from_secs(60));
    config.call_timeout = Duration::from_secs(10);
    config
}

pub(crate) fn context(job: u64) -> Finalizer {
    Finalizer::new(Some(job), "merge")
}

pub(crate) async fn clear(guard: ClusterGuard) -> Result<(), BenchError> {
    let job = *guard.job();
    if guard.clear().await? { Ok(()) } else { Err(BenchError::MarkGone { job }) }
}

/// Marks the jobs from 0 up to `marks`, many at once. Close the session before dropping the guards: they then cost no call.
pub(crate) async fn mark_many(session: &Session, marks: u64) -> Result<Vec<ClusterGuard>, BenchError> {
    let mut makers = JoinSet::new();
    for first in 0..MAKERS.min(marks) {
        let session = session.clone();
        makers.spawn(async move {
            let mut guards = Vec::new();
            for job in (first..marks).step_by(usize::try_from(MAKERS).unwrap_or(usize::MAX)) {
                guards.push(session.mark(job, context(job)).await?);
            }
            Ok::<_, BenchError>(guards)
        });
    }
    let mut guards = Vec::new();
    while let Some(made) = makers.join_next().await {
        guards.extend(made??);
    }
    Ok(guards)
}

/// Tasks that mark and clear, each its own job, until they are stopped.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<u64, BenchError>>,
    began: Instant,
}

impl Writers {
    /// Starts so many of them in each session.
    pub(crate) fn start(sessions: &[Session], in_each: u64) -> Self {
        Self::start_from(sessions, in_each, 0)
    }

    /// The same on jobs from this one on.
    pub(crate) fn start_from(sessions: &[Session], in_each: u64, first: u64) -> Self {
        let (stop, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        for (session, first) in sessions.iter().zip((first..).step_by(1_000_000)) {
            for job in first..first + in_each {
                let (session, stop) = (session.clone(), Arc::clone(&stop));
                tasks.spawn(async move {
                    let mut pairs = 0;
                    // Relaxed (no edge): a signal by itself.
                    while !stop.load(Ordering::Relaxed) {
                        clear(session.mark(job, context(job)).await?).await?;
                        pairs += 1;
                    }
                    Ok(pairs)
                });
            }
        }
        Self { stop, tasks, began: Instant::now() }
    }

    /// Lets each writer end its pair. Returns how many pairs were made in a second.
    pub(crate) async fn finish(mut self) -> Result<f64, BenchError> {
        // Relaxed (no edge): as above.
        self.stop.store(true, Ordering::Relaxed);
        let mut pairs = 0;
        while let Some(made) = self.tasks.join_next().await {
            pairs += made??;
        }
        Ok(number(pairs) / self.began.elapsed().as_secs_f64())
    }
}

/// Waits for something. Without a pause it is looked for all the time, and other tasks run in between.
pub(crate) async fn until(
    what: &'static str,
    pause: Option<Duration>,
    is_so: impl Fn() -> bool,
) -> Result<(), BenchError> {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > PATIENCE {
            return Err(BenchError::Late { what, limit: PATIENCE });
        }
        match pause {
            Some(pause) => tokio::time::sleep(pause).await,
            None => tokio::task::yield_now().await,
        }
    }
    Ok(())
}

/// Waits until everything is in the mirror, and checks that it is.
pub(crate) async fn check_mirror(session: &Session, expected: u64) -> Result<(), BenchError> {
    session.view().barrier().await?;
    let found = marks_of(session.view().registry());
    let expected = usize::try_from(expected).unwrap_or(usize::MAX);
    if found == expected { Ok(()) } else { Err(BenchError::Marks { found, expected }) }
}

/// How many marks a mirror has, counted one by one.
pub(crate) fn marks_of(registry: &Registry<u64, Remote>) -> usize {
    registry.snapshot().len()
}

/// A count as a number to calculate with. Counts here are far below the 53 bits that it has.
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}
