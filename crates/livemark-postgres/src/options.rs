//! How the engine works: [`Options`].

use std::time::Duration;

/// How the engine works. Begin with [`default`](Self::default), and set what is otherwise.
///
/// ```
/// use std::time::Duration;
/// use livemark_postgres::Options;
///
/// let mut options = Options::default();
/// options.poll_every = Duration::from_millis(200);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How often it is read what has changed, which is how late a displaced owner hears of it. A barrier reads at once. 1 s by
    /// default.
    pub poll_every: Duration,
    /// How many connections write marks at most, beside one that renews leases and one that reads. Each is made when something
    /// is under way on all those before it: a mark whose row somebody has locked keeps one for up to a second. 4 by default.
    pub writers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { poll_every: Duration::from_secs(1), writers: 4 }
    }
}
