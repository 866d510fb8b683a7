//! One process's part: [`Session`], its lease, and the tasks that keep it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use livemark::{Finalizer, Pulse};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};

use crate::clock::{BootClock, Clock};
use crate::codec::{Context, JobKey, MarkValue, SessionValue, milliseconds};
use crate::config::Config;
use crate::engine::{Engine, EngineError, Grant, If, Lease, Listing, Revision, Row, Watch, Written};
use crate::error::{Loss, MarkError, OpenError, TryMarkError, Unavailable};
use crate::guard::{ClusterGuard, Token};
use crate::lease::Belief;
use crate::mirror::{Mirror, View};
use crate::stats::{Counts, SessionStats};
use crate::telemetry;

/// The key of the epoch, in the engine's namespace.
pub(crate) const EPOCH: &str = "epoch";
/// The key that says which job store the namespace is for.
pub(crate) const STORE: &str = "store";
/// Pause before what failed is tried again.
const RETRY: Duration = Duration::from_millis(50);

pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An engine without its type.
pub(crate) trait AnyEngine: Send + Sync {
    fn grant(&self, ttl: Duration) -> Boxed<'_, Result<Grant, EngineError>>;
    fn renew(&self, lease: Lease) -> Boxed<'_, Result<Duration, EngineError>>;
    fn revoke(&self, lease: Lease) -> Boxed<'_, Result<(), EngineError>>;
    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
    ) -> Boxed<'a, Result<Written, EngineError>>;
    fn delete<'a>(&'a self, key: &'a str, condition: If) -> Boxed<'a, Result<Written, EngineError>>;
    fn get<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<Option<Row>, EngineError>>;
    fn list(&self) -> Boxed<'_, Result<Listing, EngineError>>;
    fn watch(&self, after: Revision) -> Boxed<'_, Result<Box<dyn AnyWatch>, EngineError>>;
}

/// A watch without its type.
pub(crate) trait AnyWatch: Send {
    fn next(&mut self) -> Boxed<'_, Result<Vec<crate::engine::Event>, EngineError>>;
}

impl<E: Engine> AnyEngine for E {
    fn grant(&self, ttl: Duration) -> Boxed<'_, Result<Grant, EngineError>> {
        Box::pin(Engine::grant(self, ttl))
    }

    fn renew(&self, lease: Lease) -> Boxed<'_, Result<Duration, EngineError>> {
        Box::pin(Engine::renew(self, lease))
    }

    fn revoke(&self, lease: Lease) -> Boxed<'_, Result<(), EngineError>> {
        Box::pin(Engine::revoke(self, lease))
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
    ) -> Boxed<'a, Result<Written, EngineError>> {
        Box::pin(Engine::put(self, key, value, lease, condition))
    }

    fn delete<'a>(&'a self, key: &'a str, condition: If) -> Boxed<'a, Result<Written, EngineError>> {
        Box::pin(Engine::delete(self, key, condition))
    }

    fn get<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<Option<Row>, EngineError>> {
        Box::pin(Engine::get(self, key))
    }

    fn list(&self) -> Boxed<'_, Result<Listing, EngineError>> {
        Box::pin(Engine::list(self))
    }

    fn watch(&self, after: Revision) -> Boxed<'_, Result<Box<dyn AnyWatch>, EngineError>> {
        Box::pin(async move {
            let watch: Box<dyn AnyWatch> = Box::new(Engine::watch(self, after).await?);
            Ok(watch)
        })
    }
}

impl<W: Watch> AnyWatch for W {
    fn next(&mut self) -> Boxed<'_, Result<Vec<crate::engine::Event>, EngineError>> {
        Box::pin(Watch::next(self))
    }
}

/// One process's part in a cluster: a lease, the marks that go with it, and a mirror of all marks.
///
/// Clones share one session. It ends when all clones and guards are gone, when it is [closed](Self::close), or when the
/// engine ends its lease. It does not come back then: the process opens another.
pub struct Session<K = u64, C = Finalizer>(pub(crate) Arc<Running<K, C>>);

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its marks are certainly there.
    Held {
        /// For so long, if it is not renewed.
        for_at_least: Duration,
    },
    /// Its marks may be there: the engine, or the mirror, was not heard for too long. It may be held again.
    Suspect,
    /// Its marks are gone, for ever.
    Lost(Loss),
}

impl Standing {
    /// Returns how the session was lost, if it was.
    #[must_use]
    pub fn loss(self) -> Option<Loss> {
        match self {
            Self::Lost(loss) => Some(loss),
            Self::Held { .. } | Self::Suspect => None,
        }
    }
}

/// A session and its tasks, which end with it.
pub(crate) struct Running<K, C> {
    pub(crate) inner: Arc<Inner<K, C>>,
    tasks: Vec<JoinHandle<()>>,
    pub(crate) runtime: Handle,
}

impl<K, C> Drop for Running<K, C> {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What a session's handles, guards and tasks share.
pub(crate) struct Inner<K, C> {
    pub(crate) engine: Box<dyn AnyEngine>,
    pub(crate) clock: Box<dyn Clock>,
    pub(crate) config: Config,
    pub(crate) lease: Lease,
    epoch: u64,
    /// The latest state of the engine that was told of.
    latest: AtomicU64,
    belief: Belief,
    over: watch::Sender<Option<Loss>>,
    seq: AtomicU64,
    live: Mutex<Live>,
    pub(crate) mirror: Mirror<K, C>,
    /// Something may lie under our lease that nobody holds.
    pub(crate) collect: Notify,
    pub(crate) counts: Counts,
    /// When the session's own key was last written.
    session_at: AtomicU64,
}

/// The marks that this process may have.
#[derive(Default)]
struct Live {
    /// Those that are being made.
    attempts: HashSet<u64>,
    /// Those that a guard holds.
    held: HashMap<u64, Arc<Held>>,
    /// The same by their keys. A job that was marked again while it was marked has two.
    by_key: HashMap<String, Vec<Arc<Held>>>,
    /// Keys under which something may lie that is nobody's.
    suspects: Vec<String>,
}

impl Live {
    fn hold(&mut self, held: &Arc<Held>) {
        self.held.insert(held.seq, Arc::clone(held));
        self.by_key.entry(held.key.clone()).or_default().push(Arc::clone(held));
    }

    fn release(&mut self, seq: u64) -> Option<Arc<Held>> {
        let held = self.held.remove(&seq)?;
        if let Some(guards) = self.by_key.get_mut(&held.key) {
            guards.retain(|other| other.seq != seq);
            if guards.is_empty() {
                self.by_key.remove(&held.key);
            }
        }
        Some(held)
    }

    /// Whether a mark is somebody's: a guard holds it, or it is being made.
    fn knows(&self, seq: u64, taken_at: Revision) -> bool {
        let held = self.held.get(&seq).is_some_and(|held| held.taken_at == taken_at);
        held || self.attempts.contains(&seq)
    }
}

/// A mark that a guard holds.
pub(crate) struct Held {
    pub(crate) key: String,
    pub(crate) seq: u64,
    /// When it was taken.
    pub(crate) taken_at: Revision,
    /// When its key was last written.
    modified: AtomicU64,
    is_displaced: AtomicBool,
    pub(crate) displaced: Notify,
    /// Its guard lets it go: nobody displaces it any more.
    is_let_go: AtomicBool,
    pulse: Mutex<Option<Sign>>,
}

/// An owner's pulse, as it is told to the others.
pub(crate) struct Sign {
    pulse: Pulse,
    since: Instant,
    /// Nobody may have this pulse: a reaper's claim came with it. It counts from its first beat on.
    awaits_a_beat: bool,
}

impl Sign {
    fn of<C: Context>(context: &C, awaits_a_beat: bool) -> Option<Self> {
        let pulse = context.pulse()?.clone();
        Some(Self { pulse, since: Instant::now(), awaits_a_beat })
    }

    /// How old the pulse is, if it counts.
    fn age(&self) -> Option<u64> {
        let age = self.pulse.age();
        (!self.awaits_a_beat || age < self.since.elapsed()).then(|| milliseconds(age))
    }
}

impl Held {
    pub(crate) fn modified(&self) -> Revision {
        // Relaxed (no edge): a number by itself, compared by the engine.
        self.modified.load(Ordering::Relaxed)
    }

    pub(crate) fn is_displaced(&self) -> bool {
        // Relaxed (no edge): nothing is published with it. Who asks too early is told the job store's answer later.
        self.is_displaced.load(Ordering::Relaxed)
    }

    /// Returns `true` the first time.
    pub(crate) fn displace(&self) -> bool {
        // Relaxed (no edge): as above.
        let was_displaced = self.is_displaced.swap(true, Ordering::Relaxed);
        self.displaced.notify_waiters();
        !was_displaced
    }

    /// Takes up the pulse of a context that replaces the one before. Returns its age.
    pub(crate) fn replace_pulse<C: Context>(&self, context: &C) -> Option<u64> {
        let sign = Sign::of(context, false);
        let age = sign.as_ref().and_then(Sign::age);
        *self.pulse.lock().unwrap_or_else(PoisonError::into_inner) = sign;
        age
    }

    fn pulse_age(&self) -> Option<u64> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(Sign::age)
    }

    /// Whether a value that was written then is this mark's. The number alone does not tell: a write that came twice may have
    /// made the same mark again, after somebody else had taken and cleared it.
    pub(crate) fn is(&self, value: &MarkValue, lease: Lease, written_at: Revision) -> bool {
        value.is(lease, self.seq) && value.taken_at.unwrap_or(written_at) == self.taken_at
    }

    pub(crate) fn let_go(&self) {
        // Relaxed (no edge): as above.
        self.is_let_go.store(true, Ordering::Relaxed);
    }

    fn is_let_go(&self) -> bool {
        // Relaxed (no edge): as above.
        self.is_let_go.load(Ordering::Relaxed)
    }

    pub(crate) fn written(&self, revision: Revision) {
        // Relaxed (no edge): as above.
        self.modified.fetch_max(revision, Ordering::Relaxed);
    }
}

/// An attempt under way. When it ends, however it does, what came of it is nobody's unless a guard holds it.
struct Attempt<'a, K, C> {
    inner: &'a Inner<K, C>,
    seq: u64,
    key: &'a str,
}

impl<K, C> Drop for Attempt<'_, K, C> {
    fn drop(&mut self) {
        self.inner.live().attempts.remove(&self.seq);
        self.inner.suspect([self.key.to_owned()]);
    }
}

/// Over whom a mark may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Nobody,
    /// Over nobody, or over the mark that was last written then.
    Only(Revision),
    Anyone,
}

/// Why an attempt made no mark.
pub(crate) enum Failed {
    Occupied(Row),
    Mark(MarkError),
}

impl<K: JobKey, C: Context> Session<K, C> {
    /// Opens a session: takes a lease, and reads all marks.
    ///
    /// # Errors
    ///
    /// Returns an error if the settings cannot work, the engine does not answer, or it is behind the job store.
    pub async fn open(engine: impl Engine, config: Config) -> Result<Self, OpenError> {
        Self::open_with_clock(engine, config, BootClock).await
    }

    /// Opens a session that goes by another clock.
    ///
    /// # Errors
    ///
    /// Returns an error as [`open`](Self::open) does.
    pub async fn open_with_clock(engine: impl Engine, config: Config, clock: impl Clock) -> Result<Self, OpenError> {
        config.check().map_err(OpenError::Config)?;
        let engine: Box<dyn AnyEngine> = Box::new(engine);
        let limit = config.call_timeout;
        // Is it the engine that the job store knows?
        let listing = timed(config.ttl, engine.list()).await.map_err(OpenError::Engine)?;
        let epoch = epoch_of(&listing)?;
        let next = Token::new(epoch, listing.revision.saturating_add(1));
        if next.get() <= config.token_floor {
            return Err(OpenError::Behind { token: next.get(), floor: config.token_floor });
        }
        if let Some(store) = &config.store {
            // Who is first gives the namespace to its job store.
            let name = store.clone().into_bytes();
            let put = timed(limit, engine.put(STORE, name, None, If::Absent)).await.map_err(OpenError::Engine)?;
            if let Written::Refused(Some(row)) = put {
                let found = String::from_utf8_lossy(&row.value).into_owned();
                if found != *store {
                    return Err(OpenError::OtherStore { found });
                }
            }
        }
        // The lease counts from before it was asked for.
        let sent = clock.now();
        let Grant { lease, ttl } = timed(limit, engine.grant(config.ttl)).await.map_err(OpenError::Engine)?;
        // An engine may give more than was asked for, which is not believed, but not less.
        if ttl < config.ttl {
            return Err(OpenError::Lease { granted: ttl });
        }
        let belief = Belief::new(sent, config.ttl, config.margin);
        let value = SessionValue { process: config.process.clone(), pulses: Vec::new() }.encode();
        let key = session_key(lease);
        let put = timed(limit, engine.put(&key, value, Some(lease), If::Absent)).await.map_err(OpenError::Engine)?;
        let session_at = match put {
            Written::Done(revision) => revision,
            Written::Refused(row) => row.map_or(0, |row| row.revision),
        };
        telemetry::opened(lease, &config.process);

        let inner = Arc::new(Inner {
            mirror: Mirror::new(clock.now(), config.settle),
            engine,
            clock: Box::new(clock),
            lease,
            epoch,
            latest: AtomicU64::new(listing.revision),
            belief,
            over: watch::Sender::new(None),
            seq: AtomicU64::new(1),
            live: Mutex::default(),
            collect: Notify::new(),
            counts: Counts::default(),
            session_at: AtomicU64::new(session_at),
            config,
        });
        // Who asks the mirror at once shall not find it empty. What came since is heard by the watch.
        inner.take_up_listing(&listing, 0);
        let tasks = vec![
            watched(&inner, Arc::clone(&inner).renew()),
            watched(&inner, Arc::clone(&inner).tick()),
            watched(&inner, Arc::clone(&inner).follow()),
            watched(&inner, Arc::clone(&inner).collect_ghosts()),
        ];
        Ok(Self(Arc::new(Running { inner, tasks, runtime: Handle::current() })))
    }

    /// Marks `job` as owned by the caller until the guard is dropped. Displaces an earlier owner.
    ///
    /// One round trip if the mirror knows how the job stands. Nothing that the engine may have done stays in doubt: an
    /// answer that is lost is asked for again.
    ///
    /// # Errors
    ///
    /// Returns an error if the job was not marked.
    pub async fn mark(&self, job: K, context: C) -> Result<ClusterGuard<K, C>, MarkError> {
        match self.attempt(job, &context, Over::Anyone, false).await {
            Ok(guard) => Ok(guard),
            Err(Failed::Mark(error)) => Err(error),
            // Who takes from anyone is refused by nobody for ever.
            Err(Failed::Occupied(_)) => Err(MarkError::Unavailable(EngineError::Unknown("refused".to_owned()))),
        }
    }

    /// Marks `job` unless it is marked. Check and claim are one step.
    ///
    /// # Errors
    ///
    /// Returns the owner if the job has one, or why it could not be marked.
    pub async fn try_mark(&self, job: K, context: C) -> Result<ClusterGuard<K, C>, TryMarkError<C>> {
        let key = mark_key(&job);
        match self.attempt(job.clone(), &context, Over::Nobody, false).await {
            Ok(guard) => Ok(guard),
            Err(Failed::Mark(error)) => Err(TryMarkError::Mark(error)),
            Err(Failed::Occupied(row)) => {
                self.0.inner.take_up(&key, &row);
                match self.0.inner.mirror.registry().owner(&job) {
                    Some(owner) => Err(TryMarkError::Occupied(Box::new(owner))),
                    None => Err(MarkError::Foreign { key }.into()),
                }
            }
        }
    }

    /// Makes a mark, or finds out that it cannot be made. No write is unconditional, and none is left in doubt.
    ///
    /// Nobody beats the pulse of a reaper's `claim` yet.
    pub(crate) async fn attempt(
        &self,
        job: K,
        context: &C,
        over: Over,
        is_claim: bool,
    ) -> Result<ClusterGuard<K, C>, Failed> {
        let inner = &*self.0.inner;
        let key = mark_key(&job);
        // Relaxed (no edge): a number that is drawn once.
        let seq = inner.seq.fetch_add(1, Ordering::Relaxed);
        inner.live().attempts.insert(seq);
        let attempt = Attempt { inner, seq, key: &key };
        let sign = Sign::of(context, is_claim);
        let value = MarkValue {
            lease: inner.lease.0,
            seq,
            taken_at: None,
            process: inner.config.process.clone(),
            context: context.encode(),
            pulse: sign.as_ref().and_then(Sign::age),
        };
        let bytes = value.encode();
        let condition = |row: Option<Revision>| row.map_or(If::Absent, If::At);
        let mut expected = match over {
            Over::Nobody => If::Absent,
            Over::Only(revision) => If::At(revision),
            Over::Anyone => condition(inner.mirror.revision_of(&key)),
        };
        loop {
            if let Standing::Lost(loss) = inner.standing() {
                return Err(Failed::Mark(MarkError::SessionLost(loss)));
            }
            let next = inner.latest().saturating_add(1);
            let put = inner.engine.put(&key, bytes.clone(), Some(inner.lease), expected);
            let taken_at = match timed(inner.config.call_timeout, put).await {
                // No token is given that is not greater than those before.
                Ok(Written::Done(revision)) if !inner.goes_on(revision, next) => continue,
                Ok(Written::Done(revision)) => revision,
                Ok(Written::Refused(row)) => {
                    let found = row.as_ref().and_then(|row| MarkValue::decode(&row.value));
                    match (row, over) {
                        // It went through the time before, whose answer was lost.
                        (Some(row), _) if found.as_ref().is_some_and(|found| found.is(inner.lease, seq)) => {
                            row.revision
                        }
                        // What is no mark is nobody's to take.
                        (Some(_), _) if found.is_none() => {
                            return Err(Failed::Mark(MarkError::Foreign { key: key.clone() }));
                        }
                        (Some(row), Over::Nobody | Over::Only(_)) => return Err(Failed::Occupied(row)),
                        (Some(row), Over::Anyone) => {
                            expected = If::At(row.revision);
                            continue;
                        }
                        (None, _) => {
                            expected = If::Absent;
                            continue;
                        }
                    }
                }
                Err(EngineError::LeaseGone) => {
                    inner.end(Loss::Expired);
                    continue;
                }
                Err(EngineError::NoSpace) => return Err(Failed::Mark(MarkError::NoSpace)),
                Err(EngineError::Denied(why)) => return Err(Failed::Mark(MarkError::Denied(why))),
                // It may have gone through. The same once more finds out.
                Err(error) => {
                    if inner.belief.left(inner.clock.now()).is_none() {
                        return Err(Failed::Mark(MarkError::Unavailable(error)));
                    }
                    sleep(RETRY).await;
                    continue;
                }
            };
            let held = inner.hold(&key, seq, taken_at, bytes, sign);
            inner.counts.marks.add(1);
            drop(attempt);
            let token = Token::new(inner.epoch, taken_at);
            return Ok(ClusterGuard::new(Arc::clone(&self.0), job, token, context.clone(), held));
        }
    }

    /// Returns how the session stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.0.inner.standing()
    }

    /// Returns the mirror of all marks.
    #[must_use]
    pub fn view(&self) -> View<K, C> {
        View(Arc::clone(&self.0))
    }

    /// Returns the session's lease, as an operator sees it.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.0.inner.lease
    }

    /// Returns what the session has done and met. Each number is read by itself.
    #[must_use]
    pub fn stats(&self) -> SessionStats {
        let inner = &self.0.inner;
        let Counts { marks, displaced, renewals, failed_renewals, relists, differences, ghosts } = &inner.counts;
        SessionStats {
            marks: marks.get(),
            held: inner.live().held.len() as u64,
            displaced: displaced.get(),
            renewals: renewals.get(),
            failed_renewals: failed_renewals.get(),
            relists: relists.get(),
            differences: differences.get(),
            ghosts: ghosts.get(),
        }
    }

    /// Ends the session and all its marks at once. Other processes need not wait for its TTL.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine did not answer. The marks then go with the lease.
    pub async fn close(self) -> Result<(), Unavailable> {
        let inner = &self.0.inner;
        inner.end(Loss::Closed);
        let limit = inner.config.call_timeout;
        // The session's own key goes first: marks that go after it were given up, not lost.
        timed(limit, inner.engine.delete(&session_key(inner.lease), If::Any)).await.map_err(Unavailable)?;
        timed(limit, inner.engine.revoke(inner.lease)).await.map_err(Unavailable)
    }

    /// Ends the tasks of the session as the death of its process does: nothing is said to the engine.
    #[doc(hidden)]
    pub fn abandon(&self) {
        self.0.inner.end(Loss::Closed);
        for task in &self.0.tasks {
            task.abort();
        }
    }
}

impl<K, C> Inner<K, C> {
    fn live(&self) -> MutexGuard<'_, Live> {
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

    pub(crate) fn ends(&self) -> watch::Receiver<Option<Loss>> {
        self.over.subscribe()
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

    /// Lets a guard's mark go. What it wrote is removed by whoever ends it, or else as a ghost.
    pub(crate) fn release(&self, seq: u64) {
        let released = self.live().release(seq);
        self.suspect(released.map(|held| held.key.clone()));
    }

    /// Has the collector look at these keys.
    pub(crate) fn suspect(&self, keys: impl IntoIterator<Item = String>) {
        self.live().suspects.extend(keys);
        self.collect.notify_one();
    }
}

impl<K: JobKey, C: Context> Inner<K, C> {
    /// Makes an attempt's mark a guard's, with no moment in between in which it is nobody's.
    fn hold(&self, key: &str, seq: u64, taken_at: Revision, value: Vec<u8>, sign: Option<Sign>) -> Arc<Held> {
        let held = Arc::new(Held {
            key: key.to_owned(),
            seq,
            taken_at,
            modified: AtomicU64::new(taken_at),
            is_displaced: AtomicBool::new(false),
            displaced: Notify::new(),
            is_let_go: AtomicBool::new(false),
            pulse: Mutex::new(sign),
        });
        self.live().hold(&held);
        // Read your writes. If the mirror has heard of a later owner already, that is found here.
        let row = Row { revision: taken_at, value, lease: Some(self.lease) };
        self.take_up(key, &row);
        if !self.mirror.has(key, taken_at, self.lease, seq) {
            self.displace(&held);
        }
        held
    }

    /// Takes up a row that an answer told of.
    pub(crate) fn take_up(&self, key: &str, row: &Row) {
        self.mirror.put_answer(key, row, self.epoch);
        self.heard_of(key, Some(row), row.revision);
    }

    /// Tells the guards of a key's job what became of it.
    pub(crate) fn heard_of(&self, key: &str, row: Option<&Row>, revision: Revision) {
        let Some(guards) = self.live().by_key.get(key).cloned() else { return };
        let value = row.and_then(|row| MarkValue::decode(&row.value));
        for held in guards {
            if value.as_ref().is_some_and(|value| held.is(value, self.lease, revision)) {
                held.written(revision);
            } else if revision > held.taken_at {
                self.displace(&held);
            }
        }
    }

    /// Tells a guard that its mark is another's, or gone.
    pub(crate) fn displace(&self, held: &Held) {
        if held.displace() && !held.is_let_go() && self.is_over().is_none() {
            self.counts.displaced.add(1);
            telemetry::displaced(&held.key, Token::new(self.epoch, held.taken_at));
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
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

    /// Renews the lease, one request at a time.
    async fn renew(self: Arc<Self>) {
        let mut wait = self.config.renew_every;
        let mut was_held = true;
        loop {
            sleep(wait).await;
            if self.is_over().is_some() {
                return;
            }
            let is_held = self.is_held();
            if is_held != was_held {
                if is_held { telemetry::held_again(self.lease) } else { telemetry::suspect(self.lease) }
            }
            was_held = is_held;
            let sent = self.clock.now();
            match timed(self.config.call_timeout, self.engine.renew(self.lease)).await {
                Ok(ttl) if !ttl.is_zero() => {
                    self.belief.renewed(sent, ttl);
                    self.counts.renewals.add(1);
                    wait = self.config.renew_every;
                }
                Ok(_) | Err(EngineError::LeaseGone) => return self.end(Loss::Expired),
                // Past the deadline as well: the keys may be there, and then the session is held again.
                Err(_) => {
                    self.counts.failed_renewals.add(1);
                    wait = RETRY;
                }
            }
        }
    }

    /// Writes the session's key now and then: a watch that hears nothing is known to be dead by it, and others hear of the
    /// pulses.
    async fn tick(self: Arc<Self>) {
        while self.is_over().is_none() {
            self.write_session().await;
            sleep(self.config.max_view_age / 3).await;
        }
    }

    /// Writes the session's key once, if it is as it was: one that is gone must not come again.
    async fn write_session(&self) {
        let held: Vec<_> = self.live().held.values().cloned().collect();
        let pulses = held.iter().filter_map(|held| Some((held.seq, held.pulse_age()?))).collect();
        let value = SessionValue { process: self.config.process.clone(), pulses }.encode();
        // Relaxed (no edge): this task alone writes it.
        let at = self.session_at.load(Ordering::Relaxed);
        let next = self.latest().saturating_add(1);
        let key = session_key(self.lease);
        let put = self.engine.put(&key, value, Some(self.lease), If::At(at));
        let written_at = match timed(self.config.call_timeout, put).await {
            Ok(Written::Done(revision)) => {
                self.goes_on(revision, next);
                revision
            }
            // The time before it was written, and the answer lost.
            Ok(Written::Refused(Some(row))) => row.revision,
            Ok(Written::Refused(None)) | Err(EngineError::LeaseGone) => return self.end(Loss::Expired),
            Err(_) => return,
        };
        // Relaxed (no edge): as above.
        self.session_at.store(written_at, Ordering::Relaxed);
    }

    pub(crate) async fn write_tick(&self) -> Result<Revision, EngineError> {
        let key = tick_key(self.lease);
        // A write makes a state of its own.
        let next = self.latest().saturating_add(1);
        let put = self.engine.put(&key, Vec::new(), Some(self.lease), If::Any);
        match timed(self.config.call_timeout, put).await {
            Ok(Written::Done(revision)) => {
                self.goes_on(revision, next);
                Ok(revision)
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

    /// Removes what lies under our lease and is nobody's: writes that came after we gave them up.
    ///
    /// It looks at a key whenever a mark of ours was heard of there, an attempt ended or a guard ended. What was heard of
    /// is not enough: it may have been while the attempt was under way.
    async fn collect_ghosts(self: Arc<Self>) {
        loop {
            let suspects = std::mem::take(&mut self.live().suspects);
            if suspects.is_empty() {
                self.collect.notified().await;
                continue;
            }
            let mut left = Vec::new();
            for key in suspects {
                let Some(revision) = self.ghost_at(&key) else { continue };
                let delete = self.engine.delete(&key, If::At(revision));
                match timed(self.config.call_timeout, delete).await {
                    Ok(Written::Done(gone)) => {
                        self.counts.ghosts.add(1);
                        telemetry::ghost(&key);
                        self.take_out(&key, gone);
                    }
                    // It is something else by now, and the mirror hears of it.
                    Ok(Written::Refused(_)) | Err(EngineError::LeaseGone) => {}
                    Err(_) => left.push(key),
                }
            }
            if !left.is_empty() {
                self.live().suspects.extend(left);
                sleep(RETRY).await;
            }
        }
    }

    /// When a mark of ours was written here that nobody holds and nobody is making, if there is one.
    fn ghost_at(&self, key: &str) -> Option<Revision> {
        let (seq, taken_at, revision) = self.mirror.ours(key, self.lease)?;
        // After the row: a mark that is made in between is not in that row.
        (!self.live().knows(seq, taken_at)).then_some(revision)
    }
}

/// Runs a task of a session. Where it panics, as the user's types may make it, the session is lost and not half dead.
fn watched<K, C>(inner: &Arc<Inner<K, C>>, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()>
where
    K: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    let (running, inner) = (tokio::spawn(task), Arc::clone(inner));
    let aborts = AbortOnDrop(running.abort_handle());
    tokio::spawn(async move {
        let _aborts = aborts;
        if running.await.is_err_and(|error| error.is_panic()) {
            inner.end(Loss::Panicked);
        }
    })
}

/// Ends a task with the one that watches it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A call that is given up after some time.
pub(crate) async fn timed<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    match timeout(limit, call).await {
        Ok(done) => done,
        Err(_) => Err(EngineError::Unknown(format!("nothing was heard for {limit:?}"))),
    }
}

pub(crate) fn epoch_of(listing: &Listing) -> Result<u64, OpenError> {
    let Some((_, row)) = listing.rows.iter().find(|(key, _)| key == EPOCH) else { return Ok(0) };
    let text = std::str::from_utf8(&row.value).ok();
    text.and_then(|text| text.trim().parse::<u16>().ok()).map(u64::from).ok_or(OpenError::Epoch)
}

pub(crate) const MARKS: &str = "m/";
pub(crate) const SESSIONS: &str = "s/";

pub(crate) fn mark_key<K: JobKey>(job: &K) -> String {
    format!("{MARKS}{}", job.encode())
}

fn session_key(lease: Lease) -> String {
    format!("{SESSIONS}{}", lease.0)
}

fn tick_key(lease: Lease) -> String {
    format!("t/{}", lease.0)
}

impl<K, C> Clone for Session<K, C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, C> fmt::Debug for Session<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("lease", &self.0.inner.lease)
            .field("standing", &self.0.inner.standing())
            .finish_non_exhaustive()
    }
}
