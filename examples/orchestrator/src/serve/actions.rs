//! What an operator does to the queue and to single jobs: pause it, end one, run one again, clear a mark.

use std::num::NonZeroU64;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use livemark::{Finalizer, Generation};
use serde_json::{Map, Value, json};

use crate::config::STAGE;
use crate::error::Result as OurResult;
use crate::serve::Service;
use crate::serve::body::body;
use crate::serve::jobs::{job_id, no_job};
use crate::serve::modes::OPERATOR;
use crate::serve::policy::by;
use crate::serve::query::Query;
use crate::serve::routes::{Refusal, as_json, blocking};
use crate::serve::view::to_json;
use crate::store::{JobId, NoteKind, RunId, State as JobState, Store, Wish};

/// Characters of a reason.
const REASON: usize = 200;
/// How often a job is tried to be ended that is redriven in the same instant.
const TRIES: usize = 5;

/// `PUT /submission`: pauses the queue, or ends its pause.
pub(super) async fn pause(State(service): State<&'static Service>, request: Request) -> Result<Response, Refusal> {
    let mut given = body(service, request, &["paused", "by"]).await?;
    let by = by(&mut given)?.unwrap_or_else(|| OPERATOR.to_owned());
    let paused = match given.remove("paused") {
        Some(Value::Bool(paused)) => paused,
        _ => return Err(Refusal::unprocessable("paused must be true or false")),
    };
    let mut answer = json!({ "paused": paused });
    // It is so, whether or not that can be written down. Monitors look again once it is: they ask the store as well.
    if let Err(refusal) = blocking(service, move |_, store| store.pause(paused, &by)).await {
        answer["warning"] = format!("in force, but not kept over a restart: {}", refusal.reason()).into();
    }
    service.engine.shift.pause(paused);
    service.engine.feed.changed();
    Ok(as_json(answer.to_string()).into_response())
}

/// `POST /jobs/{id}/requeue`: submits a job again that was reaped or rolled back.
pub(super) async fn requeue(
    State(service): State<&'static Service>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let mut given = body(service, request, &["by"]).await?;
    let job = job_id(&id)?;
    let by = by(&mut given)?.unwrap_or_else(|| OPERATOR.to_owned());
    if service.engine.shift.is_ending() {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down: no new jobs"));
    }
    let done = blocking(service, move |_, store| store.resubmit(job, &by)).await?;
    let new = granted(done, job, "only a job that was reaped or rolled back is submitted again")?;
    service.engine.shift.ring();
    service.engine.feed.changed();
    metrics::counter!(super::submit::SUBMITTED).increment(1);
    Ok((StatusCode::CREATED, as_json(to_json(&json!({ "jobs": [new] })))).into_response())
}

/// `POST /jobs/{id}/end`: ends a job now, as the backstop would.
pub(super) async fn end(
    State(service): State<&'static Service>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let mut given = body(service, request, &["by", "reason"]).await?;
    let job = job_id(&id)?;
    let by = by(&mut given)?.unwrap_or_else(|| OPERATOR.to_owned());
    let reason = match given.remove("reason") {
        None => None,
        Some(Value::String(reason)) if reason.chars().count() <= REASON && !reason.chars().any(char::is_control) => {
            Some(reason).filter(|reason| !reason.is_empty())
        }
        Some(_) => return Err(Refusal::unprocessable(format!("reason must be a text of at most {REASON} characters"))),
    };
    let done = blocking(service, move |service, store| ended(service, store, job, &by, reason.as_deref())).await?;
    let state = granted(done, job, "it has ended")?;
    service.engine.feed.changed();
    Ok(as_json(to_json(&json!({ "job": job, "state": state }))).into_response())
}

/// Ends a job in the order of the reaper's backstop: first the mark, so that its monitor sees that it is displaced, then
/// the job, while nobody else can have the mark.
fn ended(service: &Service, store: &Store, job: JobId, by: &str, reason: Option<&str>) -> OurResult<Wish<JobState>> {
    let why = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let Some(row) = store.job(job)? else { return Ok(Wish::NoJob) };
    if row.state == JobState::Queued && store.withdraw(job)? {
        store.note_as(NoteKind::Action, Some(job), by, &format!("ends it before it was started{why}"))?;
        return Ok(Wish::Done(JobState::Reaped));
    }
    let owner = service.engine.registry.owner(&job).map(|owner| owner.value);
    let _mark = service.engine.registry.mark(job, Finalizer::new(None, STAGE));
    for _ in 0..TRIES {
        let Some(row) = store.job(job)? else { return Ok(Wish::NoJob) };
        let (JobState::Running, Some(run)) = (row.state, row.run) else { return Ok(Wish::Not(row.state)) };
        let end = ending(store, job)?;
        // Another run's job by now: a redrive was quicker. It is asked again whose it is.
        if store.commit(job, run, end, None)? {
            let whom = owner
                .map_or_else(String::new, |owner| format!(", displacing {}", crate::feed::OwnerSeen::from(&owner)));
            store.note_as(NoteKind::Action, Some(job), by, &format!("ends it as '{end}'{whom}{why}"))?;
            return Ok(Wish::Done(end));
        }
    }
    Ok(Wish::Not(JobState::Running))
}

/// What was done outside stays done.
fn ending(store: &Store, job: JobId) -> OurResult<JobState> {
    Ok(store.acted(job)?.map_or(JobState::Reaped, |effect| effect.state()))
}

/// `DELETE /jobs/{id}/mark?generation=G`: clears exactly this mark.
pub(super) async fn clear_mark(
    State(service): State<&'static Service>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let query = Query::of(request.uri(), &["generation", "by"]);
    body(service, request, &[]).await?;
    let (job, query) = (job_id(&id)?, query?);
    let generation = query.number("generation")?.and_then(NonZeroU64::new);
    let Some(generation) = generation else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "generation is missing: the number of the mark to clear"));
    };
    let mut given = Map::new();
    if let Some(name) = query.text("by") {
        given.insert("by".to_owned(), name.into());
    }
    let by = by(&mut given)?.unwrap_or_else(|| OPERATOR.to_owned());
    let cleared: Option<RunId> = {
        let owner = service.engine.registry.owner(&job);
        // Not the mark that is there now, but the one that was seen.
        if !service.engine.registry.clear_generation(&job, Generation::from(generation)) {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                format!("job {job} has no mark of generation {generation} now"),
            ));
        }
        owner.and_then(|owner| owner.value.run_id)
    };
    service.engine.feed.changed();
    let whose = cleared.map_or_else(|| "a claim".to_owned(), |run| format!("run {run}"));
    let what = format!("clears the mark of {whose}, generation {generation}");
    let noted = blocking(service, move |_, store: &mut Store| store.note_as(NoteKind::Action, Some(job), &by, &what));
    let mut answer = json!({ "job": job, "generation": generation });
    if let Err(refusal) = noted.await {
        answer["warning"] = format!("cleared, but not in the timeline: {}", refusal.reason()).into();
    }
    Ok(as_json(answer.to_string()).into_response())
}

fn granted<T>(wish: Wish<T>, job: JobId, why: &str) -> Result<T, Refusal> {
    match wish {
        Wish::Done(done) => Ok(done),
        Wish::NoJob => Err(no_job(job)),
        Wish::Not(state) => Err(Refusal::new(StatusCode::CONFLICT, format!("job {job} is {state}: {why}"))),
    }
}
