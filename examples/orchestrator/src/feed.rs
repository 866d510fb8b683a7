//! What watchers of an orchestrator are told: that something changed, and what the reaper says of which job.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use livemark::{DeferReason, Finalizer};
use serde::Serialize;
use tokio::sync::{broadcast, watch};

use crate::store::{self, JobId, RunId};

/// Deferrals that are remembered, and that a slow watcher may be behind.
const RECENT: usize = 50;

/// Shared by monitors, reaper and watchers. Nobody waits for a watcher.
#[derive(Debug)]
pub struct Feed {
    said: Mutex<Said>,
    /// Counts changes, so that a watcher that was busy sees that it missed some.
    changes: watch::Sender<u64>,
    deferrals: broadcast::Sender<Arc<Deferral>>,
}

#[derive(Debug, Default)]
struct Said {
    /// Of the running jobs only: see [`Feed::listed`].
    of: HashMap<Option<JobId>, Told>,
    recent: VecDeque<Arc<Deferral>>,
    last: u64,
    listed: Option<Instant>,
}

/// What was last said of a job.
#[derive(Debug)]
struct Told {
    what: String,
    deferred: Option<Deferred>,
}

/// That a run is left alone at present.
#[derive(Clone, Debug)]
pub struct Deferred {
    /// The run that was finished when the reaper looked.
    pub run: RunId,
    /// Why it is left alone.
    pub reason: DeferReason,
    /// The same at length.
    pub text: String,
    /// Sweeps that left it alone.
    pub times: u64,
    /// The first of these.
    pub since: Instant,
}

/// One deferral, told when what is said of the job changes, not for every sweep.
#[derive(Clone, Debug, Serialize)]
pub struct Deferral {
    /// Counts deferrals since the start.
    pub seq: u64,
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// The job that is left alone.
    pub job: JobId,
    /// Why.
    pub reason: DeferReason,
    /// Who holds its mark.
    pub owner: Option<OwnerSeen>,
    /// Why, at length.
    pub text: String,
}

/// Who holds a mark, as far as it is told with a deferral.
#[derive(Clone, Debug, Serialize)]
pub struct OwnerSeen {
    /// Its run; none for a claim of the reaper's.
    pub run_id: Option<RunId>,
    /// Where it is.
    pub stage: Arc<str>,
}

impl From<&Finalizer> for OwnerSeen {
    fn from(finalizer: &Finalizer) -> Self {
        Self { run_id: finalizer.run_id, stage: Arc::clone(&finalizer.stage) }
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self { said: Mutex::default(), changes: watch::Sender::new(0), deferrals: broadcast::Sender::new(RECENT) }
    }
}

impl Feed {
    /// Something is different from before.
    pub fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// To wait for changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// To wait for deferrals.
    pub fn deferrals(&self) -> broadcast::Receiver<Arc<Deferral>> {
        self.deferrals.subscribe()
    }

    /// The newest deferrals, the newest first.
    pub fn recent(&self) -> Vec<Arc<Deferral>> {
        self.said().recent.iter().cloned().collect()
    }

    /// Notes that the reaper listed the running jobs. Of others nothing needs to be remembered.
    pub fn listed(&self, running: &[JobId]) {
        let mut said = self.said();
        said.listed = Some(Instant::now());
        said.of.retain(|job, _| job.is_none_or(|job| running.binary_search(&job).is_ok()));
    }

    /// How long ago that was.
    pub fn listed_for(&self) -> Option<Duration> {
        self.said().listed.map(|listed| listed.elapsed())
    }

    /// Whether this was not what was last said of the job, or of none.
    pub fn is_news(&self, job: Option<JobId>, what: &str) -> bool {
        let news = self.said().is_news(job, what);
        if news {
            self.changed();
        }
        news
    }

    /// Whether this was not what was last said of the job; counts it in any case.
    pub fn defers(
        &self,
        job: JobId,
        run: RunId,
        what: &str,
        reason: DeferReason,
        owner: Option<&Finalizer>,
        text: impl FnOnce() -> String,
    ) -> bool {
        let text = text();
        let mut said = self.said();
        let news = said.is_news(Some(job), what);
        if let Some(told) = said.of.get_mut(&Some(job)) {
            let before = told.deferred.take().filter(|deferred| deferred.run == run);
            let (times, since) = before.map_or_else(|| (0, Instant::now()), |before| (before.times, before.since));
            told.deferred = Some(Deferred { run, reason, text: text.clone(), times: times + 1, since });
        }
        if news {
            said.last += 1;
            let owner = owner.map(OwnerSeen::from);
            let deferral = Arc::new(Deferral { seq: said.last, at_ms: store::now(), job, reason, owner, text });
            said.recent.truncate(RECENT - 1);
            said.recent.push_front(Arc::clone(&deferral));
            // Sent in order, hence under the lock. Fails if nobody watches.
            let _ = self.deferrals.send(deferral);
            drop(said);
            self.changed();
        }
        news
    }

    /// Whether and why this run of the job is left alone.
    pub fn deferred(&self, job: JobId, run: RunId) -> Option<Deferred> {
        let said = self.said();
        said.of.get(&Some(job))?.deferred.clone().filter(|deferred| deferred.run == run)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        // Nothing that panics is called under this lock.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn is_news(&mut self, job: Option<JobId>, what: &str) -> bool {
        match self.of.get_mut(&job) {
            Some(told) if told.what == what => false,
            Some(told) => {
                what.clone_into(&mut told.what);
                true
            }
            None => {
                self.of.insert(job, Told { what: what.to_owned(), deferred: None });
                true
            }
        }
    }
}
