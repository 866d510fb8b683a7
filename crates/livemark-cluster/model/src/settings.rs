//! What is explored: [`Settings`], and the wrong protocols, [`Mutant`].

/// How an attempt takes a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Takes {
    /// From nobody: `try_mark`.
    Unowned,
    /// From anybody: `mark`.
    Anyone,
    /// As the reaper does: judges by the mirror, and claims from nobody, or from exactly the mark that looks stale.
    Claim,
}

/// How a watch tells what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// At once.
    Prompt,
    /// Some time.
    Lags,
    /// Never. Belief must do without.
    Deaf,
}

/// What a monitor of a process does.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// How it takes the job.
    pub takes: Takes,
    /// How often it tries.
    pub tries: u8,
    /// Whether it may replace its context, once for each mark.
    pub replaces: bool,
    /// Whether it may let go of a mark before the commit, as on a panic.
    pub drops: bool,
}

impl Role {
    /// There is no such monitor.
    pub const NONE: Self = Self::new(Takes::Unowned, 0);

    /// A monitor that tries so many times.
    #[must_use]
    pub const fn new(takes: Takes, tries: u8) -> Self {
        Self { takes, tries, replaces: false, drops: false }
    }

    /// The same, which may replace its context.
    #[must_use]
    pub const fn replaces(self) -> Self {
        Self { replaces: true, ..self }
    }

    /// The same, which may let go before the commit.
    #[must_use]
    pub const fn drops(self) -> Self {
        Self { drops: true, ..self }
    }
}

/// A configuration of the model. Everything that can go wrong has a budget.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The monitors, two for each process.
    pub roles: [[Role; 2]; 2],
    /// Messages that are lost, repeated, or given up while they are on their way.
    pub faults: u8,
    /// Watches of either process that break, after which the keys are listed anew.
    pub cuts: [u8; 2],
    /// How often the first process stops for a while.
    pub pauses: u8,
    /// Whether the first process may die: 1 or 0.
    pub crashes: u8,
    /// How often the engine ends the lease of the first process before its time (etcd-io/etcd#15247).
    pub lies: u8,
    /// How often the first process opens another session.
    pub reopens: u8,
    /// The TTL in ticks. 0 leaves time out: a lease then ends at any time once its process is dead or paused, and
    /// belief ends with it. That belief ends first is for the configurations with time. In them the second process
    /// always renews in time.
    pub ttl: u8,
    /// By how many ticks belief ends before the TTL.
    pub margin: u8,
    /// Whether the clocks of processes miss one tick in each TTL. Every phase is explored.
    pub slow_clocks: bool,
    /// For how many ticks nothing is claimed after a session was lost with its mark.
    pub settle: u8,
    /// Whether time passes only when nobody has anything left to do, the reaper excepted. Settling needs it: a
    /// process that never runs cannot be waited for.
    pub prompt: bool,
    /// How the watch of either process tells.
    pub watches: [Watching; 2],
    /// The wrong protocol that is explored, or [`Mutant::None`].
    pub mutant: Mutant,
    /// What must be reached.
    pub sights: &'static [Sight],
}

impl Settings {
    /// Nothing goes wrong, and there is no time.
    #[must_use]
    pub const fn calm(roles: [[Role; 2]; 2]) -> Self {
        Self {
            roles,
            faults: 0,
            cuts: [0, 0],
            pauses: 0,
            crashes: 0,
            lies: 0,
            reopens: 0,
            ttl: 0,
            margin: 0,
            slow_clocks: false,
            settle: 0,
            prompt: false,
            watches: [Watching::Lags, Watching::Lags],
            mutant: Mutant::None,
            sights: &[],
        }
    }

    /// The same with a wrong protocol. Nothing needs to be reached then.
    #[must_use]
    pub fn with(self, mutant: Mutant) -> Self {
        Self { mutant, sights: &[], ..self }
    }
}

/// A protocol with one mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutant {
    /// The protocol as it should be.
    #[default]
    None,
    /// The margin is less than what clocks differ by.
    NoMargin,
    /// The deadline counts from the answer to a renewal.
    DeadlineFromAnswer,
    /// A late answer to a renewal that was given up is taken for the answer to the next one.
    LateAnswerTaken,
    /// A renewal that is told that the lease has ended counts as one that went through.
    GoneTakenForRenewed,
    /// The token is the revision in which the key was made, and a clear compares that.
    CreateRevision,
    /// A mark is put whatever the key is.
    UnconditionalPut,
    /// A clear removes whatever is there.
    ClearAnything,
    /// Nobody removes ghosts.
    NoCollector,
    /// Ghosts are looked for after events only.
    CollectorByEvents,
    /// The collector takes the marks of attempts under way for ghosts.
    CollectorTakesAttempts,
    /// The store compares the state of a job, and not its fence.
    NoFence,
    /// The store compares nothing.
    NoFenceNoState,
    /// A replaced context comes with a new token.
    ReplaceRenumbers,
    /// The value of a replaced context does not carry the token.
    ReplaceForgets,
    /// A watch that broke empties the mirror.
    MirrorClearedFirst,
    /// Rows of answers are put in the mirror however late they are, also those that have gone since.
    AnswersAnyTime,
    /// A key that a listing does not have is held to have gone in the revision after it.
    TombstoneTooLate,
    /// A row is held to be a guard's that has its name, whatever its token. A repeated write makes such rows.
    NameOnly,
    /// The reaper takes a job from whoever has it.
    ClaimAnyone,
    /// A job whose owner's session was lost may be claimed at once.
    NoSettle,
    /// A job may be claimed right after the keys were listed anew.
    NoGraceAfterListing,
    /// A guard of a session that was lost is believed in under the next session.
    OldGuardBelieved,
    /// A process goes on with a session that was lost. Breaks nothing: its job is not marked again.
    OldSessionUsed,
    /// Nobody asks `is_current` before the commit.
    NoCheck,
}

/// What must be reached, so that a pass is not for want of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// The first process ends the job.
    FirstCommits,
    /// The second process ends the job after the first has died.
    SecondCommitsAfterDeath,
    /// A displaced owner is refused when it takes the job.
    RefusedAtTake,
    /// A displaced owner is refused when it commits.
    RefusedAtCommit,
    /// An owner commits after it was displaced, and before the new owner has taken the job.
    CommitsBeforeTake,
    /// An attempt whose answer was lost finds that it has the mark.
    ResolvedByRetry,
    /// A mark that is nobody's is removed.
    GhostCollected,
    /// A session whose deadline passed is held again.
    HeldAgain,
    /// A job is marked again under another session.
    MarkedAgain,
    /// The keys are listed anew.
    Relisted,
    /// The reaper ends the job of a dead process.
    Redriven,
    /// The reaper takes a job from a mark that looks stale.
    StaleTaken,
    /// A context is replaced.
    Replaced,
    /// Of two monitors of one process, the second takes the job from the first.
    SiblingDisplaced,
    /// A claim is not made since the job settles.
    Settled,
    /// Belief outlives the lease: the engine has lied.
    BeliefBroken,
    /// Everything has come to rest.
    AtRest,
}
