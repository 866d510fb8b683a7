//! A job system in threads, over a `static` registry: monitors, a job store, a reaper, and an end.
//!
//! Job 1 is finalized slowly, past its grace. The finalizer of job 2 dies, and the one of job 3 hangs.
//!
//! ```sh
//! cargo run --example service_threads
//! ```
//!
//! ```text
//! job 1: deferred: owned
//! job 1: merged by run 1
//! job 2: redriven
//! job 2: merged by run 2
//! job 3: deferred: owned
//! job 3: reaped: backstop
//! job 3: run 1 was displaced, and commits nothing
//! marks held at the end: 0
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::panic::resume_unwind; // as `panic!`, without its message
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use livemark::{
    Cause, Claim, Explanation, Finalizer, JobStore, Outcome, Policy, PolicyError, Reaper, Registry, RunningJob,
    StageRules, StopToken, Verdict,
};

/// Which jobs are being finalized, and by whom. One for the process.
static FINALIZING: Registry = Registry::new();

/// The job store: a table in memory.
static JOBS: Mutex<BTreeMap<u64, Job>> = Mutex::new(BTreeMap::new());

struct Job {
    stage: &'static str,
    run: u64,
    started_at: Instant,
    finished_at: Option<Instant>,
    redrives: u32,
    is_running: bool,
    /// What happened to it.
    history: Vec<String>,
}

fn jobs() -> MutexGuard<'static, BTreeMap<u64, Job>> {
    JOBS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(id: u64, what: String) {
    if let Some(job) = jobs().get_mut(&id) {
        job.history.push(what);
    }
}

/// Changes a job by compare-and-set: `UPDATE .. WHERE id = :id AND state = 'running' AND run = :run`.
fn update(id: u64, run: u64, what: String, change: impl FnOnce(&mut Job)) -> Outcome {
    match jobs().get_mut(&id) {
        Some(job) if job.is_running && job.run == run => {
            change(job);
            job.history.push(what);
            Outcome::Done
        }
        _ => Outcome::Refused,
    }
}

/// What a finalization does at its stage: minutes of gates, in earnest.
type Gates = fn(&Claim<'static>);

/// A monitor, when the process of its job has exited.
fn monitor(id: u64, stage: &'static str, gates: Gates) {
    let mark = FINALIZING.mark(id, Finalizer::new(Some(1), stage)); // before the job becomes reapable
    let now = Instant::now();
    let job = Job {
        stage,
        run: 1,
        started_at: now,
        finished_at: Some(now),
        redrives: 0,
        is_running: true,
        history: Vec::new(),
    };
    jobs().insert(id, job); // the stamp
    finalize(id, 1, stage, gates, mark.into());
}

/// Finalizes under the monitor's own mark, or again under the reaper's claim.
fn finalize(id: u64, run: u64, stage: &'static str, gates: Gates, claim: Claim<'static>) {
    claim.replace(Finalizer::new(Some(run), stage)); // whoever works is the owner
    gates(&claim);
    if claim.is_current() {
        let _refused = update(id, run, format!("merged by run {run}"), |job| job.is_running = false);
    } else {
        note(id, format!("run {run} was displaced, and commits nothing"));
    }
} // the mark is cleared after the commit, and by a panic

/// The reaper's view of the store, and its hands.
struct Store<'scope, 'env> {
    threads: &'scope Scope<'scope, 'env>,
}

struct Row {
    id: u64,
    run: u64,
    stage: &'static str,
    running_for: Duration,
    finished_for: Option<Duration>,
    redrives: u32,
}

impl JobStore<'static> for Store<'_, '_> {
    type Row = Row;
    type Error = Infallible;
    type Rows = Vec<Result<Row, Infallible>>;

    fn list(&mut self) -> Result<Self::Rows, Infallible> {
        let jobs = jobs();
        let running = jobs.iter().filter(|(_, job)| job.is_running);
        let row = |(&id, job): (&u64, &Job)| Row {
            id,
            run: job.run,
            stage: job.stage,
            running_for: job.started_at.elapsed(),
            finished_for: job.finished_at.map(|at| at.elapsed()),
            redrives: job.redrives,
        };
        Ok(running.map(row).map(Ok).collect())
    }

    fn job<'a>(&self, row: &'a Row) -> RunningJob<'a> {
        let mut job = RunningJob::new(&row.id, row.stage, row.running_for).redrives(row.redrives);
        job.finished_for = row.finished_for;
        job
    }

    fn redrive(&mut self, row: Row, claim: Claim<'static>) -> Result<Outcome, Infallible> {
        let Row { id, stage, run, .. } = row;
        // The stamp begins anew. The start stays: one deadline bounds all runs together.
        let taken = update(id, run, "redriven".to_owned(), |job| {
            job.run += 1;
            job.redrives += 1;
            job.finished_at = Some(Instant::now());
        });
        if taken == Outcome::Done {
            self.threads.spawn(move || finalize(id, run + 1, stage, |_| {}, claim));
        }
        Ok(taken)
    }

    fn reap(&mut self, row: Row, cause: Cause, _claim: Claim<'static>) -> Result<Outcome, Infallible> {
        Ok(update(row.id, row.run, format!("reaped: {cause}"), |job| job.is_running = false))
    }

    fn on_verdict(&mut self, row: &Row, verdict: &Verdict<'static>, explanation: &Explanation<'_>) {
        if let (Verdict::Defer(deferral), true) = (verdict, explanation.is_news()) {
            note(row.id, format!("deferred: {}", deferral.reason));
        }
    }
}

fn main() -> Result<(), PolicyError> {
    let policy = Policy::builder()
        .finalize_grace(Duration::from_millis(100)) // minutes, in earnest
        .hard_deadline(Duration::from_secs(3600))
        .marking_stage("merge")
        .stage(
            "deploy",
            StageRules::marking().lost_grace(Duration::from_millis(100)).hard_deadline(Duration::from_secs(1)),
        )
        .build()?;
    let reaper = Reaper::new(&FINALIZING, policy);
    let stop = StopToken::new();
    thread::scope(|threads| {
        let reaping = threads.spawn(|| reaper.run(Duration::from_millis(20), &stop, &mut Store { threads }));
        threads.spawn(|| monitor(1, "merge", |_| thread::sleep(Duration::from_millis(900))));
        let dies = threads.spawn(|| monitor(2, "merge", |_| resume_unwind(Box::new("a gate blew up"))));
        threads.spawn(|| {
            monitor(3, "deploy", |claim| {
                while claim.is_current() {
                    thread::sleep(Duration::from_millis(10)); // for what never comes
                }
            });
        });
        assert!(dies.join().is_err(), "its mark is cleared, and nobody has committed job 2");
        while jobs().len() < 3 || jobs().values().any(|job| job.is_running) {
            thread::sleep(Duration::from_millis(10));
        }
        stop.stop();
        assert!(reaping.join().is_ok(), "the loop catches what panics in it");
    }); // the finalizers have ended as well
    for (id, job) in &*jobs() {
        job.history.iter().for_each(|what| println!("job {id}: {what}"));
    }
    println!("marks held at the end: {}", FINALIZING.len());
    Ok(())
}

#[test]
fn it_runs() {
    main().expect("the policy can work");
    assert!(FINALIZING.is_empty());
}
