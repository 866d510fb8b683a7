//! A command that cannot be started for want of something says nothing of its job.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Place, Server, wait_for};
use orchestrator::gates::{Exit, Task};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use tempfile::TempDir;

const GREEN: &str = "
job.command = ['true']
gates = [{ name = 'one', command = ['true'] }, { name = 'two', command = ['true'] }]
[limits]
finalize_grace = 60
hard_deadline = 120
sweep_every = 0.05
process = 60
monitors = 4
";
const HELD: &str = "['sh', '-c', 'echo $$ > pid; while [ ! -e ../../go ]; do sleep 0.02; done']";

fn task<'a>(command: &'a [String], directory: &'a Path, output: &'a Path) -> Task<'a> {
    let supervisor = Path::new(env!("CARGO_BIN_EXE_orchestrator"));
    Task { supervisor, command, directory, environment: &[], output, limit: Duration::from_secs(30) }
}

/// The limit on descriptors, of the service alone.
fn limit_descriptors(server: &Server, current: u64) {
    let pid = rustix::process::Pid::from_child(&server.child);
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
}

/// Seen to fail where every error of a start was red: all four jobs were rolled back.
#[test]
#[cfg(target_os = "linux")]
fn a_gate_that_finds_no_descriptors_is_started_later() {
    let place = Place::new(GREEN);
    let server = place.serve();
    // What is open stays open: nothing more can be, and no pipe for a child.
    let open = fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count() as u64;
    let jobs = server.submit(r#"{"count":4}"#);
    limit_descriptors(&server, open.min(12));
    // Whatever was under way by then: from here on nothing is started.
    wait_for("a start that fails", || {
        place.count("SELECT COUNT(*) FROM notes WHERE what LIKE 'cannot start %too many%'") > 0
            || place.count("SELECT COUNT(*) FROM jobs WHERE state IN ('queued', 'running')") == 0
    });
    assert_eq!(place.count("SELECT COUNT(*) FROM jobs WHERE state IN ('rolled back', 'reaped')"), 0);
    limit_descriptors(&server, 1024);
    server.until_counts("merged", jobs.len() as u64);
    assert_eq!(place.count("SELECT COUNT(*) FROM jobs WHERE redrives > 0"), 0, "no redrive was spent on it");
}

/// The supervisor is a process of its own, and finds too little of its own.
#[test]
#[cfg(target_os = "linux")]
fn what_the_supervisor_lacks_is_told_from_what_the_command_lacks() {
    let directory = TempDir::new().unwrap();
    let output = directory.path().join("output");
    // Written by hand: a shell in between sets the limit for the supervisor and its command.
    let wrapper = directory.path().join("few");
    let program = env!("CARGO_BIN_EXE_orchestrator");
    fs::write(&wrapper, format!("#!/bin/sh\nulimit -n 5\nexec {program} \"$@\"\n")).unwrap();
    Command::new("chmod").arg("+x").arg(&wrapper).status().unwrap();
    let command = ["true".to_owned()];
    let run = |supervisor: &Path| {
        orchestrator::gates::run(&Task { supervisor, ..task(&command, directory.path(), &output) }, || true)
    };
    let exit = run(&wrapper);
    assert!(matches!(&exit, Exit::NotNow(reason) if reason.contains("os error 24")), "{exit:?}");
    assert_eq!(run(Path::new(program)), Exit::Code(0));
    // What is not there will not be there later.
    let missing = ["no-such-program".to_owned()];
    let exit = orchestrator::gates::run(&task(&missing, directory.path(), &output), || true);
    assert!(matches!(&exit, Exit::NotStarted(reason) if reason.contains("os error 2")), "{exit:?}");
}

/// Seen to fail where the supervisor's silence was a verdict on the command.
#[test]
fn a_supervisor_that_cannot_speak_is_not_red() {
    let directory = TempDir::new().unwrap();
    let output = directory.path().join("output");
    let command = ["true".to_owned()];
    let exit = orchestrator::gates::run(
        &Task { supervisor: Path::new("/bin/false"), ..task(&command, directory.path(), &output) },
        || true,
    );
    assert!(matches!(exit, Exit::NotNow(_)), "{exit:?}");
}

/// A service that is asked to end does not wait for better times. Its next start queues the job again.
#[test]
#[cfg(target_os = "linux")]
fn a_shortage_does_not_hold_up_the_end_of_the_service() {
    let place = Place::new(&format!("{GREEN}\n[kinds.held]\njob.command = {HELD}"));
    let mut server = place.serve();
    let job = server.submit(r#"{"kind":"held"}"#)[0];
    place.pid_of(job);
    limit_descriptors(&server, 5);
    place.go();
    wait_for("a start that fails", || {
        place.count("SELECT COUNT(*) FROM notes WHERE what LIKE 'cannot start the gate%, tries again: Too many%'") == 1
    });
    server.signal(Signal::TERM);
    let (status, said) = server.ended();
    assert!(status.success(), "{said}");
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger"), 0);

    let server = place.serve();
    server.until_counts("merged", 1);
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger"), 1);
}
