//! Connections, made when they are needed and made anew when they break: [`Line`].

use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use livemark_cluster::EngineError;
use tokio::sync;
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Error, Row, Socket};

use crate::error::{Failure, is_read_only};

/// For how long a connection may be silent before whoever stops waiting for it has another one made.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);
/// The same where a call may wait for a lock, which the schema limits to a second. To wait for one is no silence.
pub(crate) const PATIENCE_WITH_LOCKS: Duration = Duration::from_millis(1250);

type Connecting = Pin<Box<dyn Future<Output = Result<Client, Error>> + Send>>;

/// How a connection is made, without the type of its TLS.
#[derive(Clone)]
pub(crate) struct Connect {
    make: Arc<dyn Fn() -> Connecting + Send + Sync>,
    /// For how long one attempt may take.
    limit: Duration,
}

impl Connect {
    pub(crate) fn by<T>(config: Config, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        // Each host may take its time, and then one has to let us in.
        let hosts = u32::try_from(config.get_hosts().len().max(config.get_hostaddrs().len())).unwrap_or(u32::MAX);
        let each = config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(2));
        let limit = each.saturating_mul(hosts.max(1).saturating_add(1));
        let make = Arc::new(move || -> Connecting {
            let (config, tls) = (config.clone(), tls.clone());
            Box::pin(async move {
                let (client, connection) = config.connect(tls).await?;
                // It ends with its client, and the client is told where it breaks.
                tokio::spawn(async move { drop(connection.await) });
                Ok(client)
            })
        });
        Self { make, limit }
    }

    /// Makes one connection.
    pub(crate) async fn once(&self) -> Result<Client, Failure> {
        match timeout(self.limit, (self.make)()).await {
            Ok(made) => made.map_err(Failure::Server),
            Err(_) => Err(Failure::Silent(self.limit)),
        }
    }
}

/// A connection. Several calls may be under way on it, which the server does in turn.
pub(crate) struct Line {
    connect: Connect,
    patience: Duration,
    attempts: sync::Mutex<Attempts>,
    connection: Mutex<Option<Arc<Connection>>>,
    calls: AtomicUsize,
}

/// The attempts to connect that are under way. They go on though whoever began them has stopped to wait.
#[derive(Default)]
struct Attempts {
    under_way: JoinSet<Result<Result<Client, Error>, Elapsed>>,
    last_begun: Option<Instant>,
}

struct Connection {
    client: Client,
    quiet: Mutex<Quiet>,
}

impl Connection {
    fn quiet(&self) -> MutexGuard<'_, Quiet> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long a connection has said nothing to whoever waited for it.
#[derive(Debug, Default)]
struct Quiet {
    heard: Option<Instant>,
    /// Since when nothing was heard, where somebody has stopped to wait.
    since: Option<Instant>,
    /// It is of no use, whatever it says.
    is_useless: bool,
}

impl Quiet {
    fn hear(&mut self, now: Instant) {
        (self.heard, self.since) = (Some(now), None);
    }

    /// Takes up that nobody waits any more for the answer to what was asked then.
    fn give_up(&mut self, asked: Instant) {
        let since = self.heard.map_or(asked, |heard| heard.max(asked));
        self.since = Some(self.since.map_or(since, |before| before.min(since)));
    }

    /// Whether another connection is to be made.
    fn is_over(&self, now: Instant, patience: Duration) -> bool {
        self.is_useless || self.since.is_some_and(|since| now.saturating_duration_since(since) >= patience)
    }
}

/// A call under way.
struct Call<'l> {
    line: &'l Line,
    asked: Option<(Arc<Connection>, Instant)>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // Relaxed (no edge): which connection is used is a matter of luck.
        self.line.calls.fetch_sub(1, Ordering::Relaxed);
        if let Some((connection, asked)) = self.asked.take() {
            connection.quiet().give_up(asked);
        }
    }
}

impl Line {
    pub(crate) fn new(connect: &Connect, patience: Duration) -> Self {
        Self {
            connect: connect.clone(),
            patience,
            attempts: sync::Mutex::default(),
            connection: Mutex::default(),
            calls: AtomicUsize::new(0),
        }
    }

    /// How many calls are under way, with those that nobody waits for any more as one.
    pub(crate) fn load(&self) -> usize {
        let is_quiet = self.connection().as_ref().is_some_and(|connection| connection.quiet().since.is_some());
        // Relaxed (no edge): as above.
        self.calls.load(Ordering::Relaxed) + usize::from(is_quiet)
    }

    fn connection(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connected(&self) -> Result<Arc<Connection>, Failure> {
        let mut attempts = self.attempts.lock().await;
        let is_good = |connection: &Arc<Connection>| {
            !connection.client.is_closed() && !connection.quiet().is_over(Instant::now(), self.patience)
        };
        if let Some(connection) = self.connection().as_ref().filter(|connection| is_good(connection)) {
            return Ok(Arc::clone(connection));
        }
        // Those under way stay where they are.
        *self.connection() = None;
        let client = self.make(&mut attempts).await?;
        let new = Arc::new(Connection { client, quiet: Mutex::default() });
        *self.connection() = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Waits for the attempts that are under way. Where they say nothing there is another one now and then: what was sent into
    /// a network that comes back may be lost.
    async fn make(&self, attempts: &mut Attempts) -> Result<Client, Failure> {
        let Connect { make, limit } = &self.connect;
        loop {
            let next_at = attempts.last_begun.map_or_else(Instant::now, |begun| begun + *limit / 4);
            let made = tokio::select! {
                biased;
                Some(made) = attempts.under_way.join_next() => made,
                () = sleep_until(next_at) => {
                    attempts.under_way.spawn(timeout(*limit, make()));
                    attempts.last_begun = Some(Instant::now());
                    continue;
                }
            };
            let made = match made {
                Ok(Ok(made)) => made.map_err(Failure::Server),
                Ok(Err(_)) if !attempts.under_way.is_empty() => continue,
                Ok(Err(_)) => Err(Failure::Silent(*limit)),
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    // The runtime ends.
                    Err(_) => continue,
                },
            };
            *attempts = Attempts::default();
            return made;
        }
    }

    /// Runs one statement, which is not prepared: a pooler may give each to another server's process.
    pub(crate) async fn try_query(
        &self,
        statement: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Failure> {
        // Relaxed (no edge): as above.
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut call = Call { line: self, asked: None };
        let connection = self.connected().await?;
        call.asked = Some((Arc::clone(&connection), Instant::now()));
        let answer = connection.client.query_typed(statement, params).await;
        call.asked = None;
        let mut quiet = connection.quiet();
        quiet.hear(Instant::now());
        // Another server may take writes.
        quiet.is_useless |= answer.as_ref().is_err_and(is_read_only);
        drop(quiet);
        answer.map_err(Failure::Server)
    }

    pub(crate) async fn query(
        &self,
        statement: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, EngineError> {
        self.try_query(statement, params).await.map_err(|failure| failure.explain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call waits for a lock, whoever asked gives up, and asks again. Seen to fail with the patience of a connection on which
    /// nothing waits: each lock costs a connection, and the server a process that waits on.
    #[test]
    fn to_wait_for_a_lock_is_no_silence() {
        let (mut quiet, began) = (Quiet::default(), Instant::now());
        let after = |milliseconds| began + Duration::from_millis(milliseconds);
        quiet.give_up(began);
        assert!(quiet.is_over(after(400), PATIENCE) && !quiet.is_over(after(1_100), PATIENCE_WITH_LOCKS));
        // The lock was not given, which whoever asks next hears of.
        quiet.hear(after(1_100));
        quiet.give_up(after(900));
        assert!(!quiet.is_over(after(2_300), PATIENCE_WITH_LOCKS));
        assert!(quiet.is_over(after(2_400), PATIENCE_WITH_LOCKS));
    }

    /// Seen to fail with a silence that begins anew with each call: where each is given up sooner than that, a dead connection is
    /// never replaced.
    #[test]
    fn silence_goes_on_over_calls() {
        let (mut quiet, began) = (Quiet::default(), Instant::now());
        for at in 0..10 {
            quiet.give_up(began + Duration::from_millis(200 * at));
        }
        assert!(quiet.is_over(began + Duration::from_millis(2_000), PATIENCE_WITH_LOCKS));
    }
}
