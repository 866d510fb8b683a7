//! Looks at the marks and sessions of livemark in an etcd.
//!
//! Exit codes: 0 done, 1 it is not so (no mark, refused, a finding of `doctor`), 2 usage, 3 etcd cannot be reached or
//! refuses.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use livemark_cluster::inspect::{Inventory, SeenMark};
use livemark_cluster::{Engine, EngineError, If, OpenError, Token, Watch, Written};
use livemark_etcd::{Etcd, Options, Status, User};

/// Looks at the marks and sessions of livemark in an etcd.
#[derive(Parser)]
#[command(name = "livemark-etcd", version, about, max_term_width = 100)]
struct Args {
    /// The members of the cluster: URLs, or hosts and ports.
    #[arg(
        long,
        global = true,
        env = "LIVEMARK_ETCD_ENDPOINTS",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379"
    )]
    endpoints: Vec<String>,
    /// The namespace: one for each job store.
    #[arg(long, global = true, env = "LIVEMARK_ETCD_NAMESPACE", default_value = "jobs")]
    namespace: String,
    /// The user, whose password is in LIVEMARK_ETCD_PASSWORD.
    #[arg(long, global = true, env = "LIVEMARK_ETCD_USER")]
    user: Option<String>,
    /// The authority to trust over TLS, a file in PEM.
    #[arg(long, global = true, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// The certificate to show, a file in PEM.
    #[arg(long, global = true, value_name = "FILE", requires = "key", requires = "cacert")]
    cert: Option<PathBuf>,
    /// The key of that certificate, a file in PEM.
    #[arg(long, global = true, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// For how many seconds one answer is awaited.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 5)]
    timeout: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists all marks.
    Ls,
    /// Tells who owns a job. Exit code 1 if nobody does.
    Owner {
        /// The job, as its key has it.
        job: String,
    },
    /// Lists all sessions, and how much longer their leases stand.
    Sessions,
    /// Tells of marks that come and go, until it is interrupted.
    Watch {
        /// Ends after so many seconds.
        #[arg(long = "for", value_name = "SECONDS")]
        seconds: Option<u64>,
    },
    /// Removes exactly one mark. Its owner hears of it as displaced, and stops if it asks.
    Clear {
        /// The job, as its key has it.
        job: String,
        /// The token of the mark: `owner` tells it.
        #[arg(long)]
        token: u64,
    },
    /// Looks whether etcd is fit for livemark. Exit code 1 if it is not.
    Doctor,
    /// Changes the epoch, which tokens begin with.
    Epoch {
        #[command(subcommand)]
        command: Epoch,
    },
}

#[derive(Subcommand)]
enum Epoch {
    /// Makes all tokens from now on greater than all before: after etcd was restored from a snapshot, or replaced.
    /// Processes must open new sessions.
    Bump,
}

/// Why the command did not do it.
enum Failed {
    /// It is not so.
    No(String),
    /// Etcd cannot be reached, or refuses.
    Etcd(String),
    /// Nobody reads what we write.
    Unread,
}

impl From<EngineError> for Failed {
    fn from(error: EngineError) -> Self {
        Self::Etcd(error.to_string())
    }
}

impl From<io::Error> for Failed {
    fn from(_: io::Error) -> Self {
        Self::Unread
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        // Whoever closed our output has read enough.
        Ok(()) | Err(Failed::Unread) => ExitCode::SUCCESS,
        Err(Failed::No(why)) => {
            eprintln!("{why}");
            ExitCode::from(1)
        }
        Err(Failed::Etcd(why)) => {
            eprintln!("{why}");
            ExitCode::from(3)
        }
    }
}

async fn run(args: &Args) -> Result<(), Failed> {
    let etcd = connect(args).await?;
    let patience = Duration::from_secs(args.timeout);
    match &args.command {
        Command::Ls => ls(&inventory(&etcd, patience).await?),
        Command::Owner { job } => owner(&inventory(&etcd, patience).await?, job),
        Command::Sessions => sessions(&etcd, patience).await,
        Command::Watch { seconds } => watch(&etcd, patience, seconds.map(Duration::from_secs)).await,
        Command::Clear { job, token } => clear(&etcd, patience, job, Token::from_number(*token)).await,
        Command::Doctor => doctor(&etcd, patience).await,
        Command::Epoch { command: Epoch::Bump } => bump(&etcd, patience).await,
    }
}

async fn connect(args: &Args) -> Result<Etcd, Failed> {
    let mut options = Options::default();
    if let Some(name) = &args.user {
        options.user = Some(User::new(name, std::env::var("LIVEMARK_ETCD_PASSWORD").unwrap_or_default()));
    }
    with_tls(args, &mut options)?;
    let connected = Etcd::connect(args.endpoints.iter().cloned(), &args.namespace, options).await;
    connected.map_err(|error| Failed::Etcd(error.to_string()))
}

#[cfg(feature = "tls")]
fn with_tls(args: &Args, options: &mut Options) -> Result<(), Failed> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| Failed::Etcd(format!("{} cannot be read: {error}", path.display())))
    };
    if let Some(authority) = &args.cacert {
        let mut tls = livemark_etcd::Tls::trusting(read(authority)?);
        if let (Some(certificate), Some(key)) = (&args.cert, &args.key) {
            tls = tls.with_identity(read(certificate)?, read(key)?);
        }
        options.tls = Some(tls);
    }
    Ok(())
}

#[cfg(not(feature = "tls"))]
fn with_tls(args: &Args, _: &mut Options) -> Result<(), Failed> {
    match &args.cacert {
        Some(_) => Err(Failed::Etcd("this build has no TLS: see the feature `tls`".to_owned())),
        None => Ok(()),
    }
}

/// A call that is given up after some time.
async fn timed<T>(patience: Duration, call: impl Future<Output = Result<T, EngineError>>) -> Result<T, Failed> {
    match tokio::time::timeout(patience, call).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failed::Etcd(format!("etcd has not answered for {patience:?}"))),
    }
}

async fn inventory(etcd: &Etcd, patience: Duration) -> Result<Inventory, Failed> {
    Ok(Inventory::of(&timed(patience, etcd.list()).await?))
}

fn say(line: impl fmt::Display) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Rows whose cells stand below each other.
fn table<const CELLS: usize>(head: [&str; CELLS], rows: &[[String; CELLS]]) -> Result<(), Failed> {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            // Writing to a string does not fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        line.trim_end().to_owned()
    };
    say(line(&head.map(str::to_owned)))?;
    rows.iter().try_for_each(|row| say(line(row)))
}

/// What others wrote, in one line of printable characters.
fn plain(text: &str) -> String {
    text.chars().flat_map(|char| if char.is_control() { char.escape_default().collect() } else { vec![char] }).collect()
}

fn ls(inventory: &Inventory) -> Result<(), Failed> {
    let rows: Vec<_> = inventory
        .marks
        .iter()
        .map(|mark| {
            [
                plain(&mark.job),
                mark.token.to_string(),
                plain(&mark.process),
                mark.lease.to_string(),
                plain(&mark.context),
            ]
        })
        .collect();
    table(["JOB", "TOKEN", "PROCESS", "LEASE", "CONTEXT"], &rows)?;
    match inventory.foreign.len() {
        0 => Ok(()),
        count => say(format_args!("{count} keys are no marks: `doctor` names them")),
    }
}

fn owner(inventory: &Inventory, job: &str) -> Result<(), Failed> {
    let Some(mark) = inventory.mark(job) else { return Err(Failed::No(format!("job {job} has no owner"))) };
    say(format_args!("job       {}", plain(&mark.job)))?;
    say(format_args!("token     {}", mark.token))?;
    say(format_args!("process   {}", plain(&mark.process)))?;
    say(format_args!("lease     {}", mark.lease))?;
    say(format_args!("revision  {}", mark.revision))?;
    say(format_args!("context   {}", plain(&mark.context)))
}

async fn sessions(etcd: &Etcd, patience: Duration) -> Result<(), Failed> {
    let mut rows = Vec::new();
    for session in inventory(etcd, patience).await?.sessions {
        let left = timed(patience, etcd.time_to_live(session.lease)).await?;
        let left = left.map_or_else(|| "ended".to_owned(), |left| format!("{left:?}"));
        rows.push([plain(&session.process), session.lease.to_string(), session.marks.to_string(), left]);
    }
    table(["PROCESS", "LEASE", "MARKS", "ENDS IN"], &rows)
}

async fn watch(etcd: &Etcd, patience: Duration, seconds: Option<Duration>) -> Result<(), Failed> {
    let listing = timed(patience, etcd.list()).await?;
    let mut watch = timed(patience, etcd.watch(listing.revision)).await?;
    let telling = async {
        loop {
            for event in watch.next().await?.events {
                match SeenMark::in_event(&event) {
                    Some((job, Some(mark))) => {
                        let (process, token) = (plain(&mark.process), mark.token);
                        say(format_args!("{}  job {} is {process}'s, token {token}", event.revision, plain(&job)))?;
                    }
                    Some((job, None)) => say(format_args!("{}  job {} is free", event.revision, plain(&job)))?,
                    None => {}
                }
            }
        }
    };
    match seconds {
        Some(seconds) => tokio::time::timeout(seconds, telling).await.unwrap_or(Ok(())),
        None => telling.await,
    }
}

async fn clear(etcd: &Etcd, patience: Duration, job: &str, token: Token) -> Result<(), Failed> {
    let inventory = inventory(etcd, patience).await?;
    let Some(mark) = inventory.mark(job) else { return Err(Failed::No(format!("job {job} has no owner"))) };
    if mark.token != token {
        return Err(Failed::No(format!("job {job} is {}'s by token {}: nothing is removed", mark.process, mark.token)));
    }
    match timed(patience, etcd.delete(&mark.key, If::At(mark.revision))).await? {
        Written::Done(_) => {
            say(format_args!("the mark of job {job}, token {token}, is removed: {} hears of it", mark.process))
        }
        Written::Refused(_) => {
            Err(Failed::No(format!("the mark of job {job} has changed meanwhile: nothing is removed")))
        }
    }
}

async fn bump(etcd: &Etcd, patience: Duration) -> Result<(), Failed> {
    let listing = timed(patience, etcd.list()).await?;
    let old = Inventory::of(&listing).epoch.map_err(|error| Failed::No(error.to_string()))?;
    // Tokens are signed numbers in a job store.
    let new = Some(old + 1).filter(|new| *new <= u64::from(i16::MAX.unsigned_abs()));
    let Some(new) = new else { return Err(Failed::No(format!("{old} is the last epoch"))) };
    let condition =
        listing.rows.iter().find(|(key, _)| key == "epoch").map_or(If::Absent, |(_, row)| If::At(row.revision));
    match timed(patience, etcd.put("epoch", new.to_string().into_bytes(), None, condition)).await? {
        Written::Done(_) => say(format_args!("the epoch was {old} and is {new}: open new sessions in all processes")),
        Written::Refused(_) => Err(Failed::No("the epoch has changed meanwhile".to_owned())),
    }
}

// ---- Doctor

#[derive(Clone, Copy, PartialEq, Eq)]
enum Finding {
    Good,
    Doubtful,
    Bad,
}

struct Doctor {
    is_bad: bool,
}

impl Doctor {
    fn says(&mut self, finding: Finding, what: impl fmt::Display) -> Result<(), Failed> {
        self.is_bad |= finding == Finding::Bad;
        let word = match finding {
            Finding::Good => "ok  ",
            Finding::Doubtful => "warn",
            Finding::Bad => "FAIL",
        };
        say(format_args!("{word}  {what}"))
    }
}

/// The size that etcd lets its data have unless it is told otherwise.
const DEFAULT_QUOTA: u64 = 2 << 30;

async fn doctor(etcd: &Etcd, patience: Duration) -> Result<(), Failed> {
    use Finding::{Bad, Doubtful, Good};
    let mut doctor = Doctor { is_bad: false };
    let status = timed(patience, etcd.status()).await?;
    let Status { version, size, in_use, quota, has_leader, alarms, revision, .. } = &status;

    match fix_of_15247(version) {
        Some(true) => doctor.says(Good, format_args!("version {version}"))?,
        Some(false) => doctor.says(
            Doubtful,
            format_args!(
                "version {version}: a leader whose disk hangs deletes marks of live processes \
                 (etcd-io/etcd#15247, mended in 3.4.31 and 3.5.13)"
            ),
        )?,
        None => doctor.says(Doubtful, format_args!("version {version} is not known"))?,
    }
    doctor
        .says(if *has_leader { Good } else { Bad }, if *has_leader { "it has a leader" } else { "it has no leader" })?;
    if !has_leader {
        return Err(Failed::No("etcd is not fit for livemark".to_owned()));
    }
    for alarm in alarms {
        doctor.says(Bad, format_args!("alarm: {alarm}"))?;
    }
    if alarms.is_empty() {
        doctor.says(Good, "no alarm")?;
    }
    // The second state is the first that something was written in.
    if timed(patience, etcd.keeps(2)).await? && *revision > 10_000 {
        doctor.says(
            Doubtful,
            format_args!("nothing was ever compacted, in {revision} revisions: turn auto-compaction on"),
        )?;
    } else {
        doctor.says(Good, "compaction")?;
    }
    let most = quota.unwrap_or(DEFAULT_QUOTA);
    let room = format!("{} MiB of data, {} in use, {} MiB may be", size >> 20, in_use >> 20, most >> 20);
    let said = if quota.is_some() { "" } else { " unless it was told otherwise" };
    doctor.says(if *size > most / 5 * 4 { Doubtful } else { Good }, format_args!("{room}{said}"))?;

    let inventory = inventory(etcd, patience).await?;
    match &inventory.epoch {
        Ok(epoch) => doctor.says(Good, format_args!("epoch {epoch}"))?,
        Err(OpenError::Epoch) => {
            doctor.says(Bad, "the key `epoch` holds no number below 32768: no session can be opened")?
        }
        Err(error) => doctor.says(Bad, error)?,
    }
    if inventory.foreign.is_empty() {
        doctor.says(Good, format_args!("{} marks, {} sessions", inventory.marks.len(), inventory.sessions.len()))?;
    } else {
        let keys: Vec<_> = inventory.foreign.iter().take(10).map(|key| plain(key)).collect();
        doctor
            .says(Doubtful, format_args!("{} keys are not livemark's: {}", inventory.foreign.len(), keys.join(", ")))?;
    }
    writes(etcd, patience, &mut doctor).await?;
    if doctor.is_bad { Err(Failed::No("etcd is not fit for livemark".to_owned())) } else { Ok(()) }
}

/// Writes and removes a key of its own some times, and takes and gives back a lease.
async fn writes(etcd: &Etcd, patience: Duration, doctor: &mut Doctor) -> Result<(), Failed> {
    const ROUNDS: usize = 20;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let key = format!("t/doctor-{}", std::process::id());
        if let Err(Failed::Etcd(why)) = timed(patience, etcd.put(&key, Vec::new(), None, If::Any)).await {
            return doctor.says(Finding::Bad, format_args!("nothing can be written: {why}"));
        }
        times.push(began.elapsed());
        timed(patience, etcd.delete(&key, If::Any)).await?;
    }
    times.sort_unstable();
    let [first, .., last] = &times[..] else { return Ok(()) };
    let median = times[times.len() / 2];
    let finding = if median > Duration::from_millis(100) { Finding::Doubtful } else { Finding::Good };
    doctor.says(
        finding,
        format_args!("{ROUNDS} writes: {first:.1?} at least, {median:.1?} at the median, {last:.1?} at most"),
    )?;
    let grant = timed(patience, etcd.grant(Duration::from_secs(5))).await?;
    let renewed = timed(patience, etcd.renew(grant.lease)).await?;
    timed(patience, etcd.revoke(grant.lease)).await?;
    let finding = if grant.ttl.as_secs() == 5 && renewed == grant.ttl { Finding::Good } else { Finding::Doubtful };
    doctor.says(finding, format_args!("a lease of 5s was granted for {:?}, and renewed for {renewed:?}", grant.ttl))
}

/// Whether a version ignores a former leader that revokes leases. `None` where that is not known.
fn fix_of_15247(version: &str) -> Option<bool> {
    let mut numbers = version.split(['.', '-']).map(str::parse::<u32>);
    let mut next = || numbers.next()?.ok();
    match (next()?, next()?, next()?) {
        (3, 4, patch) => Some(patch >= 31),
        (3, 5, patch) => Some(patch >= 13),
        (3, minor, _) => Some(minor >= 6),
        _ => None,
    }
}
