//! etcd does what every engine must: one member, and three.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "what the tests of several engines share")]

#[path = "../../livemark-cluster/tests/support/conformance.rs"]
mod conformance;
mod support;

use std::time::Duration;

use livemark_cluster::{Engine, If, Watch};

use support::Cluster;

async fn conforms(members: usize) {
    let Some(cluster) = Cluster::start(members, &[]).await else { return };
    conformance::writes_are_conditional(&cluster.connect("a").await).await;
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
    let gone = watch.next().await.unwrap();
    assert_eq!(gone.len(), KEYS);
    assert!(gone.iter().all(|event| event.revision == revision + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member() {
    conforms(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members() {
    conforms(3).await;
}
