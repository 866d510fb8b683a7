//! What was retired, until it is freed: in batches, and by writers.
//!
//! ```text
//! retire ─► the thread's batch ─ full ─► crossbeam-epoch ─ epoch passed ─► DUE ─► freed by the next writer with a full batch
//! ```
//!
//! crossbeam-epoch runs what is due on every 128th pin of any thread, also of one that only looks a job up. Here that is no
//! more than putting batches on a stack: destructors, the users' among them, and the allocator's work are the writers'.

use std::cell::Cell;
use std::ptr;
use std::sync::Mutex;

use super::{BATCHES, EpochGuard, Retired, pin};
use crate::sync::{AtomicPtr, Ordering};

/// So much is handed over at once.
const FULL: usize = 64;
/// A writer with a full batch frees so many that are due, if there are: more than it hands over, so that they get fewer.
const FREED_FOR_ONE: usize = 4;

struct Batch {
    retired: Vec<Retired>,
    /// In a stack: the one below.
    next: *mut Batch,
}

impl Batch {
    fn new() -> Box<Self> {
        Box::new(Self { retired: Vec::with_capacity(FULL), next: ptr::null_mut() })
    }
}

/// The batches whose epoch has passed, as a stack.
static DUE: AtomicPtr<Batch> = AtomicPtr::new(ptr::null_mut());

/// What was taken from there. Only ever tried: who finds it locked leaves the work to the one who holds it.
static TAKEN: Mutex<Stack> = Mutex::new(Stack(ptr::null_mut()));

/// The batches of a stack, from the top one on.
struct Stack(*mut Batch);

// SAFETY: what is retired may be freed on any thread.
unsafe impl Send for Stack {}

crate::sync::thread_local! {
    static THREAD: Thread = const { Thread { batch: Cell::new(None), is_freeing: Cell::new(false) } };
}

struct Thread {
    /// What the thread has retired since it last handed a batch over.
    batch: Cell<Option<Box<Batch>>>,
    /// Whether it frees a batch just now: destructors may retire more, and must not free in turn.
    is_freeing: Cell<bool>,
}

/// Puts `retired` with what the thread has retired, and hands that over if it is much.
pub(super) fn wait(guard: &EpochGuard, retired: Retired) {
    let mut retired = Some(retired);
    let waits = THREAD.try_with(|thread| {
        let mut batch = thread.batch.take().unwrap_or_else(Batch::new);
        batch.retired.extend(retired.take());
        if batch.retired.len() < FULL {
            thread.batch.set(Some(batch));
            return;
        }
        hand_over(batch, guard);
        free_due();
    });
    if waits.is_err() {
        // The thread's locals are gone: it ends.
        let mut batch = Batch::new();
        batch.retired.extend(retired);
        hand_over(batch, guard);
    }
}

/// Lets `batch` be due when the epoch has passed.
#[cold]
fn hand_over(batch: Box<Batch>, guard: &EpochGuard) {
    let batch = Box::into_raw(batch);
    // SAFETY: the batch is this closure's alone. It holds what was retired under `guard` or earlier ones of this thread, so after
    // whoever could have loaded it was pinned (E3). The closure puts it on the stack only; whoever takes it from there frees it
    // as `retire`'s callers allowed: later, on any thread.
    unsafe { guard.defer_unchecked(move || push(batch)) };
    guard.flush();
    BATCHES.0.increment();
}

/// Frees some of what is due.
pub(crate) fn free_due() {
    // Without its locals a thread is ending, and others free.
    let _: Result<(), _> = THREAD.try_with(|thread| {
        if thread.is_freeing.replace(true) {
            return;
        }
        for _ in 0..FREED_FOR_ONE {
            let Some(mut batch) = pop() else { break };
            batch.retired.drain(..).for_each(Retired::free);
            // For what the thread retires next, so that it need not allocate one; unless a destructor made one.
            let other = thread.batch.take();
            thread.batch.set(Some(other.unwrap_or(batch)));
        }
        thread.is_freeing.set(false);
    });
}

/// Puts `batch` on the stack: all that is done on a look-up's time.
fn push(batch: *mut Batch) {
    let mut head = DUE.load(Ordering::Relaxed); // E9: it is only compared
    loop {
        // SAFETY: the caller's alone until the exchange succeeds.
        unsafe { (*batch).next = head };
        // E9, release half: whoever takes the stack sees the batch, and those below it.
        match DUE.compare_exchange(head, batch, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => head = other,
        }
    }
}

/// One of those that are due, unless another thread is just here.
fn pop() -> Option<Box<Batch>> {
    let mut taken = TAKEN.try_lock().ok()?;
    if taken.0.is_null() {
        // E9, acquire half. The whole stack: so that its batches cannot come back between a look and an exchange.
        taken.0 = DUE.swap(ptr::null_mut(), Ordering::Acquire);
    }
    let batch = taken.0;
    if batch.is_null() {
        return None;
    }
    // SAFETY: it came from a box (`hand_over`), and belonged to the stack that was taken whole.
    let batch = unsafe { Box::from_raw(batch) };
    taken.0 = batch.next;
    Some(batch)
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            hand_over(batch, &pin());
        }
    }
}
