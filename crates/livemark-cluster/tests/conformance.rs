//! The engine in memory does what every engine must.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "what the tests of several engines share")]

#[path = "support/conformance.rs"]
mod conformance;

use livemark_cluster::MemoryEngine;

#[tokio::test(start_paused = true)]
async fn writes_are_conditional() {
    conformance::writes_are_conditional(&MemoryEngine::new().client()).await;
}

#[tokio::test(start_paused = true)]
async fn writes_require_an_epoch() {
    conformance::writes_require_an_epoch(&MemoryEngine::new().client()).await;
}

#[tokio::test(start_paused = true)]
async fn leases_end() {
    conformance::leases_end(&MemoryEngine::new().client()).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_from_a_list() {
    conformance::a_watch_goes_on_from_a_list(&MemoryEngine::new().client()).await;
}
