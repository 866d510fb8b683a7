//! A proxy in front of one endpoint, which a test can cut in either direction, delay and reset.
//!
//! What is cut is held and delivered once it is mended, as TCP does over a network that comes back. Nothing is closed: the
//! two sides know nothing of it.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Default)]
struct State {
    /// Nothing goes from the client to the server.
    up_is_cut: bool,
    /// Nothing comes back.
    down_is_cut: bool,
    /// How much later each piece comes.
    delay: Duration,
    /// Connections of an earlier number are closed.
    resets: u64,
    /// On connections of an earlier number nothing comes through any more.
    dead: u64,
}

pub struct Proxy {
    endpoint: String,
    state: Arc<watch::Sender<State>>,
}

impl Proxy {
    /// Listens in front of `endpoint`, a host and a port, perhaps with `http://` in front.
    pub async fn before(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = endpoint.strip_prefix("http://").unwrap_or(endpoint).to_owned();
        let state = Arc::new(watch::Sender::new(State::default()));
        let proxy = Self { endpoint: format!("http://{}", listener.local_addr().unwrap()), state: Arc::clone(&state) };
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (server, state) = (server.clone(), Arc::clone(&state));
                tokio::spawn(async move { connect(client, &server, &state).await });
            }
        });
        proxy
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn port(&self) -> u16 {
        self.endpoint.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub fn cut(&self, is_cut: bool) {
        self.state.send_modify(|state| (state.up_is_cut, state.down_is_cut) = (is_cut, is_cut));
    }

    /// Cuts what the client sends.
    pub fn cut_requests(&self, is_cut: bool) {
        self.state.send_modify(|state| state.up_is_cut = is_cut);
    }

    /// Cuts what the server sends.
    pub fn cut_answers(&self, is_cut: bool) {
        self.state.send_modify(|state| state.down_is_cut = is_cut);
    }

    pub fn delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Lets nothing through on the connections that there are, as a firewall does that has forgotten them. New ones are good.
    pub fn kill_connections(&self) {
        self.state.send_modify(|state| state.dead += 1);
    }

    /// Closes all connections, with what was held.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }
}

async fn connect(client: TcpStream, server: &str, state: &watch::Sender<State>) {
    // Etcd may be down: then the client is told so.
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let State { resets: born, dead, .. } = *state.borrow();
    let mut over = state.subscribe();
    tokio::select! {
        () = pass(from_client, to_server, state.subscribe(), |state| state.up_is_cut || state.dead > dead) => {}
        () = pass(from_server, to_client, state.subscribe(), |state| state.down_is_cut || state.dead > dead) => {}
        _ = over.wait_for(|state| state.resets > born) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    is_cut: impl Fn(&State) -> bool,
) {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let Ok(read @ 1..) = from.read(&mut bytes).await else { return };
        let delay = state.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if state.wait_for(|state| !is_cut(state)).await.is_err() || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
