//! Who may ask, and who may change something.

use std::net::SocketAddr;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::serve::Service;
use crate::serve::routes::Refusal;

/// What is missing where nothing can be changed.
pub(super) const NO_TOKEN: &str = "no token is set (--token or ORCHESTRATOR_TOKEN)";

pub(super) struct Access {
    token: Option<String>,
    /// Listens for this machine only.
    loopback: bool,
}

impl Access {
    pub(super) fn new(token: Option<String>, address: SocketAddr) -> Self {
        Self { token, loopback: address.ip().is_loopback() }
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Checks that the request may change something.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
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
            Ok(())
        } else {
            Err(Refusal::new(StatusCode::UNAUTHORIZED, "this is not the token"))
        }
    }

    /// Checks that the name that the browser went to is one of ours.
    ///
    /// A page elsewhere can have its own name resolve to this machine, and then read what we answer as if it were its
    /// own (DNS rebinding); but it cannot change the name in the request.
    fn knows(&self, headers: &HeaderMap) -> bool {
        if !self.loopback {
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
    if service.access.knows(request.headers()) {
        next.run(request).await
    } else {
        let reason = "this server is for localhost: use http://localhost, http://127.0.0.1 or http://[::1]";
        Refusal::new(StatusCode::MISDIRECTED_REQUEST, reason).into_response()
    }
}
