//! Questions on the past: what happened, to which job, and what became of it.

use serde::Serialize;

use crate::error::Result;
use crate::store::connection::{BadColumn, Row, ToValue, Value, values};
use crate::store::{Effect, JobId, NoteKind, Outcome, RunId, State, Store};

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Happened {
    /// Grows with each.
    pub id: u64,
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// The job it is about, if it is about one.
    pub job: Option<JobId>,
    /// Who acted.
    pub who: String,
    /// What it tells of.
    pub kind: NoteKind,
    /// What was done.
    pub what: String,
}

/// Which of all that happened.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// To this job.
    pub job: Option<JobId>,
    /// Of one of these kinds, or of any if there are none.
    pub kinds: Vec<NoteKind>,
    /// Before this one.
    pub before: Option<u64>,
    /// After this one.
    pub after: Option<u64>,
}

/// A job that may have ended, as its row has it.
#[derive(Clone, Debug, Serialize)]
pub struct JobRow {
    /// The job.
    pub job: JobId,
    /// Its kind.
    pub kind: String,
    /// Where it stands.
    pub state: State,
    /// The run that may end it, or did.
    pub run: Option<RunId>,
    /// How often it was redriven.
    pub redrives: u32,
    /// When it was submitted, all of these in milliseconds since the epoch.
    pub submitted_at_ms: Option<u64>,
    /// When it was first started since the service was.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
}

/// A run, with its gates.
#[derive(Clone, Debug, Serialize)]
pub struct RunRow {
    /// The run.
    pub run: RunId,
    /// When its process was started. A redrive has none of its own.
    pub started_at_ms: Option<u64>,
    /// When it was marked.
    pub marked_at_ms: Option<u64>,
    /// When its process was stamped finished.
    pub stamped_at_ms: Option<u64>,
    /// What its process exited with.
    pub exit_code: Option<i32>,
    /// When its monitor ended.
    pub ended_at_ms: Option<u64>,
    /// How.
    pub outcome: Option<Outcome>,
    /// The stage that was written down last.
    pub stage: String,
    /// Its gates, in order.
    pub tasks: Vec<TaskRow>,
}

/// One gate of a run.
#[derive(Clone, Debug, Serialize)]
pub struct TaskRow {
    /// Its number, by which its output is found.
    pub task: u64,
    /// The gate.
    pub gate: String,
    /// When it was started.
    pub started_at_ms: u64,
    /// When it ended.
    pub ended_at_ms: Option<u64>,
    /// How.
    pub result: Option<String>,
}

/// What was done to the world outside.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EffectRow {
    /// By this run.
    pub run: RunId,
    /// What.
    pub effect: Effect,
    /// When.
    pub at_ms: u64,
}

/// Which jobs are listed.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// In one of these states.
    pub states: Vec<State>,
    /// Of one of these kinds, or of any.
    pub kinds: Option<Vec<String>>,
    /// Only this one.
    pub job: Option<JobId>,
    /// Submitted before this one.
    pub before: Option<JobId>,
    /// So many at most.
    pub limit: usize,
}

impl Store {
    /// Tells what happened, the newest first.
    pub fn history(&self, which: &Which, limit: usize) -> Result<Vec<Happened>> {
        let mut sql = "SELECT id, at, job_id, who, kind, what FROM notes WHERE queue = ?1".to_owned();
        let mut values = vec![self.queue.to_value()];
        if !which.kinds.is_empty() {
            let numbers: Vec<_> = (2..).take(which.kinds.len()).map(|number| format!("?{number}")).collect();
            sql.push_str(&format!(" AND kind IN ({})", numbers.join(", ")));
            values.extend(which.kinds.iter().map(ToValue::to_value));
        }
        let mut narrow = |condition: &str, value: Value<'static>| {
            values.push(value);
            sql.push_str(&format!("{condition} ?{}", values.len()));
        };
        if let Some(job) = which.job {
            narrow(" AND job_id =", id(job));
        }
        if let Some(before) = which.before {
            narrow(" AND id <", id(before));
        }
        if let Some(after) = which.after {
            narrow(" AND id >", id(after));
        }
        if which.after.is_some() && self.connection.is_shared() {
            // Notes get their numbers in another order than they are committed in. Who reads on from the last one is
            // told of none before all that come before it are there: see the schema. It is asked before the notes are
            // read, so that these have all that it speaks of.
            narrow(" AND id <=", id(self.ask("SELECT notes_settled()", &[])?));
        }
        values.push(id(limit as u64));
        sql.push_str(&format!(" ORDER BY id DESC LIMIT ?{}", values.len()));
        self.list(&sql, &values, |row| {
            Ok(Happened {
                id: row.get(0)?,
                at_ms: row.get(1)?,
                job: row.get(2)?,
                who: row.get(3)?,
                kind: row.get(4)?,
                what: row.get(5)?,
            })
        })
    }

    /// Returns a job's row, if this queue has it.
    pub fn job(&self, job: JobId) -> Result<Option<JobRow>> {
        let sql = format!("SELECT {JOB} FROM jobs WHERE queue = ?1 AND id = ?2");
        self.find(&sql, values![self.queue, job], job_row)
    }

    /// Lists jobs, the newest first. Each state is read by itself, and no further than the list is long.
    pub fn jobs(&self, wanted: &Wanted) -> Result<Vec<JobRow>> {
        let mut found = Vec::new();
        for state in &wanted.states {
            for kind in kinds(wanted) {
                let sql = format!(
                    "SELECT {JOB} FROM jobs WHERE queue = ?1 AND state = ?2 AND id < ?3 AND (CAST(?4 AS BIGINT) IS NULL OR id = ?4){}
                     ORDER BY id DESC LIMIT ?6",
                    if kind.is_some() { " AND kind = ?5" } else { " AND CAST(?5 AS TEXT) IS NULL" }
                );
                let before = wanted.before.unwrap_or(i64::MAX.unsigned_abs());
                let limit = wanted.limit as u64;
                let values = values![self.queue, state, before, wanted.job, kind, limit];
                found.extend(self.list(&sql, values, job_row)?);
            }
        }
        found.sort_unstable_by_key(|row| std::cmp::Reverse(row.job));
        found.truncate(wanted.limit);
        Ok(found)
    }

    /// Counts the jobs that [`jobs`](Self::jobs) would list without a limit.
    pub fn count_wanted(&self, wanted: &Wanted) -> Result<u64> {
        let mut total = 0;
        for state in &wanted.states {
            for kind in kinds(wanted) {
                total += match (wanted.job, kind) {
                    (None, None) => self.tally(*state)?,
                    (job, kind) => {
                        let sql = "SELECT COUNT(*) FROM jobs WHERE queue = ?1 AND state = ?2
                            AND (CAST(?3 AS BIGINT) IS NULL OR id = ?3)
                            AND (CAST(?4 AS TEXT) IS NULL OR kind = ?4)";
                        self.ask::<u64>(sql, values![self.queue, state, job, kind])?
                    }
                };
            }
        }
        Ok(total)
    }

    /// Returns the runs of a job, in order.
    pub fn runs(&self, job: JobId) -> Result<Vec<RunRow>> {
        let sql = "SELECT id, started_at, marked_at, finished_at, exit_code, ended_at, outcome, stage
            FROM runs WHERE job_id = ?1 ORDER BY id";
        let mut runs = self.list(sql, values![job], |row| {
            Ok(RunRow {
                run: row.get(0)?,
                started_at_ms: row.get(1)?,
                marked_at_ms: row.get(2)?,
                stamped_at_ms: row.get(3)?,
                exit_code: row.get(4)?,
                ended_at_ms: row.get(5)?,
                outcome: row.get(6)?,
                stage: row.get(7)?,
                tasks: Vec::new(),
            })
        })?;
        let sql = "SELECT id, gate, started_at, ended_at, result FROM tasks WHERE run_id = ?1 ORDER BY id";
        for run in &mut runs {
            run.tasks = self.list(sql, values![run.run], |row| {
                Ok(TaskRow {
                    task: row.get(0)?,
                    gate: row.get(1)?,
                    started_at_ms: row.get(2)?,
                    ended_at_ms: row.get(3)?,
                    result: row.get(4)?,
                })
            })?;
        }
        Ok(runs)
    }

    /// Returns what was done outside for a job.
    pub fn effects(&self, job: JobId) -> Result<Vec<EffectRow>> {
        let sql = "SELECT run_id, effect, at FROM ledger WHERE job_id = ?1 ORDER BY id";
        self.list(sql, values![job], |row| Ok(EffectRow { run: row.get(0)?, effect: row.get(1)?, at_ms: row.get(2)? }))
    }
}

/// The columns of a [`JobRow`].
const JOB: &str = "id, kind, state, run_id, redrives, submitted_at, started_at, ended_at";

fn job_row(row: &Row<'_>) -> Result<JobRow, BadColumn> {
    Ok(JobRow {
        job: row.get(0)?,
        kind: row.get(1)?,
        state: row.get(2)?,
        run: row.get(3)?,
        redrives: row.get(4)?,
        submitted_at_ms: row.get(5)?,
        started_at_ms: row.get(6)?,
        ended_at_ms: row.get(7)?,
    })
}

/// Each kind that is wanted, or none for all of them.
fn kinds(wanted: &Wanted) -> Vec<Option<&str>> {
    match &wanted.kinds {
        None => vec![None],
        Some(kinds) => kinds.iter().map(|kind| Some(kind.as_str())).collect(),
    }
}

/// Ids beyond what a store can count are of nothing.
fn id(id: u64) -> Value<'static> {
    Value::Integer(i64::try_from(id).unwrap_or(i64::MAX))
}
