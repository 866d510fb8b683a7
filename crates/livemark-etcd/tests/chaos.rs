//! Processes over a real etcd whose connections break in every way, which crash, and whose server does.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "what the tests of several engines share")]

#[path = "../../livemark-cluster/tests/support/chaos.rs"]
mod chaos;
mod support;

use std::time::Duration;

use livemark_etcd::{Etcd, Options};

use support::Cluster;
use support::proxy::{self, Proxy};

/// Seen to fail with a store that does not compare tokens.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_each_job_is_committed_once() {
    let Some(mut cluster) = Cluster::start(1, &[]).await else { return };
    let address = cluster.endpoint(0);
    let connect =
        async |proxy: &Proxy| Etcd::connect([proxy.endpoint().to_owned()], "jobs", Options::default()).await.ok();
    let crash = async || {
        cluster.kill(0);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..800))).await;
        cluster.launch(0);
        cluster.await_ready().await;
    };
    let sum = chaos::chaos(300, &address, connect, crash).await;
    assert_eq!(sum.overlaps, 0, "{sum:?}");
}
