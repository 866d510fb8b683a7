//! Real PostgreSQL servers, and poolers, started by the tests on loopback with directories of their own.

#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../../livemark-etcd/tests/support/proxy.rs"]
pub mod proxy;

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use livemark::Finalizer;
use livemark_cluster::{Config, Session};
use livemark_postgres::{Options, Postgres};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

pub const TTL: Duration = Duration::from_secs(4);

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

/// Says what is not checked, past the capture of the test's output. Where `LIVEMARK_POSTGRES` is `required`, it fails.
pub fn not_checked(what: &str, how: &str) {
    let wanted = std::env::var("LIVEMARK_POSTGRES").is_ok_and(|wanted| wanted == "required");
    assert!(!wanted, "{what}, and it is required");
    let _ = writeln!(std::io::stderr(), "NOT CHECKED: {what} ({how})");
}

/// A port that nobody listens at, and that nobody is given.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let at = std::process::id().wrapping_mul(101).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(10_000 + at % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A command that ends with this process, and is not run by root, where this is: PostgreSQL refuses to be.
fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if rustix::process::getuid().is_root() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    }
    command.arg(program).stdin(Stdio::null());
    command
}

fn give_to_postgres(dir: &Path) {
    if rustix::process::getuid().is_root() {
        let done = Command::new("chown").args(["-R", "postgres:postgres"]).arg(dir).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
}

/// A server with a data directory of its own. It is killed with this.
pub struct Server {
    dir: TempDir,
    pub port: u16,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Starts a server. `None` where there is no PostgreSQL.
    pub async fn start(settings: &[&str]) -> Option<Self> {
        let Some(initdb) = program("initdb") else {
            not_checked("there is no PostgreSQL", "Debian: apt-get install postgresql");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        give_to_postgres(dir.path());
        let made = command(&initdb)
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(dir.path().join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Some(Self::over(dir, settings).await)
    }

    /// Starts a replica of the server at this port, which follows it asynchronously.
    pub async fn follow(port: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        give_to_postgres(dir.path());
        let made = command(&program("pg_basebackup").unwrap())
            .args([
                "--write-recovery-conf",
                "--checkpoint=fast",
                "--no-sync",
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-p",
            ])
            .arg(port.to_string())
            .arg("-D")
            .arg(dir.path().join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self::over(dir, &[]).await
    }

    async fn over(dir: TempDir, settings: &[&str]) -> Self {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { dir, port: free_port(), settings, child: None };
        server.launch();
        server.await_ready().await;
        server
    }

    /// Starts the server, which does not run.
    pub fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut server = command(&program("postgres").unwrap());
        server.arg("-D").arg(self.dir.path().join("data"));
        server.args([
            "-p",
            &self.port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
        ]);
        for setting in &self.settings {
            server.args(["-c", setting]);
        }
        self.child = Some(server.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub async fn await_ready(&self) {
        let began = Instant::now();
        while let Err(error) = self.try_client().await {
            assert!(began.elapsed() < Duration::from_secs(60), "it does not start: {error}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Ends it at once, with all its children, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_process(Pid::from_child(&child), Signal::QUIT).unwrap();
            child.wait().unwrap();
        }
    }

    /// Makes a replica a server of its own.
    pub fn promote(&self) {
        let done = command(&program("pg_ctl").unwrap())
            .args(["promote", "-w", "-D"])
            .arg(self.dir.path().join("data"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    pub fn config(&self) -> tokio_postgres::Config {
        config(self.port)
    }

    async fn try_client(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config().connect(NoTls).await?;
        tokio::spawn(async move { drop(connection.await) });
        client.batch_execute("SELECT 1").await?;
        Ok(client)
    }

    pub async fn client(&self) -> Client {
        self.try_client().await.unwrap()
    }

    /// A namespace on this server, with the schema.
    pub async fn engine(&self, namespace: &str) -> Postgres {
        Postgres::migrate(&self.config(), NoTls).await.unwrap();
        engine(self.config(), namespace).await
    }

    pub async fn open(&self, name: &str) -> Session {
        Session::open(self.engine("jobs").await, session(name)).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(15).collect();
            eprintln!("---- the end of the server's log, backwards:\n{}", last.join("\n"));
        }
    }
}

/// A pooler in transaction mode in front of a server: each transaction may run in another process of the server's.
pub struct Pooler {
    _dir: TempDir,
    pub port: u16,
    child: Child,
}

impl Pooler {
    pub async fn before(server: &Server) -> Option<Self> {
        let program =
            program("pgbouncer").or_else(|| Some(PathBuf::from("/usr/sbin/pgbouncer")).filter(|file| file.is_file()));
        let Some(program) = program else {
            not_checked("there is no pooler", "Debian: apt-get install pgbouncer");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let settings = format!(
            "[databases]\npostgres = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 500\n\
             server_reset_query =\n",
            server.port
        );
        let settings = settings.replace("postgres = host", "postgres = user=postgres host");
        fs::write(dir.path().join("pgbouncer.ini"), settings).unwrap();
        give_to_postgres(dir.path());
        let log = File::create(dir.path().join("log")).unwrap();
        let child = command(&program)
            .arg(dir.path().join("pgbouncer.ini"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let pooler = Self { _dir: dir, port, child: child.unwrap() };
        let began = Instant::now();
        while config(port).connect(NoTls).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "the pooler does not start");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Some(pooler)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn config(port: u16) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("postgres").dbname("postgres");
    config
}

pub async fn engine(config: tokio_postgres::Config, namespace: &str) -> Postgres {
    let mut options = Options::default();
    options.poll_every = Duration::from_millis(200);
    Postgres::connect(config, NoTls, namespace, options).await.unwrap()
}

pub fn session(name: &str) -> Config {
    let mut config = Config::with_ttl(TTL);
    config.process = name.to_owned();
    config
}

pub fn run(id: u64) -> Finalizer {
    Finalizer::new(Some(id), "merge")
}

/// Waits until something is so. Fails after a minute.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}
