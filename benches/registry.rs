//! The crate's own operations, each at several numbers of owned jobs: for tracking regressions.
//!
//! Comparisons with other maps are in `benches/versus`.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use livemark::{Finalizer, MarkGuard, Policy, Reaper, Registry, RunningJob, Verdict};

const OWNED: [u64; 4] = [8, 64, 1_024, 65_536];
/// Look-ups are drawn from the jobs at random, so that no short pattern can be learned by the branch predictor.
const DRAWS: usize = 16_384;

/// A registry with `owned` jobs marked, and jobs to look up in it.
struct Setting {
    registry: &'static Registry,
    guards: Vec<MarkGuard<'static>>,
    hits: Vec<u64>,
    misses: Vec<u64>,
}

impl Setting {
    fn new(owned: u64) -> Self {
        let registry: &'static Registry = Box::leak(Box::default());
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let jobs: Vec<u64> = (0..owned).map(|_| random.next()).collect();
        let finalizer = Finalizer::new(Some(1), "gates");
        let guards = jobs.iter().map(|job| registry.mark(*job, finalizer.clone())).collect();
        let hits: Vec<u64> = (0..DRAWS).map(|_| jobs[random.next() as usize % jobs.len()]).collect();
        let misses: Vec<u64> = (0..DRAWS).map(|_| random.next()).collect();
        assert!(hits.iter().all(|job| registry.is_active(job)) && !misses.iter().any(|job| registry.is_active(job)));
        Self { registry, guards, hits, misses }
    }

    /// Running jobs of which half are owned, all past their grace.
    fn running(&self) -> Vec<RunningJob<'_>> {
        let jobs = self.hits.iter().zip(&self.misses).flat_map(|(hit, miss)| [hit, miss]).take(1_024);
        let past = Duration::from_secs(400);
        jobs.map(|id| RunningJob::new(id, "gates", past).finished_for(past)).collect()
    }
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

fn per_size(
    criterion: &mut Criterion,
    name: &str,
    mut bench: impl FnMut(&mut BenchmarkGroup<'_, WallTime>, BenchmarkId, &Setting),
) {
    let mut group = criterion.benchmark_group(name);
    for owned in OWNED {
        bench(&mut group, BenchmarkId::from_parameter(owned), &Setting::new(owned));
    }
    group.finish();
}

fn look_ups(criterion: &mut Criterion, name: &str, jobs: fn(&Setting) -> &[u64], reader: bool) {
    per_size(criterion, name, |group, id, setting| {
        group.throughput(Throughput::Elements(DRAWS as u64));
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                let mut session = setting.registry.reader();
                jobs(setting)
                    .iter()
                    .filter(|job| if reader { session.is_active(*job) } else { setting.registry.is_active(*job) })
                    .count()
            });
        });
    });
}

fn reads(criterion: &mut Criterion) {
    look_ups(criterion, "is_active/hit", |setting| &setting.hits, false);
    look_ups(criterion, "is_active/miss", |setting| &setting.misses, false);
    look_ups(criterion, "reader/hit", |setting| &setting.hits, true);
    look_ups(criterion, "reader/miss", |setting| &setting.misses, true);

    let empty: Registry = Registry::new();
    let jobs: Vec<u64> = (0..DRAWS as u64).collect();
    let mut group = criterion.benchmark_group("is_active/empty");
    group.throughput(Throughput::Elements(DRAWS as u64));
    group.bench_function("0", |bencher| bencher.iter(|| jobs.iter().filter(|job| empty.is_active(*job)).count()));
    group.finish();
}

fn writes(criterion: &mut Criterion) {
    let finalizer = Finalizer::new(Some(1), "gates");
    per_size(criterion, "mark+clear", |group, id, setting| {
        let lone = setting.misses[0];
        group.bench_function(id, |bencher| {
            bencher.iter(|| setting.registry.mark(black_box(lone), finalizer.clone()).clear());
        });
    });
    per_size(criterion, "replace", |group, id, setting| {
        group.bench_function(id, |bencher| {
            bencher.iter(|| setting.guards[0].replace(black_box(finalizer.clone())));
        });
    });
}

fn passes(criterion: &mut Criterion) {
    per_size(criterion, "snapshot", |group, id, setting| {
        group.bench_function(id, |bencher| {
            bencher.iter_batched(|| (), |()| setting.registry.snapshot(), BatchSize::LargeInput);
        });
    });

    let policy = Policy::builder().hard_deadline(Duration::from_secs(3_600)).marking_stage("gates").build().unwrap();
    per_size(criterion, "sweep of 1,024", |group, id, setting| {
        let reaper = Reaper::new(setting.registry, policy.clone());
        let running = setting.running();
        group.throughput(Throughput::Elements(running.len() as u64));
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                let mut sweep = reaper.sweep();
                running.iter().filter(|job| matches!(sweep.judge(job), Verdict::Defer(_))).count()
            });
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = reads, writes, passes
}
criterion_main!(benches);
