//! The reaper's thread: the library's loop over our running jobs, and what is done with its verdicts.

#[cfg(feature = "cluster")]
mod shared;

use std::collections::HashMap;
use std::mem::take;
use std::thread::{Builder, Scope};

use jiff::Timestamp;
use livemark::{
    Cause, Claim, DeferReason, Explanation, JobStore, Outcome, Reaper, ReaperHandle, RunError, RunningJob, StopToken,
    Verdict,
};

use crate::config::STAGE;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::feed::OwnerSeen;
use crate::marks::Hold;
use crate::monitor;
use crate::store::{JobId, NoteKind, Running, State, Store};

/// Who the timeline says it was.
pub const WHO: &str = "reaper";

/// Stops a reaper's loop at the end of its own life, also where a thread panics: a scope waits for all its threads.
#[derive(Debug, Default)]
pub struct StopAtEnd(pub StopToken);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A reaper, by where the marks are.
pub enum Sweeper<'a> {
    /// In this process.
    Own(Reaper<'a>),
    /// In an engine.
    #[cfg(feature = "cluster")]
    Shared(livemark_cluster::ClusterReaper, crate::marks::Shared),
}

impl Sweeper<'_> {
    /// Switches it and tells its counts.
    pub fn handle(&self) -> ReaperHandle {
        match self {
            Self::Own(reaper) => reaper.handle(),
            #[cfg(feature = "cluster")]
            Self::Shared(reaper, _) => reaper.handle(),
        }
    }
}

/// Sweeps until told to stop.
pub fn run<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    engine: &'env Engine<'env>,
    reaper: &Sweeper<'env>,
    stop: &StopToken,
) -> Result<()> {
    let store = engine.store()?;
    let mut jobs = Jobs {
        scope,
        engine,
        store,
        failures: Failures::default(),
        #[cfg(feature = "cluster")]
        orphans: shared::Orphans::default(),
    };
    let mode = reaper.handle().policy().mode();
    let of = engine.marks.process().map_or_else(String::new, |process| format!(" of {process}"));
    jobs.store.note_as(NoteKind::Mode, None, WHO, &format!("starts, mode {mode}{of}"))?;
    match reaper {
        Sweeper::Own(reaper) => reaper.run(engine.config.limits.sweep_every, stop, &mut jobs),
        #[cfg(feature = "cluster")]
        Sweeper::Shared(reaper, marks) => jobs.sweep_together(reaper, marks, stop),
    }
    Ok(())
}

/// A row, as the library sees it.
pub fn running_job<'a>(job: &'a JobId, row: &Running) -> RunningJob<'a> {
    let mut running = RunningJob::new(job, STAGE, row.running_for).redrives(row.redrives);
    running.finished_for = row.finished_for;
    running.lost_for = row.lost_for;
    running
}

/// The jobs of one queue, as the reaper sees them.
struct Jobs<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    engine: &'env Engine<'env>,
    store: Store,
    failures: Failures,
    #[cfg(feature = "cluster")]
    orphans: shared::Orphans,
}

/// The counter of the redrives that the store took.
pub(crate) const REDRIVES: &str = "orchestrator_redrives_total";

impl<'env> JobStore<'env> for Jobs<'_, 'env> {
    type Row = (JobId, Running);
    type Error = Error;
    type Rows = Vec<Result<Self::Row>>;

    fn list(&mut self) -> Result<Self::Rows> {
        self.listed()
    }

    fn job<'a>(&self, (job, row): &'a Self::Row) -> RunningJob<'a> {
        running_job(job, row)
    }

    fn on_verdict(&mut self, (job, row): &Self::Row, verdict: &Verdict<'env>, explanation: &Explanation<'_>) {
        self.ruled(*job, row, verdict, explanation);
    }

    fn redrive(&mut self, (job, row): Self::Row, claim: Claim<'env>) -> Result<Outcome> {
        self.redriven(job, row, Hold::Own(claim))
    }

    fn reap(&mut self, (job, row): Self::Row, cause: Cause, claim: Claim<'env>) -> Result<Outcome> {
        self.reaped(job, row, cause, &Hold::Own(claim))
    }

    fn on_error(&mut self, error: &RunError<JobId, Error>) {
        self.failed(error);
    }
}

impl<'env> Jobs<'_, 'env> {
    fn listed(&mut self) -> Result<Vec<Result<(JobId, Running)>>> {
        self.failures.next_sweep();
        let rows = self.store.running()?;
        let jobs: Vec<_> = rows.iter().map(|(job, _)| *job).collect();
        self.engine.feed.listed(&jobs);
        Ok(rows.into_iter().map(|(job, row)| row.map(|row| (job, row))).collect())
    }

    fn ruled<V, M>(&self, job: JobId, row: &Running, verdict: &Verdict<'_, JobId, V, M>, explanation: &Explanation<'_>)
    where
        OwnerSeen: for<'v> From<&'v V>,
    {
        if !self.engine.feed.judged(job, row.run, verdict, explanation) {
            return;
        }
        let what = match verdict {
            Verdict::Defer(deferral) => {
                let owner = deferral.owner.as_ref().map(|owner| OwnerSeen::from(&owner.value));
                let whose = match (deferral.reason, owner) {
                    (_, None) => String::new(),
                    (DeferReason::Owned | DeferReason::ClaimConflict, Some(owner)) => format!(" by {owner}"),
                    (_, Some(owner)) => format!(", owned by {owner}"),
                };
                format!("defers, {}{whose}", deferral.reason)
            }
            Verdict::DryRun(proposed) => format!("dry run: would {proposed}"),
            // What was made of it is told where that is known.
            Verdict::Healthy | Verdict::Redrive(_) | Verdict::Reap(..) => return,
        };
        complain(self.store.note_as(NoteKind::Verdict, Some(job), WHO, &what));
    }

    fn redriven(&mut self, job: JobId, row: Running, hold: Hold<'env>) -> Result<Outcome> {
        let engine = self.engine;
        // A service that is ending starts nothing any more, and its next life queues the job again.
        let Some(shift) = engine.shift.begin() else { return Ok(Outcome::Refused) };
        // The row was read before the claim: the job may have ended in between.
        let Some(run) = self.store.redrive(job, row.run)? else { return Ok(Outcome::Refused) };
        engine.feed.redriven();
        metrics::counter!(REDRIVES).increment(1);
        let marked = if hold.is_marked() { "claimed" } else { "no claim" };
        let by = displaced(&hold).unwrap_or_else(|| marked.to_owned());
        self.tell(NoteKind::Redrive, job, &format!("redrives it as run {run}, {by}"));
        // If it fails, the job stays running and its mark is cleared: a later sweep finds it again.
        let work = move || {
            let _shift = shift;
            complain(monitor::redrive(engine, job, run, hold));
        };
        Builder::new().spawn_scoped(self.scope, work).map_err(Error::io("starting a monitor"))?;
        Ok(Outcome::Done)
    }

    fn reaped(&self, job: JobId, row: Running, cause: Cause, hold: &Hold<'_>) -> Result<Outcome> {
        // What was done outside stays done, even if its monitor did not get to say so.
        let end = self.store.acted(job)?.map_or(State::Reaped, |effect| effect.state());
        if !self.store.commit(job, row.run, end, hold.token())? {
            return Ok(Outcome::Refused);
        }
        let ends = if end == State::Reaped { "reaps it".to_owned() } else { format!("ends it as '{end}'") };
        let displaced = displaced(hold).map_or_else(String::new, |displaced| format!(", {displaced}"));
        self.tell(NoteKind::Reap, job, &format!("{ends}: {cause}{displaced}"));
        Ok(Outcome::Done) // the claim is dropped after the commit
    }

    fn failed(&mut self, error: &RunError<JobId, Error>) {
        let job = match error {
            RunError::Row(Error::Row { job, .. }) | RunError::Act { job, .. } => Some(*job),
            RunError::Panicked { job, .. } => *job,
            _ => None,
        };
        let what = format!("leaves it out: {error}");
        if self.failures.is_news(job, &what) {
            complain(self.store.note_as(NoteKind::Trouble, job, WHO, &what));
            self.engine.feed.changed();
        }
    }
}

impl Jobs<'_, '_> {
    /// Tells what was done: in the timeline, and where a service's log goes. It was done, whether or not this can be
    /// written.
    fn tell(&self, kind: NoteKind, job: JobId, what: &str) {
        if self.engine.logs {
            eprintln!("{:.3} {WHO}: job {job}: {what}", Timestamp::now());
        }
        complain(self.store.note_as(kind, Some(job), WHO, what));
    }
}

/// Whom a claim displaced, for the timeline: its monitor sees that by itself, and leaves.
fn displaced(hold: &Hold<'_>) -> Option<String> {
    hold.displaced().map(|owner| format!("displacing {owner}"))
}

/// What went wrong in the latest sweep and in the one before, by job: what goes on is told once.
#[derive(Default)]
struct Failures {
    now: HashMap<Option<JobId>, String>,
    before: HashMap<Option<JobId>, String>,
}

impl Failures {
    fn next_sweep(&mut self) {
        self.before = take(&mut self.now);
    }

    fn is_news(&mut self, job: Option<JobId>, what: &str) -> bool {
        let known = self.now.insert(job, what.to_owned()).or_else(|| self.before.remove(&job));
        known.is_none_or(|known| known != what)
    }
}

/// For trouble that there is nobody to hand to.
pub(crate) fn complain(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("orchestrator: {error}");
    }
}
