//! The mirror of all marks: [`View`], a local registry that a watch of the engine feeds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use livemark::{Finalizer, Pulse, Registry};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::codec::{Context, JobKey, MarkValue, SessionValue};
use crate::engine::{EngineError, Event, Lease, Listing, Revision, Row};
use crate::error::{BarrierError, Loss};
use crate::guard::Token;
use crate::session::{Inner, MARKS, Running, SESSIONS, timed};
use crate::telemetry;

/// Pause before a listing or a watch that failed is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// A mark as every process sees it.
#[derive(Clone, Debug)]
pub struct Remote<C = Finalizer> {
    /// The mark's fencing token.
    pub token: Token,
    /// The lease of the process that has it.
    pub lease: Lease,
    /// What that process is called.
    pub process: Arc<str>,
    /// What the mark says of its owner.
    pub context: C,
    /// The owner's pulse, if it gives one. Its age is that of the latest beat that this process has heard of: it may be
    /// younger than the owner's by a third of [`max_view_age`](crate::Config::max_view_age).
    pub pulse: Option<Pulse>,
}

/// A session's mirror of all marks.
pub struct View<K = u64, C = Finalizer>(pub(crate) Arc<Running<K, C>>);

impl<K: JobKey, C: Context> View<K, C> {
    /// Returns the registry that mirrors the marks. Look-ups in it are as those of any registry: lock-free, and local.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry<K, Remote<C>>> {
        self.0.inner.mirror.registry()
    }

    /// Returns how long ago the engine was last heard.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.0.inner.mirror.age(self.0.inner.clock.now())
    }

    /// Returns the engine's state that the mirror has whole.
    #[must_use]
    pub fn revision(&self) -> Revision {
        *self.0.inner.mirror.applied.borrow()
    }

    /// Returns how many keys were found that are no marks of this crate. They are left alone.
    #[must_use]
    pub fn foreign_keys(&self) -> usize {
        self.0.inner.mirror.rows().foreign.len()
    }

    /// Waits until the mirror has all that was in the engine when this was called: writes something, and waits until it
    /// comes back.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine does not take the write, or it does not come back in time.
    pub async fn barrier(&self) -> Result<(), BarrierError> {
        let inner = &self.0.inner;
        let written = inner.write_tick().await.map_err(BarrierError::Engine)?;
        let mut applied = inner.mirror.applied();
        let heard = async { applied.wait_for(|revision| *revision >= written).await.is_ok() };
        match timeout(inner.config.call_timeout, heard).await {
            Ok(true) => Ok(()),
            _ => Err(BarrierError::Stale),
        }
    }

    /// Returns `true` for [`settle`](crate::Config::settle) after the session was opened, and after all marks had to be listed
    /// anew. It cannot know of any job whether its owner's process was lost a moment before, and is coming back.
    #[must_use]
    pub fn may_have_missed(&self) -> bool {
        let inner = &self.0.inner;
        // Relaxed (no edge): a number by itself.
        inner.clock.now() < Duration::from_nanos(inner.mirror.missed_until.load(Ordering::Relaxed))
    }

    /// Returns `true` while the job is not to be claimed, since its owner's process was lost a moment ago.
    #[must_use]
    pub fn is_settling(&self, job: &K) -> bool {
        self.0.inner.mirror.is_settling(job, self.0.inner.clock.now())
    }
}

impl<K, C> Clone for View<K, C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, C> fmt::Debug for View<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("registry", &self.0.inner.mirror.registry).finish_non_exhaustive()
    }
}

/// What a view shows, and what it is made from.
pub(crate) struct Mirror<K, C> {
    registry: Arc<Registry<K, Remote<C>>>,
    rows: Mutex<Rows<K>>,
    /// The last revision that is in the rows whole.
    applied: watch::Sender<Revision>,
    /// Nanoseconds on the session's clock.
    heard_at: AtomicU64,
    /// Until then nobody here can know of any job whether its mark was lost a moment ago. Nanoseconds, as above.
    missed_until: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Rows<K> {
    by_key: HashMap<String, Known<K>>,
    /// The pulses of marks, by their leases and numbers.
    pulses: HashMap<(u64, u64), Pulse>,
    /// The keys that are gone, by when they went.
    gone: BTreeMap<Revision, Vec<String>>,
    /// The last state that is here whole. Answers of states up to it are old news, and what went is forgotten.
    applied: Revision,
    foreign: BTreeSet<String>,
    /// Until when a job is not claimed.
    settling: HashMap<K, Duration>,
    /// When those were last looked through for what is over.
    settled_at: Duration,
}

/// A key that there is, or that there was: an older event changes nothing.
#[derive(Debug)]
struct Known<K> {
    revision: Revision,
    mark: Option<KnownMark<K>>,
}

#[derive(Clone, Debug)]
struct KnownMark<K> {
    job: K,
    lease: u64,
    seq: u64,
    /// The revision that took the mark.
    taken_at: Revision,
    since: Instant,
}

impl<K> KnownMark<K> {
    /// Whether it is this mark of this lease.
    fn is(&self, lease: u64, seq: u64) -> bool {
        (self.lease, self.seq) == (lease, seq)
    }
}

impl<K, C> Mirror<K, C> {
    pub(crate) fn new(now: Duration, settle: Duration) -> Self {
        Self {
            registry: Arc::new(Registry::new()),
            rows: Mutex::new(Rows {
                by_key: HashMap::new(),
                pulses: HashMap::new(),
                gone: BTreeMap::new(),
                applied: 0,
                foreign: BTreeSet::new(),
                settling: HashMap::new(),
                settled_at: now,
            }),
            applied: watch::Sender::new(0),
            heard_at: AtomicU64::new(nanoseconds(now)),
            missed_until: AtomicU64::new(nanoseconds(now.saturating_add(settle))),
        }
    }

    pub(crate) fn registry(&self) -> &Arc<Registry<K, Remote<C>>> {
        &self.registry
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    pub(crate) fn age(&self, now: Duration) -> Duration {
        // Relaxed (no edge): a number by itself. An older value makes the mirror seem older than it is.
        now.saturating_sub(Duration::from_nanos(self.heard_at.load(Ordering::Relaxed)))
    }

    fn heard(&self, now: Duration) {
        // Relaxed (no edge): as above.
        self.heard_at.fetch_max(nanoseconds(now), Ordering::Relaxed);
    }

    fn rows(&self) -> MutexGuard<'_, Rows<K>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: JobKey, C: Context> Mirror<K, C> {
    /// The revision of a mark's key, if there is a mark.
    pub(crate) fn revision_of(&self, key: &str) -> Option<Revision> {
        self.rows().by_key.get(key).filter(|known| known.mark.is_some()).map(|known| known.revision)
    }

    /// The revision and the token of a job's mark.
    pub(crate) fn mark_of(&self, key: &str) -> Option<(Revision, Revision)> {
        let rows = self.rows();
        let known = rows.by_key.get(key)?;
        Some((known.revision, known.mark.as_ref()?.taken_at))
    }

    /// Whether a mark is at its key, as far as anybody here has heard.
    pub(crate) fn has(&self, key: &str, taken_at: Revision, lease: Lease, seq: u64) -> bool {
        let rows = self.rows();
        let mark = rows.by_key.get(key).and_then(|known| known.mark.as_ref());
        mark.is_some_and(|mark| mark.is(lease.0, seq) && mark.taken_at == taken_at)
    }

    /// A lease's mark at this key, if there is one: its number, when it was taken, and when it was last written.
    pub(crate) fn ours(&self, key: &str, lease: Lease) -> Option<(u64, Revision, Revision)> {
        let rows = self.rows();
        let known = rows.by_key.get(key)?;
        let mark = known.mark.as_ref().filter(|mark| mark.lease == lease.0)?;
        Some((mark.seq, mark.taken_at, known.revision))
    }

    pub(crate) fn is_settling(&self, job: &K, now: Duration) -> bool {
        self.rows().settling.get(job).is_some_and(|until| *until > now)
    }

    /// Puts a row in that an answer told of, unless the mirror has its state already. What went since is forgotten then, and
    /// the row must not come again.
    pub(crate) fn put_answer(&self, key: &str, row: &Row, epoch: u64) {
        let rows = self.rows();
        if row.revision > rows.applied {
            self.put_in(rows, key, row, epoch);
        }
    }

    /// Puts a row in that is heard of in the order of the states, unless a later one is known.
    fn put(&self, key: &str, row: &Row, epoch: u64) {
        self.put_in(self.rows(), key, row, epoch);
    }

    fn put_in(&self, mut rows: MutexGuard<'_, Rows<K>>, key: &str, row: &Row, epoch: u64) {
        let Some(text) = key.strip_prefix(MARKS) else { return };
        if rows.by_key.get(key).is_some_and(|known| known.revision >= row.revision) {
            return;
        }
        let read = || {
            let value = MarkValue::decode(&row.value)?;
            Some((K::decode(text)?, C::decode(&value.context)?, value))
        };
        let Some((job, context, value)) = read() else {
            // It is somebody's, and nobody can say whose. No claim takes it: the engine has a key there.
            rows.foreign.insert(key.to_owned());
            return self.drop_mark(&mut rows, key, row.revision);
        };
        rows.foreign.remove(key);
        let taken_at = value.taken_at.unwrap_or(row.revision);
        let before = rows.by_key.get(key).and_then(|known| known.mark.as_ref());
        // The same mark with another context is as old as it was.
        let since = before.filter(|mark| mark.is(value.lease, value.seq));
        let since = since.map_or_else(Instant::now, |mark| mark.since);
        let id = (value.lease, value.seq);
        let pulse = value.pulse.map(|age| Pulse::aged(Duration::from_millis(age)));
        let remote = Remote {
            token: Token::new(epoch, taken_at),
            lease: Lease(value.lease),
            process: value.process.as_str().into(),
            context,
            pulse: pulse.clone(),
        };
        self.registry.feed().put(job.clone(), remote, since);
        rows.settling.remove(&job);
        let mark = Some(KnownMark { job, lease: value.lease, seq: value.seq, taken_at, since });
        let before = rows.by_key.insert(key.to_owned(), Known { revision: row.revision, mark });
        if let Some(mark) = before.and_then(|known| known.mark) {
            rows.pulses.remove(&(mark.lease, mark.seq));
        }
        rows.pulses.extend(pulse.map(|pulse| (id, pulse)));
    }

    /// Takes a key out, unless a later state of it is known. Returns the mark that was there.
    fn remove(&self, key: &str, revision: Revision) -> Option<KnownMark<K>> {
        let mut rows = self.rows();
        rows.foreign.remove(key);
        let known = rows.by_key.get(key).filter(|known| known.revision <= revision)?;
        let mark = known.mark.clone();
        self.drop_mark(&mut rows, key, revision);
        mark
    }

    fn drop_mark(&self, rows: &mut Rows<K>, key: &str, revision: Revision) {
        rows.gone.entry(revision).or_default().push(key.to_owned());
        let before = rows.by_key.insert(key.to_owned(), Known { revision, mark: None });
        if let Some(KnownMark { job, lease, seq, .. }) = before.and_then(|known| known.mark) {
            rows.pulses.remove(&(lease, seq));
            self.registry.feed().remove(&job);
        }
    }

    /// Forgets what went before this revision: no event is older any more.
    fn passed(&self, revision: Revision) {
        let mut rows = self.rows();
        rows.applied = rows.applied.max(revision);
        while let Some(oldest) = rows.gone.first_entry().filter(|oldest| *oldest.key() <= revision) {
            for key in oldest.remove() {
                // It may have come again since.
                if rows.by_key.get(&key).is_some_and(|known| known.mark.is_none() && known.revision <= revision) {
                    rows.by_key.remove(&key);
                }
            }
        }
        drop(rows);
        self.applied.send_if_modified(|applied| {
            let is_later = revision > *applied;
            *applied = revision.max(*applied);
            is_later
        });
    }

    /// Keeps a job from being claimed for some time from now on.
    fn settle(&self, mark: KnownMark<K>, now: Duration, settle: Duration) {
        let mut rows = self.rows();
        // Now and then, forget those whose time is over.
        if now.saturating_sub(rows.settled_at) > settle {
            rows.settled_at = now;
            rows.settling.retain(|_, until| *until > now);
        }
        rows.settling.insert(mark.job, now.saturating_add(settle));
    }
}

impl<K: JobKey, C: Context> Mirror<K, C> {
    /// Takes up how old a session's pulses were when it told of them.
    fn take_up_session(&self, key: &str, row: &Row) {
        let lease = key.strip_prefix(SESSIONS).and_then(|lease| lease.parse().ok());
        let (Some(lease), Some(told)) = (lease, SessionValue::decode(&row.value)) else { return };
        for (seq, age) in told.pulses {
            let age = Duration::from_millis(age);
            let known = self.rows().pulses.get(&(lease, seq)).cloned();
            match known {
                // One that has not beaten is as old here, or older by what was younger. One that has is younger.
                Some(pulse) if age < pulse.age() => pulse.beat(),
                Some(_) => {}
                None => self.show_pulse(lease, seq, age),
            }
        }
    }

    /// Gives a mark the pulse that it did not have: that of a reaper's claim, which has been beaten now.
    fn show_pulse(&self, lease: u64, seq: u64, age: Duration) {
        let mut rows = self.rows();
        let found = rows.by_key.values().find_map(|known| {
            let mark = known.mark.as_ref().filter(|mark| mark.is(lease, seq))?;
            Some((mark.job.clone(), mark.since, self.registry.owner(&mark.job)?.value))
        });
        let Some((job, since, mut remote)) = found else { return };
        let pulse = Pulse::aged(age);
        remote.pulse = Some(pulse.clone());
        self.registry.feed().put(job, remote, since);
        rows.pulses.insert((lease, seq), pulse);
    }
}

impl<K: JobKey, C: Context> Inner<K, C> {
    /// Follows the engine from the listing that was taken up, for as long as the session is there.
    pub(crate) async fn follow(self: std::sync::Arc<Self>) {
        loop {
            // Watch, from the last revision that was heard whole, until states are missing.
            while self.watch_on().await != Err(EngineError::Compacted) {
                sleep(RETRY).await;
            }
            // Then list, and take up what is different. Nothing is cleared first.
            loop {
                let latest = self.latest();
                if let Ok(listing) = timed(self.config.max_view_age, self.engine.list()).await {
                    self.take_up_listing(&listing, latest);
                    break;
                }
                sleep(RETRY).await;
            }
            self.counts.relists.add(1);
            telemetry::relisted("the states that were missed are not kept");
        }
    }

    /// Watches until the watch breaks or says nothing for too long: dead ones do not fail by themselves
    /// (etcd-io/etcd#8980). Compares with the engine now and then, since watches have lost events as well
    /// (etcd-io/etcd#18089).
    async fn watch_on(&self) -> Result<(), EngineError> {
        let after = *self.mirror.applied.borrow();
        let mut watch = timed(self.config.call_timeout, self.engine.watch(after)).await?;
        let mut to_compare = None;
        let mut compare_at = self.clock.now().saturating_add(self.config.compare_every);
        loop {
            let events = timed(self.config.max_view_age, watch.next()).await?;
            self.take_up_events(&events);
            // A listing can be compared once all that it has must have been heard of.
            let heard = *self.mirror.applied.borrow();
            if let Some((listing, latest)) =
                to_compare.take_if(|(listing, _): &mut (Listing, _)| listing.revision <= heard)
            {
                self.compare(&listing, latest);
            }
            if to_compare.is_none() && self.clock.now() >= compare_at {
                compare_at = self.clock.now().saturating_add(self.config.compare_every);
                let latest = self.latest();
                to_compare =
                    timed(self.config.max_view_age, self.engine.list()).await.ok().map(|listing| (listing, latest));
            }
        }
    }

    /// Counts the marks that are otherwise in the mirror than in a listing of a state that it has whole, and mends them.
    fn compare(&self, listing: &Listing, latest: Revision) {
        let listed: HashMap<&str, Revision> =
            listing.rows.iter().map(|(key, row)| (key.as_str(), row.revision)).collect();
        let differences = {
            let rows = self.mirror.rows();
            let known = |key: &str| rows.by_key.get(key).map(|known| known.revision);
            let missed = listed.iter().filter(|(key, at)| key.starts_with(MARKS) && known(key) < Some(**at)).count();
            let left = rows.by_key.iter().filter(|(key, known)| {
                known.mark.is_some() && known.revision <= listing.revision && !listed.contains_key(key.as_str())
            });
            missed + left.count()
        };
        if differences > 0 {
            self.counts.differences.add(differences);
            telemetry::differences(differences);
            self.take_up_listing(listing, latest);
        }
    }

    pub(crate) fn take_up_listing(&self, listing: &Listing, latest: Revision) {
        if !self.goes_on(listing.revision, latest) {
            return;
        }
        let keys: HashSet<&str> = listing.rows.iter().map(|(key, _)| key.as_str()).collect();
        let gone: Vec<_> = {
            let rows = self.mirror.rows();
            rows.by_key.keys().filter(|key| !keys.contains(key.as_str())).cloned().collect()
        };
        let now = self.clock.now();
        // A mark may have been made and lost without a word, or lost with its session.
        let missed_until = nanoseconds(now.saturating_add(self.config.settle));
        // Relaxed (no edge): a number by itself.
        self.mirror.missed_until.fetch_max(missed_until, Ordering::Relaxed);
        for key in gone {
            self.mirror.remove(&key, listing.revision);
            self.heard_of(&key, None, listing.revision);
        }
        for (key, row) in &listing.rows {
            self.mirror.put(key, row, self.epoch());
            if key.starts_with(MARKS) {
                self.heard_of(key, Some(row), row.revision);
            }
        }
        // After the marks.
        for (key, row) in &listing.rows {
            self.mirror.take_up_session(key, row);
        }
        let is_first = *self.mirror.applied.borrow() == 0;
        if !is_first && !keys.contains(format!("{SESSIONS}{}", self.lease.0).as_str()) {
            self.end(Loss::Expired);
        }
        self.mirror.passed(listing.revision);
        self.mirror.heard(now);
        self.suspect(
            keys.iter().map(|key| (*key).to_owned()).filter(|key| self.mirror.ours(key, self.lease).is_some()),
        );
    }

    fn take_up_events(&self, events: &[Event]) {
        let now = self.clock.now();
        // Which sessions went, and when: a mark that went in the same revision was lost with its process.
        let went: BTreeSet<(Revision, &str)> = events
            .iter()
            .filter(|event| event.row.is_none() && event.key.starts_with(SESSIONS))
            .map(|event| (event.revision, event.key.as_str()))
            .collect();
        for Event { revision, key, row } in events {
            if key.starts_with(MARKS) {
                match row {
                    Some(row) => self.mirror.put(key, row, self.epoch()),
                    None => {
                        if let Some(mark) = self.mirror.remove(key, *revision) {
                            let session = format!("{SESSIONS}{}", mark.lease);
                            if went.contains(&(*revision, session.as_str())) {
                                self.mirror.settle(mark, now, self.config.settle);
                            }
                        }
                    }
                }
                self.heard_of(key, row.as_ref(), *revision);
            } else if key.starts_with(SESSIONS) {
                match row {
                    Some(row) => self.mirror.take_up_session(key, row),
                    None if *key == format!("{SESSIONS}{}", self.lease.0) => self.end(Loss::Expired),
                    None => {}
                }
            }
        }
        if let Some(last) = events.last() {
            self.mirror.passed(last.revision);
        }
        self.mirror.heard(now);
        let ours = events.iter().filter(|event| event.row.as_ref().is_some_and(|row| row.lease == Some(self.lease)));
        self.suspect(ours.filter(|event| event.key.starts_with(MARKS)).map(|event| event.key.clone()));
    }

    /// Takes up that a key went.
    pub(crate) fn take_out(&self, key: &str, revision: Revision) {
        self.mirror.remove(key, revision);
        self.heard_of(key, None, revision);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
