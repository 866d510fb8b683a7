//! `queue` and `live`: what marks cost a queue of jobs on PostgreSQL, and what it costs to keep jobs alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use livemark_cluster::Session;
use livemark_postgres::Postgres;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::{Client, Statement};

use crate::bench::{Bench, Writers, config, context, mark_many, number};
use crate::error::BenchError;
use crate::postgres::PostgresServer;
use crate::record::{Row, Samples};

/// Workers of the queue.
const WORKERS: usize = 64;
/// How long a job takes: nothing, and what gates take at least.
const WORK: [u64; 4] = [0, 100, 500, 2_000];
/// How many jobs are alive at a time.
const LIVE: [u64; 3] = [10, 100, 1_000];

/// How a worker keeps its job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The queue alone.
    Alone,
    /// A mark in the transaction that stamps, and a look at it in the one that ends the job.
    Marked,
    /// A mark in etcd before the stamp, and its token in the statement that ends the job.
    MarkedInEtcd,
}

/// Jobs in a second by 64 workers, with marks and without.
pub(crate) async fn queue(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let Some(server) = PostgresServer::start(&bench.dir).await? else {
        eprintln!("NOT CHECKED: queue (there is no PostgreSQL. Debian: apt-get install postgresql)");
        return Ok(Vec::new());
    };
    let namespace = bench.namespace();
    let (engine, etcd) = (server.engine(&namespace, 16).await?, bench.session(&namespace).await?);
    let session: Session = Session::open(engine.clone(), config()).await?;
    let jobs = "CREATE TABLE jobs (id bigint PRIMARY KEY, state text NOT NULL DEFAULT 'queued', turn bigserial, \
                finished_at timestamptz, fence bigint NOT NULL DEFAULT 0); \
                CREATE INDEX jobs_queued ON jobs (turn) WHERE state = 'queued'; \
                INSERT INTO jobs (id) SELECT generate_series(0, 999);";
    server.client().await?.batch_execute(jobs).await?;
    let mut clients = Vec::new();
    for _ in 0..WORKERS {
        clients.push(Arc::new(tokio::sync::Mutex::new(Worker::new(server.client().await?).await?)));
    }
    let ways = [(Way::Alone, "alone"), (Way::Marked, "marked"), (Way::MarkedInEtcd, "marked in etcd")];
    let mut cases: Vec<_> =
        WORK.into_iter().flat_map(|work| ways.map(|(way, name)| (way, name, work, Samples::default()))).collect();
    for _ in 0..bench.plan.rounds {
        for (way, _, work, rates) in &mut cases {
            let session = if *way == Way::MarkedInEtcd { &etcd } else { &session };
            rates.push(worked(bench, *way, &engine, session, &clients, Duration::from_millis(*work)).await?);
        }
    }
    session.close().await?;
    etcd.close().await?;
    let mut rows = Vec::new();
    for at in cases.chunks(ways.len()) {
        let alone = at[0].3.percentile(50);
        for (_, name, work, rates) in at {
            rows.push(Row::new("queue", format!("jobs of {work} ms, {name}"), "jobs/s", rates));
            let share = alone.zip(rates.percentile(50)).map(|(alone, rate)| 100.0 * (1.0 - rate / alone));
            if *name != "alone" {
                rows.push(Row::derived("queue", format!("jobs of {work} ms, {name}: less"), "%", rates.len(), share));
            }
        }
    }
    Ok(rows)
}

async fn worked(
    bench: &Bench,
    way: Way,
    engine: &Postgres,
    session: &Session,
    workers: &[Arc<tokio::sync::Mutex<Worker>>],
    work: Duration,
) -> Result<f64, BenchError> {
    let (stop, mut tasks, began) = (Arc::new(AtomicBool::new(false)), JoinSet::new(), Instant::now());
    for worker in workers {
        let (worker, stop, engine, session) = (Arc::clone(worker), Arc::clone(&stop), engine.clone(), session.clone());
        tasks.spawn(async move {
            let (mut worker, mut jobs) = (worker.lock().await, 0_u64);
            // Relaxed (no edge): a signal by itself.
            while !stop.load(Ordering::Relaxed) {
                jobs += u64::from(one_job(way, &mut worker, &engine, &session, work).await?);
            }
            Ok::<_, BenchError>(jobs)
        });
    }
    // Not so short that most of it is the first and the last job.
    sleep(bench.plan.load.max(2 * work)).await;
    // Relaxed (no edge): as above.
    stop.store(true, Ordering::Relaxed);
    let mut jobs = 0;
    while let Some(made) = tasks.join_next().await {
        jobs += made??;
    }
    Ok(number(jobs) / began.elapsed().as_secs_f64())
}

/// A connection, with its statements prepared.
struct Worker {
    client: Client,
    take: Statement,
    stamp: Statement,
    end: Statement,
}

impl Worker {
    async fn new(client: Client) -> Result<Self, BenchError> {
        let take = "UPDATE jobs SET state = 'running' WHERE id = (SELECT id FROM jobs WHERE state = 'queued' \
                    ORDER BY turn LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id";
        let end = "UPDATE jobs SET state = 'queued', turn = nextval('jobs_turn_seq'), finished_at = NULL, \
                   fence = greatest(fence, $2) WHERE id = $1 AND state = 'running' AND (fence <= $2 OR $2 = 0)";
        Ok(Self {
            take: client.prepare(take).await?,
            stamp: client.prepare("UPDATE jobs SET finished_at = now() WHERE id = $1").await?,
            end: client.prepare(end).await?,
            client,
        })
    }
}

/// Takes a job, does the work, and ends it: queued again, so that there is always one. Returns `false` if all are taken.
async fn one_job(
    way: Way,
    worker: &mut Worker,
    engine: &Postgres,
    session: &Session,
    work: Duration,
) -> Result<bool, BenchError> {
    let Some(row) = worker.client.query_opt(&worker.take, &[]).await? else { return Ok(false) };
    let id: i64 = row.get(0);
    let job = u64::try_from(id).unwrap_or_default();
    let marked_first = match way {
        Way::MarkedInEtcd => Some(session.mark(job, context(job)).await?),
        Way::Alone | Way::Marked => None,
    };
    let stamp = worker.client.transaction().await?;
    stamp.execute(&worker.stamp, &[&id]).await?;
    let marked = match way {
        Way::Marked => {
            let marked = engine.try_mark_in(&stamp, session, job, context(job)).await;
            Some(marked.map_err(|error| BenchError::Postgres(error.to_string()))?)
        }
        Way::Alone | Way::MarkedInEtcd => None,
    };
    stamp.commit().await?;
    let guard = marked.map(livemark_postgres::MarkedIn::committed).or(marked_first);
    sleep(work).await;
    let fence = guard.as_ref().map_or(0, |guard| i64::try_from(guard.token().get()).unwrap_or(i64::MAX));
    let end = worker.client.transaction().await?;
    if let (Way::Marked, Some(guard)) = (way, &guard) {
        let holds = engine.holds_in(&end, guard).await.map_err(|error| BenchError::Postgres(error.to_string()))?;
        if !holds {
            return Err(BenchError::MarkGone { job });
        }
    }
    let fence = if way == Way::MarkedInEtcd { fence } else { 0 };
    if end.execute(&worker.end, &[&id, &fence]).await? != 1 {
        return Err(BenchError::MarkGone { job });
    }
    end.commit().await?;
    // It is cleared in the background.
    drop(guard);
    Ok(true)
}

/// What the server has done so far.
struct Done {
    transactions: f64,
    log: f64,
    at: Instant,
}

impl Done {
    async fn look(client: &Client) -> Result<Self, BenchError> {
        let sql = "SELECT xact_commit::float8, (pg_current_wal_insert_lsn() - '0/0')::float8 \
                   FROM pg_stat_database WHERE datname = current_database()";
        let row = client.query_one(sql, &[]).await?;
        Ok(Self { transactions: row.get(0), log: row.get(1), at: Instant::now() })
    }
}

/// A table of jobs that are kept alive by a heartbeat each, and the statement.
struct Beats {
    name: &'static str,
    table: &'static str,
    beat: &'static str,
    /// Each job by itself, or all jobs of a process in one statement.
    each: bool,
}

/// The statements that these frameworks send: underway 0.2.0 (src/queue.rs), sqlxmq 0.6.0 (the function mq_keep_alive of its
/// migration), and apalis-postgres (queries/backend/keep_alive.sql), in tables with the columns that they change.
const BEATS: [Beats; 3] = [
    Beats {
        name: "underway: a heartbeat of each job",
        table: "CREATE TABLE underway (id uuid NOT NULL, task_queue_name text NOT NULL, updated_at timestamptz, \
                last_heartbeat_at timestamptz, state text DEFAULT 'in_progress', PRIMARY KEY (id, task_queue_name)); \
                INSERT INTO underway (id, task_queue_name) SELECT md5(n::text)::uuid, 'q' FROM generate_series(0, 999) n;",
        beat: "UPDATE underway SET updated_at = now(), last_heartbeat_at = now() \
               WHERE id = md5($1::bigint::text)::uuid AND task_queue_name = 'q'",
        each: true,
    },
    Beats {
        name: "sqlxmq: a keep-alive of each job",
        table: "CREATE TABLE mq (id uuid PRIMARY KEY, attempt_at timestamptz, commit_interval interval); \
                CREATE INDEX ON mq (attempt_at); \
                INSERT INTO mq (id) SELECT md5(n::text)::uuid FROM generate_series(0, 999) n;",
        beat: "UPDATE mq SET attempt_at = now() + interval '30 s', commit_interval = commit_interval \
               WHERE id = md5($1::bigint::text)::uuid",
        each: true,
    },
    Beats {
        name: "apalis: a heartbeat of each worker",
        table: "CREATE TABLE apalis (id text PRIMARY KEY, last_seen timestamptz); INSERT INTO apalis VALUES ('w');",
        beat: "UPDATE apalis SET last_seen = now() WHERE id = 'w' AND $1::bigint >= 0",
        each: false,
    },
];

/// What it costs to keep jobs alive, and a pair of mark and clear beside them.
pub(crate) async fn live(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let Some(server) = PostgresServer::start(&bench.dir).await? else {
        eprintln!("NOT CHECKED: live (there is no PostgreSQL. Debian: apt-get install postgresql)");
        return Ok(Vec::new());
    };
    let client = server.client().await?;
    // What is dead stays until it is counted.
    client.batch_execute("ALTER TABLE livemark.rows SET (autovacuum_enabled = off)").await?;
    let mut rows = Vec::new();
    for live in LIVE.into_iter().filter(|live| *live <= bench.plan.many) {
        let namespace = bench.namespace();
        let session: Session = Session::open(server.engine(&namespace, 8).await?, config()).await?;
        let etcd = bench.session(&namespace).await?;
        let guards = (mark_many(&session, live).await?, mark_many(&etcd, live).await?);
        let (mut kept, mut log) = (Samples::default(), Samples::default());
        let (mut pairs, mut pairs_in_etcd) = (Samples::default(), Samples::default());
        let (mut updates, mut hot) = (Samples::default(), Samples::default());
        for _ in 0..bench.plan.dear_rounds {
            let before = Done::look(&client).await?;
            sleep(10 * bench.plan.load).await;
            let after = Done::look(&client).await?;
            let seconds = (after.at - before.at).as_secs_f64();
            // Less this look itself.
            kept.push((after.transactions - before.transactions - 1.0) / seconds);
            log.push((after.log - before.log) / seconds);
            pairs_in_etcd.push(loaded(bench, &etcd, live).await?.0);
            let before = tuples(bench, &client).await?;
            let (rate, made) = loaded(bench, &session, live).await?;
            pairs.push(rate);
            let after = tuples(bench, &client).await?;
            updates.push((after.0 - before.0) / made);
            hot.push((after.1 - before.1) / made);
        }
        let case = |what: &str| format!("{live} live: {what}");
        rows.push(Row::new("live", case("kept by livemark"), "transactions/s", &kept));
        rows.push(Row::new("live", case("kept by livemark: log"), "bytes/s", &log));
        rows.push(Row::new("live", case("postgres, a pair by 8"), "pairs/s", &pairs));
        rows.push(Row::new("live", case("etcd, a pair by 8"), "pairs/s", &pairs_in_etcd));
        rows.push(Row::new("live", case("updates"), "rows/pair", &updates));
        rows.push(Row::new("live", case("updates that are HOT"), "rows/pair", &hot));
        let dead_rows: i64 =
            client.query_one("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'rows'", &[]).await?.get(0);
        let began = Instant::now();
        client.batch_execute("VACUUM livemark.rows").await?;
        let mut vacuum = Samples::default();
        vacuum.push_ms(began.elapsed());
        rows.push(Row::new("live", case(&format!("VACUUM of {dead_rows} dead rows")), "ms", &vacuum));
        session.close().await?;
        etcd.close().await?;
        drop(guards);
    }
    rows.extend(beats(bench, &client).await?);
    Ok(rows)
}

/// The rate, and the number, of pairs by eight tasks beside the jobs that are alive.
async fn loaded(bench: &Bench, session: &Session, live: u64) -> Result<(f64, f64), BenchError> {
    let began = Instant::now();
    let writers = Writers::start_from(std::slice::from_ref(session), 8, live);
    sleep(bench.plan.load).await;
    let rate = writers.finish().await?;
    Ok((rate, (rate * began.elapsed().as_secs_f64()).max(1.0)))
}

/// Updates of the table of marks, and those of them that were HOT.
async fn tuples(bench: &Bench, client: &Client) -> Result<(f64, f64), BenchError> {
    // A connection that does nothing tells after ten seconds of what it did.
    sleep(bench.plan.load * 11).await;
    let sql =
        "SELECT (n_tup_upd + n_tup_del)::float8, n_tup_hot_upd::float8 FROM pg_stat_user_tables WHERE relname = 'rows'";
    let row = client.query_one(sql, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// One heartbeat of all jobs that are alive: what it takes, and its log.
async fn beats(bench: &Bench, client: &Client) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for Beats { name, table, beat, each } in BEATS {
        client.batch_execute(table).await?;
        let beat = client.prepare(beat).await?;
        for live in LIVE {
            let (mut took, mut log) = (Samples::default(), Samples::default());
            for _ in 0..bench.plan.dear_rounds {
                let before = Done::look(client).await?;
                for job in 0..if each { i64::try_from(live).unwrap_or(i64::MAX) } else { 1 } {
                    client.execute(&beat, &[&job]).await?;
                }
                took.push_ms(before.at.elapsed());
                log.push(Done::look(client).await?.log - before.log);
            }
            rows.push(Row::new("live", format!("{live} live: {name}, once"), "ms", &took));
            rows.push(Row::new("live", format!("{live} live: {name}, once: log"), "bytes", &log));
        }
    }
    Ok(rows)
}
