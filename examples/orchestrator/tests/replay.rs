//! The replay as a whole, by the real binary.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rusqlite::Connection;
use tempfile::TempDir;

/// Gates that take no time, and short limits: a replay of three seconds.
const FAST: &str = "
job.command = ['true']
gates = [{ name = 'one', command = ['true'] }, { name = 'two', command = ['true'] }]
[limits]
finalize_grace = 0.1
hard_deadline = 2
sweep_every = 0.01
process = 10
";

fn replay(temporary: &Path, arguments: &[&str]) -> (Output, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_orchestrator")).args(arguments).env("TMPDIR", temporary).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

/// Lines of the closing table, by their last word.
fn rows<'a>(text: &'a str, ok: &str) -> Vec<&'a str> {
    let table = text.lines().skip_while(|line| !line.starts_with("scenario "));
    table.filter(|line| line.ends_with(&format!("  {ok}"))).collect()
}

fn count(db: &Path, sql: &str) -> u64 {
    Connection::open(db).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn holds_by_default_and_leaves_nothing_behind() {
    let temporary = TempDir::new().unwrap();
    let (output, text) = replay(temporary.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(text.ends_with("All scenarios hold.\n"), "{text}");
    assert_eq!(rows(&text, "NO"), Vec::<&str>::new());
    let scenarios: String = rows(&text, "yes").iter().filter_map(|row| row.strip_prefix('(')?.chars().next()).collect();
    assert_eq!(scenarios, "abcdef");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "temporary files are removed");
}

#[test]
fn keeps_its_rows_and_adds_to_them() {
    let temporary = TempDir::new().unwrap();
    let kept = TempDir::new().unwrap();
    let (db, config) = (kept.path().join("jobs.db"), kept.path().join("config.toml"));
    fs::write(&config, FAST).unwrap();
    for number in 1..=2_u64 {
        let arguments = ["--db", db.to_str().unwrap(), "--config", config.to_str().unwrap()];
        let (output, text) = replay(temporary.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.starts_with(&format!("The incident, replay {number}\n")), "{text}");
        assert!(text.ends_with(&format!("kept in {}.\n", db.display())), "{text}");

        // The same facts, by other means than the table's.
        let of = |sql: &str| count(&db, &sql.replace("$", &format!("replay-{number}/")));
        let effects = "SELECT COUNT(*) FROM ledger JOIN jobs ON jobs.id = job_id WHERE queue = '$";
        assert_eq!(of(&format!("{effects}a' AND effect = 'merge'")), 1);
        assert_eq!(of(&format!("{effects}a' AND effect = 'rollback'")), 1);
        assert_eq!(of(&format!("{effects}b' AND effect = 'merge'")), 1);
        assert_eq!(of(&format!("{effects}b'")), 1);
        assert_eq!(of(&format!("{effects}c' AND effect = 'merge'")), 1);
        assert_eq!(of(&format!("{effects}c'")), 1);
        assert_eq!(of(&format!("{effects}d'")), 0);
        assert_eq!(of(&format!("{effects}e' AND effect = 'merge'")), 3);
        assert_eq!(of(&format!("{effects}e'")), 3);
        assert_eq!(of("SELECT COUNT(*) FROM jobs WHERE queue = '$d' AND state = 'reaped'"), 1);
        assert_eq!(of("SELECT COUNT(*) FROM jobs WHERE queue = '$e' AND state = 'merged'"), 3);
        assert_eq!(
            of("SELECT COUNT(DISTINCT round) FROM claims JOIN jobs ON jobs.id = job_id WHERE queue = '$f'"),
            1000
        );
        assert_eq!(count(&db, "SELECT COUNT(*) FROM claims"), number * 1000);
        assert_eq!(count(&db, "SELECT COUNT(*) FROM replays"), number);
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(kept.path()).unwrap().count(), 2, "the database and the settings, no log of SQLite's");
}

#[test]
fn tells_what_does_not_hold() {
    let temporary = TempDir::new().unwrap();
    let config = temporary.path().join("config.toml");
    fs::write(&config, FAST.replace("['true'] }]", "['false'] }]")).unwrap();
    let (output, text) = replay(temporary.path(), &["--config", config.to_str().unwrap()]);
    // With a gate that is always red, nothing is ever merged.
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(rows(&text, "NO").iter().any(|row| row.contains("merged outside")), "{text}");
    assert!(text.ends_with("do NOT hold.\n"), "{text}");
}
