//! What a release, a mark and the reaper let out when the subscriber, or its thread-locals, are gone: nothing.
//!
//! What is tested for is an abort.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use livemark::{Finalizer, MarkGuard, Reaper, Registry};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

use crate::process::{assert_passed, child, said};
use crate::support::{policy, troubled};

static FINALIZING: Registry = Registry::new();

fn finalizer() -> Finalizer {
    Finalizer::new(Some(1), "merge")
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
    if let Some(mut child) = child() {
        let child = child.output().expect("the child starts");
        assert_passed(&child);
        assert!(!said(&child).contains("panicked"), "it says nothing rather than panic in silence: {}", said(&child));
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
    if let Some(mut child) = child() {
        let mut child = child
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the child starts");
        // Not before it has started: the test harness of the child gives up if it cannot say that it starts.
        child.stderr.as_mut().expect("piped").read_exact(&mut [0]).expect("the child says that it has started");
        drop((child.stdout.take(), child.stdin.take()));
        let child = child.wait_with_output().expect("the child ends");
        // The harness cannot say that the test passed either.
        assert!(said(&child).contains("the scenario has ended"), "{}: {}", child.status, said(&child));
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
    // The loop: verdicts of each kind, errors of each kind.
    let (mut jobs, stop) = troubled("the store is down");
    let reaper = Reaper::new(&FINALIZING, policy());
    reaper.run(Duration::ZERO, &stop, &mut jobs);
    let stats = reaper.stats();
    assert_eq!((stats.redrives, stats.reaps_backstop, stats.bad_rows, stats.panics), (3, 1, 1, 1));
    eprintln!("the scenario has ended");
}
