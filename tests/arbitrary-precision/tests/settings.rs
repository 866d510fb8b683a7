//! The tests of livemark's settings.

#[path = "../../support/any_policy.rs"]
mod any_policy;
#[path = "../../props/policy_round_trip.rs"]
mod policy_round_trip;
#[path = "../../it/policy_settings.rs"]
mod policy_settings;
