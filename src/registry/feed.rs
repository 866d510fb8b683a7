//! What a mirror writes to a registry: [`Feed`].

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::Instant;

use super::registry::Registry;
use crate::context::Finalizer;
use crate::hasher::DefaultHashBuilder;
use crate::map::{Entry, Inserted};
use crate::owner::{Generation, Owner};
use crate::reclaim;

/// Writes the marks of others into a registry that mirrors them. [`Registry::feed`] makes it.
///
/// Nobody in this process owns what it writes, so there are no guards. It sends no events, and the registry's
/// [`stats`](Registry::stats) do not count it. A registry is fed by one writer, and nobody else marks in it.
///
/// A fed mark has a generation of this registry. The number by which its owner is known elsewhere belongs into its
/// context.
///
/// ```
/// use std::time::Instant;
/// use livemark::Registry;
///
/// let mirror: Registry<u64, &str> = Registry::new();
/// let feed = mirror.feed();
/// feed.put(7, "host a, token 91", Instant::now());
/// assert_eq!(mirror.owner(&7).map(|owner| owner.value), Some("host a, token 91"));
/// assert!(feed.remove(&7));
/// assert_eq!((mirror.is_empty(), mirror.stats().marks), (true, 0));
/// ```
pub struct Feed<'r, K = u64, V = Finalizer, S = DefaultHashBuilder>(&'r Registry<K, V, S>);

impl<K, V, S> Registry<K, V, S> {
    /// Returns what writes the marks of others into this registry: see [`Feed`].
    ///
    /// ```
    /// # use std::time::Instant;
    /// # let mirror: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// mirror.feed().put(7, "host a", Instant::now());
    /// assert!(mirror.is_active(&7));
    /// ```
    #[must_use]
    pub fn feed(&self) -> Feed<'_, K, V, S> {
        Feed(self)
    }
}

impl<K, V, S> Feed<'_, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    /// Puts a job's owner in, who owns it since `marked_at`. Takes the place of another owner in one step. Returns the
    /// generation that the owner has in this registry.
    ///
    /// Linearizes at the compare-exchange that publishes the mark. Lock-free. Allocates once.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # let mirror: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// mirror.feed().put(7, "token 91", Instant::now());
    /// mirror.feed().put(7, "token 92", Instant::now());
    /// assert_eq!(mirror.owner(&7).map(|owner| owner.value), Some("token 92"));
    /// ```
    #[allow(clippy::must_use_candidate, reason = "most mirrors know their rows by the job")]
    pub fn put(&self, job: K, value: V, marked_at: Instant) -> Generation {
        let hash = self.0.hash(&job);
        let entry = Entry::new(hash, job, Owner::new(Generation::UNDRAWN, marked_at, value));
        let pin = reclaim::pin_for_write();
        let Inserted { generation, .. } = self.0.shared.map.insert(entry, &pin);
        self.0.shared.fed.increment();
        generation
    }

    /// Takes a job's owner out. Returns `true` if there was one.
    ///
    /// Linearizes at the compare-exchange, or at the load of the slot where the job is not marked. Lock-free.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # let mirror: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// mirror.feed().put(7, "token 91", Instant::now());
    /// assert!(mirror.feed().remove(&7));
    /// assert!(!mirror.feed().remove(&7));
    /// ```
    #[allow(clippy::must_use_candidate, reason = "most mirrors remove for the effect")]
    pub fn remove<Q>(&self, job: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let hash = self.0.hash(job);
        let pin = reclaim::pin_for_write();
        self.0.shared.map.remove(hash, &pin, |entry| entry.job.borrow() == job).is_some()
    }
}

impl<K, V, S> Clone for Feed<'_, K, V, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V, S> Copy for Feed<'_, K, V, S> {}

impl<K, V, S> fmt::Debug for Feed<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Feed").field(self.0).finish()
    }
}
