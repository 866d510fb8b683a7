//! Context values whose drops are counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::waiting::reclaim_until;

/// Keeps the books of the [`Tracked`] values it makes, clones included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census(Arc<Mutex<Vec<Arc<AtomicUsize>>>>);

impl Census {
    /// A value that is counted until it is dropped.
    pub(crate) fn tracked(&self, number: u64) -> Tracked {
        let drops = Arc::new(AtomicUsize::new(0));
        self.0.lock().unwrap().push(Arc::clone(&drops));
        Tracked { number, drops, census: self.clone() }
    }

    /// How many were made, by [`Census::tracked`] or by cloning.
    pub(crate) fn made(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// How many are not dropped yet.
    pub(crate) fn live(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|drops| drops.load(Ordering::SeqCst) == 0).count()
    }

    /// Waits until each is dropped, and checks that none was dropped twice.
    pub(crate) fn assert_each_is_dropped_once(&self) {
        reclaim_until("every value is dropped", || self.live() == 0);
        let books = self.0.lock().unwrap();
        let drops = books.iter().map(|drops| drops.load(Ordering::SeqCst));
        assert_eq!(drops.max().unwrap_or(1), 1, "a value was dropped more than once");
    }
}

/// A context value whose every instance is in the books of a [`Census`].
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(crate) number: u64,
    drops: Arc<AtomicUsize>,
    census: Census,
}

impl Clone for Tracked {
    fn clone(&self) -> Self {
        self.census.tracked(self.number)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
    }
}
