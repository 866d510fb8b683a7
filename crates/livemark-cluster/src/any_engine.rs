//! An engine without its type, so that a session has none of it: [`AnyEngine`]. And how long it is waited for.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::timeout;

use crate::engine::{Engine, EngineError, Grant, If, Lease, Listing, News, Revision, Row, Watch, Written};
use crate::telemetry;

pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An engine without its type.
pub(crate) trait AnyEngine: Send + Sync {
    fn grant(&self, ttl: Duration) -> Boxed<'_, Result<Grant, EngineError>>;
    fn renew(&self, lease: Lease) -> Boxed<'_, Result<Duration, EngineError>>;
    fn revoke(&self, lease: Lease) -> Boxed<'_, Result<(), EngineError>>;
    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
    ) -> Boxed<'a, Result<Written, EngineError>>;
    fn put_in_epoch<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
        epoch: If,
    ) -> Boxed<'a, Result<Written, EngineError>>;
    fn delete<'a>(&'a self, key: &'a str, condition: If) -> Boxed<'a, Result<Written, EngineError>>;
    fn get<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<Option<Row>, EngineError>>;
    fn list(&self) -> Boxed<'_, Result<Listing, EngineError>>;
    fn watch(&self, after: Revision) -> Boxed<'_, Result<Box<dyn AnyWatch>, EngineError>>;
}

/// A watch without its type.
pub(crate) trait AnyWatch: Send {
    fn next(&mut self) -> Boxed<'_, Result<News, EngineError>>;
}

impl<E: Engine> AnyEngine for E {
    fn grant(&self, ttl: Duration) -> Boxed<'_, Result<Grant, EngineError>> {
        Box::pin(Engine::grant(self, ttl))
    }

    fn renew(&self, lease: Lease) -> Boxed<'_, Result<Duration, EngineError>> {
        Box::pin(Engine::renew(self, lease))
    }

    fn revoke(&self, lease: Lease) -> Boxed<'_, Result<(), EngineError>> {
        Box::pin(Engine::revoke(self, lease))
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
    ) -> Boxed<'a, Result<Written, EngineError>> {
        Box::pin(Engine::put(self, key, value, lease, condition))
    }

    fn put_in_epoch<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
        epoch: If,
    ) -> Boxed<'a, Result<Written, EngineError>> {
        Box::pin(Engine::put_in_epoch(self, key, value, lease, condition, epoch))
    }

    fn delete<'a>(&'a self, key: &'a str, condition: If) -> Boxed<'a, Result<Written, EngineError>> {
        Box::pin(Engine::delete(self, key, condition))
    }

    fn get<'a>(&'a self, key: &'a str) -> Boxed<'a, Result<Option<Row>, EngineError>> {
        Box::pin(Engine::get(self, key))
    }

    fn list(&self) -> Boxed<'_, Result<Listing, EngineError>> {
        Box::pin(Engine::list(self))
    }

    fn watch(&self, after: Revision) -> Boxed<'_, Result<Box<dyn AnyWatch>, EngineError>> {
        Box::pin(async move {
            let watch: Box<dyn AnyWatch> = Box::new(Engine::watch(self, after).await?);
            Ok(watch)
        })
    }
}

impl<W: Watch> AnyWatch for W {
    fn next(&mut self) -> Boxed<'_, Result<News, EngineError>> {
        Box::pin(Watch::next(self))
    }
}

/// A call that is given up after some time.
pub(crate) async fn timed<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    match timeout(limit, call).await {
        Ok(done) => done,
        Err(_) => Err(EngineError::Unknown(format!("nothing was heard for {limit:?}"))),
    }
}

/// How long to pause before what failed is tried again: longer each time, and never so long that belief depends on it.
pub(crate) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// The shortest pause.
    pub(crate) const FIRST: Duration = Duration::from_millis(50);

    pub(crate) fn up_to(most: Duration) -> Self {
        Self { next: Self::FIRST, most: most.max(Self::FIRST) }
    }

    /// Tells that something has failed, aloud the first time, and for how long to pause.
    pub(crate) fn failed(&mut self, what: &str, error: &EngineError) -> Duration {
        let is_first = self.next == Self::FIRST;
        if is_first {
            telemetry::failed(what, error)
        } else {
            telemetry::failed_again(what, error)
        }
        self.pause()
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (2 * pause).min(self.most);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}
