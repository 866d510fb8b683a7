//! The job store's compare-and-set, and what it does after a restart: in a file, and on a PostgreSQL server.

#![allow(clippy::unwrap_used)]

mod engines;

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use engines::{Fixture, Make, QUEUE};
use orchestrator::store::{Database, Effect, KeptMode, NoteKind, Outcome, State, Store, Wanted, Which, Wish};
use rusqlite::Connection;
use tempfile::TempDir;

/// What holds on either engine. A server takes some seconds to start, so that there is one for all of them.
macro_rules! on_both {
    ($($(#[$about:meta])* fn $name:ident($new:ident) $body:block)*) => {
        $(
            $(#[$about])*
            fn $name($new: Make<'_>) $body
        )*

        mod in_a_file {
            $(#[test] fn $name() { super::$name(&super::Fixture::in_a_file) })*
        }

        #[cfg(feature = "cluster")]
        #[test]
        fn all_of_it_on_a_server() {
            let Some(server) = engines::Server::start() else { return };
            $({
                // Told where it fails.
                println!("{}", stringify!($name));
                $name(&|| server.fixture());
            })*
        }
    };
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

on_both! {
    fn one_of_many_monitors_starts_a_job(new) {
        let fixture = new();
        for _ in 0..50 {
            let job = fixture.store.enqueue().unwrap();
            let runs = at_once(&fixture.database, |_, store| store.start(job).unwrap());
            assert_eq!(runs.iter().flatten().count(), 1, "{runs:?}");
        }
        assert_eq!(fixture.store.count_runs().unwrap(), 50, "a refused start leaves no run");
    }

    fn one_of_many_commits_ends_a_job(new) {
        let mut fixture = new();
        for _ in 0..50 {
            let (job, run) = fixture.finished();
            let ends = [State::Merged, State::RolledBack, State::Reaped, State::Merged];
            let won = at_once(&fixture.database, |number, store| store.commit(job, run, ends[number], None).unwrap());
            assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
            let winner = won.iter().position(|won| *won).unwrap();
            assert_eq!(fixture.store.state(job).unwrap(), ends[winner]);
        }
    }

    fn one_of_many_reapers_redrives_a_job(new) {
        let mut fixture = new();
        let (job, run) = fixture.finished();
        let runs = at_once(&fixture.database, |_, store| store.redrive(job, run).unwrap());
        assert_eq!(runs.iter().flatten().count(), 1, "{runs:?}");
        assert_eq!(fixture.store.count_runs().unwrap(), 2, "a refused redrive leaves no run");
    }

    fn a_run_that_was_replaced_cannot_end_the_job(new) {
        let mut fixture = new();
        let (job, old) = fixture.finished();
        let new = fixture.store.redrive(job, old).unwrap().unwrap();
        assert!(!fixture.store.commit(job, old, State::RolledBack, None).unwrap());
        assert_eq!(fixture.store.state(job).unwrap(), State::Running);
        assert!(fixture.store.process_succeeded(new).unwrap(), "the exit code goes with the job");
        assert!(fixture.store.commit(job, new, State::Merged, None).unwrap());
        assert_eq!(fixture.store.state(job).unwrap(), State::Merged);
    }

    fn a_redrive_restarts_the_stamp_and_is_counted(new) {
        let mut fixture = new();
        let (job, first) = fixture.finished();
        fixture.raw("UPDATE jobs SET started_at = 1000").unwrap();
        fixture.raw("UPDATE runs SET finished_at = 2000").unwrap();
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

    fn a_run_that_ended_without_ending_its_job_is_lost(new) {
        let mut fixture = new();
        let job = fixture.store.enqueue().unwrap();
        let run = fixture.store.start(job).unwrap().unwrap();
        let lost_for = |store: &Store| store.running().unwrap().remove(0).1.unwrap().lost_for;
        assert_eq!(lost_for(&fixture.store), None);
        fixture.store.end_run(run, Outcome::Failed).unwrap();
        assert!(lost_for(&fixture.store).unwrap() < Duration::from_secs(3600));
    }

    fn an_ended_job_stays_as_it_is(new) {
        let mut fixture = new();
        let (job, run) = fixture.finished();
        assert!(fixture.store.commit(job, run, State::Merged, None).unwrap());
        assert!(!fixture.store.commit(job, run, State::Reaped, None).unwrap());
        assert_eq!(fixture.store.redrive(job, run).unwrap(), None);
        assert_eq!(fixture.store.start(job).unwrap(), None);
        assert_eq!(fixture.store.requeue_running().unwrap(), Vec::<u64>::new());
        assert_eq!(fixture.store.state(job).unwrap(), State::Merged);
    }

    fn a_restart_requeues_what_was_running_in_its_own_queue(new) {
        let mut fixture = new();
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

    fn the_ledger_keeps_what_was_done(new) {
        let mut fixture = new();
        let (job, run) = fixture.finished();
        assert_eq!(fixture.store.acted(job).unwrap(), None);
        fixture.store.act(job, run, Effect::Rollback, None).unwrap();
        fixture.store.act(job, run, Effect::Merge, None).unwrap();
        assert_eq!(fixture.store.acted(job).unwrap(), Some(Effect::Rollback));
        for sql in ["DELETE FROM ledger", "UPDATE ledger SET effect = 'merge'"] {
            let error = fixture.raw(sql).unwrap_err();
            assert!(error.contains("append-only"), "{error}");
        }
        assert_eq!(fixture.store.count_effects(Effect::Merge).unwrap(), 1);
    }

    fn a_job_has_diverged_if_the_ledger_says_something_else(new) {
        for (effects, end, diverged) in [
            (&[Effect::Merge][..], State::Merged, 0),
            (&[Effect::Rollback], State::RolledBack, 0),
            (&[], State::Reaped, 0),
            (&[], State::Merged, 1),
            (&[Effect::Merge, Effect::Merge], State::Merged, 1),
            (&[Effect::Rollback, Effect::Merge], State::RolledBack, 1),
            (&[Effect::Merge], State::Reaped, 1),
        ] {
            let mut fixture = new();
            let (job, run) = fixture.finished();
            for &effect in effects {
                fixture.store.act(job, run, effect, None).unwrap();
            }
            fixture.store.commit(job, run, end, None).unwrap();
            assert_eq!(fixture.store.count_diverged().unwrap(), diverged, "{effects:?} {end}");
        }
    }

    fn ages_are_never_negative(new) {
        let mut fixture = new();
        let (job, run) = fixture.finished();
        let long_ago = fixture.raw("UPDATE jobs SET started_at = 1000").unwrap();
        let to_come = fixture.raw("UPDATE runs SET finished_at = 99999999999999").unwrap();
        assert_eq!((long_ago, to_come), (1, 1));
        let rows = fixture.store.running().unwrap();
        let [(id, Ok(row))] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((*id, row.run), (job, run));
        assert!(row.running_for > Duration::from_secs(3600));
        assert_eq!(row.finished_for, Some(Duration::ZERO));
    }

    fn a_bad_row_does_not_hide_the_others(new) {
        let mut fixture = new();
        let (bad, _) = fixture.finished();
        let (good, _) = fixture.finished();
        fixture.raw(&format!("UPDATE jobs SET run_id = NULL WHERE id = {bad}")).unwrap();
        let rows = fixture.store.running().unwrap();
        assert!(matches!(&rows[..], [(first, Err(_)), (second, Ok(_))] if (*first, *second) == (bad, good)), "{rows:?}");
    }

    fn tallies_are_what_counting_finds(new) {
        let mut fixture = new();
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

    fn jobs_are_started_in_their_order_and_once(new) {
        let mut fixture = new();
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

    fn the_stamp_of_a_run_that_is_not_the_jobs_own_is_refused(new) {
        let mut fixture = new();
        let job = fixture.store.enqueue().unwrap();
        let run = fixture.store.start(job).unwrap().unwrap();
        assert!(fixture.store.is_own(job, run).unwrap());
        assert!(fixture.store.commit(job, run, State::Reaped, None).unwrap());
        assert!(!fixture.store.is_own(job, run).unwrap());
        assert!(!fixture.store.finish(run, Some(0)).unwrap());
    }

    /// Seen to fail without the comparisons with `fence`: the late one merged.
    fn a_stale_token_acts_and_commits_nothing(new) {
        let mut fixture = new();
        let (job, run) = fixture.finished();
        let store = &fixture.store;
        assert!(store.act(job, run, Effect::Rollback, Some(8)).unwrap());
        assert!(!store.act(job, run, Effect::Merge, Some(7)).unwrap());
        assert!(!store.commit(job, run, State::Merged, Some(7)).unwrap());
        assert_eq!(store.count_effects(Effect::Merge).unwrap(), 0, "nothing is written");
        assert_eq!(store.state(job).unwrap(), State::Running);
        // The same token comes back, and a run that is not the job's own has no use for a larger one.
        assert!(store.act(job, run, Effect::Rollback, Some(8)).unwrap());
        assert!(!store.act(job, run + 1, Effect::Merge, Some(9)).unwrap());
        assert!(!store.commit(job, run + 1, State::Merged, Some(9)).unwrap());
        assert!(store.commit(job, run, State::RolledBack, Some(8)).unwrap());
        assert!(!store.act(job, run, Effect::Merge, Some(10)).unwrap(), "it has ended");
        assert!(store.act(job, run, Effect::Merge, None).unwrap(), "nobody compares");
        assert!(store.act(job, run, Effect::Merge, Some(u64::MAX)).is_err(), "no store counts so far");
    }

    /// The token survives a redrive, whose run is another one.
    fn a_redrive_does_not_lower_the_fence(new) {
        let mut fixture = new();
        let (job, old) = fixture.finished();
        assert!(fixture.store.act(job, old, Effect::Merge, Some(8)).unwrap());
        let run = fixture.store.redrive(job, old).unwrap().unwrap();
        assert!(!fixture.store.commit(job, run, State::Merged, Some(7)).unwrap());
        assert!(fixture.store.commit(job, run, State::Merged, Some(9)).unwrap());
    }

    /// Seen to fail on a server where neither locks the job: the new run had no exit code.
    fn a_stamp_is_before_a_redrive_or_refused(new) {
        let fixture = new();
        for _ in 0..50 {
            let job = fixture.store.enqueue().unwrap();
            let run = fixture.database.store(QUEUE).unwrap().start(job).unwrap().unwrap();
            let done = at_once(&fixture.database, |number, store| match number {
                0 => (store.finish(run, Some(0)).unwrap(), None),
                1 => (false, store.redrive(job, run).unwrap()),
                _ => (false, None),
            });
            let (stamped, redriven) = (done[0].0, done[1].1.unwrap());
            assert_eq!(fixture.store.process_succeeded(redriven).unwrap(), stamped);
        }
    }

    fn every_question_is_answered(new) {
        let mut fixture = new();
        let store = &mut fixture.store;
        let jobs = store.submit("red", 4).unwrap();
        let run = store.start(jobs[0]).unwrap().unwrap();
        store.marked(jobs[0], run, "run", "has a mark").unwrap();
        store.enter(jobs[0], run, "commit", "run", "goes on").unwrap();
        let task = store.start_task(run, "tests").unwrap();
        store.end_task(task, "exit code 0").unwrap();
        assert!(store.act(jobs[0], run, Effect::Rollback, None).unwrap());
        assert!(store.commit(jobs[0], run, State::RolledBack, None).unwrap());
        store.end_run(run, Outcome::Committed).unwrap();
        store.note_as(NoteKind::Verdict, Some(jobs[0]), "reaper", "leaves it").unwrap();
        store.note_as(NoteKind::Mode, None, "operator", "nothing").unwrap();
        assert!(store.ruled_on(jobs[0], run).unwrap());
        assert_eq!(store.acted(jobs[0]).unwrap(), Some(Effect::Rollback));
        assert_eq!(store.effects(jobs[0]).unwrap().len(), 1);
        assert_eq!(store.count_outcomes(Outcome::Committed).unwrap(), 1);
        assert_eq!((store.unfinished().unwrap(), store.count_diverged().unwrap()), (3, 0));
        assert_eq!((store.notes().unwrap().len(), store.count_notes("goes on").unwrap()), (4, 1));

        let row = store.job(jobs[0]).unwrap().unwrap();
        let now = store.now().unwrap();
        let times = [row.submitted_at_ms, row.started_at_ms, row.ended_at_ms].map(Option::unwrap);
        assert!(times.is_sorted() && times[0] + 3_600_000 > now && times[2] <= now + 1, "{times:?} {now}");
        let runs = store.runs(jobs[0]).unwrap();
        assert_eq!((runs[0].stage.as_str(), runs[0].outcome), ("tests", Some(Outcome::Committed)));
        assert_eq!(runs[0].tasks[0].result.as_deref(), Some("exit code 0"));
        assert!(store.job(999).unwrap().is_none());
        assert!(store.state(999).is_err() && store.kind(999).is_err());

        let states = vec![State::Queued, State::RolledBack];
        let all = Wanted { states, limit: 3, ..Wanted::default() };
        let found = |store: &Store, wanted: &Wanted| {
            let jobs: Vec<u64> = store.jobs(wanted).unwrap().iter().map(|row| row.job).collect();
            (jobs, store.count_wanted(wanted).unwrap())
        };
        assert_eq!(found(store, &all), (vec![jobs[3], jobs[2], jobs[1]], 4));
        let red = Wanted { kinds: Some(vec!["red".to_owned()]), before: Some(jobs[2]), ..all.clone() };
        assert_eq!(found(store, &red), (vec![jobs[1], jobs[0]], 4));
        let one = Wanted { job: Some(jobs[1]), ..all };
        assert_eq!(found(store, &one), (vec![jobs[1]], 1));

        let told = |store: &Store, which: Which| store.history(&which, 100).unwrap().len();
        assert_eq!(told(store, Which { job: Some(jobs[0]), ..Which::default() }), 3);
        assert_eq!(told(store, Which { kinds: vec![NoteKind::Mode, NoteKind::Verdict], ..Which::default() }), 2);
        let first = store.history(&Which::default(), 100).unwrap().last().unwrap().id;
        assert_eq!(told(store, Which { after: Some(first), ..Which::default() }), 3);
        assert_eq!(told(store, Which { before: Some(first), after: Some(u64::MAX), ..Which::default() }), 0);

        // What an operator does.
        assert!(store.withdraw(jobs[1]).unwrap() && !store.withdraw(jobs[1]).unwrap());
        assert!(matches!(store.resubmit(jobs[1], "me").unwrap(), Wish::Done(_)));
        assert_eq!(store.resubmit(jobs[2], "me").unwrap(), Wish::Not(State::Queued));
        assert_eq!(store.resubmit(999, "me").unwrap(), Wish::NoJob);
        store.pause(true, "me").unwrap();
        assert_eq!(store.start_next().unwrap(), None);
        assert_eq!(store.paused().unwrap().unwrap().by, "me");
        store.pause(false, "me").unwrap();
        let (next, run) = store.start_next().unwrap().unwrap();
        assert!(store.requeue(next, run).unwrap() && !store.requeue(next, run).unwrap());
        assert_eq!((store.paused().unwrap(), store.kept_mode().unwrap()), (None, None));
        for until_ms in [None, Some(8)] {
            let [mode, by, then] = ["dry_run", "me", "honor"].map(str::to_owned);
            let kept = KeptMode { mode, by, since_ms: 7, until_ms, then };
            store.keep_mode(&kept, "changes the mode").unwrap();
            assert_eq!(store.kept_mode().unwrap(), Some(kept));
        }
        for holder in ["one", "two", "two"] {
            store.claim(jobs[2], 1, holder, 5).unwrap();
        }
        assert_eq!((store.count_rounds(jobs[2], 3).unwrap(), store.rounds_won(jobs[2]).unwrap().len()), (1, 2));
        store.touch().unwrap();
        store.touch().unwrap();

        // What has ended is forgotten.
        assert_eq!(store.expire(u64::MAX >> 1, 1).unwrap(), [jobs[0]]);
        assert_eq!(store.expire(u64::MAX >> 1, 9).unwrap(), [jobs[1]]);
        assert_eq!(store.expire_notes(u64::MAX >> 1, 2).unwrap(), 2);
        assert_eq!(store.count_effects(Effect::Rollback).unwrap(), 0, "of a queue, by its jobs");
        for (state, jobs) in store.counts().unwrap() {
            assert_eq!(jobs, store.count_jobs(state).unwrap(), "{state}");
        }
        assert_eq!((fixture.database.begin_replay().unwrap(), fixture.database.begin_replay().unwrap()), (1, 2));
    }

    fn what_fails_within_a_transaction_is_undone(new) {
        let mut fixture = new();
        let (job, run) = fixture.finished();
        let store = &fixture.store;
        // There is no job for the note to be on.
        assert!(store.enter(999, run, "commit", "run", "goes on").is_err());
        assert_eq!(store.runs(job).unwrap()[0].stage, "stamped");
        assert!(store.commit(job, run, State::Merged, None).unwrap(), "and the connection can be used");
    }

    /// A job with the number of one that was merged would be taken for merged. Seen to fail with a file where neither the
    /// newest job nor the newest run is kept.
    fn no_number_of_a_forgotten_job_is_given_again(new) {
        let mut fixture = new();
        let mut last = 0;
        for _ in 0..3 {
            let (job, run) = fixture.finished();
            fixture.store.act(job, run, Effect::Merge, None).unwrap();
            assert!(fixture.store.commit(job, run, State::Merged, None).unwrap());
            fixture.store.end_run(run, Outcome::Committed).unwrap();
            last = job;
        }
        assert_eq!(fixture.store.expire(u64::MAX >> 1, 100).unwrap(), [last - 2, last - 1]);
        let next = fixture.store.enqueue().unwrap();
        assert!(next > last);
        assert_eq!(fixture.store.acted(next).unwrap(), None);
    }

    /// A displaced monitor that is still at work writes to its run's row.
    fn a_job_stays_while_a_monitor_is_at_it(new) {
        let mut fixture = new();
        let (job, run) = fixture.finished();
        assert!(fixture.store.commit(job, run, State::Reaped, None).unwrap());
        fixture.finished();
        assert_eq!(fixture.store.expire(u64::MAX >> 1, 100).unwrap(), [0; 0]);
        fixture.store.end_run(run, Outcome::Displaced).unwrap();
        assert_eq!(fixture.store.expire(u64::MAX >> 1, 100).unwrap(), [job]);
    }

    fn a_store_that_is_there_is_recognized(new) {
        let mut fixture = new();
        let (job, _) = fixture.finished();
        let again = fixture.again().unwrap();
        assert_eq!(again.store(QUEUE).unwrap().state(job).unwrap(), State::Running);
    }
}

#[test]
fn a_file_is_created_once_and_recognised_later() {
    let mut fixture = Fixture::in_a_file();
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
fn an_overview_reads_no_job_that_has_ended() {
    let fixture = Fixture::in_a_file();
    let plan = |sql: &str| -> String {
        let raw = Connection::open(fixture.database.path().unwrap()).unwrap();
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

/// What only several processes, or a server, can do.
#[cfg(feature = "cluster")]
mod on_a_server {
    use orchestrator::error::Error;

    use super::*;
    use crate::engines::Server;

    /// The call that finds the connection broken fails, and it is not known what became of it.
    #[test]
    fn after_a_restart_the_next_call_but_one_works() {
        let Some(mut server) = Server::start() else { return };
        let mut fixture = server.fixture();
        let (job, run) = fixture.finished();
        server.kill();
        let failed = |done: orchestrator::error::Result<bool>| {
            assert!(matches!(done, Err(Error::Unreachable { .. })), "{done:?}");
        };
        failed(fixture.store.commit(job, run, State::Merged, None));
        failed(fixture.store.act(job, run, Effect::Merge, Some(1)));
        server.restart();
        assert!(fixture.store.commit(job, run, State::Merged, None).unwrap(), "a new connection is made");

        server.kill();
        server.restart();
        failed(fixture.store.act(job, run, Effect::Merge, Some(1)));
        assert_eq!(fixture.store.start_next().unwrap(), None);
        assert_eq!(fixture.store.state(job).unwrap(), State::Merged);
        let gone = Database::postgres("host=127.0.0.1 port=1 user=postgres", None).unwrap_err();
        assert!(matches!(gone, Error::Unreachable { .. }), "{gone}");
    }

    #[test]
    fn tables_of_others_and_of_later_versions_are_left_as_they_are() {
        let Some(server) = Server::start() else { return };
        let config = server.config();
        // Many at a time, one of which creates them.
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| Database::postgres(&config, None).unwrap());
            }
        });
        let database = Database::postgres(&config, None).unwrap();
        assert_eq!(database.to_string(), format!("{}, schema orchestrator", config.replace("postgres@", "")));
        assert!(database.path().is_none());

        let mut client = postgres::Client::connect(&config, postgres::NoTls).unwrap();
        // Who finds them right waits for nobody.
        let mut migrating = client.transaction().unwrap();
        migrating.batch_execute("SELECT pg_advisory_xact_lock(1819700587, hashtext('orchestrator'))").unwrap();
        Database::postgres(&config, None).unwrap();
        drop(migrating);
        client.batch_execute("UPDATE orchestrator.orchestrator_version SET version = 99").unwrap();
        let error = Database::postgres(&config, None).unwrap_err();
        assert!(matches!(error, Error::TooNew { found: 99, .. }), "{error}");
        client.batch_execute("CREATE SCHEMA other; CREATE TABLE other.jobs (id INT)").unwrap();
        let error = Database::postgres(&config, Some("other")).unwrap_err();
        assert!(matches!(error, Error::ForeignTables(_)), "{error}");
        // A schema that somebody has made for us is none of theirs.
        client.batch_execute("CREATE SCHEMA \"Our own\"").unwrap();
        Database::postgres(&config, Some("Our own")).unwrap().store(QUEUE).unwrap().enqueue().unwrap();
    }

    /// Seen to fail without the bound on what is read: the second note was told, and the first one never.
    #[test]
    fn who_reads_on_misses_no_note_that_was_committed_late() {
        let Some(server) = Server::start() else { return };
        let fixture = server.fixture();
        let mut client = postgres::Client::connect(&server.config(), postgres::NoTls).unwrap();
        client.batch_execute("SET search_path TO store_0").unwrap();
        let mut slow = client.transaction().unwrap();
        let first = "INSERT INTO notes (queue, at, who, what) VALUES ('test', 0, 'slow', 'first')";
        slow.batch_execute(first).unwrap();
        fixture.store.note(None, "quick", "second").unwrap();
        let told = |after| {
            let which = Which { after: Some(after), ..Which::default() };
            fixture.store.history(&which, 10).unwrap().into_iter().map(|note| note.what).collect::<Vec<_>>()
        };
        assert_eq!(told(0), [""; 0]);
        slow.commit().unwrap();
        assert_eq!(told(0), ["second", "first"]);
    }

    /// Changes of the tallies are appended, and do not pile up.
    #[test]
    fn tallies_are_folded_and_stay_right() {
        let Some(server) = Server::start() else { return };
        let mut fixture = server.fixture();
        fixture.store.submit("default", 1200).unwrap();
        at_once(&fixture.database, |_, store| {
            while let Some((job, run)) = store.start_next().unwrap() {
                assert!(store.commit(job, run, State::Merged, None).unwrap());
            }
        });
        assert_eq!(fixture.store.counts().unwrap()[&State::Merged], 1200);
        let left = fixture.raw("DELETE FROM tallies").unwrap();
        assert!(left < 700, "{left}");
    }

    /// A process that is stopped in the middle of starting a job holds up no other one.
    #[test]
    fn a_job_that_is_being_started_is_passed_over() {
        let Some(server) = Server::start() else { return };
        let mut fixture = server.fixture();
        let jobs = fixture.store.submit("default", 2).unwrap();
        let mut client = postgres::Client::connect(&server.config(), postgres::NoTls).unwrap();
        let mut other = client.transaction().unwrap();
        other.batch_execute("UPDATE store_0.jobs SET state = 'running' WHERE id = 1").unwrap();
        assert_eq!(fixture.store.start_next().unwrap().map(|(job, _)| job), Some(jobs[1]));
        assert_eq!(fixture.store.start_next().unwrap(), None);
        drop(other);
        assert_eq!(fixture.store.start_next().unwrap().map(|(job, _)| job), Some(jobs[0]));
    }
}
