//! What the tests share: a clock that goes with tokio's paused time, settings, and a job store that fences.

#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub mod hampered;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use livemark::Finalizer;
use livemark_cluster::{Clock, Config, MemoryClient, OpenError, Session};
use tokio::time::Instant;

pub const TTL: Duration = Duration::from_secs(5);

/// Tokio's time, which stands still while something is done and jumps when all wait; and how fast this clock goes.
pub struct TestClock(Instant, f64);

impl TestClock {
    pub fn at_rate(rate: f64) -> Self {
        Self(Instant::now(), rate)
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        // Not from zero: no arithmetic may rely on that.
        self.0.elapsed().mul_f64(self.1) + Duration::from_secs(1000)
    }
}

pub fn config(name: &str) -> Config {
    let mut config = Config::with_ttl(TTL);
    config.process = name.to_owned();
    config
}

pub async fn open(client: &MemoryClient, name: &str) -> Session {
    try_open(client, config(name)).await.unwrap()
}

pub async fn try_open(client: &MemoryClient, config: Config) -> Result<Session, OpenError> {
    open_at_rate(client, config, 1.0).await
}

/// Opens a session whose clock goes too slow or too fast.
pub async fn open_at_rate(client: &MemoryClient, config: Config, rate: f64) -> Result<Session, OpenError> {
    Session::open_with_clock(client.clone(), config, TestClock::at_rate(rate)).await
}

pub fn run(id: u64) -> Finalizer {
    Finalizer::new(Some(id), "merge")
}

/// Waits until something is so. Fails after a minute of tokio's time.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

/// The rows of a job store, with the two statements that fence: take, and commit.
#[derive(Default)]
pub struct Store(Mutex<BTreeMap<u64, Row>>);

#[derive(Clone, Debug, Default)]
pub struct Row {
    pub fence: u64,
    pub is_done: bool,
}

impl Store {
    /// `UPDATE jobs SET fence = :t WHERE id = :id AND state = 'running' AND fence < :t`, or without the fence's comparison.
    pub fn take(&self, job: u64, token: u64, compares: bool) -> bool {
        let mut rows = self.0.lock().unwrap();
        let row = rows.entry(job).or_default();
        let takes = !row.is_done && (!compares || row.fence < token);
        if takes {
            row.fence = token;
        }
        takes
    }

    /// `UPDATE jobs SET state = 'done' WHERE id = :id AND state = 'running' AND fence = :t`
    pub fn commit(&self, job: u64, token: u64) -> bool {
        let mut rows = self.0.lock().unwrap();
        let row = rows.entry(job).or_default();
        let commits = !row.is_done && row.fence == token;
        row.is_done |= commits;
        commits
    }

    /// `UPDATE jobs SET state = 'done' WHERE id = :id AND state = 'running'`
    pub fn commit_without_a_fence(&self, job: u64) -> bool {
        let mut rows = self.0.lock().unwrap();
        !std::mem::replace(&mut rows.entry(job).or_default().is_done, true)
    }
}
