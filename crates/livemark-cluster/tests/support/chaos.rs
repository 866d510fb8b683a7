//! Processes over a real engine whose connections break in every way, and which die: whatever happens, each job is committed
//! once, and nobody believes in a mark that somebody else was given. The tests of each engine run it.
//!
//! `FAULTS` says how many faults there are.

use std::collections::BTreeMap;
use std::env;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use livemark::Finalizer;
use livemark_cluster::{ClusterGuard, Config, Engine, Session};
use tokio::time::{sleep, timeout};

use super::proxy::Proxy;

const TTL: Duration = Duration::from_millis(1500);
const PROCESSES: usize = 8;
const JOBS: u64 = 6;

/// What became of it.
#[derive(Debug, Default)]
pub struct Sum {
    pub faults: u64,
    pub deaths: u64,
    pub marks: u64,
    pub commits: u64,
    pub refused: u64,
    pub double_commits: u64,
    pub stale_commits: u64,
    pub overlaps: u64,
}

/// A job store that fences, and keeps its own account of who took and who committed.
#[derive(Default)]
struct Store {
    rows: Mutex<BTreeMap<u64, Row>>,
    sum: Mutex<Sum>,
    /// Which jobs are worked on.
    first: AtomicU64,
    guards: Mutex<BTreeMap<u64, Vec<Arc<ClusterGuard>>>>,
}

#[derive(Default)]
struct Row {
    fence: u64,
    is_done: bool,
    /// Apart from what the statements compare.
    greatest_taken: u64,
    committed: u64,
}

impl Store {
    fn count(&self, count: impl FnOnce(&mut Sum)) {
        count(&mut self.sum.lock().unwrap());
    }

    /// A job to work on: one that is not done, most of the time. Who is late comes back to one that is.
    fn pick(&self) -> u64 {
        let mut rows = self.rows.lock().unwrap();
        loop {
            let first = self.first.load(Ordering::Relaxed);
            if rows.entry(first).or_default().is_done && fastrand::bool() {
                self.first.store(first + 1, Ordering::Relaxed);
            }
            let job = first + fastrand::u64(..JOBS);
            if !rows.entry(job).or_default().is_done || fastrand::u32(..20) == 0 {
                return job;
            }
        }
    }

    fn take(&self, job: u64, token: u64) -> bool {
        let mut rows = self.rows.lock().unwrap();
        let row = rows.entry(job).or_default();
        let takes = !row.is_done && row.fence < token;
        if takes {
            row.fence = token;
            row.greatest_taken = row.greatest_taken.max(token);
        }
        takes
    }

    fn commit(&self, job: u64, token: u64) -> bool {
        let mut rows = self.rows.lock().unwrap();
        let row = rows.entry(job).or_default();
        let commits = !row.is_done && row.fence == token;
        if commits {
            row.is_done = true;
            row.committed += 1;
            let (is_double, is_stale) = (row.committed > 1, token < row.greatest_taken);
            self.count(|sum| {
                sum.commits += 1;
                sum.double_commits += u64::from(is_double);
                sum.stale_commits += u64::from(is_stale);
            });
        } else {
            self.count(|sum| sum.refused += 1);
        }
        commits
    }

    /// Whoever believes after somebody with a greater token was seen to believe.
    fn look_for_overlaps(&self) {
        let guards = self.guards.lock().unwrap().clone();
        for guards in guards.values() {
            let Some(latest) = guards.iter().max_by_key(|guard| guard.token()) else { continue };
            let believing = guards.iter().filter(|guard| guard.token() < latest.token() && guard.is_current()).count();
            self.count(|sum| sum.overlaps += believing as u64);
        }
    }
}

async fn process<E: Engine>(
    store: Arc<Store>,
    name: String,
    connect: impl AsyncFn() -> Option<E>,
    over: Arc<AtomicBool>,
) {
    while !over.load(Ordering::Relaxed) {
        let mut config = Config::with_ttl(TTL);
        config.process = name.clone();
        config.token_floor = store.rows.lock().unwrap().values().map(|row| row.fence).max().unwrap_or_default();
        let Some(engine) = connect().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(Ok(session)) = timeout(2 * TTL, Session::<u64, Finalizer>::open(engine, config)).await else { continue };
        while session.standing().loss().is_none() && !over.load(Ordering::Relaxed) {
            let job = store.pick();
            let limit = Duration::from_millis(fastrand::u64(1..2500));
            // Marks are tried only: who takes over is heard of later, by design.
            let marked = timeout(limit, session.try_mark(job, Finalizer::new(Some(job), "merge"))).await;
            let Ok(Ok(guard)) = marked else {
                sleep(Duration::from_millis(fastrand::u64(1..30))).await;
                continue;
            };
            let guard = Arc::new(guard);
            store.count(|sum| sum.marks += 1);
            store.guards.lock().unwrap().entry(job).or_default().push(Arc::clone(&guard));
            let token = guard.token().get();
            if store.take(job, token) {
                // Some work for longer than a process may be silent.
                let most = if fastrand::u32(..12) == 0 { 3000 } else { 150 };
                sleep(Duration::from_millis(fastrand::u64(1..most))).await;
                if fastrand::bool() || guard.is_current() {
                    store.commit(job, token);
                }
            }
            store.guards.lock().unwrap().entry(job).or_default().retain(|other| !Arc::ptr_eq(other, &guard));
            drop(guard);
            if fastrand::u32(..60) == 0 {
                // It dies, and says nothing to the engine.
                session.abandon();
                store.count(|sum| sum.deaths += 1);
                break;
            }
        }
    }
}

/// Runs processes over an engine, each through a proxy of its own, until there were enough faults. `crash` stops the engine, and
/// starts it again.
pub async fn chaos<E: Engine>(
    usual: u64,
    server: &str,
    connect: impl AsyncFn(&Proxy) -> Option<E> + Clone + Send + Sync + 'static,
    mut crash: impl AsyncFnMut(),
) -> Sum {
    let faults = env::var("FAULTS").map_or(usual, |text| text.parse().unwrap());
    let (store, over) = (Arc::new(Store::default()), Arc::new(AtomicBool::new(false)));
    let local = tokio::task::LocalSet::new();
    let mut proxies = Vec::new();
    for at in 0..PROCESSES {
        let proxy = Arc::new(Proxy::before(server).await);
        proxies.push(Arc::clone(&proxy));
        let connect = connect.clone();
        let connect = async move || connect(&proxy).await;
        local.spawn_local(process(Arc::clone(&store), format!("process {at}"), connect, Arc::clone(&over)));
    }
    let weather = async {
        for at in 0..faults {
            let proxy = &proxies[fastrand::usize(..PROCESSES)];
            match fastrand::u32(..10) {
                0 | 1 => proxy.cut(true),
                2 => proxy.cut_answers(true),
                3 => proxy.cut_requests(true),
                4 | 5 => proxy.reset(),
                6 | 7 => proxy.kill_connections(),
                _ => proxy.delay(Duration::from_millis(fastrand::u64(..200))),
            }
            sleep(Duration::from_millis(fastrand::u64(1..60))).await;
            // Some cuts are short, and some last until something else befalls the process.
            if fastrand::bool() {
                proxy.cut(false);
                proxy.delay(Duration::ZERO);
            }
            if at % 200 == 150 {
                crash().await;
            }
            if at % 100 == 0 {
                for proxy in &proxies {
                    proxy.cut(false);
                }
                // They go on meanwhile, and those that died are found to have.
                sleep(TTL).await;
            }
        }
        for proxy in &proxies {
            proxy.cut(false);
            proxy.delay(Duration::ZERO);
        }
        let (commits, calm) = (store.sum.lock().unwrap().commits, Instant::now());
        while store.sum.lock().unwrap().commits <= commits {
            assert!(calm.elapsed() < Duration::from_secs(60), "nobody commits any more");
            sleep(Duration::from_millis(20)).await;
        }
        over.store(true, Ordering::Relaxed);
        store.count(|sum| sum.faults = faults);
    };
    let looking = async {
        while !over.load(Ordering::Relaxed) {
            store.look_for_overlaps();
            sleep(Duration::from_millis(5)).await;
        }
    };
    local.run_until(async { tokio::join!(weather, looking) }).await;
    let sum = std::mem::take(&mut *store.sum.lock().unwrap());
    println!("{sum:?}");
    assert_eq!((sum.double_commits, sum.stale_commits), (0, 0), "{sum:?}");
    assert!(sum.marks > faults / 10 && sum.commits > 0 && sum.deaths > 0, "{sum:?}");
    sum
}
