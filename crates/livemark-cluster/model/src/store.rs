//! The job store: one row, with a fence and a state.

use crate::settings::Mutant;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    /// The greatest token with which the job was taken.
    pub(crate) fence: u8,
    /// Who ended the job: 1 and up for processes, 0 while it runs.
    pub(crate) done_by: u8,
}

/// What came of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    Done,
    Refused,
    /// The job had been ended before.
    Twice,
    /// Another owner has taken the job since.
    Overtaken,
}

impl Store {
    pub(crate) fn is_done(&self) -> bool {
        self.done_by > 0
    }

    /// `UPDATE jobs SET fence = token WHERE state = 'running' AND fence < token`.
    pub(crate) fn take(&mut self, token: u8, mutant: Mutant) -> bool {
        let fences = !matches!(mutant, Mutant::NoFence | Mutant::NoFenceNoState);
        if fences && (self.is_done() || self.fence >= token) {
            return false;
        }
        self.fence = self.fence.max(token);
        true
    }

    /// `UPDATE jobs SET state = 'done' WHERE state = 'running' AND fence = token`.
    pub(crate) fn commit(&mut self, token: u8, process: u8, mutant: Mutant) -> Commit {
        let refused = match mutant {
            Mutant::NoFenceNoState => false,
            Mutant::NoFence => self.is_done(),
            _ => self.is_done() || self.fence != token,
        };
        if refused {
            return Commit::Refused;
        }
        let done = match (self.is_done(), token < self.fence) {
            (true, _) => Commit::Twice,
            (false, true) => Commit::Overtaken,
            (false, false) => Commit::Done,
        };
        self.done_by = process + 1;
        done
    }
}
