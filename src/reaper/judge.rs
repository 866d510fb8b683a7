//! How one job is judged. [`Sweep::judge`](super::Sweep::judge) has the table of decisions.
//!
//! An owner is looked up under a pin of its own and copied. Under the pin nothing of the user's runs but `Eq` and
//! `Clone`.

use std::hash::{BuildHasher, Hash};

use super::claim::{Claim, Mark};
use super::explain::{Decision, Explanation};
use super::findings::Finding;
use super::job::RunningJob;
use super::liveness::Liveness;
use super::mode::Mode;
use super::policy::StageLimits;
use super::reaper::Reaper;
use super::sweep_state::SweepState;
use super::trigger::Trigger;
use super::verdict::{Cause, Claimed, DeferReason, Deferral, Intent, Proposal, Proposed, Takes, Verdict};
use crate::owner::Owner;
use crate::registry::{Displaces, MarkGuard};
use crate::telemetry;
use crate::unwind;

/// Judges one job, as [`Sweep::judge`](super::Sweep::judge) says: proposes, claims in this process, and settles.
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

/// Says what is to be done with one job, as [`Sweep::propose`](super::Sweep::propose) does.
#[inline]
pub(super) fn propose<K, V, S>(
    reaper: &Reaper<'_, K, V, S>,
    state: &mut SweepState<'_>,
    job: &RunningJob<'_, K>,
) -> Proposal<V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    if state.is_within_all_limits(job) { Proposal::Healthy } else { Judge { reaper, state }.propose(job) }
}

/// Turns a proposal and what came of its claim into a verdict, as [`Sweep::settle`](super::Sweep::settle) does.
pub(super) fn settle<'r, K, V, S, M>(
    reaper: &Reaper<'_, K, V, S>,
    state: &mut SweepState<'_>,
    job: &RunningJob<'_, K>,
    intent: Intent<V>,
    claimed: Claimed<V, M>,
) -> Verdict<'r, K, V, M>
where
    M: Mark,
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    Judge { reaper, state }.settle(job, intent, claimed)
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
        match self.propose(job) {
            Proposal::Healthy => Verdict::Healthy,
            Proposal::Defer(deferral) => Verdict::Defer(deferral),
            Proposal::DryRun(proposed) => Verdict::DryRun(proposed),
            Proposal::Act(intent) => {
                let claimed = self.claim_here(job, &intent);
                self.settle(job, intent, claimed)
            }
        }
    }

    /// Says what is to be done. What claims nothing is counted and reported here, the rest once it is settled.
    #[cold]
    fn propose(&mut self, job: &RunningJob<'_, K>) -> Proposal<V> {
        // Notice a pause since the last look before anything is decided.
        self.state.record_look();
        // Compare with the limits of the job's own stage: it may be within these.
        let limits = *self.state.policy.stage(job.stage);
        match Trigger::of(job, &limits) {
            None => Proposal::Healthy,
            Some(Trigger::Deadline) => self.propose_overdue(job, &limits),
            Some(trigger @ (Trigger::Lost | Trigger::Finished(_))) => {
                self.propose_dead(job, &limits, trigger.proposal())
            }
        }
    }

    /// Proposes to end a job that is past its deadline, whoever holds it.
    fn propose_overdue(&mut self, job: &RunningJob<'_, K>, limits: &StageLimits) -> Proposal<V> {
        // A machine that slept past the deadlines of all its jobs ends nobody on waking.
        if self.state.deadline_held_back(job, limits).is_some() {
            let owner = self.owner(job.id, limits);
            return Proposal::Defer(self.leave_alone(job, Deferral::new(DeferReason::BootGrace, owner)));
        }
        // Take the mark from whoever holds it, where marks count and the mode writes.
        let claims = limits.marking && matches!(self.state.policy.mode(), Mode::Honor | Mode::DeferAll);
        let takes = if claims { Takes::Anyone } else { Takes::Nothing };
        self.intend(job, limits, Intent { proposed: Trigger::Deadline.proposal(), takes, stale: None })
    }

    /// Proposes to act on a job that looks dead, unless something protects it.
    fn propose_dead(&mut self, job: &RunningJob<'_, K>, limits: &StageLimits, proposed: Proposed) -> Proposal<V> {
        // Look: who owns the job, and does anything protect it?
        let owner = self.owner(job.id, limits);
        if let Some(reason) = self.reason_to_defer(job, limits, owner.as_ref()) {
            return Proposal::Defer(self.leave_alone(job, Deferral::new(reason, owner)));
        }
        // Where no registry is in play, the job store's compare-and-set decides alone. Elsewhere the claim is one step
        // with the check: the job must still be unowned, or have the stale owner that was seen.
        let claims = self.state.policy.mode() == Mode::Honor && limits.marking;
        let takes = if claims { Takes::Unowned } else { Takes::Nothing };
        self.intend(job, limits, Intent { proposed, takes, stale: owner })
    }

    /// Hands an intent over to be settled. A dry run ends with it.
    fn intend(&mut self, job: &RunningJob<'_, K>, limits: &StageLimits, intent: Intent<V>) -> Proposal<V> {
        if self.state.policy.mode() != Mode::DryRun {
            return Proposal::Act(intent);
        }
        // A dry run says it, and warns of what would go wrong, once for each change.
        let proposed = intent.proposed;
        if Self::report_dry_run(self.reaper, self.state, job, Finding::Proposed(proposed), Decision::DryRun(proposed)) {
            self.warn_if_unprotected(job, limits, proposed);
            if limits.marking && !self.reaper.registry.was_ever_marked() {
                let shown = self.reaper.registry.shown(job.id);
                self.state.control.no_mark.call_once(|| telemetry::only_mark(shown, job.stage));
            }
        }
        Proposal::DryRun(proposed)
    }

    /// Claims a job in the reaper's own registry, as far as its intent says.
    fn claim_here(&self, job: &RunningJob<'_, K>, intent: &Intent<V>) -> Claimed<V, MarkGuard<'r, K, V>> {
        let from = match intent.takes {
            Takes::Nothing => return Claimed::NotAsked,
            // Whoever has marked it in between keeps it.
            Takes::Unowned => Displaces::Only(intent.stale.as_ref().map(|owner| owner.generation)),
            Takes::Anyone => Displaces::Anyone,
        };
        let context = (self.reaper.claim)(job);
        // Note what the pulse showed before anybody can find it.
        let pulse = (self.reaper.pulse)(&context).map(|pulse| (pulse.clone(), pulse.stamp()));
        match self.reaper.registry.claim(job.id, context, from) {
            Ok((mark, displaced)) => {
                // Nobody may have this pulse: it counts from its first beat on.
                if let Some((pulse, stamp)) = pulse {
                    self.reaper.registry.record_claim_pulse(&mark, pulse, stamp);
                }
                Claimed::Won { mark, displaced }
            }
            Err(owner) => Claimed::Conflict(owner),
        }
    }

    /// Makes a verdict of an intent and of what came of its claim.
    fn settle<'c, M: Mark>(
        &mut self,
        job: &RunningJob<'_, K>,
        intent: Intent<V>,
        claimed: Claimed<V, M>,
    ) -> Verdict<'c, K, V, M> {
        let Intent { proposed, takes, stale } = intent;
        let claim = match (takes, claimed) {
            // Nobody keeps a job from the backstop, also not a silence. The store's compare-and-set decides alone then, as
            // it does where nothing is to be claimed.
            (Takes::Nothing, Claimed::NotAsked)
            | (Takes::Anyone, Claimed::NotAsked | Claimed::Conflict(_) | Claimed::Unavailable) => {
                Claim::without_a_mark()
            }
            (_, Claimed::Won { mark, displaced }) => {
                if let Some(owner) = &stale {
                    telemetry::stale_owner(self.reaper.registry.shown(job.id), owner.generation);
                }
                Claim::new(mark, displaced)
            }
            (Takes::Nothing | Takes::Unowned, Claimed::Conflict(owner)) => {
                self.state.control.counts.claim_conflicts.increment();
                telemetry::claim_conflict(self.state.control.name);
                return Verdict::Defer(self.leave_alone(job, Deferral::new(DeferReason::ClaimConflict, Some(owner))));
            }
            // A claimer that did not ask knows as little as one that was not answered.
            (Takes::Nothing, Claimed::Unavailable) | (Takes::Unowned, Claimed::NotAsked | Claimed::Unavailable) => {
                return Verdict::Defer(self.leave_alone(job, Deferral::new(DeferReason::ClaimUnavailable, stale)));
            }
        };
        let limits = *self.state.policy.stage(job.stage);
        self.decide(job, &limits, proposed, claim)
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
        if self.state.boot_grace_left(limits).is_some() {
            return Some(DeferReason::BootGrace);
        }
        if self.state.policy.mode() == Mode::Ignore {
            return None;
        }
        self.reaper.gate.as_ref()?(job.id)
    }

    /// Returns the owner to be deferred to or displaced. Asks only where marks count.
    fn owner(&self, job: &K, limits: &StageLimits) -> Option<Owner<V>> {
        let asks = limits.marking && self.state.policy.mode() != Mode::Ignore;
        asks.then(|| self.reaper.registry.owner(job)).flatten()
    }

    /// Turns a settled intent into a verdict. Counts it and reports it.
    fn decide<'c, M: Mark>(
        &mut self,
        job: &RunningJob<'_, K>,
        limits: &StageLimits,
        proposed: Proposed,
        claim: Claim<'c, K, V, M>,
    ) -> Verdict<'c, K, V, M> {
        let registry = &self.reaper.registry;
        let shown = registry.shown(job.id);

        // Warn of likely mistakes: a stage that is misspelled, a reaper with a registry of its own.
        if self.state.policy.mode() == Mode::Honor {
            self.warn_if_unprotected(job, limits, proposed);
        }
        // Said once: the next claim is not the only mark.
        if claim.guard().is_some() && registry.marks() == 1 {
            telemetry::only_mark(shown, job.stage);
        }

        // Count the verdict, report it, and hand the claim over.
        // A mark whose number panics must not be dropped while the panic unwinds.
        let number = unwind::caught(|| claim.guard().map(Mark::number)).unwrap_or_default();
        let event = telemetry::Acted {
            reaper: self.state.control.name,
            stage: job.stage,
            claim: number,
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
    fn leave_alone(&mut self, job: &RunningJob<'_, K>, deferral: Deferral<V>) -> Deferral<V> {
        let reason = deferral.reason;
        let finding = Finding::Deferred(reason);
        if self.state.policy.mode() == Mode::DryRun {
            Self::report_dry_run(self.reaper, self.state, job, finding, Decision::deferred(&deferral));
            return deferral;
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
        deferral
    }

    /// Reports what a dry run found. Returns `true` if the sweep before found something else, or nothing.
    fn report_dry_run(
        reaper: &Reaper<'r, K, V, S>,
        state: &mut SweepState<'_>,
        job: &RunningJob<'_, K>,
        finding: Finding,
        decision: Decision<'_>,
    ) -> bool {
        let is_news = state.record(job.id, finding);
        let explanation = Explanation::of(reaper, state, job, decision);
        telemetry::dry_run(reaper.registry.shown(job.id), &explanation, is_news);
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
