//! Mistakes that the harness must find: each of these models fails, with the message that its mistake leads to.
//!
//! The same models without a mistake pass.

mod broken;

use std::sync::Arc;

use broken::{Mistake, Slot};
use crossbeam_epoch::Collector;
use livemark::model::Participant;
use loom_tests::{Name, Search, explore, reclaim};

/// Runs `racer` in a thread of its own and `main` besides it, on one slot, and gives what `main` does.
fn race<T: 'static>(
    mistake: Mistake,
    before: impl FnOnce(&Slot, &Participant),
    racer: impl FnOnce(&Slot, &Participant) + 'static,
    main: impl FnOnce(&Slot, &Participant) -> T,
) -> (T, Option<Name>) {
    let collector = Collector::new();
    let [me, other] = [(); 2].map(|()| Participant::new(&collector, false));
    let slot = Arc::new(Slot::new(mistake));
    before(&slot, &me);
    let thread = loom::thread::spawn({
        let slot = Arc::clone(&slot);
        move || {
            racer(&slot, &other);
            drop(slot);
            other
        }
    });
    let result = main(&slot, &me);
    let _other = thread.join().expect("the thread ends well");
    let left = slot.owner(&me);
    (result, left)
}

/// Marks against a reader.
fn publish(mistake: Mistake) {
    explore(&format!("broken: publish, {mistake:?}"), Search::Exhaustive, [None, Some('a')], move || {
        let mark = |slot: &Slot, me: &Participant| slot.mark(1, 'a', &me.pin());
        race(mistake, |_, _| {}, mark, |slot, me| slot.owner(me)).0
    });
}

/// Clears and reclaims against a reader.
fn unlink(mistake: Mistake) {
    explore(&format!("broken: unlink, {mistake:?}"), Search::Exhaustive, [None, Some('a')], move || {
        let before = |slot: &Slot, me: &Participant| slot.mark(1, 'a', &me.pin());
        let clear = |slot: &Slot, me: &Participant| {
            slot.clear(1, &me.pin());
            reclaim(me);
        };
        race(mistake, before, clear, |slot, me| slot.owner(me)).0
    });
}

/// Clears late against a new mark.
fn late_clear(mistake: Mistake) {
    explore(&format!("broken: late clear, {mistake:?}"), Search::Exhaustive, [()], move || {
        let before = |slot: &Slot, me: &Participant| slot.mark(1, 'a', &me.pin());
        let late = |slot: &Slot, me: &Participant| slot.clear(1, &me.pin());
        let (_, left) = race(mistake, before, late, |slot, me| slot.mark(2, 'b', &me.pin()));
        assert_eq!(left, Some('b'), "a late release freed a newer owner");
    });
}

#[test]
fn no_mistake() {
    publish(Mistake::None);
    unlink(Mistake::None);
    late_clear(Mistake::None);
}

#[test]
#[should_panic(expected = "Causality violation: Concurrent read and write accesses.")]
fn relaxed_publish() {
    publish(Mistake::RelaxedPublish);
}

#[test]
#[should_panic(expected = "Causality violation: Concurrent read and write accesses to `UnsafeCell`.")]
fn free_at_once() {
    unlink(Mistake::FreeAtOnce);
}

#[test]
#[should_panic(expected = "Allocation leaked.")]
fn leak() {
    unlink(Mistake::Leak);
}

#[test]
#[should_panic(expected = "a late release freed a newer owner")]
fn clear_ignores_generation() {
    late_clear(Mistake::ClearIgnoresGeneration);
}

#[test]
#[should_panic(expected = "a late release freed a newer owner")]
fn clear_compares_on_retries_only() {
    late_clear(Mistake::ClearComparesOnRetriesOnly);
}

#[test]
#[should_panic(expected = "Causality violation: Concurrent read and write accesses to `UnsafeCell`.")]
fn read_after_guard() {
    unlink(Mistake::ReadAfterGuard);
}
