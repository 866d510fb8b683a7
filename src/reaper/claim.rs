//! What a verdict gives to whoever acts on it: [`Claim`].

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use crate::context::Finalizer;
use crate::owner::{Generation, Owner};
use crate::registry::MarkGuard;

/// A reaper's claim of a job, to finalize it again or to end it.
///
/// A claim holds the guard of a mark where the reaper's registry is in play. That is in stages that mark, in
/// [`Mode::Honor`](super::Mode::Honor), and for the backstop in [`Mode::DeferAll`](super::Mode::DeferAll) as well.
/// Elsewhere a claim holds no guard, which means "not held in this process's registry" and no more.
///
/// Dropping a claim gives the job back. The claims of a `Reaper<'static>` are `'static`, and move into a thread or a
/// task.
///
/// A monitor's own guard becomes a claim by [`From`]. So one function can finalize a job and finalize it again:
///
/// ```
/// use livemark::{Claim, Finalizer, Pulse, Registry};
///
/// fn finalize(job: u64, run: u64, claim: Claim<'_>) -> Result<(), &'static str> {
///     let pulse = Pulse::new();
///     // First of all: whoever works under the claim is its owner now, with a pulse that somebody beats.
///     if !claim.replace(Finalizer::new(Some(run), "merge").with_pulse(pulse.clone())) {
///         return Err("taken over before it began");
///     }
///     for _gate in ["test", "lint"] {
///         pulse.beat();
///     }
///     if !claim.is_current() {
///         return Err("taken over");
///     }
///     Ok(()) // commit, by compare-and-set, then drop the claim
/// }
///
/// let registry: Registry = Registry::new();
/// let guard = registry.mark(7, Finalizer::new(Some(1), "merge"));
/// assert_eq!(finalize(7, 1, guard.into()), Ok(()));
/// ```
///
/// A claim holds a guard of type `M`: a [`MarkGuard`] of this process's registry, unless a [`Claimer`](super::Claimer)
/// made it.
#[must_use = "dropping the claim gives the job back: keep it while the job is finalized or ended"]
#[clippy::has_significant_drop]
pub struct Claim<'r, K: 'static = u64, V = Finalizer, M = MarkGuard<'r, K, V>> {
    guard: Option<M>,
    /// Boxed because it is seldom there, and a verdict is moved about.
    displaced: Option<Box<Owner<V>>>,
    /// A guard of another kind may name neither.
    of: PhantomData<(&'r (), K)>,
}

/// A guard that a [`Claim`] can hold: a mark with a number by which a job store can fence.
///
/// ```
/// use livemark::{Mark, Registry};
///
/// let registry: Registry<u64, &str> = Registry::new();
/// let guard = registry.mark(7, "run 1");
/// assert_eq!(guard.number(), guard.generation().get());
/// # drop(guard);
/// ```
pub trait Mark {
    /// What the number is called, as in "claimed as generation 7".
    const NUMBER: &'static str;

    /// Returns the mark's number. Later marks of the same job have greater ones.
    fn number(&self) -> u64;
}

impl<K: 'static, V> Mark for MarkGuard<'_, K, V> {
    const NUMBER: &'static str = "generation";

    fn number(&self) -> u64 {
        self.generation().get()
    }
}

impl<K: 'static, V, M> Claim<'_, K, V, M> {
    /// Creates a claim that holds no mark, where no registry is in play.
    pub(super) const fn without_a_mark() -> Self {
        Self { guard: None, displaced: None, of: PhantomData }
    }

    pub(super) fn new(guard: M, displaced: Option<Owner<V>>) -> Self {
        Self { guard: Some(guard), displaced: displaced.map(Box::new), of: PhantomData }
    }

    /// Returns the owner that the claim displaced, so that it can be canceled. Returns `None` if the job had no owner.
    ///
    /// The backstop displaces whoever holds the mark, also an earlier claim of the reaper's. A redrive displaces an owner
    /// that made no progress.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use livemark::{Cause, Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
    /// # let registry: Registry = Registry::new();
    /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
    /// # let reaper = Reaper::new(&registry, policy);
    /// let stuck = registry.mark(7, Finalizer::new(Some(42), "merge"));
    /// let job = RunningJob::new(&7, "merge", Duration::from_secs(3601));
    /// let Verdict::Reap(Cause::Backstop, claim) = reaper.sweep().judge(&job) else { unreachable!() };
    /// assert_eq!(claim.displaced().and_then(|owner| owner.value.run_id), Some(42));
    /// assert!(!stuck.is_current());
    /// # Ok::<(), livemark::PolicyError>(())
    /// ```
    #[must_use]
    pub fn displaced(&self) -> Option<&Owner<V>> {
        self.displaced.as_deref()
    }

    /// Returns the guard of the claim's mark, if it holds one.
    ///
    /// ```
    /// # use livemark::{Claim, Registry};
    /// # let registry: Registry<u64, &str> = Registry::new();
    /// let claim = Claim::from(registry.mark(7, "run 2"));
    /// assert_eq!(claim.guard().map(|guard| *guard.job()), Some(7));
    /// ```
    #[must_use]
    pub fn guard(&self) -> Option<&M> {
        self.guard.as_ref()
    }

    /// Turns the claim into the guard of its mark, if it holds one.
    ///
    /// ```
    /// # use livemark::{Claim, Registry};
    /// # let registry: Registry<u64, &str> = Registry::new();
    /// let claim = Claim::from(registry.mark(7, "run 2"));
    /// let guard = claim.into_guard().expect("the claim holds a mark");
    /// assert!(guard.clear());
    /// ```
    #[must_use = "dropping the guard clears the mark at once"]
    pub fn into_guard(self) -> Option<M> {
        self.guard
    }
}

impl<K: 'static, V> Claim<'_, K, V> {
    /// Returns `true` while nobody has displaced the claim's mark, and always where no registry is in play.
    ///
    /// Ask before committing, as with [`MarkGuard::is_current`].
    ///
    /// ```
    /// # use livemark::{Claim, Registry};
    /// # let registry: Registry<u64, &str> = Registry::new();
    /// let claim = Claim::from(registry.mark(7, "run 2"));
    /// assert!(claim.is_current());
    /// registry.clear(&7);
    /// assert!(!claim.is_current());
    /// ```
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.guard.as_ref().is_none_or(MarkGuard::is_current)
    }

    /// Returns the fencing token of the claim's mark, if it holds one.
    ///
    /// ```
    /// # use livemark::{Claim, Registry};
    /// # let registry: Registry<u64, &str> = Registry::new();
    /// let guard = registry.mark(7, "run 2");
    /// let generation = guard.generation();
    /// assert_eq!(Claim::from(guard).generation(), Some(generation));
    /// ```
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.guard.as_ref().map(MarkGuard::generation)
    }
}

impl<K, V> Claim<'_, K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Replaces the claim's context. Returns `true` if the mark still stood, and where no registry is in play.
    ///
    /// A worker does this before anything else, with its own run and its own pulse. The pulse that came with the claim
    /// counts only from its next beat on, since nobody may have it. The worker's pulse counts at once.
    ///
    /// ```
    /// # use livemark::{Claim, Registry};
    /// # let registry: Registry<u64, &str> = Registry::new();
    /// let claim = Claim::from(registry.mark(7, "reaper"));
    /// assert!(claim.replace("run 2"));
    /// assert_eq!(registry.owner(&7).map(|owner| owner.value), Some("run 2"));
    /// ```
    #[allow(clippy::must_use_candidate, reason = "a worker asks `is_current` before it commits")]
    pub fn replace(&self, value: V) -> bool {
        self.guard.as_ref().is_none_or(|guard| guard.replace(value))
    }
}

/// Turns a monitor's own mark into a claim that displaced nobody.
impl<'r, K: 'static, V> From<MarkGuard<'r, K, V>> for Claim<'r, K, V> {
    fn from(guard: MarkGuard<'r, K, V>) -> Self {
        Self { guard: Some(guard), displaced: None, of: PhantomData }
    }
}

impl<K: fmt::Debug + 'static, V: fmt::Debug, M: fmt::Debug> fmt::Debug for Claim<'_, K, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("guard", &self.guard).field("displaced", &self.displaced).finish()
    }
}
