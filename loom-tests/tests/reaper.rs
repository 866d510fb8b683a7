//! The reaper's claim against the monitor's mark: exactly one finalizer.

use std::time::Duration;

use livemark::{Cause, DeferReason, Policy, Pulse, Reaper, RunningJob, Verdict};
use loom_tests::{Job, Jobs, Name, Probe, Search, mark, model, try_mark};

/// What the reaper made of job 1, and whether its claim still stood then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Judged {
    Owned(Name),
    ClaimConflict(Name),
    Redrive { current: bool },
    Backstop { displaced: Option<Name>, current: bool },
}

/// Judges job 1, which is past its grace.
fn judge(jobs: &Jobs) -> Judged {
    judge_at(jobs, 9)
}

/// Judges job 1 at this age, and acts on the verdict. It finished 9 s ago, and its deadline is at 20 s. An owner called
/// 's' has made no progress.
fn judge_at(jobs: &Jobs, age: u64) -> Judged {
    let seconds = Duration::from_secs;
    let policy = Policy::builder().finalize_grace(seconds(1)).lost_grace(seconds(1)).hard_deadline(seconds(20));
    let policy = policy.stale_after(seconds(10)).marking_stage("merge").build();
    // Leaked, as it is lent like a part of the probe; made here, as loom's atomics belong to one execution.
    let pulse: &'static Pulse = Box::leak(Box::new(Pulse::aged(seconds(11))));
    let reaper = Reaper::with_claim(jobs, policy.expect("the policy works"), |_| Probe::new('r'))
        .with_pulse(|owner| (owner.read() == 's').then_some(pulse));
    let id = Job::from(1);
    let job = RunningJob::new(&id, "merge", seconds(age)).finished_for(seconds(9));
    let verdict = reaper.sweep().judge(&job);
    match verdict {
        Verdict::Redrive(claim) => {
            assert!(claim.guard().is_some(), "in this stage it claims");
            Judged::Redrive { current: claim.is_current() }
        }
        Verdict::Reap(Cause::Backstop, claim) => {
            let displaced = claim.displaced().map(|owner| owner.value.read());
            assert!(claim.guard().is_some_and(|guard| guard.has_displaced() == displaced.is_some()));
            Judged::Backstop { displaced, current: claim.is_current() }
        }
        Verdict::Defer(deferral) => {
            let owner = deferral.owner.expect("a deferral for an owner").value.read();
            match deferral.reason {
                DeferReason::Owned => Judged::Owned(owner),
                DeferReason::ClaimConflict => Judged::ClaimConflict(owner),
                other => panic!("{other} is not for this policy"),
            }
        }
        other => panic!("{other:?} is not for this job"),
    }
}

/// E1, E3. Both claim: one gets the job, the other is told so.
///
/// Seen to fail with a sweep that claims by `mark`, and with a `try_mark` that takes over.
#[test]
fn judge_against_try_mark() {
    let expected = [
        (false, Judged::Redrive { current: true }),
        (true, Judged::Owned('m')),
        (true, Judged::ClaimConflict('m')),
        // The monitor came after the reaper had finished and cleared its claim.
        (true, Judged::Redrive { current: true }),
    ];
    model("judge | try_mark", 1, Search::Exhaustive, expected, |scene| {
        let monitor = scene.spawn(|jobs, _| try_mark(jobs, 1, 'm'));
        let judged = judge(scene.jobs());
        let monitor = scene.join(monitor);
        assert_eq!(scene.jobs().is_active(&1), monitor.is_ok());
        (monitor.is_ok(), judged)
    });
}

/// E1, E3. A monitor that takes over is deferred to, or displaces the reaper, which can see it before it commits.
///
/// Seen to fail with a sweep that claims by `mark`, and with a release that ignores the generation.
#[test]
fn judge_against_mark() {
    let expected = [
        Judged::Owned('m'),
        Judged::ClaimConflict('m'),
        Judged::Redrive { current: false },
        Judged::Redrive { current: true },
    ];
    model("judge | mark", 1, Search::Exhaustive, expected, |scene| {
        let monitor = scene.spawn(|jobs, _| mark(jobs, 1, 'm'));
        let judged = judge(scene.jobs());
        assert!(scene.join(monitor).is_current(), "the reaper displaced a live monitor");
        judged
    });
}

/// E3. The monitor finishes while the reaper looks: deferred to, or dead and redriven.
///
/// Seen to fail with entries freed at once.
#[test]
fn judge_against_release() {
    let expected = [Judged::Owned('m'), Judged::Redrive { current: true }];
    model("judge | release", 1, Search::Exhaustive, expected, |scene| {
        let guard = mark(scene.jobs(), 1, 'm');
        let monitor = scene.spawn(|_, _| assert!(guard.clear()));
        let judged = judge(scene.jobs());
        scene.join(monitor);
        judged
    });
}

/// E1, E3. An owner without progress is displaced; whoever has taken the job over from it meanwhile is not.
///
/// Seen to fail with a claim that displaces whatever owner it finds.
#[test]
fn judge_of_a_stale_owner_against_mark() {
    let expected = [
        Judged::Owned('m'),
        Judged::ClaimConflict('m'),
        Judged::Redrive { current: false },
        Judged::Redrive { current: true },
    ];
    model("judge stale | mark", 1, Search::Exhaustive, expected, |scene| {
        let stale = mark(scene.jobs(), 1, 's');
        let monitor = scene.spawn(|jobs, _| mark(jobs, 1, 'm'));
        let judged = judge(scene.jobs());
        assert!(scene.join(monitor).is_current(), "the reaper displaced a live monitor");
        assert!(!stale.is_current());
        judged
    });
}

/// E1, E3. It ends after all: its release and the claim agree on who was first, and the job is claimed in any case.
///
/// Seen to fail with a release that ignores the generation.
#[test]
fn judge_of_a_stale_owner_against_release() {
    let expected = [(false, Judged::Redrive { current: true }), (true, Judged::Redrive { current: true })];
    model("judge stale | release", 1, Search::Exhaustive, expected, |scene| {
        let guard = mark(scene.jobs(), 1, 's');
        let monitor = scene.spawn(|_, _| guard.clear());
        let judged = judge(scene.jobs());
        (scene.join(monitor), judged)
    });
}

/// E1, E3. Past the deadline the reaper claims in any case, and says whom it displaced. A mark that comes after takes over,
/// and the reaper sees it.
///
/// The claim of a reaper and the mark of a monitor draw from one counter, and differ in a bit: whichever came second has
/// the greater generation.
#[test]
fn backstop_against_mark() {
    let backstop = |displaced, current| Judged::Backstop { displaced, current };
    let expected = [
        // Whether the monitor's mark stood at the end, and what the reaper saw.
        (false, backstop(Some('m'), true)),
        (true, backstop(None, false)),
        // The monitor came after the reaper had finished and cleared its claim.
        (true, backstop(None, true)),
    ];
    model("backstop | mark", 1, Search::Exhaustive, expected, |scene| {
        let monitor = scene.spawn(|jobs, _| mark(jobs, 1, 'm'));
        let judged = judge_at(scene.jobs(), 21);
        let monitor = scene.join(monitor);
        (monitor.is_current(), judged)
    });
}

/// E1, E3. The stuck owner clears in the last moment: it was displaced, or had gone, and both agree on which.
#[test]
fn backstop_against_clear() {
    let backstop = |displaced| Judged::Backstop { displaced, current: true };
    let expected = [(false, backstop(Some('m'))), (true, backstop(None))];
    model("backstop | clear", 1, Search::Exhaustive, expected, |scene| {
        let guard = mark(scene.jobs(), 1, 'm');
        let monitor = scene.spawn(|_, _| guard.clear());
        let judged = judge_at(scene.jobs(), 21);
        let cleared = scene.join(monitor);
        assert!(!scene.jobs().is_active(&1), "the claim was given back, and the mark is gone");
        (cleared, judged)
    });
}

/// E1, E3. Somebody clears the job by its id, and another marks it, while the reaper claims it: it is claimed over nobody,
/// or the claim comes second.
#[test]
fn judge_against_clear_and_mark() {
    let expected = [
        Judged::Owned('m'),
        Judged::Owned('n'),
        Judged::ClaimConflict('n'),
        Judged::Redrive { current: false },
        Judged::Redrive { current: true },
    ];
    model("judge | clear, mark", 1, Search::Exhaustive, expected, |scene| {
        let guard = mark(scene.jobs(), 1, 'm');
        let operator = scene.spawn(|jobs, _| {
            assert!(guard.clear());
            mark(jobs, 1, 'n')
        });
        let judged = judge(scene.jobs());
        assert!(scene.join(operator).is_current(), "the reaper displaced a live monitor");
        judged
    });
}
