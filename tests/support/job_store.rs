//! A job store that follows a script.

use std::fmt::Display;
use std::panic;

use livemark::{Cause, Claim, JobStore, Outcome, RunError, RunningJob, StopToken};

use super::jobs::{finished, overdue, running};

/// Panics without the panic hook's report; with a payload that takes no memory, as some are forgotten.
pub(crate) fn blow_up() -> ! {
    struct BlownUp;
    panic::resume_unwind(Box::new(BlownUp))
}

/// A job store with an error of each kind in three turns of one loop, and with a row for each kind of verdict.
pub(crate) struct Troubled<E> {
    pub(crate) turn: usize,
    error: E,
    stop: StopToken,
    /// What the errors said.
    pub(crate) told: Vec<String>,
}

impl<'r, E: Clone + Display> JobStore<'r> for Troubled<E> {
    type Row = u64;
    type Error = E;
    type Rows = Vec<Result<u64, E>>;

    fn list(&mut self) -> Result<Self::Rows, E> {
        self.turn += 1;
        match self.turn {
            1 => Err(self.error.clone()),
            2 => Ok(vec![Err(self.error.clone()), Ok(1), Ok(2), Ok(3), Ok(4), Ok(5)]),
            _ => {
                self.stop.stop();
                Ok(vec![])
            }
        }
    }

    fn job<'a>(&self, id: &'a u64) -> RunningJob<'a> {
        match id {
            4 => overdue(id),
            5 => running(id),
            _ => finished(id),
        }
    }

    fn redrive(&mut self, job: u64, _: Claim<'r>) -> Result<Outcome, E> {
        match job {
            1 => Err(self.error.clone()),
            2 => blow_up(),
            _ => Ok(Outcome::Refused),
        }
    }

    fn reap(&mut self, _: u64, _: Cause, _: Claim<'r>) -> Result<Outcome, E> {
        Ok(Outcome::Done)
    }

    fn on_error(&mut self, error: &RunError<u64, E>) {
        self.told.push(error.to_string());
    }
}

/// Returns such a job store, and the token that it stops at its third listing.
pub(crate) fn troubled<E>(error: E) -> (Troubled<E>, StopToken) {
    let stop = StopToken::new();
    (Troubled { turn: 0, error, stop: stop.clone(), told: vec![] }, stop)
}
