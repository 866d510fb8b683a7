//! The commands of an operator: what is stuck and why, what happens next, and how to hold it.

use std::thread;
use std::time::Duration;

use clap::Subcommand;
use orchestrator::client::Client;
use orchestrator::error::{Error, Result};
use orchestrator::show;
use serde_json::{Value, json};

use crate::cli::{At, Look, say};

/// How often it is looked for news.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// News that are read at once.
const AT_ONCE: u64 = 100;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Tells all of one job: who owns it, its verdict, what comes next and when
    Job {
        /// Its id
        id: u64,
        #[command(flatten)]
        look: Look,
    },
    /// Lists jobs, the newest first
    Jobs {
        #[command(flatten)]
        look: Look,
        /// queued, running, merged, rolled_back, reaped, or ended
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Only of this kind
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// Only at this stage
        #[arg(long, value_name = "STAGE")]
        stage: Option<String>,
        /// Only owned by this run, or by `none`
        #[arg(long, value_name = "RUN")]
        owner: Option<String>,
        /// Only past their grace
        #[arg(long)]
        past_grace: bool,
        /// So many at most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
    },
    /// Prints what a job's last gate has printed, or one gate, or the process of a run
    Output {
        /// Its id
        id: u64,
        /// The number of a gate's row
        #[arg(long, value_name = "N")]
        task: Option<u64>,
        /// The number of a run
        #[arg(long, value_name = "N")]
        run: Option<u64>,
        /// Where the service is [default: ORCHESTRATOR_URL, or http://127.0.0.1:7447]
        #[arg(long, value_name = "URL")]
        url: Option<String>,
    },
    /// Tells what happened, the oldest first
    History {
        #[command(flatten)]
        look: Look,
        /// Only of this job
        #[arg(long, value_name = "ID")]
        job: Option<u64>,
        /// run, verdict, redrive, reap, mode, action, or trouble
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// The latest so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
    },
    /// Tells what happens, until it is stopped
    Tail {
        #[command(flatten)]
        look: Look,
    },
    /// Shows the reaper's mode, or puts one in force
    Mode {
        /// honor, defer-all, dry-run, or ignore
        name: Option<String>,
        /// Only for so long: 90s, 15m, 1h30m
        #[arg(long = "for", value_name = "TIME", requires = "name")]
        during: Option<String>,
        /// Do it, though live jobs would be redriven
        #[arg(long, requires = "name")]
        yes: bool,
        #[command(flatten)]
        who: Who,
    },
    /// Starts no queued job until `resume`
    Pause {
        #[command(flatten)]
        who: Who,
    },
    /// Starts queued jobs again
    Resume {
        #[command(flatten)]
        who: Who,
    },
    /// Submits a job again that was reaped or rolled back
    Requeue {
        /// Its id
        id: u64,
        #[command(flatten)]
        who: Who,
    },
    /// Ends a job now, as the backstop would
    End {
        /// Its id
        id: u64,
        /// Noted with it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        who: Who,
    },
    /// Clears exactly one mark of a job
    Clear {
        /// The job
        id: u64,
        /// The generation of its mark, which `job` shows
        #[arg(long, value_name = "G")]
        generation: u64,
        #[command(flatten)]
        who: Who,
    },
}

/// Who asks for a change, and where.
#[derive(clap::Args)]
pub(crate) struct Who {
    #[command(flatten)]
    at: At,
    /// Who does it [default: USER]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// The answer as JSON, for scripts
    #[arg(long)]
    json: bool,
}

impl Who {
    fn named(&self) -> Option<String> {
        let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
        self.by.clone().or_else(user)
    }
}

/// Does it. Returns `false` for a mode that was not put in force.
pub(crate) fn run(command: Command) -> Result<bool> {
    match command {
        Command::Job { id, look } => shown(&look, &format!("/jobs/{id}"), show::job)?,
        Command::Jobs { look, state, kind, stage, owner, past_grace, limit } => {
            let mut query = form(&[
                ("state", state),
                ("kind", kind),
                ("stage", stage),
                ("owner", owner),
                ("limit", Some(limit.to_string())),
            ]);
            if past_grace {
                query.push_str("&past_grace=true");
            }
            shown(&look, &format!("/jobs?{query}"), show::jobs)?;
        }
        Command::Output { id, task, run, url } => {
            let query = form(&[("task", task.map(|task| task.to_string())), ("run", run.map(|run| run.to_string()))]);
            let text = Client::new(&super::url(url), None).get(&format!("/jobs/{id}/output?{query}"))?;
            say(text.trim_end_matches('\n'))?;
        }
        Command::History { look, job, kind, limit } => {
            let query =
                form(&[("job", job.map(|job| job.to_string())), ("kind", kind), ("limit", Some(limit.to_string()))]);
            shown(&look, &format!("/history?{query}"), show::history)?;
        }
        Command::Tail { look } => tail(&look)?,
        Command::Mode { name: None, who, .. } => {
            let client = who.at.client()?;
            let queue = client.json(&client.queue_json()?)?;
            let told =
                json!({ "mode": queue["policy"]["mode"], "override": queue["override"], "now_ms": queue["now_ms"] });
            say(if who.json { told.to_string() } else { show::mode(&told) })?;
        }
        Command::Mode { name: Some(name), during, yes, who } => return put_mode(&name, during, yes, who),
        Command::Pause { who } => {
            let body = json!({ "paused": true, "by": who.named() });
            change(who, "PUT", "/submission", body, |_| "paused: no queued job is started".to_owned())?;
        }
        Command::Resume { who } => {
            let body = json!({ "paused": false, "by": who.named() });
            change(who, "PUT", "/submission", body, |_| "resumed: queued jobs are started".to_owned())?;
        }
        Command::Requeue { id, who } => {
            let body = json!({ "by": who.named() });
            let told = |answer: &Value| format!("job {id} is submitted again as job {}", answer["jobs"][0]);
            change(who, "POST", &format!("/jobs/{id}/requeue"), body, told)?;
        }
        Command::End { id, reason, who } => {
            let body = json!({ "by": who.named(), "reason": reason });
            let told = |answer: &Value| format!("job {id} is {}", answer["state"].as_str().unwrap_or_default());
            change(who, "POST", &format!("/jobs/{id}/end"), body, told)?;
        }
        Command::Clear { id, generation, who } => {
            let query = form(&[("generation", Some(generation.to_string())), ("by", who.named())]);
            let told = |_: &Value| format!("the mark of job {id}, generation {generation}, is cleared");
            change(who, "DELETE", &format!("/jobs/{id}/mark?{query}"), json!({}), told)?;
        }
    }
    Ok(true)
}

fn shown(look: &Look, path: &str, show: impl FnOnce(&Value) -> String) -> Result<()> {
    let client = look.client();
    let text = client.get(path)?;
    if look.json { say(text.trim_end()) } else { say(show(&client.json(&text)?).trim_end()) }
}

fn change(who: Who, method: &str, path: &str, mut body: Value, told: impl FnOnce(&Value) -> String) -> Result<()> {
    // What is not known is not said.
    if let Some(body) = body.as_object_mut() {
        body.retain(|_, value| !value.is_null());
    }
    let json = who.json;
    let client = who.at.client()?;
    let text = client.change(method, path, &body)?;
    let answer = client.json(&text)?;
    if let Some(warning) = answer["warning"].as_str() {
        eprintln!("orchestrator: {warning}");
    }
    say(if json { text } else { told(&answer) })
}

/// Puts a mode in force, unless that would redrive live jobs and nobody said that it may.
fn put_mode(name: &str, during: Option<String>, yes: bool, who: Who) -> Result<bool> {
    let mode = name.to_lowercase().replace(['-', ' '], "_");
    let (by, json) = (who.named(), who.json);
    let client = who.at.client()?;
    let preview = client.get(&format!("/policy/preview?{}", form(&[("mode", Some(mode.clone()))])))?;
    let preview = client.json(&preview)?;
    let text = preview["text"].as_str().unwrap_or_default();
    if preview["live"].as_array().is_some_and(|live| !live.is_empty()) && !yes {
        eprintln!("orchestrator: {text}: nothing is changed without --yes");
        return Ok(false);
    }
    let mut body = json!({ "mode": mode });
    body["for"] = during.map_or(Value::Null, Value::from);
    body["by"] = by.map_or(Value::Null, Value::from);
    if let Some(body) = body.as_object_mut() {
        body.retain(|_, value| !value.is_null());
    }
    client.change("PUT", "/policy", &body)?;
    let queue = client.json(&client.queue_json()?)?;
    let told = json!({ "mode": queue["policy"]["mode"], "override": queue["override"], "now_ms": queue["now_ms"], "preview": preview });
    say(if json { told.to_string() } else { show::mode(&told) })?;
    Ok(true)
}

/// Prints news as they come. A service that does not answer may come back.
fn tail(look: &Look) -> Result<()> {
    let client = look.client();
    let latest = client.json(&client.get("/history?limit=1")?)?;
    let mut last = latest["events"][0]["id"].as_u64().unwrap_or(0);
    let mut lost = false;
    loop {
        match client.get(&format!("/history?limit={AT_ONCE}")).and_then(|text| client.json(&text)) {
            Ok(page) => {
                if lost {
                    eprintln!("orchestrator: the service answers again");
                    lost = false;
                }
                let events = page["events"].as_array().cloned().unwrap_or_default();
                let news: Vec<_> = events.iter().rev().filter(|event| event["id"].as_u64() > Some(last)).collect();
                if news.len() as u64 == AT_ONCE && last > 0 {
                    eprintln!("orchestrator: more happened than is told here: see history");
                }
                for event in news {
                    last = event["id"].as_u64().unwrap_or(last);
                    say(if look.json { event.to_string() } else { show::event(event) })?;
                }
            }
            Err(error @ Error::Unreachable { .. }) => {
                if !lost {
                    eprintln!("orchestrator: {error}: trying again");
                    lost = true;
                }
            }
            Err(error) => return Err(error),
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// What follows the `?`.
fn form(values: &[(&str, Option<String>)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in values {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    form.finish()
}
