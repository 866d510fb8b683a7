//! Child processes, and the lock on a workspace.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use orchestrator::gates::{Exit, Task, WorkspaceLock, workspace};
use rustix::process::{Pid, test_kill_process};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(30);

fn run(command: &[String], directory: &Path, limit: Duration, wanted: impl Fn() -> bool) -> Exit {
    let output = TempDir::new().unwrap();
    let environment: Vec<_> = std::env::vars_os().collect();
    let task = Task {
        supervisor: Path::new(env!("CARGO_BIN_EXE_orchestrator")),
        command,
        directory,
        environment: &environment,
        output: &output.path().join("output"),
        limit,
    };
    orchestrator::gates::run(&task, wanted)
}

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

/// Returns `true` if the process whose id is in `file` exists. One that was not waited for does.
fn exists(file: &Path) -> bool {
    let pid = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

#[test]
fn tells_how_a_process_ended() {
    let directory = TempDir::new().unwrap();
    let ended = |script: &str| run(&shell(script), directory.path(), LONG, || true);
    assert_eq!(ended("exit 0"), Exit::Code(0));
    assert_eq!(ended("exit 3"), Exit::Code(3));
    assert_eq!(ended("kill -9 $$"), Exit::Signal(9));
    assert!(ended("exit 0").is_green() && !ended("exit 3").is_green());
    assert_eq!((ended("exit 3").code(), ended("kill -9 $$").code()), (Some(3), None));
}

#[test]
fn runs_in_the_workspace() {
    let root = TempDir::new().unwrap();
    let directory = workspace(root.path(), 7).unwrap();
    assert_eq!(workspace(root.path(), 7).unwrap(), directory, "made once, found later");
    assert_eq!(run(&shell("touch here"), &directory, LONG, || true), Exit::Code(0));
    assert!(directory.join("here").exists());
}

#[test]
fn a_program_that_is_not_there_is_no_success() {
    let directory = TempDir::new().unwrap();
    for command in [vec!["no-such-program".to_owned()], Vec::new()] {
        let exit = run(&command, directory.path(), LONG, || true);
        assert!(matches!(exit, Exit::NotStarted(_)), "{exit:?}");
        assert!(!exit.is_green());
    }
}

#[test]
fn a_time_limit_kills_what_the_process_started_too() {
    let directory = TempDir::new().unwrap();
    let script = shell("echo $$ > pid; (sleep 2; touch survived) & wait");
    assert_eq!(run(&script, directory.path(), Duration::from_secs(1), || true), Exit::TimedOut);
    assert!(!exists(&directory.path().join("pid")), "waited for");
    thread::sleep(Duration::from_secs(2));
    assert!(!directory.path().join("survived").exists());
}

#[test]
fn a_process_whose_result_is_not_wanted_is_killed() {
    let directory = TempDir::new().unwrap();
    let pid = directory.path().join("pid");
    let started = || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'));
    assert_eq!(run(&shell("echo $$ > pid; sleep 30"), directory.path(), LONG, || !started()), Exit::Stopped);
    assert!(!exists(&pid));
}

#[test]
fn a_panic_leaves_no_process_behind() {
    let directory = TempDir::new().unwrap();
    let pid = directory.path().join("pid");
    let started = || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'));
    let panicked = thread::scope(|scope| {
        let running = scope.spawn(|| {
            run(&shell("echo $$ > pid; sleep 30"), directory.path(), LONG, || {
                if started() {
                    std::panic::resume_unwind(Box::new(()));
                }
                true
            })
        });
        running.join().is_err()
    });
    assert!(panicked);
    assert!(!exists(&pid));
}

#[test]
fn a_workspace_has_one_user() {
    let directory = TempDir::new().unwrap();
    let take = |run| WorkspaceLock::take(directory.path(), run).unwrap();
    let first = take(12345).unwrap();
    assert_eq!(take(6).unwrap_err(), "12345");
    drop(first);
    let second = take(6).unwrap();
    assert_eq!(take(7).unwrap_err(), "6", "nothing is left of the longer number");
    drop(second);
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let directory = TempDir::new().unwrap();
    let script = "(sleep 600 & echo $! > left; wait) & while [ ! -s left ]; do sleep 0.01; done; exit 7";
    assert_eq!(run(&shell(script), directory.path(), LONG, || true), Exit::Code(7));
    assert!(!exists(&directory.path().join("left")), "gone, not only about to go");
}

#[test]
fn a_command_cannot_speak_for_its_supervisor() {
    let directory = TempDir::new().unwrap();
    assert_eq!(run(&shell("echo code 0; exit 3"), directory.path(), LONG, || true), Exit::Code(3));
}

#[test]
fn a_command_waits_for_the_end_of_the_one_before_it() {
    let directory = TempDir::new().unwrap();
    let before = std::fs::File::create(directory.path().join("command.lock")).unwrap();
    rustix::fs::flock(&before, rustix::fs::FlockOperation::LockExclusive).unwrap();
    thread::scope(|scope| {
        let running = scope.spawn(|| run(&shell("touch ran"), directory.path(), LONG, || true));
        thread::sleep(Duration::from_millis(300));
        assert!(!directory.path().join("ran").exists());
        drop(before);
        assert_eq!(running.join().unwrap(), Exit::Code(0));
    });
    assert!(directory.path().join("ran").exists());

    // Nor does it start when it is not wanted any more.
    let before = std::fs::File::create(directory.path().join("command.lock")).unwrap();
    rustix::fs::flock(&before, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let exit = run(&shell("touch again"), directory.path(), Duration::from_millis(100), || true);
    assert_eq!(exit, Exit::TimedOut);
    drop(before);
    thread::sleep(Duration::from_millis(200));
    assert!(!directory.path().join("again").exists());
}
