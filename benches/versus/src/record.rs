//! The csv: what was measured, after `# name: value` lines that say on what, and when.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

const COLUMNS: &str = "owned,group,workload,subject,median,p10,p90,times_livemark,times_limit,note";

pub struct Record {
    pub header: Vec<(String, String)>,
    pub rows: Vec<Row>,
}

/// A subject under a workload: see [`Group`](crate::workloads::Group) for the units.
pub struct Row {
    pub owned: u64,
    pub group: String,
    pub workload: String,
    pub subject: String,
    pub figure: Option<Figure>,
    /// How many times livemark's median the median is, and the unsynchronised map's.
    pub to_ours: Option<f64>,
    pub to_limit: Option<f64>,
    /// Why there is no figure, or how it was come by.
    pub note: String,
}

/// The median of the rounds, and their spread.
#[derive(Clone, Copy)]
pub struct Figure {
    pub median: f64,
    pub p10: f64,
    pub p90: f64,
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        let [owned, group, workload, subject, median, p10, p90, to_ours, to_limit, note] = fields[..] else {
            return None;
        };
        let number = |field: &str| match field {
            "" => Some(None),
            _ => field.parse().ok().filter(|number: &f64| number.is_finite()).map(Some),
        };
        let figure = match (number(median)?, number(p10)?, number(p90)?) {
            (Some(median), Some(p10), Some(p90)) => Some(Figure { median, p10, p90 }),
            (None, None, None) => None,
            _ => return None,
        };
        Some(Self {
            owned: owned.parse().ok()?,
            group: group.into(),
            workload: workload.into(),
            subject: subject.into(),
            figure,
            to_ours: number(to_ours)?,
            to_limit: number(to_limit)?,
            note: note.into(),
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owned, group, workload, subject, figure, to_ours, to_limit, note } = self;
        let number = |number: Option<f64>| number.map_or(String::new(), short);
        let [median, p10, p90] =
            [figure.map(|of| of.median), figure.map(|of| of.p10), figure.map(|of| of.p90)].map(number);
        let [to_ours, to_limit] = [*to_ours, *to_limit].map(number);
        write!(f, "{owned},{group},{workload},{subject},{median},{p10},{p90},{to_ours},{to_limit},{note}")
    }
}

/// With four digits at least, as few allocations in many look-ups are not none.
fn short(number: f64) -> String {
    let digits = if number == 0.0 { 0.0 } else { (3.0 - number.abs().log10().floor()).clamp(0.0, 9.0) };
    format!("{number:.*}", digits as usize)
}

impl Record {
    pub fn to_csv(&self) -> String {
        let mut csv = String::new();
        for (name, value) in &self.header {
            let _ = writeln!(csv, "# {name}: {value}");
        }
        let _ = writeln!(csv, "{COLUMNS}");
        for row in &self.rows {
            let _ = writeln!(csv, "{row}");
        }
        csv
    }

    pub fn from_csv(csv: &str) -> Result<Self, String> {
        let (header, table): (Vec<&str>, Vec<&str>) = csv.lines().partition(|line| line.starts_with('#'));
        let header = header.iter().filter_map(|line| line.trim_start_matches(['#', ' ']).split_once(": "));
        let header = header.map(|(name, value)| (name.into(), value.into())).collect();
        let [COLUMNS, rows @ ..] = &table[..] else { return Err(format!("the columns are not {COLUMNS}")) };
        let row = |line: &&str| Row::parse(line).ok_or_else(|| format!("not a row: {line}"));
        Ok(Self { header, rows: rows.iter().map(row).collect::<Result<_, _>>()? })
    }

    /// What the header says under `name`.
    pub fn value(&self, name: &str) -> &str {
        self.header.iter().find(|(other, _)| other == name).map_or("unknown", |(_, value)| value)
    }

    /// The subjects, in the order of the run.
    pub fn subjects(&self) -> Vec<&str> {
        let mut subjects = Vec::new();
        for row in &self.rows {
            if !subjects.contains(&&*row.subject) {
                subjects.push(&row.subject);
            }
        }
        subjects
    }

    /// The numbers of owned jobs.
    pub fn sizes(&self, workload: &str) -> Vec<u64> {
        let mut sizes: Vec<u64> =
            self.rows.iter().filter(|row| row.workload == workload).map(|row| row.owned).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// The median of one subject under one workload, if it was measured.
    pub fn median(&self, owned: u64, workload: &str, subject: &str) -> Option<f64> {
        let row = |row: &&Row| row.owned == owned && row.workload == workload && row.subject == subject;
        Some(self.rows.iter().find(row)?.figure?.median)
    }
}

/// On what is measured, and when: nothing that names the machine's owner, or where things lie on it.
pub fn circumstances(root: &Path, rounds: usize) -> Vec<(String, String)> {
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
    let clean = output("git", &["diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)benches/results"]).is_some();
    let commit = output("git", &["rev-parse", "--short", "HEAD"]);
    let commit = commit.map(|commit| commit + if clean { "" } else { "+dirty" });
    let facts = [
        ("machine", Some(format!("{cpu}, {cores} cores"))),
        ("OS", Some(os)),
        ("rustc", output("rustc", &["--version"]).map(|version| version.trim_start_matches("rustc ").to_owned())),
        ("commit", commit),
        ("date", output("date", &["-u", "+%Y-%m-%d"])),
        ("rounds", Some(rounds.to_string())),
        ("clock", Some(clock())),
    ];
    facts.map(|(name, value)| (name.to_owned(), value.unwrap_or_else(|| "unknown".to_owned()))).into()
}

/// What a reading of the clock takes, and how finely it tells times apart.
fn clock() -> String {
    const READINGS: u32 = 100_000;
    let (start, mut last, mut step) = (Instant::now(), Instant::now(), Duration::MAX);
    for _ in 0..READINGS {
        let now = Instant::now();
        step = step.min(now - last).max(Duration::from_nanos(1));
        if now > last {
            last = now;
        }
    }
    format!("{} ns a reading; in steps of {} ns", (start.elapsed() / READINGS).as_nanos(), step.as_nanos())
}
