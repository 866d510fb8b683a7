//! Applies small wrong edits to copies of the library, one at a time, and requires that a named test notices each.
//!
//! ```sh
//! cargo run --release -p mutants                      # each against the test that it names: some minutes
//! cargo run --release -p mutants -- --only E8         # those of one edge, or with these words in their name
//! cargo run --release -p mutants -- --full            # against everything, also those that are argued: an hour and more
//! ```
//!
//! The edits are in `mutants.toml`. A mutant must compile, and its test must pass without it. It is *killed* if the
//! test fails (or does not end), has *survived* if the test passes, and this fails then. One that nothing can notice is
//! argued there in writing; a full run fails if something does notice it after all.

mod catalog;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use lexopt::{Arg, ValueExt};

use crate::catalog::{Catalog, Check, Fate, Mutant};
use crate::tree::{Outcome, Tree};

const USAGE: &str = "usage: mutants [--only EDGE-OR-WORDS]... [--full] [--jobs N]";

struct Options {
    only: Vec<String>,
    full: bool,
    jobs: usize,
}

/// What became of a mutant.
struct Verdict<'a> {
    mutant: &'a Mutant,
    fate: Fate,
    /// How it was noticed, or what went wrong.
    note: String,
    seconds: f64,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let options = options()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let catalog = Catalog::read(&root)?;
    let chosen: Vec<&Mutant> = catalog.mutants.iter().filter(|mutant| mutant.is_one_of(&options.only)).collect();
    if chosen.is_empty() {
        return Err("there is no such mutant".into());
    }
    let started = Instant::now();

    let mut trees = Vec::new();
    for number in 0..options.jobs.min(chosen.len()) {
        trees.push(Tree::copied(&root, number)?);
    }
    // A test that fails anyway kills nothing; nor does one that is not there.
    let checks: BTreeSet<&Check> = chosen.iter().filter_map(|mutant| mutant.killed_by.as_ref()).collect();
    println!(
        "{} mutants of {} in the catalog; {} tests pass without them:",
        chosen.len(),
        catalog.mutants.len(),
        checks.len()
    );
    let failed = in_parallel(&mut trees, checks.into_iter().collect(), |tree, check| match tree.run(check) {
        Outcome::Passed => None,
        outcome => Some(format!("{check}: {outcome}")),
    });
    if let Some(failed) = failed.into_iter().flatten().next() {
        return Err(format!("without a mutant, {failed}").into());
    }

    let verdicts = in_parallel(&mut trees, chosen, |tree, mutant| {
        let verdict = judged(tree, mutant, options.full);
        println!("{:<9} {:>4.0} s  {:<6} {}", verdict.fate, verdict.seconds, mutant.edges.join(" "), mutant.name);
        if !verdict.note.is_empty() {
            println!("                  {}", verdict.note);
        }
        verdict
    });
    Ok(report(&verdicts, started))
}

/// Applies a mutant, sees who notices, and takes it back.
fn judged<'a>(tree: &Tree, mutant: &'a Mutant, full: bool) -> Verdict<'a> {
    let started = Instant::now();
    let (fate, note) = match tree.with(mutant, || noticed(tree, mutant, full)) {
        Ok(seen) => seen,
        Err(error) => (Fate::Broken, error.to_string()),
    };
    Verdict { mutant, fate, note, seconds: started.elapsed().as_secs_f64() }
}

fn noticed(tree: &Tree, mutant: &Mutant, full: bool) -> (Fate, String) {
    if let Some(check) = &mutant.killed_by {
        match tree.run(check) {
            Outcome::Passed => return (Fate::Survived, format!("{check} passes")),
            Outcome::NotRun(why) => return (Fate::Broken, why),
            noticed if !full => return (Fate::Killed, format!("{check}: {noticed}")),
            _ => {}
        }
    } else if !full {
        return (Fate::Argued, String::new());
    }
    let noticing: Vec<String> = Check::everything().iter().flat_map(|check| tree.noticing(check)).collect();
    match &mutant.killed_by {
        Some(_) => (Fate::Killed, format!("by {}: {}", noticing.len(), noticing.join(", "))),
        None if noticing.is_empty() => (Fate::Argued, String::new()),
        None => (Fate::Broken, format!("argued to be without effect, but noticed by {}", noticing.join(", "))),
    }
}

/// Says what became of all, by edge. Whether each was killed or argued.
fn report(verdicts: &[Verdict<'_>], started: Instant) -> bool {
    let mut by_edge: BTreeMap<&str, BTreeMap<Fate, usize>> = BTreeMap::new();
    let mut total: BTreeMap<Fate, usize> = BTreeMap::new();
    for Verdict { mutant, fate, .. } in verdicts {
        *total.entry(*fate).or_default() += 1;
        let edges: Vec<&str> = mutant.edges.iter().map(String::as_str).collect();
        for edge in if edges.is_empty() { vec!["other"] } else { edges } {
            *by_edge.entry(edge).or_default().entry(*fate).or_default() += 1;
        }
    }
    println!("\n{:<8} {:>8} {:>9} {:>8} {:>8}", "edge", "killed", "survived", "argued", "broken");
    let line = |name: &str, fates: &BTreeMap<Fate, usize>| {
        let of = |fate| fates.get(&fate).copied().unwrap_or(0);
        let (killed, survived) = (of(Fate::Killed), of(Fate::Survived));
        println!("{name:<8} {killed:>8} {survived:>9} {:>8} {:>8}", of(Fate::Argued), of(Fate::Broken));
    };
    for (edge, fates) in &by_edge {
        line(edge, fates);
    }
    line("all", &total);
    println!("in {} s", started.elapsed().as_secs());
    verdicts.iter().all(|verdict| matches!(verdict.fate, Fate::Killed | Fate::Argued))
}

/// Does `work` for each of `items`, with as many at a time as there are trees; in their order.
fn in_parallel<T: Send, R: Send>(trees: &mut [Tree], items: Vec<T>, work: impl Fn(&Tree, T) -> R + Sync) -> Vec<R> {
    let queue = Mutex::new(items.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for tree in trees {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no worker panics").next();
                    let Some((place, item)) = next else { break };
                    let result = work(tree, item);
                    done.lock().expect("no worker panics").push((place, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker panics");
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

fn options() -> Result<Options, lexopt::Error> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options { only: Vec::new(), full: false, jobs: cores };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("only") => options.only.push(parser.value()?.string()?),
            Arg::Long("full") => options.full = true,
            Arg::Long("jobs") => options.jobs = parser.value()?.parse::<usize>()?.max(1),
            Arg::Long("help") => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            _ => return Err(format!("{}\n{USAGE}", argument.unexpected()).into()),
        }
    }
    Ok(options)
}
