//! How a session keeps its lease, shows that it is alive, and finds out that it is not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use crate::any_engine::{Backoff, timed};
use crate::codec::{Context, JobKey, SessionValue, nanoseconds};
use crate::engine::{EngineError, If, Written};
use crate::error::Loss;
use crate::inner::Inner;
use crate::keys::session_key;
use crate::session::Standing;
use crate::telemetry;

impl<K: JobKey, C: Context> Inner<K, C> {
    /// Renews the lease, one request at a time.
    pub(crate) async fn renew(self: Arc<Self>) {
        let mut backoff = Backoff::up_to(self.config.renew_every / 2);
        let mut wait = self.config.renew_every;
        loop {
            sleep(wait).await;
            if self.is_over().is_some() {
                return;
            }
            let sent = self.clock.now();
            match timed(self.config.call_timeout, self.engine.renew(self.lease)).await {
                Ok(ttl) if !ttl.is_zero() => {
                    self.belief.renewed(sent, ttl);
                    self.counts.renewals.add(1);
                    backoff.reset();
                    wait = self.config.renew_every;
                }
                Ok(_) | Err(EngineError::LeaseGone) => return self.end(Loss::Expired),
                // Past the deadline as well: the keys may be there, and then the session is held again.
                Err(error) => {
                    self.counts.failed_renewals.add(1);
                    wait = backoff.failed("renewal", &error);
                }
            }
        }
    }

    /// Writes the session's key now and then: how fresh the mirror is shows when it comes back, and others hear of the
    /// pulses.
    pub(crate) async fn tick(self: Arc<Self>) {
        let mut backoff = self.backoff();
        while self.is_over().is_none() {
            // One answer that is lost must not make the session suspect: there is time for another try.
            let wait = match self.write_session().await {
                Ok(()) => {
                    backoff.reset();
                    self.config.max_view_age / 3
                }
                Err(error) => backoff.failed("tick", &error),
            };
            sleep(wait).await;
        }
    }

    /// Writes the session's key, if it is as it was: one that is gone must not come again.
    async fn write_session(&self) -> Result<(), EngineError> {
        let key = session_key(self.lease);
        let limit = self.config.call_timeout.min(self.config.max_view_age / 4);
        while self.is_over().is_none() {
            let value = self.session_value().encode();
            // Relaxed (no edge): this task alone writes it.
            let at = self.session_at.load(Ordering::Relaxed);
            let next = self.latest().saturating_add(1);
            let put = self.engine.put(&key, value, Some(self.lease), If::At(at));
            let (written_at, is_done) = match timed(limit, put).await {
                Ok(Written::Done(revision)) => (revision, self.goes_on(revision, next)),
                // The time before it was written, and the answer lost. What was told then is old.
                Ok(Written::Refused(Some(row))) => (row.revision, false),
                Ok(Written::Refused(None)) | Err(EngineError::LeaseGone) => {
                    self.end(Loss::Expired);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            // Relaxed (no edge): as above.
            self.session_at.store(written_at, Ordering::Relaxed);
            if is_done {
                break;
            }
        }
        Ok(())
    }

    /// What the session's key says.
    fn session_value(&self) -> SessionValue {
        let held: Vec<_> = self.live().held().filter(|held| !held.is_displaced()).cloned().collect();
        let pulses = held.iter().filter_map(|held| Some((held.seq, held.beat(self.opened)?))).collect();
        SessionValue { process: self.config.process.clone(), sent: nanoseconds(self.clock.now()), pulses }
    }

    /// Tells when the session is not held any more, and when it is again.
    ///
    /// It wakes when belief would end by what is known now. The timer stands still while the machine is suspended and
    /// belief does not, so it looks more often than that.
    pub(crate) async fn doubt(self: Arc<Self>) {
        let mut was_held = true;
        while self.is_over().is_none() {
            let (is_held, wait) = match self.standing() {
                Standing::Held { for_at_least } => (true, for_at_least.min(self.config.margin / 4)),
                Standing::Suspect | Standing::Lost(_) => (false, Backoff::FIRST),
            };
            if is_held != was_held {
                if is_held { telemetry::held_again(self.lease) } else { telemetry::suspect(self.lease) }
            }
            if !is_held {
                // Each time: it may have been held in between, unseen.
                self.doubted.send_replace(());
            }
            was_held = is_held;
            sleep(wait.max(Duration::from_millis(1))).await;
        }
    }
}
