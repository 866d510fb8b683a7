//! How one job is judged.
//!
//! An owner is looked up under a pin of its own and copied: nothing of the user's runs under it but `Eq` and `Clone`.

use std::hash::{BuildHasher, Hash};

use super::claim::Claim;
use super::control::Control;
use super::explain::Explanation;
use super::findings::Finding;
use super::job::RunningJob;
use super::liveness::Liveness;
use super::mode::Mode;
use super::policy::StageLimits;
use super::reaper::Reaper;
use super::sweep_state::SweepState;
use super::trigger::Trigger;
use super::verdict::{Cause, DeferReason, Deferral, Proposed, Verdict};
use crate::owner::Owner;
use crate::registry::Displaces;
use crate::telemetry;
use crate::unwind;

/// Judges one job, as [`Sweep::judge`](super::Sweep::judge) says.
#[inline]
pub(super) fn judge<'r, K, V, S>(
    reaper: &Reaper<'r, K, V, S>,
    state: &mut SweepState<'_>,
    job: &RunningJob<'_, K>,
) -> Verdict<'r, K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    if state.is_within_all_limits(job) { Verdict::Healthy } else { Judge { reaper, state }.judge(job) }
}

/// How one job is judged that is past the limits of some stage.
struct Judge<'s, 'p, 'r, K, V, S> {
    reaper: &'s Reaper<'r, K, V, S>,
    state: &'s mut SweepState<'p>,
}

impl<'r, K, V, S> Judge<'_, '_, 'r, K, V, S>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    /// Judges a job that is past the limits of some stage: few are.
    #[cold]
    fn judge(&mut self, job: &RunningJob<'_, K>) -> Verdict<'r, K, V> {
        // A pause since the last look is noticed before anything is decided.
        self.state.record_look();
        let limits = *self.state.policy.stage(job.stage);
        match Trigger::of(job, &limits) {
            None => Verdict::Healthy,
            Some(Trigger::Deadline) => self.judge_overdue(job, &limits),
            Some(Trigger::Tier(proposed)) => match self.claim_unless_deferred(job, &limits) {
                Ok(claim) => self.decide(job, &limits, proposed, claim),
                Err(deferral) => self.defer(job, deferral),
            },
        }
    }

    /// Ends a job that is past its deadline, whoever holds it.
    fn judge_overdue(&mut self, job: &RunningJob<'_, K>, limits: &StageLimits) -> Verdict<'r, K, V> {
        // A machine that slept past the deadlines of all its jobs ends nobody on waking.
        if self.state.deadline_held_back(job, limits).is_some() {
            let owner = self.owner(job.id, limits);
            return self.defer(job, Deferral::new(DeferReason::BootGrace, owner));
        }
        let claims = limits.marking && matches!(self.state.policy.mode(), Mode::Honor | Mode::DeferAll);
        let claim = if claims {
            // Nobody keeps a job from a claim that displaces anyone.
            self.claim(job, Displaces::Anyone).unwrap_or_else(|_| Claim::without_a_mark())
        } else {
            Claim::without_a_mark()
        };
        self.decide(job, limits, Proposed::Reap(Cause::Backstop), claim)
    }

    /// Claims a job. A pulse in the claim is nobody's yet.
    fn claim(&self, job: &RunningJob<'_, K>, displaces: Displaces) -> Result<Claim<'r, K, V>, Owner<V>> {
        let context = (self.reaper.claim)(job);
        let pulse = (self.reaper.pulse)(&context).map(|pulse| (pulse.clone(), pulse.stamp()));
        let (guard, earlier) = self.reaper.registry.claim(job.id, context, displaces)?;
        if let Some((pulse, stamp)) = pulse {
            self.reaper.registry.record_claim_pulse(&guard, pulse, stamp);
        }
        Ok(Claim::new(guard, earlier))
    }

    /// The owner to be deferred to or displaced, where marks count.
    fn owner(&self, job: &K, limits: &StageLimits) -> Option<Owner<V>> {
        let asks = limits.marking && self.state.policy.mode() != Mode::Ignore;
        asks.then(|| self.reaper.registry.owner(job)).flatten()
    }

    /// Claims a job that nothing protects. Claims nothing where the registry is not to be written.
    fn claim_unless_deferred(
        &mut self,
        job: &RunningJob<'_, K>,
        limits: &StageLimits,
    ) -> Result<Claim<'r, K, V>, Deferral<V>> {
        let mode = self.state.policy.mode();
        let reaper = self.reaper;
        let owner = self.owner(job.id, limits);
        if let Some(reason) = self.reason_to_defer(job, limits, owner.as_ref()) {
            return Err(Deferral::new(reason, owner));
        }

        // Where another has taken over since from an owner without progress, the mark is not the reaper's to take.
        let displaceable = owner.map(|owner| owner.generation);
        if mode != Mode::Honor || !limits.marking {
            return Ok(Claim::without_a_mark());
        }
        // Check and claim are one step.
        match self.claim(job, Displaces::Only(displaceable)) {
            Ok(claim) => {
                if let Some(generation) = displaceable {
                    telemetry::stale_owner(reaper.registry.shown(job.id), generation);
                }
                Ok(claim)
            }
            Err(owner) => {
                self.state.control.counts.claim_conflicts.increment();
                telemetry::claim_conflict(self.state.control.name);
                Err(Deferral::new(DeferReason::ClaimConflict, Some(owner)))
            }
        }
    }

    /// Returns the first reason that holds, if any does.
    fn reason_to_defer(
        &self,
        job: &RunningJob<'_, K>,
        limits: &StageLimits,
        owner: Option<&Owner<V>>,
    ) -> Option<DeferReason> {
        if self.state.policy.mode() == Mode::DeferAll {
            return Some(DeferReason::DeferAll);
        }
        if job.held {
            return Some(DeferReason::Held);
        }
        let is_live = |owner| Liveness::of(owner, self.reaper, self.state, limits) != Liveness::Stale;
        if owner.is_some_and(is_live) {
            return Some(DeferReason::Owned);
        }
        self.state.boot_grace_left(limits).map(|_| DeferReason::BootGrace)
    }

    /// Turns a proposal into the verdict of this mode, and counts and tells it.
    fn decide(
        &mut self,
        job: &RunningJob<'_, K>,
        limits: &StageLimits,
        proposed: Proposed,
        claim: Claim<'r, K, V>,
    ) -> Verdict<'r, K, V> {
        let registry = &self.reaper.registry;
        let shown = registry.shown(job.id);
        let mode = self.state.policy.mode();
        if mode == Mode::DryRun {
            let verdict = Verdict::DryRun(proposed);
            if self.report_dry_run(job, Finding::Proposed(proposed), &verdict) {
                self.warn_if_unprotected(job, limits, proposed);
                if limits.marking && registry.marks() == 0 {
                    self.state.control.no_mark.get_or_init(|| telemetry::only_mark(shown, job.stage));
                }
            }
            return verdict;
        }
        if mode == Mode::Honor {
            self.warn_if_unprotected(job, limits, proposed);
        }
        // A reaper with a registry of its own finds every job unowned. Said once: the next claim is not the only mark.
        if claim.guard().is_some() && registry.marks() == 1 {
            telemetry::only_mark(shown, job.stage);
        }
        let event = telemetry::Acted {
            reaper: self.state.control.name,
            stage: job.stage,
            claim: claim.generation(),
            displaced: claim.displaced().map(|owner| owner.generation),
        };
        match proposed {
            Proposed::Redrive => {
                self.state.control.counts.redrives.increment();
                telemetry::redriven(shown, &event);
                // So soon again: what was begun then is either still going on, or was never begun.
                // An id whose `Hash` panics must not undo the claim.
                if unwind::caught(|| self.state.record(job.id, Finding::Redriven)).is_ok_and(|is_news| !is_news) {
                    telemetry::redriven_again(shown);
                }
                Verdict::Redrive(claim)
            }
            Proposed::Reap(cause) => {
                let counts = &self.state.control.counts;
                match cause {
                    Cause::WorkerLost => &counts.reaps_worker_lost,
                    Cause::Backstop => &counts.reaps_backstop,
                    Cause::RedrivesExhausted => &counts.reaps_redrives_exhausted,
                }
                .increment();
                telemetry::reaped(shown, cause.as_str(), cause.label(), &event);
                Verdict::Reap(cause, claim)
            }
        }
    }

    /// Warns of a job that is marked, and acted on all the same since its stage is not declared as marking: a stage
    /// that is misspelt would bring the incident back in silence. Looked up for this only, and only where something is
    /// done.
    fn warn_if_unprotected(&self, job: &RunningJob<'_, K>, limits: &StageLimits, proposed: Proposed) {
        if limits.marking || proposed == Proposed::Reap(Cause::Backstop) {
            return;
        }
        if let Some(owner) = self.reaper.registry.owner(job.id) {
            telemetry::unprotected(self.reaper.registry.shown(job.id), job.stage, owner.generation);
        }
    }

    fn defer(&mut self, job: &RunningJob<'_, K>, deferral: Deferral<V>) -> Verdict<'r, K, V> {
        let reason = deferral.reason;
        let finding = Finding::Deferred(reason);
        if self.state.policy.mode() == Mode::DryRun {
            let verdict = Verdict::Defer(deferral);
            self.report_dry_run(job, finding, &verdict);
            return verdict;
        }
        let is_news = self.state.record(job.id, finding);
        let Control { counts, name, .. } = self.state.control;
        match reason {
            DeferReason::Owned | DeferReason::ClaimConflict => &counts.finalizer_defers_total,
            DeferReason::Held => &counts.defers_held,
            DeferReason::BootGrace => &counts.defers_boot_grace,
            DeferReason::DeferAll => &counts.defers_defer_all,
        }
        .increment();
        let event = telemetry::Deferred {
            reaper: name,
            reason: reason.as_str(),
            to_owner: reason.is_for_the_owner(),
            owner: deferral.owner.as_ref(),
            is_news,
        };
        telemetry::deferred(self.reaper.registry.shown(job.id), &event);
        Verdict::Defer(deferral)
    }

    /// Tells what a dry run found. Counts nothing. Returns whether it is news.
    fn report_dry_run(&mut self, job: &RunningJob<'_, K>, finding: Finding, verdict: &Verdict<'r, K, V>) -> bool {
        let is_news = self.state.record(job.id, finding);
        let explanation = Explanation::new(self.reaper, self.state, job, verdict);
        telemetry::dry_run(self.reaper.registry.shown(job.id), &explanation, is_news);
        is_news
    }
}
