//! etcd v3 as the [`Engine`](livemark_cluster::Engine) of [`livemark_cluster`].

mod engine;
mod link;
mod options;
mod proto;

pub use crate::engine::{Etcd, EtcdWatch, Status};
#[cfg(feature = "tls")]
pub use crate::options::Tls;
pub use crate::options::{ConnectError, Options, User};
