//! What happened: calls, answers, and when each began and ended.

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use crate::call::{Answer, Call, Generation};
use crate::shape::{Shape, TOO_MANY};
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
    pub(crate) shape: Shape,
    /// How it was before.
    pub(crate) before: Spec,
    /// By their beginning.
    pub(crate) calls: Vec<Answered>,
}

impl Answered {
    pub(crate) fn changed_nothing(&self) -> bool {
        self.call.changed_nothing(&self.answer)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.thread != other.thread && self.began < other.ended && other.began < self.ended
    }

    /// Whether they are about the same job, and one may have changed it.
    fn conflicts(&self, other: &Self) -> bool {
        let meet = self.call.kind.is_of_all() || other.call.kind.is_of_all() || self.call.job == other.call.job;
        meet && !(self.changed_nothing() && other.changed_nothing())
    }
}

impl History {
    /// An order of the calls that explains all answers.
    pub(crate) fn order(&self) -> Option<Vec<(Call, Answer)>> {
        let mut events: Vec<(usize, &Answered)> =
            self.calls.iter().flat_map(|call| [(call.began, call), (call.ended, call)]).collect();
        events.sort_unstable_by_key(|(at, _)| *at);
        let mut tester = LinearizabilityTester::new(self.before.clone());
        for (at, call) in events {
            let told = if at == call.began {
                tester.on_invoke(call.thread, call.call)
            } else {
                tester.on_return(call.thread, call.answer.clone())
            };
            told.expect("a thread calls one after the other");
        }
        tester.serialized_history()
    }

    /// Whether one order of the calls explains all answers.
    pub(crate) fn is_linearizable(&self) -> bool {
        self.order().is_some()
    }

    /// Whether calls of two threads overlapped.
    pub(crate) fn is_overlapped(&self) -> bool {
        self.any_pair(Answered::overlaps)
    }

    /// Whether calls of two threads overlapped that were about the same job, one of which may have changed it.
    pub(crate) fn is_contended(&self) -> bool {
        self.any_pair(|one, other| one.overlaps(other) && one.conflicts(other))
    }

    fn any_pair(&self, is_it: impl Fn(&Answered, &Answered) -> bool) -> bool {
        (1..self.calls.len()).any(|at| self.calls[..at].iter().any(|one| is_it(one, &self.calls[at])))
    }

    /// Whether the jobs' slot was given more marks, in this order of the calls, than it holds without a branch.
    pub(crate) fn grew(&self, order: &[(Call, Answer)]) -> bool {
        let mut spec = self.before.clone();
        self.shape == Shape::Crowded
            && order.iter().any(|(call, answer)| {
                spec.is_valid_step(call, answer);
                spec.owned().count() == TOO_MANY
            })
    }

    /// Whether a mark of this generation stood at some time.
    pub(crate) fn had(&self, generation: Generation) -> bool {
        self.before.owned().any(|(_, (other, _))| other == generation)
            || self.calls.iter().any(|call| call.answer == Answer::Marked(generation))
    }

    /// The history without one of its calls.
    pub(crate) fn without(&self, place: usize) -> Self {
        let mut less = self.clone();
        less.calls.remove(place);
        less
    }

    /// The history of the other jobs.
    pub(crate) fn without_job(&self, job: usize) -> Self {
        let mut less = self.clone();
        less.before.owners[job] = None;
        less.calls.retain(|call| call.call.kind.is_of_all() || call.call.job != job);
        for call in &mut less.calls {
            if let Answer::Snapshot(owned) = &mut call.answer {
                *owned = owned.iter().copied().filter(|(other, _)| *other != job).collect();
            }
        }
        less
    }
}
