//! Rounds over the subjects, and what is made of their times.

use std::hint::black_box;
use std::time::Instant;

use crate::record::Row;
use crate::subjects::subjects;

/// Every subject in each round, so that whatever else the machine does falls on all of them. Each is run once to have its
/// data in the caches, as in a hot loop, and then timed; the first one is another in each round.
///
/// # Panics
///
/// If a subject gives a wrong answer.
pub fn measure(owned: u64, rounds: usize) -> Vec<Row> {
    let mut subjects = subjects(owned);
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); subjects.len()];
    for round in 0..rounds {
        for turn in 0..subjects.len() {
            let place = (round + turn) % subjects.len();
            let (subject, times) = (&mut subjects[place], &mut times[place]);
            black_box((subject.run)());
            let start = Instant::now();
            let successes = black_box((subject.run)());
            times.push(start.elapsed().as_secs_f64() * 1e9 / subject.workload.operations as f64);
            assert_eq!(successes, subject.workload.successes, "{}, {}", subject.workload.name, subject.name);
        }
    }
    let row = |(subject, mut times): (_, Vec<f64>)| {
        times.sort_by(f64::total_cmp);
        let [p10, median, p90] = [0.1, 0.5, 0.9].map(|part| times[((rounds - 1) as f64 * part) as usize]);
        Row::new(owned, subject, [median, p10, p90])
    };
    let mut rows: Vec<Row> = subjects.iter().zip(times).map(row).collect();
    for place in 0..rows.len() {
        let Row { workload, against, .. } = &rows[place];
        let base = rows.iter().find(|row| row.workload == *workload && row.subject == *against);
        rows[place].ratio = rows[place].median / base.expect("measured in the same run").median;
    }
    rows
}

/// The rows of one number of owned jobs, as a table.
pub fn print(owned: u64, rows: &[Row]) {
    println!("\n{owned} owned jobs: ns per operation");
    println!("{:14} {:14} {:>8} {:>8} {:>8}   ratio", "", "", "median", "p10", "p90");
    for Row { workload, subject, median, p10, p90, against, ratio, .. } in rows {
        println!("{workload:14} {subject:14} {median:8.2} {p10:8.2} {p90:8.2}   {ratio:.2}x {against}");
    }
}
