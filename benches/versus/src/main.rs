//! Measures the registry beside an unsynchronised map and beside papaya, interleaved, in one run.
//!
//! ```sh
//! cargo run --release -p versus                       # prints tables, writes target/versus.csv
//! cargo run --release -p versus -- --rounds 21 --out some.csv
//! cargo run --release -p versus -- --plot some.csv some.svg
//! ```
//!
//! Medians in nanoseconds per operation, ratios and the spread. The same hasher family, the same keys and the same
//! values on all sides. The csv says on what it was measured, and when; the chart is drawn from the csv alone.

mod measure;
mod plot;
mod record;
mod subjects;

use std::error::Error;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::{Arg, ValueExt};

use crate::record::Record;

const USAGE: &str = "usage: versus [--rounds N] [--out CSV] | --plot CSV SVG";
const OWNED: [u64; 4] = [8, 64, 1_024, 65_536];
const ROUNDS: NonZeroUsize = NonZeroUsize::new(101).unwrap();

enum Command {
    Measure { rounds: NonZeroUsize, out: Option<PathBuf> },
    Plot { csv: PathBuf, svg: PathBuf },
    Help,
}

fn main() -> ExitCode {
    let done = match command(lexopt::Parser::from_env()) {
        Ok(Command::Measure { rounds, out }) => measure(rounds.get(), out),
        Ok(Command::Plot { csv, svg }) => plot(&csv, &svg),
        Ok(Command::Help) => {
            println!("{USAGE}");
            Ok(())
        }
        Err(error) => {
            eprintln!("versus: {error}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("versus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command(mut arguments: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let (mut rounds, mut out, mut plot) = (None, None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("rounds") => rounds = Some(arguments.value()?.parse()?),
            Arg::Long("out") => out = Some(arguments.value()?.into()),
            Arg::Long("plot") => plot = Some((arguments.value()?.into(), arguments.value()?.into())),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    match plot {
        None => Ok(Command::Measure { rounds: rounds.unwrap_or(ROUNDS), out }),
        Some((csv, svg)) if rounds.is_none() && out.is_none() => Ok(Command::Plot { csv, svg }),
        Some(_) => Err("--plot draws what has been measured: it goes with no other option".into()),
    }
}

fn measure(rounds: usize, out: Option<PathBuf>) -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let shown = out.as_deref().unwrap_or(Path::new("target/versus.csv"));
    let path = out.clone().unwrap_or_else(|| root.join("target/versus.csv"));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or(Ok(()), fs::create_dir_all).map_err(at(shown))?;

    let mut record = Record { header: record::circumstances(&root, rounds), rows: Vec::new() };
    for (name, value) in &record.header {
        println!("{name}: {value}");
    }
    for owned in OWNED {
        let rows = measure::measure(owned, rounds);
        measure::print(owned, &rows);
        record.rows.extend(rows);
    }
    fs::write(&path, record.to_csv()).map_err(at(shown))?;
    println!("\nwritten to {}", shown.display());
    Ok(())
}

fn plot(csv: &Path, svg: &Path) -> Result<(), Box<dyn Error>> {
    let record = Record::from_csv(&fs::read_to_string(csv).map_err(at(csv))?).map_err(at(csv))?;
    let chart = plot::chart(&record).map_err(at(csv))?;
    fs::write(svg, chart).map_err(at(svg))?;
    println!("drawn to {}", svg.display());
    Ok(())
}

/// Names the file that an error is about.
fn at<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> String {
    move |error| format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::{Command, ROUNDS, command};
    use crate::measure::measure;
    use crate::plot;
    use crate::record::{Record, circumstances};

    #[test]
    fn what_is_measured_is_read_back_and_drawn() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let rows = [64, 1_024].into_iter().flat_map(|owned| measure(owned, 1)).collect();
        let record = Record { header: circumstances(root, 1), rows };
        let read = Record::from_csv(&record.to_csv()).unwrap();
        assert_eq!(read.to_csv(), record.to_csv());

        let chart = plot::chart(&read).unwrap();
        assert!(chart.contains(read.value("rustc")));
        assert_eq!(chart.matches("<rect class=\"bar\"").count(), 4 * 4 + 2 * 3);
    }

    #[test]
    fn a_csv_that_is_not_ours_is_refused() {
        for csv in ["", "a,b\n1,2\n", "# machine: any\n"] {
            assert!(Record::from_csv(csv).is_err(), "{csv:?}");
        }
    }

    #[test]
    fn unknown_arguments_are_refused() {
        let parse = |arguments: &[&str]| command(lexopt::Parser::from_args(arguments));
        assert!(matches!(parse(&[]), Ok(Command::Measure { rounds: ROUNDS, out: None })));
        assert!(
            matches!(parse(&["--rounds", "3", "--out=a"]), Ok(Command::Measure { rounds, out: Some(_) }) if rounds.get() == 3)
        );
        assert!(matches!(parse(&["--plot", "a", "b"]), Ok(Command::Plot { .. })));
        for wrong in [&["7"][..], &["--round", "1"], &["--rounds"], &["--rounds", "0"], &["--plot", "a"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&["--plot", "a", "b", "--rounds", "1"]).is_err());
    }
}
