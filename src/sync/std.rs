//! What the crate runs on: `std`'s own, and nothing where only a model has something.

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{AtomicPtr, AtomicPtr as OncePtr, AtomicU64, AtomicUsize, Ordering, fence};
pub(crate) use std::thread_local;

/// Set where a model checker runs the code, so that the map can take a shape small enough to explore.
pub(crate) const LOOM: bool = false;

/// A cell that several threads use in turn. The model's finds those that use it at once.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    #[inline]
    pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    #[inline]
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// Marks a point where a model may switch threads. Does nothing here.
#[inline]
pub(crate) fn schedule_point() {}

/// Part of an allocation whose life the model checker follows: made, read, freed. Takes no space here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoomTracked;

impl LoomTracked {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self
    }

    /// Called where the allocation is read.
    #[inline]
    #[expect(clippy::unused_self, clippy::trivially_copy_pass_by_ref, reason = "as the model's")]
    pub(crate) fn read(&self) {}
}

/// Declares the function as written.
macro_rules! const_unless_loom {
    ($(#[$attr:meta])* $vis:vis const fn $($rest:tt)*) => { $(#[$attr])* $vis const fn $($rest)* };
}

/// Makes an array of `$len` values of the constant expression `$value`.
macro_rules! array_of {
    ($value:expr; $len:expr) => {
        [const { $value }; $len]
    };
}

pub(crate) use {array_of, const_unless_loom};
