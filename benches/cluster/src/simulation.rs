//! `simulation`: many processes on the engine in memory, in one thread and on a clock that waits for nobody.
//!
//! It counts what an engine and each process have to do, and for how long it is not known everywhere that a process is gone.
//! Servers and networks take no time in it, so that it says nothing of their speed.

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use livemark_cluster::{Clock, ClusterGuard, Config, MemoryClient, MemoryEngine, Session};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use crate::bench::{Bench, Plan, context, number};
use crate::error::BenchError;
use crate::record::{Row, Samples};

/// Processes in one namespace, and the jobs that each owns. A thousand processes take more than five minutes of a core, as each
/// hears of all others.
const CASES: [(usize, u64); 5] = [(10, 100), (30, 100), (100, 100), (300, 30), (20, 5_000)];
/// For how long it is counted what goes on while nothing happens.
const IDLE: Duration = Duration::from_secs(20);
/// Processes that are restarted, one after the other, by a deploy: so many are killed, and so many closed.
const RESTARTS: usize = 3;

/// The clock that tokio lets go on by itself.
struct Simulated(Instant);

impl Clock for Simulated {
    fn now(&self) -> Duration {
        self.0.elapsed() + Duration::from_secs(1_000)
    }
}

/// What was found in one case.
struct Found {
    writes: f64,
    events: f64,
    busy: f64,
    bytes: f64,
    killed: Samples,
    closed: Samples,
    again: Samples,
}

/// Counts what many processes ask of an engine, and how long a restart takes to be known everywhere.
pub(crate) async fn simulation(bench: &Bench, heap: &'static Cap<System>) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    let cases = if bench.plan == Plan::QUICK { &CASES[..1] } else { &CASES };
    for &(processes, each) in cases {
        let case = move || {
            let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.map_err(BenchError::io("no runtime"))?.block_on(simulate(processes, each, heap))
        };
        let Found { writes, events, busy, bytes, killed, closed, again } = tokio::task::spawn_blocking(case).await??;
        let case = |what: &str| format!("{processes} processes of {each} marks: {what}");
        let derived = |what: &str, unit, value| Row::derived("simulation", case(what), unit, 1, Some(value));
        rows.push(derived("writes, idle", "writes/s", writes));
        rows.push(derived("events that all hear together, idle", "events/s", events));
        rows.push(derived("of one core, all processes together, idle", "%", busy));
        rows.push(derived("memory of a process", "bytes", bytes));
        rows.push(Row::new("simulation", case("known everywhere after a kill"), "s", &killed));
        rows.push(Row::new("simulation", case("known everywhere after a close"), "s", &closed));
        rows.push(Row::new("simulation", case("its marks are everywhere again after"), "s", &again));
    }
    Ok(rows)
}

/// One process: its session, and its marks.
struct Process {
    session: Session,
    guards: Vec<ClusterGuard>,
}

async fn begin(engine: &MemoryEngine, at: usize, each: u64, began: Instant) -> Result<Process, BenchError> {
    let client: MemoryClient = engine.client();
    let mut config = Config::default();
    config.process = format!("process {at}");
    let session: Session = Session::open_with_clock(client, config, Simulated(began)).await?;
    let (mut guards, first) = (Vec::new(), at as u64 * each);
    for job in first..first + each {
        guards.push(session.mark(job, context(job)).await?);
    }
    Ok(Process { session, guards })
}

async fn simulate(processes: usize, each: u64, heap: &Cap<System>) -> Result<Found, BenchError> {
    let (engine, began, before) = (MemoryEngine::new(), Instant::now(), heap.allocated());
    let mut all = Vec::new();
    for at in 0..processes {
        all.push(begin(&engine, at, each, began).await?);
        // Processes do not all begin in the same instant.
        sleep(Duration::from_millis(37)).await;
    }
    let marks = usize::try_from(each).unwrap_or(usize::MAX).saturating_mul(processes);
    everywhere(&all, marks).await?;
    // What all have heard is not kept, as an engine that is compacted does not.
    engine.compact();
    let bytes = (number(heap.allocated() as u64) - number(before as u64)) / number(processes as u64);

    let (revision, busy) = (engine.revision(), cpu());
    sleep(IDLE).await;
    let (writes, busy) = (number(engine.revision() - revision), cpu() - busy);
    let (mut killed, mut closed, mut again) = (Samples::default(), Samples::default(), Samples::default());
    for at in 0..2 * RESTARTS.min(processes / 2) {
        let gone = all.swap_remove(0);
        let began_at = Instant::now();
        let is_kill = at % 2 == 0;
        if is_kill {
            gone.session.abandon();
            std::mem::forget(gone.guards);
        } else {
            gone.session.clone().close().await?;
            drop(gone.guards);
        }
        everywhere(&all, marks - usize::try_from(each).unwrap_or(usize::MAX)).await?;
        if is_kill { &mut killed } else { &mut closed }.push(began_at.elapsed().as_secs_f64());
        drop(gone.session);
        let began_again = Instant::now();
        // The one that went had the first jobs of those that are left.
        all.push(begin(&engine, at_of(processes, at), each, began).await?);
        everywhere(&all, marks).await?;
        again.push(began_again.elapsed().as_secs_f64());
        engine.compact();
    }
    let seconds = IDLE.as_secs_f64();
    let events = writes * number(processes as u64) / seconds;
    Ok(Found { writes: writes / seconds, events, busy: 100.0 * busy / seconds, bytes, killed, closed, again })
}

/// New processes have jobs of their own.
fn at_of(processes: usize, restart: usize) -> usize {
    processes + restart
}

/// Waits until all mirrors have so many marks.
async fn everywhere(all: &[Process], marks: usize) -> Result<(), BenchError> {
    let limit = Instant::now() + Duration::from_secs(120);
    while all.iter().any(|process| process.session.view().registry().len() != marks) {
        if Instant::now() > limit {
            let found = all.iter().map(|process| process.session.view().registry().len()).find(|found| *found != marks);
            return Err(BenchError::Marks { found: found.unwrap_or(marks), expected: marks });
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The time that this thread was at work, in seconds.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
