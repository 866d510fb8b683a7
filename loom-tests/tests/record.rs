//! The records of the threads that clear: made, claimed, released to the next thread, and walked over by whoever
//! counts or sweeps. In a model a record's ring has room for one.

use std::ptr;
use std::sync::Arc;

use livemark::model::{Record, Records};
use loom::thread;
use loom_tests::{Name, Probe, Search, explore};

/// Claims a record, and puts a probe into its ring, which must have room. Returns the record's address.
fn claim_and_put(records: &Records<Probe>, name: Name) -> usize {
    let record = records.claim();
    // SAFETY: the record is this thread's, which claimed it.
    assert!(unsafe { record.ring.put(Probe::new(name)) }.is_ok(), "there is room in the ring of a claimed record");
    ptr::from_ref(record).addr()
}

/// What a thread does with a record from its begin to its end: claims it, puts a probe in, takes it out, releases.
/// Returns the record's address.
fn live_and_end(records: &Records<Probe>, name: Name) -> usize {
    let record = records.claim();
    // SAFETY: the record is this thread's, which claimed it.
    assert!(unsafe { record.ring.put(Probe::new(name)) }.is_ok(), "there is room in the ring of a claimed record");
    assert_eq!(take(record), name.to_string(), "nobody else takes");
    record.release();
    ptr::from_ref(record).addr()
}

/// The names of what was taken out of a record's ring.
fn take(record: &Record<Probe>) -> String {
    let mut taken = Vec::new();
    record.ring.take(&mut taken);
    taken.iter().map(Probe::read).collect()
}

/// What waits in all rings, sorted, and how many were ever put into one.
fn all(records: &Records<Probe>) -> (String, u64) {
    let mut waiting: Vec<char> = records.all().flat_map(|record| take(record).chars().collect::<Vec<_>>()).collect();
    waiting.sort_unstable();
    (waiting.into_iter().collect(), records.all().map(|record| record.ring.count()).sum())
}

/// A list with one record, which no thread has any more.
fn with_a_free_one() -> Arc<Records<Probe>> {
    let records = Arc::new(Records::new());
    records.claim().release();
    records
}

/// E10. Of two threads that begin where one record is free, one takes it over and the other makes one.
///
/// Seen to fail with a claim that stores where it should exchange: both then write the same ring.
#[test]
fn claim_against_claim() {
    explore("claim | claim", Search::Exhaustive, [true, false], || {
        let records = with_a_free_one();
        let free = records.all().next().map(|record| ptr::from_ref(record).addr());
        let other = thread::spawn({
            let records = Arc::clone(&records);
            move || claim_and_put(&records, 'a')
        });
        let mine = claim_and_put(&records, 'b');
        let others = other.join().expect("it has claimed");
        assert_ne!(mine, others, "two threads have one record");
        assert_eq!(all(&records), ("ab".to_owned(), 2));
        assert_eq!(records.all().count(), 2);
        // Which of them got the free one.
        assert!([mine, others].map(Some).contains(&free), "a record was left free, and two were made");
        Some(mine) == free
    });
}

/// E10. A record is taken over from a thread that lives by nobody, and from one that has ended by the next one: that
/// goes on in the ring where the other has stopped, so that no place is written before it was read and nothing is
/// counted twice, or not at all.
///
/// Seen to fail with a release that does not release, with a claim that does not acquire, and with one that takes
/// whatever record it finds.
#[test]
fn claim_against_release() {
    explore("claim, put, take, release | claim, put", Search::Exhaustive, [1, 2], || {
        let records = Arc::new(Records::new());
        let ending = thread::spawn({
            let records = Arc::clone(&records);
            move || live_and_end(&records, 'a')
        });
        let mine = claim_and_put(&records, 'b');
        let others = ending.join().expect("it has released");
        assert_eq!(all(&records), ("b".to_owned(), 2));
        let number = records.all().count();
        assert_eq!(mine == others, number == 1, "it goes on in the other's record, or in one of its own");
        number
    });
}

/// E10. Of two threads that make a record at once, neither hides the other's. Whoever walks over all meanwhile sees
/// each record whole.
///
/// Seen to fail with a record that is published without release; with a walk that does not acquire; and with one that
/// came second and keeps the older one that it saw at first.
#[test]
fn claim_against_all() {
    explore("claim | claim | all", Search::Exhaustive, [0, 1, 2], || {
        let records = Arc::new(Records::new());
        let others = ['a', 'b'].map(|name| {
            let records = Arc::clone(&records);
            thread::spawn(move || claim_and_put(&records, name))
        });
        let seen = records.all().count();
        let [first, second] = others.map(|other| other.join().expect("it has claimed"));
        assert_ne!(first, second, "two threads have one record");
        assert_eq!(all(&records), ("ab".to_owned(), 2));
        seen
    });
}
