//! A connection to PostgreSQL that is made anew when it has broken.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres::types::{IsNull, ToSql as ToPostgres, Type, to_sql_checked};
use postgres::{Client, Config, NoTls, Statement};
use rusqlite::types::{FromSql, FromSqlError, ToSql, ToSqlOutput, Value, ValueRef};

use crate::error::{Error, Result};

/// What the tables are made by.
const SCHEMA: &str = include_str!("schema-postgres.sql");
/// The version that it makes.
const VERSION: i32 = 1;
/// How often the server is asked for its time.
const SET_CLOCK_EVERY: Duration = Duration::from_secs(60);
/// For how long a connection is tried to be made.
const CONNECT: Duration = Duration::from_secs(5);

pub(super) struct Postgres {
    config: Config,
    client: Option<Client>,
    statements: HashMap<String, Statement>,
    /// When the server was asked for its time last.
    clock: Option<Instant>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

/// Reads an address as libpq has it.
pub(super) fn config(address: &str) -> Result<Config> {
    let mut config: Config = address.parse().map_err(|error| told("the address of the job store", &error))?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT);
    }
    config.application_name("orchestrator");
    Ok(config)
}

/// Creates the tables where they are not there.
pub(super) fn prepare(config: &Config) -> Result<()> {
    let mut client = config.connect(NoTls).map_err(|error| told("job store", &error))?;
    let version = |client: &mut Client| -> Result<Option<i32>> {
        let is_there = client.query_one("SELECT to_regclass('orchestrator.version') IS NOT NULL", &[]);
        let is_there: bool = is_there.map_err(|error| told("job store", &error))?.get(0);
        if !is_there {
            return Ok(None);
        }
        let found = client.query_one("SELECT version FROM orchestrator.version", &[]);
        Ok(Some(found.map_err(|error| told("job store", &error))?.get(0)))
    };
    // What is there already is only looked at: nobody waits for a program that starts.
    if version(&mut client)?.is_none() {
        // One at a time. The others find that it has been done.
        let locked = format!(
            "BEGIN; SELECT pg_advisory_xact_lock(5511, 2);
             DO $make$ BEGIN IF to_regclass('orchestrator.version') IS NULL THEN EXECUTE $schema${SCHEMA}$schema$;
             END IF; END $make$; COMMIT;"
        );
        client.batch_execute(&locked).map_err(|error| told("job store", &error))?;
    }
    match version(&mut client)? {
        Some(VERSION) => Ok(()),
        found => Err(Error::OtherVersion { found, known: VERSION }),
    }
}

impl Postgres {
    pub(super) fn connect(config: &Config) -> Result<Self> {
        let config = config.clone();
        let mut postgres = Self { config, client: None, statements: HashMap::new(), clock: None };
        postgres.client()?;
        Ok(postgres)
    }

    /// Returns the connection, made anew where it has broken.
    fn client(&mut self) -> Result<&mut Client> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.statements.clear();
            let mut client = self.config.connect(NoTls).map_err(|error| told("job store", &error))?;
            client.batch_execute("SET search_path TO orchestrator").map_err(|error| told("job store", &error))?;
            self.client = Some(client);
            self.clock = None;
        }
        let Self { client, clock, .. } = self;
        let Some(client) = client else { return Err(Error::Unwritable("no connection".to_owned())) };
        // Processes have clocks of their own. The ages of jobs are by the server's, which all have in common.
        if clock.is_none_or(|asked| asked.elapsed() > SET_CLOCK_EVERY) {
            let sql = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
            if let Ok(row) = client.query_one(sql, &[]) {
                super::set_clock(row.get::<_, i64>(0).unsigned_abs());
                *clock = Some(Instant::now());
            }
        }
        Ok(client)
    }

    pub(super) fn batch(&mut self, sql: &str) -> Result<()> {
        self.client()?.batch_execute(sql).map_err(|error| told("job store", &error))
    }

    pub(super) fn execute(&mut self, sql: &str, values: &[&dyn ToSql]) -> Result<usize> {
        let values = params(values)?;
        let statement = self.statement(sql)?;
        let done = self.client()?.execute(&statement, &as_params(&values));
        let changed = done.map_err(|error| told("job store", &error))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(super) fn query(&mut self, sql: &str, values: &[&dyn ToSql]) -> Result<Vec<Record>> {
        let values = params(values)?;
        let statement = self.statement(sql)?;
        let rows = self.client()?.query(&statement, &as_params(&values));
        Ok(rows.map_err(|error| told("job store", &error))?.iter().map(Record::of).collect())
    }

    fn statement(&mut self, sql: &str) -> Result<Statement> {
        // Before it is looked up: another connection knows none.
        self.client()?;
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client()?.prepare(&numbered(sql)).map_err(|error| told("job store", &error))?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// A statement with parameters as PostgreSQL has them: `?2` is `$2`, and a bare `?` is the next one.
fn numbered(sql: &str) -> String {
    let (mut numbered, mut next) = (String::with_capacity(sql.len()), 0);
    let mut characters = sql.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '?' {
            numbered.push(character);
            continue;
        }
        numbered.push('$');
        if !characters.peek().is_some_and(char::is_ascii_digit) {
            next += 1;
            numbered.push_str(&next.to_string());
        }
    }
    numbered
}

/// A value on its way to the server.
#[derive(Debug)]
struct Param(Value);

fn params(values: &[&dyn ToSql]) -> Result<Vec<Param>> {
    let param = |value: &&dyn ToSql| {
        Ok(Param(match value.to_sql()? {
            ToSqlOutput::Owned(value) => value,
            ToSqlOutput::Borrowed(value) => value.try_into().map_err(rusqlite::Error::from)?,
            _ => Value::Null,
        }))
    };
    values.iter().map(param).collect()
}

fn as_params(values: &[Param]) -> Vec<&(dyn ToPostgres + Sync)> {
    values.iter().map(|value| value as _).collect()
}

impl ToPostgres for Param {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match (&self.0, ty) {
            (Value::Null, _) => Ok(IsNull::Yes),
            (Value::Integer(number), &Type::INT4) => ToPostgres::to_sql(&i32::try_from(*number)?, ty, out),
            (Value::Integer(number), _) => ToPostgres::to_sql(number, ty, out),
            (Value::Text(text), _) => ToPostgres::to_sql(text, ty, out),
            (other, _) => Err(format!("the store has no such values: {other:?}").into()),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT4, Type::INT8, Type::TEXT].contains(ty)
    }

    to_sql_checked!();
}

/// A row that was read.
pub(super) struct Record(Vec<Value>);

impl Record {
    fn of(row: &postgres::Row) -> Self {
        let value = |(at, column): (usize, &postgres::Column)| {
            let number = match *column.type_() {
                Type::INT8 => row.get::<_, Option<i64>>(at),
                Type::INT4 => row.get::<_, Option<i32>>(at).map(i64::from),
                Type::BOOL => row.get::<_, Option<bool>>(at).map(i64::from),
                _ => return row.try_get::<_, Option<String>>(at).ok().flatten().map_or(Value::Null, Value::Text),
            };
            number.map_or(Value::Null, Value::Integer)
        };
        Self(row.columns().iter().enumerate().map(value).collect())
    }

    pub(super) fn get<T: FromSql>(&self, column: usize) -> rusqlite::Result<T> {
        let value = self.0.get(column).ok_or(rusqlite::Error::InvalidColumnIndex(column))?;
        let value = ValueRef::from(value);
        T::column_result(value).map_err(|error| match error {
            FromSqlError::OutOfRange(number) => rusqlite::Error::IntegralValueOutOfRange(column, number),
            error => rusqlite::Error::FromSqlConversionFailure(column, value.data_type(), error.into()),
        })
    }
}

/// What the server said, or why it did not.
fn told(what: &'static str, error: &postgres::Error) -> Error {
    let reason = match (error.as_db_error(), error.source()) {
        (Some(server), _) => server.message().to_owned(),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    };
    Error::Shared { what, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered() {
        assert_eq!(numbered("a = ?1 AND b = ?12"), "a = $1 AND b = $12");
        assert_eq!(numbered("a = ? AND b IN (?, ?)"), "a = $1 AND b IN ($2, $3)");
    }
}
