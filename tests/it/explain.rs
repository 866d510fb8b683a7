//! Verdicts in words: the exact texts of an explanation and of `Display`, what is ahead, and what is news.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use livemark::{
    Cause, Finalizer, Generation, Mode, Policy, Proposed, Pulse, Reaper, Registry, RunningJob, StageRules, Sweep,
    Verdict,
};

use crate::support::{AN_HOUR, HARD_DEADLINE, MARKING, UNDECLARED, finished, lost, overdue, policy, running, seconds};

fn unmarked(mut job: RunningJob<'_>) -> RunningJob<'_> {
    job.stage = UNDECLARED;
    job
}

fn running_for(age: Duration, mut job: RunningJob<'_>) -> RunningJob<'_> {
    job.running_for = age;
    job
}

fn monitor() -> Finalizer {
    Finalizer::new(Some(42), "gates")
}

/// The texts of the verdict on `job`: why, and what. `{g}` stands for the generation of owner or claim, `{d}` for that
/// of an owner who was displaced, `{age}` for a span of time that passes.
fn words(reaper: &Reaper<'_>, job: &RunningJob<'_>) -> [String; 2] {
    let mut sweep = reaper.sweep();
    let verdict = sweep.judge(job);
    let (generation, displaced) = match &verdict {
        Verdict::Defer(deferral) => (deferral.owner.as_ref().map(|owner| owner.generation), None),
        Verdict::Redrive(claim) | Verdict::Reap(_, claim) => {
            (claim.generation(), claim.displaced().map(|owner| owner.generation))
        }
        Verdict::Healthy | Verdict::DryRun(_) => (None, None),
    };
    let texts = [sweep.explain(job, &verdict).to_string(), verdict.to_string()];
    texts.map(|text| without_passing_time(&text, generation, displaced))
}

fn without_passing_time(text: &str, generation: Option<Generation>, displaced: Option<Generation>) -> String {
    let mut text = text.to_owned();
    for (number, name) in [(displaced, "{d}"), (generation, "{g}")] {
        if let Some(number) = number {
            text = text.replacen(&format!("generation {number}"), &format!("generation {name}"), 1);
        }
    }
    // "generation 3, for 1.2µs" and "pulse 3.4ms ago"
    for (before, end) in [("{g}, for ", [',', ';']), ("{d}, for ", [',', ';']), ("pulse ", [' ', ' '])] {
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
        (
            running(&1),
            "job 1: healthy; running for 10s, within hard_deadline of 3600s; next: reap, backstop, in 3590s",
            "healthy",
        ),
        (
            running(&7).finished_for(seconds(2)).lost_for(seconds(61)),
            "job 7: healthy; finished for 2s, within finalize_grace of 300s; lost for 61s, past lost_grace of 60s; \
             running for 10s, within hard_deadline of 3600s; next: redrive, in 298s",
            "healthy",
        ),
        (
            running(&7).finished_for(seconds(2)).redrives(3),
            "job 7: healthy; finished for 2s, within finalize_grace of 300s; \
             redriven 3 of 3 times; \
             running for 10s, within hard_deadline of 3600s; next: reap, redrives exhausted, in 298s",
            "healthy",
        ),
        (
            finished(&1),
            "job 1: finished: defer, owned by run 42 at `gates`, generation {g}, for {age}; \
             finished for 301s, past finalize_grace of 300s; \
             running for 400s, within hard_deadline of 3600s; next: reap, backstop, in 3200s",
            "defer, owned, owned by generation {g}",
        ),
        (
            lost(&2),
            "job 2: lost: defer, owned by a claim at `merge`, generation {g}, for {age}, pulse {age} ago; \
             lost for 61s, past lost_grace of 60s; \
             running for 400s, within hard_deadline of 3600s; next: reap, backstop, in 3200s",
            "defer, owned, owned by generation {g}",
        ),
        (
            lost(&7).held(true),
            "job 7: lost: defer, held; lost for 61s, past lost_grace of 60s; \
             running for 400s, within hard_deadline of 3600s; next: reap, backstop, in 3200s",
            "defer, held",
        ),
        (
            finished(&1).held(true),
            "job 1: finished: defer, held, owned by run 42 at `gates`, generation {g}, for {age}; \
             finished for 301s, past finalize_grace of 300s; \
             running for 400s, within hard_deadline of 3600s; next: reap, backstop, in 3200s",
            "defer, held, owned by generation {g}",
        ),
        (
            finished(&7),
            "job 7: finished: redrive, claimed as generation {g}; \
             finished for 301s, past finalize_grace of 300s; running for 400s, within hard_deadline of 3600s",
            "redrive, claimed as generation {g}",
        ),
        (
            finished(&7).redrives(4),
            "job 7: finished: reap, redrives exhausted, claimed as generation {g}; \
             finished for 301s, past finalize_grace of 300s; redriven 4 of 3 times; \
             running for 400s, within hard_deadline of 3600s",
            "reap, redrives exhausted, claimed as generation {g}",
        ),
        (
            lost(&7),
            "job 7: lost: reap, worker lost, claimed as generation {g}; \
             lost for 61s, past lost_grace of 60s; running for 400s, within hard_deadline of 3600s",
            "reap, worker lost, claimed as generation {g}",
        ),
        (
            overdue(&4),
            "job 4: deadline: reap, backstop, claimed as generation {g}; running for 3601s, past hard_deadline of 3600s",
            "reap, backstop, claimed as generation {g}",
        ),
        (
            overdue(&3).finished_for(seconds(301)),
            "job 3: deadline: reap, backstop, claimed as generation {g}, \
             displacing run 42 at `gates`, generation {d}, for {age}; \
             finished for 301s, past finalize_grace of 300s; running for 3601s, past hard_deadline of 3600s",
            "reap, backstop, claimed as generation {g}",
        ),
        (
            unmarked(finished(&7)),
            "job 7: finished: redrive, without a claim in a stage that does not mark; \
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
    let next = "next: reap, backstop, in 3200s";
    let _monitor = registry.mark(1, monitor());
    let with = |policy: Policy, job| words(&Reaper::new(&registry, policy), &job);

    let ignored = with(policy().with_mode(Mode::Ignore), finished(&1));
    assert_eq!(ignored, [&*format!("job 1: finished: redrive, without a claim in mode ignore; {ages}"), "redrive"]);
    let dry = with(policy().with_mode(Mode::DryRun), overdue(&1));
    let [why, what] = dry;
    let displaces = "job 1: deadline: reap, backstop, displacing run 42 at `gates`, generation ";
    assert!(why.starts_with(displaces) && what == "dry run: reap, backstop", "{why}");
    let ends = ", not to be done in mode dry_run; running for 3601s, past hard_deadline of 3600s";
    assert!(why.ends_with(ends), "{why}");
    let dry = with(policy().with_mode(Mode::DryRun), finished(&2));
    assert_eq!(
        dry,
        [&*format!("job 2: finished: redrive, not to be done in mode dry_run; {ages}"), "dry run: redrive"]
    );
    let deferred = with(policy().with_mode(Mode::DeferAll), finished(&1));
    let why = "finished: defer, defer all, owned by run 42 at `gates`, generation {g}, for {age}";
    assert_eq!(deferred, [&*format!("job 1: {why}; {ages}; {next}"), "defer, defer all, owned by generation {g}"]);
    let deferred = with(policy().with_mode(Mode::DeferAll), finished(&2));
    assert_eq!(deferred, [&*format!("job 2: finished: defer, defer all; {ages}; {next}"), "defer, defer all"]);

    let boot = Policy::builder().boot_grace(AN_HOUR).no_backstop().marking_stage(MARKING).build().unwrap();
    let why = "job 2: lost: defer, boot grace of 3600s; \
               lost for 61s, past lost_grace of 60s; running for 400s, no backstop; next: reap, worker lost, in 359";
    let [seen, what] = with(boot, lost(&2));
    assert!(seen.starts_with(why) && what == "defer, boot grace", "{seen}");
}

fn watching() -> Policy {
    policy().to_builder().stale_after(seconds(600)).build().unwrap()
}

#[test]
fn a_boot_grace_is_told_beside_its_name_also_where_there_is_an_owner() {
    let registry = Registry::new();
    let policy = watching().to_builder().boot_grace(AN_HOUR).hard_deadline(2 * HARD_DEADLINE).build().unwrap();
    let reaper = Reaper::new(&registry, policy);
    let _stale = registry.mark(7, monitor().with_pulse(Pulse::aged(seconds(601))));
    let [why, what] = words(&reaper, &finished(&7));
    let expected = "job 7: finished: defer, boot grace of 3600s, owned by run 42 at `gates`, generation {g}";
    assert!(why.starts_with(expected), "{why}");
    assert!(why.contains("; without progress for 60") && why.contains(", past stale_after of 600s; "), "{why}");
    assert_eq!(what, "defer, boot grace, owned by generation {g}");
}

#[test]
fn a_pulse_is_told_beside_its_limit() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, watching());
    let guard = registry.mark(7, monitor().with_pulse(Pulse::aged(seconds(500))));
    let [why, _] = words(&reaper, &finished(&7));
    assert!(why.contains("; without progress for 50"), "{why}");
    assert!(why.contains("s, within stale_after of 600s; "), "{why}");
    assert!(why.contains("; next: redrive, in 9"), "{why}");

    assert!(guard.replace(monitor().with_pulse(Pulse::aged(seconds(601)))));
    let [why, _] = words(&reaper, &finished(&7));
    let expected = "job 7: finished: redrive, claimed as generation {g}, \
                    displacing run 42 at `gates`, generation {d}, for {age}, pulse {age} ago; ";
    assert!(why.starts_with(expected), "{why}");
}

#[test]
fn a_conflict_is_told_in_words() {
    let registry = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |job| {
        let _ = registry.mark(*job.id, monitor()).detach();
        Finalizer::new(None, "reaper")
    });
    let why = "job 7: finished: defer, claim conflict by run 42 at `gates`, generation {g}, for {age}; \
               finished for 301s, past finalize_grace of 300s; \
               running for 400s, within hard_deadline of 3600s; next: reap, backstop, in 3200s";
    assert_eq!(words(&reaper, &finished(&7)), [why, "defer, claim conflict, owned by generation {g}"]);
}

#[test]
fn contexts_are_told_by_their_kind_or_as_the_reaper_is_told() {
    #[derive(Clone)]
    struct Deployment(&'static str);
    fn why<V: Clone + Send + Sync + 'static>(reaper: &Reaper<'_, u64, V>, job: &RunningJob<'_>) -> String {
        let mut sweep = reaper.sweep();
        let verdict = sweep.judge(job);
        let Verdict::Defer(deferral) = &verdict else { panic!("not deferred") };
        let generation = deferral.owner.as_ref().map(|owner| owner.generation);
        without_passing_time(&sweep.explain(job, &verdict).to_string(), generation, None)
    }
    let texts: Registry<u64, &str> = Registry::new();
    let _guard = texts.mark(7, "monitor\n2");
    let reaper = Reaper::with_claim(&texts, policy(), |_| "reaper");
    let expected = r"job 7: finished: defer, owned by monitor\n2, generation {g}, for {age}; ";
    assert!(why(&reaper, &finished(&7)).starts_with(expected), "{}", why(&reaper, &finished(&7)));

    let registry: Registry<u64, Deployment> = Registry::new();
    let _guard = registry.mark(7, Deployment("a1\nERROR"));
    let reaper = || Reaper::with_claim(&registry, policy(), |_| Deployment("reaper"));
    let unknown = why(&reaper(), &finished(&7));
    assert!(unknown.starts_with("job 7: finished: defer, owned by generation {g}, for {age}; "), "{unknown}");
    let known = why(&reaper().with_summary(|deployment, f| write!(f, "host {}", deployment.0)), &finished(&7));
    let expected = r"job 7: finished: defer, owned by host a1\nERROR, generation {g}, for {age}; ";
    assert!(known.starts_with(expected), "{known}");
}

#[test]
fn spans_of_time_are_told_to_the_millisecond() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let shown = |age| {
        let job = running_for(age, running(&7));
        let mut sweep = reaper.sweep();
        let verdict = sweep.judge(&job);
        sweep.explain(&job, &verdict).to_string()
    };
    assert!(shown(Duration::new(10, 123_456_789)).contains("running for 10.123s,"));
    assert!(shown(Duration::from_nanos(10_999_999)).contains("running for 10ms,"));
    assert!(shown(Duration::from_nanos(999_999)).contains("running for 999.999µs,"));
    assert!(shown(Duration::ZERO).contains("running for 0ns,"));
    assert!(shown(Duration::MAX).contains("running for 18446744073709551615.999s, past"));
}

// Ids

#[test]
fn text_cannot_forge_a_line() {
    let registry: Registry<String> = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let id = "7\nERROR job 8: reaped\u{202e}\\".to_owned();
    let _guard = registry.mark(id.clone(), Finalizer::new(Some(1), "ga\r\ntes"));
    let job = RunningJob::new(&id, MARKING, seconds(400)).finished_for(seconds(301));
    let mut sweep = reaper.sweep();
    let verdict = sweep.judge(&job);
    let text = sweep.explain(&job, &verdict).to_string();
    let expected = r"job 7\nERROR job 8: reaped\u{202e}\\: finished: defer, owned by run 1 at `ga\r\ntes`, generation ";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(text.lines().count(), 1);
    assert_eq!(format!("{:?}", sweep.explain(&job, &verdict)).lines().count(), 1);
}

#[test]
fn ids_are_shown_as_the_registry_shows_them() {
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct JobId(&'static str, u32);
    let shown = |registry: &Registry<JobId>| {
        let reaper = Reaper::new(registry, policy());
        let job = RunningJob::new(&JobId("de\nploys", 7), MARKING, seconds(10));
        let mut sweep = reaper.sweep();
        let verdict = sweep.judge(&job);
        sweep.explain(&job, &verdict).to_string()
    };
    let by_type = shown(&Registry::new());
    assert!(by_type.starts_with("job ") && by_type.contains("JobId: healthy; "), "{by_type}");
    static SHOWING: Registry<JobId> = Registry::new().showing(|id, f| write!(f, "{}/{}", id.0, id.1));
    assert!(shown(&SHOWING).starts_with(r"job de\nploys/7: healthy; "));
}

#[test]
fn nothing_is_formatted_or_looked_up_until_it_is_asked() {
    thread_local! {
        static SHOWN: Cell<u64> = const { Cell::new(0) };
        static HASHED: Cell<u64> = const { Cell::new(0) };
    }
    #[derive(Clone, PartialEq, Eq)]
    struct Job(u64);
    impl std::hash::Hash for Job {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            HASHED.set(HASHED.get() + 1);
            self.0.hash(state);
        }
    }
    let registry: Registry<Job> = Registry::new().showing(|job, f| {
        SHOWN.set(SHOWN.get() + 1);
        write!(f, "{}", job.0)
    });
    let _guard = registry.mark(Job(7), monitor());
    let reaper = Reaper::new(&registry, policy());
    let job = RunningJob::new(&Job(7), MARKING, seconds(400)).finished_for(seconds(301));
    let mut sweep = reaper.sweep();
    let verdict = sweep.judge(&job);
    let counts = || (SHOWN.get(), HASHED.get());
    let before = counts();
    let why = sweep.explain(&job, &verdict);
    let copy = why;
    assert_eq!(counts(), before);
    assert!(copy.upcoming().is_some());
    assert_eq!(SHOWN.get(), before.0, "to look ahead no id is shown");
    assert!(copy.to_string().starts_with("job 7: finished"));
    assert_eq!(SHOWN.get(), before.0 + 1);
}

// What is ahead

/// What comes next for `job`, and in how many seconds, rounded up.
fn ahead(policy: &Policy, registry: &Registry, job: RunningJob<'_>) -> Option<(Proposed, u64)> {
    let reaper = Reaper::new(registry, policy.clone());
    let mut sweep = reaper.sweep();
    let verdict = sweep.judge(&job);
    let (proposed, left) = sweep.explain(&job, &verdict).upcoming()?;
    Some((proposed, left.as_secs() + u64::from(left.subsec_nanos() > 0)))
}

#[test]
fn a_healthy_jobs_trigger_is_ahead() {
    let registry = Registry::new();
    let backstop = |left| Some((Proposed::Reap(Cause::Backstop), left));
    let next = |job| ahead(&policy(), &registry, job);
    assert_eq!(next(running(&7)), backstop(3590));
    assert_eq!(next(running(&7).finished_for(seconds(10))), Some((Proposed::Redrive, 290)));
    assert_eq!(next(running(&7).finished_for(seconds(300))), Some((Proposed::Redrive, 0)), "exactly at the limit");
    let exhausted = Some((Proposed::Reap(Cause::RedrivesExhausted), 290));
    assert_eq!(next(running(&7).finished_for(seconds(10)).redrives(3)), exhausted);
    assert_eq!(next(running(&7).lost_for(seconds(20))), Some((Proposed::Reap(Cause::WorkerLost), 40)));
    let both = running(&7).lost_for(seconds(20)).finished_for(seconds(10));
    assert_eq!(next(both), Some((Proposed::Redrive, 290)), "it is finished, and not lost");
    let old = |job| running_for(seconds(3500), job);
    assert_eq!(next(old(running(&7).finished_for(seconds(10)))), backstop(100), "which is sooner");
    assert_eq!(next(old(running(&7).finished_for(seconds(200)))), backstop(100), "of two at once the deadline");
    assert_eq!(next(old(running(&7).finished_for(seconds(201)))), Some((Proposed::Redrive, 99)));
    assert_eq!(next(running(&7).finished_for(seconds(10)).held(true)), backstop(3590));

    // With an owner who lives on.
    let guard = registry.mark(7, monitor());
    assert_eq!(next(running(&7).finished_for(seconds(10))), backstop(3590));
    assert_eq!(next(unmarked(running(&7).finished_for(seconds(10)))), Some((Proposed::Redrive, 290)));
    let ignoring = ahead(&policy().with_mode(Mode::Ignore), &registry, running(&7).finished_for(seconds(10)));
    assert_eq!(ignoring, Some((Proposed::Redrive, 290)));
    // With a pulse that is watched, what comes later of the grace and the pulse's limit.
    assert!(guard.replace(monitor().with_pulse(Pulse::aged(seconds(500)))));
    let watched = |job| ahead(&watching(), &registry, job);
    assert_eq!(watched(running(&7).finished_for(seconds(10))), Some((Proposed::Redrive, 290)));
    assert_eq!(watched(running(&7).finished_for(seconds(290))), Some((Proposed::Redrive, 100)));
    assert_eq!(next(running(&7).finished_for(seconds(10))), backstop(3590), "nobody watches it");
}

#[test]
fn what_is_ahead_of_a_deferred_job_is_the_end_of_the_reason() {
    let registry = Registry::new();
    let backstop = Some((Proposed::Reap(Cause::Backstop), 3200));
    let redrive = |left| Some((Proposed::Redrive, left));
    let _guards = [
        registry.mark(1, monitor()),
        registry.mark(2, monitor().with_pulse(Pulse::aged(seconds(500)))),
        registry.mark(3, monitor().with_pulse(Pulse::aged(seconds(601)))),
    ];
    assert_eq!(ahead(&policy(), &registry, finished(&1)), backstop, "an owner without a pulse");
    assert_eq!(ahead(&policy(), &registry, finished(&2)), backstop, "a pulse without a limit");
    assert_eq!(ahead(&watching(), &registry, finished(&1)), backstop);
    assert_eq!(ahead(&watching(), &registry, finished(&2)), redrive(100));
    let lost_soon = Some((Proposed::Reap(Cause::WorkerLost), 100));
    assert_eq!(ahead(&watching(), &registry, lost(&2)), lost_soon);
    let dry = watching().with_mode(Mode::DryRun);
    assert_eq!(ahead(&dry, &registry, finished(&2)), redrive(100), "as in honor");

    for mode in [Mode::Honor, Mode::Ignore, Mode::DryRun] {
        assert_eq!(ahead(&policy().with_mode(mode), &registry, finished(&7).held(true)), backstop, "{mode}");
    }
    assert_eq!(ahead(&policy().with_mode(Mode::DeferAll), &registry, finished(&7)), backstop);
    assert_eq!(ahead(&policy().with_mode(Mode::DeferAll), &registry, finished(&3)), backstop);

    let booting = watching().to_builder().boot_grace(seconds(50)).build().unwrap();
    assert_eq!(ahead(&booting, &registry, finished(&7)), redrive(50));
    assert_eq!(ahead(&booting, &registry, finished(&3)), redrive(50), "an owner who made no progress");
    assert_eq!(ahead(&booting, &registry, finished(&2)), redrive(100), "the owner keeps it longer");
    assert_eq!(ahead(&booting, &registry, running(&7).finished_for(seconds(280))), redrive(50), "a healthy one");
    assert_eq!(ahead(&booting, &registry, finished(&1)), backstop);
}

#[test]
fn nothing_is_ahead_of_a_verdict_that_acts_or_would() {
    let registry = Registry::new();
    for mode in [Mode::Honor, Mode::Ignore, Mode::DryRun] {
        let policy = policy().with_mode(mode);
        for job in [finished(&7), finished(&7).redrives(3), lost(&7), overdue(&7), unmarked(finished(&7))] {
            assert_eq!(ahead(&policy, &registry, job), None, "{mode}: {job:?}");
        }
    }
}

#[test]
fn without_a_backstop_there_may_be_nothing_ahead() {
    let registry = Registry::new();
    let endless = Policy::builder().no_backstop().marking_stage(MARKING);
    let endless = endless.stage("brief", StageRules::marking().hard_deadline(HARD_DEADLINE)).build().unwrap();
    let _guard = registry.mark(7, monitor());
    let next = |job| ahead(&endless, &registry, job);
    assert_eq!(next(running(&8)), None);
    assert_eq!(next(finished(&7)), None, "its owner keeps it for ever");
    assert_eq!(next(finished(&8).held(true)), None);
    assert_eq!(next(running(&8).finished_for(seconds(10))), Some((Proposed::Redrive, 290)));
    let mut brief = finished(&7);
    brief.stage = "brief";
    assert_eq!(next(brief), Some((Proposed::Reap(Cause::Backstop), 3200)));
    let text = words(&Reaper::new(&registry, endless.clone()), &running(&8));
    assert_eq!(text[0], "job 8: healthy; running for 10s, no backstop");
}

// What is news

#[test]
fn a_deferral_is_news_when_it_begins_and_when_its_reason_changes() {
    fn is_news(sweep: &mut Sweep<'_, '_>, job: RunningJob<'_>) -> bool {
        let verdict = sweep.judge(&job);
        sweep.explain(&job, &verdict).is_news()
    }
    let registry: Arc<Registry> = Arc::default();
    let reaper = Reaper::new(&registry, policy());
    let guard = registry.mark(7, monitor());
    let in_a_sweep = |job| is_news(&mut reaper.sweep(), job);
    assert!(!in_a_sweep(running(&7)), "a healthy job never is");
    assert_eq!([(); 3].map(|()| in_a_sweep(finished(&7))), [true, false, false]);
    assert!(!in_a_sweep(lost(&7)), "another trigger, for the same reason");
    assert!(in_a_sweep(finished(&7).held(true)) && !in_a_sweep(finished(&7).held(true)), "another reason");
    assert!(in_a_sweep(finished(&7)));
    assert!(!in_a_sweep(running(&7)));
    assert!(in_a_sweep(finished(&7)), "the sweep before deferred nothing");

    reaper.set_mode(Mode::DryRun);
    assert!(!in_a_sweep(finished(&7)), "it is told already");
    drop(guard);
    assert!(in_a_sweep(finished(&7)) && !in_a_sweep(finished(&7)), "a dry run's proposal");
    assert!(in_a_sweep(finished(&7).redrives(3)) && in_a_sweep(overdue(&7)), "another one");
    reaper.set_mode(Mode::Honor);
    assert!(in_a_sweep(finished(&7)) && in_a_sweep(finished(&7)), "what acts always is");

    let _guards = [registry.mark(8, monitor()), registry.mark(9, monitor())];
    let mut sweep = reaper.sweep();
    assert!(is_news(&mut sweep, finished(&8)) && is_news(&mut sweep, finished(&9)), "each for itself");
    drop(sweep);
    assert!(!in_a_sweep(finished(&9)));
    assert!(in_a_sweep(finished(&8)), "only the latest sweep is remembered");
}
