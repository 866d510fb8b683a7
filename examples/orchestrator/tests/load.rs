//! Load: 1,000 jobs, submitted 50 at a time, while one asks for the queue all the time and another watches as the page
//! does.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write, stderr};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Events, Place, QUICK, Server};
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::{Value, json};

const JOBS: u64 = 1_000;
const AT_ONCE: u64 = 50;
/// Every tenth submission is of jobs with a red gate.
const RED: u64 = JOBS / 10;
/// Longer than any machine takes.
const PATIENCE: Duration = Duration::from_secs(200);

/// Seen to fail with monitors that take running jobs as well, counts that miss the ends, a state that is read in two
/// transactions or from two snapshots, one that lists queued jobs as running, submissions that are written job by job,
/// and an effect that some jobs have twice.
#[test]
fn a_thousand_jobs_end_once_while_the_queue_is_watched() {
    let place = Place::new(QUICK);
    let mut server = place.serve();
    let known = Known::default();
    let started = Instant::now();
    let (asked, seen, submitted, ended) = thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&server, &place.raw(), &known));
        let watching = scope.spawn(|| watch(&server, &known));
        let _ending = known.ends_with_me();
        for batch in 0..JOBS / AT_ONCE {
            let kind = if batch % 10 == 9 { "red" } else { "default" };
            known.sent.fetch_add(AT_ONCE, Ordering::SeqCst);
            let jobs = server.submit(&json!({ "kind": kind, "count": AT_ONCE }).to_string());
            known.answered.fetch_add(AT_ONCE, Ordering::SeqCst);
            assert!(jobs.into_iter().eq(batch * AT_ONCE + 1..=(batch + 1) * AT_ONCE));
        }
        let submitted = started.elapsed();
        let asked = asking.join().unwrap();
        (asked, watching.join().unwrap(), submitted, started.elapsed())
    });
    server.signal(Signal::TERM);
    let (status, error) = server.ended();
    assert!(status.success() && error.is_empty(), "{status}, {error}");

    assert_eq!(place.count("SELECT COUNT(*) FROM jobs"), JOBS);
    let of_state = |state: &str, effect: &str| {
        place.count(&format!(
            "SELECT COUNT(*) FROM jobs WHERE state = '{state}'
             AND (SELECT group_concat(effect) FROM ledger WHERE job_id = jobs.id) = '{effect}'
             AND (SELECT group_concat(outcome) FROM runs WHERE job_id = jobs.id) = 'committed'"
        ))
    };
    assert_eq!(of_state("merged", "merge"), JOBS - RED, "in one run, with one effect");
    assert_eq!(of_state("rolled back", "rollback"), RED, "in one run, with one effect");

    let Asked { mut took, owned_elsewhere } = asked;
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
    // Not to standard output, which the harness keeps to itself if all is well.
    let told = format!(
        "{JOBS} jobs, {AT_ONCE} at a time: submitted in {submitted:.2?}, ended in {ended:.2?}, {:.0} a second\n\
         GET /queue, {} times meanwhile: p50 {:.2?}, p99 {:.2?}, max {:.2?}\n\
         owned before they run or after they end: {owned_elsewhere} times\n\
         the page was sent {} states and {} deferrals\n",
        JOBS as f64 / ended.as_secs_f64(),
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        seen.states,
        seen.deferrals,
    );
    stderr().write_all(told.as_bytes()).unwrap();
}

/// How many jobs there are: at least those answered for, at most those asked for.
#[derive(Default)]
struct Known {
    sent: AtomicU64,
    answered: AtomicU64,
    failed: AtomicBool,
}

impl Known {
    /// A thread that fails ends the others, which would otherwise wait for what never comes.
    fn ends_with_me(&self) -> impl Drop {
        struct Ending<'a>(&'a AtomicBool);
        impl Drop for Ending<'_> {
            fn drop(&mut self) {
                self.0.fetch_or(thread::panicking(), Ordering::SeqCst);
            }
        }
        Ending(&self.failed)
    }

    fn go_on(&self) {
        assert!(!self.failed.load(Ordering::SeqCst), "another thread failed");
    }
}

struct Asked {
    took: Vec<Duration>,
    /// Owned jobs that were not running when the store was read, a moment earlier.
    owned_elsewhere: u64,
}

/// Asks for the queue, on one connection, until all jobs have ended.
fn ask(server: &Server, database: &Connection, known: &Known) -> Asked {
    let _ending = known.ends_with_me();
    let mut asked = Asked { took: Vec::new(), owned_elsewhere: 0 };
    let mut connection = BufReader::new(server.connect());
    let mut ended = 0;
    let started = Instant::now();
    while ended < JOBS {
        known.go_on();
        assert!(started.elapsed() < PATIENCE, "{ended} have ended");
        let least = known.answered.load(Ordering::SeqCst);
        let question = Instant::now();
        let queue = queue(&mut connection, server.port());
        asked.took.push(question.elapsed());
        let most = known.sent.load(Ordering::SeqCst);

        let State { jobs, ended: now_ended, strangers } = consistent(&queue);
        assert!((least..=most).contains(&jobs) && jobs % AT_ONCE == 0, "{jobs} jobs, not {least} to {most}: {queue}");
        assert!(now_ended >= ended, "{now_ended} have ended, after {ended}");
        ended = now_ended;
        // A mark outlives its job's commit, and the registry is read after the store: such a job has ended just now, or
        // it has begun since. A queued one is nobody's.
        for job in strangers {
            let state: String =
                database.query_row("SELECT state FROM jobs WHERE id = ?1", [job], |row| row.get(0)).unwrap();
            assert_ne!(state, "queued", "job {job} is owned: {queue}");
            asked.owned_elsewhere += 1;
        }
    }
    asked
}

/// An answer on a connection that stays.
fn queue(connection: &mut BufReader<TcpStream>, port: &str) -> Value {
    // In one piece: the second of two would wait until the first is acknowledged.
    let question = format!("GET /queue HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    connection.get_mut().write_all(question.as_bytes()).unwrap();
    let head = head(connection);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    connection.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn head(connection: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(connection.read_line(&mut head).unwrap(), 0, "it ends after {head:?}");
    }
    assert_eq!(head.split_whitespace().nth(1), Some("200"), "{head}");
    head
}

/// What a state says that does not contradict itself.
struct State {
    jobs: u64,
    ended: u64,
    /// Owned, but not among the running jobs.
    strangers: BTreeSet<u64>,
}

#[track_caller]
fn consistent(queue: &Value) -> State {
    let count = |state: &str| queue["counts"][state].as_u64().unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let id = |owner: &Value| owner["job"].as_u64().unwrap();

    let mut running = BTreeMap::new();
    for (stage, jobs) in queue["running"].as_object().unwrap() {
        for job in list(jobs) {
            assert_eq!(&job["stage"], stage, "{queue}");
            assert!(running.insert(id(&job), job).is_none(), "twice: {queue}");
        }
    }
    assert_eq!(running.len() as u64, count("running"), "{queue}");

    let owners: BTreeMap<_, _> = list(&queue["owners"]).into_iter().map(|owner| (id(&owner), owner)).collect();
    assert!(list(&queue["jobs"]).iter().map(|job| job.as_u64().unwrap()).eq(owners.keys().copied()), "{queue}");
    assert_eq!(queue["active"], owners.len(), "{queue}");
    for (job, shown) in &running {
        let told = |owner: &Value| (owner["generation"].clone(), owner["run_id"].clone(), owner["stage"].clone());
        let owner = owners.get(job).map(|owner| {
            let Value::Object(mut told) = owner["value"].clone() else { panic!("{queue}") };
            told.insert("generation".into(), owner["generation"].clone());
            told.into()
        });
        assert_eq!(shown["owner"].as_object().map(|_| told(&shown["owner"])), owner.as_ref().map(told), "{queue}");
    }

    let ended = count("merged") + count("rolled_back") + count("reaped");
    let strangers = owners.into_keys().filter(|job| !running.contains_key(job)).collect();
    State { jobs: count("queued") + count("running") + ended, ended, strangers }
}

/// The jobs that have ended, in a state that changes have added up to.
fn adds_up(state: &Value) -> u64 {
    let count = |state_of: &str| state["counts"][state_of].as_u64().unwrap();
    let running = state["running"].as_object().unwrap().values().map(|jobs| jobs.as_array().unwrap().len());
    assert_eq!(running.sum::<usize>() as u64, count("running"), "{state}");
    count("merged") + count("rolled_back") + count("reaped")
}

/// What the page was told.
#[derive(Debug, Default)]
struct Seen {
    states: u64,
    deferrals: u64,
}

/// Watches as the page does, until it shows that all jobs have ended.
fn watch(server: &Server, known: &Known) -> Seen {
    let _ending = known.ends_with_me();
    let mut events = Events::of(server);
    let (mut seen, mut last, mut ended) = (Seen::default(), 0, 0);
    while let Some((name, data)) = events.next() {
        known.go_on();
        match name.as_str() {
            "queue" | "change" => {
                seen.states += 1;
                let now_ended = if name == "queue" { consistent(&data).ended } else { adds_up(&events.state) };
                assert!(now_ended >= ended, "{now_ended} have ended, after {ended}");
                ended = now_ended;
                if ended == JOBS {
                    return seen;
                }
            }
            "deferral" => {
                seen.deferrals += 1;
                let seq = data["seq"].as_u64().unwrap();
                assert!(seq > last, "deferral {seq} after {last}");
                last = seq;
            }
            other => panic!("an event {other:?}"),
        }
    }
    panic!("the stream ends after {seen:?}");
}
