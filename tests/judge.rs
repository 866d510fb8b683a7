//! `judge` over all inputs, against a model written from the contract.

mod support;

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use livemark::{
    Cause, DeferReason, Finalizer, MarkGuard, Mode, Policy, PolicyBuilder, Pulse, Reaper, ReaperStats, Registry,
    RunningJob, StageRules, Verdict,
};
use proptest::prelude::*;
use support::{Said, UNDECLARED, said, seconds, wait_until};

const AN_HOUR: Duration = Duration::from_secs(3600);
const NANOSECOND: Duration = Duration::from_nanos(1);

thread_local! {
    /// How often a job id was hashed: nobody looks into a registry without.
    static HASHED: Cell<u64> = const { Cell::new(0) };
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Job(u64);

impl Hash for Job {
    fn hash<H: Hasher>(&self, state: &mut H) {
        HASHED.set(HASHED.get() + 1);
        self.0.hash(state);
    }
}

const JOB: Job = Job(7);

/// The limits that are in force for the job's stage.
#[derive(Clone, Copy, Debug)]
struct Limits {
    marks: bool,
    finalize_grace: Duration,
    lost_grace: Duration,
    /// None: `no_backstop`.
    hard_deadline: Option<Duration>,
    boot_grace: Option<Boot>,
    stale_after: Option<Patience>,
}

/// The boot grace, chosen so that it surely is in force, or over, when the job is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boot {
    InForce,
    Over,
}

/// `stale_after`, chosen so that a pulse surely is within it, or beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    Long,
    Short,
}

impl Boot {
    fn grace(self) -> Duration {
        match self {
            Self::InForce => AN_HOUR,
            Self::Over => NANOSECOND,
        }
    }
}

impl Patience {
    fn limit(self) -> Duration {
        match self {
            Self::Long => AN_HOUR,
            Self::Short => NANOSECOND,
        }
    }
}

/// Where a policy says these limits.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// For all stages. A job is in one that is declared by its name only, or not declared.
    Everywhere,
    /// In rules of the stage, which differ from all others.
    InTheStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    WithoutPulse,
    WithPulse,
    /// Who displaced another, and has a pulse or none.
    Displacer(bool),
}

#[derive(Clone, Copy, Debug)]
struct Ages {
    running: Duration,
    finished: Option<Duration>,
    lost: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    mode: Mode,
    limits: Limits,
    told: Told,
    ages: Ages,
    owner: Owner,
}

fn age(limit: Duration) -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(limit - NANOSECOND),
        Just(limit),
        Just(limit + NANOSECOND),
        Just(Duration::ZERO),
        Just(Duration::MAX),
        (0..=4 * limit.as_secs()).prop_map(seconds),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let grace = || prop_oneof![Just(NANOSECOND), Just(seconds(60)), Just(seconds(300))];
    let hard_deadline = proptest::option::weighted(0.8, prop_oneof![Just(2 * AN_HOUR), Just(AN_HOUR + NANOSECOND)]);
    let boot_grace = proptest::option::of(prop_oneof![Just(Boot::InForce), Just(Boot::Over)]);
    let stale_after = proptest::option::of(prop_oneof![Just(Patience::Long), Just(Patience::Short)]);
    (any::<bool>(), grace(), grace(), hard_deadline, boot_grace, stale_after).prop_map(
        |(marks, finalize_grace, lost_grace, hard_deadline, boot_grace, stale_after)| Limits {
            marks,
            finalize_grace,
            lost_grace,
            hard_deadline,
            boot_grace,
            stale_after,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let mode = prop_oneof![
        4 => Just(Mode::Honor),
        1 => Just(Mode::Ignore),
        2 => Just(Mode::DeferAll),
        2 => Just(Mode::DryRun)
    ];
    let owner = prop_oneof![
        Just(Owner::Nobody),
        Just(Owner::WithoutPulse),
        Just(Owner::WithPulse),
        any::<bool>().prop_map(Owner::Displacer),
    ];
    let told = prop_oneof![Just(Told::Everywhere), Just(Told::InTheStage)];
    limits().prop_flat_map(move |limits| {
        let running = age(limits.hard_deadline.unwrap_or(AN_HOUR));
        let finished = proptest::option::of(age(limits.finalize_grace));
        let lost = proptest::option::of(age(limits.lost_grace));
        let ages = (running, finished, lost).prop_map(|(running, finished, lost)| Ages { running, finished, lost });
        (mode.clone(), told.clone(), ages, owner.clone()).prop_map(move |(mode, told, ages, owner)| Case {
            mode,
            limits,
            told,
            ages,
            owner,
        })
    })
}

// The model

impl Owner {
    /// Whether a reaper takes it for alive: what gives a pulse makes progress, what gives none is left in peace.
    fn is_live(self, stale_after: Option<Patience>) -> bool {
        match self {
            Self::Nobody => false,
            Self::WithoutPulse | Self::Displacer(false) => true,
            Self::WithPulse | Self::Displacer(true) => stale_after != Some(Patience::Short),
        }
    }
}

/// What the contract says of the case: the tiers in their order.
fn expected(case: &Case) -> Said {
    let Case { mode, limits, ages, owner, .. } = *case;
    let dead = ages.finished.is_some_and(|age| age > limits.finalize_grace);
    let worker_lost = ages.finished.is_none() && ages.lost.is_some_and(|age| age > limits.lost_grace);
    let stuck = limits.hard_deadline.is_some_and(|deadline| ages.running > deadline);

    let asks = limits.marks && mode != Mode::Ignore;
    let deferral = if mode == Mode::DeferAll {
        Some(DeferReason::DeferAll)
    } else if asks && owner.is_live(limits.stale_after) {
        Some(DeferReason::Owned)
    } else if limits.boot_grace == Some(Boot::InForce) {
        Some(DeferReason::BootGrace)
    } else {
        None
    };
    let claims = limits.marks && matches!(mode, Mode::Honor | Mode::DeferAll);
    match deferral {
        None if worker_lost => Said::Reap(Cause::WorkerLost, claims),
        None if dead => Said::Redrive(claims),
        _ if stuck => Said::Reap(Cause::Backstop, claims),
        Some(reason) if worker_lost || dead => Said::Defer(reason),
        _ => Said::Healthy,
    }
}

/// What a reaper counts of one such verdict, and of the sweep.
fn counted(mode: Mode, said: Said) -> ReaperStats {
    let mut stats = ReaperStats::default();
    if mode == Mode::DryRun {
        return stats;
    }
    stats.sweeps = 1;
    match said {
        Said::Healthy => {}
        Said::Defer(DeferReason::Owned) => stats.finalizer_defers_total = 1,
        Said::Defer(DeferReason::BootGrace) => stats.defers_boot_grace = 1,
        Said::Defer(DeferReason::DeferAll) => stats.defers_defer_all = 1,
        Said::Defer(DeferReason::ClaimConflict) => {
            stats.finalizer_defers_total = 1;
            stats.claim_conflicts = 1;
        }
        Said::Redrive(_) => stats.redrives = 1,
        Said::Reap(Cause::WorkerLost, _) => stats.reaps_worker_lost = 1,
        Said::Reap(Cause::Backstop, _) => stats.reaps_backstop = 1,
    }
    stats
}

// What is tested

const STAGE: &str = "stage";

fn with_limits(limits: Limits) -> StageRules {
    let rules = if limits.marks { StageRules::marking() } else { StageRules::new() };
    let rules = rules.finalize_grace(limits.finalize_grace).lost_grace(limits.lost_grace);
    let rules = match limits.hard_deadline {
        Some(deadline) => rules.hard_deadline(deadline),
        None => rules.no_backstop(),
    };
    let rules = match limits.boot_grace {
        Some(boot) => rules.boot_grace(boot.grace()),
        None => rules,
    };
    match limits.stale_after {
        Some(patience) => rules.stale_after(patience.limit()),
        None => rules,
    }
}

fn everywhere(limits: Limits) -> PolicyBuilder {
    let policy = Policy::builder().finalize_grace(limits.finalize_grace).lost_grace(limits.lost_grace);
    let policy = match limits.hard_deadline {
        Some(deadline) => policy.hard_deadline(deadline),
        None => policy.no_backstop(),
    };
    let policy = match limits.boot_grace {
        Some(boot) => policy.boot_grace(boot.grace()),
        None => policy,
    };
    match limits.stale_after {
        Some(patience) => policy.stale_after(patience.limit()),
        None => policy,
    }
}

/// A policy with these limits for the stage of [`job`].
fn policy(case: &Case) -> Policy {
    let limits = case.limits;
    let builder = match (case.told, limits.marks) {
        (Told::Everywhere, true) => everywhere(limits).marking_stage(STAGE),
        (Told::Everywhere, false) => everywhere(limits).marking_stage("another"),
        // What a stage leaves open is the policy's: so where a limit is to be absent, the policy has none.
        (Told::InTheStage, _) => {
            let other = Limits {
                boot_grace: limits.boot_grace.map(|boot| if boot == Boot::Over { Boot::InForce } else { Boot::Over }),
                stale_after: None,
                finalize_grace: seconds(100),
                lost_grace: seconds(100),
                hard_deadline: Some(3 * AN_HOUR),
                ..limits
            };
            everywhere(other).stage(STAGE, with_limits(limits))
        }
    };
    builder.mode(case.mode).build().unwrap()
}

fn job(case: &Case) -> RunningJob<'static, Job> {
    let stage = match (case.told, case.limits.marks) {
        (Told::Everywhere, false) => UNDECLARED,
        _ => STAGE,
    };
    let Ages { running, finished, lost } = case.ages;
    RunningJob { id: JOB, stage, running_for: running, finished_for: finished, lost_for: lost }
}

type Guards<'r> = Vec<MarkGuard<'r, Job>>;

/// Marks as the case wants it; returns when its pulse is older than a nanosecond.
fn mark<'r>(registry: &'r Registry<Job>, owner: Owner) -> Guards<'r> {
    let pulse = Pulse::new();
    let plain = Finalizer::new(Some(42), "gates");
    let pulsing = plain.clone().with_pulse(pulse.clone());
    let guards = match owner {
        Owner::Nobody => vec![],
        Owner::WithoutPulse => vec![registry.mark(JOB, plain)],
        Owner::WithPulse => vec![registry.mark(JOB, pulsing)],
        Owner::Displacer(true) => vec![registry.mark(JOB, plain), registry.mark(JOB, pulsing)],
        Owner::Displacer(false) => vec![registry.mark(JOB, pulsing), registry.mark(JOB, plain)],
    };
    wait_until("a pulse of some age", || pulse.age() > NANOSECOND);
    guards
}

/// A reaper whose boot grace is in force, or over, as the case wants it; not yet counting.
fn reaper<'r>(registry: &'r Registry<Job>, policy: Policy) -> Reaper<'r, Job> {
    let reaper = Reaper::new(registry, policy.with_mode(Mode::DryRun));
    // The first look after more than a nanosecond; the next one comes as late.
    drop(reaper.sweep());
    let looked = Instant::now();
    wait_until("a moment has passed", || looked.elapsed() > NANOSECOND);
    reaper.set_policy(policy);
    reaper
}

/// The text names the tier, and every age and limit that there is.
fn check_words(case: &Case, said: Said, verdict: &Verdict<'_, Job>, policy: &Policy) -> Result<(), TestCaseError> {
    let why = verdict.explain(&job(case), policy).to_string();
    let what = verdict.to_string();
    let tier = match said {
        Said::Healthy => None,
        Said::Redrive(_) => Some(2),
        Said::Reap(Cause::WorkerLost, _) => Some(1),
        Said::Reap(Cause::Backstop, _) => Some(3),
        Said::Defer(_) => Some(if case.ages.finished.is_some() { 2 } else { 1 }),
    };
    match tier {
        Some(tier) => prop_assert!(why.starts_with(&format!("tier {tier}: ")), "{}", why),
        None => prop_assert!(why.starts_with("healthy; "), "{}", why),
    }
    let mut compared = vec![("running", Some(case.ages.running), "hard_deadline", case.limits.hard_deadline)];
    compared.push(("finished", case.ages.finished, "finalize_grace", Some(case.limits.finalize_grace)));
    compared.push(("lost", case.ages.lost, "lost_grace", Some(case.limits.lost_grace)));
    for (what, age, setting, limit) in compared {
        match (age, limit) {
            (Some(age), Some(limit)) => {
                let place = if age > limit { "past" } else { "within" };
                prop_assert!(why.contains(&format!("; {what} for ")), "{} in {}", what, why);
                prop_assert!(why.contains(&format!(", {place} {setting} of ")), "{} in {}", setting, why);
            }
            (Some(_), None) => prop_assert!(why.ends_with(", no backstop"), "{}", why),
            (None, _) => prop_assert!(!why.contains(what) && !why.contains(setting), "{}", why),
        }
    }
    let generation = match verdict {
        Verdict::Healthy => None,
        Verdict::Defer(deferral) => deferral.owner.as_ref().map(|owner| owner.generation),
        Verdict::Redrive(claim) | Verdict::Reap(_, claim) => claim.as_ref().map(MarkGuard::generation),
    };
    for text in [&why, &what] {
        let named = generation.is_none_or(|generation| text.contains(&format!("generation {generation}")));
        prop_assert!(named, "{:?} in {}", generation, text);
        prop_assert!(!text.contains('\n'), "{}", text);
    }
    if said == Said::Defer(DeferReason::BootGrace) {
        prop_assert!(why.contains("boot grace") && why.contains(" of 3600s"), "{}", why);
    }
    Ok(())
}

/// Judges the case for once, and checks all that there is to see: verdict, claim, registry, counters, words.
fn check(case: &Case) -> Result<Said, TestCaseError> {
    let registry = Registry::new();
    let guards = mark(&registry, case.owner);
    let policy = policy(case);
    let reaper = reaper(&registry, policy.clone());
    let owner = registry.owner(&JOB).map(|owner| owner.generation);
    let before = registry.stats();
    let job = job(case);

    HASHED.set(0);
    let mut sweep = reaper.sweep();
    let verdict = sweep.judge(&job);
    let hashed = HASHED.get();
    let seen = said(&verdict);
    prop_assert_eq!(seen, expected(case));
    prop_assert_eq!(reaper.stats(), counted(case.mode, seen));
    if case.mode == Mode::Ignore || !case.limits.marks && !matches!(seen, Said::Reap(Cause::Backstop, true)) {
        prop_assert_eq!(hashed, 0, "the registry was consulted");
    }

    let after = registry.stats();
    match &verdict {
        Verdict::Redrive(Some(claim)) | Verdict::Reap(_, Some(claim)) => {
            prop_assert!(claim.is_current() && claim.job() == &JOB);
            prop_assert!(guards.iter().all(|guard| !guard.is_current()));
            let expected = (before.marks + 1, before.displaced + u64::from(owner.is_some()));
            prop_assert_eq!((after.marks, after.displaced), expected);
        }
        unclaimed => {
            prop_assert_eq!(after, before);
            prop_assert_eq!(registry.owner(&JOB).map(|owner| owner.generation), owner);
            if let Verdict::Defer(deferral) = unclaimed {
                let told = if case.limits.marks { owner } else { None };
                let told = if case.mode == Mode::Ignore { None } else { told };
                prop_assert_eq!(deferral.owner.as_ref().map(|owner| owner.generation), told);
            }
        }
    }
    check_words(case, seen, &verdict, sweep.policy())?;
    // Nobody gives words to another job's verdict, but they must not panic either.
    let other = RunningJob { id: JOB, stage: "", running_for: Duration::MAX, finished_for: None, lost_for: None };
    prop_assert!(!verdict.explain(&other, &policy).to_string().is_empty());
    Ok(seen)
}

fn without_claim(said: Said) -> Said {
    match said {
        Said::Redrive(_) => Said::Redrive(false),
        Said::Reap(cause, _) => Said::Reap(cause, false),
        other => other,
    }
}

fn judged_in(case: &Case, mode: Mode) -> Result<Said, TestCaseError> {
    check(&Case { mode, ..*case })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_are_those_of_the_contract(case in case()) {
        check(&case)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever mode, owner and boot grace.
    #[test]
    fn the_backstop_is_always_reached(case in case()) {
        let running = case.limits.hard_deadline.map_or(Duration::MAX, |deadline| deadline + NANOSECOND);
        let case = Case { ages: Ages { running, ..case.ages }, ..case };
        let seen = check(&case)?;
        match case.limits.hard_deadline {
            Some(_) => prop_assert!(matches!(seen, Said::Redrive(_) | Said::Reap(..)), "{:?}", seen),
            None => prop_assert!(!matches!(seen, Said::Reap(Cause::Backstop, _)), "{:?}", seen),
        }
    }

    #[test]
    fn ignore_is_an_empty_registry_whose_stages_do_not_mark(case in case()) {
        let unmarked = Case { limits: Limits { marks: false, ..case.limits }, owner: Owner::Nobody, ..case };
        prop_assert_eq!(judged_in(&case, Mode::Ignore)?, judged_in(&unmarked, Mode::Honor)?);
    }

    #[test]
    fn a_dry_run_gives_honors_verdicts_without_claims(case in case()) {
        prop_assert_eq!(judged_in(&case, Mode::DryRun)?, without_claim(judged_in(&case, Mode::Honor)?));
    }

    #[test]
    fn in_defer_all_only_the_backstop_acts(case in case()) {
        let seen = judged_in(&case, Mode::DeferAll)?;
        let acts = matches!(seen, Said::Redrive(_) | Said::Reap(Cause::WorkerLost, _));
        prop_assert!(!acts, "{:?}", seen);
        let honored = judged_in(&case, Mode::Honor)?;
        prop_assert_eq!(seen == Said::Healthy, honored == Said::Healthy, "{:?}, {:?}", seen, honored);
    }

    #[test]
    fn an_owner_changes_nothing_in_a_stage_that_does_not_mark(case in case()) {
        let case = Case { limits: Limits { marks: false, ..case.limits }, ..case };
        prop_assert_eq!(check(&case)?, check(&Case { owner: Owner::Nobody, ..case })?);
    }
}
