//! PostgreSQL does what every engine must: directly, and through a pooler in transaction mode.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "what the tests of several engines share")]

#[path = "../../livemark-cluster/tests/support/conformance.rs"]
mod conformance;
mod support;

use livemark_cluster::{Engine, EngineError, If, Lease, Loss, Session, Watch, Written};
use livemark_postgres::{ConnectError, Options, Postgres};
use tokio_postgres::NoTls;

use support::{Pooler, Server, config, engine};

async fn conforms(port: u16) {
    let on = async |namespace: &str| engine(config(port), namespace).await;
    conformance::writes_are_conditional(&on("a").await).await;
    conformance::writes_require_an_epoch(&on("d").await).await;
    conformance::leases_end(&on("b").await).await;
    conformance::a_watch_goes_on_from_a_list(&on("c").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server() {
    let Some(server) = Server::start(&[]).await else { return };
    Postgres::migrate(&server.config(), NoTls).await.unwrap();
    conforms(server.port).await;
}

/// Seen to fail with statements that are prepared, which another process of the server's does not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_between() {
    let Some(server) = Server::start(&[]).await else { return };
    let Some(pooler) = Pooler::before(&server).await else { return };
    Postgres::migrate(&server.config(), NoTls).await.unwrap();
    conforms(pooler.port).await;
}

/// Seen to fail with a schema that is made twice at the same time without a lock.
#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_made_once_whoever_makes_it() {
    let Some(server) = Server::start(&[]).await else { return };
    let connected = async || Postgres::connect(server.config(), NoTls, "jobs", Options::default()).await.map(drop);
    assert_eq!(connected().await, Err(ConnectError::Schema { found: None }));
    let mut migrations = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let config = server.config();
        migrations.spawn(async move { Postgres::migrate(&config, NoTls).await });
    }
    assert!(migrations.join_all().await.iter().all(Result::is_ok));
    assert_eq!(connected().await, Ok(()));
    let client = server.client().await;
    client
        .batch_execute("CREATE OR REPLACE FUNCTION livemark.version() RETURNS int LANGUAGE sql AS 'SELECT 7'")
        .await
        .unwrap();
    assert_eq!(connected().await, Err(ConnectError::Schema { found: Some(7) }));
}

/// A user with the rights that the docs name can work, and an operator's statements do what they say.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_needs_few_rights_and_operators_few_statements() {
    let Some(server) = Server::start(&[]).await else { return };
    Postgres::migrate(&server.config(), NoTls).await.unwrap();
    let client = server.client().await;
    // As in the docs.
    let docs = include_str!("../src/lib.rs");
    let rights: Vec<_> = docs.lines().filter_map(|line| line.strip_prefix("//! GRANT ")).collect();
    assert_eq!(rights.len(), 3);
    client.batch_execute("CREATE ROLE worker LOGIN").await.unwrap();
    for right in rights {
        client.batch_execute(&format!("GRANT {right}")).await.unwrap();
    }
    let mut worker = server.config();
    worker.user("worker");
    let session: Session =
        Session::open(engine(worker.clone(), "payments").await, support::session("a")).await.unwrap();
    let guard = session.mark(7, support::run(1)).await.unwrap();
    let other = session.mark(8, support::run(1)).await.unwrap();
    assert!(other.clear().await.unwrap());
    let all = "SELECT key, revision, lease, convert_from(value, 'UTF8') FROM livemark.rows \
               WHERE namespace = 'payments' AND value IS NOT NULL AND key LIKE 'm/%'";
    let rows = client.query(all, &[]).await.unwrap();
    assert_eq!((rows.len(), rows[0].get::<_, &str>(0)), (1, "m/7"));
    let remove = format!("SELECT (livemark.remove('payments', 'm/7', {})).outcome", rows[0].get::<_, i64>(1));
    assert_eq!(client.query_one(&remove, &[]).await.unwrap().get::<_, &str>(0), "done");
    assert_eq!(guard.lost().await, Loss::Displaced);
    for epoch in 1..3 {
        let bumped = client.query_one("SELECT livemark.bump_epoch('payments')", &[]).await.unwrap();
        assert_eq!(bumped.get::<_, i32>(0), epoch);
    }
    support::until("it is lost", || session.standing().loss() == Some(Loss::NewEpoch)).await;
    let again: Session = Session::open(engine(worker, "payments").await, support::session("a")).await.unwrap();
    assert_eq!(again.mark(7, support::run(1)).await.unwrap().token().get() >> 48, 2);
}

/// Each error names what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_connect_is_told_why() {
    let Some(server) = Server::start(&[]).await else { return };
    let connected =
        async |config| Postgres::connect(config, NoTls, "jobs", Options::default()).await.map(drop).unwrap_err();
    assert!(matches!(connected(config(support::free_port())).await, ConnectError::Unreachable(_)));
    let empty = Postgres::connect(server.config(), NoTls, "", Options::default()).await.map(drop);
    assert_eq!(empty, Err(ConnectError::Namespace));
    let mut nobody = server.config();
    nobody.user("nobody");
    assert!(matches!(connected(nobody).await, ConnectError::Denied(why) if why.contains("nobody")));
    let mut nowhere = server.config();
    nowhere.dbname("nowhere");
    assert!(matches!(connected(nowhere).await, ConnectError::Denied(why) if why.contains("nowhere")));
    // It may connect, and not write.
    Postgres::migrate(&server.config(), NoTls).await.unwrap();
    let rights = "CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA livemark TO reader; \
                  GRANT SELECT ON ALL TABLES IN SCHEMA livemark TO reader; GRANT SELECT ON ALL SEQUENCES IN SCHEMA livemark TO reader;";
    server.client().await.batch_execute(rights).await.unwrap();
    let mut reader = server.config();
    reader.user("reader");
    let reader = engine(reader, "jobs").await;
    assert_eq!(reader.get("m/1").await, Ok(None));
    let written = reader.put("m/1", vec![], None, If::Absent).await;
    assert!(matches!(written, Err(EngineError::Denied(_))), "{written:?}");
}

/// A transaction has drawn a revision and is not committed, while later ones are. Seen to fail with a watch that goes on from
/// the latest revision that it has read: the earlier one is never heard of.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_comes_late_is_heard_of() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    let mut client = server.client().await;
    let mut watch = engine.watch(engine.list().await.unwrap().whole).await.unwrap();
    let late = client.transaction().await.unwrap();
    let row = late.query_one("SELECT (livemark.put('jobs', 'm/late', '', NULL, 0, NULL)).revision", &[]).await.unwrap();
    let drawn = u64::try_from(row.get::<_, i64>(0)).unwrap();
    let mut heard = Vec::new();
    for at in 0..20 {
        let Ok(Written::Done(revision)) = engine.put(&format!("m/{at}"), vec![], None, If::Absent).await else {
            panic!("it is written")
        };
        assert!(revision > drawn);
        engine.put("t/1", vec![], None, If::Any).await.unwrap();
        let news = watch.next().await.unwrap();
        assert!(news.whole < drawn, "something is still to come");
        heard.extend(news.events);
    }
    let others = (0..20).filter(|at| heard.iter().any(|event| event.key == format!("m/{at}"))).count();
    assert_eq!((others, heard.iter().any(|event| event.key == "m/late")), (20, false), "nobody waits for it");
    late.commit().await.unwrap();
    let mut whole = 0;
    while !heard.iter().any(|event| event.key == "m/late") || whole < drawn + 20 {
        engine.put("t/1", vec![], None, If::Any).await.unwrap();
        let news = watch.next().await.unwrap();
        whole = news.whole;
        heard.extend(news.events);
    }
    assert_eq!(heard.iter().filter(|event| event.key == "m/0").count(), 1, "each once");
}

/// The same, while nobody else writes anything: no other transaction ends meanwhile. A user's first program found this. Seen to
/// fail with a horizon at the end of a snapshot: the write is never heard of, and its own process takes its mark for another's.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_the_latest_is_waited_for() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    engine.put("m/0", vec![], None, If::Absent).await.unwrap();
    let mut client = server.client().await;
    let mut watch = engine.watch(engine.list().await.unwrap().whole).await.unwrap();
    for round in 1..4 {
        let late = client.transaction().await.unwrap();
        let put = format!("SELECT (livemark.put('jobs', 'm/{round}', '', NULL, 0, NULL)).revision");
        let drawn = u64::try_from(late.query_one(&put, &[]).await.unwrap().get::<_, i64>(0)).unwrap();
        // It polls some times.
        let polled = tokio::time::timeout(std::time::Duration::from_millis(1500), async {
            loop {
                let news = watch.next().await.unwrap();
                assert!(news.whole < drawn, "{} and {drawn}", news.whole);
            }
        });
        assert!(polled.await.is_err());
        late.commit().await.unwrap();
        let key = format!("m/{round}");
        let heard = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while !watch.next().await.unwrap().events.iter().any(|event| event.key == key) {}
        });
        assert!(heard.await.is_ok(), "{key} is never heard of");
    }
}

/// What went long ago is forgotten, and a watch that has not heard of it is told so. Seen to fail with a watch that goes on: it
/// never hears that the key is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_went_long_ago_is_forgotten() {
    let Some(server) = Server::start(&[]).await else { return };
    let engine = server.engine("jobs").await;
    for at in 0..1200 {
        engine.put(&format!("m/{at}"), vec![], None, If::Absent).await.unwrap();
    }
    let before = engine.list().await.unwrap();
    for at in 0..1200 {
        engine.delete(&format!("m/{at}"), If::Any).await.unwrap();
    }
    let client = server.client().await;
    client.batch_execute("UPDATE livemark.rows SET changed = changed - interval '1 hour'").await.unwrap();
    let mut watch = engine.watch(before.whole).await.unwrap();
    let mut rows = 1200;
    while rows > 0 {
        engine.put("t/1", vec![], None, If::Any).await.unwrap();
        let _ = watch.next().await;
        let count = client.query_one("SELECT count(*) FROM livemark.rows WHERE value IS NULL AND key LIKE 'm/%'", &[]);
        rows = count.await.unwrap().get::<_, i64>(0);
    }
    let mut late = engine.watch(before.whole).await.unwrap();
    assert_eq!(late.next().await, Err(EngineError::Compacted));
    let listing = engine.list().await.unwrap();
    let mut again = engine.watch(listing.whole).await.unwrap();
    engine.put("m/new", vec![], None, If::Absent).await.unwrap();
    assert!(again.next().await.unwrap().events.iter().any(|event| event.key == "m/new"));
}

/// Writes must be there once they are answered, also where the application is content with less. Seen to fail without that: the
/// server's process has the setting of its user.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_is_durable_whatever_the_session_is_content_with() {
    let Some(server) = Server::start(&["synchronous_commit=off"]).await else { return };
    let engine = server.engine("jobs").await;
    let mut client = server.client().await;
    let transaction = client.transaction().await.unwrap();
    let shown = async |transaction: &tokio_postgres::Transaction<'_>| {
        transaction.query_one("SHOW synchronous_commit", &[]).await.unwrap().get::<_, String>(0)
    };
    assert_eq!(shown(&transaction).await, "off");
    transaction.query("SELECT livemark.put('jobs', 'm/1', '', NULL, 0, NULL)", &[]).await.unwrap();
    assert_eq!(shown(&transaction).await, "on");
    transaction.commit().await.unwrap();
    assert!(engine.get("m/1").await.unwrap().is_some());
    assert_eq!(engine.renew(Lease(7)).await, Err(EngineError::LeaseGone));
}
