//! Monitors, reapers, their loops and their operators at once: each job goes to one of them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use livemark::{
    Cause, Claim, DeferReason, Deferral, JobStore, MarkGuard, Mode, Outcome, Policy, Reaper, Registry, RunningJob,
    Verdict,
};

use crate::support::{
    HARD_DEADLINE, Said, StartingLine, Stop, alone, dawdle, finished, monitor, policy, said, seconds, wait_until,
};

// Seen to fail with a `judge` that claimed by `mark` instead of `try_mark`, with one that did not claim, and with
// a `try_mark` that was a look and a mark.
#[test]
fn of_a_monitor_and_a_reaper_exactly_one_gets_the_job() {
    const ROUNDS: u64 = 10_000;
    let _alone = alone();
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let line = StartingLine::new(2);
    thread::scope(|scope| {
        let monitor = scope.spawn(|| {
            let mut won = Vec::new();
            for round in 0..ROUNDS {
                line.wait();
                dawdle(round);
                let mark = registry.try_mark(round, monitor());
                line.wait(); // Both have acted; nobody has let go.
                won.push(mark.as_ref().ok().map(MarkGuard::is_current));
                line.wait();
            }
            won
        });
        let mut sweep = reaper.sweep();
        let mut redriven = Vec::new();
        for round in 0..ROUNDS {
            line.wait();
            dawdle(round / 37);
            let verdict = sweep.judge(&finished(&round));
            line.wait();
            redriven.push(match &verdict {
                Verdict::Redrive(claim) if claim.guard().is_some() => Some(claim.is_current()),
                Verdict::Defer(Deferral { owner: Some(owner), .. }) if owner.value.run_id == Some(1) => Some(false),
                _ => None,
            });
            line.wait();
        }
        let won = monitor.join().unwrap();
        for (round, (won, redriven)) in won.iter().zip(&redriven).enumerate() {
            let redriven = redriven.expect("a redrive that owns its job, or a deferral to the monitor");
            assert_ne!(*won, Some(false), "round {round}: the reaper displaced the monitor");
            assert_ne!(won.is_some(), redriven, "round {round}: who owns the job? monitor {won:?}, reaper {redriven}");
        }
        let stats = reaper.stats();
        let wins = redriven.iter().filter(|redriven| **redriven == Some(true)).count() as u64;
        assert_eq!((stats.redrives, stats.finalizer_defers_total), (wins, ROUNDS - wins));
    });
    assert!(registry.is_empty());
}

// Seen to fail with a `judge` that did not claim.
#[test]
fn of_several_reapers_exactly_one_redrives() {
    const ROUNDS: u64 = 10_000;
    let _alone = alone();
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let line = StartingLine::new(2);
    let sweep_all = || {
        let mut sweep = reaper.sweep();
        let mut redriven = Vec::new();
        for round in 0..ROUNDS {
            line.wait();
            let verdict = sweep.judge(&finished(&round));
            redriven.push(said(&verdict) == Said::Redrive(true));
            line.wait();
        }
        redriven
    };
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(sweep_all);
        let other = sweep_all();
        (one.join().unwrap(), other)
    });
    assert!(one.iter().zip(&other).all(|(one, other)| one != other), "a job was redriven twice, or not at all");
    assert_eq!(reaper.stats().sweeps, 2);
}

/// Keeps what it is given to redrive.
struct Keeps<'r, 't> {
    jobs: u64,
    /// The loops judge each job at the same instant.
    line: &'t StartingLine,
    redriven: &'t [AtomicUsize],
    claims: Vec<Claim<'r>>,
}

impl<'r> JobStore<'r> for Keeps<'r, '_> {
    type Row = u64;
    type Error = Infallible;
    type Rows = std::iter::Map<std::ops::Range<u64>, fn(u64) -> Result<u64, Infallible>>;

    fn list(&mut self) -> Result<Self::Rows, Infallible> {
        Ok((0..self.jobs).map(Ok))
    }

    fn job<'a>(&self, id: &'a u64) -> RunningJob<'a> {
        self.line.wait();
        finished(id)
    }

    fn redrive(&mut self, job: u64, claim: Claim<'r>) -> Result<Outcome, Infallible> {
        self.redriven[usize::try_from(job).unwrap()].fetch_add(1, Ordering::SeqCst);
        self.claims.push(claim);
        Ok(Outcome::Done)
    }

    fn reap(&mut self, _: u64, _: Cause, _: Claim<'r>) -> Result<Outcome, Infallible> {
        unreachable!("nothing is lost, nor past {HARD_DEADLINE:?}")
    }
}

// Seen to fail with a `judge` that claimed by `mark` instead of `try_mark`.
#[test]
fn several_loops_on_one_reaper_redrive_a_job_once() {
    const JOBS: u64 = 10_000;
    let _alone = alone();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let redriven: Vec<_> = (0..JOBS).map(|_| AtomicUsize::new(0)).collect();
    let line = StartingLine::new(2);
    let claims: Vec<_> = thread::scope(|scope| {
        let loops = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut jobs = Keeps { jobs: JOBS, line: &line, redriven: &redriven, claims: vec![] };
                // The second finds all jobs owned by the first.
                let reports = [(); 2].map(|()| reaper.run_once(&mut jobs));
                assert_eq!((reports[1].redriven, reports[1].deferred), (0, JOBS));
                jobs.claims
            })
        });
        loops.map(|sweeping| sweeping.join().unwrap()).into_iter().flatten().collect()
    });
    assert!(redriven.iter().all(|times| times.load(Ordering::SeqCst) == 1), "{redriven:?}");
    assert!(claims.len() == redriven.len() && claims.iter().all(|claim| claim.guard().is_some() && claim.is_current()));
    assert_eq!(reaper.stats().redrives, JOBS);
}

// Seen to fail with an exchange that clears the claim before it marks again.
#[test]
fn nobody_sees_an_unowned_job_while_its_guard_becomes_a_claim() {
    let _alone = alone();
    let registry: Arc<Registry<u64, &'static str>> = Arc::default();
    let (ended, looked) = (AtomicBool::new(false), AtomicU64::new(0));
    let unowned = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            wait_until("the first mark", || registry.is_active(&7));
            let mut unowned = 0_u64;
            while !ended.load(Ordering::Relaxed) {
                unowned += u64::from(!registry.is_active(&7));
                looked.fetch_add(1, Ordering::Relaxed);
            }
            unowned
        });
        {
            let _stop = Stop(&ended);
            let mut guard = registry.mark_owned(7, "monitor");
            let mut change = || {
                // Takes over, so that the job is owned in between as well.
                let claim: Claim<'static, _, _> = registry.mark_owned(7, "monitor").into();
                drop(std::mem::replace(&mut guard, claim.into_guard().unwrap()));
            };
            (0..50_000).for_each(|_| change());
            // A busy machine may have started the watcher late.
            wait_until("the watcher's looks", || {
                (0..1_000).for_each(|_| change());
                looked.load(Ordering::Relaxed) > 1_000
            });
            ended.store(true, Ordering::Relaxed);
            // Not released before the watcher has looked for the last time.
            wait_until("the watcher", || watcher.is_finished());
            drop(guard);
        }
        watcher.join().unwrap()
    });
    assert_eq!(unowned, 0, "of {} looks", looked.into_inner());
}

#[test]
fn a_policy_can_be_swapped_by_another_thread_while_a_sweep_runs() {
    let _alone = alone();
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _monitor = registry.mark(7, monitor());
    thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            for round in 0..500 {
                let mode = if round % 2 == 0 { Mode::Ignore } else { Mode::Honor };
                reaper.set_policy(policy().with_mode(mode));
            }
        });
        while !swaps.is_finished() {
            let mut sweep = reaper.sweep();
            let first = said(&sweep.judge(&finished(&7)));
            assert!(matches!(first, Said::Defer(DeferReason::Owned) | Said::Redrive(false)), "{first:?}");
            assert_eq!(said(&sweep.judge(&finished(&7))), first, "one policy for the whole pass");
        }
    });
}

// Seen to fail with an update that loaded, changed and stored.
#[test]
fn of_updates_by_several_threads_none_is_lost() {
    const ROUNDS: u32 = 500;
    let _alone = alone();
    let registry: Registry = Registry::new();
    let first = policy().to_builder().max_redrives(0).finalize_grace(seconds(1)).build().unwrap();
    let reaper = Reaper::new(&registry, first);
    let handle = reaper.handle();
    let line = StartingLine::new(2);
    let calls = AtomicUsize::new(0);
    let counted = |policy: &Policy| {
        calls.fetch_add(1, Ordering::Relaxed);
        policy.to_builder().max_redrives(policy.max_redrives() + 1).build()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                line.wait();
                dawdle(round.into());
                handle.try_update_policy(counted).unwrap();
                handle.set_mode(if round % 2 == 0 { Mode::DeferAll } else { Mode::DryRun });
            }
        });
        for round in 0..ROUNDS {
            line.wait();
            dawdle(u64::from(round / 37));
            reaper.update_policy(|policy| counted(policy).unwrap());
            let later =
                |policy: &Policy| policy.to_builder().finalize_grace(policy.finalize_grace() + seconds(1)).build();
            reaper.try_update_policy(later).unwrap();
        }
    });
    let policy = reaper.policy();
    assert_eq!((policy.max_redrives(), policy.finalize_grace()), (2 * ROUNDS, seconds(u64::from(ROUNDS) + 1)));
    assert_eq!(policy.mode(), Mode::DryRun, "a mode is set as any other");
    assert!(calls.into_inner() >= 2 * ROUNDS as usize);
}
