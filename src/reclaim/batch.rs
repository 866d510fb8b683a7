//! What was retired, until it is freed: in batches, by writers and sweeps.
//!
//! ```text
//!          the thread's ring        WAITING          in flight              READY
//! retire ─► [ up to 64 ]  ─ full ─► batches ─────► crossbeam-epoch ─ epoch ─► batches ─► freed
//!                │                     ▲                          passed
//!                └── taken by a sweep ─┘
//! ```
//!
//! crossbeam-epoch runs what is due on every 128th pin of any thread, also of one that only looks a job up. Here that
//! is no more than putting batches on a stack. Destructors, the users' among them, and the allocator's work are the
//! writers' and the sweeps', and are done when the thread is not pinned.
//!
//! Few flights are under way at a time, and one takes all batches that wait. So crossbeam's queue stays short however
//! long a thread was pinned, and all that waited behind it is ready two epochs after it has gone.
#![allow(clippy::arithmetic_side_effects, reason = "sums of what is in memory, and of events in 64 bits")]

use std::cell::Cell;

use super::participant::{EpochGuard, is_pinned, pin};
use super::record::{Record, Records};
use super::retired::Retired;
use super::ring::CAPACITY;
use super::stack::{Node, TreiberStack};
use crate::sync::{AtomicUsize, CachePadded, Counter, Ordering};

/// The bytes that a thread hands over at the latest, or as many things as its ring has room for.
const BATCH_BYTES: usize = 64 << 10;
/// How many flights may be under way: more would only fill crossbeam's queue, in which each takes 2 KiB.
const MAX_IN_FLIGHT: u64 = 8;
/// How many epochs a sweep tries to let pass at most. Two are enough where nobody is pinned and one flight is under
/// way.
const SWEEP_ROUNDS: usize = 16;
/// How many epochs a writer tries to let pass when more waits than may fly: three are enough once nobody is pinned.
const WRITE_ROUNDS: usize = 3;
/// How many batches a writer frees for each that it hands over: more than one, so that they get fewer.
const WRITE_MIN: usize = 8;
/// How many a sweep frees, as a batch may hold a single entry.
const SWEEP_MIN: usize = 1 << 10;
/// While more are ready than were freed, twice as many are freed the next time: in one write up to this number,
const WRITE_MAX: usize = 1 << 10;
/// and in one sweep up to this one.
const SWEEP_MAX: usize = 1 << 14;
/// A thread that is still pinned, by a reader or a sweep of its own, frees nothing until it owes so much.
const PINNED_LIMIT: usize = 8 * WRITE_MIN;

/// What is freed together.
struct Batch(Vec<Retired>);

impl Batch {
    fn new() -> Box<Node<Self>> {
        Node::new(Self(Vec::with_capacity(CAPACITY)))
    }

    fn free(&mut self) {
        let number = self.0.len() as u64;
        self.0.drain(..).for_each(Retired::free);
        RECLAIMED.add(number);
    }
}

/// The rings of all threads.
static RECORDS: Records<Retired> = Records::new();
/// The batches that were handed over, until a flight takes them.
static WAITING: TreiberStack<Batch> = TreiberStack::new();
/// Those whose epoch has passed.
static READY: TreiberStack<Batch> = TreiberStack::new();
/// How many flights have begun, and how many have ended.
static LAUNCHED: Counter = Counter::new();
static LANDED: Counter = Counter::new();
/// How often something was handed over, or a sweep wanted an epoch to pass. Every look-up of a reader loads it, and it
/// is written once in 64 writes.
static HANDED_OVER: CachePadded<Counter> = CachePadded::new(Counter::new());
/// How many things were freed.
static RECLAIMED: CachePadded<Counter> = CachePadded::new(Counter::new());
/// How many things were retired by threads whose locals were gone, or whose ring was just being taken.
static RETIRED_ALONE: Counter = Counter::new();
/// How many batches are freed the next time, by whichever thread. 0 unless more were ready than were freed.
static PACE: AtomicUsize = AtomicUsize::new(0);

crate::sync::thread_local! {
    static THREAD: Thread = const {
        Thread {
            record: Cell::new(None),
            bytes: Cell::new(0),
            owed: Cell::new(0),
            is_freeing: Cell::new(false),
            spare: Cell::new(None),
        }
    };
}

struct Thread {
    /// Where it puts what it retires. None until it retires something.
    record: Cell<Option<&'static Record<Retired>>>,
    /// How many bytes it has put there since it last handed over.
    bytes: Cell<usize>,
    /// How many batches it is to free.
    owed: Cell<usize>,
    /// Set while it frees: destructors may retire more, and must not free in turn.
    is_freeing: Cell<bool>,
    /// A batch that it has freed, for its next one.
    spare: Cell<Option<Box<Node<Batch>>>>,
}

/// Returns how many things were retired, ever, in all threads.
pub(super) fn retired() -> u64 {
    RECORDS.all().map(|record| record.ring.count()).sum::<u64>() + RETIRED_ALONE.get()
}

/// Returns how many of them were freed.
pub(super) fn reclaimed() -> u64 {
    RECLAIMED.get()
}

/// Returns a number that changes when there is more to free. A reader that stays pinned repins then, and need not count
/// its own look-ups.
#[inline]
pub(crate) fn handed_over() -> u64 {
    HANDED_OVER.get()
}

/// Puts `retired` with what the thread has retired, and hands that over if it is much. Returns `true` if the thread
/// is to [free what it owes](free_owed) when it is no longer pinned.
pub(super) fn wait(guard: &EpochGuard, retired: Retired, size: usize) -> bool {
    let mut retired = Some(retired);
    let waits = THREAD.try_with(|thread| retired.take().is_some_and(|retired| thread.wait(guard, retired, size)));
    if let (Err(_), Some(retired)) = (&waits, retired) {
        // The thread's locals are gone: it ends.
        hand_over_alone(retired, guard);
    }
    waits.unwrap_or(false)
}

/// Frees what the thread owes. To be called when a guard of the thread has been dropped.
#[cold]
pub(super) fn free_owed() {
    // Without its locals a thread is ending, and others free.
    let _: Result<(), _> = THREAD.try_with(|thread| {
        thread.owed.set(thread.owed.get().min(WRITE_MAX));
        // More waits than may fly: some thread was pinned for long, or still is.
        if !WAITING.is_empty() && !is_pinned() {
            (0..WRITE_ROUNDS).for_each(|_| launch(&pin()));
        }
        thread.free_owed(WRITE_MAX);
    });
}

/// Lets epochs pass, and frees what is ready. Does next to nothing where nothing waits.
///
/// It needs nobody's help: what threads have retired and not handed over is taken from them. Where a thread is pinned
/// all the time, the epoch does not pass, and the work is bounded all the same.
pub(crate) fn collect() {
    // Nothing waits: most sweeps end here. First what was freed, as in `reclaim_stats`.
    let reclaimed = reclaimed();
    if retired() <= reclaimed {
        return;
    }
    // Take what threads have in their rings, also those that do nothing any more. Under a pin, as all pushes are (E9).
    for record in RECORDS.all().filter(|record| !record.ring.is_empty()) {
        let guard = pin();
        if let Some(batch) = take_from(record, None) {
            WAITING.push(batch);
        }
        drop(guard);
    }
    // Let epochs pass until all of it is ready. Each time under another pin, as a pin holds its own epoch back.
    for _ in 0..SWEEP_ROUNDS {
        if WAITING.is_empty() && LAUNCHED.get() == LANDED.get() {
            break;
        }
        launch(&pin());
    }
    // Free at the common pace, which may be faster: for sweeps to come as well if writers do not.
    let _: Result<(), _> = THREAD.try_with(|thread| {
        let freed = if is_pinned() { PINNED_LIMIT } else { pace().max(SWEEP_MIN) };
        thread.owed.set(thread.owed.get().max(freed));
        thread.free_owed(SWEEP_MAX);
    });
}

/// Hands over one thing by itself.
#[cold]
fn hand_over_alone(retired: Retired, guard: &EpochGuard) {
    RETIRED_ALONE.increment();
    WAITING.push(Node::new(Batch(vec![retired])));
    launch(guard);
}

/// Returns how many batches are freed the next time, if more than usual.
fn pace() -> usize {
    PACE.load(Ordering::Relaxed) // E6
}

/// Takes what is in a ring, in a batch, `spare` if there is one. None if there is nothing, or another thread is at it.
fn take_from(record: &Record<Retired>, spare: Option<Box<Node<Batch>>>) -> Option<Box<Node<Batch>>> {
    let mut batch = spare.unwrap_or_else(Batch::new);
    record.ring.take(&mut batch.value.0);
    (!batch.value.0.is_empty()).then_some(batch)
}

/// Sends all batches that wait on a flight, if not too many are under way, and tries to let the epoch pass.
#[cold]
fn launch(guard: &EpochGuard) {
    // Readers repin when this changes, without which no epoch passes.
    HANDED_OVER.increment();
    // The counters are not of one instant: more may seem to have landed than were launched.
    if LAUNCHED.get().saturating_sub(LANDED.get()) < MAX_IN_FLIGHT {
        // All that wait go at once, so that the queue of flights stays short.
        if let Some(batches) = WAITING.take().into_chain() {
            LAUNCHED.increment();
            // Whoever runs this only puts the batches on a stack: it may be a look-up.
            let land = move || {
                READY.push_chain(batches);
                LANDED.increment();
            };
            // SAFETY: the batches are this closure's alone. They hold what was retired before they were pushed
            // (E9), under guards of other threads or of this one, so after whoever could have loaded it was pinned
            // (E3). The closure puts them on the stack only; whoever takes one from there frees it as `retire`'s
            // callers allowed: later, on any thread.
            unsafe { guard.defer_unchecked(land) };
        }
    }
    // Seals the flight, and has crossbeam try to pass the epoch.
    guard.flush();
}

impl Thread {
    /// Returns `true` if the thread owes something.
    #[inline]
    fn wait(&self, guard: &EpochGuard, retired: Retired, size: usize) -> bool {
        // The thread's first one: a thread may end before it hands over, and so frees a little now.
        let record = self.record.get().unwrap_or_else(|| self.begin());
        let bytes = self.bytes.get() + size;
        self.bytes.set(bytes);
        // Into the ring, so that a sweep can take it should this thread do nothing more.
        // SAFETY: the record is this thread's (`begin`), which claimed it.
        match unsafe { record.ring.put(retired) } {
            Ok(waiting) if waiting < CAPACITY && bytes < BATCH_BYTES => {}
            // Much waits: it is handed over.
            Ok(_) => self.hand_over(record, guard),
            // A sweep is at it, and was stopped: this one goes by itself.
            Err(retired) => hand_over_alone(retired, guard),
        }
        // Once the guard is dropped, what is owed is freed, or by whoever is at it further up the stack.
        self.owed.get() > 0
    }

    #[cold]
    fn begin(&self) -> &'static Record<Retired> {
        let record = RECORDS.claim();
        self.record.set(Some(record));
        self.owe();
        record
    }

    #[cold]
    fn hand_over(&self, record: &Record<Retired>, guard: &EpochGuard) {
        self.bytes.set(0);
        if let Some(batch) = take_from(record, self.spare.take()) {
            WAITING.push(batch);
        }
        launch(guard);
        self.owe();
    }

    /// Owes what a batch costs.
    fn owe(&self) {
        self.owed.set(self.owed.get() + pace().clamp(WRITE_MIN, WRITE_MAX));
    }

    /// Frees as many batches as the thread owes, those included that it owes by what their destructors retire. If more
    /// are ready, it owes twice as many the next time, up to `most`.
    #[cold]
    fn free_owed(&self, most: usize) {
        // A destructor that retires gets here from the loop below, which goes on with what is owed by that.
        if self.is_freeing.replace(true) {
            return;
        }
        // Destructors take their time, and nobody's epoch passes while this thread is pinned. Unless it always is, and
        // owes so much that the memory matters more.
        if !is_pinned() || self.owed.get() >= PINNED_LIMIT {
            let mut freed = 0;
            let all = loop {
                // Enough for now.
                let Some(owed) = self.owed.get().checked_sub(1) else { break false };
                // Paid before it is freed: destructors may owe more meanwhile.
                self.owed.set(owed);
                // No more are ready.
                let Some(mut batch) = READY.pop() else { break true };
                batch.value.free();
                freed += 1;
                // Its memory is the thread's next batch.
                self.spare.set(Some(batch));
            };
            // Twice as fast while more become ready than are freed, whichever thread is next. Back to normal after.
            let next = if all { 0 } else { (2 * freed).min(most) };
            self.owed.set(next);
            if pace() != next {
                PACE.store(next, Ordering::Relaxed); // E6
            }
        }
        self.is_freeing.set(false);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            let guard = pin();
            self.hand_over(record, &guard);
            record.release();
        }
    }
}
