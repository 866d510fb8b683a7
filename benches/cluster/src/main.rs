//! Measures what marks cost over several processes, on servers of etcd and PostgreSQL that it starts.
//!
//! ```sh
//! cargo run --release -p cluster-bench                        # all of it, in minutes; writes target/cluster.csv
//! cargo run --release -p cluster-bench -- --quick             # whether all of it can be measured, in seconds
//! cargo run --release -p cluster-bench -- --only lag --only barrier --rounds 31 --out some.csv
//! cargo run --release -p cluster-bench -- --members 3
//! cargo run --release -p cluster-bench -- --endpoints http://10.0.0.1:2379,http://10.0.0.2:2379
//! ```
//!
//! What is compared is measured in turn, in rounds of one run. Percentiles are over all samples of all rounds. A figure
//! that misses its aim does not end the run. An error does.

mod bench;
mod engines;
mod error;
mod events;
mod latency;
mod lookup;
mod many;
mod postgres;
mod queue;
mod record;
mod servers;
mod simulation;
mod throughput;

use std::alloc::System;
use std::error::Error;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cap::Cap;
use lexopt::{Arg, ValueExt as _};

use crate::bench::{Bench, Plan};
use crate::error::BenchError;
use crate::record::Row;
use crate::servers::Servers;

/// Counts what is allocated, and limits nothing.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const USAGE: &str =
    "usage: cluster-bench [--quick] [--rounds N] [--only BENCHMARK]... [--members N | --endpoints URL,...] [--out CSV]
benchmarks: fsync, mark and clear (measured together), throughput, lag, barrier, lookup, memory, relist, events, died, engines, queue, live, simulation";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Benchmark {
    /// `fsync`, `mark` and `clear`.
    Calls,
    Throughput,
    Lag,
    Barrier,
    Lookup,
    Memory,
    Relist,
    Events,
    Died,
    Engines,
    Queue,
    Live,
    Simulation,
}

impl Benchmark {
    const ALL: [Self; 13] = [
        Self::Calls,
        Self::Throughput,
        Self::Lag,
        Self::Barrier,
        Self::Lookup,
        Self::Memory,
        Self::Relist,
        Self::Events,
        Self::Died,
        Self::Engines,
        Self::Queue,
        Self::Live,
        Self::Simulation,
    ];

    fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "fsync" | "mark" | "clear" => Self::Calls,
            "throughput" => Self::Throughput,
            "lag" => Self::Lag,
            "barrier" => Self::Barrier,
            "lookup" => Self::Lookup,
            "memory" => Self::Memory,
            "relist" => Self::Relist,
            "events" => Self::Events,
            "died" => Self::Died,
            "engines" => Self::Engines,
            "queue" => Self::Queue,
            "live" => Self::Live,
            "simulation" => Self::Simulation,
            _ => return Err(format!("no benchmark is called {name}")),
        })
    }

    async fn run(self, bench: &Bench) -> Result<Vec<Row>, BenchError> {
        match self {
            Self::Calls => latency::calls(bench).await,
            Self::Throughput => throughput::throughput(bench).await,
            Self::Lag => latency::lag(bench).await,
            Self::Barrier => latency::barrier(bench).await,
            Self::Lookup => lookup::lookup(bench).await,
            Self::Memory => many::memory(bench).await,
            Self::Relist => many::relist(bench).await,
            Self::Events => events::events(bench).await,
            Self::Died => many::died(bench).await,
            Self::Engines => engines::engines(bench).await,
            Self::Queue => queue::queue(bench).await,
            Self::Live => queue::live(bench).await,
            Self::Simulation => simulation::simulation(bench, &HEAP).await,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Command {
    Measure(Options),
    /// Mirrors a namespace and says what that costs: what `events` starts.
    Mirror {
        endpoints: Vec<String>,
        namespace: String,
    },
    Help,
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    plan: Plan,
    benchmarks: Vec<Benchmark>,
    members: usize,
    endpoints: Vec<String>,
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match command(lexopt::Parser::from_env()) {
        Ok(Command::Measure(options)) => measure(&options),
        Ok(Command::Mirror { endpoints, namespace }) => mirror(endpoints, &namespace),
        Ok(Command::Help) => {
            println!("{USAGE}");
            Ok(())
        }
        Err(error) => {
            eprintln!("cluster-bench: {error}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command(mut arguments: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let (mut is_quick, mut rounds, mut members) = (false, None::<NonZeroUsize>, None::<NonZeroUsize>);
    let (mut endpoints, mut benchmarks, mut out, mut namespace) = (Vec::new(), Vec::new(), None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("quick") => is_quick = true,
            Arg::Long("rounds") => rounds = Some(arguments.value()?.parse()?),
            Arg::Long("only") => {
                let benchmark = arguments.value()?.parse_with(Benchmark::named)?;
                if !benchmarks.contains(&benchmark) {
                    benchmarks.push(benchmark);
                }
            }
            Arg::Long("members") => members = Some(arguments.value()?.parse()?),
            Arg::Long("endpoints") => {
                endpoints.extend(arguments.value()?.string()?.split(',').map(str::to_owned));
            }
            Arg::Long("out") => out = Some(arguments.value()?.into()),
            Arg::Long("mirror") => namespace = Some(arguments.value()?.string()?),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    if let Some(namespace) = namespace {
        return Ok(Command::Mirror { endpoints, namespace });
    }
    if members.is_some() && !endpoints.is_empty() {
        return Err("servers are started, or there are some: --members does not go with --endpoints".into());
    }
    let mut plan = if is_quick { Plan::QUICK } else { Plan::FULL };
    if let Some(rounds) = rounds {
        plan.rounds = rounds.get();
    }
    if benchmarks.is_empty() {
        benchmarks = Benchmark::ALL.to_vec();
    }
    Ok(Command::Measure(Options { plan, benchmarks, members: members.map_or(1, NonZeroUsize::get), endpoints, out }))
}

fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let shown = options.out.as_deref().unwrap_or(Path::new("target/cluster.csv"));
    let path = options.out.clone().unwrap_or_else(|| root.join("target/cluster.csv"));
    let dir = root.join("target");
    fs::create_dir_all(&dir).map_err(BenchError::io("target"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::io("no runtime"))?;

    let mut header = record::circumstances(&root);
    let began = Instant::now();
    let mut rows = Vec::new();
    let measured = runtime.block_on(async {
        let servers =
            if options.endpoints.is_empty() { Some(Servers::start(options.members, &dir).await?) } else { None };
        let endpoints = servers.as_ref().map_or(&*options.endpoints, Servers::endpoints).to_vec();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = format!("cluster-bench-{}", now.as_millis());
        let bench = Bench::new(endpoints, dir.clone(), options.plan, run);
        let status = bench.etcd("status").await?.status().await?;
        let more = [
            ("etcd", format!("{}, {}", status.version, members(bench.endpoints.len()))),
            ("rounds", options.plan.rounds.to_string()),
            ("load before", record::load()),
        ];
        let more = more.map(|(name, value)| (name.to_owned(), value));
        header.extend(more);
        for (name, value) in &header {
            println!("{name}: {value}");
        }
        record::print_heading();
        for benchmark in &options.benchmarks {
            eprintln!("{:>4} s: {benchmark:?}, load {}", began.elapsed().as_secs(), record::load());
            let measured = benchmark.run(&bench).await?;
            record::print(&measured);
            rows.extend(measured);
        }
        Ok::<_, BenchError>(())
    });
    // What was measured before an error is kept.
    header.push(("load after".to_owned(), record::load()));
    header.push(("took".to_owned(), format!("{} s", began.elapsed().as_secs())));
    fs::write(&path, record::to_csv(&header, &rows)).map_err(BenchError::io(shown.display()))?;
    println!("\nwritten to {}", shown.display());
    Ok(measured?)
}

fn members(count: usize) -> String {
    if count == 1 { "1 member".to_owned() } else { format!("{count} members") }
}

fn mirror(endpoints: Vec<String>, namespace: &str) -> Result<(), Box<dyn Error>> {
    // One thread keeps the session. This one waits for questions.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(BenchError::io("no runtime"))?;
    Ok(runtime.block_on(events::mirror(endpoints, namespace))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, String> {
        command(lexopt::Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read() {
        let Ok(Command::Measure(options)) = parse(&["--quick", "--only", "clear", "--only", "mark", "--rounds", "3"])
        else {
            panic!("they are not")
        };
        assert_eq!(options.plan, Plan { rounds: 3, ..Plan::QUICK });
        assert_eq!((options.benchmarks, options.members), (vec![Benchmark::Calls], 1));
        let Ok(Command::Measure(options)) = parse(&["--endpoints", "a:1,b:2"]) else { panic!("they are not") };
        assert_eq!(options.endpoints, ["a:1", "b:2"]);
        assert_eq!(options.benchmarks, Benchmark::ALL);
    }

    #[test]
    fn wrong_options_are_told_of() {
        let told = parse(&["--only", "nothing"]).err();
        assert!(told.is_some_and(|told| told.contains("no benchmark is called nothing")));
        assert!(parse(&["--members", "3", "--endpoints", "a:1"]).is_err());
        assert!(parse(&["--rounds", "0"]).is_err());
    }
}
