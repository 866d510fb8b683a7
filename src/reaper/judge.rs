//! How one job is judged. [`Sweep::judge`](super::Sweep::judge) has the table of decisions.
//!
//! An owner is looked up under a pin of its own and copied. Under the pin nothing of the user's runs but `Eq` and
//! `Clone`.

use std::hash::{BuildHasher, Hash};

use super::claim::Claim;
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

/// Judges one job that is past the limits of some stage.
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
    #[cold]
    fn judge(&mut self, job: &RunningJob<'_, K>) -> Verdict<'r, K, V> {
        // Notice a pause since the last look before anything is decided.
        self.state.record_look();
        // Compare with the limits of the job's own stage: it may be within these.
        let limits = *self.state.policy.stage(job.stage);
        match Trigger::of(job, &limits) {
            None => Verdict::Healthy,
            Some(Trigger::Deadline) => self.judge_overdue(job, &limits),
            Some(trigger @ (Trigger::Lost | Trigger::Finished(_))) => self.judge_dead(job, &limits, trigger.proposal()),
        }
    }

    /// Ends a job that is past its deadline, whoever holds it.
    fn judge_overdue(&mut self, job: &RunningJob<'_, K>, limits: &StageLimits) -> Verdict<'r, K, V> {
        // A machine that slept past the deadlines of all its jobs ends nobody on waking.
        if self.state.deadline_held_back(job, limits).is_some() {
            let owner = self.owner(job.id, limits);
            return self.defer(job, Deferral::new(DeferReason::BootGrace, owner));
        }
        // Take the mark from whoever holds it, where marks count and the mode writes.
        let claims = limits.marking && matches!(self.state.policy.mode(), Mode::Honor | Mode::DeferAll);
        let claim = if claims {
            // Nobody keeps a job from a claim that displaces anyone.
            self.claim(job, Displaces::Anyone).unwrap_or_else(|_| Claim::without_a_mark())
        } else {
            Claim::without_a_mark()
        };
        self.decide(job, limits, Trigger::Deadline.proposal(), claim)
    }

    /// Acts on a job that looks dead, unless something protects it.
    fn judge_dead(&mut self, job: &RunningJob<'_, K>, limits: &StageLimits, proposed: Proposed) -> Verdict<'r, K, V> {
        match self.claim_unless_deferred(job, limits) {
            Ok(claim) => self.decide(job, limits, proposed, claim),
            Err(deferral) => self.defer(job, deferral),
        }
    }

    /// Claims a job that nothing protects. Claims nothing where the registry is not to be written.
    fn claim_unless_deferred(
        &mut self,
        job: &RunningJob<'_, K>,
        limits: &StageLimits,
    ) -> Result<Claim<'r, K, V>, Deferral<V>> {
        // Look: who owns the job, and does anything protect it?
        let owner = self.owner(job.id, limits);
        if let Some(reason) = self.reason_to_defer(job, limits, owner.as_ref()) {
            return Err(Deferral::new(reason, owner));
        }
        // Where no registry is in play, the job store's compare-and-set decides alone.
        if self.state.policy.mode() != Mode::Honor || !limits.marking {
            return Ok(Claim::without_a_mark());
        }
        // Claim, in one step with the check: the job must still be unowned, or have the stale owner that was seen.
        // Whoever has marked it in between keeps it.
        let stale = owner.map(|owner| owner.generation);
        match self.claim(job, Displaces::Only(stale)) {
            Ok(claim) => {
                if let Some(generation) = stale {
                    telemetry::stale_owner(self.reaper.registry.shown(job.id), generation);
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

    /// Returns the owner to be deferred to or displaced. Asks only where marks count.
    fn owner(&self, job: &K, limits: &StageLimits) -> Option<Owner<V>> {
        let asks = limits.marking && self.state.policy.mode() != Mode::Ignore;
        asks.then(|| self.reaper.registry.owner(job)).flatten()
    }

    /// Claims a job with a context of the reaper's. Returns the owner that keeps the job, if one does.
    fn claim(&self, job: &RunningJob<'_, K>, displaces: Displaces) -> Result<Claim<'r, K, V>, Owner<V>> {
        let context = (self.reaper.claim)(job);
        // Note what the pulse showed before anybody can find it.
        let pulse = (self.reaper.pulse)(&context).map(|pulse| (pulse.clone(), pulse.stamp()));
        let (guard, owner) = self.reaper.registry.claim(job.id, context, displaces)?;
        // Nobody may have this pulse: it counts from its first beat on.
        if let Some((pulse, stamp)) = pulse {
            self.reaper.registry.record_claim_pulse(&guard, pulse, stamp);
        }
        Ok(Claim::new(guard, owner))
    }

    /// Turns a proposal into the verdict of this mode. Counts it and reports it.
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

        // A dry run says it, and warns of what would go wrong, once for each change.
        if mode == Mode::DryRun {
            let verdict = Verdict::DryRun(proposed);
            if self.report_dry_run(job, Finding::Proposed(proposed), &verdict) {
                self.warn_if_unprotected(job, limits, proposed);
                if limits.marking && registry.marks() == 0 {
                    self.state.control.no_mark.call_once(|| telemetry::only_mark(shown, job.stage));
                }
            }
            return verdict;
        }

        // Warn of likely mistakes: a stage that is misspelled, a reaper with a registry of its own.
        if mode == Mode::Honor {
            self.warn_if_unprotected(job, limits, proposed);
        }
        // Said once: the next claim is not the only mark.
        if claim.guard().is_some() && registry.marks() == 1 {
            telemetry::only_mark(shown, job.stage);
        }

        // Count the verdict, report it, and hand the claim over.
        let event = telemetry::Acted {
            reaper: self.state.control.name,
            stage: job.stage,
            claim: claim.generation(),
            displaced: claim.displaced().map(|owner| owner.generation),
        };
        let counts = &self.state.control.counts;
        match proposed {
            Proposed::Redrive => {
                counts.redrives.increment();
                telemetry::redriven(shown, &event);
                // So soon again: what was begun then is either still going on, or was never begun.
                // An id whose `Hash` panics must not undo the claim.
                if unwind::caught(|| self.state.record(job.id, Finding::Redriven)).is_ok_and(|is_news| !is_news) {
                    telemetry::redriven_again(shown);
                }
                Verdict::Redrive(claim)
            }
            Proposed::Reap(cause) => {
                counts.reaps(cause).increment();
                telemetry::reaped(shown, cause.as_str(), cause.label(), &event);
                Verdict::Reap(cause, claim)
            }
        }
    }

    /// Leaves a job alone. Counts it and reports it, but a dry run only says it.
    fn defer(&mut self, job: &RunningJob<'_, K>, deferral: Deferral<V>) -> Verdict<'r, K, V> {
        let reason = deferral.reason;
        let finding = Finding::Deferred(reason);
        if self.state.policy.mode() == Mode::DryRun {
            let verdict = Verdict::Defer(deferral);
            self.report_dry_run(job, finding, &verdict);
            return verdict;
        }
        let is_news = self.state.record(job.id, finding);
        self.state.control.counts.defers(reason).increment();
        let event = telemetry::Deferred {
            reaper: self.state.control.name,
            reason: reason.as_str(),
            to_owner: reason.is_for_the_owner(),
            owner: deferral.owner.as_ref(),
            is_news,
        };
        telemetry::deferred(self.reaper.registry.shown(job.id), &event);
        Verdict::Defer(deferral)
    }

    /// Reports what a dry run found. Returns `true` if the sweep before found something else, or nothing.
    fn report_dry_run(&mut self, job: &RunningJob<'_, K>, finding: Finding, verdict: &Verdict<'r, K, V>) -> bool {
        let is_news = self.state.record(job.id, finding);
        let explanation = Explanation::new(self.reaper, self.state, job, verdict);
        telemetry::dry_run(self.reaper.registry.shown(job.id), &explanation, is_news);
        is_news
    }

    /// Warns of a marked job that is acted on, because its stage is not declared as marking. A misspelled stage would
    /// bring the incident back in silence, so the owner is looked up for this warning alone.
    fn warn_if_unprotected(&self, job: &RunningJob<'_, K>, limits: &StageLimits, proposed: Proposed) {
        if limits.marking || proposed == Proposed::Reap(Cause::Backstop) {
            return;
        }
        if let Some(owner) = self.reaper.registry.owner(job.id) {
            telemetry::unprotected(self.reaper.registry.shown(job.id), job.stage, owner.generation);
        }
    }
}
