//! Marks that several processes share, called from threads that may wait.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use livemark::{Finalizer, Generation, Policy, Reaper, Registry, RunningJob};
use livemark_cluster::inspect::Inventory;
use livemark_cluster::{
    Claim, ClusterGuard, ClusterReaper, Config, Engine, EngineError, If, Listing, Loss, Remote, Session, Token, View,
    Written,
};
use livemark_etcd::Etcd;
use livemark_postgres::Postgres;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::NoTls;
use tokio_postgres::config::Host;

use crate::error::{Error, Result};
use crate::feed::OwnerSeen;
use crate::marks::{Hold, Marked, Process, Seen};
use crate::store::JobId;

/// How often it is looked which processes there are, while somebody asks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where marks are that several processes share.
#[derive(Clone, Debug)]
pub enum Place {
    /// In the database of the jobs, as libpq has its address.
    Postgres(String),
    /// In an etcd, by the endpoints of its members.
    Etcd(Vec<String>),
}

/// The marks of all processes. Clones are one.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    session: Session,
    view: View,
    door: Door,
    process: String,
    runtime: Runtime,
    processes: Mutex<Option<(Instant, Vec<Process>)>>,
}

/// What operators read and remove marks by.
enum Door {
    Postgres(Postgres),
    Etcd(Etcd),
}

impl Door {
    async fn list(&self) -> Result<Listing, EngineError> {
        match self {
            Self::Postgres(postgres) => postgres.list().await,
            Self::Etcd(etcd) => etcd.list().await,
        }
    }

    async fn delete(&self, key: &str, condition: If) -> Result<Written, EngineError> {
        match self {
            Self::Postgres(postgres) => postgres.delete(key, condition).await,
            Self::Etcd(etcd) => etcd.delete(key, condition).await,
        }
    }
}

impl Shared {
    /// Opens a session in a namespace. `process` is what this process is called where its marks are shown, and `floor` the
    /// greatest token in the job store.
    pub fn open(place: &Place, namespace: &str, process: &str, ttl: Duration, floor: u64) -> Result<Self> {
        // Renewals do not wait for the page, which has a runtime of its own.
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("marks").enable_all().build();
        let runtime = runtime.map_err(Error::io("starting a runtime"))?;
        let mut config = Config::with_ttl(ttl);
        (config.process, config.token_floor) = (process.to_owned(), floor);
        let (door, session) = runtime.block_on(async {
            let door = place.door(namespace).await?;
            let session = match &door {
                Door::Postgres(postgres) => Session::open(postgres.clone(), config).await,
                Door::Etcd(etcd) => Session::open(etcd.clone(), config).await,
            };
            Ok::<_, Error>((door, session.map_err(Error::shared("opening a session"))?))
        })?;
        let (process, processes) = (process.to_owned(), Mutex::default());
        let view = session.view();
        Ok(Self(Arc::new(Inner { session, view, door, process, runtime, processes })))
    }

    /// Returns the registry that mirrors the marks.
    pub fn registry(&self) -> &Arc<Registry<JobId, Remote>> {
        self.0.view.registry()
    }

    pub(super) fn process(&self) -> &str {
        &self.0.process
    }

    /// Returns how old the mirror is at most.
    pub fn age(&self) -> Duration {
        self.0.view.age()
    }

    /// Returns how the session was lost, if it was: it has no marks any more, and gets none.
    pub fn loss(&self) -> Option<Loss> {
        self.0.session.standing().loss()
    }

    /// Creates the reaper of this process.
    pub(crate) fn reaper(&self, policy: Policy) -> ClusterReaper {
        ClusterReaper::new(&self.0.session, policy)
    }

    /// Creates a reaper by the mirror that takes no claims.
    pub(super) fn dry_reaper(&self, policy: Policy) -> Reaper<'_, JobId, Remote> {
        let (lease, process): (_, Arc<str>) = (self.0.session.lease(), self.0.process.as_str().into());
        let context = move |job: &RunningJob<'_>| Remote {
            token: Token::from_number(0),
            lease,
            process: Arc::clone(&process),
            context: Finalizer::new(None, job.stage),
            pulse: None,
        };
        Reaper::with_claim(self.registry(), policy, context).with_pulse(|remote| remote.pulse.as_ref())
    }

    /// Waits for what the marks' engine does, in a thread that may wait. What blocks may be called in it by
    /// `tokio::task::block_in_place`.
    pub(crate) fn wait<F: Future>(&self, what: F) -> F::Output {
        self.0.runtime.block_on(what)
    }

    pub(super) fn mark(&self, job: JobId, context: Finalizer) -> Result<SharedHold> {
        let guard = self.wait(self.0.session.mark(job, context)).map_err(Error::shared("marking a job"))?;
        Ok(SharedHold { guard: Some(guard), displaced: None, marks: self.clone() })
    }

    pub(super) fn clear(&self, job: JobId, generation: Generation) -> Result<bool> {
        let cleared = self.wait(async {
            let listing = self.0.door.list().await?;
            let inventory = Inventory::of(&listing);
            let mark = inventory.mark(&job.to_string());
            let Some(mark) = mark.filter(|mark| mark.token.get() == generation.get()) else { return Ok(false) };
            // Where its stage has changed since, whoever asked may look again.
            let removed = self.0.door.delete(&mark.key, If::At(mark.revision)).await?;
            Ok::<_, EngineError>(matches!(removed, Written::Done(_)))
        });
        cleared.map_err(Error::shared("clearing a mark"))
    }

    pub(super) fn seen(&self) -> Seen {
        let snapshot = self.registry().snapshot();
        Seen::of(snapshot.iter().filter_map(|(job, owner)| {
            let Remote { token, process, context, pulse, .. } = &owner.value;
            let value = pulse.iter().fold(context.clone(), |context, pulse| context.with_pulse(pulse.clone()));
            let (generation, process) = (NonZeroU64::new(token.get())?.into(), Some(Arc::clone(process)));
            Some(Marked { job: *job, generation, age: owner.age(), value, process })
        }))
    }

    pub(super) fn processes(&self) -> Vec<Process> {
        let mut processes = self.0.processes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = processes.as_ref().filter(|(at, _)| at.elapsed() < LOOK_EVERY) {
            return known.clone();
        }
        let listed = self.wait(async { tokio::time::timeout(LOOK_EVERY, self.0.door.list()).await });
        // Where nobody answers, those are told that were known.
        let known = match listed {
            Ok(Ok(listing)) => Inventory::of(&listing)
                .sessions
                .into_iter()
                .map(|session| Process {
                    own: session.lease == self.0.session.lease(),
                    name: session.process,
                    marks: session.marks,
                })
                .collect(),
            _ => processes.take().map_or_else(Vec::new, |(_, known)| known),
        };
        *processes = Some((Instant::now(), known.clone()));
        known
    }

    /// Ends the session, and with it all marks of this process.
    pub fn close(&self) -> Result<()> {
        if self.loss().is_some() {
            return Ok(());
        }
        self.wait(self.0.session.clone().close()).map_err(Error::shared("closing the session"))
    }
}

/// Begins the address of an etcd.
const ETCD: &str = "etcd://";

impl FromStr for Place {
    type Err = Error;

    /// Reads `etcd://HOST:PORT[,HOST:PORT]`, or else the address of a PostgreSQL as libpq has it.
    fn from_str(address: &str) -> Result<Self> {
        match address.strip_prefix(ETCD) {
            Some(members) => Ok(Self::Etcd(members.split(',').map(|member| format!("http://{member}")).collect())),
            None => Ok(Self::Postgres(address.to_owned())),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(address) => f.write_str(address),
            Self::Etcd(members) => {
                let members: Vec<_> = members.iter().map(|member| member.trim_start_matches("http://")).collect();
                write!(f, "{ETCD}{}", members.join(","))
            }
        }
    }
}

impl Place {
    /// Returns the same place reached through a port of this host, and where that is to lead.
    pub(crate) fn through(&self, port: u16) -> Result<(Self, SocketAddr)> {
        let resolve = |host: &str, port: u16| {
            let mut found = (host, port).to_socket_addrs().map_err(Error::io(host.to_owned()))?;
            found.next().ok_or_else(|| Error::shared("an address")("it leads nowhere"))
        };
        match self {
            Self::Postgres(address) => {
                let config: tokio_postgres::Config =
                    address.parse().map_err(Error::shared("the address of the database"))?;
                let Some(Host::Tcp(host)) = config.get_hosts().first() else {
                    return Err(Error::shared("the address of the database")("a wire can be cut only where it is TCP"));
                };
                let beyond = resolve(host, config.get_ports().first().copied().unwrap_or(5432))?;
                let mut near = format!("host=127.0.0.1 port={port}");
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let parts = [
                    ("user", config.get_user().map(str::to_owned)),
                    ("password", config.get_password().map(text)),
                    ("dbname", config.get_dbname().map(str::to_owned)),
                ];
                for (name, value) in parts {
                    let Some(value) = value else { continue };
                    let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
                    near.push_str(&format!(" {name}='{quoted}'"));
                }
                Ok((Self::Postgres(near), beyond))
            }
            Self::Etcd(members) => {
                let member = members.first().map_or("", String::as_str).trim_start_matches("http://");
                let (host, far) = member.rsplit_once(':').unwrap_or((member, "2379"));
                let beyond = resolve(host, far.parse().map_err(Error::shared("the address of etcd"))?)?;
                Ok((Self::Etcd(vec![format!("http://127.0.0.1:{port}")]), beyond))
            }
        }
    }

    async fn door(&self, namespace: &str) -> Result<Door> {
        match self {
            Self::Postgres(address) => {
                let server: tokio_postgres::Config =
                    address.parse().map_err(Error::shared("the address of the database"))?;
                Postgres::migrate(&server, NoTls).await.map_err(Error::shared("the schema of the marks"))?;
                let options = livemark_postgres::Options::default();
                let postgres = Postgres::connect(server, NoTls, namespace, options).await;
                postgres.map(Door::Postgres).map_err(Error::shared("connecting"))
            }
            Self::Etcd(endpoints) => {
                let etcd = Etcd::connect(endpoints, namespace, livemark_etcd::Options::default()).await;
                etcd.map(Door::Etcd).map_err(Error::shared("connecting"))
            }
        }
    }
}

/// A mark in the engine, or a claim without one.
pub struct SharedHold {
    guard: Option<ClusterGuard>,
    displaced: Option<OwnerSeen>,
    marks: Shared,
}

impl SharedHold {
    pub(super) fn replace(&self, context: &Finalizer) -> bool {
        let Some(guard) = &self.guard else { return true };
        // Where the engine does not answer, others go on seeing the stage before.
        self.marks.wait(guard.replace(context)).unwrap_or_else(|_| guard.is_current())
    }

    pub(super) fn is_current(&self) -> bool {
        self.guard.as_ref().is_none_or(ClusterGuard::is_current)
    }

    pub(super) fn token(&self) -> Option<u64> {
        self.guard.as_ref().map(|guard| guard.token().get())
    }

    pub(super) fn displaced(&self) -> Option<OwnerSeen> {
        self.displaced.clone()
    }

    pub(super) fn clear(self) -> bool {
        // Where the engine does not answer, it goes in the background.
        self.guard.is_some_and(|guard| self.marks.wait(guard.clear()).unwrap_or(false))
    }
}

impl Shared {
    /// Takes up a claim of the reaper's.
    pub(crate) fn held(&self, claim: Claim) -> Hold<'static> {
        let displaced = claim.displaced().map(|owner| OwnerSeen::from(&owner.value));
        Hold::Shared(SharedHold { displaced, guard: claim.into_guard(), marks: self.clone() })
    }
}
