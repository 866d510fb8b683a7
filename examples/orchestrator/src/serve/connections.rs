//! Connections: how many there are at a time, and how long each may take.
//!
//! Whoever can reach the port can open connections. So what a connection costs is bounded in number and in time: jobs
//! need descriptors too, and there are always some kept for them.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;

/// How long the head of a request may take, and how long a connection may be kept without one.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a client may leave unread what it was sent.
const WRITE_TIME: Duration = Duration::from_secs(20);
/// More of a request's head is not kept.
const HEAD: usize = 16 << 10;
/// Connections at the same time, where descriptors are plenty.
const MOST: usize = 512;
/// And where they are few: so many must do for whoever watches.
const FEWEST: usize = 4;
/// Descriptors of the service itself, and of each monitor with its command.
const OWN: usize = 48;
const EACH_MONITOR: usize = 6;
/// Those beyond the number that are told so at the same time. The rest is told nothing.
const TURNED_AWAY: usize = 16;
const TURN_AWAY_TIME: Duration = Duration::from_millis(500);
/// Pause after a connection that could not be accepted.
const AFTER_AN_ERROR: Duration = Duration::from_millis(50);

/// What one beyond the number is told.
const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 38\r\n\
    retry-after: 1\r\nconnection: close\r\n\r\n{\"error\":\"too many connections, wait\"}";

/// Returns how many connections there may be beside the jobs of so many monitors. Takes the descriptors that the operating
/// system would give for the asking.
pub(super) fn allowed(monitors: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Never lowered: no maximum is more than any.
    let raised =
        if current == maximum { Ok(()) } else { setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) };
    let limit = if raised.is_ok() { maximum } else { current };
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let left = limit.saturating_sub(OWN + EACH_MONITOR * monitors);
    if left < FEWEST {
        eprintln!("orchestrator: {limit} descriptors (ulimit -n) are few for {monitors} monitors");
    }
    left.clamp(FEWEST, MOST)
}

/// Serves until `over`, then lets each connection end what it is at.
pub(super) async fn serve(listener: TcpListener, router: Router, most: usize, mut over: watch::Receiver<bool>) {
    let (places, spare) = (Arc::new(Semaphore::new(most)), Arc::new(Semaphore::new(TURNED_AWAY)));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Fails if the service is gone, and then it is over, too.
            _ = over.wait_for(|over| *over) => break,
        };
        // Those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    connections.spawn(connection(stream, router.clone(), place, over.clone()));
                }
                Err(_) => {
                    if let Ok(place) = Arc::clone(&spare).try_acquire_owned() {
                        connections.spawn(turn_away(stream, place));
                    }
                }
            },
            // Without a descriptor for it, it stays where it is. To ask again at once would only be busy.
            Err(_) => sleep(AFTER_AN_ERROR).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, router: Router, place: OwnedSemaphorePermit, mut over: watch::Receiver<bool>) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME));
    let service = TowerToHyperService::new(router);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(Box::pin(stream)), service));
    let over = async { over.wait_for(|over| *over).await.is_ok() };
    // What a client does wrong is its own affair.
    tokio::select! {
        _ = serving.as_mut() => {}
        _ = over => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
    drop(place);
}

/// Says that there is no place. What was asked is read meanwhile: who still sends when we close sees an error only.
async fn turn_away(mut stream: TcpStream, place: OwnedSemaphorePermit) {
    let told = async {
        stream.write_all(FULL.as_bytes()).await?;
        stream.shutdown().await?;
        let mut heard = [0; 1024];
        while stream.read(&mut heard).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(TURN_AWAY_TIME, told).await;
    drop(place);
}
