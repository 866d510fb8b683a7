//! A reaper without its types: [`ErasedReaper`], which an [`Explanation`](super::Explanation) asks.
//!
//! An explanation has no type parameters, so that a job store's `on_verdict` needs none. It holds the job's id and the
//! owner as [`Any`], and hands them to the reaper, which knows what they are.

use std::any::Any;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::time::{Duration, Instant};

use super::liveness::{Liveness, pulse_that_counts};
use super::policy::StageLimits;
use super::reaper::{Reaper, Summarize};
use super::sweep_state::SweepState;
use super::verdict::DeferReason;
use crate::context::{Finalizer, Pulse};
use crate::owner::{Generation, Owner};
use crate::show::{Escaped, write_plain};

/// A job id or an owner, without its type.
pub(super) type Erased<'a> = &'a (dyn Any + Send + Sync);

/// Who holds a job.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    pub(super) generation: Generation,
    pub(super) marked_at: Instant,
    pub(super) owner: Erased<'a>,
}

impl<'a> Holder<'a> {
    pub(super) fn new<V: Send + Sync + 'static>(owner: &'a Owner<V>) -> Self {
        Self { generation: owner.generation, marked_at: owner.marked_at(), owner }
    }
}

/// Answers what an explanation asks. An id or an owner of another type gets the answer of an unknown one.
pub(super) trait ErasedReaper: Send + Sync {
    /// Writes a job's id.
    fn write_job(&self, id: Erased<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    /// Writes an owner's context. Returns `false` if nothing is known about contexts of its type.
    fn write_context(&self, owner: Erased<'_>, f: &mut fmt::Formatter<'_>) -> Result<bool, fmt::Error>;
    /// Returns how long ago the owner's pulse beat, if it has one that counts.
    fn pulse_age(&self, owner: Erased<'_>) -> Option<Duration>;
    /// Looks up who holds the job now, and shows it to `see`.
    fn with_holder(&self, id: Erased<'_>, see: &mut dyn FnMut(&Holder<'_>) -> fmt::Result) -> fmt::Result;
    /// Looks up for how long the job's owner keeps it, if the job has one now.
    fn liveness(&self, id: Erased<'_>, state: &SweepState<'_>, limits: &StageLimits) -> Option<Liveness>;
    /// Returns what the reaper's gate says of the job now.
    fn gate(&self, id: Erased<'_>) -> Option<DeferReason>;
    /// Returns `true` unless the sweep before found the same.
    fn is_news(&self, id: Erased<'_>, state: &SweepState<'_>) -> bool;
}

/// Returns what was erased, if it is a `T`.
fn typed<T: 'static>(erased: Erased<'_>) -> Option<&T> {
    let erased: &dyn Any = erased;
    erased.downcast_ref()
}

impl<K, V, S> ErasedReaper for Reaper<'_, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    fn write_job(&self, id: Erased<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        typed(id).map_or(Ok(()), |id| fmt::Display::fmt(&self.registry.shown(id), f))
    }

    fn write_context(&self, owner: Erased<'_>, f: &mut fmt::Formatter<'_>) -> Result<bool, fmt::Error> {
        let Some(Owner { value: context, .. }) = typed::<Owner<V>>(owner) else { return Ok(false) };
        // The user's own words come first, then those for a finalizer, then a number or a text as such.
        if let Some(summary) = &self.summary {
            write!(f, "{}", Escaped(Summary(&**summary, context)))?;
            return Ok(true);
        }
        let Some(finalizer) = Finalizer::downcast(context) else { return write_plain(context, f) };
        match finalizer.run_id {
            Some(run) => write!(f, "run {run} at `{}`", Escaped(&finalizer.stage))?,
            None => write!(f, "a claim at `{}`", Escaped(&finalizer.stage))?,
        }
        Ok(true)
    }

    fn pulse_age(&self, owner: Erased<'_>) -> Option<Duration> {
        pulse_that_counts(self, typed::<Owner<V>>(owner)?).map(Pulse::age)
    }

    fn with_holder(&self, id: Erased<'_>, see: &mut dyn FnMut(&Holder<'_>) -> fmt::Result) -> fmt::Result {
        let owner = typed::<K>(id).and_then(|id| self.registry.owner(id));
        owner.map_or(Ok(()), |owner| see(&Holder::new(&owner)))
    }

    fn liveness(&self, id: Erased<'_>, state: &SweepState<'_>, limits: &StageLimits) -> Option<Liveness> {
        let owner = self.registry.owner(typed::<K>(id)?)?;
        Some(Liveness::of(&owner, self, state, limits))
    }

    fn gate(&self, id: Erased<'_>) -> Option<DeferReason> {
        self.gate.as_ref()?(typed::<K>(id)?)
    }

    fn is_news(&self, id: Erased<'_>, state: &SweepState<'_>) -> bool {
        typed::<K>(id).is_none_or(|id| state.is_news(id))
    }
}

/// A context in the user's words.
struct Summary<'a, V>(&'a Summarize<'a, V>, &'a V);

impl<V> fmt::Display for Summary<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(self.1, f)
    }
}
