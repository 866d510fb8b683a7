//! What `GET /queue` shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use livemark::{Cause, DeferReason, Generation, Policy, Proposed, ReaperStats, RegistryStats};
use serde::Serialize;
use serde_json::Value;

use crate::config::STAGE;
use crate::error::Result;
use crate::feed::{Deferral, Deferred, Feed, Judged, Ruling};
pub(super) use crate::marks::milliseconds;
use crate::marks::{Marked, Process, Seen};
use crate::serve::Service;
use crate::serve::modes::Override;
use crate::store::{self, JobId, Overview, RunId, Shown, State, Store};

/// Jobs that are told to need attention, at most.
const ATTENTION: usize = 100;

#[derive(Serialize)]
struct Queue<'a> {
    #[serde(flatten)]
    snapshot: &'a Seen,
    running: BTreeMap<String, Vec<Job<'a>>>,
    counts: Counts,
    policy: Arc<Policy>,
    /// How the mode came to be what it is, if anybody has set it.
    #[serde(rename = "override")]
    set_by: Option<Override>,
    /// Whether no job is started.
    paused: bool,
    now_ms: u64,
    reaper: ReaperStats,
    registry: RegistryStats,
    deferrals: Vec<Arc<Deferral>>,
    kinds: Vec<&'a str>,
    /// Every stage that a job can be in, in the order that it goes through them.
    stages: Vec<&'a str>,
    /// Marks at this moment.
    finalizer_owned: usize,
    /// Jobs left to their owners since the start, once for each sweep.
    finalizer_defers_total: u64,
    /// Jobs redriven since the start, as the store took it.
    redrives_total: u64,
    /// The jobs that the reaper does something with next, the most urgent first.
    attention: Vec<JobId>,
    shutting_down: bool,
    /// Those that share the marks. Of a process by itself nothing is told.
    processes: Vec<Process>,
    /// When the marks were as they are told, at the earliest, where they are shared.
    marks_heard_at_ms: Option<u64>,
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
pub(super) struct Job<'a> {
    pub(super) job: JobId,
    pub(super) kind: String,
    state: State,
    run: Option<RunId>,
    pub(super) stage: String,
    running_ms: u64,
    started_at_ms: u64,
    finished_ms: Option<u64>,
    finished_at_ms: Option<u64>,
    /// Whether its process finished longer ago than its grace.
    pub(super) past_grace: bool,
    redrives: u32,
    pub(super) owner: Option<Whose<'a>>,
    verdict: Option<Current>,
    deferred: Option<LeftAlone>,
    /// What would have been done, in a dry run.
    dry_run: Option<String>,
    next: Option<Next>,
}

/// What the reaper says of a job at present.
#[derive(Serialize)]
struct Current {
    what: Ruling,
    /// What would be done, in a dry run.
    would: Option<String>,
    text: String,
    at_ms: u64,
}

/// What the reaper does next with a job if nothing changes.
#[derive(Serialize)]
struct Next {
    what: String,
    text: String,
    in_ms: u64,
    at_ms: u64,
}

#[derive(Serialize)]
pub(super) struct Whose<'a> {
    generation: Generation,
    /// Where there are several.
    process: Option<&'a str>,
    pub(super) run_id: Option<RunId>,
    stage: &'a str,
    age_ms: u64,
    since_at_ms: u64,
    pulse_age_ms: Option<u64>,
    pulse_at_ms: Option<u64>,
}

#[derive(Serialize)]
struct LeftAlone {
    reason: DeferReason,
    text: String,
    times: u64,
    since_ms: u64,
    since_at_ms: u64,
}

/// The whole state, as JSON.
pub(super) fn queue(service: &Service, store: &mut Store) -> Result<String> {
    with_queue(service, store, |queue| to_json(queue))
}

/// The whole state, as it is compared with the one before.
pub(super) fn state(service: &Service, store: &mut Store) -> Result<Value> {
    // Our own shapes, whose keys are strings: they always can be written.
    with_queue(service, store, |queue| serde_json::to_value(queue).unwrap_or_default())
}

fn with_queue<T>(service: &Service, store: &mut Store, look: impl FnOnce(&Queue<'_>) -> T) -> Result<T> {
    let Overview { now_ms, counts, running } = store.overview()?;
    let (engine, reaper) = (&service.engine, &service.reaper);
    let clock = Clock::now();
    let snapshot = engine.marks.seen();
    let policy = reaper.policy();
    let jobs: Vec<_> =
        running.into_iter().map(|shown| Job::of(shown, now_ms, clock, &policy, &snapshot, engine.feed)).collect();
    let attention = attention(&jobs);
    let mut by_stage = BTreeMap::<_, Vec<_>>::new();
    for job in jobs {
        by_stage.entry(job.stage.clone()).or_default().push(job);
    }
    let stats = reaper.stats();
    let queue = Queue {
        snapshot: &snapshot,
        running: by_stage,
        counts: Counts::of(&counts),
        policy,
        set_by: service.modes.told(),
        paused: engine.shift.is_paused(),
        now_ms,
        reaper: stats,
        registry: engine.marks.stats(),
        deferrals: engine.feed.recent(),
        kinds: engine.config.kind_names().collect(),
        stages: engine.config.stages(),
        finalizer_owned: snapshot.len(),
        finalizer_defers_total: stats.finalizer_defers_total,
        redrives_total: engine.feed.redrives(),
        attention,
        shutting_down: engine.shift.is_ending(),
        processes: engine.marks.processes(),
        marks_heard_at_ms: engine.marks.age().map(|age| clock.now_ms.saturating_sub(milliseconds(age))),
    };
    Ok(look(&queue))
}

/// The running jobs, as the reaper and their owners have them at this moment.
pub(super) fn with_running<T>(
    service: &Service,
    store: &Store,
    look: impl FnOnce(u64, Vec<Job<'_>>) -> T,
) -> Result<T> {
    let Overview { now_ms, running, .. } = store.overview()?;
    let engine = &service.engine;
    let clock = Clock::now();
    let snapshot = engine.marks.seen();
    let policy = service.reaper.policy();
    let jobs =
        running.into_iter().map(|shown| Job::of(shown, now_ms, clock, &policy, &snapshot, engine.feed)).collect();
    Ok(look(now_ms, jobs))
}

/// The jobs that something is done with next, the most urgent first. What a dry run would do is due already.
fn attention(jobs: &[Job<'_>]) -> Vec<JobId> {
    let due = |job: &Job<'_>| match (&job.dry_run, &job.next) {
        (Some(_), _) => Some(0),
        (None, Some(next)) => Some(next.in_ms),
        (None, None) => None,
    };
    let mut due: Vec<_> = jobs.iter().filter_map(|job| Some((due(job)?, job.job))).collect();
    due.sort_unstable();
    due.into_iter().take(ATTENTION).map(|(_, job)| job).collect()
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
    fn of(shown: Shown, now_ms: u64, clock: Clock, policy: &Policy, snapshot: &'a Seen, feed: &Feed) -> Self {
        let Shown { job, kind, run, stage, running_ms, finished_ms, redrives } = shown;
        let owner = snapshot.get(job);
        let stage = match (owner, stage.as_deref()) {
            (Some(owner), _) => owner.value.stage.to_string(),
            (None, None) => "process".to_owned(),
            (None, Some("marked" | "stamped")) => STAGE.to_owned(),
            (None, Some(stage)) => stage.to_owned(),
        };
        // A verdict on an earlier run says nothing of this one.
        let judged = run.and_then(|run| feed.verdict_on(job, run));
        let (verdict, deferred, dry_run, next) = match judged {
            Some(Judged { what, text, at_ms, deferred, dry_run, next, .. }) => {
                let would = dry_run.map(|proposed| proposed.to_string());
                (Some(Current { what, would, text, at_ms }), deferred, dry_run, next)
            }
            None => (None, None, None, None),
        };
        let grace = milliseconds(policy.stage(STAGE).finalize_grace);
        Self {
            job,
            kind,
            state: State::Running,
            run,
            stage,
            running_ms,
            started_at_ms: now_ms.saturating_sub(running_ms),
            finished_ms,
            finished_at_ms: finished_ms.map(|ms| now_ms.saturating_sub(ms)),
            past_grace: finished_ms.is_some_and(|ms| ms > grace),
            redrives,
            owner: owner.map(|owner| Whose::of(owner, clock)),
            verdict,
            deferred: deferred.map(|deferred| LeftAlone::of(deferred, clock)),
            dry_run: dry_run.map(|proposed| proposed.to_string()),
            next: next.map(|next| Next::of(next, clock)),
        }
    }

    /// Whether the job's id, or a part of its kind, its stage or its owner, is what somebody looks for.
    pub(super) fn is_named(&self, sought: &str) -> bool {
        let process = self.owner.as_ref().and_then(|owner| owner.process);
        let owner = self.owner.as_ref().and_then(|owner| owner.run_id).map(|run| format!("run {run}"));
        self.job.to_string() == sought
            || self.kind.contains(sought)
            || self.stage.contains(sought)
            || owner.is_some_and(|owner| owner.contains(sought))
            || process.is_some_and(|process| process.contains(sought))
    }
}

impl<'a> Whose<'a> {
    fn of(owner: &'a Marked, clock: Clock) -> Self {
        let pulse = owner.value.pulse.as_ref().map(|pulse| clock.before(pulse.age()));
        let (age_ms, since_at_ms) = clock.before(owner.age());
        Self {
            generation: owner.generation,
            process: owner.process.as_deref(),
            run_id: owner.value.run_id,
            stage: &owner.value.stage,
            age_ms,
            since_at_ms,
            pulse_age_ms: pulse.map(|(age_ms, _)| age_ms),
            pulse_at_ms: pulse.map(|(_, at_ms)| at_ms),
        }
    }
}

impl LeftAlone {
    fn of(Deferred { reason, text, times, since, .. }: Deferred, clock: Clock) -> Self {
        let (since_ms, since_at_ms) = clock.before(since.elapsed());
        Self { reason, text, times, since_ms, since_at_ms }
    }
}

impl Next {
    fn of((proposed, at): (Proposed, Instant), clock: Clock) -> Self {
        let in_ms = milliseconds(at.saturating_duration_since(clock.at));
        let text = match proposed {
            Proposed::Redrive => "redriven, unless it commits or is marked",
            Proposed::Reap(Cause::Backstop) => "reaped by the backstop, unless it commits",
            Proposed::Reap(Cause::WorkerLost) => "reaped, its worker is lost",
            Proposed::Reap(Cause::RedrivesExhausted) => "reaped, its redrives are exhausted, unless it commits",
        };
        Self { what: proposed.to_string(), text: text.to_owned(), in_ms, at_ms: clock.now_ms.saturating_add(in_ms) }
    }
}

/// Two clocks, read together: what is told by the one is told by the other, and the same each time.
#[derive(Clone, Copy)]
struct Clock {
    now_ms: u64,
    at: Instant,
}

impl Clock {
    fn now() -> Self {
        Self { now_ms: store::now(), at: Instant::now() }
    }

    /// When something was that is so old now, which is later than this clock: how old it was, and when it began.
    fn before(&self, age: Duration) -> (u64, u64) {
        let age_ms = milliseconds(age.saturating_sub(self.at.elapsed()));
        (age_ms, self.now_ms.saturating_sub(age_ms))
    }
}
