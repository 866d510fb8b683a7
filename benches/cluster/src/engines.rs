//! `engines`: etcd and PostgreSQL side by side, with what is used today where jobs lie in PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use livemark_cluster::Session;
use livemark_postgres::Postgres;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement};

use crate::bench::{Bench, Writers, clear, config, context, number};
use crate::error::BenchError;
use crate::postgres::PostgresServer;
use crate::record::{Row, Samples};

/// How many clients work at once.
const AT_ONCE: [u64; 3] = [1, 8, 64];

/// How a job is kept from others while it is finalized, and let go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `mark` and `clear`, on etcd.
    Etcd,
    /// `mark` and `clear`, on PostgreSQL.
    Postgres,
    /// The same in the transactions that stamp the job and end it, which happen anyhow: the mark is a statement of the first,
    /// and its look and its end are of the second.
    InTransactions,
    /// The two transactions without a mark: what is compared with.
    WithoutMarks,
    /// A row lease as it is written by hand: `FOR UPDATE SKIP LOCKED`, a deadline, and a release.
    ByHand,
    /// `pg_try_advisory_lock` on a connection of its own for each job.
    Advisory,
}

impl Way {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Etcd, "etcd: mark and clear"),
        (Self::Postgres, "postgres: mark and clear"),
        (Self::InTransactions, "postgres: in the job's two transactions"),
        (Self::WithoutMarks, "postgres: the two transactions alone"),
        (Self::ByHand, "postgres: a row lease by hand"),
        (Self::Advisory, "postgres: advisory locks"),
    ];
}

/// Pairs in a second, and bytes of the server's log for each.
pub(crate) async fn engines(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let Some(server) = PostgresServer::start(&bench.dir).await? else {
        eprintln!("NOT CHECKED: engines (there is no PostgreSQL. Debian: apt-get install postgresql)");
        return Ok(Vec::new());
    };
    let namespace = bench.namespace();
    let etcd = bench.session(&namespace).await?;
    let engine = server.engine(&namespace, 16).await?;
    let postgres: Session = Session::open(engine.clone(), config()).await?;
    let client = server.client().await?;
    let jobs = "CREATE TABLE jobs (id bigint PRIMARY KEY, state text NOT NULL DEFAULT 'running', finished_at timestamptz, \
                locked_by text, locked_until timestamptz); INSERT INTO jobs (id) SELECT generate_series(0, 9999);";
    client.batch_execute(jobs).await?;
    let mut clients = Vec::new();
    for _ in 0..64 {
        clients.push(Arc::new(tokio::sync::Mutex::new(Worker::new(server.client().await?).await?)));
    }
    let mut cases: Vec<_> = AT_ONCE
        .into_iter()
        .flat_map(|at_once| Way::ALL.map(|(way, name)| (way, name, at_once, Samples::default(), Samples::default())))
        .collect();
    for _ in 0..bench.plan.rounds {
        for (way, _, at_once, rates, bytes) in &mut cases {
            let before = written(&client).await?;
            let rate = match way {
                Way::Etcd => loaded(bench, &etcd, *at_once).await?,
                Way::Postgres => loaded(bench, &postgres, *at_once).await?,
                _ => {
                    worked(bench, *way, &engine, &postgres, &clients[..usize::try_from(*at_once).unwrap_or(64)]).await?
                }
            };
            rates.push(rate.0);
            if *way != Way::Etcd {
                bytes.push((written(&client).await? - before) / rate.1);
            }
        }
    }
    etcd.close().await?;
    postgres.close().await?;
    let mut rows = Vec::new();
    for (way, name, at_once, rates, bytes) in &cases {
        rows.push(Row::new("engines", format!("{name} by {at_once}"), "pairs/s", rates));
        if *way != Way::Etcd {
            rows.push(Row::new("engines", format!("{name} by {at_once}: log"), "bytes/pair", bytes));
        }
    }
    Ok(rows)
}

/// Where the server's log ends.
async fn written(client: &Client) -> Result<f64, BenchError> {
    let row = client.query_one("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8", &[]).await?;
    Ok(row.get(0))
}

/// The rate, and the number, of pairs by a session.
async fn loaded(bench: &Bench, session: &Session, at_once: u64) -> Result<(f64, f64), BenchError> {
    let began = Instant::now();
    let writers = Writers::start(std::slice::from_ref(session), at_once);
    tokio::time::sleep(bench.plan.load).await;
    let rate = writers.finish().await?;
    Ok((rate, (rate * began.elapsed().as_secs_f64()).max(1.0)))
}

/// A connection, with its statements prepared: no way is slower here than it would be.
struct Worker {
    client: Client,
    lease: Statement,
    release: Statement,
    lock: Statement,
    unlock: Statement,
    finish: Statement,
    end: Statement,
}

impl Worker {
    async fn new(client: Client) -> Result<Self, BenchError> {
        let lease = "UPDATE jobs SET locked_by = 'a', locked_until = now() + interval '15 s' WHERE id = \
                     (SELECT id FROM jobs WHERE id = $1 AND (locked_until IS NULL OR locked_until < now()) \
                      FOR UPDATE SKIP LOCKED)";
        let release = "UPDATE jobs SET locked_by = NULL, locked_until = NULL WHERE id = $1 AND locked_by = 'a'";
        Ok(Self {
            lease: client.prepare(lease).await?,
            release: client.prepare(release).await?,
            lock: client.prepare("SELECT pg_try_advisory_lock($1)").await?,
            unlock: client.prepare("SELECT pg_advisory_unlock($1)").await?,
            finish: client.prepare("UPDATE jobs SET finished_at = now() WHERE id = $1").await?,
            end: client.prepare("UPDATE jobs SET state = 'running', finished_at = NULL WHERE id = $1").await?,
            client,
        })
    }

    async fn pair(&mut self, way: Way, engine: &Postgres, session: &Session, job: u64) -> Result<(), BenchError> {
        let id = i64::try_from(job).unwrap_or_default();
        match way {
            Way::InTransactions => {
                let first = self.client.transaction().await?;
                first.execute(&self.finish, &[&id]).await?;
                let marked = engine.try_mark_in(&first, session, job, context(job)).await;
                let marked = marked.map_err(|error| BenchError::Postgres(error.to_string()))?;
                first.commit().await?;
                let guard = marked.committed();
                let second = self.client.transaction().await?;
                let holds = engine.holds_in(&second, &guard).await;
                if !holds.map_err(|error| BenchError::Postgres(error.to_string()))? {
                    return Err(BenchError::MarkGone { job });
                }
                second.execute(&self.end, &[&id]).await?;
                second.commit().await?;
                clear(guard).await?;
            }
            Way::WithoutMarks => {
                for statement in [&self.finish, &self.end] {
                    let transaction = self.client.transaction().await?;
                    transaction.execute(statement, &[&id]).await?;
                    transaction.commit().await?;
                }
            }
            Way::ByHand => {
                let leased = self.client.execute(&self.lease, &[&id]).await?;
                let released = self.client.execute(&self.release, &[&id]).await?;
                if (leased, released) != (1, 1) {
                    return Err(BenchError::MarkGone { job });
                }
            }
            Way::Advisory => {
                self.client.query_one(&self.lock, &[&id]).await?;
                self.client.query_one(&self.unlock, &[&id]).await?;
            }
            Way::Etcd | Way::Postgres => {}
        }
        Ok(())
    }
}

/// The rate, and the number, of pairs by connections, each with its own job.
async fn worked(
    bench: &Bench,
    way: Way,
    engine: &Postgres,
    session: &Session,
    workers: &[Arc<tokio::sync::Mutex<Worker>>],
) -> Result<(f64, f64), BenchError> {
    let (stop, mut tasks, began) = (Arc::new(AtomicBool::new(false)), JoinSet::new(), Instant::now());
    for (job, worker) in (0_u64..).zip(workers) {
        let (worker, stop) = (Arc::clone(worker), Arc::clone(&stop));
        let (engine, session) = (engine.clone(), session.clone());
        tasks.spawn(async move {
            let (mut worker, mut pairs) = (worker.lock().await, 0_u64);
            // Relaxed (no edge): a signal by itself.
            while !stop.load(Ordering::Relaxed) {
                worker.pair(way, &engine, &session, job).await?;
                pairs += 1;
            }
            Ok::<_, BenchError>(pairs)
        });
    }
    tokio::time::sleep(bench.plan.load).await;
    // Relaxed (no edge): as above.
    stop.store(true, Ordering::Relaxed);
    let mut pairs = 0;
    while let Some(made) = tasks.join_next().await {
        pairs += made??;
    }
    Ok((number(pairs) / began.elapsed().as_secs_f64(), number(pairs).max(1.0)))
}
