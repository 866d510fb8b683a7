//! Real etcd servers, started by the tests on loopback, each with a data directory of its own.

#![allow(dead_code, unreachable_pub, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub mod proxy;
pub mod work;

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use livemark_etcd::{ConnectError, Etcd, Options};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A cluster of one member or several. They are killed with it.
pub struct Cluster {
    members: Vec<Member>,
    dir: TempDir,
}

struct Member {
    name: String,
    args: Vec<String>,
    endpoint: String,
    child: Option<Child>,
    log: PathBuf,
}

/// The program, if there is one. It says so where there is none, past the capture of the test's output. Where
/// `LIVEMARK_ETCD` is `required`, it fails.
pub fn etcd() -> Option<PathBuf> {
    let found = program("etcd").filter(|_| program("etcdctl").is_some());
    if found.is_none() {
        let wanted = std::env::var("LIVEMARK_ETCD").is_ok_and(|etcd| etcd == "required");
        assert!(!wanted, "there is no etcd with its etcdctl, and it is required");
        let how = "Debian: apt-get install etcd-server etcd-client";
        let _ = writeln!(std::io::stderr(), "NOT CHECKED: there is no etcd with its etcdctl ({how})");
    }
    found
}

pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A port that nobody listens at, and that nobody is given: below those that systems give to whoever connects or asks for
/// any. Each process of tests has some of its own.
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

impl Cluster {
    /// Starts a cluster, and waits until it has a leader. `None` where there is no etcd.
    pub async fn start(members: usize, flags: &[&str]) -> Option<Self> {
        Self::start_over(members, "http", flags).await
    }

    /// Starts one member that listens for clients at these URLs, the first of which the tests use.
    pub async fn start_listening(urls: &str) -> Option<Self> {
        etcd()?;
        let mut cluster = Self::prepare(1, "http", &[]);
        let member = &mut cluster.members[0];
        member.endpoint = urls.split(',').next().unwrap().to_owned();
        for flag in ["--listen-client-urls", "--advertise-client-urls"] {
            let at = member.args.iter().position(|arg| arg == flag).unwrap();
            urls.clone_into(&mut member.args[at + 1]);
        }
        cluster.launch(0);
        cluster.await_ready().await;
        Some(cluster)
    }

    /// Starts members the first of which has its data in `dir`.
    pub async fn start_on(members: usize, dir: PathBuf) -> Option<Self> {
        etcd()?;
        let mut cluster = Self::prepare(members, "http", &[]);
        let args = &mut cluster.members[0].args;
        let at = args.iter().position(|arg| arg == "--data-dir").unwrap();
        args[at + 1] = dir.join("data").to_str().unwrap().to_owned();
        for at in 0..members {
            cluster.launch(at);
        }
        cluster.await_ready().await;
        Some(cluster)
    }

    pub async fn start_over(members: usize, scheme: &str, flags: &[&str]) -> Option<Self> {
        etcd()?;
        let mut cluster = Self::prepare(members, scheme, flags);
        for at in 0..cluster.members.len() {
            cluster.launch(at);
        }
        cluster.await_ready().await;
        Some(cluster)
    }

    fn prepare(members: usize, scheme: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<_> = (0..members).map(|_| (free_port(), free_port())).collect();
        let all: Vec<_> =
            ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{peer}")).collect();
        let members = ports.iter().enumerate().map(|(at, (client, peer))| {
            let name = format!("m{at}");
            let data = dir.path().join(&name);
            let (client, peer) = (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let mut args: Vec<String> = [
                ("--name", name.as_str()),
                ("--data-dir", data.to_str().unwrap()),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--listen-peer-urls", &peer),
                ("--initial-advertise-peer-urls", &peer),
                ("--initial-cluster", &all.join(",")),
            ]
            .iter()
            .flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()])
            .collect();
            args.extend(flags.iter().map(|flag| (*flag).to_owned()));
            Member { log: dir.path().join(format!("{name}.log")), name, args, endpoint: client, child: None }
        });
        Self { members: members.collect(), dir }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn data_dir(&self, at: usize) -> PathBuf {
        self.dir.path().join(&self.members[at].name)
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    pub fn endpoint(&self, at: usize) -> String {
        self.members[at].endpoint.clone()
    }

    /// Starts a member that does not run.
    pub fn launch(&mut self, at: usize) {
        let member = &mut self.members[at];
        let log = File::options().create(true).append(true).open(&member.log).unwrap();
        // Where it can be had: it ends with this process, also where that is killed.
        let setpriv = program("setpriv");
        let mut command = Command::new(setpriv.as_deref().unwrap_or(Path::new("etcd")));
        if setpriv.is_some() {
            command.args(["--pdeathsig", "KILL", "etcd"]);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let child = command
            .args(&member.args)
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        member.child = Some(child);
    }

    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.members[at].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends a signal to a member: `STOP`, `CONT` or `TERM`.
    pub fn signal(&self, at: usize, signal: Signal) {
        let child = self.members[at].child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Waits until the cluster has a leader and answers.
    pub async fn await_ready(&self) {
        let began = Instant::now();
        loop {
            match Etcd::connect(self.endpoints(), "ready", Options::default()).await {
                Ok(_) | Err(ConnectError::Denied(_)) => return,
                // What speaks TLS answers no plain question: its own test waits for it.
                Err(ConnectError::Endpoint { .. }) => return,
                Err(error) => {
                    assert!(began.elapsed() < Duration::from_secs(60), "etcd does not start: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// The member that leads.
    pub fn leader(&self) -> usize {
        let began = Instant::now();
        loop {
            for at in 0..self.members.len() {
                let said = Command::new("etcdctl")
                    .env("ETCDCTL_API", "3")
                    .args(["--endpoints", &self.members[at].endpoint, "endpoint", "status"])
                    .output()
                    .unwrap();
                // Endpoint, number, version, size, whether it leads.
                if String::from_utf8_lossy(&said.stdout).split(", ").nth(4) == Some("true") {
                    return at;
                }
            }
            assert!(began.elapsed() < Duration::from_secs(30), "nobody leads");
        }
    }

    /// Makes a member lead. Returns whether it does.
    pub async fn lead(&self, at: usize) -> bool {
        for _ in 0..20 {
            let leader = self.leader();
            if leader == at {
                return true;
            }
            let ctl = |from: usize, args: &[&str]| {
                Command::new("etcdctl")
                    .env("ETCDCTL_API", "3")
                    .args(["--endpoints", &self.members[from].endpoint])
                    .args(args)
                    .output()
                    .unwrap()
            };
            // Endpoint, number.
            let said = ctl(at, &["endpoint", "status"]).stdout;
            let said = String::from_utf8_lossy(&said).into_owned();
            if let Some(number) = said.split(", ").nth(1) {
                ctl(leader, &["move-leader", number]);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        false
    }

    /// Puts a member, which does not run, back to a snapshot.
    pub fn restore(&self, at: usize, snapshot: &Path) {
        let member = &self.members[at];
        let value = |flag: &str| member.args[member.args.iter().position(|arg| arg == flag).unwrap() + 1].clone();
        std::fs::remove_dir_all(value("--data-dir")).unwrap();
        let mut restore = Command::new("etcdctl");
        restore.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot);
        for flag in ["--name", "--data-dir", "--initial-cluster", "--initial-advertise-peer-urls"] {
            restore.arg(flag).arg(value(flag));
        }
        let done = restore.output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    /// Runs `etcdctl` against the first member.
    pub fn ctl(&self, args: &[&str]) -> Output {
        Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(self.endpoint(0))
            .args(args)
            .output()
            .unwrap()
    }

    pub async fn connect(&self, namespace: &str) -> Etcd {
        Etcd::connect(self.endpoints(), namespace, Options::default()).await.unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
        }
        if std::thread::panicking() {
            for member in &self.members {
                let log = std::fs::read_to_string(&member.log).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(15).collect();
                eprintln!("---- the end of {}'s log, backwards:\n{}", member.name, last.join("\n"));
            }
        }
    }
}
