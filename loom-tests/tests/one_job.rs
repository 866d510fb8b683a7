//! Two or three parties and one job, single in its slot.

use loom_tests::{Search, mark, model, model_that_frees, owner, try_mark};

/// E1, E3. Sees the mark or does not; whoever sees it reads a job id that is there in full.
///
/// Seen to fail with the compare-exchange relaxed.
#[test]
fn mark_against_is_active() {
    model("mark | is_active", 1, Search::Exhaustive, [false, true], |scene| {
        let monitor = scene.spawn(|jobs, _| mark(jobs, 1, 'a'));
        let active = scene.jobs().is_active(&1);
        let guard = scene.join(monitor);
        assert!(scene.jobs().is_active(&1), "a mark that has returned is seen");
        drop(guard);
        active
    });
}

/// E1, E3. As above, with the value read and copied.
///
/// Seen to fail with the compare-exchange, or the load, relaxed.
#[test]
fn mark_against_owner() {
    model("mark | owner", 1, Search::Exhaustive, [None, Some('a')], |scene| {
        let monitor = scene.spawn(|jobs, _| mark(jobs, 1, 'a'));
        let seen = owner(scene.jobs(), 1);
        drop(scene.join(monitor));
        seen
    });
}

/// E3. The clearing thread frees what it can, so a reader that is not protected reads freed memory.
///
/// Seen to fail with entries freed at once, and with none ever freed.
#[test]
fn clear_against_is_active() {
    model_that_frees("clear, flush | is_active", 1, Search::Exhaustive, [false, true], |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(|jobs, me| {
            assert!(jobs.clear(&1), "nobody else clears");
            me.flush();
        });
        let active = scene.jobs().is_active(&1);
        scene.join(monitor);
        assert!(!scene.jobs().is_active(&1), "a clear that has returned is seen");
        assert!(!guard.clear());
        active
    });
}

/// E1, E3. By the guard: compares generations instead of jobs.
///
/// Seen to fail with entries freed at once, and with none ever freed.
#[test]
fn release_against_owner() {
    model_that_frees("release, flush | owner", 1, Search::Exhaustive, [None, Some('a')], |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(|_, me| {
            assert!(guard.clear(), "the mark is still this one");
            me.flush();
        });
        let seen = owner(scene.jobs(), 1);
        scene.join(monitor);
        seen
    });
}

/// E1, E3. The clear comes before the mark, and finds nothing, or after; either way it is one order for the reader too.
///
/// Seen to fail with the load relaxed, and with entries freed at once.
#[test]
fn mark_clear_and_is_active() {
    // Cleared, seen active.
    let expected = [(false, false), (false, true), (true, false), (true, true)];
    model("mark | clear | is_active", 2, Search::Exhaustive, expected, |scene| {
        let monitor = scene.spawn(|jobs, _| mark(jobs, 1, 'a'));
        let operator = scene.spawn(|jobs, _| jobs.clear(&1));
        let active = scene.jobs().is_active(&1);
        let guard = scene.join(monitor);
        let cleared = scene.join(operator);
        assert_eq!(guard.is_current(), !cleared);
        assert_eq!(scene.jobs().is_active(&1), !cleared);
        (cleared, active)
    });
}

/// E1. Exactly one wins, and the other is told of the winner.
///
/// Seen to fail with a `try_mark` that takes over, and with a store in the place of the compare-exchange.
#[test]
fn two_try_marks() {
    let expected = [(Ok(()), Err('a')), (Err('b'), Ok(()))];
    model("try_mark | try_mark", 1, Search::Exhaustive, expected, |scene| {
        let other = scene.spawn(|jobs, _| try_mark(jobs, 1, 'a'));
        let mine = try_mark(scene.jobs(), 1, 'b');
        let other = scene.join(other);
        (other.map(drop), mine.map(drop))
    });
}

/// E1. Of three, exactly one wins.
///
/// Every order takes minutes: a bound. Seen to fail as the model above.
#[test]
fn three_try_marks() {
    model("try_mark | try_mark | try_mark", 2, Search::Preemptions(4), ['a', 'b', 'c'], |scene| {
        let others = ['a', 'b'].map(|name| scene.spawn(move |jobs, _| (name, try_mark(jobs, 1, name))));
        let mine = ('c', try_mark(scene.jobs(), 1, 'c'));
        let all = others.map(|other| scene.join(other)).into_iter().chain([mine]);
        let (winners, refused): (Vec<_>, Vec<_>) = all.partition(|(_, claim)| claim.is_ok());
        assert_eq!(winners.len(), 1);
        assert!(refused.iter().all(|(_, claim)| claim.as_ref().is_err_and(|owner| *owner == winners[0].0)));
        winners[0].0
    });
}

/// E1, E2. The later mark displaces the earlier one, which can see it, and has the greater generation.
///
/// Seen to fail with the generation drawn before the load.
#[test]
fn two_marks() {
    model("mark | mark, one job", 1, Search::Exhaustive, ['a', 'b'], |scene| {
        let other = scene.spawn(|jobs, _| mark(jobs, 1, 'a'));
        let mine = mark(scene.jobs(), 1, 'b');
        let other = scene.join(other);
        assert_eq!(mine.is_current(), mine.generation() > other.generation());
        assert_eq!(other.is_current(), other.generation() > mine.generation());
        assert_eq!(scene.jobs().stats().displaced, 1);
        owner(scene.jobs(), 1).expect("both marked")
    });
}

/// E3. Exactly one clears it: the entry is retired once.
///
/// Seen to fail with entries freed at once, and with a store in the place of the compare-exchange.
#[test]
fn two_clears() {
    model("clear | clear, one job", 1, Search::Exhaustive, [(false, true), (true, false)], |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let other = scene.spawn(|jobs, _| jobs.clear(&1));
        let mine = scene.jobs().clear(&1);
        let other = scene.join(other);
        assert!(!guard.is_current());
        (other, mine)
    });
}
