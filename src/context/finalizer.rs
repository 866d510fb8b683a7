//! The default context of a mark: [`Finalizer`]. Look-ups copy it, so it is cheap to clone.

use std::any::Any;
use std::sync::Arc;

use super::pulse::Pulse;

/// The default context of a mark: the run that finalizes, its stage, and optionally its pulse.
///
/// A [`Registry`](crate::Registry) with its default types takes it. Cloning it allocates nothing.
///
/// ```
/// use livemark::Finalizer;
///
/// let finalizer = Finalizer::new(Some(42), "merge");
/// assert_eq!(finalizer.run_id, Some(42));
/// assert_eq!(&*finalizer.stage, "merge");
/// ```
#[derive(Clone, Debug)]
pub struct Finalizer {
    /// The run that finalizes, if runs have numbers.
    pub run_id: Option<u64>,
    /// The stage of the finalization. It is only shown. Policies go by [`RunningJob::stage`](crate::RunningJob::stage).
    /// Keep one `Arc<str>` per stage to create finalizers without allocating.
    pub stage: Arc<str>,
    /// The pulse of the finalizing work, if it gives one.
    pub pulse: Option<Pulse>,
}

impl Finalizer {
    /// Creates a finalizer without a pulse.
    ///
    /// ```
    /// # use livemark::Finalizer;
    /// let by_literal = Finalizer::new(None, "deploy");
    /// let by_string = Finalizer::new(None, String::from("deploy"));
    /// assert_eq!(by_literal.stage, by_string.stage);
    /// ```
    pub fn new(run_id: Option<u64>, stage: impl Into<Arc<str>>) -> Self {
        Self { run_id, stage: stage.into(), pulse: None }
    }

    /// Adds a pulse. The work keeps a clone of it and beats it.
    ///
    /// ```
    /// use livemark::{Finalizer, Pulse};
    ///
    /// let pulse = Pulse::new();
    /// let finalizer = Finalizer::new(Some(42), "merge").with_pulse(pulse.clone());
    /// pulse.beat(); // after each step that made progress
    /// assert!(finalizer.pulse.is_some());
    /// ```
    #[must_use]
    pub fn with_pulse(self, pulse: Pulse) -> Self {
        Self { pulse: Some(pulse), ..self }
    }

    /// Returns a context as a finalizer, if it is one.
    pub(crate) fn downcast<V: 'static>(context: &V) -> Option<&Self> {
        (context as &dyn Any).downcast_ref()
    }
}
