//! What jobs and gates print is kept, bounded, and holds nobody up.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{Place, Server, wait_for};
use orchestrator::output::{self, LIMIT, Source};

const PRINTS: &str = "
job.command = ['sh', '-c', 'echo to stdout; echo to stderr >&2']
gates = [{ name = 'look', command = ['sh', '-c', 'echo from the gate'] }]
[limits]
finalize_grace = 5
hard_deadline = 60
sweep_every = 0.02
process = 60
[kinds.much]
gates = [{ name = 'much', command = ['sh', '-c', 'echo first; head -c 100000000 /dev/zero | tr \"\\0\" x; echo; echo last'] }]
[kinds.hang]
gates = [{ name = 'hang', command = ['sh', '-c', 'echo before; sleep 3600'] }]
[kinds.daemon]
gates = [{ name = 'daemon', command = ['sh', '-c', 'setsid sh -c \"echo > left; exec sleep 5\" & while [ ! -e left ]; do sleep 0.01; done; echo started'] }]
";

fn kept(place: &Place, job: u64, source: Source) -> String {
    String::from_utf8(output::read(&place.path("work"), job, source).unwrap().unwrap()).unwrap()
}

fn task_of(place: &Place, job: u64) -> u64 {
    place.count(&format!("SELECT tasks.id FROM tasks JOIN runs ON runs.id = run_id WHERE job_id = {job}"))
}

fn merged(server: &Server, kind: &str) -> u64 {
    let before = server.queue()["counts"]["merged"].as_u64().unwrap();
    let job = server.submit(&format!(r#"{{"kind":"{kind}"}}"#))[0];
    server.until_counts("merged", before + 1);
    job
}

#[test]
fn both_streams_are_kept_in_their_order() {
    let place = Place::new(PRINTS);
    let server = place.serve();
    let job = merged(&server, "default");
    assert_eq!(kept(&place, job, Source::Process(1)), "to stdout\nto stderr\n");
    assert_eq!(kept(&place, job, Source::Task(task_of(&place, job))), "from the gate\n");
}

/// Seen to fail with a bound that was never applied: the file had all 100,000,012 bytes.
#[test]
fn of_much_output_the_beginning_and_the_end_are_kept() {
    let place = Place::new(PRINTS);
    let server = place.serve();
    let job = merged(&server, "much");
    let source = Source::Task(task_of(&place, job));
    let kept = kept(&place, job, source);
    assert!(kept.len() as u64 <= LIMIT, "{} bytes", kept.len());
    assert!(kept.starts_with("first\nxxx") && kept.ends_with("xxx\nlast\n"));
    let left_out = kept.lines().find(|line| line.ends_with("bytes left out]")).unwrap();
    let left_out: u64 = left_out.trim_start_matches('[').split(' ').next().unwrap().parse().unwrap();
    let line = format!("\n[{left_out} bytes left out]\n").len() as u64;
    assert_eq!(left_out + kept.len() as u64 - line, 100_000_012, "every byte is there, or counted");
}

#[test]
fn output_can_be_read_while_a_gate_hangs() {
    let place = Place::new(PRINTS);
    let server = place.serve();
    let job = server.submit(r#"{"kind":"hang"}"#)[0];
    wait_for("the gate's row", || place.count("SELECT COUNT(*) FROM tasks") == 1);
    let path = output::file(&place.path("work"), job, Source::Task(task_of(&place, job)));
    wait_for("its output", || fs::read_to_string(&path).is_ok_and(|text| text == "before\n"));
}

/// A process that left its group keeps the pipe open. Seen to fail, for the five seconds that it lives, with a supervisor
/// that read to the end of the pipe.
#[test]
fn what_a_gate_leaves_behind_does_not_hold_it_up() {
    let place = Place::new(PRINTS);
    let server = place.serve();
    let job = merged(&server, "daemon");
    let took = place.count("SELECT ended_at - started_at FROM tasks");
    assert!(took < 4_500, "held up for {took} ms, as long as what it left behind");
    assert_eq!(kept(&place, job, Source::Task(task_of(&place, job))), "started\n");
}
