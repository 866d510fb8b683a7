//! What has ended is forgotten after a while, and what was done outside is not.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{Place, QUICK, wait_for};
use serde_json::json;

/// Seen to fail with jobs that are kept for ever: workspaces, output and rows were all there.
#[test]
fn ended_jobs_are_forgotten_with_all_that_is_theirs() {
    let place = Place::new(&QUICK.replace("[limits]", "[limits]\nkeep = 1"));
    let server = place.serve();
    server.submit(r#"{"count":60}"#);
    server.submit(r#"{"kind":"red","count":20}"#);
    let held = server.submit(r#"{"kind":"held"}"#)[0];
    place.pid_of(held);
    // All but the one that runs: it has the largest number.
    wait_for("the end of the others", || place.count("SELECT COUNT(*) FROM jobs") == 1);
    let rows = |table: &str| place.count(&format!("SELECT COUNT(*) FROM {table}"));
    assert_eq!((rows("runs"), rows("tasks")), (1, 0));
    assert_eq!(place.count("SELECT COUNT(*) FROM notes WHERE job_id IS NOT 81 AND kind = 'run'"), 0);
    assert_eq!(rows("ledger"), 80, "what was done outside is still known");
    let left = |directory: &str| fs::read_dir(place.path(directory)).unwrap().count();
    wait_for("their directories", || left("work") == 2 && left("work/output") == 1);
    let queue = server.queue();
    assert_eq!((&queue["counts"]["merged"], &queue["counts"]["running"]), (&json!(0), &json!(1)));
    assert_eq!(server.get("/jobs/1").status, 404);
    assert_eq!(server.get("/jobs").json()["total"], 1);

    place.go();
    server.until_counts("merged", 1);
    // The newest stays, so that its number is not given again.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(rows("jobs"), 1);
    assert_eq!(server.submit("{}"), [82]);
}
