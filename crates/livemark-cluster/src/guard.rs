//! A mark that this process holds: [`ClusterGuard`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use livemark::{Finalizer, Mark};
use tokio::time::sleep;

use crate::any_engine::timed;
use crate::codec::{Context, JobKey, MarkValue};
use crate::engine::{EngineError, If, Revision, Row, Written};
use crate::error::{Loss, MarkError, Unavailable};
use crate::held::Held;
use crate::inner::Inner;
use crate::prepared::readable;
use crate::session::{Running, Standing};

/// Bits of a token that are the engine's revision. Those above are its epoch.
const REVISION_BITS: u32 = 48;

/// A fencing token: of two marks of one job, the later one has the greater token.
///
/// Two jobs may have marks with the same token. A token fences once it is in the job's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u64);

impl Token {
    pub(crate) fn new(epoch: u64, revision: Revision) -> Self {
        Self(epoch << REVISION_BITS | revision & ((1 << REVISION_BITS) - 1))
    }

    /// The engine's revision that the token is of.
    pub(crate) fn revision(self) -> Revision {
        self.0 & ((1 << REVISION_BITS) - 1)
    }

    /// Returns the token that a job store has as this number.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Returns the token as a job store has it.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A held mark, which every process sees. Dropping the guard clears the mark in the background.
#[must_use = "dropping the guard clears the mark: bind it to a name, not to `_`"]
pub struct ClusterGuard<K: JobKey = u64, C: Context = Finalizer> {
    session: Arc<Running<K, C>>,
    job: K,
    context: Mutex<C>,
    held: Arc<Held>,
    released: bool,
}

impl<K: JobKey, C: Context> ClusterGuard<K, C> {
    pub(crate) fn new(session: Arc<Running<K, C>>, job: K, context: C, held: Arc<Held>) -> Self {
        Self { session, job, context: Mutex::new(context), held, released: false }
    }

    fn inner(&self) -> &Inner<K, C> {
        &self.session.inner
    }

    /// Returns the job that is marked.
    pub fn job(&self) -> &K {
        &self.job
    }

    /// Returns the mark's fencing token, which stays when the context is replaced.
    pub fn token(&self) -> Token {
        self.held.token
    }

    /// Returns the mark's context, as this process gave it.
    #[must_use]
    pub fn context(&self) -> C {
        self.context.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns `true` while the mark is certainly this process's: not displaced, the lease renewed in time, and the engine
    /// heard. Asks nobody: a clock and some loads.
    ///
    /// It becomes `false` before the engine gives the mark to somebody else by expiry, while clocks run at rates within
    /// the margin. Ask before committing, and let the job store compare the token all the same.
    #[must_use]
    pub fn is_current(&self) -> bool {
        !self.held.is_displaced() && self.inner().is_held()
    }

    /// Returns how the session of the mark stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.inner().standing()
    }

    /// Asks the engine whether the mark is there.
    ///
    /// # Errors
    ///
    /// Returns an error if it does not answer in time.
    pub async fn check(&self) -> Result<bool, Unavailable> {
        let inner = self.inner();
        let row = timed(inner.config.call_timeout, inner.engine.get(&self.held.key)).await.map_err(Unavailable)?;
        Ok(row.is_some_and(|row| self.is_row(&row)))
    }

    /// Returns `true` if a row of the job's key is this mark.
    ///
    /// **Unstable**, as [`Engine`](crate::Engine) is.
    #[must_use]
    pub fn is_row(&self, row: &Row) -> bool {
        MarkValue::decode(&row.value).is_some_and(|value| self.held.is(&value, self.inner().lease, row.revision))
    }

    /// Returns the key that the mark lies at.
    ///
    /// **Unstable**, as [`Engine`](crate::Engine) is.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.held.key
    }

    /// Replaces the context of the mark. Returns `false` if the mark is gone. The token stays.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine did not do it.
    pub async fn replace(&self, context: &C) -> Result<bool, MarkError> {
        let inner = self.inner();
        let value = MarkValue {
            epoch: inner.epoch,
            lease: inner.lease.0,
            seq: self.held.seq,
            taken_at: Some(self.held.token.revision()),
            process: inner.config.process.clone(),
            context: readable(&self.job, context)?,
            pulse: self.held.replace_pulse(context, inner.opened),
        };
        let bytes = value.encode();
        let mut backoff = inner.backoff();
        let give_up_at = inner.clock.now().saturating_add(inner.config.ttl);
        loop {
            if let Some(loss) = inner.is_over() {
                return Err(MarkError::SessionLost(loss));
            }
            let put = inner.engine.put(&self.held.key, bytes.clone(), Some(inner.lease), If::At(self.held.modified()));
            let row = match timed(inner.config.call_timeout, put).await {
                Ok(Written::Done(revision)) => Row { revision, value: bytes, lease: Some(inner.lease) },
                Ok(Written::Refused(Some(row))) if self.is_row(&row) => {
                    // It went through the time before. Or it did not, and the key was written since it was last read.
                    self.held.written(row.revision);
                    if row.value != bytes {
                        continue;
                    }
                    row
                }
                Ok(Written::Refused(row)) => {
                    // It may have gone with the session.
                    if row.is_none() && inner.check_session().await.is_ok() && inner.is_over().is_some() {
                        continue;
                    }
                    inner.displace(&self.held);
                    return Ok(false);
                }
                Err(EngineError::LeaseGone) => {
                    inner.end(Loss::Expired);
                    continue;
                }
                Err(EngineError::NoSpace) => return Err(MarkError::NoSpace),
                Err(EngineError::Denied(why)) => return Err(MarkError::Denied(why)),
                Err(error) => {
                    if !inner.has_lease() || inner.clock.now() >= give_up_at {
                        return Err(MarkError::Unavailable(error));
                    }
                    sleep(backoff.pause()).await;
                    continue;
                }
            };
            self.held.written(row.revision);
            inner.take_up(&self.held.key, &row);
            context.clone_into(&mut self.context.lock().unwrap_or_else(PoisonError::into_inner));
            return Ok(true);
        }
    }

    /// Clears the mark, and waits for the engine's answer. Returns `true` if it still stood.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine did not answer. The mark then goes in the background, or with its lease.
    pub async fn clear(mut self) -> Result<bool, Unavailable> {
        let cleared = self.inner().remove(&self.held).await.map_err(Unavailable);
        if cleared.is_ok() {
            self.released = true;
            self.inner().release(self.held.seq);
        }
        cleared
    }

    /// Waits until the mark is not certainly this process's any more, and tells how that came: until
    /// [`is_current`](Self::is_current) is `false`.
    ///
    /// Only [`Loss::Suspect`] may pass: the mark may be there, and be certain again.
    pub async fn lost(&self) -> Loss {
        let displaced = async {
            loop {
                let told = self.held.displaced.notified();
                tokio::pin!(told);
                told.as_mut().enable();
                if self.held.is_displaced() {
                    return;
                }
                told.await;
            }
        };
        tokio::select! {
            // A mark that went with its session was not displaced by anybody.
            biased;
            loss = self.inner().ended() => loss,
            () = displaced => Loss::Displaced,
            () = self.inner().is_doubted() => Loss::Suspect,
        }
    }

    /// Does some work while the mark is certainly this process's, and drops it as soon as it is not, as [`lost`](Self::lost)
    /// tells.
    ///
    /// # Errors
    ///
    /// Returns how the mark was lost. After [`Loss::Suspect`] it may be certain again, and another [`hold`](Self::hold) may
    /// go on.
    pub async fn hold<F: Future>(&self, work: F) -> Result<F::Output, Loss> {
        tokio::select! {
            biased;
            loss = self.lost() => Err(loss),
            done = work => Ok(done),
        }
    }
}

impl<K: JobKey, C: Context> Drop for ClusterGuard<K, C> {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        self.inner().drop_mark(&self.held);
    }
}

impl<K: JobKey, C: Context> Mark for ClusterGuard<K, C> {
    const NUMBER: &'static str = "token";

    fn number(&self) -> u64 {
        self.token().get()
    }
}

impl<K: JobKey + fmt::Debug, C: Context> fmt::Debug for ClusterGuard<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterGuard").field("job", &self.job).field("token", &self.token()).finish_non_exhaustive()
    }
}
