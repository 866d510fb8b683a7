//! The model: its states, its steps, and what they do.

use stateright::{Model, Property};

use crate::engine::{Change, Engine, If, KEPT, LEASES, Name, Put, Row, token, version};
use crate::network::{Answer, Body, Caller, Message};
use crate::process::{Life, Monitor, Process, Stage, Watch, collects_always, granted};
use crate::properties;
use crate::settings::{Mutant, Role, Settings, Takes, Watching};
use crate::store::{Commit, Store};

/// The protocol, in one configuration.
#[derive(Clone, Debug)]
pub struct Protocol(pub Settings);

/// A state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub(crate) engine: Engine,
    /// In order, so that states which differ by the order of sending only are one.
    pub(crate) network: Vec<Message>,
    pub(crate) processes: [Process; 2],
    pub(crate) store: Store,
    pub(crate) budget: Budget,
    /// The engine has ended the lease of the first process, which is alive and has not marked its job again yet.
    pub(crate) is_evicted: bool,
    /// What the last step did, where that must be seen to happen.
    pub(crate) note: Option<Note>,
    pub(crate) broken: Option<Broken>,
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    faults: u8,
    cuts: [u8; 2],
    pauses: u8,
    crashes: u8,
    lies: u8,
}

/// Something to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Note {
    RefusedAtTake,
    RefusedAtCommit,
    CommittedDisplaced,
    ResolvedByRetry,
    GhostCollected,
    HeldAgain,
    MarkedAgain,
    Relisted,
    StaleTaken,
    Replaced,
    SiblingDisplaced,
    Settled,
}

/// A step that must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    CommittedTwice,
    CommittedAfterTake,
    TokenFell,
    TokenChanged,
    TakenUnseen,
    LiveRedriven,
    EvictedRedriven,
    OthersRemoved,
    OwnCollected,
    StandingRefused,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A message arrives: the first of those that are alike, by its place.
    Deliver(usize),
    /// A message is lost.
    Lose(usize),
    /// A client of the engine sends a write again. Either of the two is answered first.
    Repeat(usize),
    /// A caller gives its request up after its time limit.
    GiveUp(u8, Caller),
    /// An attempt or a replacement is dropped.
    Cancel(u8, u8),
    /// A monitor begins an attempt.
    Begin(u8, u8),
    /// An owner tells the store its token.
    Take(u8, u8),
    /// An owner asks `is_current`.
    Check(u8, u8),
    /// An owner commits, and lets go.
    Commit(u8, u8),
    /// An owner replaces its context.
    Replace(u8, u8),
    /// An owner lets go.
    Drop(u8, u8),
    /// A monitor whose guard's session is over ends.
    Rest(u8, u8),
    /// The collector looks for ghosts.
    Collect(u8),
    /// The watch tells the next revision.
    Hear(u8),
    /// The watch breaks.
    Cut(u8),
    /// A process lists the keys.
    List(u8),
    /// A process renews its lease.
    Renew(u8),
    /// A process whose session was lost opens another one.
    Reopen(u8),
    /// A process stops.
    Pause(u8),
    /// A process goes on.
    Resume(u8),
    /// A process dies.
    Crash(u8),
    /// Time passes.
    Tick,
    /// The engine ends a lease whose time is up.
    Expire(u8),
    /// The engine ends a lease whose time is not up.
    EndEarly(u8),
}

impl Action {
    /// Whether it comes from outside, or goes on for ever: what is left when everything has come to rest.
    fn is_weather(self) -> bool {
        matches!(self, Self::Cut(_) | Self::Pause(_) | Self::Crash(_) | Self::Tick | Self::EndEarly(_) | Self::Renew(_))
    }
}

/// The processes, as messages and actions have them.
const PROCESSES: [u8; 2] = [0, 1];
/// The monitors of a process.
const MONITORS: [u8; 2] = [0, 1];

impl State {
    pub(crate) fn process(&self, process: u8) -> &Process {
        &self.processes[usize::from(process)]
    }

    fn process_mut(&mut self, process: u8) -> &mut Process {
        &mut self.processes[usize::from(process)]
    }

    fn monitor(&self, process: u8, monitor: u8) -> &Monitor {
        &self.process(process).monitors[usize::from(monitor)]
    }

    fn monitor_mut(&mut self, process: u8, monitor: u8) -> &mut Monitor {
        &mut self.process_mut(process).monitors[usize::from(monitor)]
    }

    fn send(&mut self, process: u8, caller: Caller, body: Body) {
        self.post(Message { process, caller, is_wanted: true, body });
    }

    fn post(&mut self, message: Message) {
        let at = self.network.partition_point(|other| *other <= message);
        self.network.insert(at, message);
    }

    fn is_on_its_way(&self, process: u8, caller: Caller) -> bool {
        self.network.iter().any(|message| message.is_wanted && (message.process, message.caller) == (process, caller))
    }

    /// Nobody waits any longer for an answer to this. Requests arrive all the same.
    fn abandon(&mut self, process: u8, caller: Option<Caller>) {
        let is_meant = |message: &Message| {
            message.is_wanted && message.process == process && caller.is_none_or(|caller| message.caller == caller)
        };
        // Reads, and grants that nobody hears of, change nothing that counts.
        self.network
            .retain(|message| !is_meant(message) || message.body.is_write() || matches!(message.body, Body::Renew(_)));
        for message in &mut self.network {
            if is_meant(message) {
                message.is_wanted = false;
            }
        }
        self.network.sort_unstable();
    }

    /// The process of a lease, if it still goes by it.
    fn process_of(&self, lease: u8) -> Option<u8> {
        PROCESSES.into_iter().find(|process| self.process(*process).lease == lease)
    }

    /// Visits every revision that the state has.
    fn each_revision(&mut self, visit: &mut impl FnMut(&mut u8)) {
        fn of_row(row: &mut Row, visit: &mut impl FnMut(&mut u8)) {
            visit(&mut row.taken_at);
            visit(&mut row.revision);
            visit(&mut row.created);
        }
        fn of_condition(condition: &mut If, visit: &mut impl FnMut(&mut u8)) {
            if let If::At(revision) = condition {
                visit(revision);
            }
        }
        visit(&mut self.engine.revision);
        visit(&mut self.engine.last_token);
        visit(&mut self.store.fence);
        if let Some(row) = &mut self.engine.row {
            of_row(row, visit);
        }
        for event in &mut self.engine.log {
            visit(&mut event.revision);
            if let Change::Written(row) = &mut event.change {
                of_row(row, visit);
            }
        }
        for process in &mut self.processes {
            visit(&mut process.mirror.applied);
            visit(&mut process.mirror.tombstone);
            if let Some(row) = &mut process.mirror.mark {
                of_row(row, visit);
            }
            for monitor in &mut process.monitors {
                of_condition(&mut monitor.condition, visit);
                visit(&mut monitor.token);
                visit(&mut monitor.modified);
            }
        }
        for message in &mut self.network {
            match &mut message.body {
                Body::Put { taken_at, condition, .. } => {
                    visit(taken_at);
                    of_condition(condition, visit);
                }
                Body::Delete { condition, .. } => of_condition(condition, visit),
                Body::Answer(Answer::Written(row) | Answer::Refused(Some(row))) => of_row(row, visit),
                Body::Answer(Answer::Listed { revision, row, .. }) => {
                    visit(revision);
                    if let Some(row) = row {
                        of_row(row, visit);
                    }
                }
                Body::Renew(_) | Body::Grant | Body::List | Body::Answer(_) => {}
            }
        }
    }

    /// Whether a mark is in the engine.
    fn stands(&self, name: Name, token: u8) -> bool {
        self.engine.row.is_some_and(|row| row.name == name && row.token() == token)
    }

    fn note(&mut self, note: Note) {
        self.note = Some(note);
    }

    fn must(&mut self, holds: bool, otherwise: Broken) {
        if !holds {
            self.broken = Some(otherwise);
        }
    }
}

impl Protocol {
    fn mutant(&self) -> Mutant {
        self.0.mutant
    }

    fn is_timed(&self) -> bool {
        self.0.ttl > 0
    }

    /// Whether something may befall a message of this process.
    fn may_fail(&self, state: &State, process: u8) -> bool {
        state.budget.faults > 0 && (process == 0 || !self.is_timed())
    }

    fn role(&self, process: u8, monitor: u8) -> &Role {
        &self.0.roles[usize::from(process)][usize::from(monitor)]
    }

    /// Whether everything that had to be done has been.
    pub(crate) fn is_at_rest(&self, state: &State) -> bool {
        let is_done = state.network.is_empty()
            && state.processes.iter().all(|process| {
                process.monitors.iter().all(|monitor| monitor.stage == Stage::Idle)
                    && match process.life {
                        Life::Dead => !state.engine.is_alive(process.lease),
                        _ => process.mirror.applied == state.engine.revision,
                    }
            });
        if !is_done {
            return false;
        }
        let mut actions = Vec::new();
        self.actions(state, &mut actions);
        actions.into_iter().all(Action::is_weather)
    }

    /// Whether no mark is there, and none will be.
    fn is_over(&self, state: &State) -> bool {
        state.network.is_empty()
            && state.engine.row.is_none()
            && state
                .processes
                .iter()
                .flat_map(|process| &process.monitors)
                .all(|monitor| monitor.stage == Stage::Idle && (monitor.tries == 0 || state.store.is_done()))
    }

    /// Whether only the reaper and time have anything to do.
    fn is_quiet(&self, state: &State) -> bool {
        state.network.is_empty()
            && PROCESSES.into_iter().all(|p| {
                let process = state.process(p);
                let waits = process.watching != Watch::Live
                    || process.mirror.applied < state.engine.revision
                    || process.must_collect && !process.is_lost
                    || process.is_lost && process.reopens > 0
                    || p == 0 && !process.is_lost && process.left < granted(&self.0);
                let works = MONITORS.into_iter().any(|m| {
                    let monitor = state.monitor(p, m);
                    let begins = self.role(p, m).takes != Takes::Claim && self.may_begin(state, p, m);
                    let is_left = monitor.has_guard() && process.is_over(usize::from(m), self.mutant());
                    begins || is_left || matches!(monitor.stage, Stage::Trying | Stage::Replacing | Stage::Clearing)
                });
                process.life == Life::Dead || !waits && !works
            })
    }

    /// Whose mark an attempt that begins now would take over. `None` if it does not begin.
    fn may_begin(&self, state: &State, p: u8, m: u8) -> bool {
        let process = state.process(p);
        let monitor = state.monitor(p, m);
        if monitor.stage != Stage::Idle || monitor.tries == 0 || process.is_lost || state.store.is_done() {
            return false;
        }
        match self.role(p, m).takes {
            Takes::Claim => self.judges(state, p) && process.settling == 0,
            _ => true,
        }
    }

    /// Whether the job looks dead to the reaper.
    fn judges(&self, state: &State, p: u8) -> bool {
        let process = state.process(p);
        // Where time counts, it sweeps after a barrier only. Without, its mirror is as old as it likes.
        let is_fresh = process.watching == Watch::Live && process.mirror.applied == state.engine.revision;
        if !process.is_held() || self.0.prompt && !is_fresh {
            return false;
        }
        // The pulse of a process that is stopped looks stale.
        process.mirror.mark.is_none_or(|mark| {
            state
                .process_of(mark.name.lease)
                .is_some_and(|owner| owner != p && state.process(owner).life == Life::Paused)
        })
    }

    fn monitor_actions(&self, state: &State, p: u8, m: u8, actions: &mut Vec<Action>) {
        let monitor = state.monitor(p, m);
        if monitor.is_waiting {
            actions.push(Action::GiveUp(p, Caller::Monitor(m)));
            if self.may_fail(state, p) && matches!(monitor.stage, Stage::Trying | Stage::Replacing) {
                actions.push(Action::Cancel(p, m));
            }
            return;
        }
        let is_over = state.process(p).is_over(usize::from(m), self.mutant());
        match monitor.stage {
            Stage::Idle if self.may_begin(state, p, m) => actions.push(Action::Begin(p, m)),
            Stage::Idle | Stage::Trying | Stage::Replacing => {}
            Stage::Clearing => actions.push(Action::Rest(p, m)),
            Stage::Held => {
                actions.push(Action::Take(p, m));
                if self.role(p, m).drops {
                    actions.push(Action::Drop(p, m));
                }
            }
            Stage::Taken if self.mutant() == Mutant::NoCheck => actions.push(Action::Commit(p, m)),
            Stage::Taken => actions.push(Action::Check(p, m)),
            Stage::Checked => actions.push(Action::Commit(p, m)),
        }
        if matches!(monitor.stage, Stage::Held | Stage::Taken) {
            if monitor.can_replace && !is_over {
                actions.push(Action::Replace(p, m));
            }
            if is_over {
                actions.push(Action::Rest(p, m));
            }
        }
    }

    fn process_actions(&self, state: &State, p: u8, actions: &mut Vec<Action>) {
        let process = state.process(p);
        // Of two processes that could stop and die alike, only the first does.
        if p == 0 && process.life != Life::Dead {
            if process.life == Life::Paused {
                actions.push(Action::Resume(p));
            } else if state.budget.pauses > 0 {
                actions.push(Action::Pause(p));
            }
            if state.budget.crashes > 0 {
                actions.push(Action::Crash(p));
            }
        }
        if !process.is_running() {
            return;
        }
        for m in MONITORS {
            self.monitor_actions(state, p, m, actions);
        }
        if process.is_collecting {
            actions.push(Action::GiveUp(p, Caller::Collector));
        } else if process.must_collect && !process.is_lost && self.mutant() != Mutant::NoCollector {
            actions.push(Action::Collect(p));
        }
        match process.watching {
            Watch::Live => {
                let tells = self.0.watches[usize::from(p)];
                if tells == Watching::Lags && state.engine.after(process.mirror.applied).is_some() {
                    actions.push(Action::Hear(p));
                }
                if state.budget.cuts[usize::from(p)] > 0 {
                    actions.push(Action::Cut(p));
                }
            }
            Watch::Cut => actions.push(Action::List(p)),
            Watch::Listing => actions.push(Action::GiveUp(p, Caller::Watch)),
        }
        // The lease of the second process is always renewed in time. A renewal within one tick of the last adds nothing.
        if p == 0 && self.is_timed() && !process.is_lost {
            if process.renewal.is_some() {
                actions.push(Action::GiveUp(p, Caller::Renewal));
            } else if process.left < granted(&self.0) {
                actions.push(Action::Renew(p));
            }
        }
        if process.opening.is_some() {
            actions.push(Action::GiveUp(p, Caller::Opening));
        } else if process.is_lost && process.reopens > 0 {
            actions.push(Action::Reopen(p));
        }
    }

    /// Sends the put of an attempt.
    fn send_attempt(&self, state: &mut State, p: u8, m: u8) {
        let monitor = state.monitor_mut(p, m);
        monitor.is_waiting = true;
        let Monitor { name, over, condition, .. } = *monitor;
        let condition = if self.mutant() == Mutant::UnconditionalPut { If::Any } else { condition };
        let is_claim = self.role(p, m).takes == Takes::Claim;
        state.send(p, Caller::Monitor(m), Body::Put { name, taken_at: 0, condition, over, is_claim });
    }

    fn send_replacement(&self, state: &mut State, p: u8, m: u8) {
        let monitor = state.monitor_mut(p, m);
        monitor.is_waiting = true;
        let Monitor { name, token, modified, .. } = *monitor;
        let forgets = matches!(self.mutant(), Mutant::ReplaceForgets | Mutant::ReplaceRenumbers);
        let taken_at = if forgets { 0 } else { token };
        let condition = If::At(modified);
        state.send(p, Caller::Monitor(m), Body::Put { name, taken_at, condition, over: name, is_claim: false });
    }

    /// Drops a guard, and sends its clear unless its session is over.
    fn clear(&self, state: &mut State, p: u8, m: u8) {
        if state.process(p).is_over(usize::from(m), self.mutant()) {
            return self.rest(state, p, m);
        }
        let monitor = state.monitor_mut(p, m);
        monitor.stage = Stage::Clearing;
        monitor.is_waiting = true;
        let Monitor { name, modified, .. } = *monitor;
        let condition = if self.mutant() == Mutant::ClearAnything { If::Any } else { If::At(modified) };
        state.send(p, Caller::Monitor(m), Body::Delete { name, condition });
    }

    /// Ends an attempt or a guard. One that ended with its session is made again under the next.
    fn rest(&self, state: &mut State, p: u8, m: u8) {
        let is_again = state.process(p).is_over(usize::from(m), self.mutant()) && self.0.reopens > 0;
        let process = state.process_mut(p);
        process.monitors[usize::from(m)].rest();
        process.must_collect |= collects_always(self.mutant());
        if is_again {
            process.monitors[usize::from(m)].tries = 1;
        }
    }

    fn begin(&self, state: &mut State, p: u8, m: u8) {
        let takes = self.role(p, m).takes;
        state.must(!(takes == Takes::Claim && state.is_evicted), Broken::EvictedRedriven);
        let process = state.process_mut(p);
        let name = Name { lease: process.lease, seq: process.next_seq };
        process.next_seq += 1;
        let seen = process.mirror.mark.filter(|_| takes != Takes::Unowned);
        let monitor = &mut process.monitors[usize::from(m)];
        *monitor = Monitor {
            stage: Stage::Trying,
            tries: monitor.tries - 1,
            name,
            condition: seen.map_or(If::Absent, |row| If::At(row.revision)),
            over: seen.map_or(Name::default(), |row| row.name),
            ..Monitor::default()
        };
        self.send_attempt(state, p, m);
    }

    fn hold(&self, state: &mut State, p: u8, m: u8, row: Row) {
        let can_replace = self.role(p, m).replaces;
        let had = state.monitor(p, m).over;
        let is_sibling = had.lease == row.name.lease && had != row.name;
        let is_stale = self.role(p, m).takes == Takes::Claim && had.lease > 0;
        state.process_mut(p).hold(usize::from(m), row, can_replace, self.mutant());
        if p == 0 {
            state.is_evicted = false;
        }
        if usize::from(row.name.lease) > PROCESSES.len() {
            state.note(Note::MarkedAgain);
        } else if is_sibling {
            state.note(Note::SiblingDisplaced);
        } else if is_stale {
            state.note(Note::StaleTaken);
        }
    }

    /// An answer arrives at a monitor.
    fn answer(&self, state: &mut State, p: u8, m: u8, answer: Answer) {
        let mutant = self.mutant();
        let monitor = state.monitor_mut(p, m);
        monitor.is_waiting = false;
        let name = monitor.name;
        if answer == Answer::LeaseGone {
            state.process_mut(p).lose(mutant);
        }
        match (state.monitor(p, m).stage, answer) {
            (Stage::Trying, Answer::Written(row)) => self.hold(state, p, m, row),
            (Stage::Trying, Answer::Refused(Some(row))) if row.name == name => {
                self.hold(state, p, m, row);
                state.note(Note::ResolvedByRetry);
            }
            (Stage::Trying, Answer::Refused(found)) => {
                let takes = self.role(p, m).takes;
                let is_greedy = takes == Takes::Anyone || mutant == Mutant::ClaimAnyone;
                let monitor = state.monitor_mut(p, m);
                match found {
                    None => (monitor.condition, monitor.over) = (If::Absent, Name::default()),
                    Some(row) if is_greedy => {
                        monitor.condition = If::At(row.revision);
                        // A claim is for the mark that was judged.
                        if takes == Takes::Anyone {
                            monitor.over = row.name;
                        }
                    }
                    Some(row) => {
                        state.process_mut(p).take_up(row, mutant);
                        return self.rest(state, p, m);
                    }
                }
                self.send_attempt(state, p, m);
            }
            (Stage::Replacing, Answer::Written(row)) => self.replaced(state, p, m, row),
            (Stage::Replacing, Answer::Refused(Some(row))) if state.monitor(p, m).is_its(&row, mutant) => {
                // It went through the time before, or the key was written since it was last read.
                if row.taken_at > 0 {
                    return self.replaced(state, p, m, row);
                }
                state.monitor_mut(p, m).modified = row.revision;
                self.send_replacement(state, p, m);
            }
            (Stage::Replacing, _) => {
                let monitor = state.monitor_mut(p, m);
                monitor.is_displaced |= answer != Answer::LeaseGone;
                monitor.stage = if monitor.was_taken { Stage::Taken } else { Stage::Held };
            }
            (Stage::Clearing, Answer::Refused(Some(row))) if state.monitor(p, m).is_its(&row, mutant) => {
                // It was written since, by a replacement whose answer was lost.
                state.monitor_mut(p, m).modified = version(&row, mutant);
                self.clear(state, p, m);
            }
            (Stage::Clearing | Stage::Trying, _) => self.rest(state, p, m),
            // Nobody else waits.
            _ => {}
        }
    }

    fn replaced(&self, state: &mut State, p: u8, m: u8, row: Row) {
        let monitor = state.monitor_mut(p, m);
        monitor.modified = monitor.modified.max(row.revision);
        monitor.stage = if monitor.was_taken { Stage::Taken } else { Stage::Held };
        if self.mutant() == Mutant::ReplaceRenumbers {
            monitor.token = row.revision;
        }
        state.process_mut(p).take_up(row, self.mutant());
        state.note(Note::Replaced);
    }

    /// A request arrives at the engine. Returns the answer.
    fn serve(&self, state: &mut State, message: Message) -> Option<Answer> {
        let mutant = self.mutant();
        let process = message.process;
        match message.body {
            Body::Put { name, taken_at, condition, over, is_claim } => {
                match state.engine.put(name, taken_at, condition, mutant) {
                    Put::LeaseGone => Some(Answer::LeaseGone),
                    Put::Refused(row) => Some(Answer::Refused(row)),
                    Put::Done(row, before) => {
                        let is_own = before.is_some_and(|before| before.name == name);
                        let was_seen = before.is_none_or(|before| is_own || before.name == over);
                        let otherwise = if is_claim { Broken::LiveRedriven } else { Broken::TakenUnseen };
                        state.must(was_seen, otherwise);
                        if is_own {
                            state.must(token(&row, mutant) == state.engine.last_token, Broken::TokenChanged);
                        } else {
                            let token = token(&row, mutant);
                            state.must(token > state.engine.last_token, Broken::TokenFell);
                            state.engine.last_token = token;
                        }
                        Some(Answer::Written(row))
                    }
                }
            }
            Body::Delete { name, condition } => match state.engine.delete(condition, mutant) {
                Err(row) => Some(Answer::Refused(row)),
                Ok(row) => {
                    state.must(row.name == name, Broken::OthersRemoved);
                    if message.caller == Caller::Collector {
                        let is_free = state.process(process).monitors.iter().all(|monitor| match monitor.stage {
                            Stage::Idle => true,
                            Stage::Trying => monitor.name != name,
                            _ => !monitor.is_its(&row, mutant),
                        });
                        state.must(is_free, Broken::OwnCollected);
                    }
                    Some(Answer::Removed)
                }
            },
            Body::Renew(lease) => {
                Some(if state.engine.renew(lease, self.0.ttl) { Answer::Renewed } else { Answer::LeaseGone })
            }
            Body::Grant => state.engine.grant(self.0.ttl).map(Answer::Granted),
            Body::List => {
                let alive = (1..=LEASES).filter(|lease| u8::try_from(*lease).is_ok_and(|l| state.engine.is_alive(l)));
                let sessions = alive.fold(0, |bits, lease| bits | 1 << lease);
                Some(Answer::Listed { revision: state.engine.revision, row: state.engine.row, sessions })
            }
            Body::Answer(_) => None,
        }
    }

    /// An answer arrives at whoever waits for it.
    fn receive(&self, state: &mut State, message: Message, answer: Answer) {
        let (p, settings) = (message.process, &self.0);
        match (message.caller, answer) {
            (Caller::Monitor(m), answer) => self.answer(state, p, m, answer),
            (Caller::Collector, answer) => {
                let process = state.process_mut(p);
                process.is_collecting = false;
                if answer == Answer::Removed {
                    state.note(Note::GhostCollected);
                }
            }
            (Caller::Renewal, answer) => {
                let process = state.process_mut(p);
                // With a mutant there may be nobody who waits.
                let Some(age) = process.renewal.take() else { return };
                if answer == Answer::Renewed || settings.mutant == Mutant::GoneTakenForRenewed {
                    let was_held = process.is_held();
                    process.renewed(age, settings);
                    if !was_held && process.is_held() {
                        state.note(Note::HeldAgain);
                    }
                } else {
                    process.lose(settings.mutant);
                }
            }
            (Caller::Watch, Answer::Listed { revision, row, sessions }) => {
                state.process_mut(p).relist(revision, row, sessions, settings);
                state.note(Note::Relisted);
            }
            (Caller::Opening, Answer::Granted(lease)) => {
                state.abandon(p, Some(Caller::Renewal));
                let process = state.process_mut(p);
                let age = process.opening.take().unwrap_or(0);
                process.lease = lease;
                process.is_lost = false;
                process.left = granted(settings).saturating_sub(age);
                process.renewal = None;
                process.reopens -= 1;
                process.next_seq = 1;
            }
            // Other answers are not given.
            _ => {}
        }
    }

    fn deliver(&self, state: &mut State, at: usize) {
        let message = state.network.remove(at);
        if let Body::Answer(answer) = message.body {
            return self.receive(state, message, answer);
        }
        let answer = self.serve(state, message);
        if let (Some(answer), true) = (answer, message.is_wanted) {
            state.post(Message { body: Body::Answer(answer), ..message });
        }
    }

    /// A time limit passes. `None` if that takes a fault which is not left.
    fn give_up(&self, state: &mut State, p: u8, caller: Caller) -> Option<()> {
        if state.is_on_its_way(p, caller) {
            if !self.may_fail(state, p) {
                return None;
            }
            state.budget.faults = state.budget.faults.checked_sub(1)?;
            if !(self.mutant() == Mutant::LateAnswerTaken && caller == Caller::Renewal) {
                state.abandon(p, Some(caller));
            }
        }
        let process = state.process_mut(p);
        match caller {
            Caller::Collector => process.is_collecting = false,
            Caller::Renewal => process.renewal = None,
            Caller::Watch => process.watching = Watch::Cut,
            Caller::Opening => process.opening = None,
            Caller::Monitor(m) => {
                process.monitors[usize::from(m)].is_waiting = false;
                // The same once more finds out, while there is a session.
                let goes_on = process.is_held();
                match state.monitor(p, m).stage {
                    Stage::Trying if goes_on => self.send_attempt(state, p, m),
                    Stage::Replacing if goes_on => self.send_replacement(state, p, m),
                    Stage::Clearing => self.clear(state, p, m),
                    _ => self.drop_future(state, p, m),
                }
            }
        }
        Some(())
    }

    /// Ends an attempt or a replacement without an answer.
    fn drop_future(&self, state: &mut State, p: u8, m: u8) {
        let monitor = state.monitor_mut(p, m);
        monitor.is_waiting = false;
        if monitor.stage == Stage::Replacing {
            monitor.stage = if monitor.was_taken { Stage::Taken } else { Stage::Held };
        } else {
            self.rest(state, p, m);
        }
    }

    fn commit(&self, state: &mut State, p: u8, m: u8) {
        let Monitor { name, token, .. } = *state.monitor(p, m);
        let stands = state.stands(name, token);
        let was_done = state.store.is_done();
        match state.store.commit(token, p, self.mutant()) {
            Commit::Done if !stands => state.note(Note::CommittedDisplaced),
            Commit::Done => {}
            Commit::Twice => state.must(false, Broken::CommittedTwice),
            Commit::Overtaken => state.must(false, Broken::CommittedAfterTake),
            Commit::Refused => {
                state.must(was_done || !stands, Broken::StandingRefused);
                state.note(Note::RefusedAtCommit);
            }
        }
        self.clear(state, p, m);
    }

    fn take(&self, state: &mut State, p: u8, m: u8) {
        let Monitor { name, token, .. } = *state.monitor(p, m);
        let stands = state.stands(name, token);
        if state.store.take(token, self.mutant()) {
            state.monitor_mut(p, m).stage = Stage::Taken;
            return;
        }
        if !state.store.is_done() {
            state.must(!stands, Broken::StandingRefused);
            state.note(Note::RefusedAtTake);
        }
        self.clear(state, p, m);
    }

    /// Ends a lease. Without time, belief in it ends with it, at the latest.
    fn end(&self, state: &mut State, lease: u8) {
        state.engine.end(lease);
        if let (false, Some(process)) = (self.is_timed(), state.process_of(lease)) {
            state.process_mut(process).left = 0;
        }
    }

    /// Does at once what no other order of steps can tell apart, and makes states alike which differ in nothing that
    /// counts.
    fn tidy(&self, state: &mut State) {
        for p in PROCESSES {
            let tells = self.0.watches[usize::from(p)];
            while let Some(event) = state.engine.after(state.process(p).mirror.applied) {
                if tells != Watching::Prompt
                    || !state.process(p).is_running()
                    || state.process(p).watching != Watch::Live
                {
                    break;
                }
                state.process_mut(p).hear(event, &self.0);
            }
            // A look that finds nothing.
            let process = state.process_mut(p);
            if process.must_collect && !process.is_collecting && process.ghost(self.mutant()).is_none() {
                process.must_collect = false;
            }
        }
        let hears = |p: &u8| state.process(*p).life != Life::Dead && self.0.watches[usize::from(*p)] != Watching::Deaf;
        let heard = PROCESSES.into_iter().filter(hears).map(|p| state.process(p));
        let heard_by_all = heard.map(|process| process.mirror.applied).min().unwrap_or(u8::MAX);
        state.engine.forget(heard_by_all);
        if state.engine.row.is_none() {
            state.engine.last_token = 0;
        }
        // Revisions are compared only: their order is kept, and not how far apart they are.
        let mut used = 0_u64;
        state.each_revision(&mut |revision| used |= 1 << *revision);
        state.each_revision(&mut |revision| {
            let below = (used & !1) & ((1 << *revision) - 1);
            if *revision > 0 {
                *revision = 1 + u8::try_from(below.count_ones()).unwrap_or(u8::MAX);
            }
        });
        // Their order may have changed with the numbers in them.
        state.network.sort_unstable();
    }

    fn step(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Deliver(at) => self.deliver(state, at),
            Action::Lose(at) => {
                state.budget.faults -= 1;
                state.network.remove(at);
            }
            Action::Repeat(at) => {
                state.budget.faults -= 1;
                let message = state.network[at];
                state.post(Message { is_wanted: false, ..message });
            }
            Action::GiveUp(p, caller) => self.give_up(state, p, caller)?,
            Action::Cancel(p, m) => {
                state.budget.faults -= 1;
                state.abandon(p, Some(Caller::Monitor(m)));
                self.drop_future(state, p, m);
            }
            Action::Begin(p, m) => self.begin(state, p, m),
            Action::Take(p, m) => self.take(state, p, m),
            Action::Check(p, m) => {
                if state.process(p).is_current(usize::from(m), self.mutant()) {
                    state.monitor_mut(p, m).stage = Stage::Checked;
                } else {
                    self.clear(state, p, m);
                }
            }
            Action::Commit(p, m) => self.commit(state, p, m),
            Action::Replace(p, m) => {
                let monitor = state.monitor_mut(p, m);
                monitor.can_replace = false;
                monitor.was_taken = monitor.stage == Stage::Taken;
                monitor.stage = Stage::Replacing;
                self.send_replacement(state, p, m);
            }
            Action::Drop(p, m) => self.clear(state, p, m),
            Action::Rest(p, m) => self.rest(state, p, m),
            Action::Collect(p) => {
                let ghost = state.process(p).ghost(self.mutant());
                let process = state.process_mut(p);
                match ghost {
                    None => process.must_collect = false,
                    Some(row) => {
                        process.is_collecting = true;
                        let condition = If::At(version(&row, self.mutant()));
                        state.send(p, Caller::Collector, Body::Delete { name: row.name, condition });
                    }
                }
            }
            Action::Hear(p) => {
                let event = state.engine.after(state.process(p).mirror.applied)?;
                let was_settling = state.process(p).settling;
                state.process_mut(p).hear(event, &self.0);
                if state.process(p).settling > was_settling {
                    state.note(Note::Settled);
                }
            }
            Action::Cut(p) => {
                state.budget.cuts[usize::from(p)] -= 1;
                let process = state.process_mut(p);
                process.watching = Watch::Cut;
                if self.mutant() == Mutant::MirrorClearedFirst {
                    process.mirror.mark = None;
                }
            }
            Action::List(p) => {
                state.process_mut(p).watching = Watch::Listing;
                state.send(p, Caller::Watch, Body::List);
            }
            Action::Renew(p) => {
                let process = state.process_mut(p);
                process.renewal = Some(0);
                let lease = process.lease;
                state.send(p, Caller::Renewal, Body::Renew(lease));
            }
            Action::Reopen(p) => {
                state.process_mut(p).opening = Some(0);
                state.send(p, Caller::Opening, Body::Grant);
            }
            Action::Pause(p) => {
                state.budget.pauses -= 1;
                state.process_mut(p).life = Life::Paused;
            }
            Action::Resume(p) => state.process_mut(p).life = Life::Running,
            Action::Crash(p) => {
                state.budget.crashes -= 1;
                state.abandon(p, None);
                state.process_mut(p).die();
                state.is_evicted = false;
            }
            Action::Tick => {
                state.engine.tick();
                for (p, process) in state.processes.iter_mut().enumerate() {
                    process.tick(p > 0, &self.0);
                }
            }
            Action::Expire(lease) => self.end(state, lease),
            Action::EndEarly(lease) => {
                state.budget.lies -= 1;
                state.is_evicted = state.process(0).reopens > 0
                    && state.process_of(lease) == Some(0)
                    && state.process(0).is_running()
                    && state.engine.row.is_some_and(|row| row.name.lease == lease)
                    && state
                        .process(0)
                        .monitors
                        .iter()
                        .any(|monitor| matches!(monitor.stage, Stage::Held | Stage::Taken | Stage::Checked));
                state.engine.end(lease);
            }
        }
        Some(())
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let Settings { faults, cuts, pauses, crashes, lies, ttl, .. } = self.0;
        let phases = if self.0.slow_clocks { ttl } else { 1 };
        let state = |first| {
            let mut engine = Engine::new();
            // Both have opened their sessions.
            let leases = [engine.grant(ttl).unwrap_or(0), engine.grant(KEPT).unwrap_or(0)];
            State {
                engine,
                network: Vec::new(),
                processes: [Process::new(&self.0, 0, leases[0], first), Process::new(&self.0, 1, leases[1], 0)],
                store: Store::default(),
                budget: Budget { faults, cuts, pauses, crashes, lies },
                is_evicted: false,
                note: None,
                broken: None,
            }
        };
        (0..phases).map(state).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // With time, what comes after the last mark is of no interest.
        if self.is_timed() && self.is_over(state) {
            return;
        }
        let mut last = None;
        for (at, message) in state.network.iter().enumerate() {
            // Those that are alike are in order, and one of them does.
            if last.replace(*message) == Some(*message) {
                continue;
            }
            if !message.body.is_answer() || state.process(message.process).is_running() {
                actions.push(Action::Deliver(at));
            }
            if message.is_wanted && self.may_fail(state, message.process) {
                actions.push(Action::Lose(at));
                if message.body.is_write() {
                    actions.push(Action::Repeat(at));
                }
            }
        }
        for p in PROCESSES {
            self.process_actions(state, p, actions);
        }
        if self.is_timed() && (!self.0.prompt || self.is_quiet(state)) {
            actions.push(Action::Tick);
        }
        for lease in (1..=LEASES).filter_map(|lease| u8::try_from(lease).ok()) {
            if !state.engine.is_alive(lease) {
                continue;
            }
            let owner = state.process_of(lease);
            let is_running = owner.is_some_and(|owner| state.process(owner).is_running());
            let is_due = if self.is_timed() { state.engine.is_due(lease) } else { !is_running };
            if is_due {
                actions.push(Action::Expire(lease));
            } else if state.budget.lies > 0 && owner == Some(0) {
                actions.push(Action::EndEarly(lease));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        state.note = None;
        self.step(&mut state, action)?;
        self.tidy(&mut state);
        if state.store.is_done() {
            // What is done is not redriven, whoever was evicted.
            state.is_evicted = false;
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(&self.0)
    }
}
