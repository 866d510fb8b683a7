//! Job ids and values that loom can see.
//!
//! With plain integers in the entries, loom passes maps that free at once, never free, or publish without release.

use std::borrow::Borrow;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use loom::alloc::Track;
use loom::cell::UnsafeCell;

/// What a probe is told apart by, in the outcomes.
pub type Name = char;

/// A value that reports to loom when it is read and when it is dropped.
///
/// Loom fails the model if the two can happen in either order (a use after free), if a read may come before the
/// probe was made (published too early), and if it is never dropped (a leak).
#[derive(Debug)]
pub struct Probe {
    /// None once it was dropped.
    name: UnsafeCell<Option<Name>>,
    _allocation: Track<()>,
}

// SAFETY: the cell is written by `drop` alone. That no read runs at the same time is what loom checks.
unsafe impl Sync for Probe {}

impl Probe {
    /// A live probe.
    #[must_use]
    pub fn new(name: Name) -> Self {
        Self { name: UnsafeCell::new(Some(name)), _allocation: Track::new(()) }
    }

    /// Its name; the read is one that loom sees.
    #[must_use]
    pub fn read(&self) -> Name {
        // SAFETY: the pointer is valid while `self` is, and loom has checked that nothing writes meanwhile.
        self.name.with(|name| unsafe { *name }).expect("a probe was read after its drop")
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self::new(self.read())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // A second panic would abort, and hide the first one's message.
        if !std::thread::panicking() {
            // SAFETY: as in `read`; loom has checked that nothing reads or writes meanwhile.
            let name = self.name.with_mut(|name| unsafe { (*name).take() });
            assert!(name.is_some(), "a probe was dropped twice");
        }
    }
}

/// A job id: to compare one is to read its probe, so that loom sees every look-up that ends at an entry.
#[derive(Clone, Debug)]
pub struct Job {
    id: u64,
    probe: Probe,
}

impl Job {
    /// The id.
    #[must_use]
    pub fn id(&self) -> u64 {
        *self.borrow()
    }
}

impl From<u64> for Job {
    fn from(id: u64) -> Self {
        Self { id, probe: Probe::new('j') }
    }
}

impl Borrow<u64> for Job {
    fn borrow(&self) -> &u64 {
        let _ = self.probe.read();
        &self.id
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        <Self as Borrow<u64>>::borrow(self) == <Self as Borrow<u64>>::borrow(other)
    }
}

impl Eq for Job {}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        <Self as Borrow<u64>>::borrow(self).cmp(other.borrow())
    }
}

impl Hash for Job {
    fn hash<H: Hasher>(&self, state: &mut H) {
        <Self as Borrow<u64>>::borrow(self).hash(state);
    }
}

/// Hashes a job id to itself, so that a model chooses the slots: odd ids share one, even ids the other.
pub type ById = BuildHasherDefault<IdHasher>;

/// The state of [`ById`].
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("job ids are hashed as u64");
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
