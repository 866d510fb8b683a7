//! Load: 1,000 jobs, submitted 50 at a time, while somebody asks for the queue all the time.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Place, QUICK, Server, wait_for};
use serde_json::Value;

const JOBS: u64 = 1_000;
const AT_ONCE: u64 = 50;

/// Seen to fail with a `start_next` that takes running jobs as well.
#[test]
fn a_thousand_jobs_end_once_while_the_queue_is_watched() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let done = AtomicBool::new(false);
    let started = Instant::now();
    let (mut asked, submitted) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&server, &done));
        let ending = Set(&done);
        for _ in 0..JOBS / AT_ONCE {
            let jobs = server.submit(&format!(r#"{{"count": {AT_ONCE}}}"#));
            assert_eq!(jobs.len() as u64, AT_ONCE);
        }
        let submitted = started.elapsed();
        wait_for("all jobs to end", || {
            place.count("SELECT COUNT(*) FROM jobs WHERE state IN ('queued', 'running')") == 0
        });
        drop(ending);
        (watching.join().unwrap(), submitted)
    });
    let ended = started.elapsed();

    assert_eq!(place.count("SELECT COUNT(*) FROM jobs WHERE state = 'merged'"), JOBS);
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger WHERE effect = 'merge'"), JOBS);
    assert_eq!(place.count("SELECT COUNT(DISTINCT job_id) FROM ledger"), JOBS, "once each");
    assert_eq!(place.count("SELECT COUNT(*) FROM runs WHERE outcome IS NOT 'committed'"), 0);
    let queue = server.queue();
    assert_eq!((&queue["counts"]["merged"], &queue["active"]), (&JOBS.into(), &0.into()));

    asked.sort_unstable();
    let at = |part: f64| asked[((asked.len() - 1) as f64 * part) as usize];
    println!(
        "{JOBS} jobs: submitted in {submitted:.1?}, ended in {ended:.1?} ({:.0} a second); \
         GET /queue {} times: p50 {:.1?}, p99 {:.1?}, max {:.1?}",
        JOBS as f64 / ended.as_secs_f64(),
        asked.len(),
        at(0.5),
        at(0.99),
        at(1.0),
    );
}

/// Set when it is dropped, also where the test fails: its thread would otherwise watch for ever.
struct Set<'a>(&'a AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long each question took. Every answer is whole: of one instant of the store.
fn watch(server: &Server, done: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut most = 0;
    while !done.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let queue = server.queue();
        took.push(asked.elapsed());
        let listed: usize =
            queue["running"].as_object().unwrap().values().map(|jobs| jobs.as_array().unwrap().len()).sum();
        assert_eq!(queue["counts"]["running"], listed, "{queue}");
        let jobs: u64 = queue["counts"].as_object().unwrap().values().map(|jobs| jobs.as_u64().unwrap()).sum();
        assert!((most..=JOBS).contains(&jobs), "{jobs} jobs after {most}: none is lost");
        assert_eq!(queue["jobs"].as_array().map(Vec::len), queue["active"].as_u64().map(|active| active as usize));
        assert!(queue["error"] == Value::Null);
        most = jobs;
    }
    took
}
