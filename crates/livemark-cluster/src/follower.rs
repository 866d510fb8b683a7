//! How a session's mirror follows the engine: by a watch, by a listing where states were missed, and by a comparison now and
//! then.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::any_engine::timed;
use crate::codec::{Barrier, Context, JobKey, SessionValue};
use crate::engine::{EngineError, Event, Listing, News, Revision};
use crate::error::{BarrierError, Loss};
use crate::inner::Inner;
use crate::keys::{EPOCH, MARKS, SESSIONS, find, session_key, tick_key};
use crate::mirror::Beats;
use crate::telemetry;

impl<K: JobKey, C: Context> Inner<K, C> {
    /// Follows the engine from the listing that was taken up, for as long as the session is there.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut backoff = self.backoff();
        while self.is_over().is_none() {
            // Watch, from the last revision that was heard whole, until states are missing.
            let after = *self.mirror.applied().borrow();
            let broke = match self.watch_on().await {
                Err(EngineError::Compacted) => self.list_anew().await,
                broke => broke,
            };
            if broke == Err(EngineError::Restored) {
                return self.end(Loss::Behind);
            }
            if *self.mirror.applied().borrow() > after {
                backoff.reset();
            }
            if let Err(error) = broke {
                sleep(backoff.failed("watch", &error)).await;
            }
        }
    }

    /// Watches until the watch breaks or says nothing for too long: dead ones do not fail by themselves
    /// (etcd-io/etcd#8980).
    async fn watch_on(&self) -> Result<(), EngineError> {
        let after = *self.mirror.applied().borrow();
        let mut watch = timed(self.config.call_timeout, self.engine.watch(after)).await?;
        while self.is_over().is_none() {
            // The session's own ticks come back more often than this. Where they do not, there is time for another watch
            // before the session is suspect.
            let news = timed(self.config.max_view_age / 2, watch.next()).await?;
            self.is_of(news.history)?;
            self.take_up_news(&news);
        }
        Ok(())
    }

    /// Lists all keys, and takes up what is different. Nothing is cleared first.
    async fn list_anew(&self) -> Result<(), EngineError> {
        let (latest, sent) = (self.latest(), self.clock.now());
        let listing = timed(self.config.max_view_age, self.engine.list()).await?;
        self.is_of(listing.history)?;
        if !self.goes_on(listing.revision, latest) {
            return Ok(());
        }
        self.take_up_listing(&listing, sent, true);
        self.counts.relists.add(1);
        telemetry::relisted("the states that were missed are not kept");
        Ok(())
    }

    /// Compares the mirror with the engine now and then, since watches have lost events (etcd-io/etcd#18089).
    pub(crate) async fn compare(self: Arc<Self>) {
        while self.is_over().is_none() {
            sleep(self.config.compare_every).await;
            let mut backoff = self.backoff();
            while let Err(error) = self.compare_once().await {
                if error == EngineError::Restored {
                    self.end(Loss::Behind);
                }
                if self.is_over().is_some() {
                    return;
                }
                sleep(backoff.failed("comparison", &error)).await;
            }
        }
    }

    /// Counts the marks that are otherwise in the mirror than in the engine, and mends them.
    async fn compare_once(&self) -> Result<(), EngineError> {
        let latest = self.latest();
        let keeps_gone = self.mirror.keep_gone();
        let listing = timed(self.config.max_view_age, self.engine.list()).await?;
        self.is_of(listing.history)?;
        if !self.goes_on(listing.revision, latest) {
            return Ok(());
        }
        // It can be compared once all that it has must have been heard of, and all that it lacks: it may be of a later state
        // than the one up to which it is whole.
        self.barrier(self.config.ttl).await.map_err(|error| match error {
            BarrierError::Engine(error) => error,
            BarrierError::Stale => EngineError::Unknown("the watch is silent".to_owned()),
        })?;
        let differences = self.mirror.mend(&keeps_gone, &listing);
        self.heard_of_epoch(find(&listing, EPOCH));
        if !differences.is_empty() {
            self.mirror.missed(self.clock.now().saturating_add(self.config.settle));
            self.counts.differences.add(differences.len());
            telemetry::differences(differences.len());
        }
        for (key, row) in differences {
            self.heard_of(&key, row, row.map_or(listing.whole, |row| row.revision));
            self.suspect([key]);
        }
        Ok(())
    }

    /// Takes up a listing that was asked for at `sent`. In the first one the session's own key is not to be expected.
    pub(crate) fn take_up_listing(&self, listing: &Listing, sent: Duration, is_open: bool) {
        self.heard_of_epoch(find(listing, EPOCH));
        // What ended the session is told before what it took along: those marks were not displaced.
        if is_open && find(listing, &session_key(self.lease)).is_none() {
            self.end(Loss::Expired);
        }
        // A mark may have been made and lost without a word, or lost with its session.
        self.mirror.missed(self.clock.now().saturating_add(self.config.settle));
        let keys: HashSet<&str> = listing.rows.iter().map(|(key, _)| key.as_str()).collect();
        for key in self.mirror.keys().iter().filter(|key| !keys.contains(key.as_str())) {
            self.take_out(key, listing.whole);
        }
        // Of a mark that was written beyond what is whole nobody can say whether it is gone or came later.
        let is_exact = self.mirror.keys().iter().all(|key| keys.contains(key.as_str()));
        // Sessions tell later of pulses than marks do.
        let beats = beats(listing);
        for (key, row) in listing.rows.iter().filter(|(key, _)| key.starts_with(MARKS)) {
            self.mirror.put(key, row, &beats);
            self.heard_of(key, Some(row), row.revision);
        }
        // After the marks.
        for (key, row) in listing.rows.iter().filter(|(key, _)| key.starts_with(SESSIONS)) {
            self.mirror.take_up_session(key, row);
        }
        self.mirror.listed(listing.whole);
        // The mirror is fresh where it is as the listing is, and else by what the watch tells.
        if is_exact {
            self.mirror.heard(sent);
            if let Some(barrier) = find(listing, &tick_key(self.lease)).and_then(|row| Barrier::decode(&row.value)) {
                self.mirror.heard_barrier(barrier);
            }
        }
        self.suspect(
            keys.iter().map(|key| (*key).to_owned()).filter(|key| self.mirror.ours(key, self.lease).is_some()),
        );
    }

    fn take_up_news(&self, News { events, whole, .. }: &News) {
        let (ours, tick) = (session_key(self.lease), tick_key(self.lease));
        // What ended the session is told before what it took along: those marks were not displaced.
        if events.iter().any(|event| event.row.is_none() && event.key == ours) {
            self.end(Loss::Expired);
        }
        let now = self.clock.now();
        // Which sessions went, and when: a mark that went in the same revision was lost with its process.
        let went: BTreeSet<(Revision, &str)> = events
            .iter()
            .filter(|event| event.row.is_none() && event.key.starts_with(SESSIONS))
            .map(|event| (event.revision, event.key.as_str()))
            .collect();
        for Event { revision, key, row } in events {
            if key.starts_with(MARKS) {
                match row {
                    Some(row) => self.mirror.put(key, row, &Beats::new()),
                    None => {
                        if let Some(mark) = self.mirror.remove(key, *revision) {
                            let session = format!("{SESSIONS}{}", mark.lease);
                            if went.contains(&(*revision, session.as_str())) {
                                self.mirror.settle(mark, now, self.config.settle);
                            }
                        }
                    }
                }
                self.heard_of(key, row.as_ref(), *revision);
            } else if let Some(row) = row.as_ref().filter(|_| key.starts_with(SESSIONS)) {
                self.mirror.take_up_session(key, row);
            } else if key == EPOCH {
                self.heard_of_epoch(row.as_ref());
            }
        }
        self.mirror.passed(*whole);
        // The mirror is as fresh as the latest thing that was sent from here and came back. What came later than it was
        // sent, whoever sent it, says nothing of what is still to come.
        for event in events {
            let Some(row) = &event.row else { continue };
            if event.key == ours {
                if let Some(told) = SessionValue::decode(&row.value) {
                    self.mirror.heard(Duration::from_nanos(told.sent));
                }
            } else if event.key == tick {
                if let Some(barrier) = Barrier::decode(&row.value) {
                    self.mirror.heard_barrier(barrier);
                }
            }
        }
        let ours = events.iter().filter(|event| event.row.as_ref().is_some_and(|row| row.lease == Some(self.lease)));
        self.suspect(ours.filter(|event| event.key.starts_with(MARKS)).map(|event| event.key.clone()));
    }
}

/// What all sessions in a listing tell of the pulses of their marks.
fn beats(listing: &Listing) -> Beats {
    let told = listing.rows.iter().filter_map(|(key, row)| {
        let lease: u64 = key.strip_prefix(SESSIONS)?.parse().ok()?;
        Some((lease, SessionValue::decode(&row.value)?.pulses))
    });
    told.flat_map(|(lease, pulses)| pulses.into_iter().map(move |(seq, beat)| ((lease, seq), beat))).collect()
}
