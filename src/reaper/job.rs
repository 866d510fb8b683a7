//! What goes into [`Sweep::judge`](super::Sweep::judge): [`RunningJob`].

use std::fmt;
use std::time::Duration;

/// A running job as the job store shows it: an id, a stage, and ages.
///
/// Ages are [`Duration`]s. Compute them with saturating subtraction, so that a clock that went backwards counts as zero.
///
/// ```
/// use std::time::Duration;
/// use livemark::RunningJob;
///
/// // Started 400 s ago. Its process exited 310 s ago, and its final state is not committed.
/// let job = RunningJob::new(&7_u64, "merge", Duration::from_secs(400)).finished_for(Duration::from_secs(310));
/// assert_eq!(job.finished_for, Some(Duration::from_secs(310)));
///
/// // Its worker was last seen 90 s ago, but a child process is there. It was redriven twice.
/// # let child_is_alive = true;
/// let job = RunningJob::new(&8_u64, "build", Duration::from_secs(400))
///     .lost_for(Duration::from_secs(90))
///     .held(child_is_alive)
///     .redrives(2);
/// assert!(job.held && job.finished_for.is_none());
/// ```
///
/// Set the field where an age is optional, like a nullable column:
///
/// ```
/// # use std::time::Duration;
/// # use livemark::RunningJob;
/// # let column: Option<Duration> = None;
/// let mut job = RunningJob::new(&7_u64, "merge", Duration::from_secs(400));
/// job.finished_for = column;
/// ```
#[non_exhaustive]
pub struct RunningJob<'a, K = u64> {
    /// The id that monitors mark.
    pub id: &'a K,
    /// The stage whose rules apply.
    pub stage: &'a str,
    /// How long ago the job was *first* started, over all of its runs: the deadline bounds them together.
    pub running_for: Duration,
    /// How long ago the process of the job's latest run exited, if it has. A job store keeps this as the stamp
    /// `finished_at`, and a redrive restarts the stamp. A finished job is not lost.
    pub finished_for: Option<Duration>,
    /// How long ago the job's worker was last seen, if the worker is gone.
    pub lost_for: Option<Duration>,
    /// The job is alive by other means than a mark.
    pub held: bool,
    /// How often the job was redriven already, where the store counts.
    pub redrives: u32,
}

impl<'a, K> RunningJob<'a, K> {
    /// Creates a job that was first started `running_for` ago, and is neither finished nor lost. [`RunningJob`] has an
    /// example.
    #[must_use]
    pub const fn new(id: &'a K, stage: &'a str, running_for: Duration) -> Self {
        Self { id, stage, running_for, finished_for: None, lost_for: None, held: false, redrives: 0 }
    }

    /// Sets how long ago the process of the job's latest run exited. [`RunningJob`] has an example.
    #[must_use]
    pub const fn finished_for(mut self, age: Duration) -> Self {
        self.finished_for = Some(age);
        self
    }

    /// Sets how long ago the job's worker was last seen. [`RunningJob`] has an example.
    #[must_use]
    pub const fn lost_for(mut self, age: Duration) -> Self {
        self.lost_for = Some(age);
        self
    }

    /// Sets whether the job is alive by other means than its mark. Only the deadline acts on such a job, in every stage
    /// and every mode.
    ///
    /// Other means are a mark of the job's worker, a child process, or a fresh lease of another host.
    ///
    /// [`RunningJob`] has an example.
    #[must_use]
    pub const fn held(mut self, held: bool) -> Self {
        self.held = held;
        self
    }

    /// Sets how often the job was redriven already. A job that was redriven
    /// [`max_redrives`](crate::PolicyBuilder::max_redrives) times is reaped instead.
    ///
    /// [`RunningJob`] has an example.
    #[must_use]
    pub const fn redrives(mut self, redrives: u32) -> Self {
        self.redrives = redrives;
        self
    }
}

impl<K> Clone for RunningJob<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for RunningJob<'_, K> {}

impl<K: PartialEq> PartialEq for RunningJob<'_, K> {
    fn eq(&self, other: &Self) -> bool {
        let ages = |job: &Self| (job.running_for, job.finished_for, job.lost_for, job.held, job.redrives);
        self.id == other.id && self.stage == other.stage && ages(self) == ages(other)
    }
}

impl<K: Eq> Eq for RunningJob<'_, K> {}

impl<K: fmt::Debug> fmt::Debug for RunningJob<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, stage, running_for, finished_for, lost_for, held, redrives } = self;
        f.debug_struct("RunningJob")
            .field("id", id)
            .field("stage", stage)
            .field("running_for", running_for)
            .field("finished_for", finished_for)
            .field("lost_for", lost_for)
            .field("held", held)
            .field("redrives", redrives)
            .finish()
    }
}
