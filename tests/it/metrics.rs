//! What is counted and shown through `metrics`: names, labels, and what touches no metric at all.

use std::collections::BTreeMap;
use std::panic;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use livemark::{Claim, Finalizer, Mode, Policy, Pulse, Reaper, Registry, RegistryHandle, RunningJob, Verdict};
use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use crate::support::{AN_HOUR, MARKING, UNDECLARED, finished, lost, overdue, policy, running, troubled};

/// What a call counted and showed on this thread: the counters that it touched, and the gauges. The label of a reaper
/// without a name is left out.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    counters: BTreeMap<String, u64>,
    gauges: BTreeMap<String, f64>,
    /// The names of those that have a unit and a description.
    described: Vec<String>,
}

impl Seen {
    #[track_caller]
    fn assert_counted(&self, expected: &[(&str, u64)]) {
        let counted = self.counters.iter().filter(|(_, count)| **count > 0);
        let seen: Vec<_> = counted.map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(seen, expected);
    }

    fn owned(&self) -> f64 {
        self.gauges["finalizer_owned"]
    }

    fn oldest(&self) -> f64 {
        self.gauges["finalizer_oldest_owner_age_seconds"]
    }
}

fn seen(call: impl FnOnce()) -> Seen {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, call);
    let mut seen = Seen::default();
    for (key, unit, description, value) in snapshotter.snapshot().into_vec() {
        let labels = key.key().labels().filter(|label| (label.key(), label.value()) != ("reaper", "default"));
        let labels: String = labels.map(|label| format!("{{{}={:?}}}", label.key(), label.value())).collect();
        let name = format!("{}{labels}", key.key().name());
        assert!(key.key().labels().any(|label| label.key() == "reaper"), "of whom? {name}");
        if unit.is_some() && description.is_some_and(|text| text.ends_with('.')) {
            seen.described.push(name.clone());
        }
        match value {
            DebugValue::Counter(count) => drop(seen.counters.insert(name, count)),
            DebugValue::Gauge(level) => drop(seen.gauges.insert(name, level.into_inner())),
            DebugValue::Histogram(_) => panic!("no histogram is known: {name}"),
        }
    }
    seen
}

fn monitor() -> Finalizer {
    Finalizer::new(Some(42), "gates")
}

#[test]
fn each_verdict_is_counted_by_its_name() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _monitor = registry.mark(1, monitor());
    let counted_of = |job: RunningJob<'_>| seen(|| drop(reaper.sweep().judge(&job)));
    let sweep = ("reaper_sweeps_total", 1);

    counted_of(running(&1)).assert_counted(&[sweep]);
    counted_of(finished(&1)).assert_counted(&[("finalizer_defers_total", 1), sweep]);
    counted_of(finished(&2)).assert_counted(&[("reaper_redrives_total", 1), sweep]);
    counted_of(lost(&2)).assert_counted(&[("reaper_reaps_total{cause=\"worker_lost\"}", 1), sweep]);
    counted_of(overdue(&2)).assert_counted(&[("reaper_reaps_total{cause=\"backstop\"}", 1), sweep]);
    let exhausted = ("reaper_reaps_total{cause=\"redrives_exhausted\"}", 1);
    counted_of(finished(&2).redrives(3)).assert_counted(&[exhausted, sweep]);
    counted_of(finished(&2).held(true)).assert_counted(&[sweep]);
    let mut external = finished(&1);
    external.stage = UNDECLARED;
    counted_of(external).assert_counted(&[("reaper_redrives_total", 1), sweep]);
}

#[test]
fn counts_add_up() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _monitor = registry.mark(1, monitor());
    let seen = seen(|| {
        for _ in 0..3 {
            let mut sweep = reaper.sweep();
            for job in [running(&0), finished(&1), lost(&1), finished(&2), lost(&3), overdue(&4), overdue(&5)] {
                drop(sweep.judge(&job));
            }
        }
    });
    seen.assert_counted(&[
        ("finalizer_defers_total", 6),
        ("reaper_reaps_total{cause=\"backstop\"}", 6),
        ("reaper_reaps_total{cause=\"worker_lost\"}", 3),
        ("reaper_redrives_total", 3),
        ("reaper_sweeps_total", 3),
    ]);
}

#[test]
fn a_claim_conflict_is_a_deferral_as_well() {
    let registry = Registry::new();
    let reaper = Reaper::with_claim(&registry, policy(), |job| {
        let _ = registry.mark(*job.id, monitor()).detach();
        monitor()
    });
    let seen = seen(|| drop(reaper.sweep().judge(&finished(&7))));
    seen.assert_counted(&[
        ("finalizer_defers_total", 1),
        ("reaper_claim_conflicts_total", 1),
        ("reaper_sweeps_total", 1),
    ]);
}

#[test]
fn deferrals_for_nobodys_sake_are_no_finalizers() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy().with_mode(Mode::DeferAll));
    seen(|| drop(reaper.sweep().judge(&finished(&7)))).assert_counted(&[("reaper_sweeps_total", 1)]);
    let boot = Policy::builder().boot_grace(AN_HOUR).no_backstop().marking_stage(MARKING).build().unwrap();
    let reaper = Reaper::new(&registry, boot);
    seen(|| drop(reaper.sweep().judge(&finished(&7)))).assert_counted(&[("reaper_sweeps_total", 1)]);
}

#[test]
fn a_sweep_shows_how_many_are_owned_and_for_how_long() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let sweep = || seen(|| drop(reaper.sweep()));
    let empty = sweep();
    assert_eq!((empty.owned(), empty.oldest()), (0.0, 0.0));
    assert_eq!(empty.gauges.len(), 3);

    let mut guards = vec![registry.mark(500, monitor())];
    thread::sleep(Duration::from_millis(2));
    guards.extend((0..500).map(|job| registry.mark(job, monitor())));
    let oldest = registry.owner(&500).unwrap();
    let before = oldest.age().as_secs_f64();
    let full = sweep();
    assert_eq!(full.owned(), 501.0);
    assert!(before <= full.oldest() && full.oldest() <= oldest.age().as_secs_f64(), "{full:?}, {before}");

    drop(guards.remove(0));
    let oldest = registry.owner(&0).unwrap();
    let younger = sweep();
    assert_eq!(younger.owned(), 500.0);
    assert!(younger.oldest() <= oldest.age().as_secs_f64(), "the oldest of those that are left: {younger:?}");
    drop(guards);
    let empty = sweep();
    assert_eq!((empty.owned(), empty.oldest()), (0.0, 0.0));
}

#[test]
fn a_dry_run_counts_its_sweeps_and_no_more() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy().with_mode(Mode::DryRun));
    let _monitor = registry.mark(1, monitor());
    let seen = seen(|| {
        let mut sweep = reaper.sweep();
        for job in [finished(&1), finished(&2), lost(&3), overdue(&4)] {
            drop(sweep.judge(&job));
        }
    });
    seen.assert_counted(&[("reaper_sweeps_total", 1)]);
    assert_eq!(seen.owned(), 1.0, "but it shows what there is");
}

/// And not what was last: nobody asks the registry.
#[test]
fn in_ignore_the_owners_are_none() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _monitor = registry.mark(1, monitor());
    thread::sleep(Duration::from_millis(1));
    let seen = seen(|| {
        drop(reaper.sweep());
        reaper.set_mode(Mode::Ignore);
        drop(reaper.sweep().judge(&finished(&1)));
    });
    seen.assert_counted(&[("reaper_redrives_total", 1), ("reaper_sweeps_total", 2)]);
    assert_eq!((seen.owned(), seen.oldest()), (0.0, 0.0));
    assert!(seen.gauges.contains_key("livemark_unreclaimed"), "which is the process's");
}

/// An alert can be written before anything happened.
#[test]
fn before_anything_has_happened_all_is_described_and_at_zero() {
    const COUNTERS: [&str; 9] = [
        "finalizer_defers_total",
        "reaper_claim_conflicts_total",
        "reaper_failures_total",
        "reaper_reaps_total{cause=\"backstop\"}",
        "reaper_reaps_total{cause=\"redrives_exhausted\"}",
        "reaper_reaps_total{cause=\"worker_lost\"}",
        "reaper_redrives_total",
        "reaper_refused_total",
        "reaper_sweeps_total",
    ];
    const GAUGES: [&str; 3] = ["finalizer_oldest_owner_age_seconds", "finalizer_owned", "livemark_unreclaimed"];
    let registry: Registry = Registry::new();
    let mut made = None;
    assert_eq!(seen(|| made = Some(Reaper::new(&registry, policy()))), Seen::default(), "it may yet be named");
    let reaper = made.unwrap();
    let first = seen(|| drop(reaper.handle()));
    assert!(first.counters.iter().map(|(name, count)| (name.as_str(), *count)).eq(COUNTERS.map(|name| (name, 0))));
    assert!(first.gauges.iter().map(|(name, level)| (name.as_str(), *level)).eq(GAUGES.map(|name| (name, 0.0))));
    let mut described = first.described;
    described.sort_unstable();
    let mut all: Vec<_> = COUNTERS.iter().chain(&GAUGES).copied().collect();
    all.sort_unstable();
    assert_eq!(described, all);
    assert_eq!(seen(|| drop(reaper.handle())), Seen::default(), "once");

    let by_a_sweep = Reaper::new(&registry, policy());
    let first = seen(|| drop(by_a_sweep.sweep()));
    assert!(first.counters.keys().eq(COUNTERS));
    first.assert_counted(&[("reaper_sweeps_total", 1)]);
    assert_eq!(first.described.len(), COUNTERS.len() + GAUGES.len());
}

#[test]
fn reapers_are_told_apart_by_their_names() {
    let (deploys, builds) = (Registry::new(), Registry::new());
    let _monitors = [deploys.mark(1, monitor()), deploys.mark(2, monitor()), builds.mark(3, monitor())];
    let reapers = [
        Reaper::new(&deploys, policy()).named("deploys"),
        Reaper::new(&builds, policy()).named("builds"),
        Reaper::new(&builds, policy()).with_pulse(|_| None),
    ];
    let seen = seen(|| {
        for reaper in &reapers {
            drop(reaper.sweep().judge(&finished(&3)));
        }
    });
    let label = |metric: &str, name: &str| format!("{metric}{{reaper={name:?}}}");
    assert_eq!(seen.gauges[&label("finalizer_owned", "deploys")], 2.0);
    assert_eq!(seen.gauges[&label("finalizer_owned", "builds")], 1.0);
    assert_eq!(seen.owned(), 1.0, "of the one without a name");
    seen.assert_counted(&[
        ("finalizer_defers_total", 1),
        ("finalizer_defers_total{reaper=\"builds\"}", 1),
        ("reaper_redrives_total{reaper=\"deploys\"}", 1),
        ("reaper_sweeps_total", 1),
        ("reaper_sweeps_total{reaper=\"builds\"}", 1),
        ("reaper_sweeps_total{reaper=\"deploys\"}", 1),
    ]);
    let cause = "reaper_reaps_total{reaper=\"builds\"}{cause=\"backstop\"}";
    assert_eq!(seen.counters.get(cause), Some(&0), "{seen:?}");
}

#[test]
fn a_name_that_comes_after_the_handle_changes_nothing() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let seen = seen(|| {
        let _handle = reaper.handle();
        drop(reaper.named("too late").sweep());
    });
    seen.assert_counted(&[("reaper_sweeps_total", 1)]);
}

#[test]
fn the_loops_failures_and_refusals_are_counted() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let (mut jobs, stop) = troubled("down");
    let seen = seen(|| reaper.run(Duration::ZERO, &stop, &mut jobs));
    seen.assert_counted(&[
        ("reaper_failures_total", 4), // a bad row, an action, a panic, a listing
        ("reaper_reaps_total{cause=\"backstop\"}", 1),
        ("reaper_redrives_total", 3),
        ("reaper_refused_total", 1),
        ("reaper_sweeps_total", 2),
    ]);
}

/// Nothing that a recorder does gets out of the library.
#[test]
fn a_recorder_that_panics_costs_nothing_but_its_metric() {
    /// Where it panics.
    #[derive(Clone, Copy)]
    enum Broken {
        Registering,
        Counting,
    }
    impl Broken {
        fn registers<T>(self, metric: T) -> T {
            match self {
                Self::Registering => panic::resume_unwind(Box::new("a broken recorder")),
                Self::Counting => metric,
            }
        }
    }
    struct Panics;
    impl CounterFn for Panics {
        fn increment(&self, _: u64) {
            panic::resume_unwind(Box::new("a broken counter"))
        }
        fn absolute(&self, _: u64) {}
    }
    impl GaugeFn for Panics {
        fn increment(&self, _: f64) {}
        fn decrement(&self, _: f64) {}
        fn set(&self, _: f64) {
            panic::resume_unwind(Box::new("a broken gauge"))
        }
    }
    impl Recorder for Broken {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
            self.registers(());
        }
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            self.registers(Counter::from_arc(Arc::new(Panics)))
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            self.registers(Gauge::from_arc(Arc::new(Panics)))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }
    for broken in [Broken::Registering, Broken::Counting] {
        let registry = Registry::new();
        let reaper = Reaper::new(&registry, policy());
        let monitor = registry.mark(6, monitor());
        metrics::with_local_recorder(&broken, || {
            drop(reaper.handle());
            let mut sweep = reaper.sweep();
            for job in [finished(&6), finished(&2), finished(&2).redrives(3), lost(&3), overdue(&4)] {
                assert!(!matches!(sweep.judge(&job), Verdict::Healthy));
            }
            drop(sweep);
            let (mut jobs, stop) = troubled("down");
            reaper.run(Duration::ZERO, &stop, &mut jobs);
        });
        let stats = reaper.stats();
        assert_eq!((stats.sweeps, stats.finalizer_defers_total, stats.redrives), (3, 1, 4), "all the same");
        assert_eq!((stats.reaps_worker_lost, stats.reaps_backstop, stats.reaps_redrives_exhausted), (1, 2, 1));
        assert_eq!((stats.refused, stats.failed_listings, stats.bad_rows, stats.failed_actions), (1, 1, 1, 1));
        assert_eq!(stats.panics, 1, "the job store's own");
        assert!(monitor.clear() && registry.is_empty());
    }
}

/// A recorder may allocate, and may lock: it has no place in a hot loop.
#[test]
fn marks_clears_and_look_ups_touch_no_metric() {
    let registry: Arc<Registry> = Arc::new(Registry::new());
    let reaper = Reaper::new(&registry, policy());
    let mut sweep = reaper.sweep();
    let seen = seen(|| {
        let first = registry.mark(7, monitor().with_pulse(Pulse::new()));
        let second = registry.mark(7, monitor());
        assert!(registry.is_active(&7) && registry.owner(&7).is_some() && second.is_current());
        assert!(registry.reader().is_active(&7));
        assert!(registry.try_mark(7, monitor()).is_err());
        assert!(second.replace(monitor()));
        drop(first);
        drop(Claim::from(second));
        drop(registry.mark_owned(8, monitor()));
        drop(RegistryHandle::from(&registry).try_mark(8, monitor()));
        let detached = registry.mark(9, monitor()).detach();
        assert!(registry.clear_generation(&9, detached) && registry.snapshot().is_empty());
        reaper.set_policy(policy());
        reaper.set_mode(Mode::DeferAll);
        assert!(matches!(sweep.judge(&running(&7)), Verdict::Healthy));
    });
    assert_eq!(seen, Seen::default());
}
