//! Measures the registry beside every other way in which a Rust user would build it today, interleaved, in one run.
//!
//! ```sh
//! cargo run --release -p versus                       # prints tables, writes target/versus.csv
//! cargo run --release -p versus -- --quick            # in less than a minute: some sizes, few rounds
//! cargo run --release -p versus -- --only writes --owned 64 --rounds 21 --out some.csv
//! cargo run --release -p versus -- --plot some.csv look-ups.svg growth.svg
//! cargo run --release -p versus -- --instructions     # with valgrind: instructions per operation, 64 owned jobs
//! ```
//!
//! Medians of rounds, ratios to livemark and to an unsynchronised map, and the spread. The same hasher family, the same
//! keys and the same values on all sides. The csv says on what it was measured, and when, and why a figure is missing;
//! the charts are drawn from the csv alone. Every subject gives the right number of answers, or the run fails.
//!
//! What to know about the figures:
//!
//! - A batch is what each subject does for least: a lock held, a pin, a version kept. Its answers may be as old as the
//!   batch; livemark's `Reader` and pinned concurrent maps give the newest. A writer waits for a lock's batch: see
//!   `mark+clear beside sweeps`.
//! - livemark reads a clock and draws a generation for each mark. The peers do only where it says `stamped`; their
//!   memory is measured with both kept, as livemark's always is.
//! - A peer's clear removes whatever owner there is. One that left a later owner alone would be dearer.
//! - `ArcSwap` gives a snapshot that is not to be sorted, nor to be owned, for the price of an `Arc`.
//! - Times with eight threads contain those of the clock, which the header gives.

mod heap;
mod instructions;
mod jobs;
mod measure;
mod peers;
mod plot;
mod record;
mod subject;
mod threads;
mod workloads;

use std::error::Error;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::{Arg, ValueExt};

use crate::record::Record;
use crate::workloads::Group;

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

const USAGE: &str =
    "usage: versus [--quick] [--rounds N] [--only GROUP]... [--owned N]... [--out CSV] | --plot CSV LOOK-UPS.svg GROWTH.svg | --instructions
groups: memory, reads, beside, writes, stamped, snapshot, tail, judge";

const OWNED: [usize; 5] = [8, 64, 1_024, 65_536, 1_000_000];
const QUICK_OWNED: [usize; 3] = [64, 1_024, 65_536];
const ROUNDS: usize = 31;
const QUICK_ROUNDS: usize = 3;
/// How many jobs a reaper's pass is measured with: the hundredth part of a million.
const OWNED_IN_A_PASS: usize = 10_000;
/// How many owned jobs take seconds to mark and copy: a fourth of the rounds.
const MANY: usize = 500_000;

enum Command {
    Measure(Plan),
    Plot {
        csv: PathBuf,
        look_ups: PathBuf,
        growth: PathBuf,
    },
    Instructions,
    /// One subject, one operation, so many times: what `Instructions` runs.
    Repeat {
        subject: String,
        operation: String,
        times: usize,
    },
    Help,
}

#[derive(Debug, PartialEq, Eq)]
struct Plan {
    rounds: usize,
    groups: Vec<Group>,
    owned: Vec<usize>,
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match command(lexopt::Parser::from_env()) {
        Ok(Command::Measure(plan)) => measure(&plan),
        Ok(Command::Plot { csv, look_ups, growth }) => plot(&csv, &look_ups, &growth),
        Ok(Command::Instructions) => instructions::print(),
        Ok(Command::Repeat { subject, operation, times }) => instructions::repeat(&subject, &operation, times),
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
    let (mut quick, mut rounds, mut out, mut plot) = (false, None::<NonZeroUsize>, None, None);
    let (mut groups, mut owned) = (Vec::new(), Vec::<NonZeroUsize>::new());
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("quick") => quick = true,
            Arg::Long("rounds") => rounds = Some(arguments.value()?.parse()?),
            Arg::Long("only") => groups.push(arguments.value()?.parse_with(group)?),
            Arg::Long("owned") => owned.push(arguments.value()?.parse()?),
            Arg::Long("out") => out = Some(arguments.value()?.into()),
            Arg::Long("plot") => {
                let [csv, look_ups, growth] = [arguments.value()?, arguments.value()?, arguments.value()?];
                plot = Some([csv, look_ups, growth].map(PathBuf::from));
            }
            Arg::Long("instructions") => return Ok(Command::Instructions),
            Arg::Long("repeat") => {
                let [subject, operation] = [arguments.value()?.string()?, arguments.value()?.string()?];
                return Ok(Command::Repeat { subject, operation, times: arguments.value()?.parse()? });
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    if let Some([csv, look_ups, growth]) = plot {
        if quick || rounds.is_some() || out.is_some() || !groups.is_empty() || !owned.is_empty() {
            return Err("--plot draws what has been measured: it goes with no other option".into());
        }
        return Ok(Command::Plot { csv, look_ups, growth });
    }
    let rounds = rounds.map_or(if quick { QUICK_ROUNDS } else { ROUNDS }, NonZeroUsize::get);
    if groups.is_empty() {
        groups = Group::ALL.to_vec();
    }
    let owned = match owned[..] {
        [] if quick => QUICK_OWNED.to_vec(),
        [] => OWNED.to_vec(),
        _ => owned.into_iter().map(NonZeroUsize::get).collect(),
    };
    Ok(Command::Measure(Plan { rounds, groups, owned, out }))
}

fn group(name: &str) -> Result<Group, String> {
    Group::ALL.into_iter().find(|group| group.name() == name).ok_or_else(|| format!("no group is called {name}"))
}

fn measure(plan: &Plan) -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let shown = plan.out.as_deref().unwrap_or(Path::new("target/versus.csv"));
    let path = plan.out.clone().unwrap_or_else(|| root.join("target/versus.csv"));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or(Ok(()), fs::create_dir_all).map_err(at(shown))?;

    let mut record = Record { header: record::circumstances(&root, plan.rounds), rows: Vec::new() };
    for (name, value) in &record.header {
        println!("{name}: {value}");
    }
    let mut measure = |group: Group, owned: usize| {
        let rounds = if owned < MANY { plan.rounds } else { plan.rounds.div_ceil(4) };
        let rows = measure::measure(group, owned, rounds);
        measure::print(group.title(), &rows);
        record.rows.extend(rows);
    };
    let (passes, groups): (Vec<Group>, Vec<Group>) =
        plan.groups.iter().copied().partition(|group| *group == Group::Judge);
    for owned in &plan.owned {
        groups.iter().for_each(|group| measure(*group, *owned));
    }
    passes.iter().for_each(|group| measure(*group, OWNED_IN_A_PASS));
    fs::write(&path, record.to_csv()).map_err(at(shown))?;
    println!("\nwritten to {}", shown.display());
    Ok(())
}

fn plot(csv: &Path, look_ups: &Path, growth: &Path) -> Result<(), Box<dyn Error>> {
    let record = Record::from_csv(&fs::read_to_string(csv).map_err(at(csv))?).map_err(at(csv))?;
    for (svg, chart) in [(look_ups, plot::look_ups(&record)), (growth, plot::growth(&record))] {
        fs::write(svg, chart.map_err(at(csv))?).map_err(at(svg))?;
        println!("drawn to {}", svg.display());
    }
    Ok(())
}

/// Names the file that an error is about.
fn at<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> String {
    move |error| format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::{Command, OWNED, Plan, QUICK_OWNED, QUICK_ROUNDS, ROUNDS, command};
    use crate::measure::{LIMIT, OURS, measure};
    use crate::plot;
    use crate::record::{Record, circumstances};
    use crate::workloads::Group;

    const SUBJECTS: usize = 17;

    #[test]
    fn what_is_measured_is_read_back_and_drawn() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let groups = [Group::Reads, Group::Beside, Group::Writes];
        let rows = [64, 1_024]
            .into_iter()
            .flat_map(|owned| groups.into_iter().flat_map(move |group| measure(group, owned, 1)));
        let rows = rows.collect();
        let record = Record { header: circumstances(root, 1), rows };
        let read = Record::from_csv(&record.to_csv()).unwrap();
        assert_eq!(read.to_csv(), record.to_csv());
        assert_eq!(read.subjects().len(), SUBJECTS);
        assert_eq!(read.sizes("hit"), [64, 1_024]);

        let chart = plot::look_ups(&read).unwrap();
        assert!(chart.contains(read.value("rustc")));
        // The limit is not measured beside a writer, and a peer may not have been done; two explain the others.
        let drawn =
            ["hit", "miss", "sweep"].map(|alone| [alone.to_owned(), format!("{alone} beside a writer")]).concat();
        let drawn = read.rows.iter().filter(|row| drawn.contains(&row.workload) && row.figure.is_some()).count();
        assert!(drawn > 3 * 2 * SUBJECTS, "{drawn}");
        assert_eq!(chart.matches("class=\"dot\"").count(), drawn + 2);
        let chart = plot::growth(&read).unwrap();
        assert!(chart.contains(read.value("date")));
        assert_eq!(chart.matches("class=\"line\"").count(), 3 * SUBJECTS);
    }

    #[test]
    fn every_group_gives_a_figure_or_says_why_not() {
        for group in Group::ALL {
            let rows = measure(group, 8, 1);
            assert!(!rows.is_empty() && rows.len() % SUBJECTS == 0, "{group:?}");
            assert!(rows.iter().all(|row| row.figure.is_some() || !row.note.is_empty()), "{group:?}");
            assert!(rows.iter().all(|row| row.subject != LIMIT || row.to_limit.is_none_or(|times| times == 1.0)));
            assert!(
                rows.iter().all(|row| row.subject != OURS || row.figure.is_some() || row.owned < 1_024),
                "{group:?}"
            );
        }
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
        let plan = |arguments: &[&str]| match parse(arguments) {
            Ok(Command::Measure(plan)) => plan,
            _ => panic!("{arguments:?}"),
        };
        let all = Plan { rounds: ROUNDS, groups: Group::ALL.to_vec(), owned: OWNED.to_vec(), out: None };
        assert_eq!(plan(&[]), all);
        let quick = Plan { rounds: QUICK_ROUNDS, owned: QUICK_OWNED.to_vec(), ..all };
        assert_eq!(plan(&["--quick"]), quick);
        let some = plan(&["--rounds", "3", "--out=a", "--only", "tail", "--only", "reads", "--owned", "8"]);
        let groups = vec![Group::Tail, Group::Reads];
        assert_eq!(some, Plan { rounds: 3, groups, owned: vec![8], out: Some("a".into()) });
        assert!(matches!(parse(&["--plot", "a", "b", "c"]), Ok(Command::Plot { .. })));
        let wrong: [&[&str]; 8] = [
            &["7"],
            &["--round", "1"],
            &["--rounds"],
            &["--rounds", "0"],
            &["--owned", "0"],
            &["--only", "all"],
            &["--plot", "a", "b"],
            &["--plot", "a", "b", "c", "--rounds", "1"],
        ];
        for wrong in wrong {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
