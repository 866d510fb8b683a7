//! The atomics, cells and thread-locals of the crate: `std`'s, or `loom`'s when the models run.
//!
//! Nothing else in the crate names `std::sync::atomic` or `loom`. The algorithms are the same under the model checker.
//! What [`LOOM`] changes is around them: the map is smaller, there is no free list and there are no batches (each thing
//! is retired by itself), a reader repins at every look-up, and panics are not caught. `--cfg crossbeam_loom` reaches
//! every crate of a build, so the feature must be on as well.

#[cfg(not(all(crossbeam_loom, feature = "loom")))]
mod cache_padded;
mod counter;
#[cfg(all(crossbeam_loom, feature = "loom"))]
mod loom;
#[cfg(not(all(crossbeam_loom, feature = "loom")))]
mod std;
#[cfg(all(crossbeam_loom, feature = "loom"))]
pub(crate) mod turnstile;

#[cfg(not(all(crossbeam_loom, feature = "loom")))]
pub(crate) use self::cache_padded::CachePadded;
pub(crate) use self::counter::Counter;
#[cfg(all(crossbeam_loom, feature = "loom"))]
pub(crate) use self::loom::*;
#[cfg(not(all(crossbeam_loom, feature = "loom")))]
pub(crate) use self::std::*;
