//! What a reaper promises: the tiers and their order, claims, counters, modes, and what it leaves alone.

mod support;

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use livemark::{
    Cause, DeferReason, Deferral, Finalizer, MarkGuard, Mode, Policy, Reaper, ReaperStats, Registry, RunningJob,
    StageRules, Verdict,
};
use support::{
    FINALIZE_GRACE, HARD_DEADLINE, LOST_GRACE, Said, StartingLine, UNDECLARED, alone, dawdle, finished, lost, overdue,
    policy, running, said, seconds,
};

/// What the reaper says of `job`, in a sweep of its own; the claim is given back.
fn judge(reaper: &Reaper<'_>, job: &RunningJob<'_>) -> Said {
    said(&reaper.sweep().judge(job))
}

const JUST_OVER: Duration = Duration::from_nanos(1);

fn monitor() -> Finalizer {
    Finalizer::new(Some(1), "merge")
}

fn stats(reaper: &Reaper<'_>) -> ReaperStats {
    let mut stats = reaper.stats();
    stats.sweeps = 0;
    stats
}

#[test]
fn a_job_within_its_limits_is_healthy() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    assert_eq!(judge(&reaper, &running(&7)), Said::Healthy);
    let _monitor = registry.mark(7, monitor());
    assert_eq!(judge(&reaper, &running(&7)), Said::Healthy, "owned or not");
    assert_eq!(stats(&reaper), ReaperStats::default(), "healthy jobs are not counted");
    assert_eq!(registry.stats().marks, 1);
}

#[test]
fn exactly_at_a_limit_is_not_past_it() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());

    let finished_for = |age| RunningJob { finished_for: Some(age), ..running(&7) };
    assert_eq!(judge(&reaper, &finished_for(FINALIZE_GRACE)), Said::Healthy);
    assert_eq!(judge(&reaper, &finished_for(FINALIZE_GRACE + JUST_OVER)), Said::Redrive(true));

    let lost_for = |age| RunningJob { lost_for: Some(age), ..running(&7) };
    assert_eq!(judge(&reaper, &lost_for(LOST_GRACE)), Said::Healthy);
    assert_eq!(judge(&reaper, &lost_for(LOST_GRACE + JUST_OVER)), Said::Reap(Cause::WorkerLost, true));

    let running_for = |age| RunningJob { running_for: age, ..running(&7) };
    assert_eq!(judge(&reaper, &running_for(HARD_DEADLINE)), Said::Healthy);
    assert_eq!(judge(&reaper, &running_for(HARD_DEADLINE + JUST_OVER)), Said::Reap(Cause::Backstop, true));
}

#[test]
fn ages_of_zero_and_of_for_ever_are_judged_as_any_other() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let zero = Duration::ZERO;
    let newborn = RunningJob { running_for: zero, finished_for: Some(zero), lost_for: Some(zero), ..running(&7) };
    assert_eq!(judge(&reaper, &newborn), Said::Healthy);
    let eternal = RunningJob { running_for: Duration::MAX, ..running(&7) };
    assert_eq!(judge(&reaper, &eternal), Said::Reap(Cause::Backstop, true));
    let finished = RunningJob { finished_for: Some(Duration::MAX), ..running(&7) };
    assert_eq!(judge(&reaper, &finished), Said::Redrive(true));
}

#[test]
fn a_lost_worker_is_reaped_and_its_job_claimed() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let verdict = reaper.sweep().judge(&lost(&7));
    let Verdict::Reap(Cause::WorkerLost, Some(claim)) = verdict else { panic!("{verdict:?}") };
    assert!(claim.is_current() && registry.is_active(&7));
    assert_eq!(stats(&reaper).reaps_worker_lost, 1);
    drop(claim);
    assert!(!registry.is_active(&7));
}

#[test]
fn a_lost_worker_whose_job_is_owned_is_deferred_to_its_owner() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let monitor = registry.mark(7, monitor());
    assert_eq!(judge(&reaper, &lost(&7)), Said::Defer(DeferReason::Owned));
    assert!(monitor.is_current());
    assert_eq!((stats(&reaper).finalizer_defers_total, stats(&reaper).reaps_worker_lost), (1, 0));
}

#[test]
fn a_finished_job_is_not_lost_with_its_worker() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let both = RunningJob { finished_for: Some(seconds(10)), ..lost(&7) };
    assert_eq!(judge(&reaper, &both), Said::Healthy, "its process is meant to be gone");
    let past_grace = RunningJob { finished_for: Some(seconds(301)), ..lost(&7) };
    assert_eq!(judge(&reaper, &past_grace), Said::Redrive(true));
}

#[test]
fn a_dead_finalizer_is_redriven_and_its_job_claimed() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    drop(registry.mark(7, monitor()));
    let verdict = reaper.sweep().judge(&finished(&7));
    let Verdict::Redrive(Some(claim)) = verdict else { panic!("{verdict:?}") };
    assert!(claim.is_current());
    let owner = registry.owner(&7).unwrap();
    assert_eq!((owner.value.run_id, &*owner.value.stage), (None, "merge"), "the reaper's own context");
    assert_eq!(stats(&reaper).redrives, 1);
    assert!(registry.try_mark(7, monitor()).is_err(), "a monitor that comes now is refused");
}

#[test]
fn a_live_finalizer_is_deferred_to() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let monitor = registry.mark(7, monitor());
    let verdict = reaper.sweep().judge(&finished(&7));
    let Verdict::Defer(Deferral { reason: DeferReason::Owned, owner: Some(owner) }) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!((owner.generation, owner.value.run_id), (monitor.generation(), Some(1)));
    assert!(monitor.is_current());
    assert_eq!(registry.stats().marks, 1, "nothing was claimed");
    assert_eq!((stats(&reaper).finalizer_defers_total, stats(&reaper).redrives), (1, 0));
}

#[test]
fn the_claim_of_one_sweep_is_deferred_to_by_the_next() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let claim = reaper.sweep().judge(&finished(&7));
    assert_eq!(said(&claim), Said::Redrive(true));
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned));
    drop(claim);
    assert_eq!(judge(&reaper, &finished(&7)), Said::Redrive(true));
}

#[test]
fn a_dropped_verdict_gives_its_claim_back() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    drop(reaper.sweep().judge(&finished(&7)));
    assert!(!registry.is_active(&7));
}

#[test]
fn the_backstop_never_asks_the_mark() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let monitor = registry.mark(7, monitor());
    let verdict = reaper.sweep().judge(&overdue(&7));
    let Verdict::Reap(Cause::Backstop, Some(claim)) = verdict else { panic!("{verdict:?}") };
    assert!(claim.is_current() && !monitor.is_current(), "the old owner is displaced, and can see it");
    drop(monitor);
    assert!(claim.is_current(), "its late release frees nothing");
    assert_eq!(registry.stats().displaced, 1);
    assert_eq!((stats(&reaper).reaps_backstop, stats(&reaper).finalizer_defers_total), (1, 0));
}

#[test]
fn a_deferred_job_falls_through_to_the_backstop() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    for deferred in [finished(&7), lost(&7)] {
        let _monitor = registry.mark(7, monitor());
        assert_eq!(judge(&reaper, &deferred), Said::Defer(DeferReason::Owned));
        let stuck = RunningJob { running_for: HARD_DEADLINE + JUST_OVER, ..deferred };
        assert_eq!(judge(&reaper, &stuck), Said::Reap(Cause::Backstop, true));
    }
    assert_eq!((stats(&reaper).finalizer_defers_total, stats(&reaper).reaps_backstop), (2, 2));
}

#[test]
fn a_free_job_past_two_limits_is_judged_by_the_earlier_tier() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let stuck = RunningJob { running_for: HARD_DEADLINE + JUST_OVER, ..finished(&7) };
    assert_eq!(judge(&reaper, &stuck), Said::Redrive(true));
    let stuck = RunningJob { running_for: HARD_DEADLINE + JUST_OVER, ..lost(&7) };
    assert_eq!(judge(&reaper, &stuck), Said::Reap(Cause::WorkerLost, true));
}

#[test]
fn without_a_backstop_a_live_owner_is_deferred_to_for_ever() {
    let registry = Registry::new();
    let policy = Policy::builder().no_backstop().marking_stage("merge").build().unwrap();
    let reaper = Reaper::new(&registry, policy);
    let _monitor = registry.mark(7, monitor());
    let eternal = RunningJob { running_for: Duration::MAX, finished_for: Some(Duration::MAX), ..running(&7) };
    assert_eq!(judge(&reaper, &eternal), Said::Defer(DeferReason::Owned));
    assert_eq!(judge(&reaper, &RunningJob { finished_for: None, ..eternal }), Said::Healthy);
}

#[test]
fn a_stage_that_does_not_mark_never_consults_the_registry() {
    let registry = Registry::new();
    let policy = Policy::builder()
        .hard_deadline(HARD_DEADLINE)
        .marking_stage("merge")
        .stage("silent", StageRules::new())
        .build()
        .unwrap();
    let reaper = Reaper::with_claim(&registry, policy, |_| panic!("nothing is claimed here"));
    let guard = registry.mark(7, monitor());
    let (before, owner) = (registry.stats(), registry.owner(&7).unwrap().generation);
    for stage in [UNDECLARED, "silent", "", "Merge"] {
        let mut sweep = reaper.sweep();
        let mut judge = |job: RunningJob<'_>| said(&sweep.judge(&RunningJob { stage, ..job }));
        assert_eq!(judge(finished(&7)), Said::Redrive(false), "in stage {stage:?}");
        assert_eq!(judge(lost(&7)), Said::Reap(Cause::WorkerLost, false));
        assert_eq!(judge(overdue(&7)), Said::Reap(Cause::Backstop, false));
        assert_eq!(judge(running(&7)), Said::Healthy);
    }
    assert_eq!((registry.stats(), registry.owner(&7).unwrap().generation), (before, owner));
    assert!(guard.is_current());
    assert_eq!(stats(&reaper).finalizer_defers_total, 0);
}

#[test]
fn ignore_neither_reads_nor_writes_the_registry() {
    let registry = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy().with_mode(Mode::Ignore), |_| panic!("nothing is claimed"));
    let guard = registry.mark(7, monitor());
    let before = registry.stats();
    let mut sweep = reaper.sweep();
    for job in [7, 8] {
        assert_eq!(said(&sweep.judge(&finished(&job))), Said::Redrive(false));
        assert_eq!(said(&sweep.judge(&lost(&job))), Said::Reap(Cause::WorkerLost, false));
        assert_eq!(said(&sweep.judge(&overdue(&job))), Said::Reap(Cause::Backstop, false));
        assert_eq!(said(&sweep.judge(&running(&job))), Said::Healthy);
    }
    assert!(guard.is_current());
    assert_eq!((registry.stats(), registry.len()), (before, 1));
    let expected = (0, 2, 2, 2, 0);
    let seen = reaper.stats();
    let seen =
        (seen.finalizer_defers_total, seen.redrives, seen.reaps_worker_lost, seen.reaps_backstop, seen.claim_conflicts);
    assert_eq!(seen, expected);
}

#[test]
fn stages_have_limits_of_their_own() {
    let registry = Registry::new();
    let policy = Policy::builder()
        .finalize_grace(seconds(20))
        .lost_grace(seconds(8))
        .hard_deadline(seconds(1000))
        .stage("quick", StageRules::marking().finalize_grace(seconds(10)).lost_grace(seconds(5)))
        .stage("long", StageRules::new().hard_deadline(seconds(9000)))
        .stage("endless", StageRules::marking().no_backstop())
        .build()
        .unwrap();
    let reaper = Reaper::new(&registry, policy);
    let in_stage = |stage, job| judge(&reaper, &RunningJob { stage, ..job });
    let finished = RunningJob { finished_for: Some(seconds(11)), ..running(&7) };
    let lost = RunningJob { lost_for: Some(seconds(6)), ..running(&7) };
    let old = RunningJob { running_for: seconds(1001), ..running(&7) };

    assert_eq!(in_stage("quick", finished), Said::Redrive(true));
    assert_eq!(in_stage("long", finished), Said::Healthy);
    assert_eq!(in_stage("quick", lost), Said::Reap(Cause::WorkerLost, true));
    assert_eq!(in_stage("long", lost), Said::Healthy);
    // What a stage leaves open is the policy's, not the default.
    let finished = RunningJob { finished_for: Some(seconds(21)), ..running(&7) };
    let lost = RunningJob { lost_for: Some(seconds(9)), ..running(&7) };
    for (stage, claimed) in [("endless", true), ("long", false), (UNDECLARED, false)] {
        assert_eq!(in_stage(stage, finished), Said::Redrive(claimed), "in stage {stage:?}");
        assert_eq!(in_stage(stage, lost), Said::Reap(Cause::WorkerLost, claimed), "in stage {stage:?}");
    }

    assert_eq!(in_stage("quick", old), Said::Reap(Cause::Backstop, true));
    assert_eq!(in_stage("long", old), Said::Healthy);
    assert_eq!(in_stage("endless", old), Said::Healthy);
    assert_eq!(in_stage(UNDECLARED, old), Said::Reap(Cause::Backstop, false));
    let ancient = RunningJob { running_for: seconds(9001), ..running(&7) };
    assert_eq!(in_stage("long", ancient), Said::Reap(Cause::Backstop, false));
}

#[test]
fn a_claim_that_comes_second_is_a_conflict() {
    let registry: Registry<u64, &str> = Registry::new();
    let conflicting = Mutex::new(None);
    // The claim's value is made between the reaper's look and its claim: the instant at which a monitor marks.
    let reaper = Reaper::with_claim(&registry, policy(), |job| {
        *conflicting.lock().unwrap() = Some(registry.mark(job.id, "monitor"));
        "reaper"
    });
    let verdict = reaper.sweep().judge(&finished(&7));
    let Verdict::Defer(Deferral { reason: DeferReason::ClaimConflict, owner: Some(owner) }) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(owner.value, "monitor");
    assert!(conflicting.lock().unwrap().as_ref().is_some_and(MarkGuard::is_current));
    let stats = reaper.stats();
    assert_eq!((stats.claim_conflicts, stats.finalizer_defers_total, stats.redrives), (1, 1, 0));
    assert_eq!(registry.stats().displaced, 0);
}

#[test]
fn a_conflicting_claim_falls_through_to_the_backstop_too() {
    let registry: Registry<u64, &str> = Registry::new();
    let conflicting = Mutex::new(None);
    let reaper = Reaper::with_claim(&registry, policy(), |job| {
        conflicting.lock().unwrap().get_or_insert_with(|| registry.mark(job.id, "monitor"));
        "reaper"
    });
    let stuck = RunningJob { running_for: HARD_DEADLINE + JUST_OVER, ..finished(&7) };
    let verdict = reaper.sweep().judge(&stuck);
    assert_eq!(said(&verdict), Said::Reap(Cause::Backstop, true));
    assert_eq!(registry.owner(&7).unwrap().value, "reaper");
    assert_eq!(registry.stats().displaced, 1);
    let stats = reaper.stats();
    assert_eq!((stats.claim_conflicts, stats.reaps_backstop, stats.finalizer_defers_total), (1, 1, 0));
}

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
                Verdict::Redrive(Some(claim)) => Some(claim.is_current()),
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

#[test]
fn claims_outlive_their_sweep_and_their_reaper_and_move_to_another_thread() {
    let registry = Registry::new();
    let verdicts: Vec<_> = {
        let reaper = Reaper::new(&registry, policy());
        let mut sweep = reaper.sweep();
        [finished(&1), lost(&2), overdue(&3)].iter().map(|job| sweep.judge(job)).collect()
    };
    assert_eq!(registry.len(), 3);
    thread::scope(|scope| {
        for verdict in verdicts {
            scope.spawn(move || {
                let (Verdict::Redrive(Some(claim)) | Verdict::Reap(_, Some(claim))) = verdict else {
                    panic!("{verdict:?}")
                };
                assert!(claim.is_current());
            });
        }
    });
    assert!(registry.is_empty());
}

#[test]
fn claims_carry_what_the_reaper_was_told_to_give() {
    let registry: Registry<u64, String> = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |job| format!("reaper of {} in {}", job.id, job.stage));
    let mut sweep = reaper.sweep();
    let _claims = [sweep.judge(&finished(&1)), sweep.judge(&overdue(&2))];
    assert_eq!(registry.owner(&1).unwrap().value, "reaper of 1 in merge");
    assert_eq!(registry.owner(&2).unwrap().value, "reaper of 2 in merge");
}

#[test]
fn every_sweep_and_every_verdict_is_counted() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    assert_eq!(reaper.stats(), ReaperStats::default());
    let _monitor = registry.mark(1, monitor());
    for _ in 0..3 {
        let mut sweep = reaper.sweep();
        for job in [running(&0), finished(&1), lost(&1), finished(&2), lost(&3), overdue(&4), overdue(&5), overdue(&6)]
        {
            drop(sweep.judge(&job));
        }
    }
    let seen = reaper.stats();
    assert_eq!((seen.sweeps, seen.finalizer_defers_total, seen.redrives), (3, 6, 3));
    assert_eq!((seen.reaps_worker_lost, seen.reaps_backstop, seen.claim_conflicts), (3, 9, 0));
}

#[test]
fn a_new_policy_is_in_force_from_the_next_sweep() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _monitor = registry.mark(7, monitor());
    let mut under_way = reaper.sweep();
    assert_eq!(said(&under_way.judge(&finished(&7))), Said::Defer(DeferReason::Owned));

    reaper.set_policy(reaper.policy().with_mode(Mode::Ignore));
    assert_eq!(reaper.policy().mode(), Mode::Ignore);
    assert_eq!(said(&under_way.judge(&finished(&7))), Said::Defer(DeferReason::Owned), "a sweep keeps its policy");
    assert_eq!(judge(&reaper, &finished(&7)), Said::Redrive(false));

    reaper.set_policy(policy());
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned), "and back");
    assert_eq!(*reaper.policy(), policy());
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

#[test]
fn a_sweep_sees_marks_made_after_it_began() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let mut sweep = reaper.sweep();
    let monitor = registry.mark(7, monitor());
    assert_eq!(said(&sweep.judge(&finished(&7))), Said::Defer(DeferReason::Owned));
    drop(monitor);
    assert_eq!(said(&sweep.judge(&finished(&7))), Said::Redrive(true));
}

#[test]
fn one_job_does_not_weigh_on_the_others_of_a_sweep() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _monitors: Vec<_> = (0..100).filter(|job| job % 2 == 0).map(|job| registry.mark(job, monitor())).collect();
    let mut sweep = reaper.sweep();
    for job in 0..100 {
        let expected = if job % 2 == 0 { Said::Defer(DeferReason::Owned) } else { Said::Redrive(true) };
        assert_eq!(said(&sweep.judge(&finished(&job))), expected, "job {job}");
    }
}

#[test]
fn reapers_work_with_ids_of_any_kind() {
    let registry: Registry<String> = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let job = RunningJob {
        id: "job-7".to_owned(),
        stage: "merge",
        running_for: seconds(400),
        finished_for: Some(seconds(301)),
        lost_for: None,
    };
    let claim = reaper.sweep().judge(&job);
    assert!(matches!(claim, Verdict::Redrive(Some(_))) && registry.is_active("job-7"));
}

#[test]
fn reasons_and_causes_have_names() {
    let reasons = [DeferReason::Owned, DeferReason::ClaimConflict].map(|reason| reason.to_string());
    assert_eq!(reasons, ["owned", "claim conflict"]);
    let causes = [Cause::WorkerLost, Cause::Backstop].map(|cause| cause.to_string());
    assert_eq!(causes, ["worker lost", "backstop"]);
}

#[test]
fn debug_shows_reaper_and_sweep() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    assert!(format!("{reaper:?}").contains("Honor"));
    assert!(format!("{:?}", reaper.sweep()).contains("sweeps: 1"));
}
