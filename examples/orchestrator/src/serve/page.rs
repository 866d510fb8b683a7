//! The page's files, part of the program: nothing is fetched from elsewhere.

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::serve::routes::Refusal;

/// Nothing inline, nothing from elsewhere, in nobody's frame.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

macro_rules! files {
    ($($name:literal),*) => { [$(($name, include_str!(concat!("page/", $name)))),*] };
}

/// What the page is made of, by name.
const FILES: [(&str, &str); 13] = files![
    "app.js",
    "board.js",
    "control.js",
    "happened.js",
    "job.js",
    "link.js",
    "others.js",
    "processes.js",
    "route.js",
    "state.js",
    "style.css",
    "trends.js",
    "words.js"
];

pub(super) async fn index() -> Response {
    answer("text/html; charset=utf-8", include_str!("page/index.html"))
}

pub(super) async fn icon() -> Response {
    answer("image/svg+xml", include_str!("page/favicon.svg"))
}

pub(super) async fn file(Path(name): Path<String>) -> Result<Response, Refusal> {
    let Some((name, content)) = FILES.into_iter().find(|(known, _)| *known == name) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "the page has no such file"));
    };
    let kind = if name.ends_with(".css") { "text/css; charset=utf-8" } else { "text/javascript; charset=utf-8" };
    Ok(answer(kind, content))
}

fn answer(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        // Another version of the program may have another page.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, content).into_response()
}
