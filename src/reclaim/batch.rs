//! What was retired, until it is freed: in batches, and by writers.
//!
//! ```text
//! retire ─► the thread's batch ─ full ─► crossbeam-epoch ─ epoch passed ─► DUE ─► freed by the next writer with a full batch
//! ```
//!
//! crossbeam-epoch runs what is due on every 128th pin of any thread, also of one that only looks a job up. Here that
//! is no more than putting batches on a stack: destructors, the users' among them, and the allocator's work are the
//! writers'.

use std::cell::Cell;

use super::stack::{Node, Stack};
use super::{EpochGuard, RECLAIMED, RETIRED, Retired, pin};

/// So many are handed over at once, or fewer of so many bytes.
const FULL: usize = 64;
const FULL_BYTES: usize = 64 << 10;
/// A writer frees so many batches that are due for each that it begins: more than it hands over, so that they get
/// fewer.
const FREED_FOR_ONE: usize = 4;
/// And a sweep at most so many; a batch may hold a single entry.
const FREED_BY_A_SWEEP: usize = 1_024;

struct Batch {
    retired: Vec<Retired>,
    bytes: usize,
}

impl Batch {
    fn new() -> Box<Node<Self>> {
        Node::new(Self { retired: Vec::with_capacity(FULL), bytes: 0 })
    }

    fn put(&mut self, retired: Retired, size: usize) {
        self.retired.push(retired);
        self.bytes = self.bytes.saturating_add(size);
    }

    fn is_full(&self) -> bool {
        self.retired.len() >= FULL || self.bytes >= FULL_BYTES
    }

    fn free(&mut self) {
        let number = self.retired.len() as u64;
        self.retired.drain(..).for_each(Retired::free);
        self.bytes = 0;
        RECLAIMED.0.add(number);
    }
}

/// The batches whose epoch has passed.
static DUE: Stack<Batch> = Stack::new();

// SAFETY: what is retired may be freed on any thread.
unsafe impl Send for Retired {}

crate::sync::thread_local! {
    static THREAD: Thread = const { Thread { batch: Cell::new(None), is_freeing: Cell::new(false), owed: Cell::new(0) } };
}

struct Thread {
    /// What the thread has retired since it last handed a batch over.
    batch: Cell<Option<Box<Node<Batch>>>>,
    /// Whether it frees a batch just now: destructors may retire more, and must not free in turn.
    is_freeing: Cell<bool>,
    /// How many batches it is to free, for those that it began.
    owed: Cell<usize>,
}

/// Puts `retired` with what the thread has retired, and hands that over if it is much.
pub(super) fn wait(guard: &EpochGuard, retired: Retired, size: usize) {
    let mut retired = Some(retired);
    let waits = THREAD.try_with(|thread| {
        let mut batch = thread.batch.take().unwrap_or_else(|| {
            // Not when it is full: a thread may end before. What is owed is freed below, or by whoever is at it further
            // up the stack.
            thread.owed.set(thread.owed.get().saturating_add(FREED_FOR_ONE));
            Batch::new()
        });
        if let Some(retired) = retired.take() {
            batch.value.put(retired, size);
        }
        if batch.value.is_full() {
            hand_over(batch, guard);
            thread.owed.set(thread.owed.get().saturating_add(FREED_FOR_ONE));
        } else {
            thread.batch.set(Some(batch));
        }
        if thread.owed.get() > 0 {
            thread.free_owed();
        }
    });
    if let (Err(_), Some(retired)) = (waits, retired) {
        // The thread's locals are gone: it ends.
        let mut batch = Batch::new();
        batch.value.put(retired, size);
        hand_over(batch, guard);
    }
}

/// Lets `batch` be due when the epoch has passed.
#[cold]
fn hand_over(batch: Box<Node<Batch>>, guard: &EpochGuard) {
    RETIRED.0.add(batch.value.retired.len() as u64);
    // SAFETY: the batch is this closure's alone. It holds what was retired under `guard` or earlier ones of this
    // thread, so after whoever could have loaded it was pinned (E3). The closure puts it on the stack only; whoever
    // takes it from there frees it as `retire`'s callers allowed: later, on any thread.
    unsafe { guard.defer_unchecked(move || DUE.push(batch)) };
    guard.flush();
}

/// Frees what is due: so much that a sweep now and then keeps up with threads that come and go.
pub(crate) fn free_due() {
    // Without its locals a thread is ending, and others free.
    let _: Result<(), _> = THREAD.try_with(|thread| {
        thread.owed.set(thread.owed.get().saturating_add(FREED_BY_A_SWEEP));
        thread.free_owed();
    });
}

impl Thread {
    /// Frees as many batches as the thread owes, those included that it owes by what their destructors retire.
    #[cold]
    fn free_owed(&self) {
        if self.is_freeing.replace(true) {
            return;
        }
        while let Some(owed) = self.owed.get().checked_sub(1) {
            self.owed.set(owed);
            let Some(mut batch) = DUE.pop() else {
                self.owed.set(0);
                break;
            };
            batch.value.free();
            // For what the thread retires next, so that it need not allocate one; unless it has one.
            let other = self.batch.take();
            self.batch.set(Some(other.unwrap_or(batch)));
        }
        self.is_freeing.set(false);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            hand_over(batch, &pin());
        }
    }
}
