//! What operators switch a reaper with and watch it by: [`ReaperHandle`], and the methods that the reaper has as well.

use std::fmt;
use std::sync::Arc;

use super::control::Control;
use super::mode::Mode;
use super::policy::Policy;
use super::stats::ReaperStats;

/// A handle that switches a reaper and watches it from elsewhere: an admin route, a signal's thread, a dashboard.
///
/// A handle is `Clone + Send + Sync + 'static` and has no type parameters, whatever the reaper's are. It outlives the
/// reaper, and then shows the last policy and counts.
///
/// ```
/// # use std::time::Duration;
/// use livemark::{Mode, Policy, Reaper, ReaperHandle, Registry};
///
/// struct AppState {
///     reaper: ReaperHandle,
/// }
///
/// let registry: Registry<String, &str> = Registry::new();
/// let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
/// let reaper = Reaper::with_claim(&registry, policy, |_job| "reaper");
/// let state = AppState { reaper: reaper.handle() };
/// state.reaper.set_mode(Mode::DeferAll); // the safe brake
/// assert_eq!(reaper.policy().mode(), Mode::DeferAll);
/// # Ok::<(), livemark::PolicyError>(())
/// ```
#[derive(Clone)]
pub struct ReaperHandle(pub(super) Arc<Control>);

/// The six methods that a reaper and its handle share, documented once.
macro_rules! control_methods {
    () => {
        /// Returns the policy in force.
        ///
        /// ```
        /// # use std::time::Duration;
        /// # use livemark::{Policy, Reaper, Registry};
        /// # let registry: Registry = Registry::new();
        /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
        /// # let reaper = Reaper::new(&registry, policy.clone());
        /// assert_eq!(*reaper.policy(), policy);
        /// assert_eq!(*reaper.handle().policy(), policy);
        /// # Ok::<(), livemark::PolicyError>(())
        /// ```
        #[must_use]
        pub fn policy(&self) -> std::sync::Arc<Policy> {
            self.control().policy.load_full()
        }

        /// Puts another policy in force, from the next sweep on. A sweep under way keeps its policy. Lock-free.
        ///
        /// Use `update_policy` to change one setting. It loses no other change.
        ///
        /// ```
        /// # use std::time::Duration;
        /// # use livemark::{Policy, Reaper, Registry};
        /// # let registry: Registry = Registry::new();
        /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
        /// let reaper = Reaper::new(&registry, policy);
        /// let other = Policy::builder().hard_deadline(Duration::from_secs(7200)).marking_stage("merge").build()?;
        /// reaper.set_policy(other.clone());
        /// assert_eq!(*reaper.policy(), other);
        /// # Ok::<(), livemark::PolicyError>(())
        /// ```
        pub fn set_policy(&self, policy: Policy) {
            self.control().policy.store(std::sync::Arc::new(policy));
        }

        /// Replaces the policy in force by what `change` makes of it, from the next sweep on. Lock-free.
        ///
        /// If another update comes first, `change` is called again, so no update is lost.
        ///
        /// ```
        /// # use std::time::Duration;
        /// # use livemark::{Mode, Policy, Reaper, Registry};
        /// # let registry: Registry = Registry::new();
        /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
        /// # let reaper = Reaper::new(&registry, policy);
        /// reaper.update_policy(|policy| policy.with_mode(Mode::DryRun));
        /// assert_eq!(reaper.policy().mode(), Mode::DryRun);
        /// # Ok::<(), livemark::PolicyError>(())
        /// ```
        pub fn update_policy(&self, mut change: impl FnMut(&Policy) -> Policy) {
            let Ok(()) = self.control().try_update_policy(|policy| Ok::<_, std::convert::Infallible>(change(policy)));
        }

        /// Replaces the policy in force as `update_policy` does, unless `change` returns an error.
        ///
        /// # Errors
        ///
        /// Returns the error of `change`. The policy in force stays.
        ///
        /// ```
        /// # use std::time::Duration;
        /// # use livemark::{Policy, Reaper, Registry};
        /// # let registry: Registry = Registry::new();
        /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
        /// # let reaper = Reaper::new(&registry, policy.clone());
        /// let shorter = |policy: &Policy| policy.to_builder().hard_deadline(Duration::from_secs(1)).build();
        /// assert!(reaper.try_update_policy(shorter).is_err(), "shorter than the graces");
        /// assert_eq!(*reaper.policy(), policy);
        /// # Ok::<(), livemark::PolicyError>(())
        /// ```
        pub fn try_update_policy<E>(&self, change: impl FnMut(&Policy) -> Result<Policy, E>) -> Result<(), E> {
            self.control().try_update_policy(change)
        }

        /// Changes the mode, from the next sweep on. Loses no other change. Lock-free.
        ///
        /// This is the kill switch, the brake and the dry run: see [`Mode`].
        ///
        /// ```
        /// # use std::time::Duration;
        /// # use livemark::{Mode, Policy, Reaper, Registry};
        /// # let registry: Registry = Registry::new();
        /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
        /// # let reaper = Reaper::new(&registry, policy);
        /// reaper.set_mode(Mode::Ignore);
        /// assert_eq!(reaper.policy().mode(), Mode::Ignore);
        /// # Ok::<(), livemark::PolicyError>(())
        /// ```
        pub fn set_mode(&self, mode: Mode) {
            self.update_policy(|policy| policy.with_mode(mode));
        }

        /// Returns what the reaper has counted so far.
        ///
        /// ```
        /// # use std::time::Duration;
        /// # use livemark::{Finalizer, Policy, Reaper, Registry, RunningJob, Verdict};
        /// # let registry: Registry = Registry::new();
        /// # let policy = Policy::builder().hard_deadline(Duration::from_secs(3600)).marking_stage("merge").build()?;
        /// # let reaper = Reaper::new(&registry, policy);
        /// # let past = Duration::from_secs(400);
        /// # let job = RunningJob::new(&7, "merge", past).finished_for(past);
        /// let _monitor = registry.mark(7, Finalizer::new(Some(1), "merge"));
        /// assert!(matches!(reaper.sweep().judge(&job), Verdict::Defer(_)));
        /// let stats = reaper.stats();
        /// assert_eq!((stats.sweeps, stats.finalizer_defers_total, stats.redrives), (1, 1, 0));
        /// # Ok::<(), livemark::PolicyError>(())
        /// ```
        #[must_use]
        pub fn stats(&self) -> ReaperStats {
            self.control().counts.read()
        }
    };
}

pub(super) use control_methods;

impl ReaperHandle {
    fn control(&self) -> &Control {
        &self.0
    }

    control_methods! {}
}

impl fmt::Debug for ReaperHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaperHandle")
            .field("name", &self.0.name)
            .field("policy", &self.policy())
            .field("stats", &self.stats())
            .finish()
    }
}
