//! The command-line face of a running service: submits jobs, and shows the queue to people (80 columns) or scripts.

use std::collections::BTreeMap;
use std::fmt;

use minreq::{Method, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::show;
use crate::store::JobId;

/// Where a service is, if nothing else is said.
pub const URL: &str = "http://127.0.0.1:7447";
/// Seconds until a service counts as not answering.
const PATIENCE: u64 = 10;

/// A running service.
#[derive(Clone, Debug)]
pub struct Client {
    url: String,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Submitted {
    jobs: Vec<JobId>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl Client {
    /// The service at `url`.
    pub fn new(url: &str, token: Option<String>) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), token }
    }

    /// Submits jobs, and tells their ids.
    pub fn submit(&self, kind: Option<&str>, count: u64) -> Result<Vec<JobId>> {
        let mut body = json!({ "count": count });
        if let Some(kind) = kind {
            body["kind"] = kind.into();
        }
        let answer = self.change("POST", "/jobs", &body)?;
        serde_json::from_str::<Submitted>(&answer).map(|submitted| submitted.jobs).map_err(|_| self.not_ours())
    }

    /// The queue, as JSON.
    pub fn queue_json(&self) -> Result<String> {
        self.get("/queue")
    }

    /// The queue, for people.
    pub fn queue(&self) -> Result<Queue> {
        serde_json::from_str(&self.queue_json()?).map_err(|_| self.not_ours())
    }

    /// Asks for something.
    pub fn get(&self, path: &str) -> Result<String> {
        self.ask(minreq::get(format!("{}{path}", self.url)))
    }

    /// Changes something.
    pub fn change(&self, method: &str, path: &str, body: &Value) -> Result<String> {
        let mut request = Request::new(Method::Custom(method.to_owned()), format!("{}{path}", self.url));
        request = request.with_header("Content-Type", "application/json").with_body(body.to_string());
        if let Some(token) = &self.token {
            request = request.with_header("Authorization", format!("Bearer {token}"));
        }
        self.ask(request)
    }

    /// Reads what it said.
    pub fn json(&self, answer: &str) -> Result<Value> {
        serde_json::from_str(answer).map_err(|_| self.not_ours())
    }

    fn ask(&self, request: Request) -> Result<String> {
        let answer = request.with_timeout(PATIENCE).send().map_err(|error| {
            let reason = match error {
                minreq::Error::IoError(error) => error.to_string(),
                other => other.to_string(),
            };
            Error::Unreachable { url: self.url.clone(), reason }
        })?;
        let body = answer.as_str().map_err(|_| self.not_ours())?;
        if (200..300).contains(&answer.status_code) {
            return Ok(body.to_owned());
        }
        let reason = match serde_json::from_str::<Refused>(body) {
            Ok(refused) => refused.error,
            Err(_) => format!("status {}", answer.status_code),
        };
        Err(Error::Server { url: self.url.clone(), reason })
    }

    fn not_ours(&self) -> Error {
        Error::Server { url: self.url.clone(), reason: "this is not an orchestrator's answer".to_owned() }
    }
}

/// What the table shows of a queue. `Display` is that table.
#[derive(Clone, Debug, Deserialize)]
pub struct Queue {
    running: BTreeMap<String, Vec<Job>>,
    counts: Counts,
    policy: Policy,
    #[serde(default)]
    paused: bool,
    #[serde(rename = "override")]
    set_by: Option<SetBy>,
    now_ms: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct SetBy {
    by: String,
    until_at_ms: Option<u64>,
    then: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Job {
    job: JobId,
    kind: String,
    stage: String,
    running_ms: u64,
    finished_ms: Option<u64>,
    owner: Option<Owner>,
    deferred: Option<Deferred>,
    dry_run: Option<String>,
    next: Option<Next>,
}

#[derive(Clone, Debug, Deserialize)]
struct Owner {
    run_id: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Deferred {
    reason: String,
    times: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Next {
    what: String,
    in_ms: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Counts {
    queued: u64,
    running: u64,
    merged: u64,
    rolled_back: u64,
    reaped: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Policy {
    mode: String,
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { queued, running, merged, rolled_back, reaped } = self.counts;
        let paused = if self.paused { ", paused" } else { "" };
        writeln!(f, "mode {}: {queued} queued{paused}, {running} running", self.policy.mode)?;
        if let Some(SetBy { by, until_at_ms: Some(until), then }) = &self.set_by {
            let left = show::length(until.saturating_sub(self.now_ms).div_ceil(1000) * 1000);
            writeln!(f, "set by {}, until {} (in {left}), then {then}", show::cut(by, 20), show::clock(*until))?;
        }
        writeln!(f, "ended: {merged} merged, {rolled_back} rolled back, {reaped} reaped")?;
        let mut jobs: Vec<_> = self.running.values().flatten().collect();
        jobs.sort_by_key(|job| job.job);
        if !jobs.is_empty() {
            writeln!(f, "\n{}", Line(["job", "kind", "stage", "running", "finished", "owner", "deferred", "next"]))?;
        }
        for Job { job, kind, stage, running_ms, finished_ms, owner, deferred, dry_run, next } in jobs {
            let owner = match owner {
                Some(Owner { run_id: Some(run) }) => format!("run {run}"),
                Some(Owner { run_id: None }) => "a claim".to_owned(),
                None => "-".to_owned(),
            };
            let deferred = match (deferred, dry_run) {
                (Some(Deferred { reason, times }), _) => format!("{times}x {}", reason.replace('_', " ")),
                (None, Some(proposed)) => format!("would {}", act(proposed)),
                (None, None) => "-".to_owned(),
            };
            let next = next
                .as_ref()
                .map_or_else(|| "-".to_owned(), |Next { what, in_ms }| format!("{} {}", act(what), whole_age(*in_ms)));
            let (job, running) = (job.to_string(), show::length(*running_ms));
            let finished = finished_ms.map_or_else(|| "-".to_owned(), show::length);
            writeln!(f, "{}", Line([&job, kind, stage, &running, &finished, &owner, &deferred, &next]))?;
        }
        Ok(())
    }
}

/// One line of the table: fits 80 columns, whatever it is given.
struct Line<'a>([&'a str; 8]);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [job, kind, stage, running, finished, owner, deferred, next] = self.0;
        let line = format!(
            "{:>6} {:<8} {:<10} {:>7} {:>8} {:<8} {:<13} {}",
            job,
            show::cut(kind, 8),
            show::cut(stage, 10),
            running,
            finished,
            show::cut(owner, 8),
            show::cut(deferred, 13),
            show::cut(next, 13),
        );
        f.write_str(line.trim_end())
    }
}

/// What is done, without its cause.
fn act(proposed: &str) -> &str {
    proposed.split_once(',').map_or(proposed, |(act, _cause)| act)
}

/// An age without tenths.
fn whole_age(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..100 => format!("{seconds}s"),
        seconds @ 100..6000 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}
