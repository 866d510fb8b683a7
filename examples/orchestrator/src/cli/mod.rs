//! The command line: what can be asked for, and how it ends.

mod operate;

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write, stdout};
use std::path::PathBuf;
#[cfg(feature = "cluster")]
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use orchestrator::client::{self, Client};
use orchestrator::config::{Config, REPLAY};
use orchestrator::environment::TOKEN;
use orchestrator::error::{Error, Result};
#[cfg(feature = "cluster")]
use orchestrator::replay::together::{self, Role, Together};
use orchestrator::replay::{Replay, restart};
use orchestrator::serve;
use orchestrator::store::Database;

/// Where a service is, if neither an option says so nor the default is right.
const URL: &str = "ORCHESTRATOR_URL";

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a scenario does not hold, or a mode was not put in force;
2 the command line, 3 the settings, 4 the job store, 5 the address to listen
on, 6 another service has the store, 7 no service answers, 8 it refuses,
9 anything else. 130 or 143 ended at once by a second signal, 141 nobody reads.";

const SERVE: &str = "\
GET /         the page         GET /queue    jobs, owners, counts (JSON)
GET /metrics  for Prometheus   GET /events   the queue, whenever it changes
GET /healthz  200, or 503 if the reaper or the job store is gone
POST /jobs    {\"kind\": \"default\", \"count\": 6}: submits jobs
PUT /policy   {\"mode\": \"defer_all\", \"for\": \"15m\"}: puts it in force
What changes something needs Authorization: Bearer TOKEN and
Content-Type: application/json. GET /openapi.json describes all of it.

SIGTERM or SIGINT (Ctrl-C): no job is started any more, and the running ones
may end within limits.shutdown of the settings; a second one ends at once.";

/// Replays an incident of a job system, on a real SQLite file, with real threads
/// and child processes: first as it happened, then with livemark's marks honored.
#[derive(Parser)]
#[command(name = "orchestrator", version, verbatim_doc_comment, after_help = EXIT_CODES)]
#[command(args_conflicts_with_subcommands = true, args_override_self = true, term_width = 80)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    replay: ReplayOptions,
}

#[derive(Args)]
struct ReplayOptions {
    /// Keep the job store in this file. An orchestrator's file is added to, under a new replay number; any other is
    /// refused. Without it, a temporary file is used and removed
    #[arg(long, value_name = "PATH")]
    db: Option<PathBuf>,
    /// Commands of the gates, and time limits (TOML; the format and the defaults are in
    /// examples/orchestrator/default.toml)
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    // Set, like the next two, where the replay starts this program again to kill it.
    #[arg(long, hide = true)]
    work: Option<String>,
    #[arg(long, hide = true)]
    workspaces: Option<PathBuf>,
    #[arg(long, hide = true)]
    hold: bool,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    together: TogetherOptions,
}

/// Several processes on one store.
#[cfg(feature = "cluster")]
#[derive(Args)]
struct TogetherOptions {
    /// Plays the scenarios of several processes as well, on this PostgreSQL (as libpq has its address). Its schemas
    /// `orchestrator` and `livemark` are created where they are not there
    #[arg(long, value_name = "ADDRESS")]
    cluster: Option<String>,
    /// Where the marks of several processes are: etcd://HOST:PORT[,HOST:PORT], or the address of a PostgreSQL [default: in
    /// the database of the jobs]
    #[arg(long, value_name = "ADDRESS", requires = "cluster")]
    marks: Option<String>,
    /// How many processes are killed
    #[arg(long, value_name = "N", default_value_t = 200, requires = "cluster")]
    kills: u32,
    // Set, like the next three, where the replay starts this program again.
    #[arg(long, hide = true)]
    name: Option<String>,
    #[arg(long, hide = true)]
    part: Option<together::Part>,
    #[arg(long, hide = true)]
    alone: bool,
    #[arg(long, hide = true, default_value_t = 1_000)]
    ttl_ms: u64,
}

#[cfg(feature = "cluster")]
impl TogetherOptions {
    fn together(&self) -> Result<Option<Together>> {
        let Some(database) = self.cluster.clone() else { return Ok(None) };
        let marks = self.marks.as_ref().unwrap_or(&database).parse()?;
        Ok(Some(Together { database, marks, kills: self.kills }))
    }
}

#[derive(Subcommand)]
enum Command {
    /// Runs jobs continuously, and shows them on a page
    #[command(after_help = SERVE)]
    Serve(ServeOptions),
    /// Submits jobs to a service, and prints their ids, one a line
    Submit {
        #[command(flatten)]
        at: At,
        /// A kind of the service's settings
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// How many, up to 100
        #[arg(long, value_name = "N", default_value_t = 1)]
        count: u64,
    },
    /// Shows the running jobs of a service, with the reaper's verdicts
    Queue {
        #[command(flatten)]
        look: Look,
    },
    /// Operates on a service
    #[command(flatten)]
    Operate(operate::Command),
    /// Prints the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Args)]
struct ServeOptions {
    /// The job store. Jobs in it survive a restart: what was running is queued again
    #[arg(long, value_name = "PATH", default_value = "orchestrator.db")]
    db: PathBuf,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    shared: SharedOptions,
    /// Kinds of jobs, limits (TOML; the format and the defaults are in examples/orchestrator/serve.toml)
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Address and port; port 0: any
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7447")]
    listen: String,
    #[command(flatten)]
    token: Token,
    /// Where jobs have their directories [default: the job store's name with .workspaces]
    #[arg(long, value_name = "DIR")]
    workspaces: Option<PathBuf>,
}

/// A job store that other services work on as well.
#[cfg(feature = "cluster")]
#[derive(Args)]
struct SharedOptions {
    /// A job store on PostgreSQL, as libpq has its address, for several services at a time. Its schemas `orchestrator` and
    /// `livemark` are created where they are not there
    #[arg(long, value_name = "ADDRESS", conflicts_with = "db")]
    store: Option<String>,
    /// Where their marks are: etcd://HOST:PORT[,HOST:PORT], or the address of a PostgreSQL [default: in the job store]
    #[arg(long, value_name = "ADDRESS", requires = "store")]
    marks: Option<String>,
    /// What this service is called where its marks are shown [default: its process number]
    #[arg(long, value_name = "NAME", requires = "store")]
    name: Option<String>,
    /// For how many seconds the marks of a service stay without it
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0, requires = "store")]
    ttl: f64,
}

#[cfg(feature = "cluster")]
impl SharedOptions {
    fn place(self) -> Result<Option<serve::Place>> {
        let Some(database) = self.store else { return Ok(None) };
        let marks = self.marks.as_ref().unwrap_or(&database).parse()?;
        let name = self.name.unwrap_or_else(|| format!("process {}", std::process::id()));
        let ttl = Duration::try_from_secs_f64(self.ttl).map_err(|error| Error::Usage(format!("--ttl: {error}")))?;
        Ok(Some(serve::Place::Shared { database, marks, name, ttl }))
    }
}

/// What a request must know to change anything.
#[derive(Args)]
struct Token {
    /// What a request must know to change anything. Other users can see it here: better kept in ORCHESTRATOR_TOKEN
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// The same, in a file
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
}

impl Token {
    /// Reads it from where it is. Set to nothing is as good as not set.
    fn read(self) -> Result<Option<String>> {
        match self {
            Self { token: Some(given), .. } => token("--token", given).map(Some),
            Self { token_file: Some(path), .. } => {
                let text = fs::read_to_string(&path).map_err(Error::io(format!("--token-file {}", path.display())))?;
                token("--token-file", text.trim_end_matches(['\n', '\r']).to_owned()).map(Some)
            }
            _ => match env::var_os(TOKEN).filter(|value| !value.is_empty()) {
                None => Ok(None),
                Some(value) => token(TOKEN, value.to_string_lossy().into_owned()).map(Some),
            },
        }
    }
}

/// A service to look at.
#[derive(Args)]
pub(crate) struct Look {
    /// Where it is [default: ORCHESTRATOR_URL, or http://127.0.0.1:7447]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// All there is to know, as JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// A service to change.
#[derive(Args)]
pub(crate) struct At {
    /// Where it is [default: ORCHESTRATOR_URL, or http://127.0.0.1:7447]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Its token [default: ORCHESTRATOR_TOKEN]
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// Its token, in a file
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
}

impl Look {
    fn client(&self) -> Client {
        Client::new(&url(self.url.clone()), None)
    }
}

impl At {
    fn client(self) -> Result<Client> {
        let Self { url: given, token, token_file } = self;
        Ok(Client::new(&url(given), Token { token, token_file }.read()?))
    }
}

fn url(given: Option<String>) -> String {
    let from_environment = || env::var(URL).ok().filter(|url| !url.is_empty());
    given.or_else(from_environment).unwrap_or_else(|| client::URL.to_owned())
}

/// A token that a request can carry.
fn token(from: &str, token: String) -> Result<String> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::Usage(format!("{from}: a token is one or more visible ASCII characters, without spaces")));
    }
    Ok(token)
}

/// Does what the command line says. Returns `true` if all went as it should.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<bool> {
    let Cli { command, replay: options } = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            say(error.render().to_string().trim_end())?;
            return Ok(true);
        }
        Err(error) => return Err(Error::Usage(in_a_line(&error))),
    };
    match command {
        None => return replay(options),
        Some(Command::Serve(options)) => {
            let ServeOptions { db, config, listen, token, workspaces, .. } = options;
            let store = serve::Place::File(db);
            #[cfg(feature = "cluster")]
            let store = options.shared.place()?.unwrap_or(store);
            serve::run(serve::Options { store, config, listen, token: token.read()?, workspaces })?;
        }
        Some(Command::Submit { at, kind, count }) => {
            for job in at.client()?.submit(kind.as_deref(), count)? {
                say(job)?;
            }
        }
        Some(Command::Queue { look }) if look.json => say(look.client().queue_json()?)?,
        Some(Command::Queue { look }) => say(look.client().queue()?.to_string().trim_end())?,
        Some(Command::Operate(command)) => return operate::run(command),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "orchestrator", &mut script);
            say(String::from_utf8_lossy(&script).trim_end())?;
        }
    }
    Ok(true)
}

/// What is wrong with a command line, and what was perhaps meant.
fn in_a_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let mut said: String =
        rendered.lines().take_while(|line| !line.starts_with("Usage:")).collect::<Vec<_>>().join(" ");
    if let Some((_, message)) = said.split_once("error: ") {
        said = message.to_owned();
    }
    // What is suggested follows below, and what to try is said of every such error.
    for rest in ["  tip: ", " For more information"] {
        if let Some((message, _)) = said.split_once(rest) {
            said = message.to_owned();
        }
    }
    let suggested = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let suggested = suggested.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(one) => Some(one.clone()),
        ContextValue::Strings(several) => several.first().cloned(),
        _ => None,
    });
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    match suggested {
        Some(suggested) => format!("{said}: did you mean {suggested}?"),
        None => said,
    }
}

pub(crate) fn say(what: impl Display) -> Result<()> {
    writeln!(stdout().lock(), "{what}").map_err(Error::io("standard output"))
}

/// Returns `true` if the error is that nobody reads what is said any more.
pub(crate) fn is_unread(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}

fn replay(options: ReplayOptions) -> Result<bool> {
    let config = Config::load(options.config.as_deref(), REPLAY)?;
    let program = env::current_exe().map_err(Error::io("finding this program's own file"))?;
    #[cfg(feature = "cluster")]
    let together = options.together.together()?;
    #[cfg(feature = "cluster")]
    if let (
        Some(queue),
        Some(together),
        Some(workspaces),
        TogetherOptions { name: Some(name), part: Some(part), alone, ttl_ms, .. },
    ) = (&options.work, &together, &options.workspaces, &options.together)
    {
        let role = Role {
            queue: queue.clone(),
            name: name.clone(),
            part: *part,
            alone: *alone,
            ttl: Duration::from_millis(*ttl_ms),
        };
        together::work(together, &role, config, workspaces, &program)?;
        return Ok(true);
    }
    if let (Some(queue), Some(db), Some(workspaces)) = (&options.work, &options.db, &options.workspaces) {
        restart::work(&Database::open(db)?, &config, queue, workspaces, &program, options.hold)?;
        return Ok(true);
    }
    // Removed at the end: the workspaces, and the database unless it is to be kept.
    let scratch = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
    let keep = options.db.is_some();
    let database = Database::open(&options.db.unwrap_or_else(|| scratch.path().join("orchestrator.db")))?;
    let replay = Replay {
        number: database.begin_replay()?,
        database: &database,
        config: &config,
        config_path: options.config.as_deref(),
        workspaces: scratch.path(),
        program: &program,
        #[cfg(feature = "cluster")]
        together: together.as_ref(),
    };
    let holds = replay.run(&mut stdout().lock())?;
    if keep {
        say(format_args!("The rows are kept in {database}."))?;
    }
    Ok(holds)
}
