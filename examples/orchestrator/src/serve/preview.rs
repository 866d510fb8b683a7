//! `GET /policy/preview`: what a mode would do at this moment. A dry run, which nobody notices.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use livemark::{Cause, Mode, Policy, Proposed};
use metrics::{NoopRecorder, with_local_recorder};
use serde::Serialize;

use crate::config::STAGE;
use crate::error::{Error, Result as OurResult};
use crate::marks::Dry;
use crate::reap;
use crate::serve::Service;
use crate::serve::query::Query;
use crate::serve::routes::{Refusal, as_json, blocking};
use crate::serve::view::to_json;
use crate::store::{JobId, Store};

/// The modes, by the names that requests use.
const MODES: [(&str, Mode); 4] =
    [("honor", Mode::Honor), ("defer_all", Mode::DeferAll), ("dry_run", Mode::DryRun), ("ignore", Mode::Ignore)];

/// What a mode would do.
#[derive(Serialize)]
struct Preview {
    mode: Mode,
    redrive: Vec<JobId>,
    /// Of those that would be redriven, the ones whose owner is at work.
    live: Vec<JobId>,
    reap: Vec<JobId>,
    defer: u64,
    text: String,
}

pub(super) async fn preview(State(service): State<&'static Service>, uri: Uri) -> Result<Response, Refusal> {
    let query = Query::of(&uri, &["mode"])?;
    let words = MODES.map(|(name, mode)| (name.to_owned(), mode));
    let mode = query.one_of("mode", &words)?;
    let mode =
        mode.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "mode is missing: /policy/preview?mode=ignore"))?;
    let preview = blocking(service, move |service, store| preview_of(service, store, mode)).await?;
    Ok(as_json(to_json(&preview)).into_response())
}

/// Judges every running job as a dry run, which takes no claim. A reaper of its own does it, without the recorder of the
/// service's metrics.
fn preview_of(service: &Service, store: &Store, mode: Mode) -> OurResult<Preview> {
    let policy = dry(&service.reaper.policy(), mode)?;
    let rows = store.running()?;
    let (mut redrive, mut live, mut reap, mut defer) = (Vec::new(), Vec::new(), Vec::new(), 0);
    with_local_recorder(&NoopRecorder, || {
        // A bad row is nobody's to judge.
        let jobs: Vec<_> = rows.iter().filter_map(|(job, row)| Some((job, row.as_ref().ok()?))).collect();
        let running = jobs.iter().map(|(job, row)| reap::running_job(job, row));
        for ((job, _), verdict) in jobs.iter().zip(service.engine.marks.judge_dry(policy, running)) {
            match (mode, verdict) {
                // A dry run acts on nobody.
                (Mode::DryRun, _) | (_, Dry::Healthy) => {}
                // The brake lets nothing through but the backstop.
                (_, Dry::Would(Proposed::Reap(Cause::Backstop))) => reap.push(**job),
                (Mode::DeferAll, _) | (_, Dry::Defer) => defer += 1,
                (_, Dry::Would(Proposed::Redrive)) => {
                    redrive.push(**job);
                    if service.engine.marks.is_active(**job) {
                        live.push(**job);
                    }
                }
                (_, Dry::Would(Proposed::Reap(_))) => reap.push(**job),
            }
        }
    });
    let text = text(mode, redrive.len(), live.len(), reap.len());
    Ok(Preview { mode, redrive, live, reap, defer, text })
}

/// A policy under which a dry run says what `mode` would do. It has no boot grace: this reaper was never away.
fn dry(policy: &Policy, mode: Mode) -> Result<Policy, Error> {
    let limits = policy.stage(STAGE);
    let mut dry = Policy::builder()
        .mode(Mode::DryRun)
        .finalize_grace(limits.finalize_grace)
        .lost_grace(limits.lost_grace)
        .max_redrives(limits.max_redrives);
    dry = match limits.hard_deadline {
        Some(hard_deadline) => dry.hard_deadline(hard_deadline),
        None => dry.no_backstop(),
    };
    // Ignore asks for no owner anywhere, as a dry run does where no stage marks.
    if mode == Mode::Ignore {
        return Ok(dry.no_marking_stages().build()?);
    }
    if let Some(stale_after) = limits.stale_after {
        dry = dry.stale_after(stale_after);
    }
    Ok(dry.marking_stage(STAGE).build()?)
}

fn text(mode: Mode, redrive: usize, live: usize, reap: usize) -> String {
    let name = match mode {
        Mode::Honor => "Honor",
        Mode::DeferAll => "Defer all",
        Mode::DryRun => "Dry run",
        Mode::Ignore => "Ignore",
    };
    let jobs = |count: usize, what: &str| match count {
        1 => format!("1 {what}job"),
        _ => format!("{count} {what}jobs"),
    };
    let mut acts = Vec::new();
    if live > 0 {
        acts.push(format!("redrive {}", jobs(live, "live ")));
    }
    if redrive > live {
        acts.push(format!("redrive {}", jobs(redrive - live, "")));
    }
    if reap > 0 {
        acts.push(format!("reap {}", jobs(reap, "")));
    }
    match acts.is_empty() {
        true => format!("{name} would do nothing now"),
        false => format!("{name} would {} now", acts.join(" and ")),
    }
}
