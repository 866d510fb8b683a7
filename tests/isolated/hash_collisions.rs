//! Jobs of equal hashes by the thousand: correct, in bounded memory, at the price that the documentation names.

use std::time::Instant;

use livemark::{Registry, reclaim_stats};

use crate::process::isolated;
use crate::support::AllEqual;

/// Marks so many, looks each up, clears each; n steps for each of n jobs, as in any map whose keys need not be ordered.
fn flood(jobs: u64) {
    let registry: Registry<u64, u64, AllEqual> = Registry::default();
    let started = Instant::now();
    let guards: Vec<_> = (0..jobs).map(|job| registry.mark(job, job)).collect();
    println!("{jobs} marks of equal hash: {:.1} s", started.elapsed().as_secs_f64());
    let owned = jobs.try_into().expect("it fits");
    assert_eq!((registry.len(), registry.snapshot().len()), (owned, owned));
    // A bucket of them is one thing, however large: few of those wait.
    assert!(reclaim_stats().unreclaimed() < 1_024, "{:?}", reclaim_stats());
    let mut reader = registry.reader();
    for job in (0..jobs).step_by(97) {
        assert_eq!(reader.owner(&job).map(|owner| owner.value), Some(job));
        assert!(registry.try_mark(job, 0).is_err());
    }
    assert!(!reader.is_active(&jobs) && !registry.is_active(&jobs));
    drop(reader);
    // From both ends, and by each way to clear.
    let (first, last) = guards.split_at(guards.len() / 2);
    for (one, other) in first.iter().zip(last.iter().rev()) {
        assert!(registry.clear_generation(one.job(), one.generation()));
        assert!(registry.clear(other.job()));
    }
    assert!(registry.is_empty());
    println!("all of it: {:.1} s", started.elapsed().as_secs_f64());
}

#[test]
fn a_thousand_equal_hashes() {
    isolated!();
    flood(1_000);
}

#[test]
#[ignore = "minutes, where not optimized: `cargo test --release --test isolated -- --ignored`"]
fn a_hundred_thousand_equal_hashes() {
    isolated!();
    flood(100_000);
}
