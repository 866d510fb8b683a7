//! What came of one turn of the loop: [`SweepReport`].

/// The counts of one turn of the loop. [`Reaper::run_once`](super::Reaper::run_once) returns them.
///
/// ```
/// # use std::time::Duration;
/// # use livemark::{Policy, Reaper, Registry};
/// # let registry: Registry = Registry::new();
/// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// # let reaper = Reaper::new(&registry, policy);
/// # use livemark::{Cause, Claim, JobStore, Outcome, RunningJob};
/// # struct Jobs;
/// # impl<'r> JobStore<'r> for Jobs {
/// #     type Row = u64;
/// #     type Error = String;
/// #     type Rows = Vec<Result<u64, String>>;
/// #     fn list(&mut self) -> Result<Self::Rows, String> { Ok(vec![Ok(7), Err("bad".to_owned())]) }
/// #     fn job<'a>(&self, id: &'a u64) -> RunningJob<'a> { RunningJob::new(id, "merge", Duration::from_secs(5)) }
/// #     fn redrive(&mut self, _: u64, _: Claim<'r>) -> Result<Outcome, String> { Ok(Outcome::Done) }
/// #     fn reap(&mut self, _: u64, _: Cause, _: Claim<'r>) -> Result<Outcome, String> { Ok(Outcome::Done) }
/// # }
/// let report = reaper.run_once(&mut Jobs); // one healthy job and one bad row
/// assert_eq!((report.listed, report.failed, report.redriven), (2, 1, 0));
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SweepReport {
    /// Rows that were listed and had their turn, bad rows included.
    pub listed: u64,
    /// Jobs left alone for now.
    pub deferred: u64,
    /// Jobs whose redrive the store took.
    pub redriven: u64,
    /// Jobs whose end the store took.
    pub reaped: u64,
    /// Acts that a dry run proposed.
    pub proposed: u64,
    /// Verdicts that the store's compare-and-set refused.
    pub refused: u64,
    /// Errors of the store: in a listing, a row or an action.
    pub failed: u64,
    /// Panics that were caught.
    pub panicked: u64,
    /// The turn ended before the listing did, because the listing panicked midway.
    pub stopped: bool,
}
