//! What holds in one stage: [`StageLimits`].

use std::time::Duration;

/// The limits in force in one stage, whether they are its own, the policy's or defaults.
///
/// [`Policy::stage`](crate::Policy::stage) returns them.
///
/// ```
/// use std::time::Duration;
/// use livemark::Policy;
///
/// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// let limits = policy.stage("merge");
/// assert!(limits.marking);
/// assert_eq!((limits.finalize_grace, limits.lost_grace), (Duration::from_secs(300), Duration::from_secs(60)));
/// assert_eq!((limits.hard_deadline, limits.max_redrives), (Some(Duration::from_secs(3600)), 3));
/// assert_eq!((limits.boot_grace, limits.stale_after), (None, None));
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageLimits {
    /// The stage's monitors mark, so that a missing mark means that no finalizer is alive.
    pub marking: bool,
    /// A job may be finished and not committed for this long. See
    /// [`PolicyBuilder::finalize_grace`](crate::PolicyBuilder::finalize_grace).
    pub finalize_grace: Duration,
    /// A job's worker may be lost for this long. See [`PolicyBuilder::lost_grace`](crate::PolicyBuilder::lost_grace).
    pub lost_grace: Duration,
    /// A job may run for this long in all, or forever without a backstop. See
    /// [`PolicyBuilder::hard_deadline`](crate::PolicyBuilder::hard_deadline).
    pub hard_deadline: Option<Duration>,
    /// A job may be redriven this often. See [`PolicyBuilder::max_redrives`](crate::PolicyBuilder::max_redrives).
    pub max_redrives: u32,
    /// The reaper waits for this long after it was away. See
    /// [`PolicyBuilder::boot_grace`](crate::PolicyBuilder::boot_grace).
    pub boot_grace: Option<Duration>,
    /// An owner may make no progress for this long. See
    /// [`PolicyBuilder::stale_after`](crate::PolicyBuilder::stale_after).
    pub stale_after: Option<Duration>,
}
