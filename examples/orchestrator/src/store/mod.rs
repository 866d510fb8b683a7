//! The job store: every SQL statement of the orchestrator is in here.
//!
//! A job's state changes only by compare-and-set, and the value compared is the pair of state and run:
//! a run that is no longer the job's own cannot end it. What a finalization does to the world outside
//! goes to the append-only ledger instead, *before* the state is committed, since no transaction spans
//! both. That gap is why a store's compare-and-set alone does not prevent the incident.

mod connection;
mod control;
mod database;
mod expiry;
mod history;
#[cfg(feature = "cluster")]
mod postgres;
mod rows;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::store::connection::{Access, Connection, FromColumn, Row, Value, values};

pub use connection::BadColumn;
pub use control::{KeptMode, Pause, Wish};
pub use database::Database;
pub use history::{EffectRow, Happened, JobRow, RunRow, TaskRow, Wanted, Which};
pub use rows::{DEFAULT_KIND, Effect, JobId, Note, NoteKind, Outcome, Overview, RunId, Running, Shown, State};

/// One thread's connection to the jobs of one queue.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    queue: String,
}

impl Store {
    // Transitions.

    /// Adds a job of the default kind to the queue.
    pub fn enqueue(&self) -> Result<JobId> {
        self.new_job(DEFAULT_KIND)
    }

    /// Adds `count` jobs of this kind to the queue: all of them, or none.
    pub fn submit(&mut self, kind: &str, count: usize) -> Result<Vec<JobId>> {
        self.together(|| (0..count).map(|_| self.new_job(kind)).collect())
    }

    fn new_job(&self, kind: &str) -> Result<JobId> {
        let sql = "INSERT INTO jobs (queue, kind, state, submitted_at) VALUES (?1, ?2, 'queued', :now) RETURNING id";
        self.ask(sql, values![self.queue, kind])
    }

    /// Takes a queued job and gives it a run; `None` if another monitor was faster.
    pub fn start(&mut self, job: JobId) -> Result<Option<RunId>> {
        self.attempt(|| self.started(job))
    }

    /// Takes the job that has been queued for longest, and gives it a run. Takes none of a queue that is paused.
    ///
    /// Where several processes take jobs, each passes over those that others are taking in this instant.
    pub fn start_next(&mut self) -> Result<Option<(JobId, RunId)>> {
        self.attempt(|| {
            let sql = "SELECT id FROM jobs WHERE queue = ?1 AND state = 'queued'
                 AND NOT EXISTS (SELECT 1 FROM pauses WHERE pauses.queue = ?1) ORDER BY id LIMIT 1 :skip";
            let Some(job) = self.find(sql, values![self.queue], |row| row.get(0))? else { return Ok(None) };
            Ok(self.started(job)?.map(|run| (job, run)))
        })
    }

    /// Gives a queued job a run and sets it running, within a transaction that is undone if another was faster.
    fn started(&self, job: JobId) -> Result<Option<RunId>> {
        let sql = "INSERT INTO runs (job_id, started_at) VALUES (?1, :now) RETURNING id";
        let run: RunId = self.ask(sql, values![job])?;
        let sql =
            "UPDATE jobs SET state = 'running', run_id = ?2, started_at = :now WHERE id = ?1 AND state = 'queued'";
        let taken = self.connection.execute(sql, values![job, run])?;
        Ok((taken == 1).then_some(run))
    }

    /// Writes down that `run` enters a stage, and in the timeline what led there.
    pub fn enter(&self, job: JobId, run: RunId, stage: &str, who: &str, what: &str) -> Result<()> {
        self.together(|| {
            self.write("UPDATE runs SET stage = ?2 WHERE id = ?1", values![run, stage])?;
            self.note(Some(job), who, what)
        })
    }

    /// Writes down that `run` has its mark, and in the timeline what led there.
    pub fn marked(&self, job: JobId, run: RunId, who: &str, what: &str) -> Result<()> {
        self.together(|| {
            self.write("UPDATE runs SET stage = 'marked', marked_at = :now WHERE id = ?1", values![run])?;
            self.note(Some(job), who, what)
        })
    }

    /// Stamps that the process of `run` has exited: from now on the job is reapable. Says whether it still is its job's
    /// run.
    pub fn finish(&self, run: RunId, exit_code: Option<i32>) -> Result<bool> {
        self.together(|| {
            // The job stays with this run until the stamp is written, else a redrive could copy a run without its exit
            // code and take the job before the stamp is committed.
            let sql = "SELECT id FROM jobs WHERE id = (SELECT job_id FROM runs WHERE id = ?1)
                AND state = 'running' AND run_id = ?1 :lock";
            if self.find(sql, values![run], |row| row.get::<JobId>(0))?.is_none() {
                return Ok(false);
            }
            let sql = "UPDATE runs SET finished_at = :now, exit_code = ?2, stage = 'stamped' WHERE id = ?1";
            self.write(sql, values![run, exit_code])?;
            Ok(true)
        })
    }

    /// Gives a running job a new run that repeats the finalization of `old`; `None` if `old` no longer owns the job.
    ///
    /// The new run is stamped finished now, and becomes the job's own in the same transaction: this restarts the stamp
    /// that the reaper goes by. With the old one its next sweep would redrive the job again. The job's own age goes on,
    /// so that the hard deadline bounds all of its runs together, and the redrive is counted where it is taken.
    pub fn redrive(&mut self, job: JobId, old: RunId) -> Result<Option<RunId>> {
        self.attempt(|| {
            // The comparison comes first and locks the job, so that what is copied from the old run is its last word.
            let sql = "SELECT id FROM jobs WHERE id = ?1 AND state = 'running' AND run_id = ?2 :lock";
            if self.find(sql, values![job, old], |row| row.get::<JobId>(0))?.is_none() {
                return Ok(None);
            }
            let sql = "INSERT INTO runs (job_id, finished_at, marked_at, exit_code, stage)
                 SELECT job_id, :now, :now, exit_code, 'stamped' FROM runs WHERE id = ?1 RETURNING id";
            let run: RunId = self.ask(sql, values![old])?;
            let sql = "UPDATE jobs SET run_id = ?3, redrives = redrives + 1
                 WHERE id = ?1 AND state = 'running' AND run_id = ?2";
            let taken = self.connection.execute(sql, values![job, old, run])?;
            Ok((taken == 1).then_some(run))
        })
    }

    /// Ends a job, if it is running and `run` is its own run. At most one caller is told `true`, ever.
    ///
    /// With a fencing token it also compares that with the largest one that the job has seen.
    pub fn commit(&self, job: JobId, run: RunId, end: State, token: Option<u64>) -> Result<bool> {
        let changed = if let Some(token) = token {
            let sql = "UPDATE jobs SET state = ?3, fence = ?4
                WHERE id = ?1 AND state = 'running' AND run_id = ?2 AND fence <= ?4";
            self.connection.execute(sql, values![job, run, end, token])?
        } else {
            let sql = "UPDATE jobs SET state = ?3 WHERE id = ?1 AND state = 'running' AND run_id = ?2";
            self.connection.execute(sql, values![job, run, end])?
        };
        Ok(changed == 1)
    }

    /// Writes down how a run ended.
    pub fn end_run(&self, run: RunId, outcome: Outcome) -> Result<()> {
        self.write("UPDATE runs SET ended_at = :now, outcome = ?2 WHERE id = ?1", values![run, outcome])
    }

    /// Queues a running job again whose process could not be started, if `run` is its own run.
    pub fn requeue(&self, job: JobId, run: RunId) -> Result<bool> {
        let sql = "UPDATE jobs SET state = 'queued', run_id = NULL, started_at = NULL
            WHERE id = ?1 AND state = 'running' AND run_id = ?2";
        Ok(self.connection.execute(sql, values![job, run])? == 1)
    }

    /// After a restart: no run of this queue has a monitor any more, so what was running is queued again.
    ///
    /// Its process will be run again from its start, so its age begins anew as well. Its redrives stay counted.
    ///
    /// Sound only before the first monitor and the reaper start, and never while another process works on the queue.
    pub fn requeue_running(&mut self) -> Result<Vec<JobId>> {
        self.together(|| {
            self.write(
                "UPDATE runs SET ended_at = :now, outcome = ?2
                 WHERE ended_at IS NULL AND (SELECT queue FROM jobs WHERE jobs.id = job_id) = ?1",
                values![self.queue, Outcome::Lost],
            )?;
            let sql = "UPDATE jobs SET state = 'queued', run_id = NULL, started_at = NULL
                 WHERE queue = ?1 AND state = 'running' RETURNING id";
            self.list(sql, values![self.queue], |row| row.get(0))
        })
    }

    /// Writes down that a gate started.
    pub fn start_task(&self, run: RunId, gate: &str) -> Result<u64> {
        self.together(|| {
            self.write("UPDATE runs SET stage = ?2 WHERE id = ?1", values![run, gate])?;
            let sql = "INSERT INTO tasks (run_id, gate, started_at) VALUES (?1, ?2, :now) RETURNING id";
            self.ask(sql, values![run, gate])
        })
    }

    /// Writes down how it ended.
    pub fn end_task(&self, task: u64, result: &str) -> Result<()> {
        self.write("UPDATE tasks SET ended_at = :now, result = ?2 WHERE id = ?1", values![task, result])
    }

    /// Merges or rolls back. In this example the ledger *is* the world outside.
    ///
    /// With a fencing token it does so only if `run` is the job's own and no larger token was seen, and says whether it
    /// has. Here, the world outside can compare.
    pub fn act(&self, job: JobId, run: RunId, effect: Effect, token: Option<u64>) -> Result<bool> {
        let act = || {
            let sql = "INSERT INTO ledger (job_id, run_id, effect, at) VALUES (?1, ?2, ?3, :now)";
            self.write(sql, values![job, run, effect])
        };
        let Some(token) = token else { return act().map(|()| true) };
        self.together(|| {
            // It locks the job until the effect is written: a successor with a larger token waits, and finds it.
            let sql = "UPDATE jobs SET fence = ?3
                WHERE id = ?1 AND fence <= ?3 AND state = 'running' AND run_id = ?2";
            let is_current = self.connection.execute(sql, values![job, run, token])? == 1;
            if is_current {
                act()?;
            }
            Ok(is_current)
        })
    }

    /// Returns the greatest token that acted on a job of the queue, below which none may be given.
    pub fn greatest_fence(&self) -> Result<u64> {
        self.ask("SELECT COALESCE(MAX(fence), 0) FROM jobs WHERE queue = ?1", values![self.queue])
    }

    /// Writes down that `holder` owns `job` in this round.
    pub fn claim(&self, job: JobId, round: u64, holder: &str, generation: u64) -> Result<()> {
        self.write(
            "INSERT INTO claims (job_id, round, holder, generation) VALUES (?1, ?2, ?3, ?4)",
            values![job, round, holder, generation],
        )
    }

    /// Adds to the timeline what a run did.
    pub fn note(&self, job: Option<JobId>, who: &str, what: &str) -> Result<()> {
        self.note_as(NoteKind::Run, job, who, what)
    }

    /// Adds a line to the timeline.
    pub fn note_as(&self, kind: NoteKind, job: Option<JobId>, who: &str, what: &str) -> Result<()> {
        self.write(
            "INSERT INTO notes (queue, job_id, at, who, kind, what) VALUES (?1, ?2, :now, ?3, ?4, ?5)",
            values![self.queue, job, who, kind, what],
        )
    }

    /// Writes something that says nothing, to see whether the store can be written.
    pub fn touch(&self) -> Result<()> {
        let sql = "INSERT INTO health (id, at) VALUES (1, :now) ON CONFLICT (id) DO UPDATE SET at = excluded.at";
        self.write(sql, &[])
    }

    // Questions.

    /// The jobs that wait for a monitor.
    pub fn queued(&self) -> Result<Vec<JobId>> {
        let sql = "SELECT id FROM jobs WHERE queue = ?1 AND state = 'queued' ORDER BY id";
        self.list(sql, values![self.queue], |row| row.get(0))
    }

    /// The running jobs, each row read for itself, so that one bad row costs only itself.
    pub fn running(&self) -> Result<Vec<(JobId, Result<Running>)>> {
        let sql = "SELECT jobs.id, jobs.run_id, jobs.started_at, runs.finished_at, runs.ended_at, jobs.redrives,
                CAST(:now AS BIGINT)
            FROM jobs LEFT JOIN runs ON runs.id = jobs.run_id
            WHERE jobs.queue = ?1 AND jobs.state = 'running' ORDER BY jobs.id";
        let running = |row: &Row<'_>| {
            // A clock that was set back makes an age of zero.
            let now: u64 = row.get(6)?;
            let age = |then| Duration::from_millis(now.saturating_sub(then));
            Ok(Running {
                run: row.get(1)?,
                running_for: age(row.get(2)?),
                finished_for: row.get::<Option<u64>>(3)?.map(age),
                lost_for: row.get::<Option<u64>>(4)?.map(age),
                redrives: row.get(5)?,
            })
        };
        self.list(sql, values![self.queue], |row| {
            let job = row.get(0)?;
            Ok((job, running(row).map_err(|source| Error::Row { job, source })))
        })
    }

    /// Counts by state, and the running jobs: all of one instant. What has ended is not read.
    pub fn overview(&self) -> Result<Overview> {
        let read = || {
            let counts = self.counts()?;
            let sql =
                "SELECT jobs.id, jobs.kind, jobs.run_id, runs.stage, jobs.started_at, runs.finished_at, jobs.redrives
                FROM jobs LEFT JOIN runs ON runs.id = jobs.run_id
                WHERE jobs.queue = ?1 AND jobs.state = 'running' ORDER BY jobs.id";
            let now = self.now()?;
            let running = self.list(sql, values![self.queue], |row| {
                Ok(Shown {
                    job: row.get(0)?,
                    kind: row.get(1)?,
                    run: row.get(2)?,
                    stage: row.get(3)?,
                    running_ms: row.get::<Option<u64>>(4)?.map_or(0, |then| now.saturating_sub(then)),
                    finished_ms: row.get::<Option<u64>>(5)?.map(|then| now.saturating_sub(then)),
                    redrives: row.get(6)?,
                })
            })?;
            Ok(Overview { now_ms: now, counts, running })
        };
        self.connection.transaction(Access::Snapshot, read, |_| true)
    }

    /// Returns the store's clock, in milliseconds since the epoch.
    pub fn now(&self) -> Result<u64> {
        self.ask("SELECT CAST(:now AS BIGINT)", &[])
    }

    /// Jobs by state. No job that has ended is read for it.
    pub fn counts(&self) -> Result<BTreeMap<State, u64>> {
        let sql = if self.connection.is_shared() {
            // There the tallies have only what has ended, by changes: see the schema.
            "SELECT 'queued', COUNT(*) FROM jobs WHERE queue = ?1 AND state = 'queued'
             UNION ALL SELECT 'running', COUNT(*) FROM jobs WHERE queue = ?1 AND state = 'running'
             UNION ALL SELECT state, CAST(SUM(jobs) AS BIGINT) FROM tallies WHERE queue = ?1 GROUP BY state"
        } else {
            "SELECT state, jobs FROM tallies WHERE queue = ?1"
        };
        Ok(self.list(sql, values![self.queue], |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect())
    }

    /// How many jobs are in this state. No job that has ended is read for it.
    fn tally(&self, state: State) -> Result<u64> {
        if self.connection.is_shared() && matches!(state, State::Queued | State::Running) {
            return self.count_jobs(state);
        }
        let sql = "SELECT CAST(COALESCE(SUM(jobs), 0) AS BIGINT) FROM tallies WHERE queue = ?1 AND state = ?2";
        self.ask(sql, values![self.queue, state])
    }

    /// The commands of which kind a job runs.
    pub fn kind(&self, job: JobId) -> Result<String> {
        self.ask("SELECT kind FROM jobs WHERE id = ?1", values![job])
    }

    /// Where a job stands.
    pub fn state(&self, job: JobId) -> Result<State> {
        self.ask("SELECT state FROM jobs WHERE id = ?1", values![job])
    }

    /// Returns `true` if `job` is running, and `run` is its own run.
    pub fn is_own(&self, job: JobId, run: RunId) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1 AND state = 'running' AND run_id = ?2)";
        self.ask(sql, values![job, run])
    }

    /// What was done outside for this job already, by whichever run.
    pub fn acted(&self, job: JobId) -> Result<Option<Effect>> {
        let sql = "SELECT effect FROM ledger WHERE job_id = ?1 ORDER BY id LIMIT 1";
        self.find(sql, values![job], |row| row.get(0))
    }

    /// Returns `true` if the process of this run's job exited with 0.
    pub fn process_succeeded(&self, run: RunId) -> Result<bool> {
        self.ask("SELECT exit_code IS NOT DISTINCT FROM 0 FROM runs WHERE id = ?1", values![run])
    }

    /// Jobs that have not ended.
    pub fn unfinished(&self) -> Result<u64> {
        self.ask("SELECT COUNT(*) FROM jobs WHERE queue = ?1 AND state IN ('queued', 'running')", values![self.queue])
    }

    /// Returns `true` if the reaper has noted anything about `job`, and no run of it but `own` is still going.
    pub fn ruled_on(&self, job: JobId, own: RunId) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM notes WHERE job_id = ?1 AND who = 'reaper')
            AND NOT EXISTS (SELECT 1 FROM runs WHERE job_id = ?1 AND id <> ?2 AND ended_at IS NULL)";
        self.ask(sql, values![job, own])
    }

    /// The timeline of this queue.
    pub fn notes(&self) -> Result<Vec<Note>> {
        let sql = "SELECT at, job_id, who, what FROM notes WHERE queue = ?1 ORDER BY id";
        self.list(sql, values![self.queue], |row| {
            Ok(Note { at: row.get(0)?, job: row.get(1)?, who: row.get(2)?, what: row.get(3)? })
        })
    }

    // Counts, for the closing table.

    /// Jobs in this state.
    pub fn count_jobs(&self, state: State) -> Result<u64> {
        self.ask("SELECT COUNT(*) FROM jobs WHERE queue = ?1 AND state = ?2", values![self.queue, state])
    }

    /// Runs of all jobs.
    pub fn count_runs(&self) -> Result<u64> {
        self.ask("SELECT COUNT(*) FROM runs JOIN jobs ON jobs.id = job_id WHERE queue = ?1", values![self.queue])
    }

    /// Runs that ended this way.
    pub fn count_outcomes(&self, outcome: Outcome) -> Result<u64> {
        self.ask(
            "SELECT COUNT(*) FROM runs JOIN jobs ON jobs.id = job_id WHERE queue = ?1 AND outcome = ?2",
            values![self.queue, outcome],
        )
    }

    /// Entries of the ledger.
    pub fn count_effects(&self, effect: Effect) -> Result<u64> {
        self.ask(
            "SELECT COUNT(*) FROM ledger JOIN jobs ON jobs.id = job_id WHERE queue = ?1 AND effect = ?2",
            values![self.queue, effect],
        )
    }

    /// Notes that say exactly this.
    pub fn count_notes(&self, what: &str) -> Result<u64> {
        self.ask("SELECT COUNT(*) FROM notes WHERE queue = ?1 AND what = ?2", values![self.queue, what])
    }

    /// Jobs whose ledger says something else than their row.
    pub fn count_diverged(&self) -> Result<u64> {
        let sql = "SELECT COUNT(*) FROM jobs WHERE queue = ?1
            AND (SELECT string_agg(effect, ',' ORDER BY id) FROM ledger WHERE job_id = jobs.id) IS DISTINCT FROM
                CASE state WHEN 'merged' THEN 'merge' WHEN 'rolled back' THEN 'rollback' END";
        self.ask(sql, values![self.queue])
    }

    /// Rounds of the race for `job` that had exactly this many holders.
    pub fn count_rounds(&self, job: JobId, holders: u64) -> Result<u64> {
        self.ask(
            "SELECT COUNT(*) FROM (SELECT 1 FROM claims WHERE job_id = ?1 GROUP BY round HAVING COUNT(*) = ?2) AS rounds",
            values![job, holders],
        )
    }

    /// How many rounds of the race for `job` each holder won.
    pub fn rounds_won(&self, job: JobId) -> Result<Vec<(String, u64)>> {
        let sql = "SELECT holder, COUNT(*) FROM claims WHERE job_id = ?1 GROUP BY holder";
        self.list(sql, values![job], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    fn begin_replay(&self) -> Result<u64> {
        self.ask("INSERT INTO replays (started_at) VALUES (:now) RETURNING id", &[])
    }

    /// Does several things in one transaction, which one failure undoes.
    fn together<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.connection.transaction(Access::Write, work, |_| true)
    }

    /// Does several things in one transaction, which is undone as well if nothing comes of them.
    fn attempt<T>(&self, work: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
        self.connection.transaction(Access::Write, work, Option::is_some)
    }

    fn write(&self, sql: &str, values: &[Value<'_>]) -> Result<()> {
        self.connection.execute(sql, values)?;
        Ok(())
    }

    fn list<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnMut(&Row<'_>) -> Result<T, BadColumn>,
    ) -> Result<Vec<T>> {
        self.connection.query(sql, values, read)
    }

    /// Returns the first row, if there is one.
    fn find<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnMut(&Row<'_>) -> Result<T, BadColumn>,
    ) -> Result<Option<T>> {
        Ok(self.list(sql, values, read)?.into_iter().next())
    }

    /// Returns the first column of the one row.
    fn ask<T: FromColumn>(&self, sql: &str, values: &[Value<'_>]) -> Result<T> {
        Ok(self.find(sql, values, |row| row.get(0))?.ok_or_else(BadColumn::no_row)?)
    }
}

/// By how much the clock of the store is ahead of this process's, in milliseconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Milliseconds since the epoch, by the clock of the store, as rows outlive the process and are other processes' as well. That of
/// a store in a file is this process's own. Of a server's it is known since the latest connection was made.
pub fn now() -> u64 {
    // Relaxed (no edge): a number by itself.
    own_clock().saturating_add_signed(AHEAD.load(Ordering::Relaxed))
}

/// Takes up what the time is on the server.
#[cfg(feature = "cluster")]
fn set_clock(now: u64) {
    let ahead = i64::try_from(now).unwrap_or(0) - i64::try_from(own_clock()).unwrap_or(0);
    // Relaxed (no edge): a number by itself.
    AHEAD.store(ahead, Ordering::Relaxed);
}

fn own_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
