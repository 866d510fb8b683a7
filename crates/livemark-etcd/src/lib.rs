//! etcd v3 as the [`Engine`](livemark_cluster::Engine) of [`livemark_cluster`], which has
//! [the guide](livemark_cluster::guide).
//!
//! ```no_run
//! use livemark::Finalizer;
//! use livemark_cluster::{Config, Session};
//! use livemark_etcd::{Etcd, Options, User};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut options = Options::default();
//! options.user = Some(User::new("worker", "its password"));
//! let etcd = Etcd::connect(["http://10.0.0.1:2379", "http://10.0.0.2:2379"], "payments", options).await?;
//! let session: Session = Session::open(etcd, Config::default()).await?;
//! let guard = session.mark(7, Finalizer::new(Some(42), "merge")).await?;
//! println!("job 7 is ours, by token {}", guard.token());
//! # Ok(())
//! # }
//! ```
//!
//! - **Keys** lie below `/livemark/v1/{namespace}/`. A user needs to read and write there, and nothing else.
//! - **Members**: calls go to one endpoint until it fails or is silent, and then to the next. A process on a member that has
//!   lost its cluster is told so.
//! - **Unknown outcomes** stay unknown: nothing is sent twice here. [`livemark_cluster`] finds out.
//! - **Versions**: 3.4 and later. Before 3.4.31 and 3.5.13 a leader whose disk hangs deletes marks of live processes
//!   (etcd-io/etcd#15247).
//!
//! Features: `tls`, on by default, and `cli` for the program `livemark-etcd`.

mod engine;
mod link;
mod options;
mod proto;

pub use crate::engine::{Etcd, EtcdWatch, Status};
#[cfg(feature = "tls")]
pub use crate::options::Tls;
pub use crate::options::{ConnectError, Options, User};
