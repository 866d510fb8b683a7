//! `PUT /policy`: replaces settings of the policy in force.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;
use livemark::{Mode, Policy};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::STAGE;
use crate::serve::Service;
use crate::serve::body::{body, whole};
use crate::serve::modes::{self, OPERATOR};
use crate::serve::routes::{Refusal, as_json, blocking};
use crate::serve::view::to_json;

/// What a request may set of a policy beside its mode, and what that may be.
const SETTINGS: [(&str, Setting); 7] = [
    ("finalize_grace", Setting::Seconds),
    ("lost_grace", Setting::Seconds),
    ("hard_deadline", Setting::Seconds),
    ("no_backstop", Setting::True),
    ("max_redrives", Setting::Count),
    ("boot_grace", Setting::SecondsOrNone),
    ("stale_after", Setting::SecondsOrNone),
];

/// What a setting may be.
#[derive(Clone, Copy)]
enum Setting {
    Seconds,
    SecondsOrNone,
    Count,
    True,
}

impl Setting {
    fn check(self, name: &str, value: &Value) -> Result<(), Refusal> {
        let is_time =
            |value: &Value| value.as_f64().is_some_and(|seconds| Duration::try_from_secs_f64(seconds).is_ok());
        let (fits, what) = match self {
            Self::Seconds => (is_time(value), "a number of seconds"),
            Self::SecondsOrNone => (value.is_null() || is_time(value), "a number of seconds, or null"),
            Self::Count => (whole(value).is_some_and(|count| u32::try_from(count).is_ok()), "a whole number"),
            Self::True => (*value == Value::Bool(true), "true, or not given"),
        };
        if fits { Ok(()) } else { Err(Refusal::unprocessable(format!("{name} must be {what}, not {value}"))) }
    }
}

/// Characters of the name of who asks.
const NAME: usize = 64;

pub(super) async fn set_policy(State(service): State<&'static Service>, request: Request) -> Result<Response, Refusal> {
    let known: Vec<_> = ["mode", "for", "by"].into_iter().chain(SETTINGS.map(|(name, _)| name)).collect();
    let mut given = body(service, request, &known).await?;
    let by = by(&mut given)?;
    let during = given.remove("for").map(|during| duration(&during)).transpose()?;
    let said = format!("sets {}", to_json(&given));
    let mode = match given.remove("mode") {
        None if during.is_some() => return Err(Refusal::unprocessable("for is about a mode: give one")),
        None => None,
        Some(Value::Null) => return Err(Refusal::unprocessable("mode cannot be null")),
        Some(mode) => Some(Mode::deserialize(&mode).map_err(|_| no_mode(&mode))?),
    };
    // First what can be refused.
    if !given.is_empty() || mode.is_none() {
        service.reaper.try_update_policy(|policy| laid_over(policy, &given))?;
    }
    let limits = !given.is_empty();
    let mode = mode.map(|mode| service.modes.put(&service.reaper, mode, by.as_deref().unwrap_or(OPERATOR), during));
    service.engine.feed.changed();
    let mut answer = serde_json::to_value(&*service.reaper.policy()).map_err(Refusal::unprocessable)?;
    if by.is_some() || during.is_some() {
        answer["override"] = json!(service.modes.told());
    }
    // It is in force, whether or not that can be written down.
    let kept = blocking(service, move |_, store| {
        if let Some((kept, what)) = &mode {
            store.keep_mode(kept, if limits { &said } else { what })?;
        } else {
            modes::noted(store, by.as_deref().unwrap_or(OPERATOR), &said)?;
        }
        Ok(())
    });
    if let Err(refusal) = kept.await {
        answer["warning"] = format!("in force, but not kept over a restart: {}", refusal.reason()).into();
    }
    Ok(as_json(answer.to_string()).into_response())
}

/// Who asks, if it is said. A name of nothing but spaces says nothing.
pub(super) fn by(given: &mut Map<String, Value>) -> Result<Option<String>, Refusal> {
    match given.remove("by") {
        None => Ok(None),
        Some(Value::String(by)) if by.chars().count() <= NAME && !by.chars().any(char::is_control) => {
            Ok(Some(by.trim().to_owned()).filter(|by| !by.is_empty()))
        }
        Some(_) => Err(Refusal::unprocessable(format!("by must be a name of at most {NAME} characters"))),
    }
}

/// How long a mode is to be in force: seconds, or as people write it.
fn duration(given: &Value) -> Result<Duration, Refusal> {
    let duration = match given {
        Value::Number(seconds) => seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        Value::String(text) => text.parse().ok().and_then(|duration: SignedDuration| duration.try_into().ok()),
        _ => None,
    };
    let in_range = duration.filter(|duration| (Duration::from_millis(1)..=modes::LONGEST).contains(duration));
    in_range.ok_or_else(|| {
        Refusal::unprocessable(format!("for must be seconds, or a time like \"15m\", of at most 30 days, not {given}"))
    })
}

fn no_mode(given: &Value) -> Refusal {
    Refusal::unprocessable(format!("no mode {given}: there is honor, defer_all, dry_run, ignore"))
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
        if let Some((_, setting)) = SETTINGS.iter().find(|(known, _)| known == name) {
            setting.check(name, value)?;
        }
        let value = if name == "max_redrives" { whole(value).into() } else { value.clone() };
        settings.insert(name.clone(), value);
    }
    // Written out, a stage has every limit as its own. Ours has none of its own.
    settings.insert("stages".to_owned(), json!({ STAGE: { "marking": true } }));
    Policy::deserialize(Value::Object(settings)).map_err(Refusal::unprocessable)
}
