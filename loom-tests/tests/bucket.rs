//! Jobs that share a slot: their writes copy the same bucket, and none may be lost.

use loom_tests::{Search, mark, model, model_that_frees, owner};

/// E1, E3. Two jobs marked at once: both stand.
///
/// Seen to fail with a store in the place of the compare-exchange, and with buckets published relaxed.
#[test]
fn two_marks() {
    model("mark | mark, one bucket", 1, Search::Exhaustive, [()], |scene| {
        let other = scene.spawn(|jobs, _| mark(jobs, 1, 'a'));
        let mine = mark(scene.jobs(), 3, 'b');
        let other = scene.join(other);
        assert!(mine.is_current() && other.is_current(), "a mark was lost");
        assert_ne!(mine.generation(), other.generation(), "a generation is drawn once");
        assert_eq!(scene.jobs().len(), 2);
    });
}

/// E1, E3. One leaves while another comes: the one is gone and the other stands.
///
/// Seen to fail with a store in the place of the compare-exchange, and with buckets that came second and are never freed.
#[test]
fn clear_against_mark() {
    model("clear | mark, one bucket", 1, Search::Exhaustive, [()], |scene| {
        let old = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(|_, _| assert!(old.clear()));
        let mine = mark(scene.jobs(), 3, 'b');
        scene.join(monitor);
        assert!(mine.is_current(), "a mark was lost");
        assert_eq!(scene.jobs().len(), 1, "a clear was lost");
    });
}

/// E3. Two leave at once: both are gone, and each entry is retired once.
///
/// Seen to fail with a store in the place of the compare-exchange, and with buckets that came second and are never freed.
#[test]
fn two_clears() {
    model("clear | clear, one bucket", 1, Search::Exhaustive, [()], |scene| {
        let (first, second) = (mark(scene.jobs(), 1, 'a'), mark(scene.jobs(), 3, 'b'));
        let monitor = scene.spawn(|_, _| assert!(first.clear()));
        assert!(second.clear());
        scene.join(monitor);
        assert_eq!(scene.jobs().len(), 0, "a clear was lost");
    });
}

/// E3. Takes a job over while its neighbour leaves.
///
/// Seen to fail with a store in the place of the compare-exchange, and with buckets freed at once.
#[test]
fn clear_against_a_takeover() {
    model("clear | takeover, one bucket", 1, Search::Exhaustive, [()], |scene| {
        let (old, neighbour) = (mark(scene.jobs(), 1, 'a'), mark(scene.jobs(), 3, 'n'));
        let monitor = scene.spawn(|_, _| assert!(neighbour.clear()));
        let new = mark(scene.jobs(), 1, 'b');
        scene.join(monitor);
        assert!(new.is_current() && !old.is_current());
        assert_eq!(scene.jobs().len(), 1);
    });
}

/// E3. A neighbour's clear replaces the bucket under a reader: the entry it reads stays.
///
/// Seen to fail with buckets freed at once, and with buckets never retired.
#[test]
fn clear_against_a_neighbours_owner() {
    model_that_frees("clear, flush | owner, one bucket", 1, Search::Exhaustive, [()], |scene| {
        let (_mine, neighbour) = (mark(scene.jobs(), 1, 'a'), mark(scene.jobs(), 3, 'n'));
        let monitor = scene.spawn(|_, me| {
            assert!(neighbour.clear());
            me.flush();
        });
        assert_eq!(owner(scene.jobs(), 1), Some('a'), "the job is marked all the time");
        scene.join(monitor);
    });
}

/// E1, E3. Three at once: two fill a bucket, the third makes it grow.
///
/// Every order takes minutes: a bound. Seen to fail with a store in the place of the compare-exchange.
#[test]
fn three_marks() {
    model("mark | mark | mark, one slot", 2, Search::Preemptions(4), [()], |scene| {
        let others = [1, 3].map(|job| scene.spawn(move |jobs, _| mark(jobs, job, 'a')));
        let mine = mark(scene.jobs(), 5, 'b');
        let others = others.map(|other| scene.join(other));
        assert!(mine.is_current() && others.iter().all(|guard| guard.is_current()), "a mark was lost");
        assert_eq!(scene.jobs().len(), 3);
    });
}
