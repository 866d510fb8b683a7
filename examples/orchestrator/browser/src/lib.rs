//! What the tests of the page need: the real orchestrator as a service, and a real Chromium to watch it with.
//!
//! Nothing here skips: a browser that is not installed fails the tests, and says what to install.

use std::io::BufRead;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, thread};

use rustix::process::{Pid, Signal, kill_process_group};

pub mod chromium;
pub mod service;

/// Longer than anything takes that works, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A child process and what it started, ended together.
#[derive(Debug)]
struct Group {
    child: Child,
    /// Set if it is asked before it is killed.
    asked: Option<Duration>,
}

impl Group {
    fn spawn(command: &mut Command, asked: Option<Duration>) -> std::io::Result<Self> {
        Ok(Self { child: command.process_group(0).spawn()?, asked })
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Fails only if all of the group is gone.
            let _ = kill_process_group(group, signal);
        }
    }

    fn ended_within(&mut self, limit: Duration) -> bool {
        let asked = Instant::now();
        while asked.elapsed() < limit {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(limit) = self.asked {
            self.signal(Signal::TERM);
            self.ended_within(limit);
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// What `pick` finds in the first line that has it; the rest is read too, so that the writer is never held up.
fn first_line<T: Send + 'static>(
    lines: impl BufRead + Send + 'static,
    pick: impl Fn(&str) -> Option<T> + Send + 'static,
) -> Option<T> {
    let (found, finding) = mpsc::channel();
    thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            if let Some(picked) = pick(&line) {
                let _ = found.send(picked);
            }
        }
    });
    finding.recv_timeout(PATIENCE).ok()
}

/// The build directory that this test was built into.
pub fn target_directory() -> PathBuf {
    let test = env::current_exe().expect("a test is a file");
    // <target>/<profile>/deps/<test>
    test.ancestors().nth(3).expect("cargo puts tests three levels deep").to_owned()
}

/// Returns `true` if the test was built for release, as what it tests shall be.
fn is_release() -> bool {
    env::current_exe().is_ok_and(|test| test.ancestors().nth(2).is_some_and(|profile| profile.ends_with("release")))
}

/// The program of this name on the search path.
fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(name)).find(|path| Path::is_file(path))
}
