//! What a session needs of the system that all processes share: [`Engine`].

use std::fmt;
use std::future::Future;
use std::time::Duration;

/// A state of the engine. Later ones are greater.
pub type Revision = u64;

/// The history that a state belongs to, by the engine's number. Another one begins where the engine may have lost what it had: it
/// was restored, or a copy that lagged has taken its place. An engine that cannot tell has one.
pub type History = u64;

/// A lease, by the engine's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease(pub u64);

/// A lease that was granted, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The lease.
    pub lease: Lease,
    /// Its time to live, which may be another one than was asked for.
    pub ttl: Duration,
}

/// What a write requires of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum If {
    /// That it is not there.
    Absent,
    /// That it was last written at this revision.
    At(Revision),
    /// Nothing.
    Any,
}

/// A key as it was last written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it was last written.
    pub revision: Revision,
    /// What was written.
    pub value: Vec<u8>,
    /// With which lease it goes.
    pub lease: Option<Lease>,
}

/// What came of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was made, at this revision.
    Done(Revision),
    /// The key was otherwise. This is how it is.
    Refused(Option<Row>),
}

/// All keys, and when they were so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The latest state that there was. Writes that begin later have greater ones.
    pub revision: Revision,
    /// The state up to which nothing is missing. It is `revision` where writes are made in the order of their revisions. Where
    /// they are not, later rows may be there before earlier ones.
    pub whole: Revision,
    /// Of which history it is. What was heard of another one says nothing.
    pub history: History,
    /// Each key and its row.
    pub rows: Vec<(String, Row)>,
}

/// A key that was written, or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When. Several keys may go in one revision: those of a lease that ended.
    pub revision: Revision,
    /// The key.
    pub key: String,
    /// How it is now. `None` if it is gone.
    pub row: Option<Row>,
}

/// What a watch has heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// What has changed. Of one key, in the order of the revisions.
    pub events: Vec<Event>,
    /// The state up to which all changes have been told of, as in [`Listing::whole`].
    pub whole: Revision,
    /// Of which history they are, as in [`Listing::history`].
    pub history: History,
}

/// Why the engine did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineError {
    /// Nobody answered, or the answer was lost: what was asked may have been done, or may be done later.
    Unknown(String),
    /// The lease has ended.
    LeaseGone,
    /// The states that were asked for are not kept any more.
    Compacted,
    /// The engine may have lost what it had: it was restored, or a copy that lagged has taken its place.
    Restored,
    /// The key `epoch` is not as it was required to be. Nothing was done.
    NewEpoch,
    /// Whoever answered takes no writes, as a replica does. Nothing was done.
    ReadOnly(String),
    /// The engine has no room. Nothing was done.
    NoSpace,
    /// The engine does not let us. Nothing was done.
    Denied(String),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(why) => write!(f, "the engine did not answer: {why}"),
            Self::LeaseGone => f.write_str("the lease has ended"),
            Self::Compacted => f.write_str("the engine does not keep these states any more"),
            Self::Restored => f.write_str("the engine was put back to an earlier state"),
            Self::NewEpoch => f.write_str("the engine's epoch was changed"),
            Self::ReadOnly(why) => write!(f, "the engine takes no writes here: {why}"),
            Self::NoSpace => f.write_str("the engine has no room"),
            Self::Denied(why) => write!(f, "the engine refuses: {why}"),
        }
    }
}

impl std::error::Error for EngineError {}

/// A client of an engine: leases that end by themselves, compare-and-set with growing revisions, and an ordered watch.
///
/// Keys are relative to one namespace, which a client is made for. The revision of a write is unique but for keys that go
/// with one lease. Every write is linearizable, and so is every read.
///
/// **Unstable**: two engines have it, and a third may show what it lacks.
pub trait Engine: Send + Sync + 'static {
    /// What is read of a watch.
    type Watch: Watch;

    /// Grants a lease.
    fn grant(&self, ttl: Duration) -> impl Future<Output = Result<Grant, EngineError>> + Send;

    /// Renews a lease. Returns its time to live from now on.
    ///
    /// Dropping the future gives the request up. A late answer to it is never taken for the answer to the next one.
    fn renew(&self, lease: Lease) -> impl Future<Output = Result<Duration, EngineError>> + Send;

    /// Ends a lease, and all keys that go with it in one revision.
    fn revoke(&self, lease: Lease) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Writes a key, to go with a lease.
    fn put(
        &self,
        key: &str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
    ) -> impl Future<Output = Result<Written, EngineError>> + Send {
        self.put_in_epoch(key, value, lease, condition, If::Any)
    }

    /// Writes a key if also the key `epoch` is as `epoch` says, in one step. [`EngineError::NewEpoch`] if it is not.
    fn put_in_epoch(
        &self,
        key: &str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
        epoch: If,
    ) -> impl Future<Output = Result<Written, EngineError>> + Send;

    /// Removes a key. One that is gone already is `Refused(None)`.
    fn delete(&self, key: &str, condition: If) -> impl Future<Output = Result<Written, EngineError>> + Send;

    /// Reads one key.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Row>, EngineError>> + Send;

    /// Reads all keys. [`EngineError::Restored`] where what is there shows that the engine was put back.
    fn list(&self) -> impl Future<Output = Result<Listing, EngineError>> + Send;

    /// Watches all keys, from the state after this one on. Whoever listed compares the history that the news are of.
    fn watch(&self, after: Revision) -> impl Future<Output = Result<Self::Watch, EngineError>> + Send;
}

/// What changes in an engine. Whoever has heard of a write has heard of all that was made before that was sent.
pub trait Watch: Send + 'static {
    /// Returns all events of one revision or of several, none of them torn: a revision comes whole.
    ///
    /// Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<News, EngineError>> + Send;
}
