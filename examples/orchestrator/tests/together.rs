//! Several processes on one store: real services, a real PostgreSQL, a real etcd.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../../crates/livemark-postgres/tests/support/mod.rs"]
mod support;

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use common::{Place, QUICK, Server, TOKEN, orchestrator, wait_for};
use orchestrator::store::{Database, Effect, Outcome, State};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Server as Postgres, free_port, not_checked};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

/// A PostgreSQL with a database for one test.
struct Shared {
    postgres: Postgres,
    runtime: Runtime,
}

impl Shared {
    fn start() -> Option<Self> {
        let runtime = Runtime::new().unwrap();
        let postgres = runtime.block_on(Postgres::start(&[]))?;
        Some(Self { postgres, runtime })
    }

    fn address(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.postgres.port)
    }

    fn database(&self) -> Database {
        Database::postgres(&self.address(), None).unwrap()
    }

    fn say(&self, sql: &str) {
        self.runtime.block_on(async {
            let (client, connection) = self.postgres.config().connect(NoTls).await.unwrap();
            let _connection = tokio::spawn(connection);
            client.batch_execute(sql).await.unwrap();
        });
    }

    /// A service called so, on the jobs of this database.
    fn serve(&self, place: &Place, name: &str) -> Server {
        self.serve_for(place, name, "2")
    }

    fn serve_for(&self, place: &Place, name: &str, ttl: &str) -> Server {
        Server::start(&mut self.command(place, name, ttl))
    }

    fn command(&self, place: &Place, name: &str, ttl: &str) -> Command {
        let mut command = orchestrator();
        command.current_dir(place.directory.path()).args(["serve", "--config", "settings.toml"]);
        command.args(["--listen", "127.0.0.1:0", "--workspaces", "work", "--token", TOKEN]);
        command.args(["--store", &self.address(), "--name", name, "--ttl", ttl]);
        command
    }
}

/// An etcd of one member, which ends with this.
struct Etcd {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Etcd {
    fn start() -> Option<Self> {
        let (directory, port, peers) = (TempDir::new().unwrap(), free_port(), free_port());
        let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
        let log = File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "etcd", "--data-dir"]).arg(directory.path().join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        let is_there = Command::new("etcd").arg("--version").output().is_ok();
        if !is_there {
            not_checked("there is no etcd", "Debian: apt-get install etcd-server");
            return None;
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let etcd = Self { child, port, _directory: directory };
        wait_for("etcd", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(etcd)
    }
}

impl Etcd {
    /// Stops it, so that nobody answers, or lets it go on.
    fn stop(&mut self, is_stopped: bool) {
        let signal = if is_stopped { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn replays(arguments: &[&str]) {
    let temporary = TempDir::new().unwrap();
    let mut command = orchestrator();
    let output = command.env("TMPDIR", temporary.path()).args(arguments).args(["--kills", "20"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.ends_with("All scenarios hold.\n"), "{text}");
    for played in ["(g own)   ", "(g)       ", "(h)       ", "(i)       "] {
        assert!(text.lines().any(|line| line.starts_with(played)), "{played}: {text}");
    }
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

// Seen to fail without the check of `is_current` and with tokens that are not compared: two merges in (i).
#[test]
fn the_replay_holds_with_marks_in_postgresql() {
    let Some(shared) = Shared::start() else { return };
    replays(&["--cluster", &shared.address()]);
}

#[test]
fn the_replay_holds_with_marks_in_etcd() {
    let (Some(shared), Some(etcd)) = (Shared::start(), Etcd::start()) else { return };
    replays(&["--cluster", &shared.address(), "--marks", &format!("etcd://127.0.0.1:{}", etcd.port)]);
}

fn owners(queue: &Value) -> Vec<String> {
    let running = queue["running"].as_object().unwrap().values().flat_map(|jobs| jobs.as_array().unwrap());
    let mut owners: Vec<_> = running.filter_map(|job| Some(job["owner"]["process"].as_str()?.to_owned())).collect();
    owners.sort_unstable();
    owners
}

fn processes(queue: &Value) -> Vec<(String, u64, bool)> {
    let processes = queue["processes"].as_array().unwrap().iter();
    let of = |process: &Value| {
        let name = process["name"].as_str().unwrap().to_owned();
        (name, process["marks"].as_u64().unwrap(), process["own"].as_bool().unwrap())
    };
    processes.map(of).collect()
}

#[test]
fn services_share_jobs_and_one_ends_what_a_killed_one_leaves() {
    let Some(shared) = Shared::start() else { return };
    let place = Place::new(&format!("{QUICK}\n").replace("process = 60", "process = 60\nmonitors = 3"));
    let (a, b) = (shared.serve(&place, "a"), shared.serve(&place, "b"));
    a.submit(r#"{"kind": "gated", "count": 6}"#);

    // Each shows all: whose mark is whose, who there is, and how fresh that is.
    let is_shared = |queue: &Value| owners(queue) == ["a", "a", "a", "b", "b", "b"];
    let seen = a.until("shared", |queue| is_shared(queue) && processes(queue).iter().all(|(_, marks, _)| *marks == 3));
    assert_eq!(processes(&seen), [("a".to_owned(), 3, true), ("b".to_owned(), 3, false)]);
    assert!(seen["marks_heard_at_ms"].as_u64().unwrap() > 0);
    let seen = b.until("shared", is_shared);
    assert_eq!(processes(&seen).iter().map(|(_, _, own)| *own).collect::<Vec<_>>(), [false, true]);

    // What b had is redriven by a, once its marks are gone. What a has goes on.
    b.kill();
    a.until("a's alone", |queue| owners(queue) == ["a"; 6]);
    place.go();
    a.until_counts("merged", 6);
    let store = shared.database().store("main").unwrap();
    assert_eq!(store.count_effects(Effect::Merge).unwrap(), 6, "each once");
    assert_eq!(store.count_diverged().unwrap(), 0);
    // Written down after the job has ended.
    wait_for("six runs", || store.count_outcomes(Outcome::Committed).unwrap() == 6);
    assert_eq!(store.count_runs().unwrap(), 9, "three were redriven");
}

/// Marks are where nobody answers, and jobs are elsewhere. Seen to fail with a monitor that gives its job up as it gives up any
/// other: its worker counts as lost, and the reaper ends it.
#[test]
fn a_job_is_queued_again_while_no_mark_can_be_had() {
    let (Some(shared), Some(mut etcd)) = (Shared::start(), Etcd::start()) else { return };
    let place = Place::new(QUICK);
    let mut command = shared.command(&place, "a", "3");
    let a = Server::start(command.args(["--marks", &format!("etcd://127.0.0.1:{}", etcd.port)]));
    etcd.stop(true);
    let job = a.submit("{}")[0];
    let store = shared.database().store("main").unwrap();
    wait_for("a run that had no mark", || store.count_outcomes(Outcome::Failed).unwrap() > 0);
    // For longer than a lost worker is waited for. By then the service has lost its marks, and ended.
    thread::sleep(Duration::from_secs(1));
    assert!(matches!(store.state(job).unwrap(), State::Queued | State::Running));
    etcd.stop(false);
    drop(a);
    let again = Server::start(command.args(["--marks", &format!("etcd://127.0.0.1:{}", etcd.port)]));
    again.until_counts("merged", 1);
}

/// A job whose own process runs has no stamp by which it could be redriven. Seen to fail with monitors that mark no job before
/// its process has finished (it is begun anew while it runs), and without a look for runs that have no mark (it runs for ever).
#[test]
fn a_job_whose_process_runs_is_its_services_until_that_is_gone() {
    let Some(shared) = Shared::start() else { return };
    let place = Place::new(QUICK);
    let (a, b) = (shared.serve(&place, "a"), shared.serve(&place, "b"));
    assert_eq!(b.change("PUT", "/submission", r#"{"paused": true}"#).status, 200);
    a.until("paused", |queue| queue["paused"] == true);
    a.submit(r#"{"kind": "held"}"#);
    a.change("PUT", "/submission", r#"{"paused": false}"#);
    let name = owners(&a.until("owned", |queue| !owners(queue).is_empty())).remove(0);
    // Longer than a run may be without a mark.
    thread::sleep(Duration::from_secs(1));
    let store = shared.database().store("main").unwrap();
    assert_eq!((store.count_runs().unwrap(), owners(&a.queue())), (1, vec![name.clone()]));

    let (gone, left) = if name == "a" { (a, b) } else { (b, a) };
    gone.kill();
    left.until("the other's", |queue| !owners(queue).is_empty() && owners(queue)[0] != name);
    place.go();
    left.until_counts("merged", 1);
    assert_eq!((store.count_runs().unwrap(), store.count_outcomes(Outcome::Lost).unwrap()), (2, 1));
}

/// Makes a program's wall clock go ahead of the others' by an hour. Returns `false` where that cannot be done.
fn go_ahead(command: &mut Command) -> bool {
    let libraries =
        ["/usr/lib", "/usr/lib64"].into_iter().filter_map(|path| fs::read_dir(path).ok()).flatten().flatten();
    let files = libraries.map(|directory| directory.path().join("faketime/libfaketimeMT.so.1"));
    let Some(file) = files.into_iter().find(|file| file.is_file()) else {
        not_checked("there is no libfaketime", "Debian: apt-get install faketime");
        return false;
    };
    command.env("LD_PRELOAD", file).env("FAKETIME", "+3600s").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    true
}

/// Ages are by the server's clock, and so are leases. Seen to fail with a store that goes by its process's clock: the backstop
/// of the service that is ahead reaps all jobs.
#[test]
fn a_clock_that_is_off_by_an_hour_is_no_matter() {
    let Some(shared) = Shared::start() else { return };
    let place = Place::new(QUICK);
    let mut ahead = shared.command(&place, "ahead", "2");
    if !go_ahead(&mut ahead) {
        return;
    }
    let (ahead, right) = (Server::start(&mut ahead), shared.serve(&place, "right"));
    let clock = |queue: &Value| queue["now_ms"].as_u64().unwrap() / 60_000;
    assert!(clock(&ahead.queue()).abs_diff(clock(&right.queue())) <= 1, "both tell the server's");
    assert_eq!(ahead.change("PUT", "/policy", r#"{"mode": "defer_all"}"#).status, 200);
    right.until("in mode defer_all", |queue| queue["policy"]["mode"] == "defer_all");
    assert_eq!(right.change("PUT", "/policy", r#"{"mode": "honor"}"#).status, 200);
    ahead.until("in mode honor", |queue| queue["policy"]["mode"] == "honor");
    right.submit(r#"{"kind": "gated", "count": 6}"#);
    right.until("all owned", |queue| owners(queue).len() == 6);
    thread::sleep(Duration::from_secs(3));
    let seen = ahead.queue();
    assert_eq!(owners(&seen).len(), 6, "for longer than the TTL");
    let since = seen["running"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|jobs| jobs.as_array().unwrap())
        .map(|job| seen["now_ms"].as_u64().unwrap().abs_diff(job["owner"]["since_at_ms"].as_u64().unwrap()));
    assert!(since.max().unwrap() < 60_000, "one clock for all that is told");
    place.go();
    ahead.until_counts("merged", 6);
    let store = shared.database().store("main").unwrap();
    assert_eq!((store.count_runs().unwrap(), store.count_effects(Effect::Merge).unwrap()), (6, 6));
}

/// Seen to fail with services that do not look what others have set.
#[test]
fn what_an_operator_sets_is_in_force_in_all_services() {
    let Some(shared) = Shared::start() else { return };
    let place = Place::new(QUICK);
    let (a, b) = (shared.serve(&place, "a"), shared.serve(&place, "b"));
    assert_eq!(a.change("PUT", "/policy", r#"{"mode": "defer_all"}"#).status, 200);
    b.until("in mode defer_all", |queue| queue["policy"]["mode"] == "defer_all");
    assert_eq!(b.change("PUT", "/policy", r#"{"mode": "honor"}"#).status, 200);
    a.until("in mode honor", |queue| queue["policy"]["mode"] == "honor");
    assert_eq!(a.change("PUT", "/submission", r#"{"paused": true}"#).status, 200);
    b.until("paused", |queue| queue["paused"] == true);

    // A job of a's is ended through b, and its mark is cleared through b.
    assert_eq!(b.change("PUT", "/submission", r#"{"paused": false}"#).status, 200);
    let job = a.submit(r#"{"kind": "gated"}"#)[0];
    let of = |queue: &Value| {
        let running = queue["running"].as_object().unwrap().values().flat_map(|jobs| jobs.as_array().unwrap());
        running.filter(|shown| shown["job"] == job).find_map(|shown| shown["owner"]["generation"].as_u64())
    };
    let seen = b.until("owned", |queue| of(queue).is_some());
    let mark = of(&seen).unwrap();
    let clear = |generation: u64| b.change("DELETE", &format!("/jobs/{job}/mark?generation={generation}"), "{}").status;
    assert_eq!(clear(mark + 1), 409, "another mark");
    assert_eq!(clear(mark), 200);
    assert_eq!(b.change("POST", &format!("/jobs/{job}/end"), "{}").status, 200);
    a.until_counts("reaped", 1);
    place.go();
}

/// Seen to fail without closing the session.
#[test]
fn a_service_that_is_asked_to_end_leaves_at_once() {
    let Some(shared) = Shared::start() else { return };
    let place = Place::new(QUICK);
    // Its marks would stay for longer than the test waits.
    let (a, mut b) = (shared.serve_for(&place, "a", "300"), shared.serve_for(&place, "b", "300"));
    a.until("two", |queue| processes(queue).len() == 2);
    b.signal(Signal::TERM);
    let (status, said) = b.ended();
    assert!(status.success(), "{status}: {said}");
    a.until("one", |queue| processes(queue).len() == 1);
}

/// Its marks are another's by now, perhaps. Seen to fail with a service that goes on. Whoever runs it starts it again.
#[test]
fn a_service_that_loses_its_marks_ends() {
    let Some(shared) = Shared::start() else { return };
    let place = Place::new(QUICK);
    let mut a = shared.serve(&place, "a");
    shared
        .say("SELECT livemark.revoke_lease(namespace, substr(key, 3)::bigint) FROM livemark.rows WHERE key LIKE 'l/%'");
    let (status, said) = a.ended();
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.contains("the marks of this process are lost: "), "{said}");
}
