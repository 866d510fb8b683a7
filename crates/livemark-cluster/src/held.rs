//! The marks that this process may have: those that are being made, those that guards hold, and what is to be removed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use livemark::Pulse;
use tokio::sync::Notify;

use crate::codec::{Beat, Context, MarkValue, milliseconds};
use crate::engine::{Lease, Revision};
use crate::guard::Token;

/// The marks that this process may have.
#[derive(Default)]
pub(crate) struct Live {
    /// Those that are being made.
    attempts: HashSet<u64>,
    /// Those that a guard holds, or whose guard lets them go.
    held: HashMap<u64, Arc<Held>>,
    /// The same by their keys. A job that was marked again while it was marked has two.
    by_key: HashMap<String, Vec<Arc<Held>>>,
    /// What is to be removed from the engine.
    pub(crate) unwanted: VecDeque<Unwanted>,
}

/// What is to be removed from the engine.
pub(crate) enum Unwanted {
    /// The mark of a guard that was dropped.
    Mark(Arc<Held>),
    /// What lies under a key, if it is of our lease and nobody's.
    Ghost(String),
}

impl Live {
    pub(crate) fn begin(&mut self, attempt: u64) {
        self.attempts.insert(attempt);
    }

    pub(crate) fn end(&mut self, attempt: u64) {
        self.attempts.remove(&attempt);
    }

    pub(crate) fn hold(&mut self, held: &Arc<Held>) {
        self.held.insert(held.seq, Arc::clone(held));
        self.by_key.entry(held.key.clone()).or_default().push(Arc::clone(held));
    }

    pub(crate) fn release(&mut self, seq: u64) -> Option<Arc<Held>> {
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
    pub(crate) fn knows(&self, seq: u64, token: Token) -> bool {
        let held = self.held.get(&seq).is_some_and(|held| held.token == token);
        held || self.attempts.contains(&seq)
    }

    /// Those that guards hold.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.held.values().filter(|held| !held.is_let_go())
    }

    pub(crate) fn of(&self, key: &str) -> Vec<Arc<Held>> {
        self.by_key.get(key).cloned().unwrap_or_default()
    }
}

/// A mark that a guard holds.
pub(crate) struct Held {
    pub(crate) key: String,
    pub(crate) seq: u64,
    pub(crate) token: Token,
    /// When its key was last written.
    modified: AtomicU64,
    is_displaced: AtomicBool,
    pub(crate) displaced: Notify,
    /// Its guard lets it go: nobody displaces it any more.
    is_let_go: AtomicBool,
    pulse: Mutex<Option<Sign>>,
}

impl Held {
    pub(crate) fn new(key: &str, seq: u64, token: Token, sign: Option<Sign>) -> Self {
        Self {
            key: key.to_owned(),
            seq,
            token,
            modified: AtomicU64::new(token.revision()),
            is_displaced: AtomicBool::new(false),
            displaced: Notify::new(),
            is_let_go: AtomicBool::new(false),
            pulse: Mutex::new(sign),
        }
    }

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

    /// Takes up the pulse of a context that replaces the one before. Returns what is told of it.
    pub(crate) fn replace_pulse<C: Context>(&self, context: &C, opened: Instant) -> Option<Beat> {
        let sign = Sign::of(context, false);
        let beat = sign.as_ref().and_then(|sign| sign.beat(opened));
        *self.pulse.lock().unwrap_or_else(PoisonError::into_inner) = sign;
        beat
    }

    /// What is told of its pulse, if it has one that counts.
    pub(crate) fn beat(&self, opened: Instant) -> Option<Beat> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|sign| sign.beat(opened))
    }

    /// Whether a value that was written then is this mark's. The number alone does not tell: a write that came twice may have
    /// made the same mark again, after somebody else had taken and cleared it.
    pub(crate) fn is(&self, value: &MarkValue, lease: Lease, written_at: Revision) -> bool {
        value.is(lease, self.seq) && value.token(written_at) == self.token
    }

    pub(crate) fn let_go(&self) {
        // Relaxed (no edge): as above.
        self.is_let_go.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_let_go(&self) -> bool {
        // Relaxed (no edge): as above.
        self.is_let_go.load(Ordering::Relaxed)
    }

    pub(crate) fn written(&self, revision: Revision) {
        // Relaxed (no edge): as above.
        self.modified.fetch_max(revision, Ordering::Relaxed);
    }
}

/// An owner's pulse, as it is told to the others.
pub(crate) struct Sign {
    pulse: Pulse,
    since: Instant,
    /// Nobody may have this pulse: a reaper's claim came with it. It counts from its first beat on.
    awaits_a_beat: bool,
}

impl Sign {
    pub(crate) fn of<C: Context>(context: &C, awaits_a_beat: bool) -> Option<Self> {
        let pulse = context.pulse()?.clone();
        Some(Self { pulse, since: Instant::now(), awaits_a_beat })
    }

    /// What is told of the pulse, if it counts. Its beats are counted from when the session was opened.
    pub(crate) fn beat(&self, opened: Instant) -> Option<Beat> {
        let age = self.pulse.age();
        let at = opened.elapsed().checked_sub(age).unwrap_or(Duration::ZERO);
        let counts = !self.awaits_a_beat || age < self.since.elapsed();
        counts.then(|| Beat { age: milliseconds(age), at: milliseconds(at) })
    }
}
