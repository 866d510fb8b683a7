//! The atomics and thread-locals of the crate: `std`'s, or `loom`'s when the models run.
//!
//! Nothing else in the crate names `std::sync::atomic` or `loom`. The algorithms are the same under the model checker;
//! what `MODEL` changes is around them: a smaller map, no spare blocks and no batches (each thing is retired by
//! itself), a reader that repins at every look-up, and panics that are not caught. `--cfg crossbeam_loom` reaches
//! every crate of a build, so the feature must be on as well.

#[cfg(not(all(crossbeam_loom, feature = "loom")))]
mod imp {
    pub(crate) use std::sync::Mutex;
    pub(crate) use std::sync::atomic::{AtomicPtr, AtomicPtr as OncePtr, AtomicU64, AtomicUsize, Ordering, fence};
    pub(crate) use std::thread_local;

    /// A cell that several threads use in turn: under loom one that finds those who do so at once.
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

    /// Where a model may switch threads; see `turnstile`.
    #[inline]
    pub(crate) fn turn() {}

    /// Shows a model checker the life of an allocation that this is a part of: made, read, freed. Here it is nothing.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Watch;

    impl Watch {
        #[inline]
        pub(crate) const fn new() -> Self {
            Self
        }

        /// Called where the allocation is read.
        #[inline]
        #[expect(clippy::unused_self, clippy::trivially_copy_pass_by_ref, reason = "as the model's")]
        pub(crate) fn read(&self) {}
    }

    /// True where a model checker runs the code, so that the map can take a shape small enough to explore.
    pub(crate) const MODEL: bool = false;

    /// Declares the function as written.
    macro_rules! const_unless_loom {
        ($(#[$attr:meta])* $vis:vis const fn $($rest:tt)*) => { $(#[$attr])* $vis const fn $($rest)* };
    }

    /// An array of `$len` values of the constant expression `$value`.
    macro_rules! array_of {
        ($value:expr; $len:expr) => {
            [const { $value }; $len]
        };
    }

    pub(crate) use {array_of, const_unless_loom};
}

#[cfg(all(crossbeam_loom, feature = "loom"))]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
    pub(crate) use loom::thread_local;

    pub(crate) use super::turnstile::{AtomicPtr, AtomicUsize, OncePtr, turn};

    /// A read that may come before the allocation was made or after it was freed fails the model; so does a leak.
    #[derive(Debug)]
    pub(crate) struct Watch {
        life: loom::cell::UnsafeCell<()>,
        _leak: loom::alloc::Track<()>,
    }

    impl Watch {
        pub(crate) fn new() -> Self {
            Self { life: loom::cell::UnsafeCell::new(()), _leak: loom::alloc::Track::new(()) }
        }

        pub(crate) fn read(&self) {
            self.life.with(|_| ());
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            // A second panic would abort, and hide the first one's message.
            if !std::thread::panicking() {
                self.life.with_mut(|_| ());
            }
        }
    }

    pub(crate) const MODEL: bool = true;

    // loom's atomics register themselves with the running model, so they cannot be made in a constant.
    macro_rules! const_unless_loom {
        ($(#[$attr:meta])* $vis:vis const fn $($rest:tt)*) => { $(#[$attr])* $vis fn $($rest)* };
    }

    macro_rules! array_of {
        ($value:expr; $len:expr) => {
            std::array::from_fn(|_| $value)
        };
    }

    pub(crate) use {array_of, const_unless_loom};
}

#[cfg(all(crossbeam_loom, feature = "loom"))]
pub(crate) mod turnstile {
    use loom::sync::atomic::Ordering;

    loom::lazy_static! {
        static ref TURNSTILE: loom::sync::atomic::AtomicUsize = loom::sync::atomic::AtomicUsize::new(0);
    }

    /// The atomic of the slots, behind the model's turnstile.
    ///
    /// loom remembers one last access of each atomic, so that a thread's own load hides another's load from its
    /// compare-exchange, and a search over loads and compare-exchanges has gaps. Each load here is therefore
    /// preceded by a read-modify-write of one atomic that the whole model shares: of those loom explores every
    /// order, and so every order of the loads. It is relaxed: it puts nothing before anything. To pass it before
    /// compare-exchanges as well finds nothing more, in six times as many executions.
    ///
    /// `loom-tests/tests/self_check.rs` compares what is found through this type with all that there is.
    #[derive(Debug)]
    pub struct AtomicUsize(loom::sync::atomic::AtomicUsize);

    /// Passes the turnstile: before what crossbeam-epoch does with atomics of its own, which have the same gaps.
    pub(crate) fn turn() {
        TURNSTILE.fetch_add(1, Ordering::Relaxed);
    }

    impl AtomicUsize {
        /// An atomic of the running model.
        pub fn new(value: usize) -> Self {
            // The first use makes the turnstile: here, before the threads are spawned.
            let _: &loom::sync::atomic::AtomicUsize = &TURNSTILE;
            Self(loom::sync::atomic::AtomicUsize::new(value))
        }

        /// The same as of `std`'s atomic.
        pub fn load(&self, order: Ordering) -> usize {
            turn();
            self.0.load(order)
        }

        /// The same as of `std`'s atomic.
        pub fn store(&self, value: usize, order: Ordering) {
            self.0.store(value, order);
        }

        /// The same as of `std`'s atomic.
        #[allow(clippy::missing_errors_doc)]
        pub fn compare_exchange(
            &self,
            current: usize,
            new: usize,
            success: Ordering,
            failure: Ordering,
        ) -> Result<usize, usize> {
            self.0.compare_exchange(current, new, success, failure)
        }
    }

    /// The pointer at the top of a stack, behind the turnstile as slots are.
    #[derive(Debug)]
    pub(crate) struct AtomicPtr<T>(loom::sync::atomic::AtomicPtr<T>);

    impl<T> AtomicPtr<T> {
        pub(crate) fn new(pointer: *mut T) -> Self {
            Self(loom::sync::atomic::AtomicPtr::new(pointer))
        }

        pub(crate) fn load(&self, order: Ordering) -> *mut T {
            turn();
            self.0.load(order)
        }

        pub(crate) fn swap(&self, new: *mut T, order: Ordering) -> *mut T {
            self.0.swap(new, order)
        }

        pub(crate) fn compare_exchange(
            &self,
            current: *mut T,
            new: *mut T,
            success: Ordering,
            failure: Ordering,
        ) -> Result<*mut T, *mut T> {
            self.0.compare_exchange(current, new, success, failure)
        }
    }

    /// A pointer that is null until it is set once and for all: behind the turnstile while it is null. Later loads see
    /// one value only, and would multiply the executions for nothing.
    #[derive(Debug)]
    pub(crate) struct OncePtr<T>(AtomicPtr<T>);

    impl<T> OncePtr<T> {
        pub(crate) fn new(pointer: *mut T) -> Self {
            Self(AtomicPtr::new(pointer))
        }

        pub(crate) fn load(&self, order: Ordering) -> *mut T {
            let seen = self.0.0.load(order);
            if seen.is_null() { self.0.load(order) } else { seen }
        }

        pub(crate) fn compare_exchange(
            &self,
            current: *mut T,
            new: *mut T,
            success: Ordering,
            failure: Ordering,
        ) -> Result<*mut T, *mut T> {
            self.0.compare_exchange(current, new, success, failure)
        }
    }
}

pub(crate) use imp::*;

/// A statistic: counts events and orders nothing (edge E6 of the orderings page).
///
/// Always `std`'s atomic: no answer depends on a counter (one says when to repin, which a model decides
/// by itself), so a model gains nothing from exploring them and would pay with a multiple of its states.
#[derive(Debug, Default)]
pub(crate) struct Counter(std::sync::atomic::AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    #[inline]
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed); // E6
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed) // E6
    }
}
