//! The safe face of the map: [`Registry`], its guards, its reader and its snapshot.

mod error;
mod guard;
mod handle;
mod reader;
mod snapshot;
mod stats;
mod unattended;

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

pub use self::error::OccupiedError;
pub use self::guard::{MarkGuard, OwnedMarkGuard};
pub use self::handle::RegistryHandle;
pub use self::reader::Reader;
pub use self::snapshot::{Snapshot, SnapshotIter};
pub use self::stats::RegistryStats;

pub(crate) use self::guard::Displaces;
use self::guard::Held;
use self::unattended::Unattended;
use crate::finalizer::{Finalizer, Pulse};
use crate::hasher::DefaultHashBuilder;
use crate::map::{JobMap, Table};
use crate::owner::{Generation, Owner};
use crate::reclaim;
use crate::show::{Show, Shown};
use crate::sync::Counter;
use crate::telemetry;

/// Which jobs have a live finalizer, and who it is.
///
/// A monitor [`mark`](Self::mark)s a job while it finalizes it and a reaper asks [`is_active`](Self::is_active) before
/// it redrives the job. Share one registry between the two, as a `static` or in an `Arc`: a reaper that looks into
/// a registry of its own finds every job unowned.
///
/// Job ids `K` are `Clone + Eq + Hash`, contexts `V` are `Clone`, and both are `Send + Sync + 'static`, as they
/// are dropped later and on any thread that uses a registry.
///
/// # Consistency
///
/// Every operation on a job takes effect at one instant, at one atomic step on one slot, in one order that all threads
/// agree on (sequential consistency): also between two jobs. See [`guide::consistency`](crate::guide::consistency).
///
/// # Progress
///
/// No operation waits for another thread's: a [`Reader`]'s look-ups are wait-free but for the depth of the map,
/// everything else is lock-free. (Once in the life of a process its first use makes the collector and the hasher's
/// seed, for which threads that come at the same instant wait some microseconds.) Look-ups free nothing: what was
/// cleared is freed, and its destructors are run, by later marks, clears and replacements, and by a reaper's sweep when
/// it begins. A thread's first use of any registry registers it with the collector (one allocation).
///
/// # Panics
///
/// None of the methods panics by itself. A panic in the `Hash`, `Eq` or `Ord` of a job id, or in the `Clone` of an id
/// or a value, passes through and leaves the registry as it was; a panic in the `Drop` of what a registry holds is
/// caught (two at once, of a job id and of its value, abort, as two panics in one drop do everywhere). When memory runs
/// out, the process aborts.
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
/// A registry's types are its own: it cannot be borrowed as a registry of shorter-lived or longer-lived ones, whose
/// values would come out as what they are not.
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
/// A guard does not outlive the registry that it borrows ([`mark_owned`](Self::mark_owned) gives one that keeps it
/// alive).
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
    shared: Shared<K, V>,
    hasher: S,
}

/// What the guards need of a registry: all of it but the hasher.
pub(crate) struct Shared<K, V> {
    map: JobMap<K, V>,
    displaced: Counter,
    stale_clears: Counter,
    /// The pulses in reapers' claims.
    unattended: Unattended,
    /// Writes a job id, if the user says how.
    show: Option<Show<K>>,
}

impl<K, V> Registry<K, V> {
    crate::sync::const_unless_loom! {
        /// Creates an empty registry. Allocates nothing, and can be a `static`.
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
        /// An empty registry sized for so many owned jobs at once. It can hold any number: with more of them each
        /// operation gets slower step by step. A capacity that is far too large wastes memory, and slows what looks at
        /// all of it ([`snapshot`](Self::snapshot), [`len`](Self::len)).
        ///
        /// Allocates nothing; can be a `static`. The first mark, or reader, allocates the slots: 16 to 256 bytes per
        /// job of the capacity, 64 KiB at least, which is what [`new`](Self::new) has, enough for 512 jobs.
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
        /// Creates an empty registry that hashes job ids with `hasher`, whose low bits choose the slot: they must be
        /// well mixed, and the high ones should be, which rule other jobs out without reading them.
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
        /// [`with_capacity`](Registry::with_capacity) and [`with_hasher`](Self::with_hasher) together.
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
            let map = JobMap::with_capacity(owned);
            let shared = Shared { map, displaced: Counter::new(), stale_clears: Counter::new(), unattended: Unattended::new(), show: None };
            Self { shared, hasher }
        }
    }

    crate::sync::const_unless_loom! {
        /// Writes job ids by `show` wherever they are told: in events, explanations and errors, in one line.
        ///
        /// What `show` writes is escaped there, so that no id can forge a line of the log. Without it, integers are
        /// written as such, text as such and escaped, `[u8; 16]` in hex, and ids of other types as their type's name.
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

    /// Returns how many jobs are marked, counted slot by slot: exact while nobody marks or clears, near it otherwise.
    ///
    /// Walks the whole registry, some microseconds when it is small.
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

    /// Returns `true` if no job is marked, by the same walk as [`len`](Self::len).
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

    /// How many jobs are marked, and when the oldest was: counted as [`len`](Self::len) is.
    pub(crate) fn census(&self) -> (usize, Option<std::time::Instant>) {
        self.shared.map.census(&reclaim::pin())
    }

    /// How many marks were made: see [`RegistryStats::marks`].
    pub(crate) fn marks(&self) -> u64 {
        self.shared.map.inserted()
    }

    #[inline]
    fn hash<Q>(&self, job: &Q) -> u64
    where
        Q: Hash + ?Sized,
        S: BuildHasher,
    {
        self.hasher.hash_one(job)
    }

    pub(crate) fn shown<'a>(&self, job: &'a K) -> Shown<'a, K> {
        self.shared.shown(job)
    }

    /// Notes that a reaper's claim came with `pulse`, which showed `stamp` then.
    pub(crate) fn leave_unattended(&self, claim: &MarkGuard<'_, K, V>, pulse: Pulse, stamp: u64)
    where
        K: 'static,
    {
        let stands = |hash, generation| self.shared.is_current(hash, generation);
        self.shared.unattended.note(claim.hash_and_generation(), pulse, stamp, stands);
    }

    /// Returns `true` if `pulse` came with a reaper's claim of this generation, and nobody has beaten it since.
    pub(crate) fn is_unattended(&self, generation: Generation, pulse: &Pulse) -> bool {
        self.shared.unattended.has(generation, pulse)
    }
}

impl<K, V> Shared<K, V> {
    /// Releases a guard's mark. Runs no `Hash`, `Eq` or `Clone` of the user's, so that a guard can be dropped while
    /// unwinding.
    fn release(&self, hash: u64, generation: Generation) -> bool {
        let guard = reclaim::pin_for_write();
        let cleared = self.map.remove(hash, &guard, |entry| entry.owner.generation == generation).is_some();
        if !cleared {
            self.stale_clears.increment();
        }
        cleared
    }

    fn is_current(&self, hash: u64, generation: Generation) -> bool {
        self.map.find_generation(hash, generation, &reclaim::pin()).is_some()
    }

    fn shown<'a>(&self, job: &'a K) -> Shown<'a, K> {
        Shown { job, show: self.show }
    }
}

impl<K, V, S> Registry<K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    /// Marks `job` as owned by the caller until the guard is dropped. Takes over: an earlier owner is displaced, and
    /// can see it by [`is_current`](MarkGuard::is_current).
    ///
    /// Mark *before* the job becomes reapable (before its `finished_at` is visible), and let the guard live until
    /// the final state is committed. A job without an id: `id.map(|id| registry.mark(id, ..))`, whose
    /// `Option<MarkGuard>` clears the mark just so.
    ///
    /// Linearizes at the compare-exchange that publishes the mark. Lock-free; allocates once, and now and then frees
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

    /// Marks `job` unless it is marked: check and claim in one step.
    ///
    /// Linearizes at the compare-exchange that publishes the mark, or for a refusal at the load of the owner.
    /// Lock-free; allocates once if the job was free.
    ///
    /// # Errors
    ///
    /// [`OccupiedError`] if the job has an owner: gives the value back, and says who the owner is.
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

    /// [`mark`](Self::mark) with a guard that keeps the registry alive: `'static`, for tasks and across `.await`.
    ///
    /// Costs an `Arc` clone more. Where the registry is a `static`, [`mark`](Self::mark) gives such a guard already.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use livemark::Registry;
    ///
    /// let registry: Arc<Registry<u64, &str>> = Arc::new(Registry::new());
    /// let guard = registry.mark_owned(7, "run 1");
    /// std::thread::spawn(move || drop(guard)).join().expect("the thread ends well");
    /// assert!(!registry.is_active(&7));
    /// ```
    pub fn mark_owned(self: &Arc<Self>, job: K, value: V) -> OwnedMarkGuard<K, V>
    where
        S: Send + Sync + 'static,
    {
        RegistryHandle::from(self).mark(job, value)
    }

    /// [`try_mark`](Self::try_mark) with a guard that keeps the registry alive.
    ///
    /// # Errors
    ///
    /// [`OccupiedError`] if the job has an owner.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # let registry: Arc<livemark::Registry<u64, &str>> = Arc::new(livemark::Registry::new());
    /// let guard = registry.try_mark_owned(7, "run 1")?;
    /// assert!(registry.try_mark_owned(7, "run 2").is_err());
    /// # drop(guard);
    /// # Ok::<(), livemark::OccupiedError<&str>>(())
    /// ```
    pub fn try_mark_owned(self: &Arc<Self>, job: K, value: V) -> Result<OwnedMarkGuard<K, V>, OccupiedError<V>>
    where
        S: Send + Sync + 'static,
    {
        RegistryHandle::from(self).try_mark(job, value)
    }

    /// Clears the mark of `job`, whoever holds it. Says whether anyone did; doing it twice is harmless.
    ///
    /// For operators and tests: a monitor's guard clears its own mark.
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

    /// Clears the mark of `job` if it is the one of this generation. Says whether it was.
    ///
    /// For an owner that hands its generation on, in a message say, and forgets its guard (whose drop would clear the
    /// mark).
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
    /// Linearizes at the load of the job's slot. For nearly every job that is not marked one load of the slot is
    /// enough: wait-free. Otherwise it pins the thread: lock-free, and nothing is allocated but what the collector
    /// needs for itself, at a thread's first pin and rarely later (see
    /// [`guide::consistency`](crate::guide::consistency)). In a loop over many jobs [`reader`](Self::reader) is faster.
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

    /// Not inlined, so that the look-ups which the slot's word answers are, wherever they are.
    #[inline(never)]
    fn finds<Q>(table: Table<'_, K, V>, hash: u64, job: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        table.find(hash, job, &reclaim::pin()).is_some()
    }

    /// Returns who owns `job`: a copy of the owner's generation, time and context.
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
        let guard = reclaim::pin();
        self.shared.map.table()?.find(hash, job, &guard).map(|entry| entry.owner.clone())
    }

    /// A reading session for a hot loop: pinned once, and so cheaper by the look-up.
    ///
    /// While it lives and is little used, nothing that is cleared meanwhile is freed. Not `Send`: it belongs to its
    /// thread.
    ///
    /// ```
    /// # let registry: livemark::Registry<u64, ()> = livemark::Registry::new();
    /// # let _guard = registry.mark(7, ());
    /// let mut reader = registry.reader();
    /// let owned = (0..100).filter(|job| reader.is_active(job)).count();
    /// assert_eq!(owned, 1);
    /// ```
    pub fn reader(&self) -> Reader<'_, K, V, S> {
        Reader::new(self)
    }

    /// Copies all marks, sorted by job, from one instant if possible: see [`Snapshot::is_atomic`].
    ///
    /// Linearizes, when atomic, between two equal readings of all slots. Bounded: reads all slots at most 9 times.
    /// Allocates; for operators and dashboards, not for a sweep.
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
        let guard = reclaim::pin();
        let collected = self.shared.map.double_collect(&guard);
        let owners = collected.entries.iter().map(|entry| (entry.job.clone(), entry.owner.clone())).collect();
        let atomic = collected.atomic;
        // Unpinned: an `Ord` may take its time.
        drop(guard);
        Snapshot::new(owners, atomic)
    }

    fn remove<Q>(&self, job: &Q, is_it: impl Fn(&Owner<V>) -> bool) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let hash = self.hash(job);
        let guard = reclaim::pin_for_write();
        let removed = self.shared.map.remove(hash, &guard, |entry| entry.job.borrow() == job && is_it(&entry.owner));
        let told = removed.map(|entry| (telemetry::written(self.shown(&entry.job)), entry.owner.generation));
        // Unpinned, since a subscriber may take its time.
        drop(guard);
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
