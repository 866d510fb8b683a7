//! What a policy builder accepts, what it refuses, and what it says then.

mod support;

use std::time::Duration;

use livemark::{Mode, Policy, PolicyError, StageRules};
use support::seconds;

const ZERO: Duration = Duration::ZERO;
const NANOSECOND: Duration = Duration::from_nanos(1);

#[test]
fn a_backstop_must_be_chosen_or_declined() {
    let error = Policy::builder().build().unwrap_err();
    assert_eq!(error, PolicyError::NoDeadline);
    assert_eq!(error.to_string(), "neither hard_deadline nor no_backstop is given: choose one");
    assert!(Policy::builder().hard_deadline(seconds(3600)).build().is_ok());
    assert!(Policy::builder().no_backstop().build().is_ok());
}

#[test]
fn a_stage_alone_does_not_choose_for_the_others() {
    let rules = StageRules::marking().hard_deadline(seconds(3600));
    assert_eq!(Policy::builder().stage("merge", rules).build().unwrap_err(), PolicyError::NoDeadline);
}

#[test]
fn a_deadline_and_no_backstop_contradict_each_other() {
    let either_order = [
        Policy::builder().hard_deadline(seconds(3600)).no_backstop(),
        Policy::builder().no_backstop().hard_deadline(seconds(3600)),
    ];
    for builder in either_order {
        let error = builder.build().unwrap_err();
        assert_eq!(error, PolicyError::DeadlineAndNoBackstop { stage: None });
        assert_eq!(error.to_string(), "both hard_deadline and no_backstop are given: they contradict each other");
    }
    let rules = StageRules::new().hard_deadline(seconds(3600)).no_backstop();
    let error = Policy::builder().no_backstop().stage("merge", rules).build().unwrap_err();
    assert_eq!(error, PolicyError::DeadlineAndNoBackstop { stage: Some("merge".into()) });
    assert!(error.to_string().starts_with("stage \"merge\": both hard_deadline and no_backstop"), "{error}");
}

#[test]
fn a_deadline_within_the_grace_is_refused() {
    for deadline in [seconds(299), seconds(300)] {
        let error = Policy::builder().finalize_grace(seconds(300)).hard_deadline(deadline).build().unwrap_err();
        let expected =
            PolicyError::DeadlineWithinGrace { stage: None, hard_deadline: deadline, finalize_grace: seconds(300) };
        assert_eq!(error, expected);
        let shown = error.to_string();
        assert!(shown.contains(&format!("hard_deadline ({deadline:?})")), "{shown}");
        assert!(shown.contains("finalize_grace (300s)"), "{shown}");
    }
    let longer = Policy::builder().finalize_grace(seconds(300)).hard_deadline(seconds(300) + NANOSECOND);
    assert!(longer.build().is_ok());
}

#[test]
fn a_stage_is_checked_with_the_limits_that_it_inherits() {
    let policy = || Policy::builder().finalize_grace(seconds(300)).hard_deadline(seconds(3600));
    let short_deadline = policy().stage("merge", StageRules::marking().hard_deadline(seconds(200)));
    let long_grace = policy().stage("merge", StageRules::marking().finalize_grace(seconds(4000)));
    for (builder, hard_deadline, finalize_grace) in
        [(short_deadline, seconds(200), seconds(300)), (long_grace, seconds(3600), seconds(4000))]
    {
        let error = builder.build().unwrap_err();
        let stage = Some("merge".into());
        assert_eq!(error, PolicyError::DeadlineWithinGrace { stage, hard_deadline, finalize_grace });
        let shown = error.to_string();
        assert!(shown.starts_with("stage \"merge\": hard_deadline"), "{shown}");
        assert!(shown.contains(&format!("{hard_deadline:?}")) && shown.contains(&format!("{finalize_grace:?}")));
    }
    let both = StageRules::marking().hard_deadline(seconds(200)).finalize_grace(seconds(100));
    assert!(policy().stage("merge", both).build().is_ok());
    let unbounded = StageRules::marking().no_backstop().finalize_grace(seconds(4000));
    assert!(
        policy().stage("merge", unbounded).build().is_ok(),
        "no_backstop of a stage outdoes the inherited deadline"
    );
}

#[test]
fn a_deadline_within_the_limit_for_pulses_is_refused() {
    for deadline in [seconds(599), seconds(600)] {
        let error = Policy::builder().stale_after(seconds(600)).hard_deadline(deadline).build().unwrap_err();
        let expected =
            PolicyError::DeadlineWithinStaleAfter { stage: None, hard_deadline: deadline, stale_after: seconds(600) };
        assert_eq!(error, expected);
        let expected = format!(
            "hard_deadline ({deadline:?}) must be longer than stale_after (600s): the backstop would act first"
        );
        assert_eq!(error.to_string(), expected);
    }
    assert!(Policy::builder().stale_after(seconds(600)).hard_deadline(seconds(600) + NANOSECOND).build().is_ok());
    assert!(Policy::builder().stale_after(seconds(600)).no_backstop().build().is_ok(), "nothing acts first");
}

#[test]
fn a_stage_is_checked_with_the_limit_for_pulses_that_it_inherits() {
    let policy = || Policy::builder().stale_after(seconds(600)).hard_deadline(seconds(3600));
    let short_deadline = policy().stage("merge", StageRules::marking().hard_deadline(seconds(500)));
    let long_limit = policy().stage("merge", StageRules::marking().stale_after(seconds(4000)));
    assert!(
        policy().stage("external", StageRules::new().hard_deadline(seconds(500))).build().is_ok(),
        "where nobody marks there is no owner to be found stale"
    );
    for (builder, hard_deadline, stale_after) in
        [(short_deadline, seconds(500), seconds(600)), (long_limit, seconds(3600), seconds(4000))]
    {
        let error = builder.build().unwrap_err();
        let stage = Some("merge".into());
        assert_eq!(error, PolicyError::DeadlineWithinStaleAfter { stage, hard_deadline, stale_after });
        let expected = format!(
            "stage \"merge\": hard_deadline ({hard_deadline:?}) must be longer than stale_after ({stale_after:?}): \
             the backstop would act first"
        );
        assert_eq!(error.to_string(), expected);
    }
    let both = StageRules::marking().hard_deadline(seconds(500)).stale_after(seconds(400));
    assert!(policy().stage("merge", both).build().is_ok());
    let unbounded = StageRules::marking().no_backstop().stale_after(seconds(4000));
    assert!(policy().stage("merge", unbounded).build().is_ok());
}

#[test]
fn of_two_faults_of_a_deadline_the_grace_is_named() {
    let error =
        Policy::builder().finalize_grace(seconds(300)).stale_after(seconds(600)).hard_deadline(seconds(200)).build();
    assert!(matches!(error, Err(PolicyError::DeadlineWithinGrace { .. })), "{error:?}");
}

/// Each limit of a stage is its own where it is given, and the policy's where it is not.
#[test]
fn a_stage_overrides_any_limit_alone() {
    let policy = || {
        Policy::builder()
            .finalize_grace(seconds(301))
            .lost_grace(seconds(61))
            .hard_deadline(seconds(3601))
            .boot_grace(seconds(31))
            .stale_after(seconds(601))
    };
    // All of a stage's limits said anew: the same as an override of the one that differs.
    let all = || {
        StageRules::marking()
            .finalize_grace(seconds(301))
            .lost_grace(seconds(61))
            .hard_deadline(seconds(3601))
            .boot_grace(seconds(31))
            .stale_after(seconds(601))
    };
    let one = StageRules::marking;
    let cases = [
        (one(), all()),
        (one().finalize_grace(seconds(2)), all().finalize_grace(seconds(2))),
        (one().lost_grace(seconds(2)), all().lost_grace(seconds(2))),
        (one().hard_deadline(seconds(4000)), all().hard_deadline(seconds(4000))),
        (one().boot_grace(seconds(2)), all().boot_grace(seconds(2))),
        (one().stale_after(seconds(2)), all().stale_after(seconds(2))),
    ];
    let built: Vec<_> = cases
        .into_iter()
        .map(|(alone, among_all)| {
            let alone = policy().stage("merge", alone).build().unwrap();
            assert_eq!(alone, policy().stage("merge", among_all).build().unwrap());
            alone
        })
        .collect();
    for (place, policy) in built.iter().enumerate() {
        assert!(built.iter().skip(place + 1).all(|other| other != policy), "number {place} overrides nothing");
    }
}

#[test]
fn a_limit_of_zero_is_refused() {
    let policy = || Policy::builder().hard_deadline(seconds(3600));
    let cases = [
        ("finalize_grace", None, policy().finalize_grace(ZERO)),
        ("lost_grace", None, policy().lost_grace(ZERO)),
        ("hard_deadline", None, Policy::builder().hard_deadline(ZERO)),
        ("boot_grace", None, policy().boot_grace(ZERO)),
        ("stale_after", None, policy().stale_after(ZERO)),
        ("finalize_grace", Some("merge"), policy().stage("merge", StageRules::new().finalize_grace(ZERO))),
        ("lost_grace", Some("merge"), policy().stage("merge", StageRules::marking().lost_grace(ZERO))),
        ("hard_deadline", Some("merge"), policy().stage("merge", StageRules::marking().hard_deadline(ZERO))),
        ("boot_grace", Some("merge"), policy().stage("merge", StageRules::marking().boot_grace(ZERO))),
        ("stale_after", Some("merge"), policy().stage("merge", StageRules::new().stale_after(ZERO))),
    ];
    for (setting, stage, builder) in cases {
        let error = builder.build().unwrap_err();
        assert_eq!(error, PolicyError::Zero { setting, stage: stage.map(Box::from) });
        let prefix = stage.map(|stage| format!("stage {stage:?}: ")).unwrap_or_default();
        let why =
            if setting == "boot_grace" { "leave it out to have none" } else { "every job would be past it at once" };
        assert_eq!(error.to_string(), format!("{prefix}{setting} is zero: {why}"));
    }
}

#[test]
fn the_shortest_and_the_longest_limits_are_accepted() {
    let shortest = Policy::builder()
        .finalize_grace(NANOSECOND)
        .lost_grace(NANOSECOND)
        .boot_grace(NANOSECOND)
        .stale_after(NANOSECOND)
        .hard_deadline(2 * NANOSECOND);
    assert!(shortest.build().is_ok());
    let longest = Policy::builder()
        .finalize_grace(Duration::from_secs(u64::MAX))
        .lost_grace(Duration::MAX)
        .boot_grace(Duration::MAX)
        .stale_after(Duration::from_secs(u64::MAX))
        .hard_deadline(Duration::MAX);
    assert!(longest.build().is_ok());
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let silent = Policy::builder().hard_deadline(seconds(3600)).build().unwrap();
    let explicit = Policy::builder()
        .mode(Mode::Honor)
        .finalize_grace(seconds(300))
        .lost_grace(seconds(60))
        .hard_deadline(seconds(3600))
        .build()
        .unwrap();
    assert_eq!(silent, explicit);
    assert_eq!(silent.mode(), Mode::default());
}

#[test]
fn the_last_word_on_a_setting_counts() {
    let twice = Policy::builder()
        .mode(Mode::Ignore)
        .mode(Mode::Honor)
        .finalize_grace(seconds(1))
        .finalize_grace(seconds(100))
        .hard_deadline(seconds(2))
        .hard_deadline(seconds(200))
        .marking_stage("merge")
        .build();
    let once =
        Policy::builder().finalize_grace(seconds(100)).hard_deadline(seconds(200)).marking_stage("merge").build();
    assert_eq!(twice, once);
}

#[test]
fn a_stage_is_given_once_or_its_marking_could_be_undone_in_silence() {
    let error = Policy::builder()
        .hard_deadline(seconds(3600))
        .marking_stage("deploy")
        .stage("merge", StageRules::marking())
        .stage("deploy", StageRules::new().hard_deadline(seconds(7200)))
        .build()
        .unwrap_err();
    assert_eq!(error, PolicyError::StageGivenTwice { stage: "deploy".into() });
    assert_eq!(error.to_string(), "stage \"deploy\": is given twice: its rules contradict each other");
}

#[test]
fn another_mode_keeps_the_limits() {
    let policy = support::policy();
    let ignoring = policy.with_mode(Mode::Ignore);
    assert_eq!(ignoring.mode(), Mode::Ignore);
    assert_ne!(ignoring, policy);
    assert_eq!(ignoring.with_mode(Mode::Honor), policy);
    assert_eq!(Policy::builder().mode(Mode::Ignore).no_backstop().build().unwrap().mode(), Mode::Ignore);
}

#[test]
fn a_policy_error_is_an_error() {
    let error: Box<dyn std::error::Error + Send + Sync> = Box::new(Policy::builder().build().unwrap_err());
    assert!(error.source().is_none());
}
