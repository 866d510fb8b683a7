//! Whoever can reach the port can open connections. That costs no job, and not for long anybody else's.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{Place, Server, TOKEN, wait_for};

const HELD: &str = "
job.command = ['sh', '-c', 'echo $$ > pid; while [ ! -e ../../go ]; do sleep 0.02; done']
gates = [{ name = 'one', command = ['true'] }, { name = 'two', command = ['true'] }]
[limits]
finalize_grace = 60
hard_deadline = 120
sweep_every = 0.05
process = 60
shutdown = 20
monitors = 12
";

/// A service that may have so many descriptors.
fn serve(place: &Place, descriptors: u32) -> Server {
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_orchestrator");
    let script = format!("ulimit -n {descriptors}; exec {program} \"$@\"");
    command.env_remove("ORCHESTRATOR_TOKEN").current_dir(place.directory.path()).args(["-c", &script, "sh", "serve"]);
    command.args(["--db", "jobs.db", "--config", "settings.toml", "--listen", "127.0.0.1:0", "--workspaces", "work"]);
    Server::start(command.args(["--token", TOKEN]))
}

/// Connections whose requests never come to their end.
fn half_sent(server: &Server, count: usize) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /queue HTTP/1.1\r\nHost: localhost\r\n").unwrap();
            stream
        })
        .collect()
}

/// Whether the server has ended this connection, whatever it said before.
fn is_ended(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// Seen to fail with connections without a number: the jobs found no descriptors for as long as the strangers stayed.
#[test]
fn half_sent_requests_cost_no_job() {
    let place = Place::new(HELD);
    let server = serve(&place, 160);
    let jobs = server.submit(r#"{"count":12}"#);
    for job in &jobs {
        place.pid_of(*job);
    }
    let strangers = half_sent(&server, 200);
    place.go();
    let merged = || place.count("SELECT COUNT(*) FROM jobs WHERE state = 'merged'");
    wait_for("the end of every job", || merged() == 12);
    assert_eq!(place.count("SELECT COUNT(*) FROM notes WHERE what LIKE 'cannot start%'"), 0, "nothing was missing");
    drop(strangers);
    wait_for("a place", || ask(&server, "/healthz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
}

fn ask(server: &Server, path: &str) -> Option<String> {
    let mut stream = server.connect();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Seen to fail with heads that may take for ever.
#[test]
fn a_head_that_does_not_come_is_not_waited_for() {
    let place = Place::new(HELD);
    let server = serve(&place, 1024);
    let mut strangers = half_sent(&server, 3);
    // Nothing at all, and a request that was answered and is followed by none.
    strangers.push(server.connect());
    let mut kept = server.connect();
    kept.write_all(b"GET /favicon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    strangers.push(kept);
    let started = Instant::now();
    for stream in &mut strangers {
        wait_for("its end", || is_ended(stream));
    }
    assert!(started.elapsed() > Duration::from_secs(5), "who is slow has some time");
}

#[test]
fn one_too_many_is_told_so() {
    let place = Place::new(&HELD.replace("monitors = 12", "monitors = 1"));
    let server = serve(&place, 64);
    let strangers = half_sent(&server, 12);
    let answer = ask(&server, "/queue").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n") && head.contains("retry-after: 1"), "{answer}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["error"], "too many connections, wait");
    drop(strangers);
    wait_for("a place", || ask(&server, "/queue").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
}

/// A watcher that reads nothing. Seen to fail with writes that may take for ever: it stayed as long as the test.
#[test]
fn a_reader_that_does_not_read_is_left() {
    let place = Place::new(HELD);
    let server = serve(&place, 1024);
    let open = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap();
        let sockets = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        sockets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    let before = open();
    let mut stream = server.connect();
    // Many answers are asked for, and none is read.
    let request = "GET /page/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20_000);
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let _ = stream.write_all(request.as_bytes());
    // What was written may lie in the kernel's hands until then.
    wait_for("the server to take it", || open() > before);
    wait_for("the server to leave it", || open() == before);
}

/// As many as the operating system lets a test have, one after the other, each of them left.
#[test]
fn connections_that_are_left_leave_nothing_behind() {
    let place = Place::new(HELD);
    let server = serve(&place, 256);
    let open = || fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    server.queue();
    // Each monitor opens the store for itself, when its thread gets to it.
    let mut before = 0;
    wait_for("a service that has begun", || {
        let seen = std::mem::replace(&mut before, open());
        thread::sleep(Duration::from_millis(500));
        before == seen
    });
    for _ in 0..2_000 {
        let mut stream = server.connect();
        let _ = stream.write_all(b"GET / HT");
    }
    wait_for("what they took to be given back", || open() <= before + 2);
    assert_eq!(server.get("/queue").status, 200);
}
