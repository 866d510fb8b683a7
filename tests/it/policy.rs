//! What a policy builder accepts, what it refuses and says then, and what a policy tells.

use std::time::Duration;

use livemark::{Mode, Policy, PolicyBuilder, PolicyError, StageLimits, StageRules};

use crate::support::{NANOSECOND, seconds};

const ZERO: Duration = Duration::ZERO;

/// A builder to which nothing is missing.
fn complete() -> PolicyBuilder {
    Policy::builder().hard_deadline(seconds(3600)).marking_stage("merge")
}

type SetLimit = (&'static str, fn(PolicyBuilder, Duration) -> PolicyBuilder, fn(StageRules, Duration) -> StageRules);

/// The limits that must be below the deadline.
const BOUNDED: [SetLimit; 4] = [
    ("finalize_grace", PolicyBuilder::finalize_grace, StageRules::finalize_grace),
    ("lost_grace", PolicyBuilder::lost_grace, StageRules::lost_grace),
    ("boot_grace", PolicyBuilder::boot_grace, StageRules::boot_grace),
    ("stale_after", PolicyBuilder::stale_after, StageRules::stale_after),
];

// What must be chosen

#[test]
fn a_backstop_must_be_chosen_or_declined() {
    let builder = || Policy::builder().marking_stage("merge");
    let error = builder().build().unwrap_err();
    assert_eq!(error, PolicyError::NoDeadline);
    assert_eq!(error.to_string(), "neither hard_deadline nor no_backstop is given: choose one");
    assert!(builder().hard_deadline(seconds(3600)).build().is_ok());
    assert!(builder().no_backstop().build().is_ok());
}

#[test]
fn a_stage_alone_does_not_choose_for_the_others() {
    let rules = StageRules::marking().hard_deadline(seconds(3600));
    assert_eq!(Policy::builder().stage("merge", rules).build(), Err(PolicyError::NoDeadline));
}

#[test]
fn a_deadline_and_no_backstop_contradict_each_other() {
    let either_order = [complete().no_backstop(), Policy::builder().no_backstop().hard_deadline(seconds(3600))];
    for builder in either_order {
        let error = builder.build().unwrap_err();
        assert_eq!(error, PolicyError::DeadlineAndNoBackstop { stage: None });
        assert_eq!(error.to_string(), "both hard_deadline and no_backstop are given: they contradict each other");
    }
    let rules = StageRules::marking().hard_deadline(seconds(3600)).no_backstop();
    let error = Policy::builder().no_backstop().stage("merge", rules).build().unwrap_err();
    assert_eq!(error, PolicyError::DeadlineAndNoBackstop { stage: Some("merge".into()) });
    assert_eq!(
        error.to_string(),
        "stage \"merge\": both hard_deadline and no_backstop are given: they contradict each other"
    );
}

/// Before, such a policy was built, and a reaper with it redrove live finalizers after no more than a `warn` event.
/// This test was seen to fail with the check taken out of `build()`.
#[test]
fn marking_stages_must_be_named_or_declined_in_every_mode() {
    for mode in [Mode::Honor, Mode::Ignore, Mode::DeferAll, Mode::DryRun] {
        let builder = || Policy::builder().mode(mode).no_backstop();
        for silent in [
            builder(),
            builder().marking_stages([""; 0]),
            builder().stage("build", StageRules::new().finalize_grace(seconds(10))),
        ] {
            let error = silent.build().unwrap_err();
            assert_eq!(error, PolicyError::NoMarkingStages);
            assert_eq!(error.to_string(), "neither a marking stage nor no_marking_stages is given: choose one");
        }
        assert!(builder().marking_stage("merge").build().is_ok());
        assert!(builder().marking_stages(["merge"]).build().is_ok());
        assert!(builder().stage("merge", StageRules::marking()).build().is_ok());
        assert!(builder().no_marking_stages().build().is_ok());
        assert!(builder().no_marking_stages().stage("build", StageRules::new()).build().is_ok());
    }
}

#[test]
fn marking_stages_and_no_marking_stages_contradict_each_other() {
    let builder = || Policy::builder().no_backstop();
    for both in [
        builder().marking_stage("merge").no_marking_stages(),
        builder().no_marking_stages().marking_stages(["merge", "test"]),
        builder().no_marking_stages().stage("build", StageRules::new()).stage("merge", StageRules::marking()),
    ] {
        let error = both.build().unwrap_err();
        assert_eq!(error, PolicyError::MarkingAndNoMarkingStages { stage: "merge".into() });
        assert_eq!(
            error.to_string(),
            "both a marking stage (\"merge\") and no_marking_stages are given: they contradict each other"
        );
    }
    assert!(builder().no_marking_stages().marking_stages([""; 0]).build().is_ok(), "none is named");
}

#[test]
fn a_stage_is_given_once_or_its_marking_could_be_undone_in_silence() {
    let twice = [
        complete().marking_stage("deploy").stage("deploy", StageRules::new().hard_deadline(seconds(7200))),
        complete().marking_stages(["deploy", "gates", "deploy"]),
        complete().stage("deploy", StageRules::new()).stage("a", StageRules::new()).marking_stages(["deploy"]),
    ];
    for builder in twice {
        let error = builder.build().unwrap_err();
        assert_eq!(error, PolicyError::StageGivenTwice { stage: "deploy".into() });
        assert_eq!(error.to_string(), "stage \"deploy\": is given twice: its rules contradict each other");
    }
}

// Limits that could never act

/// Before, a `lost_grace` and a `boot_grace` were compared with nothing. This test was seen to fail with these two
/// taken out of the comparison.
#[test]
fn a_limit_that_is_not_below_the_deadline_is_refused() {
    for (setting, set, _) in BOUNDED {
        // The other limits are out of the way.
        let builder = || complete().finalize_grace(NANOSECOND).lost_grace(NANOSECOND);
        for hard_deadline in [seconds(599), seconds(600)] {
            let error = set(builder(), seconds(600)).hard_deadline(hard_deadline).build().unwrap_err();
            assert_eq!(error, PolicyError::NeverActs { setting, limit: seconds(600), hard_deadline, stage: None });
            assert_eq!(
                error.to_string(),
                format!(
                    "hard_deadline ({hard_deadline:?}) must be longer than {setting} (600s): the backstop would act first"
                )
            );
        }
        assert!(set(builder(), seconds(600)).hard_deadline(seconds(600) + NANOSECOND).build().is_ok(), "{setting}");
        let unbounded = Policy::builder().no_backstop().marking_stage("merge");
        assert!(set(unbounded, Duration::MAX).build().is_ok(), "{setting}: nothing acts first");
    }
}

#[test]
fn defaults_are_compared_as_well() {
    let error = complete().hard_deadline(seconds(60)).build().unwrap_err();
    let expected = |setting, limit| PolicyError::NeverActs {
        setting,
        limit: seconds(limit),
        hard_deadline: seconds(60),
        stage: None,
    };
    assert_eq!(error, expected("finalize_grace", 300));
    let error = complete().hard_deadline(seconds(60)).finalize_grace(seconds(30)).build().unwrap_err();
    assert_eq!(error, expected("lost_grace", 60));
}

#[test]
fn a_stage_is_checked_with_the_limits_that_it_inherits() {
    for (setting, set, set_own) in BOUNDED {
        let policy = || {
            let base = Policy::builder().finalize_grace(NANOSECOND).lost_grace(NANOSECOND);
            set(base, seconds(600)).hard_deadline(seconds(3600))
        };
        let own_deadline = StageRules::marking().hard_deadline(seconds(500));
        let own_limit = set_own(StageRules::marking(), seconds(4000));
        for (rules, limit, hard_deadline) in
            [(own_deadline.clone(), seconds(600), seconds(500)), (own_limit.clone(), seconds(4000), seconds(3600))]
        {
            let error = policy().stage("merge", rules).build().unwrap_err();
            assert_eq!(error, PolicyError::NeverActs { setting, limit, hard_deadline, stage: Some("merge".into()) });
            let expected = format!(
                "stage \"merge\": hard_deadline ({hard_deadline:?}) must be longer than {setting} ({limit:?}): \
                 the backstop would act first"
            );
            assert_eq!(error.to_string(), expected);
        }
        assert!(policy().stage("merge", set_own(own_deadline, seconds(400))).build().is_ok(), "{setting}");
        assert!(policy().stage("merge", own_limit.no_backstop()).build().is_ok(), "{setting}: outdoes the deadline");
    }
}

#[test]
fn an_inherited_limit_for_pulses_is_not_compared_where_nobody_marks() {
    let policy = || complete().finalize_grace(seconds(30)).stale_after(seconds(600));
    let short = || StageRules::new().hard_deadline(seconds(500));
    let built = policy().stage("external", short()).build().unwrap();
    assert_eq!(built.stage("external").stale_after, Some(seconds(600)));
    let error = policy().stage("external", short().stale_after(seconds(600))).build().unwrap_err();
    assert!(matches!(error, PolicyError::NeverActs { setting: "stale_after", stage: Some(_), .. }), "its own is");
    for (setting, set, _) in BOUNDED.into_iter().take(3) {
        let error = set(complete().finalize_grace(seconds(30)), seconds(600)).stage("external", short()).build();
        assert!(matches!(&error, Err(PolicyError::NeverActs { setting: found, .. }) if *found == setting), "{error:?}");
    }
}

#[test]
fn of_several_faults_of_a_deadline_the_first_setting_is_named() {
    let builder = || complete().boot_grace(seconds(700)).stale_after(seconds(600)).hard_deadline(seconds(50));
    let named = |builder: PolicyBuilder| match builder.build() {
        Err(PolicyError::NeverActs { setting, .. }) => setting,
        other => panic!("{other:?}"),
    };
    assert_eq!(named(builder()), "finalize_grace");
    assert_eq!(named(builder().finalize_grace(NANOSECOND)), "lost_grace");
    assert_eq!(named(builder().finalize_grace(NANOSECOND).lost_grace(NANOSECOND)), "boot_grace");
}

#[test]
fn a_limit_of_zero_is_refused() {
    let stage = |rules| complete().stage("deploy", rules);
    let mut cases: Vec<_> = BOUNDED.iter().map(|(setting, set, _)| (*setting, None, set(complete(), ZERO))).collect();
    cases.extend(BOUNDED.map(|(setting, _, set)| (setting, Some("deploy"), stage(set(StageRules::new(), ZERO)))));
    cases.push(("hard_deadline", None, complete().hard_deadline(ZERO)));
    cases.push(("hard_deadline", Some("deploy"), stage(StageRules::marking().hard_deadline(ZERO))));
    for (setting, stage, builder) in cases {
        let error = builder.build().unwrap_err();
        assert_eq!(error, PolicyError::Zero { setting, stage: stage.map(Box::from) });
        let prefix = stage.map(|stage| format!("stage {stage:?}: ")).unwrap_or_default();
        let why =
            if setting == "boot_grace" { "leave it out to have none" } else { "every job would be past it at once" };
        assert_eq!(error.to_string(), format!("{prefix}{setting} is zero: {why}"));
    }
    assert_eq!(complete().max_redrives(0).build().unwrap().max_redrives(), 0, "never redrive");
}

#[test]
fn the_shortest_and_the_longest_limits_are_accepted() {
    let set_all = |limit| BOUNDED.iter().fold(complete(), |builder, (_, set, _)| set(builder, limit));
    assert!(set_all(NANOSECOND).hard_deadline(2 * NANOSECOND).build().is_ok());
    assert!(set_all(Duration::MAX - NANOSECOND).hard_deadline(Duration::MAX).max_redrives(u32::MAX).build().is_ok());
}

// What a policy tells

/// `StageLimits` cannot be written out here, so these are those of a stage, changed.
fn changed(limits: &StageLimits, change: impl FnOnce(&mut StageLimits)) -> StageLimits {
    let mut limits = *limits;
    change(&mut limits);
    limits
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let policy = complete().build().unwrap();
    assert_eq!(policy.mode(), Mode::Honor);
    assert_eq!((policy.finalize_grace(), policy.lost_grace()), (seconds(300), seconds(60)));
    assert_eq!((policy.hard_deadline(), policy.max_redrives()), (Some(seconds(3600)), 3));
    assert_eq!((policy.boot_grace(), policy.stale_after()), (None, None));
    let explicit = complete().mode(Mode::Honor).finalize_grace(seconds(300)).lost_grace(seconds(60)).max_redrives(3);
    assert_eq!(explicit.build(), Ok(policy));
}

#[test]
fn every_setting_is_told() {
    let policy = Policy::builder()
        .mode(Mode::DeferAll)
        .finalize_grace(seconds(1))
        .lost_grace(seconds(2))
        .hard_deadline(seconds(3))
        .max_redrives(4)
        .boot_grace(NANOSECOND)
        .stale_after(2 * NANOSECOND)
        .marking_stage("merge")
        .marking_stages(vec![String::from("gates"), "deploy".into()])
        .stage("build", StageRules::new().no_backstop())
        .build()
        .unwrap();
    assert_eq!(policy.mode(), Mode::DeferAll);
    assert_eq!((policy.finalize_grace(), policy.lost_grace()), (seconds(1), seconds(2)));
    assert_eq!((policy.hard_deadline(), policy.max_redrives()), (Some(seconds(3)), 4));
    assert_eq!((policy.boot_grace(), policy.stale_after()), (Some(NANOSECOND), Some(2 * NANOSECOND)));
    assert_eq!(policy.marking_stages().collect::<Vec<_>>(), ["deploy", "gates", "merge"]);
    let stages: Vec<_> = policy.stages().map(|(stage, limits)| (stage, limits.hard_deadline)).collect();
    let deadline = Some(seconds(3));
    assert_eq!(stages, [("build", None), ("deploy", deadline), ("gates", deadline), ("merge", deadline)]);
    let shown = format!("{policy:?}");
    assert!(shown.contains("mode: DeferAll") && shown.contains("\"build\": StageLimits { marking: false"), "{shown}");
}

/// Each limit of a stage is its own where it is given, and the policy's where it is not.
#[test]
fn a_stage_overrides_any_limit_alone() {
    type Override = (StageRules, fn(&mut StageLimits));
    let mark = StageRules::marking;
    let overrides: [Override; 9] = [
        (mark(), |_| {}),
        (StageRules::new(), |limits| limits.marking = false),
        (mark().finalize_grace(seconds(2)), |limits| limits.finalize_grace = seconds(2)),
        (mark().lost_grace(seconds(2)), |limits| limits.lost_grace = seconds(2)),
        (mark().hard_deadline(seconds(4000)), |limits| limits.hard_deadline = Some(seconds(4000))),
        (mark().no_backstop(), |limits| limits.hard_deadline = None),
        (mark().max_redrives(0), |limits| limits.max_redrives = 0),
        (mark().boot_grace(seconds(2)), |limits| limits.boot_grace = Some(seconds(2))),
        (mark().stale_after(seconds(2)), |limits| limits.stale_after = Some(seconds(2))),
    ];
    for (rules, change) in overrides {
        let policy = complete()
            .finalize_grace(seconds(301))
            .lost_grace(seconds(61))
            .max_redrives(7)
            .boot_grace(seconds(31))
            .stale_after(seconds(601))
            .stage("deploy", rules)
            .build()
            .unwrap();
        assert_eq!(*policy.stage("deploy"), changed(policy.stage("merge"), change));
        let undeclared = policy.stage("nobody's");
        assert_eq!(*undeclared, changed(policy.stage("merge"), |limits| limits.marking = false));
        assert_eq!(
            (undeclared.finalize_grace, undeclared.lost_grace, undeclared.hard_deadline, undeclared.max_redrives),
            (policy.finalize_grace(), policy.lost_grace(), policy.hard_deadline(), policy.max_redrives())
        );
        assert_eq!((undeclared.boot_grace, undeclared.stale_after), (policy.boot_grace(), policy.stale_after()));
    }
}

#[test]
fn the_last_word_on_a_setting_counts() {
    let twice = Policy::builder()
        .mode(Mode::Ignore)
        .mode(Mode::Honor)
        .finalize_grace(seconds(1))
        .finalize_grace(seconds(100))
        .max_redrives(9)
        .max_redrives(8)
        .hard_deadline(seconds(2))
        .hard_deadline(seconds(200))
        .marking_stage("merge")
        .build();
    let once = complete().finalize_grace(seconds(100)).max_redrives(8).hard_deadline(seconds(200)).build();
    assert!(once.is_ok());
    assert_eq!(twice, once);
}

#[test]
fn policies_are_equal_by_what_holds() {
    let inherits = complete().stage("deploy", StageRules::marking()).build().unwrap();
    let own = complete().stage("deploy", StageRules::marking().finalize_grace(seconds(300)).max_redrives(3));
    assert_eq!(own.build().unwrap(), inherits);
    assert_ne!(complete().build().unwrap(), inherits, "another stage marks");
    assert_ne!(inherits.with_mode(Mode::Ignore), inherits);
    let everywhere = || Policy::builder().hard_deadline(seconds(3600)).no_marking_stages();
    for (setting, set, _) in BOUNDED {
        assert_ne!(set(everywhere(), seconds(301)).build(), everywhere().build(), "{setting}");
    }
}

#[test]
fn another_mode_keeps_the_limits() {
    let policy = complete().stage("deploy", StageRules::new().max_redrives(1)).build().unwrap();
    let ignoring = policy.with_mode(Mode::Ignore);
    assert_eq!(ignoring.mode(), Mode::Ignore);
    assert!(ignoring.stages().eq(policy.stages()));
    assert_eq!(ignoring.with_mode(Mode::Honor), policy);
    assert_eq!(ignoring.to_builder().build(), Ok(ignoring), "also given back");
}

#[test]
fn a_policy_error_is_an_error() {
    let error: Box<dyn std::error::Error + Send + Sync> = Box::new(Policy::builder().build().unwrap_err());
    assert!(error.source().is_none());
}

// What a policy gives back to be changed

#[test]
fn a_limit_given_again_is_followed_by_the_stages_that_inherit_it() {
    let rules = || StageRules::marking().finalize_grace(seconds(900)).max_redrives(1);
    let policy = complete().stage("deploy", rules()).build().unwrap();
    let changed = policy.to_builder().finalize_grace(seconds(600)).max_redrives(5).mode(Mode::DryRun).build();
    let expected = complete().finalize_grace(seconds(600)).max_redrives(5).mode(Mode::DryRun).stage("deploy", rules());
    assert_eq!(changed, expected.build());
    let refused = policy.to_builder().hard_deadline(seconds(800)).build();
    let stage = Some("deploy".into());
    let (limit, hard_deadline) = (seconds(900), seconds(800));
    assert_eq!(refused, Err(PolicyError::NeverActs { setting: "finalize_grace", limit, hard_deadline, stage }));
}

#[test]
fn a_backstop_given_again_replaces_the_inherited_one() {
    let bounded = complete().build().unwrap();
    let unbounded = Policy::builder().no_backstop().marking_stage("merge").build().unwrap();
    assert_eq!(bounded.to_builder().no_backstop().build().as_ref(), Ok(&unbounded));
    assert_eq!(unbounded.to_builder().hard_deadline(seconds(3600)).build().as_ref(), Ok(&bounded));
    let both = unbounded.to_builder().hard_deadline(seconds(3600)).no_backstop().build();
    assert_eq!(both, Err(PolicyError::DeadlineAndNoBackstop { stage: None }), "given twice anew");
}

#[test]
fn a_stage_given_again_replaces_that_stage_alone() {
    let policy = complete().stage("deploy", StageRules::marking().max_redrives(1)).build().unwrap();
    let again = policy.to_builder().stage("deploy", StageRules::marking().lost_grace(seconds(9))).build();
    assert_eq!(again, complete().stage("deploy", StageRules::marking().lost_grace(seconds(9))).build());
    let again = policy.to_builder().marking_stages(["deploy", "gates"]).build();
    assert_eq!(again, complete().marking_stages(["deploy", "gates"]).build(), "its own limits are gone");
    let twice = policy.to_builder().marking_stage("deploy").stage("deploy", StageRules::new()).build();
    assert_eq!(twice, Err(PolicyError::StageGivenTwice { stage: "deploy".into() }));

    let unmarked = policy.to_builder().stage("deploy", StageRules::new()).build().unwrap();
    assert!(unmarked.marking_stages().eq(["merge"]));
    let none = unmarked.to_builder().stage("merge", StageRules::new()).build();
    assert_eq!(none, Err(PolicyError::NoMarkingStages), "the last one must be declined in so many words");
}

#[test]
fn marking_given_again_replaces_the_inherited_marking() {
    let rules = || StageRules::marking().max_redrives(1);
    let marking = complete().stage("deploy", rules()).build().unwrap();
    let none = marking.to_builder().no_marking_stages().build().unwrap();
    assert_eq!(none.marking_stages().next(), None);
    assert_eq!(none.stage("deploy").max_redrives, 1, "only the marking is gone");
    let mut stages = none.stages().map(|(stage, _)| stage);
    assert!(stages.by_ref().eq(["deploy", "merge"]));
    let builder = none.to_builder().stage("deploy", rules()).marking_stage("merge");
    assert_eq!(builder.build(), Ok(marking.clone()));

    let both = marking.to_builder().no_marking_stages().marking_stage("gates").build();
    assert_eq!(both, Err(PolicyError::MarkingAndNoMarkingStages { stage: "gates".into() }), "given twice anew");
    let kept = none.to_builder().stage("build", StageRules::new()).build();
    assert!(kept.is_ok(), "no_marking_stages is inherited");
}
