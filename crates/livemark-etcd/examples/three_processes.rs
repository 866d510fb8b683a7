//! Three processes, one etcd, one job store. One process is killed in the middle of a merge, and another one finishes its
//! job. A slow merge of a live process is left alone, whoever's reaper finds it.
//!
//! ```text
//! cargo run -p livemark-etcd --example three_processes
//! ```
//!
//! It needs `etcd` (Debian and Ubuntu: `apt-get install etcd-server`), which it starts by itself on a free port with its data
//! in a temporary directory. It takes about 15 s, and leaves nothing behind.

use std::env;
use std::error::Error;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use livemark::{AsyncJobStore, Cause, Finalizer, Outcome, Policy, RunningJob};
use livemark_cluster::{Claim, ClusterGuard, ClusterReaper, Config, Remote, Session, Verdict};
use livemark_etcd::{Etcd, Options};
use rusqlite::{Connection, params};
use tokio::time::sleep;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const JOBS: u64 = 6;
/// A process that is not heard of for so long has lost its marks.
const TTL: Duration = Duration::from_secs(3);
/// A job whose finalization takes longer than this looks dead. The last job's always does.
const GRACE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", name, endpoint, store] => worker(name, endpoint, Path::new(store)),
        _ => watch_over_three(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

// ---- The one who starts them

fn watch_over_three() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = dir.path().join("jobs.sqlite");
    Jobs::create(&store)?;
    let (_etcd, endpoint) = start_etcd(dir.path())?;
    let began = Instant::now();
    let start = |name| -> Result<Killed> {
        let mut worker = Command::new(env::current_exe()?);
        Ok(Killed(worker.args(["worker", name, &endpoint]).arg(&store).spawn()?))
    };
    let mut workers = vec![start("a")?, start("b")?, start("c")?];
    let jobs = Jobs::open(&store)?;
    // As soon as b has begun a merge, it dies.
    while jobs.count("SELECT count(*) FROM merges WHERE process = 'b'")? == 0 {
        std::thread::sleep(Duration::from_millis(20));
        if began.elapsed() > Duration::from_secs(30) {
            return Err("b does not begin".into());
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    drop(workers.remove(1));
    println!("b  is killed in the middle of its merge");
    while jobs.count("SELECT count(*) FROM jobs WHERE state = 'running'")? > 0 {
        std::thread::sleep(Duration::from_millis(50));
        if began.elapsed() > Duration::from_secs(120) {
            return Err("the jobs do not end".into());
        }
    }
    drop(workers);
    println!("\njob  begun by  committed by  commits");
    let mut select = jobs.0.prepare(
        "SELECT id, (SELECT group_concat(process, ', ') FROM merges WHERE job = id), committed_by, commits FROM jobs",
    )?;
    let mut rows = select.query([])?;
    let mut is_once = true;
    while let Some(row) = rows.next()? {
        let (id, begun, by, commits): (u64, String, String, u64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        is_once &= commits == 1;
        println!("{id:<4} {begun:<9} {by:<13} {commits}");
    }
    if !is_once {
        return Err("a job was not committed once".into());
    }
    println!("\nEach job is committed once.");
    Ok(())
}

/// A child that is killed with this.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_etcd(dir: &Path) -> Result<(Killed, String)> {
    let port = || -> Result<u16> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()) };
    let (client, peer) = (format!("http://127.0.0.1:{}", port()?), format!("http://127.0.0.1:{}", port()?));
    let etcd = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--auto-compaction-retention", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match etcd {
        Ok(etcd) => Ok((Killed(etcd), client)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err("there is no etcd. Install it (Debian and Ubuntu: apt-get install etcd-server)".into())
        }
        Err(error) => Err(format!("etcd cannot be started: {error}").into()),
    }
}

// ---- Each of the three

#[tokio::main(flavor = "current_thread")]
async fn worker(name: &str, endpoint: &str, store: &Path) -> Result<()> {
    let etcd = loop {
        match Etcd::connect([endpoint], "example", Options::default()).await {
            Ok(etcd) => break etcd,
            Err(_) => sleep(Duration::from_millis(100)).await, // it has just been started
        }
    };
    let mut config = Config::with_ttl(TTL);
    config.process = name.to_owned();
    let mut jobs = Jobs::open(store)?;
    config.token_floor = jobs.count("SELECT coalesce(max(fence), 0) FROM jobs")?;
    let session: Session = Session::open(etcd, config).await?;
    let policy = Policy::builder()
        .finalize_grace(GRACE)
        .hard_deadline(Duration::from_secs(60))
        .lost_grace(Duration::from_secs(30))
        .marking_stage("merge")
        .build()?;
    let reaper = ClusterReaper::new(&session, policy);
    let reaping = async {
        let mut store =
            Reaping { name: name.to_owned(), path: store.to_owned(), jobs: Jobs::open(store)?, told: Vec::new() };
        loop {
            reaper.run_once(&mut store).await;
            sleep(Duration::from_millis(300)).await;
        }
    };
    let finalizing = async {
        loop {
            for job in 0..JOBS {
                // Nobody has begun it, and nobody begins it at the same time.
                if jobs.count(&format!("SELECT count(*) FROM merges WHERE job = {job}"))? == 0 {
                    if let Ok(guard) = session.try_mark(job, Finalizer::new(None, "merge")).await {
                        merge(name, &mut jobs, job, &guard).await?;
                    }
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let done: Result<()> = tokio::select! { done = reaping => done, done = finalizing => done };
    done
}

/// Takes the job, does the work while the mark is held, and commits.
async fn merge(name: &str, jobs: &mut Jobs, job: u64, guard: &ClusterGuard) -> Result<()> {
    let token = guard.token().get();
    if !jobs.take(job, token)? {
        return Ok(()); // somebody had it meanwhile
    }
    jobs.0.execute("INSERT INTO merges (job, process) VALUES (?, ?)", params![job, name])?;
    println!("{name}  merges job {job} with token {token}");
    let slow = if job == JOBS - 1 { 4 } else { 1 };
    // The work is dropped where the mark is lost.
    let work = sleep(Duration::from_millis(900 * slow));
    if guard.hold(work).await.is_ok() && guard.is_current() && jobs.commit(job, token, name)? {
        println!("{name}  commits job {job}");
    } else {
        println!("{name}  gives job {job} up");
    }
    Ok(())
}

// ---- The job store
//
// It blocks its thread for some microseconds. A store that takes longer is asked through a pool, or `spawn_blocking`: a
// runtime that stands still renews no lease.

struct Jobs(Connection);

impl Jobs {
    fn create(path: &Path) -> Result<()> {
        let jobs = Self::open(path)?;
        jobs.0.execute_batch(
            "CREATE TABLE jobs (id INTEGER PRIMARY KEY, state TEXT NOT NULL DEFAULT 'running', \
             fence INTEGER NOT NULL DEFAULT 0, finished_at REAL, committed_by TEXT, commits INTEGER NOT NULL DEFAULT 0); \
             CREATE TABLE merges (job INTEGER NOT NULL, process TEXT NOT NULL);",
        )?;
        for job in 0..JOBS {
            jobs.0.execute("INSERT INTO jobs (id) VALUES (?)", params![job])?;
        }
        Ok(())
    }

    fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        Ok(Self(connection))
    }

    fn count(&self, query: &str) -> Result<u64> {
        Ok(self.0.query_row(query, [], |row| row.get(0))?)
    }

    /// First thing with the mark: from here on nobody with an earlier token commits.
    fn take(&mut self, job: u64, token: u64) -> Result<bool> {
        let take = "UPDATE jobs SET fence = ?2, finished_at = julianday('now') \
                    WHERE id = ?1 AND state = 'running' AND fence < ?2";
        Ok(self.0.execute(take, params![job, token])? == 1)
    }

    /// Last thing with the mark.
    fn commit(&mut self, job: u64, token: u64, name: &str) -> Result<bool> {
        let commit = "UPDATE jobs SET state = 'done', committed_by = ?3, commits = commits + 1 \
                      WHERE id = ?1 AND state = 'running' AND fence = ?2";
        Ok(self.0.execute(commit, params![job, token, name])? == 1)
    }
}

/// What a reaper sees of the job store.
struct Reaping {
    name: String,
    path: PathBuf,
    jobs: Jobs,
    told: Vec<(u64, String)>,
}

struct Row {
    id: u64,
    finished_for: Duration,
}

impl AsyncJobStore<u64, Remote, ClusterGuard> for Reaping {
    type Row = Row;
    type Error = rusqlite::Error;
    type Rows = Vec<rusqlite::Result<Row>>;

    async fn list(&mut self) -> rusqlite::Result<Self::Rows> {
        let mut select = self.jobs.0.prepare(
            "SELECT id, (julianday('now') - finished_at) * 86400 FROM jobs WHERE state = 'running' AND finished_at NOT NULL",
        )?;
        let rows = select.query_map([], |row| {
            Ok(Row { id: row.get(0)?, finished_for: Duration::from_secs_f64(row.get::<_, f64>(1)?.max(0.0)) })
        })?;
        Ok(rows.collect())
    }

    fn job<'a>(&self, row: &'a Row) -> RunningJob<'a> {
        RunningJob::new(&row.id, "merge", row.finished_for).finished_for(row.finished_for)
    }

    async fn redrive(&mut self, row: Row, claim: Claim) -> rusqlite::Result<Outcome> {
        let Some(guard) = claim.into_guard() else { return Ok(Outcome::Refused) };
        let (name, path) = (self.name.clone(), self.path.clone());
        // In the background, so that the reaper goes on.
        tokio::spawn(async move {
            let merging = async {
                let mut jobs = Jobs::open(&path)?;
                merge(&name, &mut jobs, row.id, &guard).await
            };
            if let Err(error) = merging.await {
                eprintln!("{name}  job {}: {error}", row.id);
            }
        });
        Ok(Outcome::Done)
    }

    async fn reap(&mut self, _: Row, _: Cause, _: Claim) -> rusqlite::Result<Outcome> {
        Ok(Outcome::Refused) // no job of this example gets so old
    }

    fn on_verdict(&mut self, row: &Row, verdict: &Verdict, _: &livemark::Explanation<'_>) {
        let said = match verdict {
            Verdict::Healthy => return,
            Verdict::Defer(deferral) => format!("leaves it alone: {}", deferral.reason),
            Verdict::Redrive(_) => "redrives it".to_owned(),
            Verdict::Reap(..) | Verdict::DryRun(_) => verdict.to_string(),
        };
        // What was said before is not said again.
        if self.told.iter().rev().find(|(job, _)| *job == row.id).is_none_or(|(_, before)| *before != said) {
            println!("{}  finds job {} overdue, and {said}", self.name, row.id);
            self.told.push((row.id, said));
        }
    }
}
