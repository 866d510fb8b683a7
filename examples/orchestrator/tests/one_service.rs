//! One service for each store, by whatever name it is opened, and whatever becomes of the names.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use common::{Place, outcome, refused, wait_for};

/// Jobs that take a while, so that a second service would find them running.
const SLOW: &str = "
job.command = ['true']
gates = [{ name = 'one', command = ['sleep', '0.3'] }]
[limits]
finalize_grace = 5
hard_deadline = 60
sweep_every = 0.02
process = 60
shutdown = 20
";

/// A second service, on a store of this name.
fn second(place: &Place, db: &str) -> Command {
    let mut command = common::orchestrator();
    command.current_dir(place.directory.path()).args(["serve", "--db", db, "--config", "settings.toml"]);
    command.args(["--listen", "127.0.0.1:0", "--workspaces", "work"]);
    command
}

/// Runs jobs under one service while a second is tried under the name that `link` makes.
fn refuses_another_name(name: &str, link: impl FnOnce(&Place), reason: &str) {
    let place = Place::new(SLOW);
    let server = place.serve();
    link(&place);
    server.submit(r#"{"count":4}"#);
    refused(&outcome(&mut second(&place, name)), reason);
    server.until_counts("merged", 4);
    assert_eq!(place.count("SELECT COUNT(*) FROM runs"), 4, "each was run once");
    assert_eq!(place.count("SELECT COUNT(*) FROM ledger"), 4, "each was merged once");
}

/// Seen to fail with a lock beside the name as it was given: the second service started.
#[test]
fn a_symbolic_link_is_the_same_store() {
    let link = |place: &Place| symlink("jobs.db", place.path("sym.db")).unwrap();
    refuses_another_name("sym.db", link, "another orchestrator serves it (process ");
}

#[test]
fn a_link_to_the_directory_is_the_same_store() {
    let link = |place: &Place| symlink(".", place.path("here")).unwrap();
    refuses_another_name("here/jobs.db", link, "another orchestrator serves it (process ");
}

/// Seen to fail with a lock beside the name as it was given: the second service started.
#[test]
fn a_hard_link_is_the_same_store() {
    let link = |place: &Place| fs::hard_link(place.db(), place.path("hard.db")).unwrap();
    refuses_another_name("hard.db", link, "2 names (hard links)");
}

/// Seen to fail without a lock on the database itself: the second service made a new lock file and started.
#[test]
fn a_deleted_lock_file_lets_nobody_in() {
    let link = |place: &Place| fs::remove_file(place.path("jobs.db.lock")).unwrap();
    refuses_another_name("jobs.db", link, "another orchestrator serves it");
}

/// Seen to fail with a service that never looks.
#[test]
fn a_deleted_lock_file_is_signed_anew() {
    let place = Place::new(SLOW);
    let server = place.serve();
    fs::remove_file(place.path("jobs.db.lock")).unwrap();
    let pid = server.child.id().to_string();
    wait_for("a new lock file", || fs::read_to_string(place.path("jobs.db.lock")).is_ok_and(|holder| holder == pid));
    refused(&outcome(&mut second(&place, "jobs.db")), &format!("another orchestrator serves it (process {pid})"));
}

/// Seen to fail with a service that never looks: it went on, and its jobs were nowhere to be seen.
#[test]
fn a_replaced_store_ends_the_service() {
    let place = Place::new(SLOW);
    let mut server = place.serve();
    server.submit("{}");
    server.until_counts("merged", 1);
    fs::rename(place.db(), place.path("old.db")).unwrap();
    let (status, said) = server.ended();
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.contains("jobs.db: the job store was removed or replaced while it was served"), "{said}");

    // The next one finds none, and makes a new one.
    fs::remove_file(place.path("jobs.db-wal")).unwrap();
    fs::remove_file(place.path("jobs.db-shm")).unwrap();
    let server = place.serve();
    assert_eq!(server.queue()["counts"]["merged"], 0);
}

/// What the locks of SQLite are worth beside ours: two writers of one store wait for each other.
#[test]
fn the_locks_of_the_database_still_hold() {
    let place = Place::new(SLOW);
    let server = place.serve();
    let raw = place.raw();
    raw.execute_batch("BEGIN IMMEDIATE").unwrap();
    let other = rusqlite::Connection::open(place.db()).unwrap();
    other.busy_timeout(std::time::Duration::ZERO).unwrap();
    assert!(other.execute_batch("BEGIN IMMEDIATE").is_err());
    raw.execute_batch("ROLLBACK").unwrap();
    server.submit(r#"{"count":4}"#);
    server.until_counts("merged", 4);
    let intact: String = raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(intact, "ok");
}

/// Seen to fail with the lock taken first: a lock file was left beside a store that was never made.
#[test]
fn who_cannot_listen_leaves_nothing_behind() {
    let place = Place::new(SLOW);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = second(&place, "jobs.db");
    refused(&outcome(command.args(["--listen", &address])), "cannot listen on");
    let left: Vec<_> = fs::read_dir(place.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["settings.toml"]);
}

/// A link to nothing has no canonical name.
#[test]
fn a_link_to_nothing_is_refused() {
    let place = Place::new(SLOW);
    symlink("nowhere.db", place.path("dangling.db")).unwrap();
    refused(&outcome(&mut second(&place, "dangling.db")), "dangling.db: No such file or directory");
    assert!(!place.path("nowhere.db").exists());
}
