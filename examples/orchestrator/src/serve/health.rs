//! How the service is: for a load balancer, and for Prometheus.

use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::json;

use crate::monitor::NOT_STARTED;
use crate::serve::Service;
use crate::serve::routes::{Refusal, as_json, blocking};
use crate::serve::view::{Counts, to_json};

/// Sweeps that may fail to come before the reaper counts as gone, and what a busy machine may add.
const LATE_SWEEPS: u32 = 10;
const LATE_MORE: Duration = Duration::from_secs(1);

pub(super) async fn healthz(State(service): State<&'static Service>) -> Result<Response, Refusal> {
    let unwell = |reason: String| Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason));
    if service.engine.shift.is_ending() {
        return unwell("shutting down".to_owned());
    }
    blocking(service, |_, store| store.counts()).await?;
    let late = service.engine.config.limits.sweep_every.saturating_mul(LATE_SWEEPS).saturating_add(LATE_MORE);
    let swept = service.engine.feed.listed_for();
    if swept.is_none_or(|swept| swept > late) {
        let since = swept.map_or_else(String::new, |swept| format!(" for {swept:.1?}"));
        return unwell(format!("the reaper has not swept{since}"));
    }
    let body = json!({
        "status": "ok",
        "mode": service.reaper.policy().mode(),
        "swept_ms_ago": swept.map(|swept| u64::try_from(swept.as_millis()).unwrap_or(u64::MAX)),
    });
    Ok(as_json(to_json(&body)).into_response())
}

/// The recorder that the library's counters go to, and ours.
pub(super) fn recorder() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // Fails if there is one already: of another service in this process, which there is not.
    let _ = metrics::set_global_recorder(recorder);
    metrics::describe_gauge!("orchestrator_jobs", "Jobs by state.");
    metrics::describe_counter!("orchestrator_jobs_submitted_total", "Jobs that were submitted to this process.");
    metrics::describe_counter!(NOT_STARTED, "Commands that could not be started for now, and were tried again.");
    metrics::counter!(NOT_STARTED).absolute(0);
    metrics::describe_gauge!("orchestrator_shutting_down", "1 if no job is started any more.");
    handle
}

pub(super) async fn metrics(State(service): State<&'static Service>) -> Result<Response, Refusal> {
    let body = blocking(service, |service, store| {
        for (state, jobs) in Counts::of(&store.counts()?).by_name() {
            metrics::gauge!("orchestrator_jobs", "state" => state).set(jobs as f64);
        }
        let ending = service.engine.shift.is_ending();
        metrics::gauge!("orchestrator_shutting_down").set(u8::from(ending));
        Ok(service.metrics.render())
    });
    let kind = [(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"))];
    Ok((kind, body.await?).into_response())
}
