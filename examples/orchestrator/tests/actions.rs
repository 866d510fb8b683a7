//! What an operator does: pause the queue, end a job, run one again, clear a mark. Each is noted with who did it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Place, QUICK, Response, Server, wait_for};
use serde_json::{Value, json};

fn act(server: &Server, method: &str, path: &str, body: &Value) -> Response {
    server.change(method, path, &body.to_string())
}

#[track_caller]
fn refused(response: &Response, status: u16, reason: &str) {
    assert_eq!(response.status, status, "{response:?}");
    assert!(response.json()["error"].as_str().unwrap().contains(reason), "{response:?}");
}

fn noted(server: &Server, job: Option<u64>) -> Vec<(String, String)> {
    let query = job.map_or_else(String::new, |job| format!("&job={job}"));
    let events = server.get(&format!("/history?kind=action{query}")).json()["events"].clone();
    let told = |event: &Value| (event["who"].as_str().unwrap().to_owned(), event["what"].as_str().unwrap().to_owned());
    events.as_array().unwrap().iter().map(told).collect()
}

/// Seen to fail with a pause that monitors do not ask for, and with one that is not kept.
#[test]
fn a_paused_queue_starts_nothing_until_it_is_resumed() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let answer = act(&server, "PUT", "/submission", &json!({ "paused": true, "by": "ann" }));
    assert_eq!((answer.status, answer.json()), (200, json!({ "paused": true })));
    assert_eq!(server.submit(r#"{"count":3}"#).len(), 3, "what is submitted waits");
    assert_eq!(server.queue()["paused"], true);
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(server.queue()["counts"]["queued"], 3);
    server.kill();

    let mut server = place.serve();
    assert_eq!((&server.queue()["paused"], &server.queue()["counts"]["queued"]), (&json!(true), &json!(3)));
    act(&server, "PUT", "/submission", &json!({ "paused": false }));
    server.until_counts("merged", 3);
    let said = noted(&server, None);
    assert_eq!(said[0], ("operator".to_owned(), "lets jobs be started again".to_owned()));
    assert_eq!(said[1], ("ann".to_owned(), "pauses the queue: no job is started".to_owned()));
    server.signal(rustix::process::Signal::TERM);
    assert!(server.ended().1.contains("orchestrator: paused by ann: no job is started"));
    assert_eq!(place.serve().queue()["paused"], false);
}

#[test]
fn a_job_that_was_rolled_back_is_submitted_again() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let job = server.submit(r#"{"kind":"red"}"#)[0];
    server.until_counts("rolled_back", 1);
    let answer = act(&server, "POST", &format!("/jobs/{job}/requeue"), &json!({ "by": "ann" }));
    assert_eq!((answer.status, answer.json()), (201, json!({ "jobs": [2] })));
    server.until_counts("rolled_back", 2);
    assert_eq!(server.get("/jobs/2").json()["kind"], "red");
    assert_eq!(noted(&server, Some(1)), [("ann".to_owned(), "submits it again as job 2".to_owned())]);
    assert_eq!(noted(&server, Some(2)), [("ann".to_owned(), "submits job 1 again".to_owned())]);

    let merged = server.submit("{}")[0];
    server.until_counts("merged", 1);
    let again = |job: u64| act(&server, "POST", &format!("/jobs/{job}/requeue"), &json!({}));
    refused(&again(merged), 409, "job 3 is merged: only a job that was reaped or rolled back is submitted again");
    refused(&again(99), 404, "no job 99");
}

/// Seen to fail with an end that leaves the mark alone: its monitor went on with the gate of a job that had ended.
#[test]
fn an_ended_job_has_no_effect() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let job = server.submit(r#"{"kind":"gated"}"#)[0];
    place.pid_of(job);
    let body = json!({ "by": "ann", "reason": "stuck since noon" });
    let answer = act(&server, "POST", &format!("/jobs/{job}/end"), &body);
    assert_eq!((answer.status, answer.json()), (200, json!({ "job": job, "state": "reaped" })));
    // Its gate is killed, and its monitor commits nothing.
    wait_for("its monitor's end", || place.count("SELECT COUNT(*) FROM runs WHERE outcome = 'displaced'") == 1);
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger"), 0);
    assert_eq!(server.queue()["finalizer_owned"], 0, "the operator's own mark is gone");
    let (who, what) = noted(&server, Some(job)).remove(0);
    assert_eq!(
        (who.as_str(), what.as_str()),
        ("ann", "ends it as 'reaped', displacing run 1 in wait: stuck since noon")
    );
    refused(&act(&server, "POST", &format!("/jobs/{job}/end"), &json!({})), 409, "job 1 is reaped: it has ended");
}

#[test]
fn a_job_is_ended_before_it_starts_and_while_its_process_runs() {
    let place = Place::new(QUICK);
    let server = place.serve();
    act(&server, "PUT", "/submission", &json!({ "paused": true }));
    let queued = server.submit("{}")[0];
    assert_eq!(act(&server, "POST", &format!("/jobs/{queued}/end"), &json!({})).status, 200);
    act(&server, "PUT", "/submission", &json!({ "paused": false }));
    let held = server.submit(r#"{"kind":"held"}"#)[0];
    place.pid_of(held);
    assert_eq!(act(&server, "POST", &format!("/jobs/{held}/end"), &json!({})).status, 200);
    server.until_counts("reaped", 2);
    wait_for("its monitor's end", || place.count("SELECT COUNT(*) FROM runs WHERE outcome = 'overtaken'") == 1);
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger"), 0);
    assert_eq!(place.count("SELECT COUNT(*) FROM runs"), 1, "the queued one was never started");
}

/// Jobs end by their monitors and by the operator at the same time. Whoever comes first ends it, once, and the ledger
/// agrees.
#[test]
fn an_end_in_the_middle_of_a_commit_ends_a_job_once() {
    let place = Place::new(QUICK);
    let server = place.serve();
    for _ in 0..10 {
        for job in server.submit(r#"{"count":8}"#) {
            let answer = act(&server, "POST", &format!("/jobs/{job}/end"), &json!({}));
            assert!([200, 409].contains(&answer.status), "{answer:?}");
        }
    }
    server.until("all ended", |queue| queue["counts"]["queued"] == 0 && queue["counts"]["running"] == 0);
    wait_for("their monitors' end", || place.count("SELECT COUNT(*) FROM runs WHERE ended_at IS NULL") == 0);
    assert_eq!(place.count("SELECT COUNT(*) FROM jobs"), 80);
    assert_eq!(place.count("SELECT COUNT(*) FROM (SELECT 1 FROM ledger GROUP BY job_id HAVING COUNT(*) > 1)"), 0);
    assert_eq!(
        place.count(
            "SELECT COUNT(*) FROM ledger JOIN jobs ON jobs.id = job_id WHERE effect = 'merge' AND state = 'rolled back'"
        ),
        0
    );
}

#[test]
fn exactly_the_mark_that_was_seen_is_cleared() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let job = server.submit(r#"{"kind":"gated"}"#)[0];
    place.pid_of(job);
    let queue = server.until("owned", |queue| queue["running"]["wait"][0]["owner"].is_object());
    let generation = queue["running"]["wait"][0]["owner"]["generation"].as_u64().unwrap();
    let path = |generation: u64| format!("/jobs/{job}/mark?generation={generation}&by=ann");
    refused(&act(&server, "DELETE", &path(generation + 7), &json!({})), 409, "has no mark of generation");
    assert_eq!(server.queue()["finalizer_owned"], 1);
    assert_eq!(act(&server, "DELETE", &path(generation), &json!({})).status, 200);
    refused(&act(&server, "DELETE", &path(generation), &json!({})), 409, "has no mark of generation");
    let said = noted(&server, Some(job));
    assert_eq!(said, [("ann".to_owned(), format!("clears the mark of run 1, generation {generation}"))]);
    refused(&act(&server, "DELETE", &format!("/jobs/{job}/mark"), &json!({})), 400, "generation is missing");
    // Its monitor is displaced by that, and a redrive takes the job up.
    place.go();
    server.until_counts("merged", 1);
}

#[test]
fn nobody_acts_without_the_token() {
    let place = Place::new(QUICK);
    let server = place.serve();
    for (method, path) in [
        ("PUT", "/submission"),
        ("POST", "/jobs/1/requeue"),
        ("POST", "/jobs/1/end"),
        ("DELETE", "/jobs/1/mark?generation=1"),
    ] {
        let answer = server.ask(method, path, &["Content-Type: application/json"], r#"{"paused":true}"#);
        refused(&answer, 401, "a token is needed");
    }
    assert_eq!(server.queue()["paused"], false);
    refused(&act(&server, "PUT", "/submission", &json!({ "paused": 1 })), 422, "paused must be true or false");
    refused(
        &act(&server, "PUT", "/submission", &json!({ "paused": true, "buy": 1 })),
        422,
        "no \"buy\": there is paused, by",
    );
}
