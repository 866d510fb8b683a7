//! A process that finalizes jobs of a table in PostgreSQL, and redrives those of processes that died. Start two, and kill one.
//!
//! ```text
//! export DATABASE_URL='host=127.0.0.1 user=postgres dbname=postgres'
//! cargo run -p livemark-postgres --example worker -- a &
//! cargo run -p livemark-postgres --example worker -- b
//! ```
//!
//! It makes the table and 20 jobs if there are none. It ends when no job is running.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use livemark::{AsyncJobStore, Cause, Finalizer, Outcome, Policy, RunningJob};
use livemark_cluster::{Claim, ClusterGuard, ClusterReaper, Config, Remote, Session};
use livemark_postgres::{Options, Postgres};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Usually it is there already. The last two columns are livemark's.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS jobs (id bigint PRIMARY KEY, state text NOT NULL DEFAULT 'running');
    ALTER TABLE jobs ADD COLUMN IF NOT EXISTS fence bigint NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN IF NOT EXISTS finished_at timestamptz;
    INSERT INTO jobs (id) SELECT generate_series(1, 20) ON CONFLICT DO NOTHING;";

#[tokio::main]
async fn main() -> Result<()> {
    let name = env::args().nth(1).unwrap_or_else(|| "a".to_owned());
    let server: tokio_postgres::Config = env::var("DATABASE_URL")?.parse()?;
    let jobs = Arc::new(connect(&server).await?);
    jobs.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock(1); {TABLE} COMMIT")).await?;
    Postgres::migrate(&server, NoTls).await?;

    let mut config = Config::with_ttl(Duration::from_secs(3)); // 15 s is the default
    config.process = name.clone();
    let floor = jobs.query_one("SELECT coalesce(max(fence), 0) FROM jobs", &[]).await?;
    config.token_floor = u64::try_from(floor.get::<_, i64>(0))?;
    let postgres = Postgres::connect(server, NoTls, "example", Options::default()).await?;
    let session: Session = Session::open(postgres, config).await?;

    let policy =
        Policy::builder().finalize_grace(Duration::from_secs(3)).marking_stage("merge").no_backstop().build()?;
    let reaper = ClusterReaper::new(&session, policy);
    let mut store = Store { name: name.clone(), jobs: Arc::clone(&jobs) };
    let sweeping = async {
        loop {
            reaper.run_once(&mut store).await;
            sleep(Duration::from_millis(500)).await;
        }
    };
    let finalizing = async {
        // Those that nobody has begun. The others are their owner's, or the reaper's.
        let next = "SELECT id FROM jobs WHERE state = 'running' AND finished_at IS NULL ORDER BY random() LIMIT 1";
        while let Some(row) = jobs.query_opt(next, &[]).await? {
            let job = u64::try_from(row.get::<_, i64>(0))?;
            if let Ok(guard) = session.try_mark(job, Finalizer::new(None, "merge")).await {
                finalize(&name, &jobs, guard).await?;
            }
        }
        while !jobs.query("SELECT id FROM jobs WHERE state = 'running'", &[]).await?.is_empty() {
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    };
    let done: Result<()> = tokio::select! { () = sweeping => Ok(()), done = finalizing => done };
    session.close().await?; // also after an error: the jobs of this process need not wait for its TTL
    done
}

/// Takes the job, does the work while the mark is held, and commits.
async fn finalize(name: &str, jobs: &Client, guard: ClusterGuard) -> Result<()> {
    let (job, token) = (i64::try_from(*guard.job())?, i64::try_from(guard.token().get())?);
    let take = "UPDATE jobs SET fence = $2, finished_at = now() WHERE id = $1 AND state = 'running' AND fence < $2";
    if jobs.execute(take, &[&job, &token]).await? == 0 {
        return Ok(()); // somebody with a later mark was here
    }
    println!("{name}  merges job {job} with token {token}");
    let commit = "UPDATE jobs SET state = 'done' WHERE id = $1 AND state = 'running' AND fence = $2";
    match guard.hold(sleep(Duration::from_millis(700))).await {
        Ok(()) if jobs.execute(commit, &[&job, &token]).await? == 1 => println!("{name}  commits job {job}"),
        _ => println!("{name}  gives job {job} up"),
    }
    guard.clear().await?;
    Ok(())
}

async fn connect(server: &tokio_postgres::Config) -> Result<Client> {
    let (client, connection) = server.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// What a reaper sees of the table.
struct Store {
    name: String,
    jobs: Arc<Client>,
}

impl AsyncJobStore<u64, Remote, ClusterGuard> for Store {
    type Row = (u64, Duration);
    type Error = tokio_postgres::Error;
    type Rows = Vec<std::result::Result<Self::Row, Self::Error>>;

    async fn list(&mut self) -> std::result::Result<Self::Rows, Self::Error> {
        let list = "SELECT id, extract(epoch FROM now() - finished_at)::float8 FROM jobs \
                    WHERE state = 'running' AND finished_at IS NOT NULL";
        let rows = self.jobs.query(list, &[]).await?;
        let age = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0));
        Ok(rows.iter().map(|row| Ok((row.get::<_, i64>(0).unsigned_abs(), age(row.get(1))))).collect())
    }

    fn job<'a>(&self, (id, finished_for): &'a Self::Row) -> RunningJob<'a> {
        RunningJob::new(id, "merge", *finished_for).finished_for(*finished_for)
    }

    async fn redrive(&mut self, (id, _): Self::Row, claim: Claim) -> std::result::Result<Outcome, Self::Error> {
        // Without a mark, as for a backstop that could not ask the server, this store does nothing.
        let Some(guard) = claim.into_guard() else { return Ok(Outcome::Refused) };
        println!("{}  redrives job {id}", self.name);
        let (name, jobs) = (self.name.clone(), Arc::clone(&self.jobs));
        // In the background, so that the reaper goes on.
        tokio::spawn(async move {
            if let Err(error) = finalize(&name, &jobs, guard).await {
                eprintln!("{name}  job {id}: {error}");
            }
        });
        Ok(Outcome::Done)
    }

    async fn reap(&mut self, _: Self::Row, _: Cause, _: Claim) -> std::result::Result<Outcome, Self::Error> {
        Ok(Outcome::Refused) // there is no backstop
    }
}
