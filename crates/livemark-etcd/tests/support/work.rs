//! Processes that mark jobs, take them, work, and commit them; the job store that they share; and what they saw.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use livemark::Finalizer;
use livemark_cluster::{BootClock, Clock as _, ClusterGuard, Config, Session};
use livemark_etcd::{Etcd, Options};
use rusqlite::{Connection, params};
use rustix::process::{Pid, Signal, kill_process};

pub const TTL: Duration = Duration::from_secs(4);

pub fn config(name: &str) -> Config {
    let mut config = Config::with_ttl(TTL);
    config.process = name.to_owned();
    config
}

pub async fn open(endpoints: &[String], name: &str) -> Session {
    let etcd = Etcd::connect(endpoints.iter().cloned(), "jobs", Options::default()).await.unwrap();
    Session::open(etcd, config(name)).await.unwrap()
}

pub fn run(id: u64) -> Finalizer {
    Finalizer::new(Some(id), "merge")
}

/// Waits until something is so. Fails after a minute.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

/// A job store in an SQLite file, with the two statements that fence.
#[derive(Clone)]
pub struct Jobs(PathBuf);

impl Jobs {
    pub fn create(dir: &Path, jobs: u64) -> Self {
        let store = Self(dir.join("jobs.sqlite"));
        let connection = store.connection();
        let create = "CREATE TABLE jobs (id INTEGER PRIMARY KEY, state TEXT NOT NULL DEFAULT 'running', \
                      fence INTEGER NOT NULL DEFAULT 0, commits INTEGER NOT NULL DEFAULT 0)";
        connection.execute(create, []).unwrap();
        for job in 0..jobs {
            connection.execute("INSERT INTO jobs (id) VALUES (?)", params![job]).unwrap();
        }
        store
    }

    fn connection(&self) -> Connection {
        let connection = Connection::open(&self.0).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        connection.pragma_update(None, "synchronous", "off").unwrap();
        connection
    }

    pub fn take(&self, job: u64, token: u64) -> bool {
        let take = "UPDATE jobs SET fence = ?2 WHERE id = ?1 AND state = 'running' AND fence < ?2";
        self.connection().execute(take, params![job, token]).unwrap() == 1
    }

    pub fn commit(&self, job: u64, token: u64) -> bool {
        let commit = "UPDATE jobs SET state = 'done', commits = commits + 1 \
                      WHERE id = ?1 AND state = 'running' AND fence = ?2";
        self.connection().execute(commit, params![job, token]).unwrap() == 1
    }

    pub fn running(&self) -> Vec<u64> {
        let connection = self.connection();
        let mut select = connection.prepare("SELECT id FROM jobs WHERE state = 'running' ORDER BY id").unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    pub fn floor(&self) -> u64 {
        self.connection().query_row("SELECT coalesce(max(fence), 0) FROM jobs", [], |row| row.get(0)).unwrap()
    }

    /// How often each job was committed.
    pub fn commits(&self) -> Vec<u64> {
        let connection = self.connection();
        let mut select = connection.prepare("SELECT commits FROM jobs ORDER BY id").unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }
}

/// What a process saw, and between which two moments of the machine's boot-time clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub before: Duration,
    pub after: Duration,
    pub job: u64,
    pub token: u64,
    pub saw: Saw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saw {
    /// A mark, on a job that nobody had marked.
    Given,
    /// `is_current()` was true.
    Believes,
    /// `is_current()` was false.
    Doubts,
    Took,
    RefusedToTake,
    Committed,
    RefusedToCommit,
}

const ALL: [(Saw, &str); 7] = [
    (Saw::Given, "given"),
    (Saw::Believes, "believes"),
    (Saw::Doubts, "doubts"),
    (Saw::Took, "took"),
    (Saw::RefusedToTake, "refused-to-take"),
    (Saw::Committed, "committed"),
    (Saw::RefusedToCommit, "refused-to-commit"),
];

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ALL.iter().find(|(saw, _)| *saw == self.saw).unwrap().1;
        let Self { before, after, job, token, .. } = self;
        write!(f, "{} {} {job} {token} {name}", before.as_nanos(), after.as_nanos())
    }
}

impl FromStr for Record {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let words: Vec<_> = line.split(' ').collect();
        let [before, after, job, token, name] = words[..] else { return Err(()) };
        let number = |word: &str| word.parse::<u64>().map_err(drop);
        let time = |word| Ok(Duration::from_nanos(number(word)?));
        let saw = ALL.iter().find(|(_, other)| *other == name).ok_or(())?.0;
        Ok(Self { before: time(before)?, after: time(after)?, job: number(job)?, token: number(token)?, saw })
    }
}

/// What all processes of a test saw.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Vec<Record>>>);

/// What a history comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub given: usize,
    pub samples: usize,
    pub committed: usize,
    pub refused: usize,
    /// Somebody believed to be the owner after somebody else was given the mark.
    pub overlaps: usize,
}

impl History {
    pub fn record(&self, record: Record) {
        self.0.lock().unwrap().push(record);
    }

    pub fn records(&self) -> Vec<Record> {
        self.0.lock().unwrap().clone()
    }

    /// Checks that tokens grow, and that a job is committed once; and counts overlapping belief.
    pub fn check(&self) -> Summary {
        let mut jobs = BTreeMap::<u64, Vec<Record>>::new();
        for record in self.records() {
            jobs.entry(record.job).or_default().push(record);
        }
        let mut sum = Summary::default();
        for (job, records) in jobs {
            let of = |saw: Saw| records.iter().filter(move |record| record.saw == saw);
            let mut given: Vec<_> = of(Saw::Given).collect();
            given.sort_by_key(|record| record.token);
            for two in given.windows(2) {
                assert!(two[0].token < two[1].token, "job {job}: a token was given twice: {two:?}");
                assert!(two[0].before <= two[1].after, "job {job}: tokens did not grow: {two:?}");
            }
            let committed = of(Saw::Committed).count();
            assert!(committed <= 1, "job {job} was committed {committed} times: {records:?}");
            // Whoever believes began to ask after somebody with a greater token had it.
            let is_late =
                |sample: &&Record| given.iter().any(|other| other.token > sample.token && other.after < sample.before);
            sum.overlaps += of(Saw::Believes).filter(is_late).count();
            sum.given += given.len();
            sum.samples += of(Saw::Believes).count() + of(Saw::Doubts).count();
            sum.committed += committed;
            sum.refused += of(Saw::RefusedToTake).count() + of(Saw::RefusedToCommit).count();
        }
        sum
    }
}

/// How a process works.
#[derive(Clone, Copy)]
pub struct Habits {
    /// For how long it works on a job.
    pub works: Duration,
    /// Whether it asks before it commits.
    pub asks: bool,
}

/// Does something, and notes between which two moments it was.
fn noting<T>(tell: &dyn Fn(Record), job: u64, token: u64, act: impl FnOnce() -> (T, Saw)) -> T {
    let before = BootClock.now();
    let (done, saw) = act();
    tell(Record { before, after: BootClock.now(), job, token, saw });
    done
}

/// Works on one job, if nobody has it. Returns whether it committed it.
pub async fn work_on(
    session: &Session,
    store: &Jobs,
    job: u64,
    habits: Habits,
    tell: &(dyn Fn(Record) + Sync),
) -> bool {
    let before = BootClock.now();
    let Ok(guard) = session.try_mark(job, run(job)).await else { return false };
    let token = guard.token().get();
    tell(Record { before, after: BootClock.now(), job, token, saw: Saw::Given });
    let took = noting(tell, job, token, || {
        let took = store.take(job, token);
        (took, if took { Saw::Took } else { Saw::RefusedToTake })
    });
    let mut committed = false;
    if took {
        believe(&guard, habits.works, tell).await;
        if !habits.asks || guard.is_current() {
            committed = noting(tell, job, token, || {
                let committed = store.commit(job, token);
                (committed, if committed { Saw::Committed } else { Saw::RefusedToCommit })
            });
        }
    }
    drop(guard);
    committed
}

/// Asks again and again whether the mark is still ours.
pub async fn believe(guard: &ClusterGuard, time: Duration, tell: &(dyn Fn(Record) + Sync)) {
    let until = BootClock.now() + time;
    while BootClock.now() < until {
        let (job, token) = (*guard.job(), guard.token().get());
        noting(tell, job, token, || ((), if guard.is_current() { Saw::Believes } else { Saw::Doubts }));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Works on all jobs until none is running. Opens another session where one is lost.
pub async fn work(endpoints: &[String], name: &str, store: &Jobs, habits: Habits, tell: &(dyn Fn(Record) + Sync)) {
    while !store.running().is_empty() {
        let Ok(etcd) = Etcd::connect(endpoints.iter().cloned(), "jobs", Options::default()).await else { continue };
        let mut config = config(name);
        config.token_floor = store.floor();
        let Ok(session) = Session::open(etcd, config).await else { continue };
        while session.standing().loss().is_none() {
            let running = store.running();
            if running.is_empty() {
                return;
            }
            // Not all of them in the same order.
            let first = fastrand::usize(..running.len());
            for at in 0..running.len() {
                work_on(&session, store, running[(first + at) % running.len()], habits, tell).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

// ---- A process of its own

const WORKER: &str = "LIVEMARK_WORKER";

/// A child process that works. It is killed with this.
pub struct Worker {
    child: Child,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts a child, by a command in front of its own, if there is one. The test binary has a test `worker`, which calls
    /// [`be_a_worker`].
    pub fn start(
        prefix: &[&str],
        endpoints: &[String],
        name: &str,
        store: &Jobs,
        habits: Habits,
        history: &History,
    ) -> Self {
        let Habits { works, asks } = habits;
        let said = format!("{};{name};{};{};{asks}", endpoints.join(","), store.0.display(), works.as_millis());
        let mut words: Vec<std::ffi::OsString> = prefix.iter().map(Into::into).collect();
        words.push(env::current_exe().unwrap().into());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(["worker", "--exact", "--include-ignored", "--nocapture", "--test-threads=1"])
            .env(WORKER, said)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, history) = (child.stdout.take().unwrap(), history.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Ok(record) = line.parse() {
                    history.record(record);
                }
            }
        });
        Self { child, reader: Some(reader) }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Kills it, and takes up all that it has said.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In a child, works. Elsewhere does nothing.
pub fn be_a_worker() {
    let Ok(said) = env::var(WORKER) else { return };
    let words: Vec<_> = said.split(';').collect();
    let [endpoints, name, store, works, asks] = words[..] else { panic!("{said}") };
    let endpoints: Vec<String> = endpoints.split(',').map(str::to_owned).collect();
    let habits = Habits { works: Duration::from_millis(works.parse().unwrap()), asks: asks == "true" };
    let store = Jobs(store.into());
    let tell = |record: Record| {
        // Who reads may be gone.
        let _ = writeln!(std::io::stdout(), "{record}");
    };
    // The harness has begun a line.
    println!();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work(&endpoints, name, &store, habits, &tell));
}
