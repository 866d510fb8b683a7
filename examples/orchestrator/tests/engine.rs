//! Monitors and reaper together, where things go wrong that the replay does not show.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use livemark::{Cause, Finalizer, Mode, Proposed, Reaper, ReaperStats, Registry};
use orchestrator::config::{Config, REPLAY};
use orchestrator::engine::{Engine, Shift, Step, no_hook, wait_until};
use orchestrator::error::Error;
use orchestrator::feed::Feed;
use orchestrator::reap::{self, StopAtEnd};
use orchestrator::store::{Database, Effect, Outcome, State, Store};
use rusqlite::Connection;
use tempfile::TempDir;

const QUEUE: &str = "test";
const LONG: Duration = Duration::from_secs(30);

struct Fixture {
    directory: TempDir,
    database: Database,
    config: Config,
    registry: Registry,
    feed: Feed,
    shift: Shift,
}

impl Fixture {
    /// One gate, and a deadline short enough to wait for.
    fn new(gate: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("config.toml");
        let toml = format!(
            "job.command = ['true']\n\
             limits = {{ finalize_grace = 0.1, hard_deadline = 2, sweep_every = 0.01, process = 60 }}\n\
             gates = [{{ name = 'only', command = ['sh', '-c', '{gate}'] }}]\n"
        );
        fs::write(&path, toml).unwrap();
        Self {
            database: Database::open(&directory.path().join("jobs.db")).unwrap(),
            config: Config::load(Some(&path), REPLAY).unwrap(),
            registry: Registry::new(),
            feed: Feed::default(),
            shift: Shift::default(),
            directory,
        }
    }

    fn store(&self) -> Store {
        self.database.store(QUEUE).unwrap()
    }

    fn engine(&self) -> Engine<'_> {
        Engine {
            registry: &self.registry,
            database: &self.database,
            queue: QUEUE,
            config: &self.config,
            workspaces: self.directory.path(),
            supervisor: Path::new(env!("CARGO_BIN_EXE_orchestrator")),
            feed: &self.feed,
            shift: &self.shift,
            logs: false,
            hook: &no_hook,
        }
    }

    /// A job whose process has finished, and which no monitor owns.
    fn orphan(&self) -> u64 {
        let mut store = self.store();
        let job = store.enqueue().unwrap();
        let run = store.start(job).unwrap().unwrap();
        assert!(store.finish(run, Some(0)).unwrap());
        job
    }

    /// Lets only the reaper run, until `done`.
    fn reap_until(&self, done: impl Fn(&Store) -> bool) {
        self.reap_until_counts(Mode::Honor, |store, _| done(store));
    }

    /// The same in any mode, and by what the reaper has counted.
    fn reap_until_counts(&self, mode: Mode, done: impl Fn(&Store, ReaperStats) -> bool) {
        let engine = self.engine();
        let reaper = Reaper::new(&self.registry, self.config.policy(mode).unwrap());
        let store = self.store();
        thread::scope(|scope| {
            let stop = StopAtEnd::default();
            let (engine, reaper, stopped) = (&engine, &reaper, stop.0.clone());
            let reaping = scope.spawn(move || reap::run(scope, engine, reaper, &stopped));
            let waited = wait_until("the reaper", LONG, || Ok(done(&store, reaper.stats())));
            drop(stop);
            reaping.join().unwrap().unwrap();
            waited.unwrap();
        });
    }

    /// Notes on a job by the reaper.
    fn verdicts(&self, job: u64) -> Vec<String> {
        let notes = self.store().notes().unwrap();
        notes.into_iter().filter(|note| note.job == Some(job) && note.who == reap::WHO).map(|note| note.what).collect()
    }

    fn gate_result(&self) -> String {
        let connection = Connection::open(self.database.path().unwrap()).unwrap();
        connection.query_row("SELECT result FROM tasks", [], |row| row.get(0)).unwrap()
    }
}

#[test]
fn green_gates_merge() {
    let fixture = Fixture::new("exit 0");
    let job = fixture.store().enqueue().unwrap();
    let counts = fixture.engine().drain(Mode::Honor).unwrap();
    assert_eq!(fixture.store().state(job).unwrap(), State::Merged);
    assert_eq!(fixture.store().acted(job).unwrap(), Some(Effect::Merge));
    assert_eq!((counts.registry.marks, counts.registry.displaced), (1, 0));
    assert!(fixture.registry.is_empty());
}

#[test]
fn a_red_gate_rolls_back() {
    let fixture = Fixture::new("exit 3");
    let job = fixture.store().enqueue().unwrap();
    fixture.engine().drain(Mode::Honor).unwrap();
    assert_eq!(fixture.store().state(job).unwrap(), State::RolledBack);
    assert_eq!(fixture.store().acted(job).unwrap(), Some(Effect::Rollback));
    assert_eq!(fixture.gate_result(), "exit code 3");
}

#[test]
fn a_failed_job_never_reaches_its_gates() {
    let mut fixture = Fixture::new("exit 0");
    fixture.config.default_kind.job.command = vec!["false".to_owned()];
    let job = fixture.store().enqueue().unwrap();
    fixture.engine().drain(Mode::Honor).unwrap();
    assert_eq!(fixture.store().state(job).unwrap(), State::RolledBack);
    let connection = Connection::open(fixture.database.path().unwrap()).unwrap();
    let gates: u64 = connection.query_row("SELECT COUNT(*) FROM tasks", [], |row| row.get(0)).unwrap();
    assert_eq!(gates, 0);
}

#[test]
fn the_stuck_gate_of_a_displaced_monitor_is_killed() {
    let fixture = Fixture::new("sleep 60");
    let job = fixture.store().enqueue().unwrap();
    let counts = fixture.engine().drain(Mode::Honor).unwrap();
    assert_eq!(counts.reaper.reaps_backstop, 1);
    assert_eq!(fixture.store().state(job).unwrap(), State::Reaped);
    assert_eq!(fixture.gate_result(), "killed, its result is not wanted");
    assert_eq!(fixture.store().count_outcomes(Outcome::Displaced).unwrap(), 1);
    assert_eq!(fixture.store().acted(job).unwrap(), None);
}

#[test]
fn a_job_without_an_owner_is_redriven_once() {
    let fixture = Fixture::new("exit 0");
    let job = fixture.orphan();
    fixture.reap_until(|store| store.unfinished().unwrap() == 0);
    assert_eq!(fixture.store().state(job).unwrap(), State::Merged);
    assert_eq!(fixture.store().count_runs().unwrap(), 2);
    assert_eq!(fixture.store().count_effects(Effect::Merge).unwrap(), 1);
}

#[test]
fn a_bad_row_does_not_stop_the_sweep() {
    let fixture = Fixture::new("exit 0");
    let (bad, good) = (fixture.orphan(), fixture.orphan());
    let connection = Connection::open(fixture.database.path().unwrap()).unwrap();
    connection.execute("UPDATE jobs SET run_id = NULL WHERE id = ?1", [bad]).unwrap();
    fixture.reap_until(|store| store.state(good).unwrap() == State::Merged);
    assert_eq!(fixture.store().state(bad).unwrap(), State::Running);
    let notes = fixture.store().notes().unwrap();
    let left_out = notes.iter().filter(|note| note.job == Some(bad)).collect::<Vec<_>>();
    assert_eq!(left_out.len(), 1, "told once, not for every sweep: {left_out:?}");
    assert!(left_out[0].what.contains("leaves it out"), "{left_out:?}");
}

#[test]
fn what_was_done_outside_is_not_done_again() {
    let fixture = Fixture::new("exit 1");
    let job = fixture.orphan();
    let mut store = fixture.store();
    let (_, row) = store.running().unwrap().remove(0);
    store.act(job, row.unwrap().run, Effect::Merge, None).unwrap();
    // Redriven by the reaper, or queued again by a restart: the commit is all that is missing.
    fixture.reap_until(|store| store.unfinished().unwrap() == 0);
    assert_eq!(store.state(job).unwrap(), State::Merged);

    let other = fixture.orphan();
    let (_, row) = store.running().unwrap().remove(0);
    store.act(other, row.unwrap().run, Effect::Merge, None).unwrap();
    assert_eq!(store.requeue_running().unwrap(), [other]);
    fixture.engine().drain(Mode::Honor).unwrap();
    assert_eq!(store.state(other).unwrap(), State::Merged);
    assert_eq!(store.count_diverged().unwrap(), 0);
}

#[test]
fn an_owned_job_is_left_alone_until_the_deadline() {
    let fixture = Fixture::new("exit 0");
    let job = fixture.orphan();
    let owner = fixture.registry.mark(job, Finalizer::new(None, "finalize"));
    fixture.reap_until(|store| store.state(job).unwrap() == State::Reaped);
    assert!(!owner.is_current());
    assert_eq!(fixture.store().count_runs().unwrap(), 1);
    assert!(fixture.registry.is_empty(), "the reaper's own claim ends with the job");
    let verdicts = fixture.verdicts(job);
    assert_eq!(
        verdicts,
        ["defers, owned by a claim in finalize", "reaps it: backstop, displacing a claim in finalize"]
    );
}

#[test]
fn a_job_that_is_reaped_while_its_process_runs_has_no_effect() {
    let mut fixture = Fixture::new("exit 0");
    fixture.config.default_kind.job.command = ["sleep", "600"].map(str::to_owned).into();
    let job = fixture.store().enqueue().unwrap();
    let counts = fixture.engine().drain(Mode::Honor).unwrap();
    assert_eq!(counts.reaper.reaps_backstop, 1);
    assert_eq!(fixture.store().state(job).unwrap(), State::Reaped);
    assert_eq!(fixture.store().acted(job).unwrap(), None);
    assert_eq!(fixture.store().count_outcomes(Outcome::Overtaken).unwrap(), 1, "its monitor saw it");
    assert!(fixture.registry.is_empty());
}

#[test]
fn the_backstop_ends_a_job_as_what_was_done_for_it() {
    let fixture = Fixture::new("exit 0");
    let job = fixture.orphan();
    let mut store = fixture.store();
    store.act(job, store.running().unwrap().remove(0).1.unwrap().run, Effect::Merge, None).unwrap();
    // An owner that hangs between acting and committing.
    let owner = fixture.registry.mark(job, Finalizer::new(None, "commit"));
    fixture.reap_until(|store| store.unfinished().unwrap() == 0);
    assert_eq!(store.state(job).unwrap(), State::Merged);
    assert!(!owner.is_current());
    assert_eq!(store.count_diverged().unwrap(), 0);
    assert!(store.requeue_running().unwrap().is_empty());
}

/// Every finalization fails halfway: the reaper tries it so many times, and then gives it up.
#[test]
fn a_job_that_is_redriven_in_vain_is_reaped() {
    let mut fixture = Fixture::new("exit 0");
    fixture.config.limits.hard_deadline = Duration::from_secs(60);
    let job = fixture.store().enqueue().unwrap();
    let failing = |_: &Store, _, _, step| match step {
        Step::Gate(_) => Err(Error::TimedOut("the gate".to_owned())),
        _ => Ok(()),
    };
    let counts = Engine { hook: &failing, ..fixture.engine() }.drain(Mode::Honor).unwrap();
    assert_eq!((counts.reaper.redrives, counts.reaper.reaps_redrives_exhausted), (3, 1));
    assert_eq!((counts.reaper.reaps_backstop, counts.reaper.refused), (0, 0));
    let store = fixture.store();
    assert_eq!(store.state(job).unwrap(), State::Reaped);
    assert_eq!((store.count_runs().unwrap(), store.count_outcomes(Outcome::Failed).unwrap()), (4, 4));
    assert_eq!(store.acted(job).unwrap(), None);
    let mut verdicts = fixture.verdicts(job);
    verdicts.retain(|verdict| !verdict.starts_with("defers")); // on a slow machine
    let redrives = [2, 3, 4].map(|run| format!("redrives it as run {run}, claimed"));
    assert_eq!((&verdicts[..3], &verdicts[3..]), (&redrives[..], &["reaps it: redrives exhausted".to_owned()][..]));
}

#[test]
fn a_job_whose_monitor_fails_before_the_stamp_is_lost() {
    let mut fixture = Fixture::new("exit 0");
    fixture.config.limits.hard_deadline = Duration::from_secs(60);
    let job = fixture.store().enqueue().unwrap();
    let failing = |_: &Store, _, _, step| match step {
        Step::Started => Err(Error::TimedOut("the process".to_owned())),
        _ => Ok(()),
    };
    let counts = Engine { hook: &failing, ..fixture.engine() }.drain(Mode::Honor).unwrap();
    assert_eq!((counts.reaper.reaps_worker_lost, counts.reaper.reaps_backstop), (1, 0));
    assert_eq!(fixture.verdicts(job), ["reaps it: worker lost"]);
}

#[test]
fn a_verdict_that_the_store_refuses_is_counted_and_nothing_else() {
    let fixture = Fixture::new("exit 0");
    let job = fixture.orphan();
    let connection = Connection::open(fixture.database.path().unwrap()).unwrap();
    // As if the job had moved on between the listing and the act, each time.
    connection.execute_batch("CREATE TRIGGER no BEFORE UPDATE ON jobs BEGIN SELECT RAISE(IGNORE); END").unwrap();
    fixture.reap_until_counts(Mode::Honor, |_, stats| stats.refused > 2);
    assert_eq!(fixture.store().count_runs().unwrap(), 1);
    assert_eq!(fixture.verdicts(job), [""; 0]);
    assert!(fixture.registry.is_empty(), "the claims are given back");
    // The backstop's as well.
    connection.execute_batch("UPDATE runs SET finished_at = NULL").unwrap();
    fixture.reap_until_counts(Mode::Honor, |_, stats| stats.reaps_backstop > 1 && stats.refused > 1);
    assert_eq!((fixture.store().state(job).unwrap(), fixture.verdicts(job).len()), (State::Running, 0));
}

#[test]
fn a_dry_run_tells_each_verdict_once_and_acts_on_none() {
    let fixture = Fixture::new("exit 0");
    let job = fixture.orphan();
    let run = fixture.store().running().unwrap().remove(0).1.unwrap().run;
    let dry_run = |what| {
        let judged = || fixture.feed.verdict_on(job, run).and_then(|judged| judged.dry_run);
        fixture.reap_until_counts(Mode::DryRun, |_, _| judged() == Some(what));
    };
    dry_run(Proposed::Redrive);
    dry_run(Proposed::Reap(Cause::Backstop));
    // Two reapers, of which the first may have seen both.
    let mut verdicts = fixture.verdicts(job);
    verdicts.dedup();
    assert_eq!(verdicts, ["dry run: would redrive", "dry run: would reap, backstop"]);
    assert_eq!((fixture.store().count_runs().unwrap(), fixture.registry.stats().marks), (1, 0));
}

#[test]
fn what_comes_next_is_told_of_every_job() {
    let mut fixture = Fixture::new("exit 0");
    fixture.config.limits.hard_deadline = Duration::from_secs(60);
    let fixture = fixture;
    let (job, mut store) = (fixture.store().enqueue().unwrap(), fixture.store());
    let run = store.start(job).unwrap().unwrap();
    let next = || fixture.feed.verdict_on(job, run).and_then(|judged| judged.next);
    let left = |at: Instant| at.saturating_duration_since(Instant::now());
    fixture.reap_until(|_| next().is_some());
    let (what, at) = next().unwrap();
    assert_eq!(what, Proposed::Reap(Cause::Backstop), "its process runs");
    assert!(left(at) > Duration::from_secs(30) && left(at) <= Duration::from_secs(60), "{:?}", left(at));

    let owner = fixture.registry.mark(job, Finalizer::new(Some(run), "finalize"));
    assert!(store.finish(run, Some(0)).unwrap());
    fixture.reap_until(|_| fixture.feed.verdict_on(job, run).is_some_and(|judged| judged.deferred.is_some()));
    let (what, later) = next().unwrap();
    assert_eq!(what, Proposed::Reap(Cause::Backstop), "it is owned");
    assert!(later < at + Duration::from_secs(10) && at < later + Duration::from_secs(10), "the same instant, nearly");
    drop(owner);
}

#[test]
fn what_is_said_of_jobs_is_forgotten_with_them() {
    let fixture = Fixture::new("sleep 0.5");
    for _ in 0..3 {
        fixture.store().enqueue().unwrap();
    }
    fixture.engine().drain(Mode::Honor).unwrap();
    let deferrals = fixture.feed.recent();
    assert!(deferrals.len() >= 3 && deferrals.windows(2).all(|pair| pair[0].seq > pair[1].seq), "{deferrals:?}");
    // By the next listing, which has none of them any more.
    fixture.reap_until(|_| !format!("{:?}", fixture.feed).contains("times"));
}
