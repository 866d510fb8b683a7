//! The reaper of a cluster: [`ClusterReaper`], the library's own over the mirror, with claims in the engine.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use livemark::{
    AsyncJobStore, Claimed, Claimer, DeferReason, Finalizer, Intent, Policy, Reaper, ReaperHandle, RunningJob,
    SweepReport, Takes,
};
use tokio::time::{Instant, timeout_at};

use crate::codec::{Context, JobKey};
use crate::engine::Lease;
use crate::guard::{ClusterGuard, Token};
use crate::keys::mark_key;
use crate::mirror::Remote;
use crate::session::{Failed, Over, Session};

/// A claim of a cluster's reaper: [`livemark::Claim`], with a guard that every process sees.
pub type Claim<K = u64, C = Finalizer> = livemark::Claim<'static, K, Remote<C>, ClusterGuard<K, C>>;

/// A verdict of a cluster's reaper: [`livemark::Verdict`], with such claims.
pub type Verdict<K = u64, C = Finalizer> = livemark::Verdict<'static, K, Remote<C>, ClusterGuard<K, C>>;

/// A reaper for one of several processes: [`livemark::Reaper`] by the mirror of all marks, with claims in the engine.
///
/// Each process may have one. The job store is an [`AsyncJobStore`] with [`Remote`] contexts and [`ClusterGuard`]s.
pub struct ClusterReaper<K: JobKey = u64, C: Context = Finalizer> {
    session: Session<K, C>,
    reaper: Reaper<'static, K, Remote<C>>,
    is_fresh: Arc<AtomicBool>,
}

impl<K: JobKey> ClusterReaper<K, Finalizer> {
    /// Creates a reaper. Its own claims have a [`Finalizer`] with no run and the job's stage.
    #[must_use]
    pub fn new(session: &Session<K, Finalizer>, policy: Policy) -> Self {
        Self::with_claim(session, policy, |job| Finalizer::new(None, job.stage))
    }
}

impl<K: JobKey, C: Context> ClusterReaper<K, C> {
    /// Creates a reaper. Its own claims have the context that `claim` returns for the job.
    #[must_use]
    pub fn with_claim(
        session: &Session<K, C>,
        policy: Policy,
        claim: impl Fn(&RunningJob<'_, K>) -> C + Send + Sync + 'static,
    ) -> Self {
        let is_fresh = Arc::new(AtomicBool::new(false));
        let (fresh, view) = (Arc::clone(&is_fresh), session.view());
        let gate = move |job: &K| {
            // Relaxed (no edge): set before the sweep that asks it, by the same task.
            if !fresh.load(Ordering::Relaxed) {
                return Some(DeferReason::ViewStale);
            }
            (view.may_have_missed() || view.is_settling(job)).then_some(DeferReason::Settling)
        };
        let process: Arc<str> = session.0.inner.config.process.as_str().into();
        let lease = session.lease();
        // What is claimed is claimed in the engine: this only carries the context there.
        let carried = move |job: &RunningJob<'_, K>| Remote {
            token: Token::new(0, 0),
            lease,
            process: Arc::clone(&process),
            context: claim(job),
            pulse: None,
        };
        let reaper = Reaper::with_claim(session.view().registry(), policy, carried)
            .with_gate(gate)
            .with_pulse(|remote| remote.pulse.as_ref())
            .with_summary(|remote, f| write!(f, "{}, token {}", remote.process, remote.token));
        Self { session: session.clone(), reaper, is_fresh }
    }

    /// Returns a handle for whoever switches the reaper and watches it.
    #[must_use]
    pub fn handle(&self) -> ReaperHandle {
        self.reaper.handle()
    }

    /// Sweeps once: sees to it that the mirror is up to date, judges by it, and claims in the engine.
    ///
    /// While the mirror cannot be shown to be up to date, what looks dead is left alone. Jobs past their deadline are
    /// ended all the same, without a claim where the engine does not answer: the job store decides. For all of them
    /// together the engine is waited for no longer than for one call.
    pub async fn run_once<J>(&self, store: &mut J) -> SweepReport
    where
        J: AsyncJobStore<K, Remote<C>, ClusterGuard<K, C>>,
    {
        let is_fresh = self.session.view().barrier().await.is_ok();
        // Relaxed (no edge): asked by the sweep below, in this task.
        let was_fresh = self.is_fresh.swap(is_fresh, Ordering::Relaxed);
        if is_fresh && !was_fresh {
            // It has not seen who owns what: look twice before it acts.
            self.reaper.restart_boot_grace();
        }
        let patience = self.session.0.inner.config.call_timeout;
        let mut claims = Claims { session: self.session.clone(), patience };
        self.reaper.run_once_claiming(store, &mut claims).await
    }
}

impl<K: JobKey, C: Context> fmt::Debug for ClusterReaper<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterReaper").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Claims in the engine, for one sweep.
struct Claims<K: JobKey, C: Context> {
    session: Session<K, C>,
    /// How much longer it is waited for answers, in this sweep.
    patience: Duration,
}

impl<K: JobKey, C: Context> Claimer<K, Remote<C>> for Claims<K, C> {
    type Mark = ClusterGuard<K, C>;

    async fn claim(
        &mut self,
        job: K,
        carried: Remote<C>,
        intent: &Intent<Remote<C>>,
    ) -> Claimed<Remote<C>, ClusterGuard<K, C>> {
        let inner = &self.session.0.inner;
        // The backstop takes a job from anyone, and needs no news of its owner. All else needs them.
        let is_able = if intent.takes() == Takes::Anyone { inner.has_lease() } else { inner.is_held() };
        if !is_able || self.patience.is_zero() {
            return Claimed::Unavailable;
        }
        let registry = self.session.view().registry().clone();
        let displaced = registry.owner(&job);
        let over = match (intent.takes(), intent.stale_owner()) {
            (Takes::Nothing, _) => return Claimed::NotAsked,
            (Takes::Anyone, _) => Over::Anyone,
            (Takes::Unowned, None) => Over::Nobody,
            // Exactly the mark that was seen to be stale.
            (Takes::Unowned, Some(stale)) => match inner.mirror.mark_of(&mark_key(&job)) {
                Some((revision, token)) if token == stale.value.token => Over::Only(revision),
                Some(_) => return displaced.map_or(Claimed::Unavailable, Claimed::Conflict),
                None => Over::Nobody,
            },
        };
        let began = Instant::now();
        let attempt = self.session.attempt(job.clone(), &carried.context, over, true);
        let done = timeout_at(began + self.patience, attempt).await;
        let took = match &done {
            // One that answers costs no patience.
            Ok(Ok(_) | Err(Failed::Occupied(_))) => Duration::ZERO,
            _ => began.elapsed(),
        };
        self.patience = self.patience.saturating_sub(took);
        match done {
            Ok(Ok(mark)) => Claimed::Won { mark, displaced },
            Ok(Err(Failed::Occupied(row))) => {
                inner.take_up(&mark_key(&job), &row);
                registry.owner(&job).map_or(Claimed::Unavailable, Claimed::Conflict)
            }
            // What came through all the same is a ghost, and removed.
            Ok(Err(Failed::Mark(_))) | Err(_) => Claimed::Unavailable,
        }
    }
}

/// Shows a lease as operators' tools do.
impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}
