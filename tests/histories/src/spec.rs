//! What the registry promises, one call after the other.

use stateright::semantics::SequentialSpec;

use crate::call::{Answer, Call, Generation, JOBS, Kind, Mark, Owners};

/// The registry as a plain array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) owners: Owners,
    /// The greatest generation that each job ever had.
    pub(crate) greatest: [Generation; JOBS],
}

impl Spec {
    pub(crate) const EMPTY: Self = Self { owners: [None; JOBS], greatest: [0; JOBS] };

    /// Says whether the mark may have this generation: greater than all of the job's, and not one that another job is
    /// known to have had.
    pub(crate) fn mark(&mut self, job: usize, (generation, value): Mark) -> bool {
        let grows = generation > self.greatest[job] && !self.greatest.contains(&generation);
        self.greatest[job] = generation;
        self.owners[job] = Some((generation, value));
        grows
    }

    fn clear_if(&mut self, job: usize, is_it: bool) -> bool {
        let clears = is_it && self.owners[job].is_some();
        if clears {
            self.owners[job] = None;
        }
        clears
    }

    /// The jobs that are marked, in their order.
    pub(crate) fn owned(&self) -> impl Iterator<Item = (usize, Mark)> {
        self.owners.iter().enumerate().filter_map(|(job, owner)| owner.map(|mark| (job, mark)))
    }
}

impl SequentialSpec for Spec {
    type Op = Call;
    type Ret = Answer;

    /// The tester asks for calls in flight only. Histories have none: every call has returned.
    fn invoke(&mut self, call: &Call) -> Answer {
        unreachable!("{call:?} has not returned")
    }

    /// Whether the call, now, may be answered so; and does it. What generation a mark gets is not for this to say,
    /// but that it is greater than those before it. The tester drops a state for which this says no.
    fn is_valid_step(&mut self, call: &Call, answer: &Answer) -> bool {
        let Call { kind, job, generation, value } = *call;
        // A snapshot says nothing of a job.
        let owner = self.owners.get(job).copied().flatten();
        let stands = owner.is_some_and(|(current, _)| current == generation);
        match (kind, answer) {
            (Kind::Mark, Answer::Marked(generation)) => self.mark(job, (*generation, value)),
            (Kind::TryMark, Answer::Marked(generation)) => owner.is_none() && self.mark(job, (*generation, value)),
            (Kind::TryMark, Answer::Refused(other, given_back)) => owner == Some(*other) && *given_back == value,
            (Kind::Release | Kind::ClearGeneration, Answer::Said(cleared)) => self.clear_if(job, stands) == *cleared,
            (Kind::Drop, Answer::Nothing) => {
                self.clear_if(job, stands);
                true
            }
            (Kind::Replace, Answer::Said(replaced)) => {
                if stands {
                    self.owners[job] = Some((generation, value));
                }
                stands == *replaced
            }
            (Kind::IsCurrent, Answer::Said(current)) => stands == *current,
            (Kind::Clear, Answer::Said(cleared)) => self.clear_if(job, true) == *cleared,
            (Kind::IsActive | Kind::ReaderIsActive, Answer::Said(active)) => owner.is_some() == *active,
            (Kind::Owner | Kind::ReaderOwner, Answer::Owner(seen)) => owner == *seen,
            (Kind::Snapshot | Kind::Last, Answer::Snapshot(owned)) => self.owned().eq(owned.iter().copied()),
            // It promises each job for itself only, which the other looks check. At last there is nobody to tear it.
            (Kind::Snapshot, Answer::Torn) => true,
            _ => false,
        }
    }
}
