//! A crowd: 1,000 jobs, 256 monitors and 60 watchers, while somebody loads the page and asks for the queue.
//!
//! `CROWD_SECONDS=60` makes a minute of it. The times are told and not judged: the machine is everybody's.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod common;

use std::io::{Read, Write, stderr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use common::{Place, Server, wait_for};
use serde_json::json;

const JOBS: u64 = 1_000;
const MONITORS: u64 = 256;
const WATCHERS: usize = 60;
/// Longer than any machine takes for this many processes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Jobs that take about so long, all together.
fn settings(seconds: f64) -> String {
    let part = seconds * MONITORS as f64 / JOBS as f64 / 2.0;
    format!(
        "job.command = ['sleep', '{part}']
        gates = [{{ name = 'build', command = ['sleep', '{part}'] }}]
        [limits]
        finalize_grace = 0.2
        hard_deadline = 600
        sweep_every = 0.1
        process = 60
        monitors = {MONITORS}"
    )
}

/// Seen to fail with monitors that take running jobs as well, and with watchers that are turned away at 32.
#[test]
fn a_crowd_is_served() {
    let seconds = env::var("CROWD_SECONDS").map_or(4.0, |seconds| seconds.parse().unwrap());
    let place = Place::new(&settings(seconds));
    let server = place.serve();
    let (over, watched) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut pages, mut queues, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..WATCHERS {
            scope.spawn(|| watch(&server, &over, &watched));
        }
        // However this ends, the watchers go.
        let _over = Sets(&over);
        for _ in 0..JOBS / 100 {
            server.submit(&json!({ "count": 100 }).to_string());
        }
        loop {
            let (page, queue) = (timed(&server, "/", &mut pages), timed(&server, "/queue", &mut queues));
            assert!(page.contains("<title>orchestrator</title>"));
            resident.push(resident_kib(&server));
            let queue: serde_json::Value = serde_json::from_str(&queue).unwrap();
            if queue["counts"]["merged"] == JOBS {
                break;
            }
            assert!(
                started.elapsed() < PATIENCE + Duration::from_secs_f64(seconds),
                "not all end: {}",
                queue["counts"]
            );
            thread::sleep(Duration::from_millis(20));
        }
    });
    let took = started.elapsed();

    assert_eq!(place.count("SELECT COUNT(*) FROM jobs WHERE state = 'merged'"), JOBS);
    assert_eq!(place.count("SELECT COUNT(DISTINCT job_id) FROM ledger WHERE effect = 'merge'"), JOBS);
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger"), JOBS, "each ends once");
    assert_eq!(place.count("SELECT COUNT(*) FROM runs"), JOBS, "and is run once");
    // Streams that were cut off are seen to be so when something is sent.
    wait_for("places for other watchers", || {
        let mut stream = server.connect();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).is_ok() && head == *b"HTTP/1.1 200"
    });

    let mib = |at: usize| resident[at] as f64 / 1024.0;
    let last = resident.len() - 1;
    let told = format!(
        "{JOBS} jobs, {MONITORS} monitors, {WATCHERS} watchers: all ended in {took:.1?}\n\
         GET /      {}\nGET /queue {}\n\
         a watcher was sent {:.2} MB\n\
         resident MiB, by quarters: {:.0} {:.0} {:.0} {:.0} {:.0}\n",
        quantiles(pages),
        quantiles(queues),
        watched.load(Ordering::Relaxed) as f64 / WATCHERS as f64 / 1e6,
        mib(0),
        mib(last / 4),
        mib(last / 2),
        mib(last * 3 / 4),
        mib(last),
    );
    // Not to standard output, which the harness keeps to itself if all is well.
    stderr().write_all(told.as_bytes()).unwrap();
}

/// Reads events until all is over.
fn watch(server: &Server, over: &AtomicBool, watched: &AtomicU64) {
    let mut stream = server.connect();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut buffer = [0; 65_536];
    let mut first = true;
    while !over.load(Ordering::Relaxed) {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "a stream ended");
        if std::mem::take(&mut first) {
            assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..read]));
        }
        watched.fetch_add(read as u64, Ordering::Relaxed);
    }
}

fn timed(server: &Server, path: &str, took: &mut Vec<Duration>) -> String {
    let asked = Instant::now();
    let response = server.get(path);
    took.push(asked.elapsed());
    assert_eq!(response.status, 200, "{response:?}");
    response.body
}

fn quantiles(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    format!("{} times: p50 {:.1?}, p99 {:.1?}, max {:.1?}", took.len(), at(0.5), at(0.99), at(1.0))
}

fn resident_kib(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Sets a flag when it goes out of scope.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
