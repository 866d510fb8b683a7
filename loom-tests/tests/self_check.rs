//! Proof that the search has no gaps: threads that load and compare-exchange one slot, as the map does, see every
//! history that they can see.
//!
//! A history is what each thread read, in its order. The possible ones are computed by trying every order of the steps
//! of all threads; the numbers that follow from thought alone are asserted as well.
//!
//! Seen to fail, each of the tests here, without the turnstile: a writer and a reader, for one, are then run once. Of
//! the models, eleven miss outcomes without it.

use std::collections::BTreeSet;
use std::sync::Arc;

use livemark::model::AtomicUsize;
use loom::sync::atomic::Ordering;
use loom_tests::{Search, explore};

/// What a thread does with the slot: `R` loads it; `W` loads it and replaces what it saw by the next number, and
/// starts again where another write came first.
type Program = &'static str;

/// What each thread read, in its order, and whether another write came first then.
type History = Vec<Vec<(usize, bool)>>;

fn check(programs: &'static [Program], count: usize) {
    let possible = possible(programs);
    assert_eq!(possible.len(), count, "{programs:?}: histories by thought and by computation");
    explore(&format!("self-check {}", programs.join("|")), Search::Exhaustive, possible, || seen(programs));
}

/// What loom's threads saw in one execution. The last one is the main thread, as in the models.
fn seen(programs: &[Program]) -> History {
    let slot = Arc::new(AtomicUsize::new(0));
    let (main, others) = programs.split_last().expect("there are threads");
    let threads: Vec<_> = others
        .iter()
        .map(|&program| {
            let slot = Arc::clone(&slot);
            loom::thread::spawn(move || run(program, &slot))
        })
        .collect();
    let main = run(main, &slot);
    threads.into_iter().map(|thread| thread.join().expect("the thread ends well")).chain([main]).collect()
}

fn run(program: Program, slot: &AtomicUsize) -> Vec<(usize, bool)> {
    let mut reads = Vec::new();
    for operation in program.chars() {
        loop {
            // The orderings of the map's slots.
            let word = slot.load(Ordering::SeqCst);
            let conflict =
                operation == 'W' && slot.compare_exchange(word, word + 1, Ordering::SeqCst, Ordering::Relaxed).is_err();
            reads.push((word, conflict));
            if !conflict {
                break;
            }
        }
    }
    reads
}

/// What the threads can see, by brute force.
fn possible(programs: &[Program]) -> BTreeSet<History> {
    #[derive(Clone)]
    struct Thread {
        /// Operations that are not done.
        rest: Vec<char>,
        /// In the middle of a `W`: what it loaded.
        loaded: Option<usize>,
        reads: Vec<(usize, bool)>,
    }

    fn step(slot: usize, threads: &[Thread], found: &mut BTreeSet<History>) {
        if threads.iter().all(|thread| thread.rest.is_empty()) {
            found.insert(threads.iter().map(|thread| thread.reads.clone()).collect());
        }
        for at in 0..threads.len() {
            let (mut slot, mut threads) = (slot, threads.to_vec());
            let thread = &mut threads[at];
            match (thread.rest.first(), thread.loaded.take()) {
                (None, _) => continue,
                (Some('W'), None) => thread.loaded = Some(slot),
                (Some(_), None) => {
                    thread.reads.push((slot, false));
                    thread.rest.remove(0);
                }
                (Some(_), Some(word)) => {
                    thread.reads.push((word, word != slot));
                    if word == slot {
                        slot += 1;
                        thread.rest.remove(0);
                    }
                }
            }
            step(slot, &threads, found);
        }
    }

    let threads: Vec<_> = programs
        .iter()
        .map(|program| Thread { rest: program.chars().collect(), loaded: None, reads: Vec::new() })
        .collect();
    let mut found = BTreeSet::new();
    step(0, &threads, &mut found);
    found
}

#[test]
fn two_writers() {
    check(&["W", "W"], 4);
}

#[test]
fn reader_and_writer() {
    check(&["R", "W"], 2);
    check(&["W", "R"], 2);
}

#[test]
fn reader_and_two_writers() {
    check(&["R", "W", "W"], 12);
    check(&["W", "R", "W"], 12);
    check(&["W", "W", "R"], 12);
}

#[test]
fn two_readers_and_writer() {
    check(&["R", "R", "W"], 4);
    check(&["W", "R", "R"], 4);
}

#[test]
fn three_writers() {
    check(&["W", "W", "W"], 48);
}

#[test]
fn two_writes_against_one() {
    check(&["WW", "W"], 10);
    check(&["W", "WW"], 10);
}

#[test]
fn two_writes_against_two() {
    check(&["WW", "WW"], 40);
}

#[test]
fn writers_that_read_back() {
    check(&["WR", "W"], 6);
    check(&["WR", "WR"], 8);
}

#[test]
fn two_operations_against_one() {
    check(&["RR", "W"], 3);
    check(&["W", "RR"], 3);
    check(&["R", "WW"], 3);
    check(&["WW", "R"], 3);
}
