//! What a reaper promises: the triggers and their order, claims, counters, modes, and what it leaves alone.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use livemark::{
    Cause, Claim, DeferReason, Deferral, Finalizer, MarkGuard, Mode, Policy, PolicyError, Proposed, Pulse, Reaper,
    ReaperHandle, ReaperStats, Registry, RegistryHandle, RunningJob, StageRules, Verdict,
};

use crate::support::{
    FINALIZE_GRACE, HARD_DEADLINE, LOST_GRACE, MARKING, Said, UNDECLARED, finished, lost, monitor, overdue, policy,
    running, said, seconds,
};

/// What the reaper says of `job`, in a sweep of its own; the claim is given back.
fn judge(reaper: &Reaper<'_>, job: &RunningJob<'_>) -> Said {
    said(&reaper.sweep().judge(job))
}

fn in_stage<'a>(stage: &'a str, mut job: RunningJob<'a>) -> RunningJob<'a> {
    job.stage = stage;
    job
}

fn running_for(age: Duration, mut job: RunningJob<'_>) -> RunningJob<'_> {
    job.running_for = age;
    job
}

fn beyond_the_deadline(job: RunningJob<'_>) -> RunningJob<'_> {
    running_for(HARD_DEADLINE + JUST_OVER, job)
}

const JUST_OVER: Duration = Duration::from_nanos(1);

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

    let finished_for = |age| running(&7).finished_for(age);
    assert_eq!(judge(&reaper, &finished_for(FINALIZE_GRACE)), Said::Healthy);
    assert_eq!(judge(&reaper, &finished_for(FINALIZE_GRACE + JUST_OVER)), Said::Redrive(true));

    let lost_for = |age| running(&7).lost_for(age);
    assert_eq!(judge(&reaper, &lost_for(LOST_GRACE)), Said::Healthy);
    assert_eq!(judge(&reaper, &lost_for(LOST_GRACE + JUST_OVER)), Said::Reap(Cause::WorkerLost, true));

    let running_for = |age| running_for(age, running(&7));
    assert_eq!(judge(&reaper, &running_for(HARD_DEADLINE)), Said::Healthy);
    assert_eq!(judge(&reaper, &running_for(HARD_DEADLINE + JUST_OVER)), Said::Reap(Cause::Backstop, true));
}

#[test]
fn ages_of_zero_and_of_for_ever_are_judged_as_any_other() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let zero = Duration::ZERO;
    let newborn = running_for(zero, running(&7)).finished_for(zero).lost_for(zero);
    assert_eq!(judge(&reaper, &newborn), Said::Healthy);
    let eternal = running_for(Duration::MAX, running(&7));
    assert_eq!(judge(&reaper, &eternal), Said::Reap(Cause::Backstop, true));
    let finished = running(&7).finished_for(Duration::MAX);
    assert_eq!(judge(&reaper, &finished), Said::Redrive(true));
    assert_eq!(judge(&reaper, &finished.redrives(u32::MAX)), Said::Reap(Cause::RedrivesExhausted, true));
}

#[test]
fn a_lost_worker_is_reaped_and_its_job_claimed() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let verdict = reaper.sweep().judge(&lost(&7));
    let Verdict::Reap(Cause::WorkerLost, claim) = verdict else { panic!("{verdict:?}") };
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
    let both = lost(&7).finished_for(seconds(10));
    assert_eq!(judge(&reaper, &both), Said::Healthy, "its process is meant to be gone");
    let past_grace = lost(&7).finished_for(seconds(301));
    assert_eq!(judge(&reaper, &past_grace), Said::Redrive(true));
}

#[test]
fn a_dead_finalizer_is_redriven_and_its_job_claimed() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    drop(registry.mark(7, monitor()));
    let verdict = reaper.sweep().judge(&finished(&7));
    let Verdict::Redrive(claim) = verdict else { panic!("{verdict:?}") };
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
    let Verdict::Defer(Deferral { reason: DeferReason::Owned, owner: Some(owner), .. }) = verdict else {
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
    let Verdict::Reap(Cause::Backstop, claim) = verdict else { panic!("{verdict:?}") };
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
        let stuck = beyond_the_deadline(deferred);
        assert_eq!(judge(&reaper, &stuck), Said::Reap(Cause::Backstop, true));
    }
    assert_eq!((stats(&reaper).finalizer_defers_total, stats(&reaper).reaps_backstop), (2, 2));
}

/// A poison job, and a reap whose commit failed, would go round for ever otherwise.
#[test]
fn the_deadline_comes_first() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    for job in [finished(&7), lost(&7), finished(&7).redrives(3), finished(&7).held(true), lost(&7).held(true)] {
        assert_eq!(judge(&reaper, &beyond_the_deadline(job)), Said::Reap(Cause::Backstop, true), "{job:?}");
    }
    assert_eq!(stats(&reaper).reaps_backstop, 5);
    assert_eq!((stats(&reaper).redrives, stats(&reaper).reaps_worker_lost), (0, 0));
}

#[test]
fn a_job_that_was_redriven_often_enough_is_ended() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    for redrives in 0..3 {
        assert_eq!(judge(&reaper, &finished(&7).redrives(redrives)), Said::Redrive(true));
    }
    for redrives in [3, 4, u32::MAX] {
        let verdict = reaper.sweep().judge(&finished(&7).redrives(redrives));
        let Verdict::Reap(Cause::RedrivesExhausted, claim) = verdict else { panic!("{verdict:?}") };
        assert!(claim.is_current() && registry.is_active(&7));
    }
    assert_eq!((stats(&reaper).redrives, stats(&reaper).reaps_redrives_exhausted), (3, 3));
    let external = in_stage(UNDECLARED, finished(&7).redrives(3));
    assert_eq!(judge(&reaper, &external), Said::Reap(Cause::RedrivesExhausted, false));

    let _monitor = registry.mark(7, monitor());
    assert_eq!(judge(&reaper, &finished(&7).redrives(3)), Said::Defer(DeferReason::Owned), "its last redrive is alive");
    assert_eq!(judge(&reaper, &running(&7).redrives(3)), Said::Healthy);
    assert_eq!(judge(&reaper, &lost(&8).redrives(3)), Said::Reap(Cause::WorkerLost, true));
}

#[test]
fn with_no_redrives_allowed_none_is_made() {
    let registry = Registry::new();
    let never = StageRules::marking().max_redrives(0);
    let policy = policy().to_builder().max_redrives(1).stage("never", never).build().unwrap();
    let reaper = Reaper::new(&registry, policy);
    assert_eq!(judge(&reaper, &in_stage("never", finished(&7))), Said::Reap(Cause::RedrivesExhausted, true));
    assert_eq!(judge(&reaper, &finished(&7)), Said::Redrive(true));
    assert_eq!(judge(&reaper, &finished(&7).redrives(1)), Said::Reap(Cause::RedrivesExhausted, true));
    let external = in_stage(UNDECLARED, finished(&7));
    assert_eq!(judge(&reaper, &external), Said::Redrive(false));
    assert_eq!(judge(&reaper, &external.redrives(1)), Said::Reap(Cause::RedrivesExhausted, false));
}

#[test]
fn without_a_backstop_a_live_owner_is_deferred_to_for_ever() {
    let registry = Registry::new();
    let policy = Policy::builder().no_backstop().marking_stage("merge").build().unwrap();
    let reaper = Reaper::new(&registry, policy);
    let _monitor = registry.mark(7, monitor());
    let eternal = running_for(Duration::MAX, running(&7));
    assert_eq!(judge(&reaper, &eternal.finished_for(Duration::MAX)), Said::Defer(DeferReason::Owned));
    assert_eq!(judge(&reaper, &eternal), Said::Healthy);
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
        let mut judge = |job: RunningJob<'_>| said(&sweep.judge(&in_stage(stage, job)));
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
    let judged_in = |stage, job| judge(&reaper, &in_stage(stage, job));
    let finished = running(&7).finished_for(seconds(11));
    let lost = running(&7).lost_for(seconds(6));
    let old = running_for(seconds(1001), running(&7));

    assert_eq!(judged_in("quick", finished), Said::Redrive(true));
    assert_eq!(judged_in("long", finished), Said::Healthy);
    assert_eq!(judged_in("quick", lost), Said::Reap(Cause::WorkerLost, true));
    assert_eq!(judged_in("long", lost), Said::Healthy);
    // What a stage leaves open is the policy's, not the default.
    let finished = running(&7).finished_for(seconds(21));
    let lost = running(&7).lost_for(seconds(9));
    for (stage, claimed) in [("endless", true), ("long", false), (UNDECLARED, false)] {
        assert_eq!(judged_in(stage, finished), Said::Redrive(claimed), "in stage {stage:?}");
        assert_eq!(judged_in(stage, lost), Said::Reap(Cause::WorkerLost, claimed), "in stage {stage:?}");
    }

    assert_eq!(judged_in("quick", old), Said::Reap(Cause::Backstop, true));
    assert_eq!(judged_in("long", old), Said::Healthy);
    assert_eq!(judged_in("endless", old), Said::Healthy);
    assert_eq!(judged_in(UNDECLARED, old), Said::Reap(Cause::Backstop, false));
    let ancient = running_for(seconds(9001), running(&7));
    assert_eq!(judged_in("long", ancient), Said::Reap(Cause::Backstop, false));
}

#[test]
fn a_claim_that_comes_second_is_a_conflict() {
    let registry: Registry<u64, &str> = Registry::new();
    let conflicting = Mutex::new(None);
    // The claim's value is made between the reaper's look and its claim: the instant at which a monitor marks.
    let reaper = Reaper::with_claim(&registry, policy(), |job| {
        *conflicting.lock().unwrap() = Some(registry.mark(*job.id, "monitor"));
        "reaper"
    });
    let verdict = reaper.sweep().judge(&finished(&7));
    let Verdict::Defer(Deferral { reason: DeferReason::ClaimConflict, owner: Some(owner), .. }) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(owner.value, "monitor");
    assert!(conflicting.lock().unwrap().as_ref().is_some_and(MarkGuard::is_current));
    let stats = reaper.stats();
    assert_eq!((stats.claim_conflicts, stats.finalizer_defers_total, stats.redrives), (1, 1, 0));
    assert_eq!(registry.stats().displaced, 0);
}

/// Nobody keeps a job from the claim of the backstop, whenever he comes.
#[test]
fn the_claim_of_the_backstop_knows_no_conflict() {
    let registry: Registry<u64, &str> = Registry::new();
    let conflicting = Mutex::new(None);
    let reaper = Reaper::with_claim(&registry, policy(), |job| {
        *conflicting.lock().unwrap() = Some(registry.mark(*job.id, "monitor"));
        "reaper"
    });
    let verdict = reaper.sweep().judge(&beyond_the_deadline(finished(&7)));
    let Verdict::Reap(Cause::Backstop, claim) = verdict else { panic!("{verdict:?}") };
    assert_eq!(claim.displaced().map(|owner| owner.value), Some("monitor"), "who came last");
    assert_eq!(registry.owner(&7).unwrap().value, "reaper");
    assert!(conflicting.lock().unwrap().as_ref().is_some_and(|monitor| !monitor.is_current()));
    assert_eq!(registry.stats().displaced, 1);
    let stats = reaper.stats();
    assert_eq!((stats.claim_conflicts, stats.reaps_backstop, stats.finalizer_defers_total), (0, 1, 0));
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
                let (Verdict::Redrive(claim) | Verdict::Reap(_, claim)) = verdict else { panic!("{verdict:?}") };
                assert!(claim.is_current() && claim.guard().is_some());
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
    for job in [finished(&7).held(true), finished(&7).redrives(3), finished(&8).redrives(9)] {
        assert_ne!(judge(&reaper, &job), Said::Healthy);
    }
    let seen = reaper.stats();
    assert_eq!((seen.sweeps, seen.finalizer_defers_total, seen.redrives), (6, 6, 3));
    assert_eq!((seen.reaps_worker_lost, seen.reaps_backstop, seen.claim_conflicts), (3, 9, 0));
    assert_eq!((seen.defers_held, seen.reaps_redrives_exhausted), (1, 2));
    assert_eq!(reaper.handle().stats(), seen);
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
    let id = "job-7".to_owned();
    let job = RunningJob::new(&id, MARKING, seconds(400)).finished_for(seconds(301));
    let claim = reaper.sweep().judge(&job);
    assert!(said(&claim) == Said::Redrive(true) && registry.is_active("job-7"));
}

#[test]
fn reasons_and_causes_have_names() {
    let reasons = [DeferReason::Owned, DeferReason::ClaimConflict].map(|reason| reason.to_string());
    assert_eq!(reasons, ["owned", "claim conflict"]);
    let causes = [Cause::WorkerLost, Cause::Backstop, Cause::RedrivesExhausted].map(|cause| cause.to_string());
    assert_eq!(causes, ["worker lost", "backstop", "redrives exhausted"]);
    let proposed = [Proposed::Redrive, Proposed::Reap(Cause::WorkerLost)].map(|proposed| proposed.to_string());
    assert_eq!(proposed, ["redrive", "reap, worker lost"]);
}

#[test]
fn debug_shows_reaper_and_sweep() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    assert!(format!("{reaper:?}").contains("Honor"));
    assert!(format!("{:?}", reaper.sweep()).contains("sweeps: 1"));
}

// Claims

#[test]
fn a_claim_says_whom_it_displaced() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let displaced_by = |job: RunningJob<'_>| {
        let verdict = reaper.sweep().judge(&job);
        let (Verdict::Redrive(claim) | Verdict::Reap(_, claim)) = verdict else { panic!("{verdict:?}") };
        assert_eq!(claim.guard().is_some_and(MarkGuard::has_displaced), claim.displaced().is_some());
        let displaced = claim.displaced().map(|owner| (owner.generation, owner.value.run_id));
        (displaced, claim)
    };
    assert_eq!(displaced_by(finished(&1)).0, None);
    assert_eq!(displaced_by(lost(&1)).0, None);
    assert_eq!(displaced_by(overdue(&1)).0, None, "nobody was there");

    let monitor = registry.mark(7, monitor());
    let (displaced, claim) = displaced_by(overdue(&7));
    assert_eq!(displaced, Some((monitor.generation(), Some(1))));
    // A reap that was handed on: the next sweep's claim displaces the reaper itself.
    let (displaced, next) = displaced_by(overdue(&7));
    assert_eq!(displaced, Some((claim.generation().unwrap(), None)));
    assert!(!claim.is_current() && next.is_current());
}

#[test]
fn a_claim_without_a_mark_is_always_current() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _monitor = registry.mark(7, monitor());
    for mode in [Mode::Honor, Mode::Ignore] {
        reaper.set_mode(mode);
        for job in [finished(&7), lost(&7), overdue(&7)].map(|job| in_stage(UNDECLARED, job)) {
            let verdict = reaper.sweep().judge(&job);
            let (Verdict::Redrive(claim) | Verdict::Reap(_, claim)) = verdict else { panic!("{verdict:?}") };
            assert!(claim.is_current() && claim.replace(monitor()) && claim.is_current());
            assert!(claim.generation().is_none() && claim.guard().is_none() && claim.displaced().is_none());
            assert!(claim.into_guard().is_none());
        }
    }
    assert_eq!((registry.len(), registry.stats().marks), (1, 1));
}

#[test]
fn a_worker_puts_its_own_context_into_the_claim() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let verdict = reaper.sweep().judge(&finished(&7));
    let Verdict::Redrive(claim) = verdict else { panic!("{verdict:?}") };
    let generation = claim.generation();
    assert!(claim.replace(Finalizer::new(Some(43), "gates").with_pulse(Pulse::new())));
    let owner = registry.owner(&7).unwrap();
    assert_eq!((Some(owner.generation), owner.value.run_id), (generation, Some(43)), "a hand-over, not a mark");
    assert!(owner.value.pulse.is_some());

    let newer = registry.mark(7, monitor());
    assert!(!claim.is_current() && !claim.replace(Finalizer::new(Some(44), "gates")));
    assert_eq!(registry.owner(&7).unwrap().value.run_id, Some(1));
    drop(claim);
    assert!(newer.is_current(), "a late release frees nothing");
}

#[test]
fn a_claim_becomes_the_guard_of_its_mark_and_a_guard_a_claim() {
    /// One function for a monitor and for a redrive.
    fn finalize(claim: &Claim<'_>) -> bool {
        claim.replace(Finalizer::new(Some(9), "merge")) && claim.is_current()
    }
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let verdict = reaper.sweep().judge(&finished(&7));
    let Verdict::Redrive(claim) = verdict else { panic!("{verdict:?}") };
    let (generation, job) = (claim.generation(), claim.guard().map(|guard| *guard.job()));
    assert_eq!(job, Some(7));
    let guard = claim.into_guard().unwrap();
    assert!(guard.is_current() && Some(guard.generation()) == generation);
    assert_eq!(registry.stats().stale_clears, 0, "nothing was released by it");

    let claim = Claim::from(guard);
    assert!(finalize(&claim) && claim.generation() == generation && claim.displaced().is_none());
    let mine: Claim<'_> = registry.mark(7, monitor()).into();
    assert!(finalize(&mine) && !finalize(&claim));
    assert!(mine.displaced().is_none(), "a monitor's claim does not know whom it displaced");
    assert!(mine.guard().unwrap().has_displaced(), "but that it did");
    drop((claim, mine));
    assert!(!registry.is_active(&7));
}

#[test]
fn claims_over_an_arc_are_static_and_keep_the_registry() {
    let registry: Arc<Registry> = Arc::default();
    let seen = Arc::downgrade(&registry);
    let claim = {
        let reaper: Reaper<'static> = Reaper::new(registry, policy());
        let verdict: Verdict<'static> = reaper.sweep().judge(&finished(&7));
        let Verdict::Redrive(claim) = verdict else { panic!("{verdict:?}") };
        claim
    };
    assert!(seen.upgrade().is_some_and(|registry| registry.is_active(&7)));
    thread::spawn(move || assert!(claim.is_current() && claim.replace(monitor()))).join().unwrap();
    assert!(seen.upgrade().is_none());
}

#[test]
fn claims_and_verdicts_are_small() {
    assert_eq!(size_of::<Claim<'_>>(), 56);
    assert_eq!(size_of::<Claim<'_, u64, [u8; 1000]>>(), 56, "the value is not in it");
    assert_eq!(size_of::<Option<Claim<'_>>>(), 56);
    assert_eq!(size_of::<Verdict<'_>>(), 72);
    assert_eq!(size_of::<RunningJob<'_>>(), 80);
    assert_eq!(size_of::<ReaperHandle>(), size_of::<usize>());
}

// What a reaper is made over

#[test]
fn a_reaper_is_made_over_any_handle_of_a_registry() {
    fn redrives<'r>(registry: impl Into<RegistryHandle<'r>>) -> bool {
        let reaper = Reaper::new(registry, policy());
        let verdict = reaper.sweep().judge(&finished(&7));
        said(&verdict) == Said::Redrive(true) && matches!(verdict, Verdict::Redrive(claim) if claim.is_current())
    }
    static STATIC: Registry = Registry::new();
    let (borrowed, shared): (Registry, Arc<Registry>) = (Registry::new(), Arc::default());
    let handle = RegistryHandle::from(&shared);
    assert!(redrives(&STATIC) && redrives(&borrowed) && redrives(&shared) && redrives(Arc::clone(&shared)));
    assert!(redrives(&*shared) && redrives(&handle) && redrives(handle));
    assert_eq!([STATIC.stats().marks, borrowed.stats().marks, shared.stats().marks], [1, 1, 5]);
    assert_eq!(Arc::strong_count(&shared), 1);
}

// Handles

#[test]
fn a_handle_switches_the_reaper_and_outlives_it() {
    let registry: Registry<String, &str> = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |_| "reaper");
    let handle = reaper.handle();
    let other = handle.clone();
    let judged = || {
        let id = "job-7".to_owned();
        let verdict = reaper.sweep().judge(&RunningJob::new(&id, MARKING, seconds(400)).finished_for(seconds(301)));
        said(&verdict)
    };
    assert_eq!(judged(), Said::Redrive(true));
    thread::spawn(move || other.set_mode(Mode::DeferAll)).join().unwrap();
    assert_eq!(judged(), Said::Defer(DeferReason::DeferAll));
    handle.set_policy(policy().with_mode(Mode::Ignore));
    assert_eq!(judged(), Said::Redrive(false));
    handle.update_policy(|policy| policy.with_mode(Mode::DryRun));
    assert_eq!((judged(), handle.policy()), (Said::DryRun(Proposed::Redrive), reaper.policy()));
    let last = reaper.stats();
    drop(reaper);
    assert_eq!((handle.stats(), handle.stats().sweeps, handle.stats().redrives), (last, 4, 2));
    handle.set_mode(Mode::Honor); // and nobody is there to hear it
    assert_eq!(handle.policy().mode(), Mode::Honor);
    assert!(format!("{handle:?}").contains("\"default\"") && format!("{handle:?}").contains("sweeps: 4"));
}

#[test]
fn a_reaper_has_a_name_if_it_is_given_one() {
    let registry: Registry = Registry::new();
    let named = Reaper::new(&registry, policy()).named("deploys");
    assert!(format!("{named:?}").contains("\"deploys\"") && format!("{:?}", named.handle()).contains("\"deploys\""));
}

#[test]
fn a_change_that_fails_leaves_the_policy() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let refused = |policy: &Policy| policy.to_builder().hard_deadline(seconds(1)).build();
    assert!(matches!(reaper.try_update_policy(refused), Err(PolicyError::NeverActs { .. })));
    assert_eq!(*reaper.policy(), policy());
    let longer = |policy: &Policy| policy.to_builder().hard_deadline(seconds(7200)).build();
    assert_eq!(reaper.handle().try_update_policy(longer), Ok(()));
    assert_eq!(reaper.policy().hard_deadline(), Some(seconds(7200)));
}

#[test]
fn a_sweep_under_way_keeps_its_mode() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let mut sweep = reaper.sweep();
    reaper.set_mode(Mode::DeferAll);
    assert_eq!(sweep.policy().mode(), Mode::Honor);
    assert_eq!(said(&sweep.judge(&finished(&7))), Said::Redrive(true));
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::DeferAll));
    assert_eq!(*reaper.policy(), policy().with_mode(Mode::DeferAll), "only the mode is another");
}
