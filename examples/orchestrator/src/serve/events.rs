//! `GET /events`: the state whenever it changes, and each deferral at once.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::feed;
use crate::serve::Service;
use crate::serve::routes::{Refusal, blocking};
use crate::serve::view::{self, to_json};

/// States are sent no faster than this, and no slower than that.
const AT_MOST_EVERY: Duration = Duration::from_millis(250);
const AT_LEAST_EVERY: Duration = Duration::from_secs(2);
/// Watchers at the same time.
const WATCHERS: usize = 64;

/// Computes the state once for all watchers, while there are any.
pub(super) async fn publish(service: &'static Service) {
    let mut changes = service.engine.feed.changes();
    loop {
        // Whether something changed or it is time again is the same to us.
        let _ = timeout(AT_LEAST_EVERY, changes.changed()).await;
        if service.newest.receiver_count() > 0 {
            if let Ok(state) = state(service).await {
                service.newest.send_replace(state);
            }
        }
        sleep(AT_MOST_EVERY).await;
    }
}

async fn state(service: &'static Service) -> Result<Arc<str>, Refusal> {
    let state = blocking(service, view::queue).await?;
    Ok(state.into())
}

/// One who watches.
struct Watcher {
    /// What it has not been sent yet, when it comes.
    first: Option<Arc<str>>,
    newest: watch::Receiver<Arc<str>>,
    deferrals: broadcast::Receiver<Arc<feed::Deferral>>,
    over: watch::Receiver<bool>,
}

pub(super) async fn events(State(service): State<&'static Service>) -> Result<Response, Refusal> {
    if service.newest.receiver_count() >= WATCHERS {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many are watching already"));
    }
    // Subscribed before the state is read, so that nothing falls in between.
    let mut watcher = Watcher {
        first: None,
        newest: service.newest.subscribe(),
        deferrals: service.engine.feed.deferrals(),
        over: service.over.subscribe(),
    };
    watcher.first = Some(state(service).await?);
    let stream = stream::unfold(watcher, |mut watcher| async {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(event), watcher))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

impl Watcher {
    /// `None` at the end of the service.
    async fn next(&mut self) -> Option<Event> {
        let queue = |state: &str| Event::default().event("queue").data(state);
        if let Some(first) = self.first.take() {
            return Some(queue(&first));
        }
        loop {
            tokio::select! {
                biased;
                _ = self.over.wait_for(|over| *over) => return None,
                deferral = self.deferrals.recv() => match deferral {
                    Ok(deferral) => return Some(Event::default().event("deferral").data(to_json(&deferral))),
                    // It was too slow, and finds in the state what it missed.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                changed = self.newest.changed() => {
                    changed.ok()?;
                    return Some(queue(&self.newest.borrow_and_update()));
                }
            }
        }
    }
}
