//! When memory is freed: not under a reader, and in the end always.

use crossbeam_epoch::Collector;
use livemark::Registry;
use livemark::model::Participant;
use loom_tests::{ById, Probe, Search, explore, mark, model, model_that_frees, owner, reclaim};

/// E3. A value is read while the mark is cleared and everything that may be freed is freed.
///
/// Seen to fail with an `owner` that does not pin.
#[test]
fn owner_against_clear_and_reclamation() {
    model_that_frees("clear, reclaim | owner", 1, Search::Exhaustive, [None, Some('a')], |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(|_, me| {
            assert!(guard.clear());
            reclaim(me);
        });
        let seen = owner(scene.jobs(), 1);
        scene.join(monitor);
        seen
    });
}

/// E3. A job id is compared while the mark is cleared and everything that may be freed is freed.
///
/// Seen to fail with an `is_active` that does not pin.
#[test]
fn is_active_against_clear_and_reclamation() {
    model_that_frees("clear, reclaim | is_active", 1, Search::Exhaustive, [false, true], |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(|_, me| {
            assert!(guard.clear());
            reclaim(me);
        });
        let active = scene.jobs().is_active(&1);
        scene.join(monitor);
        active
    });
}

/// E3. A snapshot copies while the mark is cleared and everything that may be freed is freed.
///
/// Seen to fail with a snapshot that does not pin.
#[test]
fn snapshot_against_clear_and_reclamation() {
    model("clear, reclaim | snapshot", 1, Search::Exhaustive, [0, 1], |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(|_, me| {
            assert!(guard.clear());
            reclaim(me);
        });
        let snapshot = scene.jobs().snapshot();
        assert!(snapshot.is_atomic() && snapshot.iter().all(|(_, owner)| owner.value.read() == 'a'));
        scene.join(monitor);
        snapshot.len()
    });
}

/// E3. A reader's reference is good until its next call, over all rounds of reclamation; each call sees the
/// newest state, so what it sees never goes back.
///
/// Seen to fail with a reader that repins between its load and the use of what it loaded; and, with slots that are only
/// acquire and release, without the fence after `repin`. With SeqCst slots the C++ memory model needs that fence as
/// well, but loom gives no SeqCst load an older SeqCst store.
#[test]
fn reader_over_rounds_of_reclamation() {
    let expected =
        [['a', 'a'], ['a', 'b'], ['a', 'c'], ['b', 'b'], ['b', 'c'], ['c', 'c']].map(|names| names.map(Some));
    model("replace, flush x 3 | reader", 1, Search::Exhaustive, expected, |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(|_, me| {
            for name in ['b', 'c'] {
                assert!(guard.replace(Probe::new(name)));
                me.flush();
            }
            me.flush();
            guard
        });
        let seen = {
            let mut reader = scene.jobs().reader();
            [(); 2].map(|()| reader.owner(&1).map(|owner| owner.value.read()))
        };
        drop(scene.join(monitor));
        seen
    });
}

/// E3. A bucket that is being read is not freed, nor is the neighbour in it that a writer unlinked.
///
/// Seen to fail with buckets freed at once, and with an `owner` that does not pin.
#[test]
fn reader_of_a_bucket_against_reclamation() {
    model_that_frees("clear, reclaim | owner, one bucket", 1, Search::Exhaustive, [None, Some('n')], |scene| {
        let (_stays, goes) = (mark(scene.jobs(), 1, 'a'), mark(scene.jobs(), 3, 'n'));
        let monitor = scene.spawn(|_, me| {
            assert!(goes.clear());
            reclaim(me);
        });
        let seen = owner(scene.jobs(), 3);
        scene.join(monitor);
        seen
    });
}

/// E3. A writer decides by an entry that another one unlinks and frees meanwhile.
///
/// Seen to fail with entries freed at once, and with a release that ignores the generation.
#[test]
fn writer_against_reclamation() {
    model_that_frees("clear, reclaim | mark", 1, Search::Exhaustive, [false, true], |scene| {
        let old = mark(scene.jobs(), 1, 'a');
        let monitor = scene.spawn(|_, me| {
            let cleared = old.clear();
            reclaim(me);
            cleared
        });
        let new = mark(scene.jobs(), 1, 'b');
        let cleared = scene.join(monitor);
        assert!(new.is_current());
        cleared
    });
}

/// E3. Both threads free what they retired, and what the other one retired.
///
/// Every order takes minutes: a bound. Seen to fail with entries retired twice, and with a release that first looks
/// without a pin.
#[test]
fn two_reclaiming_threads() {
    model_that_frees("mark, clear, reclaim | replace, reclaim", 1, Search::Preemptions(2), [()], |scene| {
        let guard = mark(scene.jobs(), 1, 'a');
        let other = scene.spawn(|jobs, me| {
            assert!(mark(jobs, 3, 'n').clear());
            reclaim(me);
        });
        assert!(guard.replace(Probe::new('b')));
        reclaim(scene.main());
        scene.join(other);
        assert_eq!(owner(scene.jobs(), 1), Some('b'));
    });
}

/// E7. What is marked when the registry is dropped is dropped with it, once: single, in a bucket, in a branch. What was
/// retired before is not, and outlives it.
///
/// Seen to fail with a drop that frees no entries, and with entries retired twice.
#[test]
fn drop_of_the_registry() {
    explore("drop of the registry", Search::Exhaustive, [()], || {
        // Ids without a probe: a forgotten guard would leak its own.
        let registry = std::sync::Arc::new(Registry::<u64, Probe, ById>::with_hasher(ById::default()));
        let collector = Collector::new();
        let [main, racer] = [(); 2].map(|()| Participant::new(&collector, true));
        main.enter(|| {
            std::mem::forget([1, 3, 2].map(|job| registry.mark(job, Probe::new('a'))));
            let other = loom::thread::spawn({
                let registry = std::sync::Arc::clone(&registry);
                move || {
                    racer.enter(|| std::mem::forget(registry.mark(3, Probe::new('b'))));
                    racer
                }
            });
            std::mem::forget([5, 4].map(|job| registry.mark(job, Probe::new('c'))));
            let racer = other.join().expect("the thread ends well");
            assert_eq!(registry.len(), 5);
            let registry = std::sync::Arc::into_inner(registry).expect("nobody else has the registry");
            drop(registry);
            racer.flush();
        });
    });
}
