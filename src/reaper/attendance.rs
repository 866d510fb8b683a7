//! Whether the reaper was there all the time: what a `boot_grace` counts from.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

/// When a reaper has looked, and since when it does so regularly.
pub(super) struct Attendance(ArcSwap<Looks>);

#[derive(Clone)]
pub(super) struct Looks {
    start: Instant,
    /// The start of the last sweep; before the first, the reaper's own.
    last: Moment,
    /// What that means to each boot grace: what is a pause to a short one is none to a long one.
    paces: Vec<Pace>,
}

#[derive(Clone, Copy)]
struct Pace {
    /// To have been away is to have been away for longer than this.
    grace: Duration,
    /// Whether the last sweep came so late.
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

    /// Notes that a sweep begins under a policy with these boot graces.
    pub(super) fn look(&self, graces: &[Duration]) -> Arc<Looks> {
        let now = Moment::now();
        let mut looks = self.0.load_full();
        self.0.rcu(|before| {
            looks = Arc::new(before.next(now, graces));
            Arc::clone(&looks)
        });
        looks
    }
}

impl Looks {
    fn new(now: Moment) -> Self {
        Self { start: now.monotonic, last: now, paces: Vec::new() }
    }

    /// Two long gaps in a row are a slow reaper's pace and no pause: it would otherwise never be done looking twice.
    fn next(&self, now: Moment, graces: &[Duration]) -> Self {
        let gap = now.since(self.last);
        let pace = |&grace| {
            let known = self.paces.iter().find(|pace| pace.grace == grace);
            let (was_late, since) = known.map_or((false, self.start), |pace| (pace.late, pace.since));
            let late = gap > grace;
            Pace { grace, late, since: if late && !was_late { now.monotonic } else { since } }
        };
        Self { start: self.start, last: now, paces: graces.iter().map(pace).collect() }
    }

    /// Whether the reaper has been looking regularly for less than this boot grace, one of the policy's.
    pub(super) fn is_within(&self, grace: Duration) -> bool {
        self.attended_for(grace) < grace
    }

    fn attended_for(&self, grace: Duration) -> Duration {
        let known = self.paces.iter().find(|pace| pace.grace == grace);
        self.last.monotonic.saturating_duration_since(known.map_or(self.start, |pace| pace.since))
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
            self.looks = self.looks.next(self.now, &[PAUSE]);
            self.looks.attended_for(PAUSE).as_secs()
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
    fn a_pause_of_one_grace_is_none_to_a_longer_one() {
        let mut reaper = Rehearsal::new();
        for (seconds, [short, long]) in [(10, [10, 10]), (61, [0, 71]), (10, [10, 81]), (601, [0, 0])] {
            reaper.now.monotonic += Duration::from_secs(seconds);
            let graces = [PAUSE, PAUSE * 10];
            reaper.looks = reaper.looks.next(reaper.now, &graces);
            assert_eq!(graces.map(|grace| reaper.looks.attended_for(grace).as_secs()), [short, long]);
        }
    }

    #[test]
    fn who_always_comes_late_looks_twice_once() {
        let mut reaper = Rehearsal::new();
        assert_eq!([reaper.sweep_after(100), reaper.sweep_after(100), reaper.sweep_after(100)], [0, 100, 200]);
        assert_eq!([reaper.sweep_after(10), reaper.sweep_after(100)], [210, 0], "once in time, a pause counts again");
    }
}
