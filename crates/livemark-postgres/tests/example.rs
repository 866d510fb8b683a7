//! The example does what it says: two processes, one of which is killed, and each job is done.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::Server;

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_end_all_jobs_though_one_is_killed() {
    let Some(server) = Server::start(&[]).await else { return };
    // Cargo builds examples beside the tests.
    let deps = std::env::current_exe().unwrap();
    let example = deps.parent().unwrap().parent().unwrap().join("examples/worker");
    let url = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", server.port);
    let start = |name: &str| {
        let mut command = Command::new(&example);
        command.arg(name).env("DATABASE_URL", &url).stdout(Stdio::piped()).spawn().unwrap()
    };
    let (mut killed, other) = (start("a"), start("b"));
    let client = server.client().await;
    let begun = "SELECT count(*) FROM livemark.rows WHERE key LIKE 'm/%' AND value IS NOT NULL \
                 AND convert_from(value, 'UTF8')::json ->> 'process' = 'a'";
    let began = Instant::now();
    while !client.query_one(begun, &[]).await.is_ok_and(|row| row.get::<_, i64>(0) > 0) {
        assert!(began.elapsed() < Duration::from_secs(60), "it marks nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // In the middle of its work.
    tokio::time::sleep(Duration::from_millis(150)).await;
    killed.kill().unwrap();
    let said = killed.wait_with_output().unwrap().stdout;
    let done = tokio::task::spawn_blocking(move || other.wait_with_output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&said).into_owned() + &String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("b  redrives job "), "{said}");
    assert_eq!(said.matches("commits job").count(), 20, "{said}");
    let left = client.query_one("SELECT count(*) FROM jobs WHERE state <> 'done'", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}
