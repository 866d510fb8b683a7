//! livemark at full load for as long as asked, with its books checked all the time.
//!
//! ```sh
//! cargo run --release -p soak -- --minutes 30
//! cargo run --release -p soak -- --minutes 0.1 --seed 7
//! ```
//!
//! Monitors finalize jobs: well, slowly, with a panic, not at all; with guards that travel, hang, or are leaked.
//! Reapers sweep, claim, redrive and reap under policies that are swapped beneath them; readers and snapshots look on.
//! See `load` for what each does, and `books` for what must hold all the time. Ends with a table, and with failure if
//! anything was violated, or if anything that should happen never did.

mod books;
#[path = "../../support/heap.rs"]
mod heap;
mod load;
mod store;
#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, ValueExt};

use crate::load::Soak;

const USAGE: &str = "usage: soak [--minutes N] [--seed N]";

struct Options {
    minutes: f64,
    seed: u64,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("soak: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Finalizers panic on purpose, thousands of times.
    quieten();
    println!("{} minutes, seed {}, {} threads", options.minutes, options.seed, load::THREADS);
    let soak = Soak::default();
    soak.run(Duration::from_secs_f64(options.minutes * 60.0), options.seed);
    if soak.books.closed_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options { minutes: 1.0, seed: fastrand::u64(..) };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("minutes") => {
                options.minutes = parser.value()?.parse()?;
                if !(options.minutes > 0.0 && options.minutes < 1e6) {
                    return Err("--minutes: a number above zero".into());
                }
            }
            Arg::Long("seed") => options.seed = parser.value()?.parse()?,
            Arg::Long("help") => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            _ => return Err(format!("{}\n{USAGE}", argument.unexpected()).into()),
        }
    }
    Ok(options)
}

/// Says nothing of the panics that the load makes on purpose, which are many.
fn quieten() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.payload().is::<load::OnPurpose>() {
            report(panic);
        }
    }));
}
