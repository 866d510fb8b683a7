//! What every engine must do, whatever it is made of. Each engine's tests run it, on a namespace of its own.

use std::time::Duration;

use livemark_cluster::{Engine, EngineError, Event, If, Lease, Row, Watch, Written};
use tokio::time::{Instant, sleep, timeout};

const TTL: Duration = Duration::from_secs(2);
/// For how long something is awaited that must come.
const LONG: Duration = Duration::from_secs(20);

fn done(written: Result<Written, EngineError>) -> u64 {
    match written {
        Ok(Written::Done(revision)) => revision,
        other => panic!("it was not written: {other:?}"),
    }
}

fn refused(written: Result<Written, EngineError>) -> Option<Row> {
    match written {
        Ok(Written::Refused(row)) => row,
        other => panic!("it was not refused: {other:?}"),
    }
}

async fn lease(engine: &impl Engine) -> Lease {
    let grant = engine.grant(TTL).await.unwrap();
    assert!(grant.ttl >= TTL, "{grant:?}");
    grant.lease
}

/// Reads events of states after this one until there are so many. Earlier ones may come again.
async fn events(watch: &mut impl Watch, after: u64, enough: usize) -> Vec<Event> {
    let mut seen = Vec::new();
    while seen.len() < enough {
        let news = timeout(LONG, watch.next()).await.unwrap().unwrap();
        seen.extend(news.events.into_iter().filter(|event| event.revision > after));
    }
    seen
}

/// Writes are conditional, and who is refused is told how it is.
pub async fn writes_are_conditional(engine: &impl Engine) {
    let lease = lease(engine).await;
    let first = done(engine.put("m/1", b"one".to_vec(), Some(lease), If::Absent).await);
    let found = refused(engine.put("m/1", b"two".to_vec(), Some(lease), If::Absent).await);
    assert_eq!(found, Some(Row { revision: first, value: b"one".to_vec(), lease: Some(lease) }));
    assert_eq!(refused(engine.put("m/2", b"two".to_vec(), None, If::At(first)).await), None, "it is not there");

    let second = done(engine.put("m/1", b"two".to_vec(), Some(lease), If::At(first)).await);
    assert!(second > first);
    assert_eq!(refused(engine.put("m/1", vec![], None, If::At(first)).await).map(|row| row.revision), Some(second));
    assert_eq!(refused(engine.delete("m/1", If::At(first)).await).map(|row| row.revision), Some(second));
    assert_eq!(engine.get("m/1").await.unwrap().map(|row| row.value), Some(b"two".to_vec()));

    let gone = done(engine.delete("m/1", If::At(second)).await);
    assert!(gone > second);
    assert_eq!(refused(engine.delete("m/1", If::At(second)).await), None, "it is gone already");
    assert_eq!(refused(engine.delete("m/1", If::Any).await), None);
    assert_eq!(engine.get("m/1").await.unwrap(), None);
    // The key comes again, with a later revision.
    assert!(done(engine.put("m/1", vec![], None, If::Any).await) > gone);
    assert!(done(engine.put("m/1", vec![], None, If::Any).await) > gone + 1);
    done(engine.delete("m/1", If::Any).await);
    engine.revoke(lease).await.unwrap();
}

/// A write may require that the epoch is as it was, whatever the key is.
pub async fn writes_require_an_epoch(engine: &impl Engine) {
    let put = async |condition, epoch| engine.put_in_epoch("m/1", vec![], None, condition, epoch).await;
    let first = done(put(If::Absent, If::Absent).await);
    assert_eq!(put(If::At(first), If::At(first)).await, Err(EngineError::NewEpoch), "there is none");
    let epoch = done(engine.put("epoch", b"1".to_vec(), None, If::Absent).await);
    assert_eq!(put(If::At(first), If::Absent).await, Err(EngineError::NewEpoch), "there is one");
    let second = done(put(If::At(first), If::At(epoch)).await);
    assert_eq!(refused(put(If::At(first), If::At(epoch)).await).map(|row| row.revision), Some(second));
    assert_eq!(put(If::At(first), If::Absent).await, Err(EngineError::NewEpoch), "the epoch counts first");
    done(engine.delete("epoch", If::Any).await);
    assert_eq!(put(If::At(second), If::At(epoch)).await, Err(EngineError::NewEpoch), "it is gone");
    done(engine.delete("m/1", If::Any).await);
}

/// A lease that is renewed stays, one that is not ends, and all its keys go in one revision.
pub async fn leases_end(engine: &impl Engine) {
    let (kept, left) = (lease(engine).await, lease(engine).await);
    let listing = engine.list().await.unwrap();
    let mut watch = engine.watch(listing.whole).await.unwrap();
    done(engine.put("m/kept", vec![], Some(kept), If::Absent).await);
    for key in ["m/a", "m/b", "s/left"] {
        done(engine.put(key, vec![], Some(left), If::Absent).await);
    }
    assert_eq!(events(&mut watch, listing.revision, 4).await.len(), 4);
    let began = Instant::now();
    let renewing = async {
        loop {
            sleep(TTL / 5).await;
            assert!(engine.renew(kept).await.unwrap() >= TTL / 2);
        }
    };
    let gone = tokio::select! {
        () = renewing => unreachable!(),
        gone = events(&mut watch, listing.revision, 3) => gone,
    };
    assert!(began.elapsed() >= TTL.mul_f64(0.9), "not before its time: {:?}", began.elapsed());
    let mut keys: Vec<_> = gone.iter().map(|event| event.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["m/a", "m/b", "s/left"]);
    assert!(gone.iter().all(|event| event.revision == gone[0].revision && event.row.is_none()), "{gone:?}");
    assert!(engine.get("m/kept").await.unwrap().is_some());

    // Nothing can be done with it any more.
    let renewed = engine.renew(left).await;
    assert!(matches!(renewed, Ok(Duration::ZERO) | Err(EngineError::LeaseGone)), "{renewed:?}");
    assert_eq!(engine.put("m/a", vec![], Some(left), If::Absent).await, Err(EngineError::LeaseGone));
    engine.revoke(left).await.unwrap();
    // One that is revoked goes at once.
    engine.revoke(kept).await.unwrap();
    assert_eq!(events(&mut watch, listing.revision, 1).await[0].key, "m/kept");
    assert_eq!(engine.get("m/kept").await.unwrap(), None);
}

/// A list is of one state, and a watch goes on from there without a gap, in order, each event once.
pub async fn a_watch_goes_on_from_a_list(engine: &impl Engine) {
    const KEYS: usize = 6_000;
    for key in 0..KEYS {
        done(engine.put(&format!("m/{key:05}"), b"first".to_vec(), None, If::Any).await);
    }
    let listing = engine.list().await.unwrap();
    assert!(listing.whole <= listing.revision);
    let listed: Vec<_> = listing.rows.iter().filter(|(key, _)| key.starts_with("m/")).collect();
    assert_eq!(listed.len(), KEYS);
    assert!(listed.iter().all(|(_, row)| row.revision <= listing.revision && row.value == b"first"));
    // These come between the list and the watch.
    let mut written = Vec::new();
    for key in 0..10 {
        written.push((
            format!("m/{key:05}"),
            done(engine.put(&format!("m/{key:05}"), b"second".to_vec(), None, If::Any).await),
        ));
    }
    let mut watch = engine.watch(listing.whole).await.unwrap();
    for key in 10..20 {
        written.push((format!("m/{key:05}"), done(engine.delete(&format!("m/{key:05}"), If::Any).await)));
    }
    let seen = events(&mut watch, listing.revision, 20).await;
    assert!(seen[..10].iter().all(|event| event.row.as_ref().is_some_and(|row| row.value == b"second")));
    assert!(seen[10..].iter().all(|event| event.row.is_none()));
    let seen: Vec<_> = seen.into_iter().map(|event| (event.key, event.revision)).collect();
    assert_eq!(seen, written);
    // An answer that is given up loses nothing.
    assert!(timeout(Duration::from_millis(50), events(&mut watch, listing.revision, 1)).await.is_err());
    let last = done(engine.put("m/last", vec![], None, If::Any).await);
    let seen = events(&mut watch, listing.revision, 1).await;
    assert_eq!(seen.iter().map(|event| event.revision).collect::<Vec<_>>(), [last]);
    for (key, _) in engine.list().await.unwrap().rows {
        done(engine.delete(&key, If::Any).await);
    }
}
