//! The body of a request: read whole, within bounds, before anything is refused.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::serve::Service;
use crate::serve::routes::Refusal;

/// No request has more to say.
const BODY: usize = 4096;
/// A longer one is read so far, to be thrown away.
const HEARD_OUT: usize = 2 << 20;
/// Nor does it take longer to say it.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The body of a request that may change something, which must be JSON of this shape.
pub(super) async fn body<T: DeserializeOwned>(service: &Service, request: Request) -> Result<T, Refusal> {
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
