//! How a guard holds its registry: [`Held`], without the type of the registry's hasher.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use super::shared::Shared;

/// How a guard holds its registry.
pub(super) enum Held<'r, K, V> {
    Borrowed(&'r Shared<K, V>),
    Owned(Arc<dyn KeepsAlive<K, V>>),
}

/// Stands for a registry in an `Arc`, without the type of its hasher. A release needs no hasher.
pub(super) trait KeepsAlive<K, V>: Send + Sync {
    fn shared(&self) -> &Shared<K, V>;
}

// A panic leaves a registry as it was, so its guards can be used after one. The trait object would forget this.
impl<K, V> UnwindSafe for Held<'_, K, V> where Shared<K, V>: RefUnwindSafe {}
impl<K, V> RefUnwindSafe for Held<'_, K, V> where Shared<K, V>: RefUnwindSafe {}

impl<K, V> Held<'_, K, V> {
    #[inline]
    pub(super) fn shared(&self) -> &Shared<K, V> {
        match self {
            Self::Borrowed(shared) => shared,
            Self::Owned(registry) => registry.shared(),
        }
    }
}

impl<K, V> Clone for Held<'_, K, V> {
    fn clone(&self) -> Self {
        match self {
            Self::Borrowed(shared) => Self::Borrowed(shared),
            Self::Owned(registry) => Self::Owned(Arc::clone(registry)),
        }
    }
}
