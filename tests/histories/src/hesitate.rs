//! Threads that are held up at random, and a job id and a context that do it inside the registry.

use std::cell::Cell;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Counts the beginnings and the ends of all calls. One for the process, as there is one order of what happens in it.
static TICKETS: AtomicUsize = AtomicUsize::new(0);

/// The next ticket.
pub(crate) fn ticket() -> usize {
    TICKETS.fetch_add(1, Ordering::SeqCst)
}

/// How a thread behaves during one history.
#[derive(Clone, Copy, Debug)]
enum Temper {
    Calm,
    /// Wastes a little time, now and then.
    Lively,
    /// Lets others run as well.
    Slow,
}

thread_local! {
    static TEMPER: Cell<Temper> = const { Cell::new(Temper::Calm) };
    static DICE: Cell<u64> = const { Cell::new(0) };
}

/// Makes this thread's hesitations those of `seed`.
pub(crate) fn seed(seed: u64) {
    DICE.set(seed);
    TEMPER.set(match seed >> 61 {
        0 => Temper::Calm,
        1..=3 => Temper::Lively,
        _ => Temper::Slow,
    });
}

/// Ends this thread's hesitations: for what is done alone.
pub(crate) fn be_calm() {
    TEMPER.set(Temper::Calm);
}

/// Does nothing, wastes a little time, lets another thread run, or waits a moment for another's next call.
pub(crate) fn hesitate() {
    let temper = TEMPER.get();
    if matches!(temper, Temper::Calm) {
        return;
    }
    let dice = DICE.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    DICE.set(dice);
    let (choice, length) = ((dice >> 33) & 31, (dice >> 40) & 63);
    match (temper, choice) {
        (_, 0..=7) => (0..length).for_each(|_| spin_loop()),
        (Temper::Slow, 8..=9) => thread::yield_now(),
        (Temper::Slow, 10..=12) => wait_for_others(),
        _ => {}
    }
}

/// What overlaps where cores are few: a thread that stands still inside a call until another has begun or ended one.
fn wait_for_others() {
    let seen = TICKETS.load(Ordering::Relaxed);
    for round in 0..6 {
        for _ in 0..40 {
            if TICKETS.load(Ordering::Relaxed) != seen {
                return;
            }
            spin_loop();
        }
        if round > 0 {
            thread::yield_now();
        }
    }
}

/// A job id that hesitates wherever the registry uses it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: u64,
    /// Chosen, so that histories choose which jobs share a slot.
    pub(crate) hash: u64,
}

impl Job {
    /// A copy, without hesitation.
    pub(crate) fn copy(&self) -> Self {
        Self { ..*self }
    }
}

impl Clone for Job {
    fn clone(&self) -> Self {
        hesitate();
        self.copy()
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        hesitate();
        self.id == other.id
    }
}

impl Eq for Job {}

impl PartialOrd for Job {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Job {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.id.cmp(&other.id)
    }
}

impl Hash for Job {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hesitate();
        state.write_u64(self.hash);
    }
}

/// The context of a mark, which hesitates when it is copied: the owner may change meanwhile.
#[derive(Debug)]
pub(crate) struct Context(pub(crate) u64);

impl Clone for Context {
    fn clone(&self) -> Self {
        hesitate();
        Self(self.0)
    }
}

/// Gives a job the hash that it has.
pub(crate) type AsChosen = BuildHasherDefault<Chosen>;

/// The state of [`AsChosen`].
#[derive(Default)]
pub(crate) struct Chosen(u64);

impl Hasher for Chosen {
    fn write(&mut self, _: &[u8]) {
        unreachable!("jobs are hashed as a u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
