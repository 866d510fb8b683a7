//! Starts the service, has it run a job of each kind over HTTP, and stops it.
//!
//! ```sh
//! cargo run -p service-axum
//! ```
//!
//! ```text
//! job 1: merged by run 1
//! job 2: deferred: owned
//! job 2: merged by run 1
//! job 3: redriven
//! job 3: merged by run 2
//! job 4: deferred: owned
//! job 4: reaped: backstop, displacing run 1
//! marks held at the end: 0
//! ```

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Sends a request without a body. Returns the response as text.
async fn request(to: SocketAddr, line: &str) -> io::Result<String> {
    let mut connection = TcpStream::connect(to).await?;
    connection.write_all(format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut response = String::new();
    connection.read_to_string(&mut response).await?;
    Ok(response)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, stop) = (listener.local_addr()?, CancellationToken::new());
    let serving = tokio::spawn(service_axum::serve(listener, stop.clone()));
    for kind in ["quick", "slow", "dies", "hangs"] {
        let response = request(address, &format!("POST /jobs/{kind}")).await?;
        assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    }
    stop.cancel(); // as a signal would: the jobs come to their end first
    let queue = serving.await??;
    for (id, history) in &queue.jobs {
        history.iter().for_each(|what| println!("job {id}: {what}"));
    }
    println!("marks held at the end: {}", queue.finalizer_owned);
    Ok(())
}
