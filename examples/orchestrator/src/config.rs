//! Settings: small TOML files (`default.toml` and `serve.toml` are both the defaults and the documentation).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use livemark::{Mode, Policy, PolicyError};
use serde::{Deserialize, Deserializer};

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::store::DEFAULT_KIND;

/// The one stage our jobs have; declared to the reaper as a stage whose monitors mark.
pub const STAGE: &str = "finalize";
/// Where a job is before it is finalized.
pub const PROCESS: &str = "process";
/// What the mark says while the job is being committed.
pub const COMMIT: &str = "commit";
/// Stages that are no gates.
const NOT_GATES: [&str; 5] = [STAGE, COMMIT, PROCESS, "marked", "stamped"];

/// Each has a thread, a connection to the job store, and descriptors for its command.
const MONITORS: usize = 256;

/// Built-in settings, which a file is laid over.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    name: &'static str,
    text: &'static str,
}

/// Those of the replay.
pub const REPLAY: Builtin = Builtin { name: "default.toml", text: include_str!("../default.toml") };
/// Those of the service.
pub const SERVE: Builtin = Builtin { name: "serve.toml", text: include_str!("../serve.toml") };

/// What to run, and how long to wait for it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time limits.
    pub limits: Limits,
    /// What jobs run that say nothing else.
    pub default_kind: Kind,
    /// The other kinds, by name.
    pub kinds: BTreeMap<String, Kind>,
    /// What commands find in their environment.
    pub environment: Environment,
}

/// What a kind of job runs.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The job's own process.
    pub job: Command,
    /// The gates of a finalization, in order.
    pub gates: Vec<Gate>,
}

/// Limits of time and number.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Past this, a finished job looks dead to the reaper.
    pub finalize_grace: Duration,
    /// Past this, a job whose monitor ended before its process did is reaped. As `finalize_grace`, if not given.
    pub lost_grace: Option<Duration>,
    /// Past this, a running job is reaped, owned or not.
    pub hard_deadline: Duration,
    /// How often a job is redriven at most. As the library has it, if not given.
    pub max_redrives: Option<u32>,
    /// From the begin of one sweep to that of the next.
    pub sweep_every: Duration,
    /// Limit of a job's process and of each gate.
    pub process: Duration,
    /// An owner that made no step for so long counts as dead.
    pub stale_after: Option<Duration>,
    /// For so long after its start, the reaper only watches.
    pub boot_grace: Option<Duration>,
    /// Jobs of a service that run at the same time.
    pub monitors: usize,
    /// How long a service that is asked to end waits for its running jobs.
    pub shutdown: Duration,
    /// How long a service keeps what has ended. For ever, if not given.
    pub keep: Option<Duration>,
}

/// The same in a file: the times in seconds, and what is left out is as it is built in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsInFile {
    finalize_grace: Option<Seconds>,
    lost_grace: Option<Seconds>,
    hard_deadline: Option<Seconds>,
    max_redrives: Option<u32>,
    sweep_every: Option<Seconds>,
    process: Option<Seconds>,
    stale_after: Option<Seconds>,
    boot_grace: Option<Seconds>,
    monitors: Option<Monitors>,
    shutdown: Option<Shutdown>,
    keep: Option<Seconds>,
}

impl LimitsInFile {
    const NONE: Self = Self {
        finalize_grace: None,
        lost_grace: None,
        hard_deadline: None,
        max_redrives: None,
        sweep_every: None,
        process: None,
        stale_after: None,
        boot_grace: None,
        monitors: None,
        shutdown: None,
        keep: None,
    };

    /// Takes from `built_in` what is not given.
    fn over(self, built_in: Self) -> Option<Limits> {
        /// As the settings of the service have them. A replay needs neither.
        const MONITORS: usize = 8;
        const SHUTDOWN: Duration = Duration::from_secs(10);
        let either = |given: Option<Seconds>, built_in: Option<Seconds>| given.or(built_in).map(|seconds| seconds.0);
        Some(Limits {
            finalize_grace: either(self.finalize_grace, built_in.finalize_grace)?,
            lost_grace: either(self.lost_grace, built_in.lost_grace),
            hard_deadline: either(self.hard_deadline, built_in.hard_deadline)?,
            max_redrives: self.max_redrives.or(built_in.max_redrives),
            sweep_every: either(self.sweep_every, built_in.sweep_every)?,
            process: either(self.process, built_in.process)?,
            stale_after: either(self.stale_after, built_in.stale_after),
            boot_grace: either(self.boot_grace, built_in.boot_grace),
            monitors: self.monitors.or(built_in.monitors).map_or(MONITORS, |monitors| monitors.0),
            shutdown: self.shutdown.or(built_in.shutdown).map_or(SHUTDOWN, |shutdown| shutdown.0),
            keep: either(self.keep, built_in.keep),
        })
    }
}

/// A time that means something to a scheduler: no typing error of powers of ten.
#[derive(Clone, Copy)]
struct Seconds(Duration);
/// A time that may be none at all.
#[derive(Clone, Copy)]
struct Shutdown(Duration);
/// A number of threads.
#[derive(Clone, Copy)]
struct Monitors(usize);

/// From a thousandth of a second to a year.
const SHORTEST: f64 = 0.001;
const LONGEST: f64 = 31_536_000.0;

fn seconds(given: f64, shortest: f64) -> Result<Duration, String> {
    let fits = (shortest..=LONGEST).contains(&given);
    let duration = Duration::try_from_secs_f64(given).ok().filter(|_| fits);
    duration.ok_or_else(|| format!("{given} is no time for it: from {shortest} to {LONGEST} seconds"))
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        seconds(f64::deserialize(deserializer)?, SHORTEST).map(Self).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Shutdown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        seconds(f64::deserialize(deserializer)?, 0.0).map(Self).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Monitors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = i64::deserialize(deserializer)?;
        let monitors = usize::try_from(given).ok().filter(|monitors| (1..=MONITORS).contains(monitors));
        let told = || serde::de::Error::custom(format!("{given} monitors: there may be from 1 to {MONITORS}"));
        monitors.map(Self).ok_or_else(told)
    }
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

/// The file: every section may be left out, and every key of one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    limits: Option<LimitsInFile>,
    job: Option<Command>,
    gates: Option<Vec<Gate>>,
    #[serde(default)]
    kinds: BTreeMap<String, KindInFile>,
    environment: Option<Environment>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindInFile {
    job: Option<Command>,
    gates: Option<Vec<Gate>>,
}

impl Config {
    /// Reads `path`, or takes the built-in settings if there is none.
    pub fn load(path: Option<&Path>, builtin: Builtin) -> Result<Self> {
        let Some(path) = path else {
            return Self::parse("", builtin);
        };
        let told = |reason| Error::Config { path: path.to_owned(), reason };
        let text = fs::read_to_string(path).map_err(|error| told(error.to_string()))?;
        Self::parse(&text, builtin).map_err(|error| match error {
            Error::Config { reason, .. } => told(reason),
            other => other,
        })
    }

    /// Lays the keys of `text` over the built-in ones.
    fn parse(text: &str, builtin: Builtin) -> Result<Self> {
        let told = |reason| Error::Config { path: builtin.name.into(), reason };
        let file = |text| toml::from_str::<File>(text).map_err(|error| told(located(text, &error)));
        let (given, default) = (file(text)?, file(builtin.text)?);
        let default_kind = Kind {
            job: given.job.or(default.job).ok_or_else(|| told("no job".into()))?,
            gates: given.gates.or(default.gates).ok_or_else(|| told("no gates".into()))?,
        };
        // A kind of the same name replaces what it names of the built-in one.
        let mut in_files = default.kinds;
        for (name, KindInFile { job, gates }) in given.kinds {
            let kind = in_files.entry(name).or_default();
            *kind = KindInFile { job: job.or(kind.job.take()), gates: gates.or(kind.gates.take()) };
        }
        let kinds = in_files.into_iter().map(|(name, kind)| {
            let Kind { job, gates } = default_kind.clone();
            (name, Kind { job: kind.job.unwrap_or(job), gates: kind.gates.unwrap_or(gates) })
        });
        let built_in = default.limits.ok_or_else(|| told("no limits".into()))?;
        let limits = given.limits.unwrap_or(LimitsInFile::NONE).over(built_in);
        let config = Self {
            limits: limits.ok_or_else(|| told("a limit is missing".into()))?,
            kinds: kinds.collect(),
            environment: given.environment.or(default.environment).unwrap_or_default(),
            default_kind,
        };
        config.check().map_err(told)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        self.default_kind.check("")?;
        self.environment.check()?;
        for (name, kind) in &self.kinds {
            if name == DEFAULT_KIND {
                return Err("kinds.default: the default kind is `job` and `gates`".into());
            }
            kind.check(&format!("kinds.{name}: "))?;
        }
        // The library knows best which limits cannot work together.
        self.policy(Mode::Honor).map(drop).map_err(|error| format!("limits: {error}"))
    }

    /// What jobs of this kind run.
    pub fn kind(&self, name: &str) -> Option<&Kind> {
        if name == DEFAULT_KIND { Some(&self.default_kind) } else { self.kinds.get(name) }
    }

    /// Every kind's name.
    pub fn kind_names(&self) -> impl Iterator<Item = &str> {
        [DEFAULT_KIND].into_iter().chain(self.kinds.keys().map(String::as_str))
    }

    /// Every stage that a job of some kind goes through, in order. The gates of the default kind come first.
    pub fn stages(&self) -> Vec<&str> {
        let mut stages = vec![PROCESS, STAGE];
        let mut gates = Vec::new();
        for kind in [&self.default_kind].into_iter().chain(self.kinds.values()) {
            // What a kind has between two gates that are known already belongs between them.
            let mut at = 0;
            for gate in &kind.gates {
                match gates.iter().position(|known| *known == gate.name) {
                    Some(known) => at = known + 1,
                    None => {
                        gates.insert(at, gate.name.as_str());
                        at += 1;
                    }
                }
            }
        }
        stages.extend(gates);
        stages.push(COMMIT);
        stages
    }

    /// The reaper's policy under these limits.
    pub fn policy(&self, mode: Mode) -> Result<Policy, PolicyError> {
        let &Limits { finalize_grace, lost_grace, hard_deadline, max_redrives, stale_after, boot_grace, .. } =
            &self.limits;
        let mut policy = Policy::builder()
            .mode(mode)
            .finalize_grace(finalize_grace)
            .lost_grace(lost_grace.unwrap_or(finalize_grace))
            .hard_deadline(hard_deadline)
            .marking_stage(STAGE);
        if let Some(max_redrives) = max_redrives {
            policy = policy.max_redrives(max_redrives);
        }
        if let Some(stale_after) = stale_after {
            policy = policy.stale_after(stale_after);
        }
        if let Some(boot_grace) = boot_grace {
            policy = policy.boot_grace(boot_grace);
        }
        policy.build()
    }
}

impl Kind {
    fn check(&self, whose: &str) -> Result<(), String> {
        if self.gates.is_empty() {
            return Err(format!("{whose}at least one gate is needed"));
        }
        let gates = self.gates.iter().map(|gate| (gate.name.as_str(), &gate.command));
        for (name, command) in gates.chain([("job", &self.job.command)]) {
            if command.is_empty() {
                return Err(format!("{whose}{name}: the command is empty"));
            }
        }
        match self.gates.iter().find(|gate| NOT_GATES.contains(&gate.name.as_str())) {
            Some(gate) => Err(format!("{whose}a gate cannot be called {:?}, which is another stage", gate.name)),
            None => Ok(()),
        }
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
