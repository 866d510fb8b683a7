//! etcd does what every engine must: one member, and three.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "what the tests of several engines share")]

#[path = "../../livemark-cluster/tests/support/conformance.rs"]
mod conformance;
mod support;

use support::Cluster;

async fn conforms(members: usize) {
    let Some(cluster) = Cluster::start(members, &[]).await else { return };
    conformance::writes_are_conditional(&cluster.connect("a").await).await;
    conformance::leases_end(&cluster.connect("b").await).await;
    conformance::a_watch_goes_on_from_a_list(&cluster.connect("c").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member() {
    conforms(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members() {
    conforms(3).await;
}
