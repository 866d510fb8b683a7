//! The PostgreSQL server that is measured on: [`PostgresServer`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use livemark_postgres::{Options, Postgres};
use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

use crate::error::BenchError;
use crate::servers::free_port;

/// A server on loopback with its own settings, but for the connections. It is stopped, and its data are removed, with this.
pub(crate) struct PostgresServer {
    child: Child,
    port: u16,
    /// Last, so that it is removed when nobody writes there any more.
    _dir: TempDir,
}

impl PostgresServer {
    /// Starts a server with its data in a new directory under `parent`. `None` where there is no PostgreSQL.
    pub(crate) async fn start(parent: &Path) -> Result<Option<Self>, BenchError> {
        let (Some(initdb), Some(postgres)) = (program("initdb"), program("postgres")) else { return Ok(None) };
        let dir = tempfile::Builder::new().prefix("postgres-bench-").tempdir_in(parent);
        let dir = dir.map_err(BenchError::io("no directory for the data of PostgreSQL"))?;
        if getuid().is_root() {
            let given = Command::new("chown").args(["-R", "postgres:postgres"]).arg(dir.path()).status();
            given.map_err(BenchError::io("chown"))?;
        }
        let data = dir.path().join("data");
        let made = command(&initdb)
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .map_err(BenchError::io("initdb"))?;
        if !made.success() {
            return Err(BenchError::Postgres(format!("initdb ended with {made}")));
        }
        let port = free_port()?;
        let log = File::create(dir.path().join("log")).map_err(BenchError::io("the log of PostgreSQL"))?;
        let log_too = log.try_clone().map_err(BenchError::io("the log of PostgreSQL"))?;
        let child = command(&postgres)
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "max_connections=300"])
            .stdout(log_too)
            .stderr(log)
            .spawn()
            .map_err(BenchError::io("PostgreSQL does not start"))?;
        let server = Self { child, port, _dir: dir };
        let began = Instant::now();
        while let Err(error) = server.client().await {
            if began.elapsed() > Duration::from_secs(60) {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Postgres::migrate(&server.config(), NoTls).await.map_err(|error| BenchError::Postgres(error.to_string()))?;
        Ok(Some(server))
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname("postgres");
        config
    }

    pub(crate) async fn client(&self) -> Result<Client, BenchError> {
        let (client, connection) = self.config().connect(NoTls).await?;
        // It ends with its client.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    pub(crate) async fn engine(&self, namespace: &str, writers: usize) -> Result<Postgres, BenchError> {
        let mut options = Options::default();
        options.writers = writers;
        let connected = Postgres::connect(self.config(), NoTls, namespace, options).await;
        connected.map_err(|error| BenchError::Postgres(error.to_string()))
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // With all its children. One that has ended already is not there to be ended.
        let _ = kill_process(Pid::from_child(&self.child), Signal::QUIT);
        let _ = self.child.wait();
    }
}

/// A command that is not run by root, where this is: PostgreSQL refuses to be.
fn command(program: &Path) -> Command {
    let mut command = if getuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.stdin(Stdio::null());
    command
}

/// A program of PostgreSQL's, which Debian does not put on the path.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    let newest = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let found = versions.filter_map(|version| Some(version.ok()?.path().join("bin").join(name)));
        found.filter(|file| file.is_file()).max()
    };
    on_path.or_else(newest)
}
