//! `POST /jobs`: submits jobs.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::serve::Service;
use crate::serve::body::{body, whole};
use crate::serve::routes::{Refusal, as_json, blocking};
use crate::serve::view::to_json;
use crate::store::DEFAULT_KIND;

/// Counts jobs that were submitted.
pub(super) const SUBMITTED: &str = "orchestrator_jobs_submitted_total";
/// Jobs submitted at once.
const AT_ONCE: usize = 100;

pub(super) async fn submit(State(service): State<&'static Service>, request: Request) -> Result<Response, Refusal> {
    let given = body(service, request, &["count", "kind"]).await?;
    let count = match given.get("count") {
        None => Some(1),
        Some(count) => whole(count).and_then(|count| usize::try_from(count).ok()),
    };
    let Some(count) = count.filter(|count| (1..=AT_ONCE).contains(count)) else {
        return Err(Refusal::unprocessable(format!("count must be a whole number from 1 to {AT_ONCE}")));
    };
    let kind = match given.get("kind") {
        None => DEFAULT_KIND.to_owned(),
        Some(Value::String(kind)) => kind.clone(),
        Some(_) => return Err(Refusal::unprocessable("kind must be the name of a kind")),
    };
    if service.engine.config.kind(&kind).is_none() {
        let known: Vec<_> = service.engine.config.kind_names().collect();
        return Err(Refusal::unprocessable(format!("no kind {kind:?}: there is {}", known.join(", "))));
    }
    if service.engine.shift.is_ending() {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down: no new jobs"));
    }
    let jobs = blocking(service, move |_, store| store.submit(&kind, count)).await?;
    service.engine.shift.ring();
    service.engine.feed.changed();
    metrics::counter!(SUBMITTED).increment(jobs.len() as u64);
    Ok((StatusCode::CREATED, as_json(to_json(&json!({ "jobs": jobs })))).into_response())
}
