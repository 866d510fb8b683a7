//! Maps that are replaced as a whole: readers see one version, and a write makes the next one.

use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Cache};
use foldhash::fast::RandomState;
use left_right::{Absorb, ReadHandle, ReadHandleFactory, WriteHandle};
use livemark::Finalizer;

use super::StdMap;
use crate::subject::{Batch, Session, Subject, Value, count, sorted};

/// A map that is copied to be changed.
pub trait Version: Clone + Send + Sync + 'static {
    type Value: Value;
    const NAME: &'static str;
    const COPIES_ALL: bool;
    fn with_room(room: usize) -> Self;
    fn contains(&self, job: &u64) -> bool;
    fn insert(&mut self, job: u64, value: Self::Value) -> bool;
    fn remove(&mut self, job: &u64) -> bool;
    fn marks(&self) -> impl Iterator<Item = (u64, Self::Value)>;
}

impl<V: Value> Version for StdMap<V> {
    type Value = V;
    const NAME: &'static str = "ArcSwap<HashMap>";
    const COPIES_ALL: bool = true;

    fn with_room(room: usize) -> Self {
        Self::with_capacity_and_hasher(room, RandomState::default())
    }

    #[inline]
    fn contains(&self, job: &u64) -> bool {
        self.contains_key(job)
    }

    #[inline]
    fn insert(&mut self, job: u64, value: V) -> bool {
        self.insert(job, value).is_some()
    }

    #[inline]
    fn remove(&mut self, job: &u64) -> bool {
        self.remove(job).is_some()
    }

    fn marks(&self) -> impl Iterator<Item = (u64, V)> {
        self.iter().map(|(job, value)| (*job, value.clone()))
    }
}

pub type PersistentMap<V> = imbl::GenericHashMap<u64, V, RandomState, imbl::shared_ptr::DefaultSharedPtr>;

impl<V: Value> Version for PersistentMap<V> {
    type Value = V;
    const NAME: &'static str = "ArcSwap<imbl>";
    const COPIES_ALL: bool = false;

    fn with_room(_: usize) -> Self {
        Self::with_hasher(RandomState::default())
    }

    #[inline]
    fn contains(&self, job: &u64) -> bool {
        self.contains_key(job)
    }

    #[inline]
    fn insert(&mut self, job: u64, value: V) -> bool {
        self.insert(job, value).is_some()
    }

    #[inline]
    fn remove(&mut self, job: &u64) -> bool {
        self.remove(job).is_some()
    }

    fn marks(&self) -> impl Iterator<Item = (u64, V)> {
        self.iter().map(|(job, value)| (*job, value.clone()))
    }
}

pub struct Swapped<M>(ArcSwap<M>);

/// Each thread keeps a `Cache`, arc-swap's cheapest look at the newest version.
pub struct SwappedSession<'s, M> {
    registry: &'s ArcSwap<M>,
    cache: Cache<&'s ArcSwap<M>, Arc<M>>,
}

impl<M: Version> Subject for Swapped<M> {
    const NAME: &'static str = M::NAME;
    const BATCH: Batch = Batch::Pin;
    const WRITES_COPY_ALL: bool = M::COPIES_ALL;

    type Session<'s> = SwappedSession<'s, M>;

    fn new(room: usize) -> Self {
        Self(ArcSwap::from_pointee(M::with_room(room)))
    }

    fn session(&self) -> SwappedSession<'_, M> {
        SwappedSession { registry: &self.0, cache: Cache::new(&self.0) }
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        self.0.rcu(|map| {
            let mut map = M::clone(map);
            for job in jobs {
                map.insert(*job, M::Value::of(finalizer));
            }
            map
        });
    }
}

impl<M: Version> SwappedSession<'_, M> {
    #[inline]
    fn change<R>(&self, change: impl Fn(&mut M) -> R) -> R {
        let mut result = None;
        self.registry.rcu(|map| {
            let mut map = M::clone(map);
            result = Some(change(&mut map));
            map
        });
        result.expect("run at least once")
    }
}

impl<M: Version> Session for SwappedSession<'_, M> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.cache.load().contains(&job)
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        let map = self.registry.load();
        count(jobs, |job| map.contains(job))
    }

    fn during_batch<R>(&mut self, job: u64, act: impl FnOnce() -> R) -> R {
        let map = self.registry.load();
        let result = act();
        black_box(map.contains(&job));
        result
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let value = M::Value::of(finalizer);
        let vacant = !self.change(|map| map.insert(job, value.clone()));
        act(self);
        vacant & self.change(|map| map.remove(&job))
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        let value = M::Value::of(finalizer);
        self.change(|map| map.insert(job, value.clone()))
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        sorted(self.registry.load().marks())
    }
}

/// Transactions on a copy-on-write tree of hashes.
pub struct Concread<V: Value>(concread::hashmap::HashMap<u64, V>);

impl<V: Value> Subject for Concread<V> {
    const NAME: &'static str = "concread";
    const BATCH: Batch = Batch::Pin;

    type Session<'s> = &'s Self;

    fn new(_: usize) -> Self {
        Self(concread::hashmap::HashMap::new())
    }

    fn session(&self) -> &Self {
        self
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        let mut write = self.0.write();
        for job in jobs {
            write.insert(*job, V::of(finalizer));
        }
        write.commit();
    }
}

impl<V: Value> Session for &Concread<V> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.0.read().contains_key(&job)
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        let read = self.0.read();
        count(jobs, |job| read.contains_key(job))
    }

    fn during_batch<R>(&mut self, job: u64, act: impl FnOnce() -> R) -> R {
        let read = self.0.read();
        let result = act();
        black_box(read.contains_key(&job));
        result
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let mut write = self.0.write();
        let vacant = write.insert(job, V::of(finalizer)).is_none();
        write.commit();
        act(self);
        let mut write = self.0.write();
        let removed = write.remove(&job).is_some();
        write.commit();
        vacant & removed
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        let mut write = self.0.write();
        let replaced = write.insert(job, V::of(finalizer)).is_some();
        write.commit();
        replaced
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        sorted(self.0.read().iter().map(|(job, value)| (*job, value.clone())))
    }
}

/// Two maps, one for the readers, the other for the writer; a write is made to both.
pub struct LeftRight<V: Value> {
    writer: Mutex<WriteHandle<StdMap<V>, Write<V>>>,
    readers: ReadHandleFactory<StdMap<V>>,
}

pub enum Write<V> {
    Insert(u64, V),
    Remove(u64),
}

impl<V: Value> Absorb<Write<V>> for StdMap<V> {
    #[inline]
    fn absorb_first(&mut self, write: &mut Write<V>, _: &Self) {
        match write {
            Write::Insert(job, value) => self.insert(*job, value.clone()),
            Write::Remove(job) => self.remove(job),
        };
    }

    #[inline]
    fn absorb_second(&mut self, write: Write<V>, _: &Self) {
        match write {
            Write::Insert(job, value) => self.insert(job, value),
            Write::Remove(job) => self.remove(&job),
        };
    }

    fn sync_with(&mut self, first: &Self) {
        self.clone_from(first);
    }
}

pub struct LeftRightSession<'s, V: Value> {
    writer: &'s Mutex<WriteHandle<StdMap<V>, Write<V>>>,
    reader: ReadHandle<StdMap<V>>,
}

impl<V: Value> Subject for LeftRight<V> {
    const NAME: &'static str = "left-right";
    const BATCH: Batch = Batch::Lock;

    type Session<'s> = LeftRightSession<'s, V>;

    fn new(room: usize) -> Self {
        let map = StdMap::with_capacity_and_hasher(room, RandomState::default());
        let (writer, reader) = left_right::new_from_empty(map);
        Self { writer: Mutex::new(writer), readers: reader.factory() }
    }

    fn session(&self) -> LeftRightSession<'_, V> {
        LeftRightSession { writer: &self.writer, reader: self.readers.handle() }
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for job in jobs {
            writer.append(Write::Insert(*job, V::of(finalizer)));
        }
        // Twice: the operations are kept until both maps have had them.
        writer.publish();
        writer.publish();
    }
}

impl<V: Value> LeftRightSession<'_, V> {
    /// Says whether the job was owned: the writer's own look, as the log of operations gives no answers.
    #[inline]
    fn write(&self, job: u64, write: Write<V>) -> bool {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let owned = writer.enter().is_some_and(|map| map.contains_key(&job));
        writer.append(write);
        writer.publish();
        owned
    }
}

impl<V: Value> Session for LeftRightSession<'_, V> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.reader.enter().is_some_and(|map| map.contains_key(&job))
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        let Some(map) = self.reader.enter() else { return 0 };
        count(jobs, |job| map.contains_key(job))
    }

    fn during_batch<R>(&mut self, job: u64, act: impl FnOnce() -> R) -> R {
        let map = self.reader.enter();
        let result = act();
        black_box(map.is_some_and(|map| map.contains_key(&job)));
        result
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let vacant = !self.write(job, Write::Insert(job, V::of(finalizer)));
        act(self);
        vacant & self.write(job, Write::Remove(job))
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        self.write(job, Write::Insert(job, V::of(finalizer)))
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        let Some(map) = self.reader.enter() else { return 0 };
        let marks: Vec<_> = map.iter().map(|(job, value)| (*job, value.clone())).collect();
        drop(map);
        sorted(marks)
    }
}

/// left-right with a map of bags.
pub struct EvMap<V: Value>(Mutex<EvMapWriter<V>>);

type EvMapWriter<V> = evmap::handles::WriteHandle<u64, V, (), RandomState>;

pub struct EvMapSession<'s, V: Value> {
    writer: &'s Mutex<EvMapWriter<V>>,
    reader: evmap::handles::ReadHandle<u64, V, (), RandomState>,
}

impl<V: Value> Subject for EvMap<V> {
    const NAME: &'static str = "evmap";
    const BATCH: Batch = Batch::Lock;

    type Session<'s> = EvMapSession<'s, V>;

    fn new(room: usize) -> Self {
        let options = evmap::Options::default().with_capacity(room);
        // SAFETY: foldhash with one seed gives one hash for one input.
        let options = unsafe { options.with_hasher(RandomState::default()) };
        // SAFETY: u64 and the values hash and compare by their contents alone, which never change.
        let (mut writer, _) = unsafe { options.assert_stable() };
        writer.publish();
        Self(Mutex::new(writer))
    }

    fn session(&self) -> EvMapSession<'_, V> {
        let writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        EvMapSession { writer: &self.0, reader: (**writer).clone() }
    }

    fn fill(&self, jobs: &[u64], finalizer: &Finalizer) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for job in jobs {
            writer.update(*job, V::of(finalizer));
        }
        writer.publish();
        writer.publish();
    }
}

impl<V: Value> EvMapSession<'_, V> {
    /// Does what [`LeftRightSession::write`] does.
    #[inline]
    fn write(&self, job: u64, write: impl FnOnce(&mut EvMapWriter<V>)) -> bool {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let owned = writer.contains_key(&job);
        write(&mut writer);
        writer.publish();
        owned
    }
}

impl<V: Value> Session for EvMapSession<'_, V> {
    #[inline]
    fn is_active(&mut self, job: u64) -> bool {
        self.reader.contains_key(&job)
    }

    #[inline]
    fn count_active(&mut self, jobs: &[u64]) -> usize {
        let Some(map) = self.reader.enter() else { return 0 };
        count(jobs, |job| map.contains_key(job))
    }

    fn during_batch<R>(&mut self, job: u64, act: impl FnOnce() -> R) -> R {
        let map = self.reader.enter();
        let result = act();
        black_box(map.is_some_and(|map| map.contains_key(&job)));
        result
    }

    #[inline]
    fn while_marked(&mut self, job: u64, finalizer: &Finalizer, act: impl FnOnce(&mut Self)) -> bool {
        let value = V::of(finalizer);
        let vacant = !self.write(job, |writer| _ = writer.update(job, value));
        act(self);
        vacant & self.write(job, |writer| _ = writer.remove_entry(job))
    }

    #[inline]
    fn hand_over(&mut self, _: usize, job: u64, finalizer: &Finalizer) -> bool {
        let value = V::of(finalizer);
        self.write(job, |writer| _ = writer.update(job, value))
    }

    #[inline]
    fn snapshot(&mut self) -> usize {
        let Some(map) = self.reader.enter() else { return 0 };
        let mark = |(job, values): (&u64, &evmap::refs::Values<V, RandomState>)| {
            (*job, values.get_one().expect("one value for each job").clone())
        };
        let marks: Vec<_> = map.iter().map(mark).collect();
        drop(map);
        sorted(marks)
    }
}
