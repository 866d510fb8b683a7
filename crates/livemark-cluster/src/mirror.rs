//! The mirror of all marks: [`View`], a local registry that a watch of the engine feeds.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use livemark::{Finalizer, Pulse, Registry};
use tokio::sync::watch;

use crate::codec::{Barrier, Beat, Context, JobKey, MarkValue, SessionValue, nanoseconds};
use crate::engine::{Lease, Listing, Revision, Row};
use crate::error::BarrierError;
use crate::guard::Token;
use crate::keys::{MARKS, SESSIONS};
use crate::session::Running;

/// Beats of a pulse that are no further from each other are one.
const SAME_BEAT: u64 = 2;
/// By how much the age of a pulse may differ from what is told of it, which is late by some time.
const LATE: Duration = Duration::from_millis(100);

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

    /// Returns how old the mirror is at most: how long ago this process sent what it has heard back of last. What changed
    /// in the engine before that is in the mirror.
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
        let rows = self.0.inner.mirror.rows();
        rows.by_key.values().filter(|known| matches!(known.what, What::Foreign)).count()
    }

    /// Waits until the mirror has all that was in the engine when this was called: writes something, and waits until it
    /// comes back.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine does not take the write, or it does not come back in time.
    pub async fn barrier(&self) -> Result<(), BarrierError> {
        let inner = &self.0.inner;
        inner.barrier(inner.config.call_timeout).await
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
    /// When that was sent which was last heard back. Nanoseconds on the session's clock.
    heard_at: AtomicU64,
    /// The latest of the session's barriers that was heard back.
    barrier: watch::Sender<u64>,
    /// Until then nobody here can know of any job whether its mark was lost a moment ago. Nanoseconds, as above.
    missed_until: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Rows<K> {
    by_key: HashMap<String, Known<K>>,
    /// The pulses of marks, by their leases and numbers.
    pulses: HashMap<(u64, u64), HeardPulse>,
    /// The keys that are gone, by when they went.
    gone: BTreeMap<Revision, Vec<String>>,
    /// The last state that is here whole. Answers of states up to it are old news, and what went is forgotten.
    applied: Revision,
    /// The state of the latest listing that was taken up whole. What came and went before it was never heard of.
    listed: Revision,
    /// A listing is under way that the rows are to be compared with: what went meanwhile is not forgotten.
    keeps_gone: bool,
    /// Until when a job is not claimed.
    settling: HashMap<K, Duration>,
    /// When those were last looked through for what is over.
    settled_at: Duration,
}

/// What is known of a key: an older event changes nothing.
#[derive(Debug)]
struct Known<K> {
    revision: Revision,
    what: What<K>,
}

#[derive(Debug)]
enum What<K> {
    Mark(KnownMark<K>),
    /// It is somebody's, and nobody can say whose. No claim takes it: the engine has a key there.
    Foreign,
    Gone,
}

impl<K> Known<K> {
    fn mark(&self) -> Option<&KnownMark<K>> {
        match &self.what {
            What::Mark(mark) => Some(mark),
            What::Foreign | What::Gone => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct KnownMark<K> {
    job: K,
    pub(crate) lease: u64,
    seq: u64,
    token: Token,
    since: Instant,
}

impl<K> KnownMark<K> {
    /// Whether it is this mark of this lease.
    fn is(&self, lease: u64, seq: u64) -> bool {
        (self.lease, self.seq) == (lease, seq)
    }
}

/// What sessions tell of pulses, by the leases and numbers of their marks.
pub(crate) type Beats = HashMap<(u64, u64), Beat>;

/// A pulse as the reapers here see it, and its latest beat that was told of.
#[derive(Debug)]
struct HeardPulse {
    pulse: Pulse,
    at: u64,
}

impl HeardPulse {
    fn new(beat: Beat) -> Self {
        Self { pulse: Pulse::aged(Duration::from_millis(beat.age)), at: beat.at }
    }

    /// Takes up what is told of the pulse. Returns `false` if it needs another one in its place.
    ///
    /// A message that came sooner than the one before tells of a younger pulse. That is no beat: a hung owner would seem
    /// to make progress.
    fn hear(&mut self, beat: Beat) -> bool {
        let age = Duration::from_millis(beat.age);
        let is_later = beat.at > self.at.saturating_add(SAME_BEAT);
        if is_later {
            self.pulse.beat_ago(age);
            self.at = beat.at;
        }
        let shown = self.pulse.age();
        // It is older than it seemed to be, or had its beat before it was heard of here.
        let is_too_young = shown.saturating_add(LATE) < age;
        let is_too_old = is_later && age.saturating_add(LATE) < shown;
        !is_too_young && !is_too_old
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
                listed: 0,
                keeps_gone: false,
                settling: HashMap::new(),
                settled_at: now,
            }),
            applied: watch::Sender::new(0),
            heard_at: AtomicU64::new(nanoseconds(now)),
            barrier: watch::Sender::new(0),
            missed_until: AtomicU64::new(nanoseconds(now.saturating_add(settle))),
        }
    }

    pub(crate) fn registry(&self) -> &Arc<Registry<K, Remote<C>>> {
        &self.registry
    }

    pub(crate) fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.subscribe()
    }

    /// The latest of the session's barriers that was heard back.
    pub(crate) fn barrier(&self) -> watch::Receiver<u64> {
        self.barrier.subscribe()
    }

    pub(crate) fn age(&self, now: Duration) -> Duration {
        // Relaxed (no edge): a number by itself. An older value makes the mirror seem older than it is.
        now.saturating_sub(Duration::from_nanos(self.heard_at.load(Ordering::Relaxed)))
    }

    /// Takes up that the mirror has all that was in the engine at this time: something was sent then, and came back.
    pub(crate) fn heard(&self, sent: Duration) {
        // Relaxed (no edge): as above.
        self.heard_at.fetch_max(nanoseconds(sent), Ordering::Relaxed);
    }

    /// Takes up that a barrier came back.
    pub(crate) fn heard_barrier(&self, barrier: Barrier) {
        self.heard(Duration::from_nanos(barrier.sent));
        self.barrier.send_if_modified(|number| std::mem::replace(number, barrier.number.max(*number)) < barrier.number);
    }

    /// Takes up that the mirror missed states: a mark may have been made and lost without a word.
    pub(crate) fn missed(&self, until: Duration) {
        // Relaxed (no edge): a number by itself.
        self.missed_until.fetch_max(nanoseconds(until), Ordering::Relaxed);
    }

    fn rows(&self) -> MutexGuard<'_, Rows<K>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: JobKey, C: Context> Mirror<K, C> {
    /// The revision of a mark's key, if there is a mark.
    pub(crate) fn revision_of(&self, key: &str) -> Option<Revision> {
        self.mark_of(key).map(|(revision, _)| revision)
    }

    /// The revision and the token of a job's mark.
    pub(crate) fn mark_of(&self, key: &str) -> Option<(Revision, Token)> {
        let rows = self.rows();
        let known = rows.by_key.get(key)?;
        Some((known.revision, known.mark()?.token))
    }

    /// Whether a mark is at its key, as far as anybody here has heard.
    pub(crate) fn has(&self, key: &str, token: Token, lease: Lease, seq: u64) -> bool {
        let rows = self.rows();
        let mark = rows.by_key.get(key).and_then(Known::mark);
        mark.is_some_and(|mark| mark.is(lease.0, seq) && mark.token == token)
    }

    /// A lease's mark at this key, if there is one: its number, its token, and when it was last written.
    pub(crate) fn ours(&self, key: &str, lease: Lease) -> Option<(u64, Token, Revision)> {
        let rows = self.rows();
        let known = rows.by_key.get(key)?;
        let mark = known.mark().filter(|mark| mark.lease == lease.0)?;
        Some((mark.seq, mark.token, known.revision))
    }

    /// The keys that are there, as far as is known.
    pub(crate) fn keys(&self) -> Vec<String> {
        let rows = self.rows();
        rows.by_key.iter().filter(|(_, known)| !matches!(known.what, What::Gone)).map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn is_settling(&self, job: &K, now: Duration) -> bool {
        self.rows().settling.get(job).is_some_and(|until| *until > now)
    }

    /// Puts a row in that an answer told of, unless the mirror has its state already. What went since is forgotten then, and
    /// the row must not come again.
    pub(crate) fn put_answer(&self, key: &str, row: &Row) {
        let mut rows = self.rows();
        if row.revision > rows.applied {
            self.put_in(&mut rows, key, row, &Beats::new());
        }
    }

    /// Puts a row in that is heard of in the order of the states, unless a later one is known. Sessions may have told of its
    /// pulse since.
    pub(crate) fn put(&self, key: &str, row: &Row, beats: &Beats) {
        self.put_in(&mut self.rows(), key, row, beats);
    }

    fn put_in(&self, rows: &mut Rows<K>, key: &str, row: &Row, beats: &Beats) {
        let Some(text) = key.strip_prefix(MARKS) else { return };
        if rows.by_key.get(key).is_some_and(|known| known.revision >= row.revision) {
            return;
        }
        let read = || {
            let value = MarkValue::decode(&row.value)?;
            Some((K::decode(text)?, C::decode(&value.context)?, value))
        };
        let Some((job, context, value)) = read() else {
            return self.know(rows, key, Known { revision: row.revision, what: What::Foreign });
        };
        let before = rows.by_key.get(key).and_then(Known::mark).filter(|mark| mark.is(value.lease, value.seq));
        // The same mark with another context is as old as it was.
        let since = before.map_or_else(Instant::now, |mark| mark.since);
        let beat = beats.get(&(value.lease, value.seq)).copied();
        let heard = beat.or(value.pulse).map(HeardPulse::new);
        let token = value.token(row.revision);
        let remote = Remote {
            token,
            lease: Lease(value.lease),
            process: value.process.as_str().into(),
            context,
            pulse: heard.as_ref().map(|heard| heard.pulse.clone()),
        };
        // In one step: a job that goes from owner to owner has one at each moment.
        self.registry.feed().put(job.clone(), remote, since);
        rows.settling.remove(&job);
        let mark = KnownMark { job, lease: value.lease, seq: value.seq, token, since };
        let known = Known { revision: row.revision, what: What::Mark(mark) };
        if let Some(mark) = rows.by_key.insert(key.to_owned(), known).as_ref().and_then(Known::mark) {
            rows.pulses.remove(&(mark.lease, mark.seq));
        }
        rows.pulses.extend(heard.map(|heard| ((value.lease, value.seq), heard)));
    }

    /// Takes a key out, unless a later state of it is known. Returns the mark that was there.
    pub(crate) fn remove(&self, key: &str, revision: Revision) -> Option<KnownMark<K>> {
        self.remove_in(&mut self.rows(), key, revision)
    }

    fn remove_in(&self, rows: &mut Rows<K>, key: &str, revision: Revision) -> Option<KnownMark<K>> {
        let mark = match rows.by_key.get(key) {
            Some(known) if known.revision > revision => return None,
            Some(known) => known.mark().cloned(),
            // Its mark came and went unheard. An answer may still tell of that one, and must not bring it back.
            None if revision > rows.applied => None,
            None => return None,
        };
        self.know(rows, key, Known { revision, what: What::Gone });
        rows.gone.entry(revision).or_default().push(key.to_owned());
        mark
    }

    /// Takes up that there is no mark at a key.
    fn know(&self, rows: &mut Rows<K>, key: &str, known: Known<K>) {
        let before = rows.by_key.insert(key.to_owned(), known);
        if let Some(KnownMark { job, lease, seq, .. }) = before.as_ref().and_then(Known::mark) {
            rows.pulses.remove(&(*lease, *seq));
            self.registry.feed().remove(job);
        }
    }

    /// Takes up that a listing of this state is here whole.
    pub(crate) fn listed(&self, revision: Revision) {
        self.rows().listed = revision;
        self.passed(revision);
    }

    /// Takes up that all states up to this one have been heard of: no event is older any more.
    pub(crate) fn passed(&self, revision: Revision) {
        let mut rows = self.rows();
        rows.applied = rows.applied.max(revision);
        rows.forget_gone();
        drop(rows);
        self.applied.send_if_modified(|applied| {
            let is_later = revision > *applied;
            *applied = revision.max(*applied);
            is_later
        });
    }

    /// Keeps what goes from being forgotten, for as long as the answer lives: a listing that is older than the rows can be
    /// compared with them then.
    pub(crate) fn keep_gone(&self) -> KeepsGone<'_, K, C> {
        self.rows().keeps_gone = true;
        KeepsGone(self)
    }

    /// Mends what is otherwise here than in a listing of a state that the rows have whole. Returns the keys, and how they
    /// are.
    ///
    /// What went is kept since before the listing was asked for, so that a mark that was cleared since is no difference. Where
    /// a later listing was taken up meanwhile, there is nothing to compare: it has shown all there is.
    pub(crate) fn mend<'l>(&self, _: &KeepsGone<'_, K, C>, listing: &'l Listing) -> Vec<(String, Option<&'l Row>)> {
        let mut rows = self.rows();
        if rows.listed >= listing.whole {
            return Vec::new();
        }
        let listed: HashMap<&str, &Row> = listing.rows.iter().map(|(key, row)| (key.as_str(), row)).collect();
        let is_missed = |key: &str, row: &Row| rows.by_key.get(key).is_none_or(|known| known.revision < row.revision);
        let is_due = |row: &Row| row.revision <= listing.whole;
        let missed = listed.iter().filter(|(key, row)| key.starts_with(MARKS) && is_due(row) && is_missed(key, row));
        let missed: Vec<_> = missed.map(|(key, row)| ((*key).to_owned(), Some(*row))).collect();
        let is_left = |key: &str, known: &Known<K>| {
            !matches!(known.what, What::Gone) && known.revision <= listing.whole && !listed.contains_key(key)
        };
        let left: Vec<_> = rows.by_key.iter().filter(|(key, known)| is_left(key, known)).collect();
        let left: Vec<_> = left.into_iter().map(|(key, _)| (key.clone(), None)).collect();
        let differences = [missed, left].concat();
        for (key, row) in &differences {
            match row {
                Some(row) => self.put_in(&mut rows, key, row, &Beats::new()),
                None => drop(self.remove_in(&mut rows, key, listing.whole)),
            }
        }
        differences
    }

    /// Keeps a job from being claimed for some time from now on.
    pub(crate) fn settle(&self, mark: KnownMark<K>, now: Duration, settle: Duration) {
        let mut rows = self.rows();
        // Now and then, forget those whose time is over.
        if now.saturating_sub(rows.settled_at) > settle {
            rows.settled_at = now;
            rows.settling.retain(|_, until| *until > now);
        }
        rows.settling.insert(mark.job, now.saturating_add(settle));
    }

    /// Takes up what a session tells of its pulses.
    pub(crate) fn take_up_session(&self, key: &str, row: &Row) {
        let lease = key.strip_prefix(SESSIONS).and_then(|lease| lease.parse().ok());
        let (Some(lease), Some(told)) = (lease, SessionValue::decode(&row.value)) else { return };
        let mut rows = self.rows();
        let mut to_show = HashMap::new();
        for (seq, beat) in told.pulses {
            let is_shown = rows.pulses.get_mut(&(lease, seq)).is_some_and(|heard| heard.hear(beat));
            if !is_shown {
                to_show.insert(seq, beat);
            }
        }
        if !to_show.is_empty() {
            self.show_pulses(&mut rows, lease, &to_show);
        }
    }

    /// Gives marks pulses that they did not have, or in the place of others. The former are those of reapers' claims, which
    /// have been beaten now.
    fn show_pulses(&self, rows: &mut Rows<K>, lease: u64, beats: &HashMap<u64, Beat>) {
        let Rows { by_key, pulses, .. } = rows;
        for mark in by_key.values().filter_map(Known::mark).filter(|mark| mark.lease == lease) {
            let Some(beat) = beats.get(&mark.seq) else { continue };
            let Some(owner) = self.registry.owner(&mark.job) else { continue };
            let heard = HeardPulse::new(*beat);
            let remote = Remote { pulse: Some(heard.pulse.clone()), ..owner.value };
            self.registry.feed().put(mark.job.clone(), remote, mark.since);
            pulses.insert((lease, mark.seq), heard);
        }
    }
}

impl<K> Rows<K> {
    /// Forgets what is gone, unless it is wanted: no event is older any more.
    fn forget_gone(&mut self) {
        if self.keeps_gone {
            return;
        }
        while let Some(oldest) = self.gone.first_entry().filter(|oldest| *oldest.key() <= self.applied) {
            let revision = *oldest.key();
            for key in oldest.remove() {
                // It may have come again since.
                let is_gone = |known: &Known<K>| matches!(known.what, What::Gone) && known.revision <= revision;
                if self.by_key.get(&key).is_some_and(is_gone) {
                    self.by_key.remove(&key);
                }
            }
        }
    }
}

/// What goes is not forgotten while this lives.
pub(crate) struct KeepsGone<'m, K, C>(&'m Mirror<K, C>);

impl<K, C> Drop for KeepsGone<'_, K, C> {
    fn drop(&mut self) {
        let mut rows = self.0.rows();
        rows.keeps_gone = false;
        rows.forget_gone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mark came and went in one poll, which tells of the last of it, before all that was earlier was heard of. Then an answer
    /// tells of the mark. Seen to fail with a mirror that keeps nothing of keys that it has not heard of: the mark shows, and
    /// its guard believes in it.
    #[test]
    fn a_late_answer_brings_no_mark_back_that_was_never_heard_of() {
        let mirror: Mirror<u64, Finalizer> = Mirror::new(Duration::ZERO, Duration::ZERO);
        let value = MarkValue {
            epoch: 0,
            lease: 1,
            seq: 1,
            taken_at: None,
            process: String::new(),
            context: Finalizer::new(Some(1), "merge").encode(),
            pulse: None,
        };
        let row = |revision| Row { revision, value: value.encode(), lease: Some(Lease(1)) };
        mirror.passed(3);
        assert!(mirror.remove("m/7", 5).is_none());
        mirror.put_answer("m/7", &row(4));
        assert!(!mirror.registry().is_active(&7) && !mirror.has("m/7", Token::new(0, 4), Lease(1), 1));
        // What came later is later.
        mirror.put_answer("m/7", &row(6));
        assert!(mirror.registry().is_active(&7));
        // What is old news needs no trace.
        mirror.passed(9);
        assert!(mirror.remove("m/8", 8).is_none() && !mirror.rows().by_key.contains_key("m/8"));
    }

    /// Seen to fail with a pulse that beats whenever it is told to be younger than it is here.
    #[test]
    fn a_message_that_comes_sooner_is_no_beat() {
        let mut heard = HeardPulse::new(Beat { age: 60, at: 1_000 });
        std::thread::sleep(Duration::from_millis(60));
        assert!(heard.hear(Beat { age: 30, at: 1_000 }), "it took 90 ms less, or more on a busy machine");
        assert!(heard.pulse.age() >= Duration::from_millis(120));
        let mut heard = HeardPulse::new(Beat { age: 60_000, at: 1_000 });
        assert!(!heard.hear(Beat { age: 61_000, at: 1_001 }), "it is older than it was told to be");
    }

    /// Seen to fail with a beat that counts from when it was heard of.
    #[test]
    fn a_beat_is_as_old_as_it_is_told_to_be() {
        let mut heard = HeardPulse::new(Beat { age: 60_000, at: 1_000 });
        std::thread::sleep(Duration::from_millis(30));
        assert!(heard.hear(Beat { age: 20, at: 61_000 }));
        assert!(heard.pulse.age() >= Duration::from_millis(20) && heard.pulse.age() < Duration::from_secs(60));
        // From before this process had heard of the mark.
        assert!(!heard.hear(Beat { age: 5_000, at: 61_500 }) || heard.pulse.age() >= Duration::from_secs(5));
    }
}
