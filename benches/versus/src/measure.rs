//! Rounds over the subjects, and what is made of their figures.

use std::sync::Arc;
use std::thread;

use crate::jobs::Jobs;
use crate::record::{Figure, Row};
use crate::threads::stay_on_core;
use crate::workloads::{Group, Measured, Sample, subjects};

/// The subject that ratios are to, and the one that is the limit.
pub const OURS: &str = "livemark";
pub const LIMIT: &str = "unsynchronised map";

/// After so many rounds all subjects are built anew, with other jobs: where their memory lies, the seeds of their
/// hashers, and which jobs share a place, make some faster or slower for as long as they live.
const ROUNDS_OF_ONE_BUILD: usize = 4;

/// What a subject gave, round by round.
struct Taken {
    subject: &'static str,
    note: &'static str,
    workloads: Vec<(&'static str, Vec<Result<f64, &'static str>>)>,
    /// Why there is nothing.
    skipped: Option<&'static str>,
}

/// Every subject in each round, so that whatever else the machine does falls on all of them; the first one is another
/// in each round.
///
/// # Panics
///
/// If a subject gives a wrong answer.
pub fn measure(group: Group, owned: usize, rounds: usize) -> Vec<Row> {
    let rounds: Vec<usize> = (0..group.rounds(rounds)).collect();
    let mut taken: Vec<Taken> = Vec::new();
    for (build, rounds) in rounds.chunks(ROUNDS_OF_ONE_BUILD).enumerate() {
        let jobs = &Arc::new(Jobs::new(owned, build));
        // Here, as some ask how many cores there are for them: a thread that stays on one core is told of one.
        let mut subjects = subjects(group, jobs);
        if taken.is_empty() {
            taken.extend(subjects.iter().map(|subject| Taken::new(&**subject)));
        }
        let subjects = &mut subjects;
        let taken = &mut taken;
        thread::scope(|scope| {
            scope.spawn(move || {
                // Memory is not a matter of cores, but of how many there are for some.
                if group != Group::Memory {
                    stay_on_core(0);
                }
                for round in rounds {
                    for turn in 0..subjects.len() {
                        let place = (round + turn) % subjects.len();
                        taken[place].add(subjects[place].round(group));
                    }
                }
            });
        });
    }
    rows(group, owned, &taken)
}

impl Taken {
    fn new(subject: &dyn Measured) -> Self {
        Self { subject: subject.name(), note: subject.note(), workloads: Vec::new(), skipped: None }
    }

    fn add(&mut self, round: Result<Vec<Sample>, &'static str>) {
        match round {
            Err(why) => self.skipped = Some(why),
            Ok(samples) => {
                for Sample { workload, value } in samples {
                    match self.workloads.iter_mut().find(|(name, _)| *name == workload) {
                        Some((_, values)) => values.push(value),
                        None => self.workloads.push((workload, vec![value])),
                    }
                }
            }
        }
    }

    /// The median and the spread of the rounds that gave something, and how many did not and why; or only why, where
    /// most did not.
    fn figure(&self, workload: &str) -> Result<(Figure, String), &'static str> {
        let (_, rounds) =
            self.workloads.iter().find(|(name, _)| *name == workload).ok_or(self.skipped.unwrap_or("none"))?;
        let why = rounds.iter().find_map(|round| round.err());
        let mut values: Vec<f64> = rounds.iter().filter_map(|round| round.ok()).collect();
        let without = rounds.len() - values.len();
        let note = match why {
            Some(why) if without * 2 >= rounds.len() => return Err(why),
            Some(why) => format!("{without} of {} rounds: {why}", rounds.len()),
            None => String::new(),
        };
        values.sort_by(f64::total_cmp);
        let [p10, median, p90] =
            [0.1, 0.5, 0.9].map(|part| values[((values.len() - 1) as f64 * part).round() as usize]);
        Ok((Figure { median, p10, p90 }, note))
    }
}

fn rows(group: Group, owned: usize, taken: &[Taken]) -> Vec<Row> {
    let workloads = taken.iter().find(|taken| taken.subject == OURS).expect("one of them").workloads.iter();
    let rows_of = |workload: &'static str| {
        let in_batch = workload.contains("batch") || workload.contains("sweep");
        let median = |of: &str| {
            let (figure, _) = taken.iter().find(|taken| taken.subject == of)?.figure(workload).ok()?;
            Some(figure.median)
        };
        let (ours, limit) = (median(OURS), median(LIMIT));
        taken.iter().map(move |taken| {
            let (figure, note) = match taken.figure(workload) {
                Ok((figure, note)) if note.is_empty() && in_batch => (Some(figure), taken.note.to_owned()),
                Ok((figure, note)) => (Some(figure), note),
                Err(why) => (None, why.to_owned()),
            };
            let ratio = |to: Option<f64>| Some(figure?.median / to?).filter(|ratio| ratio.is_finite());
            Row {
                owned: owned as u64,
                group: group.name().to_owned(),
                workload: workload.to_owned(),
                subject: taken.subject.to_owned(),
                figure,
                to_ours: ratio(ours),
                to_limit: ratio(limit),
                note,
            }
        })
    };
    workloads.flat_map(|(workload, _)| rows_of(workload)).collect()
}

/// The rows of one group as a table: the medians, and how many times ours they are.
pub fn print(title: &str, rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    println!("\n{} owned jobs: {title} (times ours)", first.owned);
    let mut workloads: Vec<&str> = rows.iter().map(|row| &*row.workload).collect();
    workloads.dedup();
    print!("{:20}", "");
    for workload in &workloads {
        print!(" {:>22}", workload.get(..22).unwrap_or(workload));
    }
    println!("  spread");
    for of in rows.iter().filter(|row| row.workload == first.workload) {
        print!("{:20}", of.subject);
        let mut spread = 0.0_f64;
        for workload in &workloads {
            let row = rows.iter().find(|row| row.workload == *workload && row.subject == of.subject);
            let cell = row.and_then(|row| {
                let figure = row.figure?;
                spread = spread.max((figure.p90 - figure.p10) / figure.median.max(1e-9));
                let ratio = row.to_ours.map_or(String::new(), |ratio| format!(" ({ratio:.2})"));
                Some(format!("{}{ratio}", short(figure.median)))
            });
            print!(" {:>22}", cell.as_deref().unwrap_or("-"));
        }
        println!("  {:.0} %", spread * 100.0);
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..0.01 => format!("{value:.0e}"),
        ..9.95 => format!("{value:.2}"),
        ..99.5 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
