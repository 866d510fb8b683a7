//! A bad history, made small.

use crate::crew::{Crew, Size};
use crate::history::History;

/// How many histories of each small size are tried to find a bad one.
const TRIES: usize = 4_000;

/// The smallest bad history that is found: from `bad` without what does not matter, or among small ones like it.
pub(crate) fn found(bad: &History, crew: &mut Crew) -> History {
    let mut smallest = without_bystanders(bad.clone());
    for size in [1, 2, 3].map(|calls| Size { threads: 2, calls }) {
        for _ in 0..TRIES {
            let history = crew.run(size);
            if !history.is_linearizable() {
                let history = without_bystanders(history);
                if history.calls.len() < smallest.calls.len() {
                    smallest = history;
                }
            }
        }
    }
    smallest
}

/// The history without calls that changed nothing, as long as it is bad.
///
/// Were it good with such a call, it would be without it, in the same order of the others. So a bad one stays a
/// witness.
fn without_bystanders(mut bad: History) -> History {
    let mut place = 0;
    while let Some(call) = bad.calls.get(place) {
        if call.call.changed_nothing(&call.answer) {
            let less = bad.without(place);
            if !less.is_linearizable() {
                bad = less;
                continue;
            }
        }
        place += 1;
    }
    bad
}
