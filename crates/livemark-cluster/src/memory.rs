//! An engine in memory, for tests: [`MemoryEngine`], with [`Faults`] by a seed.
//!
//! It has what makes real ones hard: leases that end by time, all their keys in one revision; answers that are lost before
//! or after a call took effect; writes that arrive after their sender gave up, or twice; watches that break, and states that
//! are not kept. Its time is tokio's, so that a test can let it pass at will.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::engine::{Engine, EngineError, Event, Grant, If, Lease, Listing, News, Revision, Row, Watch, Written};
use crate::keys::EPOCH;

/// How often what goes wrong, in thousandths of the calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// Calls that take up to [`delay`](Self::delay).
    pub slow: u32,
    /// The longest delay of a call.
    pub delay: Duration,
    /// Calls that never arrive.
    pub lost: u32,
    /// Calls that take effect, and whose answer is lost.
    pub unanswered: u32,
    /// Writes that arrive later, after their sender was told nothing.
    pub late: u32,
    /// Writes that are made twice.
    pub repeated: u32,
    /// Watches that break.
    pub broken: u32,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    history: u64,
    rows: BTreeMap<String, Row>,
    leases: BTreeMap<u64, Held>,
    /// The leases, by when they end.
    ends: BTreeSet<(Instant, u64)>,
    last_lease: u64,
    /// Every event that is kept, in order.
    log: Vec<Event>,
    /// The state before the first event that is kept.
    compacted: Revision,
    /// Whether writes are refused for want of room.
    is_full: bool,
}

#[derive(Debug)]
struct Held {
    ttl: Duration,
    ends: Instant,
}

impl State {
    /// Ends the leases whose time has come, each in one revision.
    fn expire(&mut self) -> bool {
        let now = Instant::now();
        let mut is_any = false;
        while let Some(&(_, lease)) = self.ends.first().filter(|(ends, _)| *ends <= now) {
            self.end(Lease(lease));
            is_any = true;
        }
        is_any
    }

    fn end(&mut self, lease: Lease) {
        if let Some(held) = self.leases.remove(&lease.0) {
            self.ends.remove(&(held.ends, lease.0));
        }
        let keys: Vec<_> =
            self.rows.iter().filter(|(_, row)| row.lease == Some(lease)).map(|(key, _)| key.clone()).collect();
        if keys.is_empty() {
            return;
        }
        self.revision += 1;
        for key in keys {
            self.rows.remove(&key);
            self.log.push(Event { revision: self.revision, key, row: None });
        }
    }

    fn allows(&self, key: &str, condition: If) -> bool {
        match (condition, self.rows.get(key)) {
            (If::Any, _) | (If::Absent, None) => true,
            (If::At(revision), Some(row)) => row.revision == revision,
            (If::Absent, Some(_)) | (If::At(_), None) => false,
        }
    }

    fn put(
        &mut self,
        key: &str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
        epoch: If,
    ) -> Result<Written, EngineError> {
        if self.is_full {
            return Err(EngineError::NoSpace);
        }
        // First the conditions, as in etcd: a lease that has ended shows in a write that is made only.
        if !self.allows(EPOCH, epoch) {
            return Err(EngineError::NewEpoch);
        }
        if !self.allows(key, condition) {
            return Ok(Written::Refused(self.rows.get(key).cloned()));
        }
        if lease.is_some_and(|lease| !self.leases.contains_key(&lease.0)) {
            return Err(EngineError::LeaseGone);
        }
        self.revision += 1;
        let row = Row { revision: self.revision, value, lease };
        self.rows.insert(key.to_owned(), row.clone());
        self.log.push(Event { revision: self.revision, key: key.to_owned(), row: Some(row) });
        Ok(Written::Done(self.revision))
    }

    fn delete(&mut self, key: &str, condition: If) -> Written {
        if !self.rows.contains_key(key) || !self.allows(key, condition) {
            return Written::Refused(self.rows.get(key).cloned());
        }
        self.revision += 1;
        self.rows.remove(key);
        self.log.push(Event { revision: self.revision, key: key.to_owned(), row: None });
        Written::Done(self.revision)
    }
}

/// An engine in memory. Each process of a test has a [`client`](Self::client) of it.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl MemoryEngine {
    /// Creates an empty engine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a client without faults.
    #[must_use]
    pub fn client(&self) -> MemoryClient {
        self.faulty_client(0, Faults::default())
    }

    /// Returns a client whose calls go wrong as `seed` says.
    #[must_use]
    pub fn faulty_client(&self, seed: u64, faults: Faults) -> MemoryClient {
        let link = Link { faults, random: fastrand::Rng::with_seed(seed), is_cut: false, hears: true, loses: 0 };
        MemoryClient { engine: self.clone(), link: Arc::new(Mutex::new(link)), mended: Arc::new(Notify::new()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.expire() {
            self.0.changed.notify_waiters();
        }
        state
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.state());
        self.0.changed.notify_waiters();
        done
    }

    /// Ends a lease before its time, as an engine may that lost track of it.
    pub fn end_lease(&self, lease: Lease) {
        self.change(|state| state.end(lease));
    }

    /// Forgets all states but the present one: watches of earlier ones are told so.
    pub fn compact(&self) {
        self.change(|state| {
            state.compacted = state.revision;
            state.log.clear();
        });
    }

    /// Refuses writes for want of room, or takes them again.
    pub fn fill(&self, is_full: bool) {
        self.change(|state| state.is_full = is_full);
    }

    /// Puts the engine back to an earlier revision, as a restored snapshot does.
    pub fn set_revision(&self, revision: Revision) {
        self.change(|state| state.revision = revision);
    }

    /// Begins another history, as a copy does that takes the engine's place.
    pub fn begin_history(&self) {
        self.change(|state| state.history += 1);
    }

    /// Returns the present revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.state().revision
    }

    /// Returns all keys and their rows.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, Row)> {
        self.state().rows.iter().map(|(key, row)| (key.clone(), row.clone())).collect()
    }

    /// Writes a key that no session has written.
    pub fn write(&self, key: &str, value: &[u8]) {
        // Without a lease and a condition only a full engine refuses.
        let _ = self.change(|state| state.put(key, value.to_vec(), None, If::Any, If::Any));
    }
}

#[derive(Debug)]
struct Link {
    faults: Faults,
    random: fastrand::Rng,
    /// Nothing goes through.
    is_cut: bool,
    /// Whether answers come back.
    hears: bool,
    /// How many of the next events its watches lose.
    loses: usize,
}

impl Link {
    fn hits(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.random.u32(0..1000) < thousandths
    }
}

/// One process's client of a [`MemoryEngine`].
#[derive(Clone, Debug)]
pub struct MemoryClient {
    engine: MemoryEngine,
    link: Arc<Mutex<Link>>,
    mended: Arc<Notify>,
}

/// What happens to one call.
struct Fate {
    delay: Duration,
    arrives: bool,
    answers: bool,
    late: bool,
    twice: bool,
}

impl MemoryClient {
    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the process off, or connects it again. Connections that are cut do not fail: they are silent.
    pub fn cut(&self, is_cut: bool) {
        self.link().is_cut = is_cut;
        self.mended.notify_waiters();
    }

    /// Loses all answers, or none: what is asked arrives all the same.
    pub fn deafen(&self, is_deaf: bool) {
        self.link().hears = !is_deaf;
        self.mended.notify_waiters();
    }

    /// Loses the next events, as watches have done.
    pub fn lose_events(&self, count: usize) {
        self.link().loses = count;
    }

    /// Ends all faults.
    pub fn heal(&self) {
        let mut link = self.link();
        (link.faults, link.is_cut, link.hears) = (Faults::default(), false, true);
        drop(link);
        self.mended.notify_waiters();
    }

    fn fate(&self) -> Fate {
        let mut link = self.link();
        let Faults { slow, delay, lost, unanswered, late, repeated, .. } = link.faults;
        let delay = if link.hits(slow) && !delay.is_zero() {
            Duration::from_micros(link.random.u64(0..u64::try_from(delay.as_micros()).unwrap_or(u64::MAX).max(1)))
        } else {
            Duration::ZERO
        };
        let arrives = !link.is_cut && !link.hits(lost);
        let answers = link.hears && !link.hits(unanswered);
        Fate { delay, arrives, answers, late: link.hits(late), twice: link.hits(repeated) }
    }

    /// Makes a call, with what befalls it.
    async fn call<T: Send + 'static>(
        &self,
        change: impl Fn(&mut State) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let Fate { delay, arrives, answers, late, twice } = self.fate();
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if !arrives {
            return silence().await;
        }
        if late {
            let (engine, after) = (self.engine.clone(), Duration::from_micros(self.link().random.u64(0..3_000_000)));
            tokio::spawn(async move {
                sleep(after).await;
                let _ = engine.change(|state| change(state));
            });
            return silence().await;
        }
        let done = self.engine.change(|state| {
            let done = change(state);
            // The client of the engine has tried again by itself: this is the second answer.
            if twice { change(state) } else { done }
        });
        if !answers {
            return silence().await;
        }
        done
    }
}

/// Nobody answers. Whoever asks has a time limit.
async fn silence<T>() -> Result<T, EngineError> {
    std::future::pending().await
}

impl Engine for MemoryClient {
    type Watch = MemoryWatch;

    async fn grant(&self, ttl: Duration) -> Result<Grant, EngineError> {
        let granted = self.call(move |state| {
            state.last_lease += 1;
            let lease = state.last_lease;
            let ends = Instant::now() + ttl;
            state.leases.insert(lease, Held { ttl, ends });
            state.ends.insert((ends, lease));
            Ok(Grant { lease: Lease(lease), ttl })
        });
        granted.await
    }

    async fn renew(&self, lease: Lease) -> Result<Duration, EngineError> {
        let renewed = self.call(move |state| {
            let held = state.leases.get_mut(&lease.0).ok_or(EngineError::LeaseGone)?;
            state.ends.remove(&(held.ends, lease.0));
            held.ends = Instant::now() + held.ttl;
            state.ends.insert((held.ends, lease.0));
            Ok(held.ttl)
        });
        renewed.await
    }

    async fn revoke(&self, lease: Lease) -> Result<(), EngineError> {
        self.call(move |state| {
            state.end(lease);
            Ok(())
        })
        .await
    }

    async fn put_in_epoch(
        &self,
        key: &str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
        epoch: If,
    ) -> Result<Written, EngineError> {
        let key = key.to_owned();
        self.call(move |state| state.put(&key, value.clone(), lease, condition, epoch)).await
    }

    async fn delete(&self, key: &str, condition: If) -> Result<Written, EngineError> {
        let key = key.to_owned();
        self.call(move |state| Ok(state.delete(&key, condition))).await
    }

    async fn get(&self, key: &str) -> Result<Option<Row>, EngineError> {
        let key = key.to_owned();
        self.call(move |state| Ok(state.rows.get(&key).cloned())).await
    }

    async fn list(&self) -> Result<Listing, EngineError> {
        let listed = self.call(|state| {
            let rows = state.rows.iter().map(|(key, row)| (key.clone(), row.clone())).collect();
            Ok(Listing { revision: state.revision, whole: state.revision, history: state.history, rows })
        });
        listed.await
    }

    async fn watch(&self, after: Revision) -> Result<MemoryWatch, EngineError> {
        let is_kept = self.call(move |state| Ok(after >= state.compacted)).await?;
        if is_kept { Ok(MemoryWatch { client: self.clone(), seen: after }) } else { Err(EngineError::Compacted) }
    }
}

/// A watch of a [`MemoryEngine`].
#[derive(Debug)]
pub struct MemoryWatch {
    client: MemoryClient,
    seen: Revision,
}

impl MemoryWatch {
    /// What has come since, if anything has and can be heard; and when a lease ends next.
    fn poll(&mut self) -> Result<(News, Option<Instant>), EngineError> {
        let state = self.client.engine.state();
        if self.seen < state.compacted {
            return Err(EngineError::Compacted);
        }
        let next_end = state.ends.first().map(|(ends, _)| *ends);
        let mut link = self.client.link();
        if link.is_cut || !link.hears {
            return Ok((News::default(), next_end));
        }
        let mut events: Vec<_> = state.log[state.log.partition_point(|event| event.revision <= self.seen)..].to_vec();
        let lost = link.loses.min(events.len());
        link.loses -= lost;
        self.seen = events.drain(..lost).next_back().map_or(self.seen, |event| event.revision);
        let broken = link.faults.broken;
        if !events.is_empty() && link.hits(broken) {
            return Err(EngineError::Unknown("the watch broke".to_owned()));
        }
        if let Some(last) = events.last() {
            self.seen = last.revision;
        }
        Ok((News { events, whole: self.seen, history: state.history }, next_end))
    }
}

impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<News, EngineError> {
        let (engine, mended) = (self.client.engine.clone(), Arc::clone(&self.client.mended));
        loop {
            // Before the look, so that nothing falls in between.
            let changed = engine.0.changed.notified();
            let mended = mended.notified();
            tokio::pin!(changed, mended);
            changed.as_mut().enable();
            mended.as_mut().enable();
            let (news, next_end) = self.poll()?;
            if !news.events.is_empty() {
                return Ok(news);
            }
            let end = async {
                match next_end {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = mended => {}
                () = end => {}
            }
        }
    }
}
