//! A connection to either database, and what both say in common.
//!
//! Statements are written once, as both understand them, with parameters as SQLite has them (`?1`). Values go in and come
//! out as SQLite's, of which there are few: numbers and texts.

#[cfg(feature = "cluster")]
use std::cell::RefCell;

use rusqlite::types::{FromSql, ToSql};
use rusqlite::{Connection as Sqlite, OptionalExtension};

use crate::error::Result;
#[cfg(feature = "cluster")]
use crate::store::postgres::{Postgres, Record};

/// A connection to the jobs, of one thread.
#[derive(Debug)]
pub(super) enum Connection {
    /// A file.
    Sqlite(Sqlite),
    /// A server.
    #[cfg(feature = "cluster")]
    Postgres(Box<RefCell<Postgres>>),
}

/// A row of an answer.
pub(super) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    #[cfg(feature = "cluster")]
    Postgres(&'r Record),
}

impl Row<'_> {
    /// Reads a column.
    pub(super) fn get<T: FromSql>(&self, column: usize) -> rusqlite::Result<T> {
        match self {
            Self::Sqlite(row) => row.get(column),
            #[cfg(feature = "cluster")]
            Self::Postgres(record) => record.get(column),
        }
    }
}

impl Connection {
    /// Executes a statement. Returns how many rows it changed.
    pub(super) fn execute(&self, sql: &str, values: &[&dyn ToSql]) -> Result<usize> {
        match self {
            Self::Sqlite(connection) => Ok(connection.prepare_cached(sql)?.execute(values)?),
            #[cfg(feature = "cluster")]
            Self::Postgres(postgres) => postgres.borrow_mut().execute(sql, values),
        }
    }

    /// Reads all rows.
    pub(super) fn list<T>(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                let rows = statement.query_map(values, |row| read(&Row::Sqlite(row)))?;
                Ok(rows.collect::<rusqlite::Result<_>>()?)
            }
            #[cfg(feature = "cluster")]
            Self::Postgres(postgres) => {
                let records = postgres.borrow_mut().query(sql, values)?;
                Ok(records.iter().map(|record| read(&Row::Postgres(record))).collect::<rusqlite::Result<_>>()?)
            }
        }
    }

    /// Reads the first row, if there is one.
    pub(super) fn find<T>(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                Ok(statement.query_row(values, |row| read(&Row::Sqlite(row))).optional()?)
            }
            #[cfg(feature = "cluster")]
            Self::Postgres(postgres) => {
                let first = postgres.borrow_mut().query(sql, values)?.into_iter().next();
                Ok(first.map(|record| read(&Row::Postgres(&record))).transpose()?)
            }
        }
    }

    /// Begins a transaction, which is undone unless it is committed. In a file it writes from its beginning. One within
    /// another is an error, not a merger.
    pub(super) fn transaction(&self) -> Result<Transaction<'_>> {
        self.batch(match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            #[cfg(feature = "cluster")]
            Self::Postgres(_) => "BEGIN",
        })?;
        Ok(Transaction { connection: self, is_open: true })
    }

    /// Begins one that reads, and sees one state.
    pub(super) fn view(&self) -> Result<Transaction<'_>> {
        self.batch(match self {
            Self::Sqlite(_) => "BEGIN DEFERRED",
            #[cfg(feature = "cluster")]
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        })?;
        Ok(Transaction { connection: self, is_open: true })
    }

    fn batch(&self, sql: &str) -> Result<()> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            #[cfg(feature = "cluster")]
            Self::Postgres(postgres) => postgres.borrow_mut().batch(sql),
        }
    }

    /// What follows a choice of one row that several processes choose at a time.
    pub(super) fn for_update(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "",
            #[cfg(feature = "cluster")]
            Self::Postgres(_) => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// Adds up what is kept as changes to be added up.
    pub(super) fn fold(&self) -> Result<()> {
        match self {
            Self::Sqlite(_) => Ok(()),
            #[cfg(feature = "cluster")]
            Self::Postgres(_) => {
                let sql = "WITH gone AS (DELETE FROM tallies RETURNING queue, state, jobs)
                    INSERT INTO tallies SELECT queue, state, SUM(jobs) FROM gone GROUP BY queue, state";
                self.execute(sql, &[]).map(drop)
            }
        }
    }
}

/// A transaction that is undone when it is dropped.
pub(super) struct Transaction<'c> {
    connection: &'c Connection,
    is_open: bool,
}

impl Transaction<'_> {
    /// Makes what it did last.
    pub(super) fn commit(mut self) -> Result<()> {
        // Where this fails, it is undone: by the database, or below.
        self.connection.batch("COMMIT")?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // Fails where the database has undone it already, or is gone with it.
            let _ = self.connection.batch("ROLLBACK");
        }
    }
}
