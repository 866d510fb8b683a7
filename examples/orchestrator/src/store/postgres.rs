//! PostgreSQL: how it is connected to, and what becomes of its errors.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use postgres::config::{Host, TargetSessionAttrs};
use postgres::error::{Severity, SqlState};
use postgres::types::{FromSql, ToSql, Type};
use postgres::{Client, Config, NoTls, Row, Statement};

use crate::error::{Error, Result};
use crate::store::connection::{Access, Column, Value};

/// The schema that our tables are in.
const SCHEMA: &str = "orchestrator";
/// What leads from each version of our tables to the next, as for a file. There is one so far.
const STEPS: [&str; 1] = [include_str!("schema-pg.sql")];
/// The advisory lock of whoever creates the tables. The second number is made of the schema's name.
const MIGRATES: i32 = 0x6c76_6d6b;
/// How long a connection may take, where the configuration does not say.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// After how much silence a connection is tried, and how long what was sent may stay unacknowledged: a server whose
/// network is gone is to be an error, not a wait without end.
const SILENCE: Duration = Duration::from_secs(10);

/// Which tables on which server.
#[derive(Debug)]
pub(crate) struct Place {
    config: Config,
    schema: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        f.write_str("postgres://")?;
        for (number, host) in self.config.get_hosts().iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let port = ports.get(number).or(ports.first()).unwrap_or(&5432);
            match host {
                Host::Tcp(host) => write!(f, "{comma}{host}:{port}")?,
                Host::Unix(path) => write!(f, "{comma}{}:{port}", path.display())?,
            }
        }
        let name = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        write!(f, "/{name}, schema {}", self.schema)
    }
}

impl Place {
    /// Reads where it is, and creates the tables if they are not there.
    pub(crate) fn open(config: &str, schema: Option<&str>) -> Result<Arc<Self>> {
        let mut config: Config =
            config.parse().map_err(|error| Error::Usage(format!("where the job store is: {}", because(&error))))?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECTS_WITHIN);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE);
        }
        // The client's own choice is two hours.
        if config.get_keepalives_idle() > SILENCE {
            config.keepalives_idle(SILENCE).keepalives_interval(SILENCE / 5).keepalives_retries(3);
        }
        if config.get_application_name().is_none() {
            config.application_name("orchestrator");
        }
        // Of several hosts, the one that can be written.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        let place = Arc::new(Self { config, schema: schema.unwrap_or(SCHEMA).to_owned() });
        Self::server(&place).migrate()?;
        Ok(place)
    }

    /// A connection, which is made when it is needed.
    pub(crate) fn server(place: &Arc<Self>) -> Server {
        Server { place: Arc::clone(place), line: RefCell::new(None), in_transaction: Cell::new(false) }
    }

    fn name_of_schema(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }

    fn connect(&self) -> Result<Line> {
        let mut client = self.config.connect(NoTls).map_err(|error| self.unreachable(&error))?;
        // A process that is stopped in the middle of a transaction loses it, so that the others need not wait for it.
        let settings = format!(
            "SET search_path TO {}; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '10s';
             SET default_transaction_isolation = 'read committed'",
            self.name_of_schema()
        );
        client.batch_execute(&settings).map_err(|error| self.unreachable(&error))?;
        // For what is told beside the rows. A long life of a connection makes no difference between clocks that go right.
        let clock = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
        let clock = client.query_one(clock, &[]).map_err(|error| self.unreachable(&error))?;
        super::set_clock(clock.get::<_, i64>(0).unsigned_abs());
        Ok(Line { client, statements: HashMap::new() })
    }

    fn unreachable(&self, error: &postgres::Error) -> Error {
        Error::Unreachable { url: self.to_string(), reason: because(error) }
    }

    /// Names the trouble.
    fn error(&self, error: postgres::Error) -> Error {
        let is_lost = error.is_closed() || error.source().is_some_and(|source| source.is::<io::Error>());
        match error.code() {
            None if is_lost => self.unreachable(&error),
            Some(&SqlState::DISK_FULL) => Error::Full(because(&error)),
            Some(code) if code.code().starts_with("57P") || code.code().starts_with("08") => self.unreachable(&error),
            Some(&(SqlState::TOO_MANY_CONNECTIONS | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT)) => {
                self.unreachable(&error)
            }
            _ => Error::Postgres(because(&error)),
        }
    }
}

/// An error with its causes, in one line.
fn because(error: &dyn StdError) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let more = source.to_string();
        if !told.contains(&more) {
            told = format!("{told}: {more}");
        }
        cause = source.source();
    }
    told
}

/// Whether nothing more comes of the connection. One that is given up without need costs a new one.
fn breaks(error: &postgres::Error) -> bool {
    let severity = error.as_db_error().map(|error| error.parsed_severity());
    error.is_closed() || severity.is_none_or(|severity| matches!(severity, Some(Severity::Fatal | Severity::Panic)))
}

/// A connection that stands, and what was prepared on it.
struct Line {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Line {
    fn prepare(&mut self, sql: &str) -> Result<Statement, postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let ours = sql.replace('?', "$").replace(":now", "now_ms()");
        // Not FOR UPDATE, which would wait for, or pass over, a job that somebody writes a note on.
        let ours = ours.replace(":lock", "FOR NO KEY UPDATE").replace(":skip", "FOR NO KEY UPDATE SKIP LOCKED");
        let statement = self.client.prepare(&ours)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// A connection to the server, or to be. Who calls after it broke makes a new one. The call that found it broken has
/// failed, and whether the server did what it asked is not known.
pub(crate) struct Server {
    place: Arc<Place>,
    line: RefCell<Option<Line>>,
    in_transaction: Cell<bool>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&format_args!("{}", self.place)).finish()
    }
}

impl Server {
    pub(crate) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        let values = counted(values)?;
        self.with(|line| {
            let statement = line.prepare(sql)?;
            let values = bound(&statement, &values);
            line.client.execute(&statement, &by_reference(&values))
        })
    }

    pub(crate) fn query(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<Row>> {
        let values = counted(values)?;
        self.with(|line| {
            let statement = line.prepare(sql)?;
            let values = bound(&statement, &values);
            line.client.query(&statement, &by_reference(&values))
        })
    }

    /// Begins a transaction, which is undone unless it is committed.
    pub(crate) fn begin(&self, access: Access) -> Result<Open<'_>> {
        if self.in_transaction.get() {
            return Err(Error::Postgres("a transaction within another".to_owned()));
        }
        self.batch(match access {
            Access::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Access::Write => "BEGIN ISOLATION LEVEL READ COMMITTED",
        })?;
        self.in_transaction.set(true);
        Ok(Open { server: self, is_over: false })
    }

    fn batch(&self, sql: &str) -> Result<()> {
        self.with(|line| line.client.batch_execute(sql))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Line) -> Result<T, postgres::Error>) -> Result<T> {
        let mut line = self.line.borrow_mut();
        let stands = line.take().filter(|line| !line.client.is_closed());
        let mut stands = match stands {
            Some(stands) => stands,
            // What the transaction did so far is undone, and its rest must not be done by itself.
            None if self.in_transaction.get() => {
                let reason = "the connection broke within a transaction".to_owned();
                return Err(Error::Unreachable { url: self.place.to_string(), reason });
            }
            None => self.place.connect()?,
        };
        let done = work(&mut stands);
        if !done.as_ref().is_err_and(breaks) {
            *line = Some(stands);
        }
        done.map_err(|error| self.place.error(error))
    }

    // The tables.

    /// Creates the tables where there are none, one process at a time. Where they are there it only reads, so that
    /// nobody waits for it.
    fn migrate(&self) -> Result<()> {
        if self.version()? == Some(STEPS.len()) {
            return Ok(());
        }
        let transaction = self.begin(Access::Write)?;
        self.batch(&format!("SELECT pg_advisory_xact_lock({MIGRATES}, hashtext({}))", quoted(&self.place.schema)))?;
        // Somebody else may have been at it meanwhile.
        let version = self.version()?.unwrap_or(0);
        let Some(steps) = STEPS.get(version..).filter(|steps| !steps.is_empty()) else { return Ok(()) };
        if version == 0 {
            // Asked for only where it is not there: IF NOT EXISTS wants the right to create one in any case.
            if !self.has("SELECT 1 FROM pg_namespace WHERE nspname = ?1")? {
                self.batch(&format!("CREATE SCHEMA {}", self.place.name_of_schema()))?;
            }
        }
        for step in steps {
            self.batch(step)?;
        }
        self.batch(&format!("UPDATE orchestrator_version SET version = {}", STEPS.len()))?;
        transaction.commit()
    }

    /// Returns which version of our tables is there, if any is. Other tables are refused, as are those of a later
    /// version.
    fn version(&self) -> Result<Option<usize>> {
        let of_schema = "FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = ?1)";
        if !self.has(&format!("SELECT 1 {of_schema} AND relname = 'orchestrator_version'"))? {
            return match self.has(&format!("SELECT 1 {of_schema} LIMIT 1"))? {
                false => Ok(None),
                true => Err(Error::ForeignTables(self.place.to_string())),
            };
        }
        let rows = self.query("SELECT version FROM orchestrator_version", &[])?;
        let found: i64 = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(0);
        match usize::try_from(found) {
            Ok(version) if (1..=STEPS.len()).contains(&version) => Ok(Some(version)),
            Ok(version) if version > STEPS.len() => {
                Err(Error::TooNew { place: self.place.to_string(), found, known: STEPS.len() as u64 })
            }
            _ => Err(Error::ForeignTables(self.place.to_string())),
        }
    }

    fn has(&self, sql: &str) -> Result<bool> {
        Ok(!self.query(sql, &[Value::Text(&self.place.schema)])?.is_empty())
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A transaction that is under way.
pub(crate) struct Open<'a> {
    server: &'a Server,
    is_over: bool,
}

impl Open<'_> {
    pub(crate) fn commit(mut self) -> Result<()> {
        self.is_over = true;
        // One whose commit was not answered has no connection any more that it could be open on.
        let done = self.server.batch("COMMIT");
        if done.is_err() {
            self.server.line.replace(None);
        }
        done
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.server.batch("ROLLBACK").is_err() {
            self.server.line.replace(None);
        }
        self.server.in_transaction.set(false);
    }
}

/// The values of a statement, with the numbers as the schema has them. Larger ones are refused, as with a file.
fn counted<'a>(values: &[Value<'a>]) -> Result<Vec<Value<'a>>> {
    let counted = |value: &Value<'a>| match *value {
        Value::Unsigned(number) => match i64::try_from(number) {
            Ok(number) => Ok(Value::Integer(number)),
            Err(_) => Err(Error::Postgres(format!("{number} is too large a number"))),
        },
        value => Ok(value),
    };
    values.iter().map(counted).collect()
}

/// The values of a statement, each of the type that the statement has for it: all numbers of the schema are BIGINT.
fn bound<'a>(statement: &Statement, values: &'a [Value<'a>]) -> Vec<Box<dyn ToSql + Sync + 'a>> {
    let bind = |(value, kind): (&'a Value<'a>, &Type)| -> Box<dyn ToSql + Sync + 'a> {
        match value {
            Value::Null if *kind == Type::INT8 => Box::new(None::<i64>),
            Value::Null => Box::new(None::<&str>),
            Value::Integer(number) => Box::new(*number),
            Value::Unsigned(number) => Box::new(i64::try_from(*number).unwrap_or(i64::MAX)),
            Value::Text(text) => Box::new(*text),
        }
    };
    values.iter().zip(statement.params()).map(bind).collect()
}

fn by_reference<'a>(values: &'a [Box<dyn ToSql + Sync + 'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
}

impl<'a> FromSql<'a> for Column<'a> {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(match *kind {
            Type::BOOL => Column::Integer(i64::from(bool::from_sql(kind, raw)?)),
            Type::INT4 => Column::Integer(i64::from(i32::from_sql(kind, raw)?)),
            Type::INT8 => Column::Integer(i64::from_sql(kind, raw)?),
            Type::TEXT | Type::VARCHAR => Column::Text(<&str>::from_sql(kind, raw)?),
            _ => Column::Strange,
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Column::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
