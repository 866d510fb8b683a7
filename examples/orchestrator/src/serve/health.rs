//! How the service is: for a load balancer, and for Prometheus.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::json;

use crate::error::{Error, Result as OurResult};
use crate::monitor::NOT_STARTED;
use crate::reap::REDRIVES;
use crate::serve::Service;
use crate::serve::routes::{Refusal, as_json, blocking};
use crate::serve::submit::SUBMITTED;
use crate::serve::view::{Counts, to_json};
use crate::store::Store;

/// Sweeps that may fail to come before the reaper counts as gone, and what a busy machine may add.
const LATE_SWEEPS: u32 = 10;
const LATE_MORE: Duration = Duration::from_secs(1);
/// How often it is tried at most whether anything can be written.
const TRY_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn healthz(State(service): State<&'static Service>) -> Result<Response, Refusal> {
    let unwell = |reason: String| Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason));
    if service.engine.shift.is_ending() {
        return unwell("shutting down".to_owned());
    }
    let works = |service: &Service, store: &mut Store| {
        store.counts()?;
        service.probe.try_writes(service, store)
    };
    blocking(service, works).await?;
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

/// What the latest try to write came to.
#[derive(Debug, Default)]
pub(super) struct Probe(Mutex<Option<(Instant, Option<String>)>>);

impl Probe {
    /// Tries to write where jobs need it: to the store, and to the disk of the workspaces. Many who ask at a time are
    /// told of one try.
    fn try_writes(&self, service: &Service, store: &Store) -> OurResult<()> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = latest.take().filter(|(at, _)| at.elapsed() < TRY_EVERY);
        let (at, failed) = known.unwrap_or_else(|| {
            let tried = store.touch().and_then(|()| write_beside_jobs(service.engine.workspaces));
            (Instant::now(), tried.err().map(|error| error.to_string()))
        });
        *latest = Some((at, failed.clone()));
        failed.map_or(Ok(()), |reason| Err(Error::Unwritable(reason)))
    }
}

/// Writes a file as long as a block of a disk may be, and removes it.
fn write_beside_jobs(workspaces: &Path) -> OurResult<()> {
    let path = workspaces.join("health");
    let written = fs::write(&path, [b'.'; 4096]);
    let removed = fs::remove_file(&path);
    written.and(removed).map_err(Error::io(format!("{}", path.display())))
}

/// The recorder that the library's counters go to, and ours.
pub(super) fn recorder() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    // Fails if there is one already: of another service in this process, which there is not.
    let _ = metrics::set_global_recorder(recorder);
    metrics::describe_gauge!("orchestrator_jobs", "Jobs by state.");
    metrics::describe_counter!(SUBMITTED, "Jobs that were submitted to this process.");
    metrics::counter!(SUBMITTED).absolute(0);
    metrics::describe_counter!(NOT_STARTED, "Commands that could not be started for now, and were tried again.");
    metrics::counter!(NOT_STARTED).absolute(0);
    metrics::describe_counter!(
        REDRIVES,
        "Jobs that were redriven, as the store took it: verdicts that it refused are not counted."
    );
    metrics::counter!(REDRIVES).absolute(0);
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
