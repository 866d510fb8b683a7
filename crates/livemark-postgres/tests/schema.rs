//! What the functions of the schema promise by themselves: under locks of others, in other isolation levels, and after a crash.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::{Duration, Instant};

use livemark_cluster::{Engine, EngineError, If, Lease, Session, Watch, Written};
use livemark_postgres::{ConnectError, Postgres, SCHEMA};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, IsolationLevel, NoTls};

use support::{Server, run, session};

/// For how long something is awaited that must come.
const LONG: Duration = Duration::from_secs(30);

async fn put(engine: &Postgres, key: &str, lease: Option<Lease>) -> u64 {
    match engine.put(key, vec![], lease, If::Any).await {
        Ok(Written::Done(revision)) => revision,
        other => panic!("it was not written: {other:?}"),
    }
}

async fn count(client: &Client, what: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM livemark.rows WHERE {what}"), &[]).await.unwrap().get(0)
}

/// Somebody's transaction has written a mark and goes on, while a worker is started whose program migrates first. Seen to fail
/// with `CREATE INDEX IF NOT EXISTS`: it waits for that transaction, and whoever writes waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_finds_all_there_waits_for_nobody() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    let mut other = server.client().await;
    let open = other.transaction().await.unwrap();
    open.batch_execute("SELECT livemark.put('jobs', 'm/1', '', NULL, 0, NULL)").await.unwrap();
    let migrated = timeout(LONG, Postgres::migrate(&server.config(), NoTls)).await;
    assert_eq!(migrated.expect("it waits"), Ok(()));
    // Those who have migrations of their own run it as it is.
    let own = server.client().await;
    timeout(LONG, own.batch_execute(SCHEMA)).await.expect("it waits").unwrap();
    put(&engine, "m/2", None).await;
    open.commit().await.unwrap();
}

/// An index is to be made while somebody's transaction has written a mark. Seen to fail with a migration that waits for as long
/// as that takes, with all writers behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_gives_up_rather_than_block_all_writers() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    let mut other = server.client().await;
    other.batch_execute("DROP INDEX livemark.rows_gone").await.unwrap();
    let open = other.transaction().await.unwrap();
    open.batch_execute("SELECT livemark.put('jobs', 'm/1', '', NULL, 0, NULL)").await.unwrap();
    let migrated = timeout(LONG, Postgres::migrate(&server.config(), NoTls)).await.expect("it waits");
    assert!(migrated.is_err(), "{migrated:?}");
    let own = server.client().await;
    let refused = timeout(LONG, own.batch_execute(SCHEMA)).await.expect("it waits").unwrap_err();
    assert_eq!(refused.code().map(|code| code.code()), Some("55P03"), "{refused}");
    put(&engine, "m/2", None).await;
    open.commit().await.unwrap();
    Postgres::migrate(&server.config(), NoTls).await.unwrap();
    let there = own.query_one("SELECT to_regclass('livemark.rows_gone') IS NOT NULL", &[]).await.unwrap();
    assert!(there.get::<_, bool>(0));
    own.batch_execute(SCHEMA).await.unwrap();
    let limit = own.query_one("SHOW lock_timeout", &[]).await.unwrap();
    assert_eq!(limit.get::<_, String>(0), "0", "the connection has its own settings");
}

/// One mark of a process that is gone is locked by somebody, for a long time. Seen to fail with leases that end all together or
/// not at all: the jobs of all other processes that are gone stay taken, and nothing is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_is_locked_keeps_no_other_lease() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    engine.list().await.unwrap();
    let mut client = server.client().await;
    for at in 0..6 {
        let lease = engine.grant(Duration::from_secs(600)).await.unwrap().lease;
        put(&engine, &format!("m/{at}"), Some(lease)).await;
    }
    put(&engine, "m/old", None).await;
    let Ok(Written::Done(gone)) = engine.delete("m/old", If::Any).await else { panic!("it was there") };
    let mut watch = engine.watch(engine.list().await.unwrap().whole).await.unwrap();
    // What is not whole is not forgotten, and whoever locks a row keeps what is later from being whole.
    while watch.next().await.unwrap().whole < gone {
        put(&engine, "t/1", None).await;
    }
    client
        .batch_execute(
            "UPDATE livemark.rows SET changed = changed - interval '1 hour' WHERE key = 'm/old'; \
             UPDATE livemark.rows SET expires = clock_timestamp(), ttl = '0 s' WHERE expires IS NOT NULL",
        )
        .await
        .unwrap();
    let locked = client.transaction().await.unwrap();
    locked.batch_execute("SELECT 1 FROM livemark.rows WHERE key = 'm/3' FOR UPDATE").await.unwrap();
    let other = server.client().await;
    let began = Instant::now();
    while count(&other, "key LIKE 'm/%' AND value IS NOT NULL").await > 1 || count(&other, "key = 'm/old'").await > 0 {
        assert!(began.elapsed() < LONG, "they stay");
        put(&engine, "t/1", None).await;
        let _ = watch.next().await;
    }
    locked.rollback().await.unwrap();
    while count(&other, "key LIKE 'm/%' AND value IS NOT NULL").await > 0 {
        assert!(began.elapsed() < 2 * LONG, "it stays");
        put(&engine, "t/1", None).await;
        let _ = watch.next().await;
    }
}

/// A process of the server's dies, so that the server cuts all connections and recovers, with the same postmaster. It takes
/// longer than a TTL, as it seems to this test's lease. Seen to fail with leases that have their time again after a start of
/// the postmaster only: all end at once.
#[tokio::test(flavor = "multi_thread")]
async fn leases_have_their_time_again_after_a_crash_of_one_process() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    engine.list().await.unwrap();
    let ttl = Duration::from_secs(2);
    let lease = engine.grant(ttl).await.unwrap().lease;
    put(&engine, "m/1", Some(lease)).await;
    // Longer than its TTL after the start.
    for _ in 0..10 {
        sleep(ttl / 5).await;
        engine.renew(lease).await.unwrap();
    }
    let client = server.client().await;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let end = "UPDATE livemark.rows SET expires = expires - interval '1 minute' WHERE expires IS NOT NULL";
    let other = server.client().await;
    let before: String = client.query_one("SELECT pg_postmaster_start_time()::text", &[]).await.unwrap().get(0);
    client.batch_execute(end).await.unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let began = Instant::now();
    while other.batch_execute("SELECT 1").await.is_ok() {
        assert!(began.elapsed() < LONG, "nobody notices");
        sleep(Duration::from_millis(5)).await;
    }
    server.await_ready().await;
    while engine.list().await.is_err() {
        assert!(began.elapsed() < 2 * LONG, "it does not come back");
        sleep(Duration::from_millis(20)).await;
    }
    let client = server.client().await;
    let after: String = client.query_one("SELECT pg_postmaster_start_time()::text", &[]).await.unwrap().get(0);
    assert_eq!(before, after);
    assert_eq!(engine.renew(lease).await, Ok(ttl), "it has its time again");
    assert!(engine.get("m/1").await.unwrap().is_some());
    // And no more than that.
    let began = Instant::now();
    while engine.get("m/1").await.unwrap().is_some() {
        assert!(began.elapsed() < LONG, "it stays");
        engine.list().await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
}

/// The epoch is bumped while a transaction is open that has a snapshot from before, and marks in the old one. Seen to fail with
/// an epoch that is read as the transaction's snapshot has it: the mark is made, with a token below those of the new epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_an_old_snapshot_marks_in_no_old_epoch() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    let bumps = server.client().await;
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable, IsolationLevel::ReadCommitted] {
        for round in 0..2 {
            let lease = engine.grant(Duration::from_secs(600)).await.unwrap().lease;
            let epoch = engine.get("epoch").await.unwrap().map_or(0, |row| i64::try_from(row.revision).unwrap());
            let mut client = server.client().await;
            let old = client.build_transaction().isolation_level(level).start().await.unwrap();
            old.batch_execute("SELECT count(*) FROM livemark.rows").await.unwrap();
            bumps.batch_execute("SELECT livemark.bump_epoch('jobs')").await.unwrap();
            let put =
                format!("SELECT outcome FROM livemark.put('jobs', 'm/{level:?}{round}', '', {}, 0, {epoch})", lease.0);
            match old.query_one(&put, &[]).await {
                Ok(row) => {
                    assert!(matches!(level, IsolationLevel::ReadCommitted), "it is {}", row.get::<_, &str>(0));
                    assert_eq!(row.get::<_, &str>(0), "new epoch");
                }
                Err(error) => assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{error}"),
            }
            drop(old);
            // Whoever began later goes on.
            let epoch = engine.get("epoch").await.unwrap().map_or(0, |row| i64::try_from(row.revision).unwrap());
            let new = client.build_transaction().isolation_level(level).start().await.unwrap();
            let put =
                format!("SELECT outcome FROM livemark.put('jobs', 'm/{level:?}{round}', '', {}, 0, {epoch})", lease.0);
            assert_eq!(new.query_one(&put, &[]).await.unwrap().get::<_, &str>(0), "done");
            new.commit().await.unwrap();
        }
    }
}

/// A transaction of somebody's has marked and goes on: the epoch stands still until it is over. Seen to fail with a bump that
/// waits for as long as that takes, while nobody else marks.
#[tokio::test(flavor = "multi_thread")]
async fn a_bump_that_must_wait_gives_up() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    let mut other = server.client().await;
    let open = other.transaction().await.unwrap();
    open.batch_execute("SELECT livemark.put('jobs', 'm/1', '', NULL, 0, 0)").await.unwrap();
    let bumps = server.client().await;
    let bump = bumps.query_one("SELECT livemark.bump_epoch('jobs')", &[]);
    let refused = timeout(LONG, bump).await.expect("it waits").unwrap_err();
    assert_eq!(refused.code().map(|code| code.code()), Some("55P03"), "{refused}");
    let written = engine.put_in_epoch("m/2", vec![], None, If::Absent, If::Absent).await;
    assert!(matches!(written, Ok(Written::Done(_))), "{written:?}");
    open.commit().await.unwrap();
    bumps.query_one("SELECT livemark.bump_epoch('jobs')", &[]).await.unwrap();
}

/// The rows were restored without the sequence, as by a logical replica. Seen to fail with a sequence that goes on where it is:
/// a session opens, and nobody hears of what is marked. And with a bump that leaves it there.
#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_is_behind_the_rows_is_found_and_mended() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    let mut last = 0;
    for at in 0..50 {
        last = put(&engine, &format!("m/{at}"), None).await;
    }
    let client = server.client().await;
    client.batch_execute("SELECT setval('livemark.revisions', 3)").await.unwrap();
    let restored = server.engine("jobs").await;
    assert_eq!(restored.list().await, Err(EngineError::Restored));
    client.batch_execute("SELECT livemark.bump_epoch('jobs')").await.unwrap();
    let a: Session = Session::open(restored.clone(), session("a")).await.unwrap();
    let guard = a.mark(1000, run(1)).await.unwrap();
    assert!(guard.token().get() & 0xffff_ffff_ffff > last, "{} and {last}", guard.token());
    let b: Session = Session::open(server.engine("jobs").await, session("b")).await.unwrap();
    b.view().barrier().await.unwrap();
    assert!(b.view().registry().is_active(&1000));
}

/// Somebody's transaction stays open, so that nothing is whole beyond it. Seen to fail with polls that read all that is not whole
/// each time.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_horizon_is_read_once() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    let (mut other, client) = (server.client().await, server.client().await);
    let open = other.transaction().await.unwrap();
    open.batch_execute("SELECT livemark.put('jobs', 'm/open', '', NULL, 0, NULL)").await.unwrap();
    for at in 0..100 {
        put(&engine, &format!("m/{at}"), None).await;
    }
    let read = async |snapshot: Option<&str>| -> (Vec<String>, String) {
        let statement = "SELECT key, taken FROM livemark.changes('jobs', 0, 0, NULL, false, $1)";
        let rows = client.query(statement, &[&snapshot]).await.unwrap();
        let keys = rows.iter().filter_map(|row| row.get(0)).collect();
        (keys, rows[0].get(1))
    };
    let (first, snapshot) = read(None).await;
    assert_eq!(first.len(), 100);
    put(&engine, "m/7", None).await;
    engine.delete("m/8", If::Any).await.unwrap();
    let lease = engine.grant(Duration::from_secs(600)).await.unwrap().lease;
    put(&engine, "m/leased", Some(lease)).await;
    let (mut second, snapshot) = read(Some(&snapshot)).await;
    second.sort_unstable();
    assert_eq!(second, ["m/7", "m/8", "m/leased"]);
    engine.revoke(lease).await.unwrap();
    open.commit().await.unwrap();
    let (mut third, _) = read(Some(&snapshot)).await;
    third.sort_unstable();
    assert_eq!(third, ["m/leased", "m/open"], "what was still to come is read when it comes");
}

/// What the docs tell operators to run finds the transaction that is in the way.
#[tokio::test(flavor = "multi_thread")]
async fn operators_find_what_holds_the_horizon() {
    let Some(server) = Server::start(&["max_prepared_transactions=5"]).await else { return };
    let (mut other, client) = (server.client().await, server.client().await);
    let statement = |begin: &str| {
        let docs = include_str!("../src/lib.rs").lines().filter_map(|line| line.strip_prefix("//! "));
        docs.filter(|line| line.starts_with(begin)).map(str::to_owned).next().unwrap()
    };
    let pid: i32 = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let open = other.transaction().await.unwrap();
    open.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
    let found = client.query(&statement("SELECT pid, "), &[]).await.unwrap();
    assert_eq!(found.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>(), [pid]);
    client.batch_execute("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'forgotten'").await.unwrap();
    let found = client.query(&statement("SELECT gid, "), &[]).await.unwrap();
    assert_eq!(found.iter().map(|row| row.get::<_, &str>(0)).collect::<Vec<_>>(), ["forgotten"]);
}

/// A database with the first version of the schema, in which there are marks. Seen to fail with a schema that makes a table as it
/// should be only where there is none.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_version_is_brought_up_to_date() {
    let Some(server) = Server::start(&[]).await else { return };
    let client = server.client().await;
    let first = "CREATE SCHEMA livemark; CREATE SEQUENCE livemark.revisions; CREATE TABLE livemark.rows ( \
                 namespace text COLLATE \"C\" NOT NULL, key text COLLATE \"C\" NOT NULL, revision bigint NOT NULL, value bytea, \
                 lease bigint, expires timestamptz, ttl interval, changed timestamptz NOT NULL DEFAULT clock_timestamp(), \
                 PRIMARY KEY (namespace, key)); \
                 CREATE FUNCTION livemark.version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'; \
                 INSERT INTO livemark.rows (namespace, key, revision, value) \
                 SELECT 'jobs', 'm/7', nextval('livemark.revisions'), 'x';";
    client.batch_execute(first).await.unwrap();
    let engine = server.engine("jobs").await;
    let listing = engine.list().await.unwrap();
    assert_eq!((listing.rows.len(), listing.rows[0].0.as_str()), (1, "m/7"));
    assert!(put(&engine, "m/7", None).await > listing.revision);
    client
        .batch_execute(
            "CREATE OR REPLACE FUNCTION livemark.version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 99'",
        )
        .await
        .unwrap();
    let later = Postgres::migrate(&server.config(), NoTls).await;
    assert_eq!(later, Err(ConnectError::Schema { found: Some(99) }), "a later one is left as it is");
}
