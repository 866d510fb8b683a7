//! The SQL of the guide runs as it stands, in its order, on the SQLite that this package is built with.

#![allow(clippy::unwrap_used, reason = "a test")]

use rusqlite::{Connection, ToSql};

const EMBEDDING: &str = include_str!("../../../src/docs/embedding.md");
const PROCESSES: &str = include_str!("../../../src/docs/processes.md");

/// The statements of a page.
fn statements(page: &'static str) -> Vec<&'static str> {
    page.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

/// Runs a statement for job 7. Returns how many rows it changed, or found.
fn run(db: &Connection, sql: &str, run: i64, new: i64) -> usize {
    run_in(db, sql, "", run, new)
}

/// Runs a statement for job 7 in an instance of the program. Returns how many rows it changed, or found.
fn run_in(db: &Connection, sql: &str, instance: &str, run: i64, new: i64) -> usize {
    let mut statement = db.prepare(sql).unwrap();
    let values: [(&str, &dyn ToSql); 4] = [(":job", &7), (":run", &run), (":new", &new), (":instance", &instance)];
    for (name, value) in values {
        if let Some(index) = statement.parameter_index(name).unwrap() {
            statement.raw_bind_parameter(index, value).unwrap();
        }
    }
    if statement.column_count() > 0 {
        let mut rows = statement.raw_query();
        return std::iter::from_fn(|| rows.next().unwrap().map(|_| ())).count();
    }
    statement.raw_execute().unwrap()
}

#[test]
fn every_statement_of_the_guide_compares_and_sets() {
    let [schema, stamp, commit, list, redrive, redrive_with_a_deadline_of_its_own, requeue] = statements(EMBEDDING)[..]
    else {
        panic!("another number of statements: {:#?}", statements(EMBEDDING));
    };
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(schema).unwrap();
    let started =
        "INSERT INTO jobs (id, stage, state, run_id, started_at) VALUES (7, 'merge', 'running', 1, unixepoch() - 400)";
    db.execute_batch(started).unwrap();
    let row = || {
        let sql = "SELECT run_id, redrives, unixepoch() - started_at, unixepoch() - finished_at FROM jobs";
        db.query_row(sql, [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, Option<i64>>(3)?))
        })
        .unwrap()
    };

    assert_eq!(run(&db, list, 0, 0), 1);
    assert_eq!(row().3, None, "not finished");
    assert_eq!((run(&db, stamp, 2, 0), run(&db, stamp, 1, 0)), (0, 1), "by its run only");
    db.execute_batch("UPDATE jobs SET finished_at = unixepoch() - 310").unwrap();

    assert_eq!((run(&db, redrive, 1, 2), run(&db, redrive, 1, 3)), (1, 0), "a second reaper is refused");
    let (now, redrives, running_for, finished_for) = row();
    assert_eq!((now, redrives), (2, 1));
    assert!(running_for >= 400, "one deadline for all runs");
    assert!(finished_for.unwrap() < 300, "the stamp begins anew");

    assert_eq!(run(&db, redrive_with_a_deadline_of_its_own, 2, 3), 1);
    let (now, redrives, running_for, finished_for) = row();
    assert_eq!((now, redrives), (3, 2));
    assert!(running_for < 300 && finished_for.unwrap() < 300);

    assert_eq!((run(&db, commit, 1, 0), run(&db, commit, 2, 0), run(&db, commit, 3, 0)), (0, 0, 1));
    assert_eq!((run(&db, commit, 3, 0), run(&db, list, 0, 0)), (0, 0), "once");
    assert_eq!(run(&db, requeue, 0, 0), 0, "it is done");
    db.execute_batch("UPDATE jobs SET state = 'running'").unwrap();
    assert_eq!(run(&db, requeue, 0, 0), 1);
}

#[test]
fn several_processes_judge_their_own_rows_and_those_of_the_dead() {
    let [instances, begin, renew, jobs, start, list, redrive, requeue] = statements(PROCESSES)[..] else {
        panic!("another number of statements: {:#?}", statements(PROCESSES));
    };
    let [_, stamp, commit, ..] = statements(EMBEDDING)[..] else { panic!("the page has a stamp and a commit") };
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(instances).unwrap();
    db.execute_batch(jobs).unwrap();
    db.execute_batch("INSERT INTO jobs (id, stage) VALUES (7, 'merge')").unwrap();
    let end_lease = |instance: &str| {
        let sql = "UPDATE instances SET lease_until = unixepoch() - 20 WHERE id = ?1";
        assert_eq!(db.execute(sql, [instance]).unwrap(), 1);
    };

    for instance in ["a", "b", "c"] {
        assert_eq!(run_in(&db, begin, instance, 0, 0), 1);
    }
    assert_eq!((run_in(&db, start, "a", 0, 1), run_in(&db, start, "b", 0, 2)), (1, 0), "one of them starts it");
    assert_eq!(["a", "b"].map(|instance| run_in(&db, list, instance, 0, 0)), [1, 0], "each lists its own");
    assert_eq!(run(&db, stamp, 1, 0), 1);
    assert_eq!(run_in(&db, renew, "a", 0, 0), 1);

    end_lease("a");
    assert_eq!(run_in(&db, renew, "a", 0, 0), 0, "a lease that ran out stays run out");
    assert_eq!(["b", "c"].map(|instance| run_in(&db, list, instance, 0, 0)), [1, 1], "all list those of the dead");
    let lost_for = || {
        let mut statement = db.prepare(list).unwrap();
        statement.query_row([(":instance", "b")].as_slice(), |row| row.get::<_, Option<i64>>("lost_for")).unwrap()
    };
    assert!(lost_for().unwrap() >= 20);
    assert_eq!((run_in(&db, redrive, "b", 1, 2), run_in(&db, redrive, "c", 1, 3)), (1, 0), "one of them redrives it");
    assert_eq!(lost_for(), None, "its own by now");
    assert_eq!(["a", "b", "c"].map(|instance| run_in(&db, list, instance, 0, 0)), [0, 1, 0]);
    assert_eq!(run(&db, commit, 1, 0), 0, "the run that was given up commits nothing");

    end_lease("b");
    assert_eq!(run(&db, requeue, 0, 0), 0, "a finished job is redriven instead");
    db.execute_batch("UPDATE jobs SET finished_at = NULL").unwrap();
    assert_eq!(run(&db, requeue, 0, 0), 1);
    assert_eq!(run_in(&db, start, "c", 0, 4), 1);
    assert_eq!(run(&db, requeue, 0, 0), 0, "not from an instance that is alive");
    assert_eq!(run(&db, commit, 4, 0), 1);
}
