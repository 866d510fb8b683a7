//! An allocator that counts what is allocated, by thread and by the process, and that fails when it is told to.
#![allow(dead_code, reason = "each program uses a part of it")]
#![allow(unsafe_code, reason = "a global allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

/// How many allocations go well, and what is called before the next one fails.
type Failure = (u64, fn());

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// This thread's next failure, if it is to have one.
    static FAILURE: Cell<Option<Failure>> = const { Cell::new(None) };
}

/// Returns how many bytes the process has allocated and not freed.
pub(crate) fn bytes() -> usize {
    BYTES.load(Ordering::Relaxed)
}

/// Returns how often `call` allocates on this thread.
pub(crate) fn allocations<R>(call: impl FnOnce() -> R) -> usize {
    let before = ALLOCATIONS.get();
    let result = call();
    let after = ALLOCATIONS.get();
    drop(result);
    after - before
}

/// Lets the allocation of this thread fail that comes after so many others, once it has called `before`.
pub(crate) fn fail_after(allocations: u64, before: fn()) {
    FAILURE.set(Some((allocations, before)));
}

/// Lets no allocation fail.
pub(crate) fn fail_no_more() {
    FAILURE.set(None);
}

// SAFETY: hands everything on to the system's allocator, or gives null. The counts are constant-initialized cells
// without a destructor, whose access allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match FAILURE.get() {
            None => {}
            Some((0, before)) => {
                // What follows on this thread (the report of the failure) must not fail as well.
                FAILURE.set(None);
                before();
                return std::ptr::null_mut();
            }
            Some((left, before)) => FAILURE.set(Some((left - 1, before))),
        }
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
