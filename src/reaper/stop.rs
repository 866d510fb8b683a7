//! How a loop is told to stop: [`StopToken`].

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A token that stops a reaper's loop, which wakes at once. Clones are one token.
///
/// Dropping a token stops nothing. Do not stop a token in a signal handler, because it takes a lock. Let the handler
/// wake a thread that does, as the crates `signal-hook` and `ctrlc` do.
///
/// ```
/// use livemark::StopToken;
///
/// let stop = StopToken::new();
/// let other = stop.clone();
/// drop(other); // stops nothing
/// assert!(!stop.is_stopped());
/// stop.stop();
/// assert!(stop.is_stopped());
/// ```
#[derive(Clone, Default)]
pub struct StopToken(Arc<State>);

#[derive(Default)]
struct State {
    stopped: Mutex<bool>,
    woken: Condvar,
}

impl StopToken {
    /// Creates a token that is not stopped.
    ///
    /// ```
    /// assert!(!livemark::StopToken::new().is_stopped());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops every loop that has this token or a clone of it. Doing it twice is harmless.
    ///
    /// ```
    /// # use livemark::StopToken;
    /// let stop = StopToken::new();
    /// let clone = stop.clone();
    /// std::thread::spawn(move || clone.stop()).join().expect("the thread ends well");
    /// assert!(stop.is_stopped());
    /// ```
    pub fn stop(&self) {
        *self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.woken.notify_all();
    }

    /// Returns `true` once the token is stopped. A stopped token stays so.
    ///
    /// ```
    /// # use livemark::StopToken;
    /// let stop = StopToken::new();
    /// stop.stop();
    /// assert!(stop.clone().is_stopped());
    /// ```
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `time`, or until the token is stopped. Returns `true` if it is.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let stopped = self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.woken.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl fmt::Debug for StopToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StopToken").field(&self.is_stopped()).finish()
    }
}
