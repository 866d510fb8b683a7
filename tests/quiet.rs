//! What a release, a mark and the reaper let out when the subscriber, or its thread-locals, are gone: nothing.
//!
//! Each scenario runs in a process of its own, since what is tested for is an abort.
#![cfg(feature = "tracing")]

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use livemark::{
    Cause, Claim, Finalizer, JobStore, MarkGuard, Outcome, Policy, Reaper, Registry, RunningJob, StopToken,
};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

/// Names the scenario that a child process is to run.
const SCENARIO: &str = "LIVEMARK_TEST_SCENARIO";

static FINALIZING: Registry = Registry::new();

/// Runs this test again in a child process, whose stdout somebody reads or nobody does. Returns what the child has
/// written, or nothing in the child.
fn in_a_process(test: &str, reads_stdout: bool) -> Option<Output> {
    if std::env::var(SCENARIO).is_ok_and(|scenario| scenario == test) {
        return None;
    }
    let mut child = Command::new(std::env::current_exe().expect("the test's own binary"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(SCENARIO, test)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the child starts");
    if !reads_stdout {
        // Only now: the test harness of the child gives up if it cannot say that it starts.
        let mut ready = [0];
        child.stderr.as_mut().expect("piped").read_exact(&mut ready).expect("the child says that it has started");
        drop(child.stdout.take());
    }
    drop(child.stdin.take());
    Some(child.wait_with_output().expect("the child ends"))
}

#[track_caller]
fn assert_ended_well(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
}

fn finalizer() -> Finalizer {
    Finalizer::new(Some(1), "merge")
}

fn reaper() -> Reaper<'static> {
    let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build().unwrap();
    Reaper::new(&FINALIZING, policy)
}

thread_local! {
    static OWNED: RefCell<Vec<MarkGuard<'static>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps a guard that is dropped when the locals of this thread are.
fn keep(guard: MarkGuard<'static>) {
    OWNED.with_borrow_mut(|owned| owned.push(guard));
}

// Seen to fail on the commit before contract 2: "thread local panicked on drop, aborting".
#[test]
fn a_guard_in_a_thread_local_is_released_when_its_thread_ends() {
    let test = "a_guard_in_a_thread_local_is_released_when_its_thread_ends";
    if let Some(output) = in_a_process(test, true) {
        assert_ended_well(&output);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("panicked"), "it says nothing rather than panic in silence: {errors}");
        return;
    }
    fmt().with_max_level(LevelFilter::TRACE).with_writer(io::sink).init();
    // Whichever thread-local is used first: the guard's, the subscriber's, or the library's.
    thread::spawn(|| keep(FINALIZING.mark(1, finalizer()))).join().unwrap();
    thread::spawn(|| {
        OWNED.with(|_| ());
        keep(FINALIZING.mark(2, finalizer()));
        drop(FINALIZING.mark(3, finalizer()));
    })
    .join()
    .unwrap();
    thread::spawn(|| {
        OWNED.with(|_| ());
        tracing::info!("the subscriber's come second");
        keep(FINALIZING.mark(4, finalizer()));
    })
    .join()
    .unwrap();
    let guard = FINALIZING.mark(5, finalizer());
    thread::spawn(move || keep(guard)).join().unwrap();
    assert!(FINALIZING.is_empty(), "all are released: {:?}", FINALIZING.snapshot());
}

/// Writes as `println!` does: it panics where nobody reads.
struct Printing;

impl Write for Printing {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        print!("{}", String::from_utf8_lossy(text));
        io::stdout().flush().expect("somebody reads");
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// Seen to fail on the commit before contract 2: the process aborts in the release while it unwinds.
#[test]
fn a_closed_stdout_ends_nobody() {
    let test = "a_closed_stdout_ends_nobody";
    if let Some(output) = in_a_process(test, false) {
        // The test harness of the child cannot say that it passed: its stdout is closed.
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("the scenario has ended"), "{}: {errors}", output.status);
        return;
    }
    eprintln!(".");
    assert_eq!(io::stdin().read(&mut [0]).unwrap(), 0, "the parent has closed the pipes");
    std::panic::set_hook(Box::new(|_| {}));
    fmt().with_max_level(Level::TRACE).with_writer(|| Printing).init();
    assert!(std::panic::catch_unwind(|| print!("nobody reads{}", "\n".repeat(1 << 16))).is_err(), "stdout is closed");

    // A mark, a displacing mark, a stale clear, a clear.
    let first = FINALIZING.mark(7, finalizer());
    let second = FINALIZING.mark(7, finalizer());
    assert!(!first.clear() && second.clear());
    // A release while unwinding.
    let unwound = std::panic::catch_unwind(|| {
        let _guard = FINALIZING.mark(8, finalizer());
        panic!("the finalization fails");
    });
    assert!(unwound.is_err() && FINALIZING.is_empty());
    // The loop: redrives, reaps, a bad row, a panic.
    let stop = StopToken::new();
    let mut jobs = Jobs { stop: stop.clone(), turns: 0 };
    let reaper = reaper();
    reaper.run(Duration::ZERO, &stop, &mut jobs);
    let stats = reaper.stats();
    assert_eq!((stats.redrives, stats.reaps_backstop, stats.bad_rows, stats.panics), (1, 1, 1, 1));
    eprintln!("the scenario has ended");
}

/// A healthy job, one to redrive, one to reap, one whose action panics, and a bad row.
struct Jobs {
    stop: StopToken,
    turns: u32,
}

impl<'r> JobStore<'r> for Jobs {
    type Row = u64;
    type Error = &'static str;
    type Rows = [Result<u64, &'static str>; 4];

    fn list(&mut self) -> Result<Self::Rows, &'static str> {
        self.turns += 1;
        if self.turns == 2 {
            self.stop.stop(); // before any job of this turn
        }
        Ok([Ok(1), Ok(2), Ok(3), Err("a bad row")])
    }

    fn job<'a>(&self, id: &'a u64) -> RunningJob<'a> {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        match id {
            1 => RunningJob::new(id, "merge", hours(0)),
            2 => RunningJob::new(id, "merge", hours(1)).finished_for(hours(1)),
            _ => RunningJob::new(id, "merge", hours(2)),
        }
    }

    fn redrive(&mut self, _: u64, _: Claim<'r>) -> Result<Outcome, &'static str> {
        Ok(Outcome::Done)
    }

    fn reap(&mut self, _: u64, _: Cause, _: Claim<'r>) -> Result<Outcome, &'static str> {
        panic!("the store panics");
    }
}
