//! Child processes: the job's own and the gates, and the lock on the workspace they work in.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::store::RunId;

/// How often a child is looked at.
const POLL: Duration = Duration::from_millis(5);

/// How a child process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal from elsewhere.
    Signal(i32),
    /// Killed at its time limit.
    TimedOut,
    /// Killed because its result is no longer wanted.
    Stopped,
    /// It could not be started.
    NotStarted(String),
}

impl Exit {
    /// Whether all is well.
    pub fn is_green(&self) -> bool {
        *self == Self::Code(0)
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
        }
    }
}

/// Runs `command` in `directory` until it ends, takes longer than `limit`, or `wanted` turns false.
pub fn run(command: &[String], directory: &Path, limit: Duration, wanted: impl Fn() -> bool) -> Exit {
    let started = Instant::now();
    let mut group = match Group::spawn(command, directory) {
        Ok(group) => group,
        Err(error) => return Exit::NotStarted(error.to_string()),
    };
    loop {
        match group.child.try_wait() {
            Ok(Some(status)) => return ended(status),
            Ok(None) if !wanted() => return Exit::Stopped,
            Ok(None) if started.elapsed() > limit => return Exit::TimedOut,
            Ok(None) => thread::sleep(POLL),
            Err(error) => return Exit::NotStarted(error.to_string()),
        }
    }
}

fn ended(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

/// A child that leads its own process group, so that what it started in turn ends with it.
struct Group {
    child: Child,
}

impl Group {
    fn spawn(command: &[String], directory: &Path) -> io::Result<Self> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::Error::other("the command is empty"));
        };
        let child = Command::new(program)
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { child })
    }
}

/// Kills what is left of the group and waits for the child, also while unwinding.
impl Drop for Group {
    fn drop(&mut self) {
        // Only while the child has not been waited for is its id surely still its own.
        if let Ok(None) = self.child.try_wait() {
            if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                // Fails only if the group is gone already.
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let _ = self.child.wait();
        }
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
            if error != rustix::io::Errno::WOULDBLOCK {
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
pub fn workspace(root: &Path, job: u64) -> io::Result<std::path::PathBuf> {
    let directory = root.join(format!("job-{job}"));
    fs::create_dir_all(&directory)?;
    Ok(directory)
}
