//! That the checker can fail: by hand, and with planted bugs.

use crate::call::{Answer, Call, JOBS};
use crate::crew::{Crew, Size};
use crate::history::{Answered, History};
use crate::smallest;
use crate::spec::Spec;
use crate::subject::Bug;

/// Job 0 is marked with generation 8, by 7.
fn before() -> Spec {
    Spec { owners: [Some((8, 7)), None, None], greatest: [8, 0, 0], others: 0 }
}

/// Calls with their answers, one after the other, each by a thread of its own.
fn one_by_one(calls: &[(Call, Answer)]) -> History {
    let answered = |(at, (call, answer)): (usize, &(Call, Answer))| Answered {
        thread: at,
        call: *call,
        answer: *answer,
        began: at * 2,
        ended: at * 2 + 1,
    };
    History { before: before(), calls: calls.iter().enumerate().map(answered).collect() }
}

/// The same calls, all at once.
fn at_once(calls: &[(Call, Answer)]) -> History {
    let mut history = one_by_one(calls);
    for (at, call) in history.calls.iter_mut().enumerate() {
        (call.began, call.ended) = (at, calls.len() + at);
    }
    history
}

#[test]
fn every_call_has_right_answers_and_wrong_ones() {
    let owners = |first| {
        let mut owners = [None; JOBS];
        owners[0] = first;
        owners
    };
    let marked = Some((8, 7));
    let right = [
        (Call::Mark(0, 1), Answer::Marked(16)),
        (Call::Mark(1, 1), Answer::Marked(1)),
        (Call::TryMark(1, 1), Answer::Marked(1)),
        (Call::TryMark(0, 1), Answer::Refused(8, 7)),
        (Call::Release(0, 8), Answer::Said(true)),
        (Call::Release(0, 4), Answer::Said(false)),
        (Call::Drop(0, 4), Answer::Nothing),
        (Call::Replace(0, 8, 1), Answer::Said(true)),
        (Call::Replace(0, 4, 1), Answer::Said(false)),
        (Call::IsCurrent(0, 8), Answer::Said(true)),
        (Call::IsCurrent(0, 4), Answer::Said(false)),
        (Call::Clear(0), Answer::Said(true)),
        (Call::Clear(1), Answer::Said(false)),
        (Call::ClearGeneration(0, 8), Answer::Said(true)),
        (Call::ClearGeneration(0, 4), Answer::Said(false)),
        (Call::IsActive(0), Answer::Said(true)),
        (Call::IsActive(1), Answer::Said(false)),
        (Call::Owner(0), Answer::Owner(marked)),
        (Call::Owner(1), Answer::Owner(None)),
        (Call::Snapshot, Answer::Snapshot(owners(marked), 0)),
        (Call::Snapshot, Answer::Torn),
    ];
    for (call, answer) in right {
        assert!(one_by_one(&[(call, answer)]).is_linearizable(), "{call} -> {answer}");
        if let Answer::Said(said) = answer {
            assert!(!one_by_one(&[(call, Answer::Said(!said))]).is_linearizable(), "{call} -> {}", !said);
        }
    }
    let wrong = [
        // A generation that the job had already, or an older one.
        (Call::Mark(0, 1), Answer::Marked(8)),
        (Call::Mark(0, 1), Answer::Marked(4)),
        (Call::TryMark(0, 1), Answer::Marked(16)),
        (Call::TryMark(1, 1), Answer::Refused(8, 7)),
        (Call::TryMark(0, 1), Answer::Refused(8, 1)),
        (Call::Owner(0), Answer::Owner(None)),
        (Call::Owner(0), Answer::Owner(Some((8, 1)))),
        (Call::Snapshot, Answer::Snapshot(owners(None), 0)),
        (Call::Snapshot, Answer::Snapshot(owners(marked), 1)),
        (Call::Drop(0, 8), Answer::Said(true)),
    ];
    for (call, answer) in wrong {
        assert!(!one_by_one(&[(call, answer)]).is_linearizable(), "{call} -> {answer}");
    }
}

#[test]
fn calls_that_overlap_may_take_effect_in_any_order_and_others_may_not() {
    let calls = [(Call::IsActive(0), Answer::Said(false)), (Call::Clear(0), Answer::Said(true))];
    assert!(at_once(&calls).is_linearizable() && !one_by_one(&calls).is_linearizable());

    let both_claim = [(Call::TryMark(1, 1), Answer::Marked(1)), (Call::TryMark(1, 2), Answer::Marked(2))];
    assert!(!at_once(&both_claim).is_linearizable());

    // A guard that is dropped late has no say in what a newer owner has.
    let late = [
        (Call::Mark(0, 1), Answer::Marked(16)),
        (Call::Drop(0, 8), Answer::Nothing),
        (Call::IsActive(0), Answer::Said(false)),
    ];
    assert!(!one_by_one(&late).is_linearizable());
    // Two hand-overs in their order, which a snapshot saw in part.
    let torn = [
        (Call::Mark(1, 1), Answer::Marked(1)),
        (Call::Release(0, 8), Answer::Said(true)),
        (Call::Snapshot, Answer::Snapshot([None; JOBS], 0)),
    ];
    assert!(!one_by_one(&torn).is_linearizable());
}

#[test]
fn the_registry_is_linearizable() {
    let mut crew = Crew::new(Bug::None, 1);
    let mut contended = 0;
    for _ in 0..5_000 {
        let history = crew.run(Size::ANY);
        contended += u32::from(history.is_contended());
        assert!(history.is_linearizable(), "{history}");
    }
    assert!(contended > 100, "the threads ran one after the other: {contended} of 5,000 contended");
}

/// Runs histories until one is bad, and gives the smallest that is found.
fn caught(bug: Bug) -> History {
    let mut crew = Crew::new(bug, 2);
    for number in 1..=50_000 {
        let history = crew.run(Size::ANY);
        if !history.is_linearizable() {
            let smallest = smallest::found(&history, &mut crew);
            println!("{bug:?}: caught by history {number}\n{smallest}");
            return smallest;
        }
    }
    panic!("{bug:?} was not caught");
}

#[test]
fn a_claim_in_two_steps_is_caught() {
    assert!(caught(Bug::ClaimInTwoSteps).calls.len() <= 6);
}

#[test]
fn a_late_release_is_caught() {
    assert!(caught(Bug::LateRelease).calls.len() <= 6);
}

#[test]
fn a_torn_snapshot_is_caught() {
    assert!(caught(Bug::TornSnapshot).calls.len() <= 6);
}

#[test]
fn a_replace_in_two_steps_is_caught() {
    assert!(caught(Bug::ReplaceInTwoSteps).calls.len() <= 6);
}

#[test]
fn a_stale_look_is_caught() {
    assert!(caught(Bug::StaleLook).calls.len() <= 6);
}
