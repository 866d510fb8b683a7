//! What a snapshot promises: every owned job once, in order, copied, and of one instant when it says so.

use std::hash::{BuildHasher, RandomState};

use livemark::Registry;

use crate::support::{AllEqual, Census, OneRootSlot, jobs_of};

#[test]
fn the_snapshot_of_an_empty_registry_is_empty() {
    let registry: Registry<u64, &str> = Registry::new();
    let snapshot = registry.snapshot();
    assert_eq!((snapshot.len(), snapshot.is_empty(), snapshot.is_atomic()), (0, true, true));
    assert!(snapshot.iter().next().is_none() && snapshot.get(&7).is_none());
}

#[test]
fn a_snapshot_counts_the_owned_jobs_and_sorts_their_ids() {
    fn check<S: BuildHasher>(hasher: S) {
        let registry = Registry::with_hasher(hasher);
        // Marked in an order of their own; some are cleared again.
        let ids = (0..300).map(|n| n * 7_919 % 1_000);
        let _guards: Vec<_> = ids.clone().map(|job| registry.mark(job, job * 10)).collect();
        let cleared: Vec<_> = ids.clone().filter(|job| job % 4 == 0).collect();
        assert!(cleared.iter().all(|job| registry.clear(job)));

        let mut expected: Vec<_> = ids.filter(|job| job % 4 != 0).collect();
        expected.sort_unstable();
        let snapshot = registry.snapshot();
        assert!(snapshot.is_atomic(), "nobody was writing");
        assert_eq!(jobs_of(&snapshot), expected);
        assert_eq!((snapshot.len(), snapshot.is_empty()), (expected.len(), false));
        assert_eq!(snapshot.iter().len(), expected.len());
        assert_eq!(snapshot.iter().next_back().map(|(job, _)| job), expected.last());
        for job in 0..1_000 {
            assert_eq!(snapshot.get(&job).copied(), registry.owner(&job), "job {job}");
        }
    }
    check(RandomState::new());
    check(AllEqual::default());
    check(OneRootSlot::default());
}

#[test]
fn a_snapshot_finds_strings_by_str() {
    let registry: Registry<String, &str> = Registry::new();
    let _guards = ["b", "a"].map(|job| registry.mark(job.to_owned(), "run 1"));
    let snapshot = registry.snapshot();
    assert_eq!(snapshot.iter().map(|(job, _)| job.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(snapshot.get("b").map(|owner| owner.value), Some("run 1"));
    assert!(snapshot.get("c").is_none());
}

#[test]
fn a_snapshot_is_a_copy_that_later_writes_do_not_reach() {
    let census = Census::default();
    let registry = Registry::new();
    let guard = registry.mark(7_u64, census.tracked(70));
    let snapshot = registry.snapshot();
    guard.replace(census.tracked(71));
    let other = registry.mark(8, census.tracked(80));
    drop(guard);
    assert_eq!(jobs_of(&snapshot), [7]);
    assert_eq!(snapshot.get(&7).unwrap().value.number, 70);
    assert_eq!(jobs_of(&snapshot.clone()), [7]);

    drop(other);
    drop(registry);
    assert_eq!(snapshot.get(&7).unwrap().value.number, 70, "it outlives the registry");
    drop(snapshot);
    census.assert_each_is_dropped_once();
}

#[test]
fn a_snapshot_is_iterated_by_a_for_loop_as_well() {
    let registry: Registry<u64, &str> = Registry::new();
    let _guards = [9, 7, 8].map(|job| registry.mark(job, "run 1"));
    let snapshot = registry.snapshot();
    let mut seen = Vec::new();
    for (job, owner) in &snapshot {
        assert_eq!(Some(owner), snapshot.get(job));
        seen.push(*job);
    }
    assert_eq!(seen, [7, 8, 9]);
    assert!((&snapshot).into_iter().eq(snapshot.iter()));
    let mut halves = (&snapshot).into_iter();
    assert_eq!((halves.next().map(|(job, _)| *job), halves.len()), (Some(7), 2));
    assert!(halves.clone().rev().map(|(job, _)| *job).eq([9, 8]), "from either end");
    assert!(halves.by_ref().count() == 2 && halves.next().is_none());
}

/// `std`'s sorts may panic where an `Ord` is no order.
// Seen to fail with `sort_by`.
#[test]
fn an_ord_that_is_no_order_does_not_panic() {
    use std::cell::Cell;
    use std::cmp::Ordering::{self, Equal, Greater, Less};
    thread_local! {
        static COMPARE: Cell<fn(u64, u64) -> Ordering> = const { Cell::new(|_, _| Equal) };
    }
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Job(u64);
    impl Ord for Job {
        fn cmp(&self, other: &Self) -> Ordering {
            COMPARE.get()(self.0, other.0)
        }
    }
    impl PartialOrd for Job {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }
    let registry: Registry<Job, u64> = Registry::new();
    let _guards: Vec<_> = (0..500).map(|job| registry.mark(Job(job), job)).collect();
    let orders: [fn(u64, u64) -> Ordering; 6] = [
        |_, _| Less,
        |_, _| Greater,
        |_, _| Equal,
        // Scissors, paper, stone.
        |one, other| [Equal, Less, Greater][usize::try_from((one + 3 - other % 3) % 3).unwrap()],
        |one, other| if (one ^ other) % 5 < 2 { Less } else { Greater },
        |one, other| if (one * 31 + other * 17) % 7 < 3 { Less } else { Greater },
    ];
    for compare in orders {
        COMPARE.set(compare);
        let snapshot = registry.snapshot();
        assert_eq!((snapshot.len(), snapshot.is_atomic()), (500, true));
        let mut jobs: Vec<_> = snapshot.iter().map(|(job, owner)| (job.0, owner.value)).collect();
        jobs.sort_unstable();
        assert!(jobs.into_iter().eq((0..500).map(|job| (job, job))), "each job once, with its own owner");
        let _ = snapshot.get(&Job(7)); // may miss it
    }
    COMPARE.set(|one, other| one.cmp(&other));
    assert!(registry.snapshot().iter().map(|(job, _)| job.0).eq(0..500));
}

#[test]
fn debug_shows_its_jobs() {
    let registry: Registry<u64, &str> = Registry::new();
    let _guard = registry.mark(7, "run 1");
    let shown = format!("{:?}", registry.snapshot());
    assert!(shown.contains('7') && shown.contains("run 1") && shown.contains("atomic: true"), "{shown}");
}
