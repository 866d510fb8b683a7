//! The etcd servers that are measured on: [`Servers`].

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use livemark_etcd::{Etcd, Options};
use tempfile::TempDir;

use crate::error::BenchError;

/// For how long the servers may take to elect a leader.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an operator would set: room for the data, and old revisions that are dropped. Every write is synced to the disk.
const FLAGS: [&str; 6] = [
    "--quota-backend-bytes",
    "4294967296",
    "--auto-compaction-mode",
    "revision",
    "--auto-compaction-retention",
    "10000",
];

/// Servers on loopback that are stopped, and whose data are removed, with this.
pub(crate) struct Servers {
    endpoints: Vec<String>,
    children: Vec<Child>,
    /// Last, so that it is removed when nobody writes there any more.
    dir: TempDir,
}

impl Servers {
    /// Starts so many members with their data in a new directory under `parent`, and waits until they have a leader.
    pub(crate) async fn start(members: usize, parent: &Path) -> Result<Self, BenchError> {
        let program = program("etcd").ok_or(BenchError::NoEtcd)?;
        let dir = tempfile::Builder::new().prefix("cluster-bench-").tempdir_in(parent);
        let dir = dir.map_err(BenchError::io("no directory for the data of etcd"))?;
        let ports = (0..members).map(|_| Ok((free_port()?, free_port()?))).collect::<Result<Vec<_>, BenchError>>()?;
        let peers = ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{peer}"));
        let peers = peers.collect::<Vec<_>>().join(",");
        let mut servers = Self { endpoints: Vec::new(), children: Vec::new(), dir };
        for (at, (client, peer)) in ports.into_iter().enumerate() {
            let name = format!("m{at}");
            let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let log = servers.log(at);
            let log = File::create(&log).map_err(BenchError::io(log.display()))?;
            let log_too = log.try_clone().map_err(BenchError::io("the log of etcd"))?;
            let child = Command::new(&program)
                .args(["--name", &name, "--initial-cluster", &peers])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .arg("--data-dir")
                .arg(servers.dir.path().join(&name))
                .args(FLAGS)
                // Variables of etcd would count as flags.
                .env_clear()
                .stdin(Stdio::null())
                .stdout(log_too)
                .stderr(log)
                .spawn()
                .map_err(BenchError::io("etcd does not start"))?;
            servers.children.push(child);
            servers.endpoints.push(client);
        }
        servers.await_leader().await?;
        Ok(servers)
    }

    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    fn log(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("m{at}.log"))
    }

    async fn await_leader(&self) -> Result<(), BenchError> {
        let began = Instant::now();
        loop {
            match Etcd::connect(self.endpoints.clone(), "ready", Options::default()).await {
                Ok(_) => return Ok(()),
                Err(error) if began.elapsed() > PATIENCE => {
                    let log = fs::read_to_string(self.log(0)).unwrap_or_default();
                    let last: Vec<_> = log.lines().rev().take(10).collect();
                    let log = last.into_iter().rev().collect::<Vec<_>>().join("\n");
                    return Err(BenchError::NotReady { error, log });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended already is not there to be killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A port that nobody listens at.
pub(crate) fn free_port() -> Result<u16, BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(listener.map_err(BenchError::io("no free port"))?.port())
}
