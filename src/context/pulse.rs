//! A sign of progress in a context: [`Pulse`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{AtomicU64, Ordering};

/// A sign of progress, which the work itself beats.
///
/// A mark shows that a finalizer is alive. A pulse shows that it is making progress. Beat it in the work, after each
/// step: a side thread that beats for the work would outlive a worker that hangs (cockroachdb/cockroach#23980). Clones
/// share one pulse.
///
/// ```
/// use std::time::Duration;
/// use livemark::Pulse;
///
/// let pulse = Pulse::new();
/// pulse.beat();
/// assert!(pulse.age() < Duration::from_secs(3600));
/// ```
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Beats>);

#[derive(Debug)]
struct Beats {
    made_at: Instant,
    /// How old the pulse was when it was created.
    head_start: Duration,
    /// Nanoseconds from `made_at` to the latest beat, plus one. 0 before the first beat. Only `beat` writes it, and it
    /// only grows.
    last: AtomicU64,
}

impl Pulse {
    /// Creates a pulse whose first beat is now.
    ///
    /// ```
    /// use livemark::{Finalizer, Pulse};
    ///
    /// let pulse = Pulse::new();
    /// let finalizer = Finalizer::new(Some(42), "merge").with_pulse(pulse.clone()); // one pulse, two handles
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::aged(Duration::ZERO)
    }

    /// Creates a pulse whose latest beat was `age` ago, by what another process or a job store knows of the progress.
    ///
    /// ```
    /// use std::time::Duration;
    /// use livemark::Pulse;
    ///
    /// let pulse = Pulse::aged(Duration::from_secs(60));
    /// assert!(pulse.age() >= Duration::from_secs(60));
    /// pulse.beat();
    /// assert!(pulse.age() < Duration::from_secs(60));
    /// ```
    #[must_use]
    pub fn aged(age: Duration) -> Self {
        Self(Arc::new(Beats { made_at: Instant::now(), head_start: age, last: AtomicU64::new(0) }))
    }

    /// Records that the work made progress now. Lock-free.
    ///
    /// ```
    /// # fn test(_file: &str) {}
    /// let pulse = livemark::Pulse::new();
    /// for file in ["a", "b"] {
    ///     test(file);
    ///     pulse.beat(); // a step that got somewhere: not a timer
    /// }
    /// ```
    pub fn beat(&self) {
        // Relaxed, E6: a time stamp that publishes nothing else. `fetch_max`: of two beats the later one counts.
        self.0.last.fetch_max(self.since_made().saturating_add(1), Ordering::Relaxed);
    }

    /// Records that the work made progress `ago` ago, as another process tells of it. Lock-free.
    ///
    /// Of two beats the later one counts. One from before this pulse was created changes nothing: [`aged`](Self::aged)
    /// creates a pulse with such a beat.
    ///
    /// ```
    /// use std::time::Duration;
    /// use livemark::Pulse;
    ///
    /// let pulse = Pulse::aged(Duration::from_secs(60));
    /// std::thread::sleep(Duration::from_millis(20));
    /// pulse.beat_ago(Duration::from_millis(10));
    /// assert!(pulse.age() >= Duration::from_millis(10) && pulse.age() < Duration::from_secs(60));
    /// pulse.beat_ago(Duration::from_secs(3600)); // an older beat
    /// assert!(pulse.age() < Duration::from_secs(60));
    /// ```
    pub fn beat_ago(&self, ago: Duration) {
        let ago = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
        if let Some(at) = self.since_made().checked_sub(ago) {
            // Relaxed, E6: as above.
            self.0.last.fetch_max(at.saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Returns how long ago the latest beat was, or zero if the clock went backwards.
    ///
    /// ```
    /// let pulse = livemark::Pulse::new();
    /// std::thread::sleep(std::time::Duration::from_millis(2));
    /// assert!(pulse.age().as_millis() >= 2);
    /// ```
    #[must_use]
    pub fn age(&self) -> Duration {
        match self.stamp().checked_sub(1) {
            Some(last) => Duration::from_nanos(self.since_made().saturating_sub(last)),
            None => self.0.made_at.elapsed().saturating_add(self.0.head_start),
        }
    }

    /// Returns a number that each beat changes.
    pub(crate) fn stamp(&self) -> u64 {
        self.0.last.load(Ordering::Relaxed) // E6
    }

    /// Returns `true` if `other` is a clone of this one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn since_made(&self) -> u64 {
        u64::try_from(self.0.made_at.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}
