//! Monitors and reaper together: works off one queue of the job store.

use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use livemark::{Mode, Reaper, ReaperStats, Registry, RegistryStats};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::{Database, JobId, RunId, Store};
use crate::{monitor, reap};

/// Where a monitor is in its work: the places at which a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// About to start the job's process.
    Started,
    /// About to start this gate.
    Gate(usize),
    /// The gates are through; about to ask whether the mark is current.
    Decided,
    /// Has acted on the world outside; about to commit.
    Acted,
}

/// Called by every monitor at every step, on its own thread. This is how the replay slows a monitor
/// down, hangs it, or makes it panic; in a service it does nothing.
pub type Hook<'a> = dyn Fn(&Store, JobId, RunId, Step) -> Result<()> + Sync + 'a;

/// A hook that does nothing.
pub fn no_hook(_: &Store, _: JobId, _: RunId, _: Step) -> Result<()> {
    Ok(())
}

/// What the threads of one orchestrator share.
pub struct Engine<'a> {
    /// Who finalizes which job.
    pub registry: &'a Registry,
    /// The job store.
    pub database: &'a Database,
    /// The queue to work off.
    pub queue: &'a str,
    /// Commands and time limits.
    pub config: &'a Config,
    /// Jobs have their directories in here.
    pub workspaces: &'a Path,
    /// What happens to the monitors.
    pub hook: &'a Hook<'a>,
}

/// What reaper and registry counted.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// The reaper's verdicts.
    pub reaper: ReaperStats,
    /// Marks, and what became of them.
    pub registry: RegistryStats,
}

/// What is noted of a job that was running when the process ended.
pub const REQUEUED: &str = "was running, is queued again";

/// By this long after the hard deadline, every job has ended.
const SLACK: Duration = Duration::from_secs(60);

impl Engine<'_> {
    /// A connection for the calling thread.
    pub fn store(&self) -> Result<Store> {
        self.database.store(self.queue)
    }

    /// Starts the orchestrator, works until every job of the queue has ended, and stops it.
    pub fn drain(&self, mode: Mode) -> Result<Counts> {
        let mut store = self.store()?;
        // The registry is empty after a restart, so nothing defers the reaper: what was running has to
        // be queued again before there is a reaper.
        for job in store.requeue_running()? {
            store.note(Some(job), "start", REQUEUED)?;
        }
        let queued = store.queued()?;
        let reaper = Reaper::new(self.registry, self.config.policy(mode)?);
        thread::scope(|scope| {
            let (stop, stopped) = mpsc::channel();
            let reaper = &reaper;
            let reaping = scope.spawn(move || reap::run(scope, self, reaper, &stopped));
            let monitors: Vec<_> =
                queued.into_iter().map(|job| scope.spawn(move || monitor::drive(self, job))).collect();
            let monitored = monitors.into_iter().try_for_each(|monitor| joined(monitor, "monitor"));
            let drained = monitored.and_then(|()| {
                wait_until("the queue to drain", self.config.limits.hard_deadline.saturating_add(SLACK), || {
                    Ok(store.unfinished()? == 0 || reaping.is_finished())
                })
            });
            drop(stop);
            // Re-driving threads are joined by the scope.
            joined(reaping, "reaper").and(drained)
        })?;
        Ok(Counts { reaper: reaper.stats(), registry: self.registry.stats() })
    }
}

/// The thread's result; a panic is an error too.
pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>, what: &'static str) -> Result<T> {
    thread.join().unwrap_or(Err(Error::Panicked(what)))
}

/// Waits for a condition, for at most `limit`.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !condition()? {
        if started.elapsed() > limit {
            return Err(Error::TimedOut(what.to_owned()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
