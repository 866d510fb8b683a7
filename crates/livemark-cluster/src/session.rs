//! One process's part: [`Session`], and how it makes marks.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use livemark::Finalizer;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep;

use crate::any_engine::{AnyEngine, timed};
use crate::clock::{BootClock, Clock};
use crate::codec::{Context, JobKey, MarkValue, SessionValue, nanoseconds};
use crate::config::Config;
use crate::engine::{Engine, EngineError, Grant, If, Lease, Revision, Row, Written};
use crate::error::{Loss, MarkError, OpenError, TryMarkError, Unavailable};
use crate::guard::{ClusterGuard, Token};
use crate::inner::Inner;
use crate::keys::{EPOCH, STORE, epoch_of, find, mark_key, session_key};
use crate::lease::Belief;
use crate::mirror::{Mirror, View};
use crate::prepared::Prepared;
use crate::stats::{Counts, SessionStats};
use crate::telemetry;

/// How often a job that is free whenever it is looked at, and taken whenever it is tried, is tried.
const TRIES: u32 = 16;

/// One process's part in a cluster: a lease, the marks that go with it, and a mirror of all marks.
///
/// Clones share one session. It ends when all clones and guards are gone, when it is [closed](Self::close), or when the
/// engine ends its lease. It does not come back then: the process opens another.
///
/// A program closes its session before it ends. Where the last clone is dropped, the marks go in the background, which
/// takes a runtime that goes on.
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
    runtime: Handle,
}

impl<K, C> Drop for Running<K, C> {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // Nobody is left who could close it: nobody is to wait for its TTL either.
        if self.inner.is_over().is_none() {
            self.inner.end(Loss::Closed);
            let (engine, lease) = (Arc::clone(&self.inner.engine), self.inner.lease);
            let limit = self.inner.config.call_timeout;
            self.runtime.spawn(async move {
                // Where it is not answered, the lease ends by itself.
                let _ = give_up(&*engine, lease, limit).await;
            });
        }
    }
}

/// Ends a lease, with the session's own key first: marks that go after it were given up, not lost.
async fn give_up(engine: &dyn AnyEngine, lease: Lease, limit: Duration) -> Result<(), EngineError> {
    let key = session_key(lease);
    // Each is worth a second try. The lease ends in any case, also where others then wait as for a process that was lost.
    if timed(limit, engine.delete(&key, If::Any)).await.is_err() {
        let _ = timed(limit, engine.delete(&key, If::Any)).await;
    }
    match timed(limit, engine.revoke(lease)).await {
        Err(EngineError::Unknown(_)) => timed(limit, engine.revoke(lease)).await,
        revoked => revoked,
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
        let engine: Arc<dyn AnyEngine> = Arc::new(engine);
        let limit = config.call_timeout;
        // Is it the engine that the job store knows?
        let listed_at = clock.now();
        let listing = timed(config.ttl, engine.list()).await.map_err(OpenError::Engine)?;
        let epoch = epoch_of(&listing)?;
        let in_epoch = find(&listing, EPOCH).map_or(If::Absent, |row| If::At(row.revision));
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
            let _ = timed(limit, engine.revoke(lease)).await;
            return Err(OpenError::Lease { granted: ttl });
        }
        let belief = Belief::new(sent, config.ttl, config.margin);
        let sent = clock.now();
        let value =
            SessionValue { process: config.process.clone(), sent: nanoseconds(sent), pulses: Vec::new() }.encode();
        let key = session_key(lease);
        let put = timed(limit, engine.put(&key, value, Some(lease), If::Absent)).await;
        let session_at = match put {
            Ok(Written::Done(revision)) => revision,
            Ok(Written::Refused(row)) => row.map_or(0, |row| row.revision),
            Err(error) => {
                // Nobody is to wait for what never was.
                let _ = timed(limit, engine.revoke(lease)).await;
                return Err(OpenError::Engine(error));
            }
        };
        telemetry::opened(lease, &config.process);

        let inner = Arc::new(Inner {
            mirror: Mirror::new(listed_at, config.settle),
            engine,
            clock: Box::new(clock),
            lease,
            epoch,
            history: listing.history,
            in_epoch,
            opened: Instant::now(),
            latest: AtomicU64::new(listing.revision),
            belief,
            over: watch::Sender::new(None),
            doubted: watch::Sender::new(()),
            seq: AtomicU64::new(1),
            live: Mutex::default(),
            collect: Notify::new(),
            counts: Counts::default(),
            session_at: AtomicU64::new(session_at),
            config,
        });
        // Who asks the mirror at once shall not find it empty. What came since is heard by the watch.
        inner.take_up_listing(&listing, listed_at, false);
        let tasks = vec![
            watched(&inner, Arc::clone(&inner).renew()),
            watched(&inner, Arc::clone(&inner).tick()),
            watched(&inner, Arc::clone(&inner).doubt()),
            watched(&inner, Arc::clone(&inner).follow()),
            watched(&inner, Arc::clone(&inner).compare()),
            watched(&inner, Arc::clone(&inner).collect()),
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
        let (inner, key) = (&*self.0.inner, mark_key(&job));
        for _ in 0..TRIES {
            let row = match self.attempt(job.clone(), &context, Over::Nobody, false).await {
                Ok(guard) => return Ok(guard),
                Err(Failed::Mark(error)) => return Err(TryMarkError::Mark(error)),
                Err(Failed::Occupied(row)) => row,
            };
            inner.take_up(&key, &row);
            if let Some(owner) = inner.mirror.registry().owner(&job) {
                return Err(TryMarkError::Occupied(Box::new(owner)));
            }
            let context = MarkValue::decode(&row.value).and_then(|value| C::decode(&value.context));
            if context.is_none() {
                return Err(MarkError::Foreign { key }.into());
            }
            // The owner that refused it has gone, as the mirror knows by now.
        }
        let why = "the job has one owner after the other".to_owned();
        Err(MarkError::Unavailable(EngineError::Unknown(why)).into())
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
        let prepared = Prepared::new(&self.0, job, context.clone(), is_claim).map_err(Failed::Mark)?;
        let key = prepared.key();
        let mut backoff = inner.backoff();
        let condition = |row: Option<Revision>| row.map_or(If::Absent, If::At);
        let mut expected = match over {
            Over::Nobody => If::Absent,
            Over::Only(revision) => If::At(revision),
            Over::Anyone => condition(inner.mirror.revision_of(key)),
        };
        // An engine that renews and answers nothing else must not keep anybody waiting for ever.
        let give_up_at = inner.clock.now().saturating_add(inner.config.ttl);
        loop {
            if let Some(loss) = inner.is_over() {
                return Err(Failed::Mark(MarkError::SessionLost(loss)));
            }
            let next = inner.latest().saturating_add(1);
            // No token is given in an epoch that is over: it would be less than those of the new one.
            let put =
                inner.engine.put_in_epoch(key, prepared.value().to_vec(), Some(inner.lease), expected, inner.in_epoch);
            let taken_at = match timed(inner.config.call_timeout, put).await {
                // No token is given that is not greater than those before.
                Ok(Written::Done(revision)) if !inner.goes_on(revision, next) => continue,
                Ok(Written::Done(revision)) => revision,
                Ok(Written::Refused(row)) => {
                    match (row, over) {
                        // It went through the time before, whose answer was lost.
                        (Some(row), _) if prepared.is(&row) => row.revision,
                        // What is no mark is nobody's to take.
                        (Some(row), _) if MarkValue::decode(&row.value).is_none() => {
                            return Err(Failed::Mark(MarkError::Foreign { key: key.to_owned() }));
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
                Err(EngineError::NewEpoch) => {
                    inner.end(Loss::NewEpoch);
                    continue;
                }
                Err(EngineError::NoSpace) => return Err(Failed::Mark(MarkError::NoSpace)),
                Err(EngineError::Denied(why)) => return Err(Failed::Mark(MarkError::Denied(why))),
                // It may have gone through. The same once more finds out.
                Err(error) => {
                    if !inner.has_lease() || inner.clock.now() >= give_up_at {
                        return Err(Failed::Mark(MarkError::Unavailable(error)));
                    }
                    sleep(backoff.pause()).await;
                    continue;
                }
            };
            return Ok(prepared.hold(taken_at));
        }
    }

    /// Prepares a mark that somebody else writes: as part of a transaction of the job store, where the engine is in it.
    ///
    /// **Unstable**, as [`Engine`] is.
    ///
    /// # Errors
    ///
    /// Returns an error if the session is over, or the context cannot be read as it is written.
    pub fn prepare(&self, job: K, context: C) -> Result<Prepared<K, C>, MarkError> {
        if let Some(loss) = self.0.inner.is_over() {
            return Err(MarkError::SessionLost(loss));
        }
        Prepared::new(&self.0, job, context, false)
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
            held: inner.live().held().count() as u64,
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
    /// Returns an error if the engine did not answer, asked twice. The marks then go with the lease.
    pub async fn close(self) -> Result<(), Unavailable> {
        let inner = &self.0.inner;
        inner.end(Loss::Closed);
        give_up(&*inner.engine, inner.lease, inner.config.call_timeout).await.map_err(Unavailable)
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
