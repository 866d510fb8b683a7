//! Settings: laid key by key over the built-in ones, and refused where they make no sense.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use orchestrator::config::{Config, REPLAY, SERVE};
use orchestrator::error::Result;
use tempfile::TempDir;

fn load(text: &str) -> Result<Config> {
    let directory = TempDir::new().unwrap();
    let path: PathBuf = directory.path().join("settings.toml");
    fs::write(&path, text).unwrap();
    Config::load(Some(&path), SERVE)
}

fn gates(config: &Config, kind: &str) -> Vec<String> {
    config.kind(kind).unwrap().gates.iter().map(|gate| gate.name.clone()).collect()
}

/// Seen to fail with sections that replace each other as a whole: the file was refused for want of the other limits.
#[test]
fn one_limit_leaves_the_others_as_they_are() {
    let built_in = Config::load(None, SERVE).unwrap();
    let config = load("[limits]\nhard_deadline = 30\n").unwrap();
    assert_eq!(config.limits.hard_deadline, Duration::from_secs(30));
    assert_eq!(config.limits.finalize_grace, built_in.limits.finalize_grace);
    assert_eq!(config.limits.monitors, built_in.limits.monitors);
    assert_eq!(config.limits.max_redrives, Some(3));
    assert_eq!(gates(&config, "red"), ["build", "test"], "the built-in kinds stay");
    assert_eq!(Config::load(None, REPLAY).unwrap().limits.monitors, 8);
}

#[test]
fn a_kind_replaces_what_it_names() {
    let config =
        load("[kinds.red]\njob.command = ['true']\n[kinds.new]\ngates = [{ name = 'a', command = ['true'] }]\n")
            .unwrap();
    assert_eq!(config.kind("red").unwrap().job.command, ["true"]);
    assert_eq!(gates(&config, "red"), ["build", "test"], "its gates are not named");
    assert_eq!(gates(&config, "new"), ["a"]);
    assert_eq!(config.kind("new").unwrap().job.command, ["sleep", "0.8"], "as in the default kind");
    assert_eq!(gates(&config, "hang"), ["build", "test"]);
}

/// Seen to fail with times of any length: such settings were taken.
#[test]
fn absurd_values_are_refused_by_name_and_range() {
    for (limit, reason) in [
        ("sweep_every = 1e-9", "line 2: 0.000000001 is no time for it: from 0.001 to 31536000 seconds"),
        ("sweep_every = 0", "line 2: 0 is no time"),
        ("sweep_every = -1", "line 2: -1 is no time"),
        ("process = nan", "line 2: NaN is no time"),
        ("process = inf", "line 2: inf is no time"),
        ("hard_deadline = 1e300", "is no time for it"),
        ("stale_after = 1e-4", "line 2: 0.0001 is no time"),
        ("shutdown = -0.5", "line 2: -0.5 is no time for it: from 0 to 31536000 seconds"),
        ("monitors = 0", "line 2: 0 monitors: there may be from 1 to 256"),
        ("monitors = 257", "line 2: 257 monitors"),
        ("monitors = -3", "line 2: -3 monitors"),
        ("max_redrives = -1", "line 2: "),
        ("finalize_grace = \"5s\"", "line 2: invalid type: string \"5s\""),
        ("finalize_grace = 20", "limits: "),
        ("finalise_grace = 2", "line 2: unknown field `finalise_grace`, expected one of `finalize_grace`"),
    ] {
        let error = load(&format!("[limits]\n{limit}\n")).unwrap_err().to_string();
        assert!(error.contains(reason), "{limit}: {error}");
    }
    assert_eq!(load("[limits]\nshutdown = 0\n").unwrap().limits.shutdown, Duration::ZERO);
}
