//! Restarts: the server is killed (SIGKILL) at random instants and in every phase of a job, and started again on what
//! it left behind. Now and then its disk is full, or a second service is tried on its store. Every job ends exactly once, none is lost, and nothing that a killed server had started lives on.
//!
//! `KILLS_SEED` repeats a run's choices. Where the threads then are is the machine's choice, not ours.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write, stderr};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, thread};

use common::{LONG, Place, Server, TOKEN, orchestrator, outcome, refused, wait_for};
use rusqlite::Connection;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};

/// Kills at random instants of a server's life, and while it starts.
const ANYTIME: usize = 170;
const STARTING: usize = 30;
/// Kills in each phase. Most phases are too short to be met often by chance.
const AIMED: usize = 4;
/// The phases of a job, in order: its run's stage, unless its own row or the ledger says more. `commit` is decided but
/// not acted upon, `acted` not committed, and of what is `ended` the run is still open.
const PHASES: [&str; 9] = ["queued", "process", "marked", "stamped", "build", "test", "commit", "acted", "ended"];
/// What every unfinished job has, and every job that has just ended.
const PHASE: &str = "
    SELECT CASE WHEN jobs.state = 'queued' THEN 'queued'
                WHEN jobs.state <> 'running' THEN 'ended'
                WHEN EXISTS (SELECT 1 FROM ledger WHERE ledger.job_id = jobs.id) THEN 'acted'
                ELSE runs.stage END AS phase,
           COUNT(*)
    FROM jobs LEFT JOIN runs ON runs.id = jobs.run_id
    WHERE jobs.state IN ('queued', 'running') OR runs.ended_at IS NULL
    GROUP BY phase";

/// Jobs that have not ended, at the start of a life: more than it can end.
const IN_FLIGHT: u64 = 24;
/// The longest life, in milliseconds.
const LIFE: u64 = 250;

/// What one gate leaves behind, and what hangs, would outlive the test: only its supervisor ends it.
const SETTINGS: &str = "
job.command = ['sleep', '0.03']
gates = [
    { name = 'build', command = ['sh', '-c', 'sleep 3600 & sleep 0.02'] },
    { name = 'test', command = ['sleep', '0.02'] },
]
[limits]
finalize_grace = 0.01
lost_grace = 500
hard_deadline = 600
sweep_every = 0.005
process = 3600
monitors = 6
[kinds.red]
gates = [{ name = 'build', command = ['true'] }, { name = 'test', command = ['sh', '-c', 'sleep 0.02; exit 1'] }]
[kinds.hang]
gates = [{ name = 'hang', command = ['sleep', '3600'] }]
";

/// Every change of every job's state, written in the transaction that makes it. Setting a state to what it is counts.
const HISTORY: &str = "
    CREATE TABLE moves (id INTEGER PRIMARY KEY, job_id INTEGER NOT NULL, old TEXT NOT NULL, new TEXT NOT NULL) STRICT;
    CREATE TRIGGER moved AFTER UPDATE OF state ON jobs
    BEGIN INSERT INTO moves (job_id, old, new) VALUES (OLD.id, OLD.state, NEW.state); END;";

/// A small generator of repeatable choices.
struct Choices(u64);

impl Choices {
    /// Says its seed: the harness shows that if the test fails.
    fn new() -> Self {
        let seed = match env::var("KILLS_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64,
        };
        println!("KILLS_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn pause(&mut self, at_most: Duration) {
        thread::sleep(Duration::from_micros(self.below(at_most.as_micros() as u64)));
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// When a server is killed.
#[derive(Clone, Copy, PartialEq)]
enum Aim {
    /// Before it says where it listens, or a little later.
    Starting,
    Anytime,
    /// With a job in this phase.
    In(&'static str),
}

/// Seen to fail with a start that does not queue again what was running, or leaves its runs open; with finalizations
/// that do not look into the ledger first, or commit before they act; with submissions that are written job by job;
/// with supervisors that do not watch their pipe, or kill the command without its group; with a database that keeps no
/// journal.
#[test]
fn every_job_ends_exactly_once_however_often_the_server_is_killed() {
    let mut test = Test::with(SETTINGS);
    // Half a schema would be found here.
    for _ in 0..10 {
        test.kill_starting();
    }
    let server = test.serve();
    test.place.raw().execute_batch(HISTORY).unwrap();
    test.submit(&server, "hang", 1);
    test.kill(server);

    let phases = PHASES.iter().flat_map(|phase| [Aim::In(phase); AIMED]);
    let mut aims: Vec<_> = [Aim::Starting; STARTING].into_iter().chain([Aim::Anytime; ANYTIME]).chain(phases).collect();
    test.choices.shuffle(&mut aims);
    for aim in aims {
        test.live_and_be_killed(aim);
    }
    test.end();
    test.tell();
    for phase in PHASES {
        assert!(test.met.get(phase).is_some_and(|met| met.aimed >= AIMED), "not killed in phase {phase}");
    }
    assert!(test.seconds > 0 && test.full_disks > 0, "no second service, or no full disk");
    assert!(test.cut_off.iter().sum::<u64>() > 0, "every submission was answered");
}

/// Past its deadline a job is the reaper's to end, and its monitor's, which has acted and is about to say so. The lock
/// keeps both from it until both are sure. Seen to fail with a commit that does not compare what it sets.
#[test]
fn a_job_past_its_deadline_is_ended_by_one_of_two() {
    const ROUNDS: usize = 8;
    let mut test = Test::with(
        // The process takes time: the deadline comes before the grace's end, and no deferral is waiting to be written.
        "job.command = ['true']
        gates = [{ name = 'only', command = ['true'] }]
        limits = { finalize_grace = 0.399, hard_deadline = 0.4, sweep_every = 0.005, process = 60, monitors = 1 }",
    );
    let mut server = test.serve();
    test.place.raw().execute_batch(HISTORY).unwrap();
    for round in 0..ROUNDS {
        let (job, lock) = test.hold_acted(&server);
        server.until("judged", |queue| queue["owners"][0]["value"]["run_id"].is_null() && queue["active"] == 1);
        if round % 4 == 0 {
            test.kill(server);
            drop(lock);
            server = test.serve();
        } else {
            drop(lock);
        }
        let open = "SELECT COUNT(*) FROM jobs JOIN runs ON job_id = jobs.id
            WHERE runs.ended_at IS NULL OR state IN ('queued', 'running')";
        wait_for("its end", || test.place.count(open) == 0);
        let sql = format!(
            "SELECT group_concat(new) FROM moves WHERE job_id = {job} AND new NOT IN ('queued', 'running')
             UNION ALL SELECT group_concat(effect) FROM ledger WHERE job_id = {job}"
        );
        let database = test.place.raw();
        let mut statement = database.prepare(&sql).unwrap();
        let ends = statement.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
        assert_eq!(ends.collect::<Vec<_>>(), ["merged", "merge"], "round {round}");
    }
}

struct Test {
    place: Place,
    choices: Choices,
    began: Instant,
    /// How long the last start took.
    start: Duration,
    /// Every job that there is, and its kind.
    jobs: BTreeMap<u64, &'static str>,
    /// Processes that were at work when their server was killed.
    left: BTreeSet<Process>,
    kills: usize,
    /// Counted by phase.
    met: BTreeMap<String, Met>,
    /// Unfinished jobs at a kill: the fewest.
    fewest: u64,
    /// Jobs whose ids were not answered any more: not submitted, and submitted.
    cut_off: [u64; 2],
    /// Second services that were refused.
    seconds: usize,
    /// Lives with a disk that was full for a while.
    full_disks: usize,
    /// In this life.
    was_full: bool,
}

/// Kills that met a job in some phase.
#[derive(Default)]
struct Met {
    by_chance: usize,
    aimed: usize,
    jobs: u64,
}

impl Test {
    fn with(settings: &str) -> Self {
        Self {
            place: Place::new(settings),
            choices: Choices::new(),
            began: Instant::now(),
            start: Duration::from_millis(50),
            jobs: BTreeMap::new(),
            left: BTreeSet::new(),
            kills: 0,
            met: BTreeMap::new(),
            fewest: u64::MAX,
            cut_off: [0; 2],
            seconds: 0,
            full_disks: 0,
            was_full: false,
        }
    }

    fn live_and_be_killed(&mut self, aim: Aim) {
        if aim == Aim::Starting {
            return self.kill_starting();
        }
        let server = self.serve();
        self.top_up(&server);
        let pending = match aim {
            Aim::In(phase) => {
                let lock = self.hold_in(&server, phase);
                self.kill(server);
                drop(lock);
                None
            }
            _ => {
                match self.choices.below(8) {
                    0 => self.fill_the_disk(&server),
                    1 => self.try_a_second(),
                    _ => self.choices.pause(Duration::from_millis(LIFE)),
                }
                // Every other time while it is asked for more.
                let pending = (self.choices.below(2) == 0).then(|| self.send(&server));
                if pending.is_some() {
                    self.choices.pause(Duration::from_millis(2));
                }
                self.kill(server);
                pending
            }
        };
        self.look(aim, pending);
    }

    fn serve(&mut self) -> Server {
        let started = Instant::now();
        let server = self.place.serve();
        self.start = started.elapsed();
        wait_for("the end of what a killed server started", || self.left.is_disjoint(&at_work(&self.place)));
        self.left.clear();
        server
    }

    fn kill_starting(&mut self) {
        let mut command = self.place.command();
        command.args(["--token", TOKEN]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut starting = command.spawn().unwrap();
        self.choices.pause(self.start * 3 / 2);
        starting.kill().unwrap();
        let output = starting.wait_with_output().unwrap();
        self.killed(output.status, &String::from_utf8_lossy(&output.stderr));
    }

    fn kill(&mut self, mut server: Server) {
        server.signal(Signal::KILL);
        let (status, error) = server.ended();
        self.killed(status, &error);
    }

    fn killed(&mut self, status: ExitStatus, error: &str) {
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "it ended by itself: {status}, {error}");
        // What it ended and what it could not write down is told, and nothing else.
        let told = |line: &&str| !line.contains(" reaper: job ") && (!self.was_full || !is_of_a_full_disk(line));
        assert_eq!(error.lines().find(told), None, "it complained: {error}");
        self.was_full = false;
        self.left.append(&mut at_work(&self.place));
        self.kills += 1;
    }

    /// Nothing can be written for a while. Jobs that end, start or come to a gate meanwhile meet that.
    fn fill_the_disk(&mut self, server: &Server) {
        let process = Some(Pid::from_child(&server.child));
        let before = prlimit(process, Resource::Fsize, Rlimit { current: Some(0), maximum: None }).unwrap();
        (self.full_disks, self.was_full) = (self.full_disks + 1, true);
        self.choices.pause(Duration::from_millis(LIFE));
        // Every other time there is no room any more until the end.
        if self.choices.below(2) == 0 {
            prlimit(process, Resource::Fsize, before).unwrap();
            self.choices.pause(Duration::from_millis(LIFE));
        }
    }

    /// Starts a second service on the same store, by another name.
    fn try_a_second(&mut self) {
        let link = self.place.path("other.db");
        if !link.exists() {
            symlink("jobs.db", &link).unwrap();
        }
        let mut second = orchestrator();
        second.current_dir(self.place.directory.path()).args([
            "serve",
            "--db",
            "other.db",
            "--config",
            "settings.toml",
        ]);
        second.args(["--listen", "127.0.0.1:0", "--workspaces", "work", "--token", TOKEN]);
        refused(&outcome(&mut second), "another orchestrator serves it");
        self.seconds += 1;
    }

    fn submit(&mut self, server: &Server, kind: &'static str, count: u64) {
        let ids = server.submit(&json!({ "kind": kind, "count": count }).to_string());
        self.answered(kind, count, ids);
    }

    fn answered(&mut self, kind: &'static str, count: u64, ids: Vec<u64>) {
        assert_eq!(ids.len() as u64, count);
        for id in ids {
            assert_eq!(self.jobs.insert(id, kind), None, "job {id} was another's");
        }
    }

    fn a_batch(&mut self) -> (&'static str, u64) {
        (["default", "default", "red"][self.choices.below(3) as usize], 1 + self.choices.below(8))
    }

    fn top_up(&mut self, server: &Server) {
        while self.place.count("SELECT COUNT(*) FROM jobs WHERE state IN ('queued', 'running')") < IN_FLIGHT {
            let (kind, count) = self.a_batch();
            self.submit(server, kind, count);
        }
    }

    fn send(&mut self, server: &Server) -> Pending {
        let (kind, count) = self.a_batch();
        Pending::send(server, kind, count)
    }

    /// Steps the server, by the lock that its writes need, until a job is in this phase. There it stays until the
    /// connection is dropped.
    fn hold_in(&mut self, server: &Server, phase: &str) -> Connection {
        let database = self.place.raw();
        let started = Instant::now();
        loop {
            database.execute_batch("BEGIN IMMEDIATE").unwrap();
            let phases = phases(&database);
            if phases.contains_key(phase) {
                return database;
            }
            database.execute_batch("ROLLBACK").unwrap();
            assert!(started.elapsed() < LONG, "never a job in phase {phase}, but {phases:?}");
            self.choices.pause(Duration::from_micros(400));
            self.top_up(server);
        }
    }

    /// A job that has acted before its deadline, and cannot be committed until the connection is dropped.
    fn hold_acted(&mut self, server: &Server) -> (u64, Connection) {
        let database = self.place.raw();
        let holds = |sql: &str| database.query_row(sql, [], |row| row.get::<_, bool>(0)).unwrap();
        let started = Instant::now();
        loop {
            let job = server.submit("{}")[0];
            // Most escape us.
            while holds("SELECT EXISTS (SELECT 1 FROM jobs WHERE state IN ('queued', 'running'))") {
                database.execute_batch("BEGIN IMMEDIATE").unwrap();
                if holds(
                    "SELECT EXISTS (SELECT 1 FROM jobs JOIN ledger ON job_id = jobs.id
                     WHERE state = 'running' AND unixepoch('subsec') * 1000 < started_at + 400)",
                ) {
                    return (job, database);
                }
                database.execute_batch("ROLLBACK").unwrap();
                assert!(started.elapsed() < LONG, "never a job that has just acted");
                self.choices.pause(Duration::from_micros(100));
            }
        }
    }

    /// What the killed server has left behind.
    fn look(&mut self, aim: Aim, pending: Option<Pending>) {
        let database = self.place.raw();
        let phases = phases(&database);
        self.fewest = self.fewest.min(phases.iter().filter(|(phase, _)| *phase != "ended").map(|(_, jobs)| jobs).sum());
        for (phase, jobs) in phases {
            let met = self.met.entry(phase.clone()).or_default();
            met.jobs += jobs;
            *if aim == Aim::Anytime { &mut met.by_chance } else { &mut met.aimed } += 1;
        }

        // No job whose id was answered is missing. Of a submission that was cut off there are all jobs, or none.
        let mut unknown = jobs(&database);
        for (job, kind) in &self.jobs {
            assert_eq!(unknown.remove(job).as_deref(), Some(*kind), "job {job}, whose id was answered");
        }
        let Some(Pending { kind, count, stream }) = pending else {
            return assert!(unknown.is_empty(), "nobody submitted {unknown:?}");
        };
        if let Some(ids) = answer(stream) {
            assert!(unknown.keys().eq(&ids), "{unknown:?} are not {ids:?}");
            if ids.is_empty() {
                return;
            }
            return self.answered(kind, count, ids);
        }
        self.cut_off[usize::from(!unknown.is_empty())] += count;
        if !unknown.is_empty() {
            assert!(unknown.values().all(|of| of == kind), "{unknown:?} are not of kind {kind}");
            self.answered(kind, count, unknown.into_keys().collect());
        }
    }

    /// A last life, in which all jobs end, and what there is then.
    fn end(&mut self) {
        let mut server = self.serve();
        let open = |kinds: &str| {
            let sql = "SELECT COUNT(*) FROM jobs LEFT JOIN runs ON job_id = jobs.id AND runs.ended_at IS NULL";
            self.place
                .count(&format!("{sql} WHERE (state IN ('queued', 'running') OR runs.id IS NOT NULL) AND {kinds}"))
        };
        wait_for("every job that can", || open("kind <> 'hang'") == 0);
        assert_eq!(open("kind = 'hang'"), 1, "it has no end of its own");
        let response = server.change("PUT", "/policy", r#"{"lost_grace": 0.02, "hard_deadline": 0.05}"#);
        assert_eq!(response.status, 200, "{response:?}");
        wait_for("the backstop", || open("TRUE") == 0);
        server.signal(Signal::TERM);
        let (status, error) = server.ended();
        assert!(status.success() && error.lines().count() == 1, "{status}, {error}");
        assert!(error.contains(" reaper: job 1: reaps it: backstop"), "{error}");
        wait_for("nobody at work any more", || at_work(&self.place).is_empty());

        let database = self.place.raw();
        assert!(jobs(&database).iter().map(|(job, kind)| (*job, kind.as_str())).eq(self.jobs.clone()));
        check(&database);
    }

    /// Not to standard output, which the harness keeps to itself if all is well.
    fn tell(&self) {
        let mut table = format!(
            "{} kills in {:.0?}, {} jobs, at each kill {} unfinished or more\n",
            self.kills,
            self.began.elapsed(),
            self.jobs.len(),
            self.fewest
        );
        let [nothing, all] = self.cut_off;
        let (seconds, full) = (self.seconds, self.full_disks);
        writeln!(table, "{seconds} second services refused, {full} lives with a full disk").unwrap();
        writeln!(table, "ids cut off: {all} of submitted jobs, {nothing} of jobs that were not").unwrap();
        writeln!(table, "{:<10}{:>10}{:>8}{:>8}", "phase", "by chance", "aimed", "jobs").unwrap();
        let order = |phase: &str| PHASES.iter().position(|known| *known == phase).unwrap_or(PHASES.len());
        let mut rows: Vec<_> = self.met.iter().collect();
        rows.sort_by_key(|(phase, _)| order(phase));
        for (phase, Met { by_chance, aimed, jobs }) in rows {
            writeln!(table, "{phase:<10}{by_chance:>10}{aimed:>8}{jobs:>8}").unwrap();
        }
        stderr().write_all(table.as_bytes()).unwrap();
    }
}

/// A submission that the server may not live to answer.
struct Pending {
    kind: &'static str,
    count: u64,
    stream: TcpStream,
}

impl Pending {
    fn send(server: &Server, kind: &'static str, count: u64) -> Self {
        let mut stream = server.connect();
        let body = json!({ "kind": kind, "count": count }).to_string();
        let request = format!(
            "POST /jobs HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            server.port(),
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        Self { kind, count, stream }
    }
}

/// The ids, if they came whole. There are none where nothing could be written.
fn answer(mut stream: TcpStream) -> Option<Vec<u64>> {
    let mut answer = Vec::new();
    // Ends with an error if the server was killed before it read the request.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if head.starts_with("HTTP/1.1 503 ") && is_of_a_full_disk(body) {
        return Some(Vec::new());
    }
    assert!(head.starts_with("HTTP/1.1 201 "), "{answer}");
    let body: Value = serde_json::from_str(body).ok()?;
    Some(serde_json::from_value(body["jobs"].clone()).unwrap())
}

fn phases(database: &Connection) -> BTreeMap<String, u64> {
    let mut statement = database.prepare_cached(PHASE).unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

fn jobs(database: &Connection) -> BTreeMap<u64, String> {
    let mut statement = database.prepare("SELECT id, kind FROM jobs").unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// What must hold of a database in which all jobs have ended.
fn check(database: &Connection) {
    let ask = |sql: &str| database.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    let none = |what: &str, sql: &str| {
        let sql = format!("SELECT COALESCE(group_concat(of, ', '), '') FROM (SELECT * FROM ({sql}) LIMIT 20)");
        assert_eq!(ask(&sql), "", "{what}");
    };
    assert_eq!(ask("PRAGMA integrity_check"), "ok");
    none("broken references", "SELECT \"table\" AS of FROM pragma_foreign_key_check");
    none(
        "jobs whose state, effects or ends are not exactly those of their kind",
        "WITH ended AS (SELECT id, kind, state,
             (SELECT group_concat(effect) FROM ledger WHERE job_id = jobs.id) AS effects,
             (SELECT group_concat(new) FROM moves WHERE job_id = jobs.id AND new NOT IN ('queued', 'running')) AS ends
             FROM jobs)
         SELECT format('job %d (%s) is %s by %s, did %s', id, kind, state, ends, effects) AS of FROM ended
         WHERE (kind, state, ends, COALESCE(effects, 'nothing')) NOT IN (VALUES
             ('default', 'merged', 'merged', 'merge'),
             ('red', 'rolled back', 'rolled back', 'rollback'),
             ('hang', 'reaped', 'reaped', 'nothing'))",
    );
    none(
        "changes of a state that do not lead on from the one before",
        "SELECT format('job %d from %s to %s', job_id, old, new) AS of
         FROM (SELECT *, LAG(new, 1, 'queued') OVER (PARTITION BY job_id ORDER BY id) AS before FROM moves)
         WHERE old <> before OR (old, new) NOT IN (VALUES ('queued', 'running'), ('running', 'queued'),
             ('running', 'merged'), ('running', 'rolled back'), ('running', 'reaped'))",
    );
    none(
        "runs that did not end as they should: in the job's end, with their server, or for want of room",
        "SELECT format('run %d of job %d (%s): %s', runs.id, job_id, kind, outcome) AS of
         FROM runs JOIN jobs ON jobs.id = job_id
         WHERE runs.ended_at IS NULL OR outcome IS NULL OR outcome NOT IN ('lost', 'failed') AND (runs.id <> run_id
             OR outcome <> CASE kind WHEN 'hang' THEN 'displaced' ELSE 'committed' END)",
    );
    none(
        "jobs that were worked on after their end",
        "SELECT format('job %d', jobs.id) AS of FROM jobs JOIN runs ON job_id = jobs.id
         GROUP BY jobs.id HAVING MAX(runs.id) IS NOT run_id",
    );
    none(
        "states that are counted wrongly",
        "SELECT format('%s: %d', state, jobs) AS of FROM tallies
         WHERE jobs <> (SELECT COUNT(*) FROM jobs WHERE (queue, state) = (tallies.queue, tallies.state))",
    );
}

/// What a service says where nothing can be written.
fn is_of_a_full_disk(line: &str) -> bool {
    ["disk I/O error", "database or disk is full", "File too large"].iter().any(|reason| line.contains(reason))
}

/// A process: its id, and when it started, since ids come again.
type Process = (u64, String);

/// The processes in the workspaces of this place: supervisors and commands, whoever started them.
fn at_work(place: &Place) -> BTreeSet<Process> {
    let Ok(workspaces) = place.path("work").canonicalize() else { return BTreeSet::new() };
    let process = |directory: &Path| {
        let pid = directory.file_name()?.to_str()?.parse().ok()?;
        // Both fail if it has ended; after its name there is no parenthesis.
        fs::read_link(directory.join("cwd")).ok()?.starts_with(&workspaces).then_some(())?;
        let stat = fs::read_to_string(directory.join("stat")).ok()?;
        Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned()))
    };
    fs::read_dir("/proc").unwrap().filter_map(|entry| process(&entry.unwrap().path())).collect()
}
