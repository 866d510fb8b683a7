//! (f) The race for one job: a monitor and two reapers, at the same instant, again and again.

use std::hint::spin_loop;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use livemark::{Claim, Finalizer, Mode, Reaper, ReaperStats, Registry, RunningJob, Verdict};

use crate::config::STAGE;
use crate::engine::joined;
use crate::error::Result;
use crate::replay::Replay;
use crate::replay::report::Fact;
use crate::store::{JobId, Store};

const ROUNDS: u64 = 1000;
const CONTENDERS: usize = 3;
/// Some tens of microseconds.
const SPINS: u32 = 2000;

/// Lets all contenders go at the same instant.
struct StartLine {
    barrier: Barrier,
    awake: AtomicU64,
}

impl StartLine {
    fn wait(&self, round: u64) {
        self.barrier.wait();
        // Waking up takes longer than a claim: whoever is awake first waits for the others, but not
        // long, since on a busy machine there may be no core left for them.
        self.awake.fetch_add(1, SeqCst);
        for _ in 0..SPINS {
            if self.awake.load(SeqCst) >= round * CONTENDERS as u64 {
                break;
            }
            spin_loop();
        }
    }
}

pub(super) fn race(replay: &Replay<'_>, queue: &str) -> Result<Vec<Fact>> {
    let connect = || replay.database.store(queue);
    let store = connect()?;
    let job = store.enqueue()?;
    let registry = Registry::new();
    let policy = replay.config.policy(Mode::Honor)?;
    let reapers = [Reaper::new(&registry, policy.clone()), Reaper::new(&registry, policy)];
    // Just past the grace, so that a reaper redrives it unless somebody owns it.
    let age = replay.config.limits.finalize_grace + Duration::from_nanos(1);
    let running = RunningJob::new(&job, STAGE, age).finished_for(age);
    let by_monitor = || registry.try_mark(job, Finalizer::new(None, STAGE)).ok().map(Claim::from);
    let by_reaper = |number: usize| match reapers[number].sweep().judge(&running) {
        Verdict::Redrive(claim) => Some(claim),
        _ => None,
    };

    store.note(Some(job), "all", &format!("race for it, {ROUNDS} rounds"))?;
    let line = StartLine { barrier: Barrier::new(CONTENDERS), awake: AtomicU64::new(0) };
    let contender = |holder, store| Contender { holder, store, job, line: &line };
    let monitor = contender("monitor", connect()?);
    let [first, second] = [contender("reaper 1", connect()?), contender("reaper 2", connect()?)];
    let refused: u64 = thread::scope(|scope| {
        let threads = [
            scope.spawn(|| monitor.contend(by_monitor)),
            scope.spawn(|| first.contend(|| by_reaper(0))),
            scope.spawn(|| second.contend(|| by_reaper(1))),
        ];
        threads.into_iter().map(|thread| joined(thread, "racing")).sum::<Result<u64>>()
    })?;

    for (holder, rounds) in store.rounds_won(job)? {
        store.note(Some(job), &holder, &format!("held it in {rounds} rounds"))?;
    }
    for (reaper, who) in reapers.iter().zip(["reaper 1", "reaper 2"]) {
        let ReaperStats { finalizer_defers_total: deferred, claim_conflicts, .. } = reaper.stats();
        store.note(Some(job), who, &format!("deferred {deferred} times, {claim_conflicts} of them by a lost claim"))?;
    }
    Ok(vec![
        Fact::exactly("rounds with exactly one holder", ROUNDS, store.count_rounds(job, 1)?),
        Fact::exactly("claims refused", ROUNDS * (CONTENDERS as u64 - 1), refused),
        Fact::exactly("jobs still marked", 0, registry.len() as u64),
    ])
}

struct Contender<'a> {
    holder: &'static str,
    store: Store,
    job: JobId,
    line: &'a StartLine,
}

impl Contender<'_> {
    /// Claims in every round, and writes down each claim it was given. How many it was refused.
    fn contend<'r>(self, claim: impl Fn() -> Option<Claim<'r>>) -> Result<u64> {
        let mut refused = 0;
        let mut written = Ok(()); // an error must not keep the others waiting at the line
        for round in 1..=ROUNDS {
            self.line.wait(round);
            let claim = claim();
            match claim.as_ref().and_then(Claim::generation) {
                Some(generation) => {
                    written = written.and(self.store.claim(self.job, round, self.holder, generation.get()));
                }
                None => refused += 1,
            }
            // Held until all have tried.
            self.line.barrier.wait();
        }
        written.map(|()| refused)
    }
}
