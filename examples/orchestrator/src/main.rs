//! The command line.
//!
//! Exit codes: 0 if every scenario holds, 1 if one does not, 2 if the replay could not be done.

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt};
use orchestrator::config::Config;
use orchestrator::error::{Error, Result};
use orchestrator::replay::{Replay, restart};
use orchestrator::store::Database;

const HELP: &str = "\
Replays an incident of a job system, on a real SQLite file, with real threads
and child processes: first as it happened, then with livemark's marks honoured.

Usage: orchestrator [--db PATH] [--config PATH]

  --db PATH      keep the job store in this file. An orchestrator's file is
                 added to, under a new replay number; any other is refused.
                 Without --db, a temporary file is used and removed.
  --config PATH  commands of the gates, and time limits (TOML; the format and
                 the defaults are in examples/orchestrator/default.toml)
  -h, --help     this text

Exit code: 0 all scenarios hold, 1 one does not, 2 the replay cannot be done.";

/// What is asked for.
#[derive(Default)]
struct Options {
    help: bool,
    db: Option<PathBuf>,
    config: Option<PathBuf>,
    /// Set, like the next two, where the replay starts this program again to kill it.
    work: Option<String>,
    workspaces: Option<PathBuf>,
    hold: bool,
}

impl Options {
    fn parse(mut parser: Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("help") | Arg::Short('h') => options.help = true,
                Arg::Long("db") => options.db = Some(parser.value()?.into()),
                Arg::Long("config") => options.config = Some(parser.value()?.into()),
                Arg::Long("work") => options.work = Some(parser.value()?.string()?),
                Arg::Long("workspaces") => options.workspaces = Some(parser.value()?.into()),
                Arg::Long("hold") => options.hold = true,
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    match Options::parse(Parser::from_env()).map_err(Error::from).and_then(run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("orchestrator: {}", error.to_string().replace('\n', " "));
            ExitCode::from(2)
        }
    }
}

fn run(options: Options) -> Result<bool> {
    let out = &mut stdout().lock();
    if options.help {
        writeln!(out, "{HELP}").map_err(Error::io("standard output"))?;
        return Ok(true);
    }
    let config = Config::load(options.config.as_deref())?;
    if let (Some(queue), Some(db), Some(workspaces)) = (&options.work, &options.db, &options.workspaces) {
        restart::work(&Database::open(db)?, &config, queue, workspaces, options.hold)?;
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
    };
    let holds = replay.run(out)?;
    if keep {
        writeln!(out, "The rows are kept in {}.", database.path().display()).map_err(Error::io("standard output"))?;
    }
    Ok(holds)
}
