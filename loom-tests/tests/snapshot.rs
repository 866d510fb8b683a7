//! Snapshots against hand-overs: job 1 and job 2 are in different slots, so no single load sees both.
//!
//! E5, as far as loom goes: it takes the SeqCst accesses for AcqRel, which is enough for one writer.

use loom_tests::{Mark, Scene, Search, mark, model};

/// The jobs of a snapshot, which was of one instant.
fn snapshot(scene: &Scene) -> Vec<u64> {
    let snapshot = scene.jobs().snapshot();
    assert!(snapshot.is_atomic(), "there are fewer writes than attempts");
    let jobs: Vec<_> = snapshot.iter().map(|(job, _)| job.id()).collect();
    assert!(snapshot.iter().all(|(_, owner)| owner.value.read() == 'a'));
    jobs
}

/// Marked before it is cleared: never neither.
///
/// Seen to fail with a single pass.
#[test]
fn hand_over_without_a_gap() {
    let expected = [vec![1], vec![1, 2], vec![2]];
    model("mark B, clear A | snapshot", 1, Search::Exhaustive, expected, |scene| {
        let first = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(|jobs, _| {
            let second = mark(jobs, 2, 'a');
            assert!(first.clear());
            second
        });
        let seen = snapshot(scene);
        drop(scene.join(monitor));
        seen
    });
}

/// Cleared before it is marked: never both.
///
/// Seen to fail with a single pass.
#[test]
fn hand_over_with_a_gap() {
    let expected = [vec![], vec![1], vec![2]];
    model("clear A, mark B | snapshot", 1, Search::Exhaustive, expected, |scene| {
        // From the slot that is read first: the other way round even a single pass never sees both.
        let first = mark(scene.jobs(), 2, 'a');
        let monitor = scene.spawn(|jobs, _| {
            assert!(first.clear());
            mark(jobs, 1, 'a')
        });
        let seen = snapshot(scene);
        drop(scene.join(monitor));
        seen
    });
}

/// A snapshot while a monitor goes from job 1 to 2, back, and to 2 again, without a gap.
fn there_and_back(scene: &Scene) -> Vec<u64> {
    let mut here: Mark = mark(scene.jobs(), 1, 'a');
    let monitor = scene.spawn(|jobs, _| {
        for job in [2, 1, 2] {
            let there = mark(jobs, job, 'a');
            assert!(here.clear());
            here = there;
        }
        here
    });
    let seen = snapshot(scene);
    drop(scene.join(monitor));
    seen
}

/// There, back and there again, without a gap: never neither. Were all empty words alike, both passes could meet
/// each slot empty, at different times.
///
/// Every order takes minutes: a bound. Seen to fail with empty words that are all alike (`TaggedWord::cleared` giving 0).
#[test]
fn hand_overs_back_and_forth() {
    let expected = [vec![1], vec![1, 2], vec![2]];
    model("A to B to A to B | snapshot", 1, Search::Preemptions(8), expected, |scene| there_and_back(scene));
}

/// The same, beside neighbours whose slots collapse to them again and again. Were such an entry's word the one that it
/// had before, both readings could meet each neighbour alone, at different times.
///
/// Every order takes minutes: a bound. Seen to fail with an ABA tag that stays (`EntryPtr::collapse`).
#[test]
fn hand_overs_back_and_forth_beside_neighbours() {
    let expected = [vec![1, 3, 4], vec![1, 2, 3, 4], vec![2, 3, 4]];
    model("A to B to A to B, beside C, D | snapshot", 1, Search::Preemptions(8), expected, |scene| {
        let neighbours = [3, 4].map(|job| mark(scene.jobs(), job, 'a'));
        let seen = there_and_back(scene);
        drop(neighbours);
        seen
    });
}
