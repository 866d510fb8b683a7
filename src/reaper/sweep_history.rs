//! Since when a reaper has looked regularly: [`SweepHistory`].
//!
//! A reaper *looks* when it begins a sweep, and when it comes to a job that is past a limit. A gap between two looks is
//! a *pause* to a limit if it is longer than the limit and the gap before was not. Gaps that are always long are the
//! reaper's *pace*. Each boot grace and each `stale_after` has a timer, which counts from the end of the latest pause:
//!
//! ```text
//!                           a pause             another
//!  looks       | | | | |................| | | |.........| | | | | | | | | | | | | | | |
//!  timer         over                   0 1 2 3         0 1 2 3 4 5 6 7 8 9 over
//!                                                       |--- boot grace ---|
//!  looks dead    acts                   defers                              acts
//!  deadline      acts                   defers if it passed during a pause  acts
//! ```
//!
//! A pause before the timer has run to its end makes one long pause with those before it. The timer begins anew at most
//! while the reaper was awake for three times the limit in between. Otherwise gaps that are long and short
//! by turns would keep it from ever ending.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::findings::Findings;
use super::grace_timer::{GraceTimer, Moment, Start};

/// Keeps what a reaper remembers from one sweep to the next. Several threads may sweep with one reaper.
pub(super) struct SweepHistory(ArcSwap<HistoryState>);

#[derive(Clone)]
pub(super) struct HistoryState {
    /// The reaper's latest look. Before the first, the reaper's own start.
    last_look: Moment,
    has_swept: bool,
    /// The latest start of any timer. A limit that is new counts from it.
    latest_start: Start,
    /// One timer for each limit: what is a pause to a short limit is none to a long one.
    timers: Vec<GraceTimer>,
    /// When the boot grace was begun anew by its user, who could not see for a while. No pause: no job's age has jumped,
    /// and deadlines are as they were.
    restarted_at: Option<Instant>,
    /// What the latest sweep found of the jobs that were past a limit, if there were any.
    pub(super) findings: Option<Arc<Findings>>,
}

impl SweepHistory {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self(ArcSwap::from_pointee(HistoryState::new(Moment::now())))
    }

    /// Records that a sweep begins under a policy with these limits.
    pub(super) fn record_sweep(&self, limits: &[Duration]) -> Arc<HistoryState> {
        let now = Moment::now();
        let mut before = self.0.load();
        loop {
            let state = Arc::new(before.next_sweep(now, limits));
            // Stored only if nobody has stored another state since.
            let found = self.0.compare_and_swap(&*before, Arc::clone(&state));
            if Arc::ptr_eq(&found, &before) {
                return state;
            }
            before = found;
        }
    }

    /// Begins every boot grace anew.
    pub(super) fn restart(&self) {
        let now = Moment::now();
        self.0.rcu(|before| before.restarted(now));
    }

    /// Records what a sweep saw until its latest look, unless another thread has looked since.
    pub(super) fn record_end(&self, swept: &HistoryState, last_look: Moment, findings: Findings) {
        let findings = (!findings.is_empty()).then(|| Arc::new(findings));
        self.0.rcu(|before| {
            let findings = findings.clone();
            if before.last_look.monotonic > last_look.monotonic {
                HistoryState { findings, ..before.as_ref().clone() }
            } else {
                // A restart that came in between is not lost.
                let restarted_at = before.restarted_at.max(swept.restarted_at);
                HistoryState { last_look, restarted_at, findings, ..swept.clone() }
            }
        });
    }
}

impl HistoryState {
    fn new(now: Moment) -> Self {
        let latest_start = Start { at: now.monotonic, pause: None };
        Self { last_look: now, has_swept: false, latest_start, timers: Vec::new(), restarted_at: None, findings: None }
    }

    /// Returns this state, but with a boot grace that begins at `now`.
    fn restarted(&self, now: Moment) -> Self {
        Self { restarted_at: Some(now.monotonic), ..self.clone() }
    }

    /// Returns the state after a sweep that begins at `now`.
    fn next_sweep(&self, now: Moment, limits: &[Duration]) -> Self {
        let gap = now.since(self.last_look);
        let next = |limit: &Duration| self.timer(*limit).next_sweep(now.monotonic, gap, self.has_swept);
        let timers: Vec<_> = limits.iter().map(next).collect();
        let later = |latest: Start, timer: &GraceTimer| if timer.start.at > latest.at { timer.start } else { latest };
        let latest_start = timers.iter().fold(self.latest_start, later);
        Self { last_look: now, has_swept: true, latest_start, timers, ..self.clone() }
    }

    /// Records that the reaper looks at a job that is past a limit. Allocates only if this gap is longer than some
    /// timer's limit, or the gap before was.
    pub(super) fn next_job(state: &mut Arc<Self>, last: &mut Moment) {
        Self::next_job_at(state, last, Moment::now());
    }

    fn next_job_at(state: &mut Arc<Self>, last: &mut Moment, now: Moment) {
        let gap = now.since(std::mem::replace(last, now));
        if !state.timers.iter().any(|timer| timer.late_job || gap > timer.limit) {
            return;
        }
        let state = Arc::make_mut(state);
        state.last_look = now;
        for timer in &mut state.timers {
            *timer = timer.next_job(now.monotonic, gap);
            if timer.start.at > state.latest_start.at {
                state.latest_start = timer.start;
            }
        }
    }

    /// Returns `true` if there is a limit that a pause matters to.
    pub(super) fn is_timed(&self) -> bool {
        !self.timers.is_empty()
    }

    pub(super) fn last_look(&self) -> Moment {
        self.last_look
    }

    /// Returns the timer of a limit. A limit that is new counts from the latest start of any timer.
    fn timer(&self, limit: Duration) -> GraceTimer {
        let known = self.timers.iter().find(|timer| timer.limit == limit);
        known.copied().unwrap_or_else(|| GraceTimer::new(limit, self.latest_start))
    }

    /// Returns how much of this boot grace is left at this look: since the start, the latest pause, or a restart.
    pub(super) fn boot_grace_left(&self, now: Moment, grace: Duration) -> Option<Duration> {
        let restarted = self.restarted_at.map(|at| now.monotonic.saturating_duration_since(at));
        let since_restart = restarted.and_then(|elapsed| grace.checked_sub(elapsed)).filter(|left| !left.is_zero());
        self.grace_since_pause(now, grace).max(since_restart)
    }

    /// Returns how much of this boot grace is left at this look, counted from the start or the latest pause.
    pub(super) fn grace_since_pause(&self, now: Moment, grace: Duration) -> Option<Duration> {
        self.timer(grace).left(now)
    }

    /// Returns how long the pause was from which this boot grace counts. Job ages jumped by so much.
    pub(super) fn pause_before(&self, grace: Duration) -> Option<Duration> {
        self.timer(grace).start.pause
    }

    /// Returns how long a pulse may still be silent because of a pause of this process, in which it could not beat.
    pub(super) fn pulse_grace_left(&self, now: Moment, stale_after: Duration) -> Option<Duration> {
        let timer = self.timer(stale_after);
        timer.start.pause?;
        timer.left(now)
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(60);

    /// A reaper on a clock that the test moves.
    struct Rehearsal {
        now: Moment,
        history: Arc<HistoryState>,
        limits: Vec<Duration>,
    }

    impl Rehearsal {
        fn new() -> Self {
            Self::with(&[PAUSE])
        }

        fn with(limits: &[Duration]) -> Self {
            let now = Moment::now();
            Self { now, history: Arc::new(HistoryState::new(now)), limits: limits.into() }
        }

        fn advance(&mut self, seconds: u64) {
            self.now.monotonic += Duration::from_secs(seconds);
            self.now.wall += Duration::from_secs(seconds);
        }

        /// Lets both clocks run, then sweeps: for how long has the reaper been there?
        fn sweep_after(&mut self, seconds: u64) -> u64 {
            self.wake_after(seconds, seconds)
        }

        fn wake_after(&mut self, monotonic: u64, wall: u64) -> u64 {
            self.now.monotonic += Duration::from_secs(monotonic);
            self.now.wall += Duration::from_secs(wall);
            self.history = Arc::new(self.history.next_sweep(self.now, &self.limits));
            self.elapsed(PAUSE)
        }

        /// Lets both clocks run, then a job is due.
        fn job_after(&mut self, seconds: u64) -> u64 {
            self.advance(seconds);
            let mut last = self.history.last_look;
            HistoryState::next_job_at(&mut self.history, &mut last, self.now);
            Arc::make_mut(&mut self.history).last_look = last;
            self.elapsed(PAUSE)
        }

        fn elapsed(&self, limit: Duration) -> u64 {
            self.history.timer(limit).elapsed(self.now).as_secs()
        }

        fn pause(&self) -> Option<u64> {
            self.history.pause_before(PAUSE).map(|pause| pause.as_secs())
        }
    }

    #[test]
    fn it_counts_from_the_start() {
        let mut reaper = Rehearsal::new();
        assert_eq!([reaper.sweep_after(10), reaper.sweep_after(10), reaper.sweep_after(60)], [10, 20, 80]);
    }

    /// Seen to fail with a restart that begins the timers anew: it forgets the pause, or makes it longer each time.
    #[test]
    fn a_restart_is_a_grace_and_no_pause() {
        let mut reaper = Rehearsal::new();
        let grace_left =
            |reaper: &Rehearsal| reaper.history.boot_grace_left(reaper.now, PAUSE).map(|left| left.as_secs());
        reaper.sweep_after(10);
        assert_eq!((reaper.sweep_after(100), reaper.pause(), grace_left(&reaper)), (0, Some(100), Some(60)));
        reaper.sweep_after(50);
        reaper.history = Arc::new(reaper.history.restarted(reaper.now));
        assert_eq!((reaper.sweep_after(20), reaper.pause(), grace_left(&reaper)), (70, Some(100), Some(40)));
        assert_eq!(reaper.history.grace_since_pause(reaper.now, PAUSE), None, "deadlines are not held back by it");
        reaper.sweep_after(40);
        assert_eq!(grace_left(&reaper), None);
    }

    #[test]
    fn it_counts_from_the_end_of_a_pause() {
        let mut reaper = Rehearsal::new();
        reaper.sweep_after(10);
        assert_eq!([reaper.sweep_after(61), reaper.sweep_after(10), reaper.sweep_after(10)], [0, 10, 20]);
        assert_eq!(reaper.sweep_after(61), 0, "and of the next one");
    }

    #[test]
    fn a_first_sweep_that_comes_late_is_a_first_look_and_no_pause() {
        let mut reaper = Rehearsal::new();
        assert_eq!([reaper.sweep_after(3600), reaper.sweep_after(10)], [0, 10]);
        assert_eq!(reaper.pause(), None);
        assert_eq!(reaper.history.pulse_grace_left(reaper.now, PAUSE), None);
    }

    #[test]
    fn sleep_is_seen_by_the_clock_on_the_wall() {
        let mut reaper = Rehearsal::new();
        reaper.sweep_after(10);
        assert_eq!([reaper.wake_after(1, 8 * 3600), reaper.sweep_after(10)], [0, 10]);
        assert_eq!(reaper.pause(), Some(8 * 3600));
        assert_eq!(reaper.history.boot_grace_left(reaper.now, PAUSE), Some(Duration::from_secs(50)));
        assert_eq!(reaper.history.pulse_grace_left(reaper.now, PAUSE), Some(Duration::from_secs(50)));
    }

    #[test]
    fn a_wall_clock_that_was_set_back_is_no_pause() {
        let mut reaper = Rehearsal::new();
        reaper.sweep_after(10);
        reaper.now.wall -= Duration::from_secs(3600);
        assert_eq!(reaper.sweep_after(10), 20);
    }

    #[test]
    fn gaps_that_alternate_do_not_hold_it_back_for_ever() {
        let mut reaper = Rehearsal::new();
        let runs: Vec<_> = [61, 10].repeat(40).into_iter().map(|gap| reaper.sweep_after(gap)).collect();
        assert_eq!(runs[..6], [0, 10, 0, 10, 0, 10], "each is a pause");
        let first = runs.iter().position(|runs| *runs >= 60);
        assert_eq!(first, Some(2 * 18), "when it was there for three graces in between");
    }

    #[test]
    fn two_pauses_in_one_grace_are_one_long_pause() {
        let mut reaper = Rehearsal::new();
        reaper.sweep_after(10);
        assert_eq!([reaper.sweep_after(3600), reaper.sweep_after(10), reaper.sweep_after(7200)], [0, 10, 0]);
        assert_eq!(reaper.pause(), Some(3600 + 7200));
        assert_eq!([reaper.sweep_after(10), reaper.sweep_after(60), reaper.sweep_after(100)], [10, 70, 0]);
        assert_eq!(reaper.pause(), Some(100), "the one before has run to its end");
    }

    #[test]
    fn a_boot_grace_that_is_changed_does_not_forget_the_pause() {
        let mut reaper = Rehearsal::new();
        reaper.sweep_after(10);
        assert_eq!(reaper.sweep_after(3600), 0);
        reaper.limits.clear();
        reaper.sweep_after(0);
        reaper.limits.push(PAUSE * 2);
        reaper.sweep_after(10);
        assert_eq!(reaper.elapsed(PAUSE * 2), 10);
        assert_eq!(reaper.history.pause_before(PAUSE * 2), Some(Duration::from_secs(3600)));
    }

    #[test]
    fn a_pause_of_one_grace_is_none_to_a_longer_one() {
        let mut reaper = Rehearsal::with(&[PAUSE, PAUSE * 10]);
        for (seconds, [short, long]) in [(10, [10, 10]), (61, [0, 71]), (10, [10, 81]), (601, [0, 0])] {
            reaper.sweep_after(seconds);
            assert_eq!([PAUSE, PAUSE * 10].map(|limit| reaper.elapsed(limit)), [short, long]);
        }
    }

    #[test]
    fn who_always_comes_late_looks_twice_once() {
        let mut reaper = Rehearsal::new();
        assert_eq!([reaper.sweep_after(100), reaper.sweep_after(100), reaper.sweep_after(100)], [0, 100, 200]);
        assert_eq!([reaper.sweep_after(10), reaper.sweep_after(100)], [210, 0], "once in time, a pause counts again");
    }

    #[test]
    fn a_pause_between_two_jobs_is_a_pause() {
        let mut reaper = Rehearsal::new();
        reaper.sweep_after(100);
        assert_eq!([reaper.job_after(1), reaper.job_after(61), reaper.job_after(1)], [1, 0, 1]);
        assert_eq!(reaper.pause(), Some(61));
        assert_eq!(reaper.sweep_after(5), 6, "and not another one to the next sweep");
    }

    #[test]
    fn actions_that_are_always_slow_are_the_reapers_pace() {
        let mut reaper = Rehearsal::new();
        reaper.sweep_after(100);
        // Within one sweep.
        assert_eq!([100, 100, 100].map(|gap| reaper.job_after(gap)), [0, 100, 200]);
        // One slow job in each sweep, and others after it: they are not kept waiting forever.
        let held_back = [(); 6].map(|()| {
            reaper.sweep_after(1);
            reaper.job_after(1);
            reaper.job_after(100) < 60
        });
        assert_eq!(held_back, [true, false, false, false, false, false]);
        // A sweep without one: the next is a pause again.
        reaper.sweep_after(1);
        reaper.sweep_after(1);
        reaper.job_after(1);
        assert_eq!(reaper.job_after(100), 0);
    }
}
