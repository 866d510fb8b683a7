//! What generations are for: late releases, and their order.

use std::time::Duration;

use livemark::{Claim, Generation, Policy, Reaper, RunningJob, Verdict};
use loom_tests::{Job, Jobs, Probe, Search, mark, model, model_that_frees, owner, reclaim};

/// The late release of a displaced owner leaves the new owner's mark alone, whichever comes first; E3: while it
/// decides by an entry, that is not freed.
///
/// Seen to fail with a release that ignores the generation, or compares it in its first attempt or in its later ones
/// only; and with one that first looks without a pin.
#[test]
fn late_release_against_mark() {
    model_that_frees("release | mark, reclaim", 1, Search::Exhaustive, [false, true], |scene| {
        let old = mark(scene.jobs(), 1, 'a');
        let late = scene.spawn(|_, _| old.clear());
        let new = mark(scene.jobs(), 1, 'b');
        reclaim(scene.main());
        let cleared = scene.join(late);
        assert!(new.is_current(), "a late release freed a newer owner");
        assert_eq!(owner(scene.jobs(), 1), Some('b'));
        cleared
    });
}

/// The same by number, as from a message, and with a reader.
///
/// Seen to fail with a `clear_generation` that ignores the generation.
#[test]
fn late_clear_generation_against_mark_and_owner() {
    // Whether the late clear found its mark, and whom the reader saw: nobody only between a clear and the mark.
    let expected = [(false, Some('a')), (false, Some('b')), (true, None), (true, Some('a')), (true, Some('b'))];
    model("clear_generation | mark | owner", 2, Search::Exhaustive, expected, |scene| {
        let old = mark(scene.jobs(), 1, 'a');
        let generation = old.generation();
        let late = scene.spawn(move |jobs, _| jobs.clear_generation(&1, generation));
        let new = scene.spawn(|jobs, _| mark(jobs, 1, 'b'));
        let seen = owner(scene.jobs(), 1);
        let cleared = scene.join(late);
        assert!(scene.join(new).is_current(), "a late release freed a newer owner");
        (cleared, seen)
    });
}

/// A displaced owner sees it before it commits, or commits before it is displaced. E3, as above.
///
/// Seen to fail with entries freed at once.
#[test]
fn is_current_against_mark() {
    model_that_frees("is_current | mark, reclaim", 1, Search::Exhaustive, [false, true], |scene| {
        let old = mark(scene.jobs(), 1, 'a');
        let reaper = scene.spawn(|jobs, me| {
            let new = mark(jobs, 1, 'b');
            reclaim(me);
            new
        });
        let current = old.is_current();
        let new = scene.join(reaper);
        assert!(!old.is_current());
        drop(new);
        current
    });
}

/// E2. A mark that is published after another one was cleared has the greater generation: a compare-exchange on an
/// empty slot fails if the slot was marked and cleared since it was loaded.
///
/// Seen to fail with empty words that are all alike (`TaggedWord::cleared` giving 0), and with the generation drawn before
/// the load.
#[test]
fn order_of_generations_over_a_clear() {
    // Whether the other mark was displaced, cleared before mine or not displaced at all.
    model("mark | mark, release", 1, Search::Exhaustive, [(false, false), (true, false), (true, true)], |scene| {
        let other = scene.spawn(|jobs, _| mark(jobs, 1, 'a'));
        let mine = mark(scene.jobs(), 1, 'b');
        let number = mine.generation();
        let cleared = mine.clear();
        let after = scene.jobs().owner(&1).map(|owner| owner.generation);
        let other = scene.join(other);
        if cleared && other.is_current() {
            // `b` was there and gone before `a` was published.
            assert!(other.generation() > number, "generations do not grow in the order of the marks");
        }
        (cleared, after.is_some() && cleared)
    });
}

/// E2. With the clear by a third party: what is left is the newest mark.
///
/// Seen to fail as the model above.
#[test]
fn order_of_generations_of_three_parties() {
    model("mark | clear | mark", 2, Search::Exhaustive, [None, Some('a'), Some('b')], |scene| {
        let first = scene.spawn(|jobs, _| mark(jobs, 1, 'a'));
        let operator = scene.spawn(|jobs, _| jobs.clear(&1));
        let mine = mark(scene.jobs(), 1, 'b');
        let first = scene.join(first);
        scene.join(operator);
        let left = scene.jobs().owner(&1);
        let newest = mine.generation().max(first.generation());
        if let Some(left) = &left {
            assert_eq!(left.generation, newest, "generations do not grow in the order of the marks");
        }
        left.map(|left| left.value.read())
    });
}

/// E2. The same beside a neighbour: when the slot collapses to the entry that is left, its word has the next ABA tag, as
/// it would be the one that was there before otherwise.
///
/// Seen to fail with an ABA tag that stays.
#[test]
fn order_of_generations_beside_a_neighbour() {
    let expected = [(false, false), (true, false), (true, true)];
    model("mark | mark, release, beside a neighbour", 1, Search::Exhaustive, expected, |scene| {
        let _neighbour = mark(scene.jobs(), 3, 'n');
        let other = scene.spawn(|jobs, _| mark(jobs, 1, 'a'));
        let mine = mark(scene.jobs(), 1, 'b');
        let number = mine.generation();
        let cleared = mine.clear();
        let after = scene.jobs().is_active(&1);
        let other = scene.join(other);
        if cleared && other.is_current() {
            assert!(other.generation() > number, "generations do not grow in the order of the marks");
        }
        (cleared, after && cleared)
    });
}

/// E2. Jobs of different slots share the counter: each mark has a generation of its own, and a job's grow.
///
/// Seen to fail with a draw by a load and a store.
#[test]
fn draws_for_two_jobs() {
    model("mark A | mark B, mark B", 1, Search::Exhaustive, [()], |scene| {
        let other = scene.spawn(|jobs, _| [mark(jobs, 2, 'a'), mark(jobs, 2, 'b')]);
        let mine = mark(scene.jobs(), 1, 'c');
        let [first, second] = scene.join(other);
        assert!(first.generation() < second.generation(), "a job's generations grow");
        assert!(![first.generation(), second.generation()].contains(&mine.generation()), "each is drawn once");
    });
}

/// E2. A reaper's claims and a monitor's marks share the counter: the generations of the job grow in the order of both.
#[test]
fn order_of_generations_of_a_monitor_and_a_reaper() {
    // Whether the monitor's mark was displaced.
    model("mark | backstop", 1, Search::Exhaustive, [false, true], |scene| {
        let monitor = scene.spawn(|jobs, _| mark(jobs, 1, 'm'));
        let (claim, first) = backstop(scene.jobs());
        let monitor = scene.join(monitor);
        let displaced = !monitor.is_current();
        assert_eq!(displaced, claim.displaced().is_some());
        assert_eq!(displaced, first > monitor.generation(), "generations do not grow in the order of the marks");
        let (_claim, second) = backstop(scene.jobs());
        assert!(second > first.max(monitor.generation()), "nor those of a reaper");
        let third = mark(scene.jobs(), 1, 'n').generation();
        assert!(third > second, "nor those of a monitor after it");
        displaced
    });
}

/// Claims job 1, which is past its deadline.
fn backstop(jobs: &Jobs) -> (Claim<'_, Job, Probe>, Generation) {
    let seconds = Duration::from_secs;
    let policy = Policy::builder().finalize_grace(seconds(1)).lost_grace(seconds(1)).hard_deadline(seconds(20));
    let policy = policy.marking_stage("merge").build().expect("the policy works");
    let reaper = Reaper::with_claim(jobs, policy, |_| Probe::new('r'));
    let id = Job::from(1);
    let verdict = reaper.sweep().judge(&RunningJob::new(&id, "merge", seconds(21)));
    let Verdict::Reap(_, claim) = verdict else { panic!("it is past its deadline") };
    let generation = claim.generation().expect("it claims");
    (claim, generation)
}
