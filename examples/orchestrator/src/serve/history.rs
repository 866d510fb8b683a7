//! `GET /history`: all that happened, the newest first.

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::serve::Service;
use crate::serve::query::Query;
use crate::serve::routes::{Refusal, as_json, blocking};
use crate::serve::view::to_json;
use crate::store::{NoteKind, Which};

/// Events told at once, if nothing is said, and at most.
const USUAL: usize = 100;
const MOST: usize = 1000;

pub(super) async fn history(State(service): State<&'static Service>, uri: Uri) -> Result<Response, Refusal> {
    let query = Query::of(&uri, &["job", "kind", "before", "after", "limit"])?;
    let words: Vec<_> = NoteKind::ALL.iter().map(|kind| (kind.to_string(), *kind)).collect();
    let limit = query.limit(USUAL, MOST)?;
    let which = Which {
        job: query.number("job")?,
        kinds: query.any_of("kind", &words)?,
        before: query.number("before")?,
        after: query.number("after")?,
    };
    let events = blocking(service, move |_, store| store.history(&which, limit)).await?;
    let next = if events.len() == limit { events.last().map(|event| event.id) } else { None };
    Ok(as_json(to_json(&json!({ "events": events, "next": next }))).into_response())
}
