//! A full bucket grows into a branch while others mark, clear and read its jobs.
//!
//! Jobs 1, 3, 5 and 7 share a slot of the root; its branch parts 1 and 5 from 3 and 7.

use loom_tests::{Mark, Scene, Search, mark, model, model_that_frees, owner};

/// A slot with a full bucket.
fn full(scene: &Scene) -> (Mark, Mark) {
    (mark(scene.jobs(), 1, 'a'), mark(scene.jobs(), 3, 'b'))
}

/// E4. Both make the bucket grow: one of the two branches is thrown away, its mark is not.
///
/// Seen to fail with a branch that leaves an entry out, and with a store in the place of the compare-exchange.
#[test]
fn growth_against_mark() {
    model("growth | growth", 1, Search::Exhaustive, [()], |scene| {
        let _full = full(scene);
        let other = scene.spawn(|jobs, _| mark(jobs, 5, 'c'));
        let mine = mark(scene.jobs(), 7, 'd');
        let other = scene.join(other);
        assert!(mine.is_current() && other.is_current(), "a mark was lost");
        assert_eq!(scene.jobs().len(), 4);
    });
}

/// E4. The cleared job is not brought back by the branch.
///
/// Seen to fail with a branch published relaxed, and with branches that came second and are never freed.
#[test]
fn growth_against_clear() {
    model("growth | clear", 1, Search::Exhaustive, [()], |scene| {
        let (stays, goes) = full(scene);
        let monitor = scene.spawn(|_, me| {
            assert!(goes.clear());
            me.flush();
        });
        let mine = mark(scene.jobs(), 5, 'c');
        scene.join(monitor);
        assert!(mine.is_current() && stays.is_current(), "a mark was lost");
        assert_eq!(owner(scene.jobs(), 3), None, "a clear was lost");
    });
}

/// E1, E3, E4. A reader sees the job before, through and after the growth.
///
/// Seen to fail with a branch published relaxed, and with the load relaxed.
#[test]
fn growth_against_owner() {
    model_that_frees("growth, flush | owner", 1, Search::Exhaustive, [()], |scene| {
        let _full = full(scene);
        let monitor = scene.spawn(|jobs, me| {
            let guard = mark(jobs, 5, 'c');
            me.flush();
            guard
        });
        assert_eq!(owner(scene.jobs(), 3), Some('b'), "the job is marked all the time");
        drop(scene.join(monitor));
    });
}

/// E4. A look-up that ends at an empty slot behind a new branch has taken no pin on its way.
///
/// Seen to fail with a branch published relaxed, and with the load relaxed.
#[test]
fn growth_against_is_active() {
    model("growth | is_active", 1, Search::Exhaustive, [false, true], |scene| {
        let _full = full(scene);
        let monitor = scene.spawn(|jobs, _| mark(jobs, 5, 'c'));
        let active = scene.jobs().is_active(&5);
        assert!(!scene.jobs().is_active(&7), "nobody marks this job");
        let guard = scene.join(monitor);
        assert!(scene.jobs().is_active(&5) && guard.clear());
        active
    });
}

/// E3, E4. Two marks and a clear: what comes after the growth goes to the branch, and what came before is in it.
///
/// Every order takes minutes: a bound. Seen to fail with a store in the place of the compare-exchange.
#[test]
fn growth_against_mark_and_clear() {
    model("growth | mark | clear", 2, Search::Preemptions(4), [()], |scene| {
        let (stays, goes) = full(scene);
        let monitor = scene.spawn(|jobs, _| mark(jobs, 5, 'c'));
        let other = scene.spawn(|jobs, _| mark(jobs, 7, 'd'));
        assert!(goes.clear());
        let marks = [scene.join(monitor), scene.join(other), stays];
        assert!(marks.iter().all(|guard| guard.is_current()), "a mark was lost");
        assert_eq!(owner(scene.jobs(), 3), None, "a clear was lost");
        assert_eq!(scene.jobs().len(), 3);
    });
}
