//! What the crate reports through `tracing` and `metrics`; without the features, nothing.
//!
//! The only place that knows whether the features are on, and below all that it reports on: it is told in plain words
//! and numbers. Events are sent after an operation, never between a load and its compare-exchange. Job ids need not be
//! `Debug`: ids of the usual types are shown, others as the name of their type.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::finalizer::Finalizer;
use crate::owner::{Generation, Owner};

#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $($fields:tt)*) => { tracing::$level!(target: "livemark", $($fields)*) };
}

#[cfg(not(feature = "tracing"))]
macro_rules! event {
    // Names the values, so that they are used in both builds; evaluates nothing.
    ($level:ident, $($name:ident = $(%)? $value:expr,)* $message:literal) => {
        if false { let _ = ($(&$value,)* $message); }
    };
}

#[cfg(feature = "metrics")]
macro_rules! count {
    ($($name_and_labels:tt)*) => { metrics::counter!($($name_and_labels)*).increment(1) };
}

#[cfg(not(feature = "metrics"))]
macro_rules! count {
    ($name:literal $(, $label:literal => $value:expr)?) => { if false { let _ = ($name, $($value)?); } };
}

#[inline]
pub(crate) fn marked<K: 'static>(job: &K, generation: Generation, displaced: bool) {
    event!(trace, job = %Job(job), generation = generation.get(), displaced = displaced, "mark");
}

#[inline]
pub(crate) fn cleared<K: 'static>(job: &K, generation: Generation) {
    event!(trace, job = %Job(job), generation = generation.get(), "clear");
}

#[inline]
pub(crate) fn stale_clear<K: 'static>(job: &K, generation: Generation) {
    event!(trace, job = %Job(job), generation = generation.get(), "stale clear");
}

/// `to_owner`: whether it is for an owner's sake.
pub(crate) fn deferred<K: 'static, V: 'static>(
    job: &K,
    reason: &'static str,
    to_owner: bool,
    owner: Option<&Owner<V>>,
) {
    if to_owner {
        count!("finalizer_defers_total");
    }
    let finalizer = owner.and_then(|owner| (&owner.value as &dyn Any).downcast_ref::<Finalizer>());
    event!(
        info,
        job = %Job(job),
        reason = reason,
        run_id = finalizer.and_then(|finalizer| finalizer.run_id),
        stage = finalizer.map(|finalizer| &*finalizer.stage),
        generation = owner.map(|owner| owner.generation.get()),
        age_ms = owner.map(|owner| u64::try_from(owner.age().as_millis()).unwrap_or(u64::MAX)),
        "defer"
    );
}

pub(crate) fn redriven<K: 'static>(job: &K, stage: &str, claim: Option<Generation>) {
    count!("reaper_redrives_total");
    event!(warn, job = %Job(job), stage = stage, claim = claim.map(Generation::get), "redrive");
}

/// `label`: the cause as the counter's label has it.
pub(crate) fn reaped<K: 'static>(
    job: &K,
    stage: &str,
    cause: &'static str,
    label: &'static str,
    claim: Option<Generation>,
) {
    count!("reaper_reaps_total", "cause" => label);
    event!(warn, job = %Job(job), stage = stage, cause = cause, claim = claim.map(Generation::get), "reap");
}

pub(crate) fn dry_run<K: 'static>(job: &K, verdict: &dyn fmt::Display) {
    event!(info, job = %Job(job), verdict = %verdict, "dry run");
}

/// The reaper's claim is the only mark that was ever made in its registry.
pub(crate) fn only_mark<K: 'static>(job: &K, stage: &str) {
    event!(
        warn,
        job = %Job(job),
        stage = stage,
        "no job was ever marked in the reaper's registry: do the monitors mark in another one?"
    );
}

/// An owner made no progress and is, or in a dry run would be, displaced.
pub(crate) fn stale_owner<K: 'static>(job: &K, generation: Generation) {
    event!(warn, job = %Job(job), generation = generation.get(), "stale owner");
}

pub(crate) fn claim_conflict() {
    count!("reaper_claim_conflicts_total");
}

pub(crate) fn sweep_begun() {
    count!("reaper_sweeps_total");
}

/// Sets the gauges of all that is owned; `census`, a walk through the registry, says how many that are and since when
/// the oldest is.
pub(crate) fn owners(census: impl FnOnce() -> (usize, Option<Instant>)) {
    #[cfg(feature = "metrics")]
    {
        let (owned, oldest) = census();
        // A gauge is a float: exact up to 2^53 jobs.
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        metrics::gauge!("finalizer_owned").set(owned as f64);
        let age = oldest.map_or(0.0, |marked_at| marked_at.elapsed().as_secs_f64());
        metrics::gauge!("finalizer_oldest_owner_age_seconds").set(age);
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        metrics::gauge!("livemark_unreclaimed").set(crate::reclaim::reclaim_stats().unreclaimed() as f64);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = census;
}

pub(crate) fn failed(failure: &dyn fmt::Display) {
    count!("reaper_failures_total");
    event!(error, failure = %failure, "a turn of the reaper's loop failed");
}

/// The loop has ended before it began: its sender was dropped, by `let (_, stopped) = channel()` say.
pub(crate) fn never_swept() {
    event!(warn, "the reaper's loop was told to stop before its first sweep: was the sender dropped?");
}

/// A job id, shown if its type is one of those that job systems use.
struct Job<'a, K>(&'a K);

impl<K: 'static> fmt::Display for Job<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let job: &dyn Any = self.0;
        macro_rules! show {
            ($($known:ty),*) => { $(if let Some(job) = job.downcast_ref::<$known>() { return job.fmt(f); })* };
        }
        show!(u64, i64, u32, i32, usize, u128, String, &'static str, Arc<str>, Box<str>);
        match job.downcast_ref::<[u8; 16]>() {
            Some(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            None => f.write_str(std::any::type_name::<K>()),
        }
    }
}
