//! `replace`: the hand-over of a mark's context.

use loom_tests::{Probe, Search, mark, model, model_that_frees, owner};

/// E1, E3. Old or new, and never an unmarked job between them.
///
/// Seen to fail with the compare-exchange relaxed, and with entries freed at once.
#[test]
fn replace_against_owner() {
    model_that_frees("replace, flush | owner", 1, Search::Exhaustive, ['a', 'b'], |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(|_, me| {
            assert!(guard.replace(Probe::new('b')), "the mark is still this one");
            me.flush();
            guard
        });
        let seen = owner(scene.jobs(), 1).expect("the job is marked all the time");
        let guard = scene.join(monitor);
        assert!(guard.is_current());
        seen
    });
}

/// E3. A replacement is never put where the mark was cleared.
///
/// Seen to fail with a store in the place of the compare-exchange.
#[test]
fn replace_against_clear() {
    model("replace | clear", 1, Search::Exhaustive, [false, true], |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(move |_, _| (guard.replace(Probe::new('b')), guard));
        assert!(scene.jobs().clear(&1), "nobody else clears");
        let (replaced, guard) = scene.join(monitor);
        assert!(!guard.is_current(), "a replacement brought a cleared mark back");
        assert_eq!(owner(scene.jobs(), 1), None);
        replaced
    });
}

/// E3. A displaced owner replaces nothing.
///
/// Seen to fail with a `replace` that ignores the generation.
#[test]
fn replace_against_mark() {
    model("replace | mark", 1, Search::Exhaustive, [false, true], |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(move |_, _| (guard.replace(Probe::new('b')), guard));
        let new = mark(scene.jobs(), 1, 'c');
        let (replaced, old) = scene.join(monitor);
        assert!(new.is_current() && !old.is_current());
        assert_eq!(owner(scene.jobs(), 1), Some('c'));
        replaced
    });
}

/// E3. In a bucket: the neighbour's clear and the replacement both stand.
///
/// Seen to fail with a store in the place of the compare-exchange.
#[test]
fn replace_against_a_neighbours_clear() {
    model("replace | clear, one bucket", 1, Search::Exhaustive, [()], |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let neighbour = mark(scene.jobs(), 3, 'n');
        let monitor = scene.spawn(move |_, _| {
            assert!(guard.replace(Probe::new('b')), "nobody clears this job");
            guard
        });
        assert!(neighbour.clear());
        let guard = scene.join(monitor);
        assert!(guard.is_current());
        assert_eq!((owner(scene.jobs(), 1), owner(scene.jobs(), 3)), (Some('b'), None));
    });
}
