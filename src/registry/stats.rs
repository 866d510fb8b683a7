//! What a registry counts: [`RegistryStats`].

/// The counts of a registry since it was made. [`Registry::stats`](crate::Registry::stats) returns them.
///
/// They are exact while nobody writes. Otherwise they may be of different instants.
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
    /// Marks made, by `mark` and `try_mark`. A mark under way counts already. If another write to its slot comes first,
    /// the mark is taken off again for a moment.
    pub marks: u64,
    /// Marks that took a job over from an earlier owner.
    pub displaced: u64,
    /// Clears of a generation that had been displaced or cleared before. They changed nothing.
    pub stale_clears: u64,
}
