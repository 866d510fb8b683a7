//! What is written through `serde` for dashboards: snapshots, counts, verdicts. For policies see `policy_settings.rs`.

use std::num::NonZeroU64;
use std::time::Duration;

use livemark::{
    Cause, DeferReason, Finalizer, Generation, MarkGuard, Mode, Proposed, Pulse, Reaper, Registry, RegistryStats,
    SweepReport, Verdict,
};
use serde_json::{Value, json};

use crate::support::{finished, lost, overdue, policy};

/// The text with `0` for every age in it, which is a number.
fn without_ages(text: &str) -> String {
    const AGE: &str = "age_ms\":";
    let mut parts = text.split(AGE);
    let mut rewritten = parts.next().unwrap().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let is_number = rest.len() < part.len();
        rewritten.push_str(AGE);
        rewritten.push_str(if is_number { "0" } else { "" });
        rewritten.push_str(rest);
    }
    rewritten
}

// What is written

#[test]
fn a_snapshot_is_the_dashboards_json() {
    let registry = Registry::new();
    let empty = serde_json::to_string(&registry.snapshot()).unwrap();
    assert_eq!(empty, r#"{"active":0,"jobs":[],"owners":[]}"#);

    let guards = [
        registry.mark(30, Finalizer::new(Some(12), "test")),
        registry.mark(4, Finalizer::new(None, "merge \"now\"").with_pulse(Pulse::new())),
        registry.mark(u64::MAX, Finalizer::new(Some(u64::MAX), "")),
    ];
    let [of_30, of_4, of_max] = guards.each_ref().map(MarkGuard::generation);
    let expected = [
        r#"{"active":3,"jobs":[4,30,18446744073709551615],"owners":["#,
        &format!(r#"{{"job":4,"generation":{of_4},"age_ms":0,"#),
        r#""value":{"run_id":null,"stage":"merge \"now\"","pulse_age_ms":0}},"#,
        &format!(r#"{{"job":30,"generation":{of_30},"age_ms":0,"#),
        r#""value":{"run_id":12,"stage":"test","pulse_age_ms":null}},"#,
        &format!(r#"{{"job":18446744073709551615,"generation":{of_max},"age_ms":0,"#),
        r#""value":{"run_id":18446744073709551615,"stage":"","pulse_age_ms":null}}]}"#,
    ];
    let written = serde_json::to_string(&registry.snapshot()).unwrap();
    assert_eq!(without_ages(&written), expected.concat());
}

#[test]
fn ages_are_milliseconds() {
    let registry = Registry::new();
    let pulse = Pulse::new();
    std::thread::sleep(Duration::from_millis(2));
    let _guard = registry.mark(7, Finalizer::new(None, "merge").with_pulse(pulse.clone()));
    std::thread::sleep(Duration::from_millis(2));
    let owner = registry.owner(&7).unwrap();
    let milliseconds = |age: Duration| u64::try_from(age.as_millis()).unwrap();
    let before = (milliseconds(owner.age()), milliseconds(pulse.age()));
    let written = serde_json::to_value(&owner).unwrap();
    let after = (milliseconds(owner.age()), milliseconds(pulse.age()));
    let seen = (written["age_ms"].as_u64().unwrap(), written["value"]["pulse_age_ms"].as_u64().unwrap());
    assert!(before.0 >= 2 && before.1 >= 4);
    assert!((before.0..=after.0).contains(&seen.0), "{before:?} {seen:?} {after:?}");
    assert!((before.1..=after.1).contains(&seen.1), "{before:?} {seen:?} {after:?}");
    assert!(serde_json::to_value(&pulse).unwrap().as_u64().unwrap() >= seen.1);
}

#[test]
fn jobs_and_contexts_of_any_kind_are_written_as_their_own_types_are() {
    let registry: Registry<String, (u8, Option<&str>)> = Registry::new();
    let guards = [registry.mark("job-9".into(), (1, None)), registry.mark("job-10".into(), (2, Some("gates")))];
    let [of_9, of_10] = guards.each_ref().map(|guard| guard.generation().get());
    let expected = json!({
        "active": 2,
        "jobs": ["job-10", "job-9"],
        "owners": [
            { "job": "job-10", "generation": of_10, "age_ms": 0, "value": [2, "gates"] },
            { "job": "job-9", "generation": of_9, "age_ms": 0, "value": [1, null] },
        ],
    });
    let written = serde_json::to_string(&registry.snapshot()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&without_ages(&written)).unwrap(), expected);
}

#[test]
fn counts_are_written_by_their_names() {
    let registry = Registry::new();
    let first = registry.mark(7, Finalizer::new(Some(1), "merge"));
    let _second = registry.mark(7, Finalizer::new(Some(2), "merge"));
    drop(first);
    let written = serde_json::to_string(&registry.stats()).unwrap();
    assert_eq!(written, r#"{"marks":2,"displaced":1,"stale_clears":1}"#);
    assert_eq!(serde_json::to_value(RegistryStats::default()).unwrap()["marks"], 0);

    let reaper = Reaper::new(&registry, policy());
    let mut sweep = reaper.sweep();
    for job in [finished(&7), finished(&8), lost(&9), overdue(&10), finished(&7).held(true), finished(&8).redrives(3)] {
        drop(sweep.judge(&job));
    }
    let expected = json!({
        "sweeps": 1, "finalizer_defers_total": 1, "defers_held": 1, "defers_boot_grace": 0, "defers_defer_all": 0,
        "defers_view_stale": 0, "defers_settling": 0, "defers_claim_unavailable": 0,
        "redrives": 1, "reaps_worker_lost": 1, "reaps_backstop": 1, "reaps_redrives_exhausted": 1,
        "claim_conflicts": 0, "refused": 0, "failed_listings": 0, "bad_rows": 0, "failed_actions": 0, "panics": 0,
    });
    assert_eq!(serde_json::to_value(reaper.stats()).unwrap(), expected);
}

#[test]
fn the_report_of_a_sweep_is_written_by_its_names() {
    let expected = json!({
        "listed": 0, "deferred": 0, "redriven": 0, "reaped": 0, "proposed": 0, "refused": 0, "failed": 0, "panicked": 0,
        "stopped": false,
    });
    assert_eq!(serde_json::to_value(SweepReport::default()).unwrap(), expected);
}

#[test]
fn modes_reasons_and_causes_are_snake_case() {
    for mode in [Mode::Honor, Mode::Ignore, Mode::DeferAll, Mode::DryRun] {
        assert_eq!(serde_json::to_value(mode).unwrap(), mode.to_string());
        assert_eq!(serde_json::from_value::<Mode>(json!(mode.to_string())).unwrap(), mode);
    }
    assert!(serde_json::from_value::<Mode>(json!("Honor")).is_err());
    let reasons = [
        DeferReason::DeferAll,
        DeferReason::Held,
        DeferReason::Owned,
        DeferReason::BootGrace,
        DeferReason::ClaimConflict,
    ];
    let expected = json!(["defer_all", "held", "owned", "boot_grace", "claim_conflict"]);
    assert_eq!(serde_json::to_value(reasons).unwrap(), expected);
    let causes = [Cause::WorkerLost, Cause::Backstop, Cause::RedrivesExhausted];
    assert_eq!(serde_json::to_value(causes).unwrap(), json!(["worker_lost", "backstop", "redrives_exhausted"]));
    let proposed = [Proposed::Redrive, Proposed::Reap(Cause::WorkerLost)];
    assert_eq!(serde_json::to_value(proposed).unwrap(), json!(["redrive", { "reap": "worker_lost" }]));
}

#[test]
fn a_generation_is_its_number() {
    let generation = Generation::from(NonZeroU64::MAX);
    assert_eq!(serde_json::to_string(&generation).unwrap(), u64::MAX.to_string());
    assert_eq!(serde_json::from_str::<Generation>("18446744073709551615").unwrap(), generation);
    assert!(serde_json::from_str::<Generation>("0").is_err(), "no mark has it");
}

#[test]
fn a_deferral_is_written_with_its_owner() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let guard = registry.mark(7, Finalizer::new(Some(42), "gates"));
    let verdict = reaper.sweep().judge(&finished(&7));
    let Verdict::Defer(deferral) = verdict else { panic!("{verdict:?}") };
    let expected = format!(
        r#"{{"reason":"owned","owner":{{"generation":{},"age_ms":0,"value":{{"run_id":42,"stage":"gates","pulse_age_ms":null}}}}}}"#,
        guard.generation()
    );
    assert_eq!(without_ages(&serde_json::to_string(&deferral).unwrap()), expected);
}
