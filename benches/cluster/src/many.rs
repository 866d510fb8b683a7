//! What many marks cost: `memory`, `relist` and `died`.

use std::time::{Duration, Instant};

use livemark::{Finalizer, Registry};
use livemark_cluster::{Engine as _, MemoryEngine, Remote, Session};

use crate::HEAP;
use crate::bench::{Bench, check_mirror, config, context, mark_many, marks_of, number, until};
use crate::error::BenchError;
use crate::record::{Aim, Row, Samples};

/// What the process holds, by what it asked the allocator for.
fn held() -> f64 {
    number(HEAP.allocated() as u64)
}

/// `memory`: what one mirrored mark takes, beside one of a local registry.
pub(crate) async fn memory(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let (many, namespace, empty) = (bench.plan.many, bench.namespace(), bench.namespace());
    let owner = bench.session(&namespace).await?;
    let guards = mark_many(&owner, many).await?;
    let [mut mirrored, mut local, mut remote] = [(); 3].map(|()| Samples::default());
    // Nothing is let go before the end: what a registry retires is freed later, while something else is counted.
    let (mut sessions, mut locals, mut remotes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.plan.dear_rounds {
        // A session without any mark takes something as well.
        let (session, of_session) = session_and_its_size(bench, &empty, 0).await?;
        sessions.push(session);
        let (session, of_marks) = session_and_its_size(bench, &namespace, many).await?;
        sessions.push(session);
        mirrored.push((of_marks - of_session) / number(many));

        let before = held();
        let registry = Registry::<u64, Finalizer>::new();
        for job in 0..many {
            // Nobody clears it: the registry goes as a whole.
            let _ = registry.mark(job, context(job)).detach();
        }
        local.push((held() - before) / number(many));
        locals.push(registry);

        let view = owner.view();
        let before = held();
        let registry = Registry::<u64, Remote>::new();
        for job in 0..many {
            let found = view.registry().owner(&job).ok_or(BenchError::MarkGone { job })?;
            let _ = registry.mark(job, found.value).detach();
        }
        remote.push((held() - before) / number(many));
        remotes.push(registry);
    }
    for session in sessions {
        session.close().await?;
    }
    drop((locals, remotes));
    owner.close().await?;
    drop(guards);
    Ok(vec![
        Row::new("memory", format!("a mark of {many} in a mirror"), "bytes", &mirrored),
        Row::new("memory", format!("a mark of {many} in a local registry"), "bytes", &local),
        Row::new("memory", "the same with the contexts of a mirror", "bytes", &remote),
    ])
}

/// Opens a session that mirrors so many marks of others. Returns what it takes.
async fn session_and_its_size(bench: &Bench, namespace: &str, marks: u64) -> Result<(Session, f64), BenchError> {
    let before = held();
    let session = bench.session(namespace).await?;
    check_mirror(&session, marks).await?;
    Ok((session, held() - before))
}

/// `relist`: how long a session takes to take up many marks, and where that time goes.
pub(crate) async fn relist(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let (many, namespace) = (bench.plan.many, bench.namespace());
    let owner = bench.session(&namespace).await?;
    let guards = mark_many(&owner, many).await?;
    let etcd = bench.etcd(&namespace).await?;
    // The same rows in an engine that answers at once: what is left is the mirror's own work.
    let memory = MemoryEngine::new();
    for (key, row) in etcd.list().await?.rows {
        memory.write(&key, &row.value);
    }
    let [mut opened, mut listed, mut asked, mut local, mut empty] = [(); 5].map(|()| Samples::default());
    let (elsewhere, nobodys) = (bench.etcd(&bench.namespace()).await?, MemoryEngine::new());
    for _ in 0..bench.plan.rounds {
        let began = Instant::now();
        etcd.get("epoch").await?;
        asked.push_ms(began.elapsed());

        let began = Instant::now();
        etcd.list().await?;
        listed.push_ms(began.elapsed());

        opened.push_ms(open(etcd.clone(), many).await?);
        empty.push_ms(open(elsewhere.clone(), 0).await?);
        local.push_ms(open(memory.client(), many).await? - open(nobodys.client(), 0).await?);
    }
    owner.close().await?;
    drop(guards);
    Ok(vec![
        Row::new("relist", format!("Session::open with {many} marks"), "ms", &opened).aim(Aim::P50(100.0)),
        Row::new("relist", format!("Engine::list with {many} marks"), "ms", &listed).aim(Aim::P50(100.0)),
        Row::new("relist", "Session::open without a mark", "ms", &empty),
        Row::new("relist", "Engine::get", "ms", &asked),
        Row::new("relist", format!("taking up {many} marks, engine in memory"), "ms", &local),
    ])
}

async fn open(engine: impl livemark_cluster::Engine, marks: u64) -> Result<Duration, BenchError> {
    let began = Instant::now();
    let session: Session = Session::open(engine, config()).await?;
    let time = began.elapsed();
    check_mirror(&session, marks).await?;
    session.close().await?;
    Ok(time)
}

/// `died`: how long after the end of a process's lease its marks are gone from another's mirror.
pub(crate) async fn died(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let (many, namespace) = (bench.plan.many, bench.namespace());
    let here = bench.session(&namespace).await?;
    let etcd = bench.etcd(&namespace).await?;
    let (view, mut empty, mut revoked) = (here.view(), Samples::default(), Samples::default());
    for _ in 0..bench.plan.dear_rounds {
        let there = bench.session(&namespace).await?;
        let guards = mark_many(&there, many).await?;
        check_mirror(&here, many).await?;
        there.abandon();
        let began = Instant::now();
        etcd.revoke(there.lease()).await?;
        revoked.push_ms(began.elapsed());
        let is_empty = || view.registry().is_empty() && marks_of(view.registry()) == 0;
        until("an empty mirror", Some(Duration::from_millis(1)), is_empty).await?;
        empty.push_ms(began.elapsed());
        drop(guards);
    }
    here.close().await?;
    Ok(vec![
        Row::new("died", format!("{many} marks: until the mirror is empty"), "ms", &empty),
        Row::new("died", format!("{many} marks: until the revoke is answered"), "ms", &revoked),
    ])
}
