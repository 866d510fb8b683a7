//! Marks in tasks: they live across `.await`, and end with their future however it ends. The reaper's loop beside a
//! runtime, and its single turns in tasks.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::panic;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use livemark::{
    AsyncJobStore, Cause, Claim, Explanation, Finalizer, JobStore, Mode, Outcome, OwnedMarkGuard, Reaper, Registry,
    RunError, RunningJob, StopToken, SweepReport, Verdict,
};
use tokio::runtime::Runtime;
use tokio::sync::{Barrier, Notify, oneshot};

use crate::support::{
    Census, Tracked, blow_up, finished, lost, overdue, policy, reclaim_until, running, said, wait_until,
};

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

impl JobStore<'static> for Store {
    type Row = u64;
    type Error = Infallible;
    type Rows = Vec<Result<u64, Infallible>>;

    fn list(&mut self) -> Result<Self::Rows, Infallible> {
        Ok(self.running.lock().unwrap().iter().copied().map(Ok).collect())
    }

    fn job<'a>(&self, id: &'a u64) -> RunningJob<'a> {
        finished(id)
    }

    fn redrive(&mut self, job: u64, claim: Claim<'static>) -> Result<Outcome, Infallible> {
        let (running, redriven) = (Arc::clone(&self.running), Arc::clone(&self.redriven));
        self.runtime.spawn(async move {
            tokio::task::yield_now().await;
            running.lock().unwrap().remove(&job); // committed, before the claim is dropped
            assert!(claim.guard().is_some() && claim.is_current());
            redriven.fetch_add(1, Ordering::SeqCst);
        });
        Ok(Outcome::Done)
    }

    fn reap(&mut self, _: u64, _: Cause, _: Claim<'static>) -> Result<Outcome, Infallible> {
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
    let stop = StopToken::new();
    let sweeping = tokio::task::spawn_blocking({
        let (reaper, stop) = (Arc::clone(&reaper), stop.clone());
        move || reaper.run(Duration::from_millis(1), &stop, &mut store)
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
    stop.stop();
    sweeping.await.unwrap();
    let redrives = reaper.stats().redrives;
    assert!(redrives >= JOBS);
    wait("the tasks", Box::new(move || redriven.load(Ordering::SeqCst) as u64 == redrives)).await.unwrap();
    assert!(FINALIZING.is_empty());
}

// Claims in tasks

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_can_move_into_a_task_and_be_cancelled_there() {
    let registry: Arc<Registry> = Arc::default();
    let reaper: Reaper<'static> = Reaper::new(&registry, policy());
    let Verdict::Redrive(claim) = reaper.sweep().judge(&finished(&7)) else { panic!("nobody owns it") };
    let guard: OwnedMarkGuard = claim.into_guard().unwrap();
    let generation = guard.generation();
    let (starts, started) = oneshot::channel();
    let task = tokio::spawn(async move {
        starts.send(guard.generation()).unwrap();
        pending::<()>().await;
        drop(guard);
    });
    assert_eq!(started.await.unwrap(), generation);
    assert!(matches!(reaper.sweep().judge(&finished(&7)), Verdict::Defer(_)), "the task owns it");
    task.abort();
    assert!(task.await.is_err());
    assert!(!registry.is_active(&7));
    let verdict = reaper.sweep().judge(&finished(&7));
    assert!(matches!(verdict, Verdict::Redrive(claim) if claim.is_current()), "so it is found again");
}

#[test]
fn an_owned_guard_keeps_its_registry_alive() {
    let registry: Arc<Jobs> = Arc::default();
    let guard = registry.mark_owned(7, "task");
    assert_eq!(Arc::strong_count(&registry), 2);
    drop(registry);
    assert!(guard.is_current() && guard.replace("another") && guard.clear());

    // A claim does so as well, also after its reaper.
    let registry: Arc<Registry> = Arc::default();
    let reaper = Reaper::new(&registry, policy());
    let Verdict::Redrive(claim) = reaper.sweep().judge(&finished(&7)) else { panic!("nobody owns it") };
    drop(reaper);
    assert_eq!(Arc::strong_count(&registry), 2);
    drop(registry);
    assert!(claim.is_current() && claim.replace(Finalizer::new(Some(2), "merge")));
}

// Single turns in tasks

type Looks = fn(&u64) -> RunningJob<'_>;

/// What becomes of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Fails,
    Refuses,
    /// Where the future is made.
    PanicsBefore,
    /// In its second poll.
    PanicsInPoll,
    /// Where the future is dropped, which was ready.
    PanicsInDrop,
    /// For ever, after a notice.
    Hangs,
}

type Row = (u64, Looks, Trouble);
type Listed = Result<Row, &'static str>;

fn row(looks: Looks, id: u64, trouble: Trouble) -> Listed {
    Ok((id, looks, trouble))
}

/// How the listing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listing {
    Works,
    Fails,
    PanicsBefore,
    PanicsInPoll,
    /// After so many rows.
    PanicsMidway(usize),
    Hangs,
}

/// A job store that is awaited, and what it was asked and told.
struct Awaited {
    listing: Listing,
    rows: Vec<Listed>,
    hangs: Arc<Notify>,
    acted: Vec<u64>,
    told: Vec<String>,
    errors: Vec<String>,
}

impl Awaited {
    fn new(rows: Vec<Listed>) -> Self {
        Self { listing: Listing::Works, rows, hangs: Arc::default(), acted: vec![], told: vec![], errors: vec![] }
    }
}

/// Is ready at once, and panics when it is dropped. The claim in it is given back all the same.
struct Bomb<V: Send + Sync + 'static>(#[allow(dead_code, reason = "held")] Claim<'static, u64, V>);

impl<V: Send + Sync + 'static> Future for Bomb<V> {
    type Output = Result<Outcome, &'static str>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(Outcome::Done))
    }
}

impl<V: Send + Sync + 'static> Drop for Bomb<V> {
    fn drop(&mut self) {
        blow_up();
    }
}

type Acting<'a> = Pin<Box<dyn Future<Output = Result<Outcome, &'static str>> + Send + 'a>>;

impl Awaited {
    fn act<V: Clone + Send + Sync + 'static>(&mut self, row: Row, claim: Claim<'static, u64, V>) -> Acting<'_> {
        let (id, _, trouble) = row;
        self.acted.push(id);
        match trouble {
            Trouble::PanicsBefore => blow_up(),
            Trouble::PanicsInDrop => Box::pin(Bomb(claim)),
            Trouble::Fails => Box::pin(ready(Err("the job store is busy"))),
            _ => {
                let hangs = Arc::clone(&self.hangs);
                Box::pin(async move {
                    tokio::task::yield_now().await;
                    assert!(claim.guard().is_some() && claim.is_current());
                    match trouble {
                        Trouble::PanicsInPoll => blow_up(),
                        Trouble::Refuses => return Ok(Outcome::Refused),
                        Trouble::Hangs => {
                            hangs.notify_one();
                            pending::<()>().await;
                        }
                        _ => {}
                    }
                    drop(claim);
                    Ok(Outcome::Done)
                })
            }
        }
    }
}

impl<V: Clone + Send + Sync + 'static> AsyncJobStore<u64, V> for Awaited {
    type Row = Row;
    type Error = &'static str;
    type Rows = Box<dyn Iterator<Item = Listed> + Send>;

    fn list(&mut self) -> impl Future<Output = Result<Self::Rows, &'static str>> + Send {
        if self.listing == Listing::PanicsBefore {
            blow_up();
        }
        async {
            tokio::task::yield_now().await;
            let rows = self.rows.clone().into_iter();
            match self.listing {
                Listing::Fails => Err("connection refused"),
                Listing::PanicsInPoll => blow_up(),
                Listing::PanicsMidway(after) => {
                    Ok(Box::new(rows.enumerate().map(move |(place, row)| if place < after { row } else { blow_up() }))
                        as Self::Rows)
                }
                Listing::Hangs => {
                    self.hangs.notify_one();
                    pending().await
                }
                _ => Ok(Box::new(rows) as Self::Rows),
            }
        }
    }

    fn job<'a>(&self, (id, looks, _): &'a Row) -> RunningJob<'a> {
        looks(id)
    }

    fn redrive(
        &mut self,
        row: Row,
        claim: Claim<'static, u64, V>,
    ) -> impl Future<Output = Result<Outcome, &'static str>> + Send {
        self.act(row, claim)
    }

    fn reap(
        &mut self,
        row: Row,
        _: Cause,
        claim: Claim<'static, u64, V>,
    ) -> impl Future<Output = Result<Outcome, &'static str>> + Send {
        self.act(row, claim)
    }

    fn on_verdict(&mut self, (id, ..): &Row, verdict: &Verdict<'static, u64, V>, explanation: &Explanation<'_>) {
        assert!(explanation.to_string().starts_with(&format!("job {id}: ")));
        self.told.push(format!("{id} {:?}", said(verdict)));
    }

    fn on_error(&mut self, error: &RunError<u64, &'static str>) {
        self.errors.push(error.to_string());
    }
}

fn counts(report: SweepReport) -> [u64; 8] {
    let SweepReport { listed, deferred, redriven, reaped, proposed, refused, failed, panicked, .. } = report;
    [listed, deferred, redriven, reaped, proposed, refused, failed, panicked]
}

fn a_bit_of_everything() -> Vec<Listed> {
    let rows = [
        row(running, 1, Trouble::None),
        row(finished, 2, Trouble::None),
        row(finished, 3, Trouble::None),
        row(lost, 4, Trouble::None),
        row(overdue, 5, Trouble::None),
        Err("stage is NULL"),
        row(finished, 6, Trouble::Refuses),
        row(overdue, 7, Trouble::Fails),
        row(finished, 8, Trouble::PanicsBefore),
        row(lost, 9, Trouble::PanicsInPoll),
        row(finished, 10, Trouble::PanicsInDrop),
        row(finished, 11, Trouble::None),
    ];
    rows.into()
}

/// In a spawned task, whose future is `Send + 'static`: the reaper is in an `Arc`, or moves along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_in_a_task_costs_each_row_its_own_turn() {
    let registry: Arc<Registry> = Arc::default();
    let reaper: Arc<Reaper<'static>> = Arc::new(Reaper::new(&registry, policy()));
    let _monitor = registry.mark(2, Finalizer::new(Some(1), "merge"));
    let mut store = Awaited::new(a_bit_of_everything());
    let sweeping = tokio::spawn({
        let reaper = Arc::clone(&reaper);
        async move { (reaper.run_once_async(&mut store).await, store) }
    });
    let (report, store) = sweeping.await.unwrap();
    assert_eq!((counts(report), report.stopped), ([12, 1, 2, 2, 0, 1, 2, 3], false));
    assert_eq!(store.acted, [3, 4, 5, 6, 7, 8, 9, 10, 11]);
    let told: Vec<_> = store.told.iter().map(String::as_str).collect();
    assert_eq!(told[..3], ["1 Healthy", "2 Defer(Owned)", "3 Redrive(true)"], "every verdict is told");
    assert_eq!(told.len(), 11);
    let errors = [
        "a bad row, left out: stage is NULL",
        "job 7: a verdict could not be carried out: the job store is busy",
        "job 8: panicked",
        "job 9: panicked",
        "job 10: panicked",
    ];
    assert_eq!(store.errors, errors);
    assert_eq!(registry.len(), 1, "all claims are given back");
    let stats = reaper.stats();
    assert_eq!((stats.sweeps, stats.redrives, stats.refused, stats.bad_rows, stats.failed_actions), (1, 5, 1, 1, 1));
    assert_eq!((stats.reaps_worker_lost, stats.reaps_backstop, stats.panics), (2, 2, 3));
}

#[tokio::test]
async fn a_dry_run_in_a_task_carries_nothing_out() {
    let registry: Arc<Registry> = Arc::default();
    let reaper = Reaper::new(&registry, policy().with_mode(Mode::DryRun));
    let _monitor = registry.mark(2, Finalizer::new(Some(1), "merge"));
    let before = registry.stats();
    let mut store = Awaited::new(a_bit_of_everything());
    let report = reaper.run_once_async(&mut store).await;
    assert_eq!(counts(report), [12, 1, 0, 0, 9, 0, 1, 0]);
    assert_eq!((store.acted.len(), store.told.len()), (0, 11));
    assert_eq!((registry.stats(), registry.len()), (before, 1));
    assert_eq!(reaper.stats().redrives, 0);
}

#[tokio::test]
async fn listings_that_fail_or_panic_cost_their_own_sweep() {
    let registry: Arc<Registry> = Arc::default();
    let reaper = Reaper::new(&registry, policy());
    let rows = vec![row(finished, 1, Trouble::None), row(finished, 2, Trouble::None)];
    let mut store = Awaited::new(rows);
    let listings = [
        (Listing::Fails, [0, 0, 0, 0, 0, 0, 1, 0], false),
        (Listing::PanicsBefore, [0, 0, 0, 0, 0, 0, 0, 1], false),
        (Listing::PanicsInPoll, [0, 0, 0, 0, 0, 0, 0, 1], false),
        (Listing::PanicsMidway(0), [0, 0, 0, 0, 0, 0, 0, 1], true),
        (Listing::PanicsMidway(1), [1, 0, 1, 0, 0, 0, 0, 1], true),
        (Listing::Works, [2, 0, 2, 0, 0, 0, 0, 0], false),
    ];
    for (listing, expected, stopped) in listings {
        store.listing = listing;
        let report = reaper.run_once_async(&mut store).await;
        assert_eq!((counts(report), report.stopped), (expected, stopped), "{listing:?}");
    }
    let stats = reaper.stats();
    assert_eq!((stats.sweeps, stats.failed_listings, stats.panics), (3, 1, 4));
    assert!(registry.is_empty());
}

/// How a task ends before its turn does.
async fn cancelled_in_the_middle_of(trouble: Trouble, looks: Looks) {
    let registry: Arc<Registry> = Arc::default();
    let reaper: Arc<Reaper<'static>> = Arc::new(Reaper::new(&registry, policy()));
    let rows = |trouble| vec![row(looks, 6, Trouble::None), row(looks, 7, trouble), row(looks, 8, Trouble::None)];
    let mut store = Awaited::new(rows(trouble));
    let hangs = Arc::clone(&store.hangs);
    let sweeping = tokio::spawn({
        let reaper = Arc::clone(&reaper);
        async move { reaper.run_once_async(&mut store).await }
    });
    hangs.notified().await;
    assert_eq!(registry.snapshot().iter().map(|(job, _)| *job).collect::<Vec<_>>(), [7], "claimed while it hangs");
    sweeping.abort();
    assert!(sweeping.await.unwrap_err().is_cancelled());
    assert!(registry.is_empty(), "the claim is given back");

    // A later sweep finds it again, and the one that was never reached.
    let mut store = Awaited::new(rows(Trouble::None));
    let report = reaper.run_once_async(&mut store).await;
    assert_eq!((report.redriven + report.reaped, report.deferred, store.acted), (3, 0, vec![6, 7, 8]));
    assert_eq!(reaper.stats().sweeps, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_is_cancelled_in_the_middle_of_an_action_gives_its_claim_back() {
    cancelled_in_the_middle_of(Trouble::Hangs, finished).await;
    cancelled_in_the_middle_of(Trouble::Hangs, lost).await;
    cancelled_in_the_middle_of(Trouble::Hangs, overdue).await;
}

#[tokio::test]
async fn a_turn_that_runs_out_of_time_gives_its_claim_back() {
    let registry: Arc<Registry> = Arc::default();
    let reaper = Reaper::new(&registry, policy());
    let mut store = Awaited::new(vec![row(finished, 7, Trouble::Hangs)]);
    let swept = tokio::time::timeout(Duration::from_millis(5), reaper.run_once_async(&mut store)).await;
    assert!(swept.is_err() && registry.is_empty());
    assert_eq!((store.acted, registry.stats().marks), (vec![7], 1));

    // While it lists, nothing is claimed, and no sweep has begun.
    let mut store = Awaited::new(vec![]);
    store.listing = Listing::Hangs;
    let swept = tokio::time::timeout(Duration::from_millis(1), reaper.run_once_async(&mut store)).await;
    assert!(swept.is_err() && reaper.stats().sweeps == 1);

    // And what is never polled does nothing.
    drop(reaper.run_once_async(&mut store));
    assert_eq!(reaper.stats().sweeps, 1);
}

/// On the one thread of this runtime: a pin of the turn that hangs would be a pin of the thread that reclaims.
#[tokio::test]
async fn while_an_action_hangs_the_turn_holds_back_no_memory() {
    let census = Census::default();
    let registry: Arc<Registry<u64, Tracked>> = Arc::default();
    let reaper = Reaper::with_claim(&registry, policy(), {
        let census = census.clone();
        move |job| census.tracked(*job.id)
    });
    let _monitor = registry.mark(1, census.tracked(1));
    // The owner of the first was looked up, the second is claimed: each would pin.
    let mut store = Awaited::new(vec![row(finished, 1, Trouble::None), row(finished, 2, Trouble::Hangs)]);
    let hangs = Arc::clone(&store.hangs);
    let sweeping = tokio::spawn(async move { reaper.run_once_async(&mut store).await });
    hangs.notified().await;
    assert!(registry.is_active(&2));
    let garbage = Census::default();
    drop(registry.mark(99, garbage.tracked(0)));
    reclaim_until("what was cleared while an action hangs", || garbage.live() == 0);
    sweeping.abort();
    assert!(sweeping.await.is_err());
    assert!(!registry.is_active(&2));
}

/// Two turns of one reaper, task by task: claims decide between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_side_by_side_redrive_a_job_once() {
    /// Keeps what it is given.
    struct Keeps(Vec<Claim<'static>>);
    impl AsyncJobStore for Keeps {
        type Row = u64;
        type Error = Infallible;
        type Rows = std::iter::Map<std::ops::Range<u64>, fn(u64) -> Result<u64, Infallible>>;

        async fn list(&mut self) -> Result<Self::Rows, Infallible> {
            Ok((0..JOBS).map(Ok))
        }

        fn job<'a>(&self, id: &'a u64) -> RunningJob<'a> {
            finished(id)
        }

        async fn redrive(&mut self, _: u64, claim: Claim<'static>) -> Result<Outcome, Infallible> {
            tokio::task::yield_now().await;
            self.0.push(claim);
            Ok(Outcome::Done)
        }

        async fn reap(&mut self, _: u64, _: Cause, _: Claim<'static>) -> Result<Outcome, Infallible> {
            unreachable!("none is lost or overdue")
        }
    }

    const JOBS: u64 = 2_000;
    let registry: Arc<Registry> = Arc::default();
    let reaper: Arc<Reaper<'static>> = Arc::new(Reaper::new(&registry, policy()));
    let turns = [(); 3].map(|()| {
        let reaper = Arc::clone(&reaper);
        tokio::spawn(async move {
            let mut store = Keeps(vec![]);
            (reaper.run_once_async(&mut store).await, store.0)
        })
    });
    let (mut claims, mut left) = (vec![], 0);
    for turn in turns {
        let (report, kept) = turn.await.unwrap();
        assert_eq!((report.listed, report.redriven), (JOBS, kept.len() as u64));
        left += report.deferred;
        claims.extend(kept);
    }
    let jobs: BTreeSet<_> = claims.iter().map(|claim| *claim.guard().unwrap().job()).collect();
    assert_eq!((jobs.len() as u64, claims.len() as u64, left), (JOBS, JOBS, 2 * JOBS));
    assert!(claims.iter().all(Claim::is_current));
}
