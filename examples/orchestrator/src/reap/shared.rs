//! The reaper's loop where marks are shared: claims are in the engine, and a run without a mark is one whose process is gone.

use std::collections::HashMap;
use std::mem::take;
use std::thread::sleep;
use std::time::{Duration, Instant};

use livemark::{AsyncJobStore, Cause, Explanation, Outcome, RunError, RunningJob, StopToken};
use livemark_cluster::{Claim, ClusterGuard, ClusterReaper, Remote, Verdict};
use tokio::task::block_in_place;

use crate::error::{Error, Result};
use crate::marks::{Marks, Shared};
use crate::reap::{Jobs, running_job};
use crate::store::{JobId, NoteKind, Outcome as Ended, RunId, Running};

/// How soon the loop stops.
const STOPS_WITHIN: Duration = Duration::from_millis(20);

impl Jobs<'_, '_> {
    /// Sweeps until told to stop, or until the marks of this process are lost: its process ends then.
    pub(super) fn sweep_together(&mut self, reaper: &ClusterReaper, marks: &Shared, stop: &StopToken) {
        while !stop.is_stopped() && marks.loss().is_none() {
            let next = Instant::now() + self.engine.config.limits.sweep_every;
            marks.wait(reaper.run_once(self));
            // What other processes did is to be seen here as well.
            self.engine.feed.changed();
            while !stop.is_stopped() && Instant::now() < next {
                sleep(STOPS_WITHIN.min(next.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// Queues a job again whose process is gone, before it has finished anything.
    fn begun_anew(&self, job: JobId, run: RunId) -> Result<Outcome> {
        if !self.store.requeue(job, run)? {
            return Ok(Outcome::Refused);
        }
        self.store.end_run(run, Ended::Lost)?;
        self.tell(NoteKind::Redrive, job, &format!("queues it again: the process of run {run} is gone"));
        self.engine.shift.ring();
        Ok(Outcome::Done)
    }
}

/// The store blocks, which its thread may.
impl AsyncJobStore<JobId, Remote, ClusterGuard> for Jobs<'_, '_> {
    type Row = (JobId, Running);
    type Error = Error;
    type Rows = Vec<Result<Self::Row>>;

    async fn list(&mut self) -> Result<Self::Rows> {
        let mut rows = block_in_place(|| self.listed())?;
        self.orphans.look(&self.engine.marks, &mut rows);
        Ok(rows)
    }

    fn job<'a>(&self, (job, row): &'a Self::Row) -> RunningJob<'a> {
        running_job(job, row)
    }

    fn on_verdict(&mut self, (job, row): &Self::Row, verdict: &Verdict, explanation: &Explanation<'_>) {
        block_in_place(|| self.ruled(*job, row, verdict, explanation));
    }

    async fn redrive(&mut self, (job, row): Self::Row, claim: Claim) -> Result<Outcome> {
        let Marks::Shared(shared) = &self.engine.marks else { return Ok(Outcome::Refused) };
        let hold = shared.held(claim);
        block_in_place(|| self.redriven(job, row, hold))
    }

    async fn reap(&mut self, (job, row): Self::Row, cause: Cause, claim: Claim) -> Result<Outcome> {
        let Marks::Shared(shared) = &self.engine.marks else { return Ok(Outcome::Refused) };
        let hold = shared.held(claim);
        block_in_place(|| {
            if cause == Cause::WorkerLost && self.orphans.has(job, row.run) {
                return self.begun_anew(job, row.run);
            }
            self.reaped(job, row, cause, &hold)
        })
    }

    fn on_error(&mut self, error: &RunError<JobId, Error>) {
        block_in_place(|| self.failed(error));
    }
}

/// Runs whose process was still at work when it was last seen with a mark, and has none. A monitor of shared marks marks
/// its job before it starts anything, so that its process is gone.
#[derive(Default)]
pub(super) struct Orphans(HashMap<(JobId, RunId), Instant>);

impl Orphans {
    /// Says in the rows for how long such runs have been lost.
    fn look(&mut self, marks: &Marks<'_>, rows: &mut [Result<(JobId, Running)>]) {
        let before = take(&mut self.0);
        for (job, row) in rows.iter_mut().flatten() {
            if row.finished_for.is_none() && row.lost_for.is_none() && !marks.is_active(*job) {
                let since = before.get(&(*job, row.run)).copied().unwrap_or_else(Instant::now);
                self.0.insert((*job, row.run), since);
                row.lost_for = Some(since.elapsed());
            }
        }
    }

    fn has(&self, job: JobId, run: RunId) -> bool {
        self.0.contains_key(&(job, run))
    }
}
