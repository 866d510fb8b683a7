//! Wrong protocols, each of which breaks what its mistake is about. So no property holds because it cannot fail.

use std::collections::BTreeSet;

use livemark_cluster_model::properties::{
    BELIEF_ENDS_FIRST, EVICTED_NOT_REDRIVEN, GHOSTS_ONLY, HEARD_AND_BELIEVED, LIVE_NOT_REDRIVEN, MIRROR_TRUE,
    NO_COMMIT_AFTER_TAKE, NONE_LEFT, ONE_COMMIT, OWN_REMOVED, STANDING_NOT_REFUSED, TAKEN_AS_SEEN, TOKEN_STAYS,
    TOKENS_DIFFER, TOKENS_GROW,
};
use livemark_cluster_model::{Mutant, Protocol, Settings, configurations};
use stateright::{Checker, HasDiscoveries, Model};

/// Looks for a short way to break a property, and fails if there is none, or one of another length.
#[track_caller]
fn breaks(mutant: Mutant, settings: Settings, property: &'static str, steps: usize) {
    let stop = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let checker = Protocol(settings.with(mutant)).checker().finish_when(stop).spawn_bfs().join();
    let path = checker.discovery(property);
    let taken = path.map(|path| path.into_actions());
    println!("{mutant:?} breaks \"{property}\": {taken:?}, {} states", checker.unique_state_count());
    assert_eq!(taken.map(|taken| taken.len()), Some(steps), "{mutant:?}, \"{property}\"");
}

/// Explores a mutant whole, and fails if it breaks anything.
#[track_caller]
fn breaks_nothing(mutant: Mutant, settings: Settings) {
    let checker = Protocol(settings.with(mutant)).checker().spawn_bfs().join();
    println!("{mutant:?} breaks nothing: {} states", checker.unique_state_count());
    assert!(checker.is_done());
    checker.assert_properties();
}

#[test]
fn clocks() {
    breaks(Mutant::NoMargin, configurations::slow_clocks(), BELIEF_ENDS_FIRST, 7);
    breaks(Mutant::DeadlineFromAnswer, configurations::renewals(), BELIEF_ENDS_FIRST, 11);
    breaks(Mutant::LateAnswerTaken, configurations::renewals(), BELIEF_ENDS_FIRST, 13);
    breaks(Mutant::GoneTakenForRenewed, configurations::renewals(), BELIEF_ENDS_FIRST, 10);
}

#[test]
fn tokens() {
    breaks(Mutant::CreateRevision, configurations::marks(), OWN_REMOVED, 8);
    breaks(Mutant::CreateRevision, configurations::marks(), TOKENS_GROW, 7);
    breaks(Mutant::CreateRevision, configurations::marks(), TOKENS_DIFFER, 7);
    breaks(Mutant::ReplaceRenumbers, configurations::replacing(), STANDING_NOT_REFUSED, 9);
    breaks(Mutant::ReplaceForgets, configurations::replacing(), TOKEN_STAYS, 8);
    breaks(Mutant::NameOnly, configurations::siblings(), TOKEN_STAYS, 16);
}

#[test]
fn writes() {
    breaks(Mutant::UnconditionalPut, configurations::marks(), TAKEN_AS_SEEN, 7);
    breaks(Mutant::UnconditionalPut, configurations::reaper(), LIVE_NOT_REDRIVEN, 6);
    breaks(Mutant::ClearAnything, configurations::marks(), OWN_REMOVED, 8);
}

#[test]
fn ghosts() {
    breaks(Mutant::NoCollector, configurations::marks(), NONE_LEFT, 8);
    breaks(Mutant::CollectorByEvents, configurations::marks(), NONE_LEFT, 8);
    breaks(Mutant::CollectorTakesAttempts, configurations::marks(), GHOSTS_ONLY, 7);
}

#[test]
fn fences() {
    breaks(Mutant::NoFence, configurations::marks(), NO_COMMIT_AFTER_TAKE, 11);
    breaks(Mutant::NoFenceNoState, configurations::marks(), ONE_COMMIT, 13);
}

#[test]
fn mirrors() {
    breaks(Mutant::MirrorClearedFirst, configurations::reaper(), MIRROR_TRUE, 6);
    breaks(Mutant::AnswersAnyTime, configurations::marks(), MIRROR_TRUE, 8);
    breaks(Mutant::AnswersAnyTime, configurations::marks(), HEARD_AND_BELIEVED, 13);
    breaks(Mutant::TombstoneTooLate, configurations::reaper(), MIRROR_TRUE, 12);
}

#[test]
fn claims() {
    breaks(Mutant::ClaimAnyone, configurations::reaper(), LIVE_NOT_REDRIVEN, 6);
    breaks(Mutant::NoSettle, configurations::settling(), EVICTED_NOT_REDRIVEN, 8);
    breaks(Mutant::NoGraceAfterListing, configurations::settling(), EVICTED_NOT_REDRIVEN, 9);
}

#[test]
fn sessions() {
    breaks(Mutant::OldGuardBelieved, configurations::sessions(), BELIEF_ENDS_FIRST, 12);
}

/// A reaper that sees no mark claims from nobody, and is refused. The mirror is for whoever looks, not for safety.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
fn an_empty_mirror_redrives_nobody() {
    let settings = configurations::reaper().with(Mutant::MirrorClearedFirst);
    let stop = HasDiscoveries::AllOf(BTreeSet::from([LIVE_NOT_REDRIVEN]));
    let checker = Protocol(settings).checker().finish_when(stop).spawn_bfs().join();
    println!("MirrorClearedFirst redrives nobody: {} states", checker.unique_state_count());
    checker.assert_no_discovery(LIVE_NOT_REDRIVEN);
}

/// The deadline and the mark's own event tell of the loss as well. The job is not marked again, which is no mistake.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
fn the_old_session_breaks_nothing() {
    breaks_nothing(Mutant::OldSessionUsed, configurations::lies());
}

/// The store's fence carries safety. Whoever asks before the commit spares himself a refusal.
#[test]
#[cfg_attr(debug_assertions, ignore = "takes minutes without optimization")]
fn no_check_breaks_nothing() {
    breaks_nothing(Mutant::NoCheck, configurations::marks());
}
