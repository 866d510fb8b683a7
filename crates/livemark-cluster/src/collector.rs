//! How a session removes what it does not want in the engine: marks of guards that were dropped, and ghosts, which are writes
//! that came after they were given up.

use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::any_engine::timed;
use crate::codec::{Context, JobKey, MarkValue};
use crate::engine::{EngineError, If, Revision, Written};
use crate::held::{Held, Unwanted};
use crate::inner::Inner;
use crate::telemetry;

/// How many keys are removed at a time: a thousand guards that are dropped at once are no thousand calls at once.
const AT_ONCE: usize = 64;

impl<K: JobKey, C: Context> Inner<K, C> {
    /// Removes what is not wanted, until the session is over: all of it goes with the lease.
    ///
    /// It looks at a key whenever a mark of ours was heard of there, an attempt ended or a guard ended. What was heard of
    /// is not enough: it may have been while the attempt was under way.
    pub(crate) async fn collect(self: Arc<Self>) {
        let mut removals = JoinSet::new();
        let ended = self.ended();
        tokio::pin!(ended);
        loop {
            while removals.len() < AT_ONCE {
                let Some(unwanted) = self.next_unwanted() else { break };
                removals.spawn(Arc::clone(&self).remove_for_good(unwanted));
            }
            tokio::select! {
                _ = &mut ended => return,
                () = self.collect.notified() => {}
                Some(removed) = removals.join_next() => {
                    // It panics in the code of a job id or a context, and the session is lost then.
                    if let Some(panic) = removed.err().and_then(|error| error.try_into_panic().ok()) {
                        resume_unwind(panic);
                    }
                }
            }
        }
    }

    fn next_unwanted(&self) -> Option<Unwanted> {
        loop {
            let next = self.live().unwanted.pop_front()?;
            // Most keys are looked at in vain: a mark was made, and a guard holds it.
            if !matches!(&next, Unwanted::Ghost(key) if self.ghost_at(key).is_none()) {
                return Some(next);
            }
        }
    }

    async fn remove_for_good(self: Arc<Self>, unwanted: Unwanted) {
        let mut backoff = self.backoff();
        loop {
            let removed = match &unwanted {
                Unwanted::Mark(held) => self.remove(held).await.map(drop),
                Unwanted::Ghost(key) => self.remove_ghost(key).await,
            };
            let Err(error) = removed else { break };
            sleep(backoff.failed("removal", &error)).await;
        }
        if let Unwanted::Mark(held) = &unwanted {
            self.release(held.seq);
        }
    }

    /// Removes a mark's key, if it is still this mark's.
    pub(crate) async fn remove(&self, held: &Held) -> Result<bool, EngineError> {
        held.let_go();
        loop {
            let delete = self.engine.delete(&held.key, If::At(held.modified()));
            match timed(self.config.call_timeout, delete).await? {
                Written::Done(revision) => {
                    self.take_out(&held.key, revision);
                    return Ok(true);
                }
                // It was written since it was last read, by a replacement whose answer was lost.
                Written::Refused(Some(row))
                    if MarkValue::decode(&row.value).is_some_and(|value| held.is(&value, self.lease, row.revision)) =>
                {
                    held.written(row.revision);
                }
                Written::Refused(_) => return Ok(false),
            }
        }
    }

    async fn remove_ghost(&self, key: &str) -> Result<(), EngineError> {
        let mut looked_at = None;
        loop {
            let Some(revision) = self.ghost_at(key).filter(|revision| Some(*revision) != looked_at) else {
                return Ok(());
            };
            looked_at = Some(revision);
            let delete = self.engine.delete(key, If::At(revision));
            match timed(self.config.call_timeout, delete).await? {
                Written::Done(gone) => {
                    self.counts.ghosts.add(1);
                    telemetry::ghost(key);
                    self.take_out(key, gone);
                    return Ok(());
                }
                // It is something else by now, perhaps another ghost.
                Written::Refused(Some(row)) => self.take_up(key, &row),
                Written::Refused(None) => return Ok(()),
            }
        }
    }

    /// When a mark of ours was written here that nobody holds and nobody is making, if there is one.
    fn ghost_at(&self, key: &str) -> Option<Revision> {
        let (seq, token, revision) = self.mirror.ours(key, self.lease)?;
        // After the row: a mark that is made in between is not in that row.
        (!self.live().knows(seq, token)).then_some(revision)
    }
}
