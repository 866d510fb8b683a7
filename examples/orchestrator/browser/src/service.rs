//! The real orchestrator, as a service.

use std::env;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Group, first_line, is_release};

/// The token that changes need.
pub const TOKEN: &str = "a-token-for-tests";

/// A running service, with a database of its own. Ended on drop.
#[derive(Debug)]
pub struct Service {
    process: Option<Group>,
    address: String,
    directory: TempDir,
}

impl Service {
    /// Starts a service on a free port.
    pub fn start(settings: &str) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        fs::write(directory.path().join("serve.toml"), settings).expect("temporary directory");
        let mut service = Self { process: None, address: "127.0.0.1:0".into(), directory };
        service.resume();
        service
    }

    /// Starts it again after [`stop`](Self::stop), where it was.
    pub fn resume(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let file = |name| self.directory.path().join(name);
        let mut command = Command::new(orchestrator());
        command.args(["serve", "--listen", &self.address, "--token", TOKEN]);
        command.arg("--db").arg(file("jobs.db")).arg("--config").arg(file("serve.toml"));
        let mut process = Group::spawn(command.stdout(Stdio::piped()), Some(Duration::from_secs(5)))
            .expect("the orchestrator starts");
        let lines = BufReader::new(process.child.stdout.take().expect("it is piped"));
        let address = |line: &str| {
            let address = line.split_once("http://")?.1;
            Some(address.split(['/', ' ']).next()?.to_owned())
        };
        self.address = first_line(lines, address).expect("the orchestrator says where it listens");
        self.process = Some(process);
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Where its page is.
    pub fn origin(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// What `GET /queue` answers.
    pub fn queue(&self) -> Value {
        self.ask("GET", "/queue", "")
    }

    /// Submits jobs.
    pub fn submit(&self, body: &str) {
        self.ask("POST", "/jobs", body);
    }

    /// What is answered there.
    pub fn get(&self, path: &str) -> Value {
        self.ask("GET", path, "")
    }

    /// Changes something.
    pub fn change(&self, method: &str, path: &str, body: &str) -> Value {
        self.ask(method, path, body)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).expect("the service listens");
        // Version 1.0 of the protocol: one answer, in one piece, to the end of the connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("the service listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the service answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
        assert!(head.lines().next().is_some_and(|status| status.contains(" 20")), "{head}: {body}");
        serde_json::from_str(body).expect("JSON")
    }
}

/// The program, built as the test is.
fn orchestrator() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args([
            "build",
            "--package",
            "orchestrator",
            "--bin",
            "orchestrator",
            "--message-format",
            "json-render-diagnostics",
        ]);
        if is_release() {
            command.arg("--release");
        }
        let output = command.stderr(Stdio::inherit()).output().expect("cargo is there");
        assert!(output.status.success(), "the orchestrator does not build");
        let messages = String::from_utf8_lossy(&output.stdout).into_owned();
        let executable = |message: &str| {
            let message: Value = serde_json::from_str(message).ok()?;
            Some(PathBuf::from(message["executable"].as_str()?))
        };
        messages.lines().find_map(executable).expect("cargo names the program")
    })
}
