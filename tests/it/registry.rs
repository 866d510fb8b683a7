//! What each method of `Registry` promises, on one thread.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::hash::RandomState;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use livemark::{
    DefaultHashBuilder, Finalizer, MarkGuard, OwnedMarkGuard, Pulse, Registry, RegistryHandle, RegistryStats,
};

use crate::support::{AllEqual, OneRootSlot};

fn stats(marks: u64, displaced: u64, stale_clears: u64) -> RegistryStats {
    let mut stats = RegistryStats::default();
    (stats.marks, stats.displaced, stats.stale_clears) = (marks, displaced, stale_clears);
    stats
}

#[test]
fn a_new_registry_owns_nothing() {
    let registry: Registry<u64, &str> = Registry::new();
    assert!(!registry.is_active(&0));
    assert!(registry.owner(&0).is_none());
    assert_eq!((registry.len(), registry.is_empty()), (0, true));
    assert_eq!(registry.stats(), RegistryStats::default());
}

#[test]
fn a_registry_can_be_a_static_with_either_constructor() {
    static BY_NEW: Registry = Registry::new();
    static BY_HASHER: Registry<u64, &str> = Registry::with_hasher(DefaultHashBuilder::new());

    let finalizer = BY_NEW.mark(7, Finalizer::new(Some(1), "merge"));
    let named = BY_HASHER.mark(7, "run 1");
    assert!(BY_NEW.is_active(&7) && BY_HASHER.is_active(&7));
    drop((finalizer, named));
    assert!(!BY_NEW.is_active(&7) && !BY_HASHER.is_active(&7));
}

#[test]
fn a_mark_makes_its_own_job_active_and_no_other() {
    let registry: Registry<u64, &str> = Registry::new();
    let guard = registry.mark(7, "run 1");
    let active: Vec<u64> = (0..10_000).filter(|job| registry.is_active(job)).collect();
    assert_eq!(active, [7]);
    drop(guard);
    assert!(!registry.is_active(&7));
}

#[test]
fn jobs_of_equal_hashes_are_told_apart() {
    let registry: Registry<u64, &str, AllEqual> = Registry::with_hasher(AllEqual::default());
    let _guard = registry.mark(7, "run 1");
    assert!(!registry.is_active(&8));
    assert!(registry.owner(&8).is_none());
    assert!(!registry.clear(&8));
    assert!(registry.is_active(&7));
}

#[test]
fn a_second_mark_takes_over() {
    let registry: Registry<u64, &str> = Registry::new();
    let first = registry.mark(7, "run 1");
    let second = registry.mark(7, "run 2");

    let owner = registry.owner(&7).unwrap();
    assert_eq!((owner.generation, owner.value), (second.generation(), "run 2"));
    assert!(second.generation() > first.generation());
    assert!(second.is_current() && !first.is_current());
    assert_eq!(registry.len(), 1);
    assert_eq!(registry.stats(), stats(2, 1, 0));
}

#[test]
fn a_late_release_never_frees_a_newer_owner() {
    let registry: Registry<u64, &str> = Registry::new();
    let first = registry.mark(7, "run 1");
    let second = registry.mark(7, "run 2");
    drop(first);
    assert!(registry.is_active(&7));
    assert!(second.is_current());
    assert_eq!(registry.stats(), stats(2, 1, 1));
}

#[test]
fn a_mark_after_a_clear_displaces_nobody() {
    let registry: Registry<u64, &str> = Registry::new();
    drop(registry.mark(7, "run 1"));
    let _guard = registry.mark(7, "run 2");
    assert_eq!(registry.stats(), stats(2, 0, 0));
}

#[test]
fn try_mark_of_an_owned_job_is_refused_and_gives_the_value_back() {
    let registry: Registry<u64, String> = Registry::new();
    let guard = registry.mark(7, "monitor".to_owned());
    let owner = registry.owner(&7).unwrap();

    let occupied = registry.try_mark(7, "reaper".to_owned()).unwrap_err();
    assert_eq!(occupied.owner, owner);
    assert_eq!(occupied.value, "reaper");

    assert!(guard.is_current(), "a refusal changes nothing");
    assert_eq!(registry.owner(&7).unwrap(), owner);
    assert_eq!(registry.stats(), stats(1, 0, 0), "a refusal is not a mark");
}

// Jobs are compared between an attempt's load of the slot and its compare-exchange. One comparison here marks another
// job of the same slot, so that the attempt fails and its generation goes to no mark.
#[test]
fn an_attempt_that_fails_is_not_counted_as_a_mark() {
    static REGISTRY: LazyLock<Registry<Job, (), AllEqual>> = LazyLock::new(Registry::default);
    thread_local! { static INTERFERES: Cell<bool> = const { Cell::new(false) } }

    #[allow(clippy::derived_hash_with_manual_eq, reason = "the same jobs are equal as with a derived `PartialEq`")]
    #[derive(Clone, Debug, Eq, Hash)]
    struct Job(u64);

    impl PartialEq for Job {
        fn eq(&self, other: &Self) -> bool {
            if INTERFERES.take() {
                std::mem::forget(REGISTRY.mark(Self(2), ()));
            }
            self.0 == other.0
        }
    }

    let _first = REGISTRY.mark(Job(1), ());
    INTERFERES.set(true);
    let _second = REGISTRY.mark(Job(3), ());
    assert!(!INTERFERES.get() && [1, 2, 3].iter().all(|job| REGISTRY.is_active(&Job(*job))));
    assert_eq!(REGISTRY.stats(), stats(3, 0, 0));
    // What a `static` still holds at the end looks like a leak: its words are no plain pointers.
    assert!(REGISTRY.clear(&Job(2)));
}

#[test]
fn try_mark_of_a_free_job_marks_it() {
    let registry: Registry<u64, &str> = Registry::new();
    let _neighbour = registry.mark(8, "run 1");
    let guard = registry.try_mark(7, "run 2").unwrap();
    assert_eq!(registry.owner(&7).map(|owner| (owner.generation, owner.value)), Some((guard.generation(), "run 2")));
    assert!(guard.clear());

    let again = registry.try_mark(7, "run 3").unwrap();
    assert!(again.is_current());
    assert_eq!(registry.stats(), stats(3, 0, 0));
}

#[test]
fn a_refusal_says_who_the_owner_is() {
    let registry: Registry<u64, &str> = Registry::new();
    let guard = registry.mark(7, "monitor");
    let occupied: Box<dyn Error> = Box::new(registry.try_mark(7, "reaper").unwrap_err());
    assert_eq!(occupied.to_string(), format!("the job is marked already, by generation {}", guard.generation()));
}

#[test]
fn clear_is_idempotent_and_says_whether_anyone_owned_the_job() {
    let registry: Registry<u64, &str> = Registry::new();
    assert!(!registry.clear(&7), "nobody has marked it yet");
    let guard = registry.mark(7, "run 1");
    assert!(registry.clear(&7));
    assert!(!registry.clear(&7));
    assert!(!registry.is_active(&7));
    assert!(!guard.is_current());
}

#[test]
fn clear_releases_whoever_owns_the_job() {
    let registry: Registry<u64, &str> = Registry::new();
    let first = registry.mark(7, "run 1");
    let second = registry.mark(7, "run 2");
    assert!(registry.clear(&7));
    assert!(!registry.is_active(&7));
    assert!(!first.is_current() && !second.is_current());
}

#[test]
fn clear_leaves_the_other_jobs_of_a_bucket() {
    let registry: Registry<u64, u64, AllEqual> = Registry::with_hasher(AllEqual::default());
    let _guards: Vec<_> = (0..6).map(|job| registry.mark(job, job * 10)).collect();
    for cleared in 0..6 {
        assert!(registry.clear(&cleared));
        for job in 0..6 {
            let value = registry.owner(&job).map(|owner| owner.value);
            assert_eq!(value, (job > cleared).then_some(job * 10), "job {job} after the clear of {cleared}");
        }
    }
    assert!(registry.is_empty());
}

#[test]
fn clear_generation_releases_only_that_mark() {
    let registry: Registry<u64, &str> = Registry::new();
    let first = registry.mark(7, "run 1");
    let second = registry.mark(7, "run 2");
    let other = registry.mark(8, "run 3");

    assert!(!registry.clear_generation(&7, first.generation()));
    assert!(!registry.clear_generation(&7, other.generation()), "a generation of another job");
    assert!(registry.is_active(&7) && registry.is_active(&8));
    assert_eq!(registry.stats(), stats(3, 1, 2));

    assert!(registry.clear_generation(&7, second.generation()));
    assert!(!registry.is_active(&7));
    assert!(!registry.clear_generation(&7, second.generation()), "once only");
    assert!(registry.is_active(&8));
    assert_eq!(registry.stats(), stats(3, 1, 3));
}

#[test]
fn clear_generation_tells_jobs_of_one_bucket_apart() {
    let registry: Registry<u64, &str, AllEqual> = Registry::with_hasher(AllEqual::default());
    let seventh = registry.mark(7, "run 1");
    let eighth = registry.mark(8, "run 2");
    assert!(!registry.clear_generation(&8, seventh.generation()));
    assert!(seventh.is_current() && eighth.is_current());
}

#[test]
fn the_owner_is_the_mark_as_it_was_made() {
    let registry: Registry<u64, &str> = Registry::new();
    let before = Instant::now();
    let guard = registry.mark(7, "run 1");
    let after = Instant::now();

    let owner = registry.owner(&7).unwrap();
    assert_eq!((owner.generation, owner.value), (guard.generation(), "run 1"));
    assert!(before <= owner.marked_at() && owner.marked_at() <= after);
}

#[test]
fn an_owner_ages_from_its_mark() {
    let registry: Registry<u64, &str> = Registry::new();
    let _guard = registry.mark(7, "run 1");
    let owner = registry.owner(&7).unwrap();
    thread::sleep(Duration::from_millis(2));
    let least = owner.marked_at().elapsed();
    let age = owner.age();
    assert!(least <= age && age <= owner.marked_at().elapsed());
}

#[test]
fn a_copied_owner_outlives_the_mark_and_the_registry() {
    let registry: Registry<u64, String> = Registry::new();
    let guard = registry.mark(7, "run 1".to_owned());
    let owner = registry.owner(&7).unwrap();
    drop(guard);
    drop(registry);
    assert_eq!(owner.value, "run 1");
}

#[test]
fn generations_grow_by_job_and_are_never_used_again() {
    let registry: Registry<u64, ()> = Registry::new();
    let mut newest = HashMap::new();
    let mut all = HashSet::new();
    for round in 0..200 {
        for job in 0..50 {
            let guard = match round % 3 {
                0 => registry.mark(job, ()),
                1 => registry.try_mark(job, ()).unwrap(),
                _ => {
                    drop(registry.mark(job, ()));
                    registry.mark(job, ())
                }
            };
            let generation = guard.generation();
            assert!(newest.insert(job, generation).is_none_or(|older| older < generation));
            assert!(all.insert(generation.get()), "generation {generation} was used before");
        }
    }
}

#[test]
fn generations_of_colliding_jobs_are_never_used_again() {
    let registry: Registry<u64, (), OneRootSlot> = Registry::with_hasher(OneRootSlot::default());
    let guards: Vec<_> = (0..500).map(|job| registry.mark(job, ())).collect();
    let all: HashSet<_> = guards.iter().map(MarkGuard::generation).collect();
    assert_eq!(all.len(), 500);
}

#[test]
fn a_generation_is_its_number() {
    let registry: Registry<u64, ()> = Registry::new();
    let guard = registry.mark(7, ());
    let generation = guard.generation();
    assert_eq!(generation.to_string(), generation.get().to_string());
    assert_ne!(generation.get(), 0);
}

#[test]
fn len_counts_owned_jobs() {
    let registry: Registry<u64, ()> = Registry::new();
    let mut guards = Vec::new();
    for job in 0..300 {
        guards.push(registry.mark(job, ()));
        assert_eq!((registry.len(), registry.is_empty()), (guards.len(), false));
    }
    while guards.pop().is_some() {
        assert_eq!((registry.len(), registry.is_empty()), (guards.len(), guards.is_empty()));
    }
}

#[test]
fn registries_do_not_see_each_others_marks() {
    // As after a restart, too: a new registry knows nothing of the marks of an old one.
    let old: Registry<u64, &str> = Registry::new();
    let guard = old.mark(7, "run 1");
    let new: Registry<u64, &str> = Registry::new();
    assert!(new.is_empty() && !new.is_active(&7));
    assert!(!new.clear_generation(&7, guard.generation()));
    assert!(new.try_mark(7, "run 2").is_ok());
    assert!(guard.is_current());
}

#[test]
fn strings_are_looked_up_by_str() {
    let registry: Registry<String, &str, RandomState> = Registry::with_hasher(RandomState::new());
    let guard = registry.mark("job-7".to_owned(), "run 1");
    assert!(registry.is_active("job-7") && !registry.is_active("job-8"));
    assert_eq!(registry.owner("job-7").unwrap().value, "run 1");
    assert!(!registry.clear("job-8"));
    assert!(registry.clear_generation("job-7", guard.generation()));
    assert!(!registry.clear("job-7"));
}

#[test]
fn owned_guards_mark_and_clear_as_borrowed_ones_do() {
    let registry: Arc<Registry<u64, &str>> = Arc::new(Registry::new());
    let first = registry.mark_owned(7, "run 1");
    assert_eq!((first.job(), first.is_current()), (&7, true));
    let occupied = registry.try_mark_owned(7, "run 2").unwrap_err();
    assert_eq!((occupied.owner.generation, occupied.value), (first.generation(), "run 2"));

    let second = registry.mark_owned(7, "run 3");
    drop(first);
    assert!(registry.is_active(&7) && second.is_current());
    assert!(second.clear());
    let third = registry.try_mark_owned(7, "run 4").unwrap();
    assert!(registry.is_active(&7));
    drop(third);
    assert!(!registry.is_active(&7));
    assert_eq!(registry.stats(), stats(3, 1, 1));
}

#[test]
fn a_refused_owned_mark_keeps_no_handle() {
    let registry: Arc<Registry<u64, &str>> = Arc::new(Registry::new());
    let guard = registry.mark_owned(7, "run 1");
    assert_eq!(Arc::strong_count(&registry), 2);
    assert!(registry.try_mark_owned(7, "run 2").is_err());
    assert_eq!(Arc::strong_count(&registry), 2);
    drop(guard);
    assert_eq!(Arc::strong_count(&registry), 1);
}

#[test]
fn the_default_registry_is_a_new_one() {
    let registry: Registry<u64, &str, RandomState> = Registry::default();
    let _guard = registry.mark(7, "run 1");
    assert!(registry.is_active(&7));
}

#[test]
fn debug_shows_the_registry_at_a_glance() {
    let registry: Registry<u64, &str> = Registry::new();
    let guard = registry.mark(7, "run 1");
    assert!(format!("{registry:?}").contains("len: 1"));
    drop(guard);
    assert!(format!("{registry:?}").contains("len: 0"));
}

#[test]
fn a_finalizer_is_what_it_was_made_with() {
    let registry: Registry = Registry::new();
    let pulse = Pulse::new();
    let _guard = registry.mark(7, Finalizer::new(Some(42), String::from("merge")).with_pulse(pulse));
    let owner = registry.owner(&7).unwrap();
    assert_eq!((owner.value.run_id, &*owner.value.stage), (Some(42), "merge"));
    assert!(owner.value.pulse.is_some());
    assert!(Finalizer::new(None, "merge").pulse.is_none());
}

#[test]
fn a_beat_is_seen_through_the_registry() {
    let registry: Registry = Registry::new();
    let pulse = Pulse::default();
    let _guard = registry.mark(7, Finalizer::new(None, "merge").with_pulse(pulse.clone()));
    let seen = registry.owner(&7).unwrap().value.pulse.unwrap();

    thread::sleep(Duration::from_millis(20));
    assert!(seen.age() >= Duration::from_millis(20), "no beat so far but the first");
    let before = Instant::now();
    pulse.beat();
    let age = seen.age();
    assert!(age <= before.elapsed(), "a clone shares the pulse");
}

// Handles

#[test]
fn a_handle_is_made_from_whatever_holds_a_registry() {
    static STATIC: Registry<u64, &str> = Registry::new();
    let borrowed: Registry<u64, &str> = Registry::new();
    let shared: Arc<Registry<u64, &str>> = Arc::default();
    let handles: [RegistryHandle<'static, u64, &str>; 4] = [
        RegistryHandle::from(&STATIC),
        RegistryHandle::from(Arc::clone(&shared)),
        RegistryHandle::from(&shared),
        RegistryHandle::from(&RegistryHandle::from(&shared)),
    ];
    let of_a_borrow: RegistryHandle<'_, u64, &str> = (&borrowed).into();
    for handle in handles.iter().chain([&of_a_borrow, &of_a_borrow.clone()]) {
        let guard = handle.mark(7, "run 1");
        assert!(guard.is_current() && handle.is_active(&7), "all of a registry is there");
        assert_eq!(handle.try_mark(7, "run 2").unwrap_err().value, "run 2");
        assert!(guard.clear());
        assert!(handle.try_mark(7, "run 3").is_ok_and(|guard| guard.is_current()));
        assert!(handle.is_empty() && handle.snapshot().is_empty());
    }
    assert_eq!([&STATIC, &*shared, &borrowed].map(Registry::stats), [2, 6, 4].map(|marks| stats(marks, 0, 0)));
}

#[test]
fn handles_of_one_registry_are_one_registry() {
    let shared: Arc<Registry<u64, &str>> = Arc::default();
    let handle = RegistryHandle::from(&shared);
    let guard = handle.clone().mark(7, "run 1");
    assert!(shared.is_active(&7) && handle.is_active(&7));
    let newer = shared.mark(7, "run 2");
    assert!(!guard.is_current() && newer.is_current());
    assert!(format!("{handle:?}").contains("len: 1"));
}

#[test]
fn the_guards_of_an_arc_keep_the_registry_and_those_of_a_static_need_not() {
    static STATIC: Registry<u64, &str> = Registry::new();
    let handle = RegistryHandle::from(Arc::new(Registry::<u64, &str>::new()));
    let guard: OwnedMarkGuard<u64, &str> = handle.mark(7, "run 1");
    let other: OwnedMarkGuard<u64, &str> = handle.try_mark(8, "run 2").unwrap();
    drop(handle);
    assert!(guard.replace("run 1, alone") && guard.is_current() && other.clear() && guard.clear());

    let guard: OwnedMarkGuard<u64, &str> = RegistryHandle::from(&STATIC).mark(7, "run 1");
    thread::spawn(move || assert!(guard.clear())).join().unwrap();
}

#[test]
fn a_registry_goes_with_its_last_handle_or_guard() {
    let shared: Arc<Registry<u64, &str>> = Arc::default();
    let handle = RegistryHandle::from(&shared);
    let (first, second) = (handle.mark(7, "run 1"), handle.clone().mark(8, "run 2"));
    assert_eq!(Arc::strong_count(&shared), 4, "a registry, a handle, two guards");
    let seen = Arc::downgrade(&shared);
    drop((shared, handle, first));
    assert!(seen.upgrade().is_some_and(|registry| registry.is_active(&8) && !registry.is_active(&7)));
    drop(second);
    assert!(seen.upgrade().is_none());
}

#[test]
fn a_guard_of_a_borrow_does_not_count_as_a_handle() {
    let shared: Arc<Registry<u64, &str>> = Arc::default();
    let handle = RegistryHandle::from(&*shared);
    let _guard = handle.mark(7, "run 1");
    assert_eq!(Arc::strong_count(&shared), 1);
}
