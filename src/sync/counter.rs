//! A statistic: [`Counter`].

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts events and orders nothing (edge E6 of the orderings page).
///
/// Always `std`'s atomic: no answer depends on a counter. (One tells readers when to repin, which a model decides by
/// itself.) A model would gain nothing from exploring counters, and pay with a multiple of its states.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    #[inline]
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed); // E6
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed) // E6
    }
}
