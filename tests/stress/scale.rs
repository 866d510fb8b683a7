//! Up to 100,000 jobs and back, with ids of several kinds and with hashes that are all equal: nothing is lost, nothing
//! leaks.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use livemark::Registry;

use crate::support::{AllEqual, OneRootSlot, alone, reclaim_until};

const MANY: u64 = 100_000;

/// A context that is counted while it lives; cheaper than `Tracked` for many.
struct Counted {
    number: u64,
    live: Arc<AtomicUsize>,
}

impl Counted {
    fn new(number: u64, live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::SeqCst);
        Self { number, live: Arc::clone(live) }
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new(self.number, &self.live)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Below zero would wrap, and never be zero again.
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Grows a registry to `jobs` jobs, checks all of them, and shrinks it again, twice.
fn up_and_down<K, S>(registry: &Registry<K, Counted, S>, jobs: u64, id: impl Fn(u64) -> K)
where
    K: Clone + Eq + Ord + Hash + Send + Sync + 'static,
    S: BuildHasher,
{
    let live = Arc::new(AtomicUsize::new(0));
    for round in 0..2 {
        let mut guards: Vec<_> = (0..jobs).map(|n| registry.mark(id(n), Counted::new(n, &live))).collect();
        assert_eq!(registry.len() as u64, jobs);
        let mut reader = registry.reader();
        for n in 0..jobs {
            assert_eq!(reader.owner(&id(n)).map(|owner| owner.value.number), Some(n));
            assert!(!reader.is_active(&id(n + jobs)));
        }
        drop(reader);
        let snapshot = registry.snapshot();
        assert!(snapshot.is_atomic() && snapshot.len() as u64 == jobs);
        assert!(snapshot.iter().zip(snapshot.iter().skip(1)).all(|((one, _), (next, _))| one < next));
        drop(snapshot);

        // Every other one first, so that what is left lies between gaps.
        let rest: Vec<_> = guards.extract_odd();
        drop(guards);
        assert_eq!(registry.len(), rest.len());
        for n in 0..jobs.min(1_000) {
            assert_eq!(registry.is_active(&id(n)), n % 2 == 1, "job {n} of round {round}");
        }
        drop(rest);
        assert!(registry.is_empty());
        reclaim_until("every value of a registry that has shrunk to nothing", || live.load(Ordering::SeqCst) == 0);
    }
    let stats = registry.stats();
    assert_eq!((stats.marks, stats.displaced, stats.stale_clears), (2 * jobs, 0, 0));
}

trait ExtractOdd: Sized {
    /// Takes the elements at odd places out.
    fn extract_odd(&mut self) -> Self;
}

impl<T> ExtractOdd for Vec<T> {
    fn extract_odd(&mut self) -> Self {
        let (even, odd): (Vec<_>, Vec<_>) = self.drain(..).enumerate().partition(|(place, _)| place % 2 == 0);
        *self = even.into_iter().map(|(_, element)| element).collect();
        odd.into_iter().map(|(_, element)| element).collect()
    }
}

#[test]
fn a_hundred_thousand_numbers_come_and_go() {
    let _alone = alone();
    up_and_down(&Registry::<u64, _>::new(), MANY, |n| n);
}

#[test]
fn ten_thousand_strings_come_and_go_and_are_found_by_str() {
    let _alone = alone();
    let registry: Registry<String, Counted> = Registry::new();
    up_and_down(&registry, 10_000, |n| format!("job-{n}"));

    let live = Arc::new(AtomicUsize::new(0));
    let _guard = registry.mark("job-7".to_owned(), Counted::new(7, &live));
    assert!(registry.is_active("job-7") && !registry.is_active("job-77"));
}

#[test]
fn ten_thousand_ids_of_16_bytes_come_and_go() {
    let _alone = alone();
    up_and_down(&Registry::<[u8; 16], _>::new(), 10_000, |n| (u128::from(n) << 64 | 7).to_be_bytes());
}

#[test]
fn twenty_thousand_jobs_of_one_root_slot_come_and_go() {
    let _alone = alone();
    up_and_down(&Registry::<u64, _, _>::with_hasher(OneRootSlot::default()), 20_000, |n| n);
}

#[test]
fn two_thousand_equal_hashes_come_and_go() {
    let _alone = alone();
    up_and_down(&Registry::<u64, _, _>::with_hasher(AllEqual::default()), 2_000, |n| n);
}

#[test]
fn a_registry_that_is_dropped_full_drops_everything() {
    let _alone = alone();
    let live = Arc::new(AtomicUsize::new(0));
    let registry: Registry<u64, Counted> = Registry::new();
    for n in 0..MANY {
        std::mem::forget(registry.mark(n, Counted::new(n, &live)));
    }
    assert_eq!(live.load(Ordering::SeqCst) as u64, MANY);
    drop(registry);
    assert_eq!(live.load(Ordering::SeqCst), 0, "what was still marked is dropped at once");
}

#[test]
fn a_job_that_is_marked_over_and_over_keeps_no_garbage() {
    let _alone = alone();
    let live = Arc::new(AtomicUsize::new(0));
    let registry: Registry<u64, Counted> = Registry::new();
    let mut peak = 0;
    for n in 0..MANY {
        drop(registry.mark(7, Counted::new(n, &live)));
        peak = peak.max(live.load(Ordering::SeqCst));
    }
    reclaim_until("every value of one job", || live.load(Ordering::SeqCst) == 0);
    assert!(registry.is_empty());
    assert!(peak < MANY as usize, "nothing was freed while it was marked");
}
