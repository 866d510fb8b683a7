//! Which jobs the latest sweep left alone or redrove: so that news can be told from repetition.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use super::verdict::{DeferReason, Proposed};
use crate::hasher::DefaultHashBuilder;

/// What was told of a job that a sweep left alone, or redrove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Deferred(DeferReason),
    Proposed(Proposed),
    Redriven,
}

/// What one sweep told of the jobs that it left alone or redrove, by a hash of their ids: an id need not be cloned for
/// it. Two jobs of one hash, one pair in 2^64, would be taken for one in the log.
#[derive(Debug, Default)]
pub(super) struct Findings(HashMap<u64, (Finding, bool), BuildHasherDefault<AsIs>>);

impl Findings {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes what is told of `job`. Returns whether it is news: the sweep before told something else, or nothing.
    pub(super) fn record<K: Hash>(&mut self, job: &K, finding: Finding, before: Option<&Self>) -> bool {
        if let (true, Some(before)) = (self.0.is_empty(), before) {
            self.0.reserve(before.0.len());
        }
        let hash = hash(job);
        match self.0.entry(hash) {
            Entry::Vacant(vacant) => {
                let known = before.and_then(|before| before.0.get(&hash));
                let is_news = known.is_none_or(|(known, _)| *known != finding);
                vacant.insert((finding, is_news));
                is_news
            }
            // Within a sweep a job that is judged again is no news either.
            Entry::Occupied(mut occupied) => {
                let is_news = occupied.get().0 != finding;
                occupied.insert((finding, is_news));
                is_news
            }
        }
    }

    /// Returns whether what was noted of `job` is news.
    pub(super) fn is_news<K: Hash>(&self, job: &K) -> bool {
        self.0.get(&hash(job)).is_none_or(|(_, is_news)| *is_news)
    }
}

/// Hashes hashes.
#[derive(Default)]
pub(super) struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = DefaultHashBuilder::new().hash_one(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn hash<K: Hash>(job: &K) -> u64 {
    DefaultHashBuilder::new().hash_one(job)
}
