//! A mark that is about to be written: [`Prepared`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use livemark::Finalizer;

use crate::codec::{Context, JobKey, MarkValue};
use crate::engine::{If, Lease, Revision, Row};
use crate::error::MarkError;
use crate::guard::{ClusterGuard, Token};
use crate::held::Sign;
use crate::inner::Inner;
use crate::keys::mark_key;
use crate::session::Running;

/// A mark that is about to be written, by [`Session::prepare`](crate::Session::prepare).
///
/// What comes of it is a guard's once it is [held](Self::hold). Where it is dropped, a write that was made all the same is
/// removed.
pub struct Prepared<K: JobKey = u64, C: Context = Finalizer> {
    attempt: Attempt<K, C>,
    job: K,
    context: C,
    value: Vec<u8>,
    sign: Option<Sign>,
    /// The latest state that was known then: a mark that is made later has a greater one.
    after: Revision,
}

/// An attempt under way. When it ends, however it does, what came of it is nobody's unless a guard holds it.
struct Attempt<K, C> {
    session: Arc<Running<K, C>>,
    seq: u64,
    key: String,
}

impl<K, C> Attempt<K, C> {
    fn inner(&self) -> &Inner<K, C> {
        &self.session.inner
    }
}

impl<K, C> Drop for Attempt<K, C> {
    fn drop(&mut self) {
        self.inner().live().end(self.seq);
        self.inner().suspect([self.key.clone()]);
    }
}

impl<K: JobKey, C: Context> Prepared<K, C> {
    /// Nobody beats the pulse of a reaper's claim yet.
    pub(crate) fn new(session: &Arc<Running<K, C>>, job: K, context: C, is_claim: bool) -> Result<Self, MarkError> {
        let inner = &*session.inner;
        let written = readable(&job, &context)?;
        // Relaxed (no edge): a number that is drawn once.
        let seq = inner.seq.fetch_add(1, Ordering::Relaxed);
        inner.live().begin(seq);
        let attempt = Attempt { session: Arc::clone(session), seq, key: mark_key(&job) };
        let sign = Sign::of(&context, is_claim);
        let value = MarkValue {
            epoch: inner.epoch,
            lease: inner.lease.0,
            seq,
            taken_at: None,
            process: inner.config.process.clone(),
            context: written,
            pulse: sign.as_ref().and_then(|sign| sign.beat(inner.opened)),
        };
        let after = inner.latest();
        Ok(Self { attempt, job, context, value: value.encode(), sign, after })
    }

    /// Returns the key that is to be written.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.attempt.key
    }

    /// Returns the value that is to be written.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Returns the lease that it is to go with.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.attempt.inner().lease
    }

    /// Returns what the write requires of the epoch.
    #[must_use]
    pub fn epoch(&self) -> If {
        self.attempt.inner().in_epoch
    }

    /// Returns the token of the mark, if it is written at this revision.
    #[must_use]
    pub fn token(&self, written_at: Revision) -> Token {
        Token::new(self.attempt.inner().epoch, written_at)
    }

    /// Returns `true` if a row is this mark.
    #[must_use]
    pub fn is(&self, row: &Row) -> bool {
        MarkValue::decode(&row.value).is_some_and(|value| value.is(self.lease(), self.attempt.seq))
    }

    /// Returns `true` if a row is no mark, whoever's: nobody may take it over.
    #[must_use]
    pub fn is_foreign(&self, row: &Row) -> bool {
        MarkValue::decode(&row.value).is_none()
    }

    /// Makes it a guard's, once it has been written.
    pub fn hold(self, written_at: Revision) -> ClusterGuard<K, C> {
        let Self { attempt, job, context, value, sign, after } = self;
        let inner = attempt.inner();
        inner.goes_on(written_at, after);
        let held = inner.hold(&attempt.key, attempt.seq, Token::new(inner.epoch, written_at), value, sign);
        inner.counts.marks.add(1);
        ClusterGuard::new(Arc::clone(&attempt.session), job, context, held)
    }
}

impl<K: JobKey + fmt::Debug, C: Context> fmt::Debug for Prepared<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("job", &self.job).finish_non_exhaustive()
    }
}

/// Writes a context, and sees to it that others can read whose a mark is: one that nobody can read is nobody's.
pub(crate) fn readable<K: JobKey, C: Context>(job: &K, context: &C) -> Result<String, MarkError> {
    let id = job.encode();
    if K::decode(&id).as_ref() != Some(job) {
        return Err(MarkError::Unreadable { written: id });
    }
    let written = context.encode();
    if C::decode(&written).is_none() {
        return Err(MarkError::Unreadable { written });
    }
    Ok(written)
}
