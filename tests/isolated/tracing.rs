//! What is reported through `tracing`: which events, at which level, with which fields.
//!
//! Which call sites are of interest to a subscriber is known per process, not per thread: a thread without one may hide
//! an event from the others.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::hash::Hash;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use livemark::{
    Cause, Claim, DeferReason, Finalizer, JobStore, Mode, Outcome, OwnedMarkGuard, Policy, Pulse, Reaper, Registry,
    RunError, RunningJob, Verdict,
};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::process::isolated;
use crate::support::{HARD_DEADLINE, MARKING, UNDECLARED, finished, lost, overdue, policy, running, seconds, troubled};

/// An event, as a subscriber sees it.
#[derive(Debug)]
struct Seen {
    target: String,
    level: Level,
    message: String,
    fields: BTreeMap<&'static str, String>,
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("no field {name:?} in {self:?}"))
    }

    /// Checks the fields but `age_ms`, by name and value, and that there are no others.
    #[track_caller]
    fn assert_is(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        assert_eq!((self.target.as_str(), self.level, self.message.as_str()), ("livemark", level, message));
        let seen: Vec<_> = self
            .fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .filter(|(name, _)| *name != "age_ms")
            .collect();
        let mut expected = fields.to_vec();
        expected.sort_unstable();
        assert_eq!(seen, expected, "of {message:?}");
    }
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.message = value;
        } else {
            self.fields.insert(field.name(), value);
        }
    }
}

/// Keeps all events.
struct Recorder(Arc<Mutex<Vec<Seen>>>);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut seen = Seen {
            target: metadata.target().to_owned(),
            level: *metadata.level(),
            message: String::new(),
            fields: BTreeMap::new(),
        };
        event.record(&mut seen);
        self.0.lock().unwrap().push(seen);
    }
}

/// What `call` reports on this thread.
fn events(call: impl FnOnce()) -> Vec<Seen> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::registry().with(Recorder(Arc::clone(&seen)));
    tracing::subscriber::with_default(subscriber, call);
    std::mem::take(&mut *seen.lock().unwrap())
}

/// The only event of `call`.
#[track_caller]
fn event(call: impl FnOnce()) -> Seen {
    let mut events = events(call);
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

#[test]
fn marks_and_clears_are_traced_with_job_and_generation() {
    isolated!();
    let registry: Registry<u64, &str> = Registry::new();
    let mut guard = None;
    let mark = event(|| guard = Some(registry.mark(7, "run 1")));
    let guard = guard.unwrap();
    let generation = guard.generation().to_string();
    mark.assert_is(Level::TRACE, "mark", &[("job", "7"), ("generation", &generation), ("displaced", "false")]);

    let clear = event(|| drop(guard));
    clear.assert_is(Level::TRACE, "clear", &[("job", "7"), ("generation", &generation)]);
}

#[test]
fn a_displacing_mark_says_so_and_a_late_release_is_a_stale_clear() {
    isolated!();
    let registry: Registry<u64, &str> = Registry::new();
    let first = registry.mark(7, "run 1");
    let mut second = None;
    let mark = event(|| second = Some(registry.mark(7, "run 2")));
    let newer = second.as_ref().unwrap().generation().to_string();
    mark.assert_is(Level::DEBUG, "mark", &[("job", "7"), ("generation", &newer), ("displaced", "true")]);

    let generation = first.generation().to_string();
    let clear = event(|| drop(first));
    clear.assert_is(Level::TRACE, "stale clear", &[("job", "7"), ("generation", &generation)]);
}

#[test]
fn each_way_to_mark_and_to_clear_is_traced() {
    isolated!();
    let registry: Arc<Registry<u64, &str>> = Arc::new(Registry::new());
    let names = |events: Vec<Seen>| events.into_iter().map(|seen| seen.message).collect::<Vec<_>>();
    let mut late = None;
    let seen = names(events(|| {
        assert!(registry.mark_owned(7, "run 1").clear());
        assert!(registry.try_mark(7, "run 1").unwrap().clear());
        let guard = registry.try_mark_owned(7, "run 1").unwrap();
        assert!(registry.clear_generation(&7, guard.generation()));
        // Its late release is a stale clear, which is reported as well: after this. Forgotten, it would keep the
        // registry for ever.
        late = Some(guard);
        std::mem::forget(registry.mark(7, "run 1"));
        assert!(registry.clear(&7));
        assert!(livemark::RegistryHandle::from(&registry).mark(7, "run 1").clear());
        drop(Claim::from(registry.mark(7, "run 1")));
    }));
    drop(late);
    assert_eq!(seen, ["mark", "clear"].repeat(6));

    let nothing = names(events(|| {
        let guard = registry.mark(8, "run 1");
        std::mem::forget(guard);
        assert!(!registry.clear(&7));
        assert!(registry.try_mark(8, "run 2").is_err());
        assert!(registry.is_active(&8) && registry.owner(&8).is_some());
    }));
    assert_eq!(nothing, ["mark"], "what changed nothing is not reported");
}

#[test]
fn a_mark_that_is_left_standing_says_so() {
    isolated!();
    let registry: Registry<u64, &str> = Registry::new();
    let guard = registry.mark(7, "run 1");
    let generation = guard.generation();
    let mut detached = None;
    let event = event(|| detached = Some(guard.detach()));
    event.assert_is(Level::TRACE, "detach", &[("job", "7"), ("generation", &generation.to_string())]);
    assert_eq!(detached, Some(generation));
}

#[test]
fn a_deferral_is_reported_with_its_owner() {
    isolated!();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let guard = registry.mark(7, Finalizer::new(Some(42), "gates"));
    let defer = event(|| drop(reaper.sweep().judge(&finished(&7))));
    let generation = guard.generation().to_string();
    defer.assert_is(
        Level::INFO,
        "defer",
        &[("job", "7"), ("reason", "owned"), ("run_id", "42"), ("stage", "gates"), ("generation", &generation)],
    );
    let age: u128 = defer.field("age_ms").parse().unwrap();
    assert!(age <= registry.owner(&7).unwrap().age().as_millis());
}

#[test]
fn a_deferral_to_an_owner_without_a_run_says_none() {
    isolated!();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _guard = registry.mark(7, Finalizer::new(None, "gates"));
    let defer = event(|| drop(reaper.sweep().judge(&lost(&7))));
    assert!(!defer.fields.contains_key("run_id"));
}

#[test]
fn a_deferral_to_an_owner_of_another_kind_is_reported_as_well() {
    isolated!();
    let registry: Registry<u64, &str> = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |_| "reaper");
    let _guard = registry.mark(7, "monitor");
    let defer = event(|| drop(reaper.sweep().judge(&finished(&7))));
    assert_eq!((defer.message.as_str(), defer.fields.contains_key("run_id")), ("defer", false));
}

#[test]
fn a_claim_conflict_is_reported_as_a_deferral() {
    isolated!();
    let registry: Registry<u64, Finalizer> = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |job| {
        let _ = registry.mark(*job.id, Finalizer::new(Some(42), "gates")).detach();
        Finalizer::new(None, "reaper")
    });
    let seen = events(|| drop(reaper.sweep().judge(&finished(&7))));
    let [mark, detach, defer] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!([&mark.message, &detach.message], ["mark", "detach"]);
    assert_eq!((defer.field("reason"), defer.field("run_id")), ("claim conflict", "42"));
}

#[test]
fn deferrals_for_nobodys_sake_say_their_reason() {
    isolated!();
    let registry: Registry = Registry::new();
    let boot = policy().to_builder().boot_grace(HARD_DEADLINE / 2).build().unwrap();
    let cases = [
        (boot, finished(&7), "boot grace"),
        (policy().with_mode(Mode::DeferAll), finished(&7), "defer all"),
        (policy(), finished(&7).held(true), "held"),
    ];
    for (policy, job, reason) in cases {
        let reaper = Reaper::new(&registry, policy);
        let defer = event(|| drop(reaper.sweep().judge(&job)));
        defer.assert_is(Level::INFO, "defer", &[("job", "7"), ("reason", reason)]);
        assert!(!defer.fields.contains_key("age_ms"), "of nobody");
    }
}

#[test]
fn a_deferral_in_defer_all_names_the_owner_that_there_is() {
    isolated!();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy().with_mode(Mode::DeferAll));
    let guard = registry.mark(7, Finalizer::new(Some(42), "gates"));
    let generation = guard.generation().to_string();
    let defer = event(|| drop(reaper.sweep().judge(&finished(&7))));
    let fields = [("job", "7"), ("reason", "defer all"), ("run_id", "42"), ("stage", "gates")];
    defer.assert_is(Level::INFO, "defer", &[&fields[..], &[("generation", &generation)]].concat());
}

#[test]
fn a_dry_run_reports_what_it_would_do_and_why() {
    isolated!();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy().with_mode(Mode::DryRun));
    let _guard = registry.mark(1, Finalizer::new(Some(42), "gates"));
    for (job, verdict) in [
        (finished(&2), "job 2: finished: redrive, not to be done in mode dry_run; finished for 301s"),
        (finished(&2).redrives(3), "job 2: finished: reap, redrives exhausted, not to be done in mode dry_run; "),
        (lost(&2), "job 2: lost: reap, worker lost, not to be done in mode dry_run; lost for 61s"),
        (overdue(&1), "job 1: deadline: reap, backstop, displacing run 42 at `gates`, generation "),
        (finished(&1), "job 1: finished: defer, owned by run 42 at `gates`, generation "),
        (finished(&1).held(true), "job 1: finished: defer, held, owned by run 42 at `gates`, generation "),
    ] {
        let seen = event(|| drop(reaper.sweep().judge(&job)));
        let text = seen.field("verdict");
        assert!(text.starts_with(verdict), "{text}");
        seen.assert_is(Level::INFO, "dry run", &[("job", &job.id.to_string()), ("verdict", text)]);
    }
    assert!(events(|| drop(reaper.sweep().judge(&running(&1)))).is_empty());
}

/// When it begins and when its reason changes it is an `info` event, and `debug` as long as it goes on.
#[test]
fn a_deferral_is_told_once_at_a_level_that_people_read() {
    isolated!();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _guards = [7, 8].map(|job| registry.mark(job, Finalizer::new(Some(42), "gates")));
    let level = |job: RunningJob<'_>| {
        let defer = event(|| drop(reaper.sweep().judge(&job)));
        assert_eq!(defer.message, "defer");
        defer.level
    };
    assert_eq!([(); 3].map(|()| level(finished(&7))), [Level::INFO, Level::DEBUG, Level::DEBUG]);
    let held = || finished(&7).held(true);
    assert_eq!([level(held()), level(held()), level(finished(&7))], [Level::INFO, Level::DEBUG, Level::INFO]);
    assert!(events(|| drop(reaper.sweep().judge(&running(&7)))).is_empty());
    assert_eq!(level(finished(&7)), Level::INFO, "it begins anew");
    assert_eq!([level(finished(&8)), level(finished(&7))], [Level::INFO; 2], "only the latest sweep is remembered");
    let seen = events(|| {
        let mut sweep = reaper.sweep();
        for job in [finished(&7), finished(&8), finished(&7)] {
            drop(sweep.judge(&job));
        }
    });
    let levels: Vec<_> = seen.iter().map(|seen| seen.level).collect();
    assert_eq!(levels, [Level::DEBUG, Level::INFO, Level::DEBUG], "each job for itself");
}

#[test]
fn a_dry_run_tells_each_of_its_findings_once_as_well() {
    isolated!();
    let registry: Registry = Registry::new();
    let _other = registry.mark(8, Finalizer::new(Some(42), "gates"));
    let reaper = Reaper::new(&registry, policy().with_mode(Mode::DryRun));
    let level = |job: RunningJob<'_>| {
        let seen = event(|| drop(reaper.sweep().judge(&job)));
        assert_eq!(seen.message, "dry run");
        seen.level
    };
    assert_eq!([(); 3].map(|()| level(finished(&7))), [Level::INFO, Level::DEBUG, Level::DEBUG]);
    let exhausted = || finished(&7).redrives(3);
    assert_eq!([level(exhausted()), level(exhausted()), level(lost(&7))], [Level::INFO, Level::DEBUG, Level::INFO]);
    let guard = registry.mark(7, Finalizer::new(Some(42), "gates"));
    assert_eq!([level(lost(&7)), level(finished(&7))], [Level::INFO, Level::DEBUG], "deferred, for one reason");
    drop(guard);
    assert_eq!(level(overdue(&7)), Level::INFO);
}

/// A stage that is misspelled would bring the incident back in silence, and a registry of one's own as well.
///
/// Seen to fail before there were such warnings.
#[test]
fn what_a_dry_run_could_hide_is_warned_of() {
    isolated!();
    let registry = Registry::new();
    let warned = |reaper: &Reaper<'_>, job: RunningJob<'_>| {
        let seen = events(|| drop(reaper.sweep().judge(&job)));
        seen.into_iter().filter(|seen| seen.level == Level::WARN).map(|seen| seen.message).collect::<Vec<_>>()
    };
    let dry = Reaper::new(&registry, policy().with_mode(Mode::DryRun));
    let no_mark = "no job was ever marked in the reaper's registry: do the monitors mark in another one?";
    assert_eq!(warned(&dry, finished(&7)), [no_mark]);
    assert!(warned(&dry, finished(&8)).is_empty(), "once");

    let _guard = registry.mark(7, Finalizer::new(Some(42), "gates"));
    let misspelled = "the job is marked, but its stage is not declared as marking, so that its owner is not deferred to: \
                    is the stage misspelled?";
    let job = || RunningJob::new(&7, UNDECLARED, seconds(400)).finished_for(seconds(301));
    assert_eq!(warned(&dry, job()), [misspelled]);
    assert!(warned(&dry, job()).is_empty(), "once, as long as nothing changes");
    let reaper = Reaper::new(&registry, policy());
    assert_eq!(warned(&reaper, job()), [misspelled, "redrive"]);
    reaper.set_mode(Mode::Ignore);
    drop(reaper.sweep());
    assert_eq!(warned(&reaper, job()), ["redrive"], "the registry is not asked");
}

/// Seen to fail before there was such a warning.
#[test]
fn a_job_that_each_sweep_redrives_is_warned_of() {
    isolated!();
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let redriven = |job: RunningJob<'_>| {
        let seen = events(|| drop(reaper.sweep().judge(&job)));
        seen.iter().filter(|seen| seen.message.starts_with("the sweep before redrove")).count()
    };
    assert_eq!([(); 3].map(|()| redriven(finished(&7))), [0, 1, 1]);
    assert_eq!([redriven(running(&7)), redriven(finished(&7))], [0, 0]);
}

#[test]
fn the_loops_failures_are_errors() {
    isolated!();
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let (mut jobs, stop) = troubled("the store is down");
    let mut seen = events(|| reaper.run(Duration::ZERO, &stop, &mut jobs));
    let refused = seen.iter().find(|event| event.message.contains("refused")).expect("of job 3");
    refused.assert_is(
        Level::INFO,
        "the job store refused a verdict: its compare-and-set changed nothing",
        &[("job", "3")],
    );
    seen.retain(|event| event.level == Level::ERROR);
    let expected = [
        "the running jobs cannot be listed: the store is down",
        "a bad row, left out: the store is down",
        "job 1: a verdict could not be carried out: the store is down",
        "job 2: panicked",
    ];
    assert_eq!(jobs.told, expected);
    assert_eq!(seen.len(), expected.len(), "{seen:?}");
    for (event, failure) in seen.iter().zip(expected) {
        event.assert_is(Level::ERROR, "a failure in the reaper's loop", &[("failure", failure)]);
    }
}

#[test]
fn an_owner_without_progress_is_told_of_when_it_is_displaced_and_not_before() {
    isolated!();
    let policy = || Policy::builder().stale_after(seconds(600)).no_backstop().marking_stage(MARKING).build().unwrap();
    let hanging = || Finalizer::new(Some(1), "gates").with_pulse(Pulse::aged(seconds(601)));
    let names = |events: Vec<Seen>| events.into_iter().map(|seen| seen.message).collect::<Vec<_>>();

    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let stale = registry.mark(7, hanging());
    let mut verdict = None;
    let seen = names(events(|| verdict = Some(reaper.sweep().judge(&finished(&7)))));
    assert_eq!(seen, ["mark", "stale owner", "redrive"]);
    assert!(!stale.is_current());

    // Another takes the job over between the look and the claim: nobody is displaced by the reaper.
    let registry: Registry = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |job| {
        std::mem::forget(registry.mark(*job.id, Finalizer::new(Some(2), "gates")));
        Finalizer::new(None, "reaper")
    });
    std::mem::forget(registry.mark(7, hanging()));
    let seen = names(events(|| drop(reaper.sweep().judge(&finished(&7)))));
    assert_eq!(seen, ["mark", "defer"]);
}

#[test]
fn a_loop_that_was_told_to_stop_before_it_began_does_nothing() {
    isolated!();
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let (mut jobs, stop) = troubled("the store is down");
    stop.stop();
    assert!(events(|| reaper.run(Duration::ZERO, &stop, &mut jobs)).is_empty());
    assert_eq!((jobs.turn, reaper.stats().sweeps), (0, 0));
}

#[test]
fn an_error_that_cannot_be_shown_is_counted_and_costs_no_more() {
    isolated!();
    #[derive(Clone)]
    struct Unspeakable;
    impl Display for Unspeakable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic::resume_unwind(Box::new("a broken Display"))
        }
    }
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let (mut jobs, stop) = troubled(Unspeakable);
    events(|| reaper.run(Duration::ZERO, &stop, &mut jobs));
    let stats = reaper.stats();
    assert_eq!((stats.sweeps, stats.redrives, stats.refused), (2, 3, 1), "all had their turn");
    assert_eq!((stats.failed_listings, stats.bad_rows, stats.failed_actions, stats.panics), (1, 1, 1, 1 + 3));
}

#[test]
fn redrives_and_reaps_are_warnings() {
    isolated!();
    let registry = Registry::new();
    drop(registry.mark(1, Finalizer::new(None, "gates"))); // or there would be one more
    let reaper = Reaper::new(&registry, policy());
    for (job, message, cause) in [
        (finished(&7), "redrive", None),
        (lost(&7), "reap", Some("worker lost")),
        (overdue(&7), "reap", Some("backstop")),
        (finished(&7).redrives(3), "reap", Some("redrives exhausted")),
    ] {
        let mut verdict = None;
        let seen = events(|| verdict = Some(reaper.sweep().judge(&job)));
        let [mark, acted] = &seen[..] else { panic!("{seen:?}") };
        let claim = mark.field("generation");
        assert_eq!((mark.level, mark.message.as_str()), (Level::TRACE, "mark"));
        let mut fields = vec![("job", "7"), ("stage", "merge"), ("claim", claim)];
        fields.extend(cause.map(|cause| ("cause", cause)));
        acted.assert_is(Level::WARN, message, &fields);
    }
}

#[test]
fn a_reaper_whose_registry_nobody_marks_in_is_warned_of_once() {
    isolated!();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    for job in [finished(&7), overdue(&8)] {
        let mut seen = events(|| drop(reaper.sweep().judge(&job)));
        let is_asked = |event: &Seen| event.message.ends_with("do the monitors mark in another one?");
        seen.retain(is_asked);
        match &seen[..] {
            [warning] if *job.id == 7 => {
                warning.assert_is(Level::WARN, &warning.message, &[("job", "7"), ("stage", MARKING)]);
            }
            others => assert!(others.is_empty() && *job.id == 8, "of job {}: {others:?}", job.id),
        }
    }
    // Where monitors do mark there is no such question.
    let registry = Registry::new();
    drop(registry.mark(1, Finalizer::new(None, "gates")));
    let reaper = Reaper::new(&registry, policy());
    let seen = events(|| drop(reaper.sweep().judge(&finished(&7))));
    assert_eq!(seen.len(), 3, "a mark, a redrive and a clear: {seen:?}");
    // Nor, in a dry run, where other processes do, whose marks are mirrored. Seen to fail with fed marks that are none.
    let mirror = Registry::new();
    let dry_run = || {
        let reaper = Reaper::new(&mirror, policy());
        reaper.set_mode(Mode::DryRun);
        events(|| drop(reaper.sweep().judge(&finished(&7))))
    };
    let unmarked = dry_run();
    mirror.feed().put(1, Finalizer::new(None, "gates"), Instant::now());
    let marked = dry_run();
    assert_eq!((unmarked.len(), marked.len()), (marked.len() + 1, marked.len()), "{unmarked:?} {marked:?}");
}

#[test]
fn without_a_claim_a_redrive_says_none() {
    isolated!();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let mut external = finished(&7);
    external.stage = UNDECLARED;
    let redrive = event(|| drop(reaper.sweep().judge(&external)));
    redrive.assert_is(Level::WARN, "redrive", &[("job", "7"), ("stage", UNDECLARED)]);
}

#[test]
fn a_healthy_job_is_not_worth_a_line() {
    isolated!();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    assert!(events(|| drop(reaper.sweep().judge(&running(&7)))).is_empty());
}

/// A subscriber with a bug in it: it panics at every event, or at the question whether it wants one.
struct Broken {
    asked: bool,
}

/// How often one panicked.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn break_down() -> ! {
    PANICS.fetch_add(1, Ordering::SeqCst);
    panic::resume_unwind(Box::new("a broken subscriber"))
}

impl<S: Subscriber> Layer<S> for Broken {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if self.asked && event.metadata().target() == "livemark" {
            break_down();
        }
        true
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "livemark" {
            break_down();
        }
    }
}

/// Makes the call while a panic of the user's own unwinds: another one that got out of it would abort.
fn while_unwinding(call: impl FnOnce()) {
    struct AtLast<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for AtLast<F> {
        fn drop(&mut self) {
            self.0.take().expect("once")();
        }
    }
    let unwound = panic::catch_unwind(AssertUnwindSafe(|| {
        let _at_last = AtLast(Some(call));
        panic::resume_unwind(Box::new("the user's own"));
    }));
    let payload = unwound.expect_err("it unwinds");
    assert_eq!(payload.downcast_ref(), Some(&"the user's own"), "and not the subscriber's");
}

/// Everything that is reported, with a subscriber that panics at it: what it returns and does is as without one.
fn all_that_is_reported() {
    let before = PANICS.load(Ordering::SeqCst);
    let registry: Arc<Registry> = Arc::default();
    let monitor = || Finalizer::new(Some(1), "gates");

    // Marks and clears. A mark that were lost to a panic would stand for ever.
    let first = registry.mark(7, monitor());
    let second = registry.mark(7, monitor());
    assert!(second.is_current() && second.has_displaced() && !first.is_current());
    drop(first);
    assert!(second.clear() && registry.is_empty());
    assert!(registry.try_mark(7, monitor()).is_ok_and(|guard| guard.clear()));
    let detached = registry.mark_owned(7, monitor()).detach();
    assert!(registry.clear_generation(&7, detached));
    std::mem::forget(registry.mark(7, monitor()));
    assert!(registry.clear(&7) && registry.is_empty());

    // While unwinding, where a second panic would abort.
    let guard = registry.mark(7, monitor());
    while_unwinding(|| drop(guard));
    assert!(registry.is_empty());
    let (late, newer) = (registry.mark(7, monitor()), registry.mark(7, monitor()));
    while_unwinding(|| drop((late, registry.mark(8, monitor()).detach())));
    assert!(newer.is_current() && registry.clear(&8));
    drop(newer);

    // Verdicts.
    let watching = policy().to_builder().stale_after(seconds(600)).build().unwrap();
    let reaper = Reaper::new(&registry, watching);
    let owner = registry.mark(1, monitor());
    let hanging = registry.mark(2, monitor().with_pulse(Pulse::aged(seconds(601))));
    for round in 0..2 {
        let mut sweep = reaper.sweep();
        assert!(
            matches!(sweep.judge(&finished(&1)), Verdict::Defer(deferral) if deferral.reason == DeferReason::Owned)
        );
        assert!(matches!(sweep.judge(&finished(&2)), Verdict::Redrive(claim) if claim.is_current()), "{round}");
        assert!(matches!(sweep.judge(&lost(&3)), Verdict::Reap(Cause::WorkerLost, claim) if claim.is_current()));
        assert!(matches!(sweep.judge(&overdue(&4)), Verdict::Reap(Cause::Backstop, claim) if claim.is_current()));
        assert!(matches!(sweep.judge(&finished(&5).held(true)), Verdict::Defer(_)));
    }
    assert!(owner.is_current() && !hanging.is_current());
    reaper.set_mode(Mode::DryRun);
    assert!(matches!(reaper.sweep().judge(&overdue(&1)), Verdict::DryRun(_)));
    while_unwinding(|| drop(reaper.sweep().judge(&overdue(&1))));

    // The loop.
    reaper.set_mode(Mode::Honor);
    drop((owner, hanging));
    let before_the_loop = reaper.stats();
    let (mut jobs, stop) = troubled("the store is down");
    reaper.run(Duration::ZERO, &stop, &mut jobs);
    assert_eq!((jobs.turn, jobs.told.len()), (3, 4), "{:?}", jobs.told);
    let stats = reaper.stats();
    assert_eq!((stats.redrives - before_the_loop.redrives, stats.refused, stats.panics), (3, 1, 1), "its own one");
    assert!(registry.is_empty());
    assert!(PANICS.load(Ordering::SeqCst) >= before + 20, "the subscriber was not asked");
}

#[test]
fn a_subscriber_that_panics_at_every_event_changes_nothing() {
    isolated!();
    for asked in [false, true] {
        let subscriber = tracing_subscriber::registry().with(Broken { asked });
        tracing::subscriber::with_default(subscriber, all_that_is_reported);
    }
}

// Seen to abort with events that were sent outside of a `catch_unwind`.
/// The same for the subscriber of a whole process, on any of its threads, up to the destructors of thread-locals.
#[test]
fn a_broken_subscriber_of_the_whole_process_aborts_nothing() {
    isolated!();

    /// A subscriber that keeps something on each thread, with a destructor.
    struct KeepsBooks(Broken);
    thread_local! {
        static BOOKS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }
    impl<S: Subscriber> Layer<S> for KeepsBooks {
        fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
            BOOKS.with(|books| books.borrow_mut().push(1)); // panics where they are gone
            self.0.on_event(event, context);
        }
        fn enabled(&self, _: &Metadata<'_>, _: Context<'_, S>) -> bool {
            true
        }
    }
    let subscriber = tracing_subscriber::registry().with(KeepsBooks(Broken { asked: false }));
    tracing::subscriber::set_global_default(subscriber).unwrap();
    all_that_is_reported();
    std::thread::spawn(all_that_is_reported).join().unwrap();

    thread_local! {
        static HELD: RefCell<Vec<OwnedMarkGuard>> = const { RefCell::new(Vec::new()) };
    }
    static REGISTRY: Registry = Registry::new();
    // Made before the subscriber's books, and so destroyed after them, or after them and before.
    for books_first in [true, false] {
        let thread = std::thread::spawn(move || {
            if books_first {
                drop(REGISTRY.mark(1, Finalizer::new(None, "gates")));
            }
            HELD.with(|held| {
                let mut held = held.borrow_mut();
                held.push(REGISTRY.mark(7, Finalizer::new(None, "gates")));
                held.push(REGISTRY.mark(7, Finalizer::new(None, "merge")));
            });
        });
        thread.join().expect("the thread ends well");
        assert!(REGISTRY.is_empty());
    }
}

#[test]
fn a_function_that_shows_ids_and_panics_costs_an_event() {
    isolated!();
    let registry: Registry<u64> = Registry::new().showing(|_, _| panic::resume_unwind(Box::new("a broken show")));
    let reaper = Reaper::new(&registry, policy());
    let (mut jobs, stop) = troubled("the store is down");
    let seen = events(|| {
        let guard = registry.mark(7, Finalizer::new(None, "gates"));
        assert!(guard.is_current());
        while_unwinding(|| drop(guard));
        assert!(matches!(reaper.sweep().judge(&finished(&7)), Verdict::Redrive(claim) if claim.is_current()));
        reaper.run(Duration::ZERO, &stop, &mut jobs);
    });
    assert!(registry.is_empty());
    assert!(seen.iter().all(|event| event.level == Level::ERROR), "whatever names no job: {seen:?}");
    assert_eq!((seen.len(), jobs.told[3].as_str()), (4, "job u64: panicked"));
}

#[test]
fn ids_of_the_usual_kinds_are_shown_and_others_by_the_name_of_their_type() {
    isolated!();
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Nameless;
    fn shown<K: Clone + Eq + Hash + Send + Sync + 'static>(job: K) -> String {
        let registry: Registry<K, ()> = Registry::new();
        let guard = registry.mark(job, ());
        event(|| drop(guard)).field("job").to_owned()
    }
    assert_eq!(shown(7_u64), "7");
    assert_eq!(shown(-7_i64), "-7");
    assert_eq!(shown("job-7"), "job-7");
    assert_eq!(shown("job-7".to_owned()), "job-7");
    assert_eq!(shown([0xAB_u8; 16]), "ab".repeat(16));
    assert!(shown(Nameless).ends_with("Nameless"));
}

/// An event goes into one line of a log, whatever is in an id.
#[test]
fn text_in_an_id_cannot_forge_a_line() {
    isolated!();
    let registry: Registry<String> = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let id = "7\nERROR livemark: reap job=8\r\u{1b}[2K\u{2028}".to_owned();
    let expected = r"7\nERROR livemark: reap job=8\r\u{1b}[2K\u{2028}";
    let job = |id| RunningJob::new(id, MARKING, seconds(400)).finished_for(seconds(301));
    let seen = events(|| {
        let guard = registry.mark(id.clone(), Finalizer::new(None, "gates"));
        drop(reaper.sweep().judge(&job(&id)));
        drop(registry.mark(id.clone(), Finalizer::new(None, "gates")));
        drop(guard);
        drop(reaper.sweep().judge(&job(&id)));
        reaper.set_mode(Mode::DryRun);
        drop(reaper.sweep().judge(&job(&id)));
    });
    let messages: Vec<_> = seen.iter().map(|event| event.message.as_str()).collect();
    let all = ["mark", "defer", "mark", "clear", "stale clear", "mark", "redrive", "clear", "dry run"];
    assert_eq!(messages, all);
    for event in &seen {
        assert_eq!(event.field("job"), expected, "{event:?}");
    }
    let verdict = seen.last().unwrap().field("verdict");
    assert!(verdict.starts_with(&format!("job {expected}: finished: redrive")) && verdict.lines().count() == 1);
}

#[test]
fn an_error_of_the_job_store_stays_in_its_line() {
    isolated!();
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let (mut jobs, stop) = troubled("down\nINFO livemark: all is well");
    let mut seen = events(|| reaper.run(Duration::ZERO, &stop, &mut jobs));
    seen.retain(|event| event.level == Level::ERROR);
    assert_eq!(
        seen[2].field("failure"),
        r"job 1: a verdict could not be carried out: down\nINFO livemark: all is well"
    );
    assert!(seen.iter().all(|event| event.field("failure").lines().count() == 1));
}

#[test]
fn ids_are_shown_as_the_registry_is_told_to() {
    isolated!();
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct JobId {
        queue: &'static str,
        number: u64,
    }
    /// A row of each kind of trouble, by its number.
    struct Store;
    impl<'r> JobStore<'r, JobId> for Store {
        type Row = JobId;
        type Error = &'static str;
        type Rows = Vec<Result<JobId, &'static str>>;
        fn list(&mut self) -> Result<Self::Rows, &'static str> {
            Ok([1, 2, 3].map(|number| Ok(JobId { queue: "de\nploys", number })).into())
        }
        fn job<'a>(&self, id: &'a JobId) -> RunningJob<'a, JobId> {
            RunningJob::new(id, MARKING, seconds(400)).finished_for(seconds(301))
        }
        fn redrive(&mut self, id: JobId, _: Claim<'r, JobId>) -> Result<Outcome, &'static str> {
            match id.number {
                1 => Err("busy"),
                2 => panic::resume_unwind(Box::new("blown up")),
                _ => Ok(Outcome::Refused),
            }
        }
        fn reap(&mut self, _: JobId, _: Cause, _: Claim<'r, JobId>) -> Result<Outcome, &'static str> {
            unreachable!()
        }
        fn on_error(&mut self, error: &RunError<JobId, &'static str>) {
            let shown = match error {
                RunError::Act { job, .. } => (job.number, r"job de\nploys/1: a verdict could not be carried out: busy"),
                RunError::Panicked { job: Some(job), .. } => (job.number, r"job de\nploys/2: panicked"),
                _ => panic!("{error}"),
            };
            assert_eq!(error.to_string(), shown.1);
            assert!(shown.1.contains(&format!("/{}: ", shown.0)));
        }
    }
    static SHOWING: Registry<JobId> = Registry::new().showing(|id, f| write!(f, "{}/{}", id.queue, id.number));
    let reaper = Reaper::new(&SHOWING, policy());
    let seen = events(|| {
        drop(SHOWING.mark(JobId { queue: "de\nploys", number: 9 }, Finalizer::new(None, "gates")));
    });
    assert!(seen.iter().all(|event| event.field("job") == r"de\nploys/9"), "{seen:?}");
    let mut report = None;
    let seen = events(|| report = Some(reaper.run_once(&mut Store)));
    let report = report.unwrap();
    assert_eq!((report.listed, report.failed, report.panicked, report.refused), (3, 1, 1, 1));
    let named: Vec<_> = seen.iter().filter(|event| event.fields.contains_key("job")).collect();
    assert!(named.iter().all(|event| event.field("job").starts_with(r"de\nploys/")), "{named:?}");
    // Escaped as a whole, once more.
    let failures: Vec<_> = seen.iter().filter_map(|event| event.fields.get("failure")).collect();
    let failures: Vec<_> = failures.into_iter().map(|failure| failure.replace(r"\\", r"\")).collect();
    let expected = [r"job de\nploys/1: a verdict could not be carried out: busy", r"job de\nploys/2: panicked"];
    assert_eq!(failures, expected);
    assert_eq!(reaper.stats().panics, 1, "the assertions held");
}
