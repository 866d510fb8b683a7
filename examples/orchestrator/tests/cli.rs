//! Every way to refuse, by the real binary: one clear line on stderr, exit code 2, nothing written.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use orchestrator::store::Database;
use rusqlite::Connection;
use tempfile::TempDir;

fn orchestrator(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orchestrator")).args(arguments).output().unwrap()
}

#[track_caller]
fn refuses(arguments: &[&str], reason: &str) {
    let output = orchestrator(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("orchestrator: "), "{stderr}");
    assert!(stderr.contains(reason), "{stderr}");
}

/// Refuses a database, and leaves the file as it is.
#[track_caller]
fn refuses_database(path: &Path, reason: &str) {
    let before = fs::read(path).unwrap();
    refuses(&["--db", path.to_str().unwrap()], reason);
    assert_eq!(fs::read(path).unwrap(), before);
}

#[track_caller]
fn refuses_config(toml: &str, reason: &str) {
    let directory = TempDir::new().unwrap();
    let (config, db) = (directory.path().join("config.toml"), directory.path().join("jobs.db"));
    fs::write(&config, toml).unwrap();
    refuses(&["--db", db.to_str().unwrap(), "--config", config.to_str().unwrap()], reason);
    assert!(!db.exists(), "the settings are read first");
}

#[test]
fn usage() {
    refuses(&["--no-such-option"], "--no-such-option");
    refuses(&["replay"], "replay");
    refuses(&["--db"], "--db");
    refuses(&["--db", ""], "empty");
}

#[test]
fn help() {
    let output = orchestrator(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--db PATH") && text.contains("--config PATH"), "{text}");
}

#[test]
fn missing_directory() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("missing");
    refuses(&["--db", missing.join("jobs.db").to_str().unwrap()], "no such directory");
    assert!(!missing.exists());
}

#[test]
fn directory_for_a_file() {
    let directory = TempDir::new().unwrap();
    refuses(&["--db", directory.path().to_str().unwrap()], "unable to open database file");
}

#[test]
fn not_a_database() {
    let directory = TempDir::new().unwrap();
    for (name, content) in [("short", "text".to_owned()), ("long", "more text\n".repeat(1000))] {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        refuses_database(&path, "not a database");
    }
}

#[test]
fn database_of_another_program() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("other.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE jobs (id INTEGER PRIMARY KEY);").unwrap();
    refuses_database(&path, "another program");

    // Also if it has no tables yet, but says whose it is.
    let path = directory.path().join("claimed.db");
    Connection::open(&path).unwrap().pragma_update(None, "application_id", 7).unwrap();
    refuses_database(&path, "another program");
}

#[test]
fn schema_of_another_version() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("jobs.db");
    Database::open(&path).unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    refuses_database(&path, "another program");
}

#[test]
fn locked_database() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("new.db");
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    refuses(&["--db", path.to_str().unwrap()], "locked by another process");

    // One of ours, in WAL mode, is readable then, but not writable.
    let path = directory.path().join("ours.db");
    Database::open(&path).unwrap();
    let holder = Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    refuses(&["--db", path.to_str().unwrap()], "locked by another process");
}

#[test]
fn bad_toml() {
    refuses_config("[limits\n", "line 1");
    refuses_config("\n[[gates]]\nname = 5\ncommand = ['true']\n", "line 3");
    refuses_config("[[gates]]\nname = 'a'\ncommand = ['true']\ncolour = 'red'\n", "colour");
    refuses_config("[no_such_section]\n", "no_such_section");
    refuses_config("[limits]\nfinalize_grace = 1\n", "hard_deadline");
    refuses_config("gates = []\n", "at least one gate");
    refuses_config("[job]\ncommand = []\n", "job: the command is empty");
    refuses_config("[[gates]]\nname = 'a'\ncommand = []\n", "a: the command is empty");
}

#[test]
fn limits_that_cannot_work() {
    let limits = |grace: &str, deadline: &str, sweep: &str| {
        format!("[limits]\nfinalize_grace = {grace}\nhard_deadline = {deadline}\nsweep_every = {sweep}\nprocess = 1\n")
    };
    refuses_config(&limits("-1", "2", "0.1"), "line 2");
    refuses_config(&limits("nan", "2", "0.1"), "line 2");
    refuses_config(&limits("1", "2", "0"), "sweep_every");
    refuses_config(&limits("2", "1", "0.1"), "limits: ");
    refuses_config(&limits("1", "1", "0.1"), "limits: ");
}

#[test]
fn missing_config() {
    refuses(&["--config", "no/such/file.toml"], "no/such/file.toml: No such file");
}
