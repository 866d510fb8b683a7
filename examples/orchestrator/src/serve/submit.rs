//! `POST /jobs`: submits jobs.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::serve::Service;
use crate::serve::body::body;
use crate::serve::routes::{Refusal, as_json, blocking};
use crate::serve::view::to_json;
use crate::store::DEFAULT_KIND;

/// Counts jobs that were submitted.
pub(super) const SUBMITTED: &str = "orchestrator_jobs_submitted_total";
/// Jobs submitted at once.
const AT_ONCE: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submission {
    #[serde(default = "one")]
    count: usize,
    #[serde(default = "default_kind")]
    kind: String,
}

fn one() -> usize {
    1
}

fn default_kind() -> String {
    DEFAULT_KIND.to_owned()
}

pub(super) async fn submit(State(service): State<&'static Service>, request: Request) -> Result<Response, Refusal> {
    let Submission { count, kind } = body(service, request).await?;
    if !(1..=AT_ONCE).contains(&count) {
        return Err(Refusal::unprocessable(format!("count must be from 1 to {AT_ONCE}")));
    }
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
