//! The incident, six times: each scenario on rows of its own, told as a timeline, then compared with
//! what is expected of it.

pub mod race;
pub mod report;
pub mod restart;
#[cfg(feature = "cluster")]
pub mod together;

use std::io::Write;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use livemark::{Mode, Registry};

use crate::config::Config;
use crate::engine::{Counts, Engine, Hook, Shift, Step, wait_until};
use crate::error::Result;
use crate::feed::Feed;
use crate::marks::Marks;
use crate::replay::report::Fact;
use crate::store::{Database, Effect, JobId, Outcome, RunId, State, Store};

/// Longest wait for something that a scenario needs to happen, beyond the hard deadline.
const PATIENCE: Duration = Duration::from_secs(20);

/// One replay of the incident.
#[derive(Debug)]
pub struct Replay<'a> {
    /// Its number in the database.
    pub number: u64,
    /// The job store.
    pub database: &'a Database,
    /// Commands and time limits.
    pub config: &'a Config,
    /// Where they are from, for the process that is killed.
    pub config_path: Option<&'a Path>,
    /// Jobs have their directories in here.
    pub workspaces: &'a Path,
    /// This program's own file.
    pub program: &'a Path,
    /// What several processes share, if there is something.
    #[cfg(feature = "cluster")]
    pub together: Option<&'a together::Together>,
}

/// Key, title, and what is done and found.
type Scenario = (&'static str, &'static str, fn(&Replay<'_>, &str) -> Result<Vec<Fact>>);

const SCENARIOS: [Scenario; 6] = [
    ("a", "the incident: mode Ignore, as if there were no registry", ignored),
    ("b", "the same with marks honored", honored),
    ("c", "the monitor panics", panicking),
    ("d", "the monitor hangs", hanging),
    ("e", "the process is killed during finalization and started again", restart::killed),
    ("f", "a monitor and two reapers claim at the same instant", race::race),
];

impl Replay<'_> {
    /// Plays all scenarios and tells them to `out`. Whether every one of them holds.
    pub fn run(&self, out: &mut dyn Write) -> Result<bool> {
        let mut found = Vec::new();
        report::opening(out, self)?;
        for (key, title, play) in SCENARIOS {
            let queue = format!("replay-{}/{key}", self.number);
            let facts = play(self, &queue)?;
            report::timeline(out, &format!("({key}) {title}"), &self.database.store(&queue)?.notes()?)?;
            found.push((key, facts));
        }
        self.run_together(out, &mut found)?;
        report::table(out, &found)
    }

    #[cfg(feature = "cluster")]
    fn run_together(&self, out: &mut dyn Write, found: &mut Vec<(&str, Vec<Fact>)>) -> Result<()> {
        let Some(together) = self.together else { return report::skipped(out) };
        for (key, title, told, play) in together::SCENARIOS {
            let queue = format!("replay-{}/{key}", together.begin()?);
            let facts = play(self, together, &queue)?;
            let mut notes = together.store(&queue)?.notes()?;
            told.keep(&mut notes);
            report::timeline(out, &format!("({key}) {title}"), &notes)?;
            found.push((key, facts));
        }
        Ok(())
    }

    #[cfg(not(feature = "cluster"))]
    fn run_together(&self, out: &mut dyn Write, _: &mut Vec<(&str, Vec<Fact>)>) -> Result<()> {
        report::skipped(out)
    }

    /// Puts one job into the queue and works it off.
    fn drain(&self, queue: &str, mode: Mode, hook: &Hook<'_>) -> Result<(Store, Counts)> {
        let store = self.database.store(queue)?;
        store.enqueue()?;
        let registry = Registry::new();
        let engine = Engine {
            marks: Marks::Own(&registry),
            database: self.database,
            queue,
            config: self.config,
            workspaces: self.workspaces,
            supervisor: self.program,
            feed: &Feed::default(),
            shift: &Shift::default(),
            logs: false,
            hook,
        };
        let counts = engine.drain(mode)?;
        Ok((store, counts))
    }

    /// A finalization so slow that the reaper gets to rule on it, and that what it starts can end: in
    /// the incident, minutes. It waits for any ruling; which one comes is up to the reaper.
    fn slow(&self, store: &Store, job: JobId, run: RunId, step: Step) -> Result<()> {
        if step == self.last_gate() {
            wait_until("the reaper's ruling", self.patience(), || store.ruled_on(job, run))?;
        }
        Ok(())
    }

    fn patience(&self) -> Duration {
        self.config.limits.hard_deadline.saturating_add(PATIENCE)
    }

    fn last_gate(&self) -> Step {
        Step::Gate(self.config.default_kind.gates.len() - 1)
    }
}

/// (a) Nobody defers: the finalization is run again while the first is alive, and goes red because of it.
fn ignored(replay: &Replay<'_>, queue: &str) -> Result<Vec<Fact>> {
    let (store, counts) =
        replay.drain(queue, Mode::Ignore, &|store, job, run, step| replay.slow(store, job, run, step))?;
    Ok(vec![
        Fact::exactly("deferrals", 0, counts.reaper.finalizer_defers_total),
        Fact::exactly("finalizations of the one job", 2, store.count_runs()?),
        merged(&store, 1)?,
        rolled_back(&store, 1)?,
        Fact::exactly("runs too late to commit", 1, store.count_outcomes(Outcome::TooLate)?),
        diverged(&store, 1)?,
    ])
}

/// (b) The same monitor, equally slow; only the mode differs.
fn honored(replay: &Replay<'_>, queue: &str) -> Result<Vec<Fact>> {
    let (store, counts) =
        replay.drain(queue, Mode::Honor, &|store, job, run, step| replay.slow(store, job, run, step))?;
    Ok(vec![
        Fact::at_least("deferrals", 1, counts.reaper.finalizer_defers_total),
        Fact::exactly("finalizations of the one job", 1, store.count_runs()?),
        merged(&store, 1)?,
        rolled_back(&store, 0)?,
        diverged(&store, 0)?,
    ])
}

/// (c) Unwinding clears the mark, and the reaper's next sweep past the grace claims the job.
fn panicking(replay: &Replay<'_>, queue: &str) -> Result<Vec<Fact>> {
    let panicked = AtomicBool::new(false);
    let (store, _) = replay.drain(queue, Mode::Honor, &|_, _, _, step| {
        if step == replay.last_gate() && !panicked.swap(true, Relaxed) {
            resume_unwind(Box::new("as panic!() unwinds, without its report on stderr"));
        }
        Ok(())
    })?;
    Ok(vec![
        Fact::exactly("runs that panicked", 1, store.count_outcomes(Outcome::Panicked)?),
        Fact::exactly("finalizations of the one job", 2, store.count_runs()?),
        merged(&store, 1)?,
        rolled_back(&store, 0)?,
        diverged(&store, 0)?,
    ])
}

/// (d) A mark defers the reaper only up to the hard deadline; its old owner is told when it wakes up.
fn hanging(replay: &Replay<'_>, queue: &str) -> Result<Vec<Fact>> {
    let (store, counts) = replay.drain(queue, Mode::Honor, &|store, job, run, step| {
        if step != Step::Decided {
            return Ok(());
        }
        let who = format!("run {run}");
        store.note(Some(job), &who, "hangs, all gates green, before its commit")?;
        wait_until("the reaper to reap", replay.patience(), || Ok(store.state(job)? == State::Reaped))?;
        store.note(Some(job), &who, "wakes up")
    })?;
    Ok(vec![
        Fact::at_least("deferrals", 1, counts.reaper.finalizer_defers_total),
        Fact::exactly("reaped by the backstop", 1, counts.reaper.reaps_backstop),
        Fact::exactly("jobs reaped", 1, store.count_jobs(State::Reaped)?),
        Fact::exactly("owners displaced", 1, counts.registry.displaced),
        Fact::exactly("runs that saw it", 1, store.count_outcomes(Outcome::Displaced)?),
        merged(&store, 0)?,
        rolled_back(&store, 0)?,
        diverged(&store, 0)?,
    ])
}

// Facts that most scenarios are about.

fn merged(store: &Store, expected: u64) -> Result<Fact> {
    Ok(Fact::exactly("merged outside", expected, store.count_effects(Effect::Merge)?))
}

fn rolled_back(store: &Store, expected: u64) -> Result<Fact> {
    Ok(Fact::exactly("rolled back outside", expected, store.count_effects(Effect::Rollback)?))
}

fn diverged(store: &Store, expected: u64) -> Result<Fact> {
    Ok(Fact::exactly("jobs whose state diverged", expected, store.count_diverged()?))
}
