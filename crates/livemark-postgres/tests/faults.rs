//! What goes wrong between processes and a real PostgreSQL, and what becomes of marks, beliefs and commits then.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use livemark_cluster::{ClusterGuard, Engine as _, If, Loss, Session, Standing, TryMarkError, Watch as _};
use livemark_postgres::{ConnectError, HoldError, Options, Postgres};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, IsolationLevel, NoTls};

use support::proxy::Proxy;
use support::{Server, TTL, config, engine, run, session, until};

async fn open_through(proxy: &Proxy, name: &str) -> Session {
    Session::open(engine(config(proxy.port()), "jobs").await, session(name)).await.unwrap()
}

async fn held_again(session: &Session, guard: &ClusterGuard) {
    until("it is held again", || {
        assert_eq!(session.standing().loss(), None);
        guard.is_current()
    })
    .await;
}

/// A table of jobs, with the two statements that fence.
async fn jobs(server: &Server, count: i32) -> Client {
    let client = server.client().await;
    let create = format!(
        "CREATE TABLE jobs (id int PRIMARY KEY, state text NOT NULL DEFAULT 'running', fence bigint NOT NULL DEFAULT 0, \
         finished_at timestamptz, commits int NOT NULL DEFAULT 0); \
         INSERT INTO jobs (id) SELECT generate_series(0, {count} - 1);"
    );
    client.batch_execute(&create).await.unwrap();
    client
}

async fn take(client: &Client, job: i32, guard: &ClusterGuard) -> bool {
    let token = i64::try_from(guard.token().get()).unwrap();
    let take = "UPDATE jobs SET fence = $2 WHERE id = $1 AND state = 'running' AND fence < $2";
    client.execute(take, &[&job, &token]).await.unwrap() == 1
}

async fn commit(client: &Client, job: i32, guard: &ClusterGuard) -> bool {
    let token = i64::try_from(guard.token().get()).unwrap();
    let commit =
        "UPDATE jobs SET state = 'done', commits = commits + 1 WHERE id = $1 AND state = 'running' AND fence = $2";
    client.execute(commit, &[&job, &token]).await.unwrap() == 1
}

/// The server crashes, and comes again in time and after the TTL: nobody could renew meanwhile. Seen to fail with leases whose
/// time goes on without the server.
#[tokio::test(flavor = "multi_thread")]
async fn marks_outlive_a_server_that_crashes() {
    let Some(mut server) = Server::start(&[]).await else { return };
    let (a, b) = (server.open("a").await, server.open("b").await);
    let guard = a.mark(7, run(1)).await.unwrap();
    server.kill();
    sleep(Duration::from_millis(500)).await;
    server.launch();
    server.await_ready().await;
    held_again(&a, &guard).await;
    until("the other hears of it", || b.view().registry().is_active(&7)).await;
    assert!(guard.check().await.unwrap());

    server.kill();
    until("it doubts", || !guard.is_current()).await;
    sleep(TTL).await;
    server.launch();
    server.await_ready().await;
    held_again(&a, &guard).await;
    assert!(guard.check().await.unwrap());

    // A process that died meanwhile has its time again as well, and no more.
    server.kill();
    a.abandon();
    sleep(TTL).await;
    server.launch();
    server.await_ready().await;
    until("the other is held again", || matches!(b.standing(), Standing::Held { .. })).await;
    let took = until("it is free", || !b.view().registry().is_active(&7)).await;
    assert!(took > TTL / 2 && took < 3 * TTL, "{took:?}");
    until("it has settled", || !b.view().is_settling(&7)).await;
    assert!(b.try_mark(7, run(2)).await.unwrap().token() > guard.token());
}

/// Seen to fail with a client that waits for a dead connection.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_dead_are_replaced() {
    let Some(server) = Server::start(&[]).await else { return };
    server.engine("jobs").await;
    let proxy = Proxy::before(&format!("127.0.0.1:{}", server.port)).await;
    let a = open_through(&proxy, "a").await;
    let guard = a.mark(7, run(1)).await.unwrap();
    for is_told in [false, true] {
        if is_told {
            proxy.reset();
        } else {
            proxy.kill_connections();
        }
        sleep(TTL + TTL / 2).await;
        held_again(&a, &guard).await;
        assert!(guard.check().await.unwrap(), "{is_told}");
    }
}

/// Seen to fail with a session that believes until it is told otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_knows_before_its_job_is_free() {
    let Some(server) = Server::start(&[]).await else { return };
    let b = server.open("b").await;
    let client = jobs(&server, 10).await;
    let proxy = Proxy::before(&format!("127.0.0.1:{}", server.port)).await;
    for both in [true, false] {
        let a = open_through(&proxy, "a").await;
        let guard = a.mark(7, run(1)).await.unwrap();
        assert!(take(&client, 7, &guard).await);
        until("the other hears of it", || b.view().registry().is_active(&7)).await;
        if both {
            proxy.cut(true)
        } else {
            proxy.cut_requests(true)
        }
        let began = Instant::now();
        let doubted = async {
            until("it doubts", || !guard.is_current()).await;
            began.elapsed()
        };
        let freed = async {
            until("it is free", || !b.view().registry().is_active(&7)).await;
            began.elapsed()
        };
        let (doubted, freed) = tokio::join!(doubted, freed);
        assert!(doubted < freed, "it doubted after {doubted:?}, and was free after {freed:?}");
        assert!(b.view().is_settling(&7), "it went with its session");
        let other = b.try_mark(7, run(2)).await.unwrap();
        assert!(take(&client, 7, &other).await && !commit(&client, 7, &guard).await, "the fence holds");
        proxy.cut(false);
        until("it hears of it", || a.standing() == Standing::Lost(Loss::Expired)).await;
        assert!(other.check().await.unwrap());
        other.clear().await.unwrap();
    }
}

/// Somebody holds a number for a long time, as a large report or a forgotten console does. Seen to fail with a mirror that is as
/// fresh as the oldest transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_makes_nobody_suspect() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (server.open("a").await, server.open("b").await);
    let mut client = server.client().await;
    let long = client.transaction().await.unwrap();
    long.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
    let guard = a.mark(7, run(1)).await.unwrap();
    let began = Instant::now();
    while began.elapsed() < 2 * TTL {
        b.view().barrier().await.unwrap();
        assert!(b.view().registry().is_active(&7) && guard.is_current());
        sleep(Duration::from_millis(50)).await;
    }
    assert!(guard.clear().await.unwrap());
    b.view().barrier().await.unwrap();
    assert!(!b.view().registry().is_active(&7));
    long.commit().await.unwrap();
}

/// A mark's row is locked by a transaction that goes on. Seen to fail with a look that locks
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_waited_for_and_renewals_are_not_in_its_way() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (server.open("a").await, server.open("b").await);
    let postgres = server.engine("jobs").await;
    let guard = a.mark(7, run(1)).await.unwrap();
    let mut client = server.client().await;
    let transaction = client.transaction().await.unwrap();
    assert!(postgres.holds_in(&transaction, &guard).await.unwrap());
    let taking = tokio::spawn({
        let b = b.clone();
        async move { b.mark(7, run(2)).await }
    });
    let began = Instant::now();
    while began.elapsed() < TTL / 2 {
        assert!(!taking.is_finished() && guard.is_current(), "nobody takes it over");
        assert!(matches!(b.standing(), Standing::Held { .. }));
        sleep(Duration::from_millis(50)).await;
    }
    transaction.commit().await.unwrap();
    let other = timeout(TTL, taking).await.unwrap().unwrap().unwrap();
    assert!(other.is_current() && guard.lost().await == Loss::Displaced);
    let transaction = client.transaction().await.unwrap();
    assert!(!postgres.holds_in(&transaction, &guard).await.unwrap(), "an exact fence");
    assert!(postgres.holds_in(&transaction, &other).await.unwrap());
}

/// The mark is made with what the transaction says of the job, or neither is.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_is_part_of_the_callers_transaction() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (server.open("a").await, server.open("b").await);
    let postgres = server.engine("jobs").await;
    let mut client = jobs(&server, 10).await;
    let finish = "UPDATE jobs SET finished_at = now() WHERE id = 7";

    // Rolled back: nothing was.
    let transaction = client.transaction().await.unwrap();
    transaction.execute(finish, &[]).await.unwrap();
    let marked = postgres.try_mark_in(&transaction, &a, 7, run(1)).await.unwrap();
    transaction.rollback().await.unwrap();
    drop(marked);
    b.view().barrier().await.unwrap();
    assert!(!b.view().registry().is_active(&7));

    // Committed: both are.
    let transaction = client.transaction().await.unwrap();
    transaction.execute(finish, &[]).await.unwrap();
    let marked = postgres.try_mark_in(&transaction, &a, 7, run(1)).await.unwrap();
    b.view().barrier().await.unwrap();
    assert!(!b.view().registry().is_active(&7), "not before");
    let token = marked.token();
    transaction.commit().await.unwrap();
    let guard = marked.committed();
    assert!(guard.is_current() && guard.check().await.unwrap() && guard.token() == token);
    b.view().barrier().await.unwrap();
    assert!(b.view().registry().is_active(&7));
    let transaction = client.transaction().await.unwrap();
    assert!(matches!(postgres.try_mark_in(&transaction, &b, 7, run(2)).await, Err(HoldError::Occupied)));
    transaction.rollback().await.unwrap();

    // The job ends with a look at the mark.
    let transaction = client.transaction().await.unwrap();
    assert!(postgres.holds_in(&transaction, &guard).await.unwrap());
    transaction.execute("UPDATE jobs SET state = 'done' WHERE id = 7", &[]).await.unwrap();
    transaction.commit().await.unwrap();
    assert!(guard.clear().await.unwrap());

    // Taken over in a transaction, whose process forgets it: what was committed is nobody's, and goes.
    let first = a.mark(8, run(1)).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let marked = postgres.mark_in(&transaction, &b, 8, run(2)).await.unwrap();
    assert!(marked.token() > first.token());
    transaction.commit().await.unwrap();
    assert_eq!(first.lost().await, Loss::Displaced);
    drop(marked);
    let gone = Instant::now();
    while postgres.get("m/8").await.unwrap().is_some() {
        assert!(gone.elapsed() < Duration::from_secs(20), "it stays");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Of transactions that cannot be one after the other, one is made. Seen to fail with a mark that is told to be made by both.
#[tokio::test(flavor = "multi_thread")]
async fn of_serializable_transactions_one_marks() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (server.open("a").await, server.open("b").await);
    let postgres = server.engine("jobs").await;
    for job in 0..20 {
        let (mut one, mut two) = (server.client().await, server.client().await);
        let begin = async |client| -> tokio_postgres::Transaction<'_> {
            let client: &mut Client = client;
            client.build_transaction().isolation_level(IsolationLevel::Serializable).start().await.unwrap()
        };
        let (first, second) = (begin(&mut one).await, begin(&mut two).await);
        // Both have a snapshot from before.
        first.batch_execute("SELECT count(*) FROM livemark.rows").await.unwrap();
        second.batch_execute("SELECT count(*) FROM livemark.rows").await.unwrap();
        let marked = postgres.try_mark_in(&first, &a, job, run(1)).await.unwrap();
        first.commit().await.unwrap();
        let guard = marked.committed();
        let other = postgres.try_mark_in(&second, &b, job, run(2)).await;
        let is_made = match other {
            Ok(marked) => {
                let made = second.commit().await.is_ok();
                drop(marked);
                made
            }
            Err(HoldError::Statement(error)) => {
                assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{error}");
                false
            }
            Err(error) => panic!("{error}"),
        };
        assert!(!is_made && guard.check().await.unwrap());
    }
}

/// All connections are taken. Who has some keeps its marks, and who needs one is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_connections_left_is_told_of() {
    let Some(server) = Server::start(&["max_connections=12", "superuser_reserved_connections=0"]).await else { return };
    let a = server.open("a").await;
    let guard = a.mark(7, run(1)).await.unwrap();
    let mut others = Vec::new();
    while let Ok((client, connection)) = server.config().connect(NoTls).await {
        tokio::spawn(async move { drop(connection.await) });
        others.push(client);
        assert!(others.len() < 20);
    }
    let refused = Postgres::connect(server.config(), NoTls, "jobs", Options::default()).await.map(drop);
    assert!(matches!(&refused, Err(ConnectError::Unreachable(why)) if why.contains("too many")), "{refused:?}");
    sleep(TTL).await;
    assert!(guard.is_current() && guard.check().await.unwrap());
    drop(others);
    assert!(guard.clear().await.unwrap());
}

/// Seen to fail with an insert that takes the row over where somebody else was first.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_marks_by_64_clients_are_one_owners_each() {
    const JOBS: u64 = 1000;
    let Some(server) = Server::start(&[]).await else { return };
    let sessions = [server.open("a").await, server.open("b").await, server.open("c").await, server.open("d").await];
    let mut clients = tokio::task::JoinSet::new();
    for at in 0..64_u64 {
        let session = sessions[usize::try_from(at % 4).unwrap()].clone();
        clients.spawn(async move {
            let mut won = Vec::new();
            for job in 0..JOBS / 16 {
                // Four clients of each session try each job.
                let job = (at / 4) * (JOBS / 16) + job;
                match session.try_mark(job, run(at)).await {
                    Ok(guard) => won.push(guard),
                    Err(TryMarkError::Occupied(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            won
        });
    }
    let won: Vec<_> = clients.join_all().await.into_iter().flatten().collect();
    let jobs: HashSet<_> = won.iter().map(|guard| *guard.job()).collect();
    let tokens: HashSet<_> = won.iter().map(ClusterGuard::token).collect();
    let all = usize::try_from(JOBS / 16 * 16).unwrap();
    assert_eq!((won.len(), jobs.len(), tokens.len()), (all, all, all));
    let view = sessions[0].view();
    view.barrier().await.unwrap();
    assert_eq!(view.registry().len(), all);
    drop(won);
    until("all are cleared", || view.registry().is_empty()).await;
}

/// Tokens of one job grow from owner to owner, while many take it over from each other. Seen to fail with tokens that are drawn
/// before the row is locked.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_grow_while_many_take_a_job_from_each_other() {
    let Some(server) = Server::start(&[]).await else { return };
    let client = jobs(&server, 1).await;
    client
        .batch_execute(
            "CREATE TABLE owners (at bigserial, token bigint); \
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF NEW.key = 'm/0' THEN INSERT INTO owners (token) VALUES (NEW.revision); END IF; RETURN NEW; END $$;",
        )
        .await
        .unwrap();
    let sessions = [server.open("a").await, server.open("b").await, server.open("c").await];
    let trigger = "CREATE TRIGGER note AFTER INSERT OR UPDATE ON livemark.rows FOR EACH ROW EXECUTE FUNCTION note()";
    client.batch_execute(trigger).await.unwrap();
    let mut owners = tokio::task::JoinSet::new();
    for session in &sessions {
        for _ in 0..4 {
            let session = session.clone();
            owners.spawn(async move {
                for _ in 0..25 {
                    let guard = session.mark(0, run(1)).await.unwrap();
                    if fastrand::bool() {
                        guard.clear().await.unwrap();
                    }
                }
            });
        }
    }
    owners.join_all().await;
    // In the order in which the row was locked.
    let rows = client.query("SELECT token FROM owners ORDER BY at", &[]).await.unwrap();
    let tokens: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert!(tokens.len() >= 300 && tokens.windows(2).all(|two| two[0] < two[1]), "{tokens:?}");
}

/// The server dies, and a replica that lags takes its place: what was marked last is lost, with what was last said of the jobs.
/// Owners hear of it, and each job is committed once. Seen to fail with a session that goes
/// on where the sequence has not fallen back: it draws some numbers ahead.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_replica_that_lags_loses_marks_and_commits_no_job_twice() {
    let Some(mut server) = Server::start(&[]).await else { return };
    let client = jobs(&server, 3).await;
    Postgres::migrate(&server.config(), NoTls).await.unwrap();
    let link = Proxy::before(&format!("127.0.0.1:{}", server.port)).await;
    let replica = Server::follow(link.port()).await;
    let mut both = server.config();
    both.host("127.0.0.1")
        .port(replica.port)
        .target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
    let postgres = engine(both, "jobs").await;
    let a: Session = Session::open(postgres.clone(), session("a")).await.unwrap();
    let early = a.mark(0, run(0)).await.unwrap();
    assert!(take(&client, 0, &early).await);
    let follower = replica.client().await;
    // It has that, and hears no more then.
    let began = Instant::now();
    loop {
        let caught_up = "SELECT fence > 0 FROM jobs WHERE id = 0";
        let caught_up = follower.query_opt(caught_up, &[]).await.ok().flatten();
        if caught_up.is_some_and(|row| row.get(0)) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "it does not follow");
        sleep(Duration::from_millis(20)).await;
    }
    link.cut(true);
    let late = a.mark(1, run(1)).await.unwrap();
    assert!(take(&client, 1, &late).await && commit(&client, 1, &late).await);
    let owned = a.mark(2, run(2)).await.unwrap();
    assert!(take(&client, 2, &owned).await);
    server.kill();
    replica.promote();
    let client = replica.client().await;
    let state: String = client.query_one("SELECT state FROM jobs WHERE id = 1", &[]).await.unwrap().get(0);
    assert_eq!(state, "running", "the replica lagged");
    // By the same client, perhaps before the first session has heard of it.
    let began = Instant::now();
    let b: Session = loop {
        match Session::open(postgres.clone(), session("b")).await {
            Ok(session) => break session,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{error}"),
        }
    };
    until("the owner of a mark that is lost knows", || !owned.is_current()).await;
    until("it knows why", || a.standing() == Standing::Lost(Loss::Behind)).await;
    let again = b.try_mark(1, run(3)).await.unwrap();
    assert!(take(&client, 1, &again).await && commit(&client, 1, &again).await, "with what was lost went its commit");
    assert!(!commit(&client, 1, &late).await);
    // The mark that was not lost goes with its lease, and another one ends its job.
    let began = Instant::now();
    let guard = loop {
        match b.try_mark(0, run(4)).await {
            Ok(guard) => break guard,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{error}"),
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert!(guard.token() > early.token());
    assert!(take(&client, 0, &guard).await && commit(&client, 0, &guard).await && !commit(&client, 0, &early).await);
    let twice: i64 = client.query_one("SELECT count(*) FROM jobs WHERE commits > 1", &[]).await.unwrap().get(0);
    assert_eq!(twice, 0);
}

/// A replica that has all takes the server's place, and another session's listing comes first. What is read then says of which
/// history it is, to each session by itself. Seen to fail with one history for all.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_shows_in_all_that_is_read_after_it() {
    let Some(mut server) = Server::start(&[]).await else { return };
    Postgres::migrate(&server.config(), NoTls).await.unwrap();
    let replica = Server::follow(server.port).await;
    let mut both = server.config();
    both.host("127.0.0.1")
        .port(replica.port)
        .target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
    let postgres = engine(both, "jobs").await;
    let before = postgres.list().await.unwrap();
    server.kill();
    replica.promote();
    let began = Instant::now();
    let after = loop {
        match postgres.list().await {
            Ok(listing) => break listing,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{error}"),
        }
    };
    assert_ne!(before.history, after.history);
    let mut watch = postgres.watch(before.whole).await.unwrap();
    postgres.put("t/1", vec![], None, If::Any).await.unwrap();
    assert_eq!(watch.next().await.unwrap().history, after.history);
}
