//! One connection, to either engine. What the engines do differently in the same statement is in here.
//!
//! The statements are written once, in SQLite's way, and three words stand for what differs:
//!
//! - `:now` is the store's clock in milliseconds since the epoch. SQLite is in this process and has the same clock.
//!   PostgreSQL's is the server's, since the clocks of several processes differ and ages are compared with limits.
//! - `:lock` ends a `SELECT` whose row this transaction is about to change. SQLite's transaction has the whole file.
//! - `:skip` does the same, and passes over rows that another transaction has locked.

use std::fmt;

use rusqlite::types::{Null, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Transaction, TransactionBehavior, params_from_iter};

use crate::error::{Error, Result};
use crate::store::now;
#[cfg(feature = "cluster")]
use crate::store::postgres::Server;

/// A value that is given to a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    Unsigned(u64),
    Text(&'a str),
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Null => Null.to_sql(),
            Self::Integer(number) => number.to_sql(),
            Self::Unsigned(number) => number.to_sql(),
            Self::Text(text) => text.to_sql(),
        }
    }
}

/// What can be given to a statement.
pub(crate) trait ToValue {
    fn to_value(&self) -> Value<'_>;
}

impl ToValue for u64 {
    fn to_value(&self) -> Value<'_> {
        Value::Unsigned(*self)
    }
}

impl ToValue for i32 {
    fn to_value(&self) -> Value<'_> {
        Value::Integer(i64::from(*self))
    }
}

impl ToValue for str {
    fn to_value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl ToValue for String {
    fn to_value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Value<'_> {
        (**self).to_value()
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, ToValue::to_value)
    }
}

/// Lists the values of a statement, `?1` first.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::store::connection::ToValue::to_value(&$value)),*] };
}
pub(crate) use values;

/// A value that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
    /// Nothing that the schema has.
    Strange,
}

/// What a column can be read as.
pub(crate) trait FromColumn: Sized {
    /// Returns `None` for a value that makes no sense here.
    fn from_column(column: Column<'_>) -> Option<Self>;
}

impl FromColumn for i64 {
    fn from_column(column: Column<'_>) -> Option<Self> {
        if let Column::Integer(number) = column { Some(number) } else { None }
    }
}

impl FromColumn for u64 {
    fn from_column(column: Column<'_>) -> Option<Self> {
        i64::from_column(column)?.try_into().ok()
    }
}

impl FromColumn for u32 {
    fn from_column(column: Column<'_>) -> Option<Self> {
        i64::from_column(column)?.try_into().ok()
    }
}

impl FromColumn for i32 {
    fn from_column(column: Column<'_>) -> Option<Self> {
        i64::from_column(column)?.try_into().ok()
    }
}

impl FromColumn for bool {
    fn from_column(column: Column<'_>) -> Option<Self> {
        i64::from_column(column).map(|number| number != 0)
    }
}

impl FromColumn for String {
    fn from_column(column: Column<'_>) -> Option<Self> {
        if let Column::Text(text) = column { Some(text.to_owned()) } else { None }
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(column: Column<'_>) -> Option<Self> {
        if let Column::Null = column { Some(None) } else { T::from_column(column).map(Some) }
    }
}

/// A row holds something that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{column} is {found}")]
pub struct BadColumn {
    column: String,
    found: String,
}

impl BadColumn {
    /// The question has no answer.
    pub(crate) fn no_row() -> Self {
        Self { column: "the row".to_owned(), found: "not there".to_owned() }
    }
}

impl fmt::Display for Column<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Strange => f.write_str("of another type"),
        }
    }
}

/// A row that was found.
pub(crate) enum Row<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    #[cfg(feature = "cluster")]
    Postgres(&'a postgres::Row),
}

impl Row<'_> {
    /// Reads a column, the first of which is 0.
    pub(crate) fn get<T: FromColumn>(&self, at: usize) -> Result<T, BadColumn> {
        let column = match self {
            Self::Sqlite(row) => match row.get_ref(at) {
                Ok(ValueRef::Null) => Column::Null,
                Ok(ValueRef::Integer(number)) => Column::Integer(number),
                Ok(ValueRef::Text(text)) => std::str::from_utf8(text).map_or(Column::Strange, Column::Text),
                _ => Column::Strange,
            },
            #[cfg(feature = "cluster")]
            Self::Postgres(row) => row.try_get(at).unwrap_or(Column::Strange),
        };
        T::from_column(column).ok_or_else(|| BadColumn { column: self.name(at), found: column.to_string() })
    }

    fn name(&self, at: usize) -> String {
        match self {
            Self::Sqlite(row) => row.as_ref().column_name(at).unwrap_or_default().to_owned(),
            #[cfg(feature = "cluster")]
            Self::Postgres(row) => row.columns().get(at).map(|column| column.name().to_owned()).unwrap_or_default(),
        }
    }
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads, all of one instant.
    Snapshot,
    /// Writes. SQLite's has the file from its beginning, so that nothing read in it changes before it is used.
    /// PostgreSQL's sees with each statement what others have committed, so that a compare-and-set which has waited
    /// for another's compares with what that has left.
    Write,
}

/// A connection to either engine.
#[derive(Debug)]
pub(crate) enum Connection {
    Sqlite(rusqlite::Connection),
    #[cfg(feature = "cluster")]
    Postgres(Box<Server>),
}

impl Connection {
    /// Runs a statement. Returns how many rows it changed.
    pub(crate) fn execute(&self, sql: &str, values: &[Value<'_>]) -> Result<u64> {
        match self {
            Self::Sqlite(connection) => {
                let (sql, values) = for_sqlite(sql, values);
                let changed = connection.prepare_cached(&sql)?.execute(params_from_iter(&values))?;
                Ok(changed as u64)
            }
            #[cfg(feature = "cluster")]
            Self::Postgres(server) => server.execute(sql, values),
        }
    }

    /// Runs a statement and reads the rows that it returns.
    pub(crate) fn query<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, BadColumn>,
    ) -> Result<Vec<T>> {
        match self {
            Self::Sqlite(connection) => {
                let (sql, values) = for_sqlite(sql, values);
                let mut statement = connection.prepare_cached(&sql)?;
                let mut rows = statement.query(params_from_iter(&values))?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(read(&Row::Sqlite(row))?);
                }
                Ok(found)
            }
            #[cfg(feature = "cluster")]
            Self::Postgres(server) => {
                let rows = server.query(sql, values)?;
                Ok(rows.iter().map(|row| read(&Row::Postgres(row))).collect::<Result<_, _>>()?)
            }
        }
    }

    /// Does several things in one transaction. Nothing of them stays if one fails, or if what comes of them is not
    /// worth keeping.
    ///
    /// A transaction within another is an error, not a merger.
    pub(crate) fn transaction<T>(
        &self,
        access: Access,
        work: impl FnOnce() -> Result<T>,
        is_kept: impl FnOnce(&T) -> bool,
    ) -> Result<T> {
        match self {
            Self::Sqlite(connection) => {
                let behavior = match access {
                    Access::Snapshot => TransactionBehavior::Deferred,
                    Access::Write => TransactionBehavior::Immediate,
                };
                // Not by `&mut self`, which the work could not share. Dropping it takes everything back.
                let transaction = Transaction::new_unchecked(connection, behavior)?;
                let done = work()?;
                if is_kept(&done) {
                    transaction.commit()?;
                }
                Ok(done)
            }
            #[cfg(feature = "cluster")]
            Self::Postgres(server) => {
                let transaction = server.begin(access)?;
                let done = work()?;
                if is_kept(&done) {
                    transaction.commit()?;
                }
                Ok(done)
            }
        }
    }

    /// Returns `true` for a store that several processes share.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self, Self::Sqlite(_))
    }
}

impl From<BadColumn> for Error {
    fn from(bad: BadColumn) -> Self {
        Self::Column(bad)
    }
}

/// Gives SQLite this process's clock as one more value, and no locks.
fn for_sqlite<'a>(sql: &str, values: &[Value<'a>]) -> (String, Vec<Value<'a>>) {
    let mut values = values.to_vec();
    let mut sql = sql.replace(":lock", "").replace(":skip", "");
    if sql.contains(":now") {
        values.push(Value::Unsigned(now()));
        sql = sql.replace(":now", &format!("?{}", values.len()));
    }
    (sql, values)
}
