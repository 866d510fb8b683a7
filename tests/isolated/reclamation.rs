//! How much of what was cleared waits to be freed, who holds it back, and how that is seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use livemark::{Reaper, Registry, reclaim_stats};

use crate::heap;
use crate::process::isolated;
use crate::support::{AllEqual, Stop, policy, reclaim_until, wait_until};

/// What waits at most for a thread that marks and clears while nobody else is pinned: the 63 that it has not handed
/// over, the batches of the epochs that must pass, and those that are due. An epoch may be late, as one in a test's
/// thread is now and then.
const OF_A_THREAD: u64 = 64 * 8;

fn unreclaimed() -> u64 {
    reclaim_stats().unreclaimed()
}

/// Marks and clears so often, and says how much waited to be freed at most.
fn churn(registry: &Registry<u64, u64>, times: u64) -> u64 {
    let mark_and_clear = |job: u64| {
        drop(registry.mark(job % 100, job));
        unreclaimed()
    };
    (0..times).map(mark_and_clear).max().unwrap_or(0)
}

/// Waits until all that was cleared is freed, by sweeps: no write adds to it. That may take more than one: a thread's
/// locals are dropped after it is joined.
fn nothing_left() {
    static REGISTRY: Registry = Registry::new();
    let reaper = Reaper::new(&REGISTRY, policy());
    wait_until("what was cleared before is freed", || {
        drop(reaper.sweep());
        unreclaimed() == 0
    });
}

#[test]
fn what_waits_is_counted_and_bounded() {
    isolated!();
    let registry = Registry::new();
    let before = reclaim_stats();
    let most = churn(&registry, 100_000);
    let after = reclaim_stats();
    assert!(most < OF_A_THREAD, "{most} waited");
    assert!(after.retired - before.retired > 100_000 - 64, "each clear retires its entry: {before:?}, {after:?}");
    assert!(after.reclaimed - before.reclaimed > 100_000 - OF_A_THREAD, "{before:?}, {after:?}");
}

/// A thread that is stopped while it is pinned holds everything back until it runs again. So the bound for several
/// threads is what is cleared in a scheduler's time slice, which is not a number of the library's; that they all come
/// down again is.
#[test]
fn what_several_threads_retire_is_freed_while_they_go_on() {
    isolated!();
    let registry = Registry::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    churn(&registry, 100);
                }
            });
        }
        let _stop = Stop(&done);
        for _ in 0..50 {
            churn(&registry, 1_000);
            wait_until("what waits is freed beside threads that clear", || {
                churn(&registry, 100);
                unreclaimed() < 4 * OF_A_THREAD
            });
            let retired = reclaim_stats().retired;
            wait_until("the others go on", || reclaim_stats().retired > retired);
        }
    });
}

// Seen to fail with a reader that never repins, and with a repin that lets no epoch pass.
#[test]
fn a_reader_that_looks_up_holds_nothing_back() {
    isolated!();
    let registry = Registry::new();
    let (step, stepped) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel();
    thread::scope(|scope| {
        let registry = &registry;
        scope.spawn(move || {
            let mut reader = registry.reader();
            stepped.iter().for_each(|()| answer.send(reader.is_active(&7)).expect("it is waited for"));
        });
        for _ in 0..200 {
            churn(registry, 100);
            step.send(()).expect("the reader lives");
            assert!(!answered.recv().expect("it answers"));
        }
        assert!(unreclaimed() < 2 * OF_A_THREAD, "{:?}", reclaim_stats());
        drop(step);
    });
}

/// One entry for each clear, and its bytes: this is what grows, and this is how it is seen.
#[test]
fn a_reader_that_never_moves_holds_everything_back_and_the_count_says_so() {
    isolated!();
    const CLEARS: u64 = 100_000;
    nothing_left();
    let registry = Registry::new();
    churn(&registry, 1_000);
    let (held, bytes) = (unreclaimed(), heap::bytes());
    let mut reader = registry.reader();
    thread::scope(|scope| {
        scope.spawn(|| churn(&registry, CLEARS));
    });
    let grown = unreclaimed() - held;
    assert!((CLEARS - OF_A_THREAD..=CLEARS + 64).contains(&grown), "{grown} more wait after {CLEARS} clears");
    let bytes = heap::bytes() - bytes;
    let each = bytes / usize::try_from(CLEARS).expect("it fits");
    assert!((64..160).contains(&each), "{each} bytes for each clear");

    // A look-up now and then ends that: each lets one epoch pass.
    wait_until("what the reader held back is freed", || {
        let _ = reader.is_active(&7);
        churn(&registry, 100);
        unreclaimed() < OF_A_THREAD
    });
}

/// Another crate's pin of crossbeam's default collector, for ever, is none of ours; and its garbage is not ours to run.
// Seen to fail with crossbeam's default collector in the place of the crate's own.
#[test]
fn a_foreign_pin_holds_nothing_back_and_foreign_garbage_is_not_run() {
    isolated!();
    let registry = Registry::new();
    let ran = Arc::new(AtomicBool::new(false));
    let (pinned, is_pinned) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let foreign = thread::spawn(move || {
        let _guard = crossbeam_epoch::pin();
        pinned.send(()).expect("it is waited for");
        let _ = ended.recv();
    });
    is_pinned.recv().expect("it is pinned");
    let most = churn(&registry, 100_000);
    assert!(most < OF_A_THREAD, "{most} waited for a foreign pin");
    drop(end);
    foreign.join().expect("it ends well");

    let theirs = crossbeam_epoch::pin();
    theirs.defer({
        let ran = Arc::clone(&ran);
        move || ran.store(true, Ordering::SeqCst)
    });
    theirs.flush();
    drop(theirs);
    let mut reader = registry.reader();
    for job in 0..100_000 {
        assert!(!registry.is_active(&job) && !reader.is_active(&job));
    }
    churn(&registry, 100_000);
    assert!(!ran.load(Ordering::SeqCst), "another crate's garbage was run by this one");
    wait_until("its own pins run it", || {
        crossbeam_epoch::pin().flush();
        ran.load(Ordering::SeqCst)
    });
}

// Seen to fail with batches of 64 things, however large.
#[test]
fn large_values_are_handed_over_sooner() {
    isolated!();
    const LARGE: usize = 32 << 10;
    nothing_left();
    let registry: Registry<u64, [u8; LARGE]> = Registry::new();
    let bytes = heap::bytes();
    for job in 0..100 {
        drop(registry.mark(job, [7; LARGE]));
    }
    let kept = heap::bytes().saturating_sub(bytes) / LARGE;
    // Those of the epochs that must pass, and no batches of 64.
    assert!(kept < 16, "{kept} of 100 cleared values of 32 KiB are kept");
}

/// The bucket of n jobs of equal hash is copied for each mark: its garbage is large things as well.
#[test]
fn flooded_buckets_are_handed_over_sooner() {
    isolated!();
    let registry: Registry<u64, (), AllEqual> = Registry::default();
    let mut guards: Vec<_> = (0..8_000).map(|job| registry.mark(job, ())).collect();
    let bytes = heap::bytes();
    for job in 0..100 {
        guards.push(registry.mark(8_000 + job, ()));
    }
    let bucket = 8_000 * 24;
    let kept = heap::bytes().saturating_sub(bytes) / bucket;
    assert!(kept < 16, "{kept} of 100 copies of a bucket of 8,000 are kept");
}

/// Values whose destructors mark and clear, and so hand batches over in turn, while many batches are due: one after the
/// other, not one inside the other.
// Seen to overflow the thread's stack with destructors that free in turn.
#[test]
fn a_chain_of_values_is_freed_without_recursion() {
    isolated!();
    static REGISTRY: Registry<u64, u64> = Registry::new();
    static DEPTH: AtomicUsize = AtomicUsize::new(0);
    static DEEPEST: AtomicUsize = AtomicUsize::new(0);
    #[derive(Clone)]
    struct Busy;
    impl Drop for Busy {
        fn drop(&mut self) {
            let depth = DEPTH.fetch_add(1, Ordering::SeqCst) + 1;
            DEEPEST.fetch_max(depth, Ordering::SeqCst);
            churn(&REGISTRY, 64);
            DEPTH.fetch_sub(1, Ordering::SeqCst);
        }
    }
    nothing_left();
    let registry = Registry::new();
    let reader = registry.reader();
    thread::scope(|scope| {
        scope.spawn(|| {
            for job in 0..6_400_u64 {
                drop(registry.mark(job, (job % 64 == 0).then(|| Busy)));
            }
        });
    });
    drop(reader);
    reclaim_until("all of it is freed", || unreclaimed() < OF_A_THREAD);
    assert_eq!(DEEPEST.load(Ordering::SeqCst), 1, "destructors ran inside destructors");
}

// Seen to fail with a thread that takes a spare block whatever its size.
#[test]
fn registries_of_two_types_share_no_blocks() {
    isolated!();
    let (small, large) = (Registry::new(), Registry::<u64, [u64; 64]>::new());
    for round in 0..100_u64 {
        let smalls: Vec<_> = (0..100).map(|job| small.mark(job, round)).collect();
        let larges: Vec<_> = (0..100).map(|job| large.mark(job, [round; 64])).collect();
        for job in 0..100 {
            assert_eq!(small.owner(&job).map(|owner| owner.value), Some(round));
            assert_eq!(large.owner(&job).map(|owner| owner.value), Some([round; 64]));
        }
        drop((smalls, larges));
    }
}

// Seen to fail with blocks that are not freed with their thread.
#[test]
fn a_thread_that_ends_gives_its_blocks_back() {
    isolated!();
    let registry: Registry<u64, [u64; 512]> = Registry::new();
    drop(registry.mark(0, [0; 512]));
    let marks = || {
        for job in 0..200 {
            drop(registry.mark(job, [job; 512]));
        }
    };
    nothing_left();
    let bytes = heap::bytes();
    for _ in 0..50 {
        thread::scope(|scope| drop(scope.spawn(marks)));
    }
    // Blocks of two threads, each 64 KiB: this one's, which may free some of what the others cleared, and one to spare.
    // 50 ended. Their locals are dropped after the scope has ended, one by one.
    wait_until("threads that ended keep nothing", || {
        nothing_left();
        heap::bytes().saturating_sub(bytes) < 2 * (64 << 10)
    });
}

/// What a thread keeps for its next marks is bounded in bytes, whatever its contexts' size, and so is what waits.
// Seen to fail with up to 128 blocks of whatever size: 128 of 256 KiB were kept.
#[test]
fn the_blocks_that_a_thread_keeps_are_few_if_they_are_large() {
    isolated!();
    fn check<const SIZE: usize>() {
        let registry: Registry<u64, [u8; SIZE]> = Registry::new();
        nothing_left();
        let bytes = heap::bytes();
        // On a thread of its own, whose first mark says what blocks it keeps.
        thread::scope(|scope| {
            // The contexts are moved over its stack.
            let large = thread::Builder::new().stack_size(8 << 20);
            let spawned = large.spawn_scoped(scope, || {
                let guards: Vec<_> = (0..300).map(|job| registry.mark(job, [7; SIZE])).collect();
                drop(guards);
                nothing_left();
                let kept = heap::bytes().saturating_sub(bytes);
                // The blocks, the slots, and what the thread and the collector have.
                assert!(kept < 320 << 10, "{kept} bytes are kept after 300 contexts of {SIZE} bytes");
            });
            assert!(spawned.is_ok(), "a thread can be spawned");
        });
    }
    check::<0>();
    check::<1>();
    check::<{ 1 << 10 }>();
    check::<{ 4 << 10 }>();
    check::<{ 32 << 10 }>();
    check::<{ 256 << 10 }>();
}

/// Each thing that was retired counts at once, and so what it keeps is seen: here 1 MiB each, which its entry does not
/// show.
// Seen to fail with threads that count when they hand over: 0 waited.
#[test]
fn what_waits_is_counted_from_the_first_one_on() {
    isolated!();
    let registry = Registry::new();
    for cleared in 1..64 {
        drop(registry.mark(7_u64, vec![0_u8; 1 << 20]));
        assert_eq!(unreclaimed(), cleared);
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            drop(registry.mark(7, vec![0_u8; 1 << 20]));
            assert_eq!(unreclaimed(), 64, "of another thread");
        });
    });
    nothing_left();
}

/// What is freed after a long stall is the allocator's again, and not kept in the collector's own lists.
// Seen to fail with a bag of crossbeam's for each batch: 58 MiB were kept, in bags that were themselves to be freed.
#[test]
fn a_stall_leaves_nothing_behind_that_is_not_counted() {
    isolated!();
    let registry = Registry::new();
    churn(&registry, 1_000);
    nothing_left();
    let bytes = heap::bytes();
    let reader = registry.reader();
    thread::scope(|scope| scope.spawn(|| churn(&registry, 200_000)).join()).expect("it marks and clears");
    let held = heap::bytes().saturating_sub(bytes);
    assert!(held > 10 << 20, "{held} bytes");
    drop(reader);
    nothing_left();
    wait_until("the thread's locals are dropped", || {
        nothing_left();
        heap::bytes().saturating_sub(bytes) < 512 << 10
    });
}

/// Where a block's size is right and its alignment is not.
// Seen to fail with a thread that looks at the size of a block only.
#[test]
fn blocks_of_another_alignment_are_not_taken() {
    isolated!();
    #[derive(Clone, Copy)]
    #[repr(align(256))]
    struct Aligned([u8; 256]);

    /// First contexts of so many bytes, which say what blocks the thread keeps, and then aligned ones.
    fn check<const SIZE: usize>() {
        let plain: Registry<u64, [u8; SIZE]> = Registry::new();
        let aligned: Registry<u64, Aligned> = Registry::new();
        (0..100).for_each(|job| drop(plain.mark(job, [7; SIZE])));
        nothing_left();
        let guards: Vec<_> = (0..100).map(|job| aligned.mark(job, Aligned([7; 256]))).collect();
        let mut reader = aligned.reader();
        for job in 0..100 {
            let owner = reader.owner(&job).expect("it is marked");
            assert_eq!(std::ptr::from_ref(&owner.value).addr() % 256, 0);
            assert_eq!(owner.value.0, [7; 256]);
        }
        drop((reader, guards));
    }
    // Entries of all sizes that an entry with an aligned context may have.
    for check in [check::<{ 512 - 40 }>, check::<{ 768 - 40 }>, check::<{ 1024 - 40 }>] {
        thread::scope(|scope| scope.spawn(check).join()).expect("they are aligned");
    }
}

/// A thread for each job, as many programs have: none of them ever has a batch full, and nobody sweeps.
// Seen to fail with memory that is freed only by threads with a full batch: nothing was, ever.
#[test]
fn threads_that_clear_once_and_end_leave_nothing_behind() {
    isolated!();
    let registry = Registry::new();
    let most = |jobs: std::ops::Range<u64>| {
        let mark_on_a_thread = |job| {
            thread::scope(|scope| drop(scope.spawn(|| drop(registry.mark(job, job)))));
            unreclaimed()
        };
        jobs.map(mark_on_a_thread).max()
    };
    assert!(most(0..2_000) < Some(OF_A_THREAD), "{:?}", reclaim_stats());
}
