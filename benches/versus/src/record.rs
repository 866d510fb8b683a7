//! The csv: what was measured, after `# name: value` lines that say on what, and when.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;

use crate::subjects::Subject;

const COLUMNS: &str = "owned,workload,subject,median_ns,p10_ns,p90_ns,against,ratio";

pub struct Record {
    pub header: Vec<(String, String)>,
    pub rows: Vec<Row>,
}

pub struct Row {
    pub owned: u64,
    pub workload: String,
    pub subject: String,
    pub median: f64,
    pub p10: f64,
    pub p90: f64,
    /// The subject that `ratio` is a multiple of, under the same workload.
    pub against: String,
    pub ratio: f64,
}

impl Row {
    pub fn new(owned: u64, subject: &Subject, [median, p10, p90]: [f64; 3]) -> Self {
        let (workload, against) = (subject.workload.name.into(), subject.workload.against.into());
        Self { owned, workload, subject: subject.name.into(), median, p10, p90, against, ratio: f64::NAN }
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        let [owned, workload, subject, median, p10, p90, against, ratio] = fields[..] else { return None };
        let number = |field: &str| field.parse().ok().filter(|number: &f64| number.is_finite());
        Some(Self {
            owned: owned.parse().ok()?,
            workload: workload.into(),
            subject: subject.into(),
            median: number(median)?,
            p10: number(p10)?,
            p90: number(p90)?,
            against: against.into(),
            ratio: number(ratio)?,
        })
    }
}

impl Record {
    pub fn to_csv(&self) -> String {
        let mut csv = String::new();
        for (name, value) in &self.header {
            let _ = writeln!(csv, "# {name}: {value}");
        }
        let _ = writeln!(csv, "{COLUMNS}");
        for Row { owned, workload, subject, median, p10, p90, against, ratio } in &self.rows {
            let _ = writeln!(csv, "{owned},{workload},{subject},{median:.3},{p10:.3},{p90:.3},{against},{ratio:.3}");
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

    /// The median of one subject under one workload.
    pub fn median(&self, owned: u64, workload: &str, subject: &str) -> Result<f64, String> {
        let row = |row: &&Row| row.owned == owned && row.workload == workload && row.subject == subject;
        let found = self.rows.iter().find(row).ok_or_else(|| format!("no row for {owned},{workload},{subject}"))?;
        Ok(found.median)
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
    ];
    facts.map(|(name, value)| (name.to_owned(), value.unwrap_or_else(|| "unknown".to_owned()))).into()
}
