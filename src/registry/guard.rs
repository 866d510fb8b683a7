//! The guard of a mark: one implementation for the borrowed and the owned form. Its drop clears by generation, runs no
//! `Hash`, `Eq` or `Clone`, and so never frees a newer owner.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use super::{Occupied, Registry};
use crate::finalizer::Finalizer;
use crate::hasher::DefaultHashBuilder;
use crate::map::{Entry, Inserted, Refused};
use crate::owner::{Generation, Owner};
use crate::reclaim;
use crate::trace;
use crate::unwind::drop_quietly;

/// The guard of a mark, borrowing its registry: see [`Guard`].
///
/// `Send` and `Sync`; of a `static` registry also `'static`.
///
/// ```
/// use livemark::{Finalizer, MarkGuard, Registry};
///
/// static FINALIZING: Registry = Registry::new();
///
/// fn begin(job: u64) -> MarkGuard<'static> {
///     FINALIZING.mark(job, Finalizer::new(None, "merge"))
/// }
/// let guard = begin(7);
/// std::thread::spawn(move || drop(guard)).join().expect("the thread ends well");
/// assert!(FINALIZING.is_empty());
/// ```
pub type MarkGuard<'r, K = u64, V = Finalizer, S = DefaultHashBuilder> = Guard<&'r Registry<K, V, S>, K>;

/// The guard of a mark that keeps its registry alive: see [`Guard`].
///
/// `Send + 'static`, so that it lives across `.await` and in spawned tasks: when a task is cancelled, its
/// future is dropped and with it the mark. Costs an `Arc` clone more than [`MarkGuard`].
///
/// ```
/// use std::sync::Arc;
/// use livemark::{Finalizer, OwnedMarkGuard, Registry};
///
/// struct Run {
///     _mark: OwnedMarkGuard, // no lifetime: the guard keeps its registry
/// }
/// let registry: Arc<Registry> = Arc::default();
/// let run = Run { _mark: registry.mark_owned(7, Finalizer::new(None, "merge")) };
/// assert!(registry.is_active(&7));
/// # drop(run);
/// ```
pub type OwnedMarkGuard<K = u64, V = Finalizer, S = DefaultHashBuilder> = Guard<Arc<Registry<K, V, S>>, K>;

/// How a guard holds its registry: by reference, or by `Arc`. Sealed.
///
/// ```
/// use livemark::{Guard, Handle};
///
/// /// For guards of either form.
/// fn commit<R: Handle<Job = u64>>(guard: Guard<R, u64>) -> Result<(), &'static str> {
///     if guard.is_current() { Ok(()) } else { Err("taken over") }
/// }
/// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
/// assert!(commit(registry.mark(7, ())).is_ok());
/// ```
pub trait Handle: Deref<Target = Registry<Self::Job, Self::Value, Self::Hasher>> + sealed::Sealed {
    /// The registry's job ids.
    type Job: 'static;
    /// The registry's context values.
    type Value;
    /// The registry's hasher.
    type Hasher;
}

impl<K: 'static, V, S> Handle for &Registry<K, V, S> {
    type Job = K;
    type Value = V;
    type Hasher = S;
}

impl<K: 'static, V, S> Handle for Arc<Registry<K, V, S>> {
    type Job = K;
    type Value = V;
    type Hasher = S;
}

mod sealed {
    pub trait Sealed {}
    impl<K, V, S> Sealed for &super::Registry<K, V, S> {}
    impl<K, V, S> Sealed for std::sync::Arc<super::Registry<K, V, S>> {}
}

/// A held mark: cleared when this is dropped, by return, by `?`, by panic, with a cancelled task.
///
/// The form that borrows its registry is called [`MarkGuard`], the one that owns it [`OwnedMarkGuard`].
///
/// A guard clears *its own* mark only: if the job has been taken over or cleared since, dropping it changes nothing (it
/// counts as a [stale clear](super::RegistryStats::stale_clears)). The release runs no `Hash`, `Eq` or `Clone` of the
/// user's, so that it cannot panic (only a `tracing` subscriber, or the job id's own `Drop`, could), and is lock-free.
/// A guard that is leaked ([`std::mem::forget`]) holds its mark until the reaper's backstop takes the job over.
///
/// Bind it to a name: `let _ = registry.mark(..)` clears the mark at once, which only rustc's opt-in lint
/// `let_underscore_drop` warns of.
///
/// ```
/// use livemark::Registry;
///
/// static FINALIZING: Registry<u64, &str> = Registry::new();
///
/// fn finalize(job: u64) -> Result<(), &'static str> {
///     let guard = FINALIZING.mark(job, "run 1");
///     run_the_gates()?; // the mark is cleared here as well
///     if !guard.is_current() {
///         return Err("another run took over");
///     }
///     Ok(()) // commit, by compare-and-set
/// }
/// # fn run_the_gates() -> Result<(), &'static str> { Err("red") }
/// assert!(finalize(7).is_err());
/// assert!(!FINALIZING.is_active(&7));
/// ```
#[must_use = "dropping the guard clears the mark at once: bind it to a name, not to `_`"]
#[clippy::has_significant_drop]
pub struct Guard<R, K>
where
    R: Handle<Job = K>,
    K: 'static,
{
    registry: R,
    // Not `R::Job`: a projection would make the guard invariant in the registry's lifetime.
    job: K,
    /// Kept so that a release needs no `Hash` of the user's, which might panic.
    hash: u64,
    generation: Generation,
    marked_at: Instant,
    /// Set by `clear`, whose second release would count as a stale clear.
    released: bool,
}

impl<R, K> Guard<R, K>
where
    R: Handle<Job = K>,
    K: 'static,
{
    /// The job that is marked.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
    /// assert_eq!(registry.mark(7, ()).job(), &7);
    /// ```
    pub fn job(&self) -> &K {
        &self.job
    }

    /// The fencing token of this mark, for a job store that compares it.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let guard = registry.mark(7, "run 1");
    /// let update = format!("UPDATE jobs SET fence = {0} WHERE id = 7 AND fence < {0}", guard.generation());
    /// # drop(update);
    /// ```
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether this mark still stands: neither displaced, by a `mark` or by the reaper's backstop, nor cleared.
    ///
    /// Ask before committing. The answer may be outdated a moment later: the job store's own compare-and-set
    /// has the last word. Linearizes at the load of the job's slot; lock-free.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let monitor = registry.mark(7, "run 1");
    /// assert!(monitor.is_current());
    /// let reaper = registry.mark(7, "reaper");
    /// assert!(!monitor.is_current());
    /// # drop(reaper);
    /// ```
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.registry.is_current(self.hash, self.generation)
    }

    /// Clears the mark now. Says whether it still stood.
    ///
    /// Linearizes at the compare-exchange, or at the load of the slot where the mark is gone.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let first = registry.mark(7, "run 1");
    /// let second = registry.mark(7, "run 2");
    /// assert!(!first.clear());
    /// assert!(second.clear());
    /// ```
    pub fn clear(mut self) -> bool {
        self.released = true;
        self.release()
    }

    fn release(&self) -> bool {
        let cleared = self.registry.release(self.hash, self.generation);
        if cleared {
            trace::cleared(&self.job, self.generation);
        } else {
            trace::stale_clear(&self.job, self.generation);
        }
        cleared
    }
}

impl<R, K> Guard<R, K>
where
    R: Handle<Job = K>,
    K: Clone + Eq + Hash + Send + Sync + 'static,
    R::Value: Clone + Send + Sync + 'static,
    R::Hasher: BuildHasher,
{
    pub(super) fn mark(registry: R, job: K, value: R::Value) -> Self {
        let hash = registry.hash(&job);
        let marked_at = Instant::now();
        let inserted = registry.map.insert(Self::entry(hash, &job, marked_at, value), &reclaim::pin_for_write());
        if inserted.displaced {
            registry.displaced.increment();
        }
        Self::marked(registry, job, hash, marked_at, &inserted)
    }

    /// Marks an unowned job, or one whose owner is the `displaceable` one.
    pub(super) fn try_mark(
        registry: R,
        job: K,
        value: R::Value,
        displaceable: Option<Generation>,
    ) -> Result<Self, Occupied<R::Value>> {
        let hash = registry.hash(&job);
        let guard = reclaim::pin_for_write();
        // A refusal allocates nothing.
        let other = registry.map.table().and_then(|table| table.find(hash, &job, &guard));
        if let Some(other) = other {
            if Some(other.owner.generation) != displaceable {
                return Err(Occupied { owner: other.owner.clone(), value });
            }
        }
        let marked_at = Instant::now();
        match registry.map.try_insert(Self::entry(hash, &job, marked_at, value), displaceable, &guard) {
            Ok(inserted) => {
                drop(guard);
                if inserted.displaced {
                    registry.displaced.increment();
                }
                Ok(Self::marked(registry, job, hash, marked_at, &inserted))
            }
            Err(Refused { entry, owner }) => {
                let owner = owner.clone();
                // The rest of the entry is dropped below: users' destructors run when the thread is not pinned.
                drop(guard);
                Err(Occupied { owner, value: entry.owner.value })
            }
        }
    }

    /// The guard first, then the report: a subscriber that panics must not leave a mark without a guard.
    fn marked(registry: R, job: K, hash: u64, marked_at: Instant, inserted: &Inserted) -> Self {
        let Inserted { generation, displaced } = *inserted;
        let guard = Self { registry, job, hash, generation, marked_at, released: false };
        trace::marked(&guard.job, generation, displaced);
        guard
    }

    fn entry(hash: u64, job: &K, marked_at: Instant, value: R::Value) -> Box<Entry<K, R::Value>> {
        Entry::new(hash, job.clone(), Owner { generation: Generation::UNDRAWN, marked_at, value })
    }

    /// Puts another context in the place of this mark's, in one step: a hand-over to the next stage, say. The
    /// generation and the time of the mark stay. Says whether the mark still stood; if not, nothing changes.
    ///
    /// Readers see the old value or the new one, and never an unmarked job between them.
    /// Linearizes at the compare-exchange. Lock-free; allocates once.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let guard = registry.mark(7, "gates");
    /// assert!(guard.replace("merge"));
    /// let owner = registry.owner(&7).expect("job 7 is marked");
    /// assert_eq!((owner.value, owner.generation), ("merge", guard.generation()));
    /// ```
    pub fn replace(&self, value: R::Value) -> bool {
        let owner = Owner { generation: self.generation, marked_at: self.marked_at, value };
        let entry = Entry::new(self.hash, self.job.clone(), owner);
        let replaced = self.registry.map.replace(entry, &reclaim::pin_for_write());
        // No longer pinned: what was not put in is dropped here.
        replaced.map_err(|refused| drop_quietly(|| drop(refused))).is_ok()
    }
}

impl<K, V, S> MarkGuard<'_, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// The same mark in a guard that keeps the registry alive: to move a verdict's claim into a task, say.
    ///
    /// The mark stands throughout. Clones the job id.
    ///
    /// # Errors
    ///
    /// Gives the guard back if it is of another registry than this.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use livemark::{OwnedMarkGuard, Registry};
    ///
    /// let registry: Arc<Registry<u64, &str>> = Arc::new(Registry::new());
    /// let claim = registry.mark(7, "reaper");
    /// let claim: OwnedMarkGuard<u64, &str> = claim.into_owned(&registry).expect("the claim is of this registry");
    /// assert!(claim.is_current());
    /// ```
    pub fn into_owned(mut self, registry: &Arc<Registry<K, V, S>>) -> Result<OwnedMarkGuard<K, V, S>, Self> {
        if !std::ptr::eq(self.registry, Arc::as_ptr(registry)) {
            return Err(self);
        }
        let job = self.job.clone();
        self.released = true; // by the other guard, later
        let registry = Arc::clone(registry);
        Ok(Guard {
            registry,
            job,
            hash: self.hash,
            generation: self.generation,
            marked_at: self.marked_at,
            released: false,
        })
    }
}

impl<R, K> Drop for Guard<R, K>
where
    R: Handle<Job = K>,
    K: 'static,
{
    fn drop(&mut self) {
        if !self.released {
            self.release();
        }
    }
}

impl<R, K> fmt::Debug for Guard<R, K>
where
    R: Handle<Job = K>,
    K: fmt::Debug + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("job", &self.job).field("generation", &self.generation).finish_non_exhaustive()
    }
}
