//! `throughput`: marks and clears in a second.

use crate::bench::{Bench, Writers};
use crate::error::BenchError;
use crate::record::{Row, Samples};

pub(crate) async fn throughput(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let namespace = bench.namespace();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(bench.session(&namespace).await?);
    }
    // Sessions that are counted, and writers in each.
    let mut cases =
        [(1, 1), (1, 64), (1, 256), (4, 64)].map(|(sessions, writers)| (sessions, writers, Samples::default()));
    for _ in 0..bench.plan.rounds {
        for (of, writers, samples) in &mut cases {
            let writers = Writers::start(&sessions[..*of], *writers);
            tokio::time::sleep(bench.plan.load).await;
            samples.push(writers.finish().await?);
        }
    }
    for session in sessions {
        session.close().await?;
    }
    let rows = cases.iter().map(|(sessions, writers, samples)| {
        let case = match sessions {
            1 => format!("{writers} at once, one session"),
            _ => format!("{writers} at once in each of {sessions} sessions"),
        };
        Row::new("throughput", case, "pairs/s", samples)
    });
    Ok(rows.collect())
}
