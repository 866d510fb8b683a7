//! The job store of the soak: what a job system's database is to it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::books::Books;

const SHARDS: usize = 16;

/// The jobs that are not final. A final job is forgotten, so that the store is as large as the load.
#[derive(Debug, Default)]
pub(crate) struct Store {
    shards: [Mutex<HashMap<u64, Row>>; SHARDS],
}

/// What the store knows of a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) started: Instant,
    pub(crate) finished: Option<Instant>,
    pub(crate) lost: Option<Instant>,
    /// The greatest generation that finalized it: a lesser one is refused.
    fence: u64,
    /// The generation of a live finalizer that is at work on it.
    inside: Option<u64>,
}

/// How a job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Committed,
    Redriven,
    ReapedLost,
    ReapedBackstop,
}

impl Store {
    fn shard(&self, job: u64) -> MutexGuard<'_, HashMap<u64, Row>> {
        let place = usize::try_from(job % SHARDS as u64).unwrap_or(0);
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn create(&self, job: u64) {
        let row = Row { started: Instant::now(), finished: None, lost: None, fence: 0, inside: None };
        self.shard(job).insert(job, row);
    }

    pub(crate) fn finish(&self, job: u64) {
        if let Some(row) = self.shard(job).get_mut(&job) {
            row.finished = Some(Instant::now());
        }
    }

    pub(crate) fn lose(&self, job: u64) {
        if let Some(row) = self.shard(job).get_mut(&job) {
            row.lost = Some(Instant::now());
        }
    }

    /// A finalizer with a mark of this generation begins, unless the job is final. That another one is at work is the
    /// incident.
    pub(crate) fn enter(&self, job: u64, generation: u64, books: &Books) -> bool {
        let mut shard = self.shard(job);
        let Some(row) = shard.get_mut(&job) else { return false };
        if let Some(other) = row.inside {
            books.violated(format!("job {job}: finalized by {generation} while {other} is at work"));
        }
        if generation <= row.fence {
            books.violated(format!("job {job}: generation {generation} after {}", row.fence));
        }
        row.fence = row.fence.max(generation);
        row.inside = Some(generation);
        true
    }

    /// It is done, dead, or displaced by the backstop.
    pub(crate) fn leave(&self, job: u64, generation: u64) {
        if let Some(row) = self.shard(job).get_mut(&job) {
            if row.inside == Some(generation) {
                row.inside = None;
            }
        }
    }

    /// Compare-and-set of the final state, by an owner of this generation. Says whether the job was not final and the
    /// generation not outdated.
    pub(crate) fn end(&self, job: u64, generation: u64, end: End, books: &Books) -> bool {
        let mut shard = self.shard(job);
        let Some(row) = shard.get(&job) else { return false };
        if generation < row.fence {
            return false;
        }
        // The backstop ends a stuck finalizer; all others must have left.
        let other = row.inside.filter(|inside| *inside != generation && end != End::ReapedBackstop);
        if let Some(other) = other {
            books.violated(format!("job {job}: {end:?} by {generation} while {other} is at work"));
        }
        shard.remove(&job);
        drop(shard);
        let counts = &books.counts;
        match end {
            End::Committed => counts.committed.one(),
            End::Redriven => counts.redriven.one(),
            End::ReapedLost => counts.reaped_lost.one(),
            End::ReapedBackstop => counts.reaped_backstop.one(),
        }
        true
    }

    /// What a reaper lists.
    pub(crate) fn list(&self, rows: &mut Vec<(u64, Row)>) {
        rows.clear();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            rows.extend(shard.iter().map(|(job, row)| (*job, *row)));
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len() as u64).sum()
    }
}
