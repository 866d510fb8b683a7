//! The ring of what a thread has retired: filled by its owner, emptied by whoever sweeps. In a model it has room for
//! one.

use std::sync::Arc;

use livemark::model::Ring;
use loom::thread;
use loom_tests::{Probe, Search, explore};

/// Puts a probe in, and says whether there was room.
///
/// Called by one thread at a time.
fn put(ring: &Ring<Probe>, name: char) -> bool {
    // SAFETY: each model has one thread that calls this, or joins the one that did.
    unsafe { ring.put(Probe::new(name)) }.is_ok()
}

/// The names of what was taken out, which is read, dropped and freed.
fn take(ring: &Ring<Probe>) -> String {
    let mut taken = Vec::new();
    ring.take(&mut taken);
    taken.iter().map(Probe::read).collect()
}

/// E10. What is taken was seen whole, and is taken once. A place is written again only after it was read.
///
/// Seen to fail with a `put` that is stored without release, or loaded without acquire; and with a `taken` that is.
#[test]
fn put_against_take() {
    let expected = [
        // What the other thread took; whether there was room for the second; what was left.
        (String::new(), false, "a".to_owned()),
        ("a".to_owned(), false, String::new()),
        ("a".to_owned(), true, "b".to_owned()),
    ];
    explore("put, put | take", Search::Exhaustive, expected, || {
        let ring = Arc::new(Ring::new());
        let taker = thread::spawn({
            let ring = Arc::clone(&ring);
            move || take(&ring)
        });
        assert!(put(&ring, 'a'), "it was empty");
        let had_room = put(&ring, 'b');
        let taken = taker.join().expect("it has taken");
        (taken, had_room, take(&ring))
    });
}

/// E10. Of two that take, one takes.
///
/// Seen to fail with a lock that is not looked at.
#[test]
fn take_against_take() {
    let expected = [("a".to_owned(), String::new()), (String::new(), "a".to_owned())];
    explore("take | take", Search::Exhaustive, expected, || {
        let ring = Arc::new(Ring::new());
        assert!(put(&ring, 'a'), "it was empty");
        let taker = thread::spawn({
            let ring = Arc::clone(&ring);
            move || take(&ring)
        });
        let taken = take(&ring);
        let others = taker.join().expect("it has taken");
        assert!(take(&ring).is_empty(), "it was left there");
        (taken, others)
    });
}
