//! Settings: a small TOML file (`default.toml` is both the default and the documentation).

use std::fs;
use std::path::Path;
use std::time::Duration;

use livemark::{Mode, Policy, PolicyError};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};

/// The one stage our jobs have; declared to the reaper as a stage whose monitors mark.
pub const STAGE: &str = "finalize";

const DEFAULT: &str = include_str!("../default.toml");

/// What to run, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time limits.
    pub limits: Limits,
    /// The job's own process.
    pub job: Command,
    /// The gates of a finalization, in order.
    pub gates: Vec<Gate>,
}

/// Time limits, in seconds in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Past this, a finished job looks dead to the reaper.
    #[serde(deserialize_with = "seconds")]
    pub finalize_grace: Duration,
    /// Past this, a running job is reaped, owned or not.
    #[serde(deserialize_with = "seconds")]
    pub hard_deadline: Duration,
    /// Pause between two sweeps.
    #[serde(deserialize_with = "seconds")]
    pub sweep_every: Duration,
    /// Limit of a job's process and of each gate.
    #[serde(deserialize_with = "seconds")]
    pub process: Duration,
}

/// A program with its arguments.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program, then arguments.
    pub command: Vec<String>,
}

/// One check of a finalization.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// What logs call it.
    pub name: String,
    /// Program, then arguments; green if it exits with 0.
    pub command: Vec<String>,
}

/// The file: every section may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    limits: Option<Limits>,
    job: Option<Command>,
    gates: Option<Vec<Gate>>,
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

impl Config {
    /// Reads `path`, or takes the built-in settings if there is none.
    pub fn load(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Self::parse("");
        };
        let told = |reason| Error::Config { path: path.to_owned(), reason };
        let text = fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
        Self::parse(&text).map_err(|error| match error {
            Error::Config { reason, .. } => told(reason),
            other => other,
        })
    }

    /// Lays the sections of `text` over the built-in ones.
    fn parse(text: &str) -> Result<Self> {
        let told = |reason| Error::Config { path: "default.toml".into(), reason };
        let file = |text| toml::from_str::<File>(text).map_err(|error| told(located(text, &error)));
        let (given, default) = (file(text)?, file(DEFAULT)?);
        let config = Self {
            limits: given.limits.or(default.limits).ok_or_else(|| told("no limits".into()))?,
            job: given.job.or(default.job).ok_or_else(|| told("no job".into()))?,
            gates: given.gates.or(default.gates).ok_or_else(|| told("no gates".into()))?,
        };
        config.check().map_err(told)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.gates.is_empty() {
            return Err("at least one gate is needed".into());
        }
        let gates = self.gates.iter().map(|gate| (gate.name.as_str(), &gate.command));
        for (name, command) in gates.chain([("job", &self.job.command)]) {
            if command.is_empty() {
                return Err(format!("{name}: the command is empty"));
            }
        }
        if self.limits.sweep_every.is_zero() || self.limits.process.is_zero() {
            return Err("limits: sweep_every and process must be more than zero".into());
        }
        // The library knows best which limits cannot work together.
        self.policy(Mode::Honor).map(drop).map_err(|error| format!("limits: {error}"))
    }

    /// The reaper's policy under these limits.
    pub fn policy(&self, mode: Mode) -> Result<Policy, PolicyError> {
        Policy::builder()
            .mode(mode)
            .finalize_grace(self.limits.finalize_grace)
            .hard_deadline(self.limits.hard_deadline)
            .marking_stage(STAGE)
            .build()
    }
}

/// The parser's message in one line, with the line it is about.
fn located(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}
