//! What is counted and shown through `metrics`: names, labels, and what touches no metric at all.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use livemark::{Cause, Finalizer, MarkGuard, Mode, Policy, Pulse, Reaper, Registry, RunningJob, Scheduler, Verdict};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use support::{MARKING, UNDECLARED, finished, lost, overdue, policy, running};

const AN_HOUR: Duration = Duration::from_secs(3600);

/// What a call counted and showed on this thread: the counters that it touched, and the gauges.
#[derive(Debug, PartialEq)]
struct Seen {
    counters: BTreeMap<String, u64>,
    gauges: BTreeMap<String, f64>,
}

impl Seen {
    #[track_caller]
    fn assert_counted(&self, expected: &[(&str, u64)]) {
        let seen: Vec<_> = self.counters.iter().map(|(name, count)| (name.as_str(), *count)).collect();
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
    let mut seen = Seen { counters: BTreeMap::new(), gauges: BTreeMap::new() };
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let labels: String =
            key.key().labels().map(|label| format!("{{{}={:?}}}", label.key(), label.value())).collect();
        let name = format!("{}{labels}", key.key().name());
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
    counted_of(RunningJob { stage: UNDECLARED, ..finished(&1) }).assert_counted(&[("reaper_redrives_total", 1), sweep]);
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
        std::mem::forget(registry.mark(job.id, monitor()));
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
fn a_dry_run_counts_nothing() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy().with_mode(Mode::DryRun));
    let _monitor = registry.mark(1, monitor());
    let seen = seen(|| {
        let mut sweep = reaper.sweep();
        for job in [finished(&1), finished(&2), lost(&3), overdue(&4)] {
            drop(sweep.judge(&job));
        }
    });
    seen.assert_counted(&[]);
    assert_eq!(seen.owned(), 1.0, "but it shows what there is");
}

#[test]
fn ignore_shows_nothing_of_a_registry_that_it_does_not_read() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy().with_mode(Mode::Ignore));
    let _monitor = registry.mark(1, monitor());
    let seen = seen(|| drop(reaper.sweep().judge(&finished(&1))));
    seen.assert_counted(&[("reaper_redrives_total", 1), ("reaper_sweeps_total", 1)]);
    assert!(seen.gauges.is_empty(), "{seen:?}");
}

#[test]
fn the_loops_failures_are_counted() {
    struct Down {
        listings: usize,
        stop: Option<mpsc::Sender<()>>,
    }
    impl<'r> Scheduler<'r> for Down {
        type Row = u64;
        type Error = &'static str;
        fn running(&mut self) -> Result<Vec<Result<u64, &'static str>>, &'static str> {
            self.listings += 1;
            if self.listings == 1 {
                return Ok(vec![Err("bad"), Ok(7)]);
            }
            self.stop = None;
            Err("down")
        }
        fn describe<'a>(&self, &id: &'a u64) -> RunningJob<'a> {
            finished(&id)
        }
        fn redrive(&mut self, _: u64, _: Option<MarkGuard<'r>>) -> Result<(), &'static str> {
            Err("busy")
        }
        fn reap(&mut self, _: u64, _: Cause, _: Option<MarkGuard<'r>>) -> Result<(), &'static str> {
            Ok(())
        }
    }
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let (stop, stopped) = mpsc::channel();
    let seen = seen(|| reaper.run(Duration::ZERO, stopped, &mut Down { listings: 0, stop: Some(stop) }));
    seen.assert_counted(&[("reaper_failures_total", 3), ("reaper_redrives_total", 1), ("reaper_sweeps_total", 1)]);
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
        drop(second.into_owned(&registry).unwrap());
        drop(registry.mark_owned(8, monitor()));
        std::mem::forget(registry.mark(9, monitor()));
        assert!(registry.clear(&9) && registry.snapshot().is_empty());
        reaper.set_policy(policy());
        assert!(matches!(sweep.judge(&running(&7)), Verdict::Healthy));
    });
    assert_eq!(seen, Seen { counters: BTreeMap::new(), gauges: BTreeMap::new() });
}
