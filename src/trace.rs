//! What the crate reports through `tracing`; without the feature, nothing.
//!
//! The only place that knows whether the feature is on. Events are sent after an operation, never between a load
//! and its compare-exchange. Job ids need not be `Debug`: ids of the usual types are shown, others as the name
//! of their type.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::finalizer::Finalizer;
use crate::owner::Generation;
use crate::reaper::{Cause, Deferral};

#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $($fields:tt)*) => { tracing::$level!(target: "livemark", $($fields)*) };
}

#[cfg(not(feature = "tracing"))]
macro_rules! event {
    // Names the values, so that they are used in both builds; evaluates nothing.
    ($level:ident, job = %Job($job:expr), $($name:ident = $value:expr,)* $message:literal) => {
        if false { let _ = (&Job($job), $(&$value,)* $message); }
    };
    ($level:ident, $message:literal) => {};
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
    let Some(owner) = &deferral.owner else { return };
    let finalizer = (&owner.value as &dyn Any).downcast_ref::<Finalizer>();
    event!(
        info,
        job = %Job(job),
        reason = deferral.reason.as_str(),
        run_id = finalizer.and_then(|finalizer| finalizer.run_id),
        stage = finalizer.map(|finalizer| &*finalizer.stage),
        generation = owner.generation.get(),
        age_ms = u64::try_from(owner.age().as_millis()).unwrap_or(u64::MAX),
        "defer"
    );
}

pub(crate) fn redriven<K: 'static>(job: &K, stage: &str, claim: Option<Generation>) {
    event!(warn, job = %Job(job), stage = stage, claim = claim.map(Generation::get), "redrive");
}

pub(crate) fn reaped<K: 'static>(job: &K, stage: &str, cause: Cause, claim: Option<Generation>) {
    event!(warn, job = %Job(job), stage = stage, cause = cause.as_str(), claim = claim.map(Generation::get), "reap");
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
