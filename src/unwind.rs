//! Panics of users' code, where they must go no further: [`caught`] and [`drop_quietly`].

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Says that a call panicked. The panic hook has reported the message.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Returns what `call` returns, or says that it panicked. The panic's payload is dropped.
///
/// What a panic left half done is the user's own.
#[inline]
pub(crate) fn caught<R>(call: impl FnOnce() -> R) -> Result<R, Panicked> {
    if crate::sync::LOOM {
        // The model checker reports what it finds by panicking.
        return Ok(call());
    }
    catch_unwind(AssertUnwindSafe(call)).map_err(discard)
}

/// Runs destructors of users' values, which may panic.
///
/// They run in the middle of calls that have nothing to do with them. Such a panic has been reported by the panic hook,
/// and goes no further.
#[inline]
pub(crate) fn drop_quietly(destroy: impl FnOnce()) {
    let _: Result<(), Panicked> = caught(destroy);
}

/// Drops a panic's payload, which is a value of the user's as well.
#[cold]
fn discard(mut payload: Box<dyn Any + Send>) -> Panicked {
    // The payload's own destructor may panic as well, with another payload.
    for _ in 0..PAYLOADS {
        match catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Ok(()) => return Panicked,
            Err(another) => payload = another,
        }
    }
    // This could go on forever, so this one is leaked.
    std::mem::forget(payload);
    Panicked
}

/// How many payloads of one panic are dropped, each of which panics with the next.
const PAYLOADS: usize = 8;
