//! `GET /trends`: how the last hour went, kept in memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use livemark::ReaperStats;
use serde_json::json;
use tokio::time::sleep;

use crate::serve::Service;
use crate::serve::query::Query;
use crate::serve::routes::{Refusal, as_json};
use crate::serve::view::milliseconds;
use crate::store::now;

/// What one point stands for, and how many there are: an hour.
const EVERY: Duration = Duration::from_secs(10);
const POINTS: usize = 360;
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The points, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Trends(Mutex<Hour>);

#[derive(Debug, Default)]
struct Hour {
    /// What the last point began at, in multiples of [`EVERY`] since the epoch.
    last: u64,
    points: VecDeque<Point>,
    /// The counts of the last look.
    counted: ReaperStats,
}

/// Ten seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Point {
    /// Jobs left alone at the same time, at most.
    deferred: usize,
    redrives: u64,
    reaps: u64,
    /// The age of the oldest mark, at most, in milliseconds.
    oldest_owner: u64,
}

/// What is seen in one look.
struct Look {
    deferred: usize,
    oldest_owner: u64,
    counted: ReaperStats,
}

impl Hour {
    /// Adds a look to the point of its time. A clock that was set back adds to the last one.
    fn add(&mut self, at_ms: u64, look: &Look) {
        let at = at_ms / milliseconds(EVERY);
        let missing = match self.points.is_empty() {
            true => 1,
            false => usize::try_from(at.saturating_sub(self.last)).map_or(POINTS, |missing| missing.min(POINTS)),
        };
        // While the machine slept there was nothing.
        self.points.extend((0..missing).map(|_| Point::default()));
        self.points.drain(..self.points.len().saturating_sub(POINTS));
        self.last = self.last.max(at);
        let Some(point) = self.points.back_mut() else { return };
        point.deferred = point.deferred.max(look.deferred);
        point.oldest_owner = point.oldest_owner.max(look.oldest_owner);
        point.redrives += look.counted.redrives.saturating_sub(self.counted.redrives);
        point.reaps += reaps(&look.counted).saturating_sub(reaps(&self.counted));
        self.counted = look.counted;
    }
}

fn reaps(stats: &ReaperStats) -> u64 {
    stats.reaps_worker_lost + stats.reaps_backstop + stats.reaps_redrives_exhausted
}

impl Trends {
    fn hour(&self) -> MutexGuard<'_, Hour> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes on for as long as the service does.
pub(super) async fn watch(service: &'static Service) {
    loop {
        look(service);
        sleep(LOOK_EVERY).await;
    }
}

fn look(service: &Service) {
    let oldest = service.engine.marks.seen().oldest();
    let look = Look {
        deferred: service.engine.feed.deferred(),
        oldest_owner: oldest.map_or(0, milliseconds),
        counted: service.reaper.stats(),
    };
    service.trends.hour().add(now(), &look);
}

pub(super) async fn trends(State(service): State<&'static Service>, uri: Uri) -> Result<Response, Refusal> {
    Query::of(&uri, &[])?;
    // With what is so at this moment.
    look(service);
    let hour = service.trends.hour();
    let every = milliseconds(EVERY);
    let before = (hour.points.len() as u64).saturating_sub(1);
    let column = |of: fn(&Point) -> u64| hour.points.iter().map(of).collect::<Vec<_>>();
    let body = json!({
        "every_ms": every,
        "from_ms": hour.last.saturating_sub(before) * every,
        "deferred": column(|point| point.deferred as u64),
        "redrives": column(|point| point.redrives),
        "reaps": column(|point| point.reaps),
        "oldest_owner_ms": column(|point| point.oldest_owner),
    });
    drop(hour);
    Ok(as_json(body.to_string()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(deferred: usize, oldest_owner: u64, reaps: u64) -> Look {
        let mut counted = ReaperStats::default();
        counted.reaps_backstop = reaps;
        Look { deferred, oldest_owner, counted }
    }

    fn shown(hour: &Hour) -> Vec<(usize, u64, u64)> {
        hour.points.iter().map(|point| (point.deferred, point.oldest_owner, point.reaps)).collect()
    }

    #[test]
    fn looks_of_ten_seconds_are_one_point() {
        let mut hour = Hour::default();
        hour.add(20_000, &look(3, 100, 1));
        hour.add(29_999, &look(1, 400, 3));
        assert_eq!(shown(&hour), [(3, 400, 3)]);
        hour.add(30_000, &look(0, 0, 3));
        assert_eq!(shown(&hour), [(3, 400, 3), (0, 0, 0)]);
    }

    /// Seen to fail with points that are pushed for each look that has another time.
    #[test]
    fn a_machine_that_slept_or_whose_clock_was_set_back_is_no_matter() {
        let mut hour = Hour::default();
        hour.add(20_000, &look(1, 0, 0));
        hour.add(50_000, &look(2, 0, 0));
        assert_eq!(shown(&hour), [(1, 0, 0), (0, 0, 0), (0, 0, 0), (2, 0, 0)]);
        hour.add(10_000, &look(5, 0, 0));
        assert_eq!((hour.points.len(), hour.points[3].deferred), (4, 5));
    }

    /// Seen to fail without an end to the points.
    #[test]
    fn an_hour_is_kept() {
        let mut hour = Hour::default();
        for at in 0..1000 {
            hour.add(at * 10_000, &look(0, at, 0));
        }
        assert_eq!((hour.points.len(), hour.points[0].oldest_owner), (POINTS, 1000 - POINTS as u64));
        hour.add(u64::MAX, &look(7, 0, 0));
        assert_eq!((hour.points.len(), hour.points[0].oldest_owner, hour.points[POINTS - 1].deferred), (POINTS, 0, 7));
    }
}
