//! Up to which revision nothing is still to come: [`Horizon`]. Arithmetic only.

use std::collections::VecDeque;

/// What a snapshot of the database tells beside its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The oldest transaction that was under way.
    pub(crate) oldest: u64,
    /// The number of the reader's own transaction, if it has drawn one: all that were drawn before are less.
    pub(crate) drawn: Option<u64>,
    /// The latest revision that was drawn, read after the snapshot was taken.
    pub(crate) latest: u64,
}

/// Up to which revision nothing is still to come.
///
/// Revisions are drawn from a sequence, and are committed in any order: a later one may be seen first. Whoever draws one has
/// the number of its transaction already. So:
///
/// 1. A snapshot says that `latest` was drawn. Whoever drew a revision up to there had a number by then.
/// 2. A later reader draws a number itself. All those numbers are less.
/// 3. A snapshot says that all transactions below that number are over. Then that snapshot has all that was drawn in 1.
///
/// The end of a snapshot does not serve in 2. It is one more than the latest number whose transaction is over, and one that
/// is under way may be beyond it.
#[derive(Debug, Default)]
pub(crate) struct Horizon {
    whole: u64,
    /// What was drawn, and the number below which its transactions are, once that is known.
    drawn: VecDeque<(u64, Option<u64>)>,
}

impl Horizon {
    pub(crate) fn at(whole: u64) -> Self {
        Self { whole, drawn: VecDeque::new() }
    }

    /// Whether the next reader is to draw a number. While nothing changes, none does.
    pub(crate) fn wants_a_number(&self) -> bool {
        self.drawn.iter().any(|(_, below)| below.is_none())
    }

    /// Takes up a snapshot, each later than the one before. Returns up to where this one is whole.
    pub(crate) fn see(&mut self, seen: Seen) -> u64 {
        for (_, below) in self.drawn.iter_mut().filter(|(_, below)| below.is_none()) {
            *below = seen.drawn;
        }
        while let Some((drawn, _)) =
            self.drawn.front().filter(|(_, below)| below.is_some_and(|below| below <= seen.oldest))
        {
            self.whole = self.whole.max(*drawn);
            self.drawn.pop_front();
        }
        // While a transaction stays open, what was drawn meanwhile is kept once.
        const MOST: usize = 64;
        if self.drawn.len() < MOST
            && self.drawn.back().is_none_or(|(drawn, _)| *drawn < seen.latest)
            && seen.latest > self.whole
        {
            self.drawn.push_back((seen.latest, None));
        }
        self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A snapshot of a reader that draws a number where one is wanted: the next one.
    fn see(horizon: &mut Horizon, oldest: u64, next: u64, latest: u64) -> u64 {
        let drawn = horizon.wants_a_number().then_some(next);
        horizon.see(Seen { oldest, drawn, latest })
    }

    /// Seen to fail with a horizon at the latest revision that was read: the transaction with number 101 has drawn 8 and not
    /// committed it.
    #[test]
    fn what_is_still_to_come_is_beyond_it() {
        let mut horizon = Horizon::at(5);
        assert_eq!(see(&mut horizon, 101, 103, 9), 5);
        assert_eq!(see(&mut horizon, 101, 104, 9), 5, "it is under way");
        assert_eq!(see(&mut horizon, 104, 105, 12), 9, "it is over, and this snapshot has what it did");
        assert_eq!(see(&mut horizon, 106, 106, 12), 12);
        assert!(!horizon.wants_a_number(), "nothing has changed");
    }

    /// The newest transaction is under way, and no other has ended since. A user's first program found this. Seen to fail with
    /// the end of the snapshot, which is that transaction's own number: it counts as over.
    #[test]
    fn the_newest_transaction_is_waited_for() {
        let mut horizon = Horizon::at(0);
        for _ in 0..3 {
            // Number 100 has drawn 7, and the reader draws 101.
            assert_eq!(see(&mut horizon, 100, 101, 7), 0);
        }
        assert_eq!(see(&mut horizon, 102, 102, 7), 7);
    }

    #[test]
    fn a_transaction_that_stays_open_costs_no_memory() {
        let mut horizon = Horizon::at(0);
        for at in 1..10_000 {
            assert_eq!(see(&mut horizon, 50, 50 + at, at), 0);
        }
        assert!(horizon.drawn.len() <= 64);
        see(&mut horizon, 20_000, 20_000, 20_000);
        assert!(see(&mut horizon, 20_001, 20_001, 20_000) > 0);
    }
}
