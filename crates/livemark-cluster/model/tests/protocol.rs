//! The protocol as it should be, in every configuration, explored whole: every property holds, and everything that must
//! be reached is. How many states there are is compared, so that none goes missing unseen.

use std::time::Instant;

use livemark_cluster_model::{Protocol, Settings, configurations};
use stateright::{Checker, Model};

#[track_caller]
fn holds(name: &str, settings: Settings, states: usize) {
    let began = Instant::now();
    let checker = Protocol(settings).checker().spawn_bfs().join();
    let seconds = began.elapsed().as_secs_f64();
    let (found, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {found} states, {} steps, depth {depth}, {seconds:.1} s", checker.state_count());
    checker.assert_properties();
    // It ends early only where every property is discovered, and those that hold always are not.
    assert!(checker.is_done(), "{name} was not explored whole");
    assert_eq!(found, states, "{name}: another model than the one that was told of");
}

/// Each configuration is a test of its own.
macro_rules! configurations {
    ($($(#[$attribute:meta])* $name:ident: $states:literal,)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $name() {
            holds(stringify!($name), configurations::$name(), $states);
        }
    )*};
}

configurations! {
    ghosts: 102_724,
    #[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
    marks: 732_574,
    #[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
    renewals: 172_952,
    #[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
    slow_clocks: 571_437,
    #[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
    reaper: 1_106_057,
    #[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
    settling: 90_624,
    #[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
    lies: 564_205,
    #[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
    siblings: 616_714,
    #[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
    replacing: 354_439,
    #[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
    sessions: 974_335,
}
