//! What `GET /queue` shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use livemark::{DeferReason, Finalizer, Generation, Owner, Policy, Proposed, ReaperStats, RegistryStats, Snapshot};
use serde::Serialize;

use crate::config::STAGE;
use crate::error::Result;
use crate::feed::{Deferral, Deferred, Feed, Judged};
use crate::serve::Service;
use crate::store::{JobId, Overview, RunId, Shown, State, Store};

#[derive(Serialize)]
pub(super) struct Queue<'a> {
    #[serde(flatten)]
    snapshot: &'a Snapshot<JobId, Finalizer>,
    running: BTreeMap<String, Vec<Job<'a>>>,
    counts: Counts,
    policy: Arc<Policy>,
    now_ms: u64,
    reaper: ReaperStats,
    registry: RegistryStats,
    deferrals: Vec<Arc<Deferral>>,
    kinds: Vec<&'a str>,
    shutting_down: bool,
}

/// Jobs by state.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Counts {
    queued: u64,
    running: u64,
    merged: u64,
    rolled_back: u64,
    reaped: u64,
}

#[derive(Serialize)]
struct Job<'a> {
    job: JobId,
    kind: String,
    run: Option<RunId>,
    stage: String,
    running_ms: u64,
    finished_ms: Option<u64>,
    redrives: u32,
    owner: Option<Whose<'a>>,
    deferred: Option<LeftAlone>,
    /// What would have been done, in a dry run.
    dry_run: Option<String>,
    next: Option<Next>,
}

/// What the reaper does next with a job if nothing changes.
#[derive(Serialize)]
struct Next {
    what: String,
    in_ms: u64,
}

#[derive(Serialize)]
struct Whose<'a> {
    generation: Generation,
    run_id: Option<RunId>,
    stage: &'a str,
    age_ms: u64,
    pulse_age_ms: Option<u64>,
}

#[derive(Serialize)]
struct LeftAlone {
    reason: DeferReason,
    text: String,
    times: u64,
    since_ms: u64,
}

/// The whole state, as JSON.
pub(super) fn queue(service: &Service, store: &mut Store) -> Result<String> {
    let Overview { now_ms, counts, running } = store.overview()?;
    let (engine, reaper) = (&service.engine, &service.reaper);
    let snapshot = engine.registry.snapshot();
    let mut stages = BTreeMap::<_, Vec<_>>::new();
    for shown in running {
        let job = Job::of(shown, &snapshot, engine.feed);
        stages.entry(job.stage.clone()).or_default().push(job);
    }
    let queue = Queue {
        snapshot: &snapshot,
        running: stages,
        counts: Counts::of(&counts),
        policy: reaper.policy(),
        now_ms,
        reaper: reaper.stats(),
        registry: engine.registry.stats(),
        deferrals: engine.feed.recent(),
        kinds: engine.config.kind_names().collect(),
        shutting_down: engine.shift.is_ending(),
    };
    Ok(to_json(&queue))
}

/// Our own shapes, whose keys are strings: they always can be written.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl Counts {
    pub(super) fn of(counts: &BTreeMap<State, u64>) -> Self {
        let of = |state| counts.get(&state).copied().unwrap_or_default();
        Self {
            queued: of(State::Queued),
            running: of(State::Running),
            merged: of(State::Merged),
            rolled_back: of(State::RolledBack),
            reaped: of(State::Reaped),
        }
    }

    pub(super) fn by_name(self) -> [(&'static str, u64); 5] {
        let Self { queued, running, merged, rolled_back, reaped } = self;
        [("queued", queued), ("running", running), ("merged", merged), ("rolled_back", rolled_back), ("reaped", reaped)]
    }
}

impl<'a> Job<'a> {
    fn of(shown: Shown, snapshot: &'a Snapshot<JobId, Finalizer>, feed: &Feed) -> Self {
        let Shown { job, kind, run, stage, running_ms, finished_ms, redrives } = shown;
        let owner = snapshot.get(&job);
        let stage = match (owner, stage.as_deref()) {
            (Some(owner), _) => owner.value.stage.to_string(),
            (None, None) => "process".to_owned(),
            (None, Some("marked" | "stamped")) => STAGE.to_owned(),
            (None, Some(stage)) => stage.to_owned(),
        };
        let judged = run.and_then(|run| feed.verdict_on(job, run));
        let (deferred, dry_run, next) = match judged {
            Some(Judged { deferred, dry_run, next, .. }) => (deferred, dry_run, next),
            None => (None, None, None),
        };
        Self {
            job,
            kind,
            run,
            stage,
            running_ms,
            finished_ms,
            redrives,
            owner: owner.map(Whose::from),
            deferred: deferred.map(LeftAlone::from),
            dry_run: dry_run.map(|proposed| proposed.to_string()),
            next: next.map(Next::from),
        }
    }
}

impl<'a> From<&'a Owner<Finalizer>> for Whose<'a> {
    fn from(owner: &'a Owner<Finalizer>) -> Self {
        Self {
            generation: owner.generation,
            run_id: owner.value.run_id,
            stage: &owner.value.stage,
            age_ms: milliseconds(owner.age()),
            pulse_age_ms: owner.value.pulse.as_ref().map(|pulse| milliseconds(pulse.age())),
        }
    }
}

impl From<Deferred> for LeftAlone {
    fn from(Deferred { reason, text, times, since, .. }: Deferred) -> Self {
        Self { reason, text, times, since_ms: milliseconds(since.elapsed()) }
    }
}

impl From<(Proposed, Instant)> for Next {
    fn from((proposed, at): (Proposed, Instant)) -> Self {
        Self { what: proposed.to_string(), in_ms: milliseconds(at.saturating_duration_since(Instant::now())) }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
