//! etcd as an engine: [`Etcd`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use livemark_cluster::{Engine, EngineError, Event, Grant, If, Lease, Listing, News, Revision, Row, Watch, Written};

use crate::link::{Link, Stream, is_stale_token, is_too_large};
use crate::options::{ConnectError, Options};
use crate::proto::{
    self, Compare, CompareTarget, Compared, DeleteRangeRequest, KeyValue, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, PutRequest, RangeRequest, RangeResponse, Request, RequestOp, Response, TxnRequest,
    TxnResponse, WatchCreateRequest, WatchRequest, WatchRequestKind, WatchResponse,
};

const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
/// The key of the epoch that marks are made in.
const EPOCH: &str = "epoch";
/// How many keys are listed in one answer. Etcd walks what is left of the range for each, and an answer has room for rows of
/// some 13 KB.
const PAGE: i64 = 5_000;

/// A namespace of an etcd cluster. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Etcd(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    link: Link,
    /// What all keys begin with.
    prefix: String,
    /// A stream of renewals, with no answer outstanding. Whoever asks takes it out, and puts it back with the answer:
    /// a late answer is never taken for another's.
    renewals: Mutex<Option<Renewals>>,
}

type Renewals = Stream<LeaseKeepAliveRequest, LeaseKeepAliveResponse>;

/// What etcd says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The version of the member that was asked.
    pub version: String,
    /// The size of its data, in bytes.
    pub size: u64,
    /// How much of that is in use, in bytes.
    pub in_use: u64,
    /// The size that its data may have, in bytes. Only etcd 3.6 and later tells.
    pub quota: Option<u64>,
    /// Whether the cluster has a leader.
    pub has_leader: bool,
    /// The alarms that are on, which stop all writes until they are disarmed. None is told of without a leader.
    pub alarms: Vec<String>,
    /// The latest revision.
    pub revision: Revision,
}

impl Etcd {
    /// Connects to the cluster with these members, for the jobs of one store.
    ///
    /// Keys lie under `/livemark/v1/{namespace}/`. An endpoint is a URL, `http://` or `https://`, or a host and a port.
    /// Calls go to one member until it fails or is silent, and then to the next.
    ///
    /// # Errors
    ///
    /// Returns an error if an endpoint is none, no member answers, or etcd does not let us.
    pub async fn connect<E>(endpoints: E, namespace: &str, options: Options) -> Result<Self, ConnectError>
    where
        E: IntoIterator,
        E::Item: Into<String>,
    {
        if namespace.is_empty() || namespace.contains('/') {
            return Err(ConnectError::Namespace(namespace.to_owned()));
        }
        let endpoints: Vec<String> = endpoints.into_iter().map(Into::into).collect();
        let link = Link::new(&endpoints, &options)?;
        let prefix = format!("/livemark/v1/{namespace}/");
        let etcd = Self(Arc::new(Shared { link, prefix, renewals: Mutex::default() }));
        // Each member is asked, until one answers.
        let patience = options.connect_timeout.saturating_mul(2);
        let mut why = String::new();
        for _ in &endpoints {
            let at = etcd.0.link.at();
            match tokio::time::timeout(patience, etcd.get("epoch")).await {
                Ok(Ok(_)) => return Ok(etcd),
                Ok(Err(EngineError::Denied(why))) => return Err(ConnectError::Denied(why)),
                Ok(Err(error)) => why = error.to_string(),
                Err(_) => why = format!("nothing was heard for {patience:?}"),
            }
            // Unless it has: the next one.
            etcd.0.link.turn_from(at);
        }
        Err(ConnectError::Unreachable { endpoints, why })
    }

    /// Asks a member how it is.
    ///
    /// # Errors
    ///
    /// Returns an error if it does not answer, or does not let us.
    pub async fn status(&self) -> Result<Status, EngineError> {
        let link = &self.0.link;
        let told: proto::StatusResponse = link.ask("/etcdserverpb.Maintenance/Status", proto::StatusRequest {}).await?;
        // Alarms are the cluster's: without a leader nobody can say.
        let alarms: proto::AlarmResponse = if told.leader == 0 {
            proto::AlarmResponse::default()
        } else {
            link.ask("/etcdserverpb.Maintenance/Alarm", proto::AlarmRequest {}).await?
        };
        let name = |alarm: &proto::AlarmMember| {
            let what = match alarm.alarm {
                1 => "no space",
                2 => "corrupt",
                _ => "unknown",
            };
            format!("{what}, at member {:x}", alarm.member)
        };
        Ok(Status {
            version: told.version,
            size: unsigned(told.db_size),
            in_use: unsigned(told.db_size_in_use),
            quota: Some(unsigned(told.db_size_quota)).filter(|quota| *quota > 0),
            has_leader: told.leader != 0,
            alarms: alarms.alarms.iter().map(name).collect(),
            revision: told.header.map_or(0, |header| unsigned(header.revision)),
        })
    }

    /// Returns how much longer a lease stands if it is not renewed. `None` if it has ended.
    ///
    /// # Errors
    ///
    /// Returns an error if etcd does not answer, or does not let us.
    pub async fn time_to_live(&self, lease: Lease) -> Result<Option<Duration>, EngineError> {
        let question = proto::LeaseTimeToLiveRequest { id: signed(lease.0) };
        let told: proto::LeaseTimeToLiveResponse =
            self.0.link.ask("/etcdserverpb.Lease/LeaseTimeToLive", question).await?;
        Ok(u64::try_from(told.ttl).ok().map(Duration::from_secs))
    }

    /// Returns `true` if the states of before this revision are still kept.
    ///
    /// # Errors
    ///
    /// Returns an error if etcd does not answer, or does not let us.
    pub async fn keeps(&self, revision: Revision) -> Result<bool, EngineError> {
        let question =
            RangeRequest { key: self.key(EPOCH), revision: signed(revision), count_only: true, ..Default::default() };
        match self.0.link.ask::<_, RangeResponse>(RANGE, question).await {
            Ok(_) => Ok(true),
            Err(EngineError::Compacted) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn key(&self, key: &str) -> Vec<u8> {
        format!("{}{key}", self.0.prefix).into_bytes()
    }

    /// The first key after the namespace's.
    fn end(&self) -> Vec<u8> {
        // A slash, and the byte after it.
        let mut end = self.0.prefix.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            *last = b'0';
        }
        end
    }

    fn named(&self, kv: KeyValue) -> (String, Row) {
        let key = kv.key.get(self.0.prefix.len()..).unwrap_or_default();
        (text(key), row(kv))
    }

    /// Does something to a key if a condition holds, and reads it where that does not.
    async fn change(
        &self,
        key: Vec<u8>,
        condition: If,
        epoch: If,
        request: Request,
    ) -> Result<TxnResponse, EngineError> {
        let epoch_key = self.key(EPOCH);
        let compare = compared(&key, condition).chain(compared(&epoch_key, epoch)).collect();
        let read = |key| RequestOp { request: Some(Request::Range(RangeRequest { key, ..Default::default() })) };
        // Where the epoch is not compared, it need not be read.
        let reads = [Some(key), (epoch != If::Any).then_some(epoch_key)];
        let question = TxnRequest {
            compare,
            success: vec![RequestOp { request: Some(request) }],
            failure: reads.into_iter().flatten().map(read).collect(),
        };
        let told: TxnResponse = self.0.link.ask(TXN, question).await?;
        let found = told.responses.get(1).and_then(|op| op.response.as_ref());
        if let (false, Some(Response::Range(found))) = (told.succeeded, found) {
            let found = found.kvs.first().map(|kv| unsigned(kv.mod_revision));
            let is_met = match epoch {
                If::Any => true,
                If::Absent => found.is_none(),
                If::At(revision) => found == Some(revision),
            };
            if !is_met {
                return Err(EngineError::NewEpoch);
            }
        }
        Ok(told)
    }
}

impl Engine for Etcd {
    type Watch = EtcdWatch;

    async fn grant(&self, ttl: Duration) -> Result<Grant, EngineError> {
        // It counts in seconds.
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        let question = proto::LeaseGrantRequest { ttl: signed(seconds) };
        let granted: proto::LeaseGrantResponse = self.0.link.ask("/etcdserverpb.Lease/LeaseGrant", question).await?;
        if !granted.error.is_empty() {
            return Err(EngineError::Unknown(granted.error));
        }
        Ok(Grant { lease: Lease(unsigned(granted.id)), ttl: Duration::from_secs(unsigned(granted.ttl)) })
    }

    async fn renew(&self, lease: Lease) -> Result<Duration, EngineError> {
        let question = LeaseKeepAliveRequest { id: signed(lease.0) };
        let renewals = || self.0.renewals.lock().unwrap_or_else(PoisonError::into_inner);
        // Outside of the match: the lock is not held while it is waited.
        let idle = renewals().take();
        let mut stream = match idle {
            Some(stream) if stream.questions.try_send(question).is_ok() => stream,
            _ => self.0.link.open("/etcdserverpb.Lease/LeaseKeepAlive", question).await?,
        };
        // Where this is given up, the stream goes, and a late answer with it.
        let answer = self.0.link.next(&mut stream).await?;
        if answer.id != question.id {
            return Err(EngineError::Unknown("another lease was renewed".to_owned()));
        }
        *renewals() = Some(stream);
        Ok(Duration::from_secs(unsigned(answer.ttl)))
    }

    async fn revoke(&self, lease: Lease) -> Result<(), EngineError> {
        let question = proto::LeaseRevokeRequest { id: signed(lease.0) };
        let revoked = self.0.link.ask("/etcdserverpb.Lease/LeaseRevoke", question).await;
        match revoked.map(|_: proto::LeaseRevokeResponse| ()) {
            Err(EngineError::LeaseGone) => Ok(()),
            revoked => revoked,
        }
    }

    async fn put_in_epoch(
        &self,
        key: &str,
        value: Vec<u8>,
        lease: Option<Lease>,
        condition: If,
        epoch: If,
    ) -> Result<Written, EngineError> {
        let (name, key) = (key, self.key(key));
        let put =
            PutRequest { key: key.clone(), value: value.clone(), lease: lease.map_or(0, |lease| signed(lease.0)) };
        let told = match self.change(key, condition, epoch, Request::Put(put)).await {
            // Etcd says so as well of the write that took the last room, which it has made. The condition tells: the key was
            // otherwise before.
            Err(EngineError::NoSpace) if condition != If::Any => {
                let before = if let If::At(revision) = condition { revision } else { 0 };
                let is_made = |row: &Row| row.revision > before && (row.lease, &row.value) == (lease, &value);
                let found = self.get(name).await.map_err(|error| EngineError::Unknown(error.to_string()))?;
                return found.filter(is_made).map(|row| Written::Done(row.revision)).ok_or(EngineError::NoSpace);
            }
            told => told?,
        };
        if told.succeeded {
            return revision(&told).map(Written::Done);
        }
        Ok(Written::Refused(found(told)))
    }

    async fn delete(&self, key: &str, condition: If) -> Result<Written, EngineError> {
        let key = self.key(key);
        let delete = DeleteRangeRequest { key: key.clone() };
        let told = self.change(key, condition, If::Any, Request::DeleteRange(delete)).await?;
        let is_deleted = |op: &proto::ResponseOp| matches!(&op.response, Some(Response::DeleteRange(deleted)) if deleted.deleted > 0);
        if told.succeeded && told.responses.iter().any(is_deleted) {
            return revision(&told).map(Written::Done);
        }
        Ok(Written::Refused(found(told)))
    }

    async fn get(&self, key: &str) -> Result<Option<Row>, EngineError> {
        let question = RangeRequest { key: self.key(key), ..Default::default() };
        let read: RangeResponse = self.0.link.ask(RANGE, question).await?;
        Ok(read.kvs.into_iter().next().map(row))
    }

    async fn list(&self) -> Result<Listing, EngineError> {
        let mut question = RangeRequest {
            key: self.0.prefix.clone().into_bytes(),
            range_end: self.end(),
            limit: PAGE,
            ..Default::default()
        };
        let mut rows = Vec::new();
        loop {
            let page: RangeResponse = match self.0.link.ask(RANGE, question.clone()).await {
                // Fewer rows have room.
                Err(EngineError::Denied(why)) if is_too_large(&why) && question.limit > 1 => {
                    question.limit /= 2;
                    continue;
                }
                page => page?,
            };
            // The first page says which state is read. The others are of the same.
            if question.revision == 0 {
                question.revision = page.header.as_ref().map_or(0, |header| header.revision);
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            rows.extend(page.kvs.into_iter().map(|kv| self.named(kv)));
            match last {
                Some(mut key) if page.more => {
                    // The least key that is greater.
                    key.push(0);
                    question.key = key;
                }
                _ => {
                    let revision = unsigned(question.revision);
                    // A restored etcd has smaller revisions.
                    return Ok(Listing { revision, whole: revision, history: 0, rows });
                }
            }
        }
    }

    async fn watch(&self, after: Revision) -> Result<EtcdWatch, EngineError> {
        let create = WatchCreateRequest {
            key: self.0.prefix.clone().into_bytes(),
            range_end: self.end(),
            start_revision: signed(after.saturating_add(1)),
            fragment: true,
        };
        let question = WatchRequest { request: Some(WatchRequestKind::Create(create)) };
        let stream = self.0.link.open("/etcdserverpb.Watch/Watch", question).await?;
        let mut watch = EtcdWatch { etcd: self.clone(), stream, part: Vec::new() };
        // Whether it watches, or cannot, is the first answer.
        let answer = self.0.link.next(&mut watch.stream).await?;
        watch.check(&answer)?;
        watch.take_up(answer);
        Ok(watch)
    }
}

/// A watch of all keys of a namespace.
#[derive(Debug)]
pub struct EtcdWatch {
    etcd: Etcd,
    stream: Stream<WatchRequest, WatchResponse>,
    /// What has come of an answer whose end has not.
    part: Vec<Event>,
}

impl EtcdWatch {
    fn check(&self, answer: &WatchResponse) -> Result<(), EngineError> {
        if answer.compact_revision > 0 {
            return Err(EngineError::Compacted);
        }
        if answer.canceled {
            let why = answer.cancel_reason.clone();
            if is_stale_token(&why) {
                self.etcd.0.link.forget_token();
            }
            let is_denied = why.contains("permission denied");
            return Err(if is_denied { EngineError::Denied(why) } else { EngineError::Unknown(why) });
        }
        Ok(())
    }

    fn take_up(&mut self, answer: WatchResponse) {
        let events = answer.events.into_iter().filter_map(|event| {
            let is_put = event.kind == i32::from(proto::EventType::Put);
            let (key, row) = self.etcd.named(event.kv?);
            Some(Event { revision: row.revision, key, row: is_put.then_some(row) })
        });
        self.part.extend(events);
    }
}

impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<News, EngineError> {
        loop {
            let answer = self.etcd.0.link.next(&mut self.stream).await?;
            self.check(&answer)?;
            let is_whole = !answer.fragment;
            self.take_up(answer);
            if let Some(last) = self.part.last().filter(|_| is_whole) {
                let whole = last.revision;
                return Ok(News { events: std::mem::take(&mut self.part), whole, history: 0 });
            }
        }
    }
}

/// What is compared of a key for a condition.
fn compared(key: &[u8], condition: If) -> impl Iterator<Item = Compare> {
    let compared = match condition {
        If::Any => None,
        If::Absent => Some((CompareTarget::Create, Compared::CreateRevision(0))),
        If::At(revision) => Some((CompareTarget::Mod, Compared::ModRevision(signed(revision)))),
    };
    compared.map(|(target, with)| Compare { target: target.into(), key: key.to_vec(), with: Some(with) }).into_iter()
}

/// A key as text. What is no UTF-8 is foreign, and stays apart from other keys.
fn text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => text.to_owned(),
        Err(error) => {
            let (text, rest) = key.split_at(error.valid_up_to());
            format!("{}\u{fffd}{}", String::from_utf8_lossy(text), rest.escape_ascii())
        }
    }
}

fn row(kv: KeyValue) -> Row {
    let lease = Some(unsigned(kv.lease)).filter(|lease| *lease != 0).map(Lease);
    Row { revision: unsigned(kv.mod_revision), value: kv.value, lease }
}

fn revision(told: &TxnResponse) -> Result<Revision, EngineError> {
    let header = told.header.as_ref().ok_or_else(|| EngineError::Unknown("an answer has no revision".to_owned()))?;
    Ok(unsigned(header.revision))
}

/// The key that did not meet its condition, if it is there.
fn found(told: TxnResponse) -> Option<Row> {
    told.responses.into_iter().find_map(|op| match op.response? {
        Response::Range(read) => read.kvs.into_iter().next().map(row),
        Response::DeleteRange(_) => None,
    })
}

/// Numbers of etcd are signed, and none is negative.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen to fail with bytes that are replaced: two keys are one.
    #[test]
    fn keys_that_are_no_text_stay_apart() {
        assert_eq!(text("m/é".as_bytes()), "m/é");
        let (one, other) = (text(b"m/\xff"), text(b"m/\xfe"));
        assert!(one != other && one.starts_with("m/\u{fffd}"), "{one} {other}");
    }
}
