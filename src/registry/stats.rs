//! What a registry counts: [`RegistryStats`]. Exact while nobody writes.

/// What a registry has counted since it was made.
///
/// Exact while nobody writes. Otherwise the numbers may be of different instants.
///
/// ```
/// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
/// let first = registry.mark(7, ());
/// let second = registry.mark(7, ()); // displaces the first
/// drop(first); // clears nothing: the mark is the second's
/// let stats = registry.stats();
/// assert_eq!((stats.marks, stats.displaced, stats.stale_clears), (2, 1, 1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RegistryStats {
    /// Marks made, by `mark` and `try_mark`. A mark under way counts already, and is taken off again for a moment if
    /// another write to its slot comes first.
    pub marks: u64,
    /// Marks that took a job over from an earlier owner.
    pub displaced: u64,
    /// Clears of a generation that had been displaced or cleared before: they changed nothing.
    pub stale_clears: u64,
}
