//! Concurrent maps.

use std::hint::black_box;

use foldhash::fast::RandomState;
use livemark::Finalizer;

use crate::subject::{Batch, Session, Subject, Value, count, sorted};

/// Sharded, a lock per shard.
pub struct DashMap<V>(dashmap::DashMap<u64, V, RandomState>);

impl<V: Value> Subject for DashMap<V> {
    const NAME: &'static str = "dashmap";
    const BATCH: Batch = Batch::Single;

    type Session<'s> = &'s Self;

    fn new(room: usize) -> Self {
        Self(dashmap::DashMap::with_capacity_and_hasher(room, RandomState::default()))
    }

    fn session(&self) -> &Self {
        self
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        for job in jobs {
            self.0.insert(*job, V::of(finalizer));
        }
    }
}

impl<V: Value> Session for &DashMap<V> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.0.contains_key(&job)
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        count(jobs, |job| self.0.contains_key(job))
    }

    fn during_batch<R>(&mut self, _: u64, act: impl FnOnce() -> R) -> R {
        act()
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let vacant = self.0.insert(job, V::of(finalizer)).is_none();
        act(self);
        vacant & self.0.remove(&job).is_some()
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        self.0.insert(job, V::of(finalizer)).is_some()
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        sorted(self.0.iter().map(|mark| (*mark.key(), mark.value().clone())))
    }
}

/// The room that scc's maps have at least, wherever room can be asked for: they do much worse with less where jobs are
/// marked and cleared fast, and but slightly worse otherwise (a snapshot goes through all of it).
const SCC_ROOM: usize = 65_536;

fn scc_room(room: usize) -> usize {
    if room == 0 { 0 } else { room.max(SCC_ROOM) }
}

/// A lock per bucket, which is handed to waiters in turn: where threads outnumber cores, they come to wait for waiters
/// that do not run. With room for 1,024 jobs, all of them owned, eight threads on two cores made a fifth of the
/// look-ups that they made with room for 65,536.
pub struct SccHashMap<V: 'static>(scc::HashMap<u64, V, RandomState>);

impl<V: Value> Subject for SccHashMap<V> {
    const NAME: &'static str = "scc HashMap";
    const BATCH: Batch = Batch::Single;

    type Session<'s> = &'s Self;

    fn new(room: usize) -> Self {
        Self(scc::HashMap::with_capacity_and_hasher(scc_room(room), RandomState::default()))
    }

    fn session(&self) -> &Self {
        self
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        for job in jobs {
            assert!(self.0.insert_sync(*job, V::of(finalizer)).is_ok());
        }
    }
}

impl<V: Value> Session for &SccHashMap<V> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.0.contains_sync(&job)
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        count(jobs, |job| self.0.contains_sync(job))
    }

    fn during_batch<R>(&mut self, _: u64, act: impl FnOnce() -> R) -> R {
        act()
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let vacant = self.0.insert_sync(job, V::of(finalizer)).is_ok();
        act(self);
        vacant & self.0.remove_sync(&job).is_some()
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        self.0.upsert_sync(job, V::of(finalizer)).is_some()
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        let mut marks = Vec::new();
        self.0.iter_sync(|job, value| {
            marks.push((*job, value.clone()));
            true
        });
        sorted(marks)
    }
}

/// Read-optimized: look-ups take no lock.
///
/// Removed entries keep their places until no reader can see them. Where jobs are marked and cleared faster than that,
/// its buckets grow chains that are walked by each look-up, and stay when the writers pause: with room for 64 jobs, of
/// which all were owned, a look-up beside a writer took a microsecond and more, and half of one afterwards; with room
/// for 65,536 4 to 20 ns, and 3.
pub struct SccHashIndex<V: 'static>(scc::HashIndex<u64, V, RandomState>);

impl<V: Value> Subject for SccHashIndex<V> {
    const NAME: &'static str = "scc HashIndex";
    const BATCH: Batch = Batch::Pin;

    type Session<'s> = &'s Self;

    fn new(room: usize) -> Self {
        Self(scc::HashIndex::with_capacity_and_hasher(scc_room(room), RandomState::default()))
    }

    fn session(&self) -> &Self {
        self
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        for job in jobs {
            assert!(self.0.insert_sync(*job, V::of(finalizer)).is_ok());
        }
    }
}

impl<V: Value> Session for &SccHashIndex<V> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.0.contains(&job)
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        let guard = scc::Guard::new();
        count(jobs, |job| self.0.peek(job, &guard).is_some())
    }

    fn during_batch<R>(&mut self, job: u64, act: impl FnOnce() -> R) -> R {
        let guard = scc::Guard::new();
        let value = self.0.peek(&job, &guard);
        let result = act();
        black_box(value);
        result
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let vacant = self.0.insert_sync(job, V::of(finalizer)).is_ok();
        act(self);
        vacant & self.0.remove_sync(&job)
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        let Some(mut mark) = self.0.get_sync(&job) else { return false };
        mark.update(V::of(finalizer));
        true
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        let guard = scc::Guard::new();
        sorted(self.0.iter(&guard).map(|(job, value)| (*job, value.clone())))
    }
}

pub struct Papaya<V>(papaya::HashMap<u64, V, RandomState>);

impl<V: Value> Subject for Papaya<V> {
    const NAME: &'static str = "papaya";
    const BATCH: Batch = Batch::Pin;

    type Session<'s> = &'s Self;

    /// With room for twice the jobs: with less it can be left in the middle of copying its table, which makes each
    /// look-up dearer.
    fn new(room: usize) -> Self {
        Self(papaya::HashMap::with_capacity_and_hasher(2 * room, RandomState::default()))
    }

    fn session(&self) -> &Self {
        self
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        for job in jobs {
            self.0.pin().insert(*job, V::of(finalizer));
        }
    }
}

impl<V: Value> Session for &Papaya<V> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.0.pin().contains_key(&job)
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        let pinned = self.0.pin();
        count(jobs, |job| pinned.contains_key(job))
    }

    fn during_batch<R>(&mut self, job: u64, act: impl FnOnce() -> R) -> R {
        let pinned = self.0.pin();
        let value = pinned.get(&job);
        let result = act();
        black_box(value);
        result
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let vacant = self.0.pin().insert(job, V::of(finalizer)).is_none();
        act(self);
        vacant & self.0.pin().remove(&job).is_some()
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        self.0.pin().insert(job, V::of(finalizer)).is_some()
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        sorted(self.0.pin().iter().map(|(job, value)| (*job, value.clone())))
    }
}

pub struct Flurry<V>(flurry::HashMap<u64, V, RandomState>);

impl<V: Value> Subject for Flurry<V> {
    const NAME: &'static str = "flurry";
    const BATCH: Batch = Batch::Pin;

    type Session<'s> = &'s Self;

    fn new(room: usize) -> Self {
        Self(flurry::HashMap::with_capacity_and_hasher(room, RandomState::default()))
    }

    fn session(&self) -> &Self {
        self
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        for job in jobs {
            self.0.pin().insert(*job, V::of(finalizer));
        }
    }
}

impl<V: Value> Session for &Flurry<V> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.0.pin().contains_key(&job)
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        let pinned = self.0.pin();
        count(jobs, |job| pinned.contains_key(job))
    }

    fn during_batch<R>(&mut self, job: u64, act: impl FnOnce() -> R) -> R {
        let pinned = self.0.pin();
        let value = pinned.get(&job);
        let result = act();
        black_box(value);
        result
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let vacant = self.0.pin().insert(job, V::of(finalizer)).is_none();
        act(self);
        vacant & self.0.pin().remove(&job).is_some()
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        self.0.pin().insert(job, V::of(finalizer)).is_some()
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        sorted(self.0.pin().iter().map(|(job, value)| (*job, value.clone())))
    }
}

/// Ordered: no hasher, and its snapshot is sorted already.
pub struct SkipList<V>(crossbeam_skiplist::SkipMap<u64, V>);

impl<V: Value> Subject for SkipList<V> {
    const NAME: &'static str = "crossbeam-skiplist";
    const BATCH: Batch = Batch::Pin;

    type Session<'s> = &'s Self;

    fn new(_: usize) -> Self {
        Self(crossbeam_skiplist::SkipMap::new())
    }

    fn session(&self) -> &Self {
        self
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        for job in jobs {
            self.0.insert(*job, V::of(finalizer));
        }
    }
}

impl<V: Value> Session for &SkipList<V> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.0.contains_key(&job)
    }

    /// Within a pin the look-ups' own pins are cheap.
    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        let _pinned = crossbeam_epoch::pin();
        count(jobs, |job| self.0.contains_key(job))
    }

    fn during_batch<R>(&mut self, job: u64, act: impl FnOnce() -> R) -> R {
        let _pinned = crossbeam_epoch::pin();
        black_box(self.0.contains_key(&job));
        act()
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        self.0.insert(job, V::of(finalizer));
        act(self);
        self.0.remove(&job).is_some()
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        !self.0.insert(job, V::of(finalizer)).is_removed()
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        let marks: Vec<_> = self.0.iter().map(|mark| (*mark.key(), mark.value().clone())).collect();
        black_box(&marks).len()
    }
}
