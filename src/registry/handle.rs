//! A registry that is borrowed or shared, behind one type: [`RegistryHandle`].

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ops::Deref;
use std::sync::Arc;

use super::error::OccupiedError;
use super::guard::{Claimed, Displaces, MarkGuard, OwnedMarkGuard};
use super::held::{Held, KeepsAlive};
use super::registry::Registry;
use super::shared::Shared;
use crate::context::Finalizer;
use crate::hasher::DefaultHashBuilder;
use crate::owner::Owner;

/// A handle of a registry: a `&'r Registry` or an `Arc<Registry>`. A reaper, a middleware or an application's state
/// holds one.
///
/// A handle of an `Arc` gives guards that keep the registry alive and are `'static`. A handle of a borrowed registry
/// gives guards that live as long as the borrow. All else of the registry is reached by `Deref`.
///
/// ```
/// use std::sync::Arc;
/// use livemark::{Finalizer, OwnedMarkGuard, Registry, RegistryHandle};
///
/// /// Marks whatever it is given, in a registry of either kind.
/// #[derive(Clone)]
/// struct Middleware {
///     finalizing: RegistryHandle<'static>,
/// }
///
/// impl Middleware {
///     fn new(finalizing: impl Into<RegistryHandle<'static>>) -> Self {
///         Self { finalizing: finalizing.into() }
///     }
///
///     fn begin(&self, job: u64) -> OwnedMarkGuard {
///         self.finalizing.mark(job, Finalizer::new(None, "merge"))
///     }
/// }
///
/// static FINALIZING: Registry = Registry::new();
/// let guards = [Middleware::new(&FINALIZING).begin(7), Middleware::new(Arc::new(Registry::new())).begin(7)];
/// assert!(guards.iter().all(|guard| guard.is_current()));
/// ```
pub struct RegistryHandle<'r, K = u64, V = Finalizer, S = DefaultHashBuilder>(Kind<'r, K, V, S>);

enum Kind<'r, K, V, S> {
    Borrowed(&'r Registry<K, V, S>),
    Shared(Arc<Registry<K, V, S>>),
}

impl<K, V, S> KeepsAlive<K, V> for Registry<K, V, S>
where
    K: Send + Sync,
    V: Send + Sync,
    S: Send + Sync,
{
    fn shared(&self) -> &Shared<K, V> {
        &self.shared
    }
}

impl<'r, K, V, S> RegistryHandle<'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Marks `job`, as [`Registry::mark`] does. The guard holds the registry as this handle does.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use livemark::{OwnedMarkGuard, Registry, RegistryHandle};
    ///
    /// let handle: RegistryHandle<'static, u64, &str> = Arc::new(Registry::new()).into();
    /// let guard: OwnedMarkGuard<u64, &str> = handle.mark(7, "run 1");
    /// assert!(handle.is_active(&7));
    /// # drop(guard);
    /// ```
    pub fn mark(&self, job: K, value: V) -> MarkGuard<'r, K, V> {
        MarkGuard::mark(self.held(), self.hash(&job), job, value)
    }

    /// Marks `job` unless it is marked, as [`Registry::try_mark`] does.
    ///
    /// # Errors
    ///
    /// Returns an [`OccupiedError`] if the job has an owner.
    ///
    /// ```
    /// # use livemark::{Registry, RegistryHandle};
    /// # let registry: Registry<u64, &str> = Registry::new();
    /// let handle = RegistryHandle::from(&registry);
    /// let guard = handle.try_mark(7, "run 1")?;
    /// assert!(handle.try_mark(7, "run 2").is_err());
    /// # drop(guard);
    /// # Ok::<(), livemark::OccupiedError<&str>>(())
    /// ```
    pub fn try_mark(&self, job: K, value: V) -> Result<MarkGuard<'r, K, V>, OccupiedError<V>> {
        MarkGuard::try_mark(self.held(), self.hash(&job), job, value)
    }

    /// Claims `job` for the reaper. Returns the guard and the owner that it displaced, or the owner that keeps the job.
    pub(crate) fn claim(&self, job: &K, value: V, displaces: Displaces) -> Result<Claimed<'r, K, V>, Owner<V>> {
        MarkGuard::claim(&self.held(), self.hash(job), job, value, displaces)
    }

    fn held(&self) -> Held<'r, K, V> {
        match &self.0 {
            Kind::Borrowed(registry) => Held::Borrowed(&registry.shared),
            Kind::Shared(registry) => {
                let registry: Arc<Registry<K, V, S>> = Arc::clone(registry);
                Held::Owned(registry)
            }
        }
    }
}

impl<K, V, S> Registry<K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher,
{
    /// Marks `job`, as [`mark`](Self::mark) does, with a guard that keeps the registry alive.
    ///
    /// The guard is `'static`, for tasks and across `.await`. It costs an `Arc` clone more. Where the registry is a
    /// `static`, [`mark`](Self::mark) gives such a guard already.
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

    /// Marks `job` unless it is marked, as [`try_mark`](Self::try_mark) does, with a guard that keeps the registry
    /// alive.
    ///
    /// # Errors
    ///
    /// Returns an [`OccupiedError`] if the job has an owner.
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
}

impl<K, V, S> Deref for RegistryHandle<'_, K, V, S> {
    type Target = Registry<K, V, S>;

    fn deref(&self) -> &Registry<K, V, S> {
        match &self.0 {
            Kind::Borrowed(registry) => registry,
            Kind::Shared(registry) => registry,
        }
    }
}

impl<K, V, S> Clone for RegistryHandle<'_, K, V, S> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Kind::Borrowed(registry) => Kind::Borrowed(registry),
            Kind::Shared(registry) => Kind::Shared(Arc::clone(registry)),
        })
    }
}

impl<'r, K, V, S> From<&'r Registry<K, V, S>> for RegistryHandle<'r, K, V, S> {
    fn from(registry: &'r Registry<K, V, S>) -> Self {
        Self(Kind::Borrowed(registry))
    }
}

impl<K, V, S> From<Arc<Registry<K, V, S>>> for RegistryHandle<'static, K, V, S> {
    fn from(registry: Arc<Registry<K, V, S>>) -> Self {
        Self(Kind::Shared(registry))
    }
}

impl<K, V, S> From<&Arc<Registry<K, V, S>>> for RegistryHandle<'static, K, V, S> {
    fn from(registry: &Arc<Registry<K, V, S>>) -> Self {
        Self(Kind::Shared(Arc::clone(registry)))
    }
}

impl<'r, K, V, S> From<&RegistryHandle<'r, K, V, S>> for RegistryHandle<'r, K, V, S> {
    fn from(handle: &RegistryHandle<'r, K, V, S>) -> Self {
        handle.clone()
    }
}

impl<K, V, S> fmt::Debug for RegistryHandle<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegistryHandle").field(&**self).finish()
    }
}
