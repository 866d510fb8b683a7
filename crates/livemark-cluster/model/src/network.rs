//! What is on its way: requests that may be late, lost and repeated, and answers.

use crate::engine::{If, Name, Row};

/// Who in a process waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Caller {
    /// A monitor, or the reaper.
    Monitor(u8),
    /// What removes ghosts.
    Collector,
    /// What renews the lease.
    Renewal,
    /// What lists the keys anew.
    Watch,
    /// What opens another session.
    Opening,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Message {
    pub(crate) process: u8,
    pub(crate) caller: Caller,
    /// Whether the caller still waits for the answer. A request that was given up may arrive all the same.
    pub(crate) is_wanted: bool,
    pub(crate) body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Body {
    Put {
        name: Name,
        /// The token, where a context is replaced. 0 where a mark is taken.
        taken_at: u8,
        condition: If,
        /// Whose mark the sender has seen, and takes over. Nobody's is the name of lease 0.
        over: Name,
        /// Whether it is the reaper's.
        is_claim: bool,
    },
    /// Removes the key. Carries the mark that the sender means.
    Delete {
        name: Name,
        condition: If,
    },
    Renew(u8),
    Grant,
    List,
    Answer(Answer),
}

impl Body {
    pub(crate) fn is_write(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. })
    }

    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Answer(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Answer {
    Written(Row),
    Removed,
    Refused(Option<Row>),
    LeaseGone,
    Renewed,
    Granted(u8),
    Listed {
        revision: u8,
        row: Option<Row>,
        /// A bit for each lease that is alive.
        sessions: u8,
    },
}
