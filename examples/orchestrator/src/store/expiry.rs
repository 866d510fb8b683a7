//! What has ended expires: jobs with all that is known of them, and notes on no job.

use crate::error::Result;
use crate::store::connection::values;
use crate::store::{JobId, Store};

impl Store {
    /// Forgets jobs that ended before `before`, some at a time, and says which. Their workspaces are the caller's to
    /// remove.
    ///
    /// The ledger keeps what was done outside. A number that it has must not become another job's, so the newest job
    /// stays, whenever it ended: SQLite gives the number after the largest. The newest run stays likewise. A job stays
    /// whose monitor is still at work, displaced though it is.
    pub fn expire(&mut self, before: u64, most: usize) -> Result<Vec<JobId>> {
        self.together(|| {
            // Whom another process forgets at the same time is its own to tell.
            let sql = "SELECT id FROM jobs WHERE queue = ?1 AND ended_at < ?2 AND id < (SELECT MAX(id) FROM jobs)
                    AND state NOT IN ('queued', 'running')
                    AND NOT EXISTS (SELECT 1 FROM runs WHERE job_id = jobs.id
                        AND (ended_at IS NULL OR runs.id = (SELECT MAX(id) FROM runs)))
                 ORDER BY ended_at LIMIT ?3 :skip";
            let jobs: Vec<JobId> = self.list(sql, values![self.queue, before, most as u64], |row| row.get(0))?;
            for job in &jobs {
                for sql in [
                    "UPDATE jobs SET run_id = NULL WHERE id = ?1",
                    "DELETE FROM tasks WHERE run_id IN (SELECT id FROM runs WHERE job_id = ?1)",
                    "DELETE FROM runs WHERE job_id = ?1",
                    "DELETE FROM notes WHERE job_id = ?1",
                    "DELETE FROM claims WHERE job_id = ?1",
                    "DELETE FROM jobs WHERE id = ?1",
                ] {
                    self.write(sql, values![job])?;
                }
            }
            Ok(jobs)
        })
    }

    /// Forgets notes on no job from before `before`, some at a time. Says how many.
    pub fn expire_notes(&self, before: u64, most: usize) -> Result<usize> {
        let sql = "DELETE FROM notes WHERE id IN
            (SELECT id FROM notes WHERE job_id IS NULL AND queue = ?1 AND at < ?2 LIMIT ?3)";
        Ok(self.connection.execute(sql, values![self.queue, before, most as u64])? as usize)
    }
}
