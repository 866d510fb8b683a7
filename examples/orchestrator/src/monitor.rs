//! The monitor: one thread per job, which runs the job's process and then finalizes the job.
//!
//! The order is what matters. Mark, then stamp: the job is never reapable without an owner. Gates. Ask
//! whether the mark still counts. Act. Commit. Clear: there is no moment before the commit at which a
//! live finalization has no owner. Leaving early, by `?` or by a panic, clears as well.

use std::cell::Cell;
use std::mem::replace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use livemark::{Finalizer, Pulse};

use crate::config::{COMMIT, Kind, STAGE};
use crate::engine::{Engine, Step};
use crate::error::{Error, Result};
use crate::gates::{self, Exit, Task, WorkspaceLock};
use crate::marks::Hold;
use crate::output::{self, Source};
use crate::reap::complain;
use crate::store::{Effect, JobId, Outcome, RunId, Store};

/// How often a monitor looks whether its job is still its own, where no mark tells it.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Pause before a command that could not be started is tried again, doubled each time, and at most how long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often it is asked meanwhile whether it is still wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Counts commands that could not be started for now.
pub(crate) const NOT_STARTED: &str = "orchestrator_not_started_total";
/// How long a displaced monitor may take to leave the workspace.
const LEAVING: Duration = Duration::from_secs(5);

/// Runs the process of a job that was just started, and finalizes it.
pub fn drive(engine: &Engine<'_>, store: &Store, job: JobId, run: RunId) -> Result<()> {
    Monitor::of(engine, store, job, run).watched(Monitor::first_run)
}

/// Repeats the finalization of a job whose monitor is gone, under the reaper's claim.
pub fn redrive(engine: &Engine<'_>, job: JobId, run: RunId, claim: Hold<'_>) -> Result<()> {
    let store = engine.store()?;
    Monitor::of(engine, &store, job, run).watched(|monitor| monitor.finalize(claim))
}

struct Monitor<'a> {
    engine: &'a Engine<'a>,
    store: &'a Store,
    job: JobId,
    run: RunId,
    /// How the timeline calls us.
    name: String,
    /// Beaten where the work got somewhere, never while it waits.
    pulse: Pulse,
}

impl<'a> Monitor<'a> {
    fn of(engine: &'a Engine<'a>, store: &'a Store, job: JobId, run: RunId) -> Self {
        Self { engine, store, job, run, name: format!("run {run}"), pulse: Pulse::new() }
    }

    /// Writes down how the run ended, whichever way it did.
    fn watched(&self, work: impl FnOnce(&Self) -> Result<Outcome>) -> Result<()> {
        let (outcome, what) = match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(outcome)) => (outcome, None),
            Ok(Err(error)) => (Outcome::Failed, Some(format!("failed: {error}"))),
            Err(_) => (Outcome::Panicked, Some("panicked; unwinding cleared the mark".to_owned())),
        };
        self.end_run(outcome, what.as_deref())
    }

    /// Writes it down as soon as the store can be written.
    ///
    /// Until then the job would look as if its monitor were still at work, and only the backstop would end it. What
    /// kept the monitor from its work, a full disk, may keep it from this as well. So it does not give up before the
    /// backstop has ended the job, or the service ends: its next start knows of no run.
    fn end_run(&self, outcome: Outcome, what: Option<&str>) -> Result<()> {
        let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let written = self.store.end_run(self.run, outcome);
            if written.is_ok() {
                return what.map_or(Ok(()), |what| self.note(what));
            }
            let limits = &self.engine.config.limits;
            if self.engine.shift.is_ending() || began.elapsed() > limits.hard_deadline {
                return written;
            }
            thread::sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn first_run(&self) -> Result<Outcome> {
        // A run before the restart may have acted and not committed: then there is nothing left to run.
        if self.store.acted(self.job)?.is_some() {
            return self.finalize(self.mark()?);
        }
        // Among several processes a job without a mark is one whose process is gone.
        let early = self.engine.marks.are_shared().then(|| self.mark()).transpose();
        let early = match early {
            Ok(early) => early,
            Err(error) => {
                // Nothing has happened yet. Nobody is to take it for a worker that was lost.
                self.store.requeue(self.job, self.run)?;
                return Err(error);
            }
        };
        self.note("starts the job's process")?;
        self.step(Step::Started)?;
        let exit = match self.kind()? {
            // Not ended where the mark is in doubt for a moment: whoever takes the job over gives it another run.
            Some(kind) => self.run(&kind.job.command, Source::Process(self.run), self.watch())?,
            None => Exit::NotStarted("the settings have no such kind any more".to_owned()),
        };
        if let Exit::NotNow(reason) = exit {
            // Nothing has happened yet, so that the job can begin anew.
            self.store.requeue(self.job, self.run)?;
            return Err(Error::NotNow(reason));
        }
        // First the mark, then the stamp that makes the job reapable.
        let hold = early.map_or_else(|| self.mark(), Ok)?;
        self.store.marked(self.job, self.run, &self.name, &format!("process: {exit}; marked"))?;
        self.progress();
        if !self.store.finish(self.run, exit.code())? {
            // Ended while its process ran, when there was no mark to displace.
            self.note("is no longer the job's run: finalizes nothing")?;
            return Ok(Outcome::Overtaken);
        }
        self.note("stamped finished")?;
        self.finalize(hold)
    }

    /// Holds the claim until the job has ended, then clears its mark: a monitor's own, or the reaper's.
    fn finalize(&self, claim: Hold<'_>) -> Result<Outcome> {
        // First of all: from here on the mark tells who works under it, with a pulse that somebody beats.
        if !claim.replace(self.stage(STAGE)) {
            self.note("is displaced before it begins: commits nothing")?;
            return Ok(Outcome::Displaced);
        }
        let outcome = self.finalize_under(&claim)?;
        if claim.clear() {
            self.note("clears the mark")?;
        }
        Ok(outcome)
    }

    /// Gates, then the end they call for.
    fn finalize_under(&self, claim: &Hold<'_>) -> Result<Outcome> {
        if let Some(effect) = self.store.acted(self.job)? {
            self.enter(COMMIT, &format!("finds the {effect} done, only commits"))?;
            return self.commit(effect, claim);
        }
        // Unlocked before the mark is cleared, also while unwinding: whoever is let in by the cleared
        // mark finds the workspace free.
        let lock = self.lock(claim)?;
        let green = match &lock {
            Ok(_) if !self.store.process_succeeded(self.run)? => false,
            Ok(_) => match self.gates(claim)? {
                Some(green) => green,
                // A gate that was stopped says nothing, also where the mark is certain again by now.
                None => return self.displaced(),
            },
            Err(holder) => {
                self.note(&format!("RED: half-merged workspace, locked by run {holder}"))?;
                false
            }
        };
        let effect = if green { Effect::Merge } else { Effect::Rollback };
        claim.replace(self.stage(COMMIT));
        self.enter(COMMIT, &format!("has its answer: {effect}"))?;
        self.step(Step::Decided)?;
        // Asked as late as can be: no transaction spans the mark and the world outside.
        if !claim.is_current() {
            return self.displaced();
        }
        // It may be so late all the same: the world outside compares the token.
        if !self.store.act(self.job, self.run, effect, claim.token())? {
            self.note("is refused by its token: commits nothing")?;
            return Ok(Outcome::Displaced);
        }
        self.note(&format!("does the {effect}"))?;
        self.step(Step::Acted)?;
        self.commit(effect, claim)
    }

    fn displaced(&self) -> Result<Outcome> {
        self.note("is no longer current: commits nothing")?;
        Ok(Outcome::Displaced)
    }

    /// The lock on the workspace, or the run that has it.
    fn lock(&self, claim: &Hold<'_>) -> Result<Result<WorkspaceLock, String>> {
        let started = Instant::now();
        let mut patience = Patience::new(self.engine.config.limits.process);
        loop {
            let taken = gates::workspace(self.engine.workspaces, self.job)
                .and_then(|workspace| WorkspaceLock::take(&workspace, self.run));
            let lock = match taken {
                Ok(lock) => lock,
                Err(error) if gates::is_shortage(&error) => {
                    let wanted = || claim.is_current();
                    match self.wait_for_better_times(&mut patience, "the gates", &error.to_string(), wanted) {
                        Waited::Enough => continue,
                        Waited::InVain | Waited::Unwanted => return Err(Error::NotNow(error.to_string())),
                    }
                }
                Err(error) => return Err(Error::io("workspace lock")(error)),
            };
            // Who owns the job and finds it locked has displaced a monitor, which is about to see that. Without a mark
            // there is no telling, and the workspace counts as half-merged at once.
            if lock.is_ok() || !claim.is_marked() || started.elapsed() > LEAVING {
                return Ok(lock);
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Runs the gates. Returns `true` if all are green, and `None` if one was stopped, since the job is somebody else's.
    fn gates(&self, claim: &Hold<'_>) -> Result<Option<bool>> {
        let Some(kind) = self.kind()? else { return Ok(Some(false)) };
        for (number, gate) in kind.gates.iter().enumerate() {
            self.step(Step::Gate(number))?;
            claim.replace(self.stage(&gate.name));
            let task = self.store.start_task(self.run, &gate.name)?;
            self.progress();
            // The gate of a displaced monitor only gets in the way of its successor.
            let exit = self.run(&gate.command, Source::Task(task), || claim.is_current())?;
            self.store.end_task(task, &exit.to_string())?;
            if let Exit::NotNow(reason) = exit {
                // No answer, neither green nor red. A redrive asks again.
                return Err(Error::NotNow(format!("gate {}: {reason}", gate.name)));
            }
            if !exit.is_green() {
                self.note(&format!("gate {}: RED, {exit}", gate.name))?;
                return Ok(if let Exit::Stopped = exit { None } else { Some(false) });
            }
            self.note(&format!("gate {}: green", gate.name))?;
        }
        Ok(Some(true))
    }

    /// Ends the job by compare-and-set.
    fn commit(&self, effect: Effect, claim: &Hold<'_>) -> Result<Outcome> {
        let end = effect.state();
        if self.store.commit(self.job, self.run, end, claim.token())? {
            self.note(&format!("commits '{end}'"))?;
            Ok(Outcome::Committed)
        } else {
            self.note(&format!("cannot commit: the job is '{}' already", self.store.state(self.job)?))?;
            Ok(Outcome::TooLate)
        }
    }

    /// Runs a command. One that cannot be started for now is tried again, for as long as it might have run.
    fn run(&self, command: &[String], source: Source, wanted: impl Fn() -> bool) -> Result<Exit> {
        let Engine { supervisor, config, workspaces, .. } = self.engine;
        let limit = config.limits.process;
        let environment = config.environment.of(self.job, self.run);
        let output = output::file(workspaces, self.job, source);
        let mut patience = Patience::new(limit);
        loop {
            let exit = match gates::workspace(workspaces, self.job) {
                Ok(directory) => {
                    let (directory, environment, output) = (&directory, &environment, &output);
                    gates::run(&Task { supervisor, command, directory, environment, output, limit }, &wanted)
                }
                Err(error) => Exit::not_started(&error),
            };
            let Exit::NotNow(reason) = &exit else { return Ok(exit) };
            let what = if let Source::Process(_) = source { "the job's process" } else { "the gate" };
            match self.wait_for_better_times(&mut patience, what, reason, &wanted) {
                Waited::Enough => {}
                Waited::InVain => return Ok(exit),
                Waited::Unwanted => return Ok(Exit::Stopped),
            }
        }
    }

    /// Waits a while before something is tried again that could not be had for now.
    fn wait_for_better_times(
        &self,
        patience: &mut Patience,
        what: &str,
        reason: &str,
        wanted: impl Fn() -> bool,
    ) -> Waited {
        metrics::counter!(NOT_STARTED).increment(1);
        if !replace(&mut patience.said, true) {
            // What there is too little of may keep it from being written down.
            complain(self.note(&format!("cannot start {what}, tries again: {reason}")));
        }
        let until = Instant::now() + patience.pause;
        patience.pause = LONGEST_PAUSE.min(patience.pause * 2);
        while Instant::now() < until {
            if !wanted() {
                return Waited::Unwanted;
            }
            // Who is asked to end does not wait for better times.
            if self.engine.shift.is_ending() || patience.began.elapsed() > patience.limit {
                return Waited::InVain;
            }
            thread::sleep(LOOK_AGAIN);
        }
        Waited::Enough
    }

    /// While the job's process runs there is no mark by which we could be told that the job was reaped, so we look.
    fn watch(&self) -> impl Fn() -> bool {
        let next = Cell::new(Instant::now() + LOOK_EVERY);
        move || {
            if Instant::now() < next.get() {
                return true;
            }
            next.set(Instant::now() + LOOK_EVERY);
            // What cannot be read is no reason to end it.
            self.store.is_own(self.job, self.run).unwrap_or(true)
        }
    }

    /// `None` if the settings have changed since the job was submitted.
    fn kind(&self) -> Result<Option<&Kind>> {
        Ok(self.engine.config.kind(&self.store.kind(self.job)?))
    }

    fn mark(&self) -> Result<Hold<'a>> {
        self.engine.marks.mark(self.job, self.stage(STAGE))
    }

    /// What the mark says of us.
    fn stage(&self, stage: &str) -> Finalizer {
        Finalizer::new(Some(self.run), stage).with_pulse(self.pulse.clone())
    }

    fn step(&self, step: Step) -> Result<()> {
        (self.engine.hook)(self.store, self.job, self.run, step)
    }

    fn enter(&self, stage: &str, what: &str) -> Result<()> {
        self.store.enter(self.job, self.run, stage, &self.name, what)?;
        self.progress();
        Ok(())
    }

    fn note(&self, what: &str) -> Result<()> {
        self.store.note(Some(self.job), &self.name, what)?;
        self.progress();
        Ok(())
    }

    /// We got somewhere, and there may be something new to see.
    fn progress(&self) {
        self.pulse.beat();
        self.engine.feed.changed();
    }
}

/// How long something was tried in vain already.
struct Patience {
    began: Instant,
    limit: Duration,
    /// Until the next try.
    pause: Duration,
    /// Whether the timeline has it.
    said: bool,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { began: Instant::now(), limit, pause: FIRST_PAUSE, said: false }
    }
}

/// What came of a wait.
enum Waited {
    /// It can be tried again.
    Enough,
    /// It took too long.
    InVain,
    /// Nobody wants it any more.
    Unwanted,
}
