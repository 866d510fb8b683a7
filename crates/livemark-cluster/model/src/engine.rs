//! The engine: one job's key, leases, a revision that grows, and the events that a watch tells.

use crate::settings::Mutant;

/// The most leases that a model grants.
pub(crate) const LEASES: usize = 4;
/// What is left of a lease that was not granted yet.
const UNUSED: u8 = u8::MAX;
/// What is left of a lease that has ended.
const ENDED: u8 = u8::MAX - 1;
/// What is left of a lease that is always renewed in time.
pub(crate) const KEPT: u8 = u8::MAX - 2;

/// Names a mark, also where its token is not known: a lease, and a number under it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) lease: u8,
    pub(crate) seq: u8,
}

/// The key as it was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) name: Name,
    /// The token, where the value was written again since the mark was taken. 0 otherwise.
    pub(crate) taken_at: u8,
    pub(crate) revision: u8,
    /// When the key was made. Only where a mutant reads it, so that it costs no states.
    pub(crate) created: u8,
}

impl Row {
    /// Returns the token that a reader of the row sees.
    pub(crate) fn token(&self) -> u8 {
        if self.taken_at == 0 { self.revision } else { self.taken_at }
    }
}

/// What a write requires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum If {
    #[default]
    Absent,
    At(u8),
    Any,
}

/// What a revision did to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    Untouched,
    Gone,
    Written(Row),
}

/// A revision, as a watch tells it: whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Event {
    pub(crate) revision: u8,
    /// The lease that ended in it, or 0.
    pub(crate) ended: u8,
    pub(crate) change: Change,
}

/// What came of a conditional put.
pub(crate) enum Put {
    /// Written. Carries the row that was there before.
    Done(Row, Option<Row>),
    Refused(Option<Row>),
    LeaseGone,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Engine {
    pub(crate) revision: u8,
    pub(crate) row: Option<Row>,
    /// Ticks that are left of each lease.
    leases: [u8; LEASES],
    /// What the slowest watch has not told yet.
    pub(crate) log: Vec<Event>,
    /// The token of the last mark that was taken. The engine does not know it: it is for the properties.
    pub(crate) last_token: u8,
}

impl Engine {
    pub(crate) fn new() -> Self {
        // Revision 0 is no token.
        Self { revision: 1, row: None, leases: [UNUSED; LEASES], log: Vec::new(), last_token: 0 }
    }

    /// Grants a lease. Leases count from 1.
    pub(crate) fn grant(&mut self, ttl: u8) -> Option<u8> {
        let index = self.leases.iter().position(|left| *left == UNUSED)?;
        self.leases[index] = ttl;
        u8::try_from(index + 1).ok()
    }

    fn left(&mut self, lease: u8) -> Option<&mut u8> {
        self.leases.get_mut(usize::from(lease.checked_sub(1)?))
    }

    pub(crate) fn is_alive(&self, lease: u8) -> bool {
        lease > 0 && self.leases[usize::from(lease) - 1] < ENDED
    }

    /// Whether the time of a lease is up. The engine may take longer to end it, and renews it until then.
    pub(crate) fn is_due(&self, lease: u8) -> bool {
        lease > 0 && self.leases[usize::from(lease) - 1] == 0
    }

    pub(crate) fn renew(&mut self, lease: u8, ttl: u8) -> bool {
        let is_alive = self.is_alive(lease);
        if is_alive {
            if let Some(left) = self.left(lease) {
                *left = ttl;
            }
        }
        is_alive
    }

    pub(crate) fn tick(&mut self) {
        for left in &mut self.leases {
            if *left < KEPT {
                *left = left.saturating_sub(1);
            }
        }
    }

    /// Ends a lease: the session's key and the mark under it go in one revision.
    pub(crate) fn end(&mut self, lease: u8) {
        if let Some(left) = self.left(lease) {
            *left = ENDED;
        }
        let has_mark = self.row.is_some_and(|row| row.name.lease == lease);
        if has_mark {
            self.row = None;
        }
        let change = if has_mark { Change::Gone } else { Change::Untouched };
        self.tell(lease, change);
    }

    fn tell(&mut self, ended: u8, change: Change) {
        self.revision += 1;
        let revision = self.revision;
        let change = match change {
            Change::Written(row) => Change::Written(Row { revision, ..row }),
            other => other,
        };
        self.log.push(Event { revision, ended, change });
    }

    fn allows(&self, condition: If, mutant: Mutant) -> bool {
        match (condition, self.row) {
            (If::Any, _) | (If::Absent, None) => true,
            (If::At(revision), Some(row)) => revision == version(&row, mutant),
            (If::Absent, Some(_)) | (If::At(_), None) => false,
        }
    }

    pub(crate) fn put(&mut self, name: Name, taken_at: u8, condition: If, mutant: Mutant) -> Put {
        if !self.is_alive(name.lease) {
            return Put::LeaseGone;
        }
        let is_allowed = match (condition, self.row) {
            // The put itself compares the last write, with every mutant.
            (If::At(revision), Some(row)) => row.revision == revision,
            _ => self.allows(condition, mutant),
        };
        if !is_allowed {
            return Put::Refused(self.row);
        }
        let before = self.row;
        let created = match before {
            _ if mutant != Mutant::CreateRevision => 0,
            Some(row) => row.created,
            None => self.revision + 1,
        };
        let row = Row { name, taken_at, revision: self.revision + 1, created };
        self.row = Some(row);
        self.tell(0, Change::Written(row));
        Put::Done(row, before)
    }

    /// Removes the key. Returns the row that was there, or the one that is.
    pub(crate) fn delete(&mut self, condition: If, mutant: Mutant) -> Result<Row, Option<Row>> {
        match self.row {
            Some(row) if self.allows(condition, mutant) => {
                self.row = None;
                self.tell(0, Change::Gone);
                Ok(row)
            }
            other => Err(other),
        }
    }

    /// Forgets what every watch has told.
    pub(crate) fn forget(&mut self, heard_by_all: u8) {
        self.log.retain(|event| event.revision > heard_by_all);
    }

    /// The event that a watch tells next.
    pub(crate) fn after(&self, revision: u8) -> Option<Event> {
        self.log.iter().find(|event| event.revision > revision).copied()
    }
}

/// The token that a row tells.
pub(crate) fn token(row: &Row, mutant: Mutant) -> u8 {
    if mutant == Mutant::CreateRevision { row.created } else { row.token() }
}

/// What a clear compares: the revision of the last write, or that of the first with a mutant.
pub(crate) fn version(row: &Row, mutant: Mutant) -> u8 {
    if mutant == Mutant::CreateRevision { row.created } else { row.revision }
}
