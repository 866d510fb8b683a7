//! The monitor: one thread per job, which runs the job's process and then finalizes the job.
//!
//! The order is what matters. Mark, then stamp: the job is never reapable without an owner. Gates. Ask
//! whether the mark still counts. Act. Commit. Clear: there is no moment before the commit at which a
//! live finalization has no owner. Leaving early, by `?` or by a panic, clears as well.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use livemark::{Finalizer, MarkGuard};

use crate::config::STAGE;
use crate::engine::{Engine, Step};
use crate::error::{Error, Result};
use crate::gates::{self, Exit, WorkspaceLock};
use crate::store::{Effect, JobId, Outcome, RunId, Store};

/// Takes a queued job, runs its process, and finalizes it.
pub fn drive(engine: &Engine<'_>, job: JobId) -> Result<()> {
    let mut store = engine.store()?;
    let Some(run) = store.start(job)? else {
        return Ok(()); // another monitor was faster
    };
    Monitor { engine, store, job, run }.watched(Monitor::first_run)
}

/// Repeats the finalization of a job whose monitor is gone. `guard` is the reaper's claim, handed over.
pub fn redrive(engine: &Engine<'_>, job: JobId, run: RunId, guard: Option<MarkGuard<'_>>) -> Result<()> {
    let store = engine.store()?;
    Monitor { engine, store, job, run }.watched(|monitor| monitor.finalize(guard))
}

struct Monitor<'a> {
    engine: &'a Engine<'a>,
    store: Store,
    job: JobId,
    run: RunId,
}

impl Monitor<'_> {
    /// Writes down how the run ended, whichever way it did.
    fn watched(&self, work: impl FnOnce(&Self) -> Result<Outcome>) -> Result<()> {
        let outcome = match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                self.note(&format!("failed: {error}"))?;
                Outcome::Failed
            }
            Err(_) => {
                self.note("panicked; unwinding cleared the mark")?;
                Outcome::Panicked
            }
        };
        self.store.end_run(self.run, outcome)
    }

    fn first_run(&self) -> Result<Outcome> {
        // A run before the restart may have acted and not committed: then there is nothing left to run.
        if self.store.acted(self.job)?.is_some() {
            return self.finalize(None);
        }
        self.note("starts the job's process")?;
        self.step(Step::Started)?;
        let exit = self.run(&self.engine.config.job.command, || true)?;
        // First the mark, then the stamp that makes the job reapable.
        let guard = self.engine.registry.mark(self.job, self.stage(STAGE));
        self.store.finish(self.run, exit.code())?;
        self.note(&format!("process: {exit}; marked, stamped finished"))?;
        self.finalize(Some(guard))
    }

    /// Holds the mark until the job has ended, then clears it.
    fn finalize(&self, guard: Option<MarkGuard<'_>>) -> Result<Outcome> {
        let outcome = self.finalize_marked(guard.as_ref())?;
        if guard.is_some_and(MarkGuard::clear) {
            self.note("clears the mark")?;
        }
        Ok(outcome)
    }

    /// Gates, then the end they call for.
    fn finalize_marked(&self, mark: Option<&MarkGuard<'_>>) -> Result<Outcome> {
        if let Some(mark) = mark {
            mark.replace(self.stage(STAGE)); // the reaper's claim now tells who works under it
        }
        if let Some(effect) = self.store.acted(self.job)? {
            self.note(&format!("finds the {effect} done, only commits"))?;
            return self.commit(effect);
        }
        // Unlocked before the mark is cleared, also while unwinding: whoever is let in by the cleared
        // mark finds the workspace free.
        let lock = WorkspaceLock::take(&self.workspace()?, self.run).map_err(Error::io("workspace lock"))?;
        let green = match &lock {
            Ok(_) => self.store.process_succeeded(self.run)? && self.gates(mark)?,
            Err(holder) => {
                self.note(&format!("RED: half-merged workspace, locked by run {holder}"))?;
                false
            }
        };
        self.step(Step::Decided)?;
        if !is_current(mark) {
            self.note("is no longer current: commits nothing")?;
            return Ok(Outcome::Displaced);
        }
        let effect = if green { Effect::Merge } else { Effect::Rollback };
        self.store.act(self.job, self.run, effect)?;
        self.note(&format!("does the {effect}"))?;
        self.step(Step::Acted)?;
        self.commit(effect)
    }

    /// Whether all gates are green.
    fn gates(&self, mark: Option<&MarkGuard<'_>>) -> Result<bool> {
        for (number, gate) in self.engine.config.gates.iter().enumerate() {
            self.step(Step::Gate(number))?;
            if let Some(mark) = mark {
                mark.replace(self.stage(&gate.name));
            }
            let task = self.store.start_task(self.run, &gate.name)?;
            // The gate of a displaced monitor only gets in the way of its successor.
            let exit = self.run(&gate.command, || is_current(mark))?;
            self.store.end_task(task, &exit.to_string())?;
            if !exit.is_green() {
                self.note(&format!("gate {}: RED, {exit}", gate.name))?;
                return Ok(false);
            }
            self.note(&format!("gate {}: green", gate.name))?;
        }
        Ok(true)
    }

    /// Ends the job by compare-and-set.
    fn commit(&self, effect: Effect) -> Result<Outcome> {
        let end = effect.state();
        if self.store.commit(self.job, self.run, end)? {
            self.note(&format!("commits '{end}'"))?;
            Ok(Outcome::Committed)
        } else {
            self.note(&format!("cannot commit: the job is '{}' already", self.store.state(self.job)?))?;
            Ok(Outcome::TooLate)
        }
    }

    fn run(&self, command: &[String], wanted: impl Fn() -> bool) -> Result<Exit> {
        Ok(gates::run(command, &self.workspace()?, self.engine.config.limits.process, wanted))
    }

    fn workspace(&self) -> Result<PathBuf> {
        gates::workspace(self.engine.workspaces, self.job).map_err(Error::io("workspace"))
    }

    /// What the mark says of us.
    fn stage(&self, stage: &str) -> Finalizer {
        Finalizer::new(Some(self.run), stage)
    }

    fn step(&self, step: Step) -> Result<()> {
        (self.engine.hook)(&self.store, self.job, self.run, step)
    }

    fn note(&self, what: &str) -> Result<()> {
        self.store.note(Some(self.job), &format!("run {}", self.run), what)
    }
}

/// Without a mark, as in a run the reaper started without its registry, there is nobody to ask.
fn is_current(mark: Option<&MarkGuard<'_>>) -> bool {
    mark.is_none_or(MarkGuard::is_current)
}
