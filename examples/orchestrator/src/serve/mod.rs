//! The service: the same monitors and the same reaper, running continuously, with an HTTP face.

mod access;
mod actions;
mod body;
mod change;
mod connections;
mod events;
mod expiry;
mod health;
mod history;
mod jobs;
mod lock;
mod modes;
mod page;
mod policy;
mod preview;
mod query;
mod routes;
mod strict;
mod submit;
mod trends;
mod view;

use std::io::{Write, stdout};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::exit;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};
use std::time::Duration;
use std::{env, fs};

use livemark::{ReaperHandle, Registry, StopToken};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Config, SERVE};
use crate::engine::{Engine, no_hook};
use crate::error::{Error, Result};
use crate::marks::Marks;
use crate::reap::{self, Sweeper, complain};
use crate::serve::access::Access;
use crate::serve::events::Publisher;
use crate::serve::health::Probe;
use crate::serve::lock::ServerLock;
use crate::serve::modes::Modes;
use crate::serve::trends::Trends;
use crate::store::{Database, Store};

/// The queue of the service's jobs. Replays have others, so the two can share a file.
const QUEUE: &str = "main";
/// Threads for what blocks on behalf of requests.
const BLOCKING: usize = 8;
/// How long connections may take to end when everything else has.
const GOODBYE: Duration = Duration::from_millis(500);
/// The exit code of a service that lost its store.
const OUSTED: i32 = 4;
/// Who asks for the end is told of jobs that hold it up for longer than this.
const AT_ONCE: Duration = Duration::from_millis(200);

/// What the command line says of a service.
#[derive(Clone, Debug)]
pub struct Options {
    /// The job store.
    pub store: Place,
    /// Settings laid over the built-in ones.
    pub config: Option<PathBuf>,
    /// Address and port.
    pub listen: String,
    /// What a request must know to change anything.
    pub token: Option<String>,
    /// Jobs have their directories in here; beside the job store, if not given.
    pub workspaces: Option<PathBuf>,
}

/// Where jobs and marks are.
#[derive(Clone, Debug)]
pub enum Place {
    /// Jobs in an SQLite file, marks in this process.
    File(PathBuf),
    /// Both shared with other processes.
    #[cfg(feature = "cluster")]
    Shared {
        /// The database of the jobs, as libpq has its address.
        database: String,
        /// Where the marks are.
        marks: crate::marks::Place,
        /// What this process is called.
        name: String,
        /// For how long its marks stay without it.
        ttl: Duration,
    },
}

/// What a service works with.
struct Opened {
    database: Database,
    /// On a store that is one process's.
    lock: Option<ServerLock>,
    marks: Marks<'static>,
    workspaces: PathBuf,
}

impl Place {
    fn open(self, workspaces: Option<PathBuf>) -> Result<Opened> {
        match self {
            Self::File(db) => {
                let (lock, db) = ServerLock::take(&db)?;
                let database = Database::open(&db)?;
                let workspaces = made(workspaces.unwrap_or_else(|| lock::beside(&db, ".workspaces")))?;
                Ok(Opened { database, lock: Some(lock), marks: Marks::Own(&FINALIZING), workspaces })
            }
            #[cfg(feature = "cluster")]
            Self::Shared { database, marks, name, ttl } => {
                let database = Database::postgres(&database, None)?;
                let floor = database.store(QUEUE)?.greatest_fence()?;
                let marks = Marks::Shared(crate::marks::Shared::open(&marks, QUEUE, &name, ttl, floor)?);
                let workspaces = made(workspaces.unwrap_or_else(|| PathBuf::from("orchestrator.workspaces")))?;
                Ok(Opened { database, lock: None, marks, workspaces })
            }
        }
    }
}

/// Everyone's marks. A process has one service, and a service one registry: a reaper that looked into another would
/// find nobody and redrive them all.
static FINALIZING: Registry = Registry::new();

/// What requests and threads share.
struct Service {
    engine: Engine<'static>,
    /// Switches the reaper and tells its counts. The reaper itself is its thread's.
    reaper: ReaperHandle,
    stores: Stores,
    access: Access,
    metrics: PrometheusHandle,
    /// Whether anything can be written.
    probe: Probe,
    /// How the mode came to be what it is.
    modes: Modes,
    /// What those who watch are told.
    publisher: Publisher,
    /// How the last hour went.
    trends: Trends,
    /// Set when streams are to end.
    over: watch::Sender<bool>,
}

/// Serves until asked to end. What is still running then is left to the next start.
pub fn run(options: Options) -> Result<()> {
    let config = Config::load(options.config.as_deref(), SERVE)?;
    // First what leaves nothing behind where it fails.
    let (listener, address) = listen(&options.listen)?;
    let Opened { database, lock, marks, workspaces } = options.store.open(options.workspaces)?;
    let program = env::current_exe().map_err(Error::io("finding this program's own file"))?;

    // Leaked: requests are handled by tasks and jobs by threads that live as long as the process, which nothing
    // outlives.
    let engine = Engine {
        marks,
        database: Box::leak(Box::new(database)),
        queue: QUEUE,
        config: Box::leak(Box::new(config)),
        workspaces: Box::leak(workspaces.into_boxed_path()),
        supervisor: Box::leak(program.into_boxed_path()),
        feed: Box::leak(Box::default()),
        shift: Box::leak(Box::default()),
        logs: true,
        hook: &no_hook,
    };
    // Before the reaper's first handle, which shows its metrics at zero.
    let metrics = health::recorder();
    let modes = Modes::default();
    let mode = modes.take_up(&engine.store()?)?;
    let reaper = engine.reaper(mode)?;
    let service: &'static Service = Box::leak(Box::new(Service {
        reaper: reaper.handle(),
        stores: Stores { database: engine.database, idle: Mutex::default() },
        access: Access::new(options.token, address),
        metrics,
        probe: Probe::default(),
        modes,
        publisher: Publisher::default(),
        trends: Trends::default(),
        over: watch::Sender::new(false),
        engine,
    }));
    service.start_and_serve(&reaper, listener, address, lock)
}

fn listen(address: &str) -> Result<(TcpListener, SocketAddr)> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind().map_err(|source| Error::Listen { address: address.to_owned(), source })
}

fn made(path: PathBuf) -> Result<PathBuf> {
    let doing = format!("{}", path.display());
    fs::create_dir_all(&path).and_then(|()| std::path::absolute(&path)).map_err(Error::io(doing))
}

impl Service {
    fn start_and_serve(
        &'static self,
        reaper: &Sweeper<'static>,
        listener: TcpListener,
        address: SocketAddr,
        lock: Option<ServerLock>,
    ) -> Result<()> {
        let Engine { config, shift, .. } = self.engine;
        let runtime = runtime::Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING).build();
        let runtime = runtime.map_err(Error::io("starting the runtime"))?;
        let mut store = self.engine.store()?;
        self.engine.recover(&mut store)?;
        if let Some(pause) = store.paused()? {
            eprintln!("orchestrator: paused by {}: no job is started", pause.by);
            shift.pause(true);
        }
        drop(store);
        let stop = StopToken::new();
        thread::scope(|scope| {
            let spawn = |name: &str, work: Box<dyn FnOnce() -> Result<()> + Send>| {
                let thread = Builder::new().name(name.to_owned()).spawn_scoped(scope, || complain(work()));
                thread.map(drop).map_err(Error::io("starting a thread"))
            };
            let started = spawn("reaper", Box::new(|| reap::run(scope, &self.engine, reaper, &stop)))
                .and_then(|()| {
                    (0..config.limits.monitors).try_for_each(|_| spawn("monitor", Box::new(|| self.engine.work())))
                })
                .and_then(|()| runtime.block_on(self.serve(listener, address, &stop, lock)));
            match started {
                // What has not ended yet is as if we had been killed: the next start queues it again.
                Ok(Ending::Cut) => {
                    complain(self.engine.marks.close());
                    exit(0)
                }
                // Nothing that still runs may write to a store that is another's now.
                Ok(Ending::Ousted(error)) => {
                    complain(Err(error));
                    exit(OUSTED)
                }
                Ok(Ending::Whole) => {
                    complain(self.engine.marks.close());
                    Ok(())
                }
                Err(error) => {
                    shift.end();
                    stop.stop();
                    Err(error)
                }
            }
        })
    }

    /// Serves until a signal, then until the running jobs have ended.
    async fn serve(
        &'static self,
        listener: TcpListener,
        address: SocketAddr,
        reaper: &StopToken,
        lock: Option<ServerLock>,
    ) -> Result<Ending> {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::io("listening"))?;
        let mut signals = Signals::new().map_err(Error::io("waiting for signals"))?;
        let most = connections::allowed(self.engine.config.limits.monitors);
        let server = connections::serve(listener, routes::router(self), most, self.over.subscribe());
        let server = tokio::spawn(server);
        tokio::spawn(events::publish(self));
        tokio::spawn(trends::watch(self));
        tokio::spawn(modes::watch(self));
        tokio::spawn(modes::follow(self));
        tokio::spawn(expiry::expire(self));
        // A service goes on where nobody reads what it says.
        let _ = self.announce(address);

        let ousted = ousted(lock, &self.engine.marks);
        tokio::pin!(ousted);
        tokio::select! {
            _ = signals.recv() => {}
            error = &mut ousted => return Ok(Ending::Ousted(error)),
        }
        self.engine.shift.end();
        // Nothing can be redriven any more, so there is nothing to be judged.
        reaper.stop();
        self.engine.feed.changed();
        let idle = tokio::task::spawn_blocking(|| {
            let (shift, limit) = (&self.engine.shift, self.engine.config.limits.shutdown);
            shift.wait_idle(limit.min(AT_ONCE)) || {
                let _ = self.say_why_it_goes_on();
                shift.wait_idle(limit.saturating_sub(AT_ONCE))
            }
        });
        let idle = tokio::select! {
            idle = idle => idle.unwrap_or(false),
            error = &mut ousted => return Ok(Ending::Ousted(error)),
            number = signals.recv() => exit(128 + number),
        };
        self.over.send_replace(true);
        // A client that does not go does not hold us up.
        let _ = tokio::time::timeout(GOODBYE, server).await;
        Ok(if idle { Ending::Whole } else { Ending::Cut })
    }

    fn say_why_it_goes_on(&self) -> std::io::Result<()> {
        let limit = self.engine.config.limits.shutdown;
        writeln!(stdout(), "ending: what runs may end within {limit:?}; once more ends it at once")
    }

    fn announce(&self, address: SocketAddr) -> std::io::Result<()> {
        let mut out = stdout().lock();
        writeln!(out, "listening on http://{address}/")?;
        if !address.ip().is_loopback() {
            eprintln!("orchestrator: {address} is not for this machine only: whoever reaches it can read everything");
        }
        if !self.access.has_token() {
            writeln!(out, "{}: jobs and policy cannot be changed", access::NO_TOKEN)?;
        }
        out.flush()
    }
}

/// How a service came to its end.
enum Ending {
    /// Every job that was running has ended.
    Whole,
    /// Some have not.
    Cut,
    /// The store is no longer its own.
    Ousted(Error),
}

/// Waits until the store is no longer our own, or our marks are gone.
async fn ousted(mut lock: Option<ServerLock>, marks: &Marks<'_>) -> Error {
    loop {
        tokio::time::sleep(lock::LOOK_EVERY).await;
        if let Some(lost) = marks.lost() {
            return lost;
        }
        match lock.as_mut().map_or(Ok(()), ServerLock::check) {
            Err(error @ (Error::Replaced(_) | Error::Served { .. })) => return error,
            // What cannot be looked at now can be later.
            Err(error) => complain(Err(error)),
            Ok(()) => {}
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Never asked: a file that reaches a limit is an error then, and not our end.
    _file_limit: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_limit: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// The number of the next one.
    async fn recv(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }
}

/// Connections for requests, kept for the next one: opening one takes longer than most questions.
struct Stores {
    database: &'static Database,
    idle: Mutex<Vec<Store>>,
}

impl Stores {
    /// Does something that blocks; not for async threads.
    fn with<T>(&self, work: impl FnOnce(&mut Store) -> Result<T>) -> Result<T> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let mut store = kept.map_or_else(|| self.database.store(QUEUE), Ok)?;
        let done = work(&mut store);
        // After an error, better a new one.
        if done.is_ok() {
            idle().push(store);
        }
        done
    }
}
