//! What the latest sweep found of the jobs that were past a limit: [`Findings`], by which news can be told from
//! repetition.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

use super::verdict::{DeferReason, Proposed};
use crate::hasher::DefaultHashBuilder;

/// What a sweep found of a job that it left alone or redrove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Deferred(DeferReason),
    Proposed(Proposed),
    Redriven,
}

/// Keeps what a sweep found of each job, and whether that was news.
///
/// Jobs are kept by a hash of their ids, so that no id is cloned. Two jobs of one hash, one pair in 2^64, would be taken
/// for one in the log.
#[derive(Debug, Default)]
pub(super) struct Findings(HashMap<u64, (Finding, bool), BuildHasherDefault<AsIs>>);

impl Findings {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Records what was found of `job`. Returns `true` if that is news: `before` has something else, or nothing.
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
            // A job that is judged again in the same sweep is no news either.
            Entry::Occupied(mut occupied) => {
                let is_news = occupied.get().0 != finding;
                occupied.insert((finding, is_news));
                is_news
            }
        }
    }

    /// Returns `true` if what was found of `job` is news.
    pub(super) fn is_news<K: Hash>(&self, job: &K) -> bool {
        self.0.get(&hash(job)).is_none_or(|(_, is_news)| *is_news)
    }
}

/// Takes a hash as its own hash.
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
