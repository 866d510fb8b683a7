//! A claim that was refused: [`Occupied`].

use std::fmt;

use crate::owner::Owner;

/// Why [`Registry::try_mark`](crate::Registry::try_mark) was refused: the job's owner, and the value given back.
///
/// ```
/// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
/// let _guard = registry.mark(7, "monitor");
/// let occupied = registry.try_mark(7, "reaper").unwrap_err();
/// assert_eq!((occupied.owner.value, occupied.value), ("monitor", "reaper"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupied<V> {
    /// Who held the mark at that instant.
    pub owner: Owner<V>,
    /// The value that was to be marked with.
    pub value: V,
}

impl<V> fmt::Display for Occupied<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the job is marked already, by generation {}", self.owner.generation)
    }
}

impl<V: fmt::Debug> std::error::Error for Occupied<V> {}
