//! In a model: a collector for each execution, and participants that are made before the threads.

use std::cell::Cell;

pub(crate) use crossbeam_epoch::Guard as EpochGuard;
use crossbeam_epoch::{Collector, LocalHandle};

use crate::sync::schedule_point;

crate::sync::thread_local! {
    static CURRENT: Cell<Option<*const Participant>> = Cell::new(None);
}

/// A thread's place in the model's own collector, made before the thread is spawned and moved into it.
///
/// Registering inside the threads would multiply the states by a thousand.
#[derive(Debug)]
pub struct Participant {
    handle: LocalHandle,
    /// Set if its pins pass the turnstile, as slots' loads do.
    turns: bool,
}

// SAFETY: a participant is moved to a thread before that thread first pins with it and is never shared;
// no guard of it is alive while it moves (`new` drops the one it makes).
unsafe impl Send for Participant {}

impl Participant {
    /// Registers with `collector` and pins once: a first pin runs a collection, which belongs here.
    ///
    /// With `turns`, loom explores every order of its pins and of others' flushes. Where nothing is freed that
    /// finds nothing, in several times as many executions.
    pub fn new(collector: &Collector, turns: bool) -> Self {
        let handle = collector.register();
        drop(handle.pin());
        Self { handle, turns }
    }

    /// Runs `thread` with this participant behind every `pin()` of the crate.
    pub fn enter<R>(&self, thread: impl FnOnce() -> R) -> R {
        CURRENT.with(|current| current.set(Some(self)));
        let result = thread();
        CURRENT.with(|current| current.set(None));
        result
    }

    /// Pins, as the crate's own `pin()` does inside [`enter`](Self::enter).
    pub fn pin(&self) -> EpochGuard {
        if self.turns {
            schedule_point();
        }
        self.handle.pin()
    }

    /// Seals the thread's garbage and collects what is due: three rounds free all that nobody can see.
    pub fn flush(&self) {
        schedule_point();
        self.handle.pin().flush();
    }
}

#[expect(clippy::expect_used, reason = "a model whose thread has no participant must fail")]
pub(crate) fn pin() -> EpochGuard {
    let participant = CURRENT.with(Cell::get).expect("a model's thread runs inside Participant::enter");
    // SAFETY: `enter` keeps the participant borrowed while it is the current one.
    unsafe { (*participant).pin() }
}
