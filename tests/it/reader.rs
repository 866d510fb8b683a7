//! What a reader promises: the newest state at each call, and that what it lends is not freed.

use std::hash::RandomState;
use std::thread;

use livemark::Registry;

use crate::support::{AllEqual, Census, OneRootSlot, reclaim_for_a_moment, reclaim_until};

#[test]
fn each_call_sees_the_newest_state() {
    let registry: Registry<u64, &str> = Registry::new();
    let mut reader = registry.reader();
    assert!(!reader.is_active(&7));
    let first = registry.mark(7, "run 1");
    assert_eq!(reader.owner(&7).map(|owner| owner.value), Some("run 1"));
    let second = registry.mark(7, "run 2");
    assert_eq!(reader.owner(&7).map(|owner| owner.generation), Some(second.generation()));
    second.replace("run 2, handed over");
    assert_eq!(reader.owner(&7).map(|owner| owner.value), Some("run 2, handed over"));
    drop(first);
    assert!(reader.is_active(&7));
    drop(second);
    assert!(!reader.is_active(&7));
    assert!(reader.owner(&7).is_none());
}

#[test]
fn a_reader_agrees_with_its_registry_on_every_job() {
    fn check<S: std::hash::BuildHasher>(hasher: S) {
        let registry = Registry::with_hasher(hasher);
        let guards: Vec<_> = (0..200).filter(|job| job % 3 == 0).map(|job| registry.mark(job, job * 10)).collect();
        let mut reader = registry.reader();
        for job in 0..200_u64 {
            assert_eq!(reader.is_active(&job), job % 3 == 0, "job {job}");
            assert_eq!(reader.is_active(&job), registry.is_active(&job));
            assert_eq!(reader.owner(&job).copied(), registry.owner(&job));
            assert_eq!(reader.owner(&job).map(|owner| owner.value), (job % 3 == 0).then_some(job * 10));
        }
        drop(reader);
        drop(guards);
    }
    check(RandomState::new());
    check(AllEqual::default());
    check(OneRootSlot::default());
}

#[test]
fn a_reader_looks_strings_up_by_str() {
    let registry: Registry<String, &str> = Registry::new();
    let _guard = registry.mark("job-7".to_owned(), "run 1");
    let mut reader = registry.reader();
    assert!(reader.is_active("job-7") && !reader.is_active("job-8"));
    assert_eq!(reader.owner("job-7").map(|owner| owner.value), Some("run 1"));
}

#[test]
fn readers_of_several_registries_live_side_by_side() {
    let one: Registry<u64, &str> = Registry::new();
    let other: Registry<u64, &str> = Registry::new();
    let (mut reader, mut other_reader, mut third) = (one.reader(), other.reader(), one.reader());
    let _guard = one.mark(7, "run 1");
    assert!(reader.is_active(&7) && third.is_active(&7));
    assert!(!other_reader.is_active(&7));
    drop(reader);
    assert!(third.is_active(&7));
}

// Seen to fail with a `Reader` that held no pin: the value was freed while it was lent.
#[test]
fn what_a_reader_lends_is_not_freed() {
    let census = Census::default();
    let registry = Registry::new();
    let guard = registry.mark(7_u64, census.tracked(70));
    let mut reader = registry.reader();

    let lent = reader.owner(&7).unwrap();
    thread::scope(|scope| {
        // Other threads clear it, and do all they can to have it freed.
        scope.spawn(|| assert!(guard.clear()));
        scope.spawn(reclaim_for_a_moment);
    });
    thread::spawn(reclaim_for_a_moment).join().unwrap();
    assert_eq!((lent.value.number, census.live()), (70, 1));

    drop(reader);
    census.assert_each_is_dropped_once();
}

// Seen to fail (it ran out of patience) with a `Reader` that did not repin.
#[test]
fn a_reader_in_use_holds_nothing_back() {
    let census = Census::default();
    let registry = Registry::new();
    drop(registry.mark(7_u64, census.tracked(70)));
    let other: Registry<u64, ()> = Registry::new();
    let reader = std::cell::RefCell::new(other.reader());
    reclaim_until("a value that was cleared before the reader's last call", || {
        reader.borrow_mut().is_active(&7);
        census.live() == 0
    });
}

#[test]
fn debug_shows_what_is_read() {
    let registry: Registry<u64, &str> = Registry::new();
    assert!(format!("{:?}", registry.reader()).starts_with("Reader"));
}
