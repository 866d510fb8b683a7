//! What one call takes, one at a time: the disk's sync beside mark and clear, the mirror's lag, and the barrier.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bench::{Bench, Writers, clear, context, until};
use crate::error::BenchError;
use crate::record::{Aim, Row, Samples};

/// What etcd writes for one mark, about.
const BLOCK: [u8; 512] = [0x5a; 512];
/// So much is written before the first block, so that no sync extends the file. etcd's log is laid out likewise.
const BLOCKS: u64 = 2_048;

/// A file that is synced block by block.
struct Disk {
    file: File,
    at: u64,
}

impl Disk {
    fn new(dir: &Path) -> Result<Self, BenchError> {
        let mut file = tempfile::tempfile_in(dir).map_err(BenchError::io("no file to sync"))?;
        for _ in 0..BLOCKS {
            file.write_all(&[0; BLOCK.len()]).map_err(BenchError::io("no room for the file to sync"))?;
        }
        file.sync_all().map_err(BenchError::io("the file cannot be synced"))?;
        Ok(Self { file, at: 0 })
    }

    fn sync(&mut self) -> Result<Duration, BenchError> {
        let size = BLOCK.len() as u64;
        let began = Instant::now();
        let at = SeekFrom::Start(self.at % BLOCKS * size);
        let written = self.file.seek(at).and_then(|_| self.file.write_all(&BLOCK));
        written.and_then(|()| self.file.sync_data()).map_err(BenchError::io("the file cannot be synced"))?;
        self.at += 1;
        Ok(began.elapsed())
    }
}

/// `fsync`, `mark` and `clear`, one of each in turn.
pub(crate) async fn calls(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let session = bench.session(&bench.namespace()).await?;
    let mut disk = Disk::new(&bench.dir)?;
    let [mut fsync, mut mark, mut cleared] = [(); 3].map(|()| Samples::default());
    for _ in 0..bench.plan.rounds {
        for job in (0..).take(bench.plan.calls) {
            fsync.push_ms(disk.sync()?);
            let began = Instant::now();
            let guard = session.mark(job, context(job)).await?;
            mark.push_ms(began.elapsed());
            let began = Instant::now();
            clear(guard).await?;
            cleared.push_ms(began.elapsed());
        }
    }
    session.close().await?;
    let count = bench.plan.rounds * bench.plan.calls;
    let ratio = |hundredths| Some(mark.percentile(hundredths)? / (3.0 * fsync.percentile(hundredths)?));
    Ok(vec![
        Row::new("fsync", "512 bytes written and synced", "ms", &fsync),
        Row::new("mark", "one at a time", "ms", &mark),
        Row::derived("mark", "p50 of mark / 3 p50 of fsync", "", count, ratio(50)),
        Row::derived("mark", "p99 of mark / 3 p99 of fsync", "", count, ratio(99)).aim(Aim::P50(1.0)),
        Row::new("clear", "one at a time", "ms", &cleared),
    ])
}

/// `lag`: how long after a mark another process's mirror shows it.
pub(crate) async fn lag(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let namespace = bench.namespace();
    let (here, there) = (bench.session(&namespace).await?, bench.session(&namespace).await?);
    let (view, mut answered, mut sent) = (there.view(), Samples::default(), Samples::default());
    // Each job once: a mirror may show an earlier mark for a moment after its clear.
    for job in (0..).take(bench.plan.rounds * bench.plan.calls) {
        let send = Instant::now();
        let guard = here.mark(job, context(job)).await?;
        let answer = Instant::now();
        until("the mark in the other mirror", None, || view.registry().is_active(&job)).await?;
        answered.push_ms(answer.elapsed());
        sent.push_ms(send.elapsed());
        clear(guard).await?;
    }
    here.close().await?;
    there.close().await?;
    Ok(vec![
        Row::new("lag", "from the answer of mark to is_active elsewhere", "ms", &answered),
        Row::new("lag", "from the send of mark to is_active elsewhere", "ms", &sent),
    ])
}

/// `barrier`: how long a mirror takes to be shown up to date, idle and beside writers of another session.
pub(crate) async fn barrier(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let namespace = bench.namespace();
    let (here, there) = (bench.session(&namespace).await?, bench.session(&namespace).await?);
    let (view, mut idle, mut beside) = (here.view(), Samples::default(), Samples::default());
    for _ in 0..bench.plan.rounds {
        for (samples, writers) in [(&mut idle, 0), (&mut beside, 64)] {
            let writers = Writers::start(std::slice::from_ref(&there), writers);
            for _ in 0..bench.plan.calls {
                let began = Instant::now();
                view.barrier().await?;
                samples.push_ms(began.elapsed());
            }
            writers.finish().await?;
        }
    }
    here.close().await?;
    there.close().await?;
    Ok(vec![
        Row::new("barrier", "idle", "ms", &idle).aim(Aim::P99(50.0)),
        Row::new("barrier", "beside 64 writers", "ms", &beside),
    ])
}
