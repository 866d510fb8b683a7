//! What is shown of a job is what the reaper says of it now, and what a mode would do is what it then does.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Place, Server};
use serde_json::{Value, json};

/// Gates that wait, under limits that the test sets.
fn settings(limits: &str) -> String {
    format!(
        "
job.command = ['true']
gates = [{{ name = 'wait', command = ['sh', '-c', 'while [ ! -e ../../go ]; do sleep 0.02; done'] }}]
[limits]
finalize_grace = 0.2
lost_grace = 0.2
hard_deadline = 600
sweep_every = 0.02
process = 600
shutdown = 20
{limits}"
    )
}

fn shown(queue: &Value, job: u64) -> Option<Value> {
    let stages = queue["running"].as_object()?.values();
    stages.flat_map(|jobs| jobs.as_array().unwrap()).find(|row| row["job"] == job).cloned()
}

#[track_caller]
fn until(server: &Server, job: u64, what: &str) -> Value {
    let queue = server.until(what, |queue| shown(queue, job).is_some_and(|row| row["verdict"]["what"] == what));
    shown(&queue, job).unwrap()
}

fn mode(server: &Server, mode: &str) {
    let answer = server.change("PUT", "/policy", &json!({ "mode": mode }).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_job_within_its_grace_is_healthy_then_deferred() {
    let place = Place::new(&settings("").replace("finalize_grace = 0.2", "finalize_grace = 2"));
    let server = place.serve();
    let job = server.submit("{}")[0];
    let row = until(&server, job, "healthy");
    assert_eq!((&row["past_grace"], &row["deferred"]), (&json!(false), &Value::Null));
    let row = until(&server, job, "defer");
    assert_eq!((&row["past_grace"], &row["deferred"]["reason"]), (&json!(true), &json!("owned")));
    assert!(row["verdict"]["text"].as_str().unwrap().contains("defer, owned by run 1 at `wait`"), "{row}");
    assert_eq!(row["next"]["what"], "reap, backstop");
    assert_eq!(row["next"]["text"], "reaped by the backstop, unless it commits");
    let in_ms = row["next"]["at_ms"].as_u64().unwrap() - row["started_at_ms"].as_u64().unwrap();
    assert!((599_000..601_000).contains(&in_ms), "by the clock: {in_ms} ms after its start");
}

#[test]
fn a_dry_run_says_what_it_would_do_past_the_deadline() {
    let place = Place::new(&settings("").replace("hard_deadline = 600", "hard_deadline = 1.5"));
    let server = place.serve();
    mode(&server, "dry_run");
    let job = server.submit("{}")[0];
    // Past its grace it is owned, and past its deadline that does not count.
    let row = until(&server, job, "defer");
    assert_eq!(row["deferred"]["reason"], "owned");
    let row = until(&server, job, "dry_run");
    assert_eq!(row["verdict"]["would"], "reap, backstop");
    assert_eq!(row["deferred"], Value::Null, "it is not deferred any more");
    assert_eq!(row["dry_run"], "reap, backstop");
    assert_eq!(server.queue()["attention"], json!([job]));
    let table =
        String::from_utf8(common::orchestrator().args(["queue", "--url", &server.url()]).output().unwrap().stdout)
            .unwrap();
    assert!(table.contains("would reap") && !table.contains("owned"), "{table}");
}

#[test]
fn another_mode_brings_another_verdict_with_the_next_sweep() {
    let place = Place::new(&settings(""));
    let server = place.serve();
    let job = server.submit("{}")[0];
    assert_eq!(until(&server, job, "defer")["deferred"]["reason"], "owned");
    mode(&server, "defer_all");
    server.until("deferred by the brake", |queue| {
        shown(queue, job).is_some_and(|row| row["deferred"]["reason"] == "defer_all")
    });
    mode(&server, "honor");
    server.until("deferred to its owner", |queue| {
        shown(queue, job).is_some_and(|row| row["deferred"]["reason"] == "owned")
    });
}

/// What was said of a run is not said of the next one. Seen to fail with a verdict that is looked up by the job alone: the
/// new run was shown as one that is redriven.
#[test]
fn a_verdict_on_an_earlier_run_is_not_shown() {
    let place = Place::new(
        "job.command = ['sleep', '0.05']
        gates = [{ name = 'wait', command = ['sleep', '600'] }]
        limits = { finalize_grace = 0.1, hard_deadline = 600, sweep_every = 0.5, process = 900, monitors = 1, stale_after = 2 }",
    );
    let server = place.serve();
    let job = server.submit("{}")[0];
    // Its pulse stops in the gate: it is redriven as another run, which is judged anew.
    let first = until(&server, job, "defer")["run"].clone();
    server.until("another run", |queue| {
        shown(queue, job).is_some_and(|shown| {
            let is_new = shown["run"] != first;
            // At every instant: a verdict that is shown is on the run that is shown.
            assert!(!is_new || shown["verdict"]["what"] != "redrive", "{shown:#}");
            is_new && !shown["verdict"].is_null()
        })
    });
}

#[test]
fn the_boot_grace_is_told() {
    let place = Place::new(&settings("boot_grace = 300"));
    let server = place.serve();
    let job = server.submit("{}")[0];
    // An owner comes first. Without one it is the boot grace that defers.
    assert_eq!(until(&server, job, "defer")["deferred"]["reason"], "owned");
}

/// Seen to fail with a preview that judged by the mode in force: it was empty.
#[test]
fn a_preview_says_what_then_happens() {
    let place = Place::new(&settings(""));
    let server = place.serve();
    let jobs = server.submit(r#"{"count":3}"#);
    for job in &jobs {
        until(&server, *job, "defer");
    }
    let preview = |mode: &str| server.get(&format!("/policy/preview?mode={mode}")).json();
    let before = (server.queue()["reaper"].clone(), server.queue()["registry"].clone());
    let ignore = preview("ignore");
    assert_eq!(ignore["text"], "Ignore would redrive 3 live jobs now");
    assert_eq!((&ignore["redrive"], &ignore["live"], &ignore["reap"]), (&json!(jobs), &json!(jobs), &json!([])));
    let honor = preview("honor");
    assert_eq!((&honor["text"], &honor["defer"]), (&json!("Honor would do nothing now"), &json!(3)));
    assert_eq!(preview("defer_all")["defer"], 3);
    assert_eq!(preview("dry_run")["text"], "Dry run would do nothing now");

    // Nobody noticed.
    let after = server.queue();
    assert_eq!(after["registry"], before.1);
    assert_eq!((&after["reaper"]["redrives"], &before.0["redrives"]), (&json!(0), &json!(0)));
    let metrics = server.get("/metrics").body;
    assert!(!metrics.contains("preview"), "{metrics}");
    assert_eq!(place.count("SELECT COUNT(*) FROM runs"), 3);

    mode(&server, "ignore");
    server.until("redriven", |queue| queue["reaper"]["redrives"].as_u64() >= Some(3));
    assert_eq!(place.count("SELECT COUNT(*) FROM jobs WHERE redrives > 0"), 3);
    mode(&server, "defer_all");
}

#[test]
fn a_preview_knows_the_backstop_and_the_lost() {
    let place = Place::new(&settings("").replace("hard_deadline = 600", "hard_deadline = 1.5"));
    let server = place.serve();
    mode(&server, "dry_run");
    let job = server.submit("{}")[0];
    until(&server, job, "dry_run");
    for (mode, name) in [("honor", "Honor"), ("defer_all", "Defer all"), ("ignore", "Ignore")] {
        let preview = server.get(&format!("/policy/preview?mode={mode}")).json();
        assert_eq!(
            (&preview["reap"], &preview["text"]),
            (&json!([job]), &json!(format!("{name} would reap 1 job now")))
        );
    }
}

#[test]
fn a_preview_wants_a_mode() {
    let place = Place::new(&settings(""));
    let server = place.serve();
    for (query, reason) in [
        ("", "mode is missing"),
        ("?mode=", "mode is missing"),
        ("?mode=fast", "no mode \"fast\": there is honor, defer_all, dry_run, ignore"),
        ("?mode=honor&mode=honor", "mode is given twice"),
        ("?mod=honor", "no parameter \"mod\": there is mode"),
    ] {
        let answer = server.get(&format!("/policy/preview{query}"));
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.json()["error"].as_str().unwrap().contains(reason), "{answer:?}");
    }
}

#[test]
fn stages_come_in_the_order_of_a_job() {
    let place = Place::new(
        "
gates = [{ name = 'build', command = ['true'] }, { name = 'deploy', command = ['true'] }]
[kinds.a]
gates = [{ name = 'build', command = ['true'] }, { name = 'test', command = ['true'] }, { name = 'deploy', command = ['true'] }]
[kinds.b]
gates = [{ name = 'audit', command = ['true'] }]
",
    );
    let queue = place.serve().queue();
    assert_eq!(queue["stages"], json!(["process", "finalize", "audit", "build", "test", "deploy", "commit"]));
    assert_eq!((&queue["finalizer_owned"], &queue["finalizer_defers_total"]), (&json!(0), &json!(0)));
}

#[test]
fn marks_and_deferrals_are_counted_by_their_names() {
    let place = Place::new(&settings(""));
    let server = place.serve();
    server.submit(r#"{"count":2}"#);
    let queue = server.until("two owned, and deferred", |queue| {
        queue["finalizer_owned"] == 2 && queue["finalizer_defers_total"].as_u64() > Some(0)
    });
    assert_eq!(queue["reaper"]["finalizer_defers_total"], queue["finalizer_defers_total"]);
    place.go();
    server.until("nobody owned", |queue| queue["finalizer_owned"] == 0);
}
