//! The mode in force: who has set it, until when, and what comes after it. It outlives the service.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use livemark::{Mode, ReaperHandle};
use serde::Serialize;

use crate::error::Result;
use crate::reap::complain;
use crate::serve::view::milliseconds;
use crate::serve::{Service, routes::blocking};
use crate::store::{KeptMode, NoteKind, Store, now};

/// How often it is looked whether a mode has expired.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked what other processes have set.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// Who acts where nobody said so.
pub(super) const OPERATOR: &str = "operator";
/// Who ends a mode that has expired.
const CLOCK: &str = "clock";
/// The longest that a mode can be put in force for: whoever means longer means until it is changed.
pub(super) const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// How the mode came to be what it is.
#[derive(Debug, Default)]
pub(super) struct Modes(Mutex<Option<Set>>);

#[derive(Clone, Debug)]
struct Set {
    mode: Mode,
    by: String,
    since_ms: u64,
    until: Option<Until>,
    then: Mode,
}

/// An end. While the service runs it goes by the clock that nobody sets.
#[derive(Clone, Copy, Debug)]
struct Until {
    at: Instant,
    at_ms: u64,
}

/// What is told of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Override {
    mode: Mode,
    by: String,
    since_at_ms: u64,
    until_at_ms: Option<u64>,
    then: Mode,
}

impl Modes {
    /// Takes up the mode that an earlier service had, and says so. What has expired meanwhile is over.
    pub(super) fn take_up(&self, store: &Store) -> Result<Mode> {
        let Some(kept) = store.kept_mode()? else { return Ok(Mode::Honor) };
        let KeptMode { mode, by, until_ms, then, .. } = kept.clone();
        let (mode, then) = (read(&mode), read(&then));
        let now_ms = now();
        if until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
            let kept = keep(then, CLOCK.to_owned(), now_ms, None, then);
            store.keep_mode(&kept, &format!("{mode} of {by} has expired: {then} is in force"))?;
            *self.set() = Some(Set { mode: then, by: CLOCK.to_owned(), since_ms: now_ms, until: None, then });
            return Ok(then);
        }
        let told = Set::of(kept);
        // What is as it would be without anybody's doing needs no word.
        if mode != Mode::Honor {
            eprintln!("orchestrator: mode {mode}, {}", told.told());
        }
        *self.set() = Some(told);
        Ok(mode)
    }

    /// Takes up the mode that another process has put in force since. Returns `true` if there is one.
    fn follow(&self, reaper: &ReaperHandle, kept: KeptMode) -> bool {
        let mut set = self.set();
        let is_known = set.as_ref().is_some_and(|set| set.since_ms >= kept.since_ms);
        // What has expired is ended by whoever has it, here too if it was known.
        if is_known || kept.until_ms.is_some_and(|until_ms| until_ms <= now()) {
            return false;
        }
        let told = Set::of(kept);
        reaper.set_mode(told.mode);
        *set = Some(told);
        true
    }

    /// Puts a mode in force, for a while or until it is changed. Returns what is to be kept of it, and in words.
    pub(super) fn put(
        &self,
        reaper: &ReaperHandle,
        mode: Mode,
        by: &str,
        during: Option<Duration>,
    ) -> (KeptMode, String) {
        let mut set = self.set();
        let since_ms = now();
        // After an override of an override comes what was in force before both.
        let then = match (during, &*set) {
            (None, _) => mode,
            (Some(_), Some(before)) if before.until.is_some() => before.then,
            (Some(_), _) => reaper.policy().mode(),
        };
        let until = during.and_then(|during| {
            let at_ms = since_ms.saturating_add(milliseconds(during));
            Some(Until { at: Instant::now().checked_add(during)?, at_ms })
        });
        reaper.set_mode(mode);
        *set = Some(Set { mode, by: by.to_owned(), since_ms, until, then });
        let what = match during {
            Some(during) => format!("sets mode {mode} for {during:?}, then {then}"),
            None => format!("sets mode {mode}"),
        };
        (keep(mode, by.to_owned(), since_ms, until.map(|until| until.at_ms), then), what)
    }

    /// What is told of the mode, if anybody has set it.
    pub(super) fn told(&self) -> Option<Override> {
        self.set().clone().map(|Set { mode, by, since_ms, until, then }| Override {
            mode,
            by,
            since_at_ms: since_ms,
            until_at_ms: until.map(|until| until.at_ms),
            then,
        })
    }

    /// Ends a mode whose time is over. Returns what is to be kept then.
    fn expire(&self, reaper: &ReaperHandle) -> Option<(KeptMode, String)> {
        let mut set = self.set();
        let Set { mode, by, then, .. } =
            set.take_if(|set| set.until.is_some_and(|until| until.at <= Instant::now()))?;
        reaper.set_mode(then);
        let since_ms = now();
        *set = Some(Set { mode: then, by: CLOCK.to_owned(), since_ms, until: None, then });
        let kept = keep(then, CLOCK.to_owned(), since_ms, None, then);
        Some((kept, format!("{mode} of {by} has expired: {then} is in force")))
    }

    fn set(&self) -> MutexGuard<'_, Option<Set>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    fn of(KeptMode { mode, by, since_ms, until_ms, then }: KeptMode) -> Self {
        let until = until_ms.and_then(|at_ms| {
            let left = Duration::from_millis(at_ms.saturating_sub(now()));
            Some(Until { at: Instant::now().checked_add(left)?, at_ms })
        });
        Self { mode: read(&mode), by, since_ms, until, then: read(&then) }
    }

    fn told(&self) -> String {
        let at = |ms: u64| {
            let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
            format!("{at:.0}")
        };
        let until = self.until.map_or_else(
            || "until it is changed".to_owned(),
            |until| format!("until {}, then {}", at(until.at_ms), self.then),
        );
        format!("set by {} at {}, {until}", self.by, at(self.since_ms))
    }
}

/// Ends modes whose time is over.
pub(super) async fn watch(service: &'static Service) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some((kept, what)) = service.modes.expire(&service.reaper) else { continue };
        eprintln!("orchestrator: {what}");
        service.engine.feed.changed();
        // It is in force, whether or not that can be written down. The next start sees by the clock that it is over.
        let _ = blocking(service, move |_, store| {
            complain(store.keep_mode(&kept, &what));
            Ok(())
        })
        .await;
    }
}

/// Follows what operators do in other processes on the same jobs: the mode, and whether the queue is paused.
pub(super) async fn follow(service: &'static Service) {
    while service.engine.marks.are_shared() {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let read = |_: &Service, store: &mut Store| Ok((store.kept_mode()?, store.paused()?));
        // What cannot be read now is read the next time.
        let Ok((kept, pause)) = blocking(service, read).await else { continue };
        let mode = kept.is_some_and(|kept| service.modes.follow(&service.reaper, kept));
        let paused = pause.is_some() != service.engine.shift.is_paused();
        if paused {
            service.engine.shift.pause(pause.is_some());
        }
        if mode || paused {
            service.engine.feed.changed();
        }
    }
}

/// Writes down what an operator did, but for what is done already.
pub(super) fn noted(store: &Store, by: &str, said: &str) -> Result<()> {
    store.note_as(NoteKind::Mode, None, by, said)
}

fn keep(mode: Mode, by: String, since_ms: u64, until_ms: Option<u64>, then: Mode) -> KeptMode {
    KeptMode { mode: mode.to_string(), by, since_ms, until_ms, then: then.to_string() }
}

/// A mode that no version of ours has written is as good as none.
fn read(mode: &str) -> Mode {
    mode.parse().unwrap_or_default()
}
