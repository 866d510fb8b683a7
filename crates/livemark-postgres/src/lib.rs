//! PostgreSQL, 13 and later, as the [`Engine`](livemark_cluster::Engine) of [`livemark_cluster`], which has
//! [the guide](livemark_cluster::guide).
//!
//! For those who have their jobs in PostgreSQL: nothing new is operated, marks fail over together with the jobs, and a mark or
//! a commit can be part of the transaction that changes the job ([`Postgres::try_mark_in`], [`Postgres::holds_in`]).
//!
//! ```no_run
//! use livemark::Finalizer;
//! use livemark_cluster::{Config, Session};
//! use livemark_postgres::{Options, Postgres};
//! use tokio_postgres::NoTls;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let server: tokio_postgres::Config = "host=10.0.0.1 user=worker dbname=jobs".parse()?;
//! Postgres::migrate(&server, NoTls).await?; // once, or with your own migrations: `livemark_postgres::SCHEMA`
//! let postgres = Postgres::connect(server, NoTls, "payments", Options::default()).await?;
//! let session: Session = Session::open(postgres, Config::default()).await?;
//! let guard = session.mark(7, Finalizer::new(Some(42), "merge")).await?;
//! println!("job 7 is ours, by token {}", guard.token());
//! # Ok(())
//! # }
//! ```
//!
//! A whole program of two processes, with the table, the statements and the reaper's job store, is the example `worker`.
//!
//! # Rights
//!
//! [`Postgres::migrate`] needs `CREATE` on the database where the schema is not there or is an older one. A worker needs no more
//! than this:
//!
//! ```sql
//! GRANT USAGE ON SCHEMA livemark TO worker;
//! GRANT SELECT, INSERT, UPDATE, DELETE ON livemark.rows, livemark.server TO worker;
//! GRANT SELECT, USAGE ON SEQUENCE livemark.revisions TO worker;
//! ```
//!
//! # For operators
//!
//! ```sql
//! -- All marks, and which is job 7's.
//! SELECT key, revision, lease, convert_from(value, 'UTF8') FROM livemark.rows
//! WHERE namespace = 'payments' AND value IS NOT NULL AND key LIKE 'm/%';
//! -- Removes the mark of job 7 that was last written at revision 91. Its owner hears of it.
//! SELECT livemark.remove('payments', 'm/7', 91);
//! -- After `OpenError::Behind` or `EngineError::Restored`: tokens begin with a greater epoch, and all sessions end.
//! SELECT livemark.bump_epoch('payments');
//! -- Which transactions hold the horizon: see below. Roles without `pg_read_all_stats` see their own only.
//! SELECT pid, datname, state, xact_start FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start;
//! SELECT gid, database, owner, prepared FROM pg_prepared_xacts ORDER BY prepared;
//! ```
//!
//! **A transaction that has written and stays open holds the horizon**, also one in another database of the server, and one that
//! was prepared and forgotten. A mark may be part of it, as far as anybody can tell. Marks and barriers go on meanwhile. But rows
//! of what was removed are kept, and a mirror that missed something has to read all that was marked since. Where it lasts for
//! hours, end it: `pg_terminate_backend(pid)`, or `ROLLBACK PREPARED`.
//!
//! **A sequence that is behind the rows** is what a logical replica or some backups leave: the rows are there, and
//! `livemark.revisions` begins anew. Listings say [`Restored`](livemark_cluster::EngineError::Restored) then, and no session
//! opens. `bump_epoch` also puts the sequence beyond all rows.
//!
//! **`bump_epoch` waits** for open transactions that have marked, for a second, and fails then with the SQLSTATE 55P03. Run it again.
//!
//! # How it is done
//!
//! - **One table**, `livemark.rows`, with functions around it. A mark is one row, and a call is one statement, without a prepared
//!   one: a pooler in transaction mode may stand in between.
//! - **Leases** are rows with an end, by the server's clock. They are no advisory locks of a session, which strand under
//!   transaction pooling (goauthentik/authentik#23876). Whoever reads ends those whose time is over. After a crash, a recovery or
//!   a start each has its time again, from when the server was first read.
//! - **Advisory locks** are taken for the length of a transaction only: one on the namespace that a write shares with all
//!   others and `bump_epoch` has alone, and one by `migrate`, `(5511, 1)`.
//! - **An isolation level** of the caller's may be any. Under `REPEATABLE READ` and `SERIALIZABLE` a mark may fail with a
//!   serialization failure (40001), also since the epoch was bumped, and the transaction is to be tried again.
//! - **Tokens** are drawn from a sequence while the job's row is locked, so that those of a job grow.
//! - **The mirror** reads what has changed once per [`Options::poll_every`], and at once for a barrier. There is no `NOTIFY`.
//!
//! # How it differs from etcd
//!
//! | | here | etcd |
//! |---|---|---|
//! | another process's mark is seen | after `poll_every`, or by a barrier | after some milliseconds |
//! | writes come in the order of their revisions | those of one job. The others nearly, which [`News::whole`](livemark_cluster::News::whole) tells | all |
//! | a lease ends | when somebody reads after its time | by itself |
//! | a transaction that is open for an hour | is waited for by what is forgotten: see above | |
//! | a lock on a mark's row | is waited for, for a second | there are none |
//! | the clock | the server's wall clock must not jump forward by more than the margin | the leader's monotonic clock |
//! | a machine dies | marks are as safe as the jobs: with asynchronous replication the latest ones are lost, with the latest jobs | nothing is lost |
//!
//! **A failover to a replica that lags** loses marks that were told to be made. The jobs that were taken or committed by them in
//! the same database are lost with them, so that no job is committed twice there. What was done outside of it is another matter.
//! After any promotion, also a planned one, the next poll finds another history (the server's timeline), and sessions are lost
//! as [`Loss::Behind`](livemark_cluster::Loss::Behind): nobody can say which of their marks are there. Open others. Their marks
//! go after the TTL.
//!
//! Give the connection all servers, and `target_session_attrs=read-write`: a replica is of no use, and says
//! [`ReadOnly`](livemark_cluster::EngineError::ReadOnly) to each call.

mod engine;
mod error;
mod horizon;
mod line;
mod options;
mod transaction;
mod watch;

pub use crate::engine::{Postgres, SCHEMA};
pub use crate::error::ConnectError;
pub use crate::options::Options;
pub use crate::transaction::{HoldError, MarkedIn};
pub use crate::watch::PostgresWatch;
