//! What is known of jobs that run and of jobs that have ended: listings, one job, its output, and the history.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Place, QUICK, Server, wait_for};
use serde_json::{Value, json};

fn ids(answer: &Value) -> Vec<u64> {
    answer["jobs"].as_array().unwrap().iter().map(|row| row["job"].as_u64().unwrap()).collect()
}

fn jobs(server: &Server, query: &str) -> Value {
    let answer = server.get(&format!("/jobs{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[track_caller]
fn refused(server: &Server, path: &str, status: u16, reason: &str) {
    let answer = server.get(path);
    assert_eq!(answer.status, status, "{path}: {answer:?}");
    assert!(answer.json()["error"].as_str().unwrap().contains(reason), "{path}: {answer:?}");
}

#[test]
fn every_job_is_found_by_its_state_and_kind() {
    let place = Place::new(QUICK);
    let server = place.serve();
    server.submit(r#"{"count":3}"#);
    server.submit(r#"{"kind":"red","count":2}"#);
    server.until("five ended", |queue| queue["counts"]["merged"] == 3 && queue["counts"]["rolled_back"] == 2);
    server.submit(r#"{"kind":"gated"}"#);
    place.pid_of(6);

    assert_eq!(ids(&jobs(&server, "")), [6, 5, 4, 3, 2, 1]);
    assert_eq!(ids(&jobs(&server, "?state=running")), [6]);
    assert_eq!(ids(&jobs(&server, "?state=ended")), [5, 4, 3, 2, 1]);
    assert_eq!(ids(&jobs(&server, "?state=rolled_back")), [5, 4]);
    assert_eq!(ids(&jobs(&server, "?kind=red")), [5, 4]);
    assert_eq!(ids(&jobs(&server, "?kind=gated&state=ended")), [0; 0]);
    assert_eq!(ids(&jobs(&server, "?stage=wait")), [6]);
    assert_eq!(ids(&jobs(&server, "?owner=6")), [6]);
    assert_eq!(ids(&jobs(&server, "?owner=run+6")), [6]);
    assert_eq!(ids(&jobs(&server, "?q=re")), [5, 4], "a part of a kind");
    assert_eq!(ids(&jobs(&server, "?q=3")), [3], "a number");
    assert_eq!(ids(&jobs(&server, "?q=wait")), [6], "a stage");
    assert_eq!(ids(&jobs(&server, "?q=nothing")), [0; 0]);
    wait_for("its grace to pass", || ids(&jobs(&server, "?past_grace=true")) == [6]);

    // Page by page, each job once.
    let first = jobs(&server, "?limit=4");
    assert_eq!((ids(&first), &first["total"], &first["next"]), (vec![6, 5, 4, 3], &json!(6), &json!(3)));
    let second = jobs(&server, "?limit=4&before=3");
    assert_eq!((ids(&second), &second["next"]), (vec![2, 1], &Value::Null));
    let ended = jobs(&server, "?state=ended&limit=2&before=4");
    assert_eq!((ids(&ended), &ended["total"], &ended["next"]), (vec![3, 2], &json!(5), &json!(2)));

    let row = &jobs(&server, "?q=1")["jobs"][0];
    assert_eq!((&row["state"], &row["kind"], &row["run"]), (&json!("merged"), &json!("default"), &json!(1)));
    let times = ["submitted_at_ms", "started_at_ms", "ended_at_ms"].map(|name| row[name].as_u64().unwrap());
    assert!(times.is_sorted(), "{row}");

    for (query, reason) in [
        ("?state=gone", "no state \"gone\": there is queued, running, merged, rolled_back, reaped, ended"),
        ("?stat=running", "no parameter \"stat\": there is state, kind, owner, stage, past_grace, q, limit, before"),
        ("?limit=0", "limit must be from 1 to 500"),
        ("?limit=x", "limit must be a whole number"),
        ("?past_grace=perhaps", "past_grace must be true or false"),
        ("?kind=red&kind=red", "kind is given twice"),
    ] {
        refused(&server, &format!("/jobs{query}"), 400, reason);
    }
}

#[test]
fn a_job_tells_all_of_its_story() {
    let place = Place::new(&QUICK.replace("['false']", "['sh', '-c', 'echo no; exit 3']"));
    let server = place.serve();
    let job = server.submit(r#"{"kind":"red"}"#)[0];
    server.until_counts("rolled_back", 1);
    wait_for("its monitor's end", || place.count("SELECT COUNT(*) FROM runs WHERE ended_at IS NULL") == 0);
    let answer = server.get(&format!("/jobs/{job}"));
    let told = answer.json();
    assert_eq!((&told["job"], &told["state"], &told["running"]), (&json!(job), &json!("rolled_back"), &Value::Null));
    let run = &told["runs"][0];
    assert_eq!((&run["run"], &run["exit_code"], &run["outcome"]), (&json!(1), &json!(0), &json!("committed")));
    let gate = &run["tasks"][0];
    assert_eq!((&gate["gate"], &gate["result"], &gate["output"]), (&json!("one"), &json!("exit code 3"), &json!(true)));
    let effect = &told["effects"][0];
    assert_eq!((&effect["run"], &effect["effect"]), (&json!(1), &json!("rollback")));

    // In the order in which it happened.
    let at = |value: &Value| value.as_u64().unwrap();
    let line = [
        at(&told["submitted_at_ms"]),
        at(&told["started_at_ms"]),
        at(&run["marked_at_ms"]),
        at(&run["stamped_at_ms"]),
        at(&gate["started_at_ms"]),
        at(&gate["ended_at_ms"]),
        at(&effect["at_ms"]),
        at(&told["ended_at_ms"]),
        at(&told["now_ms"]),
    ];
    assert!(line.is_sorted(), "{told:#}");
    assert_eq!(at(&told["grace_at_ms"]), at(&told["stamped_at_ms"]) + 200);
    assert_eq!(at(&told["deadline_at_ms"]), at(&told["started_at_ms"]) + 60_000);
    let said: Vec<_> = told["events"].as_array().unwrap().iter().map(|event| event["what"].as_str().unwrap()).collect();
    assert_eq!(said.first(), Some(&"starts the job's process"));
    assert!(said.contains(&"gate one: RED, exit code 3"), "{said:?}");

    let task = &gate["task"];
    for path in ["output".to_owned(), format!("output?task={task}")] {
        let output = server.get(&format!("/jobs/{job}/{path}"));
        assert_eq!((output.status, output.body.as_str()), (200, "no\n"), "{path}");
        assert_eq!(output.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(output.header("x-content-type-options"), "nosniff");
    }
    let output = server.get(&format!("/jobs/{job}/output?run=1"));
    assert_eq!((output.status, output.body.as_str()), (200, ""));

    // Not another job's, nor a file elsewhere.
    let other = server.submit("{}")[0];
    refused(&server, &format!("/jobs/{other}/output?task={task}"), 404, "no output of job 2");
    refused(&server, &format!("/jobs/{job}/output?task=..%2F..%2Fsettings.toml"), 400, "task must be a whole number");
    refused(&server, &format!("/jobs/{job}/output?task={task}&run=7"), 404, "no output of job 1");
    assert_eq!(server.get(&format!("/jobs/{job}/output?task={task}&run=1")).body, "no\n");
    refused(&server, "/jobs/99", 404, "no job 99");
    refused(&server, "/jobs/x", 404, "no job \"x\": an id is a whole number");
    refused(&server, "/jobs/18446744073709551615", 404, "an id is a whole number");
    refused(&server, "/jobs/1?verbose=1", 400, "no parameter \"verbose\": there is none here");
}

#[test]
fn a_running_job_tells_who_owns_it_and_what_comes_next() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let job = server.submit(r#"{"kind":"gated"}"#)[0];
    place.pid_of(job);
    let told = server
        .until("deferred", |_| server.get(&format!("/jobs/{job}")).json()["running"]["verdict"]["what"] == "defer");
    assert_eq!(told["counts"]["running"], 1);
    let told = server.get(&format!("/jobs/{job}")).json();
    let running = &told["running"];
    assert_eq!((&running["owner"]["run_id"], &running["stage"]), (&json!(1), &json!("wait")));
    assert_eq!(running["next"]["text"], "reaped by the backstop, unless it commits");
    assert_eq!(told["ended_at_ms"], Value::Null);
    place.go();
    server.until_counts("merged", 1);
}

#[test]
fn the_history_has_all_that_happened() {
    let place = Place::new(QUICK);
    let server = place.serve();
    server.submit(r#"{"count":2}"#);
    server.until_counts("merged", 2);
    server.change("PUT", "/policy", r#"{"mode":"dry_run"}"#);
    let history = |query: &str| server.get(&format!("/history{query}")).json()["events"].as_array().unwrap().clone();
    wait_for("the change of mode", || {
        !history("?kind=mode&limit=1")[0]["what"].as_str().unwrap().starts_with("starts")
    });
    let all = history("");
    let numbers: Vec<_> = all.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, other| one > other), "the newest first");
    assert!(all.iter().any(|event| event["what"] == "starts, mode honor"), "{all:?}");
    assert!(history("?job=1").iter().all(|event| event["job"] == 1 && event["kind"] == "run"));
    assert_eq!(history(&format!("?before={}", numbers[1])).len(), numbers.len() - 2);
    refused(&server, "/history?kind=rumor", 400, "there is run, verdict, redrive, reap, mode, action, trouble");
    refused(&server, "/history?limit=1001", 400, "limit must be from 1 to 1000");
}
