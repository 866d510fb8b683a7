//! What the crate reports through `tracing` and `metrics`. Without the features it reports nothing.
//!
//! Only this file knows whether the features are on. It stands below all that it reports on, and is told in plain words
//! and numbers. Events are sent after an operation, never between a load and its compare-exchange. Subscribers and
//! recorders are the user's code: nothing that they do gets out of here.

use std::fmt;
use std::time::Instant;

use crate::context::Finalizer;
use crate::owner::{Generation, Owner};
use crate::show::{Flattened, Shown};

#[cfg(feature = "tracing")]
macro_rules! event {
    ($level:ident, $($fields:tt)*) => {
        if enabled(tracing::Level::$level) {
            tell(|| tracing::event!(target: "livemark", tracing::Level::$level, $($fields)*));
        }
    };
}

#[cfg(not(feature = "tracing"))]
macro_rules! event {
    // Names the values, so that they are used in both builds. Evaluates nothing.
    ($level:ident, $($name:ident = $(%)? $value:expr,)* $message:literal) => {
        if false { let _ = (stringify!($level), $(&$value,)* $message); }
    };
}

#[cfg(feature = "metrics")]
macro_rules! count {
    ($name:literal, $reaper:expr $(, $label:literal => $value:expr)?) => {
        let reaper = $reaper;
        let _: Result<(), _> = crate::unwind::caught(|| {
            metrics::counter!($name, "reaper" => reaper $(, $label => $value)?).increment(1);
        });
    };
}

#[cfg(not(feature = "metrics"))]
macro_rules! count {
    ($name:literal, $reaper:expr $(, $label:literal => $value:expr)?) => {
        if false { let _ = ($name, $reaper, $($value)?); }
    };
}

/// Returns `true` if any subscriber may want an event of this level. One load, and no code of the user's.
#[cfg(feature = "tracing")]
#[inline]
fn enabled(level: tracing::Level) -> bool {
    level <= tracing::level_filters::STATIC_MAX_LEVEL && level <= tracing::level_filters::LevelFilter::current()
}

/// Sends an event. Whatever the subscriber does, a mark, a release and the reaper's loop go on.
///
/// A release may come from the destructor of a thread-local, when the subscriber's own thread-locals are gone. A panic
/// would be caught there too, but its message would still be printed. So the thread says nothing from then on.
#[cfg(feature = "tracing")]
#[cold]
#[inline(never)]
fn tell(event: impl FnOnce()) {
    use std::cell::Cell;

    // Without a destructor: it can be read as long as the thread runs.
    std::thread_local! { static LOCALS: Cell<Locals> = const { Cell::new(Locals::Unguarded) } }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Locals {
        Unguarded,
        Guarded,
        Gone,
    }

    struct Sentinel;

    impl Drop for Sentinel {
        fn drop(&mut self) {
            LOCALS.set(Locals::Gone);
        }
    }

    std::thread_local! { static SENTINEL: Sentinel = const { Sentinel } }

    if LOCALS.get() == Locals::Gone {
        return;
    }
    let _: Result<(), _> = crate::unwind::caught(event);
    // Thread-locals are destroyed in the reverse order of their first use. The sentinel is first used after the
    // subscriber's, and so goes before them.
    if LOCALS.get() == Locals::Unguarded && SENTINEL.try_with(|_| ()).is_ok() {
        LOCALS.set(Locals::Guarded);
    }
}

#[inline]
pub(crate) fn marked<K: 'static>(job: Shown<'_, K>, generation: Generation) {
    event!(TRACE, job = %job, generation = generation.get(), displaced = false, "mark");
}

/// Reports a mark that took the job over from an earlier owner: so seldom that it is told at a level that people read.
#[cold]
pub(crate) fn displaced<K: 'static>(job: Shown<'_, K>, generation: Generation) {
    event!(DEBUG, job = %job, generation = generation.get(), displaced = true, "mark");
}

#[inline]
pub(crate) fn cleared<K: 'static>(job: Shown<'_, K>, generation: Generation) {
    event!(TRACE, job = %job, generation = generation.get(), "clear");
}

/// Returns a job as text, if its clear is to be told: for a caller whose job is gone by then.
#[inline]
pub(crate) fn written<K: 'static>(job: Shown<'_, K>) -> Option<String> {
    #[cfg(feature = "tracing")]
    if enabled(tracing::Level::TRACE) {
        return crate::unwind::caught(|| job.to_string()).ok();
    }
    let _ = job;
    None
}

pub(crate) fn cleared_by_id(job: &str, generation: Generation) {
    event!(TRACE, job = %job, generation = generation.get(), "clear");
}

#[inline]
pub(crate) fn stale_clear<K: 'static>(job: Shown<'_, K>, generation: Generation) {
    event!(TRACE, job = %job, generation = generation.get(), "stale clear");
}

/// Reports that a mark stays without its guard.
#[inline]
pub(crate) fn detached<K: 'static>(job: Shown<'_, K>, generation: Generation) {
    event!(TRACE, job = %job, generation = generation.get(), "detach");
}

/// What the event of a deferral says.
pub(crate) struct Deferred<'a, V> {
    pub(crate) reaper: &'static str,
    pub(crate) reason: &'static str,
    /// Set if the job is left to its owner.
    pub(crate) to_owner: bool,
    pub(crate) owner: Option<&'a Owner<V>>,
    /// Set if the sweep before deferred the job for another reason, or not at all.
    pub(crate) is_news: bool,
}

pub(crate) fn deferred<K: 'static, V: 'static>(job: Shown<'_, K>, deferred: &Deferred<'_, V>) {
    let &Deferred { reaper, reason, to_owner, owner, is_news } = deferred;
    if to_owner {
        count!("finalizer_defers_total", reaper);
    }
    let finalizer = owner.and_then(|owner| Finalizer::downcast(&owner.value));
    macro_rules! defer {
        ($level:ident) => {
            event!(
                $level,
                job = %job,
                reason = reason,
                run_id = finalizer.and_then(|finalizer| finalizer.run_id),
                stage = finalizer.map(|finalizer| &*finalizer.stage),
                generation = owner.map(|owner| owner.generation.get()),
                age_ms = owner.map(|owner| u64::try_from(owner.age().as_millis()).unwrap_or(u64::MAX)),
                "defer"
            )
        };
    }
    if is_news {
        defer!(INFO);
    } else {
        defer!(DEBUG);
    }
}

/// What the event of a redrive or a reap says.
pub(crate) struct Acted<'a> {
    pub(crate) reaper: &'static str,
    pub(crate) stage: &'a str,
    /// The number of the mark that the claim holds.
    pub(crate) claim: Option<u64>,
    /// Whom the claim displaced.
    pub(crate) displaced: Option<Generation>,
}

pub(crate) fn redriven<K: 'static>(job: Shown<'_, K>, acted: &Acted<'_>) {
    let &Acted { reaper, stage, claim, displaced } = acted;
    count!("reaper_redrives_total", reaper);
    event!(
        WARN,
        job = %job,
        stage = stage,
        claim = claim,
        displaced = displaced.map(Generation::get),
        "redrive"
    );
}

/// Warns that the sweep before redrove the job as well.
pub(crate) fn redriven_again<K: 'static>(job: Shown<'_, K>) {
    event!(
        WARN,
        job = %job,
        "the sweep before redrove the job as well: was its stamp restarted, and is the claim kept where the work is?"
    );
}

/// Reports a reap. `label` is the cause as the counter's label has it.
pub(crate) fn reaped<K: 'static>(job: Shown<'_, K>, cause: &'static str, label: &'static str, acted: &Acted<'_>) {
    let &Acted { reaper, stage, claim, displaced } = acted;
    count!("reaper_reaps_total", reaper, "cause" => label);
    event!(
        WARN,
        job = %job,
        stage = stage,
        cause = cause,
        claim = claim,
        displaced = displaced.map(Generation::get),
        "reap"
    );
}

/// Warns that marks are not asked for in this stage, but the job has one.
pub(crate) fn unprotected<K: 'static>(job: Shown<'_, K>, stage: &str, generation: Generation) {
    event!(
        WARN,
        job = %job,
        stage = stage,
        generation = generation.get(),
        "the job is marked, but its stage is not declared as marking, so that its owner is not deferred to: is the stage misspelled?"
    );
}

pub(crate) fn dry_run<K: 'static>(job: Shown<'_, K>, verdict: &dyn fmt::Display, is_news: bool) {
    if is_news {
        event!(INFO, job = %job, verdict = %verdict, "dry run");
    } else {
        event!(DEBUG, job = %job, verdict = %verdict, "dry run");
    }
}

/// Warns that the reaper's claim is the only mark that was ever made in its registry, or that a dry run finds none at
/// all.
pub(crate) fn only_mark<K: 'static>(job: Shown<'_, K>, stage: &str) {
    event!(
        WARN,
        job = %job,
        stage = stage,
        "no job was ever marked in the reaper's registry: do the monitors mark in another one?"
    );
}

/// Warns that an owner made no progress and is displaced.
pub(crate) fn stale_owner<K: 'static>(job: Shown<'_, K>, generation: Generation) {
    event!(WARN, job = %job, generation = generation.get(), "stale owner");
}

pub(crate) fn claim_conflict(reaper: &'static str) {
    count!("reaper_claim_conflicts_total", reaper);
}

/// Reports that the job store's compare-and-set said no.
pub(crate) fn refused<K: 'static>(reaper: &'static str, job: Shown<'_, K>) {
    count!("reaper_refused_total", reaper);
    event!(INFO, job = %job, "the job store refused a verdict: its compare-and-set changed nothing");
}

pub(crate) fn sweep_begun(reaper: &'static str) {
    count!("reaper_sweeps_total", reaper);
}

pub(crate) fn failed(reaper: &'static str, failure: &dyn fmt::Display) {
    count!("reaper_failures_total", reaper);
    event!(ERROR, failure = %Flattened(failure), "a failure in the reaper's loop");
}

/// Describes all metrics, and shows those of this reaper at zero: an alert can be written before anything happened.
pub(crate) fn register(reaper: &'static str) {
    #[cfg(feature = "metrics")]
    {
        use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

        let _: Result<(), _> = crate::unwind::caught(|| {
            for (name, what) in [
                ("finalizer_defers_total", "Jobs left to a live owner, once per sweep."),
                ("reaper_sweeps_total", "Sweeps begun."),
                ("reaper_redrives_total", "Verdicts to redrive a job."),
                ("reaper_claim_conflicts_total", "Claims that came second to another mark."),
                ("reaper_refused_total", "Verdicts that the job store's compare-and-set refused."),
                ("reaper_failures_total", "Listings, rows, actions and panics that cost a turn of the loop."),
            ] {
                describe_counter!(name, Unit::Count, what);
                counter!(name, "reaper" => reaper).increment(0);
            }
            describe_counter!("reaper_reaps_total", Unit::Count, "Verdicts to reap a job, by cause.");
            for cause in ["worker_lost", "backstop", "redrives_exhausted"] {
                counter!("reaper_reaps_total", "reaper" => reaper, "cause" => cause).increment(0);
            }
            describe_gauge!("finalizer_owned", Unit::Count, "Jobs marked when the latest sweep began.");
            describe_gauge!(
                "finalizer_oldest_owner_age_seconds",
                Unit::Seconds,
                "How long the oldest mark was held when the latest sweep began."
            );
            describe_gauge!("livemark_unreclaimed", Unit::Count, "Cleared entries that wait to be freed.");
            for name in ["finalizer_owned", "finalizer_oldest_owner_age_seconds", "livemark_unreclaimed"] {
                gauge!(name, "reaper" => reaper).set(0.0);
            }
        });
    }
    #[cfg(not(feature = "metrics"))]
    let _ = reaper;
}

/// What the gauges show.
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "nothing is measured"))]
pub(crate) struct Gauges {
    /// How many jobs are owned.
    pub(crate) owned: usize,
    /// When the oldest of their marks was made.
    pub(crate) oldest: Option<Instant>,
    /// How much of what was cleared waits to be freed.
    pub(crate) unreclaimed: u64,
}

/// Sets the gauges to what `measure` returns, which walks through the registry and so is not called without the
/// feature.
pub(crate) fn gauges(reaper: &'static str, measure: impl FnOnce() -> Gauges) {
    #[cfg(feature = "metrics")]
    {
        let Gauges { owned, oldest, unreclaimed } = measure();
        let age = oldest.map_or(0.0, |marked_at| marked_at.elapsed().as_secs_f64());
        let _: Result<(), _> = crate::unwind::caught(|| {
            // A gauge is a float: exact up to 2^53 jobs.
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            metrics::gauge!("finalizer_owned", "reaper" => reaper).set(owned as f64);
            metrics::gauge!("finalizer_oldest_owner_age_seconds", "reaper" => reaper).set(age);
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            metrics::gauge!("livemark_unreclaimed", "reaper" => reaper).set(unreclaimed as f64);
        });
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (reaper, measure);
}
