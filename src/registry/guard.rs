//! The guard of a mark: [`MarkGuard`], one type for a registry that is borrowed and for one that is kept alive.
//!
//! The guard's drop clears by hash and generation. It runs no `Hash`, `Eq` or `Clone`, and never frees a newer owner.

use std::fmt;
use std::hash::Hash;
use std::time::Instant;

use super::error::OccupiedError;
use super::held::Held;
use crate::context::Finalizer;
use crate::map::{Entry, Inserted, Refused};
use crate::owner::{Generation, Owner};
use crate::reclaim;
use crate::show::Shown;
use crate::telemetry;
use crate::unwind;

/// A held mark. Dropping the guard clears the mark: on return, on `?`, on panic, with a canceled task.
///
/// A guard clears *its own* mark only. If the job was taken over or cleared since, dropping the guard changes nothing.
/// It then counts as a [stale clear](super::RegistryStats::stale_clears). The release is lock-free and runs no `Hash`,
/// `Eq` or `Clone` of the user's. A panic of a `tracing` subscriber does not get out of it. The job id's own `Drop` runs
/// after the release, and is the user's.
///
/// A guard of a borrowed registry lives as long as the borrow. A guard is `'static` if its registry is a `static`, or if
/// it keeps its registry alive: see [`OwnedMarkGuard`]. A guard is `Send` and `Sync`, and covariant in its lifetime.
///
/// If a guard is leaked ([`std::mem::forget`]), its mark stays until the reaper's backstop takes the job over. To hand a
/// mark on without its guard, [`detach`](Self::detach) the guard.
///
/// Bind the guard to a name. `let _ = registry.mark(..)` clears the mark at once, and only rustc's opt-in lint
/// `let_underscore_drop` warns of it.
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
pub struct MarkGuard<'r, K: 'static = u64, V = Finalizer> {
    registry: Held<'r, K, V>,
    job: K,
    /// Kept because the `Hash` of the user's might panic in a release.
    hash: u64,
    generation: Generation,
    /// Set by `clear`, which would otherwise release twice and count a stale clear, and by `detach`.
    released: bool,
    has_displaced: bool,
}

/// A [`MarkGuard`] that borrows nothing: its registry is a `static`, or the guard keeps it alive.
///
/// The guard is `Send + 'static`, so it lives across `.await` and in spawned tasks. A canceled task drops its future,
/// and with it the guard. Keeping the registry alive costs an `Arc` clone.
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
pub type OwnedMarkGuard<K = u64, V = Finalizer> = MarkGuard<'static, K, V>;

impl<K: 'static, V> MarkGuard<'_, K, V> {
    /// Returns the job that is marked.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
    /// assert_eq!(registry.mark(7, ()).job(), &7);
    /// ```
    pub fn job(&self) -> &K {
        &self.job
    }

    /// Returns the fencing token of this mark, for a job store that compares it.
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

    /// Returns `true` until this mark is cleared, or displaced by another `mark` or by the reaper.
    ///
    /// Ask before committing. The answer may be outdated a moment later, so the job store's own compare-and-set has the
    /// last word. Linearizes at the load of the job's slot. Lock-free.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let monitor = registry.mark(7, "run 1");
    /// assert!(monitor.is_current());
    /// let other = registry.mark(7, "run 2");
    /// assert!(!monitor.is_current());
    /// # drop(other);
    /// ```
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.registry.shared().is_current(self.hash, self.generation)
    }

    /// Returns `true` if this mark took the job over from an earlier owner.
    ///
    /// This shows two monitors of one job, and a helper that marks what its caller has marked.
    /// [`try_mark`](crate::Registry::try_mark) refuses instead.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let outer = registry.mark(7, "run 1");
    /// let nested = registry.mark(7, "a helper of run 1");
    /// assert!(!outer.has_displaced() && nested.has_displaced());
    /// ```
    #[must_use]
    pub fn has_displaced(&self) -> bool {
        self.has_displaced
    }

    /// Clears the mark now. Returns `true` if it still stood.
    ///
    /// Linearizes at the compare-exchange, or at the load of the slot where the mark is gone. Lock-free.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let first = registry.mark(7, "run 1");
    /// let second = registry.mark(7, "run 2");
    /// assert!(!first.clear());
    /// assert!(second.clear());
    /// ```
    #[allow(clippy::must_use_candidate, reason = "most callers clear for the effect")]
    pub fn clear(mut self) -> bool {
        self.released = true;
        self.release()
    }

    /// Lets the mark stand without its guard, and returns its generation. Leaks nothing.
    ///
    /// An owner that hands its mark on sends the generation in a message. The receiver ends the mark by
    /// [`clear_generation`](crate::Registry::clear_generation). Until then only the reaper's backstop, or a pulse that
    /// stops, frees the job.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let generation = registry.mark(7, "run 1").detach();
    /// assert!(registry.is_active(&7));
    /// assert!(registry.clear_generation(&7, generation));
    /// ```
    #[must_use = "without the generation only the backstop ends the mark"]
    pub fn detach(mut self) -> Generation {
        self.released = true;
        telemetry::detached(self.shown(), self.generation);
        self.generation
    }

    pub(super) fn hash_and_generation(&self) -> (u64, Generation) {
        (self.hash, self.generation)
    }

    fn release(&self) -> bool {
        let cleared = self.registry.shared().release(self.hash, self.generation);
        if cleared {
            telemetry::cleared(self.shown(), self.generation);
        } else {
            telemetry::stale_clear(self.shown(), self.generation);
        }
        cleared
    }

    fn shown(&self) -> Shown<'_, K> {
        self.registry.shared().shown(&self.job)
    }
}

/// The guard of a reaper's mark, and the owner that the mark displaced.
pub(crate) type Claimed<'r, K, V> = (MarkGuard<'r, K, V>, Option<Owner<V>>);

/// Whom a reaper's claim may take a job over from.
#[derive(Clone, Copy)]
pub(crate) enum Displaces {
    /// From whoever holds the mark.
    Anyone,
    /// From the owner of this generation. With `None` the job must be unowned.
    Only(Option<Generation>),
}

impl<'r, K, V> MarkGuard<'r, K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Marks a job, and displaces its owner if it has one.
    pub(super) fn mark(registry: Held<'r, K, V>, hash: u64, job: K, value: V) -> Self {
        let entry = entry(hash, &job, value);
        let pin = reclaim::pin_for_write();
        let Inserted { generation, displaced } = registry.shared().map.insert(entry, &pin);
        let has_displaced = displaced.is_some();
        drop(pin);
        Self::marked(registry, job, hash, (generation, has_displaced))
    }

    /// Marks a job that nobody owns. A refusal allocates nothing.
    pub(super) fn try_mark(registry: Held<'r, K, V>, hash: u64, job: K, value: V) -> Result<Self, OccupiedError<V>> {
        let pin = reclaim::pin_for_write();
        let map = &registry.shared().map;
        // Look first: an owner that is there already refuses without an allocation.
        let other = map.table().and_then(|table| table.find(hash, &job, &pin));
        if let Some(other) = other {
            return Err(OccupiedError { owner: other.owner.clone(), value });
        }
        // Insert, unless somebody was faster: the map compares and publishes in one step.
        match map.try_insert(entry(hash, &job, value), None, &pin) {
            Ok(Inserted { generation, .. }) => {
                drop(pin);
                Ok(Self::marked(registry, job, hash, (generation, false)))
            }
            Err(Refused { entry, owner }) => {
                let owner = owner.clone();
                // The rest of the entry is dropped after the pin: destructors of the user's run in an unpinned thread.
                drop(pin);
                Err(OccupiedError { owner, value: entry.owner.value })
            }
        }
    }

    /// Marks a job for the reaper, which is rare. Returns the guard and the owner that it displaced, or the owner that
    /// keeps the job.
    #[cold]
    pub(super) fn claim(
        registry: &Held<'r, K, V>,
        hash: u64,
        job: &K,
        value: V,
        displaces: Displaces,
    ) -> Result<Claimed<'r, K, V>, Owner<V>> {
        let entry = entry(hash, job, value);
        let job = job.clone();
        let shared = registry.shared();
        let pin = reclaim::pin_for_write();
        let Inserted { generation, displaced } = match displaces {
            Displaces::Anyone => shared.map.insert(entry, &pin),
            Displaces::Only(displaceable) => match shared.map.try_insert(entry, displaceable, &pin) {
                Ok(inserted) => inserted,
                Err(Refused { entry, owner }) => {
                    let owner = owner.clone();
                    // Destructors of the user's run in an unpinned thread.
                    drop(pin);
                    unwind::drop_quietly(|| drop(entry));
                    return Err(owner);
                }
            },
        };
        let has_displaced = displaced.is_some();
        let owner = displaced.and_then(clone_of_displaced);
        // Unpinned, since a subscriber may take its time.
        drop(pin);
        Ok((Self::marked(registry.clone(), job, hash, (generation, has_displaced)), owner))
    }

    /// Makes the guard of a mark, and only then reports the mark. Nothing may leave a mark without a guard.
    #[inline]
    fn marked(registry: Held<'r, K, V>, job: K, hash: u64, (generation, has_displaced): (Generation, bool)) -> Self {
        let guard = Self { registry, job, hash, generation, released: false, has_displaced };
        if has_displaced {
            guard.registry.shared().displaced.increment();
            telemetry::displaced(guard.shown(), generation);
        } else {
            telemetry::marked(guard.shown(), generation);
        }
        guard
    }

    /// Replaces the context of this mark in one step, for the next stage say. Returns `true` if the mark still stood.
    ///
    /// The generation and the time of the mark stay. If the mark is gone, nothing changes. Readers see the old context
    /// or the new one, and never an unmarked job between them. Linearizes at the compare-exchange, or at the load of the
    /// slot where the mark is gone. Lock-free. Allocates once.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let guard = registry.mark(7, "gates");
    /// assert!(guard.replace("merge"));
    /// let owner = registry.owner(&7).expect("job 7 is marked");
    /// assert_eq!((owner.value, owner.generation), ("merge", guard.generation()));
    /// ```
    #[allow(clippy::must_use_candidate, reason = "a monitor asks `is_current` before it commits")]
    pub fn replace(&self, value: V) -> bool {
        let job = self.job.clone();
        let map = &self.registry.shared().map;
        let pin = reclaim::pin_for_write();
        // The time of the mark is in the entry that is to be replaced. If that entry is gone, no new one is made.
        let Some(old) = map.find_generation(self.hash, self.generation, &pin) else {
            drop(pin);
            unwind::drop_quietly(|| drop((job, value)));
            return false;
        };
        let owner = Owner::new(self.generation, old.owner.marked_at(), value);
        let replaced = map.replace(Entry::new(self.hash, job, owner), &pin);
        // Destructors of the user's run in an unpinned thread.
        drop(pin);
        replaced.map_err(|refused| unwind::drop_quietly(|| drop(refused))).is_ok()
    }
}

fn entry<K: Clone, V>(hash: u64, job: &K, value: V) -> Box<Entry<K, V>> {
    Entry::new(hash, job.clone(), Owner::new(Generation::UNDRAWN, Instant::now(), value))
}

/// Returns a clone of the owner that a claim has displaced, or `None` if its `Clone` panics. A panic must not undo the
/// claim, or a job past its deadline would never be reaped.
fn clone_of_displaced<V: Clone>(owner: &Owner<V>) -> Option<Owner<V>> {
    if crate::sync::LOOM {
        // The model checker reports what it finds by panicking.
        return Some(owner.clone());
    }
    unwind::caught(|| owner.clone()).ok()
}

impl<K: 'static, V> Drop for MarkGuard<'_, K, V> {
    fn drop(&mut self) {
        if !self.released {
            self.release();
        }
    }
}

impl<K: fmt::Debug + 'static, V> fmt::Debug for MarkGuard<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MarkGuard")
            .field("job", &self.job)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
