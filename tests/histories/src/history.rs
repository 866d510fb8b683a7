//! What happened: calls, answers, and when each began and ended.

use std::fmt;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

use crate::call::{Answer, Call};
use crate::spec::Spec;

/// A call that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) thread: usize,
    pub(crate) call: Call,
    pub(crate) answer: Answer,
    /// Tickets of one counter, taken before the call and after it.
    pub(crate) began: usize,
    pub(crate) ended: usize,
}

/// What the threads called and were answered.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// How it was before.
    pub(crate) before: Spec,
    /// Ordered by their beginning.
    pub(crate) calls: Vec<Answered>,
}

impl History {
    /// Returns `true` if one order of the calls explains all answers.
    pub(crate) fn is_linearizable(&self) -> bool {
        let mut events: Vec<(usize, &Answered)> =
            self.calls.iter().flat_map(|call| [(call.began, call), (call.ended, call)]).collect();
        events.sort_unstable_by_key(|(at, _)| *at);
        let mut tester = LinearizabilityTester::new(self.before.clone());
        for (at, call) in events {
            let told = if at == call.began {
                tester.on_invoke(call.thread, call.call)
            } else {
                tester.on_return(call.thread, call.answer)
            };
            told.expect("a thread calls one after the other");
        }
        tester.is_consistent()
    }

    /// Returns `true` if two calls of one job overlapped, one of which changed it.
    pub(crate) fn is_contended(&self) -> bool {
        self.calls.iter().enumerate().any(|(at, one)| {
            self.calls[at + 1..].iter().any(|other| {
                let overlap = one.began < other.ended && other.began < one.ended;
                let meet = one.call.job().is_none() || other.call.job().is_none() || one.call.job() == other.call.job();
                let changed = [one, other].iter().any(|call| !call.call.changed_nothing(&call.answer));
                overlap && meet && changed
            })
        })
    }

    /// How many snapshots there are, and how many of them were not of one instant.
    pub(crate) fn snapshots(&self) -> (u64, u64) {
        let count = |is_it: fn(&Answered) -> bool| self.calls.iter().filter(|call| is_it(call)).count() as u64;
        (count(|call| call.call == Call::Snapshot), count(|call| call.answer == Answer::Torn))
    }

    /// The history without one of its calls.
    pub(crate) fn without(&self, place: usize) -> Self {
        let mut less = self.clone();
        less.calls.remove(place);
        less
    }
}

/// A line for each call, with the time that it took as a bar.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tickets: Vec<usize> = self.calls.iter().flat_map(|call| [call.began, call.ended]).collect();
        tickets.sort_unstable();
        let place = |ticket| tickets.partition_point(|other| *other < ticket);
        for (job, owner) in self.before.owners.iter().enumerate() {
            if let Some((generation, value)) = owner {
                writeln!(f, "before: job {job} is marked, generation {generation}, {value}")?;
            }
        }
        for Answered { thread, call, answer, began, ended } in &self.calls {
            let (began, ended) = (place(*began), place(*ended));
            let bar: String =
                (0..tickets.len()).map(|at| if (began..=ended).contains(&at) { '#' } else { '.' }).collect();
            writeln!(f, "{bar} thread {thread}: {call} -> {answer}")?;
        }
        Ok(())
    }
}
