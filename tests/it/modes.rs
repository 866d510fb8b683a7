//! What a reaper promises beyond its triggers: the modes `DeferAll` and `DryRun`, `boot_grace`, and `stale_after`.

use std::cell::Cell;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use livemark::{
    Cause, DeferReason, Deferral, Finalizer, MarkGuard, Mode, Policy, PolicyBuilder, Proposed, Pulse, Reaper,
    ReaperStats, Registry, RunningJob, StageRules, Verdict,
};

use crate::support::{
    AN_HOUR, FINALIZE_GRACE, HARD_DEADLINE, LOST_GRACE, MARKING, NANOSECOND, Said, UNDECLARED, finished, lost, policy,
    running, said, wait_until,
};

/// The builder of [`support::policy`], with room for a limit of an hour before the backstop.
fn builder() -> PolicyBuilder {
    Policy::builder()
        .finalize_grace(FINALIZE_GRACE)
        .lost_grace(LOST_GRACE)
        .hard_deadline(2 * HARD_DEADLINE)
        .marking_stage(MARKING)
}

fn running_for(age: Duration, mut job: RunningJob<'_>) -> RunningJob<'_> {
    job.running_for = age;
    job
}

fn beyond_the_deadline(job: RunningJob<'_>) -> RunningJob<'_> {
    running_for(2 * HARD_DEADLINE + NANOSECOND, job)
}

fn in_stage<'a>(stage: &'a str, mut job: RunningJob<'a>) -> RunningJob<'a> {
    job.stage = stage;
    job
}

fn unmarked(job: RunningJob<'_>) -> RunningJob<'_> {
    in_stage(UNDECLARED, job)
}

/// The counts with these numbers, and 0 for the others.
macro_rules! counts {
    ($($name:ident: $number:expr),* $(,)?) => {{
        #[allow(unused_mut, reason = "where all are 0")]
        let mut stats = ReaperStats::default();
        $(stats.$name = $number;)*
        stats
    }};
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

/// A pulse that is past `stale_after(AN_HOUR)`. No test lasts so long: a limit of some nanoseconds would be shorter
/// than the gap between two looks of the reaper, which is then a pause, and what a pause hides does not count.
fn stopped_pulse() -> Pulse {
    Pulse::aged(AN_HOUR + NANOSECOND)
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
        let Verdict::Defer(Deferral { reason: DeferReason::DeferAll, owner: Some(owner), .. }) = verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!((owner.generation, owner.value.run_id), (monitor.generation(), Some(42)), "owned");
    }
    for job in [finished(&8), lost(&8), unmarked(finished(&7)), unmarked(lost(&8))] {
        let verdict = reaper.sweep().judge(&job);
        let Verdict::Defer(Deferral { reason: DeferReason::DeferAll, owner: None, .. }) = verdict else {
            panic!("{verdict:?}")
        };
    }
    assert_eq!(judge(&reaper, &running(&7)), Said::Healthy);
    assert_eq!(registry.stats(), before);
    assert_eq!(stats(&reaper), counts! { defers_defer_all: 6 }, "none of them finalizes");
}

#[test]
fn in_defer_all_the_backstop_acts_and_displaces() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy().with_mode(Mode::DeferAll));
    let monitor = registry.mark(7, monitor());
    let deferred = [running(&7), finished(&7), lost(&7)];
    for job in deferred {
        let stuck = running_for(HARD_DEADLINE + NANOSECOND, job);
        assert_eq!(judge(&reaper, &stuck), Said::Reap(Cause::Backstop, true));
        assert!(!monitor.is_current());
        assert_eq!(judge(&reaper, &unmarked(stuck)), Said::Reap(Cause::Backstop, false));
    }
    assert_eq!(stats(&reaper), counts! { reaps_backstop: 6 });
}

// DryRun

#[test]
fn a_dry_run_says_what_honor_would_and_leaves_no_trace() {
    let registry = Registry::new();
    let policy = builder().mode(Mode::DryRun).stale_after(AN_HOUR).build().unwrap();
    let reaper = Reaper::with_claim(&registry, policy, |_| panic!("nothing is claimed"));
    let pulse = stopped_pulse();
    let guards = [registry.mark(7, monitor()), registry.mark(6, monitor().with_pulse(pulse.clone()))];
    let before = registry.stats();
    for (job, expected) in [
        (running(&7), Said::Healthy),
        (finished(&7), Said::Defer(DeferReason::Owned)),
        (lost(&7), Said::Defer(DeferReason::Owned)),
        (finished(&8), Said::DryRun(Proposed::Redrive)),
        (finished(&8).redrives(3), Said::DryRun(Proposed::Reap(Cause::RedrivesExhausted))),
        (lost(&8), Said::DryRun(Proposed::Reap(Cause::WorkerLost))),
        (finished(&6), Said::DryRun(Proposed::Redrive)),
        (beyond_the_deadline(finished(&7)), Said::DryRun(Proposed::Reap(Cause::Backstop))),
        (unmarked(finished(&7)), Said::DryRun(Proposed::Redrive)),
        (finished(&8).held(true), Said::Defer(DeferReason::Held)),
    ] {
        assert_eq!(judge(&reaper, &job), expected, "of {job:?}");
    }
    assert!(guards.iter().all(MarkGuard::is_current));
    assert_eq!((registry.stats(), registry.len()), (before, 2));
    assert_eq!(reaper.stats(), counts! { sweeps: 10 }, "of its verdicts none is counted");
}

#[test]
fn a_dry_run_shows_the_boot_grace_as_well() {
    let registry: Registry = Registry::new();
    let policy = builder().mode(Mode::DryRun).boot_grace(AN_HOUR).build().unwrap();
    let reaper = Reaper::new(&registry, policy);
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::BootGrace));
    assert_eq!(reaper.stats(), counts! { sweeps: 1 });
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

// The deadline

/// Whatever the mark, the stamp, the mode, or what the job store says of the job.
#[test]
fn past_its_deadline_a_job_is_ended_in_every_mode_and_never_redriven() {
    const MODES: [Mode; 4] = [Mode::Honor, Mode::Ignore, Mode::DeferAll, Mode::DryRun];
    let jobs = [running(&7), finished(&7), lost(&7), finished(&7).redrives(9), finished(&7).held(true)];
    for (mode, job) in MODES.into_iter().flat_map(|mode| jobs.map(|job| (mode, beyond_the_deadline(job)))) {
        for owned in [true, false] {
            let registry = Registry::new();
            let reaper = Reaper::new(&registry, builder().mode(mode).build().unwrap());
            let monitor = owned.then(|| registry.mark(7, monitor()));
            let claims = matches!(mode, Mode::Honor | Mode::DeferAll);
            let expected = |claims| match mode {
                Mode::DryRun => Said::DryRun(Proposed::Reap(Cause::Backstop)),
                _ => Said::Reap(Cause::Backstop, claims),
            };
            assert_eq!(judge(&reaper, &unmarked(job)), expected(false), "{mode}: {job:?}");
            assert!(monitor.as_ref().is_none_or(MarkGuard::is_current), "nobody asked for it");
            assert_eq!(judge(&reaper, &job), expected(claims), "{mode}: {job:?}");
            assert_eq!(monitor.as_ref().is_some_and(MarkGuard::is_current), owned && !claims, "{mode}: {job:?}");
            let reaps_backstop = if mode == Mode::DryRun { 0 } else { 2 };
            assert_eq!(stats(&reaper), counts! { reaps_backstop: reaps_backstop });
        }
    }
}

#[test]
fn exactly_at_its_deadline_a_job_may_still_be_redriven() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, builder().build().unwrap());
    let at_it = running_for(2 * HARD_DEADLINE, finished(&7));
    assert_eq!(judge(&reaper, &at_it), Said::Redrive(true));
    assert_eq!(judge(&reaper, &beyond_the_deadline(finished(&7))), Said::Reap(Cause::Backstop, true));
}

// held

#[test]
fn a_held_job_is_left_alone_in_every_stage_and_every_mode() {
    for mode in [Mode::Honor, Mode::Ignore, Mode::DeferAll, Mode::DryRun] {
        let registry = Registry::new();
        let policy = builder().mode(mode).build().unwrap();
        let reaper = Reaper::with_claim(&registry, policy, |_| panic!("nothing is claimed"));
        let reason = if mode == Mode::DeferAll { DeferReason::DeferAll } else { DeferReason::Held };
        let before = registry.stats();
        for job in [finished(&7), lost(&7), finished(&7).redrives(3)].map(|job| job.held(true)) {
            for job in [job, unmarked(job)] {
                assert_eq!(judge(&reaper, &job), Said::Defer(reason), "{mode}: {job:?}");
            }
        }
        assert_eq!(judge(&reaper, &running(&7).held(true)), Said::Healthy, "it is within its limits anyway");
        assert_eq!(registry.stats(), before);
        let expected = match mode {
            Mode::DryRun => ReaperStats::default(),
            Mode::DeferAll => counts! { defers_defer_all: 6 },
            Mode::Honor | Mode::Ignore => counts! { defers_held: 6 },
        };
        assert_eq!(stats(&reaper), expected, "no finalizer was deferred to");
    }
}

#[test]
fn a_job_that_is_held_no_more_is_redriven() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    assert_eq!(judge(&reaper, &finished(&7).held(true)), Said::Defer(DeferReason::Held));
    assert_eq!(judge(&reaper, &finished(&7).held(true).held(false)), Said::Redrive(true));
}

/// `DeferAll`, `Held`, `Owned`, `BootGrace`: of those that hold, the first.
#[test]
fn of_several_reasons_the_first_is_told() {
    for bits in 0..16_u32 {
        let [defer_all, held, owned, booting] = [0, 1, 2, 3].map(|bit| bits >> bit & 1 == 1);
        let registry = Registry::new();
        let builder = if booting { builder().boot_grace(AN_HOUR) } else { builder() };
        let mode = if defer_all { Mode::DeferAll } else { Mode::Honor };
        let reaper = Reaper::new(&registry, builder.mode(mode).build().unwrap());
        let monitor = owned.then(|| registry.mark(7, monitor()));
        let reasons = [
            (defer_all, DeferReason::DeferAll),
            (held, DeferReason::Held),
            (owned, DeferReason::Owned),
            (booting, DeferReason::BootGrace),
        ];
        let first = reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason));
        let verdict = reaper.sweep().judge(&finished(&7).held(held));
        assert_eq!(said(&verdict), first.map_or(Said::Redrive(true), Said::Defer), "of {reasons:?}");
        if let Verdict::Defer(deferral) = &verdict {
            let owner = deferral.owner.as_ref().map(|owner| owner.generation);
            assert_eq!(owner, monitor.as_ref().map(MarkGuard::generation), "whoever it is, is told");
        }
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
            let Verdict::Defer(Deferral { reason: DeferReason::BootGrace, owner: None, .. }) = verdict else {
                panic!("{verdict:?}")
            };
        }
        assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned), "which is more to say");
        assert_eq!(judge(&reaper, &running(&8)), Said::Healthy);
    }
    assert_eq!(registry.stats(), before);
    assert!(monitor.is_current());
    let expected = counts! { defers_boot_grace: 12, finalizer_defers_total: 3 };
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
    assert_eq!(stats(&reaper), counts! { reaps_backstop: 3 });
}

#[test]
fn after_its_boot_grace_a_reaper_acts() {
    const GRACE: Duration = Duration::from_millis(20);
    let registry: Registry = Registry::new();
    let mut waited = 0;
    loop {
        let start = Instant::now();
        let reaper = Reaper::new(&registry, builder().boot_grace(GRACE).build().unwrap());
        wait_until("the boot grace has passed", || {
            thread::sleep(GRACE / 10);
            let seen = [finished(&7), lost(&7), unmarked(finished(&7))].map(|job| judge(&reaper, &job));
            let acts = [Said::Redrive(true), Said::Reap(Cause::WorkerLost, true), Said::Redrive(false)];
            // Another thread may come between, and the grace may run out between two of them.
            waited += seen.iter().filter(|said| **said == Said::Defer(DeferReason::BootGrace)).count();
            assert!(
                seen.iter().zip(acts).all(|(said, acts)| *said == acts || *said == Said::Defer(DeferReason::BootGrace))
            );
            seen == acts
        });
        assert!(start.elapsed() > GRACE, "it did not wait");
        if waited > 0 {
            break;
        }
    }
}

#[test]
fn a_reaper_that_was_away_looks_twice() {
    const GRACE: Duration = Duration::from_millis(2);
    let registry: Registry = Registry::new();
    // Away is away by the stage's own boot grace.
    let of_a_stage = builder().boot_grace(AN_HOUR).stage("quick", StageRules::marking().boot_grace(GRACE));
    for (policy, stage) in [(builder().boot_grace(GRACE), MARKING), (of_a_stage, "quick")] {
        let reaper = Reaper::new(&registry, policy.build().unwrap());
        let job = in_stage(stage, finished(&7));
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
    const GRACE: Duration = Duration::from_millis(20);
    let policy = builder()
        .boot_grace(AN_HOUR)
        .stage("quick", StageRules::marking().boot_grace(GRACE))
        .stage("quick and silent", StageRules::new().boot_grace(GRACE))
        .build()
        .unwrap();
    let reaper = Reaper::new(&registry, policy);
    wait_until("the shorter boot grace has passed", || {
        thread::sleep(GRACE / 10);
        let mut sweep = reaper.sweep();
        let mut judged_in = |stage| said(&sweep.judge(&in_stage(stage, finished(&7))));
        assert_eq!(judged_in(MARKING), Said::Defer(DeferReason::BootGrace), "inherited");
        assert_eq!(judged_in(UNDECLARED), Said::Defer(DeferReason::BootGrace));
        (judged_in("quick"), judged_in("quick and silent")) == (Said::Redrive(true), Said::Redrive(false))
    });

    let policy = builder().stage("careful", StageRules::marking().boot_grace(AN_HOUR)).build().unwrap();
    let reaper = Reaper::new(&registry, policy);
    assert_eq!(judge(&reaper, &in_stage("careful", finished(&7))), Said::Defer(DeferReason::BootGrace));
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

/// The ages that a job store computes have jumped by the pause: a machine that slept ends nobody on waking, and whoever
/// is still there after one boot grace.
#[test]
fn a_deadline_that_passed_during_a_pause_waits_for_the_boot_grace() {
    const GRACE: Duration = Duration::from_millis(20);
    const PAUSE: Duration = Duration::from_millis(100);
    for mode in [Mode::Honor, Mode::Ignore, Mode::DeferAll, Mode::DryRun] {
        let registry = Registry::new();
        let reaper = Reaper::new(&registry, builder().boot_grace(GRACE).mode(mode).build().unwrap());
        let guard = registry.mark(7, monitor());
        loop {
            let in_time = Instant::now();
            drop((reaper.sweep(), reaper.sweep()));
            if in_time.elapsed() <= GRACE {
                break;
            }
        }
        thread::sleep(PAUSE);
        // Half of the pause ago it was within its deadline.
        let asleep = running_for(2 * HARD_DEADLINE + PAUSE / 2, finished(&7));
        let long_gone = running_for(3 * HARD_DEADLINE, finished(&8));
        let mut sweep = reaper.sweep();
        let reaped = said(&sweep.judge(&long_gone));
        let ends = match mode {
            Mode::DryRun => Said::DryRun(Proposed::Reap(Cause::Backstop)),
            _ => Said::Reap(Cause::Backstop, mode != Mode::Ignore),
        };
        assert_eq!(reaped, ends, "{mode}: it was past it before the pause");
        let verdict = sweep.judge(&asleep);
        let Verdict::Defer(Deferral { reason: DeferReason::BootGrace, owner, .. }) = &verdict else {
            panic!("{mode}: {verdict:?}")
        };
        let expected = (mode != Mode::Ignore).then(|| guard.generation());
        assert_eq!(owner.as_ref().map(|owner| owner.generation), expected);
        let (upcoming, left) = sweep.explain(&asleep, &verdict).upcoming().expect("the backstop");
        assert_eq!(upcoming, Proposed::Reap(Cause::Backstop));
        assert!(left > Duration::ZERO && left <= GRACE, "{left:?}");
        drop((verdict, sweep));
        assert!(guard.is_current());
        wait_until("the boot grace has passed", || {
            thread::sleep(GRACE / 10);
            judge(&reaper, &asleep) == ends
        });
    }
}

#[test]
fn a_pause_inside_of_a_sweep_is_a_pause() {
    const GRACE: Duration = Duration::from_millis(20);
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, builder().boot_grace(GRACE).build().unwrap());
    // The boot grace of the start.
    wait_until("the reaper acts", || judge(&reaper, &finished(&7)) == Said::Redrive(true));
    loop {
        let begun = Instant::now();
        let mut sweep = reaper.sweep();
        let first = said(&sweep.judge(&finished(&7)));
        if begun.elapsed() > GRACE || first != Said::Redrive(true) {
            thread::sleep(GRACE / 10);
            continue; // Another thread came between.
        }
        thread::sleep(2 * GRACE);
        assert_eq!(said(&sweep.judge(&finished(&8))), Said::Defer(DeferReason::BootGrace), "it was away");
        break;
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
    assert!(
        matches!(verdict, Verdict::Defer(Deferral { reason: DeferReason::BootGrace, owner: None, .. })),
        "{verdict:?}"
    );
    reaper.set_policy(policy.with_mode(Mode::DeferAll));
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::DeferAll));
}

// stale_after

#[test]
fn an_owner_without_a_pulse_is_never_stale() {
    const LIMIT: Duration = Duration::from_millis(10);
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, builder().stale_after(LIMIT).build().unwrap());
    let (silent, hanging) = (registry.mark(7, monitor()), registry.mark(8, monitor().with_pulse(Pulse::new())));
    wait_until("the other one is stale", || {
        thread::sleep(LIMIT / 10);
        assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned));
        judge(&reaper, &finished(&8)) == Said::Redrive(true)
    });
    assert!(registry.owner(&7).unwrap().age() > LIMIT);
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned));
    assert!(silent.is_current() && !hanging.is_current());
}

#[test]
fn without_a_limit_no_pulse_is_too_old() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let pulse = stopped_pulse();
    let _monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned));
}

#[test]
fn a_stale_owner_is_displaced_and_can_see_it() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, builder().stale_after(AN_HOUR).build().unwrap());
    for (count, (job, expected)) in
        [(finished(&7), Said::Redrive(true)), (lost(&7), Said::Reap(Cause::WorkerLost, true))].into_iter().enumerate()
    {
        let pulse = stopped_pulse();
        let monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
        let verdict = reaper.sweep().judge(&job);
        assert_eq!(said(&verdict), expected);
        let (Verdict::Redrive(claim) | Verdict::Reap(_, claim)) = verdict else { panic!("{verdict:?}") };
        assert!(claim.is_current() && !monitor.is_current());
        assert!(claim.generation() > Some(monitor.generation()));
        let displaced = claim.displaced().expect("whom it displaced");
        assert_eq!((displaced.generation, displaced.value.run_id), (monitor.generation(), Some(42)), "to be cancelled");
        assert!(claim.guard().unwrap().has_displaced());
        assert_eq!(registry.owner(&7).unwrap().value.run_id, None, "the reaper's own context");
        drop(monitor);
        assert!(claim.is_current(), "a late release frees nothing");
        assert_eq!(registry.stats().displaced, count as u64 + 1);
    }
    let expected = counts! { redrives: 1, reaps_worker_lost: 1 };
    assert_eq!(stats(&reaper), expected, "neither a deferral nor a conflict");
}

#[test]
fn a_beat_brings_an_owner_back() {
    let registry = Registry::new();
    // Without claims, so that the owner stays.
    let reaper = Reaper::new(&registry, builder().mode(Mode::DryRun).stale_after(AN_HOUR).build().unwrap());
    let pulse = stopped_pulse();
    let _monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
    assert_eq!(judge(&reaper, &finished(&7)), Said::DryRun(Proposed::Redrive));
    pulse.beat();
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned));
}

#[test]
fn a_stale_owner_is_left_to_its_boot_grace_and_to_defer_all() {
    let registry = Registry::new();
    let policy = builder().stale_after(AN_HOUR).boot_grace(AN_HOUR).build().unwrap();
    let reaper = Reaper::new(&registry, policy.clone());
    let pulse = stopped_pulse();
    let monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
    for (mode, expected) in [(Mode::Honor, DeferReason::BootGrace), (Mode::DeferAll, DeferReason::DeferAll)] {
        reaper.set_policy(policy.with_mode(mode));
        let verdict = reaper.sweep().judge(&finished(&7));
        let Verdict::Defer(Deferral { reason, owner: Some(owner), .. }) = verdict else { panic!("{verdict:?}") };
        assert_eq!((reason, owner.generation), (expected, monitor.generation()), "who it is, is said");
    }
    assert!(monitor.is_current());
    assert_eq!(stats(&reaper).finalizer_defers_total, 0, "it was not for its owner's sake");
}

#[test]
fn stages_have_limits_of_their_own_for_pulses() {
    let registry = Registry::new();
    let policy = builder()
        .stale_after(2 * AN_HOUR - NANOSECOND)
        .stage("impatient", StageRules::marking().stale_after(AN_HOUR))
        .stage("silent", StageRules::new().stale_after(AN_HOUR))
        .build()
        .unwrap();
    let reaper = Reaper::new(&registry, policy.with_mode(Mode::DryRun));
    let pulse = stopped_pulse();
    let _monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
    let judged_in = |stage| judge(&reaper, &in_stage(stage, finished(&7)));
    assert_eq!(judged_in(MARKING), Said::Defer(DeferReason::Owned));
    assert_eq!(judged_in("impatient"), Said::DryRun(Proposed::Redrive));
    assert_eq!(judged_in("silent"), Said::DryRun(Proposed::Redrive), "it is not asked for");
    reaper.set_policy(policy);
    assert_eq!(judged_in("impatient"), Said::Redrive(true));
}

/// An owner is found stale, and another one marks before the claim: the claim is refused.
#[test]
fn who_took_over_from_a_stale_owner_meanwhile_keeps_the_job() {
    let registry = Registry::new();
    let newer = Mutex::new(None);
    // Between the reaper's look and its claim.
    let policy = builder().stale_after(AN_HOUR).build().unwrap();
    let reaper = Reaper::with_claim(&registry, policy, |job| {
        *newer.lock().unwrap() = Some(registry.mark(*job.id, monitor()));
        Finalizer::new(None, job.stage)
    });
    let pulse = stopped_pulse();
    let stale = registry.mark(7, monitor().with_pulse(pulse.clone()));
    let verdict = reaper.sweep().judge(&finished(&7));
    let Verdict::Defer(Deferral { reason: DeferReason::ClaimConflict, owner: Some(owner), .. }) = verdict else {
        panic!("{verdict:?}")
    };
    let newer = newer.lock().unwrap().take().unwrap();
    assert!(newer.is_current() && !stale.is_current());
    assert_eq!(owner.generation, newer.generation());
    assert_eq!(registry.stats().displaced, 1, "by the newer monitor, not by the reaper");
    let expected = counts! { claim_conflicts: 1, finalizer_defers_total: 1 };
    assert_eq!(stats(&reaper), expected);
}

/// The same, up to the last moment: the clone of the job id is made between the claim's own look and its
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

    let reaper = Reaper::new(&REGISTRY, builder().stale_after(AN_HOUR).build().unwrap());
    let job = RunningJob::new(&Job(7), MARKING, HARD_DEADLINE / 2).finished_for(2 * FINALIZE_GRACE);
    let cases: [(fn(), Said); 2] = [
        (another_marks, Said::Defer(DeferReason::ClaimConflict)),
        (its_owner_commits, Said::Redrive(true)), // nobody is displaced
    ];
    // The id is cloned for the call, and then for the entry.
    for (place, (meanwhile, expected)) in [0, 1].into_iter().flat_map(|place| cases.map(|case| (place, case))) {
        REGISTRY.clear(&Job(7));
        let pulse = stopped_pulse();
        let stale = REGISTRY.mark(Job(7), monitor().with_pulse(pulse.clone()));
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
fn a_pulse_that_was_old_when_it_was_made_is_as_old_as_that() {
    let registry = Registry::new();
    let policy = Policy::builder().stale_after(LOST_GRACE).hard_deadline(HARD_DEADLINE).marking_stage(MARKING);
    let reaper = Reaper::new(&registry, policy.build().unwrap());
    let pulse = Pulse::aged(LOST_GRACE + NANOSECOND);
    assert!(pulse.age() > LOST_GRACE && pulse.age() < 2 * LOST_GRACE);
    let remote = registry.mark(7, monitor().with_pulse(pulse.clone()));
    pulse.beat();
    assert!(pulse.age() < LOST_GRACE);
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned));
    assert!(remote.replace(monitor().with_pulse(Pulse::aged(LOST_GRACE / 2))));
    assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned));
    assert!(remote.replace(monitor().with_pulse(Pulse::aged(LOST_GRACE + NANOSECOND))));
    assert_eq!(judge(&reaper, &finished(&7)), Said::Redrive(true));
    assert!(!remote.is_current());
    assert!(Pulse::aged(Duration::MAX).age() > 100 * 365 * 24 * AN_HOUR, "and panics at nothing");
}

/// Whoever works under a claim has no way to a pulse in the reaper's own context, and cannot beat it.
#[test]
fn the_reapers_own_claim_is_not_stale_before_anyone_has_beaten_for_it() {
    let registry = Registry::new();
    let policy = builder().stale_after(AN_HOUR).build().unwrap();
    let reaper =
        Reaper::with_claim(&registry, policy, |job| Finalizer::new(None, job.stage).with_pulse(stopped_pulse()));
    for due in [finished(&7), lost(&7), beyond_the_deadline(running(&7))] {
        let claim = reaper.sweep().judge(&due);
        assert!(matches!(said(&claim), Said::Redrive(true) | Said::Reap(_, true)), "{claim:?}");
        assert_eq!(judge(&reaper, &finished(&7)), Said::Defer(DeferReason::Owned), "after {due:?}");
    }
    // A monitor's mark with such a pulse is stale.
    let monitor = registry.mark(7, monitor().with_pulse(stopped_pulse()));
    assert_eq!(judge(&reaper, &finished(&7)), Said::Redrive(true));
    assert!(!monitor.is_current());
}

#[test]
fn the_reapers_own_claim_is_stale_once_a_pulse_has_stopped_that_somebody_beat() {
    const LIMIT: Duration = Duration::from_millis(20);
    let registry = Registry::new();
    let given = Mutex::new(None);
    let policy = builder().stale_after(LIMIT).build().unwrap();
    let reaper = Reaper::with_claim(&registry, policy, |job| {
        let pulse = Pulse::new();
        *given.lock().unwrap() = Some(pulse.clone());
        Finalizer::new(None, job.stage).with_pulse(pulse)
    });
    let redriven = || {
        let mut redriven = None;
        wait_until("a stale owner", || {
            thread::sleep(LIMIT / 10);
            match reaper.sweep().judge(&finished(&7)) {
                Verdict::Redrive(claim) => redriven = Some(claim),
                other => assert_eq!(said(&other), Said::Defer(DeferReason::Owned)),
            }
            redriven.is_some()
        });
        redriven.unwrap()
    };

    let first = redriven();
    given.lock().unwrap().take().expect("the claim's pulse").beat();
    let second = redriven();
    assert!(!first.is_current());
    let displaced = second.displaced().expect("the claim before");
    assert_eq!((Some(displaced.generation), displaced.value.run_id), (first.generation(), None), "the reaper itself");

    // The worker's own pulse counts.
    assert!(second.replace(Finalizer::new(Some(43), MARKING).with_pulse(Pulse::new())));
    let third = redriven();
    assert_eq!(third.displaced().and_then(|owner| owner.value.run_id), Some(43));
    assert!(!second.is_current() && !second.replace(monitor()) && third.is_current());
}

#[test]
fn contexts_of_any_kind_have_a_pulse_where_the_reaper_is_told() {
    #[derive(Clone)]
    struct Deployment {
        progress: Option<Pulse>,
    }
    let registry: Registry<u64, Deployment> = Registry::new();
    let policy = || builder().stale_after(AN_HOUR).build().unwrap();
    let progress = stopped_pulse();
    let _guards = [
        registry.mark(7, Deployment { progress: Some(progress.clone()) }),
        registry.mark(8, Deployment { progress: None }),
    ];
    let untold = Reaper::with_claim(&registry, policy(), |_| Deployment { progress: None });
    assert_eq!(judge(&untold, &finished(&7)), Said::Defer(DeferReason::Owned), "it knows of no pulse");
    let told = untold.with_pulse(|deployment| deployment.progress.as_ref());
    assert_eq!(judge(&told, &finished(&8)), Said::Defer(DeferReason::Owned));
    assert_eq!(judge(&told, &finished(&7)), Said::Redrive(true));
}

#[test]
fn finalizers_have_their_pulse_with_any_claim() {
    let registry = Registry::new();
    let policy = builder().stale_after(AN_HOUR).build().unwrap();
    let reaper = Reaper::with_claim(&registry, policy, |_| Finalizer::new(Some(99), "reaper"));
    let pulse = stopped_pulse();
    let _monitor = registry.mark(7, monitor().with_pulse(pulse.clone()));
    let _claim = reaper.sweep().judge(&finished(&7));
    assert_eq!(registry.owner(&7).unwrap().value.run_id, Some(99));
    let never = reaper.with_pulse(|_| None);
    drop(registry.mark(8, monitor()));
    let _other = registry.mark(8, monitor().with_pulse(pulse));
    assert_eq!(judge(&never, &finished(&8)), Said::Defer(DeferReason::Owned), "the last word is the scheduler's");
}

#[test]
fn reasons_have_names() {
    let reasons = [DeferReason::BootGrace, DeferReason::DeferAll, DeferReason::Held].map(|reason| reason.to_string());
    assert_eq!(reasons, ["boot grace", "defer all", "held"]);
}

/// What a claim function gives may be anybody's pulse, also one that is stale: it counts when it is beaten after the
/// claim.
///
/// Seen to fail with a mark in the pulse itself, which only pulses that were never beaten had: four finalizations at
/// once.
#[test]
fn a_claim_with_a_pulse_that_was_beaten_before_is_one_claim() {
    let registry: Registry = Registry::new();
    let pulse = Pulse::aged(Duration::from_secs(700));
    let stale = registry.mark(7, Finalizer::new(Some(1), "gates").with_pulse(pulse.clone()));
    let of_the_owner =
        |job: &RunningJob<'_>| registry.owner(job.id).map_or(Finalizer::new(None, "x"), |owner| owner.value);
    let watching = || policy().to_builder().stale_after(Duration::from_secs(600)).build().unwrap();
    let reapers = [Reaper::with_claim(&registry, watching(), of_the_owner), Reaper::new(&registry, watching())];
    let Verdict::Redrive(claim) = reapers[0].sweep().judge(&finished(&7)) else { panic!("its owner is stale") };
    assert!(!stale.is_current());
    for reaper in &reapers {
        assert!(matches!(reaper.sweep().judge(&finished(&7)), Verdict::Defer(_)), "the claim is not stale");
    }
    // The worker's own pulse counts at once, also one that is old.
    assert!(claim.replace(Finalizer::new(Some(2), "gates").with_pulse(Pulse::aged(Duration::from_secs(601)))));
    assert!(matches!(reapers[1].sweep().judge(&finished(&7)), Verdict::Redrive(_)));
}

#[test]
fn a_pulse_goes_on_after_any_age() {
    let pulse = Pulse::aged(Duration::MAX);
    assert_eq!(pulse.age(), Duration::MAX);
    pulse.beat();
    std::thread::sleep(Duration::from_millis(2));
    assert!(pulse.age() >= Duration::from_millis(2) && pulse.age() < Duration::from_secs(3600), "{:?}", pulse.age());
}
