//! What watchers of an orchestrator are told: that something changed, and what the reaper says of which job.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use livemark::{DeferReason, Explanation, Finalizer, Proposed, Verdict};
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
    /// Redrives that the store took.
    redrives: AtomicU64,
}

#[derive(Debug, Default)]
struct Said {
    /// Holds the running jobs only: see [`Feed::listed`].
    of: HashMap<JobId, Judged>,
    recent: VecDeque<Arc<Deferral>>,
    last: u64,
    listed: Option<Instant>,
}

/// The reaper's latest verdict on a run.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The job's own run when the reaper looked.
    pub run: RunId,
    /// What the verdict was.
    pub what: Ruling,
    /// Why, at length.
    pub text: String,
    /// When, in milliseconds since the epoch.
    pub at_ms: u64,
    /// Set while it is left alone.
    pub deferred: Option<Deferred>,
    /// What would have been done, in a dry run.
    pub dry_run: Option<Proposed>,
    /// What the reaper does next if nothing changes, and when.
    pub next: Option<(Proposed, Instant)>,
}

/// A verdict in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    /// Within its limits.
    Healthy,
    /// Left alone, though a limit is passed.
    Defer,
    /// Its finalization is begun again.
    Redrive,
    /// It is ended.
    Reap,
    /// Something would have been done.
    DryRun,
}

impl Ruling {
    fn of<V, M>(verdict: &Verdict<'_, JobId, V, M>) -> Self {
        match verdict {
            Verdict::Healthy => Self::Healthy,
            Verdict::Defer(_) => Self::Defer,
            Verdict::Redrive(_) => Self::Redrive,
            Verdict::Reap(..) => Self::Reap,
            Verdict::DryRun(_) => Self::DryRun,
        }
    }
}

/// That a run is left alone at present.
#[derive(Clone, Debug)]
pub struct Deferred {
    /// Why it is left alone.
    pub reason: DeferReason,
    /// Who holds its mark.
    pub owner: Option<OwnerSeen>,
    /// Why, at length.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnerSeen {
    /// Its run; none for a claim of the reaper's.
    pub run_id: Option<RunId>,
    /// Where it is.
    pub stage: Arc<str>,
    /// In which process, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Arc<str>>,
}

impl From<&Finalizer> for OwnerSeen {
    fn from(finalizer: &Finalizer) -> Self {
        Self { run_id: finalizer.run_id, stage: Arc::clone(&finalizer.stage), process: None }
    }
}

#[cfg(feature = "cluster")]
impl From<&livemark_cluster::Remote> for OwnerSeen {
    fn from(remote: &livemark_cluster::Remote) -> Self {
        Self { process: Some(Arc::clone(&remote.process)), ..Self::from(&remote.context) }
    }
}

impl fmt::Display for OwnerSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.run_id {
            Some(run) => write!(f, "run {run} in {}", self.stage),
            None => write!(f, "a claim in {}", self.stage),
        }?;
        self.process.iter().try_for_each(|process| write!(f, " of {process}"))
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            said: Mutex::default(),
            changes: watch::Sender::new(0),
            deferrals: broadcast::Sender::new(RECENT),
            redrives: AtomicU64::new(0),
        }
    }
}

impl Feed {
    /// Something is different from before.
    pub fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// A job is finalized once more. The library counts verdicts, some of which the store refuses.
    pub fn redriven(&self) {
        // Relaxed (no edge): a number to look at, of which nothing else is told.
        self.redrives.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub fn redrives(&self) -> u64 {
        self.redrives.load(Ordering::Relaxed)
    }

    /// Waits for changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits for deferrals.
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
        said.of.retain(|job, _| running.binary_search(job).is_ok());
    }

    /// How long ago that was.
    pub fn listed_for(&self) -> Option<Duration> {
        self.said().listed.map(|listed| listed.elapsed())
    }

    /// Notes the reaper's verdict on a run. Returns whether there is something new to tell.
    ///
    /// The library says what is news of a verdict. Of a deferral we tell more: that the job's owner is another one, or
    /// elsewhere.
    pub fn judged<V, M>(
        &self,
        job: JobId,
        run: RunId,
        verdict: &Verdict<'_, JobId, V, M>,
        explanation: &Explanation<'_>,
    ) -> bool
    where
        OwnerSeen: for<'v> From<&'v V>,
    {
        let next = explanation.upcoming().and_then(|(what, left)| Some((what, Instant::now().checked_add(left)?)));
        let dry_run = if let Verdict::DryRun(proposed) = verdict { Some(*proposed) } else { None };
        let mut news = explanation.is_news();
        let what = Ruling::of(verdict);
        let text = explanation.to_string();
        let mut deferred = match verdict {
            Verdict::Defer(deferral) => Some(Deferred {
                reason: deferral.reason,
                owner: deferral.owner.as_ref().map(|owner| OwnerSeen::from(&owner.value)),
                text: text.clone(),
                times: 1,
                since: Instant::now(),
            }),
            _ => None,
        };

        let mut said = self.said();
        let known = said.of.remove(&job).filter(|known| known.run == run);
        let is_other = known.as_ref().is_none_or(|known| known.what != what);
        let before = known.and_then(|known| known.deferred);
        if let Some(deferred) = &mut deferred {
            news |= before.as_ref().is_none_or(|before| before.owner != deferred.owner);
            if let Some(Deferred { times, since, .. }) = before {
                (deferred.times, deferred.since) = (times + 1, since);
            }
            if news {
                said.last += 1;
                let Deferred { reason, owner, text, .. } = deferred.clone();
                let deferral = Arc::new(Deferral { seq: said.last, at_ms: store::now(), job, reason, owner, text });
                said.recent.truncate(RECENT - 1);
                said.recent.push_front(Arc::clone(&deferral));
                // Sent in order, hence under the lock. Fails if nobody watches.
                let _ = self.deferrals.send(deferral);
            }
        }
        said.of.insert(job, Judged { run, what, text, at_ms: store::now(), deferred, dry_run, next });
        drop(said);
        if news || is_other {
            self.changed();
        }
        news
    }

    /// How many jobs are left alone at present.
    pub fn deferred(&self) -> usize {
        self.said().of.values().filter(|judged| judged.deferred.is_some()).count()
    }

    /// The latest verdict on this run of the job.
    pub fn verdict_on(&self, job: JobId, run: RunId) -> Option<Judged> {
        self.said().of.get(&job).filter(|judged| judged.run == run).cloned()
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        // Nothing that panics is called under this lock.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
