//! The job store's compare-and-set, and what it does after a restart.

#![allow(clippy::unwrap_used)]

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use orchestrator::store::{Database, Effect, Outcome, State, Store};
use rusqlite::Connection;
use tempfile::TempDir;

const QUEUE: &str = "test";

struct Fixture {
    database: Database,
    store: Store,
    _directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let database = Database::open(&directory.path().join("jobs.db")).unwrap();
        let store = database.store(QUEUE).unwrap();
        Self { database, store, _directory: directory }
    }

    /// A job with a run that has finished.
    fn finished(&mut self) -> (u64, u64) {
        let job = self.store.enqueue().unwrap();
        let run = self.store.start(job).unwrap().unwrap();
        assert!(self.store.finish(run, Some(0)).unwrap());
        (job, run)
    }

    fn raw(&self) -> Connection {
        Connection::open(self.database.path().unwrap()).unwrap()
    }
}

/// What `attempt` returns in each of several threads that start it at the same time.
fn at_once<T: Send>(database: &Database, attempt: impl Fn(usize, &mut Store) -> T + Sync) -> Vec<T> {
    let line = Barrier::new(4);
    let attempt = |number| {
        let mut store = database.store(QUEUE).unwrap();
        line.wait();
        attempt(number, &mut store)
    };
    thread::scope(|scope| {
        let threads = [0, 1, 2, 3].map(|number| {
            let attempt = &attempt;
            scope.spawn(move || attempt(number))
        });
        threads.map(|thread| thread.join().unwrap()).into()
    })
}

#[test]
fn one_of_many_monitors_starts_a_job() {
    let fixture = Fixture::new();
    for _ in 0..50 {
        let job = fixture.store.enqueue().unwrap();
        let runs = at_once(&fixture.database, |_, store| store.start(job).unwrap());
        assert_eq!(runs.iter().flatten().count(), 1, "{runs:?}");
    }
    assert_eq!(fixture.store.count_runs().unwrap(), 50, "a refused start leaves no run");
}

#[test]
fn one_of_many_commits_ends_a_job() {
    let mut fixture = Fixture::new();
    for _ in 0..50 {
        let (job, run) = fixture.finished();
        let ends = [State::Merged, State::RolledBack, State::Reaped, State::Merged];
        let won = at_once(&fixture.database, |number, store| store.commit(job, run, ends[number], None).unwrap());
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        let winner = won.iter().position(|won| *won).unwrap();
        assert_eq!(fixture.store.state(job).unwrap(), ends[winner]);
    }
}

#[test]
fn one_of_many_reapers_redrives_a_job() {
    let mut fixture = Fixture::new();
    let (job, run) = fixture.finished();
    let runs = at_once(&fixture.database, |_, store| store.redrive(job, run).unwrap());
    assert_eq!(runs.iter().flatten().count(), 1, "{runs:?}");
    assert_eq!(fixture.store.count_runs().unwrap(), 2, "a refused redrive leaves no run");
}

#[test]
fn a_run_that_was_replaced_cannot_end_the_job() {
    let mut fixture = Fixture::new();
    let (job, old) = fixture.finished();
    let new = fixture.store.redrive(job, old).unwrap().unwrap();
    assert!(!fixture.store.commit(job, old, State::RolledBack, None).unwrap());
    assert_eq!(fixture.store.state(job).unwrap(), State::Running);
    assert!(fixture.store.process_succeeded(new).unwrap(), "the exit code goes with the job");
    assert!(fixture.store.commit(job, new, State::Merged, None).unwrap());
    assert_eq!(fixture.store.state(job).unwrap(), State::Merged);
}

#[test]
fn a_redrive_restarts_the_stamp_and_is_counted() {
    let mut fixture = Fixture::new();
    let (job, first) = fixture.finished();
    fixture.raw().execute_batch("UPDATE jobs SET started_at = 1000; UPDATE runs SET finished_at = 2000").unwrap();
    let row = |store: &Store| store.running().unwrap().remove(0).1.unwrap();
    let long = Duration::from_secs(3600);
    let before = row(&fixture.store);
    assert!(before.finished_for.unwrap() > long);
    assert_eq!(before.redrives, 0);

    let second = fixture.store.redrive(job, first).unwrap().unwrap();
    let after = row(&fixture.store);
    assert_eq!((after.run, after.redrives), (second, 1));
    assert!(after.finished_for.unwrap() < long, "else the next sweep would redrive it again");
    assert!(after.running_for > long, "the deadline bounds all of its runs together");

    // What is refused is not counted.
    assert_eq!(fixture.store.redrive(job, first).unwrap(), None);
    assert_eq!(row(&fixture.store).redrives, 1);
    assert!(fixture.store.redrive(job, second).unwrap().is_some());
    assert_eq!(row(&fixture.store).redrives, 2);
    assert_eq!(fixture.store.overview().unwrap().running[0].redrives, 2);
    // A restart begins the job anew, and forgets none of them.
    fixture.store.requeue_running().unwrap();
    fixture.store.start(job).unwrap();
    let restarted = row(&fixture.store);
    assert_eq!((restarted.redrives, restarted.finished_for), (2, None));
    assert!(restarted.running_for < long);
}

#[test]
fn a_run_that_ended_without_ending_its_job_is_lost() {
    let mut fixture = Fixture::new();
    let job = fixture.store.enqueue().unwrap();
    let run = fixture.store.start(job).unwrap().unwrap();
    let lost_for = |store: &Store| store.running().unwrap().remove(0).1.unwrap().lost_for;
    assert_eq!(lost_for(&fixture.store), None);
    fixture.store.end_run(run, Outcome::Failed).unwrap();
    assert!(lost_for(&fixture.store).unwrap() < Duration::from_secs(3600));
}

#[test]
fn an_ended_job_stays_as_it_is() {
    let mut fixture = Fixture::new();
    let (job, run) = fixture.finished();
    assert!(fixture.store.commit(job, run, State::Merged, None).unwrap());
    assert!(!fixture.store.commit(job, run, State::Reaped, None).unwrap());
    assert_eq!(fixture.store.redrive(job, run).unwrap(), None);
    assert_eq!(fixture.store.start(job).unwrap(), None);
    assert_eq!(fixture.store.requeue_running().unwrap(), Vec::<u64>::new());
    assert_eq!(fixture.store.state(job).unwrap(), State::Merged);
}

#[test]
fn a_restart_requeues_what_was_running_in_its_own_queue() {
    let mut fixture = Fixture::new();
    let (ended, run) = fixture.finished();
    assert!(fixture.store.commit(ended, run, State::Merged, None).unwrap());
    fixture.store.end_run(run, Outcome::Committed).unwrap();
    let (running, _) = fixture.finished();
    let waiting = fixture.store.enqueue().unwrap();
    let mut elsewhere = fixture.database.store("another").unwrap();
    let foreign = elsewhere.enqueue().unwrap();
    elsewhere.start(foreign).unwrap();

    let mut restarted = fixture.database.store(QUEUE).unwrap();
    assert_eq!(restarted.requeue_running().unwrap(), [running]);
    assert_eq!(restarted.queued().unwrap(), [running, waiting]);
    assert_eq!(restarted.count_outcomes(Outcome::Lost).unwrap(), 1);
    assert_eq!(restarted.state(foreign).unwrap(), State::Running);
    assert!(restarted.running().unwrap().is_empty());
}

#[test]
fn the_ledger_keeps_what_was_done() {
    let mut fixture = Fixture::new();
    let (job, run) = fixture.finished();
    assert_eq!(fixture.store.acted(job).unwrap(), None);
    fixture.store.act(job, run, Effect::Rollback, None).unwrap();
    fixture.store.act(job, run, Effect::Merge, None).unwrap();
    assert_eq!(fixture.store.acted(job).unwrap(), Some(Effect::Rollback));
    for sql in ["DELETE FROM ledger", "UPDATE ledger SET effect = 'merge'"] {
        let error = fixture.raw().execute(sql, []).unwrap_err();
        assert!(error.to_string().contains("append-only"), "{error}");
    }
    assert_eq!(fixture.store.count_effects(Effect::Merge).unwrap(), 1);
}

#[test]
fn a_job_has_diverged_if_the_ledger_says_something_else() {
    for (effects, end, diverged) in [
        (&[Effect::Merge][..], State::Merged, 0),
        (&[Effect::Rollback], State::RolledBack, 0),
        (&[], State::Reaped, 0),
        (&[], State::Merged, 1),
        (&[Effect::Merge, Effect::Merge], State::Merged, 1),
        (&[Effect::Rollback, Effect::Merge], State::RolledBack, 1),
        (&[Effect::Merge], State::Reaped, 1),
    ] {
        let mut fixture = Fixture::new();
        let (job, run) = fixture.finished();
        for &effect in effects {
            fixture.store.act(job, run, effect, None).unwrap();
        }
        fixture.store.commit(job, run, end, None).unwrap();
        assert_eq!(fixture.store.count_diverged().unwrap(), diverged, "{effects:?} {end}");
    }
}

#[test]
fn ages_are_never_negative() {
    let mut fixture = Fixture::new();
    let (job, run) = fixture.finished();
    let long_ago = fixture.raw().execute("UPDATE jobs SET started_at = 1000", []).unwrap();
    let to_come = fixture.raw().execute("UPDATE runs SET finished_at = 99999999999999", []).unwrap();
    assert_eq!((long_ago, to_come), (1, 1));
    let rows = fixture.store.running().unwrap();
    let [(id, Ok(row))] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((*id, row.run), (job, run));
    assert!(row.running_for > Duration::from_secs(3600));
    assert_eq!(row.finished_for, Some(Duration::ZERO));
}

#[test]
fn a_bad_row_does_not_hide_the_others() {
    let mut fixture = Fixture::new();
    let (bad, _) = fixture.finished();
    let (good, _) = fixture.finished();
    fixture.raw().execute("UPDATE jobs SET run_id = NULL WHERE id = ?1", [bad]).unwrap();
    let rows = fixture.store.running().unwrap();
    assert!(matches!(&rows[..], [(first, Err(_)), (second, Ok(_))] if (*first, *second) == (bad, good)), "{rows:?}");
}

#[test]
fn a_file_is_created_once_and_recognised_later() {
    let mut fixture = Fixture::new();
    let (job, _) = fixture.finished();
    let again = Database::open(fixture.database.path().unwrap()).unwrap();
    assert_eq!(again.store(QUEUE).unwrap().state(job).unwrap(), State::Running);
    assert_eq!((again.begin_replay().unwrap(), again.begin_replay().unwrap()), (1, 2));
}

// Older files.

/// A file as the first version made it, with a job in each state.
fn first_version(path: &std::path::Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(include_str!("../src/store/schema-1.sql")).unwrap();
    connection
        .execute_batch(
            "PRAGMA application_id = 0x6c766d6b; PRAGMA user_version = 1;
             INSERT INTO jobs (id, queue, state) VALUES (1, 'test', 'queued'), (3, 'test', 'merged'), (4, 'test', 'merged');
             INSERT INTO jobs (id, queue, state, started_at) VALUES (2, 'test', 'running', 1);
             INSERT INTO runs (id, job_id) VALUES (1, 2);
             UPDATE jobs SET run_id = 1 WHERE id = 2;",
        )
        .unwrap();
    connection
}

/// The second version, with the same jobs.
fn second_version(path: &std::path::Path) -> Connection {
    let connection = first_version(path);
    connection.execute_batch(include_str!("../src/store/schema-2.sql")).unwrap();
    connection.execute_batch("PRAGMA user_version = 2").unwrap();
    connection
}

fn schema(path: &std::path::Path) -> Vec<(String, String)> {
    let connection = Connection::open(path).unwrap();
    let mut statement =
        connection.prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

#[test]
fn an_older_file_is_brought_up_to_date() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("old.db");
    drop(first_version(&path));
    let mut store = Database::open(&path).unwrap().store(QUEUE).unwrap();
    assert_eq!(store.kind(1).unwrap(), "default");
    let counts = [(State::Queued, 1), (State::Running, 1), (State::Merged, 2)];
    assert_eq!(store.counts().unwrap(), counts.into());
    assert_eq!(store.overview().unwrap().running[0].stage.as_deref(), Some("process"));
    assert_eq!(store.requeue_running().unwrap(), [2]);
    assert_eq!(store.submit("red", 2).unwrap(), [5, 6]);
    assert_eq!(store.kind(6).unwrap(), "red");

    // Once, and to what a new file has.
    assert_eq!(Database::open(&path).unwrap().store(QUEUE).unwrap().queued().unwrap(), [1, 2, 5, 6]);
    let new = directory.path().join("new.db");
    Database::open(&new).unwrap();
    assert_eq!(schema(&path), schema(&new));

    let newer = directory.path().join("newer.db");
    drop(second_version(&newer));
    let store = Database::open(&newer).unwrap().store(QUEUE).unwrap();
    assert_eq!(schema(&newer), schema(&new));
    assert_eq!(store.overview().unwrap().running[0].redrives, 0);
    assert_eq!(store.counts().unwrap(), counts.into());
}

#[test]
fn an_older_file_that_cannot_be_brought_up_to_date_stays_as_it_is() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("old.db");
    first_version(&path).execute_batch("CREATE TABLE tallies (mine INTEGER)").unwrap();
    let before = schema(&path);
    let error = Database::open(&path).unwrap_err().to_string();
    assert!(error.contains("tallies already exists"), "{error}");
    assert_eq!(schema(&path), before, "not half of it");
    let version: i32 = Connection::open(&path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 1);
}

#[test]
fn tallies_are_what_counting_finds() {
    let mut fixture = Fixture::new();
    let jobs = fixture.store.submit("default", 30).unwrap();
    for (number, &job) in jobs.iter().enumerate().skip(3) {
        let run = fixture.store.start(job).unwrap().unwrap();
        let end = [State::Merged, State::RolledBack, State::Reaped].get(number % 4).copied();
        if let Some(end) = end {
            assert!(fixture.store.commit(job, run, end, None).unwrap());
        }
    }
    fixture.database.store("another").unwrap().enqueue().unwrap();
    let check = |store: &Store| {
        for (state, jobs) in store.counts().unwrap() {
            assert_eq!(jobs, store.count_jobs(state).unwrap(), "{state}");
        }
        assert_eq!(store.counts().unwrap().values().sum::<u64>(), 30);
    };
    check(&fixture.store);
    assert!(fixture.store.counts().unwrap()[&State::Running] > 0);
    fixture.store.requeue_running().unwrap();
    check(&fixture.store);
    assert_eq!(fixture.store.counts().unwrap()[&State::Running], 0);
}

#[test]
fn an_overview_reads_no_job_that_has_ended() {
    let fixture = Fixture::new();
    let plan = |sql: &str| -> String {
        let raw = fixture.raw();
        let mut statement = raw.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = statement.query_map([], |row| row.get::<_, String>(3)).unwrap();
        steps.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    };
    let running = plan(
        "SELECT jobs.id FROM jobs LEFT JOIN runs ON runs.id = jobs.run_id WHERE jobs.queue = 'x' AND jobs.state = 'running' ORDER BY jobs.id",
    );
    assert!(running.contains("jobs_by_queue (queue=? AND state=?)") && !running.contains("SCAN"), "{running}");
    let counts = plan("SELECT state, jobs FROM tallies WHERE queue = 'x'");
    assert!(counts.contains("SEARCH tallies USING PRIMARY KEY (queue=?)"), "{counts}");
}

#[test]
fn jobs_are_started_in_their_order_and_once() {
    let mut fixture = Fixture::new();
    let jobs = fixture.store.submit("default", 40).unwrap();
    let first = fixture.store.start_next().unwrap().map(|(job, _)| job);
    assert_eq!(first, Some(jobs[0]));
    let started = at_once(&fixture.database, |_, store| {
        let mut started = Vec::new();
        while let Some((job, _)) = store.start_next().unwrap() {
            started.push(job);
        }
        assert!(started.is_sorted());
        started
    });
    let mut started: Vec<u64> = started.into_iter().flatten().collect();
    started.sort_unstable();
    assert_eq!(started, jobs[1..]);
}

#[test]
fn the_stamp_of_a_run_that_is_not_the_jobs_own_is_refused() {
    let mut fixture = Fixture::new();
    let job = fixture.store.enqueue().unwrap();
    let run = fixture.store.start(job).unwrap().unwrap();
    assert!(fixture.store.is_own(job, run).unwrap());
    assert!(fixture.store.commit(job, run, State::Reaped, None).unwrap());
    assert!(!fixture.store.is_own(job, run).unwrap());
    assert!(!fixture.store.finish(run, Some(0)).unwrap());
}
