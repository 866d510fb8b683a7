//! Policies that are written and read back, and policies that are a part of larger settings.
//!
//! The package `arbitrary-precision` runs these tests again, with a `serde_json` that gives some numbers as maps.

use std::time::Duration;

use livemark::{Policy, StageRules};
use proptest::prelude::*;

use crate::any_policy::any_policy;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The settings that a valid policy needs, and these.
fn with(settings: &str) -> String {
    format!(r#"{{"hard_deadline":3600,"marking_stages":["merge"],{settings}}}"#)
}

// As a part of something larger

#[derive(Debug, serde::Deserialize)]
struct Flattened {
    name: String,
    #[serde(flatten)]
    policy: Policy,
}

/// What `Policy`'s documentation says of flattened fields, which is what serde does and does not promise.
#[test]
fn a_flattened_policy_is_complete_but_misspelt_settings_vanish() {
    let settings = with(
        r#""name":"reaper","finalize_grace":1.5,"max_redrives":2,"boot_grace":2.50,"stage":{"a":{"lost_grace":2e0}},"marking_stage":"b""#,
    );
    let read: Flattened = serde_json::from_str(&settings).unwrap();
    let grace =
        Policy::builder().hard_deadline(seconds(3600)).finalize_grace(Duration::from_millis(1500)).max_redrives(2);
    let grace = grace.boot_grace(Duration::from_millis(2500)).marking_stages(["merge", "b"]);
    let expected = grace.stage("a", StageRules::new().lost_grace(seconds(2))).build().unwrap();
    assert_eq!((read.name.as_str(), read.policy), ("reaper", expected));
    let text = "name = 'reaper'\nhard_deadline = 3600.5\nmarking_stage = 'merge'";
    assert_eq!(
        toml::from_str::<Flattened>(text).unwrap().policy.hard_deadline(),
        Some(Duration::from_millis(3_600_500))
    );

    let misspelt = with(r#""name":"reaper","stale_aftr":5"#);
    let vanished = serde_json::from_str::<Flattened>(&misspelt).unwrap();
    assert_eq!(vanished.policy.stale_after(), None);
    let wrong = with(r#""name":"reaper","stages":{"a":{"stale_aftr":5}}"#);
    let error = serde_json::from_str::<Flattened>(&wrong).unwrap_err().to_string();
    assert!(error.contains("unknown field `stale_aftr`"), "not in a stage: {error}");
    let twice = with(r#""name":"reaper","hard_deadline":5"#);
    let error = serde_json::from_str::<Flattened>(&twice).unwrap_err().to_string();
    assert!(error.contains("duplicate field"), "{error}");
}

#[test]
fn denying_unknown_fields_around_a_flattened_policy_refuses_them() {
    #[derive(Debug, serde::Deserialize)]
    struct Timing {
        every: u64,
    }
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        name: String,
        #[serde(flatten)]
        policy: Policy,
        #[serde(flatten)]
        timing: Timing,
    }
    let rest = r#""name":"reaper","every":5,"marking_stage":"a","stage":{"b":{}}"#;
    let read: Strict = serde_json::from_str(&with(rest)).unwrap();
    assert_eq!((read.name.as_str(), read.timing.every), ("reaper", 5));
    assert!(read.policy.marking_stages().eq(["a", "merge"]));
    let error = serde_json::from_str::<Strict>(&with(&format!(r#"{rest},"stale_aftr":5"#))).unwrap_err().to_string();
    assert!(error.starts_with("unknown field `stale_aftr`"), "{error}");
    let text = "name = 'a'\nevery = 5\nhard_deadline = 3600\nmarking_stage = 'merge'\n";
    assert!(toml::from_str::<Strict>(text).is_ok());
    let error = toml::from_str::<Strict>(&format!("{text}stale_aftr = 5")).unwrap_err().to_string();
    assert!(error.contains("unknown field `stale_aftr`"), "{error}");
}

#[test]
fn an_option_of_a_flattened_policy_hides_what_is_wrong_with_it() {
    #[derive(serde::Deserialize)]
    struct Optional {
        #[serde(flatten)]
        policy: Option<Policy>,
    }
    assert!(serde_json::from_str::<Optional>(&with(r#""lost_grace":5"#)).unwrap().policy.is_some());
    assert!(serde_json::from_str::<Optional>(&with(r#""lost_grace":-5"#)).unwrap().policy.is_none());
}

// What is written

#[test]
fn a_policy_is_written_with_all_its_limits() {
    let policy = Policy::builder()
        .finalize_grace(Duration::from_millis(1500))
        .hard_deadline(seconds(3600))
        .boot_grace(seconds(5))
        .marking_stage("migrate")
        .stage("build", StageRules::new().no_backstop().max_redrives(0).stale_after(seconds(600)))
        .build()
        .unwrap();
    let expected = [
        r#"{"mode":"honor","finalize_grace":1.5,"lost_grace":60,"hard_deadline":3600,"max_redrives":3,"boot_grace":5,"stages":{"#,
        r#""build":{"marking":false,"finalize_grace":1.5,"lost_grace":60,"no_backstop":true,"max_redrives":0,"boot_grace":5,"stale_after":600},"#,
        r#""migrate":{"marking":true,"finalize_grace":1.5,"lost_grace":60,"hard_deadline":3600,"max_redrives":3,"boot_grace":5}}}"#,
    ];
    assert_eq!(serde_json::to_string(&policy).unwrap(), expected.concat());

    let none = Policy::builder().no_backstop().no_marking_stages().build().unwrap();
    let expected = r#"{"mode":"honor","finalize_grace":300,"lost_grace":60,"no_backstop":true,"max_redrives":3,"no_marking_stages":true,"stages":{}}"#;
    assert_eq!(serde_json::to_string(&none).unwrap(), expected);
}

/// Written out in the stage, it would be the stage's own, and refused.
#[test]
fn a_limit_for_pulses_that_nobody_could_exceed_is_read_back() {
    let policy = Policy::builder()
        .stale_after(seconds(600))
        .hard_deadline(seconds(3600))
        .marking_stage("merge")
        .stage("build", StageRules::new().hard_deadline(seconds(500)))
        .build()
        .unwrap();
    let json = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_policy_that_is_written_is_read_back(policy in any_policy()) {
        let json = serde_json::to_string(&policy).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Policy>(&json).unwrap(), &policy, "by {}", json);
        let tree = serde_json::to_value(&policy).unwrap();
        prop_assert_eq!(&serde_json::from_value::<Policy>(tree).unwrap(), &policy, "by {}", json);
        // TOML has integers of 63 bits.
        let all = policy.stages().map(|(_, limits)| *limits).chain([*policy.stage("nobody's")]);
        let longest = all.flat_map(|limits| {
            let optional = [limits.hard_deadline, limits.boot_grace, limits.stale_after];
            optional.into_iter().flatten().chain([limits.finalize_grace, limits.lost_grace])
        });
        let Ok(toml) = toml::Value::try_from(&policy) else {
            prop_assert!(longest.max().unwrap().as_secs() > i64::MAX as u64);
            return Ok(());
        };
        prop_assert_eq!(&toml.clone().try_into::<Policy>().unwrap(), &policy, "by {:?}", toml);
    }
}

/// The code before was seen to read some of them back as others, a few nanoseconds longer or shorter.
#[test]
fn limits_of_any_length_are_read_back() {
    let shown = |length| {
        let policy = Policy::builder().no_backstop().no_marking_stages().lost_grace(length).build().unwrap();
        let json = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), policy, "{json}");
        serde_json::to_value(&policy).unwrap()["lost_grace"].to_string()
    };
    for secs in [1, (1 << 53) + 1, u64::MAX] {
        assert_eq!(shown(seconds(secs)), secs.to_string());
    }
    assert_eq!(shown(Duration::new((1 << 20) - 1, 999_999_999)), "1048575.999999999");
    assert_eq!(shown(Duration::from_nanos(1)), "1e-9");
    assert_eq!(shown(Duration::new(1 << 40, 1)), r#"{"nanos":1,"secs":1099511627776}"#);
    shown(Duration::MAX);
}
