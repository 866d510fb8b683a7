//! A real server of the real binary, and a client that says exactly what it is told to.

#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub const TOKEN: &str = "open-sesame";
/// Longer than anything takes that works.
pub const LONG: Duration = Duration::from_secs(30);

/// Two gates that take no time, and two kinds that wait for what the test does.
pub const QUICK: &str = "
job.command = ['true']
gates = [{ name = 'one', command = ['true'] }, { name = 'two', command = ['true'] }]
[limits]
finalize_grace = 0.2
hard_deadline = 60
sweep_every = 0.02
process = 60
shutdown = 20
[kinds.red]
gates = [{ name = 'one', command = ['false'] }]
[kinds.held]
job.command = ['sh', '-c', 'echo $$ > pid; while [ ! -e ../../go ]; do sleep 0.02; done']
[kinds.gated]
gates = [{ name = 'wait', command = ['sh', '-c', 'echo $$ > pid; while [ ! -e ../../go ]; do sleep 0.02; done'] }]
";

/// A directory for a server, with a settings file.
pub struct Place {
    pub directory: TempDir,
}

impl Place {
    pub fn new(settings: &str) -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("settings.toml"), settings).unwrap();
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn db(&self) -> PathBuf {
        self.path("jobs.db")
    }

    /// `serve`, not started yet.
    pub fn command(&self) -> Command {
        let mut command = orchestrator();
        command.current_dir(self.directory.path()).args(["serve", "--db", "jobs.db", "--config", "settings.toml"]);
        command.args(["--listen", "127.0.0.1:0", "--workspaces", "work"]);
        command
    }

    /// A server with a token.
    pub fn serve(&self) -> Server {
        Server::start(self.command().args(["--token", TOKEN]))
    }

    /// Lets the jobs that wait for it go on.
    pub fn go(&self) {
        fs::write(self.path("go"), "").unwrap();
    }

    pub fn raw(&self) -> Connection {
        Connection::open(self.db()).unwrap()
    }

    pub fn count(&self, sql: &str) -> u64 {
        self.raw().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The id of the process that a job of kind `held` or `gated` wrote down.
    pub fn pid_of(&self, job: u64) -> Pid {
        let path = self.path(&format!("work/job-{job}/pid"));
        wait_for("the job's process", || fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n')));
        Pid::from_raw(fs::read_to_string(path).unwrap().trim().parse().unwrap()).unwrap()
    }
}

/// The binary, without what the caller's environment says.
pub fn orchestrator() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    command.env_remove("ORCHESTRATOR_TOKEN").stdin(Stdio::null());
    command
}

/// A running server; killed when dropped.
pub struct Server {
    pub child: Child,
    /// What it says after its address.
    pub out: BufReader<ChildStdout>,
    address: String,
}

impl Server {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let Some(address) = line.strip_prefix("listening on http://").and_then(|rest| rest.strip_suffix("/\n")) else {
            let _ = child.kill();
            let mut error = String::new();
            child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            panic!("it said {line:?}, and {error:?}");
        };
        let address = address.to_owned();
        Self { child, out, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> &str {
        self.address.rsplit_once(':').unwrap().1
    }

    pub fn get(&self, path: &str) -> Response {
        self.ask("GET", path, &[], "")
    }

    /// A request as it should be.
    pub fn change(&self, method: &str, path: &str, body: &str) -> Response {
        let token = format!("Authorization: Bearer {TOKEN}");
        self.ask(method, path, &[&token, "Content-Type: application/json"], body)
    }

    pub fn submit(&self, body: &str) -> Vec<u64> {
        let response = self.change("POST", "/jobs", body);
        assert_eq!(response.status, 201, "{response:?}");
        serde_json::from_value(response.json()["jobs"].clone()).unwrap()
    }

    pub fn queue(&self) -> Value {
        let response = self.get("/queue");
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    }

    /// Waits until the queue is so.
    pub fn until(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut queue = Value::Null;
        let started = Instant::now();
        while started.elapsed() < LONG {
            queue = self.queue();
            if condition(&queue) {
                return queue;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("never {what}: {queue:#}");
    }

    pub fn until_counts(&self, state: &str, jobs: u64) -> Value {
        self.until(&format!("{jobs} {state}"), |queue| queue["counts"][state] == jobs)
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Response {
        let host = format!("Host: {}", self.address);
        let length = format!("Content-Length: {}", body.len());
        let mut all = vec![host.as_str(), "Connection: close"];
        if !body.is_empty() || method != "GET" {
            all.push(&length);
        }
        all.extend(headers);
        self.say(&format!("{method} {path} HTTP/1.1\r\n{}\r\n\r\n{body}", all.join("\r\n")))
    }

    /// Sends just these bytes, and reads until the server closes.
    pub fn say(&self, request: &str) -> Response {
        let mut stream = self.connect();
        // A refusal may come, and the connection end, before all of it is sent.
        let sent = stream.write_all(request.as_bytes());
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        assert!(!bytes.is_empty(), "no response: {sent:?}, {read:?}");
        Response::parse(&String::from_utf8(bytes).unwrap())
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and tells how it ended and what it said to stderr.
    pub fn ended(&mut self) -> (ExitStatus, String) {
        wait_for("the server's end", || self.child.try_wait().unwrap().is_some());
        let mut error = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut error).unwrap();
        }
        (self.child.wait().unwrap(), error)
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header =
            |line: &str| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        Self { status, headers: lines.filter_map(header).collect(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One who watches: reads server-sent events, and keeps the state that they tell of.
pub struct Events {
    lines: BufReader<TcpStream>,
    /// As `GET /queue` has it, but for the marks, which are told with the jobs.
    pub state: Value,
    /// What was told of what happened.
    pub happened: Vec<Value>,
    seq: Option<u64>,
}

impl Events {
    pub fn of(server: &Server) -> Self {
        let mut stream = server.connect();
        write!(stream, "GET /events HTTP/1.0\r\nHost: localhost:{}\r\n\r\n", server.port()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.0 200") && head.contains("content-type: text/event-stream"), "{head}");
        Self { lines, state: Value::Null, happened: Vec::new(), seq: None }
    }

    /// The next event's name and data; `None` at the end.
    pub fn next(&mut self) -> Option<(String, Value)> {
        let (mut name, mut data, mut id) = (String::new(), Value::Null, None);
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end();
            if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = serde_json::from_str(text).unwrap();
            } else if let Some(number) = line.strip_prefix("id: ") {
                id = Some(number.parse().unwrap());
            } else if line.is_empty() && !data.is_null() {
                break;
            }
        }
        match name.as_str() {
            "queue" => self.state = data.clone(),
            "change" => {
                assert_eq!(id, self.seq.map(|seq| seq + 1), "a change of another state");
                self.take_up(&data);
            }
            _ => {}
        }
        self.seq = id.or(self.seq);
        Some((name, data))
    }

    /// Takes up a difference, as the page does.
    fn take_up(&mut self, change: &Value) {
        self.state["now_ms"] = change["now_ms"].clone();
        for (name, value) in change["set"].as_object().unwrap() {
            self.state[name] = value.clone();
        }
        let told = change["running"].as_array().unwrap();
        let gone = change["gone"].as_array().unwrap();
        let stages = self.state["running"].as_object_mut().unwrap();
        for jobs in stages.values_mut() {
            let is_told = |id: &Value| gone.contains(id) || told.iter().any(|job| job["job"] == *id);
            jobs.as_array_mut().unwrap().retain(|job| !is_told(&job["job"]));
        }
        for job in told {
            let jobs = stages.entry(job["stage"].as_str().unwrap()).or_insert_with(|| Value::Array(Vec::new()));
            jobs.as_array_mut().unwrap().push(job.clone());
        }
        stages.retain(|_, jobs| jobs.as_array_mut().is_some_and(|jobs| !jobs.is_empty()));
        for jobs in stages.values_mut() {
            jobs.as_array_mut().unwrap().sort_by_key(|job| job["job"].as_u64());
        }
        self.happened.extend(change["happened"].as_array().unwrap().iter().cloned());
    }

    pub fn until(&mut self, condition: impl Fn(&str, &Value) -> bool) -> Value {
        let started = Instant::now();
        while let Some((name, data)) = self.next() {
            if condition(&name, &data) {
                return data;
            }
            assert!(started.elapsed() < LONG);
        }
        panic!("the events ended");
    }

    /// Waits until what is told adds up to this.
    pub fn until_state(&mut self, condition: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        while self.state.is_null() || !condition(&self.state) {
            assert!(started.elapsed() < LONG, "never: {:#}", self.state);
            self.next().unwrap();
        }
        self.state.clone()
    }
}

#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LONG, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// What comes of a command that is to refuse. One that does not, and would go on for ever, is ended.
pub fn outcome(command: &mut Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(10) {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// A command that cannot do it says why in one line, and nothing else.
#[track_caller]
pub fn refused(output: &Output, reason: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| (2..=9).contains(&code)), "{:?}: {stderr}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("orchestrator: ") && stderr.contains(reason), "{stderr}");
}
