//! The table of decisions in the docs of `Sweep::judge`, row by row against the real `judge`.
//!
//! Both tables are read from the source. Every combination of job, stage, mode, owner, boot grace and gate is judged, and must
//! be what the first row that fits says. So the table is complete, and its order counts.
//!
//! Seen to fail with `Honor` for `DryRun` in a row, with two rows exchanged, and with a row left out. `each_cell_counts`
//! makes every such change of a cell.

use std::fmt;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use livemark::{
    Cause, Claim, DeferReason, Finalizer, Mode, Policy, Proposed, Pulse, Reaper, Registry, RunningJob, Verdict,
};

const DEADLINE: Duration = Duration::from_secs(3600);
const STALE_AFTER: Duration = Duration::from_secs(1800);
const FINALIZE_GRACE: Duration = Duration::from_secs(300);
const LOST_GRACE: Duration = Duration::from_secs(60);
const MAX_REDRIVES: u32 = 3;
/// Long enough to judge all combinations in. Where a busy machine needs longer, it is tried again.
const BOOT_GRACE: Duration = Duration::from_millis(500);
const A_MOMENT: Duration = Duration::from_millis(1);

/// What the gate says of the odd jobs.
const SAID_BY_THE_GATE: DeferReason = DeferReason::Settling;

const MARKING: &str = "merge";
const OTHER: &str = "build";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Healthy,
    /// Within the grace of a finished job, and past that of a lost one.
    HealthyAndFinished,
    /// Past its deadline since long before any pause.
    Overdue,
    /// Finished as well.
    OverdueAndFinished,
    /// The deadline passed during the pause, if there was one.
    OverdueSinceAPause,
    Lost,
    Finished,
    Exhausted,
    HeldAndLost,
    HeldAndFinished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    WithoutPulse,
    Beating,
    Stale,
    /// A reaper's claim with a pulse as old as the stale one, which nobody has beaten.
    Unbeaten,
}

/// How the reaper came to be where it is when it judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Boot {
    NoGrace,
    JustStarted,
    BackFromAPause,
    /// It was back from a pause, and the boot grace has run to its end.
    LongBack,
}

#[derive(Clone, Copy, Debug)]
struct Combination {
    job: Job,
    stage: &'static str,
    mode: Mode,
    owner: Owner,
    boot: Boot,
    is_gate_shut: bool,
}

/// What a verdict is, in the words of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decided {
    verdict: String,
    claims: bool,
}

// ---- The tables

/// A row of the table of proposals: a job, the limit that it is past, the proposal.
type ProposalRow = [String; 3];
/// A row of the table of decisions.
type Row = [String; 7];

/// The rows of the table below this header.
fn table<const CELLS: usize>(header: &str) -> Vec<[String; CELLS]> {
    let source = include_str!("../../src/reaper/sweep.rs");
    let lines = source.lines().map(|line| line.trim().trim_start_matches("///").trim());
    let rows = lines.skip_while(|line| *line != header).skip(2).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| -> Vec<String> {
        row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    rows.map(|row| cells(row).try_into().expect("each row has a cell for each column")).collect()
}

fn proposals() -> Vec<ProposalRow> {
    table("| the job is | past its | proposal |")
}

fn decisions() -> Vec<Row> {
    table("| job | stage | mode | owner | boot grace | verdict | claims |")
}

impl Combination {
    /// What the reaper proposes, by the first row of that table that fits. `None` for a healthy job.
    fn proposal<'t>(&self, proposals: &'t [ProposalRow]) -> Option<&'t str> {
        let fits = |[is, past, _]: &&ProposalRow| match (&**is, &**past) {
            ("running, finished or lost", "hard_deadline") => self.job.is_overdue(),
            ("finished, and was redriven max_redrives times", "finalize_grace") => self.job == Job::Exhausted,
            ("finished", "finalize_grace") => {
                matches!(self.job, Job::Finished | Job::Exhausted | Job::HeldAndFinished | Job::OverdueAndFinished)
            }
            ("lost, and not finished", "lost_grace") => matches!(self.job, Job::Lost | Job::HeldAndLost),
            _ => false,
        };
        proposals.iter().find(fits).map(|[.., proposal]| &**proposal)
    }

    fn fits(&self, [job, stage, mode, owner, boot, ..]: &Row) -> bool {
        let is_one_of = |cell: &str, word: &str| cell == "any" || cell.split(", ").any(|other| other == word);
        let job = match &**job {
            "past its deadline since a pause" => {
                self.job == Job::OverdueSinceAPause && matches!(self.boot, Boot::BackFromAPause | Boot::LongBack)
            }
            "past its deadline" => self.job.is_overdue(),
            "looks dead" => self.job.looks_dead(),
            "looks dead, gate shut" => self.job.looks_dead() && self.is_gate_shut,
            "looks dead, held" => matches!(self.job, Job::HeldAndLost | Job::HeldAndFinished),
            _ => false,
        };
        let owner_is = match self.owner {
            Owner::Nobody => "none",
            Owner::WithoutPulse | Owner::Beating => "live",
            Owner::Stale => "stale",
            Owner::Unbeaten => "unbeaten",
        };
        let stage_is = if self.stage == MARKING { "marks" } else { "does not" };
        let boot_is = if matches!(self.boot, Boot::JustStarted | Boot::BackFromAPause) { "runs" } else { "over" };
        job && is_one_of(stage, stage_is)
            && is_one_of(mode, &format!("{:?}", self.mode))
            && is_one_of(owner, owner_is)
            && is_one_of(boot, boot_is)
    }

    /// What the tables say. `None` if no row fits.
    fn expected(&self, proposals: &[ProposalRow], decisions: &[Row]) -> Option<Decided> {
        let Some(proposal) = self.proposal(proposals) else {
            return Some(Decided { verdict: "Healthy".to_owned(), claims: false });
        };
        let [.., verdict, claims] = decisions.iter().find(|row| self.fits(row))?;
        let verdict = match &**verdict {
            "as proposed" => proposal.to_owned(),
            "DryRun" => format!("DryRun({proposal})"),
            "Defer, as the gate says" => format!("Defer({SAID_BY_THE_GATE:?})"),
            verdict => verdict.to_owned(),
        };
        let claims = match &**claims {
            "yes" => true,
            "no" => false,
            _ => return None,
        };
        Some(Decided { verdict, claims })
    }
}

/// The combinations that the tables are wrong about.
fn differences<'a>(
    seen: &'a [(Combination, Decided)],
    proposals: &'a [ProposalRow],
    decisions: &'a [Row],
) -> impl Iterator<Item = impl fmt::Debug + 'a> + 'a {
    let expected = |combination: &Combination| combination.expected(proposals, decisions);
    let compared = seen.iter().map(move |(combination, seen)| (combination, seen, expected(combination)));
    compared.filter(|(_, seen, expected)| expected.as_ref() != Some(seen))
}

// ---- The real judge

impl Job {
    const ALL: [Self; 10] = [
        Self::Healthy,
        Self::HealthyAndFinished,
        Self::Overdue,
        Self::OverdueAndFinished,
        Self::OverdueSinceAPause,
        Self::Lost,
        Self::Finished,
        Self::Exhausted,
        Self::HeldAndLost,
        Self::HeldAndFinished,
    ];

    fn is_overdue(self) -> bool {
        matches!(self, Self::Overdue | Self::OverdueAndFinished | Self::OverdueSinceAPause)
    }

    fn looks_dead(self) -> bool {
        !self.is_overdue() && !matches!(self, Self::Healthy | Self::HealthyAndFinished)
    }

    /// `back`: when the reaper was back from its pause. A job gets older meanwhile.
    fn describe<'a>(self, id: &'a u64, stage: &'a str, back: Instant) -> RunningJob<'a> {
        let young = RunningJob::new(id, stage, Duration::from_secs(1000));
        let overdue = RunningJob::new(id, stage, DEADLINE * 2);
        let (finished, lost) = (FINALIZE_GRACE + A_MOMENT, LOST_GRACE + A_MOMENT);
        match self {
            Self::Healthy => young.lost_for(LOST_GRACE),
            // A finished job is not lost.
            Self::HealthyAndFinished => young.finished_for(FINALIZE_GRACE).lost_for(lost),
            Self::Overdue => overdue,
            Self::OverdueAndFinished => overdue.finished_for(finished).held(true),
            Self::OverdueSinceAPause => RunningJob::new(id, stage, DEADLINE + BOOT_GRACE / 2 + back.elapsed()),
            Self::Lost => young.lost_for(lost),
            Self::Finished => young.finished_for(finished).redrives(MAX_REDRIVES - 1),
            Self::Exhausted => young.finished_for(finished).redrives(MAX_REDRIVES),
            Self::HeldAndLost => young.lost_for(lost).held(true),
            Self::HeldAndFinished => young.finished_for(finished).lost_for(lost).held(true),
        }
    }
}

fn policy(boot_grace: Option<Duration>) -> Policy {
    let builder = Policy::builder()
        .finalize_grace(FINALIZE_GRACE)
        .lost_grace(LOST_GRACE)
        .hard_deadline(DEADLINE)
        .max_redrives(MAX_REDRIVES)
        .stale_after(STALE_AFTER)
        .marking_stage(MARKING);
    let builder = boot_grace.into_iter().fold(builder, livemark::PolicyBuilder::boot_grace);
    builder.build().expect("a policy that can work")
}

/// A reaper that came to judge in this way, and when it was back. `None` if a busy machine kept it from its first sweep,
/// so that the pause after it is the reaper's pace.
fn boot(registry: &Registry, boot: Boot) -> Option<(Reaper<'_>, Instant)> {
    let grace = match boot {
        Boot::NoGrace => None,
        Boot::JustStarted => Some(DEADLINE / 2),
        Boot::BackFromAPause | Boot::LongBack => Some(BOOT_GRACE),
    };
    let started = Instant::now();
    let reaper = Reaper::new(registry, policy(grace)).with_gate(|id| (id % 2 == 1).then_some(SAID_BY_THE_GATE));
    let sleep_and_sweep = || {
        thread::sleep(BOOT_GRACE + A_MOMENT * 10);
        drop(reaper.sweep());
    };
    drop(reaper.sweep());
    let is_in_time = started.elapsed() < BOOT_GRACE;
    if matches!(boot, Boot::BackFromAPause | Boot::LongBack) {
        sleep_and_sweep();
    }
    let back = Instant::now();
    if boot == Boot::LongBack {
        // A gap after a gap is the reaper's pace, and no pause.
        sleep_and_sweep();
    }
    is_in_time.then_some((reaper, back))
}

/// Marks the job as the owner would, and returns what keeps the mark.
fn own<'r>(registry: &'r Registry, id: u64, owner: Owner) -> Option<Claim<'r>> {
    let old = || Pulse::aged(STALE_AFTER * 2);
    let mark = |pulse: Option<Pulse>| {
        let finalizer = Finalizer::new(Some(1), MARKING);
        Some(registry.mark(id, pulse.into_iter().fold(finalizer, Finalizer::with_pulse)).into())
    };
    match owner {
        Owner::Nobody => None,
        Owner::WithoutPulse => mark(None),
        Owner::Beating => mark(Some(Pulse::new())),
        Owner::Stale => mark(Some(old())),
        Owner::Unbeaten => {
            let claim = move |job: &RunningJob<'_>| Finalizer::new(None, job.stage).with_pulse(old());
            let other: Reaper<'r> = Reaper::with_claim(registry, policy(None), claim);
            match other.sweep().judge(&Job::Finished.describe(&id, MARKING, Instant::now())) {
                Verdict::Redrive(claim) => Some(claim),
                verdict => panic!("a free job is redriven: {verdict}"),
            }
        }
    }
}

fn decided(verdict: &Verdict<'_>, owner: Option<&Claim<'_>>) -> Decided {
    let reap = |cause: &Cause| format!("Reap({cause:?})");
    let (verdict, claim) = match verdict {
        Verdict::Healthy => ("Healthy".to_owned(), None),
        Verdict::Defer(deferral) => (format!("Defer({:?})", deferral.reason), None),
        Verdict::Redrive(claim) => ("Redrive".to_owned(), Some(claim)),
        Verdict::Reap(cause, claim) => (reap(cause), Some(claim)),
        Verdict::DryRun(Proposed::Redrive) => ("DryRun(Redrive)".to_owned(), None),
        Verdict::DryRun(Proposed::Reap(cause)) => (format!("DryRun({})", reap(cause)), None),
    };
    let claims = claim.is_some_and(|claim| claim.guard().is_some());
    if let (Some(claim), true) = (claim, claims) {
        let displaced = claim.displaced().map(|owner| owner.generation);
        assert_eq!(displaced, owner.and_then(Claim::generation), "a claim displaces the owner");
    }
    Decided { verdict, claims }
}

/// Judges all combinations of this kind of start. `None` if a busy machine made another kind of it meanwhile.
fn judged_in_time(booted: Boot) -> Option<Vec<(Combination, Decided)>> {
    let registry = Registry::new();
    let mut cases = Vec::new();
    for mode in [Mode::Honor, Mode::Ignore, Mode::DeferAll, Mode::DryRun] {
        for job in Job::ALL {
            for stage in [MARKING, OTHER] {
                for owner in [Owner::Nobody, Owner::WithoutPulse, Owner::Beating, Owner::Stale, Owner::Unbeaten] {
                    for is_gate_shut in [false, true] {
                        let id = cases.len() as u64;
                        let owns = own(&registry, id, owner);
                        cases.push((id, Combination { job, stage, mode, owner, boot: booted, is_gate_shut }, owns));
                    }
                }
            }
        }
    }

    // From here on time matters.
    let (reaper, back) = boot(&registry, booted)?;
    let mut seen = Vec::new();
    let (mut last_look, mut longest_gap) = (Instant::now(), Duration::ZERO);
    for cases in cases.chunk_by(|(_, one, _), (_, next, _)| one.mode == next.mode) {
        let [(_, Combination { mode, .. }, _), ..] = cases else { unreachable!("a chunk is not empty") };
        reaper.set_mode(*mode);
        let mut sweep = reaper.sweep();
        for (id, combination, owns) in cases {
            let verdict = sweep.judge(&combination.job.describe(id, combination.stage, back));
            longest_gap = longest_gap.max(last_look.elapsed());
            last_look = Instant::now();
            seen.push((*combination, decided(&verdict, owns.as_ref())));
        }
    }
    let is_in_time = match booted {
        Boot::NoGrace | Boot::JustStarted => true,
        // The boot grace still runs.
        Boot::BackFromAPause => back.elapsed() < BOOT_GRACE,
        // No gap was a pause.
        Boot::LongBack => longest_gap < BOOT_GRACE / 2,
    };
    is_in_time.then_some(seen)
}

/// All combinations, judged once for all tests.
fn judged() -> &'static [(Combination, Decided)] {
    static JUDGED: OnceLock<Vec<(Combination, Decided)>> = OnceLock::new();
    JUDGED.get_or_init(|| {
        let boots = [Boot::NoGrace, Boot::JustStarted, Boot::BackFromAPause, Boot::LongBack];
        let judging = boots.map(|boot| thread::spawn(move || (0..60).find_map(|_| judged_in_time(boot))));
        let judged = judging.into_iter().map(|thread| thread.join().expect("judging does not panic"));
        judged.flat_map(|seen| seen.expect("60 attempts, none without a pause of the machine's")).collect()
    })
}

#[test]
fn each_row_is_what_the_reaper_does() {
    let (proposals, decisions) = (proposals(), decisions());
    assert_eq!((proposals.len(), decisions.len()), (4, 12));
    let seen = judged();
    let wrong: Vec<_> = differences(seen, &proposals, &decisions).collect();
    assert!(wrong.is_empty(), "{} of {} are not as in the table: {wrong:#?}", wrong.len(), seen.len());
    for (at, row) in decisions.iter().enumerate() {
        let is_first = |(combination, _): &&(Combination, Decided)| {
            combination.proposal(&proposals).is_some()
                && decisions.iter().position(|other| combination.fits(other)) == Some(at)
        };
        assert!(seen.iter().any(|seen| is_first(&seen)), "nothing fits {row:?} first");
    }
}

#[test]
fn each_cell_counts() {
    let (proposals, decisions) = (proposals(), decisions());
    let seen = judged();
    let words: [&[&str]; 7] = [
        &[
            "past its deadline since a pause",
            "past its deadline",
            "looks dead",
            "looks dead, held",
            "looks dead, gate shut",
        ],
        &["any", "marks", "does not"],
        &["any", "Honor", "Ignore", "DeferAll", "DryRun", "Honor, DeferAll", "Honor, DryRun"],
        &["any", "none", "live", "stale", "unbeaten", "live, unbeaten"],
        &["any", "runs", "over"],
        &[
            "as proposed",
            "DryRun",
            "Defer(DeferAll)",
            "Defer(Held)",
            "Defer(Owned)",
            "Defer(BootGrace)",
            "Defer, as the gate says",
        ],
        &["yes", "no"],
    ];
    let mut unnoticed = Vec::new();
    for row in 0..decisions.len() {
        for (column, words) in words.iter().enumerate() {
            for word in words.iter().filter(|word| **word != decisions[row][column]) {
                let mut changed = decisions.clone();
                (*word).clone_into(&mut changed[row][column]);
                if differences(seen, &proposals, &changed).next().is_none() {
                    unnoticed.push((row, column, *word));
                }
            }
        }
        let mut without = decisions.clone();
        without.remove(row);
        assert!(differences(seen, &proposals, &without).next().is_some(), "row {row} decides nothing");
    }
    for row in 0..proposals.len() {
        for column in 0..3 {
            for other in (0..proposals.len()).filter(|other| proposals[*other][column] != proposals[row][column]) {
                let mut changed = proposals.clone();
                changed[row][column].clone_from(&proposals[other][column]);
                if differences(seen, &changed, &decisions).next().is_none() {
                    unnoticed.push((row, column, "another proposal's"));
                }
            }
        }
    }
    // These say what the rows above them have decided already.
    let implied = [
        (8, 4, "over"),
        (9, 4, "over"),
        (10, 2, "Honor, DeferAll"),
        (10, 2, "Honor, DryRun"),
        (10, 4, "over"),
        (11, 4, "over"),
    ];
    assert_eq!(unnoticed, implied, "a change of a cell changes nothing: narrow the cell, or widen the combinations");
}
