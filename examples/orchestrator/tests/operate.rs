//! The commands of an operator, against a real service: what is stuck, why, what comes next, and how to hold it.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use common::{Place, QUICK, Server, TOKEN};
use serde_json::{Value, json};

fn asked(server: &Server, arguments: &[&str]) -> Output {
    let mut command = common::orchestrator();
    command.env("ORCHESTRATOR_URL", server.url()).env("ORCHESTRATOR_TOKEN", TOKEN).env("USER", "ann").env("TZ", "UTC");
    command.args(arguments).output().unwrap()
}

#[track_caller]
fn prints(server: &Server, arguments: &[&str]) -> String {
    let output = asked(server, arguments);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    text
}

fn json_of(server: &Server, arguments: &[&str]) -> Value {
    let output = asked(server, arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn stuck(place: &Place) -> (Server, u64) {
    let server = place.serve();
    let job = server.submit(r#"{"kind":"gated"}"#)[0];
    place.pid_of(job);
    server.until("deferred", |queue| queue["running"]["wait"][0]["verdict"]["what"] == "defer");
    (server, job)
}

/// What an operator asks of a job that is stuck, in the words of the answer.
#[test]
fn a_stuck_job_is_told_whole() {
    let place = Place::new(QUICK);
    let (server, job) = stuck(&place);
    let text = prints(&server, &["job", &job.to_string()]);
    let one = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(one.starts_with("job 1 (gated) is running in wait, run 1 owner run 1 in wait, generation "), "{text}");
    assert!(one.contains(" verdict deferred, owned why job 1: finished: defer, owned by run 1 at `wait`"), "{text}");
    assert!(one.contains(" next reaped by the backstop, unless it commits: at "), "{text}");
    assert!(one.contains(" deadline ") && one.contains(", in 5"), "{text}");
    assert!(one.contains(" run 1, started ") && one.contains(" in wait wait "), "{text}");
    let told = json_of(&server, &["job", &job.to_string(), "--json"]);
    assert_eq!(told["running"]["owner"]["run_id"], 1);

    place.go();
    server.until_counts("merged", 1);
    common::wait_for("its story's end", || {
        prints(&server, &["job", "1"]).contains("run 1, started")
            && prints(&server, &["job", "1"]).contains("committed")
    });
    let text = prints(&server, &["job", "1"]);
    assert!(text.starts_with("job 1 (gated) is merged, run 1\n") && text.contains("  merge by run 1 at "), "{text}");
    assert!(!text.contains("deadline"), "what was never reached: {text}");
    let output = asked(&server, &["job", "99"]);
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stderr).unwrap().contains("no job 99")),
        (Some(8), true)
    );
}

#[test]
fn the_reaper_is_held_for_a_while() {
    let place = Place::new(QUICK);
    let (server, _) = stuck(&place);
    assert_eq!(prints(&server, &["mode"]), "mode honor\n");
    let text = prints(&server, &["mode", "defer-all", "--for", "15m"]);
    assert!(text.starts_with("mode defer_all, set by ann at ") && text.contains(" (in 15m00s), then honor"), "{text}");
    assert_eq!(prints(&server, &["mode"]).split(" (in").next(), text.split(" (in").next());
    assert!(prints(&server, &["queue"]).lines().nth(1).unwrap().starts_with("set by ann, until "));
    let told = json_of(&server, &["mode", "--json"]);
    assert_eq!((&told["mode"], &told["override"]["then"]), (&json!("defer_all"), &json!("honor")));

    // What would redrive live jobs is not done by a slip.
    let output = asked(&server, &["mode", "ignore"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.contains("Ignore would redrive 1 live job now")), (Some(1), true), "{said}");
    assert_eq!(server.queue()["policy"]["mode"], "defer_all");
    assert!(prints(&server, &["mode", "Honor", "--by", "bob"]).starts_with("mode honor, set by bob at "));
    let output = asked(&server, &["mode", "fast"]);
    assert_eq!(output.status.code(), Some(8));
    let output = asked(&server, &["mode", "--for", "15m"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn jobs_are_listed_and_history_is_told() {
    let place = Place::new(QUICK);
    let (server, _) = stuck(&place);
    server.submit(r#"{"kind":"red","count":2}"#);
    server.until_counts("rolled_back", 2);
    let text = prints(&server, &["jobs", "--limit", "2"]);
    assert!(text.contains("     3 red        rolled back") && text.ends_with("and 1 more\n"), "{text}");
    let text = prints(&server, &["jobs", "--past-grace"]);
    assert!(text.contains("     1 gated      running      wait") && text.lines().count() == 2, "{text}");
    assert_eq!(json_of(&server, &["jobs", "--state", "ended", "--json"])["total"], 2);
    let text = prints(&server, &["history", "--job", "2"]);
    assert!(text.contains("job 2: gate one: RED, exit code 1"), "{text}");
    assert!(text.lines().next().unwrap().contains("starts the job's process"), "the oldest first: {text}");
    assert_eq!(json_of(&server, &["history", "--limit", "1", "--json"])["events"].as_array().unwrap().len(), 1);
}

#[test]
fn an_operator_acts() {
    let place = Place::new(&QUICK.replace("['false']", "['sh', '-c', 'echo no; exit 3']"));
    let (server, job) = stuck(&place);
    let generation = server.queue()["running"]["wait"][0]["owner"]["generation"].to_string();
    let wrong = asked(&server, &["clear", "1", "--generation", "999999"]);
    assert_eq!(wrong.status.code(), Some(8));
    assert_eq!(
        prints(&server, &["clear", "1", "--generation", &generation]),
        format!("the mark of job 1, generation {generation}, is cleared\n")
    );
    assert_eq!(prints(&server, &["end", &job.to_string(), "--reason", "stuck"]), "job 1 is reaped\n");
    assert_eq!(prints(&server, &["requeue", "1"]), "job 1 is submitted again as job 2\n");
    place.go();
    assert_eq!(prints(&server, &["pause"]), "paused: no queued job is started\n");
    assert!(prints(&server, &["queue"]).contains(" queued, paused, "));
    assert_eq!(prints(&server, &["resume", "--json"]), "{\"paused\":false}\n");
    server.submit(r#"{"kind":"red"}"#);
    server.until_counts("rolled_back", 1);
    assert_eq!(prints(&server, &["output", "3"]), "no\n");
    let said = prints(&server, &["history", "--kind", "action"]);
    let one = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(one.contains(" ann job 1: ends it as 'reaped'") && one.contains(": stuck "), "{said}");
}

#[test]
fn a_tail_tells_what_happens_also_after_a_restart() {
    let place = Place::new(QUICK);
    let server = place.serve();
    let mut command = common::orchestrator();
    command.args(["tail", "--url", &server.url()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut until = |what: &str| loop {
        let line = lines.next().unwrap().unwrap();
        if line.contains(what) {
            return line;
        }
    };
    // What happens before it has begun to look is not told: so there is always another job.
    std::thread::scope(|scope| {
        let told = scope.spawn(|| until("gate one: green") + &until(": commits 'merged'"));
        while !told.is_finished() {
            server.submit("{}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert!(told.join().unwrap().contains(" run "));
    });
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let port = server.port().to_owned();
    server.kill();
    assert!(errors.next().unwrap().unwrap().contains("onnection refused"));
    let server = Server::start(place.command().args(["--listen", &format!("127.0.0.1:{port}"), "--token", TOKEN]));
    assert!(errors.next().unwrap().unwrap().contains("answers again"));
    until("starts, mode honor");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(server);
}
