//! Where the store is: a file, which is opened, recognized, and brought up to date, or tables on a server.

use std::fmt;
use std::path::{Path, PathBuf};
#[cfg(feature = "cluster")]
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{OpenFlags, TransactionBehavior};

use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::connection::Connection;
#[cfg(feature = "cluster")]
use crate::store::postgres::Place;

/// Marks an SQLite file as ours ("lvmk"), so that another program's is never written to.
const APPLICATION_ID: i32 = 0x6c76_6d6b;
/// What leads from each version of the schema to the next; an empty file is of version 0.
const STEPS: [&str; 8] = [
    include_str!("schema-1.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
    include_str!("schema-5.sql"),
    include_str!("schema-6.sql"),
    include_str!("schema-7.sql"),
    include_str!("schema-8.sql"),
];
/// How long to wait for a database that is locked while we open it, and later.
const BUSY_OPENING: Duration = Duration::from_secs(1);
const BUSY_WORKING: Duration = Duration::from_secs(10);
/// More than there are statements in the store, so that each is prepared once per connection.
const STATEMENTS: usize = 64;

/// What holds, or now holds, our schema.
#[derive(Clone, Debug)]
pub struct Database(Engine);

#[derive(Clone, Debug)]
enum Engine {
    Sqlite(File),
    #[cfg(feature = "cluster")]
    Postgres(Arc<Place>),
}

#[derive(Clone, Debug)]
struct File {
    path: PathBuf,
}

/// As people see it, without a password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Engine::Sqlite(file) => write!(f, "{}", file.path.display()),
            #[cfg(feature = "cluster")]
            Engine::Postgres(place) => write!(f, "{place}"),
        }
    }
}

impl Database {
    /// Creates the schema in a new or empty file, recognises a file that has it, and brings an older one of ours up to
    /// date. Anything else is refused.
    pub fn open(path: &Path) -> Result<Self> {
        // Absolute, so that SQLite sees no special name (":memory:") and a child process the same file.
        let path = std::path::absolute(path).map_err(Error::io(format!("{}", path.display())))?;
        if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
            return Err(Error::NoDirectory(parent.to_owned()));
        }
        let file = File { path };
        let ours = file.prepare().map_err(|error| Error::open(&file.path, error))?;
        if ours { Ok(Self(Engine::Sqlite(file))) } else { Err(Error::ForeignDatabase(file.path)) }
    }

    /// Creates our tables in a PostgreSQL database, or recognizes them. Tables of others, and of a later version, are
    /// refused. The configuration is a URL, or words like `host=... user=... dbname=...`. The tables are in a schema of
    /// their own, `orchestrator` if nothing else is said.
    ///
    /// The connections are blocking ones: they are not for a thread that runs asynchronous tasks.
    #[cfg(feature = "cluster")]
    pub fn postgres(config: &str, schema: Option<&str>) -> Result<Self> {
        Ok(Self(Engine::Postgres(Place::open(config, schema)?)))
    }

    /// Connects to the jobs of `queue`; each thread has its own connection.
    pub fn store(&self, queue: &str) -> Result<Store> {
        let connection = match &self.0 {
            Engine::Sqlite(file) => {
                let connection = file.connect(BUSY_WORKING)?;
                connection.set_prepared_statement_cache_capacity(STATEMENTS);
                Connection::Sqlite(connection)
            }
            #[cfg(feature = "cluster")]
            Engine::Postgres(place) => Connection::Postgres(Box::new(Place::server(place))),
        };
        Ok(Store { connection, queue: queue.to_owned() })
    }

    /// Returns the file, where it is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Engine::Sqlite(file) => Some(&file.path),
            #[cfg(feature = "cluster")]
            Engine::Postgres(_) => None,
        }
    }

    /// Numbers a new replay.
    pub fn begin_replay(&self) -> Result<u64> {
        self.store("")?.begin_replay()
    }
}

impl File {
    /// Returns `true` if the file has our schema now.
    fn prepare(&self) -> rusqlite::Result<bool> {
        let mut connection = self.connect(BUSY_OPENING)?;
        // After a kill there may be much to write back, and with fsync: that need not be before the first answer.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let number = |sql| transaction.query_row(sql, [], |row| row.get::<_, i32>(0));
        let id = (number("PRAGMA application_id")?, number("PRAGMA user_version")?);
        let empty = number("SELECT COUNT(*) FROM sqlite_schema")? == 0;
        let version = match id {
            (APPLICATION_ID, version @ 1..) => usize::try_from(version).ok(),
            (0, 0) if empty => Some(0),
            _ => None,
        };
        let Some(steps) = version.and_then(|version| STEPS.get(version..)) else { return Ok(false) };
        if !steps.is_empty() {
            for step in steps {
                transaction.execute_batch(step)?;
            }
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", STEPS.len() as i64)?;
        }
        transaction.commit()?;
        // Readers and the one writer do not wait for each other. A killed process loses nothing it committed.
        connection.pragma_update(None, "journal_mode", "WAL")?;
        Ok(true)
    }

    fn connect(&self, busy: Duration) -> rusqlite::Result<rusqlite::Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(busy)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(connection)
    }
}
