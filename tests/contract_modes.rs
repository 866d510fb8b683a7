//! What a reaper promises beyond its tiers: the modes `DeferAll` and `DryRun`, `boot_grace`, and `stale_after`.

mod support;

use std::cell::Cell;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use livemark::{
    Cause, DeferReason, Deferral, Finalizer, MarkGuard, Mode, Policy, PolicyBuilder, Pulse, Reaper, ReaperStats,
    Registry, RunningJob, StageRules, Verdict,
};
use support::{
    FINALIZE_GRACE, HARD_DEADLINE, LOST_GRACE, MARKING, Said, UNDECLARED, finished, lost, policy, running, said,
    wait_until,
};

/// As limits: what no test lasts, and what any moment is longer than.
const AN_HOUR: Duration = Duration::from_secs(3600);
const NANOSECOND: Duration = Duration::from_nanos(1);

/// The builder of [`support::policy`], with room for a limit of an hour before the backstop.
fn builder() -> PolicyBuilder {
    Policy::builder()
        .finalize_grace(FINALIZE_GRACE)
        .lost_grace(LOST_GRACE)
        .hard_deadline(2 * HARD_DEADLINE)
        .marking_stage(MARKING)
}

fn beyond_the_deadline(job: RunningJob<'_>) -> RunningJob<'_> {
    RunningJob { running_for: 2 * HARD_DEADLINE + NANOSECOND, ..job }
}

fn unmarked(job: RunningJob<'_>) -> RunningJob<'_> {
    RunningJob { stage: UNDECLARED, ..job }
}

/// What the reaper says of `job`, in a sweep of its own; the claim is given back.
fn judge<V: Clone + Send + Sync + 'static>(reaper: &Reaper<'_, u64, V>, job: &RunningJob<'_>) -> Said {
    said(&reaper.sweep().judge(job))
}

fn stats<V>(reaper: &Reaper<'_, u64, V>) -> ReaperStats {
    let mut stats = reaper.stats();
    stats.sweeps = 0;
    stats
}

fn monitor() -> Finalizer {
    Finalizer::new(Some(42), "gates")
}

/// Returns when `pulse` is older than a nanosecond, by a clock of whatever grain.
fn age(pulse: &Pulse) {
    wait_until("a pulse of some age", || pulse.age() > NANOSECOND);
}

// DeferAll

#[test]
fn defer_all_leaves_alone_what_looks_dead() {
    let registry = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy().with_mode(Mode::DeferAll), |_| panic!("nothing is claimed"));
    let monitor = registry.mark(7, monitor());
    let before = registry.stats();
    for job in [finished(&7), lost(&7)] {
        let verdict = reaper.sweep().judge(&job);
        let Verdict::Defer(Deferral { reason: DeferReason::DeferAll, owner: Some(owner) }) = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!((owner.generation, owner.value.run_id), (monitor.generation(), Some(42)), "owned");
    }
    for job in [finished(&8), lost(&8), unmarked(finished(&7)), unmarked(lost(&8))] {
        let verdict = reaper.sweep().judge(&job);
        let Verdict::Defer(Deferral { reason: DeferReason::DeferAll, owner: None }) = verdict else {
            panic!("{verdict:?}")
        };
    }
    assert_eq!(judge(&reaper, &running(&7)), Said::Healthy);
    assert_eq!(registry.stats(), before);
    assert_eq!(stats(&reaper), ReaperStats { defers_defer_all: 6, ..ReaperStats::default() }, "none of them finalizes");
}

#[test]
fn in_defer_all_the_backstop_acts_and_displaces() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy().with_mode(Mode::DeferAll));
    let monitor = registry.mark(7, monitor());
    let deferred = [running(&7), finished(&7), lost(&7)];
    for job in deferred {
        let stuck = RunningJob { running_for: HARD_DEADLINE + NANOSECOND, ..job };
        assert_eq!(judge(&reaper, &stuck), Said::Reap(Cause::Backstop, true));
        assert!(!monitor.is_current());
        assert_eq!(judge(&reaper, &unmarked(stuck)), Said::Reap(Cause::Backstop, false));
    }
    assert_eq!(stats(&reaper), ReaperStats { reaps_backstop: 6, ..ReaperStats::default() });
}

// DryRun

#[test]
fn a_dry_run_says_what_honor_would_and_leaves_no_trace() {
    let registry = Registry::new();
    let policy = builder().mode(Mode::DryRun).stale_after(NANOSECOND).build().unwrap();
    let reaper = Reaper::with_claim(&registry, policy, |_| panic!("nothing is claimed"));
    let pulse = Pulse::new();
    let guards = [registry.mark(7, monitor()), registry.mark(6, monitor().with_pulse(pulse.clone()))];
    age(&pulse);
    let before = registry.stats();
    for (job, expected) in [
        (running(&7), Said::Healthy),
        (finished(&7), Said::Defer(DeferReason::Owned)),
        (lost(&7), Said::Defer(DeferReason::Owned)),
        (finished(&8), Said::Redrive(false)),
        (lost(&8), Said::Reap(Cause::WorkerLost, false)),
        (finished(&6), Said::Redrive(false)),
        (beyond_the_deadline(finished(&7)), Said::Reap(Cause::Backstop, false)),
        (unmarked(finished(&7)), Said::Redrive(false)),
    ] {
        assert_eq!(judge(&reaper, &job), expected, "of {job:?}");
    }
    assert!(guards.iter().all(MarkGuard::is_current));
    assert_eq!((registry.stats(), registry.len()), (before, 2));
    assert_eq!(reaper.stats(), ReaperStats::default(), "its sweeps are not counted either");
}

#[test]
fn a_dry_run_shows_the_boot_grace_as_well() {
    let registry: Registry = Registry::new();
    let policy = builder().mode(Mode::DryRun).boot_grace(AN_HOUR).build().unwrap();
    let reaper = Reaper::new(&registry, policy);
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::BootGrace));
    assert_eq!(reaper.stats(), ReaperStats::default());
}

#[test]
fn modes_have_names() {
    let names = ["honor", "ignore", "defer_all", "dry_run"];
    for (mode, name) in [Mode::Honor, Mode::Ignore, Mode::DeferAll, Mode::DryRun].into_iter().zip(names) {
        assert_eq!(mode.to_string(), name);
        assert_eq!(name.parse(), Ok(mode));
        assert_eq!(format!("[{mode:>10}]"), format!("[{name:>10}]"));
    }
    for text in ["", "Honor", "defer all", "dry-run", "honor "] {
        let error = text.parse::<Mode>().unwrap_err();
        let expected = format!("{text:?} is not a mode: one of honor, ignore, defer_all, dry_run");
        assert_eq!(error.to_string(), expected);
    }
}

// boot_grace

#[test]
fn for_its_boot_grace_a_reaper_leaves_alone_what_looks_dead() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, builder().boot_grace(AN_HOUR).build().unwrap());
    let monitor = registry.mark(7, monitor());
    let before = registry.stats();
    for _ in 0..3 {
        for job in [finished(&8), lost(&8), unmarked(finished(&7)), unmarked(lost(&8))] {
            let verdict = reaper.sweep().judge(&job);
            let Verdict::Defer(Deferral { reason: DeferReason::BootGrace, owner: None }) = verdict else {
                panic!("{verdict:?}")
            };
        }
        assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned), "which is more to say");
        assert_eq!(judge(&reaper, &running(&8)), Said::Healthy);
    }
    assert_eq!(registry.stats(), before);
    assert!(monitor.is_current());
    let expected = ReaperStats { defers_boot_grace: 12, finalizer_defers_total: 3, ..ReaperStats::default() };
    assert_eq!(stats(&reaper), expected);
}

#[test]
fn the_backstop_does_not_wait_for_the_boot_grace() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, builder().boot_grace(AN_HOUR).build().unwrap());
    for job in [running(&7), finished(&7), lost(&7)].map(beyond_the_deadline) {
        let monitor = registry.mark(7, monitor());
        assert_eq!(judge(&reaper, &job), Said::Reap(Cause::Backstop, true));
        assert!(!monitor.is_current());
    }
    assert_eq!(stats(&reaper), ReaperStats { reaps_backstop: 3, ..ReaperStats::default() });
}

#[test]
fn after_its_boot_grace_a_reaper_acts() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, builder().boot_grace(NANOSECOND).build().unwrap());
    // It was away for longer than a nanosecond before its first sweep, so that this is its first look.
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::BootGrace));
    let first_look = Instant::now();
    wait_until("a moment has passed", || first_look.elapsed() > NANOSECOND);
    assert_eq!(judge(&reaper, &finished(&7)), Said::Redrive(true));
    assert_eq!(judge(&reaper, &lost(&7)), Said::Reap(Cause::WorkerLost, true));
    assert_eq!(judge(&reaper, &unmarked(finished(&7))), Said::Redrive(false));
}

#[test]
fn a_reaper_that_was_away_looks_twice() {
    const GRACE: Duration = Duration::from_millis(2);
    let registry: Registry = Registry::new();
    // Away is away by the stage's own boot grace.
    let of_a_stage = builder().boot_grace(AN_HOUR).stage("quick", StageRules::marking().boot_grace(GRACE));
    for (policy, stage) in [(builder().boot_grace(GRACE), MARKING), (of_a_stage, "quick")] {
        let reaper = Reaper::new(&registry, policy.build().unwrap());
        let job = RunningJob { stage, ..finished(&7) };
        loop {
            // Two sweeps in time, so that the pause that follows is no slow reaper's pace. Other threads may come
            // between.
            let in_time = Instant::now();
            drop((reaper.sweep(), reaper.sweep()));
            if in_time.elapsed() <= GRACE {
                break;
            }
        }
        thread::sleep(2 * GRACE);
        assert_eq!(judge(&reaper, &job), Said::Defer(DeferReason::BootGrace), "it was away");
        thread::sleep(2 * GRACE);
        assert_eq!(judge(&reaper, &job), Said::Redrive(true), "it has looked once before, as late as this time");
    }
}

#[test]
fn stages_have_boot_graces_of_their_own() {
    let registry: Registry = Registry::new();
    let policy = builder()
        .boot_grace(AN_HOUR)
        .stage("quick", StageRules::marking().boot_grace(NANOSECOND))
        .stage("quick and silent", StageRules::new().boot_grace(NANOSECOND))
        .build()
        .unwrap();
    let reaper = Reaper::new(&registry, policy);
    drop(reaper.sweep());
    thread::sleep(Duration::from_millis(1));
    let mut sweep = reaper.sweep();
    let mut in_stage = |stage| said(&sweep.judge(&RunningJob { stage, ..finished(&7) }));
    assert_eq!(in_stage("quick"), Said::Redrive(true));
    assert_eq!(in_stage("quick and silent"), Said::Redrive(false));
    assert_eq!(in_stage(MARKING), Said::Defer(DeferReason::BootGrace), "inherited");
    assert_eq!(in_stage(UNDECLARED), Said::Defer(DeferReason::BootGrace));

    let policy = builder().stage("careful", StageRules::marking().boot_grace(AN_HOUR)).build().unwrap();
    let reaper = Reaper::new(&registry, policy);
    assert_eq!(judge(&reaper, &RunningJob { stage: "careful", ..finished(&7) }), Said::Defer(DeferReason::BootGrace));
    assert_eq!(judge(&reaper, &finished(&7)), Said::Redrive(true), "of one stage only");
}

#[test]
fn a_boot_grace_that_is_put_in_force_later_counts_from_the_start_as_well() {
    const GRACE: Duration = Duration::from_millis(20);
    let registry: Registry = Registry::new();
    loop {
        let reaper = Reaper::new(&registry, policy());
        let start = Instant::now();
        let mut last = start;
        let mut was_there = true;
        while start.elapsed() <= 2 * GRACE {
            drop(reaper.sweep());
            was_there &= last.elapsed() <= GRACE / 2;
            last = Instant::now();
            thread::sleep(Duration::from_millis(1));
        }
        reaper.set_policy(builder().boot_grace(GRACE).build().unwrap());
        let verdict = judge(&reaper, &finished(&7));
        was_there &= last.elapsed() <= GRACE / 2;
        // Or other threads kept it away for that long.
        if was_there {
            break assert_eq!(verdict, Said::Redrive(true), "it has looked all the time, for longer than its grace");
        }
    }
}

/// Away is away "for longer than this": of the stage's own boot grace.
#[test]
fn the_boot_grace_of_one_stage_is_no_pause_to_another() {
    const SHORT: Duration = Duration::from_millis(2);
    const GRACE: Duration = Duration::from_millis(40);
    let registry: Registry = Registry::new();
    let policy =
        || builder().boot_grace(GRACE).stage("quick", StageRules::marking().boot_grace(SHORT)).build().unwrap();
    loop {
        let reaper = Reaper::new(&registry, policy());
        let start = Instant::now();
        let mut last = start;
        let mut was_there = true;
        while start.elapsed() <= 2 * GRACE {
            // Now in time for the quick stage, now late; always in time for the others.
            drop((reaper.sweep(), reaper.sweep()));
            was_there &= last.elapsed() <= GRACE / 2;
            last = Instant::now();
            thread::sleep(2 * SHORT);
        }
        let verdict = judge(&reaper, &finished(&7));
        was_there &= last.elapsed() <= GRACE / 2;
        if was_there {
            break assert_eq!(verdict, Said::Redrive(true), "it was never away for longer than {GRACE:?}");
        }
    }
}

#[test]
fn a_boot_grace_is_swapped_with_the_policy() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let mut under_way = reaper.sweep();
    reaper.set_policy(builder().boot_grace(AN_HOUR).build().unwrap());
    assert_eq!(said(&under_way.judge(&finished(&7))), Said::Redrive(true), "a sweep keeps its policy");
    let verdict = judge(&reaper, &finished(&7));
    assert_eq!(verdict, Said::Defer(DeferReason::BootGrace), "it counts from the reaper's start, not from the swap");
    let mut under_way = reaper.sweep();
    reaper.set_policy(policy());
    assert_eq!(said(&under_way.judge(&finished(&7))), Said::Defer(DeferReason::BootGrace));
    assert_eq!(judge(&reaper, &finished(&7)), Said::Redrive(true));
}

#[test]
fn ignore_has_a_boot_grace_and_defer_all_needs_none() {
    let registry = Registry::new();
    let _monitor = registry.mark(7, monitor());
    let policy = builder().boot_grace(AN_HOUR).build().unwrap();
    let reaper = Reaper::new(&registry, policy.with_mode(Mode::Ignore));
    let verdict = reaper.sweep().judge(&finished(&7));
    assert!(matches!(verdict, Verdict::Defer(Deferral { reason: DeferReason::BootGrace, owner: None })), "{verdict:?}");
    reaper.set_policy(policy.with_mode(Mode::DeferAll));
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::DeferAll));
}

// stale_after

#[test]
fn an_owner_without_a_pulse_is_never_stale() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, builder().stale_after(NANOSECOND).build().unwrap());
    let monitor = registry.mark(7, monitor());
    wait_until("an old mark", || registry.owner(&7).unwrap().age() > NANOSECOND);
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned));
    assert!(monitor.is_current());
}

#[test]
fn without_a_limit_no_pulse_is_too_old() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let pulse = Pulse::new();
    let _monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
    age(&pulse);
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned));
}

#[test]
fn a_stale_owner_is_displaced_and_can_see_it() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, builder().stale_after(NANOSECOND).build().unwrap());
    for (count, (job, expected)) in
        [(finished(&7), Said::Redrive(true)), (lost(&7), Said::Reap(Cause::WorkerLost, true))].into_iter().enumerate()
    {
        let pulse = Pulse::new();
        let monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
        age(&pulse);
        let verdict = reaper.sweep().judge(&job);
        assert_eq!(said(&verdict), expected);
        let (Verdict::Redrive(Some(claim)) | Verdict::Reap(_, Some(claim))) = verdict else { panic!("{verdict:?}") };
        assert!(claim.is_current() && !monitor.is_current());
        assert!(claim.generation() > monitor.generation());
        assert_eq!(registry.owner(&7).unwrap().value.run_id, None, "the reaper's own context");
        drop(monitor);
        assert!(claim.is_current(), "a late release frees nothing");
        assert_eq!(registry.stats().displaced, count as u64 + 1);
    }
    let expected = ReaperStats { redrives: 1, reaps_worker_lost: 1, ..ReaperStats::default() };
    assert_eq!(stats(&reaper), expected, "neither a deferral nor a conflict");
}

#[test]
fn a_beat_brings_an_owner_back() {
    const LIMIT: Duration = Duration::from_millis(5);
    let registry = Registry::new();
    // Without claims, so that the owner stays.
    let reaper = Reaper::new(&registry, builder().mode(Mode::DryRun).stale_after(LIMIT).build().unwrap());
    let pulse = Pulse::new();
    let _monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
    wait_until("a pulse beyond its limit", || pulse.age() > LIMIT);
    assert_eq!(judge(&reaper, &finished(&7)), Said::Redrive(false));
    loop {
        pulse.beat();
        let verdict = judge(&reaper, &finished(&7));
        // Or another thread came between.
        if pulse.age() <= LIMIT {
            break assert_eq!(verdict, Said::Defer(DeferReason::Owned));
        }
    }
}

#[test]
fn a_stale_owner_is_left_to_its_boot_grace_and_to_defer_all() {
    let registry = Registry::new();
    let policy = builder().stale_after(NANOSECOND).boot_grace(AN_HOUR).build().unwrap();
    let reaper = Reaper::new(&registry, policy.clone());
    let pulse = Pulse::new();
    let monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
    age(&pulse);
    for (mode, expected) in [(Mode::Honor, DeferReason::BootGrace), (Mode::DeferAll, DeferReason::DeferAll)] {
        reaper.set_policy(policy.with_mode(mode));
        let verdict = reaper.sweep().judge(&finished(&7));
        let Verdict::Defer(Deferral { reason, owner: Some(owner) }) = verdict else { panic!("{verdict:?}") };
        assert_eq!((reason, owner.generation), (expected, monitor.generation()), "who it is, is said");
    }
    assert!(monitor.is_current());
    assert_eq!(stats(&reaper).finalizer_defers_total, 0, "it was not for its owner's sake");
}

#[test]
fn stages_have_limits_of_their_own_for_pulses() {
    let registry = Registry::new();
    let policy = builder()
        .stale_after(AN_HOUR)
        .stage("impatient", StageRules::marking().stale_after(NANOSECOND))
        .stage("silent", StageRules::new().stale_after(NANOSECOND))
        .build()
        .unwrap();
    let reaper = Reaper::new(&registry, policy.with_mode(Mode::DryRun));
    let pulse = Pulse::new();
    let _monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
    age(&pulse);
    let in_stage = |stage| judge(&reaper, &RunningJob { stage, ..finished(&7) });
    assert_eq!(in_stage(MARKING), Said::Defer(DeferReason::Owned));
    assert_eq!(in_stage("impatient"), Said::Redrive(false));
    assert_eq!(in_stage("silent"), Said::Redrive(false), "it is not asked for");
    reaper.set_policy(policy);
    assert_eq!(in_stage("impatient"), Said::Redrive(true));
}

/// Of an owner found stale and another who marks before the claim: the claim is refused.
#[test]
fn who_took_over_from_a_stale_owner_meanwhile_keeps_the_job() {
    let registry = Registry::new();
    let newer = Mutex::new(None);
    // Between the reaper's look and its claim.
    let policy = builder().stale_after(NANOSECOND).build().unwrap();
    let reaper = Reaper::with_claim(&registry, policy, |job| {
        *newer.lock().unwrap() = Some(registry.mark(job.id, monitor()));
        Finalizer::new(None, job.stage)
    });
    let pulse = Pulse::new();
    let stale = registry.mark(7, monitor().with_pulse(pulse.clone()));
    age(&pulse);
    let verdict = reaper.sweep().judge(&finished(&7));
    let Verdict::Defer(Deferral { reason: DeferReason::ClaimConflict, owner: Some(owner) }) = verdict else {
        panic!("{verdict:?}")
    };
    let newer = newer.lock().unwrap().take().unwrap();
    assert!(newer.is_current() && !stale.is_current());
    assert_eq!(owner.generation, newer.generation());
    assert_eq!(registry.stats().displaced, 1, "by the newer monitor, not by the reaper");
    let expected = ReaperStats { claim_conflicts: 1, finalizer_defers_total: 1, ..ReaperStats::default() };
    assert_eq!(stats(&reaper), expected);
}

/// As above, but up to the last moment: the clone of the job id is made between the claim's own look and its
/// compare-exchange.
#[test]
fn a_claim_displaces_the_stale_owner_or_nobody_up_to_the_last_moment() {
    /// What happens in the clone of a job id, and how many clones come before.
    type Meanwhile = (fn(), usize);
    thread_local! {
        static MEANWHILE: Cell<Option<Meanwhile>> = const { Cell::new(None) };
    }
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Job(u64);
    impl Clone for Job {
        fn clone(&self) -> Self {
            match MEANWHILE.take() {
                Some((meanwhile, 0)) => meanwhile(),
                Some((meanwhile, left)) => MEANWHILE.set(Some((meanwhile, left - 1))),
                None => {}
            }
            Self(self.0)
        }
    }
    static REGISTRY: Registry<Job, Finalizer> = Registry::new();
    fn another_marks() {
        std::mem::forget(REGISTRY.mark(Job(7), Finalizer::new(Some(43), "gates")));
    }
    fn its_owner_commits() {
        assert!(REGISTRY.clear(&Job(7)));
    }

    let reaper = Reaper::new(&REGISTRY, builder().stale_after(NANOSECOND).build().unwrap());
    let RunningJob { stage, running_for, finished_for, lost_for, .. } = finished(&7);
    let job = RunningJob { id: Job(7), stage, running_for, finished_for, lost_for };
    let cases: [(fn(), Said); 2] = [
        (another_marks, Said::Defer(DeferReason::ClaimConflict)),
        (its_owner_commits, Said::Redrive(true)), // nobody is displaced
    ];
    // The id is cloned for the call, and then for the entry.
    for (place, (meanwhile, expected)) in [0, 1].into_iter().flat_map(|place| cases.map(|case| (place, case))) {
        REGISTRY.clear(&Job(7));
        let pulse = Pulse::new();
        let stale = REGISTRY.mark(Job(7), monitor().with_pulse(pulse.clone()));
        age(&pulse);
        let mut sweep = reaper.sweep();
        MEANWHILE.set(Some((meanwhile, place)));
        let verdict = sweep.judge(&job);
        assert!(MEANWHILE.take().is_none(), "the id was cloned");
        assert_eq!(said(&verdict), expected);
        assert!(!stale.is_current());
        drop((verdict, stale));
    }
    assert!(!REGISTRY.is_active(&Job(7)), "the claim was given back");
}

#[test]
fn contexts_of_any_kind_have_a_pulse_where_the_reaper_is_told() {
    #[derive(Clone)]
    struct Deployment {
        progress: Option<Pulse>,
    }
    let registry: Registry<u64, Deployment> = Registry::new();
    let policy = || builder().stale_after(NANOSECOND).build().unwrap();
    let progress = Pulse::new();
    let _guards = [
        registry.mark(7, Deployment { progress: Some(progress.clone()) }),
        registry.mark(8, Deployment { progress: None }),
    ];
    age(&progress);
    let untold = Reaper::with_claim(&registry, policy(), |_| Deployment { progress: None });
    assert_eq!(judge(&untold, &finished(&7)), Said::Defer(DeferReason::Owned), "it knows of no pulse");
    let told = untold.with_pulse(|deployment| deployment.progress.as_ref());
    assert_eq!(judge(&told, &finished(&8)), Said::Defer(DeferReason::Owned));
    assert_eq!(judge(&told, &finished(&7)), Said::Redrive(true));
}

#[test]
fn finalizers_have_their_pulse_with_any_claim() {
    let registry = Registry::new();
    let policy = builder().stale_after(NANOSECOND).build().unwrap();
    let reaper = Reaper::with_claim(&registry, policy, |_| Finalizer::new(Some(99), "reaper"));
    let pulse = Pulse::new();
    let _monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
    age(&pulse);
    let _claim = reaper.sweep().judge(&finished(&7));
    assert_eq!(registry.owner(&7).unwrap().value.run_id, Some(99));
    let never = reaper.with_pulse(|_| None);
    drop(registry.mark(8, monitor()));
    let _other = registry.mark(8, monitor().with_pulse(pulse));
    assert_eq!(judge(&never, &finished(&8)), Said::Defer(DeferReason::Owned), "the last word is the scheduler's");
}

#[test]
fn reasons_have_names() {
    let reasons = [DeferReason::BootGrace, DeferReason::DeferAll].map(|reason| reason.to_string());
    assert_eq!(reasons, ["boot grace", "defer all"]);
}
