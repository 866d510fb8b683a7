//! Runs random small histories of real threads on the registry, and checks each for linearizability.
//!
//! ```sh
//! cargo run --release -p histories                               # 100,000 of them
//! cargo run --release -p histories -- --histories 1000000 --seed 7
//! ```
//!
//! A history is what two or three threads called and were answered, with the order of calls and returns by tickets of
//! one counter. It is linearizable if all calls can be put in one order, each at a point between its call and its
//! return, in which a plain map gives the same answers (Herlihy and Wing, 1990). stateright's tester looks for that
//! order. Where there is none, this prints the smallest bad history that it can find, and fails.
//!
//! Threads are held up at random: between operations, and inside them, by the `Hash`, `Eq` and `Clone` of the job id,
//! so also between the load of a slot and its compare-exchange.

mod call;
mod crew;
mod hesitate;
mod history;
mod smallest;
mod spec;
mod subject;
#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use lexopt::{Arg, ValueExt};

use crate::crew::{Crew, Size};
use crate::subject::Bug;

const USAGE: &str = "usage: histories [--histories N] [--seed N]";

struct Options {
    histories: u64,
    seed: u64,
}

/// What the histories were like.
#[derive(Default)]
struct Tally {
    histories: u64,
    calls: u64,
    /// Histories in which two calls of one job overlapped, one of which changed it.
    contended: u64,
    snapshots: u64,
    torn: u64,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("histories: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("{} histories, seed {}", options.histories, options.seed);
    let mut crew = Crew::new(Bug::None, options.seed);
    let mut tally = Tally::default();
    let (started, mut said) = (Instant::now(), Instant::now());
    while tally.histories < options.histories {
        let history = crew.run(Size::ANY);
        tally.histories += 1;
        tally.calls += history.calls.len() as u64;
        tally.contended += u64::from(history.is_contended());
        let (snapshots, torn) = history.snapshots();
        tally.snapshots += snapshots;
        tally.torn += torn;
        if !history.is_linearizable() {
            let number = tally.histories;
            println!("history {number} of seed {} is not linearizable:\n\n{history}", options.seed);
            println!("The smallest found:\n\n{}", smallest::found(&history, &mut crew));
            return ExitCode::FAILURE;
        }
        if said.elapsed() > Duration::from_secs(10) {
            println!("{} histories after {} s", tally.histories, started.elapsed().as_secs());
            said = Instant::now();
        }
    }
    report(&tally, started.elapsed())
}

fn report(tally: &Tally, took: Duration) -> ExitCode {
    #[expect(clippy::cast_precision_loss, reason = "to be read by people")]
    let rate = tally.histories as f64 / took.as_secs_f64();
    println!("\n{:<36} {:>12}", "histories checked", tally.histories);
    println!("{:<36} {:>12.0}", "in a second", rate);
    println!("{:<36} {:>12}", "calls", tally.calls);
    println!("{:<36} {:>12}", "contended histories", tally.contended);
    println!("{:<36} {:>12}", "snapshots", tally.snapshots);
    println!("{:<36} {:>12}", "of those not atomic, so not checked", tally.torn);
    println!("{:<36} {:>12}", "violations", 0);
    // Threads that ran one after the other would prove nothing.
    if tally.contended * 20 < tally.histories {
        println!("fewer than a twentieth of the histories were contended: this says little");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options { histories: 100_000, seed: fastrand::u64(..) };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("histories") => options.histories = parser.value()?.parse()?,
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
