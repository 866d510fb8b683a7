//! An engine that is hampered in one way while all else goes through: faults that a seed would hardly meet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use livemark_cluster::{
    Engine, EngineError, Grant, If, Lease, Listing, MemoryClient, MemoryEngine, News, Row, Watch, Written,
};
use tokio::time::{Instant, sleep, sleep_until};

/// The ways in which it is hampered. None by default.
#[derive(Clone, Default)]
pub struct Ways {
    /// For how long it says to grant a lease, whatever was asked.
    pub grants: Option<Duration>,
    /// Renewals are not answered.
    pub no_renewals: bool,
    /// Renewals are answered so much later than they were made.
    pub renewals_after: Duration,
    /// Writes do not arrive.
    pub no_writes: bool,
    /// Writes are answered so much later than they were made.
    pub writes_after: Duration,
    /// Writes of marks fail, and nobody knows whether they were made: they were not.
    pub no_marks: bool,
    /// The answers to so many of the next writes of a session's own key are lost.
    pub lost_ticks: u32,
    /// Removals do not arrive.
    pub no_removals: bool,
    /// Removals take so long.
    pub removals_take: Duration,
    /// Listings are answered so much later than they were read.
    pub listings_after: Duration,
    /// Listings are whole up to so many states before the one that they are of.
    pub listings_lag: u64,
    /// Listings are whole up to this state at most.
    pub listings_whole_at: Option<u64>,
    /// Watches say nothing.
    pub no_news: bool,
    /// Watches tell of everything so much later.
    pub news_after: Duration,
}

#[derive(Clone)]
pub struct Hampered {
    client: MemoryClient,
    ways: Arc<Mutex<Ways>>,
    calls: Arc<AtomicU64>,
    removals: Arc<AtomicU64>,
    most_removals: Arc<AtomicU64>,
}

impl Hampered {
    pub fn new(engine: &MemoryEngine) -> Self {
        Self {
            client: engine.client(),
            ways: Arc::default(),
            calls: Arc::default(),
            removals: Arc::default(),
            most_removals: Arc::default(),
        }
    }

    pub fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap()
    }

    /// The client that is hampered, as it is without that.
    pub fn client(&self) -> MemoryClient {
        self.client.clone()
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many removals were under way at a time, at most.
    pub fn most_removals(&self) -> u64 {
        self.most_removals.load(Ordering::Relaxed)
    }

    fn called(&self) -> Ways {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.ways().clone()
    }
}

async fn never() {
    std::future::pending::<()>().await;
}

impl Engine for Hampered {
    type Watch = HamperedWatch;

    async fn grant(&self, ttl: Duration) -> Result<Grant, EngineError> {
        let ways = self.called();
        let grant = self.client.grant(ttl).await?;
        Ok(Grant { ttl: ways.grants.unwrap_or(grant.ttl), ..grant })
    }

    async fn renew(&self, lease: Lease) -> Result<Duration, EngineError> {
        let ways = self.called();
        if ways.no_renewals {
            never().await;
        }
        let renewed = self.client.renew(lease).await;
        sleep(ways.renewals_after).await;
        renewed
    }

    async fn revoke(&self, lease: Lease) -> Result<(), EngineError> {
        self.called();
        self.client.revoke(lease).await
    }

    async fn put_in_epoch(
        &self,
        key: &str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
        epoch: If,
    ) -> Result<Written, EngineError> {
        let ways = self.called();
        if ways.no_writes {
            never().await;
        }
        if ways.no_marks && key.starts_with("m/") {
            return Err(EngineError::Unknown("hampered".to_owned()));
        }
        let written = self.client.put_in_epoch(key, value, lease, condition, epoch).await;
        if ways.lost_ticks > 0 && key.starts_with("s/") {
            self.ways().lost_ticks -= 1;
            never().await;
        }
        sleep(ways.writes_after).await;
        written
    }

    async fn delete(&self, key: &str, condition: If) -> Result<Written, EngineError> {
        let ways = self.called();
        if ways.no_removals {
            never().await;
        }
        let under_way = self.removals.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_removals.fetch_max(under_way, Ordering::Relaxed);
        sleep(ways.removals_take).await;
        self.removals.fetch_sub(1, Ordering::Relaxed);
        self.client.delete(key, condition).await
    }

    async fn get(&self, key: &str) -> Result<Option<Row>, EngineError> {
        self.called();
        self.client.get(key).await
    }

    async fn list(&self) -> Result<Listing, EngineError> {
        let ways = self.called();
        let listing = self.client.list().await?;
        sleep(ways.listings_after).await;
        let whole = listing.whole.saturating_sub(ways.listings_lag).min(ways.listings_whole_at.unwrap_or(u64::MAX));
        Ok(Listing { whole, ..listing })
    }

    async fn watch(&self, after: u64) -> Result<HamperedWatch, EngineError> {
        self.called();
        let watch = self.client.watch(after).await?;
        Ok(HamperedWatch { engine: self.clone(), watch, held_back: None })
    }
}

pub struct HamperedWatch {
    engine: Hampered,
    watch: <MemoryClient as Engine>::Watch,
    held_back: Option<(Instant, News)>,
}

impl Watch for HamperedWatch {
    async fn next(&mut self) -> Result<News, EngineError> {
        if self.held_back.is_none() {
            let news = self.watch.next().await?;
            let after = self.engine.ways().news_after;
            self.held_back = Some((Instant::now() + after, news));
        }
        if self.engine.ways().no_news {
            never().await;
        }
        if let Some((at, _)) = &self.held_back {
            sleep_until(*at).await;
        }
        Ok(self.held_back.take().map(|(_, news)| news).unwrap_or_default())
    }
}
