//! What a registry takes, and what its operations allocate.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use livemark::Finalizer;

use super::Sample;
use crate::heap;
use crate::jobs::{Jobs, Random, finalizer};
use crate::subject::{Batch, Session, Subject};

/// With fewer the garbage of a few writes, which comes and goes, would be a good part of the figure.
const ENOUGH: usize = 1_024;
const WRITES: usize = 10_000;
/// How often to write until no more than a little of earlier maps' garbage is freed by it.
const MOST_PASSES: usize = 100;
const LITTLE: i64 = 16 << 10;
/// Where writes take longer, fewer.
const AT_MOST: Duration = Duration::from_millis(100);

pub fn round<S: Subject>(jobs: &Jobs) -> Vec<Sample> {
    let finalizer = finalizer();
    let mut fresh = Random::new(1);
    // What a collector that is shared by all maps still holds of earlier ones is not to be freed while this is counted.
    heap::count();
    for _ in 0..MOST_PASSES {
        let before = heap::counted().bytes;
        write::<S>(&mut S::new(0).session(), &mut fresh, &finalizer, AT_MOST);
        if before - heap::counted().bytes < LITTLE {
            break;
        }
    }
    heap::count();
    let subject = Box::new(S::new(0));
    let empty = heap::counted().bytes;
    subject.fill(&jobs.owned, &finalizer);
    write::<S>(&mut subject.session(), &mut fresh, &finalizer, AT_MOST / 4);
    let full = heap::counted().bytes;

    let mut samples = vec![Sample::new("bytes when empty", empty as f64)];
    samples.push(if jobs.owned.len() >= ENOUGH {
        Sample::new("bytes per job", (full - empty) as f64 / jobs.owned.len() as f64)
    } else {
        Sample::none("bytes per job", "too few to tell them from the garbage of the last writes")
    });
    let name = "bytes per mark+clear while pinned";
    samples.push(match S::BATCH {
        Batch::Pin => Sample::new(name, garbage(&*subject, jobs, &mut fresh, &finalizer)),
        Batch::Lock => Sample::none(name, "the writer waits"),
        Batch::Single => Sample::none(name, "no batched form"),
    });
    samples.extend(allocations(&*subject, jobs, &mut fresh, &finalizer));
    heap::stop();
    samples
}

/// Marks and clears for a while: how often.
fn write<S: Subject>(
    session: &mut S::Session<'_>,
    fresh: &mut Random,
    finalizer: &Finalizer,
    at_most: Duration,
) -> usize {
    let start = Instant::now();
    let mut written = 0;
    while written < WRITES && start.elapsed() < at_most {
        assert!(session.mark_and_clear(fresh.next(), finalizer), "{}", S::NAME);
        written += 1;
    }
    written
}

/// What a mark and clear leaves behind while another thread is in the middle of a batch.
fn garbage<S: Subject>(subject: &S, jobs: &Jobs, fresh: &mut Random, finalizer: &Finalizer) -> f64 {
    let ((pinned, is_pinned), (done, is_done)) = (mpsc::channel(), mpsc::channel::<()>());
    thread::scope(|scope| {
        scope.spawn(move || {
            subject.session().during_batch(jobs.owned[0], || {
                pinned.send(()).expect("waited for");
                is_done.recv().expect("sent below");
            });
        });
        is_pinned.recv().expect("sent above");
        let before = heap::counted().bytes;
        let written = write::<S>(&mut subject.session(), fresh, finalizer, AT_MOST);
        let held = heap::counted().bytes - before;
        done.send(()).expect("waited for");
        held as f64 / written as f64
    })
}

fn allocations<S: Subject>(subject: &S, jobs: &Jobs, fresh: &mut Random, finalizer: &Finalizer) -> Vec<Sample> {
    let mut session = subject.session();
    // The thread's first look-ups make what each thread has of its own.
    assert_eq!(session.count_active(&jobs.mixed), jobs.mixed.len() / 2, "{}", S::NAME);
    let start = heap::counted().allocations;
    let owned = jobs.mixed.iter().filter(|job| session.is_active(**job)).count();
    let in_look_ups = heap::counted().allocations - start;
    let start = heap::counted().allocations;
    let owned_in_batch = session.count_active(&jobs.mixed);
    let in_batch = heap::counted().allocations - start;
    assert_eq!(owned, owned_in_batch, "{}", S::NAME);
    let start = heap::counted().allocations;
    let written = write::<S>(&mut session, fresh, finalizer, AT_MOST);
    let in_writes = heap::counted().allocations - start;
    let per = |allocations, operations: usize| allocations as f64 / operations as f64;
    vec![
        Sample::new("allocations per look-up", per(in_look_ups, jobs.mixed.len())),
        Sample::new("allocations per look-up in batch", per(in_batch, jobs.mixed.len())),
        Sample::new("allocations per mark+clear", per(in_writes, written)),
    ]
}
