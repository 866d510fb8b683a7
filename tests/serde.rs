//! What is written and read through `serde`: snapshots and counts for dashboards, policies from settings files.

mod support;

use std::num::NonZeroU64;
use std::time::Duration;

use livemark::{
    Cause, DeferReason, Finalizer, Generation, MarkGuard, Mode, Policy, Pulse, Reaper, Registry, RegistryStats,
    StageRules, Verdict,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{finished, lost, overdue, policy, seconds};

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
    for job in [finished(7), finished(8), lost(9), overdue(10)] {
        drop(sweep.judge(&job));
    }
    let expected = json!({
        "sweeps": 1, "finalizer_defers_total": 1, "defers_boot_grace": 0, "defers_defer_all": 0, "redrives": 1,
        "reaps_worker_lost": 1, "reaps_backstop": 1, "claim_conflicts": 0,
        "failed_listings": 0, "bad_rows": 0, "failed_actions": 0, "panics": 0,
    });
    assert_eq!(serde_json::to_value(reaper.stats()).unwrap(), expected);
}

#[test]
fn modes_reasons_and_causes_are_snake_case() {
    for mode in [Mode::Honor, Mode::Ignore, Mode::DeferAll, Mode::DryRun] {
        assert_eq!(serde_json::to_value(mode).unwrap(), mode.to_string());
        assert_eq!(serde_json::from_value::<Mode>(json!(mode.to_string())).unwrap(), mode);
    }
    assert!(serde_json::from_value::<Mode>(json!("Honor")).is_err());
    let reasons = [DeferReason::Owned, DeferReason::ClaimConflict, DeferReason::BootGrace, DeferReason::DeferAll];
    let expected = json!(["owned", "claim_conflict", "boot_grace", "defer_all"]);
    assert_eq!(serde_json::to_value(reasons).unwrap(), expected);
    assert_eq!(serde_json::to_value([Cause::WorkerLost, Cause::Backstop]).unwrap(), json!(["worker_lost", "backstop"]));
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
    let verdict = reaper.sweep().judge(&finished(7));
    let Verdict::Defer(deferral) = verdict else { panic!("{verdict:?}") };
    let expected = format!(
        r#"{{"reason":"owned","owner":{{"generation":{},"age_ms":0,"value":{{"run_id":42,"stage":"gates","pulse_age_ms":null}}}}}}"#,
        guard.generation()
    );
    assert_eq!(without_ages(&serde_json::to_string(&deferral).unwrap()), expected);
}

// Policies

fn from_json(settings: &Value) -> Result<Policy, String> {
    serde_json::from_str(&settings.to_string()).map_err(|error| error.to_string())
}

fn from_toml(settings: &str) -> Result<Policy, String> {
    toml::from_str(settings).map_err(|error| error.to_string())
}

#[test]
fn what_is_left_out_is_as_in_the_builder() {
    let expected = Policy::builder().hard_deadline(seconds(3600)).build().unwrap();
    assert_eq!(from_toml("hard_deadline = 3600"), Ok(expected.clone()));
    assert_eq!(from_json(&json!({ "hard_deadline": 3600 })), Ok(expected));

    let expected = Policy::builder().no_backstop().marking_stage("merge").stage("build", StageRules::new());
    let expected = expected.build().unwrap();
    assert_eq!(
        from_toml("no_backstop = true\nstages = { merge = { marks = true }, build = {} }"),
        Ok(expected.clone())
    );
    let settings = json!({ "no_backstop": true, "stages": { "build": {}, "merge": { "marks": true } } });
    assert_eq!(from_json(&settings), Ok(expected));
}

#[test]
fn every_setting_can_be_given() {
    let expected = Policy::builder()
        .mode(Mode::DryRun)
        .finalize_grace(Duration::from_millis(1500))
        .lost_grace(seconds(61))
        .hard_deadline(seconds(3601))
        .boot_grace(Duration::from_nanos(1))
        .stale_after(seconds(601))
        .stage(
            "deploy",
            StageRules::marking()
                .finalize_grace(seconds(2))
                .lost_grace(seconds(3))
                .hard_deadline(seconds(4000))
                .boot_grace(seconds(5))
                .stale_after(seconds(6)),
        )
        .stage("migrate the data", StageRules::marking().no_backstop())
        .build()
        .unwrap();
    let settings = r#"
        mode = "dry_run"
        finalize_grace = 1.5
        lost_grace = 61.0
        hard_deadline = 3_601
        boot_grace = 1e-9
        stale_after = 601

        [stages]
        deploy = { marks = true, finalize_grace = 2, lost_grace = 3, hard_deadline = 4e3, boot_grace = 5, stale_after = 6 }

        [stages."migrate the data"]
        marks = true
        no_backstop = true
    "#;
    assert_eq!(from_toml(settings), Ok(expected.clone()));
    let settings = json!({
        "mode": "dry_run", "finalize_grace": 1.5, "lost_grace": 61.0, "hard_deadline": 3601, "no_backstop": false,
        "boot_grace": 1e-9, "stale_after": 601,
        "stages": {
            "deploy": {
                "marks": true, "finalize_grace": 2, "lost_grace": 3, "hard_deadline": 4e3, "no_backstop": false,
                "boot_grace": 5, "stale_after": 6,
            },
            "migrate the data": { "marks": true, "no_backstop": true },
        },
    });
    assert_eq!(from_json(&settings), Ok(expected));
}

#[test]
fn a_limit_of_null_is_left_out() {
    let settings = json!({
        "finalize_grace": null, "lost_grace": null, "hard_deadline": null, "no_backstop": true, "boot_grace": null,
        "stale_after": null,
        "stages": { "merge": { "finalize_grace": null, "lost_grace": null, "hard_deadline": null, "boot_grace": null, "stale_after": null } },
    });
    let expected = Policy::builder().no_backstop().stage("merge", StageRules::new()).build().unwrap();
    assert_eq!(from_json(&settings), Ok(expected));
    for nothing in ["mode", "no_backstop", "stages"] {
        let settings = json!({ "hard_deadline": 3600, nothing: null });
        assert!(from_json(&settings).is_err(), "{nothing}");
    }
}

/// A misspelt limit must not go unnoticed: it would be the default, or none.
#[test]
fn unknown_fields_are_refused() {
    for settings in ["hard_deadline = 3600\nfinalise_grace = 3", "[stages.merge]\nmark = true"] {
        let error = from_toml(&format!("lost_grace = 3\n{settings}")).unwrap_err();
        assert!(error.contains("unknown field"), "{error}");
    }
    for settings in [
        json!({ "hard_deadline": 3600, "hard-deadline": 1 }),
        json!({ "hard_deadline": 3600, "marks": true }),
        json!({ "hard_deadline": 3600, "stages": { "merge": { "mode": "honor" } } }),
        json!({ "hard_deadline": 3600, "stages": { "merge": { "stages": {} } } }),
    ] {
        let error = from_json(&settings).unwrap_err();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn what_the_builder_refuses_is_refused_in_its_words() {
    let cases = [
        (json!({}), "neither hard_deadline nor no_backstop is given: choose one"),
        (json!({ "no_backstop": false }), "neither hard_deadline nor no_backstop is given: choose one"),
        (
            json!({ "hard_deadline": 3600, "no_backstop": true }),
            "both hard_deadline and no_backstop are given: they contradict each other",
        ),
        (
            json!({ "hard_deadline": 60 }),
            "hard_deadline (60s) must be longer than finalize_grace (300s): the backstop would act first",
        ),
        (
            json!({ "hard_deadline": 600, "stale_after": 600.5 }),
            "hard_deadline (600s) must be longer than stale_after (600.5s): the backstop would act first",
        ),
        (json!({ "hard_deadline": 3600, "lost_grace": 0 }), "lost_grace is zero: every job would be past it at once"),
        (
            json!({ "hard_deadline": 3600, "stages": { "merge": { "boot_grace": 0.0 } } }),
            "stage \"merge\": boot_grace is zero: leave it out to have none",
        ),
        (
            json!({ "hard_deadline": 3600, "stages": { "merge": { "no_backstop": true, "hard_deadline": 4000 } } }),
            "stage \"merge\": both hard_deadline and no_backstop are given: they contradict each other",
        ),
        (
            json!({ "hard_deadline": 3600, "stages": { "merge": { "hard_deadline": 200 } } }),
            "stage \"merge\": hard_deadline (200s) must be longer than finalize_grace (300s): the backstop would act first",
        ),
    ];
    for (settings, words) in cases {
        let error = from_json(&settings).unwrap_err();
        assert!(error.starts_with(words), "{error}");
        let settings: toml::Value = serde_json::from_value(settings).unwrap();
        let error = settings.try_into::<Policy>().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_stage_given_twice_is_refused() {
    // Written out: a `Value` would have lost the first already.
    let settings = r#"{ "hard_deadline": 3600, "stages": { "merge": { "marks": true }, "build": {}, "merge": {} } }"#;
    let error = serde_json::from_str::<Policy>(settings).unwrap_err().to_string();
    assert!(error.starts_with("stage \"merge\": is given twice: its rules contradict each other"), "{error}");
    assert!(from_toml("hard_deadline = 3600\n[stages]\nmerge = { marks = true }\nmerge = {}").is_err());
    for twice in [r#"{"hard_deadline":3600,"hard_deadline":7200}"#, r#"{"no_backstop":true,"stages":{},"stages":{}}"#] {
        let error = serde_json::from_str::<Policy>(twice).unwrap_err().to_string();
        assert!(error.contains("duplicate field"), "{error}");
    }
}

#[test]
fn what_is_no_number_of_seconds_is_refused() {
    for number in ["-1", "-0.5", "1e20", "1e400", "\"300\"", "true", "[300]", "{}", "18446744073709551616"] {
        for settings in [
            format!(r#"{{"no_backstop":true,"finalize_grace":{number}}}"#),
            format!(r#"{{"hard_deadline":{number}}}"#),
            format!(r#"{{"no_backstop":true,"stages":{{"merge":{{"lost_grace":{number}}}}}}}"#),
        ] {
            assert!(serde_json::from_str::<Policy>(&settings).is_err(), "{settings}");
        }
    }
    for number in ["nan", "-nan", "inf", "-inf", "-1", "1e300", "'300'", "1979-05-27"] {
        assert!(from_toml(&format!("no_backstop = true\nboot_grace = {number}")).is_err(), "{number}");
    }
    let error = from_toml("hard_deadline = -3.5").unwrap_err();
    assert!(
        error.contains("-3.5 is no number of seconds: cannot convert float seconds to Duration: value is negative"),
        "{error}"
    );
    let error = from_toml("hard_deadline = -0.0").unwrap_err();
    assert!(error.contains("hard_deadline is zero"), "{error}");
}

#[test]
fn a_policy_is_written_with_all_its_limits() {
    let policy = Policy::builder()
        .finalize_grace(Duration::from_millis(1500))
        .hard_deadline(seconds(3600))
        .boot_grace(seconds(5))
        .stage("migrate", StageRules::marking().no_backstop().stale_after(seconds(600)))
        .stage("build", StageRules::new())
        .build()
        .unwrap();
    let expected = [
        r#"{"mode":"honor","finalize_grace":1.5,"lost_grace":60,"hard_deadline":3600,"boot_grace":5,"stages":{"#,
        r#""build":{"marks":false,"finalize_grace":1.5,"lost_grace":60,"hard_deadline":3600,"boot_grace":5},"#,
        r#""migrate":{"marks":true,"finalize_grace":1.5,"lost_grace":60,"no_backstop":true,"boot_grace":5,"stale_after":600}}}"#,
    ];
    assert_eq!(serde_json::to_string(&policy).unwrap(), expected.concat());
}

/// A length of time that a float holds to the nanosecond, or whole seconds.
fn limit() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1..1_000_000_u64, 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
        (1..1_u64 << 53).prop_map(seconds),
        Just(Duration::from_nanos(1)),
    ]
}

prop_compose! {
    fn rules()(
        marks: bool,
        backstop in proptest::option::of(proptest::option::of(limit())),
        limits in proptest::array::uniform4(proptest::option::of(limit())),
    ) -> StageRules {
        let rules = if marks { StageRules::marking() } else { StageRules::new() };
        let rules = match backstop {
            Some(Some(deadline)) => rules.hard_deadline(deadline),
            Some(None) => rules.no_backstop(),
            None => rules,
        };
        let settings = [
            StageRules::finalize_grace as fn(StageRules, Duration) -> StageRules,
            StageRules::lost_grace,
            StageRules::boot_grace,
            StageRules::stale_after,
        ];
        settings.into_iter().zip(limits).fold(rules, |rules, (set, limit)| match limit {
            Some(limit) => set(rules, limit),
            None => rules,
        })
    }
}

/// Only valid ones: what a builder accepts.
fn any_policy() -> impl Strategy<Value = Policy> {
    let mode = prop_oneof![Just(Mode::Honor), Just(Mode::Ignore), Just(Mode::DeferAll), Just(Mode::DryRun)];
    let name = prop_oneof![any::<String>(), Just(String::from("merge")), Just(String::from("a.b \"c\"\n"))];
    let stages = proptest::collection::btree_map(name, rules(), 0..4);
    let backstop = proptest::option::of(limit());
    let limits = proptest::array::uniform4(proptest::option::of(limit()));
    (mode, backstop, limits, stages).prop_filter_map("refused", |(mode, backstop, limits, stages)| {
        let builder = Policy::builder().mode(mode);
        let builder = match backstop {
            Some(deadline) => builder.hard_deadline(deadline),
            None => builder.no_backstop(),
        };
        let [finalize_grace, lost_grace, boot_grace, stale_after] = limits;
        let builder = finalize_grace.into_iter().fold(builder, |builder, limit| builder.finalize_grace(limit));
        let builder = lost_grace.into_iter().fold(builder, |builder, limit| builder.lost_grace(limit));
        let builder = boot_grace.into_iter().fold(builder, |builder, limit| builder.boot_grace(limit));
        let builder = stale_after.into_iter().fold(builder, |builder, limit| builder.stale_after(limit));
        let builder = stages.into_iter().fold(builder, |builder, (stage, rules)| builder.stage(stage, rules));
        builder.build().ok()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_policy_that_is_written_is_read_back(policy in any_policy()) {
        let json = serde_json::to_string(&policy).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Policy>(&json).unwrap(), &policy, "by {}", json);
        let toml = toml::Value::try_from(&policy).unwrap();
        prop_assert_eq!(&toml.clone().try_into::<Policy>().unwrap(), &policy, "by {:?}", toml);
    }
}

#[test]
fn limits_of_any_length_are_read_back() {
    let read_back = |length| {
        let policy = Policy::builder().no_backstop().lost_grace(length).build().unwrap();
        let json = serde_json::to_string(&policy).unwrap();
        (serde_json::from_str::<Policy>(&json).unwrap(), policy)
    };
    for seconds in [(1 << 53) + 1, u64::MAX] {
        let (read, written) = read_back(Duration::from_secs(seconds));
        assert_eq!(read, written, "whole seconds exactly");
    }
    let (read, _) = read_back(Duration::MAX);
    assert_eq!(read, read_back(Duration::from_secs(u64::MAX)).1, "whose fraction no float has");
}
