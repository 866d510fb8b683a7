//! What must always hold, and what must be reached.

use stateright::Property;

use crate::engine::token;
use crate::model::{Broken, Note, Protocol, State};
use crate::process::{Life, Watch};
use crate::settings::{Settings, Sight};

/// The job is ended once at most.
pub const ONE_COMMIT: &str = "one commit";
/// Nobody commits once a later owner has taken the job.
pub const NO_COMMIT_AFTER_TAKE: &str = "no commit after a later owner's take";
/// Of two marks of the job, the later one has the greater token.
pub const TOKENS_GROW: &str = "tokens grow";
/// The row in the engine tells the token that its owner has.
pub const TOKEN_STAYS: &str = "the token stays";
/// No two guards have the same token.
pub const TOKENS_DIFFER: &str = "tokens differ";
/// A mark is taken over only from the mark that its taker has seen.
pub const TAKEN_AS_SEEN: &str = "taken as seen";
/// The reaper takes over no mark but the one that it judged.
pub const LIVE_NOT_REDRIVEN: &str = "a live owner is not redriven";
/// The reaper begins no claim of a job whose live owner could not mark it again yet, after the engine ended its lease.
pub const EVICTED_NOT_REDRIVEN: &str = "an evicted owner is not redriven";
/// Only an owner, or its collector, removes a mark.
pub const OWN_REMOVED: &str = "only own marks are removed";
/// The collector leaves marks alone that a guard has or an attempt awaits.
pub const GHOSTS_ONLY: &str = "only ghosts are collected";
/// An owner whose mark stands is not refused by the store while the job runs.
pub const STANDING_NOT_REFUSED: &str = "a standing owner is not refused";
/// Belief ends before the lease does.
pub const BELIEF_ENDS_FIRST: &str = "belief ends first";
/// Whoever has heard everything, and believes in a mark, has it.
pub const HEARD_AND_BELIEVED: &str = "who has heard all believes in no lost mark";
/// A mirror shows the mark that stands if it has heard of it, and nothing else once it has heard everything.
pub const MIRROR_TRUE: &str = "the mirror shows what stands";
/// When everything has come to rest there is no mark.
pub const NONE_LEFT: &str = "no mark is left for ever";

fn never(broken: Broken) -> (&'static str, fn(&Protocol, &State) -> bool) {
    match broken {
        Broken::CommittedTwice => (ONE_COMMIT, |_, s| s.broken != Some(Broken::CommittedTwice)),
        Broken::CommittedAfterTake => (NO_COMMIT_AFTER_TAKE, |_, s| s.broken != Some(Broken::CommittedAfterTake)),
        Broken::TokenFell => (TOKENS_GROW, |_, s| s.broken != Some(Broken::TokenFell)),
        Broken::TokenChanged => (TOKEN_STAYS, |_, s| s.broken != Some(Broken::TokenChanged)),
        Broken::TakenUnseen => (TAKEN_AS_SEEN, |_, s| s.broken != Some(Broken::TakenUnseen)),
        Broken::LiveRedriven => (LIVE_NOT_REDRIVEN, |_, s| s.broken != Some(Broken::LiveRedriven)),
        Broken::EvictedRedriven => (EVICTED_NOT_REDRIVEN, |_, s| s.broken != Some(Broken::EvictedRedriven)),
        Broken::OthersRemoved => (OWN_REMOVED, |_, s| s.broken != Some(Broken::OthersRemoved)),
        Broken::OwnCollected => (GHOSTS_ONLY, |_, s| s.broken != Some(Broken::OwnCollected)),
        Broken::StandingRefused => (STANDING_NOT_REFUSED, |_, s| s.broken != Some(Broken::StandingRefused)),
    }
}

/// All properties of a configuration.
pub(crate) fn all(settings: &Settings) -> Vec<Property<Protocol>> {
    let steps = [
        Broken::CommittedTwice,
        Broken::CommittedAfterTake,
        Broken::TokenFell,
        Broken::TokenChanged,
        Broken::TakenUnseen,
        Broken::LiveRedriven,
        Broken::EvictedRedriven,
        Broken::OthersRemoved,
        Broken::OwnCollected,
        Broken::StandingRefused,
    ];
    let mut all: Vec<_> = steps
        .into_iter()
        .map(|broken| {
            let (name, holds) = never(broken);
            Property::always(name, holds)
        })
        .collect();
    all.push(Property::always(TOKENS_DIFFER, tokens_differ));
    all.push(Property::always(HEARD_AND_BELIEVED, heard_and_believed));
    all.push(Property::always(MIRROR_TRUE, mirror_is_true));
    all.push(Property::always(NONE_LEFT, |model, state| !model.is_at_rest(state) || state.engine.row.is_none()));
    // An engine that lies ends leases that are believed in.
    if settings.ttl > 0 && settings.lies == 0 {
        all.push(Property::always(BELIEF_ENDS_FIRST, belief_ends_first));
    }
    all.extend(settings.sights.iter().map(|sight| reached(*sight)));
    all
}

/// The guards that are believed in: of which process, and which.
fn believed<'a>(model: &'a Protocol, state: &'a State) -> impl Iterator<Item = (usize, usize)> + 'a {
    let guards = [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter();
    guards.filter(|(process, monitor)| state.processes[*process].is_current(*monitor, model.0.mutant))
}

fn belief_ends_first(model: &Protocol, state: &State) -> bool {
    believed(model, state).all(|(p, m)| state.engine.is_alive(state.processes[p].monitors[m].name.lease))
}

fn heard_and_believed(model: &Protocol, state: &State) -> bool {
    believed(model, state).all(|(p, m)| {
        let process = &state.processes[p];
        process.mirror.applied < state.engine.revision
            || state.engine.row.is_some_and(|row| {
                let guard = &process.monitors[m];
                row.name == guard.name && token(&row, model.0.mutant) == guard.token
            })
    })
}

fn mirror_is_true(_: &Protocol, state: &State) -> bool {
    state.processes.iter().filter(|process| process.life != Life::Dead).all(|process| {
        let mirror = &process.mirror;
        let must_show = state.engine.row.is_some_and(|row| row.revision <= mirror.applied);
        let has_heard_all = process.watching == Watch::Live && mirror.applied == state.engine.revision;
        !(must_show || has_heard_all) || mirror.mark == state.engine.row
    })
}

fn tokens_differ(_: &Protocol, state: &State) -> bool {
    let guards = || state.processes.iter().flat_map(|process| &process.monitors).filter(|monitor| monitor.has_guard());
    guards().enumerate().all(|(at, guard)| guards().skip(at + 1).all(|other| other.token != guard.token))
}

fn reached(sight: Sight) -> Property<Protocol> {
    match sight {
        Sight::FirstCommits => Property::sometimes("the first commits", |_, s: &State| s.store.done_by == 1),
        Sight::SecondCommitsAfterDeath => {
            Property::sometimes("the second commits after the first died", |_, s: &State| {
                s.store.done_by == 2 && s.processes[0].life == Life::Dead
            })
        }
        Sight::RefusedAtTake => noted("refused at take", |_, s| s.note == Some(Note::RefusedAtTake)),
        Sight::RefusedAtCommit => noted("refused at commit", |_, s| s.note == Some(Note::RefusedAtCommit)),
        Sight::CommitsBeforeTake => {
            noted("a displaced owner commits before the take", |_, s| s.note == Some(Note::CommittedDisplaced))
        }
        Sight::ResolvedByRetry => noted("resolved by a retry", |_, s| s.note == Some(Note::ResolvedByRetry)),
        Sight::GhostCollected => noted("a ghost is collected", |_, s| s.note == Some(Note::GhostCollected)),
        Sight::HeldAgain => noted("suspect, then held again", |_, s| s.note == Some(Note::HeldAgain)),
        Sight::MarkedAgain => noted("marked again under another session", |_, s| s.note == Some(Note::MarkedAgain)),
        Sight::Relisted => noted("listed anew", |_, s| s.note == Some(Note::Relisted)),
        Sight::Redriven => {
            Property::sometimes("the reaper redrives a dead owner's job", |model: &Protocol, s: &State| {
                let claims = model.0.roles[1][0].takes == crate::Takes::Claim;
                claims && s.store.done_by == 2 && s.processes[0].life == Life::Dead
            })
        }
        Sight::StaleTaken => noted("a stale mark is taken", |_, s| s.note == Some(Note::StaleTaken)),
        Sight::Replaced => noted("a context is replaced", |_, s| s.note == Some(Note::Replaced)),
        Sight::SiblingDisplaced => noted("a sibling is displaced", |_, s| s.note == Some(Note::SiblingDisplaced)),
        Sight::Settled => noted("a job settles", |_, s| s.note == Some(Note::Settled)),
        Sight::BeliefBroken => {
            Property::sometimes("belief is broken", |model: &Protocol, s: &State| !belief_ends_first(model, s))
        }
        Sight::AtRest => Property::sometimes("all is at rest", Protocol::is_at_rest),
    }
}

fn noted(name: &'static str, is_seen: fn(&Protocol, &State) -> bool) -> Property<Protocol> {
    Property::sometimes(name, is_seen)
}
