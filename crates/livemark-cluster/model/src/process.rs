//! A process: its session, its monitors, its collector. What it believes, and what it makes of an answer.

use crate::engine::{Change, Event, If, Name, Row, token, version};
use crate::mirror::Mirror;
use crate::settings::{Mutant, Settings};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    Running,
    Paused,
    Dead,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    #[default]
    Idle,
    /// An attempt is under way.
    Trying,
    /// There is a guard.
    Held,
    /// Its context is being replaced.
    Replacing,
    /// The store was told the token.
    Taken,
    /// `is_current` was true since.
    Checked,
    /// The guard is dropped. The clear is repeated until it is answered, or the session is over.
    Clearing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Monitor {
    pub(crate) stage: Stage,
    pub(crate) tries: u8,
    pub(crate) can_replace: bool,
    pub(crate) is_waiting: bool,
    pub(crate) name: Name,
    /// What the attempt requires, and whose mark it has seen there.
    pub(crate) condition: If,
    pub(crate) over: Name,
    pub(crate) token: u8,
    /// The last write of the mark that is known.
    pub(crate) modified: u8,
    pub(crate) is_displaced: bool,
    /// Whether the store was told the token before the replacement that is under way.
    pub(crate) was_taken: bool,
}

impl Monitor {
    pub(crate) fn has_guard(&self) -> bool {
        !matches!(self.stage, Stage::Idle | Stage::Trying)
    }

    /// Whether a row is this guard's mark, and not another one by a repeated write of the same attempt.
    pub(crate) fn is_its(&self, row: &Row, mutant: Mutant) -> bool {
        row.name == self.name && (mutant == Mutant::NameOnly || self.token == token(row, mutant))
    }

    /// Ends what was done with a mark.
    pub(crate) fn rest(&mut self) {
        *self = Self { tries: self.tries, ..Self::default() };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Watch {
    Live,
    /// It broke, and the states since are not kept.
    Cut,
    /// The keys are being listed.
    Listing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) life: Life,
    pub(crate) lease: u8,
    pub(crate) is_lost: bool,
    /// Ticks of this process's clock until its deadline.
    pub(crate) left: u8,
    /// For how long it waits for a renewal, by its clock.
    pub(crate) renewal: Option<u8>,
    /// For how long it waits for another lease.
    pub(crate) opening: Option<u8>,
    pub(crate) reopens: u8,
    pub(crate) next_seq: u8,
    pub(crate) monitors: [Monitor; 2],
    pub(crate) mirror: Mirror,
    pub(crate) watching: Watch,
    /// Something may lie under the lease that nobody holds.
    pub(crate) must_collect: bool,
    pub(crate) is_collecting: bool,
    /// Ticks for which nothing is claimed.
    pub(crate) settling: u8,
    /// Ticks until the clock misses one.
    pub(crate) phase: u8,
}

impl Process {
    pub(crate) fn new(settings: &Settings, process: usize, lease: u8, phase: u8) -> Self {
        let monitor = |role: usize| {
            let role = &settings.roles[process][role];
            Monitor { tries: role.tries, ..Monitor::default() }
        };
        Self {
            life: Life::Running,
            lease,
            is_lost: false,
            left: granted(settings),
            renewal: None,
            opening: None,
            reopens: settings.reopens,
            next_seq: 1,
            monitors: [monitor(0), monitor(1)],
            mirror: Mirror { applied: 1, ..Mirror::default() },
            watching: Watch::Live,
            must_collect: false,
            is_collecting: false,
            settling: 0,
            phase,
        }
    }

    /// Nothing is left of a dead process but its lease.
    pub(crate) fn die(&mut self) {
        *self = Self {
            life: Life::Dead,
            lease: self.lease,
            is_lost: true,
            left: 0,
            renewal: None,
            opening: None,
            reopens: 0,
            next_seq: 0,
            monitors: [Monitor::default(); 2],
            mirror: Mirror::default(),
            watching: Watch::Live,
            must_collect: false,
            is_collecting: false,
            settling: 0,
            phase: 0,
        };
    }

    pub(crate) fn is_running(&self) -> bool {
        self.life == Life::Running
    }

    pub(crate) fn is_held(&self) -> bool {
        !self.is_lost && self.left > 0
    }

    /// What a guard's `is_current` returns.
    pub(crate) fn is_current(&self, monitor: usize, mutant: Mutant) -> bool {
        let guard = &self.monitors[monitor];
        let is_sessions = guard.name.lease == self.lease || mutant == Mutant::OldGuardBelieved;
        guard.has_guard() && is_sessions && !guard.is_displaced && self.is_held()
    }

    /// Whether a guard's session is over.
    pub(crate) fn is_over(&self, monitor: usize, mutant: Mutant) -> bool {
        (self.is_lost || self.monitors[monitor].name.lease != self.lease) && mutant != Mutant::OldGuardBelieved
    }

    /// Lets a tick pass, unless the clock misses it. A paused process's clock runs: it is boot time.
    pub(crate) fn tick(&mut self, is_kept: bool, settings: &Settings) {
        if self.life == Life::Dead {
            return;
        }
        if is_kept {
            self.settling = self.settling.saturating_sub(1);
            return;
        }
        if settings.slow_clocks {
            if self.phase == 0 {
                self.phase = settings.ttl - 1;
                return;
            }
            self.phase -= 1;
        }
        self.left = self.left.saturating_sub(1);
        self.settling = self.settling.saturating_sub(1);
        for age in [&mut self.renewal, &mut self.opening] {
            *age = age.map(|age| (age + 1).min(settings.ttl));
        }
    }

    /// Takes up an answer that came so long after its request was sent.
    pub(crate) fn renewed(&mut self, age: u8, settings: &Settings) {
        let age = if settings.mutant == Mutant::DeadlineFromAnswer { 0 } else { age };
        self.left = self.left.max(granted(settings).saturating_sub(age));
    }

    /// Tells the guards what became of the key.
    fn heard_of(&mut self, row: Option<Row>, revision: u8, mutant: Mutant) {
        for guard in self.monitors.iter_mut().filter(|monitor| monitor.has_guard()) {
            match row {
                Some(row) if guard.is_its(&row, mutant) => guard.modified = guard.modified.max(version(&row, mutant)),
                _ if revision > guard.token => guard.is_displaced = true,
                _ => {}
            }
        }
    }

    /// Takes up a row that an answer told of.
    pub(crate) fn take_up(&mut self, row: Row, mutant: Mutant) {
        self.mirror.put_early(row, mutant);
        if self.mirror.mark == Some(row) {
            self.settling = 0;
        }
        self.heard_of(Some(row), row.revision, mutant);
    }

    /// Makes an attempt's mark a guard's.
    pub(crate) fn hold(&mut self, monitor: usize, row: Row, can_replace: bool, mutant: Mutant) {
        let name = self.monitors[monitor].name;
        let token = token(&row, mutant);
        self.monitors[monitor] = Monitor {
            stage: Stage::Held,
            tries: self.monitors[monitor].tries,
            can_replace,
            name,
            token,
            modified: token,
            ..Monitor::default()
        };
        self.take_up(row, mutant);
        if self.mirror.has_lost(&self.monitors[monitor], row.revision, mutant) {
            self.monitors[monitor].is_displaced = true;
        }
        self.must_collect |= collects_always(mutant);
    }

    /// Takes up what the watch tells.
    pub(crate) fn hear(&mut self, event: Event, settings: &Settings) {
        let revision = event.revision;
        match event.change {
            Change::Untouched => {}
            Change::Written(row) => {
                self.mirror.put(row);
                self.settling = 0;
                self.heard_of(Some(row), revision, settings.mutant);
            }
            Change::Gone => {
                if let Some(mark) = self.mirror.remove(revision, settings.mutant) {
                    if event.ended > 0 && mark.name.lease == event.ended {
                        self.settle(settings);
                    }
                }
                self.heard_of(None, revision, settings.mutant);
            }
        }
        if event.ended > 0 && event.ended == self.lease {
            self.lose(settings.mutant);
        }
        self.mirror.passed(revision);
        self.must_collect = true;
    }

    /// Takes up a listing. Nothing is cleared first.
    pub(crate) fn relist(&mut self, revision: u8, row: Option<Row>, sessions: u8, settings: &Settings) {
        let mutant = settings.mutant;
        match row {
            Some(row) => {
                self.mirror.put(row);
                self.heard_of(Some(row), row.revision, mutant);
            }
            None => {
                if let Some(mark) = self.mirror.remove(revision + 1, mutant) {
                    self.heard_of(None, revision, mutant);
                    if sessions & 1 << mark.name.lease == 0 {
                        self.settle(settings);
                    }
                }
            }
        }
        if sessions & 1 << self.lease == 0 {
            self.lose(mutant);
        }
        // A mark may have come and gone unheard.
        if mutant != Mutant::NoGraceAfterListing {
            self.settle(settings);
        }
        self.mirror.passed(revision);
        self.watching = Watch::Live;
        self.must_collect = true;
    }

    fn settle(&mut self, settings: &Settings) {
        if settings.mutant != Mutant::NoSettle {
            self.settling = settings.settle;
        }
    }

    pub(crate) fn lose(&mut self, mutant: Mutant) {
        self.is_lost = mutant != Mutant::OldSessionUsed;
    }

    /// The mark in the mirror that is under this lease and nobody's.
    pub(crate) fn ghost(&self, mutant: Mutant) -> Option<Row> {
        let row = self.mirror.mark.filter(|mark| mark.name.lease == self.lease)?;
        let is_somebodys = self.monitors.iter().any(|monitor| match monitor.stage {
            Stage::Idle => false,
            Stage::Trying => monitor.name == row.name && mutant != Mutant::CollectorTakesAttempts,
            _ => monitor.is_its(&row, mutant),
        });
        (!is_somebodys).then_some(row)
    }
}

/// For how long a session is believed in that was granted or renewed just now.
pub(crate) fn granted(settings: &Settings) -> u8 {
    match settings.ttl {
        0 => 1,
        ttl if settings.mutant == Mutant::NoMargin => ttl,
        ttl => ttl - settings.margin,
    }
}

/// Whether ends of attempts and guards make the collector look.
pub(crate) fn collects_always(mutant: Mutant) -> bool {
    mutant != Mutant::CollectorByEvents
}
