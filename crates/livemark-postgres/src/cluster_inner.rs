//! What a session's handles, guards and tasks share: [`Inner`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::any_engine::{AnyEngine, Backoff, timed};
use crate::clock::Clock;
use crate::codec::{Barrier, Context, JobKey, MarkValue, nanoseconds};
use crate::config::Config;
use crate::engine::{EngineError, History, If, Lease, Revision, Row, Written};
use crate::error::{BarrierError, Loss};
use crate::guard::Token;
use crate::held::{Held, Live, Sign, Unwanted};
use crate::keys::{epoch_in, session_key, tick_key};
use crate::lease::Belief;
use crate::mirror::Mirror;
use crate::session::Standing;
use crate::stats::Counts;
use crate::telemetry;

/// What a session's handles, guards and tasks share.
pub(crate) struct Inner<K, C> {
    pub(crate) engine: Arc<dyn AnyEngine>,
    pub(crate) clock: Box<dyn Clock>,
    pub(crate) config: Config,
    pub(crate) lease: Lease,
    pub(crate) epoch: u64,
    /// The engine's history when the session was opened.
    pub(crate) history: History,
    /// What each mark requires of the epoch's key: that it is as it was when the session was opened.
    pub(crate) in_epoch: If,
    /// When the session was opened. Pulses are told of by it.
    pub(crate) opened: Instant,
    /// The latest state of the engine that was told of.
    pub(crate) latest: AtomicU64,
    pub(crate) belief: Belief,
    pub(crate) over: watch::Sender<Option<Loss>>,
    /// Tells whenever the session is seen not to be held.
    pub(crate) doubted: watch::Sender<()>,
    pub(crate) seq: AtomicU64,
    pub(crate) live: Mutex<Live>,
    pub(crate) mirror: Mirror<K, C>,
    /// Something is to be removed from the engine.
    pub(crate) collect: Notify,
    pub(crate) counts: Counts,
    /// When the session's own key was last written.
    pub(crate) session_at: AtomicU64,
}

impl<K, C> Inner<K, C> {
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn end(&self, loss: Loss) {
        let is_first = self.over.send_if_modified(|over| {
            let is_first = over.is_none();
            over.get_or_insert(loss);
            is_first
        });
        if is_first && loss != Loss::Closed {
            telemetry::lost(self.lease, loss);
        }
    }

    pub(crate) fn is_over(&self) -> Option<Loss> {
        *self.over.borrow()
    }

    /// Waits until the session is over.
    pub(crate) async fn ended(&self) -> Loss {
        let mut over = self.over.subscribe();
        let loss = over.wait_for(Option::is_some).await.ok().and_then(|loss| *loss);
        // Its sender is here.
        loss.unwrap_or(Loss::Closed)
    }

    /// Waits until the session is not held.
    pub(crate) async fn is_doubted(&self) {
        // Before the look, so that nothing falls in between.
        let mut doubted = self.doubted.subscribe();
        while self.is_held() && doubted.changed().await.is_ok() {}
    }

    pub(crate) fn standing(&self) -> Standing {
        if let Some(loss) = self.is_over() {
            return Standing::Lost(loss);
        }
        let now = self.clock.now();
        let left = self.belief.left(now);
        // Whoever is displaced hears of it by the watch, which must be alive.
        let unheard = self.config.max_view_age.checked_sub(self.mirror.age(now));
        match (left, unheard.filter(|left| !left.is_zero())) {
            (Some(left), Some(unheard)) => Standing::Held { for_at_least: left.min(unheard) },
            _ => Standing::Suspect,
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        matches!(self.standing(), Standing::Held { .. })
    }

    /// Whether the lease is certainly there, also where the watch is silent.
    pub(crate) fn has_lease(&self) -> bool {
        self.is_over().is_none() && self.belief.left(self.clock.now()).is_some()
    }

    /// Pauses that are short beside the time after which silence is doubt.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::up_to(self.config.max_view_age / 4)
    }

    /// Lets a guard's mark go. What it wrote is removed by whoever ends it, or else as a ghost.
    pub(crate) fn release(&self, seq: u64) {
        let released = self.live().release(seq);
        self.suspect(released.map(|held| held.key.clone()));
    }

    /// Has the collector look at these keys.
    pub(crate) fn suspect(&self, keys: impl IntoIterator<Item = String>) {
        self.live().unwanted.extend(keys.into_iter().map(Unwanted::Ghost));
        self.collect.notify_one();
    }

    /// Has the collector remove the mark of a guard that was dropped.
    pub(crate) fn drop_mark(&self, held: &Arc<Held>) {
        held.let_go();
        self.live().unwanted.push_back(Unwanted::Mark(Arc::clone(held)));
        self.collect.notify_one();
    }

    /// The latest state of the engine that an answer has told of. To be asked before a question is sent.
    pub(crate) fn latest(&self) -> Revision {
        // Relaxed (no edge): a number by itself. An older value finds less.
        self.latest.load(Ordering::Relaxed)
    }

    /// Takes up the state that an answer tells of. Ends the session, and returns `false`, where it is before the one that
    /// it must be at least, by what was the latest when the question was sent: the engine was restored, and tokens would
    /// not grow.
    pub(crate) fn goes_on(&self, revision: Revision, at_least: Revision) -> bool {
        // Relaxed (no edge): as above.
        self.latest.fetch_max(revision, Ordering::Relaxed);
        let goes_on = revision >= at_least;
        if !goes_on {
            self.end(Loss::Behind);
        }
        goes_on
    }

    /// Finds out whether what an answer tells is of the engine that the session was opened on.
    pub(crate) fn is_of(&self, history: History) -> Result<(), EngineError> {
        if history == self.history { Ok(()) } else { Err(EngineError::Restored) }
    }

    /// Takes up the epoch's row. Ends the session where its tokens are of another one.
    pub(crate) fn heard_of_epoch(&self, row: Option<&Row>) {
        if epoch_in(row) != Ok(self.epoch) {
            self.end(Loss::NewEpoch);
        }
    }
}

impl<K: JobKey, C: Context> Inner<K, C> {
    /// Makes an attempt's mark a guard's, with no moment in between in which it is nobody's.
    pub(crate) fn hold(&self, key: &str, seq: u64, token: Token, value: Vec<u8>, sign: Option<Sign>) -> Arc<Held> {
        let held = Arc::new(Held::new(key, seq, token, sign));
        self.live().hold(&held);
        // Read your writes. If the mirror has heard of a later owner already, that is found here.
        let row = Row { revision: token.revision(), value, lease: Some(self.lease) };
        self.take_up(key, &row);
        if !self.mirror.has(key, token, self.lease, seq) {
            self.displace(&held);
        }
        held
    }

    /// Takes up a row that an answer told of.
    pub(crate) fn take_up(&self, key: &str, row: &Row) {
        self.mirror.put_answer(key, row);
        self.heard_of(key, Some(row), row.revision);
    }

    /// Takes up that a key went.
    pub(crate) fn take_out(&self, key: &str, revision: Revision) {
        self.mirror.remove(key, revision);
        self.heard_of(key, None, revision);
    }

    /// Tells the guards of a key's job what became of it.
    pub(crate) fn heard_of(&self, key: &str, row: Option<&Row>, revision: Revision) {
        let guards = self.live().of(key);
        if guards.is_empty() {
            return;
        }
        let value = row.and_then(|row| MarkValue::decode(&row.value));
        for held in guards {
            if value.as_ref().is_some_and(|value| held.is(value, self.lease, revision)) {
                held.written(revision);
            } else if revision > held.token.revision() {
                self.displace(&held);
            }
        }
    }

    /// Tells a guard that its mark is another's, or gone.
    pub(crate) fn displace(&self, held: &Held) {
        if held.displace() && !held.is_let_go() && self.is_over().is_none() {
            self.counts.displaced.add(1);
            telemetry::displaced(&held.key, held.token);
        }
    }

    /// Finds out whether a mark that is gone went with the session. Ends that one then.
    pub(crate) async fn check_session(&self) -> Result<(), EngineError> {
        let key = session_key(self.lease);
        if timed(self.config.call_timeout, self.engine.get(&key)).await?.is_none() {
            self.end(Loss::Expired);
        }
        Ok(())
    }

    /// Writes something, and waits until it has come back. What was in the engine before that has been heard of then.
    pub(crate) async fn barrier(&self, limit: Duration) -> Result<(), BarrierError> {
        let number = self.write_barrier().await.map_err(BarrierError::Engine)?;
        let mut heard = self.mirror.barrier();
        let came_back = async { heard.wait_for(|heard| *heard >= number).await.is_ok() };
        match timeout(limit, came_back).await {
            Ok(true) => Ok(()),
            _ => Err(BarrierError::Stale),
        }
    }

    /// Writes something that comes back by the watch. Returns its number.
    async fn write_barrier(&self) -> Result<u64, EngineError> {
        let key = tick_key(self.lease);
        // A write makes a state of its own.
        let next = self.latest().saturating_add(1);
        // Relaxed (no edge): a number that is drawn once.
        let number = self.seq.fetch_add(1, Ordering::Relaxed);
        let value = Barrier { number, sent: nanoseconds(self.clock.now()) }.encode();
        let put = self.engine.put(&key, value, Some(self.lease), If::Any);
        match timed(self.config.call_timeout, put).await {
            Ok(Written::Done(revision)) => {
                self.goes_on(revision, next);
                Ok(number)
            }
            // An unconditional write is not refused.
            Ok(Written::Refused(_)) => Err(EngineError::Unknown("refused".to_owned())),
            Err(error) => {
                if error == EngineError::LeaseGone {
                    self.end(Loss::Expired);
                }
                Err(error)
            }
        }
    }
}
