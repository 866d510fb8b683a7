//! A job system whose ids are strings and whose marks say what it wants: a host and a pulse, by which a finalizer that
//! hangs is found out long before the deadline.
//!
//! `api` is deployed slowly, past its grace. The finalizer of `docs` dies. The one of `web` hangs whenever it is tried.
//!
//! ```sh
//! cargo run --example service_string_ids
//! ```
//!
//! ```text
//! deploy api: finished: defer, owned by run 1 on host-a
//! deploy api: deployed by run 1
//! deploy docs: redriven
//! deploy docs: deployed by run 2
//! deploy web: finished: defer, owned by run 1 on host-a
//! deploy web: redriven, displacing run 1
//! deploy web: run 1 was displaced, and commits nothing
//! deploy web: finished: defer, owned by run 2 on host-b
//! deploy web: reaped: redrives exhausted, displacing run 2
//! deploy web: run 2 was displaced, and commits nothing
//! marks held at the end: 0
//! ```

use std::collections::BTreeMap;
use std::panic::resume_unwind; // as `panic!`, without its message
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use livemark::{
    Cause, Claim, Explanation, JobStore, Outcome, Policy, PolicyError, Pulse, Reaper, Registry, RunningJob, StopToken,
    Verdict,
};

/// What a mark says of its owner. Cheap to clone: look-ups hand out copies.
#[derive(Clone)]
struct Deployment {
    run: u32,
    host: &'static str,
    /// A reaper's own claim has none.
    progress: Option<Pulse>,
}

type Ownership = Claim<'static, String, Deployment>;

static DEPLOYING: Registry<String, Deployment> = Registry::new().showing(|app, f| write!(f, "{app}"));

/// What happens while an application is deployed: minutes, in earnest.
type Steps = fn(&Pulse, &Ownership);

/// A row of the job store.
#[derive(Clone)]
struct Row {
    app: String,
    run: u32,
    redrives: u32,
    started_at: Instant,
    finished_at: Instant,
    again: Steps,
}

/// The job store: the rows of all that is running, and what happened.
#[derive(Default)]
struct Jobs {
    running: Mutex<BTreeMap<String, Row>>,
    history: Mutex<BTreeMap<String, Vec<String>>>,
}

impl Jobs {
    fn note(&self, app: &str, what: String) {
        self.history.lock().expect("no panic holds it").entry(app.to_owned()).or_default().push(what);
    }

    /// Puts another row in the place of `row`, or none, if it is still that: a compare-and-set.
    fn update(&self, row: &Row, next: Option<Row>, what: String) -> Outcome {
        let mut running = self.running.lock().expect("no panic holds it");
        if running.get(&row.app).is_none_or(|now| now.run != row.run) {
            return Outcome::Refused;
        }
        running.remove(&row.app);
        running.extend(next.map(|next| (next.app.clone(), next)));
        drop(running);
        self.note(&row.app, what);
        Outcome::Done
    }

    /// A monitor, when the build of its application is done.
    fn monitor(&self, app: &str, steps: Steps, again: Steps) {
        let context = Deployment { run: 1, host: "host-a", progress: None };
        let mark = DEPLOYING.mark(app.to_owned(), context); // before the job becomes reapable
        let now = Instant::now();
        let row = Row { app: app.to_owned(), run: 1, redrives: 0, started_at: now, finished_at: now, again };
        self.running.lock().expect("no panic holds it").insert(app.to_owned(), row.clone()); // the stamp
        self.deploy(&row, "host-a", steps, mark.into());
    }

    /// Deploys under the monitor's own mark, or again under the reaper's claim.
    fn deploy(&self, row: &Row, host: &'static str, steps: Steps, claim: Ownership) {
        let pulse = Pulse::new();
        claim.replace(Deployment { run: row.run, host, progress: Some(pulse.clone()) }); // first of all
        steps(&pulse, &claim);
        if claim.is_current() {
            let _refused = self.update(row, None, format!("deployed by run {}", row.run));
        } else {
            self.note(&row.app, format!("run {} was displaced, and commits nothing", row.run));
        }
    } // the mark is cleared after the commit, and by a panic
}

/// The reaper's view of the store, and its hands: threads of a scope that ends after it.
struct Store<'scope, 'env> {
    jobs: &'env Jobs,
    threads: &'scope thread::Scope<'scope, 'env>,
}

fn displacing(claim: &Ownership) -> String {
    claim.displaced().map(|owner| format!(", displacing run {}", owner.value.run)).unwrap_or_default()
}

impl JobStore<'static, String, Deployment> for Store<'_, '_> {
    type Row = Row;
    type Error = String;
    type Rows = Vec<Result<Row, String>>;

    fn list(&mut self) -> Result<Self::Rows, String> {
        let running = self.jobs.running.lock().map_err(|poisoned| poisoned.to_string())?;
        Ok(running.values().cloned().map(Ok).collect())
    }

    fn job<'a>(&self, row: &'a Row) -> RunningJob<'a, String> {
        RunningJob::new(&row.app, "deploy", row.started_at.elapsed())
            .finished_for(row.finished_at.elapsed())
            .redrives(row.redrives)
    }

    fn redrive(&mut self, row: Row, claim: Ownership) -> Result<Outcome, String> {
        // The stamp begins anew. The start stays: one deadline bounds all runs together.
        let next = Row { run: row.run + 1, redrives: row.redrives + 1, finished_at: Instant::now(), ..row.clone() };
        let taken = self.jobs.update(&row, Some(next.clone()), format!("redriven{}", displacing(&claim)));
        if taken == Outcome::Done {
            let jobs = self.jobs;
            self.threads.spawn(move || jobs.deploy(&next, "host-b", next.again, claim));
        }
        Ok(taken)
    }

    fn reap(&mut self, row: Row, cause: Cause, claim: Ownership) -> Result<Outcome, String> {
        Ok(self.jobs.update(&row, None, format!("reaped: {cause}{}", displacing(&claim))))
    }

    fn on_verdict(&mut self, row: &Row, verdict: &Verdict<'static, String, Deployment>, explanation: &Explanation<'_>) {
        if matches!(verdict, Verdict::Defer(_)) && explanation.is_news() {
            let line = explanation.to_string(); // "job api: finished: defer, owned by run 1 on host-a, generation .."
            let told = line.split(", generation").next().and_then(|line| line.split_once(": "));
            self.jobs.note(&row.app, told.map_or("", |(_, told)| told).to_owned());
        }
    }
}

fn main() -> Result<(), PolicyError> {
    let policy = Policy::builder()
        .finalize_grace(Duration::from_millis(100)) // minutes, in earnest
        .stale_after(Duration::from_millis(500))
        .max_redrives(1)
        .hard_deadline(Duration::from_secs(3600))
        .marking_stage("deploy")
        .build()?;
    let reaper = Reaper::with_claim(&DEPLOYING, policy, |_| Deployment { run: 0, host: "the reaper", progress: None })
        .with_pulse(|deployment| deployment.progress.as_ref())
        .with_summary(|deployment, f| write!(f, "run {} on {}", deployment.run, deployment.host));

    let works: Steps = |pulse, _| {
        for _step in 0..90 {
            thread::sleep(Duration::from_millis(10));
            pulse.beat(); // by the work itself, after each step that got somewhere
        }
    };
    let dies: Steps = |_, _| resume_unwind(Box::new("no space left on host-a"));
    let hangs: Steps = |_, claim| {
        while claim.is_current() {
            thread::sleep(Duration::from_millis(10)); // for what never comes
        }
    };
    let (jobs, stop) = (Jobs::default(), StopToken::new());
    thread::scope(|threads| {
        let store = &jobs;
        let mut reaping = Store { jobs: store, threads };
        let (reaper, token) = (&reaper, stop.clone());
        threads.spawn(move || reaper.run(Duration::from_millis(20), &token, &mut reaping));
        threads.spawn(move || store.monitor("api", works, works));
        threads.spawn(move || store.monitor("web", hangs, hangs));
        let died = threads.spawn(move || store.monitor("docs", dies, |_, _| {}));
        assert!(died.join().is_err(), "its mark is cleared, and nobody has committed `docs`");

        while jobs.history.lock().expect("no panic holds it").len() < 3
            || !jobs.running.lock().expect("no panic holds it").is_empty()
        {
            thread::sleep(Duration::from_millis(10));
        }
        stop.stop();
    }); // the loop has ended, and all finalizers
    for (app, history) in &*jobs.history.lock().expect("no panic holds it") {
        history.iter().for_each(|what| println!("deploy {app}: {what}"));
    }
    println!("marks held at the end: {}", DEPLOYING.len());
    Ok(())
}

#[test]
fn it_runs() {
    main().expect("the policy can work");
    assert!(DEPLOYING.is_empty());
}
