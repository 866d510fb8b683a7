//! Atomics through which loom's search has no gaps: each load passes a turnstile.
//!
//! loom remembers one last access of each atomic. So a thread's own load hides another's load from its
//! compare-exchange, and a search over loads and compare-exchanges misses orders. Each load here is therefore preceded
//! by a read-modify-write of one atomic that the whole model shares, the turnstile. Of those loom explores every order,
//! and so every order of the loads. The turnstile is relaxed: it puts nothing before anything. To pass it before
//! compare-exchanges as well finds nothing more, in six times as many executions.
//!
//! `loom-tests/tests/self_check.rs` compares what is found through these types with all that there is.

use loom::sync::atomic::Ordering;

loom::lazy_static! {
    static ref TURNSTILE: loom::sync::atomic::AtomicUsize = loom::sync::atomic::AtomicUsize::new(0);
}

/// The atomic of the slots.
#[derive(Debug)]
pub struct AtomicUsize(loom::sync::atomic::AtomicUsize);

/// Passes the turnstile. Called by itself before what crossbeam-epoch does with atomics of its own, which have the same
/// gaps.
pub(crate) fn schedule_point() {
    TURNSTILE.fetch_add(1, Ordering::Relaxed);
}

impl AtomicUsize {
    /// Creates an atomic of the running model.
    pub fn new(value: usize) -> Self {
        // The first use makes the turnstile: here, before the threads are spawned.
        let _: &loom::sync::atomic::AtomicUsize = &TURNSTILE;
        Self(loom::sync::atomic::AtomicUsize::new(value))
    }

    /// Does what `std`'s does.
    pub fn load(&self, order: Ordering) -> usize {
        schedule_point();
        self.0.load(order)
    }

    /// Does what `std`'s does.
    pub fn store(&self, value: usize, order: Ordering) {
        self.0.store(value, order);
    }

    /// Does what `std`'s does.
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

/// A pointer that is replaced, such as the top of a stack.
#[derive(Debug)]
pub(crate) struct AtomicPtr<T>(loom::sync::atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub(crate) fn new(pointer: *mut T) -> Self {
        Self(loom::sync::atomic::AtomicPtr::new(pointer))
    }

    pub(crate) fn load(&self, order: Ordering) -> *mut T {
        schedule_point();
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

/// A pointer that is null until it is set once and for all. Its loads pass the turnstile while it is null. Later loads
/// see one value only, and would multiply the executions for nothing.
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
