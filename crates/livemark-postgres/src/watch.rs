//! A watch that reads what has changed: [`PostgresWatch`].

use std::collections::HashMap;

use livemark_cluster::{EngineError, Event, History, News, Revision, Watch};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Row;
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
    /// The history that the first news were of.
    history: Option<History>,
    /// The latest snapshot whose news were told.
    snapshot: Option<String>,
}

/// What is to be read.
pub(crate) struct Question<'q> {
    /// What has changed after this revision, or else all that is there.
    pub(crate) after: Option<Revision>,
    /// What is whole, in which history: what went before that may be forgotten.
    pub(crate) whole: Revision,
    pub(crate) history: Option<History>,
    /// Whether the reader draws a number for its own transaction.
    pub(crate) draws: bool,
    /// But for what this snapshot has.
    pub(crate) snapshot: Option<&'q str>,
}

/// What was read of one snapshot.
pub(crate) struct Read {
    pub(crate) events: Vec<Event>,
    pub(crate) seen: Seen,
    /// Up to where removals are forgotten.
    pub(crate) forgotten: Revision,
    /// Of which history of the database it is.
    pub(crate) history: History,
    /// The snapshot.
    pub(crate) snapshot: String,
}

/// Reads the row that tells of the snapshot.
fn first(row: &Row) -> Option<Read> {
    let text = |at: usize| row.get::<_, Option<&str>>(at);
    let number = |at| text(at)?.parse().ok();
    let forgotten: Option<i64> = row.get(1);
    let seen = Seen { oldest: number(4)?, drawn: number(5), latest: unsigned(row.get(6)) };
    let history = History::from_str_radix(text(7)?, 16).ok()?;
    let (forgotten, snapshot) = (unsigned(forgotten.unwrap_or_default()), text(8)?.to_owned());
    Some(Read { events: Vec::new(), seen, forgotten, history, snapshot })
}

/// Reads all that is there, or what has changed after a revision.
pub(crate) async fn read(shared: &Shared, question: Question<'_>) -> Result<Read, EngineError> {
    let Question { after, whole, history, draws, snapshot } = question;
    let (after, whole) = (after.map(signed), signed(whole));
    // As the names of the server's log files have it.
    let history = history.map(|history| format!("{history:08X}"));
    let statement = "SELECT key, revision, value, lease, oldest, drawn, latest, history, taken \
                     FROM livemark.changes($1, $2, $3, $4, $5, $6)";
    let params = [
        (&shared.namespace as _, Type::TEXT),
        (&after as _, Type::INT8),
        (&whole as _, Type::INT8),
        (&history as _, Type::TEXT),
        (&draws as _, Type::BOOL),
        (&snapshot as _, Type::TEXT),
    ];
    let rows = shared.reads.query(statement, &params).await?;
    let (mut events, mut read) = (Vec::with_capacity(rows.len()), None);
    for row in rows {
        let revision: Option<i64> = row.get(1);
        let revision = revision.unwrap_or_default();
        let Some(key) = row.get(0) else {
            read = first(&row);
            continue;
        };
        let value: Option<Vec<u8>> = row.get(2);
        let row = value.map(|value| found(revision, value, row.get(3)));
        events.push(Event { revision: unsigned(revision), key, row });
    }
    let read = read.ok_or_else(|| EngineError::Unknown("an answer says nothing of its snapshot".to_owned()))?;
    Ok(Read { events, ..read })
}

impl PostgresWatch {
    pub(crate) fn new(postgres: Postgres, after: Revision) -> Self {
        let wakes = postgres.0.wakes.subscribe();
        let (horizon, told, next_at) = (Horizon::at(after), HashMap::new(), Instant::now());
        Self { postgres, horizon, whole: after, told, wakes, next_at, history: None, snapshot: None }
    }

    async fn poll(&mut self) -> Result<News, EngineError> {
        let question = Question {
            after: Some(self.whole),
            whole: self.whole,
            history: self.history,
            draws: self.horizon.wants_a_number(),
            snapshot: self.snapshot.as_deref(),
        };
        let Read { mut events, seen, forgotten, history, snapshot } = read(&self.postgres.0, question).await?;
        if *self.history.get_or_insert(history) != history {
            // What was told to be written last may never have been.
            return Err(EngineError::Restored);
        }
        if forgotten > self.whole {
            // Something may have gone unheard.
            return Err(EngineError::Compacted);
        }
        // Nothing is awaited from here on: dropping the future loses nothing.
        self.snapshot = Some(snapshot);
        self.whole = self.horizon.see(seen);
        self.postgres.0.found_whole(history, self.whole);
        events.retain(|event| self.told.insert(event.key.clone(), event.revision) != Some(event.revision));
        events.sort_by_key(|event| event.revision);
        self.told.retain(|_, revision| *revision > self.whole);
        Ok(News { events, whole: self.whole, history })
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
