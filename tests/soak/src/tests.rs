//! That each check can fail; and that a short run does not, with everything in it.

use std::time::Duration;

use livemark::{Registry, RegistryStats};

use crate::books::{Books, Context, Quiet};
use crate::load::Soak;
use crate::store::{End, Store};

/// What a registry without marks has.
fn nothing() -> Quiet {
    let registry = Registry::<u64, ()>::new().stats();
    Quiet { registry, marked: 0, jobs_left: 0, live_values: 0, unreclaimed: 0 }
}

/// What the books say of it, after `done`.
fn said(quiet: Quiet, done: impl FnOnce(&Books)) -> Vec<String> {
    let books = Books::default();
    done(&books);
    books.audit(quiet);
    books.violations()
}

fn after(marks: u64) -> RegistryStats {
    let registry = Registry::<u64, ()>::new();
    (0..marks).for_each(|job| drop(registry.mark(job, ())));
    registry.stats()
}

#[test]
fn a_mark_that_is_lost_is_missed() {
    assert!(said(nothing(), |_| {}).is_empty());
    let two = Quiet { registry: after(2), ..nothing() };
    assert!(said(two, |books| books.counts.releases.add(2)).is_empty());
    assert_eq!(said(two, |books| books.counts.releases.add(1)).len(), 1);
    assert_eq!(said(two, |books| books.counts.releases.add(3)).len(), 1);
}

#[test]
fn a_job_that_ends_twice_or_never_is_missed() {
    let ended = |books: &Books| {
        books.counts.created.add(2);
        books.counts.committed.one();
        books.counts.redriven.one();
    };
    assert!(said(nothing(), ended).is_empty());
    let twice = |books: &Books| {
        ended(books);
        books.counts.reaped_lost.one();
    };
    assert_eq!(said(nothing(), twice).len(), 1);
    assert_eq!(said(Quiet { jobs_left: 1, ..nothing() }, ended).len(), 1);
}

#[test]
fn values_that_are_leaked_or_dropped_twice_are_missed() {
    assert_eq!(said(Quiet { live_values: 100_000, ..nothing() }, |_| {}).len(), 1);
    assert!(said(Quiet { live_values: 100_000, unreclaimed: 100_000, ..nothing() }, |_| {}).is_empty());
    let (registry, marked) = (after(0), 0);
    assert!(said(Quiet { registry, marked, live_values: 0, ..nothing() }, |_| {}).is_empty());
}

#[test]
fn memory_that_grows_is_a_violation() {
    let books = Books::default();
    books.measure(10_000);
    books.measure(18_000);
    assert!(books.violations().is_empty());
    books.measure(19_000);
    assert_eq!(books.violations().len(), 1);
}

#[test]
fn two_finalizers_at_work_are_a_violation() {
    let (store, books) = (Store::default(), Books::default());
    store.create(7);
    store.enter(7, 1, &books);
    assert!(books.violations().is_empty());
    store.enter(7, 2, &books);
    assert_eq!(books.violations().len(), 1, "the incident");
    assert!(!store.end(7, 1, End::Committed, &books), "an older generation is refused");
    assert!(store.end(7, 2, End::Redriven, &books) && !store.end(7, 2, End::Redriven, &books));

    let books = Books::default();
    store.create(8);
    store.enter(8, 5, &books);
    store.leave(8, 5);
    store.enter(8, 4, &books);
    assert_eq!(books.violations().len(), 1, "generations grow");

    let books = Books::default();
    store.create(9);
    store.enter(9, 5, &books);
    assert!(store.end(9, 6, End::ReapedBackstop, &books));
    assert!(books.violations().is_empty(), "the backstop ends a live finalizer");
    store.create(10);
    store.enter(10, 5, &books);
    assert!(store.end(10, 6, End::ReapedLost, &books));
    assert_eq!(books.violations().len(), 1, "nobody else does");
}

#[test]
fn a_context_knows_its_job() {
    let context = Context::new(7);
    assert!(context.is_of(7) && context.clone().is_of(7) && !context.is_of(8));
}

#[test]
fn a_short_run_violates_nothing_and_does_everything() {
    // The test harness keeps what is said, and would count as memory that grows.
    crate::quieten();
    let soak = Soak::default();
    soak.run(Duration::from_secs(3), 1);
    assert_eq!(soak.books.violations(), Vec::<String>::new());
    assert_eq!(soak.books.missing(), Vec::<&str>::new());
}
