//! The tool `livemark-etcd`, on a real etcd.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use livemark::Finalizer;
use livemark_cluster::{Config, Engine, If, Loss, Session};

use support::{Cluster, free_port};

fn tool(endpoint: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_livemark-etcd"))
        .args(["--endpoints", endpoint, "--namespace", "jobs"])
        .args(args)
        .output()
        .unwrap()
}

/// What it wrote, where it said so with this exit code.
#[track_caller]
fn says(cluster: &Cluster, code: i32, args: &[&str]) -> String {
    let done = tool(&cluster.endpoint(0), args);
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.status.code(), Some(code), "{args:?}: {said}");
    said
}

async fn open(cluster: &Cluster, name: &str) -> Session {
    let mut config = Config::with_ttl(Duration::from_secs(6));
    config.process = name.to_owned();
    Session::open(cluster.connect("jobs").await, config).await.unwrap()
}

fn run(id: u64) -> Finalizer {
    Finalizer::new(Some(id), "merge")
}

/// Seen to fail with a clear that compares nothing, and with one that takes the key's revision for the token.
#[tokio::test(flavor = "multi_thread")]
async fn marks_are_listed_owned_and_cleared() {
    let Some(cluster) = Cluster::start(1, &[]).await else { return };
    let a = open(&cluster, "host a").await;
    let guard = a.mark(7, run(1)).await.unwrap();
    assert!(guard.replace(&run(2)).await.unwrap(), "its key is later than its token");
    let _other = a.mark(10, run(3)).await.unwrap();
    let token = guard.token().to_string();

    let listed = says(&cluster, 0, &["ls"]);
    let lines: Vec<_> = listed.lines().collect();
    assert!(lines[0].starts_with("JOB  TOKEN") && lines.len() == 3, "{listed}");
    assert!(lines[1].starts_with("7 ") && lines[1].contains(&token) && lines[1].contains("host a"), "{listed}");
    let owner = says(&cluster, 0, &["owner", "7"]);
    assert!(owner.contains(&format!("token     {token}")) && owner.contains(r#""run":2"#), "{owner}");
    assert!(says(&cluster, 1, &["owner", "8"]).contains("job 8 has no owner"));
    let sessions = says(&cluster, 0, &["sessions"]);
    assert!(
        sessions.lines().nth(1).is_some_and(|line| line.starts_with("host a") && line.ends_with('s')),
        "{sessions}"
    );

    let refused = says(&cluster, 1, &["clear", "7", "--token", "1"]);
    assert!(refused.contains(&format!("is host a's by token {token}: nothing is removed")), "{refused}");
    assert!(guard.check().await.unwrap());
    assert!(says(&cluster, 1, &["clear", "8", "--token", "1"]).contains("no owner"));
    assert!(says(&cluster, 0, &["clear", "7", "--token", &token]).contains("is removed"));
    assert_eq!(guard.lost().await, Loss::Displaced);
    assert!(a.try_mark(7, run(4)).await.is_ok());
    says(&cluster, 2, &["clear", "7"]);
    // Nobody reads it to the end.
    let mut unread = Command::new(env!("CARGO_BIN_EXE_livemark-etcd"))
        .args(["--endpoints", &cluster.endpoint(0), "--namespace", "jobs", "watch", "--for", "4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(unread.stdout.take());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(a.mark(11, run(5)).await.unwrap());
    let ended = unread.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_that_come_and_go_are_told() {
    let Some(cluster) = Cluster::start(1, &[]).await else { return };
    let a = open(&cluster, "a").await;
    let mut watching = Command::new(env!("CARGO_BIN_EXE_livemark-etcd"))
        .args(["--endpoints", &cluster.endpoint(0), "--namespace", "jobs", "watch"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| told.send(line)));
    // It watches once it tells of something.
    while tells.try_recv().is_err() {
        a.mark(1, run(1)).await.unwrap().clear().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let guard = a.mark(7, run(1)).await.unwrap();
    let token = guard.token();
    guard.clear().await.unwrap();
    let mut said = Vec::new();
    while said.len() < 2 {
        let line = tokio::time::timeout(Duration::from_secs(20), tells.recv()).await.unwrap().unwrap();
        let told = line.split_once("  ").unwrap().1.to_owned();
        said.extend(Some(told).filter(|told| told.starts_with("job 7 ")));
    }
    assert_eq!(said, [format!("job 7 is a's, token {token}").as_str(), "job 7 is free"]);
    watching.kill().unwrap();
    watching.wait().unwrap();
}

/// Seen to fail with a tool that ends with 0 whatever it has found.
#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_looks_at_etcd() {
    let Some(cluster) = Cluster::start(1, &["--quota-backend-bytes", "16777216"]).await else { return };
    let _a = open(&cluster, "a").await;
    let well = says(&cluster, 0, &["doctor"]);
    assert!(!well.contains("FAIL") && well.contains("it has a leader") && well.contains("20 writes"), "{well}");
    assert!(well.contains("granted for 5s"), "{well}");
    let left = cluster.connect("jobs").await.list().await.unwrap().rows;
    assert!(left.iter().all(|(key, _)| !key.contains("doctor")), "{left:?}");
    // Something else lies there.
    let etcd = cluster.connect("jobs").await;
    etcd.put("m/x", b"not ours".to_vec(), None, If::Any).await.unwrap();
    etcd.put("epoch", b"first".to_vec(), None, If::Any).await.unwrap();
    let ill = says(&cluster, 1, &["doctor"]);
    assert!(ill.contains("warn  1 keys are not livemark's: m/x") && ill.contains("FAIL  the key `epoch`"), "{ill}");
    assert!(says(&cluster, 1, &["epoch", "bump"]).contains("epoch"));
    etcd.delete("epoch", If::Any).await.unwrap();
    // It is full.
    while etcd.put("m/y", vec![0; 1 << 20], None, If::Any).await.is_ok() {}
    let full = says(&cluster, 1, &["doctor"]);
    assert!(full.contains("FAIL  alarm: no space") && full.contains("FAIL  nothing can be written"), "{full}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_makes_all_tokens_greater() {
    let Some(cluster) = Cluster::start(1, &[]).await else { return };
    let before = open(&cluster, "a").await.mark(7, run(1)).await.unwrap().token();
    assert!(says(&cluster, 0, &["epoch", "bump"]).contains("was 0 and is 1"));
    assert!(says(&cluster, 0, &["epoch", "bump"]).contains("was 1 and is 2"));
    let after = open(&cluster, "a").await.mark(8, run(1)).await.unwrap().token();
    assert!(after > before && after.get() >> 48 == 2, "{before} {after}");
    let etcd = cluster.connect("jobs").await;
    etcd.put("epoch", b"32767".to_vec(), None, If::Any).await.unwrap();
    assert!(says(&cluster, 1, &["epoch", "bump"]).contains("32767 is the last epoch"));
}

#[test]
fn an_etcd_that_is_not_there_is_named() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let done = tool(&endpoint, &["ls"]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(3) && said.contains(&endpoint), "{done:?}");
    assert_eq!(tool(&endpoint, &["list"]).status.code(), Some(2));
    assert_eq!(tool(&endpoint, &["--cacert", "/nowhere/ca", "ls"]).status.code(), Some(3));
}
