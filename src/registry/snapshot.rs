//! An owned copy of all marks: [`Snapshot`].

use std::borrow::Borrow;
use std::fmt;

use crate::context::Finalizer;
use crate::owner::Owner;

/// A copy of all marks of a registry, sorted by job. [`Registry::snapshot`](crate::Registry::snapshot) makes it.
///
/// ```
/// # let registry: livemark::Registry<String, &str> = livemark::Registry::new();
/// let _guard = registry.mark("job-7".to_owned(), "run 1");
/// let snapshot = registry.snapshot();
/// assert_eq!(snapshot.len(), 1);
/// assert_eq!(snapshot.get("job-7").map(|owner| owner.value), Some("run 1"));
/// ```
///
/// If the `Ord` of the job ids is no total order, they come out in some order, and [`get`](Self::get) may miss them.
#[derive(Clone)]
pub struct Snapshot<K = u64, V = Finalizer> {
    /// Sorted by job, each job once.
    owners: Vec<(K, Owner<V>)>,
    atomic: bool,
}

impl<K: Ord, V> Snapshot<K, V> {
    pub(super) fn new(owners: Vec<(K, Owner<V>)>, atomic: bool) -> Self {
        Self { owners: sorted(owners), atomic }
    }
}

/// Sorts by job, by merging. The sorts of `std` may panic where an `Ord` is no total order.
fn sorted<K: Ord, V>(mut left: Vec<(K, Owner<V>)>) -> Vec<(K, Owner<V>)> {
    let len = left.len();
    if left.is_sorted_by(|(job, _), (next, _)| job.cmp(next).is_le()) {
        return left;
    }
    // Each half is sorted by itself.
    let right = sorted(left.split_off(len / 2));
    let left = sorted(left);
    // The lesser of the two first entries goes next, the left one if they are equal.
    let mut merged = Vec::with_capacity(len);
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some((job, _)), Some((other, _))) = (left.peek(), right.peek()) {
        merged.extend(if other.cmp(job).is_lt() { right.next() } else { left.next() });
    }
    // One half is empty now.
    merged.extend(left);
    merged.extend(right);
    merged
}

/// An iterator over the jobs of a [`Snapshot`] and their owners, in the order of the jobs. [`Snapshot::iter`] makes it.
///
/// ```
/// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
/// # let _guards = [registry.mark(8, "run 2"), registry.mark(7, "run 1")];
/// let snapshot = registry.snapshot();
/// let mut jobs = snapshot.iter();
/// assert_eq!((jobs.len(), jobs.next_back().map(|(job, _)| *job)), (2, Some(8)));
/// ```
#[derive(Debug)]
pub struct SnapshotIter<'a, K, V>(std::slice::Iter<'a, (K, Owner<V>)>);

impl<K, V> Clone for SnapshotIter<'_, K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<'a, K, V> Iterator for SnapshotIter<'a, K, V> {
    type Item = (&'a K, &'a Owner<V>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(job, owner)| (job, owner))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<K, V> DoubleEndedIterator for SnapshotIter<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(|(job, owner)| (job, owner))
    }
}

impl<K, V> ExactSizeIterator for SnapshotIter<'_, K, V> {}
impl<K, V> std::iter::FusedIterator for SnapshotIter<'_, K, V> {}

/// Iterates as [`Snapshot::iter`] does.
impl<'a, K, V> IntoIterator for &'a Snapshot<K, V> {
    type Item = (&'a K, &'a Owner<V>);
    type IntoIter = SnapshotIter<'a, K, V>;

    fn into_iter(self) -> SnapshotIter<'a, K, V> {
        self.iter()
    }
}

impl<K, V> Snapshot<K, V> {
    /// Returns the jobs and their owners, in the order of the jobs. A `for` loop over `&snapshot` does so as well.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// # let _guards = [registry.mark(8, "run 2"), registry.mark(7, "run 1")];
    /// let snapshot = registry.snapshot();
    /// let runs: Vec<_> = snapshot.iter().map(|(job, owner)| (*job, owner.value)).collect();
    /// assert_eq!(runs, [(7, "run 1"), (8, "run 2")]);
    /// ```
    #[must_use]
    pub fn iter(&self) -> SnapshotIter<'_, K, V> {
        SnapshotIter(self.owners.iter())
    }

    /// Returns how many jobs were marked.
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

    /// Returns `true` if no job was marked.
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

    /// Returns the owner of `job`, if it had one.
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

    /// Returns `true` if all entries held at one common instant. Returns `false` if writers kept two consecutive passes
    /// from agreeing. Each entry then held at some instant during the call.
    ///
    /// When an owner moves its mark from one id to another, a snapshot that is not atomic may have both, or neither. A
    /// pass takes some microseconds, so registries that are not marked and cleared all the time nearly always give
    /// atomic snapshots.
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
