//! What the crate runs on in a model: `loom`'s own, and what makes it see all that it should.

pub(crate) use loom::cell::UnsafeCell;
pub(crate) use loom::sync::Mutex;
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
pub(crate) use loom::thread_local;

pub(crate) use super::turnstile::{AtomicPtr, AtomicUsize, OncePtr, schedule_point};

pub(crate) const LOOM: bool = true;

/// Part of an allocation whose life loom follows. A read that may come before the allocation was made or after it was
/// freed fails the model, and so does a leak.
#[derive(Debug)]
pub(crate) struct LoomTracked {
    life: loom::cell::UnsafeCell<()>,
    _leak: loom::alloc::Track<()>,
}

impl LoomTracked {
    pub(crate) fn new() -> Self {
        Self { life: loom::cell::UnsafeCell::new(()), _leak: loom::alloc::Track::new(()) }
    }

    pub(crate) fn read(&self) {
        self.life.with(|_| ());
    }
}

impl Drop for LoomTracked {
    fn drop(&mut self) {
        // A second panic would abort, and hide the first one's message.
        if !std::thread::panicking() {
            self.life.with_mut(|_| ());
        }
    }
}

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
