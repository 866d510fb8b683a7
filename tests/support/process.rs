//! A process for a test alone: a test that counts what is the whole process's starts its own binary once more.

use std::env;
use std::process::{Command, Output};
use std::thread;

/// Names the test that a child is there for.
const TEST: &str = "LIVEMARK_ISOLATED_TEST";

/// Has the rest of the test run in a process of its own: returns from the test where a child has passed it, and goes on
/// in that child.
macro_rules! isolated {
    () => {
        if $crate::process::ran_in_a_child() {
            return;
        }
    };
}
pub(crate) use isolated;

/// Runs the calling test in a child process, which must pass it, and returns `true`. Returns `false` in that child.
#[must_use = "the test goes on in the child only"]
pub(crate) fn ran_in_a_child() -> bool {
    let Some(mut child) = child() else { return false };
    assert_passed(&child.output().expect("the child starts"));
    true
}

/// Returns the command that runs the calling test alone, in a child process; and nothing in such a child.
///
/// An ignored test was asked for if it calls this.
pub(crate) fn child() -> Option<Command> {
    // The harness names each test's thread after it.
    let thread = thread::current();
    let test = thread.name().filter(|name| name.contains("::")).expect("called on the test's own thread");
    if let Some(this) = env::var_os(TEST) {
        assert_eq!(this, test, "a child runs one test");
        return None;
    }
    let mut child = Command::new(env::current_exe().expect("the test's own binary"));
    child.args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]).env(TEST, test);
    Some(child)
}

/// Checks that the child has run its test, and not none, and that it passed.
#[track_caller]
pub(crate) fn assert_passed(child: &Output) {
    if !(child.status.success() && said(child).contains("test result: ok. 1 passed")) {
        // Before this test's own message, so that it is the first that is read.
        print!("{}", said(child));
        panic!("the child has not passed its test: {}", child.status);
    }
}

/// Returns what the child has written.
pub(crate) fn said(child: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr))
}

#[test]
#[should_panic(expected = "has not passed its test: exit status: 0")]
fn a_child_that_runs_no_test_has_passed_none() {
    let child =
        Command::new(env::current_exe().expect("the test's own binary")).args(["no such test", "--exact"]).output();
    assert_passed(&child.expect("the child starts"));
}
