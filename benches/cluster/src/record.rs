//! What was measured: [`Samples`], a [`Row`] of each case, and the csv with its circumstances.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::Duration;

pub(crate) const COLUMNS: &str = "benchmark,case,unit,count,min,p50,p99,max,aim,holds";
/// From so many samples on there is a 99th percentile that is not the maximum.
const ENOUGH_FOR_P99: usize = 100;

/// All samples of one case, of all rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// Adds a time, in milliseconds.
    pub(crate) fn push_ms(&mut self, time: Duration) {
        self.push(time.as_secs_f64() * 1e3);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted
    }

    /// Returns the least sample that so many hundredths of all are not above.
    pub(crate) fn percentile(&self, hundredths: usize) -> Option<f64> {
        let rank = (self.0.len() * hundredths).div_ceil(100);
        self.sorted().get(rank.saturating_sub(1)).copied()
    }
}

/// What a figure should stay under.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    P50(f64),
    P99(f64),
}

/// One case of one benchmark.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) benchmark: &'static str,
    pub(crate) case: String,
    pub(crate) unit: &'static str,
    pub(crate) count: usize,
    min: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
    aim: Option<Aim>,
}

impl Row {
    pub(crate) fn new(benchmark: &'static str, case: impl Into<String>, unit: &'static str, samples: &Samples) -> Self {
        let count = samples.0.len();
        Self {
            benchmark,
            case: case.into(),
            unit,
            count,
            min: samples.percentile(0),
            p50: samples.percentile(50),
            p99: samples.percentile(99).filter(|_| count >= ENOUGH_FOR_P99),
            max: samples.percentile(100),
            aim: None,
        }
    }

    /// A figure that follows from so many samples, and is none of them.
    pub(crate) fn derived(
        benchmark: &'static str,
        case: impl Into<String>,
        unit: &'static str,
        count: usize,
        value: Option<f64>,
    ) -> Self {
        Self { benchmark, case: case.into(), unit, count, min: None, p50: value, p99: None, max: None, aim: None }
    }

    pub(crate) fn aim(self, aim: Aim) -> Self {
        Self { aim: Some(aim), ..self }
    }

    /// Whether the aim is reached, if there is one and enough was measured.
    fn holds(&self) -> Option<bool> {
        let (figure, limit) = match self.aim? {
            Aim::P50(limit) => (self.p50, limit),
            Aim::P99(limit) => (self.p99, limit),
        };
        figure.map(|figure| figure < limit)
    }

    pub(crate) fn fields(&self) -> [String; 10] {
        let number = |number: Option<f64>| number.map_or_else(String::new, short);
        let aim = match self.aim {
            Some(Aim::P50(limit)) => format!("p50 < {limit}"),
            Some(Aim::P99(limit)) => format!("p99 < {limit}"),
            None => String::new(),
        };
        let holds = self.holds().map_or("", |holds| if holds { "yes" } else { "no" });
        [
            self.benchmark.to_owned(),
            self.case.clone(),
            self.unit.to_owned(),
            self.count.to_string(),
            number(self.min),
            number(self.p50),
            number(self.p99),
            number(self.max),
            aim,
            holds.to_owned(),
        ]
    }
}

/// With four digits, or all of those before the point.
fn short(number: f64) -> String {
    let mut digits = 0;
    let mut limit = 1_000.0;
    while number.abs() < limit && digits < 6 && number != 0.0 {
        digits += 1;
        limit /= 10.0;
    }
    format!("{number:.digits$}")
}

pub(crate) fn print(rows: &[Row]) {
    for row in rows {
        let [benchmark, case, unit, count, min, p50, p99, max, aim, holds] = row.fields();
        let holds = if holds.is_empty() { "too few samples" } else { &*holds };
        let aim = if aim.is_empty() { aim } else { format!("  aim: {aim}: {holds}") };
        println!("{benchmark:<11}{case:<46}{unit:>8}{count:>8}{min:>10}{p50:>10}{p99:>10}{max:>10}{aim}");
    }
}

pub(crate) fn print_heading() {
    println!(
        "{:<11}{:<46}{:>8}{:>8}{:>10}{:>10}{:>10}{:>10}",
        "benchmark", "case", "unit", "count", "min", "p50", "p99", "max"
    );
}

pub(crate) fn to_csv(header: &[(String, String)], rows: &[Row]) -> String {
    let mut csv = String::new();
    for (name, value) in header {
        // Writing to a string does not fail.
        let _ = writeln!(csv, "# {name}: {value}");
    }
    let _ = writeln!(csv, "{COLUMNS}");
    for row in rows {
        let _ = writeln!(csv, "{}", row.fields().map(|field| field.replace(',', "")).join(","));
    }
    csv
}

/// On what was measured, and when. Nothing names the owner of the machine.
pub(crate) fn circumstances(root: &Path) -> Vec<(String, String)> {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(root).output().ok();
        let output = output.filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpus.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    let cpu = cpu.map_or("unknown CPU", |(_, cpu)| cpu);
    let cores = available_parallelism().map_or(0, usize::from);
    // Without the suffix, which is the builder's.
    let kernel = output("uname", &["-r"]).and_then(|release| Some(release.split('-').next()?.to_owned()));
    let os = format!("{} {} {}", std::env::consts::OS, kernel.unwrap_or_default(), std::env::consts::ARCH);
    // The last results are no part of what is measured.
    let is_clean = output("git", &["diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)benches/cluster/*.*"]);
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let commit = commit.map(|commit| commit + if is_clean.is_some() { "" } else { "+dirty" });
    let facts = [
        ("machine", Some(format!("{cpu}, {cores} cores"))),
        ("OS", Some(os)),
        ("rustc", output("rustc", &["--version"]).map(|version| version.trim_start_matches("rustc ").to_owned())),
        ("commit", commit),
        ("date", output("date", &["-u", "+%Y-%m-%d"])),
    ];
    facts.map(|(name, value)| (name.to_owned(), value.unwrap_or_else(|| "unknown".to_owned()))).into()
}

/// How many tasks wanted to run of late, all processes of the machine together.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: impl IntoIterator<Item = u32>) -> Samples {
        let mut samples = Samples::default();
        values.into_iter().for_each(|value| samples.push(f64::from(value)));
        samples
    }

    #[test]
    fn a_percentile_is_a_sample() {
        let hundred = samples((1..=100).rev());
        assert_eq!([0, 50, 99, 100].map(|at| hundred.percentile(at)), [1.0, 50.0, 99.0, 100.0].map(Some));
        assert_eq!(samples([7]).percentile(50), Some(7.0));
        assert_eq!(Samples::default().percentile(50), None);
    }

    /// Seen to fail with a 99th percentile that is the maximum of a few.
    #[test]
    fn an_aim_needs_enough_samples() {
        let row = |count| Row::new("mark", "one, at a time", "ms", &samples(1..=count)).aim(Aim::P99(100.0));
        assert_eq!((row(99).holds(), row(100).holds(), row(200).holds()), (None, Some(true), Some(false)));
        let csv = to_csv(&[("etcd".to_owned(), "3".to_owned())], &[row(200)]);
        let line = "mark,one at a time,ms,200,1.000,100.0,198.0,200.0,p99 < 100,no";
        assert_eq!(csv, format!("# etcd: 3\n{COLUMNS}\n{line}\n"));
    }

    #[test]
    fn numbers_have_four_digits() {
        let written = [0.0, 0.001_234_56, 1.0, 12.345, 123.45, 12_345.6].map(short);
        assert_eq!(written, ["0", "0.001235", "1.000", "12.35", "123.5", "12346"]);
    }
}
