//! The routes: who answers what, and how a request is refused.

use std::fmt::Display;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::error::Result as OurResult;
use crate::serve::view::{self, to_json};
use crate::serve::{Service, access, actions, events, health, history, jobs, page, policy, preview, submit, trends};
use crate::store::Store;

pub(super) fn router(service: &'static Service) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .route("/favicon.svg", get(page::icon))
        .route("/favicon.ico", get(page::icon))
        .route("/queue", get(queue))
        .route("/events", get(events::events))
        .route("/healthz", get(health::healthz))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi))
        .route("/jobs", get(jobs::list).post(submit::submit))
        .route("/jobs/{id}", get(jobs::one))
        .route("/jobs/{id}/output", get(jobs::output))
        .route("/jobs/{id}/requeue", post(actions::requeue))
        .route("/jobs/{id}/end", post(actions::end))
        .route("/jobs/{id}/mark", delete(actions::clear_mark))
        .route("/submission", put(actions::pause))
        .route("/history", get(history::history))
        .route("/trends", get(trends::trends))
        .route("/policy/preview", get(preview::preview))
        .route("/policy", put(policy::set_policy))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this is not done here with that method")
        })
        .layer(from_fn_with_state(service, access::by_our_name))
        .layer(map_response(no_guessing))
        .with_state(service)
}

/// Describes all of these, in the form that other programs read.
async fn openapi() -> impl IntoResponse {
    as_json(include_str!("openapi.json").to_owned())
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

    /// Why.
    pub(super) fn reason(&self) -> &str {
        &self.error
    }

    pub(super) fn unprocessable(error: impl Display) -> Self {
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

pub(super) fn as_json(body: String) -> impl IntoResponse {
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

async fn queue(State(service): State<&'static Service>) -> Result<Response, Refusal> {
    Ok(as_json(blocking(service, view::queue).await?).into_response())
}
