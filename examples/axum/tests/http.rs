//! Drives the service over HTTP, as its users do.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

struct Client(String);

impl Client {
    fn post(&self, path: &str) -> minreq::Response {
        minreq::post(format!("{}{path}", self.0)).send().expect("the service answers")
    }

    fn put(&self, path: &str) -> minreq::Response {
        minreq::put(format!("{}{path}", self.0)).send().expect("the service answers")
    }

    fn queue(&self) -> Value {
        let response = minreq::get(format!("{}/queue", self.0)).send().expect("the service answers");
        serde_json::from_slice(response.as_bytes()).expect("it is JSON")
    }

    /// Asks until the queue is as wished.
    fn queue_until(&self, wished: impl Fn(&Value) -> bool) -> Value {
        loop {
            let queue = self.queue();
            if wished(&queue) {
                return queue;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_one_is_deferred_to_a_dead_one_redriven_and_a_stuck_one_reaped() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let client = Client(format!("http://{}", listener.local_addr().expect("it listens")));
    let stop = CancellationToken::new();
    let serving = tokio::spawn(service_axum::serve(listener, stop.clone()));

    let driven = tokio::task::spawn_blocking(move || {
        // A dry run says what would be done, and cannot do it.
        assert_eq!(client.put("/mode/dry_run").status_code, 204);
        assert_eq!(client.post("/jobs/dies").as_str().ok(), Some("1"));
        client.queue_until(|queue| queue["jobs"]["1"] == json!(["would redrive"]));
        thread::sleep(Duration::from_millis(100));
        let queue = client.queue();
        assert_eq!((&queue["running"], &queue["redrives"]), (&json!(1), &json!(0)), "sweep after sweep");

        assert_eq!(client.put("/mode/honor").status_code, 204);
        let kinds = ["quick", "slow", "hangs"];
        assert_eq!(kinds.map(|kind| client.post(&format!("/jobs/{kind}")).status_code), [200; 3]);
        client.queue_until(|queue| queue["finalizer_defers_total"] != 0);

        // What does not exist is refused.
        assert_eq!(client.post("/jobs/lingers").status_code, 400);
        let refused = client.put("/mode/defer");
        assert_eq!(refused.status_code, 400);
        assert!(refused.as_str().is_ok_and(|text| text.contains("honor, ignore, defer_all, dry_run")));
    });
    driven.await.expect("no assertion failed");

    stop.cancel(); // while two of the jobs are running
    let queue = serving.await.expect("no panic").expect("it has served");
    let stats = queue.reaper;
    let histories: Vec<_> = queue.jobs.into_values().collect();
    let expected: [&[&str]; 4] = [
        &["would redrive", "redriven", "merged by run 2"],
        &["merged by run 1"],
        &["deferred: owned", "merged by run 1"],
        &["deferred: owned", "reaped: backstop, displacing run 1"],
    ];
    assert_eq!(histories, expected);
    assert_eq!((queue.running, queue.finalizer_owned), (0, 0));
    assert_eq!((stats.redrives, stats.reaps_backstop, stats.refused, stats.panics), (1, 1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_job_it_stops_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let stop = CancellationToken::new();
    stop.cancel();
    let queue = service_axum::serve(listener, stop).await.expect("it has served");
    assert!(queue.jobs.is_empty());
}
