//! The reaper's thread: the library's loop over our running jobs, and what is done with its verdicts.

use std::sync::mpsc::Receiver;
use std::thread::{Builder, Scope};

use livemark::{Cause, Failure, MarkGuard, Mode, Policy, Reaper, RunningJob, Scheduler, Verdict};

use crate::config::STAGE;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::monitor;
use crate::store::{JobId, Running, State, Store};

/// Who the timeline says it was.
pub const WHO: &str = "reaper";

/// Sweeps until the other end of `stop` is dropped.
pub fn run<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    engine: &'env Engine<'env>,
    reaper: &Reaper<'env>,
    stop: Receiver<()>,
) -> Result<()> {
    let mut jobs = Jobs { scope, engine, store: engine.store()?, judging: None };
    jobs.store.note(None, WHO, &format!("starts, mode {}", reaper.policy().mode()))?;
    reaper.run(engine.config.limits.sweep_every, stop, &mut jobs);
    Ok(())
}

/// The jobs of one queue, as the reaper sees them.
struct Jobs<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    engine: &'env Engine<'env>,
    store: Store,
    /// The job whose turn it is.
    judging: Option<JobId>,
}

impl<'env> Scheduler<'env> for Jobs<'_, 'env> {
    type Row = (JobId, Running);
    type Error = Error;

    fn running(&mut self) -> Result<Vec<Result<Self::Row>>> {
        let rows = self.store.running()?;
        let jobs: Vec<_> = rows.iter().map(|(job, _)| *job).collect();
        self.engine.feed.listed(&jobs);
        let row = |(job, row): (JobId, rusqlite::Result<_>)| {
            row.map(|row| (job, row)).map_err(|source| Error::Row { job, source })
        };
        Ok(rows.into_iter().map(row).collect())
    }

    fn describe<'a>(&self, &(id, row): &'a Self::Row) -> RunningJob<'a> {
        RunningJob {
            id,
            stage: STAGE,
            running_for: row.running_for,
            finished_for: row.finished_for,
            // The monitor is the parent of the job's process: it does not lose it.
            lost_for: None,
        }
    }

    fn judged(&mut self, row: &Self::Row, verdict: &Verdict<'env>, policy: &Policy) {
        let &(job, Running { run, .. }) = row;
        self.judging = Some(job);
        let told = match verdict {
            Verdict::Defer(deferral) => {
                let owner = deferral.owner.as_ref().map(|owner| &owner.value);
                let whose = match owner.map(|owner| (owner.run_id, &owner.stage)) {
                    Some((Some(run), stage)) => format!(" by run {run} in {stage}"),
                    Some((None, _)) => " by a claim".to_owned(),
                    None => String::new(),
                };
                let what = format!("defers, {}{whose}", deferral.reason);
                let text = || verdict.explain(&self.describe(row), policy).to_string();
                let news = self.engine.feed.defers(job, run, &what, deferral.reason, owner, text);
                if news { self.store.note(Some(job), WHO, &what) } else { Ok(()) }
            }
            Verdict::Redrive(_) if policy.mode() == Mode::DryRun => self.tell(Some(job), "would re-drive it"),
            Verdict::Reap(cause, _) if policy.mode() == Mode::DryRun => {
                self.tell(Some(job), &format!("would reap it: {cause}"))
            }
            _ => Ok(()),
        };
        complain(told);
    }

    fn redrive(&mut self, (job, row): Self::Row, claim: Option<MarkGuard<'env>>) -> Result<()> {
        let engine = self.engine;
        // A service that is ending starts nothing any more.
        let Some(shift) = engine.shift.begin() else { return Ok(()) };
        // The row was read before the claim: the job may have ended in between.
        let Some(run) = self.store.redrive(job, row.run)? else { return Ok(()) };
        let by = if claim.is_some() { "claimed" } else { "no claim" };
        self.tell(Some(job), &format!("re-drives it as run {run}, {by}"))?;
        // If it fails, the job stays running and its mark is cleared: a later sweep finds it again.
        let work = move || {
            let _shift = shift;
            complain(monitor::redrive(engine, job, run, claim));
        };
        Builder::new().spawn_scoped(self.scope, work).map(drop).map_err(Error::io("starting a monitor"))
    }

    fn reap(&mut self, (job, row): Self::Row, cause: Cause, claim: Option<MarkGuard<'env>>) -> Result<()> {
        // What was done outside stays done, even if its monitor did not get to say so.
        let end = self.store.acted(job)?.map_or(State::Reaped, |effect| effect.state());
        if self.store.commit(job, row.run, end)? {
            let taken = if claim.is_some() { ", the owner is displaced" } else { "" };
            let ends = if end == State::Reaped { "reaps it".to_owned() } else { format!("ends it as '{end}'") };
            self.tell(Some(job), &format!("{ends}: {cause}{taken}"))?;
        }
        Ok(()) // the claim is dropped after the commit
    }

    fn failed(&mut self, failure: &Failure<Error>) {
        let job = match failure {
            Failure::Row(Error::Row { job, .. }) => Some(*job),
            Failure::Action(_) => self.judging,
            _ => None,
        };
        complain(self.tell(job, &format!("leaves it out: {failure}")));
    }
}

impl Jobs<'_, '_> {
    /// Notes what is said of a job, but not again for every sweep.
    fn tell(&self, job: Option<JobId>, what: &str) -> Result<()> {
        if self.engine.feed.is_news(job, what) { self.store.note(job, WHO, what) } else { Ok(()) }
    }
}

/// For trouble that there is nobody to hand to.
pub(crate) fn complain(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("orchestrator: {error}");
    }
}
