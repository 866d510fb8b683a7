//! Policies of any kind, for property tests.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::time::Duration;

use livemark::{Mode, Policy, StageRules};
use proptest::prelude::*;

/// Any length of time, and often one that is likely.
pub(crate) fn limit() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1..1_000_000_u64, 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
        (0..=u64::MAX, 0..1_000_000_000_u32)
            .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos).max(Duration::from_nanos(1))),
        (0..64_u32, 0..1_000_000_000_u32).prop_map(|(bits, nanos)| Duration::new(1 << bits, nanos)),
        (0..64_u32).prop_map(|bits| Duration::from_secs(u64::MAX >> bits)),
        Just(Duration::MAX),
        Just(Duration::from_nanos(1)),
    ]
}

/// What few stages give and most inherit.
fn seldom<T: Clone + std::fmt::Debug>(some: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    proptest::option::weighted(0.3, some)
}

prop_compose! {
    pub(crate) fn rules()(
        marking: bool,
        backstop in seldom(proptest::option::of(limit())),
        max_redrives in seldom(any::<u32>()),
        limits in proptest::array::uniform4(seldom(limit())),
    ) -> StageRules {
        let rules = if marking { StageRules::marking() } else { StageRules::new() };
        let rules = match backstop {
            Some(Some(deadline)) => rules.hard_deadline(deadline),
            Some(None) => rules.no_backstop(),
            None => rules,
        };
        let rules = max_redrives.into_iter().fold(rules, StageRules::max_redrives);
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
pub(crate) fn any_policy() -> impl Strategy<Value = Policy> {
    let mode = prop_oneof![Just(Mode::Honor), Just(Mode::Ignore), Just(Mode::DeferAll), Just(Mode::DryRun)];
    let name = prop_oneof![any::<String>(), Just(String::from("merge")), Just(String::from("a.b \"c\"\n"))];
    let stages = proptest::collection::btree_map(name, (any::<bool>(), rules()), 0..4);
    let backstop = proptest::option::of(limit());
    let limits = proptest::array::uniform4(proptest::option::of(limit()));
    let redrives = proptest::option::of(any::<u32>());
    (mode, backstop, redrives, limits, stages).prop_filter_map(
        "refused",
        |(mode, backstop, redrives, limits, stages)| {
            let builder = Policy::builder().mode(mode);
            let builder = match backstop {
                Some(deadline) => builder.hard_deadline(deadline),
                None => builder.no_backstop(),
            };
            let [finalize_grace, lost_grace, boot_grace, stale_after] = limits;
            let builder = redrives.into_iter().fold(builder, |builder, redrives| builder.max_redrives(redrives));
            let builder = finalize_grace.into_iter().fold(builder, |builder, limit| builder.finalize_grace(limit));
            let builder = lost_grace.into_iter().fold(builder, |builder, limit| builder.lost_grace(limit));
            let builder = boot_grace.into_iter().fold(builder, |builder, limit| builder.boot_grace(limit));
            let builder = stale_after.into_iter().fold(builder, |builder, limit| builder.stale_after(limit));
            let builder = stages.into_iter().fold(builder, |builder, (stage, (alone, rules))| {
                if alone { builder.marking_stage(stage) } else { builder.stage(stage, rules) }
            });
            builder.clone().build().or_else(|_| builder.no_marking_stages().build()).ok()
        },
    )
}
