//! `GET /jobs`, `GET /jobs/{id}` and its output: every job there is, and all that is known of one.

use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, Result as OurResult};
use crate::output::{self, Source};
use crate::serve::Service;
use crate::serve::query::{LARGEST, Query};
use crate::serve::routes::{Refusal, as_json, blocking};
use crate::serve::view::{Job, milliseconds, to_json, with_running};
use crate::store::{EffectRow, Happened, JobId, JobRow, RunRow, State as JobState, Store, TaskRow, Wanted, Which, now};

/// Jobs listed at once, if nothing is said, and at most.
const USUAL: usize = 100;
const MOST: usize = 500;
/// Notes shown of one job.
const NOTES: usize = 1000;

/// What `state` of a request stands for.
const ENDED: &str = "ended";
/// What `owner` of a request stands for, beside a run.
const ANYBODY: &str = "any";
const NOBODY: &str = "none";

/// The filters of a listing.
struct Filter {
    states: Vec<JobState>,
    kind: Option<String>,
    owner: Option<String>,
    stage: Option<String>,
    past_grace: bool,
    sought: Option<String>,
    before: Option<JobId>,
    limit: usize,
}

impl Filter {
    fn of(uri: &Uri) -> Result<Self, Refusal> {
        let known = ["state", "kind", "owner", "stage", "past_grace", "q", "limit", "before"];
        let query = Query::of(uri, &known)?;
        let ended = [JobState::Merged, JobState::RolledBack, JobState::Reaped];
        let mut words: Vec<_> =
            JobState::ALL.iter().map(|state| (state.to_string().replace(' ', "_"), Some(*state))).collect();
        words.push((ENDED.to_owned(), None));
        let states = match query.one_of("state", &words)? {
            None => JobState::ALL.to_vec(),
            Some(Some(state)) => vec![state],
            Some(None) => ended.to_vec(),
        };
        let text = |name| query.text(name).map(str::to_owned);
        Ok(Self {
            states,
            kind: text("kind"),
            owner: text("owner"),
            stage: text("stage"),
            past_grace: query.flag("past_grace")?,
            sought: text("q"),
            before: query.number("before")?,
            limit: query.limit(USUAL, MOST)?,
        })
    }

    /// Whether only a running job can be meant.
    fn is_of_running(&self) -> bool {
        self.owner.is_some() || self.stage.is_some() || self.past_grace
    }

    fn takes(&self, job: &Job<'_>) -> bool {
        let owned_by = |sought: &String| match &job.owner {
            Some(owner) => {
                sought == ANYBODY
                    || owner.run_id.is_some_and(|run| *sought == run.to_string() || *sought == format!("run {run}"))
            }
            None => sought == NOBODY,
        };
        self.kind.as_ref().is_none_or(|kind| job.kind == *kind)
            && self.stage.as_ref().is_none_or(|stage| job.stage == *stage)
            && self.owner.as_ref().is_none_or(owned_by)
            && (!self.past_grace || job.past_grace)
            && self.sought.as_ref().is_none_or(|sought| job.is_named(sought))
    }

    /// What is to be read of the jobs that do not run.
    fn of_the_others(&self, kinds: &[&str]) -> Wanted {
        let states = self.states.iter().copied().filter(|state| *state != JobState::Running);
        let states = if self.is_of_running() { Vec::new() } else { states.collect() };
        let job = self.sought.as_ref().and_then(|sought| sought.parse().ok());
        // A job that does not run has no stage and no owner: what is sought can be its number, or a part of its kind.
        let named = match (&self.sought, job) {
            (Some(sought), None) => {
                Some(kinds.iter().filter(|kind| kind.contains(sought.as_str())).map(|kind| (*kind).to_owned()))
            }
            _ => None,
        };
        let kinds = match (&self.kind, named) {
            (Some(kind), Some(mut named)) => Some(named.find(|name| name == kind).into_iter().collect()),
            (Some(kind), None) => Some(vec![kind.clone()]),
            (None, named) => named.map(Iterator::collect),
        };
        Wanted { states, kinds, job, before: self.before, limit: self.limit }
    }
}

pub(super) async fn list(State(service): State<&'static Service>, uri: Uri) -> Result<Response, Refusal> {
    let filter = Filter::of(&uri)?;
    let body = blocking(service, move |service, store| {
        let kinds: Vec<_> = service.engine.config.kind_names().collect();
        let wanted = filter.of_the_others(&kinds);
        let (mut others, mut total) = (store.jobs(&wanted)?, store.count_wanted(&wanted)?);
        with_running(service, store, |_, jobs| {
            let runs = filter.states.contains(&JobState::Running);
            let mut running: Vec<_> = jobs.into_iter().filter(|job| runs && filter.takes(job)).collect();
            total += running.len() as u64;
            running.retain(|job| filter.before.is_none_or(|before| job.job < before));
            running.sort_by_key(|job| std::cmp::Reverse(job.job));
            // Of both lists the newest, as many as are wanted.
            let is_running = |job: &JobRow| running.iter().any(|other| other.job == job.job);
            others.retain(|job| !is_running(job));
            let mut rows: Vec<(JobId, Value)> = Vec::new();
            rows.extend(running.iter().map(|job| (job.job, json!(job))));
            rows.extend(others.iter().map(|job| (job.job, json!(job))));
            rows.sort_by_key(|(job, _)| std::cmp::Reverse(*job));
            let more = rows.len() > filter.limit || others.len() == filter.limit;
            rows.truncate(filter.limit);
            let next = if more { rows.last().map(|(job, _)| *job) } else { None };
            let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
            to_json(&json!({ "jobs": rows, "total": total, "next": next }))
        })
    });
    Ok(as_json(body.await?).into_response())
}

/// All that is known of a job.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    row: JobRow,
    now_ms: u64,
    stamped_at_ms: Option<u64>,
    grace_at_ms: Option<u64>,
    deadline_at_ms: Option<u64>,
    running: Option<Job<'a>>,
    runs: Vec<RunShown>,
    effects: Vec<EffectRow>,
    events: Vec<Happened>,
}

#[derive(Serialize)]
struct RunShown {
    #[serde(flatten)]
    run: RunRow,
    /// Whether there is output of its process.
    output: bool,
    tasks: Vec<TaskShown>,
}

#[derive(Serialize)]
struct TaskShown {
    #[serde(flatten)]
    task: TaskRow,
    /// Whether there is output of it.
    output: bool,
}

pub(super) async fn one(
    State(service): State<&'static Service>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    Query::of(&uri, &[])?;
    let job = job_id(&id)?;
    let body = blocking(service, move |service, store| whole(service, store, job)).await?;
    Ok(as_json(body.ok_or_else(|| no_job(job))?).into_response())
}

fn whole(service: &Service, store: &Store, job: JobId) -> OurResult<Option<String>> {
    let Some(row) = store.job(job)? else { return Ok(None) };
    let engine = &service.engine;
    let has = |source| output::file(engine.workspaces, job, source).exists();
    let runs = store.runs(job)?.into_iter().map(|mut run| {
        let tasks = std::mem::take(&mut run.tasks).into_iter();
        let tasks = tasks.map(|task| TaskShown { output: has(Source::Task(task.task)), task }).collect();
        RunShown { output: has(Source::Process(run.run)), tasks, run }
    });
    let runs: Vec<_> = runs.collect();
    let effects = store.effects(job)?;
    let mut events = store.history(&Which { job: Some(job), ..Which::default() }, NOTES)?;
    events.reverse();
    let policy = service.reaper.policy();
    let limits = policy.stage(crate::config::STAGE);
    let stamped_at_ms = runs.iter().rev().find_map(|shown| shown.run.stamped_at_ms);
    let after = |at: Option<u64>, limit| Some(at?.saturating_add(milliseconds(limit)));
    let grace_at_ms = after(stamped_at_ms, limits.finalize_grace);
    let deadline_at_ms = limits.hard_deadline.and_then(|limit| after(row.started_at_ms, limit));
    with_running(service, store, |_, jobs| {
        let running = jobs.into_iter().find(|shown| shown.job == job);
        let now_ms = now();
        Some(to_json(&Whole {
            row,
            now_ms,
            stamped_at_ms,
            grace_at_ms,
            deadline_at_ms,
            running,
            runs,
            effects,
            events,
        }))
    })
}

/// The output of the last gate, of one gate, or of the process of one run.
pub(super) async fn output(
    State(service): State<&'static Service>,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let query = Query::of(&uri, &["task", "run"])?;
    let job = job_id(&id)?;
    let (task, run) = (query.number("task")?, query.number("run")?);
    let found = blocking(service, move |service, store| {
        if store.job(job)?.is_none() {
            return Ok(None);
        }
        let runs = store.runs(job)?;
        // Of this job only: the number of a gate is no way into another job's.
        let mut sources = runs.iter().filter(|known| run.is_none_or(|run| known.run == run)).flat_map(|known| {
            let gates = known.tasks.iter().map(|task| Source::Task(task.task));
            [Source::Process(known.run)].into_iter().chain(gates)
        });
        let source = match (task, run) {
            (Some(task), _) => sources.find(|known| *known == Source::Task(task)),
            (None, Some(_)) => sources.next(),
            (None, None) => sources.next_back(),
        };
        let Some(source) = source else { return Ok(None) };
        let read = output::read(service.engine.workspaces, job, source);
        read.map_err(Error::io(format!("the output of job {job}")))
    });
    let nothing = || Refusal::new(StatusCode::NOT_FOUND, format!("no output of job {job} by that name"));
    let output = found.await?.ok_or_else(nothing)?;
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    Ok((headers, String::from_utf8_lossy(&output).into_owned()).into_response())
}

pub(super) fn job_id(text: &str) -> Result<JobId, Refusal> {
    let number = text.parse::<JobId>().ok().filter(|job| *job <= LARGEST);
    number.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("no job {text:?}: an id is a whole number")))
}

pub(super) fn no_job(job: JobId) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("no job {job}"))
}
