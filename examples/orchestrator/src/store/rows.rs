//! The columns and rows of the job store, as the rest of the program sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::store::connection::{Column, FromColumn, ToValue, Value};

/// A job, and its key in the registry.
pub type JobId = u64;
/// A run of a job.
pub type RunId = u64;

/// What jobs are that say nothing else.
pub const DEFAULT_KIND: &str = "default";

/// Defines an enum that is a text column.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
        }

        /// As one word: a name of several has them joined.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_string().replace(' ', "_"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)* })
            }
        }

        impl ToValue for $name {
            fn to_value(&self) -> Value<'_> {
                Value::Text(match self { $(Self::$variant => $text,)* })
            }
        }

        impl FromColumn for $name {
            fn from_column(column: Column<'_>) -> Option<Self> {
                match column {
                    $(Column::Text($text) => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

text_enum! {
    /// Where a job stands. The last three are final.
    State {
        /// Waits for a monitor.
        Queued = "queued",
        /// Has a run, whose monitor may or may not be alive.
        Running = "running",
        /// Its gates were green.
        Merged = "merged",
        /// A gate was red.
        RolledBack = "rolled back",
        /// Ended by the reaper.
        Reaped = "reaped",
    }
}

text_enum! {
    /// What a finalization does to the world outside.
    Effect {
        /// The work goes to the trunk.
        Merge = "merge",
        /// The deployment is rolled back.
        Rollback = "rollback",
    }
}

impl Effect {
    /// The final state of a job that had this effect.
    pub fn state(self) -> State {
        match self {
            Self::Merge => State::Merged,
            Self::Rollback => State::RolledBack,
        }
    }
}

text_enum! {
    /// How a run ended.
    Outcome {
        /// It ended its job.
        Committed = "committed",
        /// It acted, but the job was no longer its own to end.
        TooLate = "too late",
        /// It saw in time that it was displaced, and did nothing.
        Displaced = "displaced",
        /// Its job was ended or restarted before it had a mark that could be displaced.
        Overtaken = "overtaken",
        /// Its monitor panicked.
        Panicked = "panicked",
        /// Its monitor returned an error.
        Failed = "failed",
        /// Its process was killed.
        Lost = "lost",
    }
}

text_enum! {
    /// What a note tells of.
    NoteKind {
        /// What a run did.
        Run = "run",
        /// What the reaper left alone, or would have done.
        Verdict = "verdict",
        /// A finalization that was begun again.
        Redrive = "redrive",
        /// A job that the reaper ended.
        Reap = "reap",
        /// The mode or the limits that are in force.
        Mode = "mode",
        /// What an operator did.
        Action = "action",
        /// What went wrong.
        Trouble = "trouble",
    }
}

/// A running job, as the reaper sees it.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// The run that may end the job.
    pub run: RunId,
    /// Age of the job: since it was first started, over all its runs. A redrive does not renew it, a restart of the
    /// service does.
    pub running_for: Duration,
    /// Age of the finish stamp.
    pub finished_for: Option<Duration>,
    /// How long ago the run's monitor ended, if it ended without ending the job.
    pub lost_for: Option<Duration>,
    /// How often the job was redriven already.
    pub redrives: u32,
}

/// What there is to see of a queue.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The store's clock.
    pub now_ms: u64,
    /// Jobs by state; a state that no job ever had may be missing.
    pub counts: BTreeMap<State, u64>,
    /// Sorted by job.
    pub running: Vec<Shown>,
}

/// A running job, as people see it. What a bad row lacks is `None`.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The job.
    pub job: JobId,
    /// Its kind.
    pub kind: String,
    /// The run that may end it.
    pub run: Option<RunId>,
    /// The stage that was written down last.
    pub stage: Option<String>,
    /// Age of the job.
    pub running_ms: u64,
    /// Age of the finish stamp.
    pub finished_ms: Option<u64>,
    /// How often it was redriven already.
    pub redrives: u32,
}

/// One line of the timeline.
#[derive(Clone, Debug)]
pub struct Note {
    /// Milliseconds since the epoch.
    pub at: u64,
    /// The job it is about, if it is about one.
    pub job: Option<JobId>,
    /// Who acted.
    pub who: String,
    /// What was done.
    pub what: String,
}
