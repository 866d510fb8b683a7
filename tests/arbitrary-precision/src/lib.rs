//! The tests of livemark's settings, in a build in which the feature `arbitrary_precision` of `serde_json` is on.
//!
//! Any crate of a build can turn it on for all. `serde_json` then gives a number that is no integer as a map with a
//! private key. The tests are those of `tests/it/policy_settings.rs` and
//! `tests/props/policy_round_trip.rs`.

#[cfg(test)]
mod tests {
    #[test]
    fn the_feature_is_on() {
        assert_eq!(serde_json::from_str::<serde_json::Value>("1.00").unwrap().to_string(), "1.00");
    }
}
