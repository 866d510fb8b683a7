//! Where panics of the user's code end: destructors, subscribers, recorders, job stores.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A call panicked, and its payload is gone. The panic hook has reported the message.
pub(crate) struct Panicked;

/// Returns what `call` returns, or [`Panicked`].
///
/// Callers let go of whatever a panic may have left half done, or the user is told.
pub(crate) fn caught<R>(call: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        // A payload's destructor may panic as well. The payload of that panic is the only one that is not dropped.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
        Panicked
    })
}

/// Runs destructors of users' values, which may panic.
///
/// They run in the middle of writes that have nothing to do with them. Such a panic goes no further.
pub(crate) fn drop_quietly(destroy: impl FnOnce()) {
    if crate::sync::MODEL {
        // The model checker reports what it finds by panicking.
        return destroy();
    }
    let _: Result<(), Panicked> = caught(destroy);
}
