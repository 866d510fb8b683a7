//! What is reported through `tracing`: which events, at which level, with which fields.
//!
//! The tests run one at a time: which call sites are of interest to a subscriber is known per process, not per thread,
//! so that a thread without one may hide an event from the others.
#![cfg(feature = "tracing")]

mod support;

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use livemark::{Cause, Failure, Finalizer, MarkGuard, Mode, Policy, Pulse, Reaper, Registry, RunningJob, Scheduler};
use support::{HARD_DEADLINE, MARKING, UNDECLARED, alone, finished, lost, overdue, policy, running};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

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
    let _alone = alone();
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
    let _alone = alone();
    let registry: Registry<u64, &str> = Registry::new();
    let first = registry.mark(7, "run 1");
    let mut second = None;
    let mark = event(|| second = Some(registry.mark(7, "run 2")));
    let newer = second.as_ref().unwrap().generation().to_string();
    mark.assert_is(Level::TRACE, "mark", &[("job", "7"), ("generation", &newer), ("displaced", "true")]);

    let generation = first.generation().to_string();
    let clear = event(|| drop(first));
    clear.assert_is(Level::TRACE, "stale clear", &[("job", "7"), ("generation", &generation)]);
}

#[test]
fn each_way_to_mark_and_to_clear_is_traced() {
    let _alone = alone();
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
    }));
    drop(late);
    assert_eq!(seen, ["mark", "clear"].repeat(4));

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
fn a_deferral_is_reported_with_its_owner() {
    let _alone = alone();
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
    let _alone = alone();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _guard = registry.mark(7, Finalizer::new(None, "gates"));
    let defer = event(|| drop(reaper.sweep().judge(&lost(&7))));
    assert!(!defer.fields.contains_key("run_id"));
}

#[test]
fn a_deferral_to_an_owner_of_another_kind_is_reported_as_well() {
    let _alone = alone();
    let registry: Registry<u64, &str> = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |_| "reaper");
    let _guard = registry.mark(7, "monitor");
    let defer = event(|| drop(reaper.sweep().judge(&finished(&7))));
    assert_eq!((defer.message.as_str(), defer.fields.contains_key("run_id")), ("defer", false));
}

#[test]
fn a_claim_conflict_is_reported_as_a_deferral() {
    let _alone = alone();
    let registry: Registry<u64, Finalizer> = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |job| {
        std::mem::forget(registry.mark(job.id, Finalizer::new(Some(42), "gates")));
        Finalizer::new(None, "reaper")
    });
    let seen = events(|| drop(reaper.sweep().judge(&finished(&7))));
    let [mark, defer] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(mark.message, "mark");
    assert_eq!((defer.field("reason"), defer.field("run_id")), ("claim conflict", "42"));
}

#[test]
fn deferrals_for_nobodys_sake_say_their_reason() {
    let _alone = alone();
    let registry: Registry = Registry::new();
    let boot = Policy::builder()
        .boot_grace(HARD_DEADLINE)
        .hard_deadline(HARD_DEADLINE)
        .marking_stage(MARKING)
        .build()
        .unwrap();
    for (policy, reason) in [(boot, "boot grace"), (policy().with_mode(Mode::DeferAll), "defer all")] {
        let reaper = Reaper::new(&registry, policy);
        let defer = event(|| drop(reaper.sweep().judge(&finished(&7))));
        defer.assert_is(Level::INFO, "defer", &[("job", "7"), ("reason", reason)]);
        assert!(!defer.fields.contains_key("age_ms"), "of nobody");
    }
}

#[test]
fn a_deferral_in_defer_all_names_the_owner_that_there_is() {
    let _alone = alone();
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
    let _alone = alone();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy().with_mode(Mode::DryRun));
    let _guard = registry.mark(1, Finalizer::new(Some(42), "gates"));
    for (job, verdict) in [
        (finished(&2), "tier 2: redrive, not to be done in mode dry_run; finished for 301s"),
        (lost(&2), "tier 1: reap, worker lost, not to be done in mode dry_run; lost for 61s"),
        (overdue(&1), "tier 3: reap, backstop, not to be done in mode dry_run; running for 3601s"),
        (finished(&1), "tier 2: defer, owned by run 42 at `gates`, generation "),
    ] {
        let seen = event(|| drop(reaper.sweep().judge(&job)));
        let text = seen.field("verdict");
        assert!(text.starts_with(verdict), "{text}");
        seen.assert_is(Level::INFO, "dry run", &[("job", &job.id.to_string()), ("verdict", text)]);
    }
    assert!(events(|| drop(reaper.sweep().judge(&running(&1)))).is_empty());
}

/// A job store with an error of each kind, in the turns of one loop.
struct Troubled<E> {
    turn: usize,
    error: E,
    stop: Option<mpsc::Sender<()>>,
    told: Vec<String>,
}

impl<'r, E: Clone + Display> Scheduler<'r> for Troubled<E> {
    type Row = u64;
    type Error = E;

    fn running(&mut self) -> Result<Vec<Result<u64, E>>, E> {
        self.turn += 1;
        match self.turn {
            1 => Err(self.error.clone()),
            2 => Ok(vec![Err(self.error.clone()), Ok(1), Ok(2)]),
            _ => {
                self.stop = None;
                Ok(vec![])
            }
        }
    }

    fn describe<'a>(&self, &id: &'a u64) -> RunningJob<'a> {
        finished(&id)
    }

    fn redrive(&mut self, job: u64, _: Option<MarkGuard<'r>>) -> Result<(), E> {
        match job {
            1 => Err(self.error.clone()),
            _ => panic::resume_unwind(Box::new("blown up")),
        }
    }

    fn reap(&mut self, _: u64, _: Cause, _: Option<MarkGuard<'r>>) -> Result<(), E> {
        unreachable!()
    }

    fn failed(&mut self, failure: &Failure<E>) {
        self.told.push(failure.to_string());
    }
}

fn troubled<E>(error: E) -> (Troubled<E>, mpsc::Receiver<()>) {
    let (stop, stopped) = mpsc::channel();
    (Troubled { turn: 0, error, stop: Some(stop), told: vec![] }, stopped)
}

#[test]
fn the_loops_failures_are_errors() {
    let _alone = alone();
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let (mut jobs, stopped) = troubled("the store is down");
    let mut seen = events(|| reaper.run(Duration::ZERO, stopped, &mut jobs));
    seen.retain(|event| event.level == Level::ERROR);
    let expected = [
        "the running jobs cannot be listed: the store is down",
        "a bad row, left out: the store is down",
        "a verdict could not be carried out: the store is down",
        "panicked",
    ];
    assert_eq!(jobs.told, expected);
    assert_eq!(seen.len(), expected.len(), "{seen:?}");
    for (event, failure) in seen.iter().zip(expected) {
        event.assert_is(Level::ERROR, "a turn of the reaper's loop failed", &[("failure", failure)]);
    }
}

#[test]
fn an_owner_without_progress_is_told_of_when_it_is_displaced_and_not_before() {
    let _alone = alone();
    let policy = || {
        Policy::builder().stale_after(Duration::from_millis(1)).no_backstop().marking_stage(MARKING).build().unwrap()
    };
    let hanging = || Finalizer::new(Some(1), "gates").with_pulse(Pulse::new());
    let names = |events: Vec<Seen>| events.into_iter().map(|seen| seen.message).collect::<Vec<_>>();

    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let stale = registry.mark(7, hanging());
    std::thread::sleep(Duration::from_millis(5));
    let mut verdict = None;
    let seen = names(events(|| verdict = Some(reaper.sweep().judge(&finished(&7)))));
    assert_eq!(seen, ["mark", "stale owner", "redrive"]);
    assert!(!stale.is_current());

    // Another takes the job over between the look and the claim: nobody is displaced by the reaper.
    let registry: Registry = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |job| {
        std::mem::forget(registry.mark(job.id, Finalizer::new(Some(2), "gates")));
        Finalizer::new(None, "reaper")
    });
    std::mem::forget(registry.mark(7, hanging()));
    std::thread::sleep(Duration::from_millis(5));
    let seen = names(events(|| drop(reaper.sweep().judge(&finished(&7)))));
    assert_eq!(seen, ["mark", "defer"]);
}

#[test]
fn a_loop_that_was_told_to_stop_before_it_began_says_so() {
    let _alone = alone();
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let (mut jobs, stopped) = troubled("the store is down");
    jobs.stop = None; // as `let (_, stopped) = channel()` drops it
    let warning = event(|| reaper.run(Duration::ZERO, stopped, &mut jobs));
    assert_eq!((warning.level, jobs.turn), (Level::WARN, 0));
    assert!(warning.message.contains("before its first sweep"), "{warning:?}");
}

#[test]
fn an_error_that_cannot_be_shown_is_counted_and_costs_no_more() {
    #[derive(Clone)]
    struct Unspeakable;
    impl Display for Unspeakable {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic::resume_unwind(Box::new("a broken Display"))
        }
    }
    let _alone = alone();
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let (mut jobs, stopped) = troubled(Unspeakable);
    events(|| reaper.run(Duration::ZERO, stopped, &mut jobs));
    let stats = reaper.stats();
    assert_eq!((stats.sweeps, stats.redrives), (2, 2), "all had their turn");
    assert_eq!((stats.failed_listings, stats.bad_rows, stats.failed_actions, stats.panics), (1, 1, 1, 1 + 3));
}

#[test]
fn redrives_and_reaps_are_warnings() {
    let _alone = alone();
    let registry = Registry::new();
    drop(registry.mark(1, Finalizer::new(None, "gates"))); // or there would be one more
    let reaper = Reaper::new(&registry, policy());
    for (job, message, cause) in [
        (finished(&7), "redrive", None),
        (lost(&7), "reap", Some("worker lost")),
        (overdue(&7), "reap", Some("backstop")),
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
    let _alone = alone();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    for job in [finished(&7), overdue(&8)] {
        let mut seen = events(|| drop(reaper.sweep().judge(&job)));
        let is_asked = |event: &Seen| event.message.ends_with("do the monitors mark in another one?");
        seen.retain(is_asked);
        match &seen[..] {
            [warning] if job.id == 7 => {
                warning.assert_is(Level::WARN, &warning.message, &[("job", "7"), ("stage", MARKING)]);
            }
            others => assert!(others.is_empty() && job.id == 8, "of job {}: {others:?}", job.id),
        }
    }
    // Where monitors do mark there is no such question.
    let registry = Registry::new();
    drop(registry.mark(1, Finalizer::new(None, "gates")));
    let reaper = Reaper::new(&registry, policy());
    let seen = events(|| drop(reaper.sweep().judge(&finished(&7))));
    assert_eq!(seen.len(), 3, "a mark, a redrive and a clear: {seen:?}");
}

#[test]
fn without_a_claim_a_redrive_says_none() {
    let _alone = alone();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let external = RunningJob { stage: UNDECLARED, ..finished(&7) };
    let redrive = event(|| drop(reaper.sweep().judge(&external)));
    redrive.assert_is(Level::WARN, "redrive", &[("job", "7"), ("stage", UNDECLARED)]);
}

#[test]
fn a_healthy_job_is_not_worth_a_line() {
    let _alone = alone();
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    assert!(events(|| drop(reaper.sweep().judge(&running(&7)))).is_empty());
}

#[test]
fn a_policy_that_honours_no_mark_is_warned_of() {
    let _alone = alone();
    let registry: Registry = Registry::new();
    let silent = || Policy::builder().hard_deadline(HARD_DEADLINE).build().unwrap();
    let warning = event(|| drop(Reaper::new(&registry, silent())));
    assert_eq!((warning.level, warning.target.as_str()), (Level::WARN, "livemark"));

    let reaper = Reaper::new(&registry, policy());
    assert_eq!(event(|| reaper.set_policy(silent())).level, Level::WARN);
    assert!(events(|| reaper.set_policy(policy())).is_empty());
    for mode in [Mode::Ignore, Mode::DeferAll] {
        assert!(events(|| reaper.set_policy(silent().with_mode(mode))).is_empty(), "it asks for none");
    }
    assert_eq!(event(|| reaper.set_policy(silent().with_mode(Mode::DryRun))).level, Level::WARN);
}

#[test]
fn a_mark_whose_report_panics_is_not_left_behind() {
    /// A subscriber with a bug in it.
    struct Broken;
    impl<S: Subscriber> Layer<S> for Broken {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            if event.fields().any(|field| field.name() == "displaced") {
                panic::resume_unwind(Box::new("a broken subscriber"));
            }
        }
    }
    let _alone = alone();
    let registry: Registry<u64, &str> = Registry::new();
    let is_left_behind = |mark: &dyn Fn()| {
        let marked = panic::catch_unwind(AssertUnwindSafe(mark));
        assert!(marked.is_err(), "the panic is the subscriber's, and passes through");
        registry.clear(&7)
    };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(Broken), || {
        assert!(!is_left_behind(&|| drop(registry.mark(7, "run 1"))), "nobody has a guard to clear it with");
        assert!(!is_left_behind(&|| drop(registry.try_mark(7, "run 1"))), "nobody has a guard to clear it with");
    });
}

#[test]
fn ids_of_the_usual_kinds_are_shown_and_others_by_the_name_of_their_type() {
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct Nameless;
    fn shown<K: Clone + Eq + std::hash::Hash + Send + Sync + 'static>(job: K) -> String {
        let registry: Registry<K, ()> = Registry::new();
        let guard = RefGuard::new(&registry, job);
        event(|| guard.clear()).field("job").to_owned()
    }
    struct RefGuard<'r, K: Clone + Eq + std::hash::Hash + Send + Sync + 'static>(livemark::MarkGuard<'r, K, ()>);
    impl<'r, K: Clone + Eq + std::hash::Hash + Send + Sync + 'static> RefGuard<'r, K> {
        fn new(registry: &'r Registry<K, ()>, job: K) -> Self {
            Self(registry.mark(job, ()))
        }
        fn clear(self) {
            self.0.clear();
        }
    }
    let _alone = alone();
    assert_eq!(shown(7_u64), "7");
    assert_eq!(shown(-7_i64), "-7");
    assert_eq!(shown("job-7"), "job-7");
    assert_eq!(shown("job-7".to_owned()), "job-7");
    assert_eq!(shown([0xAB_u8; 16]), "ab".repeat(16));
    assert!(shown(Nameless).ends_with("Nameless"));
}
