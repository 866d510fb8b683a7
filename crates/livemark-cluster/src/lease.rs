//! For how long a process may believe in its marks: [`Belief`]. Arithmetic only, without a clock and without a call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::codec::nanoseconds;

/// Until when a lease is certainly there, by the clock of this process.
#[derive(Debug)]
pub(crate) struct Belief {
    margin: Duration,
    granted: Duration,
    /// Nanoseconds on the session's clock. It only grows.
    deadline: AtomicU64,
}

impl Belief {
    /// Begins with a grant that was asked for at `sent`.
    pub(crate) fn new(sent: Duration, granted: Duration, margin: Duration) -> Self {
        let belief = Self { margin, granted, deadline: AtomicU64::new(0) };
        belief.renewed(sent, granted);
        belief
    }

    /// Takes up an answer to a renewal that was sent at `sent`.
    ///
    /// It counts from the sending of exactly this request: the engine may have renewed the lease at once, and have
    /// answered late. More than was granted is not believed: engines have answered absurd times (etcd-io/etcd#17642).
    pub(crate) fn renewed(&self, sent: Duration, ttl: Duration) {
        let until = sent.saturating_add(ttl.min(self.granted)).saturating_sub(self.margin);
        // Relaxed (no edge): a number by itself. Nothing is published with it.
        self.deadline.fetch_max(nanoseconds(until), Ordering::Relaxed);
    }

    /// Returns how much is left at `now`. `None` once it is over.
    pub(crate) fn left(&self, now: Duration) -> Option<Duration> {
        // Relaxed (no edge): as above. An older value ends sooner.
        let deadline = Duration::from_nanos(self.deadline.load(Ordering::Relaxed));
        deadline.checked_sub(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Seen to fail with a deadline that counts from the answer.
    #[test]
    fn it_counts_from_the_sending() {
        let belief = Belief::new(seconds(100), seconds(10), seconds(2));
        assert_eq!(belief.left(seconds(100)), Some(seconds(8)));
        belief.renewed(seconds(103), seconds(10));
        assert_eq!(belief.left(seconds(109)), Some(seconds(2)));
        assert_eq!((belief.left(seconds(111)), belief.left(seconds(500))), (None, None), "exactly then it is over");
    }

    /// Seen to fail with the times that an engine answers, whatever they are.
    #[test]
    fn an_absurd_answer_is_not_believed() {
        let belief = Belief::new(seconds(100), seconds(10), seconds(2));
        belief.renewed(seconds(101), seconds(9_223_372_036));
        assert_eq!(belief.left(seconds(101)), Some(seconds(8)));
        belief.renewed(seconds(102), seconds(1));
        assert_eq!(belief.left(seconds(102)), Some(seconds(7)), "an earlier answer was better, and holds");
    }
}
