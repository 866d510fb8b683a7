//! One slot in the manner of the map, with a mistake built in on request.
//!
//! It stands on what the models stand on: the turnstile's atomic, crossbeam-epoch, the probe.

use crossbeam_epoch::{Guard, Owned, Pointer, Shared};
use livemark::model::{AtomicUsize, Participant};
use loom::sync::atomic::Ordering;
use loom_tests::{Name, Probe};

/// What is wrong with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Nothing: the control, which must pass where the mistakes fail.
    None,
    /// Publishes an entry without release.
    RelaxedPublish,
    /// Frees what it unlinks without waiting for its readers.
    FreeAtOnce,
    /// Never frees what it unlinks.
    Leak,
    /// Clears whatever mark it finds.
    ClearIgnoresGeneration,
    /// Looks at the generation only where its first attempt failed.
    ClearComparesOnRetriesOnly,
    /// Reads an entry after its guard was dropped.
    ReadAfterGuard,
}

struct Entry {
    generation: u64,
    value: Probe,
}

/// Empty (0), or a pointer to an entry.
pub(crate) struct Slot {
    word: AtomicUsize,
    mistake: Mistake,
}

impl Slot {
    pub(crate) fn new(mistake: Mistake) -> Self {
        Self { word: AtomicUsize::new(0), mistake }
    }

    /// Publishes a mark, in the place of an earlier one.
    pub(crate) fn mark(&self, generation: u64, name: Name, guard: &Guard) {
        let order = if self.mistake == Mistake::RelaxedPublish { Ordering::Relaxed } else { Ordering::AcqRel };
        loop {
            let seen = self.word.load(Ordering::Acquire);
            // After the load: the fence in `pin` releases what was written before it.
            let new = Owned::new(Entry { generation, value: Probe::new(name) }).into_usize();
            if self.word.compare_exchange(seen, new, order, Ordering::Relaxed).is_ok() {
                return self.retire(seen, guard);
            }
            // SAFETY: made above, and not published after all.
            drop(unsafe { Shared::<'_, Entry>::from_usize(new).into_owned() });
        }
    }

    /// Clears the mark of `generation`.
    pub(crate) fn clear(&self, generation: u64, guard: &Guard) {
        for attempt in 0.. {
            let seen = self.word.load(Ordering::Acquire);
            let trusting = match self.mistake {
                Mistake::ClearIgnoresGeneration => true,
                Mistake::ClearComparesOnRetriesOnly => attempt == 0,
                _ => false,
            };
            // SAFETY: loaded under `guard`.
            match unsafe { entry(seen, guard) } {
                Some(entry) if trusting || entry.generation == generation => {}
                _ => return,
            }
            if self.word.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return self.retire(seen, guard);
            }
        }
    }

    /// The value of the mark.
    pub(crate) fn owner(&self, me: &Participant) -> Option<Name> {
        let guard = me.pin();
        let seen = self.word.load(Ordering::Acquire);
        let guard = (self.mistake != Mistake::ReadAfterGuard).then_some(guard);
        // SAFETY: loaded under `guard`; or not, by mistake: the search ends where loom sees that it matters, before
        // an order of steps in which the memory is gone.
        let value = unsafe { entry(seen, &guard) }.map(|entry| entry.value.read());
        drop(guard);
        value
    }

    fn retire(&self, word: usize, guard: &Guard) {
        if word == 0 || self.mistake == Mistake::Leak {
            return;
        }
        // SAFETY: a word other than 0 came from an `Owned<Entry>`, and this thread took it out of the slot.
        let entry = unsafe { Shared::<'_, Entry>::from_usize(word).into_owned() };
        if self.mistake == Mistake::FreeAtOnce {
            return drop(entry);
        }
        // SAFETY: unlinked for good; the closure owns it.
        unsafe { guard.defer_unchecked(move || drop(entry)) };
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // A second panic would abort, and hide the first one's message.
        if std::thread::panicking() {
            return;
        }
        let word = self.word.load(Ordering::Acquire);
        if word != 0 {
            // SAFETY: a word other than 0 came from an `Owned<Entry>`; nobody else has the slot.
            drop(unsafe { Shared::<'_, Entry>::from_usize(word).into_owned() });
        }
    }
}

/// # Safety
///
/// `word` was loaded from a slot under the guard in `_guard`.
unsafe fn entry<G>(word: usize, _guard: &G) -> Option<&Entry> {
    // SAFETY: a word other than 0 came from an `Owned<Entry>`, which is not freed while the guard lives.
    (word != 0).then(|| unsafe { Shared::<'_, Entry>::from_usize(word).deref() })
}
