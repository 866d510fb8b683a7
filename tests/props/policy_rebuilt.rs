//! Policies that are taken apart and built again: a policy gives back all that was given to its builder.

use proptest::prelude::*;

use crate::any_policy::{any_policy, limit, rules};

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_policy_gives_back_builds_it_again(policy in any_policy()) {
        let again = policy.to_builder().build();
        prop_assert_eq!(again.as_ref(), Ok(&policy));
        prop_assert_eq!(again.unwrap().to_builder().build(), Ok(policy));
    }

    /// Whatever is given to it again: what comes of it is as good as any, or refused.
    #[test]
    fn what_was_replaced_is_given_back_as_well(
        policy in any_policy(), deadline in limit(), grace in limit(), rules in rules(), bits: u8,
    ) {
        let stage = policy.stages().next().map_or("new", |(stage, _)| stage);
        let builder = policy.to_builder();
        let builder = if bits & 1 == 0 { builder } else { builder.hard_deadline(deadline) };
        let builder = if bits & 2 == 0 { builder } else { builder.finalize_grace(grace) };
        let builder = if bits & 4 == 0 { builder } else { builder.stage(stage, rules) };
        let builder = if bits & 8 == 0 { builder } else { builder.no_marking_stages() };
        if let Ok(changed) = builder.build() {
            prop_assert_eq!(changed.to_builder().build(), Ok(changed));
        }
    }
}
