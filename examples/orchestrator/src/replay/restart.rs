//! (e) The restart: this program is started again as a child process, killed during its
//! finalizations, and started once more on the same file.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use livemark::{Mode, Registry};

use crate::config::Config;
use crate::engine::{Engine, Hook, REQUEUED, Shift, Step, no_hook, wait_until};
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::marks::Marks;
use crate::reap;
use crate::replay::report::Fact;
use crate::replay::{PATIENCE, Replay, diverged, merged, rolled_back};
use crate::store::{Database, Outcome, State};

const JOBS: u64 = 3;
/// What a monitor notes when it waits to be killed.
const HELD: &str = "is held here until the process is killed";
const SIGKILL: u64 = 9;

pub(super) fn killed(replay: &Replay<'_>, queue: &str) -> Result<Vec<Fact>> {
    let store = replay.database.store(queue)?;
    for _ in 0..JOBS {
        store.enqueue()?;
    }

    let mut first = Life::start(replay, queue, true)?;
    wait_until("the monitors to be in their places", PATIENCE, || {
        Ok(store.count_notes(HELD)? == JOBS || first.has_ended())
    })?;
    let killed = first.kill()?;
    store.note(None, "kernel", &format!("process 1 ends: {killed}"))?;

    let mut second = Life::start(replay, queue, false)?;
    let ended = second.wait()?;
    store.note(None, "kernel", &format!("process 2 ends: {ended}"))?;

    let notes = store.notes()?;
    let reaper = notes.iter().rposition(|note| note.who == reap::WHO && note.what.starts_with("starts"));
    let before_reaper = notes.iter().take(reaper.unwrap_or(0));
    let requeued = before_reaper.filter(|note| note.what == REQUEUED).count();
    Ok(vec![
        Fact::exactly("signal that ended process 1", SIGKILL, killed.signal().unwrap_or(0).unsigned_abs().into()),
        Fact::exactly("runs lost with it", JOBS, store.count_outcomes(Outcome::Lost)?),
        Fact::exactly("re-queued before the reaper starts", JOBS, requeued as u64),
        Fact::exactly("runs of the three jobs", 2 * JOBS, store.count_runs()?),
        Fact::exactly("jobs merged", JOBS, store.count_jobs(State::Merged)?),
        merged(&store, JOBS)?,
        rolled_back(&store, 0)?,
        diverged(&store, 0)?,
    ])
}

/// What the child process does: works off `queue`. With `hold`, its monitors stop halfway, each at
/// another place: before the job's process, among the gates, and between acting and committing.
pub fn work(
    database: &Database,
    config: &Config,
    queue: &str,
    workspaces: &Path,
    program: &Path,
    hold: bool,
) -> Result<()> {
    let jobs = database.store(queue)?.queued()?;
    let places = [Step::Started, Step::Gate(config.default_kind.gates.len() - 1), Step::Acted];
    let held: &Hook<'_> = &|store, job, run, step| {
        let place = jobs.iter().position(|&queued| queued == job).and_then(|index| places.get(index));
        if place == Some(&step) {
            store.note(Some(job), &format!("run {run}"), HELD)?;
            wait_until("being killed", PATIENCE, || Ok(false))?;
        }
        Ok(())
    };
    let hook = if hold { held } else { &no_hook };
    let registry = Registry::new();
    Engine {
        marks: Marks::Own(&registry),
        database,
        queue,
        config,
        workspaces,
        supervisor: program,
        feed: &Feed::default(),
        shift: &Shift::default(),
        logs: false,
        hook,
    }
    .drain(Mode::Honor)?;
    Ok(())
}

/// One life of the process; killed and waited for when dropped.
struct Life {
    child: Child,
}

impl Life {
    fn start(replay: &Replay<'_>, queue: &str, hold: bool) -> Result<Self> {
        let doing = "starting this program again";
        let mut command = Command::new(replay.program);
        command.arg("--db").args(replay.database.path());
        command.arg("--work").arg(queue).arg("--workspaces").arg(replay.workspaces);
        if let Some(path) = replay.config_path {
            command.arg("--config").arg(path);
        }
        if hold {
            command.arg("--hold");
        }
        let child = command.stdin(Stdio::null()).spawn().map_err(Error::io(doing))?;
        Ok(Self { child })
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends SIGKILL.
    fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().map_err(Error::io("killing the process"))?;
        self.wait()
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().map_err(Error::io("waiting for the process"))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
