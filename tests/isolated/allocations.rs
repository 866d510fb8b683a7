//! What allocates and what does not: reads never, a refused claim and a healthy job never, a mark once.

use livemark::{Claim, Finalizer, Reaper, Registry, RegistryHandle, Sweep, Verdict};

use crate::heap::allocations;
use crate::process::isolated;
use crate::support::{AllEqual, OneRootSlot, finished, overdue, policy, running, wait_until};

/// Enough calls for whatever happens on every 64th or 128th.
const CALLS: u64 = 1_000;

#[test]
fn the_count_counts() {
    isolated!();
    assert_eq!(allocations(|| Box::new(7)), 1);
}

#[test]
fn is_active_and_owner_never_allocate() {
    isolated!();
    let registry: Registry = Registry::new();
    let _guards: Vec<_> = (0..100).map(|job| registry.mark(job, Finalizer::new(None, "merge"))).collect();
    assert_eq!(allocations(|| (0..CALLS).filter(|job| registry.is_active(job)).count()), 0);
    assert_eq!(allocations(|| (0..CALLS).filter(|job| registry.owner(job).is_some()).count()), 0);

    let crowded = Registry::with_hasher(OneRootSlot::default());
    let _guards: Vec<_> = (0..100).map(|job| crowded.mark(job, ())).collect();
    assert_eq!(allocations(|| (0..CALLS).filter(|job| crowded.is_active(job)).count()), 0);
}

#[test]
fn a_reader_never_allocates() {
    isolated!();
    let registry: Registry = Registry::new();
    let _guards: Vec<_> = (0..100).map(|job| registry.mark(job, Finalizer::new(None, "merge"))).collect();
    let sum = || {
        let mut reader = registry.reader();
        (0..CALLS).filter(|job| reader.is_active(job) || reader.owner(job).is_some()).count()
    };
    assert_eq!(allocations(sum), 0);
}

#[test]
fn a_refused_claim_never_allocates() {
    isolated!();
    let registry: Registry = Registry::new();
    let _guard = registry.mark(7, Finalizer::new(None, "merge"));
    let claim = Finalizer::new(None, "reaper");
    let refusals = || (0..CALLS).filter(|_| registry.try_mark(7, claim.clone()).is_err()).count();
    assert_eq!(allocations(refusals), 0);
}

#[test]
fn healthy_jobs_cost_a_sweep_no_allocation_and_deferred_ones_its_memory_of_them() {
    isolated!();
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _guards: Vec<_> = (0..CALLS).map(|job| registry.mark(job, Finalizer::new(None, "merge"))).collect();
    let mut sweep = reaper.sweep();
    let judged = |sweep: &mut Sweep<'_, '_>| {
        for job in 0..CALLS {
            assert!(matches!(sweep.judge(&running(&job)), Verdict::Healthy));
        }
    };
    assert_eq!(allocations(|| judged(&mut sweep)), 0);
    let deferred = |sweep: &mut Sweep<'_, '_>| {
        for job in 0..CALLS {
            let verdict = sweep.judge(&finished(&job));
            assert!(matches!(verdict, Verdict::Defer(_)));
            assert!(sweep.explain(&finished(&job), &verdict).upcoming().is_some());
        }
    };
    // A deferral that is counted by a recorder has a label, which `metrics` allocates.
    let labels = if cfg!(feature = "metrics") { usize::try_from(CALLS).unwrap() } else { 0 };
    // The first sweep that defers them all remembers them, in a table that doubles. Their owners cost nothing.
    assert!(allocations(|| deferred(&mut sweep)) <= labels + 16);
    assert_eq!(allocations(|| deferred(&mut sweep)), labels, "known by now");
    drop(sweep);
    let mut sweep = reaper.sweep();
    assert!(allocations(|| deferred(&mut sweep)) <= labels + 1, "the next sweep makes the table at once");
    assert_eq!(allocations(|| judged(&mut sweep)), 0);
    // The claim's stage, and the mark unless the sweep has freed another one: so it was counted on the right thread.
    assert!(allocations(|| drop(sweep.judge(&overdue(&7)))) >= 1);
}

#[test]
fn a_mark_allocates_once_and_its_release_not_at_all() {
    isolated!();
    let registry: Registry<u64, ()> = Registry::new();
    // The slots, and what the thread and the collector keep.
    drop(registry.mark(7, ()));
    let mut guard = None;
    assert_eq!(allocations(|| guard = Some(registry.mark(7, ()))), 1);
    assert_eq!(allocations(|| drop(guard)), 0);
    assert_eq!(allocations(|| registry.is_current_after_replace()), 2);
}

// Seen to fail with the blocks of freed entries given back to the allocator.
#[test]
fn marks_take_the_memory_of_marks_that_were_cleared() {
    isolated!();
    let registry: Registry<u64, ()> = Registry::new();
    let mark_and_clear = || (0..1_000).for_each(|job| drop(registry.mark(job, ())));
    // Now and then one for the garbage's own batches. Not at once: nothing is freed yet.
    wait_until("marks take what was freed", || allocations(mark_and_clear) < 250);
}

/// A slot's word counts how often its entry was left alone, up to 255 times. Then the entry stays in a bucket of one,
/// or a word would come back that a slow thread has seen before. It shows in what a clear allocates: a bucket, or
/// nothing (but for the batches of what was cleared, now and then).
// Seen to fail with a count that starts from nothing again (no clear allocated), and with one that stands still.
#[test]
#[cfg(target_pointer_width = "64")]
fn an_entry_that_was_left_alone_256_times_stays_in_a_bucket_of_one() {
    isolated!();
    let registry: Registry<u64, (), AllEqual> = Registry::with_hasher(AllEqual::default());
    let owned = registry.mark(7, ());
    let clears = || {
        let neighbour = registry.mark(8, ());
        let allocated = allocations(|| assert!(neighbour.clear())) > 0;
        assert!(owned.is_current() && registry.is_active(&7) && !registry.is_active(&8));
        allocated
    };
    let allocating = (1..=255).filter(|_| clears()).count();
    assert!(allocating <= 16, "{allocating} of 255 clears made a bucket");
    assert!((256..=600).all(|_| clears()), "a word came back");
    // Another entry counts anew.
    assert!(owned.replace(()));
    let allocating = (1..=255).filter(|_| clears()).count();
    assert!(allocating <= 16, "{allocating} of 255 clears made a bucket");
    assert!(clears(), "a word came back");
}

trait Replaces {
    fn is_current_after_replace(&self) -> bool;
}

impl Replaces for Registry<u64, ()> {
    fn is_current_after_replace(&self) -> bool {
        let guard = self.mark(8, ());
        guard.replace(()) && guard.is_current()
    }
}

#[test]
fn a_new_registry_allocates_nothing() {
    isolated!();
    assert_eq!(allocations(Registry::<u64, ()>::new), 0);
}

#[test]
fn a_guard_that_keeps_its_registry_costs_no_more_and_neither_does_letting_go_of_it() {
    isolated!();
    let registry: std::sync::Arc<Registry<u64, ()>> = std::sync::Arc::default();
    drop(registry.mark(7, ()));
    let handle = RegistryHandle::from(&registry);
    let mut guard = None;
    assert_eq!(allocations(|| guard = Some(handle.mark(7, ()))), 1);
    let mut claim = None;
    assert_eq!(allocations(|| claim = guard.take().map(Claim::from)), 0);
    let mut generation = None;
    assert_eq!(allocations(|| generation = claim.and_then(Claim::into_guard).map(|guard| guard.detach())), 0);
    assert_eq!(allocations(|| registry.clear_generation(&7, generation.unwrap())), 0);
    assert_eq!(allocations(|| handle.clone()), 0);
}
