//! A process's mirror of the key, which a watch feeds, and answers in advance of the watch.

use crate::engine::Row;
use crate::process::Monitor;
use crate::settings::Mutant;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Mirror {
    /// The last revision that is in the mirror whole.
    pub(crate) applied: u8,
    pub(crate) mark: Option<Row>,
    /// When the key went, for the mutants that go by it. 0 if it is forgotten.
    pub(crate) tombstone: u8,
}

impl Mirror {
    /// Takes a row up from the watch or a listing, unless a later state is known.
    pub(crate) fn put(&mut self, row: Row) {
        let known = self.mark.map_or(self.tombstone, |mark| mark.revision);
        if known < row.revision {
            self.mark = Some(row);
            self.tombstone = 0;
        }
    }

    /// Takes up a row that an answer told of. What the watch has passed is in the mirror already, or gone.
    pub(crate) fn put_early(&mut self, row: Row, mutant: Mutant) {
        if row.revision > self.applied || mutant == Mutant::AnswersAnyTime {
            self.put(row);
        }
    }

    /// Takes the mark out that was there at this revision. Returns it.
    pub(crate) fn remove(&mut self, at: u8, mutant: Mutant) -> Option<Row> {
        let mark = self.mark.filter(|mark| mark.revision < at)?;
        self.mark = None;
        if matches!(mutant, Mutant::AnswersAnyTime | Mutant::TombstoneTooLate) {
            self.tombstone = at;
        }
        Some(mark)
    }

    pub(crate) fn passed(&mut self, revision: u8) {
        self.applied = self.applied.max(revision);
        if self.tombstone <= revision {
            self.tombstone = 0;
        }
    }

    /// Whether the mirror knows that a mark which was taken then stands no longer.
    pub(crate) fn has_lost(&self, guard: &Monitor, taken_at: u8, mutant: Mutant) -> bool {
        match self.mark {
            Some(mark) => !guard.is_its(&mark, mutant) && mark.revision > taken_at,
            None if mutant == Mutant::AnswersAnyTime => self.tombstone > taken_at,
            None => self.applied >= taken_at,
        }
    }
}
