//! Child processes: the job's own and the gates, and the lock on the workspace they work in.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::store::RunId;
use crate::supervise;

/// How often a child is looked at.
const POLL: Duration = Duration::from_millis(5);

/// How a child process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ended by itself, with this code.
    Code(i32),
    /// A signal from elsewhere ended it.
    Signal(i32),
    /// Killed at its time limit.
    TimedOut,
    /// Killed because its result is no longer wanted.
    Stopped,
    /// It could not be started.
    NotStarted(String),
    /// It could not be started for want of something that may be there again soon. This says nothing of the job.
    NotNow(String),
}

impl Exit {
    /// Returns `true` if all is well.
    pub fn is_green(&self) -> bool {
        *self == Self::Code(0)
    }

    /// What is said of a command that could not be started for this reason.
    pub(crate) fn not_started(error: &io::Error) -> Self {
        if is_shortage(error) { Self::NotNow(error.to_string()) } else { Self::NotStarted(error.to_string()) }
    }

    /// The exit code, for the job's row.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(*code),
            _ => None,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::TimedOut => f.write_str("killed at its time limit"),
            Self::Stopped => f.write_str("killed, its result is not wanted"),
            Self::NotStarted(reason) => write!(f, "not started: {reason}"),
            Self::NotNow(reason) => write!(f, "not started for now: {reason}"),
        }
    }
}

/// What a supervisor says.
impl Exit {
    pub(crate) fn to_line(&self) -> String {
        match self {
            Self::Code(code) => format!("code {code}"),
            Self::Signal(signal) => format!("signal {signal}"),
            Self::NotNow(reason) => format!("shortage {reason}"),
            Self::NotStarted(reason) => format!("error {reason}"),
            other => format!("error {other}"),
        }
    }

    fn from_line(line: &str) -> Option<Self> {
        let (what, value) = line.split_once(' ')?;
        match what {
            "code" => value.parse().ok().map(Self::Code),
            "signal" => value.parse().ok().map(Self::Signal),
            "shortage" => Some(Self::NotNow(value.to_owned())),
            "error" => Some(Self::NotStarted(value.to_owned())),
            _ => None,
        }
    }
}

/// Returns `true` if the operating system had too little of something: descriptors, processes, memory, room on a disk.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM, Errno::NOSPC, Errno::DQUOT, Errno::NOLCK];
    error.raw_os_error().is_some_and(|code| shortages.iter().any(|shortage| shortage.raw_os_error() == code))
}

/// A command, and all that it finds.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// This program's own file: started as the command's parent, it ends the command if we are killed.
    pub supervisor: &'a Path,
    /// Program, then arguments.
    pub command: &'a [String],
    /// Where it runs.
    pub directory: &'a Path,
    /// All of its environment.
    pub environment: &'a [(OsString, OsString)],
    /// The file that keeps what it prints.
    pub output: &'a Path,
    /// How long it may take.
    pub limit: Duration,
}

/// Runs a command until it ends, takes longer than its limit, or `wanted` turns false.
pub fn run(task: &Task<'_>, wanted: impl Fn() -> bool) -> Exit {
    let started = Instant::now();
    let mut supervised = match Supervised::spawn(task) {
        Ok(supervised) => supervised,
        Err(error) => return Exit::not_started(&error),
    };
    loop {
        match supervised.child.try_wait() {
            Ok(Some(status)) => return supervised.told(status),
            Ok(None) if !wanted() => return Exit::Stopped,
            Ok(None) if started.elapsed() > task.limit => return Exit::TimedOut,
            Ok(None) => thread::sleep(POLL),
            Err(error) => return Exit::not_started(&error),
        }
    }
}

/// A command with its supervisor.
struct Supervised {
    child: Child,
    /// Held, never written to: at its end the supervisor kills the command.
    lifeline: Option<ChildStdin>,
}

impl Supervised {
    fn spawn(task: &Task<'_>) -> io::Result<Self> {
        let mut child = Command::new(task.supervisor)
            .arg(supervise::SUBCOMMAND)
            .arg(task.output)
            .args(task.command)
            .current_dir(task.directory)
            // The supervisor hands its environment on, and its own can be read as well.
            .env_clear()
            .envs(task.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // What a terminal sends to the orchestrator is not for the supervisor.
            .process_group(0)
            .spawn()?;
        Ok(Self { lifeline: child.stdin.take(), child })
    }

    /// What the supervisor said of the command before it ended.
    fn told(&mut self, status: ExitStatus) -> Exit {
        let mut told = String::new();
        if let Some(output) = &mut self.child.stdout {
            // What cannot be read was not said.
            let _ = output.read_to_string(&mut told);
        }
        let mut lines = told.lines();
        let started = lines.next().and_then(|line| line.strip_prefix(supervise::STARTED)?.parse().ok());
        let last = if started.is_some() { lines.next() } else { told.lines().next() };
        if let Some(exit) = last.and_then(Exit::from_line) {
            return exit;
        }
        // Somebody killed the supervisor, but not the command.
        if let Some(group) = started.and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        match status.signal() {
            Some(signal) => Exit::Signal(signal),
            // It could not even say why. That is not the command's fault.
            None => Exit::NotNow(format!("the supervisor ended with {status}")),
        }
    }
}

/// Has the supervisor end the command, and waits for both, also while unwinding.
impl Drop for Supervised {
    fn drop(&mut self) {
        self.lifeline = None;
        let _ = self.child.wait();
    }
}

/// Exclusive use of a workspace, for as long as a half-merged tree lies in it.
///
/// A lock of the operating system: it ends with the process, however that ends.
#[derive(Debug)]
pub struct WorkspaceLock {
    file: File,
}

impl WorkspaceLock {
    /// Takes the lock for `run`, or tells which run has it. Does not wait.
    pub fn take(workspace: &Path, run: RunId) -> io::Result<Result<Self, String>> {
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(workspace.join("merge.lock"))?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(error.into());
            }
            let mut holder = String::new();
            file.read_to_string(&mut holder)?;
            return Ok(Err(holder));
        }
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(run.to_string().as_bytes())?;
        Ok(Ok(Self { file }))
    }
}

impl Drop for WorkspaceLock {
    fn drop(&mut self) {
        // Explicit: closing alone would wait for a child that was forked, but has not yet executed its program.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// The directory in which the job's process and its gates run.
pub fn workspace(root: &Path, job: u64) -> io::Result<PathBuf> {
    let directory = workspace_path(root, job);
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Where that is.
pub(crate) fn workspace_path(root: &Path, job: u64) -> PathBuf {
    root.join(format!("job-{job}"))
}
