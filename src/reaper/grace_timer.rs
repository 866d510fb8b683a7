//! The timer of a boot grace, or of a `stale_after`: [`GraceTimer`]. `sweep_history.rs` draws when it begins anew.

use std::time::{Duration, Instant, SystemTime};

/// Counts how long a reaper has looked regularly, as one limit sees it.
#[derive(Clone, Copy)]
pub(super) struct GraceTimer {
    /// A gap that is longer than this may be a pause.
    pub(super) limit: Duration,
    pub(super) start: Start,
    /// How long the reaper was awake between the pauses, since the timer first began anew. `None` once the timer has
    /// run to its end.
    awake: Option<Duration>,
    /// The latest gap between two sweeps was longer than the limit.
    late_sweep: bool,
    /// The latest gap between two jobs was longer than the limit.
    pub(super) late_job: bool,
    /// Some gap between two jobs of this sweep was longer than the limit.
    had_late_job: bool,
    /// How many sweeps before this one had such a gap, one after the other.
    late_streak: u8,
}

/// What a timer counts from.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) at: Instant,
    /// How long the reaper was away before, in all. `None` at the reaper's own start.
    pub(super) pause: Option<Duration>,
}

/// A timer that has not run to its end begins anew while the reaper was awake for less than so many times its limit.
const RESTART_LIMITS: u32 = 3;
/// A long gap between two jobs that so many sweeps had before is the reaper's pace. A job store that is always slow at
/// one job must not keep the others waiting forever.
const SWEEPS_TO_A_PACE: u8 = 2;

/// The two looks that a gap is between. Each kind has a pace of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    Sweeps,
    Jobs,
}

impl GraceTimer {
    pub(super) fn new(limit: Duration, start: Start) -> Self {
        Self { limit, start, awake: None, late_sweep: false, late_job: false, had_late_job: false, late_streak: 0 }
    }

    /// Returns how long the timer has run.
    pub(super) fn elapsed(&self, now: Moment) -> Duration {
        now.monotonic.saturating_duration_since(self.start.at)
    }

    /// Returns how much of the limit is left, unless the timer has run to its end.
    pub(super) fn left(&self, now: Moment) -> Option<Duration> {
        self.limit.checked_sub(self.elapsed(now)).filter(|left| !left.is_zero())
    }

    /// Records a sweep that begins at `now`, `gap` after the latest look.
    pub(super) fn next_sweep(self, now: Instant, gap: Duration, has_swept: bool) -> Self {
        // Did the sweep before have a long gap between its jobs, like those before it?
        let late_streak = if self.had_late_job { self.late_streak.saturating_add(1) } else { 0 };
        let next = Self { late_streak, late_job: false, had_late_job: false, ..self };
        let next = next.after_gap(now, gap, Between::Sweeps, self.late_sweep);
        // A reaper that has never swept was not away: this is its first look.
        if has_swept { next } else { Self { start: Start { pause: None, ..next.start }, ..next } }
    }

    /// Records a look at a job at `now`, `gap` after the latest look.
    pub(super) fn next_job(self, now: Instant, gap: Duration) -> Self {
        let is_pace = self.late_job || self.late_streak >= SWEEPS_TO_A_PACE;
        self.after_gap(now, gap, Between::Jobs, is_pace)
    }

    /// Records a gap. The timer begins anew if the gap is a pause, and is not the reaper's pace.
    fn after_gap(mut self, now: Instant, gap: Duration, between: Between, is_pace: bool) -> Self {
        // Remember the gap: the next long one after a long one is the pace.
        let late = gap > self.limit;
        match between {
            Between::Sweeps => self.late_sweep = late,
            Between::Jobs => {
                self.late_job = late;
                self.had_late_job |= late;
            }
        }
        if late && !is_pace {
            // A pause. Before the timer has run to its end it makes one long pause with those before it.
            let earlier = self.awake.and(self.start.pause).unwrap_or_default();
            self.start.pause = Some(earlier.saturating_add(gap));
            // Begin anew, but not forever.
            let awake = self.awake.unwrap_or_default();
            if awake < self.limit.saturating_mul(RESTART_LIMITS) {
                self.start.at = now;
                self.awake = Some(awake);
                return self;
            }
        }
        // The reaper was awake during a short gap.
        if !late {
            self.awake = self.awake.map(|awake| awake.saturating_add(gap));
        }
        // At its end, the next pause is a new one.
        if now.saturating_duration_since(self.start.at) >= self.limit {
            self.awake = None;
        }
        self
    }
}

/// One instant by two clocks. The monotonic clock may stand still while the machine sleeps. The wall clock jumps then,
/// and so do the ages that a job store computes by it.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) monotonic: Instant,
    pub(super) wall: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// Returns how long ago `earlier` was, by the clock that went further.
    pub(super) fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        self.monotonic.saturating_duration_since(earlier.monotonic).max(wall)
    }
}
