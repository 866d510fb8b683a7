//! The registry itself: [`Registry`], its marks, clears, look-ups and snapshots.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};

use super::error::OccupiedError;
use super::guard::MarkGuard;
use super::held::Held;
use super::shared::Shared;
use super::snapshot::Snapshot;
use super::stats::RegistryStats;
use crate::context::{Finalizer, Pulse};
use crate::hasher::DefaultHashBuilder;
use crate::map::Table;
use crate::owner::{Generation, Owner};
use crate::reclaim;
use crate::show::Shown;
use crate::telemetry;

/// A registry of which jobs are being finalized right now, and by whom.
///
/// A monitor [`mark`](Self::mark)s a job while it finalizes it, and a reaper asks [`is_active`](Self::is_active) before
/// it redrives the job. Share one registry between the two, as a `static` or in an `Arc`. A reaper with a registry of
/// its own finds every job unowned.
///
/// Job ids `K` are `Clone + Eq + Hash` and contexts `V` are `Clone`. Both are `Send + Sync + 'static`, because any
/// thread that uses a registry may drop them later.
///
/// # Consistency
///
/// Every operation on a job takes effect at one instant, at one atomic step on one slot. All threads agree on one order
/// of these steps, also between two jobs (sequential consistency). See
/// [`guide::consistency`](crate::guide::consistency).
///
/// # Progress
///
/// No operation waits for another thread. A [`Reader`](crate::Reader)'s look-ups are wait-free but for the depth of the
/// map, and everything else is lock-free. The first use in a process initializes the collector and the hash seed.
/// Threads that arrive at that moment wait a few microseconds.
///
/// Look-ups free nothing. Later marks, clears and replacements free what was cleared, and so does a reaper's sweep when
/// it begins. They run its destructors. A thread's first use of any registry registers the thread with the collector,
/// with one allocation.
///
/// # Panics
///
/// None of the methods panics by itself. A panic in the `Hash`, `Eq` or `Ord` of a job id passes through, and so does
/// one in the `Clone` of an id or a value. It leaves the registry as it was. A panic in the `Drop` of what a registry
/// holds is caught, but two at once, of a job id and of its value, abort the process. The process also aborts when
/// memory runs out.
///
/// # Example
///
/// ```
/// use livemark::{Finalizer, Registry};
///
/// static FINALIZING: Registry = Registry::new();
///
/// let guard = FINALIZING.mark(7, Finalizer::new(Some(1), "merge"));
/// assert!(FINALIZING.is_active(&7));
/// drop(guard); // or a return, `?`, a panic
/// assert!(!FINALIZING.is_active(&7));
/// ```
///
/// # What does not compile
///
/// A registry cannot be borrowed as one of shorter-lived or longer-lived types. Its values would come out as what they
/// are not.
///
/// ```compile_fail,E0308
/// # use livemark::Registry;
/// let registry: Registry<u64, for<'a> fn(&'a str)> = Registry::new();
/// let narrowed: &Registry<u64, fn(&'static str)> = &registry;
/// ```
///
/// ```
/// # use livemark::Registry;
/// let registry: Registry<u64, for<'a> fn(&'a str)> = Registry::new();
/// let same: &Registry<u64, for<'a> fn(&'a str)> = &registry;
/// ```
///
/// A guard does not outlive the registry that it borrows. [`mark_owned`](Self::mark_owned) gives a guard that keeps its
/// registry alive.
///
/// ```compile_fail,E0505
/// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
/// let guard = registry.mark(7, ());
/// drop(registry);
/// drop(guard);
/// ```
///
/// ```
/// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
/// let guard = registry.mark(7, ());
/// drop(guard);
/// drop(registry);
/// ```
pub struct Registry<K = u64, V = Finalizer, S = DefaultHashBuilder> {
    pub(super) shared: Shared<K, V>,
    hasher: S,
}

impl<K, V> Registry<K, V> {
    crate::sync::const_unless_loom! {
        /// Creates an empty registry, also as a `static`. Allocates nothing.
        ///
        /// ```
        /// static FINALIZING: livemark::Registry<u64, &str> = livemark::Registry::new();
        /// assert!(FINALIZING.is_empty());
        /// ```
        #[must_use]
        pub const fn new() -> Self {
            Self::with_hasher(DefaultHashBuilder::new())
        }
    }

    crate::sync::const_unless_loom! {
        /// Creates an empty registry sized for `owned` simultaneously owned jobs, also as a `static`.
        ///
        /// The registry can hold more jobs, at a growing cost per operation. A capacity that is far too large wastes
        /// memory, and slows [`snapshot`](Self::snapshot) and [`len`](Self::len), which look at all of it.
        ///
        /// Creating it allocates nothing. The first mark or reader allocates the slots. They take 16 to 256 bytes per job
        /// of the capacity, and at least 64 KiB. [`new`](Self::new) has these 64 KiB, enough for 512 jobs.
        ///
        /// ```
        /// static FINALIZING: livemark::Registry<u64, &str> = livemark::Registry::with_capacity(100_000);
        /// assert!(FINALIZING.is_empty());
        /// ```
        #[must_use]
        pub const fn with_capacity(owned: usize) -> Self {
            Self::with_capacity_and_hasher(owned, DefaultHashBuilder::new())
        }
    }
}

impl<K, V, S> Registry<K, V, S> {
    crate::sync::const_unless_loom! {
        /// Creates an empty registry that hashes job ids with `hasher`.
        ///
        /// The low bits of a hash choose the job's slot, so they must be well mixed. The high bits should be too: they
        /// exclude other jobs without reading them.
        ///
        /// ```
        /// use std::hash::RandomState;
        ///
        /// let registry: livemark::Registry<String, &str, _> = livemark::Registry::with_hasher(RandomState::new());
        /// assert!(!registry.is_active("job-7"));
        /// ```
        #[must_use]
        pub const fn with_hasher(hasher: S) -> Self {
            Self::with_capacity_and_hasher(0, hasher)
        }
    }

    crate::sync::const_unless_loom! {
        /// Creates an empty registry, as [`with_capacity`](Registry::with_capacity) and
        /// [`with_hasher`](Self::with_hasher) do together.
        ///
        /// ```
        /// use std::hash::RandomState;
        ///
        /// let registry: livemark::Registry<String, &str, _> =
        ///     livemark::Registry::with_capacity_and_hasher(10_000, RandomState::new());
        /// assert!(registry.is_empty());
        /// ```
        #[must_use]
        pub const fn with_capacity_and_hasher(owned: usize, hasher: S) -> Self {
            Self { shared: Shared::with_capacity(owned), hasher }
        }
    }

    crate::sync::const_unless_loom! {
        /// Has events, explanations and errors show job ids as `show` writes them.
        ///
        /// What `show` writes is escaped into one line, so that no id can forge a line of the log. Without `show`,
        /// integers are shown as such, text as such and escaped, and `[u8; 16]` in hex. Ids of other types are shown as
        /// their type's name.
        ///
        /// ```
        /// use livemark::Registry;
        ///
        /// #[derive(Clone, PartialEq, Eq, Hash)]
        /// struct JobId {
        ///     queue: &'static str,
        ///     number: u32,
        /// }
        ///
        /// static FINALIZING: Registry<JobId> = Registry::new().showing(|id, f| write!(f, "{}/{}", id.queue, id.number));
        /// assert!(FINALIZING.is_empty());
        /// ```
        #[must_use]
        pub const fn showing(mut self, show: fn(&K, &mut fmt::Formatter<'_>) -> fmt::Result) -> Self {
            self.shared.show = Some(show);
            self
        }
    }

    /// Returns how many jobs are marked. The number is exact while nobody marks or clears, and near it otherwise.
    ///
    /// Counts slot by slot through the whole registry, which takes some microseconds when it is small.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
    /// let _guards = [registry.mark(1, ()), registry.mark(2, ())];
    /// assert_eq!(registry.len(), 2);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.map.len(&reclaim::pin())
    }

    /// Returns `true` if no job is marked. Walks through the registry as [`len`](Self::len) does.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
    /// assert!(registry.is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.map.is_empty()
    }

    /// Returns what the registry has counted so far.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
    /// drop(registry.mark(7, ()));
    /// assert_eq!(registry.stats().marks, 1);
    /// ```
    #[must_use]
    pub fn stats(&self) -> RegistryStats {
        let Shared { displaced, stale_clears, .. } = &self.shared;
        RegistryStats { marks: self.marks(), displaced: displaced.get(), stale_clears: stale_clears.get() }
    }

    /// Returns how many jobs are marked, and when the oldest mark was made. Counts as [`len`](Self::len) does.
    pub(crate) fn census(&self) -> (usize, Option<std::time::Instant>) {
        self.shared.map.census(&reclaim::pin())
    }

    /// Returns `true` if the registry has ever held a mark, also one of another process.
    pub(crate) fn was_ever_marked(&self) -> bool {
        self.shared.map.inserted() > 0
    }

    /// Returns how many marks were made: see [`RegistryStats::marks`]. A mark that is fed at this moment may be counted
    /// for a moment.
    pub(crate) fn marks(&self) -> u64 {
        self.shared.map.inserted().saturating_sub(self.shared.fed.get())
    }

    #[inline]
    pub(super) fn hash<Q>(&self, job: &Q) -> u64
    where
        Q: Hash + ?Sized,
        S: BuildHasher,
    {
        self.hasher.hash_one(job)
    }

    pub(crate) fn shown<'a>(&self, job: &'a K) -> Shown<'a, K> {
        self.shared.shown(job)
    }

    /// Records that `claim`, a reaper's, came with `pulse`, which showed `stamp` then.
    pub(crate) fn record_claim_pulse(&self, claim: &MarkGuard<'_, K, V>, pulse: Pulse, stamp: u64)
    where
        K: 'static,
    {
        let (hash, generation) = claim.hash_and_generation();
        let stands = |hash, generation| self.shared.is_current(hash, generation);
        self.shared.unbeaten.record(hash, generation, pulse, stamp, stands);
    }

    /// Returns `true` if `pulse` came with a reaper's claim of this generation, and nobody has beaten it since.
    pub(crate) fn is_unbeaten(&self, generation: Generation, pulse: &Pulse) -> bool {
        self.shared.unbeaten.contains(generation, pulse)
    }
}

impl<K, V, S> Registry<K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    /// Marks `job` as owned by the caller until the guard is dropped. Displaces an earlier owner, who can see it by
    /// [`is_current`](MarkGuard::is_current).
    ///
    /// Mark the job *before* it becomes reapable, that is, before its `finished_at` is visible. Keep the guard until the
    /// final state is committed. For a job that may have no id, `id.map(|id| registry.mark(id, ..))` gives an
    /// `Option<MarkGuard>`, which clears the mark just so.
    ///
    /// Linearizes at the compare-exchange that publishes the mark. Lock-free. Allocates once, and now and then frees
    /// what was cleared before, which runs destructors of values.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let first = registry.mark(7, "run 1");
    /// let second = registry.mark(7, "run 2");
    /// assert!(!first.is_current());
    /// drop(first);
    /// assert!(registry.is_active(&7), "a late release never frees a newer owner");
    /// # drop(second);
    /// ```
    pub fn mark(&self, job: K, value: V) -> MarkGuard<'_, K, V> {
        MarkGuard::mark(Held::Borrowed(&self.shared), self.hash(&job), job, value)
    }

    /// Marks `job` unless it is marked. Check and claim are one step.
    ///
    /// Linearizes at the compare-exchange that publishes the mark, or for a refusal at the load of the owner.
    /// Lock-free. Allocates once if the job was free.
    ///
    /// # Errors
    ///
    /// Returns an [`OccupiedError`] if the job has an owner. The error has the owner, and gives the value back.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let guard = registry.try_mark(7, "monitor")?;
    /// assert!(registry.try_mark(7, "reaper").is_err());
    /// # drop(guard);
    /// # Ok::<(), livemark::OccupiedError<&str>>(())
    /// ```
    pub fn try_mark(&self, job: K, value: V) -> Result<MarkGuard<'_, K, V>, OccupiedError<V>> {
        MarkGuard::try_mark(Held::Borrowed(&self.shared), self.hash(&job), job, value)
    }

    /// Clears the mark of `job`, whoever holds it. Returns `true` if anyone did, so doing it twice is harmless.
    ///
    /// This is for operators and tests: a monitor's guard clears its own mark.
    ///
    /// Linearizes at the compare-exchange, or at the load of the slot where the job is not marked. Lock-free.
    ///
    /// ```
    /// # let registry: livemark::Registry<String, &str> = livemark::Registry::new();
    /// let guard = registry.mark("job-7".to_owned(), "run 1");
    /// assert!(registry.clear("job-7"));
    /// assert!(!registry.clear("job-7"));
    /// assert!(!guard.is_current());
    /// ```
    pub fn clear<Q>(&self, job: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.remove(job, |_| true)
    }

    /// Clears the mark of `job` if the mark has this generation. Returns `true` if it had.
    ///
    /// An owner that hands its mark on, in a message say, sends the generation and
    /// [`detach`](MarkGuard::detach)es its guard. The receiver ends the mark by this.
    ///
    /// Linearizes as [`clear`](Self::clear) does. Lock-free.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let first = registry.mark(7, "run 1");
    /// let second = registry.mark(7, "run 2");
    /// assert!(!registry.clear_generation(&7, first.generation()));
    /// assert!(registry.clear_generation(&7, second.generation()));
    /// ```
    pub fn clear_generation<Q>(&self, job: &Q, generation: Generation) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let cleared = self.remove(job, |owner| owner.generation == generation);
        if !cleared {
            self.shared.stale_clears.increment();
        }
        cleared
    }

    /// Returns `true` if `job` is marked, that is, if it has a mark that was neither cleared nor displaced. The mark of
    /// a leaked guard counts.
    ///
    /// Linearizes at the load of the job's slot. For nearly every job that is not marked, this load is enough, and the
    /// look-up is wait-free. Otherwise the look-up pins the thread, and is lock-free. It allocates only what the
    /// collector needs for itself, at a thread's first pin and rarely later (see
    /// [`guide::consistency`](crate::guide::consistency)). In a loop over many jobs a [`reader`](Self::reader) is faster.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
    /// let _guard = registry.mark(7, ());
    /// assert!(registry.is_active(&7));
    /// assert!(!registry.is_active(&8));
    /// ```
    #[inline]
    #[must_use]
    pub fn is_active<Q>(&self, job: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let hash = self.hash(job);
        let Some(table) = self.shared.map.table() else { return false };
        !table.excludes(hash) && Self::finds(table, hash, job)
    }

    /// Looks into the slot's entries. Not inlined, so that a look-up that the slot's word answers can be.
    #[inline(never)]
    fn finds<Q>(table: Table<'_, K, V>, hash: u64, job: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        table.find(hash, job, &reclaim::pin()).is_some()
    }

    /// Returns a copy of the job's owner: its generation, its time and its context.
    ///
    /// Linearizes at the load of the job's slot. Lock-free, but for the `Clone` of `V`.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let guard = registry.mark(7, "run 1");
    /// let owner = registry.owner(&7).expect("job 7 is marked");
    /// assert_eq!((owner.generation, owner.value), (guard.generation(), "run 1"));
    /// ```
    pub fn owner<Q>(&self, job: &Q) -> Option<Owner<V>>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let hash = self.hash(job);
        let pin = reclaim::pin();
        self.shared.map.table()?.find(hash, job, &pin).map(|entry| entry.owner.clone())
    }

    /// Returns a copy of all marks, sorted by job, if possible of one instant: see [`Snapshot::is_atomic`].
    ///
    /// An atomic snapshot linearizes between two equal readings of all slots. The method reads all slots at most nine
    /// times. It allocates, so it is for operators and dashboards, and not for a sweep.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, &str> = livemark::Registry::new();
    /// let _guards = [registry.mark(9, "run 2"), registry.mark(7, "run 1")];
    /// let snapshot = registry.snapshot();
    /// let jobs: Vec<u64> = snapshot.iter().map(|(job, _)| *job).collect();
    /// assert_eq!(jobs, [7, 9]);
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<K, V>
    where
        K: Ord,
    {
        let pin = reclaim::pin();
        let collected = self.shared.map.double_collect(&pin);
        let owners = collected.entries.iter().map(|entry| (entry.job.clone(), entry.owner.clone())).collect();
        let atomic = collected.atomic;
        // Unpinned: an `Ord` may take its time.
        drop(pin);
        Snapshot::new(owners, atomic)
    }

    fn remove<Q>(&self, job: &Q, is_it: impl Fn(&Owner<V>) -> bool) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let hash = self.hash(job);
        let pin = reclaim::pin_for_write();
        let removed = self.shared.map.remove(hash, &pin, |entry| entry.job.borrow() == job && is_it(&entry.owner));
        let told = removed.map(|entry| (telemetry::written(self.shown(&entry.job)), entry.owner.generation));
        // Unpinned, since a subscriber may take its time.
        drop(pin);
        if let Some((Some(job), generation)) = &told {
            telemetry::cleared_by_id(job, *generation);
        }
        told.is_some()
    }
}

impl<K, V, S: Default> Default for Registry<K, V, S> {
    fn default() -> Self {
        Self::with_hasher(S::default())
    }
}

impl<K, V, S> fmt::Debug for Registry<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("len", &self.len()).field("stats", &self.stats()).finish_non_exhaustive()
    }
}
