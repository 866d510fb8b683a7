//! Verdicts in words: the exact texts of `explain` and of `Display`.

mod support;

use std::time::Duration;

use livemark::{Finalizer, Generation, MarkGuard, Mode, Policy, Pulse, Reaper, Registry, RunningJob, Verdict};
use support::{HARD_DEADLINE, MARKING, UNDECLARED, finished, lost, overdue, policy, running, seconds, wait_until};

const NANOSECOND: Duration = Duration::from_nanos(1);
const AN_HOUR: Duration = Duration::from_secs(3600);

fn unmarked(job: RunningJob<'_>) -> RunningJob<'_> {
    RunningJob { stage: UNDECLARED, ..job }
}

fn monitor() -> Finalizer {
    Finalizer::new(Some(42), "gates")
}

/// The texts of the verdict on `job`: why, and what. `{g}` stands for the generation, `{age}` for a span of time that
/// passes.
fn words(reaper: &Reaper<'_>, job: &RunningJob<'_>) -> [String; 2] {
    let mut sweep = reaper.sweep();
    let verdict = sweep.judge(job);
    let generation = match &verdict {
        Verdict::Defer(deferral) => deferral.owner.as_ref().map(|owner| owner.generation),
        Verdict::Redrive(claim) | Verdict::Reap(_, claim) => claim.as_ref().map(MarkGuard::generation),
        Verdict::Healthy => None,
    };
    let texts = [verdict.explain(job, sweep.policy()).to_string(), verdict.to_string()];
    texts.map(|text| without_passing_time(&text, generation))
}

fn without_passing_time(text: &str, generation: Option<Generation>) -> String {
    let mut text = text.to_owned();
    if let Some(generation) = generation {
        text = text.replacen(&format!("generation {generation}"), "generation {g}", 1);
    }
    // "generation 3, for 1.2µs" and "pulse 3.4ms ago"
    for (before, end) in [("{g}, for ", [',', ';']), ("pulse ", [' ', ' '])] {
        if let Some(start) = text.find(before).map(|at| at + before.len()) {
            let end = text[start..].find(end).map_or(text.len(), |at| start + at);
            text.replace_range(start..end, "{age}");
        }
    }
    text
}

#[test]
fn verdicts_are_told_in_words() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _guards = [
        registry.mark(1, monitor()),
        registry.mark(2, Finalizer::new(None, "merge").with_pulse(Pulse::new())),
        registry.mark(3, monitor()),
    ];
    let cases = [
        (running(&1), "healthy; running for 10s, within hard_deadline of 3600s", "healthy"),
        (
            RunningJob { finished_for: Some(seconds(2)), lost_for: Some(seconds(61)), ..running(&1) },
            "healthy; finished for 2s, within finalize_grace of 300s; lost for 61s, past lost_grace of 60s; \
             running for 10s, within hard_deadline of 3600s",
            "healthy",
        ),
        (
            finished(&1),
            "tier 2: defer, owned by run 42 at `gates`, generation {g}, for {age}; \
             finished for 301s, past finalize_grace of 300s; running for 400s, within hard_deadline of 3600s",
            "defer, owned by run 42 at `gates`, generation {g}, for {age}",
        ),
        (
            lost(&2),
            "tier 1: defer, owned by a claim at `merge`, generation {g}, for {age}, pulse {age} ago; \
             lost for 61s, past lost_grace of 60s; running for 400s, within hard_deadline of 3600s",
            "defer, owned by a claim at `merge`, generation {g}, for {age}, pulse {age} ago",
        ),
        (
            finished(&7),
            "tier 2: redrive, claimed as generation {g}; \
             finished for 301s, past finalize_grace of 300s; running for 400s, within hard_deadline of 3600s",
            "redrive, claimed as generation {g}",
        ),
        (
            lost(&7),
            "tier 1: reap, worker lost, claimed as generation {g}; \
             lost for 61s, past lost_grace of 60s; running for 400s, within hard_deadline of 3600s",
            "reap, worker lost, claimed as generation {g}",
        ),
        (
            overdue(&3),
            "tier 3: reap, backstop, claimed as generation {g}; running for 3601s, past hard_deadline of 3600s",
            "reap, backstop, claimed as generation {g}",
        ),
        (
            unmarked(finished(&7)),
            "tier 2: redrive, without a claim in a stage that does not mark; \
             finished for 301s, past finalize_grace of 300s; running for 400s, within hard_deadline of 3600s",
            "redrive",
        ),
    ];
    for (job, why, what) in cases {
        assert_eq!(words(&reaper, &job), [why, what]);
    }
}

#[test]
fn modes_and_graces_are_told_in_words() {
    let registry = Registry::new();
    let ages = "finished for 301s, past finalize_grace of 300s; running for 400s, within hard_deadline of 3600s";
    let _monitor = registry.mark(1, monitor());
    let with = |policy: Policy, job| words(&Reaper::new(&registry, policy), &job);

    let ignored = with(policy().with_mode(Mode::Ignore), finished(&1));
    assert_eq!(ignored, [&*format!("tier 2: redrive, without a claim in mode ignore; {ages}"), "redrive"]);
    let dry = with(policy().with_mode(Mode::DryRun), overdue(&1));
    let why = "tier 3: reap, backstop, not to be done in mode dry_run; running for 3601s, past hard_deadline of 3600s";
    assert_eq!(dry, [why, "reap, backstop"]);
    let deferred = with(policy().with_mode(Mode::DeferAll), finished(&1));
    let what = "defer, defer all, owned by run 42 at `gates`, generation {g}, for {age}";
    assert_eq!(deferred, [&*format!("tier 2: {what}; {ages}"), what]);
    let deferred = with(policy().with_mode(Mode::DeferAll), finished(&2));
    assert_eq!(deferred, [&*format!("tier 2: defer, defer all; {ages}"), "defer, defer all"]);

    let boot = Policy::builder().boot_grace(AN_HOUR).no_backstop().marking_stage(MARKING).build().unwrap();
    let why = "tier 1: defer, boot grace of 3600s; lost for 61s, past lost_grace of 60s; running for 400s, no backstop";
    assert_eq!(with(boot, lost(&2)), [why, "defer, boot grace"]);
}

#[test]
fn a_boot_grace_is_told_beside_its_name_also_where_there_is_an_owner() {
    let registry = Registry::new();
    let policy = Policy::builder()
        .boot_grace(AN_HOUR)
        .stale_after(NANOSECOND)
        .hard_deadline(2 * HARD_DEADLINE)
        .marking_stage(MARKING)
        .build()
        .unwrap();
    let reaper = Reaper::new(&registry, policy);
    let pulse = Pulse::new();
    let _stale = registry.mark(7, monitor().with_pulse(pulse.clone()));
    wait_until("a pulse of some age", || pulse.age() > NANOSECOND);
    let [why, what] = words(&reaper, &finished(&7));
    assert!(why.starts_with("tier 2: defer, boot grace of 3600s, owned by run 42 at `gates`, generation {g}"), "{why}");
    assert!(what.starts_with("defer, boot grace, owned by run 42 at `gates`, generation {g}"), "{what}");
}

#[test]
fn a_conflict_is_told_in_words() {
    let registry = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |job| {
        std::mem::forget(registry.mark(job.id, monitor()));
        Finalizer::new(None, "reaper")
    });
    let what = "defer, claim conflict by run 42 at `gates`, generation {g}, for {age}";
    let ages = "finished for 301s, past finalize_grace of 300s; running for 400s, within hard_deadline of 3600s";
    assert_eq!(words(&reaper, &finished(&7)), [&*format!("tier 2: {what}; {ages}"), what]);
}

#[test]
fn contexts_of_another_kind_are_told_by_generation_and_age() {
    let registry: Registry<u64, &str> = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |_| "reaper");
    let guard = registry.mark(7, "monitor");
    let verdict = reaper.sweep().judge(&finished(&7));
    let text = without_passing_time(&verdict.to_string(), Some(guard.generation()));
    assert_eq!(text, "defer, owned by generation {g}, for {age}");
}

#[test]
fn spans_of_time_are_told_to_the_millisecond() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let shown = |running_for| {
        let job = RunningJob { running_for, ..running(&7) };
        let mut sweep = reaper.sweep();
        sweep.judge(&job).explain(&job, sweep.policy()).to_string()
    };
    assert!(shown(Duration::new(10, 123_456_789)).contains("running for 10.123s,"));
    assert!(shown(Duration::from_nanos(10_999_999)).contains("running for 10ms,"));
    assert!(shown(Duration::from_nanos(999_999)).contains("running for 999.999µs,"));
    assert!(shown(Duration::ZERO).contains("running for 0ns,"));
    assert!(shown(Duration::MAX).contains("running for 18446744073709551615.999s, past"));
}
