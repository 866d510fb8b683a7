//! Whether the reaper was there all the time: what a `boot_grace` counts from.

use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

/// When a reaper has looked, and since when it does so regularly.
pub(super) struct Attendance(ArcSwap<Looks>);

#[derive(Clone, Copy)]
struct Looks {
    /// The start of the last sweep; before the first, the reaper's own.
    last: Moment,
    /// Whether that sweep came long after the one before it.
    late: bool,
    /// The start, or the end of the last pause.
    since: Instant,
}

/// One instant by two clocks. The monotonic one may stand still while the machine sleeps, and the other jumps then:
/// as do ages that a job store computes by it.
#[derive(Clone, Copy)]
struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// By the clock that went further.
    fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        self.monotonic.saturating_duration_since(earlier.monotonic).max(wall)
    }
}

impl Attendance {
    /// From now on.
    pub(super) fn new() -> Self {
        Self(ArcSwap::from_pointee(Looks::new(Moment::now())))
    }

    /// Notes that a sweep begins, and says for how long the reaper has been looking regularly: since its start, or since
    /// it was away for longer than `pause`.
    pub(super) fn look(&self, pause: Duration) -> Duration {
        let now = Moment::now();
        let before = self.0.rcu(|looks| looks.next(now, pause));
        now.monotonic.saturating_duration_since(before.next(now, pause).since)
    }
}

impl Looks {
    fn new(now: Moment) -> Self {
        Self { last: now, late: false, since: now.monotonic }
    }

    /// Two long gaps in a row are a slow reaper's pace and no pause: it would otherwise never be done looking twice.
    fn next(&self, now: Moment, pause: Duration) -> Self {
        let late = now.since(self.last) > pause;
        let since = if late && !self.late { now.monotonic } else { self.since };
        Self { last: now, late, since }
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
        looks: Looks,
    }

    impl Rehearsal {
        fn new() -> Self {
            let now = Moment::now();
            Self { now, looks: Looks::new(now) }
        }

        /// Lets both clocks run, then sweeps: for how long has the reaper been there?
        fn sweep_after(&mut self, seconds: u64) -> u64 {
            self.wake_after(seconds, seconds)
        }

        fn wake_after(&mut self, monotonic: u64, wall: u64) -> u64 {
            self.now.monotonic += Duration::from_secs(monotonic);
            self.now.wall += Duration::from_secs(wall);
            self.looks = self.looks.next(self.now, PAUSE);
            (self.now.monotonic - self.looks.since).as_secs()
        }
    }

    #[test]
    fn it_counts_from_the_start() {
        let mut reaper = Rehearsal::new();
        assert_eq!([reaper.sweep_after(10), reaper.sweep_after(10), reaper.sweep_after(60)], [10, 20, 80]);
    }

    #[test]
    fn it_counts_from_the_end_of_a_pause() {
        let mut reaper = Rehearsal::new();
        reaper.sweep_after(10);
        assert_eq!([reaper.sweep_after(61), reaper.sweep_after(10), reaper.sweep_after(10)], [0, 10, 20]);
        assert_eq!(reaper.sweep_after(61), 0, "and of the next one");
    }

    #[test]
    fn a_first_sweep_that_comes_late_is_a_first_look() {
        let mut reaper = Rehearsal::new();
        assert_eq!([reaper.sweep_after(3600), reaper.sweep_after(10)], [0, 10]);
    }

    #[test]
    fn sleep_is_seen_by_the_clock_on_the_wall() {
        let mut reaper = Rehearsal::new();
        reaper.sweep_after(10);
        assert_eq!([reaper.wake_after(1, 8 * 3600), reaper.sweep_after(10)], [0, 10]);
    }

    #[test]
    fn a_wall_clock_that_was_set_back_is_no_pause() {
        let mut reaper = Rehearsal::new();
        reaper.sweep_after(10);
        reaper.now.wall -= Duration::from_secs(3600);
        assert_eq!(reaper.sweep_after(10), 20);
    }

    #[test]
    fn who_always_comes_late_looks_twice_once() {
        let mut reaper = Rehearsal::new();
        assert_eq!([reaper.sweep_after(100), reaper.sweep_after(100), reaper.sweep_after(100)], [0, 100, 200]);
        assert_eq!([reaper.sweep_after(10), reaper.sweep_after(100)], [210, 0], "once in time, a pause counts again");
    }
}
