//! (g) to (i): several processes on one store. Each is this program, started again as a child process.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use livemark::{Mode, Registry};

use crate::config::Config;
use crate::engine::{Engine, Hook, Shift, Step, no_hook, wait_until};
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::marks::{Marks, Place, Shared};
use crate::replay::report::Fact;
use crate::replay::{PATIENCE, Replay, diverged, merged, rolled_back};
use crate::store::{Database, Note, Outcome, State, Store};

/// Jobs of a rolling deploy.
const DEPLOYED: u64 = 10;
/// Processes that are killed at random, and started again.
const PROCESSES: usize = 3;
/// Jobs that are queued or running while they are killed.
const KEPT: u64 = 12;
/// The longest life of such a process, and the shortest.
const LIVES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));
/// For how long the marks of a process stay without it: where it is killed, where it is cut off, and where nothing is to happen
/// to it. Among the last two a machine that is so busy that a process loses its marks would spoil the count of runs.
const TTL_KILLED: Duration = Duration::from_secs(1);
const TTL_CUT_OFF: Duration = Duration::from_secs(3);
const TTL_DEPLOYED: Duration = Duration::from_secs(30);
/// How long all of it may take beyond what the kills take.
const LONGEST: Duration = Duration::from_secs(180);
/// What a monitor notes when it waits for its process to be cut off.
const CUT_OFF: &str = "is cut off from the marks, before its commit";

/// A PostgreSQL, and where the marks are.
#[derive(Clone, Debug)]
pub struct Together {
    /// The address of the database, as libpq has it.
    pub database: String,
    /// Where the marks are.
    pub marks: Place,
    /// How many processes are killed in (h).
    pub kills: u32,
}

/// Key, title, whose timeline is told, and what is done and found.
type Scenario = (&'static str, &'static str, Told, fn(&Replay<'_>, &Together, &str) -> Result<Vec<Fact>>);

/// Whose timeline is told: of hundreds of jobs nobody reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// That of the first job, and of no job.
    First,
    /// That of no job.
    Kernel,
}

impl Told {
    pub(super) fn keep(self, notes: &mut Vec<Note>) {
        let first = notes.iter().filter_map(|note| note.job).min();
        notes.retain(|note| match self {
            Self::First => note.job.is_none() || note.job == first,
            Self::Kernel => note.who == "kernel",
        });
    }
}

pub(super) const SCENARIOS: [Scenario; 4] = [
    ("g own", "a rolling deploy: two processes overlap, each with its own marks", Told::First, deployed_alone),
    ("g", "the same with marks that both share", Told::First, deployed),
    ("h", "processes are killed at random", Told::Kernel, killed),
    ("i", "a process is cut off from its marks for longer than they stay", Told::First, cut_off),
];

/// What a child process does beside working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing.
    Work,
    /// Its last gates wait for a reaper's ruling.
    Slow,
    /// It waits before its commits until the job has ended.
    Stuck,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Slow => "slow",
            Self::Stuck => "stuck",
        }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let parts = [Self::Work, Self::Slow, Self::Stuck];
        parts.into_iter().find(|part| part.name() == name).ok_or_else(|| format!("no part is called {name}"))
    }
}

/// What a child process is told.
#[derive(Debug)]
pub struct Role {
    /// The queue to work off.
    pub queue: String,
    /// What it is called.
    pub name: String,
    /// What it does beside.
    pub part: Part,
    /// Whether it knows of its own marks only, as without livemark-cluster.
    pub alone: bool,
    /// For how long its marks stay without it.
    pub ttl: Duration,
}

/// What the child process does: works off a queue beside others, with limits that are past on no busy machine.
pub fn work(together: &Together, role: &Role, mut config: Config, workspaces: &Path, program: &Path) -> Result<()> {
    config.limits.hard_deadline = LONGEST;
    config.limits.max_redrives = Some(1000);
    config.limits.monitors = if role.part == Part::Work { 4 } else { DEPLOYED as usize };
    let database = Database::postgres(&together.database, None)?;
    let registry = Registry::new();
    let marks = if role.alone {
        Marks::Own(&registry)
    } else {
        let floor = database.store(&role.queue)?.greatest_fence()?;
        Marks::Shared(Shared::open(&together.marks, &namespace(&role.queue), &role.name, role.ttl, floor)?)
    };
    let slow: &Hook<'_> = &|store, job, run, step| {
        if step == Step::Gate(config.default_kind.gates.len() - 1) {
            wait_until("a reaper's ruling", LONGEST, || store.ruled_on(job, run))?;
        }
        Ok(())
    };
    let stuck: &Hook<'_> = &|store, job, run, step| {
        if step == Step::Decided {
            store.note(Some(job), &format!("run {run}"), CUT_OFF)?;
            wait_until("the job's end", LONGEST, || Ok(store.state(job)? != State::Running))?;
            store.note(Some(job), &format!("run {run}"), "goes on")?;
        }
        Ok(())
    };
    let engine = Engine {
        marks: marks.clone(),
        database: &database,
        queue: &role.queue,
        config: &config,
        workspaces,
        supervisor: program,
        feed: &Feed::default(),
        shift: &Shift::default(),
        logs: false,
        hook: match role.part {
            Part::Work => &no_hook,
            Part::Slow => slow,
            Part::Stuck => stuck,
        },
    };
    let drained = engine.drain_together(Mode::Honor);
    // Who is cut off cannot say so.
    let _ = marks.close();
    drained.map(drop)
}

/// Marks of one replay are not those of another.
fn namespace(queue: &str) -> String {
    queue.replace('/', "-")
}

/// (g) Two processes overlap. With `alone`, each knows of its own marks only.
fn deploy(replay: &Replay<'_>, together: &Together, queue: &str, alone: bool) -> Result<Vec<Fact>> {
    let store = together.store(queue)?;
    for _ in 0..DEPLOYED {
        store.enqueue()?;
    }
    let start = |name, part| {
        let beginning = Beginning { part, alone, ttl: TTL_DEPLOYED, ..Beginning::of(replay, together, queue, name) };
        if alone { beginning.apart() } else { beginning }.life()
    };
    let mut old = start("old", Part::Slow)?;
    wait_until("the old process to have all jobs", PATIENCE, || Ok(store.queued()?.is_empty() || old.has_ended()))?;
    store.note(None, "deploy", "starts the new process, and lets the old one end what it has")?;
    let mut new = start("new", Part::Work)?;
    let ended = (old.wait()?, new.wait()?);
    store.note(None, "deploy", &format!("old ends: {}, new ends: {}", ended.0, ended.1))?;
    let times = if alone { 2 } else { 1 };
    Ok(vec![
        Fact::exactly("jobs merged", DEPLOYED, store.count_jobs(State::Merged)?),
        merged(&store, times * DEPLOYED)?,
        Fact::exactly("finalizations", times * DEPLOYED, store.count_runs()?),
        rolled_back(&store, 0)?,
    ])
}

pub(super) fn deployed(replay: &Replay<'_>, together: &Together, queue: &str) -> Result<Vec<Fact>> {
    deploy(replay, together, queue, false)
}

pub(super) fn deployed_alone(replay: &Replay<'_>, together: &Together, queue: &str) -> Result<Vec<Fact>> {
    deploy(replay, together, queue, true)
}

/// (h) Processes live for a random time, and are killed.
pub(super) fn killed(replay: &Replay<'_>, together: &Together, queue: &str) -> Result<Vec<Fact>> {
    let store = together.store(queue)?;
    let (mut lives, mut kills, mut jobs, mut started) = (Vec::new(), 0, 0, 0);
    // As long as there are kills left, there is work. After that, what is left is worked off.
    while kills < together.kills {
        for _ in store.unfinished()?..KEPT {
            store.enqueue()?;
            jobs += 1;
        }
        while lives.len() < PROCESSES {
            started += 1;
            let life = Beginning::of(replay, together, queue, &started.to_string()).life()?;
            let span = random(LIVES.0, LIVES.1);
            lives.push((life, Instant::now() + span));
        }
        for (mut life, ends) in std::mem::take(&mut lives) {
            // One that ends by itself has lost its marks, on a machine that is too busy, and is no kill.
            if life.has_ended() {
                continue;
            }
            if ends > Instant::now() {
                lives.push((life, ends));
            } else {
                life.kill()?;
                kills += 1;
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    drop(lives);
    store.note(None, "kernel", &format!("has killed {kills} processes, and lets the last one live"))?;
    let mut last = Beginning::of(replay, together, queue, "last").life()?;
    wait_until("all jobs to end", LONGEST, || {
        // A machine that is too busy may have cost it its marks.
        if last.has_ended() && store.unfinished()? > 0 {
            last = Beginning::of(replay, together, queue, "very last").life()?;
        }
        Ok(store.unfinished()? == 0)
    })?;
    last.wait()?;
    Ok(vec![
        Fact::exactly("processes killed", together.kills.into(), kills.into()),
        Fact::exactly("jobs merged", jobs, store.count_jobs(State::Merged)?),
        merged(&store, jobs)?,
        rolled_back(&store, 0)?,
        diverged(&store, 0)?,
    ])
}

/// (i) A process is cut off from its marks for longer than they stay.
pub(super) fn cut_off(replay: &Replay<'_>, together: &Together, queue: &str) -> Result<Vec<Fact>> {
    let store = together.store(queue)?;
    store.enqueue()?;
    let wire = Wire::to(&together.marks)?;
    let cut = Beginning::of(replay, together, queue, "cut off").apart();
    let mut cut = Beginning { part: Part::Stuck, marks: &wire.place, ttl: TTL_CUT_OFF, ..cut }.life()?;
    wait_until("the monitor to be in its place", PATIENCE, || Ok(store.count_notes(CUT_OFF)? == 1 || cut.has_ended()))?;
    wire.cut();
    store.note(None, "network", "is cut between the process and the marks")?;
    let other = Beginning::of(replay, together, queue, "other").apart();
    let mut other = Beginning { ttl: TTL_CUT_OFF, ..other }.life()?;
    let ended = other.wait()?;
    store.note(None, "kernel", &format!("the other process ends: {ended}"))?;
    cut.wait()?;
    Ok(vec![
        Fact::exactly("finalizations of the one job", 2, store.count_runs()?),
        Fact::exactly("runs that saw it", 1, store.count_outcomes(Outcome::Displaced)?),
        Fact::exactly("runs that committed", 1, store.count_outcomes(Outcome::Committed)?),
        merged(&store, 1)?,
        rolled_back(&store, 0)?,
        diverged(&store, 0)?,
    ])
}

impl Together {
    /// Numbers a new replay.
    pub(super) fn begin(&self) -> Result<u64> {
        Database::postgres(&self.database, None)?.begin_replay()
    }

    pub(super) fn store(&self, queue: &str) -> Result<Store> {
        Database::postgres(&self.database, None)?.store(queue)
    }
}

/// How a process begins.
struct Beginning<'a> {
    replay: &'a Replay<'a>,
    together: &'a Together,
    queue: &'a str,
    name: &'a str,
    part: Part,
    marks: &'a Place,
    workspaces: PathBuf,
    alone: bool,
    ttl: Duration,
}

impl<'a> Beginning<'a> {
    fn of(replay: &'a Replay<'a>, together: &'a Together, queue: &'a str, name: &'a str) -> Self {
        let (part, workspaces) = (Part::Work, replay.workspaces.to_owned());
        Self { replay, together, queue, name, part, marks: &together.marks, workspaces, alone: false, ttl: TTL_KILLED }
    }

    /// On a host of its own, from which no lock on a directory is seen.
    fn apart(self) -> Self {
        Self { workspaces: self.workspaces.join(self.name), ..self }
    }

    fn life(self) -> Result<Life> {
        fs::create_dir_all(&self.workspaces).map_err(Error::io("a directory for workspaces"))?;
        let mut command = Command::new(self.replay.program);
        command.arg("--cluster").arg(&self.together.database);
        command.arg("--marks").arg(self.marks.to_string());
        command.arg("--work").arg(self.queue).arg("--workspaces").arg(&self.workspaces);
        command.arg("--name").arg(self.name).arg("--part").arg(self.part.name());
        command.arg("--ttl-ms").arg(self.ttl.as_millis().to_string());
        if self.alone {
            command.arg("--alone");
        }
        if let Some(path) = self.replay.config_path {
            command.arg("--config").arg(path);
        }
        let child = command.stdin(Stdio::null()).spawn().map_err(Error::io("starting this program again"))?;
        Ok(Life { child })
    }
}

/// One life of a process, killed and waited for when dropped.
struct Life {
    child: Child,
}

impl Life {
    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends SIGKILL.
    fn kill(&mut self) -> Result<()> {
        self.child.kill().map_err(Error::io("killing the process"))?;
        self.wait().map(drop)
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

/// A connection of a process that can be cut.
struct Wire {
    place: Place,
    is_cut: Arc<AtomicBool>,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(place: &Place) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(Error::io("a wire"))?;
        let port = listener.local_addr().map_err(Error::io("a wire"))?.port();
        let (place, beyond) = place.through(port)?;
        let (is_cut, ends) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<TcpStream>>>::default());
        let wire = Self { place, is_cut: Arc::clone(&is_cut), ends: Arc::clone(&ends) };
        thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), false) = (near, is_cut.load(Ordering::SeqCst)) else { continue };
                // Whoever cannot be reached is not there.
                let _ = join(near, beyond, &ends);
                if is_cut.load(Ordering::SeqCst) {
                    hang_up(&ends);
                }
            }
        });
        Ok(wire)
    }

    /// Cuts it, for ever.
    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        hang_up(&self.ends);
    }
}

fn hang_up(ends: &Mutex<Vec<TcpStream>>) {
    for end in locked(ends).drain(..) {
        // Fails if it is closed already.
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries what one end says to the other.
fn join(near: TcpStream, beyond: std::net::SocketAddr, ends: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    let far = TcpStream::connect(beyond)?;
    for (mut from, mut to) in [(near.try_clone()?, far.try_clone()?), (far.try_clone()?, near.try_clone()?)] {
        thread::spawn(move || {
            let mut said = [0; 8192];
            while let Ok(length @ 1..) = from.read(&mut said) {
                if to.write_all(&said[..length]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    locked(ends).extend([near, far]);
    Ok(())
}

/// A time in between, at random enough for this.
fn random(least: Duration, most: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish() % 1000;
    least + (most - least) * u32::try_from(random).unwrap_or_default() / 1000
}
