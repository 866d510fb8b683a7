//! Processes over a real PostgreSQL whose connections break in every way, which crash, and whose server does.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "what the tests of several engines share")]

#[path = "../../livemark-cluster/tests/support/chaos.rs"]
mod chaos;
mod support;

use std::time::Duration;

use livemark_postgres::{Options, Postgres};
use tokio_postgres::NoTls;

use support::proxy::{self, Proxy};
use support::{Server, config};

/// Seen to fail with a store that does not compare tokens, and with leases that are renewed after they have ended.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_each_job_is_committed_once() {
    let Some(mut server) = Server::start(&[]).await else { return };
    Postgres::migrate(&server.config(), NoTls).await.unwrap();
    let address = format!("127.0.0.1:{}", server.port);
    let connect = async |proxy: &Proxy| {
        let mut options = Options::default();
        options.poll_every = Duration::from_millis(100);
        Postgres::connect(config(proxy.port()), NoTls, "jobs", options).await.ok()
    };
    let crash = async || {
        server.kill();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..800))).await;
        server.launch();
        server.await_ready().await;
    };
    let sum = chaos::chaos(300, &address, connect, crash).await;
    assert_eq!(sum.overlaps, 0, "{sum:?}");
}
