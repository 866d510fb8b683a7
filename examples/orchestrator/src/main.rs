//! The program: what the command line says, and an exit code for how it went.

mod cli;

use std::env;
use std::process::ExitCode;

use orchestrator::error::{Error, Result};
use orchestrator::supervise;

/// A scenario does not hold, or an answer is no.
const NO: u8 = 1;
/// Nobody reads what is said, as if the program were ended by SIGPIPE.
const UNREAD: u8 = 128 + 13;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).peekable();
    if arguments.next_if(|argument| argument == supervise::SUBCOMMAND).is_some() {
        supervise::run(arguments);
        return ExitCode::SUCCESS;
    }
    ended(cli::run(env::args_os()))
}

fn ended(outcome: Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NO),
        Err(error) if cli::is_unread(&error) => ExitCode::from(UNREAD),
        Err(error) => {
            eprintln!("orchestrator: {}", error.to_string().replace('\n', " "));
            ExitCode::from(code(&error))
        }
    }
}

/// What kind of trouble it is, for scripts.
fn code(error: &Error) -> u8 {
    match error {
        Error::Usage(_) => 2,
        Error::Config { .. } | Error::Policy(_) => 3,
        Error::NoDirectory(_)
        | Error::NotADatabase(_)
        | Error::ForeignDatabase(_)
        | Error::Locked(_)
        | Error::Open { .. }
        | Error::Linked { .. }
        | Error::Replaced(_)
        | Error::Unwritable(_)
        | Error::Store(_)
        | Error::Postgres(_)
        | Error::Full(_)
        | Error::ForeignTables(_)
        | Error::TooNew { .. }
        | Error::Column(_)
        | Error::Shared { .. }
        | Error::Row { .. } => 4,
        Error::Listen { .. } => 5,
        Error::Served { .. } => 6,
        Error::Unreachable { .. } => 7,
        Error::Server { .. } => 8,
        _ => 9,
    }
}
