//! The command line.
//!
//! Exit codes: 0 if all went well, 1 if a scenario of the replay does not hold, 2 if something could not be done.

use std::env;
use std::fmt::Display;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt};
use orchestrator::client::{self, Client};
use orchestrator::config::{Config, REPLAY};
use orchestrator::environment::TOKEN;
use orchestrator::error::{Error, Result};
use orchestrator::replay::{Replay, restart};
use orchestrator::serve;
use orchestrator::store::Database;
use orchestrator::supervise;

const HELP: &str = "\
Replays an incident of a job system, on a real SQLite file, with real threads
and child processes: first as it happened, then with livemark's marks honored.

Usage: orchestrator [--db PATH] [--config PATH]
       orchestrator serve | submit | queue [--help]

  --db PATH      keep the job store in this file. An orchestrator's file is
                 added to, under a new replay number; any other is refused.
                 Without --db, a temporary file is used and removed.
  --config PATH  commands of the gates, and time limits (TOML; the format and
                 the defaults are in examples/orchestrator/default.toml)
  -h, --help     this text

  serve          run as a service, with a page to watch it
  submit         submit jobs to a service
  queue          show the queue of a service

Exit code: 0 all scenarios hold, 1 one does not, 2 the replay cannot be done.";

const SERVE_HELP: &str = "\
Runs jobs continuously, and shows them on a page.

Usage: orchestrator serve [--db PATH] [--config PATH] [--listen ADDR]
                          [--token TOKEN] [--workspaces DIR]

  --db PATH         the job store (default: orchestrator.db, here). Jobs in it
                    survive a restart: what was running is queued again.
  --config PATH     kinds of jobs, limits (TOML; the format and the defaults
                    are in examples/orchestrator/serve.toml)
  --listen ADDR     address and port (default: 127.0.0.1:7447; port 0: any)
  --token TOKEN     what a request must know to change anything. Better kept
                    in ORCHESTRATOR_TOKEN, which other users cannot read.
                    Without a token nothing can be changed.
  --workspaces DIR  where jobs have their directories (default: the job
                    store's name with .workspaces)
  -h, --help        this text

GET /         the page         GET /queue    jobs, owners, counts (JSON)
GET /metrics  for Prometheus   GET /events   the queue, whenever it changes
GET /healthz  200, or 503 if the reaper or the job store is gone
POST /jobs    {\"kind\": \"default\", \"count\": 6}: submits jobs
PUT /policy   {\"mode\": \"defer_all\"}: what it names is put in force
These two need Authorization: Bearer TOKEN, Content-Type: application/json

SIGTERM or SIGINT (Ctrl-C): no job is started any more, and the running ones
may end within limits.shutdown of the settings; a second one ends at once.

Exit code: 0 ended by a signal, 2 it cannot be done.";

const SUBMIT_HELP: &str = "\
Submits jobs to a service, and prints their ids, one a line.

Usage: orchestrator submit [--url URL] [--token TOKEN] [--kind KIND] [--count N]

  --url URL      where it is (default: http://127.0.0.1:7447)
  --token TOKEN  its token (default: ORCHESTRATOR_TOKEN)
  --kind KIND    a kind of the service's settings (default: default)
  --count N      how many, up to 100 (default: 1)
  -h, --help     this text";

const QUEUE_HELP: &str = "\
Shows the queue of a service.

Usage: orchestrator queue [--url URL] [--json]

  --url URL   where it is (default: http://127.0.0.1:7447)
  --json      all there is to know, as JSON, for scripts
  -h, --help  this text";

/// What is asked for.
enum Request {
    Help(&'static str),
    Replay(ReplayOptions),
    Serve(serve::Options),
    Submit { client: Client, kind: Option<String>, count: u64 },
    Queue { client: Client, json: bool },
}

#[derive(Default)]
struct ReplayOptions {
    db: Option<PathBuf>,
    config: Option<PathBuf>,
    /// Set, like the next two, where the replay starts this program again to kill it.
    work: Option<String>,
    workspaces: Option<PathBuf>,
    hold: bool,
}

type Parsed = std::result::Result<Request, lexopt::Error>;

fn parse(mut parser: Parser) -> Parsed {
    // A subcommand comes first; without one it is the replay.
    match parser
        .try_raw_args()
        .and_then(|mut raw| raw.next_if(|argument| !argument.as_encoded_bytes().starts_with(b"-")))
    {
        None => parse_replay(parser),
        Some(name) if name == "serve" => parse_serve(parser),
        Some(name) if name == "submit" => parse_submit(parser),
        Some(name) if name == "queue" => parse_queue(parser),
        Some(name) => Err(lexopt::Error::UnexpectedArgument(name)),
    }
}

fn parse_replay(mut parser: Parser) -> Parsed {
    let mut options = ReplayOptions::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Request::Help(HELP)),
            Arg::Long("db") => options.db = Some(parser.value()?.into()),
            Arg::Long("config") => options.config = Some(parser.value()?.into()),
            Arg::Long("work") => options.work = Some(parser.value()?.string()?),
            Arg::Long("workspaces") => options.workspaces = Some(parser.value()?.into()),
            Arg::Long("hold") => options.hold = true,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Request::Replay(options))
}

fn parse_serve(mut parser: Parser) -> Parsed {
    let mut options = serve::Options {
        db: "orchestrator.db".into(),
        config: None,
        listen: "127.0.0.1:7447".to_owned(),
        token: token_from_environment()?,
        workspaces: None,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Request::Help(SERVE_HELP)),
            Arg::Long("db") => options.db = parser.value()?.into(),
            Arg::Long("config") => options.config = Some(parser.value()?.into()),
            Arg::Long("listen") => options.listen = parser.value()?.string()?,
            Arg::Long("token") => options.token = Some(token("--token", parser.value()?.string()?)?),
            Arg::Long("workspaces") => options.workspaces = Some(parser.value()?.into()),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Request::Serve(options))
}

fn parse_submit(mut parser: Parser) -> Parsed {
    let (mut url, mut given, mut kind, mut count) = (client::URL.to_owned(), None, None, 1);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Request::Help(SUBMIT_HELP)),
            Arg::Long("url") => url = parser.value()?.string()?,
            Arg::Long("token") => given = Some(token("--token", parser.value()?.string()?)?),
            Arg::Long("kind") => kind = Some(parser.value()?.string()?),
            Arg::Long("count") => count = parser.value()?.parse()?,
            _ => return Err(argument.unexpected()),
        }
    }
    let token = match given {
        Some(token) => Some(token),
        None => token_from_environment()?,
    };
    Ok(Request::Submit { client: Client::new(&url, token), kind, count })
}

fn parse_queue(mut parser: Parser) -> Parsed {
    let (mut url, mut json) = (client::URL.to_owned(), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(Request::Help(QUEUE_HELP)),
            Arg::Long("url") => url = parser.value()?.string()?,
            Arg::Long("json") => json = true,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Request::Queue { client: Client::new(&url, None), json })
}

/// Set to nothing is as good as not set.
fn token_from_environment() -> std::result::Result<Option<String>, lexopt::Error> {
    match env::var_os(TOKEN).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => token(TOKEN, value.string()?).map(Some),
    }
}

/// A token that a request can carry.
fn token(from: &str, token: String) -> std::result::Result<String, lexopt::Error> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{from}: a token is one or more visible ASCII characters, without spaces").into());
    }
    Ok(token)
}

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).peekable();
    if arguments.next_if(|argument| argument == supervise::SUBCOMMAND).is_some() {
        supervise::run(arguments);
        return ExitCode::SUCCESS;
    }
    match parse(Parser::from_env()).map_err(Error::from).and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("orchestrator: {}", error.to_string().replace('\n', " "));
            ExitCode::from(2)
        }
    }
}

fn run(request: Request) -> Result<bool> {
    match request {
        Request::Help(text) => say(text)?,
        Request::Replay(options) => return replay(options),
        Request::Serve(options) => serve::run(options)?,
        Request::Submit { client, kind, count } => {
            for job in client.submit(kind.as_deref(), count)? {
                say(job)?;
            }
        }
        Request::Queue { client, json: true } => say(client.queue_json()?)?,
        Request::Queue { client, json: false } => say(client.queue()?.to_string().trim_end())?,
    }
    Ok(true)
}

fn say(what: impl Display) -> Result<()> {
    writeln!(stdout().lock(), "{what}").map_err(Error::io("standard output"))
}

fn replay(options: ReplayOptions) -> Result<bool> {
    let config = Config::load(options.config.as_deref(), REPLAY)?;
    let program = env::current_exe().map_err(Error::io("finding this program's own file"))?;
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
    };
    let holds = replay.run(&mut stdout().lock())?;
    if keep {
        say(format_args!("The rows are kept in {}.", database.path().display()))?;
    }
    Ok(holds)
}
