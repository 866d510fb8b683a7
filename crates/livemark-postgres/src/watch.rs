//! A watch that reads what has changed: [`PostgresWatch`].

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use livemark_cluster::{EngineError, Event, News, Revision, Watch};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::types::Type;

use crate::engine::{Postgres, Shared, found, signed, unsigned};
use crate::horizon::{Horizon, Seen};

/// A watch of all keys of a namespace.
#[derive(Debug)]
pub struct PostgresWatch {
    postgres: Postgres,
    horizon: Horizon,
    whole: Revision,
    /// What was told of beyond that.
    told: HashMap<String, Revision>,
    wakes: watch::Receiver<()>,
    next_at: Instant,
    /// The history that was listed, if one was.
    history: Option<String>,
}

/// What was read of one snapshot.
pub(crate) struct Read {
    pub(crate) events: Vec<Event>,
    pub(crate) seen: Seen,
    /// Up to where removals are forgotten.
    pub(crate) forgotten: Revision,
    /// Of which history of the database it is.
    pub(crate) history: String,
}

/// Reads all that is there, or what has changed after a revision.
pub(crate) async fn read(
    shared: &Shared,
    after: Option<Revision>,
    whole: Revision,
    draws: bool,
) -> Result<Read, EngineError> {
    let (after, whole) = (after.map(signed), signed(whole));
    let statement =
        "SELECT key, revision, value, lease, oldest, drawn, latest, history FROM livemark.changes($1, $2, $3, $4)";
    let params = [
        (&shared.namespace as _, Type::TEXT),
        (&after as _, Type::INT8),
        (&whole as _, Type::INT8),
        (&draws as _, Type::BOOL),
    ];
    let rows = shared.reads.query(statement, &params).await?;
    let (mut events, mut snapshot) = (Vec::with_capacity(rows.len()), None);
    for row in rows {
        let revision: Option<i64> = row.get(1);
        let revision = revision.unwrap_or_default();
        let Some(key) = row.get(0) else {
            let number = |at: usize| row.get::<_, Option<&str>>(at)?.parse().ok();
            let seen = || Some(Seen { oldest: number(4)?, drawn: number(5), latest: unsigned(row.get(6)) });
            snapshot = seen().map(|seen| (seen, unsigned(revision), row.get(7)));
            continue;
        };
        let value: Option<Vec<u8>> = row.get(2);
        let row = value.map(|value| found(revision, value, row.get(3)));
        events.push(Event { revision: unsigned(revision), key, row });
    }
    let (seen, forgotten, history) =
        snapshot.ok_or_else(|| EngineError::Unknown("an answer says nothing of its snapshot".to_owned()))?;
    Ok(Read { events, seen, forgotten, history })
}

impl PostgresWatch {
    pub(crate) fn new(postgres: Postgres, after: Revision) -> Self {
        let wakes = postgres.0.wakes.subscribe();
        let history = postgres.0.history();
        let (horizon, told, next_at) = (Horizon::at(after), HashMap::new(), Instant::now());
        Self { postgres, horizon, whole: after, told, wakes, next_at, history }
    }

    async fn poll(&mut self) -> Result<News, EngineError> {
        let Read { mut events, seen, forgotten, history } =
            read(&self.postgres.0, Some(self.whole), self.whole, self.horizon.wants_a_number()).await?;
        if *self.history.get_or_insert_with(|| history.clone()) != history {
            // What was told to be written last may never have been.
            return Err(EngineError::Restored);
        }
        if forgotten > self.whole {
            // Something may have gone unheard.
            return Err(EngineError::Compacted);
        }
        // Nothing is awaited from here on: dropping the future loses nothing.
        self.whole = self.horizon.see(seen);
        // Relaxed (no edge): a number by itself.
        self.postgres.0.whole.fetch_max(self.whole, Ordering::Relaxed);
        events.retain(|event| self.told.insert(event.key.clone(), event.revision) != Some(event.revision));
        events.sort_by_key(|event| event.revision);
        self.told.retain(|_, revision| *revision > self.whole);
        Ok(News { events, whole: self.whole, history: 0 })
    }
}

impl Watch for PostgresWatch {
    async fn next(&mut self) -> Result<News, EngineError> {
        loop {
            tokio::select! {
                () = sleep_until(self.next_at) => {}
                // Its sender is in the engine.
                _ = self.wakes.changed() => {}
            }
            // Where this is dropped, the next one reads at once.
            self.next_at = Instant::now();
            let before = self.whole;
            let news = self.poll().await?;
            self.next_at = Instant::now() + self.postgres.0.options.poll_every;
            if !news.events.is_empty() || news.whole > before {
                return Ok(news);
            }
        }
    }
}
