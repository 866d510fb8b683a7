//! Two parties and a registry whose slots are not made yet.

use loom_tests::{Scene, Search, explore, mark, owner};

/// E8. Each makes the slots, one of them for nothing: both marks are in the same ones.
///
/// Seen to fail with a thread that keeps the slots it made though others came first.
#[test]
fn two_first_marks() {
    explore("first mark | first mark", Search::Exhaustive, [()], || {
        Scene::untouched(1).play(|scene| {
            let other = scene.spawn(|jobs, _| mark(jobs, 1, 'a'));
            let guard = mark(scene.jobs(), 3, 'b');
            let other = scene.join(other);
            assert_eq!([owner(scene.jobs(), 1), owner(scene.jobs(), 3)], [Some('a'), Some('b')]);
            assert!(guard.clear() && other.clear());
        })
    });
}

/// E1, E3, E8. Sees no slots, none of the mark, or the mark.
///
/// Seen to fail with slots that are not published.
#[test]
fn first_mark_against_owner() {
    explore("first mark | owner", Search::Exhaustive, [None, Some('a')], || {
        Scene::untouched(1).play(|scene| {
            let monitor = scene.spawn(|jobs, _| mark(jobs, 1, 'a'));
            let seen = owner(scene.jobs(), 1);
            drop(scene.join(monitor));
            seen
        })
    });
}

/// E8. A reader makes the slots too, and sees a mark that is made in them.
///
/// Seen to fail with a thread that keeps the slots it made though others came first.
#[test]
fn first_mark_against_a_reader() {
    explore("first mark | first reader", Search::Exhaustive, [[false, true], [true, true]], || {
        Scene::untouched(1).play(|scene| {
            let monitor = scene.spawn(|jobs, _| mark(jobs, 1, 'a'));
            let mut reader = scene.jobs().reader();
            let before = reader.is_active(&1);
            let guard = scene.join(monitor);
            let after = reader.is_active(&1);
            drop(reader);
            drop(guard);
            [before, after]
        })
    });
}
