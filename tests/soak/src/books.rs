//! What is counted, and what must hold.

use std::fmt;
use std::fs;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use livemark::{RegistryStats, reclaim_stats};

use crate::heap;

/// What may be allocated more than after the first round, when what waited to be freed is freed: more jobs at work,
/// more spare blocks.
const GROWTH_KIB: u64 = 8 << 10;
/// How many violations are printed.
const PRINTED: usize = 20;

/// A number of events.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident: $shown:literal,)*) => {
        /// How often each thing happened. Each must, in a run that is to mean something.
        #[derive(Debug, Default)]
        pub(crate) struct Counts { $($(#[$doc])* pub(crate) $name: Count,)* }

        impl Counts {
            fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$(($shown, self.$name.get()),)*]
            }
        }
    };
}

counts! {
    created: "jobs created",
    committed: "finalized by their monitors",
    redriven: "redriven and finalized",
    reaped_lost: "reaped, worker lost",
    reaped_backstop: "reaped by the backstop",
    /// The job was final by the time of the verdict: the listing was older.
    outdated: "verdicts on jobs that were final by then",
    deferred: "deferrals",
    panicked: "finalizers that panicked",
    hung: "finalizers that hung",
    leaked: "guards leaked",
    travelled: "guards that went to another thread",
    slow: "finalizers slower than the grace",
    refused: "claims refused",
    displaced: "owners that saw they were displaced",
    replaced: "contexts replaced",
    looks: "look-ups",
    snapshots: "atomic snapshots",
    torn: "snapshots that were not atomic",
    swaps: "policies swapped",
    sweeps: "sweeps",
    rounds: "rounds of the books",
    /// Guards that were dropped or cleared, and generations that were cleared.
    releases: "releases",
    /// Cleared by `Registry::clear`, whoever held the mark.
    cleared: "marks cleared by job",
}

/// The books of a run.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) counts: Counts,
    violations: Mutex<Vec<String>>,
    memory: Mutex<Memory>,
}

/// What is allocated, in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) warm: Option<u64>,
    pub(crate) last: u64,
    pub(crate) most: u64,
}

/// What there is at a moment when nobody acts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quiet {
    pub(crate) registry: RegistryStats,
    pub(crate) marked: u64,
    pub(crate) jobs_left: u64,
    pub(crate) live_values: u64,
    pub(crate) unreclaimed: u64,
}

impl Books {
    /// Takes note of what must not be.
    pub(crate) fn violated(&self, what: impl fmt::Display) {
        let mut violations = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        if violations.len() < PRINTED {
            println!("VIOLATION: {what}");
        }
        violations.push(what.to_string());
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Compares the books with the registry, while nobody acts.
    pub(crate) fn audit(&self, quiet: Quiet) {
        let counts = &self.counts;
        counts.rounds.one();
        // marks = clears + displaced + live
        let RegistryStats { marks, displaced, stale_clears, .. } = quiet.registry;
        let cleared = counts.releases.get().saturating_sub(stale_clears) + counts.cleared.get();
        if marks != cleared + displaced + quiet.marked {
            let live = quiet.marked;
            self.violated(format!("{marks} marks, but {cleared} clears, {displaced} displaced, {live} live"));
        }
        // Each job is finalized once.
        let ended = [&counts.committed, &counts.redriven, &counts.reaped_lost, &counts.reaped_backstop];
        let ended: u64 = ended.iter().map(|count| count.get()).sum();
        if counts.created.get() != ended + quiet.jobs_left {
            let (created, left) = (counts.created.get(), quiet.jobs_left);
            self.violated(format!("{created} jobs, but {ended} ended and {left} left"));
        }
        // Values: of the marks, and of what waits to be freed, some of which the threads keep without having counted
        // it.
        let most = quiet.marked + quiet.unreclaimed + 64 * crate::load::THREADS as u64;
        if quiet.live_values < quiet.marked || quiet.live_values > most {
            self.violated(format!(
                "{} values are alive, of {} marks and {most} at most",
                quiet.live_values, quiet.marked
            ));
        }
        self.measure((heap::bytes() >> 10) as u64);
    }

    /// Notes what is allocated; the first is what later ones are compared with.
    pub(crate) fn measure(&self, kib: u64) {
        let mut memory = self.memory();
        memory.last = kib;
        memory.most = memory.most.max(kib);
        let warm = *memory.warm.get_or_insert(kib);
        drop(memory);
        if kib > warm + GROWTH_KIB {
            self.violated(format!("what is allocated went from {warm} KiB to {kib}"));
        }
    }

    pub(crate) fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What never happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        // A snapshot that is not atomic needs writers that never pause: it may not be had.
        let may_be_missing = |name: &str| name == "snapshots that were not atomic";
        self.counts
            .all()
            .into_iter()
            .filter(|(name, count)| *count == 0 && !may_be_missing(name))
            .map(|(name, _)| name)
            .collect()
    }

    /// The closing table.
    pub(crate) fn close(&self, took: Duration) {
        println!();
        for (name, count) in self.counts.all() {
            #[expect(clippy::cast_precision_loss, reason = "to be read by people")]
            let rate = count as f64 / took.as_secs_f64();
            println!("{name:<44} {count:>14} {rate:>12.1}/s");
        }
        let memory = *self.memory();
        let warm = memory.warm.unwrap_or(0);
        println!("allocated: {warm} KiB after the first round, {} at the end, {} at most", memory.last, memory.most);
        // With garbage that piled up while a pinned thread was stopped, and what the allocator has kept of it.
        if let Some(peak) = peak_kib() {
            println!("the process had {peak} KiB at its peak");
        }
        let stats = reclaim_stats();
        println!("retired {}, reclaimed {}", stats.retired, stats.reclaimed);
        println!("violations: {}", self.violations().len());
    }

    /// Returns `true` if nothing was violated, and everything happened.
    pub(crate) fn closed_well(&self) -> bool {
        let missing = self.missing();
        if !missing.is_empty() {
            println!("never happened, so this run says little: {}", missing.join(", "));
        }
        missing.is_empty() && self.violations().is_empty()
    }
}

/// The most that the process had in memory, where the system tells.
fn peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// How many contexts are alive in the process.
static ALIVE: AtomicI64 = AtomicI64::new(0);

/// The context of a mark: whose it is, and that it is alive.
#[derive(Debug)]
pub(crate) struct Context {
    job: u64,
    /// Twice the job, until it is dropped.
    seal: u64,
}

impl Context {
    pub(crate) fn new(job: u64) -> Self {
        ALIVE.fetch_add(1, Ordering::Relaxed);
        Self { job, seal: job.wrapping_mul(2) }
    }

    /// Returns `true` if it is of this job, and not yet dropped.
    pub(crate) fn is_of(&self, job: u64) -> bool {
        self.job == job && self.seal == job.wrapping_mul(2)
    }

    pub(crate) fn alive() -> u64 {
        u64::try_from(ALIVE.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

impl Clone for Context {
    fn clone(&self) -> Self {
        Self::new(self.job)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.seal = u64::MAX;
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}
