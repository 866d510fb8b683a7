//! The service's life: how it starts, how it ends, and what a restart finds.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{BufRead, Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use common::{Place, QUICK, Server, TOKEN, outcome, refused, wait_for};
use orchestrator::store::Database;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;

fn is_there(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

#[test]
fn says_where_it_listens_and_that_a_token_is_missing() {
    let place = Place::new(QUICK);
    let mut server = Server::start(&mut place.command());
    assert!(server.url().starts_with("http://127.0.0.1:") && !server.url().ends_with(":0"));
    let mut line = String::new();
    server.out.read_line(&mut line).unwrap();
    assert!(line.contains("no token is set (--token or ORCHESTRATOR_TOKEN)"), "{line}");
    drop(server);

    let mut server = place.serve();
    server.signal(Signal::TERM);
    let mut rest = String::new();
    server.out.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "with a token there is nothing to say, and the token is not said");
}

#[test]
fn goes_on_if_nobody_reads_what_it_says() {
    let place = Place::new(QUICK);
    drop(place.serve());
    let mut command = place.command();
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

// Refusals to start.

#[test]
fn port_in_use() {
    let place = Place::new(QUICK);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = outcome(place.command().args(["--listen", &address]));
    refused(&output, &format!("cannot listen on {address}: Address already in use"));
    assert!(!place.db().exists(), "the database is opened only by who can serve it");
}

#[test]
fn bad_addresses() {
    let place = Place::new(QUICK);
    for address in ["nonsense", "127.0.0.1", "127.0.0.1:99999", "", "256.0.0.1:80"] {
        let output = outcome(place.command().args(["--listen", address]));
        refused(&output, &format!("cannot listen on {address}: "));
    }
}

#[test]
fn second_server_on_the_same_database() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let output = outcome(&mut place.command());
    refused(&output, &format!("another orchestrator serves it (process {})", server.child.id()));
    // By another name of the same file, too.
    let db = place.path("../").join(place.directory.path().file_name().unwrap()).join("jobs.db");
    refused(&outcome(place.command().arg("--db").arg(db)), "another orchestrator serves it");
    assert_eq!(server.submit("{}"), [1], "the first one does not mind");
    server.until_counts("merged", 1);
    server.kill();
    place.serve();
}

#[test]
fn databases_that_cannot_be_used() {
    let place = Place::new(QUICK);
    fs::write(place.db(), "no database at all, but quite some text").unwrap();
    refused(&outcome(&mut place.command()), "not a database");
    assert_eq!(fs::read_to_string(place.db()).unwrap(), "no database at all, but quite some text");

    fs::remove_file(place.db()).unwrap();
    Connection::open(place.db()).unwrap().execute_batch("CREATE TABLE jobs (id INTEGER PRIMARY KEY);").unwrap();
    let before = fs::read(place.db()).unwrap();
    refused(&outcome(&mut place.command()), "another program");
    assert_eq!(fs::read(place.db()).unwrap(), before);

    fs::remove_file(place.db()).unwrap();
    fs::create_dir(place.db()).unwrap();
    refused(&outcome(&mut place.command()), "unable to open database file");
    let output = outcome(place.command().args(["--db", "no/such/jobs.db"]));
    refused(&output, "no such directory");
}

#[test]
fn options_that_make_no_sense() {
    let place = Place::new(QUICK);
    for (arguments, reason) in [
        (["--token", ""], "visible ASCII"),
        (["--token", "two words"], "visible ASCII"),
        (["--token", "gr\u{fc}n"], "visible ASCII"),
        (["--port", "1"], "--port"),
        (["--config", "no/such.toml"], "no/such.toml"),
        (["--workspaces", "settings.toml"], "settings.toml"),
    ] {
        refused(&outcome(place.command().args(arguments)), reason);
    }
    refused(&outcome(place.command().env("ORCHESTRATOR_TOKEN", "two words")), "ORCHESTRATOR_TOKEN");
    for (settings, reason) in [
        (
            "[limits]\nfinalize_grace = 1\nhard_deadline = 2\nsweep_every = 1\nprocess = 1\nmonitors = 0\n",
            "0 monitors: there may be from 1 to 256",
        ),
        ("[limits]\nfinalize_grace = 1\nhard_deadline = 2\nsweep_every = 1\nprocess = 1\nmonitors = -1\n", "line 6"),
        (
            "[limits]\nfinalize_grace = 1\nhard_deadline = 2\nsweep_every = 1\nprocess = 1\nstale_after = 3\n",
            "stale_after",
        ),
        (
            "[limits]\nfinalize_grace = 1\nhard_deadline = 2\nsweep_every = 1\nprocess = 1\nlost_grace = 2\n",
            "lost_grace",
        ),
        (
            "[limits]\nfinalize_grace = 1\nhard_deadline = 2\nsweep_every = 1\nprocess = 1\nmax_redrives = -1\n",
            "line 6",
        ),
        ("[kinds.a]\ngates = []\n", "kinds.a: at least one gate"),
        ("[kinds.a]\njob.command = []\n", "kinds.a: job: the command is empty"),
        ("[kinds.default]\n", "kinds.default"),
        ("[kinds.a]\ncolour = 'red'\n", "colour"),
        ("[[gates]]\nname = 'commit'\ncommand = ['true']\n", "another stage"),
    ] {
        fs::write(place.path("settings.toml"), settings).unwrap();
        refused(&outcome(&mut place.command()), reason);
    }
}

// The end.

#[test]
fn a_signal_ends_an_idle_service_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new(QUICK);
        let mut server = place.serve();
        // One who watches and one who says nothing do not keep it.
        let mut watching = server.connect();
        write!(watching, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut first = [0; 100];
        watching.read_exact(&mut first).unwrap();
        let _silent = server.connect();
        let started = Instant::now();
        server.signal(signal);
        let (status, error) = server.ended();
        assert_eq!((status.code(), error.as_str()), (Some(0), ""));
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        let mut rest = String::new();
        watching.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "the stream comes to its end: {rest:?}");
    }
}

#[test]
fn running_jobs_may_end_and_no_other_begins() {
    let place = Place::new(QUICK);
    let mut server = place.serve();
    let running = server.submit(r#"{"kind":"gated","count":8}"#);
    server.until("all at their gate", |queue| queue["running"]["wait"].as_array().is_some_and(|jobs| jobs.len() == 8));
    let waiting = server.submit("{}");
    server.signal(Signal::TERM);
    wait_for("no new jobs", || {
        let response = server.change("POST", "/jobs", "{}");
        response.status == 503 && response.json()["error"].as_str().unwrap().contains("shutting down")
    });
    assert_eq!(server.get("/healthz").status, 503);
    let queue = server.queue();
    assert_eq!((&queue["shutting_down"], &queue["counts"]["running"]), (&json!(true), &json!(8)));
    let submitted = place.count("SELECT COUNT(*) FROM jobs");
    let mut said = String::new();
    server.out.read_line(&mut said).unwrap();
    assert!(said.starts_with("ending: what runs may end within "), "{said}");
    place.go();
    let (status, error) = server.ended();
    assert_eq!((status.code(), error.as_str()), (Some(0), ""));
    assert_eq!(
        place.count("SELECT COUNT(*) FROM jobs WHERE state = 'merged' AND kind = 'gated'"),
        running.len() as u64
    );
    assert!(waiting[0] <= submitted && place.count("SELECT COUNT(*) FROM jobs WHERE state = 'queued'") > 0);
    assert_eq!(place.count("SELECT COUNT(*) FROM runs"), 8, "nothing was started for those that waited");
    assert!(!place.path("jobs.db-wal").exists(), "and all is in the database's own file");

    let server = place.serve();
    server.until_counts("merged", submitted);
}

#[test]
fn what_does_not_end_in_time_is_left_to_the_next_start() {
    let place = Place::new(&QUICK.replace("shutdown = 20", "shutdown = 0.3"));
    let mut server = place.serve();
    let job = server.submit(r#"{"kind":"gated"}"#)[0];
    let pid = place.pid_of(job);
    let started = Instant::now();
    server.signal(Signal::TERM);
    let (status, _) = server.ended();
    assert_eq!(status.code(), Some(0));
    assert!(started.elapsed() > Duration::from_millis(250) && started.elapsed() < Duration::from_secs(5));
    wait_for("the gate's end", || !is_there(pid));
    assert_eq!(place.count("SELECT COUNT(*) FROM jobs WHERE state = 'running'"), 1);
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger"), 0, "it was not rolled back for that");

    place.go();
    let server = place.serve();
    server.until_counts("merged", 1);
    assert_eq!(place.count("SELECT COUNT(*) FROM runs"), 2);
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger"), 1);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let place = Place::new(QUICK);
    let mut server = place.serve();
    let pid = place.pid_of(server.submit(r#"{"kind":"held"}"#)[0]);
    server.signal(Signal::TERM);
    wait_for("the first signal", || server.get("/healthz").status == 503);
    thread::sleep(Duration::from_millis(100));
    assert!(server.child.try_wait().unwrap().is_none(), "there is a job, and time");
    server.signal(Signal::INT);
    let (status, _) = server.ended();
    assert_eq!(status.code(), Some(130));
    wait_for("the job's end", || !is_there(pid));
}

// Restarts.

#[test]
fn a_killed_service_leaves_no_process() {
    let place = Place::new(QUICK);
    // Its grandchildren too, also those that ignore what can be ignored, and whose parent is gone.
    let script = "trap '' TERM HUP INT; (trap '' TERM HUP INT; sleep 600 & echo $! > orphan) & \
                  sleep 600 & echo $! > child; while [ ! -s orphan ]; do sleep 0.01; done; echo $$ > pid; wait";
    let settings = QUICK.to_owned() + &format!("[kinds.family]\njob.command = ['sh', '-c', \"{script}\"]\n");
    fs::write(place.path("settings.toml"), settings).unwrap();
    let server = place.serve();
    let held = server.submit(r#"{"kind":"held"}"#)[0];
    let family = server.submit(r#"{"kind":"family"}"#)[0];
    let mut pids = vec![place.pid_of(held), place.pid_of(family)];
    for name in ["child", "orphan"] {
        let pid = fs::read_to_string(place.path(&format!("work/job-{family}/{name}"))).unwrap();
        pids.push(Pid::from_raw(pid.trim().parse().unwrap()).unwrap());
    }
    assert!(pids.iter().all(|&pid| is_there(pid)), "{pids:?}");
    server.kill();
    wait_for("their end", || !pids.iter().any(|&pid| is_there(pid)));
}

#[test]
fn what_is_queued_or_running_survives_a_kill_and_ends_once() {
    let place = Place::new(QUICK);
    let server = place.serve();
    server.submit(r#"{"kind":"held","count":4}"#);
    server.submit(r#"{"kind":"gated","count":4}"#);
    server.until("all busy", |queue| {
        let jobs = |stage: &str| queue["running"][stage].as_array().map_or(0, Vec::len);
        (jobs("process"), jobs("wait")) == (4, 4)
    });
    server.submit(r#"{"count":5}"#);
    server.kill();
    // What was going on can be told from the store.
    assert_eq!(place.count("SELECT COUNT(*) FROM jobs WHERE state = 'queued'"), 5);
    let stages = "SELECT COUNT(*) FROM jobs JOIN runs ON runs.id = run_id WHERE state = 'running' AND stage =";
    assert_eq!((place.count(&format!("{stages} 'process'")), place.count(&format!("{stages} 'wait'"))), (4, 4));

    place.go();
    let server = place.serve();
    let queue = server.until_counts("merged", 13);
    assert_eq!(queue["counts"]["running"], 0);
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger WHERE effect = 'merge'"), 13);
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger"), 13);
    assert_eq!(place.count("SELECT COUNT(*) FROM runs WHERE outcome = 'lost'"), 8);
    assert_eq!(place.count("SELECT COUNT(*) FROM notes WHERE what = 'was running, is queued again'"), 8);
}

#[test]
fn what_was_done_outside_before_a_kill_is_only_committed() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let job = server.submit(r#"{"kind":"gated"}"#)[0];
    server.until("at its gate", |queue| queue["running"]["wait"][0].is_object());
    server.kill();
    // As if it had been killed between acting and committing.
    place
        .raw()
        .execute(
            "INSERT INTO ledger (job_id, run_id, effect, at) SELECT id, run_id, 'merge', 0 FROM jobs WHERE id = ?1",
            [job],
        )
        .unwrap();
    let server = place.serve();
    server.until_counts("merged", 1);
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger"), 1);
    assert_eq!(place.count("SELECT COUNT(*) FROM tasks"), 1, "no gate was run again");
    assert_eq!(
        place.count("SELECT COUNT(*) FROM notes WHERE what = 'starts the job''s process'"),
        1,
        "nor the process"
    );
}

#[test]
fn a_kind_that_the_settings_have_lost_is_rolled_back() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let job = server.submit(r#"{"kind":"held"}"#)[0];
    place.pid_of(job);
    server.kill();
    fs::write(place.path("settings.toml"), QUICK.replace("[kinds.held]", "[kinds.other]")).unwrap();
    place.serve().until_counts("rolled_back", 1);
}

#[test]
fn a_replay_in_the_same_file_is_no_business_of_the_service() {
    let place = Place::new(QUICK);
    let database = Database::open(&place.db()).unwrap();
    let mut elsewhere = database.store("replay-1/x").unwrap();
    let job = elsewhere.enqueue().unwrap();
    elsewhere.start(job).unwrap();
    let server = place.serve();
    server.submit("{}");
    let queue = server.until_counts("merged", 1);
    assert_eq!(queue["counts"], json!({ "queued": 0, "running": 0, "merged": 1, "rolled_back": 0, "reaped": 0 }));
    assert!(elsewhere.is_own(job, 1).unwrap());
}

#[test]
fn a_hanging_gate_is_redriven_when_stale_and_ended_by_the_backstop() {
    let place = Place::new(
        "
        job.command = ['true']
        gates = [{ name = 'stuck', command = ['sh', '-c', 'echo $$ >> pids; sleep 600'] }]
        [limits]
        finalize_grace = 0.1
        stale_after = 0.8
        hard_deadline = 2.5
        sweep_every = 0.02
        process = 60
        ",
    );
    let server = place.serve();
    let job = server.submit("{}")[0];
    let queue = server.until("redriven", |queue| queue["reaper"]["redrives"].as_u64() > Some(0));
    assert_eq!(queue["counts"]["running"], 1);
    server.until_counts("reaped", 1);
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger"), 0);
    // The run that took over found the workspace free, as the one before had left it.
    assert_eq!(place.count("SELECT COUNT(*) FROM notes WHERE what GLOB 'RED*'"), 0);
    assert!(place.count("SELECT COUNT(*) FROM tasks") >= 2);
    let displacing = "SELECT COUNT(*) FROM notes WHERE what GLOB";
    assert_eq!(place.count(&format!("{displacing} 'redrives it as run 2, displacing run 1 in stuck'")), 1);
    let redrives = place.count("SELECT redrives FROM jobs");
    assert_eq!(place.count("SELECT COUNT(*) FROM runs"), redrives + 1);
    // Told after it is done. The last run may not have come to its gate.
    let reaped = format!("{displacing} 'reaps it: backstop, displacing run {} in *'", redrives + 1);
    wait_for("the end to be told", || place.count(&reaped) == 1);
    wait_for("displaced monitors to see it", || place.count("SELECT COUNT(*) FROM runs WHERE ended_at IS NULL") == 0);
    let pids = fs::read_to_string(place.path(&format!("work/job-{job}/pids"))).unwrap();
    for pid in pids.lines() {
        assert!(!is_there(Pid::from_raw(pid.parse().unwrap()).unwrap()), "{pids}");
    }
    assert_eq!(server.queue()["active"], 0);
}

#[test]
fn a_dry_run_judges_and_does_nothing() {
    let place = Place::new(QUICK);
    let server = place.serve();
    assert_eq!(server.change("PUT", "/policy", r#"{"mode":"dry_run","hard_deadline":0.5}"#).status, 200);
    let job = server.submit(r#"{"kind":"gated"}"#)[0];
    let would = format!("SELECT COUNT(*) FROM notes WHERE job_id = {job} AND what = 'dry run: would reap, backstop'");
    wait_for("the verdict", || place.count(&would) == 1);
    let queue = server.queue();
    assert_eq!((&queue["counts"]["running"], &queue["reaper"]["reaps_backstop"]), (&json!(1), &json!(0)));
    let job = &queue["running"]["wait"][0];
    assert_eq!((&job["dry_run"], &job["next"]), (&json!("reap, backstop"), &json!(null)));
    place.go();
    server.until_counts("merged", 1);
}

#[test]
fn restarts_are_quick() {
    let place = Place::new(QUICK);
    let server = place.serve();
    server.submit(r#"{"count":100}"#);
    server.until_counts("merged", 100);
    server.submit(r#"{"kind":"held","count":50}"#);
    server.kill();
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let started = Instant::now();
            let server = place.serve();
            assert_eq!(server.get("/queue").status, 200);
            let time = started.elapsed();
            server.kill();
            time
        })
        .collect();
    times.sort();
    println!("restarts until the first answer: {times:?}");
    assert!(times[0] < Duration::from_secs(2), "{times:?}");
}

#[test]
fn a_supervisor_that_is_killed_takes_its_command_along() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let pid = place.pid_of(server.submit(r#"{"kind":"held"}"#)[0]);
    // It tells what it started, after it did: for this moment a SIGKILL of the supervisor alone would go unnoticed.
    thread::sleep(Duration::from_millis(300));
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(parent).unwrap(), Signal::KILL).unwrap();
    server.until_counts("rolled_back", 1);
    wait_for("the command's end", || !is_running(pid));
}

/// A zombie that nobody waits for is as good as gone.
fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn the_token_is_not_in_the_answers() {
    let place = Place::new(QUICK);
    let server = place.serve();
    for path in ["/", "/queue", "/metrics", "/healthz"] {
        assert!(!server.get(path).body.contains(TOKEN));
    }
}
