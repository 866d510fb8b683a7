//! How to reach etcd: [`Options`].

use std::fmt;
use std::time::Duration;

/// How to reach etcd, and as whom. Begin with [`default`](Self::default), and set what is otherwise.
///
/// ```
/// use livemark_etcd::{Options, User};
///
/// let mut options = Options::default();
/// options.user = Some(User::new("worker", "its password"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The user, where etcd has its authentication on.
    pub user: Option<User>,
    /// Whom to trust. Where it is set, all connections are over TLS: an endpoint without a scheme is `https://`, and one that
    /// begins with `http://` is refused.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
    /// For how long a connection may take to be made. 1 s by default.
    pub connect_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            user: None,
            #[cfg(feature = "tls")]
            tls: None,
            connect_timeout: Duration::from_secs(1),
        }
    }
}

/// A user of etcd, with a password. It is authenticated again whenever its token is not taken any more.
#[derive(Clone)]
pub struct User {
    pub(crate) name: String,
    pub(crate) password: String,
}

impl User {
    /// Names a user.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: password.into() }
    }
}

/// Without the password.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whom to trust over TLS, and who we are.
#[cfg(feature = "tls")]
#[derive(Clone)]
pub struct Tls {
    pub(crate) authority: Vec<u8>,
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) domain: Option<String>,
}

#[cfg(feature = "tls")]
impl Tls {
    /// Trusts servers with a certificate of this authority, in PEM, and no others: not those that the machine trusts.
    pub fn trusting(authority: impl Into<Vec<u8>>) -> Self {
        Self { authority: authority.into(), identity: None, domain: None }
    }

    /// Shows this certificate to the server, in PEM, with its key.
    #[must_use]
    pub fn with_identity(self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        Self { identity: Some((certificate.into(), key.into())), ..self }
    }

    /// Expects this name in the server's certificate. The endpoint's host by default.
    #[must_use]
    pub fn with_domain(self, domain: impl Into<String>) -> Self {
        Self { domain: Some(domain.into()), ..self }
    }
}

/// Without the key.
#[cfg(feature = "tls")]
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// No endpoint was given.
    NoEndpoint,
    /// What was given is no endpoint.
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// The namespace is empty, or has a slash in it.
    Namespace(String),
    /// No endpoint answered as etcd does.
    Unreachable {
        /// The endpoints.
        endpoints: Vec<String>,
        /// What the last of them said.
        why: String,
    },
    /// Etcd does not know the user, or does not take the password, or the user may not read the namespace.
    Denied(String),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEndpoint => f.write_str("no endpoint of etcd is given"),
            Self::Endpoint { endpoint, why } => write!(f, "{endpoint:?} is no endpoint of etcd: {why}"),
            Self::Namespace(namespace) => {
                write!(f, "{namespace:?} is no namespace: it must not be empty, and have no slash")
            }
            Self::Unreachable { endpoints, why } => write!(f, "no etcd answers at {}: {why}", endpoints.join(", ")),
            Self::Denied(why) => write!(f, "etcd refuses: {why}"),
        }
    }
}

impl std::error::Error for ConnectError {}
