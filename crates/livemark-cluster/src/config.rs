//! The settings of a session: [`Config`].

use std::fmt;
use std::time::Duration;

/// The settings of a [`Session`](crate::Session). All processes of one namespace have the same. Begin with
/// [`default`](Self::default) or [`with_ttl`](Self::with_ttl), and set what is otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// For how long the engine keeps a process's marks without hearing of it. 15 s by default.
    pub ttl: Duration,
    /// By how much earlier a process stops to believe in its marks. A fifth of the TTL by default, which allows for
    /// clocks whose rates differ by as much.
    pub margin: Duration,
    /// How often the lease is renewed. A sixth of the TTL by default.
    pub renew_every: Duration,
    /// For how long one call may take, but for a listing of all keys, which may take [`max_view_age`](Self::max_view_age).
    /// The lesser of a fifth of the TTL and 2 s by default.
    pub call_timeout: Duration,
    /// A mirror that may be older than this is stale, and marks are not believed in. A third of the TTL by default.
    pub max_view_age: Duration,
    /// How often the mirror is compared with the engine, whose watch may have lost something. 5 minutes by default.
    pub compare_every: Duration,
    /// For how long a job is not claimed whose process was lost. The TTL by default.
    ///
    /// It covers an engine that ends the lease of a process that is alive (etcd-io/etcd#15247), which opens another session
    /// and has its jobs again meanwhile. A session that has just been opened, or whose mirror missed states,
    /// waits for as long before it claims: it cannot know what was lost before.
    pub settle: Duration,
    /// The greatest token that the job store knows: `SELECT coalesce(max(fence), 0) FROM jobs`. An engine that would give lower ones
    /// was restored or replaced, and the open fails.
    pub token_floor: u64,
    /// The name of the job store that the namespace is for, if it is to be checked. The first session writes it there, and
    /// one with another name is refused: two stores may have jobs of equal ids.
    pub store: Option<String>,
    /// What this process is called where its marks are shown.
    pub process: String,
}

impl Config {
    /// Returns the defaults for this TTL.
    ///
    /// ```
    /// use std::time::Duration;
    /// use livemark_cluster::Config;
    ///
    /// let config = Config::with_ttl(Duration::from_secs(5));
    /// assert_eq!((config.margin, config.call_timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    /// ```
    #[must_use]
    pub fn with_ttl(ttl: Duration) -> Self {
        Self {
            ttl,
            margin: ttl / 5,
            renew_every: ttl / 6,
            call_timeout: (ttl / 5).min(Duration::from_secs(2)),
            max_view_age: ttl / 3,
            compare_every: Duration::from_secs(300),
            settle: ttl,
            token_floor: 0,
            store: None,
            process: format!("process {}", std::process::id()),
        }
    }

    /// Checks that the settings can work together.
    ///
    /// # Errors
    ///
    /// Returns which of them cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        let usable = self.ttl.saturating_sub(self.margin);
        let wrong = if self.ttl < Duration::from_millis(100) {
            Some("ttl must be 100 ms or more")
        } else if self.margin.is_zero() || self.margin >= self.ttl / 2 {
            Some("margin must be more than nothing, and less than half of ttl")
        } else if self.renew_every.is_zero() || self.renew_every > usable / 3 {
            Some("renew_every must be more than nothing, and at most a third of ttl less margin")
        } else if self.call_timeout.is_zero() || self.call_timeout > usable / 2 {
            Some("call_timeout must be more than nothing, and at most half of ttl less margin")
        } else if self.compare_every < self.ttl {
            Some("compare_every must be ttl or more")
        } else if self.max_view_age.is_zero() || self.max_view_age > self.ttl {
            Some("max_view_age must be more than nothing, and at most ttl")
        } else {
            None
        };
        wrong.map_or(Ok(()), |reason| Err(ConfigError(reason)))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::with_ttl(Duration::from_secs(15))
    }
}

/// Settings that cannot work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError(&'static str);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for ConfigError {}
