//! `GET /events`: the state at first, then what changes, and each deferral at once.
//!
//! States are counted. A watcher that has been sent one is sent the difference to the next. One that was too slow for
//! that is sent a whole state again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};

use crate::feed;
use crate::serve::Service;
use crate::serve::change::Told;
use crate::serve::routes::{Refusal, blocking};
use crate::serve::view::{self, to_json};
use crate::store::{NoteKind, Which};

/// Changes are sent no faster than this, and no slower than that.
const AT_MOST_EVERY: Duration = Duration::from_millis(250);
const AT_LEAST_EVERY: Duration = Duration::from_secs(2);
/// A state of this age will do for one who comes: what is new since then follows at once.
const FRESH: Duration = Duration::from_millis(100);
/// Watchers at the same time.
const WATCHERS: usize = 64;
/// Of what happened, told at once at most.
const HAPPENED: usize = 200;
/// What the reaper and people did. The steps of runs are many, and told with their jobs.
const TOLD: [NoteKind; 6] =
    [NoteKind::Verdict, NoteKind::Redrive, NoteKind::Reap, NoteKind::Mode, NoteKind::Action, NoteKind::Trouble];

/// A state: whole, and as what is different from the one before.
#[derive(Debug)]
pub(super) struct Published {
    seq: u64,
    at: Instant,
    whole: String,
    change: String,
}

/// Makes states, one after the other.
#[derive(Debug)]
pub(super) struct Publisher {
    told: Mutex<(Told, Option<u64>)>,
    /// The newest state, for all who watch; computed only while somebody does.
    newest: watch::Sender<Option<Arc<Published>>>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self { told: Mutex::default(), newest: watch::Sender::new(None) }
    }
}

impl Publisher {
    fn newest(&self) -> Option<Arc<Published>> {
        self.newest.borrow().clone()
    }

    /// Computes the state, once for all watchers, unless there is one that is no older than this.
    async fn publish(&self, service: &'static Service, fresh: Duration) -> Result<(), Refusal> {
        let mut told = self.told.lock().await;
        let (told, noted) = &mut *told;
        let newest = self.newest();
        if newest.as_ref().is_some_and(|newest| newest.at.elapsed() < fresh) {
            return Ok(());
        }
        let at = Instant::now();
        let after = *noted;
        let (state, mut happened) = blocking(service, move |service, store| {
            // Before the state, of which it is the story. At first there is nothing to go on from.
            let limit = if after.is_some() { HAPPENED } else { 1 };
            let happened = store.history(&Which { after, kinds: TOLD.to_vec(), ..Which::default() }, limit)?;
            Ok((view::state(service, store)?, happened))
        })
        .await?;
        *noted = happened.first().map(|event| event.id).or(after).or(Some(0));
        happened.reverse();
        let seq = newest.map_or(1, |newest| newest.seq + 1);
        let change = told.update(&state, &happened);
        let published = Published { seq, at, whole: to_json(&state), change: to_json(&change) };
        self.newest.send_replace(Some(Arc::new(published)));
        Ok(())
    }
}

/// Goes on for as long as the service does.
pub(super) async fn publish(service: &'static Service) {
    let mut changes = service.engine.feed.changes();
    loop {
        // Whether something changed or it is time again is the same to us.
        let _ = timeout(AT_LEAST_EVERY, changes.changed()).await;
        if service.publisher.newest.receiver_count() > 0 {
            // Where the store cannot be read, there is nothing to tell, and the next one tells it all.
            let _ = service.publisher.publish(service, Duration::ZERO).await;
        }
        sleep(AT_MOST_EVERY).await;
    }
}

/// One who watches.
struct Watcher {
    /// The number of the state that it knows.
    seen: Option<u64>,
    newest: watch::Receiver<Option<Arc<Published>>>,
    deferrals: broadcast::Receiver<Arc<feed::Deferral>>,
    over: watch::Receiver<bool>,
}

pub(super) async fn events(State(service): State<&'static Service>) -> Result<Response, Refusal> {
    let publisher = &service.publisher;
    if publisher.newest.receiver_count() >= WATCHERS {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many are watching already"));
    }
    // Subscribed before the state is read, so that nothing falls in between.
    let mut watcher = Watcher {
        seen: None,
        newest: publisher.newest.subscribe(),
        deferrals: service.engine.feed.deferrals(),
        over: service.over.subscribe(),
    };
    publisher.publish(service, FRESH).await?;
    // Also the one that has been there.
    watcher.newest.mark_changed();
    let stream = stream::unfold(watcher, |mut watcher| async {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(event), watcher))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

impl Watcher {
    /// `None` at the end of the service.
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                biased;
                _ = self.over.wait_for(|over| *over) => return None,
                // The state comes first of all.
                deferral = self.deferrals.recv(), if self.seen.is_some() => match deferral {
                    Ok(deferral) => return Some(Event::default().event("deferral").data(to_json(&deferral))),
                    // It was too slow, and finds in the state what it missed.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                changed = self.newest.changed() => {
                    changed.ok()?;
                    let newest = self.newest.borrow_and_update().clone();
                    if let Some(newest) = newest {
                        return Some(tell(&mut self.seen, &newest));
                    }
                }
            }
        }
    }
}

/// Tells the newest state to one who has seen another.
fn tell(seen: &mut Option<u64>, newest: &Published) -> Event {
    let knows_the_one_before = seen.is_some_and(|seen| seen + 1 == newest.seq);
    *seen = Some(newest.seq);
    let (name, data) = if knows_the_one_before { ("change", &newest.change) } else { ("queue", &newest.whole) };
    Event::default().event(name).id(newest.seq.to_string()).data(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told to one who has seen this state, and which it has seen then.
    fn told(seen: Option<u64>, seq: u64) -> (String, Option<u64>) {
        let newest = Published { seq, at: Instant::now(), whole: "WHOLE".into(), change: "CHANGE".into() };
        let mut knows = seen;
        (format!("{:?}", tell(&mut knows, &newest)), knows)
    }

    /// Seen to fail with a change for everybody who has seen something.
    #[test]
    fn one_who_missed_a_state_is_told_all() {
        for (seen, is_change) in [(None, false), (Some(6), true), (Some(5), false), (Some(7), false)] {
            let (event, knows) = told(seen, 7);
            assert_eq!((event.contains("CHANGE"), event.contains("WHOLE")), (is_change, !is_change), "{event}");
            assert_eq!(knows, Some(7));
        }
    }
}
