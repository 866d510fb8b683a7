//! A map behind a lock, and the same map without one: the limit.

use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use foldhash::fast::RandomState;
use livemark::Finalizer;

use super::StdMap;
use crate::subject::{Batch, Session, Subject, Value, count, sorted};

/// A map that one thread has to itself: its only session holds the lock from beginning to end.
///
/// The standard library's, which is hashbrown's; hashbrown itself, 0.15 and 0.17, took a tenth longer for a hit.
pub struct Unsynchronised<V>(Mutex<StdMap<V>>);

impl<V: Value> Subject for Unsynchronised<V> {
    const NAME: &'static str = "unsynchronised map";
    const SHARED: bool = false;
    const BATCH: Batch = Batch::Single;

    type Session<'s> = MutexGuard<'s, StdMap<V>>;

    fn new(room: usize) -> Self {
        Self(Mutex::new(StdMap::with_capacity_and_hasher(room, RandomState::default())))
    }

    fn session(&self) -> Self::Session<'_> {
        self.0.try_lock().expect("one session at a time")
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        self.session().extend(jobs.iter().map(|job| (*job, V::of(finalizer))));
    }
}

impl<V: Value> Session for MutexGuard<'_, StdMap<V>> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.contains_key(&job)
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        let map = &**self;
        count(jobs, |job| map.contains_key(job))
    }

    fn during_batch<R>(&mut self, _: u64, act: impl FnOnce() -> R) -> R {
        act()
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let vacant = self.insert(job, V::of(finalizer)).is_none();
        act(self);
        vacant & self.remove(&job).is_some()
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        self.insert(job, V::of(finalizer)).is_some()
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        sorted(self.iter().map(|(job, value)| (*job, value.clone())))
    }
}

pub struct Locked<L>(L);

/// A lock, as it is used everywhere.
pub trait Lock: Send + Sync + 'static {
    type Value: Value;
    const NAME: &'static str;
    fn new(map: StdMap<Self::Value>) -> Self;
    fn read<R>(&self, act: impl FnOnce(&StdMap<Self::Value>) -> R) -> R;
    fn write<R>(&self, act: impl FnOnce(&mut StdMap<Self::Value>) -> R) -> R;
}

impl<L: Lock> Subject for Locked<L> {
    const NAME: &'static str = L::NAME;
    const BATCH: Batch = Batch::Lock;

    type Session<'s> = &'s Self;

    fn new(room: usize) -> Self {
        Self(L::new(StdMap::with_capacity_and_hasher(room, RandomState::default())))
    }

    fn session(&self) -> &Self {
        self
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        self.0.write(|map| map.extend(jobs.iter().map(|job| (*job, L::Value::of(finalizer)))));
    }
}

impl<L: Lock> Session for &Locked<L> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.0.read(|map| map.contains_key(&job))
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        self.0.read(|map| count(jobs, |job| map.contains_key(job)))
    }

    fn during_batch<R>(&mut self, job: u64, act: impl FnOnce() -> R) -> R {
        self.0.read(|map| {
            black_box(map.contains_key(&job));
            act()
        })
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let value = L::Value::of(finalizer);
        let vacant = self.0.write(|map| map.insert(job, value)).is_none();
        act(self);
        vacant & self.0.write(|map| map.remove(&job)).is_some()
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        let value = L::Value::of(finalizer);
        self.0.write(|map| map.insert(job, value)).is_some()
    }

    /// Copied under the lock, sorted after it.
    #[inline]
    fn snapshot(&mut self) -> usize {
        let marks = self.0.read(|map| map.iter().map(|(job, value)| (*job, value.clone())).collect::<Vec<_>>());
        sorted(marks)
    }
}

impl<V: Value> Lock for Mutex<StdMap<V>> {
    type Value = V;
    const NAME: &'static str = "Mutex<HashMap>";

    fn new(map: StdMap<V>) -> Self {
        Self::new(map)
    }

    #[inline]
    fn read<R>(&self, act: impl FnOnce(&StdMap<V>) -> R) -> R {
        act(&self.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[inline]
    fn write<R>(&self, act: impl FnOnce(&mut StdMap<V>) -> R) -> R {
        act(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<V: Value> Lock for RwLock<StdMap<V>> {
    type Value = V;
    const NAME: &'static str = "RwLock<HashMap>";

    fn new(map: StdMap<V>) -> Self {
        Self::new(map)
    }

    #[inline]
    fn read<R>(&self, act: impl FnOnce(&StdMap<V>) -> R) -> R {
        act(&self.read().unwrap_or_else(PoisonError::into_inner))
    }

    #[inline]
    fn write<R>(&self, act: impl FnOnce(&mut StdMap<V>) -> R) -> R {
        act(&mut self.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<V: Value> Lock for parking_lot::Mutex<StdMap<V>> {
    type Value = V;
    const NAME: &'static str = "parking_lot Mutex";

    fn new(map: StdMap<V>) -> Self {
        Self::new(map)
    }

    #[inline]
    fn read<R>(&self, act: impl FnOnce(&StdMap<V>) -> R) -> R {
        act(&self.lock())
    }

    #[inline]
    fn write<R>(&self, act: impl FnOnce(&mut StdMap<V>) -> R) -> R {
        act(&mut self.lock())
    }
}

impl<V: Value> Lock for parking_lot::RwLock<StdMap<V>> {
    type Value = V;
    const NAME: &'static str = "parking_lot RwLock";

    fn new(map: StdMap<V>) -> Self {
        Self::new(map)
    }

    #[inline]
    fn read<R>(&self, act: impl FnOnce(&StdMap<V>) -> R) -> R {
        act(&self.read())
    }

    #[inline]
    fn write<R>(&self, act: impl FnOnce(&mut StdMap<V>) -> R) -> R {
        act(&mut self.write())
    }
}
