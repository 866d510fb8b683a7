//! Reapers whose marks are not in this process: they propose, are gated, claim elsewhere, and settle. And the mirrors that
//! they look into.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use livemark::{
    AsyncJobStore, Cause, Claim, Claimed, Claimer, DeferReason, Explanation, Finalizer, Intent, Mark, MarkGuard, Mode,
    Outcome, Policy, Proposal, Proposed, Pulse, Reaper, Registry, RunError, RunningJob, Takes, Verdict,
};

use crate::support::{
    AN_HOUR, FINALIZE_GRACE, HARD_DEADLINE, LOST_GRACE, MARKING, NANOSECOND, Said, UNDECLARED, finished, lost, policy,
    running, said,
};

fn overdue(id: &u64) -> RunningJob<'_> {
    let mut job = running(id);
    job.running_for = HARD_DEADLINE + NANOSECOND;
    job
}

/// A mark that is somewhere else.
#[derive(Debug, PartialEq, Eq)]
struct Ticket(u64);

impl Mark for Ticket {
    const NUMBER: &'static str = "ticket";

    fn number(&self) -> u64 {
        self.0
    }
}

fn owner(registry: &Registry<u64>, job: u64) -> livemark::Owner<Finalizer> {
    registry.owner(&job).expect("it is marked")
}

/// What a settled verdict comes to, with the number of its mark.
fn settled(verdict: &Verdict<'_, u64, Finalizer, Ticket>) -> (String, Option<u64>) {
    let mark = match verdict {
        Verdict::Redrive(claim) | Verdict::Reap(_, claim) => claim.guard().map(Mark::number),
        _ => None,
    };
    (verdict.to_string(), mark)
}

/// Every job in every mode, with every owner: whoever proposes, claims here and settles gets what `judge` gives. Seen to
/// fail with a proposal that forgets the stale owner, and with one that claims in a dry run.
#[test]
fn a_proposal_that_is_claimed_here_is_the_verdict() {
    type Own = fn(&Registry<u64>) -> Option<MarkGuard<'_>>;
    let owners: [Own; 3] = [
        |_| None,
        |registry| Some(registry.mark(7, Finalizer::new(Some(1), "gates"))),
        |registry| {
            Some(registry.mark(7, Finalizer::new(Some(1), "gates").with_pulse(Pulse::aged(AN_HOUR + NANOSECOND))))
        },
    ];
    let mut unmarked = finished(&7);
    unmarked.stage = UNDECLARED;
    let mut late = running(&7);
    late.running_for = 2 * HARD_DEADLINE + NANOSECOND;
    let jobs = [running(&7), finished(&7), finished(&7).redrives(3), finished(&7).held(true), lost(&7), unmarked, late];
    for mode in [Mode::Honor, Mode::DeferAll, Mode::DryRun, Mode::Ignore] {
        let policy = || {
            Policy::builder()
                .mode(mode)
                .finalize_grace(FINALIZE_GRACE)
                .lost_grace(LOST_GRACE)
                .hard_deadline(2 * HARD_DEADLINE)
                .stale_after(AN_HOUR)
                .marking_stage(MARKING)
                .build()
                .unwrap()
        };
        for own in owners {
            for job in &jobs {
                let (registry, other) = (Registry::new(), Registry::new());
                let (reaper, proposer) = (Reaper::new(&registry, policy()), Reaper::new(&other, policy()));
                let _guards = (own(&registry), own(&other));
                let expected = said(&reaper.sweep().judge(job));

                let mut sweep = proposer.sweep();
                let found = match sweep.propose(job) {
                    Proposal::Healthy => Said::Healthy,
                    Proposal::Defer(deferral) => Said::Defer(deferral.reason),
                    Proposal::DryRun(proposed) => Said::DryRun(proposed),
                    Proposal::Act(intent) => {
                        let context = Finalizer::new(None, job.stage);
                        let claimed = match intent.takes() {
                            Takes::Nothing => Claimed::NotAsked,
                            Takes::Anyone => Claimed::Won { displaced: other.owner(&7), mark: other.mark(7, context) },
                            Takes::Unowned => {
                                let seen = intent.stale_owner().map(|owner| owner.generation);
                                assert_eq!(other.owner(&7).map(|owner| owner.generation), seen);
                                Claimed::Won { displaced: other.owner(&7), mark: other.mark(7, context) }
                            }
                        };
                        said(&sweep.settle(job, intent, claimed))
                    }
                };
                assert_eq!(found, expected, "{mode}, {job:?}");
                assert_eq!(proposer.stats(), reaper.stats(), "{mode}, {job:?}");
            }
        }
    }
}

/// Seen to fail with a silence that keeps a job from the backstop, and with a conflict that is not counted.
#[test]
fn what_came_of_a_claim_is_settled() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let _elsewhere = registry.mark(8, Finalizer::new(Some(2), "gates"));
    let settle = |job: &RunningJob<'_>, claimed: Claimed<Finalizer, Ticket>| {
        let mut sweep = reaper.sweep();
        let Proposal::Act(intent) = sweep.propose(job) else { panic!("nothing is due: {job:?}") };
        let verdict = sweep.settle(job, intent, claimed);
        let told = sweep.explain(job, &verdict).to_string();
        (settled(&verdict), told)
    };
    let won = || Claimed::Won { mark: Ticket(91), displaced: None };

    let (verdict, told) = settle(&finished(&7), won());
    assert_eq!(verdict, ("redrive, claimed as ticket 91".to_owned(), Some(91)));
    assert!(told.starts_with("job 7: finished: redrive, claimed as ticket 91;"), "{told}");
    let (verdict, told) = settle(&finished(&7), Claimed::Conflict(owner(&registry, 8)));
    assert!(verdict.0.starts_with("defer, claim conflict, owned by generation "), "{verdict:?}");
    assert!(told.starts_with("job 7: finished: defer, claim conflict by run 2 at `gates`"), "{told}");
    let (verdict, told) = settle(&finished(&7), Claimed::Unavailable);
    assert_eq!(verdict.0, "defer, claim unavailable");
    assert!(told.starts_with("job 7: finished: defer, claim unavailable;"), "{told}");
    let (verdict, told) = settle(&overdue(&8), Claimed::Unavailable);
    assert_eq!(verdict, ("reap, backstop".to_owned(), None), "the store decides");
    assert!(told.starts_with("job 8: deadline: reap, backstop, without a claim since none could be had;"), "{told}");
    let (verdict, _) = settle(&overdue(&8), Claimed::Conflict(owner(&registry, 8)));
    assert_eq!(verdict, ("reap, backstop".to_owned(), None));
    let (verdict, _) = settle(&overdue(&8), won());
    assert_eq!(verdict, ("reap, backstop, claimed as ticket 91".to_owned(), Some(91)));

    let stats = reaper.stats();
    assert_eq!((stats.redrives, stats.reaps_backstop), (1, 3));
    assert_eq!((stats.claim_conflicts, stats.finalizer_defers_total, stats.defers_claim_unavailable), (1, 1, 1));
}

/// Seen to fail with a gate that is asked before the owner, one that the backstop asks, and one around the whole of
/// `judge`, which loses the backstop.
#[test]
fn a_gate_keeps_back_what_looks_dead_and_no_deadline() {
    let registry = Registry::new();
    let asked = Mutex::new(Vec::new());
    let shut = AtomicBool::new(true);
    let gate = |job: &u64| {
        asked.lock().unwrap().push(*job);
        shut.load(Ordering::Relaxed).then_some(DeferReason::ViewStale)
    };
    let reaper = Reaper::new(&registry, policy()).with_gate(gate);
    let _monitor = registry.mark(7, Finalizer::new(Some(1), "gates"));
    let judge = |job: &RunningJob<'_>| said(&reaper.sweep().judge(job));

    assert_eq!(judge(&running(&8)), Said::Healthy);
    assert_eq!(judge(&finished(&7)), Said::Defer(DeferReason::Owned), "an owner comes first");
    assert_eq!(judge(&overdue(&7)), Said::Reap(Cause::Backstop, true));
    assert_eq!(judge(&overdue(&8)), Said::Reap(Cause::Backstop, true));
    assert_eq!(*asked.lock().unwrap(), [0_u64; 0], "for none of these");
    for job in [finished(&8), finished(&8).redrives(3), lost(&8)] {
        let mut sweep = reaper.sweep();
        let verdict = sweep.judge(&job);
        assert_eq!(said(&verdict), Said::Defer(DeferReason::ViewStale));
        let explanation = sweep.explain(&job, &verdict);
        assert!(explanation.to_string().contains(": defer, view stale;"), "{explanation}");
        // When it opens, nobody knows: the deadline is all that is ahead.
        assert_eq!(explanation.upcoming().map(|(proposed, _)| proposed), Some(Proposed::Reap(Cause::Backstop)));
    }
    // Also where no stage marks: what is known of others matters there as well.
    let mut undeclared = finished(&9);
    undeclared.stage = UNDECLARED;
    assert_eq!(judge(&undeclared), Said::Defer(DeferReason::ViewStale));
    reaper.set_mode(Mode::DryRun);
    assert_eq!(judge(&finished(&8)), Said::Defer(DeferReason::ViewStale));
    reaper.set_mode(Mode::Ignore);
    assert_eq!(judge(&finished(&8)), Said::Redrive(false), "nobody is asked");
    reaper.set_mode(Mode::Honor);
    shut.store(false, Ordering::Relaxed);
    assert_eq!(judge(&finished(&8)), Said::Redrive(true));
    let stats = reaper.stats();
    assert_eq!((stats.defers_view_stale, stats.defers_settling, stats.reaps_backstop), (4, 0, 2));
}

#[test]
fn a_gate_says_why() {
    let registry: Registry = Registry::new();
    let reaper = Reaper::new(&registry, policy()).with_gate(|job| (*job == 7).then_some(DeferReason::Settling));
    assert_eq!(said(&reaper.sweep().judge(&finished(&7))), Said::Defer(DeferReason::Settling));
    assert_eq!(said(&reaper.sweep().judge(&finished(&8))), Said::Redrive(true));
    assert_eq!((DeferReason::Settling.to_string(), reaper.stats().defers_settling), ("settling".to_owned(), 1));
}

/// Seen to fail with fed marks that are counted: the warning of a registry in which nobody marks would never come.
#[test]
fn a_mirror_is_fed_without_a_trace() {
    let mirror: Registry<u64, &str> = Registry::new();
    let feed = mirror.feed();
    let since = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    let first = feed.put(7, "token 91", since);
    feed.put(8, "token 91", since);
    let second = feed.put(7, "token 92", since);
    assert_ne!(first, second, "another owner has another generation");
    let owner = mirror.owner(&7).unwrap();
    assert_eq!((owner.generation, owner.value, owner.marked_at()), (second, "token 92", since));
    assert_eq!(mirror.snapshot().iter().map(|(job, _)| *job).collect::<Vec<_>>(), [7, 8]);
    assert!(feed.remove(&7) && !feed.remove(&7));
    assert_eq!((mirror.len(), mirror.stats()), (1, livemark::RegistryStats::default()));
    // One's own marks count beside them.
    drop(mirror.mark(9, "run 1"));
    assert_eq!(mirror.stats().marks, 1);
}

/// An engine's part: says in turn what it is told to say.
struct Office {
    answers: Vec<fn(u64) -> Claimed<Finalizer, Ticket>>,
    asked: Vec<(u64, Takes, Option<u64>)>,
}

impl Claimer for Office {
    type Mark = Ticket;

    async fn claim(&mut self, job: u64, context: Finalizer, intent: &Intent) -> Claimed<Finalizer, Ticket> {
        self.asked.push((job, intent.takes(), context.run_id));
        tokio::task::yield_now().await;
        self.answers.remove(0)(job)
    }
}

#[derive(Default)]
struct Jobs {
    rows: Vec<(u64, bool)>,
    told: Vec<String>,
    failed: Vec<String>,
    done: Vec<(u64, &'static str, Option<u64>)>,
}

impl AsyncJobStore<u64, Finalizer, Ticket> for Jobs {
    type Row = (u64, bool);
    type Error = Infallible;
    type Rows = Vec<Result<(u64, bool), Infallible>>;

    async fn list(&mut self) -> Result<Self::Rows, Infallible> {
        Ok(self.rows.iter().copied().map(Ok).collect())
    }

    fn job<'a>(&self, (id, is_overdue): &'a (u64, bool)) -> RunningJob<'a> {
        if *is_overdue { overdue(id) } else { finished(id) }
    }

    async fn redrive(
        &mut self,
        (job, _): Self::Row,
        claim: Claim<'static, u64, Finalizer, Ticket>,
    ) -> Result<Outcome, Infallible> {
        self.done.push((job, "redrive", claim.guard().map(Mark::number)));
        Ok(Outcome::Done)
    }

    async fn reap(
        &mut self,
        (job, _): Self::Row,
        _: Cause,
        claim: Claim<'static, u64, Finalizer, Ticket>,
    ) -> Result<Outcome, Infallible> {
        self.done.push((job, "reap", claim.guard().map(Mark::number)));
        Ok(Outcome::Done)
    }

    fn on_verdict(
        &mut self,
        (job, _): &Self::Row,
        verdict: &Verdict<'static, u64, Finalizer, Ticket>,
        explanation: &Explanation<'_>,
    ) {
        assert!(explanation.to_string().starts_with(&format!("job {job}: ")), "{explanation}");
        self.told.push(verdict.to_string());
    }

    fn on_error(&mut self, error: &RunError<u64, Infallible>) {
        self.failed.push(error.to_string());
    }
}

/// Whoever forgets to ask must not be let through. Seen to fail with an unasked claim that acts without a mark.
#[test]
fn what_is_not_asked_is_not_free() {
    let registry = Registry::new();
    let reaper = Reaper::new(&registry, policy());
    let mut sweep = reaper.sweep();
    for (job, becomes) in [(finished(&7), "defer, claim unavailable"), (overdue(&7), "reap, backstop")] {
        let Proposal::Act(intent) = sweep.propose(&job) else { panic!("it is due") };
        let verdict = sweep.settle::<Ticket>(&job, intent, Claimed::NotAsked);
        assert_eq!(settled(&verdict), (becomes.to_owned(), None));
    }
}

/// Seen to fail with a loop that ends where a claimer panics, one that claims where nothing is to be claimed, and one
/// that tells the store before the claim.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_with_claims_from_elsewhere() {
    static MIRROR: Registry = Registry::new();
    MIRROR.feed().put(6, Finalizer::new(Some(1), "gates"), Instant::now());
    let reaper = Reaper::new(&MIRROR, policy());
    let mut jobs =
        Jobs { rows: vec![(1, false), (2, false), (3, false), (4, true), (5, true), (6, false)], ..Jobs::default() };
    let mut office = Office {
        answers: vec![
            |job| Claimed::Won { mark: Ticket(90 + job), displaced: None },
            |_| Claimed::Unavailable,
            |_| panic!("an engine's client"),
            |_| Claimed::Unavailable,
            |job| Claimed::Won { mark: Ticket(90 + job), displaced: MIRROR.owner(&6) },
        ],
        asked: Vec::new(),
    };
    // In a task: the future is `Send`.
    let (report, jobs, office) = tokio::spawn(async move {
        let report = reaper.run_once_claiming(&mut jobs, &mut office).await;
        (report, jobs, office)
    })
    .await
    .unwrap();
    assert_eq!(jobs.done, [(1, "redrive", Some(91)), (4, "reap", None), (5, "reap", Some(95))]);
    let (unowned, anyone) = (Takes::Unowned, Takes::Anyone);
    let asked = [(1, unowned), (2, unowned), (3, unowned), (4, anyone), (5, anyone)];
    assert_eq!(office.asked, asked.map(|(job, takes)| (job, takes, None)), "not for the owned one");
    assert_eq!(
        jobs.told,
        [
            "redrive, claimed as ticket 91",
            "defer, claim unavailable",
            "defer, claim unavailable",
            "reap, backstop",
            "reap, backstop, claimed as ticket 95",
            &format!("defer, owned, owned by generation {}", MIRROR.owner(&6).unwrap().generation),
        ]
    );
    assert_eq!((report.listed, report.deferred, report.redriven, report.reaped, report.panicked), (6, 3, 1, 2, 1));
    assert_eq!(jobs.failed, ["job 3: panicked"]);
    // What is left in a static is a leak to whoever looks for leaks.
    assert!(MIRROR.feed().remove(&6));
}
