//! Look-ups in a loop, under one pin: [`Reader`].

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};

use super::registry::Registry;
use crate::context::Finalizer;
use crate::hasher::DefaultHashBuilder;
use crate::map::Table;
use crate::owner::Owner;
use crate::reclaim::{self, EpochGuard};

/// A reading session for a hot loop. [`Registry::reader`] makes it.
///
/// A reader stays pinned as long as it lives. It repins at its next look-up when a writer has retired memory, so a
/// look-up has no read-modify-write. Every call sees the newest state, and none waits, allocates or frees.
///
/// Keep at most one reader or sweep per thread. While a thread holds two, neither can repin, and nothing that is cleared
/// meanwhile is freed. A reader that is kept and not used holds this memory back as well.
///
/// A reader is not `Send`: it belongs to the thread that made it.
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
/// What a reader lends ends with its next look-up, and a reader stays on its thread:
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
    /// How much had been retired at the latest pin.
    retired: u64,
}

impl<K, V, S> Registry<K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    /// Creates a reading session for a hot loop. It pins once, which makes each look-up cheaper.
    ///
    /// While the reader lives and is little used, nothing that is cleared is freed. A reader is not `Send`.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
    /// # let _guard = registry.mark(7, ());
    /// let mut reader = registry.reader();
    /// let owned = (0..100).filter(|job| reader.is_active(job)).count();
    /// assert_eq!(owned, 1);
    /// ```
    pub fn reader(&self) -> Reader<'_, K, V, S> {
        Reader::new(self)
    }
}

impl<'r, K, V, S> Reader<'r, K, V, S>
where
    K: Eq + Hash,
    S: BuildHasher,
{
    fn new(registry: &'r Registry<K, V, S>) -> Self {
        // Read before the pin: what is retired in between then makes the reader repin once too often, not too seldom.
        let retired = reclaim::handed_over();
        Self { registry, table: registry.shared.map.table_or_init(), guard: reclaim::pin(), retired }
    }

    /// Returns `true` if `job` is marked, as [`Registry::is_active`] does.
    ///
    /// Linearizes at the load of the job's slot. Wait-free but for the depth of the map. Allocates nothing.
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

    /// Returns the job's owner, borrowed until the next call. Copies nothing.
    ///
    /// Linearizes and costs as [`is_active`](Self::is_active) does.
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
        // Repin before the load: what is loaded below lives as long as this pin, and `&mut self` keeps the pin.
        // A model always repins.
        if reclaim::handed_over() != self.retired || crate::sync::LOOM {
            self.repin();
        }
        self.table.find(hash, job, &self.guard).map(|entry| &entry.owner)
    }

    /// Lets the collector go on, now that the reader holds nothing.
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
