//! An owned copy of all marks: [`Snapshot`]. Says whether it is of one instant.

use std::borrow::Borrow;
use std::fmt;

use crate::finalizer::Finalizer;
use crate::owner::Owner;

/// All marks of a registry, copied and sorted by job: made by [`Registry::snapshot`](crate::Registry::snapshot).
///
/// ```
/// # let registry: livemark::Registry<String, &str> = livemark::Registry::new();
/// let _guard = registry.mark("job-7".to_owned(), "run 1");
/// let snapshot = registry.snapshot();
/// assert_eq!(snapshot.len(), 1);
/// assert_eq!(snapshot.get("job-7").map(|owner| owner.value), Some("run 1"));
/// ```
#[derive(Clone)]
pub struct Snapshot<K = u64, V = Finalizer> {
    /// Sorted by job, each job once.
    owners: Vec<(K, Owner<V>)>,
    atomic: bool,
}

impl<K: Ord, V> Snapshot<K, V> {
    pub(super) fn new(mut owners: Vec<(K, Owner<V>)>, atomic: bool) -> Self {
        owners.sort_unstable_by(|(job, _), (other, _)| job.cmp(other));
        Self { owners, atomic }
    }
}

impl<K, V> Snapshot<K, V> {
    /// The jobs and their owners, in the order of the jobs.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// # let _guards = [registry.mark(8, "run 2"), registry.mark(7, "run 1")];
    /// let snapshot = registry.snapshot();
    /// let runs: Vec<_> = snapshot.iter().map(|(job, owner)| (*job, owner.value)).collect();
    /// assert_eq!(runs, [(7, "run 1"), (8, "run 2")]);
    /// ```
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &Owner<V>)> + DoubleEndedIterator {
        self.owners.iter().map(|(job, owner)| (job, owner))
    }

    /// How many jobs were marked.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let _guard = registry.mark(7, "run 1");
    /// let snapshot = registry.snapshot();
    /// assert_eq!((snapshot.len(), registry.len()), (1, 1));
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether no job was marked.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let before = registry.snapshot();
    /// let _guard = registry.mark(7, "run 1");
    /// assert!(before.is_empty(), "a copy: it stays as it was");
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Who owned `job`.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let guard = registry.mark(7, "run 1");
    /// let owner = registry.snapshot().get(&7).copied();
    /// assert_eq!(owner.map(|owner| owner.generation), Some(guard.generation()));
    /// ```
    #[must_use]
    pub fn get<Q>(&self, job: &Q) -> Option<&Owner<V>>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let place = self.owners.binary_search_by(|(other, _)| other.borrow().cmp(job)).ok()?;
        self.owners.get(place).map(|(_, owner)| owner)
    }

    /// Whether all of it was so at one instant.
    ///
    /// It is not where writers did not pause between two readings of the registry. Each entry is then of an instant of
    /// its own: when an owner moves its mark from one id to another, both may appear, or neither. A reading takes some
    /// microseconds, so registries that are not marked and cleared all the time nearly always give atomic snapshots.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// assert!(registry.snapshot().is_atomic(), "nobody writes");
    /// ```
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        self.atomic
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Snapshot<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("owners", &self.owners).field("atomic", &self.atomic).finish()
    }
}
