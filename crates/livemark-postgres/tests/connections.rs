//! Which connections there are, what waits for which, and what becomes of one that is slow.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::{Duration, Instant};

use livemark_cluster::{Engine, EngineError, If, MarkError, Session, Written};
use livemark_postgres::{ConnectError, HoldError, Options, Postgres};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;

use support::{Server, config, run, session};

/// For how long something is awaited that must come.
const LONG: Duration = Duration::from_secs(30);

/// Two marks are locked by somebody, and are waited for on two connections. Seen to fail with connections that are taken in
/// turn: a third mark waits behind one of them.
#[tokio::test(flavor = "multi_thread")]
async fn marks_that_are_locked_keep_no_other_from_being_made() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    let mut client = server.client().await;
    // For as long as this test takes.
    client
        .batch_execute(
            "ALTER FUNCTION livemark.put(text, text, bytea, bigint, bigint, bigint) SET lock_timeout = '10min'",
        )
        .await
        .unwrap();
    for at in 0..3 {
        engine.put(&format!("m/{at}"), vec![], None, If::Absent).await.unwrap();
    }
    let locked = client.transaction().await.unwrap();
    locked.batch_execute("SELECT 1 FROM livemark.rows WHERE key LIKE 'm/%' FOR UPDATE").await.unwrap();
    let waits: Vec<_> = (0..3)
        .map(|at| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.put(&format!("m/{at}"), vec![], None, If::Any).await })
        })
        .collect();
    let other = server.client().await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let began = Instant::now();
    while other.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) < 2 {
        assert!(began.elapsed() < LONG, "nobody waits");
        sleep(Duration::from_millis(20)).await;
    }
    for at in 10..20 {
        let written = timeout(LONG, engine.put(&format!("m/{at}"), vec![], None, If::Absent)).await;
        assert!(matches!(written.expect("it waits"), Ok(Written::Done(_))));
    }
    assert!(waits.iter().all(|wait| !wait.is_finished()));
    locked.rollback().await.unwrap();
    for wait in waits {
        assert!(matches!(wait.await.unwrap(), Ok(Written::Done(_))));
    }
}

/// A port at which connections take a second to be made.
async fn slow_to_connect(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                sleep(Duration::from_secs(1)).await;
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    at
}

/// A connection takes longer to be made than whoever needs it waits. Seen to fail with connections that are made by whoever
/// waits for them, and are lost with it: there never is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_made_though_nobody_waits_for_so_long() {
    let Some(server) = Server::start(&[]).await else { return };
    Postgres::migrate(&server.config(), NoTls).await.unwrap();
    let engine = support::engine(config(slow_to_connect(server.port).await), "jobs").await;
    let began = Instant::now();
    while timeout(Duration::from_millis(400), engine.grant(Duration::from_secs(60))).await.is_err() {
        assert!(began.elapsed() < LONG, "it never connects");
    }
}

/// Seen to fail with a replica that is connected to: the first call fails, without a word of why.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_told_of() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    let replica = Server::follow(server.port).await;
    let began = Instant::now();
    loop {
        let connected = Postgres::connect(replica.config(), NoTls, "jobs", Options::default()).await.map(drop);
        match connected {
            // It has not heard of the schema yet.
            Err(ConnectError::Schema { found: None }) => assert!(began.elapsed() < LONG),
            connected => {
                assert_eq!(connected, Err(ConnectError::ReadOnly));
                break;
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
    // It was one that takes writes when it was connected to.
    let client = server.client().await;
    client.batch_execute("ALTER ROLE postgres SET default_transaction_read_only = on").await.unwrap();
    let written = engine.put("m/1", vec![], None, If::Absent).await;
    assert!(matches!(written, Err(EngineError::ReadOnly(_))), "{written:?}");
}

/// Seen to fail with a mark that is made over whatever is there.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_mark_is_not_taken_over_in_a_transaction() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, postgres) = (server.open("a").await, server.engine("jobs").await);
    postgres.put("m/7", b"somebody else's".to_vec(), None, If::Absent).await.unwrap();
    let is_foreign = |error: &MarkError| matches!(error, MarkError::Foreign { key } if key == "m/7");
    let marked = a.mark(7, run(1)).await.map(drop);
    assert!(marked.as_ref().is_err_and(is_foreign), "{marked:?}");
    let mut client = server.client().await;
    for takes_over in [true, false] {
        let transaction = client.transaction().await.unwrap();
        let marked = if takes_over {
            postgres.mark_in(&transaction, &a, 7, run(1)).await.map(drop)
        } else {
            postgres.try_mark_in(&transaction, &a, 7, run(1)).await.map(drop)
        };
        assert!(matches!(&marked, Err(HoldError::Mark(error)) if is_foreign(error)), "{marked:?}");
        transaction.rollback().await.unwrap();
    }
    assert_eq!(postgres.get("m/7").await.unwrap().map(|row| row.value), Some(b"somebody else's".to_vec()));
}

/// PostgreSQL's text has no NUL. Seen to fail with the server's own words, which say nothing of a job, and with a statement that
/// breaks the caller's transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_written_is_told_of() {
    let Some(server) = Server::start(&[]).await else { return };
    let postgres = server.engine("jobs").await;
    let a: Session<String, String> = Session::open(postgres.clone(), session("a")).await.unwrap();
    let job = "a\0b".to_owned();
    let is_told = |error: &MarkError| matches!(error, MarkError::Denied(why) if why.contains("NUL"));
    let marked = a.mark(job.clone(), String::new()).await.map(drop);
    assert!(marked.as_ref().is_err_and(is_told), "{marked:?}");
    let mut client = server.client().await;
    let transaction = client.transaction().await.unwrap();
    let marked = postgres.try_mark_in(&transaction, &a, job, String::new()).await.map(drop);
    assert!(matches!(&marked, Err(HoldError::Mark(error)) if is_told(error)), "{marked:?}");
    transaction.query("SELECT 1", &[]).await.unwrap();
    let named = Postgres::connect(server.config(), NoTls, "a\0b", Options::default()).await.map(drop);
    assert_eq!(named, Err(ConnectError::Namespace));
}
