//! The SQL of the guide runs as it stands, in its order, on the SQLite that this package is built with.

#![allow(clippy::unwrap_used, reason = "a test")]

use rusqlite::{Connection, ToSql};

const PAGE: &str = include_str!("../../../src/docs/embedding.md");

/// The statements of the page.
fn statements() -> Vec<&'static str> {
    PAGE.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

/// Runs a statement for job 7. Returns how many rows it changed, or found.
fn run(db: &Connection, sql: &str, run: i64, new: i64) -> usize {
    let mut statement = db.prepare(sql).unwrap();
    let values: [(&str, &dyn ToSql); 3] = [(":job", &7), (":run", &run), (":new", &new)];
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
    let [schema, stamp, commit, list, redrive, redrive_with_a_deadline_of_its_own, requeue] = statements()[..] else {
        panic!("another number of statements: {:#?}", statements());
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
