//! Threads on cores, and the writer beside a reader.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::jobs::Random;
use crate::subject::{Session, Subject};

/// Keeps the thread on the core of that number, counted around; where the system does not let it, it goes anywhere.
pub fn stay_on_core(number: usize) {
    // Asked once: a thread that is on a core already is told of no other.
    static CORES: std::sync::OnceLock<Vec<core_affinity::CoreId>> = std::sync::OnceLock::new();
    let cores = CORES.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default());
    if let Some(core) = number.checked_rem(cores.len()).and_then(|place| cores.get(place)) {
        core_affinity::set_for_current(*core);
    }
}

#[derive(Clone, Copy)]
pub enum Pace {
    FullSpeed,
    /// How many writes a second, a mark and a clear being two.
    Writes(u32),
}

/// How long a writer at full speed waits for the reader to be done. concread's need not be: who ends a read frees every
/// version that was made since, and more are made in the meantime. Without an end to it that was 20 GB in some minutes.
const PATIENCE: Duration = Duration::from_millis(250);
/// Writes between two looks at the clock, where the clock would be a good part of a write.
const BETWEEN_LOOKS: u32 = 256;

/// Runs `act` while a thread on the other core marks and clears, another job each time. Gives what `act` gives, and the
/// writer's nanoseconds for a mark and clear; nothing if the writer lost patience.
pub fn beside_a_writer<S: Subject, R>(
    subject: &S,
    pace: Pace,
    jobs: Random,
    act: impl FnOnce() -> R,
) -> Option<(R, f64)> {
    let (go, done) = (Barrier::new(2), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            stay_on_core(1);
            write(subject, pace, jobs, &go, &done)
        });
        go.wait();
        let result = act();
        done.store(true, Ordering::Relaxed);
        Some((result, writer.join().expect("the writer's jobs were not owned")?))
    })
}

fn write<S: Subject>(subject: &S, pace: Pace, mut jobs: Random, go: &Barrier, done: &AtomicBool) -> Option<f64> {
    let mut session = subject.session();
    let finalizer = crate::jobs::finalizer();
    // The thread's first write makes what each thread has of its own.
    assert!(session.mark_and_clear(jobs.next(), &finalizer), "{}", S::NAME);
    go.wait();
    let (start, mut written) = (Instant::now(), 0_u32);
    while !done.load(Ordering::Relaxed) {
        match pace {
            Pace::FullSpeed if written % BETWEEN_LOOKS == 0 && start.elapsed() > PATIENCE => return None,
            Pace::FullSpeed => {}
            Pace::Writes(in_a_second) => wait_until(start + Duration::from_secs(2) * written / in_a_second),
        }
        assert!(session.mark_and_clear(jobs.next(), &finalizer), "{}", S::NAME);
        written += 1;
    }
    Some(start.elapsed().as_secs_f64() * 1e9 / f64::from(written))
}

/// Sleeps as long as that is sure to be short enough, then looks at the clock.
fn wait_until(due: Instant) {
    const OVERSLEPT: Duration = Duration::from_micros(120);
    if let Some(asleep) = due.saturating_duration_since(Instant::now()).checked_sub(OVERSLEPT) {
        thread::sleep(asleep);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}
