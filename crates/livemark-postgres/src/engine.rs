//! PostgreSQL as an engine: [`Postgres`].

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use livemark_cluster::{Engine, EngineError, Grant, If, Lease, Listing, Revision, Row, Written};
use tokio::sync::watch;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::Type;
use tokio_postgres::{Config, Socket};

use crate::error::{ConnectError, explain, in_words, is_no_schema};
use crate::line::{Connect, Line, connect_by};
use crate::options::Options;
use crate::watch::{PostgresWatch, Read, read};

/// The schema, for those who have migrations of their own. It can be run again.
pub const SCHEMA: &str = include_str!("schema.sql");

/// The version of the schema.
pub(crate) const VERSION: i32 = 1;

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
    next_write: AtomicUsize,
    /// Up to where all changes are over, as far as anybody here has found out.
    pub(crate) whole: AtomicU64,
    /// The history of the database that was listed last.
    history: Mutex<Option<String>>,
    /// Tells the watches that something was written here that is waited for.
    pub(crate) wakes: watch::Sender<()>,
}

impl Postgres {
    /// Creates the schema, or brings it up to date.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not answer, or does not let us.
    pub async fn migrate<T>(config: &Config, tls: T) -> Result<(), ConnectError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let client = connect_by(config.clone(), tls)().await.map_err(|error| refusal(&error))?;
        // One at a time: `IF NOT EXISTS` does not wait for whoever is at it.
        let locked = format!("BEGIN; SELECT pg_advisory_xact_lock(5511, 1); {SCHEMA} COMMIT;");
        client.batch_execute(&locked).await.map_err(|error| refusal(&error))
    }

    /// Connects to a database that has the schema, for the jobs of one store.
    ///
    /// Connections are made when they are needed: one that renews leases, one that reads, and some that write. Where `config`
    /// sets no time for making one, it is 2 s.
    ///
    /// # Errors
    ///
    /// Returns an error if the server does not answer or does not let us, or if the schema is not there.
    pub async fn connect<T>(mut config: Config, tls: T, namespace: &str, options: Options) -> Result<Self, ConnectError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        if namespace.is_empty() {
            return Err(ConnectError::Namespace);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(2));
        }
        if config.get_application_name().is_none() {
            config.application_name("livemark");
        }
        let connect = connect_by(config, tls);
        let postgres = Self::by(&connect, namespace, options);
        let version = postgres.0.reads.try_query("SELECT livemark.version()", &[]).await;
        match version {
            Ok(rows) => match rows.first().map(|row| row.get(0)) {
                Some(VERSION) => Ok(postgres),
                found => Err(ConnectError::Schema { found }),
            },
            Err(error) if is_no_schema(&error) => Err(ConnectError::Schema { found: None }),
            Err(error) => Err(refusal(&error)),
        }
    }

    fn by(connect: &Connect, namespace: &str, options: Options) -> Self {
        let line = || Line::new(connect);
        Self(Arc::new(Shared {
            namespace: namespace.to_owned(),
            options,
            leases: line(),
            reads: line(),
            writes: (0..options.writers.max(1)).map(|_| line()).collect(),
            next_write: AtomicUsize::new(0),
            whole: AtomicU64::new(0),
            history: Mutex::default(),
            wakes: watch::Sender::new(()),
        }))
    }

    /// A connection that writes, each in turn.
    fn writes(&self) -> &Line {
        // Relaxed (no edge): which connection is used is a matter of luck.
        let next = self.0.next_write.fetch_add(1, Ordering::Relaxed);
        &self.0.writes[next % self.0.writes.len()]
    }
}

fn refusal(error: &tokio_postgres::Error) -> ConnectError {
    match explain(error) {
        EngineError::Denied(why) => ConnectError::Denied(why),
        _ => ConnectError::Unreachable(in_words(error)),
    }
}

impl Shared {
    pub(crate) fn history(&self) -> Option<String> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
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
        let condition = self::condition(condition);
        let statement = "SELECT outcome, revision, value, lease FROM livemark.remove($1, $2, $3)";
        let params = [(&self.0.namespace as _, Type::TEXT), (&key as _, Type::TEXT), (&condition as _, Type::INT8)];
        written(&self.writes().query(statement, &params).await?)
    }

    async fn get(&self, key: &str) -> Result<Option<Row>, EngineError> {
        let statement = "SELECT revision, value, lease FROM livemark.rows \
                         WHERE namespace = $1 AND key = $2 AND value IS NOT NULL";
        let params = [(&self.0.namespace as _, Type::TEXT), (&key as _, Type::TEXT)];
        let rows = self.0.reads.query(statement, &params).await?;
        Ok(rows.first().map(|row| found(row.get(0), row.get(1), row.get(2))))
    }

    async fn list(&self) -> Result<Listing, EngineError> {
        // Before the snapshot: what was whole then is whole in it.
        // Relaxed (no edge): a number by itself, and an older one says less.
        let whole = self.0.whole.load(Ordering::Relaxed);
        let Read { events, seen, forgotten, history } = read(&self.0, None, whole, false).await?;
        let before = self.0.history.lock().unwrap_or_else(PoisonError::into_inner).replace(history.clone());
        let is_the_same = before.is_none_or(|before| before == history);
        let whole = if is_the_same { whole } else { 0 };
        if !is_the_same {
            // In another history these numbers mean something else.
            // Relaxed (no edge): as above.
            self.0.whole.store(0, Ordering::Relaxed);
        }
        let rows = events.into_iter().filter_map(|event| Some((event.key, event.row?))).collect();
        // Nothing is forgotten while something earlier is still to come.
        Ok(Listing { revision: seen.latest, whole: whole.max(forgotten), history: 0, rows })
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
