//! The routes: what is asked, what is changed, and what is refused.

use std::fmt::Display;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use futures_util::StreamExt;
use livemark::{Mode, Policy, ReaperHandle};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::config::STAGE;
use crate::error::Result as OurResult;
use crate::serve::view::{self, Counts, to_json};
use crate::serve::{Service, access, events, page};
use crate::store::{DEFAULT_KIND, Store};

/// No request has more to say.
const BODY: usize = 4096;
/// A longer one is read so far, to be thrown away.
const HEARD_OUT: usize = 2 << 20;
/// Nor does it take longer to say it.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Jobs submitted at once.
const AT_ONCE: usize = 100;
/// Sweeps that may fail to come before the reaper counts as gone, and what a busy machine may add.
const LATE_SWEEPS: u32 = 10;
const LATE_MORE: Duration = Duration::from_secs(1);

/// What a request may set of a policy, and which of it may be `null`: none.
const SETTINGS: [(&str, bool); 8] = [
    ("mode", false),
    ("finalize_grace", false),
    ("lost_grace", false),
    ("hard_deadline", false),
    ("no_backstop", false),
    ("max_redrives", false),
    ("boot_grace", true),
    ("stale_after", true),
];

pub(super) fn router(service: &'static Service) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/style.css", get(page::style))
        .route("/app.js", get(page::script))
        .route("/favicon.svg", get(page::icon))
        .route("/favicon.ico", get(page::icon))
        .route("/queue", get(queue))
        .route("/events", get(events::events))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/jobs", post(submit))
        .route("/policy", put(set_policy))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this is not done here with that method")
        })
        .layer(from_fn_with_state(service, access::by_our_name))
        .layer(map_response(no_guessing))
        .with_state(service)
}

/// What we say it is, it is.
async fn no_guessing(mut response: Response) -> Response {
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Why a request is not granted.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }

    fn unprocessable(error: impl Display) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, as_json(to_json(&json!({ "error": self.error })))).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn as_json(body: String) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body)
}

/// Asks the store where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    service: &'static Service,
    work: impl FnOnce(&Service, &mut Store) -> OurResult<T> + Send + 'static,
) -> Result<T, Refusal> {
    let done = spawn_blocking(move || service.stores.with(|store| work(service, store))).await;
    match done {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
        Err(_) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request panicked")),
    }
}

// Questions.

async fn queue(State(service): State<&'static Service>) -> Result<Response, Refusal> {
    Ok(as_json(blocking(service, view::queue).await?).into_response())
}

async fn healthz(State(service): State<&'static Service>) -> Result<Response, Refusal> {
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
    metrics::describe_gauge!("orchestrator_shutting_down", "1 if no job is started any more.");
    handle
}

async fn metrics(State(service): State<&'static Service>) -> Result<Response, Refusal> {
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

// Changes.

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

async fn submit(State(service): State<&'static Service>, request: Request) -> Result<Response, Refusal> {
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
    metrics::counter!("orchestrator_jobs_submitted_total").increment(jobs.len() as u64);
    Ok((StatusCode::CREATED, as_json(to_json(&json!({ "jobs": jobs })))).into_response())
}

async fn set_policy(State(service): State<&'static Service>, request: Request) -> Result<Response, Refusal> {
    let given: Map<String, Value> = body(service, request).await?;
    let policy = put_in_force(&service.reaper, &given)?;
    service.engine.feed.changed();
    let said = format!("sets {}", to_json(&given));
    // It is in force, whether or not that can be written down.
    let _ = blocking(service, move |_, store| store.note(None, "operator", &said)).await;
    Ok(as_json(to_json(&policy)).into_response())
}

/// Changes what is in force, and returns what it then was. Of two changes at the same time neither is lost.
fn put_in_force(reaper: &ReaperHandle, given: &Map<String, Value>) -> Result<Policy, Refusal> {
    // The switch alone: no limit is looked at, and none can stand in its way.
    if let (Some(mode), 1) = (given.get("mode").and_then(|mode| Mode::deserialize(mode).ok()), given.len()) {
        reaper.set_mode(mode);
        return Ok(reaper.policy().with_mode(mode));
    }
    let mut put = None;
    reaper.try_update_policy(|policy| {
        let policy = laid_over(policy, given)?;
        put = Some(policy.clone());
        Ok(policy)
    })?;
    Ok(put.unwrap_or_else(|| Policy::clone(&reaper.policy())))
}

/// The policy in force with some settings replaced, valid as a whole.
fn laid_over(policy: &Policy, given: &Map<String, Value>) -> Result<Policy, Refusal> {
    let mut settings = match serde_json::to_value(policy).map_err(Refusal::unprocessable)? {
        Value::Object(settings) => settings,
        _ => Map::new(),
    };
    // One of the two counts, and the other one was not meant to stay.
    if given.contains_key("hard_deadline") || given.contains_key("no_backstop") {
        settings.remove("hard_deadline");
        settings.remove("no_backstop");
    }
    for (name, value) in given {
        match SETTINGS.iter().find(|(setting, _)| setting == name) {
            None => return Err(Refusal::unprocessable(format!("no setting {name:?}"))),
            Some((_, false)) if value.is_null() => {
                return Err(Refusal::unprocessable(format!("{name} cannot be null")));
            }
            Some(_) => settings.insert(name.clone(), value.clone()),
        };
    }
    // Written out, a stage has every limit as its own. Ours has none of its own.
    settings.insert("stages".to_owned(), json!({ STAGE: { "marking": true } }));
    Policy::deserialize(Value::Object(settings)).map_err(Refusal::unprocessable)
}

/// The body of a request that may change something, which must be JSON of this shape.
async fn body<T: DeserializeOwned>(service: &Service, request: Request) -> Result<T, Refusal> {
    let (parts, body) = request.into_parts();
    // Read before anything is refused: who is still sending when we close gets to see an error, not the answer.
    let read = timeout(BODY_TIME, read(body)).await;
    service.access.check(&parts.headers)?;
    if !is_json(&parts.headers) {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json"));
    }
    let bytes = read.map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body does not come"))??;
    let told = |error: serde_json::Error| {
        let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
        Refusal::new(status, format!("the body: {error}"))
    };
    // A list of values would do for serde, but nobody means that.
    if bytes.trim_ascii_start().starts_with(b"[") {
        let list: Value = serde_json::from_slice(&bytes).map_err(told)?;
        return Err(Refusal::unprocessable(format!("the body: expected an object, not {list}")));
    }
    serde_json::from_slice(&bytes).map_err(told)
}

/// All of a body that is not too long. Of one that is, nothing is kept.
async fn read(body: Body) -> Result<Vec<u8>, Refusal> {
    let mut frames = body.into_data_stream();
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the body cannot be read"))?;
        length += frame.len();
        if length <= BODY {
            bytes.extend_from_slice(&frame);
        } else if length > HEARD_OUT {
            break;
        }
    }
    if length > BODY {
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body may have {BODY} bytes")));
    }
    Ok(bytes)
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
