//! Connections, made when they are needed and made anew when they break: [`Line`].

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use livemark_cluster::EngineError;
use tokio::sync::Mutex;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, Error, Row, Socket};

use crate::error::explain;

/// For how long a connection may be silent before whoever stops waiting for it has another one made.
const PATIENCE: Duration = Duration::from_millis(250);

type Connecting = Pin<Box<dyn Future<Output = Result<Client, Error>> + Send>>;

/// How a connection is made, without the type of its TLS.
pub(crate) type Connect = Arc<dyn Fn() -> Connecting + Send + Sync>;

pub(crate) fn connect_by<T>(config: Config, tls: T) -> Connect
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    Arc::new(move || {
        let (config, tls) = (config.clone(), tls.clone());
        Box::pin(async move {
            let (client, connection) = config.connect(tls).await?;
            // It ends with its client, and the client is told where it breaks.
            tokio::spawn(async move { drop(connection.await) });
            Ok(client)
        })
    })
}

/// A connection. Several calls may be under way on it, which the server does in turn.
pub(crate) struct Line {
    connect: Connect,
    client: Mutex<Option<Arc<Client>>>,
    /// It did not answer: the next call has another one.
    is_dead: AtomicBool,
}

/// A call under way.
struct Call<'l> {
    line: &'l Line,
    began: Instant,
    is_over: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.began.elapsed() >= PATIENCE {
            // Relaxed (no edge): which connection is used is a matter of luck.
            self.line.is_dead.store(true, Ordering::Relaxed);
        }
    }
}

impl Line {
    pub(crate) fn new(connect: &Connect) -> Self {
        Self { connect: Arc::clone(connect), client: Mutex::default(), is_dead: AtomicBool::new(false) }
    }

    async fn client(&self) -> Result<Arc<Client>, Error> {
        let mut client = self.client.lock().await;
        // Relaxed (no edge): as above.
        let is_dead = self.is_dead.swap(false, Ordering::Relaxed);
        if let Some(client) = client.as_ref().filter(|client| !is_dead && !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        // Those under way stay where they are.
        *client = None;
        let new = Arc::new((self.connect)().await?);
        *client = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Runs one statement, which is not prepared: a pooler may give each to another server's process.
    pub(crate) async fn try_query(
        &self,
        statement: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Error> {
        let mut call = Call { line: self, began: Instant::now(), is_over: false };
        let asked = async { self.client().await?.query_typed(statement, params).await };
        let answer = asked.await;
        call.is_over = true;
        if answer.as_ref().is_err_and(|error| error.code().is_some_and(|code| code.code() == "25006")) {
            // A server that takes no writes, such as a replica: another one may.
            self.is_dead.store(true, Ordering::Relaxed);
        }
        answer
    }

    pub(crate) async fn query(
        &self,
        statement: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, EngineError> {
        self.try_query(statement, params).await.map_err(|error| explain(&error))
    }
}
