//! Marks in tasks: they live across `.await`, and end with their future however it ends. The reaper's loop beside a
//! runtime.

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use livemark::{Cause, Finalizer, MarkGuard, OwnedMarkGuard, Reaper, Registry, RunningJob, Scheduler, Verdict};
use support::{Stop, alone, finished, policy, wait_until};
use tokio::runtime::Runtime;
use tokio::sync::{Barrier, oneshot};

type Jobs = Registry<u64, &'static str>;

/// Marks job 7 when it is first polled, says so, and finalizes it for ever.
fn finalization(registry: &Arc<Jobs>) -> (impl Future<Output = ()> + Send + 'static, oneshot::Receiver<()>) {
    let registry = Arc::clone(registry);
    let (marks, marked) = oneshot::channel();
    let finalize = async move {
        let guard = registry.mark_owned(7, "monitor");
        let _ = marks.send(());
        pending::<()>().await;
        guard.clear();
    };
    (finalize, marked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_lives_across_awaits_and_on_any_worker() {
    const TASKS: u64 = 64;
    let registry: Arc<Jobs> = Arc::default();
    let barrier = Arc::new(Barrier::new(TASKS as usize + 1));
    let tasks: Vec<_> = (0..TASKS)
        .map(|job| {
            let (registry, barrier) = (Arc::clone(&registry), Arc::clone(&barrier));
            tokio::spawn(async move {
                let guard = registry.mark_owned(job, "monitor");
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                    assert!(guard.is_current() && registry.is_active(&job));
                }
                barrier.wait().await; // all are marked
                barrier.wait().await; // and counted
                guard.clear()
            })
        })
        .collect();
    barrier.wait().await;
    assert_eq!(registry.len(), TASKS as usize);
    barrier.wait().await;
    for task in tasks {
        assert!(task.await.unwrap(), "its mark stood to the end");
    }
    assert!(registry.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_ends_with_an_aborted_task() {
    let registry = Arc::default();
    let (finalize, marked) = finalization(&registry);
    let task = tokio::spawn(finalize);
    marked.await.unwrap();
    assert!(registry.is_active(&7));
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert!(!registry.is_active(&7));
    assert_eq!(registry.stats().stale_clears, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_ends_with_a_timeout() {
    let registry = Arc::default();
    let (finalize, marked) = finalization(&registry);
    let ended = tokio::time::timeout(Duration::from_millis(1), finalize).await;
    assert!(ended.is_err() && marked.await.is_ok(), "it had begun");
    assert!(!registry.is_active(&7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_ends_with_the_branch_that_loses_a_select() {
    let registry: Arc<Jobs> = Arc::default();
    let (finalize, marked) = finalization(&registry);
    tokio::select! {
        () = finalize => unreachable!("it finalizes for ever"),
        won = marked => won.unwrap(),
    }
    assert!(registry.stats().marks == 1 && !registry.is_active(&7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_ends_with_the_panic_of_its_task() {
    let registry: Arc<Jobs> = Arc::default();
    let guard = registry.mark_owned(7, "monitor");
    let task = tokio::spawn(async move {
        tokio::task::yield_now().await;
        assert!(guard.is_current());
        panic::resume_unwind(Box::new("red"));
    });
    assert!(task.await.unwrap_err().is_panic());
    assert!(!registry.is_active(&7));
}

#[tokio::test]
async fn a_mark_that_was_moved_into_a_future_ends_with_it_before_its_first_poll() {
    let registry: Arc<Jobs> = Arc::default();
    let finalize = || {
        let guard = registry.mark_owned(7, "monitor");
        async move {
            assert!(guard.is_current());
            unreachable!("polled");
        }
    };
    let future = finalize();
    assert!(registry.is_active(&7), "the mark was made before the future");
    drop(future);
    assert!(!registry.is_active(&7));

    // On this runtime of one thread a task is first polled when this one awaits.
    let task = tokio::spawn(finalize());
    task.abort();
    assert!(task.await.is_err_and(|error| error.is_cancelled()));
    assert!(!registry.is_active(&7));
}

#[test]
fn marks_end_with_their_runtime() {
    let registry = Arc::default();
    let runtime = Runtime::new().unwrap();
    let (finalize, marked) = finalization(&registry);
    runtime.spawn(finalize);
    runtime.block_on(marked).unwrap();
    assert!(registry.is_active(&7));
    drop(runtime);
    assert!(!registry.is_active(&7));
    assert_eq!(Arc::strong_count(&registry), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guards_of_a_static_registry_live_in_tasks_as_well() {
    static FINALIZING: Registry = Registry::new();
    let (marks, marked) = oneshot::channel();
    let task = tokio::spawn(async {
        let _guard = FINALIZING.mark(7, Finalizer::new(Some(1), "merge"));
        marks.send(()).unwrap();
        pending::<()>().await;
    });
    marked.await.unwrap();
    assert!(FINALIZING.is_active(&7));
    task.abort();
    assert!(task.await.is_err() && FINALIZING.is_empty());
}

// The loop

/// A job store that redrives by tasks of the runtime.
struct Store {
    running: Arc<Mutex<BTreeSet<u64>>>,
    redriven: Arc<AtomicUsize>,
    runtime: tokio::runtime::Handle,
}

impl Scheduler<'static> for Store {
    type Row = u64;
    type Error = Infallible;

    fn running(&mut self) -> Result<Vec<Result<u64, Infallible>>, Infallible> {
        Ok(self.running.lock().unwrap().iter().copied().map(Ok).collect())
    }

    fn describe<'a>(&self, &id: &'a u64) -> RunningJob<'a> {
        finished(&id)
    }

    fn redrive(&mut self, job: u64, claim: Option<MarkGuard<'static>>) -> Result<(), Infallible> {
        let (running, redriven) = (Arc::clone(&self.running), Arc::clone(&self.redriven));
        self.runtime.spawn(async move {
            tokio::task::yield_now().await;
            assert!(claim.is_some_and(|claim| {
                running.lock().unwrap().remove(&job); // committed, before the claim is dropped
                claim.is_current()
            }));
            redriven.fetch_add(1, Ordering::SeqCst);
        });
        Ok(())
    }

    fn reap(&mut self, _: u64, _: Cause, _: Option<MarkGuard<'static>>) -> Result<(), Infallible> {
        unreachable!("none is lost or overdue")
    }
}

/// The row is of a listing, so that of a job that was committed since another redrive may come: there are as many
/// tasks as redrives, and no job is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loop_runs_beside_the_runtime_and_hands_its_claims_to_tasks() {
    const JOBS: u64 = 20;
    static FINALIZING: Registry = Registry::new();
    let live = |job: &u64| job % 2 == 1;
    let monitors: Vec<_> = (0..JOBS)
        .filter(live)
        .map(|job| {
            let guard = FINALIZING.mark(job, Finalizer::new(Some(job), "merge"));
            tokio::spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            })
        })
        .collect();

    let running = Arc::new(Mutex::new((0..JOBS).collect::<BTreeSet<_>>()));
    let redriven = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Handle::current();
    let mut store = Store { running: Arc::clone(&running), redriven: Arc::clone(&redriven), runtime };
    let reaper: Arc<Reaper<'static>> = Arc::new(Reaper::new(&FINALIZING, policy()));
    let (stop, stopped) = mpsc::channel();
    let sweeping = tokio::task::spawn_blocking({
        let reaper = Arc::clone(&reaper);
        move || reaper.run(Duration::from_millis(1), stopped, &mut store)
    });

    let wait = |awaited: &'static str, done: Box<dyn Fn() -> bool + Send>| {
        tokio::task::spawn_blocking(move || wait_until(awaited, done))
    };
    let left = Arc::clone(&running);
    let only_live = move || left.lock().unwrap().iter().all(live);
    wait("all dead jobs are redriven", Box::new(only_live)).await.unwrap();
    let sweeps = reaper.stats().sweeps;
    let swept = Arc::clone(&reaper);
    wait("a few more sweeps", Box::new(move || swept.stats().sweeps > sweeps + 3)).await.unwrap();
    assert_eq!(running.lock().unwrap().len() as u64, JOBS / 2, "live ones are left alone");

    for monitor in &monitors {
        monitor.abort();
    }
    let left = Arc::clone(&running);
    wait("the others, when they have died", Box::new(move || left.lock().unwrap().is_empty())).await.unwrap();
    drop(stop);
    sweeping.await.unwrap();
    let redrives = reaper.stats().redrives;
    assert!(redrives >= JOBS);
    wait("the tasks", Box::new(move || redriven.load(Ordering::SeqCst) as u64 == redrives)).await.unwrap();
    assert!(FINALIZING.is_empty());
}

// into_owned

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_can_move_into_a_task_and_be_cancelled_there() {
    let registry: Arc<Registry> = Arc::default();
    let reaper = Reaper::new(&registry, policy());
    let Verdict::Redrive(Some(claim)) = reaper.sweep().judge(&finished(&7)) else { panic!("nobody owns it") };
    let generation = claim.generation();
    let claim: OwnedMarkGuard = claim.into_owned(&registry).unwrap();
    let (starts, started) = oneshot::channel();
    let task = tokio::spawn(async move {
        starts.send(claim.generation()).unwrap();
        pending::<()>().await;
        drop(claim);
    });
    assert_eq!(started.await.unwrap(), generation);
    assert!(matches!(reaper.sweep().judge(&finished(&7)), Verdict::Defer(_)), "the task owns it");
    task.abort();
    assert!(task.await.is_err());
    assert!(!registry.is_active(&7));
    assert!(matches!(reaper.sweep().judge(&finished(&7)), Verdict::Redrive(Some(_))), "so it is found again");
}

#[test]
fn an_owned_guard_keeps_its_registry_alive() {
    let registry: Arc<Jobs> = Arc::default();
    let before = registry.stats();
    let guard = registry.mark(7, "reaper").into_owned(&registry).unwrap();
    assert_eq!((registry.stats().marks, registry.stats().stale_clears), (before.marks + 1, 0));
    assert_eq!(Arc::strong_count(&registry), 2);
    drop(registry);
    assert!(guard.is_current() && guard.replace("task") && guard.clear());
}

#[test]
fn into_owned_changes_neither_mark_nor_owner() {
    let registry: Arc<Jobs> = Arc::default();
    let guard = registry.mark(7, "reaper");
    let (generation, marked_at) = (guard.generation(), registry.owner(&7).unwrap().marked_at);
    let guard = guard.into_owned(&registry).unwrap();
    let owner = registry.owner(&7).unwrap();
    assert_eq!((guard.generation(), guard.job()), (generation, &7));
    assert_eq!((owner.generation, owner.marked_at, owner.value), (generation, marked_at, "reaper"));

    // A displaced guard does not come back by it, and its late release frees nobody's mark.
    let displaced = registry.mark(8, "first");
    let newer = registry.mark(8, "second");
    let displaced = displaced.into_owned(&registry).unwrap();
    assert!(!displaced.is_current());
    assert_eq!(registry.stats().stale_clears, 0, "it was not released");
    drop(displaced);
    assert!(newer.is_current());
    assert_eq!(registry.stats().stale_clears, 1, "but once, by the other guard");
}

#[test]
fn of_another_registry_the_guard_comes_back_unchanged() {
    let registry: Arc<Jobs> = Arc::default();
    let other: Arc<Jobs> = Arc::default();
    let guard = registry.mark(7, "reaper");
    let generation = guard.generation();
    let guard = guard.into_owned(&other).unwrap_err();
    assert!(guard.is_current() && registry.is_active(&7));
    assert_eq!((guard.generation(), guard.job()), (generation, &7));
    assert_eq!((other.stats().marks, Arc::strong_count(&other), Arc::strong_count(&registry)), (0, 1, 1));
    assert!(guard.clear());
    assert_eq!(registry.stats().stale_clears, 0);
}

/// A job id that looks, when it is cloned, whether it is owned.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Watchful(u64);

/// Where the id is to be owned, and whether its `Clone` is broken.
struct Watch(Arc<Registry<Watchful, ()>>, bool);

thread_local! {
    /// For the next clone.
    static WATCHED: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

impl Clone for Watchful {
    fn clone(&self) -> Self {
        if let Some(Watch(registry, panics)) = WATCHED.take() {
            assert!(registry.is_active(self), "unowned in the middle of the call");
            if panics {
                panic::resume_unwind(Box::new("a broken Clone"));
            }
        }
        Self(self.0)
    }
}

#[test]
fn the_mark_stands_throughout_into_owned() {
    let registry: Arc<Registry<Watchful, ()>> = Arc::default();
    let guard = registry.mark(Watchful(7), ());
    WATCHED.set(Some(Watch(Arc::clone(&registry), false)));
    let guard = guard.into_owned(&registry).unwrap();
    assert!(WATCHED.take().is_none(), "the id was cloned");
    assert!(guard.is_current());
    drop(guard);
    assert!(registry.is_empty());

    // Where the id's own code panics the guard is lost, and with it the mark.
    let guard = registry.mark(Watchful(7), ());
    WATCHED.set(Some(Watch(Arc::clone(&registry), true)));
    let converted = panic::catch_unwind(panic::AssertUnwindSafe(|| guard.into_owned(&registry).is_ok()));
    assert!(converted.is_err() && registry.is_empty());
    assert_eq!(registry.stats().stale_clears, 0);
}

// Seen to fail with an `into_owned` that released the mark and marked anew.
#[test]
fn nobody_sees_an_unowned_job_while_its_guard_becomes_an_owned_one() {
    let _alone = alone();
    let registry: Arc<Jobs> = Arc::default();
    let ended = AtomicBool::new(false);
    let (looks, unowned) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut looks, mut unowned) = (0_u64, 0_u64);
            while !ended.load(Ordering::Relaxed) {
                looks += 1;
                unowned += u64::from(looks > 1 && !registry.is_active(&7));
                if looks == 1 {
                    wait_until("the first mark", || registry.is_active(&7));
                }
            }
            (looks, unowned)
        });
        {
            let _stop = Stop(&ended);
            let mut guard = registry.mark(7, "reaper").into_owned(&registry).unwrap();
            for _ in 0..50_000 {
                // Takes over, so that the job is owned in between as well.
                let next = registry.mark(7, "reaper").into_owned(&registry).unwrap();
                drop(std::mem::replace(&mut guard, next));
            }
            ended.store(true, Ordering::Relaxed);
            // Not released before the watcher has looked for the last time.
            wait_until("the watcher", || watcher.is_finished());
            drop(guard);
        }
        watcher.join().unwrap()
    });
    assert!(looks > 1_000, "{looks} looks see nothing");
    assert_eq!(unowned, 0, "of {looks} looks");
}
