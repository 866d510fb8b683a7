//! Properties of any input: the library beside a model of it, which says the same in a simpler way.

mod decision_table;
mod judge_vs_spec;
mod policy_rebuilt;
#[cfg(feature = "serde")]
mod policy_round_trip;
mod registry_vs_hashmap;

#[path = "../support/any_policy.rs"]
mod any_policy;
#[path = "../support/mod.rs"]
mod support;
