//! The job store: every SQL statement of the orchestrator is in here.
//!
//! A job's state changes only by compare-and-set, and the value compared is the pair of state and run:
//! a run that is no longer the job's own cannot end it. What a finalization does to the world outside
//! goes to the append-only ledger instead, *before* the state is committed, since no transaction spans
//! both. That gap is why a store's compare-and-set alone does not prevent the incident.

mod control;
mod database;
mod expiry;
mod history;
#[cfg(feature = "cluster")]
mod postgres;
mod rows;
mod sql;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use rusqlite::params;
use rusqlite::types::{FromSql, ToSql};

use crate::error::Result;
use crate::store::sql::{Connection, Row};

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
        self.insert(
            "INSERT INTO jobs (queue, state, submitted_at) VALUES (?1, 'queued', ?2)",
            params![self.queue, now()],
        )
    }

    /// Adds `count` jobs of this kind to the queue: all of them, or none.
    pub fn submit(&mut self, kind: &str, count: usize) -> Result<Vec<JobId>> {
        let transaction = self.connection.transaction()?;
        let jobs = {
            let sql = "INSERT INTO jobs (queue, kind, state, submitted_at) VALUES (?1, ?2, 'queued', ?3) RETURNING id";
            let at = now();
            (0..count).map(|_| self.ask(sql, params![self.queue, kind, at])).collect::<Result<_>>()?
        };
        transaction.commit()?;
        Ok(jobs)
    }

    /// Takes a queued job and gives it a run; `None` if another monitor was faster.
    pub fn start(&mut self, job: JobId) -> Result<Option<RunId>> {
        let transaction = self.connection.transaction()?;
        // Dropping the transaction takes the run back.
        let Some(run) = self.started(job)? else { return Ok(None) };
        transaction.commit()?;
        Ok(Some(run))
    }

    /// Takes the job that has been queued for longest, and gives it a run. Takes none of a queue that is paused.
    pub fn start_next(&mut self) -> Result<Option<(JobId, RunId)>> {
        let transaction = self.connection.transaction()?;
        let sql = format!(
            "SELECT id FROM jobs WHERE queue = ?1 AND state = 'queued'
             AND NOT EXISTS (SELECT 1 FROM pauses WHERE pauses.queue = ?1) ORDER BY id LIMIT 1{}",
            self.connection.for_update()
        );
        let next = self.connection.find(&sql, params![self.queue], |row| row.get(0))?;
        let Some(job) = next else { return Ok(None) };
        let Some(run) = self.started(job)? else { return Ok(None) };
        transaction.commit()?;
        Ok(Some((job, run)))
    }

    /// Writes down that `run` enters a stage, and in the timeline what led there.
    pub fn enter(&self, job: JobId, run: RunId, stage: &str, who: &str, what: &str) -> Result<()> {
        self.together(|| {
            self.write("UPDATE runs SET stage = ?2 WHERE id = ?1", params![run, stage])?;
            self.note(Some(job), who, what)
        })
    }

    /// Writes down that `run` has its mark, and in the timeline what led there.
    pub fn marked(&self, job: JobId, run: RunId, who: &str, what: &str) -> Result<()> {
        self.together(|| {
            self.write("UPDATE runs SET stage = 'marked', marked_at = ?2 WHERE id = ?1", params![run, now()])?;
            self.note(Some(job), who, what)
        })
    }

    /// Stamps that the process of `run` has exited: from now on the job is reapable. Says whether it still is its job's
    /// run.
    pub fn finish(&self, run: RunId, exit_code: Option<i32>) -> Result<bool> {
        let sql = "UPDATE runs SET finished_at = ?2, exit_code = ?3, stage = 'stamped' WHERE id = ?1
            AND EXISTS (SELECT 1 FROM jobs WHERE jobs.id = runs.job_id AND state = 'running' AND run_id = ?1)";
        self.changes_one(sql, params![run, now(), exit_code])
    }

    /// Gives a running job a new run that repeats the finalization of `old`; `None` if `old` no longer owns the job.
    ///
    /// The new run is stamped finished now, and becomes the job's own in the same transaction: this restarts the stamp
    /// that the reaper goes by. With the old one its next sweep would redrive the job again. The job's own age goes on,
    /// so that the hard deadline bounds all of its runs together, and the redrive is counted where it is taken.
    pub fn redrive(&mut self, job: JobId, old: RunId) -> Result<Option<RunId>> {
        let transaction = self.connection.transaction()?;
        let sql = "INSERT INTO runs (job_id, finished_at, marked_at, exit_code, stage)
            SELECT job_id, CAST(?2 AS BIGINT), CAST(?2 AS BIGINT), exit_code, 'stamped' FROM runs WHERE id = ?1
            RETURNING id";
        let Some(run) = self.connection.find(sql, params![old, now()], |row| row.get(0))? else { return Ok(None) };
        let sql = "UPDATE jobs SET run_id = ?3, redrives = redrives + 1
            WHERE id = ?1 AND state = 'running' AND run_id = ?2";
        if !self.changes_one(sql, params![job, old, run])? {
            return Ok(None);
        }
        transaction.commit()?;
        Ok(Some(run))
    }

    /// Ends a job, if it is running and `run` is its own run. At most one caller is told `true`, ever.
    ///
    /// A token that is less than one that acted on the job is refused: whoever has it has been displaced.
    pub fn commit(&self, job: JobId, run: RunId, end: State, token: Option<u64>) -> Result<bool> {
        let sql = "UPDATE jobs SET state = ?3, fence = COALESCE(?4, fence)
            WHERE id = ?1 AND state = 'running' AND run_id = ?2 AND fence <= COALESCE(?4, fence)";
        self.changes_one(sql, params![job, run, end, token])
    }

    /// Writes down how a run ended.
    pub fn end_run(&self, run: RunId, outcome: Outcome) -> Result<()> {
        self.write("UPDATE runs SET ended_at = ?2, outcome = ?3 WHERE id = ?1", params![run, now(), outcome])
    }

    /// Queues a running job again whose process could not be started, if `run` is its own run.
    pub fn requeue(&self, job: JobId, run: RunId) -> Result<bool> {
        let sql = "UPDATE jobs SET state = 'queued', run_id = NULL, started_at = NULL
            WHERE id = ?1 AND state = 'running' AND run_id = ?2";
        self.changes_one(sql, params![job, run])
    }

    /// After a restart: no run of this queue has a monitor any more, so what was running is queued again.
    ///
    /// Its process will be run again from its start, so its age begins anew as well. Its redrives stay counted.
    ///
    /// Sound only before the first monitor and the reaper start.
    pub fn requeue_running(&mut self) -> Result<Vec<JobId>> {
        let transaction = self.connection.transaction()?;
        self.write(
            "UPDATE runs SET ended_at = ?2, outcome = ?3
             WHERE ended_at IS NULL AND (SELECT queue FROM jobs WHERE jobs.id = job_id) = ?1",
            params![self.queue, now(), Outcome::Lost],
        )?;
        let sql = "UPDATE jobs SET state = 'queued', run_id = NULL, started_at = NULL
            WHERE queue = ?1 AND state = 'running' RETURNING id";
        let jobs = self.list(sql, params![self.queue], |row| row.get(0))?;
        transaction.commit()?;
        Ok(jobs)
    }

    /// Writes down that a gate started.
    pub fn start_task(&self, run: RunId, gate: &str) -> Result<u64> {
        self.together(|| {
            self.write("UPDATE runs SET stage = ?2 WHERE id = ?1", params![run, gate])?;
            self.insert("INSERT INTO tasks (run_id, gate, started_at) VALUES (?1, ?2, ?3)", params![run, gate, now()])
        })
    }

    /// Writes down how it ended.
    pub fn end_task(&self, task: u64, result: &str) -> Result<()> {
        self.write("UPDATE tasks SET ended_at = ?2, result = ?3 WHERE id = ?1", params![task, now(), result])
    }

    /// Merges or rolls back. In this example the ledger *is* the world outside.
    ///
    /// With a token, the world outside is one that compares tokens: one that is less than another that acted on the job is
    /// refused, and so is a run that is not the job's own any more. Returns `false` then.
    pub fn act(&self, job: JobId, run: RunId, effect: Effect, token: Option<u64>) -> Result<bool> {
        let transaction = self.connection.transaction()?;
        if token.is_some() {
            let sql = "UPDATE jobs SET fence = ?3 WHERE id = ?1 AND state = 'running' AND run_id = ?2 AND fence <= ?3";
            if !self.changes_one(sql, params![job, run, token])? {
                return Ok(false);
            }
        }
        self.write(
            "INSERT INTO ledger (job_id, run_id, effect, at) VALUES (?1, ?2, ?3, ?4)",
            params![job, run, effect, now()],
        )?;
        transaction.commit()?;
        Ok(true)
    }

    /// Returns the greatest token that acted on a job of the queue, below which none may be given.
    pub fn greatest_fence(&self) -> Result<u64> {
        self.ask("SELECT COALESCE(MAX(fence), 0) FROM jobs WHERE queue = ?1", params![self.queue])
    }

    /// Writes down that `holder` owns `job` in this round.
    pub fn claim(&self, job: JobId, round: u64, holder: &str, generation: u64) -> Result<()> {
        self.write(
            "INSERT INTO claims (job_id, round, holder, generation) VALUES (?1, ?2, ?3, ?4)",
            params![job, round, holder, generation],
        )
    }

    /// Adds to the timeline what a run did.
    pub fn note(&self, job: Option<JobId>, who: &str, what: &str) -> Result<()> {
        self.note_as(NoteKind::Run, job, who, what)
    }

    /// Adds a line to the timeline.
    pub fn note_as(&self, kind: NoteKind, job: Option<JobId>, who: &str, what: &str) -> Result<()> {
        self.write(
            "INSERT INTO notes (queue, job_id, at, who, kind, what) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![self.queue, job, now(), who, kind, what],
        )
    }

    /// Writes something that says nothing, to see whether the store can be written.
    pub fn touch(&self) -> Result<()> {
        let sql = "INSERT INTO health (id, at) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET at = excluded.at";
        self.write(sql, params![now()])
    }

    // Questions.

    /// The jobs that wait for a monitor.
    pub fn queued(&self) -> Result<Vec<JobId>> {
        let sql = "SELECT id FROM jobs WHERE queue = ?1 AND state = 'queued' ORDER BY id";
        self.list(sql, params![self.queue], |row| row.get(0))
    }

    /// The running jobs, each row read for itself, so that one bad row costs only itself.
    pub fn running(&self) -> Result<Vec<(JobId, rusqlite::Result<Running>)>> {
        let sql = "SELECT jobs.id, jobs.run_id, jobs.started_at, runs.finished_at, runs.ended_at, jobs.redrives
            FROM jobs LEFT JOIN runs ON runs.id = jobs.run_id
            WHERE jobs.queue = ?1 AND jobs.state = 'running' ORDER BY jobs.id";
        let now = now();
        // A clock that was set back makes an age of zero.
        let age = |then| Duration::from_millis(now.saturating_sub(then));
        let running = |row: &Row<'_>| {
            Ok(Running {
                run: row.get(1)?,
                running_for: age(row.get(2)?),
                finished_for: row.get::<Option<u64>>(3)?.map(age),
                lost_for: row.get::<Option<u64>>(4)?.map(age),
                redrives: row.get(5)?,
            })
        };
        self.list(sql, params![self.queue], |row| Ok((row.get(0)?, running(row))))
    }

    /// Counts by state, and the running jobs: all of one instant. What has ended is not read.
    pub fn overview(&self) -> Result<Overview> {
        let view = self.connection.view()?;
        let overview = (|| -> Result<_> {
            let counts = self.counts()?;
            let sql =
                "SELECT jobs.id, jobs.kind, jobs.run_id, runs.stage, jobs.started_at, runs.finished_at, jobs.redrives
                FROM jobs LEFT JOIN runs ON runs.id = jobs.run_id
                WHERE jobs.queue = ?1 AND jobs.state = 'running' ORDER BY jobs.id";
            let now = now();
            let running = self.list(sql, params![self.queue], |row| {
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
        })()?;
        view.commit()?;
        Ok(overview)
    }

    /// Jobs by state. No job is read for it.
    pub fn counts(&self) -> Result<BTreeMap<State, u64>> {
        let sql = "SELECT state, CAST(SUM(jobs) AS BIGINT) FROM tallies WHERE queue = ?1 GROUP BY state";
        Ok(self.list(sql, params![self.queue], |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect())
    }

    /// The commands of which kind a job runs.
    pub fn kind(&self, job: JobId) -> Result<String> {
        self.ask("SELECT kind FROM jobs WHERE id = ?1", params![job])
    }

    /// Where a job stands.
    pub fn state(&self, job: JobId) -> Result<State> {
        self.ask("SELECT state FROM jobs WHERE id = ?1", params![job])
    }

    /// Returns `true` if `job` is running, and `run` is its own run.
    pub fn is_own(&self, job: JobId, run: RunId) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1 AND state = 'running' AND run_id = ?2)";
        self.ask(sql, params![job, run])
    }

    /// What was done outside for this job already, by whichever run.
    pub fn acted(&self, job: JobId) -> Result<Option<Effect>> {
        let sql = "SELECT effect FROM ledger WHERE job_id = ?1 ORDER BY id LIMIT 1";
        self.connection.find(sql, params![job], |row| row.get(0))
    }

    /// Returns `true` if the process of this run's job exited with 0.
    pub fn process_succeeded(&self, run: RunId) -> Result<bool> {
        self.ask("SELECT exit_code IS NOT DISTINCT FROM 0 FROM runs WHERE id = ?1", params![run])
    }

    /// Jobs that have not ended.
    pub fn unfinished(&self) -> Result<u64> {
        self.ask("SELECT COUNT(*) FROM jobs WHERE queue = ?1 AND state IN ('queued', 'running')", params![self.queue])
    }

    /// Returns `true` if the reaper has noted anything about `job`, and no run of it but `own` is still going.
    pub fn ruled_on(&self, job: JobId, own: RunId) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM notes WHERE job_id = ?1 AND who = 'reaper')
            AND NOT EXISTS (SELECT 1 FROM runs WHERE job_id = ?1 AND id <> ?2 AND ended_at IS NULL)";
        self.ask(sql, params![job, own])
    }

    /// The timeline of this queue.
    pub fn notes(&self) -> Result<Vec<Note>> {
        let sql = "SELECT at, job_id, who, what FROM notes WHERE queue = ?1 ORDER BY id";
        self.list(sql, params![self.queue], |row| {
            Ok(Note { at: row.get(0)?, job: row.get(1)?, who: row.get(2)?, what: row.get(3)? })
        })
    }

    // Counts, for the closing table.

    /// Jobs in this state.
    pub fn count_jobs(&self, state: State) -> Result<u64> {
        self.ask("SELECT COUNT(*) FROM jobs WHERE queue = ?1 AND state = ?2", params![self.queue, state])
    }

    /// Runs of all jobs.
    pub fn count_runs(&self) -> Result<u64> {
        self.ask("SELECT COUNT(*) FROM runs JOIN jobs ON jobs.id = job_id WHERE queue = ?1", params![self.queue])
    }

    /// Runs that ended this way.
    pub fn count_outcomes(&self, outcome: Outcome) -> Result<u64> {
        self.ask(
            "SELECT COUNT(*) FROM runs JOIN jobs ON jobs.id = job_id WHERE queue = ?1 AND outcome = ?2",
            params![self.queue, outcome],
        )
    }

    /// Entries of the ledger.
    pub fn count_effects(&self, effect: Effect) -> Result<u64> {
        self.ask(
            "SELECT COUNT(*) FROM ledger JOIN jobs ON jobs.id = job_id WHERE queue = ?1 AND effect = ?2",
            params![self.queue, effect],
        )
    }

    /// Notes that say exactly this.
    pub fn count_notes(&self, what: &str) -> Result<u64> {
        self.ask("SELECT COUNT(*) FROM notes WHERE queue = ?1 AND what = ?2", params![self.queue, what])
    }

    /// Jobs whose ledger says something else than their row.
    pub fn count_diverged(&self) -> Result<u64> {
        let sql = "SELECT COUNT(*) FROM jobs WHERE queue = ?1
            AND ((SELECT COUNT(*) FROM ledger WHERE job_id = jobs.id)
                    <> CASE WHEN state IN ('merged', 'rolled back') THEN 1 ELSE 0 END
                OR EXISTS (SELECT 1 FROM ledger WHERE job_id = jobs.id AND effect
                    <> CASE state WHEN 'merged' THEN 'merge' WHEN 'rolled back' THEN 'rollback' ELSE '' END))";
        self.ask(sql, params![self.queue])
    }

    /// Rounds of the race for `job` that had exactly this many holders.
    pub fn count_rounds(&self, job: JobId, holders: u64) -> Result<u64> {
        self.ask(
            "SELECT COUNT(*) FROM (SELECT 1 FROM claims WHERE job_id = ?1 GROUP BY round HAVING COUNT(*) = ?2) AS rounds",
            params![job, holders],
        )
    }

    /// How many rounds of the race for `job` each holder won.
    pub fn rounds_won(&self, job: JobId) -> Result<Vec<(String, u64)>> {
        let sql = "SELECT holder, COUNT(*) FROM claims WHERE job_id = ?1 GROUP BY holder";
        self.list(sql, params![job], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Does several things in one transaction, which one failure undoes.
    fn together<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        // Not by `&mut self`, which the closure could not share. A transaction within another is an error, not a
        // merger.
        let transaction = self.connection.transaction()?;
        let done = work()?;
        transaction.commit()?;
        Ok(done)
    }

    /// Gives a queued job a run and sets it running, within a transaction that is undone if another was faster.
    fn started(&self, job: JobId) -> Result<Option<RunId>> {
        let now = now();
        let run = self.insert("INSERT INTO runs (job_id, started_at) VALUES (?1, ?2)", params![job, now])?;
        let sql = "UPDATE jobs SET state = 'running', run_id = ?2, started_at = ?3 WHERE id = ?1 AND state = 'queued'";
        Ok(self.changes_one(sql, params![job, run, now])?.then_some(run))
    }

    /// Inserts a row. Returns its number.
    fn insert(&self, sql: &str, values: &[&dyn ToSql]) -> Result<u64> {
        self.ask(&format!("{sql} RETURNING id"), values)
    }

    fn write(&self, sql: &str, values: &[&dyn ToSql]) -> Result<()> {
        self.connection.execute(sql, values).map(drop)
    }

    fn changes_one(&self, sql: &str, values: &[&dyn ToSql]) -> Result<bool> {
        Ok(self.connection.execute(sql, values)? == 1)
    }

    fn list<T>(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        self.connection.list(sql, values, read)
    }

    /// Reads the one number or text that there is.
    fn ask<T: FromSql>(&self, sql: &str, values: &[&dyn ToSql]) -> Result<T> {
        let answer = self.connection.find(sql, values, |row| row.get(0))?;
        Ok(answer.ok_or(rusqlite::Error::QueryReturnedNoRows)?)
    }
}

/// By how much the clock of the store is ahead of this process's, in milliseconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Milliseconds since the epoch: the clock of the store, as rows outlive the process, and are other processes' as well. For a
/// file it is this process's own, and for a server that server's.
pub fn now() -> u64 {
    // Relaxed (no edge): a number by itself.
    own_clock().saturating_add_signed(AHEAD.load(Ordering::Relaxed))
}

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
