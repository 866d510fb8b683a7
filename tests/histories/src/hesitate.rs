//! Threads that are held up at random, and a job id that does it inside the registry.

use std::cell::RefCell;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::thread;

use fastrand::Rng;

thread_local! {
    static RNG: RefCell<Rng> = const { RefCell::new(Rng::with_seed(0)) };
}

/// Makes this thread's hesitations those of `seed`.
pub(crate) fn seed(seed: u64) {
    RNG.with_borrow_mut(|rng| rng.seed(seed));
}

/// Does nothing, wastes a little time, or lets another thread run.
pub(crate) fn hesitate() {
    let dice = RNG.with_borrow_mut(|rng| rng.u8(..));
    match dice {
        0..150 => {}
        150..235 => (150..dice).for_each(|_| std::hint::spin_loop()),
        235.. => thread::yield_now(),
    }
}

/// A job id that hesitates wherever the registry uses it.
#[derive(Debug, PartialOrd, Ord)]
pub(crate) struct Job {
    pub(crate) id: u64,
    /// Chosen, so that histories choose which jobs share a slot.
    pub(crate) hash: u64,
}

impl Clone for Job {
    fn clone(&self) -> Self {
        hesitate();
        Self { ..*self }
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        hesitate();
        self.id == other.id
    }
}

impl Eq for Job {}

impl Hash for Job {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hesitate();
        state.write_u64(self.hash);
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
