//! `lookup`: look-ups in the mirror beside those in a registry that nobody mirrors.

use std::hint::black_box;
use std::time::Instant;

use livemark::Registry;
use livemark_cluster::Remote;

use crate::bench::{Bench, check_mirror, mark_many, number};
use crate::error::BenchError;
use crate::record::{Aim, Row, Samples};

const MARKS: u64 = 1_024;
/// Jobs that nobody has marked.
const FREE: u64 = 1 << 40;
/// How often all jobs are asked about in one go, and how many goes a round has of each registry.
const PASSES: usize = 16;
const GOES: usize = 8;
/// What a process allocates beside a mark, in bytes, where the marks of a local registry are scattered as a mirror's are.
const BESIDE_A_MARK: std::ops::Range<usize> = 300..1_000;

type Mirror = Registry<u64, Remote>;

/// Asks about all jobs, and returns how many were active.
type Ask = fn(&Mirror, &[u64]) -> usize;

fn is_active(registry: &Mirror, jobs: &[u64]) -> usize {
    jobs.iter().filter(|job| registry.is_active(black_box(*job))).count()
}

fn reader(registry: &Mirror, jobs: &[u64]) -> usize {
    let mut reader = registry.reader();
    jobs.iter().filter(|job| reader.is_active(black_box(*job))).count()
}

struct Case {
    name: &'static str,
    ask: Ask,
    is_hit: bool,
    /// Nanoseconds of one look-up, in each round.
    mirror: Samples,
    local: Samples,
    scattered: Samples,
    ratio: Samples,
    ratio_to_scattered: Samples,
}

pub(crate) async fn lookup(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let namespace = bench.namespace();
    let (here, there) = (bench.session(&namespace).await?, bench.session(&namespace).await?);
    let guards = mark_many(&there, MARKS).await?;
    check_mirror(&here, MARKS).await?;
    let view = here.view();
    let mirror: &Mirror = view.registry();
    // The same values, marked as a process marks its own.
    let (local, scattered) = (Mirror::new(), Mirror::new());
    let (mut held, mut others) = (Vec::new(), Vec::new());
    let mut random = fastrand::Rng::with_seed(7);
    for job in 0..MARKS {
        let owner = mirror.owner(&job).ok_or(BenchError::MarkGone { job })?;
        held.push(local.mark(job, owner.value));
    }
    for job in 0..MARKS {
        let owner = mirror.owner(&job).ok_or(BenchError::MarkGone { job })?;
        held.push(scattered.mark(job, owner.value));
        others.push(vec![1_u8; random.usize(BESIDE_A_MARK)]);
    }
    let mut hits: Vec<u64> = (0..MARKS).collect();
    random.shuffle(&mut hits);
    let misses: Vec<u64> = hits.iter().map(|job| job + FREE).collect();

    let case = |name, ask: Ask, is_hit| {
        let [mirror, local, scattered, ratio, ratio_to_scattered] = [(); 5].map(|()| Samples::default());
        Case { name, ask, is_hit, mirror, local, scattered, ratio, ratio_to_scattered }
    };
    let mut cases = [
        case("Reader, hit", reader, true),
        case("Reader, miss", reader, false),
        case("is_active, hit", is_active, true),
        case("is_active, miss", is_active, false),
    ];
    // The first one is not counted: it warms the caches.
    for round in 0..=bench.plan.look_up_rounds {
        for case in &mut cases {
            let (jobs, expected) = if case.is_hit { (&hits, hits.len()) } else { (&misses, 0) };
            let registries = [mirror, &local, &scattered];
            // The fastest go of a round is the one in which nobody else took the processor.
            let mut fastest = [f64::INFINITY; 3];
            for go in 0..GOES {
                // Whichever is asked first differs from go to go.
                for side in (0..3).map(|side| (side + go) % 3) {
                    let time = nanoseconds(registries[side], case.ask, jobs, expected)?;
                    fastest[side] = fastest[side].min(time);
                }
            }
            if round > 0 {
                let [of_mirror, of_local, of_scattered] = fastest;
                case.mirror.push(of_mirror);
                case.local.push(of_local);
                case.scattered.push(of_scattered);
                case.ratio.push(of_mirror / of_local);
                case.ratio_to_scattered.push(of_mirror / of_scattered);
            }
        }
    }
    here.close().await?;
    there.close().await?;
    drop((held, guards, others));
    let rows = cases.iter().flat_map(|Case { name, mirror, local, scattered, ratio, ratio_to_scattered, .. }| {
        let case = |what| format!("{name}: {what}");
        [
            Row::new("lookup", case("in the mirror"), "ns", mirror),
            Row::new("lookup", case("in a local registry"), "ns", local),
            Row::new("lookup", case("in one with scattered marks"), "ns", scattered),
            Row::new("lookup", case("mirror / local"), "", ratio).aim(Aim::P50(1.05)),
            Row::new("lookup", case("mirror / scattered"), "", ratio_to_scattered).aim(Aim::P50(1.05)),
        ]
    });
    Ok(rows.collect())
}

/// Returns what one look-up takes, of many.
fn nanoseconds(registry: &Mirror, ask: Ask, jobs: &[u64], expected: usize) -> Result<f64, BenchError> {
    let began = Instant::now();
    let found: usize = (0..PASSES).map(|_| ask(registry, jobs)).sum();
    let time = began.elapsed().as_secs_f64() * 1e9;
    let expected = expected * PASSES;
    if found == expected {
        Ok(time / number((PASSES * jobs.len()) as u64))
    } else {
        Err(BenchError::Answers { found, expected })
    }
}
