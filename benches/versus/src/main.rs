//! Measures the registry beside an unsynchronised map and beside papaya, interleaved, in one run.
//!
//! `cargo run --release -p versus [-- ROUNDS]` prints medians in nanoseconds per operation, ratios and the spread, and
//! writes them to `target/versus.csv`. The same hasher family, the same keys and the same values on all sides.

use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use foldhash::fast::RandomState;
use livemark::{Finalizer, Owner, Registry};

const OWNED: [u64; 4] = [8, 64, 1_024, 65_536];
/// Drawn at random from the jobs, so that no short pattern can be learned by the branch predictor.
const DRAWS: usize = 16_384;
const WRITES: usize = 4_096;
const ROUNDS: usize = 101;

/// What is measured, and of which other measurement it is a multiple.
struct Subject {
    name: &'static str,
    against: &'static str,
    operations: usize,
    run: Box<dyn FnMut() -> usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(ROUNDS), |rounds| rounds.parse())?;
    let mut csv = String::from("owned,subject,median_ns,p10_ns,p90_ns,against,ratio\n");
    for owned in OWNED {
        measure(owned, rounds, &mut csv)?;
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/versus.csv");
    std::fs::write(&target, csv)?;
    println!("written to target/versus.csv");
    Ok(())
}

fn measure(owned: u64, rounds: usize, csv: &mut String) -> Result<(), Box<dyn Error>> {
    let mut subjects = subjects(owned);
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); subjects.len()];
    for _ in 0..rounds {
        for (subject, times) in subjects.iter_mut().zip(&mut times) {
            let start = Instant::now();
            black_box((subject.run)());
            times.push(start.elapsed().as_secs_f64() * 1e9 / subject.operations as f64);
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    let quantile = |times: &[f64], part: f64| times[((times.len() - 1) as f64 * part) as usize];
    let median_of = |name: &str| {
        let place = subjects.iter().position(|subject| subject.name == name);
        place.map_or(f64::NAN, |place| quantile(&times[place], 0.5))
    };

    println!("\n{owned} owned jobs, {rounds} rounds: ns per operation");
    println!("{:28} {:>8} {:>8} {:>8}   ratio", "", "median", "p10", "p90");
    for (subject, times) in subjects.iter().zip(&times) {
        let [p10, median, p90] = [0.1, 0.5, 0.9].map(|part| quantile(times, part));
        let (name, against, ratio) = (subject.name, subject.against, median / median_of(subject.against));
        println!("{name:28} {median:8.2} {p10:8.2} {p90:8.2}   {ratio:.2}x {against}");
        writeln!(csv, "{owned},{name},{median:.3},{p10:.3},{p90:.3},{against},{ratio:.3}")?;
    }
    Ok(())
}

/// All subjects over the same owned jobs. They live to the end of the process.
fn subjects(owned: u64) -> Vec<Subject> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let jobs: Vec<u64> = (0..owned).map(|_| random.next()).collect();
    let hits: &'static [u64] = (0..DRAWS).map(|_| jobs[random.next() as usize % jobs.len()]).collect::<Vec<_>>().leak();
    let misses: &'static [u64] = (0..DRAWS).map(|_| random.next()).collect::<Vec<_>>().leak();
    let lone = random.next();
    let finalizer: &'static Finalizer = Box::leak(Box::new(Finalizer::new(Some(1), "gates")));

    let registry: &'static Registry = Box::leak(Box::default());
    let map: &'static mut hashbrown::HashMap<u64, Owner<Finalizer>, RandomState> = Box::leak(Box::default());
    let writable: &'static mut hashbrown::HashMap<u64, Finalizer, RandomState> = Box::leak(Box::default());
    let papaya: &'static papaya::HashMap<u64, Finalizer, RandomState> = Box::leak(Box::default());
    for job in jobs {
        std::mem::forget(registry.mark(job, finalizer.clone()));
        map.insert(job, registry.owner(&job).expect("just marked"));
        writable.insert(job, finalizer.clone());
        papaya.pin().insert(job, finalizer.clone());
    }
    let map = &*map;

    let reads = |name, against, jobs: &'static [u64], mut count: Box<dyn FnMut(&'static [u64]) -> usize>| Subject {
        name,
        against,
        operations: DRAWS,
        run: Box::new(move || count(jobs)),
    };
    let writes = |name, against, mut write: Box<dyn FnMut()>| Subject {
        name,
        against,
        operations: WRITES,
        run: Box::new(move || {
            write();
            WRITES
        }),
    };
    let in_map = |jobs: &'static [u64]| jobs.iter().filter(|job| map.contains_key(*job)).count();
    let in_reader = |jobs: &'static [u64]| {
        let mut reader = registry.reader();
        jobs.iter().filter(|job| reader.is_active(*job)).count()
    };
    let in_registry = |jobs: &'static [u64]| jobs.iter().filter(|job| registry.is_active(*job)).count();
    let in_papaya = |jobs: &'static [u64]| {
        let pinned = papaya.pin();
        jobs.iter().filter(|job| pinned.contains_key(*job)).count()
    };
    vec![
        reads("map hit", "map hit", hits, Box::new(in_map)),
        reads("map miss", "map miss", misses, Box::new(in_map)),
        reads("Reader hit", "map hit", hits, Box::new(in_reader)),
        reads("Reader miss", "map miss", misses, Box::new(in_reader)),
        reads("is_active hit", "map hit", hits, Box::new(in_registry)),
        reads("is_active miss", "map miss", misses, Box::new(in_registry)),
        reads("papaya pinned hit", "map hit", hits, Box::new(in_papaya)),
        reads("papaya pinned miss", "map miss", misses, Box::new(in_papaya)),
        writes(
            "map insert+remove",
            "papaya insert+remove",
            Box::new(move || {
                for _ in 0..WRITES {
                    writable.insert(black_box(lone), finalizer.clone());
                    writable.remove(black_box(&lone));
                }
            }),
        ),
        writes(
            "mark+clear",
            "papaya insert+remove",
            Box::new(move || {
                for _ in 0..WRITES {
                    registry.mark(black_box(lone), finalizer.clone()).clear();
                }
            }),
        ),
        writes(
            "papaya pinned insert+remove",
            "papaya insert+remove",
            Box::new(move || {
                let pinned = papaya.pin();
                for _ in 0..WRITES {
                    pinned.insert(black_box(lone), finalizer.clone());
                    pinned.remove(black_box(&lone));
                }
            }),
        ),
        writes(
            "papaya insert+remove",
            "papaya insert+remove",
            Box::new(move || {
                for _ in 0..WRITES {
                    papaya.pin().insert(black_box(lone), finalizer.clone());
                    papaya.pin().remove(black_box(&lone));
                }
            }),
        ),
    ]
}

/// Xorshift: the same jobs in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
