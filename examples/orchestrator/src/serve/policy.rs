//! `PUT /policy`: replaces settings of the policy in force.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use livemark::{Mode, Policy, ReaperHandle};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::STAGE;
use crate::serve::Service;
use crate::serve::body::body;
use crate::serve::routes::{Refusal, as_json, blocking};
use crate::serve::view::to_json;
use crate::store::NoteKind;

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

pub(super) async fn set_policy(State(service): State<&'static Service>, request: Request) -> Result<Response, Refusal> {
    let given: Map<String, Value> = body(service, request).await?;
    let policy = put_in_force(&service.reaper, &given)?;
    service.engine.feed.changed();
    let said = format!("sets {}", to_json(&given));
    // It is in force, whether or not that can be written down.
    let _ = blocking(service, move |_, store| store.note_as(NoteKind::Mode, None, "operator", &said)).await;
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
