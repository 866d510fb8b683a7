//! How a mark ends: by return, by `?`, by panic, with a dropped future; jobs without an id; nothing after a restart.

use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;

use livemark::{MarkGuard, Registry, RegistryStats};

use crate::support::{AllEqual, Census, blow_up};

/// A finalization that may end in any way.
#[derive(Clone, Copy)]
enum End {
    ByReturn,
    EarlyReturn,
    ByQuestionMark,
}

fn finalize(registry: &Registry<u64, &'static str>, job: u64, end: End) -> Result<&'static str, &'static str> {
    let _mark = registry.mark(job, "run 1");
    assert!(registry.is_active(&job));
    if matches!(end, End::EarlyReturn) {
        return Ok("nothing to do");
    }
    gates(end)?;
    assert!(registry.is_active(&job));
    Ok("merged")
}

fn gates(end: End) -> Result<(), &'static str> {
    if matches!(end, End::ByQuestionMark) { Err("red") } else { Ok(()) }
}

#[test]
fn a_mark_ends_with_its_scope_however_that_ends() {
    let registry = Registry::new();
    let ends =
        [(End::ByReturn, Ok("merged")), (End::EarlyReturn, Ok("nothing to do")), (End::ByQuestionMark, Err("red"))];
    for (end, result) in ends {
        assert_eq!(finalize(&registry, 7, end), result);
        assert!(!registry.is_active(&7), "after {result:?}");
    }
    assert_eq!(registry.stats().stale_clears, 0);
}

#[test]
fn a_mark_ends_with_a_panic() {
    let registry: Registry<u64, &str> = Registry::new();
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let _mark = registry.mark(7, "run 1");
        let _neighbour = registry.mark(8, "run 2");
        assert!(registry.is_active(&7));
        blow_up();
    }));
    assert!(result.is_err());
    assert!(registry.is_empty());
    assert_eq!(registry.stats().stale_clears, 0);
}

#[test]
fn a_mark_ends_with_the_panic_of_its_thread() {
    let registry: Arc<Registry<u64, &str>> = Arc::new(Registry::new());
    let shared = Arc::clone(&registry);
    let ended = thread::spawn(move || {
        let _mark = shared.mark_owned(7, "run 1");
        blow_up();
    });
    assert!(ended.join().is_err());
    assert!(!registry.is_active(&7));
}

#[test]
fn a_displaced_owner_that_panics_frees_nobody_elses_mark() {
    let registry: Registry<u64, &str> = Registry::new();
    let mut newer = None;
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let _mark = registry.mark(7, "run 1");
        newer = Some(registry.mark(7, "run 2"));
        blow_up();
    }));
    assert!(result.is_err());
    assert!(newer.is_some_and(|newer| newer.is_current() && newer.clear()));
}

/// Pending for ever.
struct Gates;

impl Future for Gates {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

#[test]
fn a_mark_ends_with_a_dropped_future() {
    let registry: Arc<Registry<u64, &str>> = Arc::new(Registry::new());
    let task = Arc::clone(&registry);
    let mut future = Box::pin(async move {
        let mark = task.mark_owned(7, "run 1");
        Gates.await;
        mark.clear()
    });
    assert!(!registry.is_active(&7), "a future does nothing until it is polled");

    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    assert!(registry.is_active(&7), "the mark lives across the await");
    assert!(future.as_mut().poll(&mut context).is_pending());
    assert!(registry.is_active(&7));

    // The task is cancelled, by another thread of the runtime.
    thread::spawn(move || drop(future)).join().unwrap();
    assert!(!registry.is_active(&7));
    assert_eq!(Arc::strong_count(&registry), 1);
}

#[test]
fn a_job_without_an_id_is_not_marked_and_drops_as_well() {
    let registry: Registry<u64, &str> = Registry::new();
    let finalize = |job: Option<u64>| {
        let mark: Option<MarkGuard<'_, u64, &str>> = job.map(|id| registry.mark(id, "run 1"));
        (mark.is_some(), registry.len())
    };
    assert_eq!(finalize(None), (false, 0));
    assert_eq!(finalize(Some(7)), (true, 1));
    assert!(registry.is_empty());
    assert_eq!(registry.stats().marks, 1);
}

#[test]
fn marks_end_in_any_order() {
    let registry: Registry<u64, u64, AllEqual> = Registry::with_hasher(AllEqual::default());
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut guards = [0, 1, 2].map(|job| Some(registry.mark(job, job)));
        for (ended, place) in order.into_iter().enumerate() {
            drop(guards[place].take());
            for (job, guard) in guards.iter().enumerate() {
                assert_eq!(registry.is_active(&(job as u64)), guard.is_some(), "{order:?}");
            }
            assert_eq!(registry.len(), 2 - ended);
        }
    }
}

#[test]
fn after_a_restart_nothing_is_owned() {
    // A registry lives and dies with its process: what the process held is gone, and generations start again.
    let census = Census::default();
    let before = Registry::new();
    std::mem::forget(before.mark(7_u64, census.tracked(70)));
    assert!(before.is_active(&7));
    drop(before);

    let after: Registry<u64, &str> = Registry::new();
    assert!(after.is_empty() && !after.is_active(&7) && after.snapshot().is_empty());
    assert_eq!(after.stats(), RegistryStats::default());
    census.assert_each_is_dropped_once();
}
