//! The body of a request: read whole, within bounds, before anything is refused.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt;
use serde_json::error::Category;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::serve::Service;
use crate::serve::routes::Refusal;
use crate::serve::strict::Strict;

/// No request has more to say.
const BODY: usize = 4096;
/// A longer one is read so far, to be thrown away.
const HEARD_OUT: usize = 2 << 20;
/// Nor does it take longer to say it.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What a request that may change something says: an object with none but these names in it.
pub(super) async fn body(service: &Service, request: Request, known: &[&str]) -> Result<Map<String, Value>, Refusal> {
    let (parts, body) = request.into_parts();
    // Read before anything is refused: who is still sending when we close gets to see an error, not the answer.
    let read = timeout(BODY_TIME, read(body)).await;
    service.access.check(&parts.headers).await?;
    if !is_json(&parts.headers) {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json"));
    }
    let bytes = read.map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body does not come"))??;
    let given = match serde_json::from_slice(&bytes) {
        Ok(Strict(Value::Object(given))) => given,
        Ok(_) => return Err(Refusal::unprocessable("the body must be an object: {\"name\": value, ...}")),
        Err(error) => return Err(unreadable(&error)),
    };
    match given.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(given),
        Some(name) => Err(Refusal::unprocessable(format!("no {name:?}: there is {}", known.join(", ")))),
    }
}

/// Reads a whole number, also one that is written with a fraction of zero: JSON knows one kind of numbers.
pub(super) fn whole(value: &Value) -> Option<u64> {
    /// Beyond it, not every whole number can be written so.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let written_so = |number: f64| (number.fract() == 0.0 && (0.0..EXACT).contains(&number)).then_some(number as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(written_so))
}

/// Says where a body is no JSON.
fn unreadable(error: &serde_json::Error) -> Refusal {
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        Category::Data => {
            let said = error.to_string();
            let said = said.split(" at line ").next().unwrap_or_default();
            Refusal::unprocessable(format!("the body: {said}, in {place}"))
        }
        Category::Eof => {
            Refusal::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: it ends too early, in {place}"))
        }
        Category::Syntax | Category::Io => {
            Refusal::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: see {place}"))
        }
    }
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
