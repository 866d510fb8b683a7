//! Monitors and reaper together: works off one queue of the job store, until it is empty or until told to stop.

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use livemark::{Mode, Reaper, ReaperStats, RegistryStats};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::marks::Marks;
use crate::reap::StopAtEnd;
use crate::reap::Sweeper;
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
    pub marks: Marks<'a>,
    /// The job store.
    pub database: &'a Database,
    /// The queue to work off.
    pub queue: &'a str,
    /// Commands and time limits.
    pub config: &'a Config,
    /// Jobs have their directories in here.
    pub workspaces: &'a Path,
    /// This program's own file, which supervises the commands.
    pub supervisor: &'a Path,
    /// Tells watchers.
    pub feed: &'a Feed,
    /// Says when work may begin.
    pub shift: &'a Shift,
    /// Whether reaps and redrives are told on standard error as well.
    pub logs: bool,
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

/// Pause of a monitor that could not take a job.
const AFTER_AN_ERROR: Duration = Duration::from_secs(1);
/// Every job has ended this long after its hard deadline.
const SLACK: Duration = Duration::from_secs(60);
/// The longest that a queue takes which several processes work off.
const LONGEST: Duration = Duration::from_secs(1800);
/// How often a monitor looks for jobs that were queued by another process.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl<'a> Engine<'a> {
    /// A connection for the calling thread.
    pub fn store(&self) -> Result<Store> {
        self.database.store(self.queue)
    }

    /// The reaper of these marks.
    pub fn reaper(&self, mode: Mode) -> Result<Sweeper<'a>> {
        let policy = self.config.policy(mode)?;
        Ok(match &self.marks {
            Marks::Own(registry) => Sweeper::Own(Reaper::new(*registry, policy)),
            #[cfg(feature = "cluster")]
            Marks::Shared(shared) => Sweeper::Shared(shared.reaper(policy), shared.clone()),
        })
    }

    /// Starts the orchestrator beside others on the same jobs, works until every job of the queue has ended, and stops it.
    pub fn drain_together(&self, mode: Mode) -> Result<Counts> {
        let store = self.store()?;
        let reaper = self.reaper(mode)?;
        thread::scope(|scope| {
            let stop = StopAtEnd::default();
            let (reaper, stopped) = (&reaper, stop.0.clone());
            let reaping = scope.spawn(move || reap::run(scope, self, reaper, &stopped));
            let monitors: Vec<_> = (0..self.config.limits.monitors).map(|_| scope.spawn(|| self.work())).collect();
            let drained =
                wait_until("the queue to drain", LONGEST, || Ok(store.unfinished()? == 0 || reaping.is_finished()));
            self.shift.end();
            let monitored = monitors.into_iter().try_for_each(|monitor| joined(monitor, "monitor"));
            drop(stop);
            joined(reaping, "reaper").and(monitored).and(drained)
        })?;
        Ok(Counts { reaper: reaper.handle().stats(), registry: self.marks.stats() })
    }

    /// Starts the orchestrator, works until every job of the queue has ended, and stops it.
    pub fn drain(&self, mode: Mode) -> Result<Counts> {
        let mut store = self.store()?;
        self.recover(&mut store)?;
        let queued = store.queued()?;
        let reaper = self.reaper(mode)?;
        thread::scope(|scope| {
            let stop = StopAtEnd::default();
            let (reaper, stopped) = (&reaper, stop.0.clone());
            let reaping = scope.spawn(move || reap::run(scope, self, reaper, &stopped));
            let monitors: Vec<_> = queued.into_iter().map(|job| scope.spawn(move || self.drive_queued(job))).collect();
            let monitored = monitors.into_iter().try_for_each(|monitor| joined(monitor, "monitor"));
            let drained = monitored.and_then(|()| {
                wait_until("the queue to drain", self.config.limits.hard_deadline.saturating_add(SLACK), || {
                    Ok(store.unfinished()? == 0 || reaping.is_finished())
                })
            });
            drop(stop);
            // The threads of redrives are joined by the scope.
            joined(reaping, "reaper").and(drained)
        })?;
        Ok(Counts { reaper: reaper.handle().stats(), registry: self.marks.stats() })
    }

    /// Queues again what was running when the process ended.
    ///
    /// The registry is empty after a restart, so nothing defers the reaper: this has to be done before there is one,
    /// and before the first monitor. Where marks are shared, they are there after a restart, and the reaper tells whose
    /// process is gone.
    pub fn recover(&self, store: &mut Store) -> Result<()> {
        if self.marks.are_shared() {
            return Ok(());
        }
        for job in store.requeue_running()? {
            store.note(Some(job), "start", REQUEUED)?;
        }
        Ok(())
    }

    fn drive_queued(&self, job: JobId) -> Result<()> {
        let mut store = self.store()?;
        // Once more where its process could not be started, and it is queued again.
        while let Some(run) = store.start(job)? {
            monitor::drive(self, &store, job, run)?;
        }
        Ok(())
    }

    /// One of the monitor threads of a service: takes one queued job after the other, until the shift ends.
    pub fn work(&self) -> Result<()> {
        let mut store = self.store()?;
        let mut heard = self.shift.rings();
        // Other processes ring no bell here.
        let at_most = if self.marks.are_shared() { LOOK_EVERY } else { Duration::MAX };
        while let Some(busy) = self.shift.begin() {
            // Whoever has lost its marks gets none for any job.
            if self.marks.lost().is_some() {
                break;
            }
            if self.shift.is_paused() {
                drop(busy);
                heard = self.shift.wait(heard, at_most);
                continue;
            }
            match store.start_next() {
                Ok(Some((job, run))) => {
                    self.feed.changed();
                    reap::complain(monitor::drive(self, &store, job, run));
                    self.feed.changed();
                }
                Ok(None) => {
                    drop(busy);
                    heard = self.shift.wait(heard, at_most);
                }
                // Not ours to mend: perhaps the next try goes better.
                Err(error) => {
                    drop(busy);
                    reap::complain(Err(error));
                    thread::sleep(AFTER_AN_ERROR);
                }
            }
        }
        Ok(())
    }
}

/// When monitors may begin work, and how many are at it.
#[derive(Debug, Default)]
pub struct Shift {
    now: Mutex<Now>,
    turned: Condvar,
}

#[derive(Debug, Default)]
struct Now {
    rings: u64,
    busy: usize,
    paused: bool,
    ending: bool,
}

/// A job is being worked on, for as long as this lives.
#[derive(Debug)]
pub struct Busy<'a>(&'a Shift);

impl Shift {
    /// Counts the caller as busy; `None` if nothing is to be begun any more.
    pub fn begin(&self) -> Option<Busy<'_>> {
        let mut now = self.now();
        if now.ending {
            return None;
        }
        now.busy += 1;
        Some(Busy(self))
    }

    /// Says that there are new jobs.
    pub fn ring(&self) {
        self.now().rings += 1;
        self.turned.notify_all();
    }

    /// How often that was said.
    pub fn rings(&self) -> u64 {
        self.now().rings
    }

    /// Waits until it is said again since `heard`, or the shift ends, or some time has passed.
    fn wait(&self, heard: u64, at_most: Duration) -> u64 {
        let waits = |now: &mut Now| now.rings == heard && !now.ending;
        let news = self.turned.wait_timeout_while(self.now(), at_most, waits);
        news.unwrap_or_else(PoisonError::into_inner).0.rings
    }

    /// Says whether queued jobs may be started. What runs goes on, and what is redriven is no queued job.
    pub fn pause(&self, paused: bool) {
        let mut now = self.now();
        now.paused = paused;
        now.rings += 1;
        drop(now);
        self.turned.notify_all();
    }

    /// Returns `true` if queued jobs are not started.
    pub fn is_paused(&self) -> bool {
        self.now().paused
    }

    /// From now on nothing is begun.
    pub fn end(&self) {
        self.now().ending = true;
        self.turned.notify_all();
    }

    /// Returns `true` if the shift ends.
    pub fn is_ending(&self) -> bool {
        self.now().ending
    }

    /// Waits until nobody is busy, for at most `limit`. Whether that came to be.
    pub fn wait_idle(&self, limit: Duration) -> bool {
        let waited = self.turned.wait_timeout_while(self.now(), limit, |now| now.busy > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // Nothing that panics is called under this lock.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.now().busy -= 1;
        self.0.turned.notify_all();
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
