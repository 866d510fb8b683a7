//! What a guard promises: its own mark only, hand-over by `replace`, and release at most once.

use std::mem;
use std::sync::Arc;
use std::thread;

use livemark::{MarkGuard, OwnedMarkGuard, Registry};

use crate::support::{AllEqual, OneRootSlot, reclaim_until};

#[test]
fn a_guard_knows_its_job_and_its_generation() {
    let registry: Registry<String, &str> = Registry::new();
    let guard = registry.mark("job-7".to_owned(), "run 1");
    assert_eq!(guard.job(), "job-7");
    assert_eq!(guard.generation(), registry.owner("job-7").unwrap().generation);
}

#[test]
fn a_guard_is_current_until_it_is_displaced() {
    let registry: Registry<u64, &str> = Registry::new();
    let first = registry.mark(7, "run 1");
    assert!(first.is_current());
    let second = registry.mark(7, "run 2");
    assert!(!first.is_current());
    drop(second);
    assert!(!first.is_current(), "the mark does not come back when its displacer leaves");
}

#[test]
fn a_guard_is_current_until_it_is_cleared() {
    let registry: Registry<u64, &str> = Registry::new();
    let by_job = registry.mark(7, "run 1");
    registry.clear(&7);
    assert!(!by_job.is_current());

    let by_generation = registry.mark(7, "run 2");
    registry.clear_generation(&7, by_generation.generation());
    assert!(!by_generation.is_current());
}

#[test]
fn guards_of_one_bucket_are_current_each_for_itself() {
    let registry: Registry<u64, u64, AllEqual> = Registry::with_hasher(AllEqual::default());
    let mut guards: Vec<_> = (0..12).map(|job| registry.mark(job, job)).collect();
    while let Some(guard) = guards.pop() {
        assert!(guard.is_current() && guards.iter().all(MarkGuard::is_current));
        registry.clear(guard.job());
        assert!(!guard.is_current() && guards.iter().all(MarkGuard::is_current));
    }
}

#[test]
fn clear_says_whether_the_mark_still_stood() {
    let registry: Registry<u64, &str> = Registry::new();
    let first = registry.mark(7, "run 1");
    let second = registry.mark(7, "run 2");
    assert!(!first.clear());
    assert!(second.clear());
    assert!(!registry.is_active(&7));
}

#[test]
fn a_guard_releases_once() {
    let registry: Registry<u64, &str> = Registry::new();
    assert!(registry.mark(7, "run 1").clear());
    assert_eq!(registry.stats().stale_clears, 0, "clear is not followed by the release of the drop");

    let displaced = registry.mark(7, "run 2");
    let _newer = registry.mark(7, "run 3");
    assert!(!displaced.clear());
    assert_eq!(registry.stats().stale_clears, 1);
}

#[test]
fn a_release_of_a_mark_that_is_gone_is_a_stale_clear() {
    let registry: Registry<u64, &str> = Registry::new();
    let guard = registry.mark(7, "run 1");
    registry.clear(&7);
    assert_eq!(registry.stats().stale_clears, 0);
    drop(guard);
    assert_eq!(registry.stats().stale_clears, 1);
}

#[test]
fn replace_hands_the_context_over_and_keeps_the_mark() {
    let registry: Registry<u64, &str> = Registry::new();
    let guard = registry.mark(7, "gates");
    let marked = registry.owner(&7).unwrap();
    for stage in ["merge", "deploy"] {
        assert!(guard.replace(stage));
        let owner = registry.owner(&7).unwrap();
        assert_eq!((owner.generation, owner.marked_at()), (marked.generation, marked.marked_at()));
        assert_eq!(owner.value, stage);
    }
    assert!(guard.is_current());
    assert_eq!((registry.len(), registry.stats().marks), (1, 1), "a hand-over is not a mark");
    assert!(guard.clear());
    assert!(!registry.is_active(&7));
}

#[test]
fn replace_of_a_mark_that_is_gone_changes_nothing() {
    let registry: Registry<u64, &str> = Registry::new();
    let guard = registry.mark(7, "run 1");
    registry.clear(&7);
    assert!(!guard.replace("late"));
    assert!(!registry.is_active(&7));

    let newer = registry.mark(7, "run 2");
    assert!(!guard.replace("late"));
    assert_eq!(registry.owner(&7).unwrap().value, "run 2");
    assert!(newer.is_current());
}

#[test]
fn replace_in_a_bucket_leaves_its_neighbours() {
    let registry: Registry<u64, u64, AllEqual> = Registry::with_hasher(AllEqual::default());
    let mut guards: Vec<_> = (0..10).map(|job| registry.mark(job, job)).collect();
    let values = |registry: &Registry<u64, u64, AllEqual>| -> Vec<u64> {
        registry.snapshot().iter().map(|(_, owner)| owner.value).collect()
    };
    assert!(guards[3].replace(30) && guards[9].replace(90));
    assert_eq!(values(&registry), [0, 1, 2, 30, 4, 5, 6, 7, 8, 90]);

    // Also in what is left of a bucket when its other jobs are cleared, one by one.
    while guards.len() > 1 {
        drop(guards.pop());
        assert!(guards[0].replace(guards.len() as u64 * 100));
        assert_eq!(values(&registry)[0], guards.len() as u64 * 100);
        assert_eq!(registry.len(), guards.len());
    }
    assert!(guards[0].replace(7) && guards[0].is_current());
    assert_eq!(values(&registry), [7]);
}

#[test]
fn a_replaced_mark_can_be_cleared_displaced_and_refused_as_any_other() {
    let registry: Registry<u64, &str> = Registry::new();
    let guard = registry.mark(7, "gates");
    assert!(guard.replace("merge"));
    assert_eq!(registry.try_mark(7, "reaper").unwrap_err().owner.value, "merge");
    let newer = registry.mark(7, "reaper");
    assert!(!guard.is_current());
    assert!(newer.replace("reaper, acting"));
    assert!(registry.clear_generation(&7, newer.generation()));
}

#[test]
fn guards_work_below_a_branch() {
    let registry: Registry<u64, u64, OneRootSlot> = Registry::with_hasher(OneRootSlot::default());
    let early = registry.mark(1, 1);
    let crowd: Vec<_> = (100..200).map(|job| registry.mark(job, job)).collect();
    assert!(early.is_current(), "the growth of the map moved it, not its mark");
    assert!(early.replace(10));
    assert_eq!(registry.owner(&1).unwrap().value, 10);
    assert!(early.clear());
    assert!(!registry.is_active(&1) && crowd.iter().all(MarkGuard::is_current));
}

#[test]
fn a_forgotten_guard_holds_its_mark() {
    let registry: Registry<u64, &str> = Registry::new();
    let guard = registry.mark(7, "run 1");
    let generation = guard.generation();
    mem::forget(guard);
    assert!(registry.is_active(&7));
    assert!(registry.clear_generation(&7, generation), "its generation still frees it");
}

#[test]
fn an_unbound_guard_clears_at_once() {
    let registry: Registry<u64, &str> = Registry::new();
    let _ = registry.mark(7, "run 1");
    assert!(!registry.is_active(&7));
}

#[test]
fn a_guard_of_a_static_registry_is_static() {
    static REGISTRY: Registry<u64, &str> = Registry::new();
    let guard: MarkGuard<'static, u64, &str> = REGISTRY.mark(7, "run 1");
    thread::spawn(move || assert!(guard.is_current())).join().unwrap();
    assert!(!REGISTRY.is_active(&7));
}

#[test]
fn an_owned_guard_keeps_the_registry() {
    let registry: Arc<Registry<u64, &str>> = Arc::new(Registry::new());
    let seen = Arc::downgrade(&registry);
    let guard: OwnedMarkGuard<u64, &str> = registry.mark_owned(7, "run 1");
    drop(registry);

    assert!(guard.is_current());
    assert!(guard.replace("run 1, alone"));
    assert!(seen.upgrade().is_some_and(|registry| registry.is_active(&7)));
    drop(guard);
    assert!(seen.upgrade().is_none());
}

#[test]
fn a_guard_says_whom_it_found() {
    let registry: Registry<u64, &str> = Registry::new();
    let first = registry.mark(7, "run 1");
    let second = registry.mark(7, "run 2");
    assert!(!first.has_displaced() && second.has_displaced());
    drop((first, second));
    assert!(!registry.mark(7, "run 3").has_displaced(), "the job was free again");
    let other = registry.try_mark(8, "run 4").unwrap();
    assert!(!other.has_displaced(), "it refuses instead");
    registry.clear(&8);
    assert!(!registry.mark(8, "run 5").has_displaced(), "cleared, not displaced");

    let shared: Arc<Registry<u64, &str>> = Arc::default();
    let first = shared.mark_owned(7, "run 1");
    let second = shared.mark_owned(7, "run 2");
    assert!(!first.has_displaced() && second.has_displaced() && second.replace("run 2, merging"));
    assert!(second.has_displaced(), "a hand-over changes nothing about it");
}

#[test]
fn a_detached_mark_stands_until_its_generation_is_cleared() {
    let registry: Registry<u64, &str> = Registry::new();
    let guard = registry.mark(7, "run 1");
    let expected = guard.generation();
    let generation = guard.detach();
    assert_eq!(generation, expected);
    assert_eq!(registry.owner(&7).map(|owner| (owner.generation, owner.value)), Some((generation, "run 1")));
    assert_eq!(registry.stats().stale_clears, 0, "nothing was released");
    assert!(registry.try_mark(7, "run 2").is_err());
    assert!(registry.clear_generation(&7, generation));
    assert!(!registry.is_active(&7));
}

#[test]
fn a_detached_mark_is_displaced_as_any_other() {
    let registry: Registry<u64, &str> = Registry::new();
    let detached = registry.mark(7, "run 1").detach();
    let newer = registry.mark(7, "run 2");
    assert!(newer.has_displaced());
    assert!(!registry.clear_generation(&7, detached), "late, and frees nothing");
    assert!(newer.is_current());

    let displaced = registry.mark(8, "run 3");
    let _newest = registry.mark(8, "run 4");
    let generation = displaced.generation();
    assert_eq!(displaced.detach(), generation, "also where the mark is gone");
    assert_eq!(registry.owner(&8).unwrap().value, "run 4");
}

#[test]
fn a_detached_mark_leaks_nothing() {
    #[derive(Clone, Debug)]
    struct Job(Arc<()>);
    impl PartialEq for Job {
        fn eq(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.0, &other.0)
        }
    }
    impl Eq for Job {}
    impl std::hash::Hash for Job {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            Arc::as_ptr(&self.0).hash(state);
        }
    }
    let (job, value) = (Job(Arc::new(())), Arc::new(()));
    let registry: Arc<Registry<Job, Arc<()>>> = Arc::default();
    let generation = registry.mark_owned(job.clone(), Arc::clone(&value)).detach();
    assert_eq!(Arc::strong_count(&registry), 1, "the guard's handle is given back");
    assert!(registry.clear_generation(&job, generation));
    drop(registry);
    reclaim_until("the mark's id and value", || (Arc::strong_count(&job.0), Arc::strong_count(&value)) == (1, 1));
}

#[test]
fn a_guard_is_small_whatever_it_holds() {
    assert!(mem::size_of::<MarkGuard<'_>>() <= 64, "{}", mem::size_of::<MarkGuard<'_>>());
    assert_eq!(mem::size_of::<MarkGuard<'_>>(), 48);
    assert_eq!(mem::size_of::<OwnedMarkGuard>(), mem::size_of::<MarkGuard<'_>>(), "they are one type");
    assert_eq!(mem::size_of::<Option<MarkGuard<'_>>>(), mem::size_of::<MarkGuard<'_>>(), "of a job without an id");
    assert_eq!(mem::size_of::<MarkGuard<'_, u64, [u8; 1000]>>(), 48, "the value is not in it");
}

/// A job that has no id is not marked, and its `Option` of a guard clears as a guard does.
#[test]
fn a_job_without_an_id_has_no_guard() {
    let registry: Registry<u64, &str> = Registry::new();
    for id in [None, Some(7)] {
        let guard = id.map(|id| registry.mark(id, "run 1"));
        assert_eq!(registry.len(), usize::from(id.is_some()));
        drop(guard);
        assert!(registry.is_empty());
    }
}

#[test]
fn debug_shows_whose_guard_it_is() {
    let registry: Registry<u64, &str> = Registry::new();
    let guard = registry.mark(7, "run 1");
    let shown = format!("{guard:?}");
    assert!(shown.contains("job: 7") && shown.contains(&guard.generation().to_string()), "{shown}");
}
