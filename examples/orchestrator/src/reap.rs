//! The reaper's thread: sweeps over the running jobs and acts on what the library says of each.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::Scope;

use livemark::{Deferral, Reaper, RunningJob, Sweep, Verdict};

use crate::config::STAGE;
use crate::engine::Engine;
use crate::error::Result;
use crate::monitor;
use crate::store::{JobId, Running, State, Store};

/// Who the timeline says it was.
pub const WHO: &str = "reaper";

/// Sweeps until the other end of `stop` is dropped.
pub fn run<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    engine: &'env Engine<'env>,
    reaper: &Reaper<'env>,
    stop: &Receiver<()>,
) -> Result<()> {
    let mut acting = Acting { scope, engine, store: engine.store()?, told: HashMap::new() };
    acting.store.note(None, WHO, &format!("starts, mode {:?}", reaper.policy().mode()))?;
    while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(engine.config.limits.sweep_every) {
        // A reaper that cannot read its rows ends, and the orchestrator with it, rather than see nothing.
        let running = acting.store.running()?;
        let mut sweep = reaper.sweep();
        for (job, row) in running {
            // One bad row, or one that cannot be acted on, does not stop the sweep.
            if let Err(error) = row.map_err(Into::into).and_then(|row| acting.act(&mut sweep, job, row)) {
                acting.tell(job, format!("leaves it out: {error}"))?;
            }
        }
    }
    Ok(())
}

struct Acting<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    engine: &'env Engine<'env>,
    store: Store,
    /// What the timeline says of each job already.
    told: HashMap<JobId, String>,
}

impl<'env> Acting<'_, 'env> {
    fn act(&mut self, sweep: &mut Sweep<'_, 'env>, job: JobId, row: Running) -> Result<()> {
        let verdict = sweep.judge(&RunningJob {
            id: job,
            stage: STAGE,
            running_for: row.running_for,
            finished_for: row.finished_for,
            // The monitor is the parent of the job's process: it does not lose it.
            lost_for: None,
        });
        match verdict {
            Verdict::Healthy => Ok(()),
            Verdict::Defer(Deferral { reason, owner }) => {
                let owner = owner.and_then(|owner| owner.value.run_id);
                let run = owner.map_or_else(|| "a claim".to_owned(), |run| format!("run {run}"));
                self.tell(job, format!("defers, {reason} by {run}"))
            }
            Verdict::Redrive(guard) => {
                // The row was read before the claim: the job may have ended in between.
                let Some(run) = self.store.redrive(job, row.run)? else {
                    return Ok(());
                };
                let claim = if guard.is_some() { "claimed" } else { "no claim" };
                self.tell(job, format!("re-drives it as run {run}, {claim}"))?;
                let engine = self.engine;
                // If it fails, the job stays running and its mark is cleared: a later sweep finds it again.
                self.scope.spawn(move || monitor::redrive(engine, job, run, guard));
                Ok(())
            }
            Verdict::Reap(cause, guard) => {
                if self.store.commit(job, row.run, State::Reaped)? {
                    let taken = if guard.is_some() { ", the owner is displaced" } else { "" };
                    self.tell(job, format!("reaps it: {cause}{taken}"))?;
                }
                Ok(()) // the guard is dropped after the commit
            }
        }
    }

    /// Notes what is said of a job, but not again for every sweep.
    fn tell(&mut self, job: JobId, what: String) -> Result<()> {
        if self.told.get(&job) != Some(&what) {
            self.store.note(Some(job), WHO, &what)?;
            self.told.insert(job, what);
        }
        Ok(())
    }
}
