//! What the crate reports through `tracing` and `metrics`; without the features, nothing.
//!
//! The only place that knows whether the features are on. Events are sent after an operation, never between a load
//! and its compare-exchange. Job ids need not be `Debug`: ids of the usual types are shown, others as the name
//! of their type.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::finalizer::Finalizer;
use crate::owner::Generation;
use crate::reaper::{Cause, DeferReason, Deferral, Explanation, Failure};
use crate::registry::Registry;

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

pub(crate) fn deferred<K: 'static, V: 'static>(job: &K, deferral: &Deferral<V>) {
    if matches!(deferral.reason, DeferReason::Owned | DeferReason::ClaimConflict) {
        count!("finalizer_defers_total");
    }
    let owner = deferral.owner.as_ref();
    let finalizer = owner.and_then(|owner| (&owner.value as &dyn Any).downcast_ref::<Finalizer>());
    event!(
        info,
        job = %Job(job),
        reason = deferral.reason.as_str(),
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

pub(crate) fn reaped<K: 'static>(job: &K, stage: &str, cause: Cause, claim: Option<Generation>) {
    count!("reaper_reaps_total", "cause" => match cause {
        Cause::WorkerLost => "worker_lost",
        Cause::Backstop => "backstop",
    });
    event!(warn, job = %Job(job), stage = stage, cause = cause.as_str(), claim = claim.map(Generation::get), "reap");
}

pub(crate) fn dry_run<K: 'static>(job: &K, explanation: &Explanation<'_>) {
    event!(info, job = %Job(job), verdict = %explanation, "dry run");
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

/// Sets the gauges of all that is owned, which takes a walk through the registry.
pub(crate) fn owners<K, V, S>(registry: &Registry<K, V, S>) {
    #[cfg(feature = "metrics")]
    {
        let (owned, oldest) = registry.census();
        // A gauge is a float: exact up to 2^53 jobs.
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        metrics::gauge!("finalizer_owned").set(owned as f64);
        let age = oldest.map_or(0.0, |marked_at| marked_at.elapsed().as_secs_f64());
        metrics::gauge!("finalizer_oldest_owner_age_seconds").set(age);
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        metrics::gauge!("livemark_unreclaimed").set(crate::reclaim::reclaim_stats().unreclaimed() as f64);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = registry;
}

pub(crate) fn failed<E: fmt::Display>(failure: &Failure<E>) {
    count!("reaper_failures_total");
    event!(error, failure = %failure, "a turn of the reaper's loop failed");
}

pub(crate) fn honors_nothing() {
    event!(warn, "the policy honours marks, but declares no stage as marking: no mark will be asked for");
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
