//! etcd does what every engine must: one member, and three.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "what the tests of several engines share")]

#[path = "../../livemark-cluster/tests/support/conformance.rs"]
mod conformance;
mod support;

use std::time::Duration;

use livemark_cluster::{Engine, EngineError, If, Watch, Written};

use support::Cluster;

async fn conforms(members: usize) {
    let Some(cluster) = Cluster::start(members, &[]).await else { return };
    conformance::writes_are_conditional(&cluster.connect("a").await).await;
    conformance::writes_require_an_epoch(&cluster.connect("d").await).await;
    conformance::leases_end(&cluster.connect("b").await).await;
    conformance::a_watch_goes_on_from_a_list(&cluster.connect("c").await).await;
}

/// More than etcd sends in one message: it comes in parts. Seen to fail with parts that are taken for whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_comes_whole() {
    const KEYS: usize = 1_500;
    let Some(cluster) = Cluster::start(1, &[]).await else { return };
    let etcd = cluster.connect("a").await;
    let lease = etcd.grant(Duration::from_secs(60)).await.unwrap().lease;
    let long = "k".repeat(2_000);
    for at in 0..KEYS {
        etcd.put(&format!("m/{long}{at}"), vec![], Some(lease), If::Any).await.unwrap();
    }
    let revision = etcd.list().await.unwrap().revision;
    let mut watch = etcd.watch(revision).await.unwrap();
    etcd.revoke(lease).await.unwrap();
    let gone = watch.next().await.unwrap().events;
    assert_eq!(gone.len(), KEYS);
    assert!(gone.iter().all(|event| event.revision == revision + 1));
}

/// Rows that have no room in one answer. Seen to fail with pages of as many rows, whatever their size.
#[tokio::test(flavor = "multi_thread")]
async fn large_rows_come_in_small_pages() {
    const ROWS: usize = 70;
    let Some(cluster) = Cluster::start(1, &[]).await else { return };
    let etcd = cluster.connect("a").await;
    for at in 0..ROWS {
        etcd.put(&format!("m/{at}"), vec![b'x'; 1_000_000], None, If::Any).await.unwrap();
    }
    assert_eq!(etcd.list().await.unwrap().rows.len(), ROWS);
}

/// Etcd says that there is no room of the writes that took the last of it, which it has made. Seen to fail with what it says:
/// nothing was done, and some of these are there.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_want_of_room_was_not_made() {
    let Some(cluster) = Cluster::start(1, &["--quota-backend-bytes", "16777216"]).await else { return };
    let etcd = cluster.connect("a").await;
    let (mut made, mut refused) = (0, 0);
    // Those of the first round find room, all at once. Some of the next find it, and then none.
    for round in 0..4 {
        let mut writes = tokio::task::JoinSet::new();
        for at in 0..40 {
            let etcd = etcd.clone();
            writes.spawn(async move {
                let key = format!("m/{round}-{at}");
                let written = etcd.put(&key, vec![b'x'; 1 << 20], None, If::Absent).await;
                (key, written)
            });
        }
        for (key, written) in writes.join_all().await {
            match written {
                Ok(Written::Done(_)) => made += 1,
                Err(EngineError::NoSpace) => {
                    refused += 1;
                    assert_eq!(etcd.get(&key).await.unwrap().map(|row| row.revision), None, "{key}");
                }
                other => panic!("{key}: {other:?}"),
            }
        }
    }
    assert!(made > 16 && refused >= 40, "{made} and {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member() {
    conforms(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members() {
    conforms(3).await;
}
