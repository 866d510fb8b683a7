//! Who may ask, and who may change something.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::serve::Service;
use crate::serve::routes::Refusal;

/// What is missing where nothing can be changed.
pub(super) const NO_TOKEN: &str = "no token is set (--token or ORCHESTRATOR_TOKEN)";

/// A wrong token is answered after this, the next one after twice as long, and so on.
const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// Wrong tokens are forgotten where there were none for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// So many wait for such an answer at most.
const WAITING: usize = 32;

pub(super) struct Access {
    token: Option<String>,
    /// Listens for this machine only.
    loopback: bool,
    wrong: WrongTokens,
}

/// Wrong tokens, which are answered ever later.
struct WrongTokens {
    /// Whoever waits for an answer has a connection, and not all of them are to be had that way.
    places: Semaphore,
    /// How many there were lately, and when the latest was.
    lately: Mutex<(u32, Instant)>,
}

impl WrongTokens {
    fn new() -> Self {
        Self { places: Semaphore::new(WAITING), lately: Mutex::new((0, Instant::now())) }
    }

    /// How long this one waits: twice as long as the one before it, unless that was long ago.
    fn delay(&self) -> Duration {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, latest) = &mut *lately;
        if latest.elapsed() > FORGOTTEN_AFTER {
            *count = 0;
        }
        let delay = FIRST_DELAY.saturating_mul(1 << (*count).min(16)).min(LONGEST_DELAY);
        *count = count.saturating_add(1);
        *latest = Instant::now();
        delay
    }
}

impl Access {
    pub(super) fn new(token: Option<String>, address: SocketAddr) -> Self {
        Self { token, loopback: address.ip().is_loopback(), wrong: WrongTokens::new() }
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Checks that the request may change something. Who has the token is not held up, whatever others try.
    pub(super) async fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, format!("{NO_TOKEN}: nothing can be changed")));
        };
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer ..."));
        };
        let (scheme, rest) = value.as_bytes().split_at(value.len().min(BEARER.len()));
        // Takes as long for a wrong token as for the right one; only its length may show.
        if scheme.eq_ignore_ascii_case(BEARER) && bool::from(rest.ct_eq(token.as_bytes())) {
            return Ok(());
        }
        let Ok(_place) = self.wrong.places.try_acquire() else {
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens: wait"));
        };
        sleep(self.wrong.delay()).await;
        Err(Refusal::new(StatusCode::UNAUTHORIZED, "this is not the token"))
    }

    /// Checks that the name that the browser went to is one of ours.
    ///
    /// A page elsewhere can have its own name resolve to this machine, and then read what we answer as if it were its
    /// own (DNS rebinding); but it cannot change the name in the request.
    fn knows(&self, version: Version, headers: &HeaderMap) -> bool {
        if !self.loopback {
            return true;
        }
        // No browser speaks HTTP/1.0. Checks of health do, and name nobody.
        if version == Version::HTTP_10 && !headers.contains_key(HOST) {
            return true;
        }
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let Ok(host) = host.to_str() else { return false };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        name.eq_ignore_ascii_case("localhost") || matches!(name, "127.0.0.1" | "[::1]")
    }
}

const BEARER: &[u8] = b"Bearer ";

/// Refuses requests that meant another server.
pub(super) async fn by_our_name(State(service): State<&'static Service>, request: Request, next: Next) -> Response {
    if service.access.knows(request.version(), request.headers()) {
        next.run(request).await
    } else {
        let reason = "this server is for localhost: use http://localhost, http://127.0.0.1 or http://[::1]";
        Refusal::new(StatusCode::MISDIRECTED_REQUEST, reason).into_response()
    }
}
