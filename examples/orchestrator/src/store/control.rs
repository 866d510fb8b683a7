//! What an operator does: the mode and the pause, which outlive the service, and single jobs.

use crate::error::Result;
use crate::store::connection::values;
use crate::store::{JobId, NoteKind, State, Store};

/// A mode that somebody has put in force. Modes are by the names that requests use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMode {
    /// In force.
    pub mode: String,
    /// Who has set it.
    pub by: String,
    /// When, in milliseconds since the epoch.
    pub since_ms: u64,
    /// When it expires, if it does.
    pub until_ms: Option<u64>,
    /// What is in force then.
    pub then: String,
}

/// That no job is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Who says so.
    pub by: String,
    /// Since when, in milliseconds since the epoch.
    pub since_ms: u64,
}

/// What came of an operator's wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish<T> {
    /// It is done.
    Done(T),
    /// There is no such job.
    NoJob,
    /// The job is in a state that does not allow it.
    Not(State),
}

impl Store {
    /// Keeps a mode over a restart, and notes it.
    pub fn keep_mode(&self, kept: &KeptMode, what: &str) -> Result<()> {
        let KeptMode { mode, by, since_ms, until_ms, then } = kept;
        self.together(|| {
            self.write(
                "INSERT INTO control (queue, mode, mode_by, mode_since, mode_until, mode_then)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (queue) DO UPDATE SET mode = excluded.mode, mode_by = excluded.mode_by,
                    mode_since = excluded.mode_since, mode_until = excluded.mode_until, mode_then = excluded.mode_then",
                values![self.queue, mode, by, since_ms, until_ms, then],
            )?;
            self.note_as(NoteKind::Mode, None, by, what)
        })
    }

    /// Returns the mode that was kept.
    pub fn kept_mode(&self) -> Result<Option<KeptMode>> {
        let sql = "SELECT mode, mode_by, mode_since, mode_until, mode_then FROM control WHERE queue = ?1";
        self.find(sql, values![self.queue], |row| {
            Ok(KeptMode {
                mode: row.get(0)?,
                by: row.get(1)?,
                since_ms: row.get(2)?,
                until_ms: row.get(3)?,
                then: row.get(4)?,
            })
        })
    }

    /// Pauses the queue, or ends its pause, and notes it. A start that another process is at in this instant may still
    /// come.
    pub fn pause(&self, paused: bool, by: &str) -> Result<()> {
        self.together(|| {
            if paused {
                let sql = "INSERT INTO pauses (queue, by, since) VALUES (?1, ?2, :now) ON CONFLICT DO NOTHING";
                self.write(sql, values![self.queue, by])?;
            } else {
                self.write("DELETE FROM pauses WHERE queue = ?1", values![self.queue])?;
            }
            let what = if paused { "pauses the queue: no job is started" } else { "lets jobs be started again" };
            self.note_as(NoteKind::Action, None, by, what)
        })
    }

    /// Returns the pause of the queue, if there is one.
    pub fn paused(&self) -> Result<Option<Pause>> {
        let sql = "SELECT by, since FROM pauses WHERE queue = ?1";
        self.find(sql, values![self.queue], |row| Ok(Pause { by: row.get(0)?, since_ms: row.get(1)? }))
    }

    /// Submits a job again that was reaped or rolled back, as a new one of its kind.
    pub fn resubmit(&mut self, job: JobId, by: &str) -> Result<Wish<JobId>> {
        // A row that is read may change before it is used: one transaction, which writes from its beginning.
        self.together(|| {
            let Some(row) = self.job(job)? else { return Ok(Wish::NoJob) };
            if !matches!(row.state, State::RolledBack | State::Reaped) {
                return Ok(Wish::Not(row.state));
            }
            let new = self.new_job(&row.kind)?;
            self.note_as(NoteKind::Action, Some(job), by, &format!("submits it again as job {new}"))?;
            self.note_as(NoteKind::Action, Some(new), by, &format!("submits job {job} again"))?;
            Ok(Wish::Done(new))
        })
    }

    /// Ends a job that no monitor has taken yet. Returns `true` if it was so.
    pub fn withdraw(&self, job: JobId) -> Result<bool> {
        let sql = "UPDATE jobs SET state = 'reaped' WHERE queue = ?1 AND id = ?2 AND state = 'queued'";
        Ok(self.connection.execute(sql, values![self.queue, job])? == 1)
    }
}
