//! A claim that was refused: [`OccupiedError`].

use std::fmt;

use crate::context::Finalizer;
use crate::owner::Owner;

/// The refusal of [`Registry::try_mark`](crate::Registry::try_mark). It has the job's owner, and gives the value back.
///
/// ```
/// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
/// let _guard = registry.mark(7, "monitor");
/// let refused = registry.try_mark(7, "helper").unwrap_err();
/// assert_eq!((refused.owner.value, refused.value), ("monitor", "helper"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OccupiedError<V = Finalizer> {
    /// The owner that held the mark at that instant.
    pub owner: Owner<V>,
    /// The value that the mark was to have.
    pub value: V,
}

impl<V> fmt::Display for OccupiedError<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the job is marked already, by generation {}", self.owner.generation)
    }
}

impl<V: fmt::Debug> std::error::Error for OccupiedError<V> {}
