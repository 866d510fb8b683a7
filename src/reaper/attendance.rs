//! Since when sweeps have come regularly, for each boot grace: only to decide whether a `boot_grace` still holds.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;

/// When a reaper has looked, and since when it does so regularly.
pub(super) struct Attendance(ArcSwap<Looks>);

#[derive(Clone)]
pub(super) struct Looks {
    /// The end of the last pause by any boot grace so far, or the start: what one counts from that is new.
    latest: Instant,
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
    /// How often it began anew without having been sat out.
    restarts: u8,
}

/// So often at most a grace that has not run to its end begins anew: gaps that are long and short by turns would
/// otherwise keep it from ever ending.
const RESTARTS: u8 = 2;

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
        Self { latest: now.monotonic, last: now, paces: Vec::new() }
    }

    fn next(&self, now: Moment, graces: &[Duration]) -> Self {
        let gap = now.since(self.last);
        let paces: Vec<_> = graces.iter().map(|grace| self.pace(*grace).next(now.monotonic, gap)).collect();
        let latest = paces.iter().map(|pace| pace.since).chain([self.latest]).max();
        Self { latest: latest.unwrap_or(self.latest), last: now, paces }
    }

    fn pace(&self, grace: Duration) -> Pace {
        let known = self.paces.iter().find(|pace| pace.grace == grace);
        known.copied().unwrap_or(Pace { grace, late: false, since: self.latest, restarts: 0 })
    }

    /// Whether the reaper has been looking regularly for less than this boot grace, one of the policy's.
    pub(super) fn is_within(&self, grace: Duration) -> bool {
        self.attended_for(grace) < grace
    }

    fn attended_for(&self, grace: Duration) -> Duration {
        self.last.monotonic.saturating_duration_since(self.pace(grace).since)
    }
}

impl Pace {
    /// After a sweep at `now`, which came `gap` after the one before it.
    ///
    /// Two long gaps in a row are a slow reaper's pace and no pause: it would otherwise never be done looking twice.
    fn next(self, now: Instant, gap: Duration) -> Self {
        let late = gap > self.grace;
        if late && !self.late && self.restarts < RESTARTS {
            return Self { late, since: now, restarts: self.restarts.saturating_add(1), ..self };
        }
        let sat_out = now.saturating_duration_since(self.since) >= self.grace;
        Self { late, restarts: if sat_out { 0 } else { self.restarts }, ..self }
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
    fn gaps_that_alternate_do_not_hold_it_back_for_ever() {
        let mut reaper = Rehearsal::new();
        let attended: Vec<_> = [61, 10, 61, 10, 61, 10, 61].map(|gap| reaper.sweep_after(gap)).into();
        assert_eq!(attended, [0, 10, 0, 10, 71, 81, 0]);
    }

    #[test]
    fn a_boot_grace_that_is_changed_does_not_forget_the_pause() {
        let mut reaper = Rehearsal::new();
        reaper.sweep_after(10);
        assert_eq!(reaper.sweep_after(3600), 0);
        reaper.looks = reaper.looks.next(reaper.now, &[]);
        reaper.now.monotonic += Duration::from_secs(10);
        reaper.looks = reaper.looks.next(reaper.now, &[PAUSE * 2]);
        assert_eq!(reaper.looks.attended_for(PAUSE * 2).as_secs(), 10);
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
