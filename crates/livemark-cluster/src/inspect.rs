//! What an operator's tool reads of an engine, without a session of its own: [`Inventory`].

use crate::codec::{MarkValue, SessionValue};
use crate::engine::{Event, Lease, Listing, Revision, Row};
use crate::error::OpenError;
use crate::guard::Token;
use crate::keys::{EPOCH, MARKS, SESSIONS, STORE, TICKS, epoch_of};

/// All that lies in a namespace.
///
/// ```
/// use livemark::Finalizer;
/// use livemark_cluster::inspect::Inventory;
/// use livemark_cluster::{Config, Engine, MemoryEngine, Session};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(async {
/// let engine = MemoryEngine::new();
/// let session: Session = Session::open(engine.client(), Config::default()).await?;
/// let guard = session.mark(7, Finalizer::new(Some(1), "merge")).await?;
/// let inventory = Inventory::of(&engine.client().list().await?);
/// assert_eq!((inventory.marks[0].job.as_str(), inventory.marks[0].token), ("7", guard.token()));
/// assert_eq!(inventory.sessions[0].marks, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).expect("the engine is there");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inventory {
    /// The epoch of the tokens, or that what is written there is none.
    pub epoch: Result<u64, OpenError>,
    /// The job store that the namespace is for, if sessions have named one.
    pub store: Option<String>,
    /// The marks, by their jobs.
    pub marks: Vec<SeenMark>,
    /// The sessions, by their processes.
    pub sessions: Vec<SeenSession>,
    /// Keys that are neither.
    pub foreign: Vec<String>,
}

/// A mark, as it lies in the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeenMark {
    /// The job, as its key has it.
    pub job: String,
    /// Its key, in the namespace.
    pub key: String,
    /// The mark's token.
    pub token: Token,
    /// When its key was last written.
    pub revision: Revision,
    /// The lease that it goes with.
    pub lease: Lease,
    /// What its process is called.
    pub process: String,
    /// Its context, as it was written.
    pub context: String,
}

/// A session, as it lies in the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SeenSession {
    /// Its lease.
    pub lease: Lease,
    /// What its process is called.
    pub process: String,
    /// How many marks it has.
    pub marks: usize,
}

impl Inventory {
    /// Reads a listing.
    #[must_use]
    pub fn of(listing: &Listing) -> Self {
        let epoch = epoch_of(listing);
        let (mut marks, mut sessions) = (Vec::new(), Vec::new());
        let (mut foreign, mut store) = (Vec::new(), None);
        for (key, row) in &listing.rows {
            if let Some(mark) = SeenMark::of(key, row) {
                marks.push(mark);
            } else if let Some(session) = SeenSession::of(key, row) {
                sessions.push(session);
            } else if key == STORE {
                store = Some(String::from_utf8_lossy(&row.value).into_owned());
            } else if key != EPOCH && !key.starts_with(TICKS) {
                foreign.push(key.clone());
            }
        }
        for session in &mut sessions {
            session.marks = marks.iter().filter(|mark| mark.lease == session.lease).count();
        }
        // Jobs that are numbers in the order of the numbers.
        marks.sort_by(|a, b| (a.job.len(), &a.job).cmp(&(b.job.len(), &b.job)));
        sessions.sort_by(|a, b| (&a.process, a.lease).cmp(&(&b.process, b.lease)));
        Self { epoch, store, marks, sessions, foreign }
    }

    /// Returns the mark of a job, written as its key has it.
    #[must_use]
    pub fn mark(&self, job: &str) -> Option<&SeenMark> {
        self.marks.iter().find(|mark| mark.job == job)
    }
}

impl SeenMark {
    fn of(key: &str, row: &Row) -> Option<Self> {
        let job = key.strip_prefix(MARKS)?;
        let value = MarkValue::decode(&row.value)?;
        Some(Self {
            job: job.to_owned(),
            key: key.to_owned(),
            token: value.token(row.revision),
            revision: row.revision,
            lease: Lease(value.lease),
            process: value.process,
            context: value.context,
        })
    }

    /// Reads what an event says of a mark: its job, and the mark, unless it is gone. `None` if it is of something else.
    #[must_use]
    pub fn in_event(event: &Event) -> Option<(String, Option<Self>)> {
        let job = event.key.strip_prefix(MARKS)?.to_owned();
        Some((job, event.row.as_ref().and_then(|row| Self::of(&event.key, row))))
    }
}

impl SeenSession {
    fn of(key: &str, row: &Row) -> Option<Self> {
        let lease = key.strip_prefix(SESSIONS)?.parse().ok()?;
        let SessionValue { process, .. } = SessionValue::decode(&row.value)?;
        Some(Self { lease: Lease(lease), process, marks: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: &str) -> Row {
        Row { revision: 9, value: value.as_bytes().to_vec(), lease: Some(Lease(5)) }
    }

    /// Seen to fail with tokens of the last write, where a mark's context was replaced.
    #[test]
    fn all_that_lies_there_is_told() {
        let mark = |at: &str| format!(r#"{{"epoch":2,"lease":5,"seq":1,"taken_at":{at},"process":"a","context":"c"}}"#);
        let rows = [
            ("epoch", "2".to_owned()),
            ("m/10", mark("null")),
            ("m/9", mark("4")),
            ("m/x", "what is this".to_owned()),
            ("s/5", r#"{"process":"a"}"#.to_owned()),
            ("store", "payments".to_owned()),
            ("t/5", String::new()),
            ("u", String::new()),
        ];
        let rows = rows.iter().map(|(key, value)| ((*key).to_owned(), row(value))).collect();
        let Inventory { epoch, store, marks, sessions, foreign } =
            Inventory::of(&Listing { revision: 9, whole: 9, history: 0, rows });
        assert_eq!((epoch, store), (Ok(2), Some("payments".to_owned())));
        let seen: Vec<_> = marks.iter().map(|mark| (mark.job.as_str(), mark.token)).collect();
        assert_eq!(seen, [("9", Token::new(2, 4)), ("10", Token::new(2, 9))]);
        assert_eq!((sessions.len(), sessions[0].marks), (1, 2));
        assert_eq!(foreign, ["m/x", "u"]);
        let wrong = vec![("epoch".to_owned(), row("x"))];
        assert_eq!(
            Inventory::of(&Listing { revision: 9, whole: 9, history: 0, rows: wrong }).epoch,
            Err(OpenError::Epoch)
        );
    }
}
