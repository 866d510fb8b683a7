//! What the registry promises, one call after the other.

use stateright::semantics::SequentialSpec;

use crate::call::{Answer, Call, Generation, JOBS, Owners};

/// The registry as a plain array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) owners: Owners,
    /// The greatest generation that each job ever had.
    pub(crate) greatest: [Generation; JOBS],
    /// Jobs that nobody touches.
    pub(crate) others: usize,
}

impl Spec {
    fn mark(&mut self, job: usize, generation: Generation, value: u64) -> bool {
        let grows = generation > self.greatest[job];
        self.greatest[job] = generation;
        self.owners[job] = Some((generation, value));
        grows
    }

    fn clear_if(&mut self, job: usize, is_it: impl FnOnce(Generation) -> bool) -> bool {
        let clears = self.owners[job].is_some_and(|(generation, _)| is_it(generation));
        if clears {
            self.owners[job] = None;
        }
        clears
    }
}

impl SequentialSpec for Spec {
    type Op = Call;
    type Ret = Answer;

    /// The tester asks for calls in flight only. Histories have none: threads are joined.
    fn invoke(&mut self, call: &Call) -> Answer {
        unreachable!("{call} has not returned")
    }

    /// Returns `true` if the call, now, may be answered so, and does it. A mark's generation may
    /// be any that is greater than those before it.
    fn is_valid_step(&mut self, call: &Call, answer: &Answer) -> bool {
        match (*call, *answer) {
            (Call::Mark(job, value), Answer::Marked(generation)) => self.mark(job, generation, value),
            (Call::TryMark(job, value), Answer::Marked(generation)) => {
                self.owners[job].is_none() && self.mark(job, generation, value)
            }
            (Call::TryMark(job, _), Answer::Refused(generation, value)) => {
                self.owners[job] == Some((generation, value))
            }
            (Call::Release(job, mine) | Call::ClearGeneration(job, mine), Answer::Said(cleared)) => {
                self.clear_if(job, |generation| generation == mine) == cleared
            }
            (Call::Drop(job, mine), Answer::Nothing) => {
                self.clear_if(job, |generation| generation == mine);
                true
            }
            (Call::Replace(job, mine, value), Answer::Said(replaced)) => {
                let stands = self.owners[job].is_some_and(|(generation, _)| generation == mine);
                if stands {
                    self.owners[job] = Some((mine, value));
                }
                stands == replaced
            }
            (Call::IsCurrent(job, mine), Answer::Said(current)) => {
                self.owners[job].is_some_and(|(generation, _)| generation == mine) == current
            }
            (Call::Clear(job), Answer::Said(cleared)) => self.clear_if(job, |_| true) == cleared,
            (Call::IsActive(job), Answer::Said(active)) => self.owners[job].is_some() == active,
            (Call::Owner(job), Answer::Owner(owner)) => self.owners[job] == owner,
            (Call::Snapshot, Answer::Snapshot(owners, others)) => self.owners == owners && self.others == others,
            // It promises each job for itself only; that is checked by the other calls.
            (Call::Snapshot, Answer::Torn) => true,
            _ => false,
        }
    }
}
