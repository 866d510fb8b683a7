//! PostgreSQL as an engine: [`Postgres`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use livemark_cluster::{Engine, EngineError, Grant, History, If, Lease, Listing, Revision, Row, Written};
use tokio::sync::watch;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, Socket};

use crate::error::{ConnectError, Failure};
use crate::line::{Connect, Line, PATIENCE, PATIENCE_WITH_LOCKS};
use crate::options::Options;
use crate::watch::{PostgresWatch, Question, Read, read};

/// The schema, for those who have migrations of their own. It can be run again.
pub const SCHEMA: &str = include_str!("schema.sql");

/// The version of the schema.
pub(crate) const VERSION: i32 = 2;

/// A namespace of a PostgreSQL database. Clones share its connections.
#[derive(Clone)]
pub struct Postgres(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) namespace: String,
    pub(crate) options: Options,
    /// Renews leases: nothing that waits for a lock is in its way.
    leases: Line,
    pub(crate) reads: Line,
    writes: Vec<Line>,
    /// Up to where all changes are over in a history, as far as anybody here has found out.
    whole: Mutex<(History, Revision)>,
    /// Tells the watches that something was written here that is waited for.
    pub(crate) wakes: watch::Sender<()>,
}

impl Postgres {
    /// Creates the schema, or brings it up to date. Where it is up to date already, it changes and locks nothing.
    ///
    /// What it makes at a table that is in use waits for the transactions that have written to it, for two seconds at most:
    /// all writers wait behind it.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not answer, or does not let us. [`ConnectError::Busy`] if it waited in vain: try
    /// again when those transactions are over. [`ConnectError::Schema`] if the schema is a later one.
    pub async fn migrate<T>(config: &Config, tls: T) -> Result<(), ConnectError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let refusal = |error| Failure::Server(error).refusal();
        let client = Connect::by(config.clone(), tls).once().await.map_err(|failure| failure.refusal())?;
        if is_migrated(&client).await? {
            return Ok(());
        }
        // One at a time: `IF NOT EXISTS` does not wait for whoever is at it. Nobody else waits for this lock.
        let lock = "BEGIN; SET LOCAL lock_timeout = '30s'; SELECT pg_advisory_xact_lock(5511, 1); \
                    SET LOCAL lock_timeout = '2s';";
        client.batch_execute(lock).await.map_err(refusal)?;
        // Somebody may just have done it.
        if !is_migrated(&client).await? {
            client.batch_execute(SCHEMA).await.map_err(refusal)?;
        }
        client.batch_execute("COMMIT").await.map_err(refusal)
    }

    /// Connects to a database that has the schema, for the jobs of one store.
    ///
    /// Connections are made when they are needed: one that renews leases, one that reads, and some that write. Where `config`
    /// sets no time for making one, it is 2 s. Where it has several hosts, set `target_session_attrs=read-write`: a replica is
    /// of no use.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not answer, does not let us or takes no writes, or if the schema is not there.
    pub async fn connect<T>(mut config: Config, tls: T, namespace: &str, options: Options) -> Result<Self, ConnectError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        if namespace.is_empty() || namespace.contains('\0') {
            return Err(ConnectError::Namespace);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(2));
        }
        if config.get_application_name().is_none() {
            config.application_name("livemark");
        }
        let postgres = Self::by(&Connect::by(config, tls), namespace, options);
        let statement =
            "SELECT livemark.version(), pg_is_in_recovery() OR current_setting('transaction_read_only')::bool";
        let rows = postgres.0.reads.try_query(statement, &[]).await.map_err(|failure| failure.refusal())?;
        match rows.first().map(|row| (row.get(0), row.get(1))) {
            Some((VERSION, false)) => Ok(postgres),
            Some((VERSION, true)) => Err(ConnectError::ReadOnly),
            found => Err(ConnectError::Schema { found: found.map(|(version, _)| version) }),
        }
    }

    fn by(connect: &Connect, namespace: &str, options: Options) -> Self {
        let line = |patience| Line::new(connect, patience);
        Self(Arc::new(Shared {
            namespace: namespace.to_owned(),
            options,
            leases: line(PATIENCE),
            reads: line(PATIENCE),
            writes: (0..options.writers.max(1)).map(|_| line(PATIENCE_WITH_LOCKS)).collect(),
            whole: Mutex::default(),
            wakes: watch::Sender::new(()),
        }))
    }

    /// The first connection that writes on which the least is under way. One that waits for a lock is in nobody's way then.
    fn writes(&self) -> &Line {
        // There is one at least.
        self.0.writes.iter().min_by_key(|line| line.load()).unwrap_or(&self.0.reads)
    }
}

/// Whether all of the schema is there.
async fn is_migrated(client: &Client) -> Result<bool, ConnectError> {
    let statement = "SELECT livemark.version(), NOT EXISTS (SELECT 1 FROM unnest(ARRAY['rows', 'server', 'revisions', \
                     'rows_by_revision', 'rows_by_lease', 'leases_by_end', 'rows_gone']) AS name \
                     WHERE to_regclass('livemark.' || name) IS NULL)";
    // What fails in a transaction ends it.
    let is_there = client.query_typed("SELECT to_regprocedure('livemark.version()') IS NOT NULL", &[]).await;
    let is_there = is_there.map_err(|error| Failure::Server(error).refusal())?;
    if !is_there.first().is_some_and(|row| row.get(0)) {
        return Ok(false);
    }
    let rows = client.query_typed(statement, &[]).await.map_err(|error| Failure::Server(error).refusal())?;
    match rows.first().map(|row| (row.get(0), row.get(1))) {
        Some((found, _)) if found > VERSION => Err(ConnectError::Schema { found: Some(found) }),
        found => Ok(found == Some((VERSION, true))),
    }
}

impl Shared {
    /// Up to where all changes are over, and in which history.
    fn whole(&self) -> (History, Revision) {
        *self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up that all changes up to there are over. Later histories have greater numbers.
    pub(crate) fn found_whole(&self, history: History, whole: Revision) {
        let mut known = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (*known).max((history, whole));
    }
}

/// Finds out whether PostgreSQL can have this key: its text has no NUL.
pub(crate) fn writable(key: &str) -> Result<(), EngineError> {
    if key.contains('\0') { Err(EngineError::Denied(format!("a text has no NUL: {key:?}"))) } else { Ok(()) }
}

/// The statement that writes a key.
pub(crate) const PUT: &str = "SELECT outcome, revision, value, lease FROM livemark.put($1, $2, $3, $4, $5, $6)";
/// The types of its parameters.
pub(crate) const PUT_TYPES: [Type; 6] = [Type::TEXT, Type::TEXT, Type::BYTEA, Type::INT8, Type::INT8, Type::INT8];

/// A condition as the functions have it.
pub(crate) fn condition(condition: If) -> Option<i64> {
    match condition {
        If::Any => None,
        If::Absent => Some(0),
        If::At(revision) => Some(signed(revision)),
    }
}

/// What came of a write.
pub(crate) fn written(rows: &[tokio_postgres::Row]) -> Result<Written, EngineError> {
    let nothing = || EngineError::Unknown("an answer has no row".to_owned());
    let row = rows.first().ok_or_else(nothing)?;
    let (outcome, revision): (&str, Option<i64>) = (row.get(0), row.get(1));
    match (outcome, revision) {
        ("done", Some(revision)) => Ok(Written::Done(unsigned(revision))),
        ("no lease", _) => Err(EngineError::LeaseGone),
        ("new epoch", _) => Err(EngineError::NewEpoch),
        (_, None) => Ok(Written::Refused(None)),
        (_, Some(revision)) => Ok(Written::Refused(Some(found(revision, row.get(2), row.get(3))))),
    }
}

pub(crate) fn found(revision: i64, value: Vec<u8>, lease: Option<i64>) -> Row {
    Row { revision: unsigned(revision), value, lease: lease.map(|lease| Lease(unsigned(lease))) }
}

impl Engine for Postgres {
    type Watch = PostgresWatch;

    async fn grant(&self, ttl: Duration) -> Result<Grant, EngineError> {
        let seconds = ttl.as_secs_f64();
        let statement = "SELECT livemark.grant_lease($1, make_interval(secs => $2))";
        let params = [(&self.0.namespace as _, Type::TEXT), (&seconds as _, Type::FLOAT8)];
        let rows = self.0.leases.query(statement, &params).await?;
        let lease = rows.first().map(|row| Lease(unsigned(row.get(0))));
        let lease = lease.ok_or_else(|| EngineError::Unknown("an answer has no row".to_owned()))?;
        Ok(Grant { lease, ttl })
    }

    async fn renew(&self, lease: Lease) -> Result<Duration, EngineError> {
        let id = signed(lease.0);
        let params = [(&self.0.namespace as _, Type::TEXT), (&id as _, Type::INT8)];
        let rows = self.0.leases.query("SELECT livemark.renew_lease($1, $2)", &params).await?;
        let seconds: Option<f64> = rows.first().and_then(|row| row.get(0));
        seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or(EngineError::LeaseGone)
    }

    async fn revoke(&self, lease: Lease) -> Result<(), EngineError> {
        let id = signed(lease.0);
        let params = [(&self.0.namespace as _, Type::TEXT), (&id as _, Type::INT8)];
        self.0.leases.query("SELECT livemark.revoke_lease($1, $2)", &params).await.map(drop)
    }

    async fn put_in_epoch(
        &self,
        key: &str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
        epoch: If,
    ) -> Result<Written, EngineError> {
        writable(key)?;
        let lease = lease.map(|lease| signed(lease.0));
        let (condition, epoch) = (self::condition(condition), self::condition(epoch));
        let [a, b, c, d, e, f] = PUT_TYPES;
        let params = [
            (&self.0.namespace as _, a),
            (&key as _, b),
            (&value as _, c),
            (&lease as _, d),
            (&condition as _, e),
            (&epoch as _, f),
        ];
        // What a session tells of itself, and what a barrier writes, is to come back at once. It is small, and waits for
        // nobody.
        let is_own = key.starts_with("s/") || key.starts_with("t/");
        let line = if is_own { &self.0.reads } else { self.writes() };
        let written = written(&line.query(PUT, &params).await?);
        if is_own {
            self.0.wakes.send_replace(());
        }
        written
    }

    async fn delete(&self, key: &str, condition: If) -> Result<Written, EngineError> {
        writable(key)?;
        let condition = self::condition(condition);
        let statement = "SELECT outcome, revision, value, lease FROM livemark.remove($1, $2, $3)";
        let params = [(&self.0.namespace as _, Type::TEXT), (&key as _, Type::TEXT), (&condition as _, Type::INT8)];
        written(&self.writes().query(statement, &params).await?)
    }

    async fn get(&self, key: &str) -> Result<Option<Row>, EngineError> {
        writable(key)?;
        let statement = "SELECT revision, value, lease FROM livemark.rows \
                         WHERE namespace = $1 AND key = $2 AND value IS NOT NULL";
        let params = [(&self.0.namespace as _, Type::TEXT), (&key as _, Type::TEXT)];
        let rows = self.0.reads.query(statement, &params).await?;
        Ok(rows.first().map(|row| found(row.get(0), row.get(1), row.get(2))))
    }

    async fn list(&self) -> Result<Listing, EngineError> {
        // Before the snapshot: what was whole then is whole in it.
        let (history, whole) = self.0.whole();
        let question = Question { after: None, whole, history: Some(history), draws: false, snapshot: None };
        let Read { events, seen, forgotten, history: found, .. } = read(&self.0, question).await?;
        // The sequence is read after the rows. Where they are beyond it, it was put back, and they were not.
        if events.iter().any(|event| event.revision > seen.latest) {
            return Err(EngineError::Restored);
        }
        // In another history these numbers mean something else.
        let whole = if found == history { whole } else { 0 };
        let rows = events.into_iter().filter_map(|event| Some((event.key, event.row?))).collect();
        // Nothing is forgotten while something earlier is still to come.
        Ok(Listing { revision: seen.latest, whole: whole.max(forgotten), history: found, rows })
    }

    async fn watch(&self, after: Revision) -> Result<PostgresWatch, EngineError> {
        Ok(PostgresWatch::new(self.clone(), after))
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("namespace", &self.0.namespace).finish_non_exhaustive()
    }
}

/// Numbers of PostgreSQL are signed, and none of these is negative.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
