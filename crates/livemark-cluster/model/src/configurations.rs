//! The configurations. Each is small enough to be explored whole, and about one part of the protocol.

use crate::settings::{Role, Settings, Sight, Takes, Watching};

const TRIES: Role = Role::new(Takes::Unowned, 1);
const MARKS: Role = Role::new(Takes::Anyone, 1);
const CLAIMS: Role = Role::new(Takes::Claim, 1);

/// Marks, clears, faults, ghosts and the fence, between two owners of whom the second displaces the first.
#[must_use]
pub fn marks() -> Settings {
    Settings {
        faults: 1,
        crashes: 1,
        pauses: 1,
        sights: &[
            Sight::FirstCommits,
            Sight::SecondCommitsAfterDeath,
            Sight::RefusedAtTake,
            Sight::RefusedAtCommit,
            Sight::CommitsBeforeTake,
            Sight::ResolvedByRetry,
            Sight::GhostCollected,
            Sight::AtRest,
        ],
        ..Settings::calm([[TRIES.drops(), Role::NONE], [MARKS, Role::NONE]])
    }
}

/// The same with a fault more, without deaths.
#[must_use]
pub fn ghosts() -> Settings {
    Settings {
        faults: 2,
        watches: [Watching::Lags, Watching::Prompt],
        sights: &[Sight::ResolvedByRetry, Sight::GhostCollected, Sight::AtRest],
        ..Settings::calm([[TRIES.drops(), Role::NONE], [MARKS, Role::NONE]])
    }
}

/// Renewals, clocks and pauses. The other process marks the job once it is free.
#[must_use]
pub fn renewals() -> Settings {
    Settings {
        faults: 1,
        pauses: 1,
        ttl: 3,
        margin: 1,
        watches: [Watching::Deaf, Watching::Prompt],
        sights: &[Sight::FirstCommits, Sight::HeldAgain],
        ..Settings::calm([[TRIES, Role::NONE], [TRIES, Role::NONE]])
    }
}

/// The same with clocks that miss one tick in each TTL.
#[must_use]
pub fn slow_clocks() -> Settings {
    Settings { faults: 1, slow_clocks: true, ..renewals() }
}

/// The mirror, and a reaper that judges by it, however old it is.
#[must_use]
pub fn reaper() -> Settings {
    Settings {
        faults: 1,
        cuts: [0, 1],
        pauses: 1,
        crashes: 1,
        watches: [Watching::Prompt, Watching::Lags],
        sights: &[Sight::FirstCommits, Sight::Redriven, Sight::StaleTaken, Sight::Relisted, Sight::AtRest],
        ..Settings::calm([[MARKS, Role::NONE], [CLAIMS, Role::NONE]])
    }
}

/// An engine that ends the lease of a live owner, and a reaper that lets jobs settle.
#[must_use]
pub fn settling() -> Settings {
    Settings {
        cuts: [0, 1],
        lies: 1,
        reopens: 1,
        ttl: 3,
        margin: 1,
        watches: [Watching::Prompt, Watching::Lags],
        settle: 2,
        prompt: true,
        sights: &[Sight::FirstCommits, Sight::MarkedAgain, Sight::Relisted, Sight::Settled],
        ..Settings::calm([[TRIES, Role::NONE], [CLAIMS, Role::NONE]])
    }
}

/// An engine that ends the lease of a live owner, without any time to settle.
#[must_use]
pub fn lies() -> Settings {
    Settings {
        faults: 1,
        lies: 1,
        ttl: 3,
        margin: 1,
        watches: [Watching::Lags, Watching::Prompt],
        sights: &[Sight::FirstCommits, Sight::RefusedAtCommit, Sight::BeliefBroken],
        ..Settings::calm([[TRIES, Role::NONE], [TRIES, Role::NONE]])
    }
}

/// Two monitors of one process, and replaced contexts.
#[must_use]
pub fn siblings() -> Settings {
    Settings {
        faults: 2,
        sights: &[
            Sight::FirstCommits,
            Sight::Replaced,
            Sight::SiblingDisplaced,
            Sight::RefusedAtTake,
            Sight::RefusedAtCommit,
            Sight::GhostCollected,
            Sight::AtRest,
        ],
        watches: [Watching::Lags, Watching::Prompt],
        ..Settings::calm([[TRIES.replaces(), MARKS], [Role::NONE, Role::NONE]])
    }
}

/// A replaced context, and another process that displaces its owner.
#[must_use]
pub fn replacing() -> Settings {
    Settings {
        faults: 1,
        crashes: 1,
        sights: &[Sight::FirstCommits, Sight::Replaced, Sight::RefusedAtCommit, Sight::GhostCollected, Sight::AtRest],
        ..Settings::calm([[TRIES.replaces().drops(), Role::NONE], [MARKS, Role::NONE]])
    }
}

/// Sessions that are lost, and opened anew.
#[must_use]
pub fn sessions() -> Settings {
    Settings {
        faults: 1,
        pauses: 1,
        reopens: 1,
        ttl: 2,
        margin: 1,
        watches: [Watching::Deaf, Watching::Prompt],
        sights: &[Sight::FirstCommits, Sight::MarkedAgain, Sight::HeldAgain],
        ..Settings::calm([[TRIES, Role::NONE], [TRIES, Role::NONE]])
    }
}
