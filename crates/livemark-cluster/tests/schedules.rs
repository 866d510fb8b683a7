//! Processes that go their ways while calls are lost, late, repeated and unanswered, while they are cut off and die, and
//! while the engine forgets: whatever happens, each job is committed once.
//!
//! A schedule is its seed: time is tokio's and paused, and one thread runs all. `SCHEDULES` says how many, and
//! `SCHEDULES_FROM` the first seed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeMap;
use std::env;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use livemark_cluster::{ClusterGuard, Faults, Loss, MemoryClient, MemoryEngine, Session};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use support::{Store, config, open_at_rate, run, try_open};

const PROCESSES: u64 = 3;
const JOBS: u64 = 3;
/// Of the schedule's time.
const LENGTH: Duration = Duration::from_secs(30);

/// What may happen in a schedule.
#[derive(Clone, Copy)]
struct Rules {
    /// Marks are taken over. Else they are tried only, and belief must not overlap.
    takes_over: bool,
    /// The engine ends leases of processes that are alive.
    lies: bool,
    store: Compares,
}

/// What the job store compares when an owner commits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compares {
    /// The token and the state of the job, as it must.
    Tokens,
    /// The state only: whoever commits first.
    States,
    /// Nothing.
    Nothing,
}

/// What schedules came to, all together.
#[derive(Debug, Default)]
struct Sum {
    marks: u64,
    commits: u64,
    refused_takes: u64,
    refused_commits: u64,
    kills: u64,
    lost: u64,
    ghosts: u64,
    /// Jobs that were committed more than once.
    double_commits: u64,
    /// Commits by an owner after a later one had taken the job.
    stale_commits: u64,
    /// Pairs of owners of one job that believed in their marks at the same time.
    overlaps: u64,
    /// Keys that a mirror had otherwise than the engine. No watch loses anything here.
    differences: u64,
    new_epochs: u64,
}

/// What the processes of one schedule share.
struct World {
    rules: Rules,
    store: Store,
    /// The guards that there are, by job.
    guards: Mutex<BTreeMap<u64, Vec<Arc<ClusterGuard>>>>,
    /// The greatest token that was given, by job.
    given: Mutex<BTreeMap<u64, u64>>,
    /// The greatest token that the store took, and how often it committed, as its owners were told: apart from what the
    /// store itself knows.
    taken: Mutex<BTreeMap<u64, u64>>,
    committed: Mutex<BTreeMap<u64, u64>>,
    sum: Mutex<Sum>,
    /// The jobs that are worked on: one that is committed makes room for the next one.
    jobs: Mutex<[u64; JOBS as usize]>,
}

impl World {
    fn job(&self, slot: u64) -> u64 {
        self.jobs.lock().unwrap()[slot as usize]
    }

    fn next_job(&self, done: u64) {
        // Not at once: who is late comes back to the one that is done.
        if fastrand::Rng::with_seed(done).u32(0..3) > 0 {
            self.jobs.lock().unwrap()[(done % JOBS) as usize] = done + JOBS;
        }
    }

    fn greatest_token(&self, job: u64) -> u64 {
        self.given.lock().unwrap().get(&job).copied().unwrap_or_default()
    }

    /// A mark was given: its token is greater than all that had been given when it was asked for.
    fn given(&self, job: u64, guard: &Arc<ClusterGuard>, before: u64) {
        let token = guard.token().get();
        assert!(token > before, "token {token} was given after {before}");
        self.sum.lock().unwrap().marks += 1;
        self.guards.lock().unwrap().entry(job).or_default().push(Arc::clone(guard));
        let mut given = self.given.lock().unwrap();
        let greatest = given.entry(job).or_default();
        *greatest = token.max(*greatest);
        self.look_for_overlaps();
    }

    /// Of the owners of a job one believes in its mark at a time.
    fn look_for_overlaps(&self) {
        for guards in self.guards.lock().unwrap().values() {
            let believing = guards.iter().filter(|guard| guard.is_current()).count() as u64;
            self.sum.lock().unwrap().overlaps += believing.saturating_sub(1);
        }
    }

    /// An owner takes its job. Returns whether the store lets it.
    fn take(&self, job: u64, token: u64) -> bool {
        let takes = self.store.take(job, token, self.rules.store == Compares::Tokens);
        if takes {
            let mut taken = self.taken.lock().unwrap();
            let greatest = taken.entry(job).or_default();
            assert!(self.rules.store != Compares::Tokens || token > *greatest, "{token} took after {greatest}");
            *greatest = token.max(*greatest);
        }
        takes
    }

    /// An owner commits its job. Returns whether the store lets it.
    fn commit(&self, job: u64, token: u64) -> bool {
        let commits = match self.rules.store {
            Compares::Tokens => self.store.commit(job, token),
            Compares::States => self.store.commit_without_a_fence(job),
            Compares::Nothing => true,
        };
        let mut sum = self.sum.lock().unwrap();
        if commits {
            let mut committed = self.committed.lock().unwrap();
            let times = committed.entry(job).or_default();
            *times += 1;
            sum.double_commits += u64::from(*times == 2);
            sum.stale_commits += u64::from(self.taken.lock().unwrap().get(&job).is_some_and(|taken| *taken > token));
        }
        sum.commits += u64::from(commits);
        sum.refused_commits += u64::from(!commits);
        commits
    }

    fn let_go(&self, job: u64, guard: &Arc<ClusterGuard>) {
        self.guards.lock().unwrap().entry(job).or_default().retain(|other| !Arc::ptr_eq(other, guard));
    }
}

/// One process: opens sessions, marks jobs, works, commits, and dies now and then.
async fn process(world: Rc<World>, client: MemoryClient, seed: u64, name: String, ends: Instant) {
    let mut random = fastrand::Rng::with_seed(seed);
    let pause = |random: &mut fastrand::Rng, most: u64| Duration::from_millis(random.u64(0..most));
    // Clocks whose rates differ by less than the margin allows.
    let rate = 0.85 + 0.25 * random.f64();
    while Instant::now() < ends {
        let mut config = config(&name);
        config.compare_every = config.ttl;
        let Ok(Ok(session)) = timeout(Duration::from_secs(10), open_at_rate(&client, config, rate)).await else {
            sleep(pause(&mut random, 500)).await;
            continue;
        };
        while Instant::now() < ends {
            let wait = pause(&mut random, 400);
            sleep(wait).await;
            let job = world.job(random.u64(0..JOBS));
            if random.u32(0..20) == 0 {
                // The process dies: its guards say nothing to the engine, and its tasks end.
                session.abandon();
                world.sum.lock().unwrap().kills += 1;
                break;
            }
            let limit = pause(&mut random, 8000) + Duration::from_millis(1);
            let before = world.greatest_token(job);
            let marked = timeout(limit, mark(&world, &session, job)).await;
            let Ok(Some(guard)) = marked else {
                if let Some(loss) = session.standing().loss() {
                    let mut sum = world.sum.lock().unwrap();
                    let count = if loss == Loss::NewEpoch { &mut sum.new_epochs } else { &mut sum.lost };
                    *count += 1;
                    break;
                }
                continue;
            };
            let guard = Arc::new(guard);
            world.given(job, &guard, before);
            let token = guard.token().get();
            // Take: from here on the token fences.
            if world.take(job, token) {
                sleep(pause(&mut random, 3000)).await;
                // Some ask, and some forget to.
                if (random.bool() || guard.is_current()) && world.commit(job, token) {
                    world.next_job(job);
                }
            } else {
                world.sum.lock().unwrap().refused_takes += 1;
            }
            world.let_go(job, &guard);
            drop(guard);
        }
        let mut sum = world.sum.lock().unwrap();
        sum.ghosts += session.stats().ghosts;
        sum.differences += session.stats().differences;
    }
}

async fn mark(world: &World, session: &Session, job: u64) -> Option<ClusterGuard> {
    if world.rules.takes_over && fastrand::Rng::with_seed(job ^ session.lease().0).bool() {
        session.mark(job, run(1)).await.ok()
    } else {
        session.try_mark(job, run(1)).await.ok()
    }
}

/// What befalls them.
async fn weather(rules: Rules, engine: MemoryEngine, clients: Vec<MemoryClient>, seed: u64, ends: Instant) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut epoch = 0;
    while Instant::now() < ends {
        let wait = Duration::from_millis(random.u64(100..3000));
        sleep(wait).await;
        let client = &clients[random.usize(0..clients.len())];
        match random.u32(0..if rules.lies { 8 } else { 7 }) {
            0 | 1 => {
                client.cut(true);
                sleep(Duration::from_millis(random.u64(100..9000))).await;
                client.cut(false);
            }
            2 | 3 => {
                client.deafen(true);
                sleep(Duration::from_millis(random.u64(100..9000))).await;
                client.deafen(false);
            }
            4 => engine.compact(),
            5 => {
                engine.fill(true);
                sleep(Duration::from_millis(random.u64(100..2000))).await;
                engine.fill(false);
            }
            6 if random.u32(0..3) == 0 => {
                epoch += 1;
                engine.write("epoch", epoch.to_string().as_bytes());
            }
            6 => {}
            _ => engine.end_lease(livemark_cluster::Lease(random.u64(1..12))),
        }
    }
}

fn schedule(seed: u64, rules: Rules) -> Sum {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let local = LocalSet::new();
    let world = local.block_on(&runtime, async {
        let mut random = fastrand::Rng::with_seed(seed);
        let engine = MemoryEngine::new();
        let mut faults = Faults::default();
        faults.slow = random.u32(0..500);
        faults.delay = Duration::from_millis(random.u64(1..700));
        faults.lost = random.u32(0..60);
        faults.unanswered = random.u32(0..60);
        faults.late = random.u32(0..60);
        faults.repeated = random.u32(0..60);
        faults.broken = random.u32(0..100);
        let world = Rc::new(World {
            rules,
            store: Store::default(),
            guards: Mutex::default(),
            given: Mutex::default(),
            taken: Mutex::default(),
            committed: Mutex::default(),
            sum: Mutex::default(),
            jobs: Mutex::new(std::array::from_fn(|slot| slot as u64)),
        });
        let ends = Instant::now() + LENGTH;
        let clients: Vec<_> = (0..PROCESSES).map(|_| engine.faulty_client(random.u64(..), faults)).collect();
        let mut tasks = Vec::new();
        for (at, client) in clients.iter().enumerate() {
            let work = process(Rc::clone(&world), client.clone(), random.u64(..), format!("process {at}"), ends);
            tasks.push(tokio::task::spawn_local(work));
        }
        tasks.push(tokio::task::spawn_local(weather(rules, engine.clone(), clients.clone(), random.u64(..), ends)));
        let sampler = tokio::task::spawn_local({
            let world = Rc::clone(&world);
            async move {
                loop {
                    sleep(Duration::from_millis(20)).await;
                    world.look_for_overlaps();
                }
            }
        });
        for task in tasks {
            task.await.unwrap();
        }
        sampler.abort();
        // The weather clears, and everybody is gone: nothing stays but what their leases end.
        for client in &clients {
            client.heal();
        }
        engine.fill(false);
        sleep(Duration::from_secs(20)).await;
        let left: Vec<_> = engine.rows().into_iter().filter(|(key, _)| key.starts_with("m/")).collect();
        assert!(left.is_empty(), "seed {seed}: jobs stay marked: {left:?}");
        // Whoever comes then finds every job free.
        let late = try_open(&engine.client(), config("late")).await.unwrap();
        let given = world.given.lock().unwrap().clone();
        for (job, known) in given {
            let token = late.try_mark(job, run(1)).await.unwrap().token().get();
            assert!(token > known, "seed {seed}: token {token} after {known}");
        }
        world
    });
    std::mem::take(&mut *world.sum.lock().unwrap())
}

fn schedules(rules: Rules) -> Sum {
    let number = |name: &str, usual: u64| env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (from, count) = (number("SCHEDULES_FROM", 0), number("SCHEDULES", 60));
    let mut all = Sum::default();
    for seed in from..from + count {
        let sum = schedule(seed, rules);
        let is_fenced = rules.store == Compares::Tokens;
        assert!(!is_fenced || (sum.double_commits, sum.stale_commits) == (0, 0), "seed {seed}: {sum:?}");
        assert_eq!(sum.differences, 0, "seed {seed}: {sum:?}");
        assert!(rules.takes_over || rules.lies || sum.overlaps == 0, "seed {seed}: {sum:?}");
        all.marks += sum.marks;
        all.commits += sum.commits;
        all.refused_takes += sum.refused_takes;
        all.refused_commits += sum.refused_commits;
        all.kills += sum.kills;
        all.lost += sum.lost;
        all.ghosts += sum.ghosts;
        all.double_commits += sum.double_commits;
        all.stale_commits += sum.stale_commits;
        all.overlaps += sum.overlaps;
        all.new_epochs += sum.new_epochs;
    }
    println!("{count} schedules: {all:?}");
    // What is checked did happen.
    let happened = [all.marks - count, all.commits, all.kills, all.ghosts, all.new_epochs];
    assert!(happened.iter().all(|times| *times > 0), "{all:?}");
    all
}

/// Seen to fail with an unconditional put, with a clear that compares nothing, with ghosts that nobody removes, and with
/// comparisons that forget what went.
#[test]
fn belief_never_overlaps_and_each_job_is_committed_once() {
    schedules(Rules { takes_over: false, lies: false, store: Compares::Tokens });
}

/// Seen to fail with ghosts that nobody removes: jobs stay marked.
#[test]
fn marks_that_are_taken_over_are_committed_once() {
    schedules(Rules { takes_over: true, lies: false, store: Compares::Tokens });
}

/// An engine that ends leases too early: belief is wrong then, and the fence holds.
#[test]
fn an_engine_that_lies_breaks_belief_and_no_job() {
    let sum = schedules(Rules { takes_over: true, lies: true, store: Compares::Tokens });
    assert!(sum.overlaps > 0, "{sum:?}");
}

/// A store that compares no tokens lets owners commit what a later one has taken: it is the fence that holds, and these tests
/// can see it.
#[test]
fn without_a_fence_owners_commit_what_is_not_theirs() {
    let sum = schedules(Rules { takes_over: true, lies: true, store: Compares::States });
    assert!(sum.stale_commits > 0 && sum.double_commits == 0, "{sum:?}");
}

/// One that does not compare states either commits jobs twice.
#[test]
fn a_store_that_compares_nothing_commits_twice() {
    let sum = schedules(Rules { takes_over: true, lies: true, store: Compares::Nothing });
    assert!(sum.double_commits > 0, "{sum:?}");
}
