//! `events`: what a process pays for marks and clears of others.
//!
//! The mirrors are in processes of their own, whose time on the processor is theirs alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use livemark_cluster::{ClusterGuard, Session};
use livemark_etcd::{Etcd, Options};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;

use crate::bench::{Bench, clear, config, context, mark_many, marks_of, number};
use crate::error::BenchError;
use crate::record::{Aim, Row, Samples};

const FEW: u64 = 10;
/// Jobs that are marked and cleared beside those that stay marked.
const FREE: u64 = 1 << 40;
const AT_ONCE: u64 = 64;
/// A cost that is linear in the marks grows a thousandfold. Caches, and a deeper trie, make it grow a little.
const GROWTH: f64 = 1.5;

/// A process with a mirror. It ends with this.
struct Mirror {
    child: Child,
    asked: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Mirror {
    fn start(bench: &Bench, namespace: &str) -> Result<Self, BenchError> {
        let failed = || BenchError::io("the process with the mirror");
        let mut child = Command::new(std::env::current_exe().map_err(failed())?)
            .args(["--mirror", namespace, "--endpoints", &bench.endpoints.join(",")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed())?;
        let (Some(asked), Some(said)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::Mirror("nothing, and cannot be asked".to_owned()));
        };
        Ok(Self { child, asked, said: BufReader::new(said) })
    }

    /// Has it hear all there is. Returns the time that it had on the processor, in microseconds.
    fn time(&mut self, expected: u64) -> Result<f64, BenchError> {
        writeln!(self.asked).map_err(BenchError::io("the process with the mirror"))?;
        let mut line = String::new();
        self.said.read_line(&mut line).map_err(BenchError::io("the process with the mirror"))?;
        let told =
            line.trim().split_once(' ').and_then(|(marks, time)| Some((marks.parse().ok()?, time.parse().ok()?)));
        let Some((found, time)) = told else { return Err(BenchError::Mirror(line)) };
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        if found == expected { Ok(time) } else { Err(BenchError::Marks { found, expected }) }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        // One that has ended already is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the process with the mirror does: answers each line with its number of marks, and its time on the processor.
pub(crate) async fn mirror(endpoints: Vec<String>, namespace: &str) -> Result<(), BenchError> {
    let etcd = Etcd::connect(endpoints, namespace, Options::default()).await?;
    let session: Session = Session::open(etcd, config()).await?;
    let view = session.view();
    // What the counting of the marks takes is not the events'.
    let mut counting = Duration::ZERO;
    for line in std::io::stdin().lines() {
        line.map_err(BenchError::io("nothing is asked"))?;
        view.barrier().await?;
        let time = on_processor();
        let marks = marks_of(view.registry());
        println!("{marks} {}", time.saturating_sub(counting).as_secs_f64() * 1e6);
        counting += on_processor().saturating_sub(time);
    }
    session.close().await?;
    Ok(())
}

/// For how long this process was on the processor.
fn on_processor() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// A namespace with so many marks that stay, and a process that mirrors it.
struct Case {
    marks: u64,
    owner: Session,
    guards: Vec<ClusterGuard>,
    mirror: Mirror,
    /// Microseconds on the processor for one event, in each round.
    samples: Samples,
}

impl Case {
    async fn new(bench: &Bench, marks: u64) -> Result<Self, BenchError> {
        let namespace = bench.namespace();
        let owner = bench.session(&namespace).await?;
        let guards = mark_many(&owner, marks).await?;
        Ok(Self { marks, owner, guards, mirror: Mirror::start(bench, &namespace)?, samples: Samples::default() })
    }

    async fn round(&mut self, foreign: u64) -> Result<(), BenchError> {
        let before = self.mirror.time(self.marks)?;
        let mut makers = JoinSet::new();
        for first in 0..AT_ONCE.min(foreign) {
            let owner = self.owner.clone();
            makers.spawn(async move {
                for job in (first..foreign).step_by(AT_ONCE as usize) {
                    clear(owner.mark(FREE + job, context(job)).await?).await?;
                }
                Ok::<_, BenchError>(())
            });
        }
        while let Some(made) = makers.join_next().await {
            made??;
        }
        let time = self.mirror.time(self.marks)? - before;
        // A mark and a clear are an event each.
        self.samples.push(time / number(2 * foreign));
        Ok(())
    }
}

pub(crate) async fn events(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let many = bench.plan.many;
    let mut cases = [Case::new(bench, FEW).await?, Case::new(bench, many).await?];
    // The first one is not counted: buffers grow in it.
    for round in 0..=bench.plan.rounds {
        for case in &mut cases {
            case.round(bench.plan.foreign).await?;
            if round == 0 {
                case.samples = Samples::default();
            }
        }
    }
    let [few, of_many] = cases.each_ref().map(|case| case.samples.percentile(50));
    let rows = cases.iter().map(|case| {
        Row::new("events", format!("one event beside {} marks, CPU time", case.marks), "us", &case.samples)
    });
    let mut rows: Vec<_> = rows.collect();
    let count = cases.iter().map(|case| case.samples.len()).sum();
    let growth = few.zip(of_many).map(|(few, many)| many / few);
    let case = format!("p50 beside {many} marks / beside {FEW}");
    rows.push(Row::derived("events", case, "", count, growth).aim(Aim::P50(GROWTH)));
    for Case { owner, guards, mirror, .. } in cases {
        drop(mirror);
        owner.close().await?;
        drop(guards);
    }
    Ok(rows)
}
