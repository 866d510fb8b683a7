//! The supervisor: this program again, as the parent of one command.
//!
//! A killed orchestrator cannot clean up behind itself, so what it started must notice by itself. The supervisor's
//! standard input is a pipe that the orchestrator holds: at its end the orchestrator is gone, or does not want the
//! result any more, and the supervisor kills the command's process group. Whichever way a command ends, nothing of its
//! group is left when its supervisor ends: the next one finds its workspace still.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio, exit, id};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::pipe;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, waitid, waitpgid};

use crate::gates::Exit;
use crate::output::Kept;

/// The subcommand that makes this program a supervisor. The file for the output follows, then the command and its
/// arguments.
pub const SUBCOMMAND: &str = "supervise";
/// What the supervisor says before and after: a line each.
pub(crate) const STARTED: &str = "started ";
/// How long the output of a command that has ended is waited for.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs `command`, and says how it ended.
pub fn run(command: impl Iterator<Item = OsString>) {
    // Both are for the better only: not to be hit by what is meant for the orchestrator, and to be told of the end of
    // processes whose parent has ended before them.
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::thread::set_name(c"supervisor");
        let _ = rustix::process::set_child_subreaper(i32::try_from(id()).ok().and_then(Pid::from_raw));
    }
    let exit = supervised(command).unwrap_or_else(|error| Exit::not_started(&error));
    say(&exit.to_line());
}

/// Whoever does not listen any more does not miss it.
fn say(line: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

fn supervised(mut command: impl Iterator<Item = OsString>) -> io::Result<Exit> {
    let output = command.next().ok_or_else(|| io::Error::other("no file for the output is given"))?;
    let program = command.next().ok_or_else(|| io::Error::other("the command is empty"))?;
    let stage = Arc::new(Mutex::new(Stage::Waiting));
    let watched = Arc::clone(&stage);
    thread::Builder::new().spawn(move || {
        // Nothing is ever written to it: this is its end, or an error, after which its end would not be seen.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        match *lock(&watched) {
            Stage::Waiting => exit(0),
            Stage::Running(group) => kill(group),
            Stage::Over => {}
        }
    })?;

    // The command before this one may still be ending, if its orchestrator was killed. Its supervisor goes last.
    let workspace = File::create("command.lock")?;
    flock(&workspace, FlockOperation::LockExclusive)?;

    let output = Output::keep(Path::new(&output))?;
    let (mut child, group) = {
        let mut stage = lock(&stage);
        let child = Command::new(program)
            .args(command)
            .stdin(Stdio::null())
            .stdout(output.end()?)
            .stderr(output.end()?)
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(&child);
        *stage = Stage::Running(group);
        (child, group)
    };
    say(&format!("{STARTED}{}", group.as_raw_nonzero()));
    // Not reaped yet: until then its id cannot become another's.
    let waited = waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    kill(group);
    *lock(&stage) = Stage::Over;
    let status = child.wait()?;
    // Killed, but perhaps not gone yet. Those that are not our children are in somebody else's care.
    while waitpgid(group, WaitOptions::empty()).is_ok() {}
    output.finish();
    waited?;
    Ok(ended(status))
}

/// The pipe that a command prints into, and what becomes of it.
struct Output {
    writer: OwnedFd,
    kept: Arc<Mutex<Kept>>,
    over: mpsc::Receiver<()>,
}

impl Output {
    /// Reads the pipe to its end, whatever comes: a command is not to wait for us.
    fn keep(path: &Path) -> io::Result<Self> {
        let (reader, writer) = pipe()?;
        // Nothing is started before both are closed to children.
        fcntl_setfd(&reader, FdFlags::CLOEXEC)?;
        fcntl_setfd(&writer, FdFlags::CLOEXEC)?;
        let kept = Arc::new(Mutex::new(Kept::to(path)));
        let (end, over) = mpsc::channel();
        let keeping = Arc::clone(&kept);
        thread::Builder::new().spawn(move || {
            let mut reader = File::from(reader);
            let mut bytes = vec![0; 16 << 10];
            while let Ok(read @ 1..) = reader.read(&mut bytes) {
                lock(&keeping).push(&bytes[..read]);
            }
            // Nobody waits if the supervisor has given up.
            let _ = end.send(());
        })?;
        Ok(Self { writer, kept, over })
    }

    /// An end of the pipe for the command. Both of its streams go into one, so that their order is kept.
    fn end(&self) -> io::Result<Stdio> {
        Ok(self.writer.try_clone()?.into())
    }

    /// Writes down what is left in the pipe. What has left the command's group may hold the pipe open for ever.
    fn finish(self) {
        let Self { writer, kept, over } = self;
        drop(writer);
        let _ = over.recv_timeout(LAST_WORDS);
        lock(&kept).flush();
    }
}

fn ended(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

/// Where the supervisor is in its work.
enum Stage {
    /// Nothing is started yet.
    Waiting,
    /// The command leads this process group.
    Running(Pid),
    /// The group's id may be another's now.
    Over,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(group: Pid) {
    // Fails only if nobody is left in it.
    let _ = kill_process_group(group, Signal::KILL);
}
