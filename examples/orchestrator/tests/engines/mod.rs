//! A store in a file and a store on a server, for tests that hold for both.

#![allow(dead_code, reason = "each test file uses some of it")]

use orchestrator::store::{Database, Store};
use tempfile::TempDir;

pub const QUEUE: &str = "test";

/// Makes an empty store.
pub type Make<'a> = &'a dyn Fn() -> Fixture;

pub struct Fixture {
    pub database: Database,
    pub store: Store,
    place: Place,
}

enum Place {
    File(TempDir),
    #[cfg(feature = "cluster")]
    Server {
        config: String,
        schema: String,
    },
}

impl Fixture {
    pub fn in_a_file() -> Self {
        let directory = TempDir::new().unwrap();
        let database = Database::open(&directory.path().join("jobs.db")).unwrap();
        let store = database.store(QUEUE).unwrap();
        Self { database, store, place: Place::File(directory) }
    }

    /// A job with a run that has finished.
    pub fn finished(&mut self) -> (u64, u64) {
        let job = self.store.enqueue().unwrap();
        let run = self.store.start(job).unwrap().unwrap();
        assert!(self.store.finish(run, Some(0)).unwrap());
        (job, run)
    }

    /// Runs a statement past the store. Returns how many rows it changed, or the reason why it could not.
    pub fn raw(&self, sql: &str) -> Result<u64, String> {
        match &self.place {
            Place::File(_) => {
                let connection = rusqlite::Connection::open(self.database.path().unwrap()).unwrap();
                connection.execute(sql, []).map(|changed| changed as u64).map_err(|error| error.to_string())
            }
            #[cfg(feature = "cluster")]
            Place::Server { config, schema } => {
                let mut client = postgres::Client::connect(config, postgres::NoTls).unwrap();
                client.batch_execute(&format!("SET search_path TO {schema}")).unwrap();
                client.execute(sql, &[]).map_err(|error| format!("{:?}", error.as_db_error()))
            }
        }
    }

    /// Opens the same store again.
    pub fn again(&self) -> orchestrator::error::Result<Database> {
        match &self.place {
            Place::File(_) => Database::open(self.database.path().unwrap()),
            #[cfg(feature = "cluster")]
            Place::Server { config, schema } => Database::postgres(config, Some(schema)),
        }
    }
}

#[cfg(feature = "cluster")]
pub use server::Server;

#[cfg(feature = "cluster")]
mod server {
    use std::sync::atomic::{AtomicU32, Ordering};

    use orchestrator::store::Database;

    use super::{Fixture, Place, QUEUE, support};

    /// A server of this test's own.
    pub struct Server {
        server: support::Server,
        runtime: tokio::runtime::Runtime,
        schemas: AtomicU32,
    }

    impl Server {
        /// Starts it. `None` where there is no PostgreSQL.
        pub fn start() -> Option<Self> {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let server = runtime.block_on(support::Server::start(&["fsync=off"]))?;
            Some(Self { server, runtime, schemas: AtomicU32::new(0) })
        }

        /// Where it is. A URL as well, to see that either is understood.
        pub fn config(&self) -> String {
            format!("postgres://postgres@127.0.0.1:{}/postgres", self.server.port)
        }

        /// An empty store in a schema of its own.
        pub fn fixture(&self) -> Fixture {
            let schema = format!("store_{}", self.schemas.fetch_add(1, Ordering::Relaxed));
            let config = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.server.port);
            let database = Database::postgres(&config, Some(&schema)).unwrap();
            let store = database.store(QUEUE).unwrap();
            Fixture { database, store, place: Place::Server { config, schema } }
        }

        /// Ends it as a crash does.
        pub fn kill(&mut self) {
            self.server.kill();
        }

        pub fn restart(&mut self) {
            self.server.launch();
            self.runtime.block_on(self.server.await_ready());
        }
    }
}

#[cfg(feature = "cluster")]
#[path = "../../../../crates/livemark-postgres/tests/support/mod.rs"]
mod support;
