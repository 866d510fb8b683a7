//! A pinned reading session: [`Reader`]. Its look-ups see the newest state, wait for nobody, and neither allocate nor
//! free.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};

use super::Registry;
use crate::finalizer::Finalizer;
use crate::hasher::DefaultHashBuilder;
use crate::map::Table;
use crate::owner::Owner;
use crate::reclaim::{self, EpochGuard};

/// A reading session for a hot loop, made by [`Registry::reader`].
///
/// It is pinned for as long as it lives, and repins at its next look-up when a writer has handed garbage over: a
/// look-up has no read-modify-write. Every call sees the newest state, no call allocates or frees anything, and none
/// waits. A reader that lives but is not used holds back the freeing of all that is cleared meanwhile: keep it for a
/// loop, not for ever. And one at a time: of two readers that one thread has, even in use, neither can repin.
///
/// Not `Send`: it belongs to the thread that made it.
///
/// ```
/// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
/// let mut reader = registry.reader();
/// let guard = registry.mark(7, "run 1");
/// assert!(reader.is_active(&7), "each call sees the newest state");
/// drop(guard);
/// assert!(!reader.is_active(&7));
/// ```
///
/// What it lends ends with the next look-up, and it stays on its thread:
///
/// ```compile_fail,E0499
/// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
/// let mut reader = registry.reader();
/// let first = reader.owner(&7);
/// let second = reader.owner(&8);
/// assert!(first.is_none() && second.is_none());
/// ```
///
/// ```
/// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
/// let mut reader = registry.reader();
/// let first = reader.owner(&7).cloned();
/// let second = reader.owner(&8);
/// assert!(first.is_none() && second.is_none());
/// ```
///
/// ```compile_fail,E0277
/// static REGISTRY: livemark::Registry<u64, &str> = livemark::Registry::new();
/// let mut reader = REGISTRY.reader();
/// std::thread::spawn(move || reader.is_active(&7));
/// ```
///
/// ```
/// static REGISTRY: livemark::Registry<u64, &str> = livemark::Registry::new();
/// std::thread::spawn(move || REGISTRY.reader().is_active(&7));
/// ```
pub struct Reader<'r, K = u64, V = Finalizer, S = DefaultHashBuilder> {
    registry: &'r Registry<K, V, S>,
    table: Table<'r, K, V>,
    guard: EpochGuard,
    /// How much had been retired when this was last pinned.
    retired: u64,
}

impl<'r, K, V, S> Reader<'r, K, V, S>
where
    K: Eq + Hash,
    S: BuildHasher,
{
    pub(super) fn new(registry: &'r Registry<K, V, S>) -> Self {
        // Before the pin: what is handed over between them lets it repin once too often.
        let retired = reclaim::handed_over();
        Self { registry, table: registry.shared.map.table_or_init(), guard: reclaim::pin(), retired }
    }

    /// Returns `true` if `job` is marked, as [`Registry::is_active`] does.
    ///
    /// Linearizes at the load of the job's slot; wait-free but for the depth of the map; allocates nothing.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
    /// # let _guard = registry.mark(7, ());
    /// let mut reader = registry.reader();
    /// let unowned = (0..100).filter(|job| !reader.is_active(job)).count();
    /// assert_eq!(unowned, 99);
    /// ```
    #[inline]
    pub fn is_active<Q>(&mut self, job: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.owner(job).is_some()
    }

    /// Returns who owns `job`, borrowed until the next call: nothing is copied. As [`is_active`](Self::is_active)
    /// otherwise.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let _guard = registry.mark(7, "run 1");
    /// let mut reader = registry.reader();
    /// assert_eq!(reader.owner(&7).map(|owner| owner.value), Some("run 1"));
    /// ```
    #[inline]
    pub fn owner<Q>(&mut self, job: &Q) -> Option<&Owner<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let hash = self.registry.hash(job);
        // Before the load: what is loaded below stays while this pin stands, which `&mut self` keeps it.
        // A model always repins.
        if reclaim::handed_over() != self.retired || crate::sync::LOOM {
            self.repin();
        }
        self.table.find(hash, job, &self.guard).map(|entry| &entry.owner)
    }

    /// Lets the collector pass now.
    #[cold]
    fn repin(&mut self) {
        self.retired = reclaim::handed_over();
        reclaim::repin(&mut self.guard);
    }
}

impl<K, V, S> fmt::Debug for Reader<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("registry", &self.registry).finish_non_exhaustive()
    }
}
