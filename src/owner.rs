//! Who holds a mark: [`Owner`], and the fencing token that tells one mark from the next, [`Generation`].

use std::fmt;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::context::Finalizer;

/// The fencing token of a mark.
///
/// Every mark has a generation of its own, which its registry never uses again. A job's later mark has a greater
/// generation. So a late release by an earlier owner can be told from the current owner's. A job store that remembers
/// the greatest generation it has seen can refuse a displaced owner's writes (Kleppmann, "How to do distributed
/// locking", 2016).
///
/// Generations of *different* jobs do not say which was marked first. A job's own generations do not go up by one,
/// because several jobs share a counter. They start again in a new process. A job store that keeps them must forget them
/// when it requeues what was running before.
///
/// ```
/// use livemark::Registry;
///
/// let registry: Registry<u64, &str> = Registry::new();
/// let first = registry.mark(7, "run 1").generation();
/// let second = registry.mark(7, "run 2").generation();
/// assert!(second > first);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Generation(NonZeroU64);

impl Generation {
    /// The generation of an entry that has not been published yet.
    pub(crate) const UNDRAWN: Self = Self(NonZeroU64::MIN);

    /// Returns the generation as a number, for logs and for a job store's fencing column.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
    /// let guard = registry.mark(7, ());
    /// assert_eq!(guard.generation().get().to_string(), guard.generation().to_string());
    /// ```
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// Converts a number that [`Generation::get`] returned, and that came in a message say.
impl From<NonZeroU64> for Generation {
    fn from(number: NonZeroU64) -> Self {
        Self(number)
    }
}

impl From<Generation> for NonZeroU64 {
    fn from(generation: Generation) -> Self {
        generation.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The owner of a job, as its mark says: the generation, the time, and the context.
///
/// ```
/// use livemark::{Finalizer, Registry};
///
/// let registry: Registry = Registry::new();
/// let guard = registry.mark(7, Finalizer::new(Some(1), "deploy"));
/// let owner = registry.owner(&7).expect("job 7 is marked");
/// assert_eq!(owner.generation, guard.generation());
/// assert_eq!(&*owner.value.stage, "deploy");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owner<V = Finalizer> {
    /// The fencing token of the mark.
    pub generation: Generation,
    /// The context given with the mark.
    pub value: V,
    marked_at: Instant,
}

impl<V> Owner<V> {
    pub(crate) fn new(generation: Generation, marked_at: Instant, value: V) -> Self {
        Self { generation, value, marked_at }
    }

    /// Returns when the job was marked. A [`replace`](crate::MarkGuard::replace) keeps it.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let guard = registry.mark(7, "gates");
    /// let marked_at = registry.owner(&7).expect("job 7 is marked").marked_at();
    /// guard.replace("merge");
    /// assert_eq!(registry.owner(&7).expect("job 7 is marked").marked_at(), marked_at);
    /// ```
    #[must_use]
    pub fn marked_at(&self) -> Instant {
        self.marked_at
    }

    /// Returns how long the mark has been held.
    ///
    /// The clock is monotonic. If it went backwards all the same, the age is zero.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
    /// let _guard = registry.mark(7, ());
    /// let age = registry.owner(&7).expect("job 7 is marked").age();
    /// assert!(age.as_secs() < 3600);
    /// ```
    #[must_use]
    pub fn age(&self) -> Duration {
        self.marked_at.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_from_the_future_has_age_zero() {
        let later = Instant::now().checked_add(Duration::from_secs(3600)).unwrap();
        assert_eq!(Owner::new(Generation::UNDRAWN, later, ()).age(), Duration::ZERO);
    }
}
