//! The copy-on-write job map: the only place, with `reclaim`, that handles pointers.
//!
//! ```text
//! JobMap ── root: 8,192 slots or more, chosen by the low bits of the hash
//!             │
//!             ├─ empty
//!             ├─ lone ────► Entry { hash, job, owner }         some bits of the hash are in the word
//!             ├─ bucket ──► [ (hash, ─► Entry), ... ]      up to 8 (more if hashes are equal); copied to be changed
//!             └─ branch ──► 64 slots for the next bits, and so on; grow-only
//! ```
//!
//! Every write is one compare-exchange on one slot; every read is one load of one slot, after a walk through
//! branches that never change. What a write unlinks it retires; a reader keeps a guard for as long as it uses
//! what it loaded. A word that says by itself that a job is not there needs none.
//!
//! Methods take the caller's [`EpochGuard`], or [`WriteGuard`]. They run no code of the user's but `Eq` of the job,
//! whose panic leaves the map as it was. Destructors of what was retired long before run quietly, when the guard is
//! dropped and the thread is no longer pinned.

mod branch;
mod bucket;
mod entry;
mod generations;
mod slot;
mod spare;
mod table;

use std::fmt;

use self::branch::Branch;
use self::bucket::{Bucket, Item, position};
use self::generations::Generations;
use self::slot::{Slot, Word};
use self::table::{Leaf, Root};
use crate::owner::{Generation, Owner};
use crate::reclaim::{self, EpochGuard, WriteGuard};
use crate::sync::LOOM;
use crate::unwind::drop_quietly;

pub(crate) use self::entry::Entry;
pub(crate) use self::table::Table;

// The shape of the map. A model has the same code in a shape of few states.

/// Powers of two. The least take 64 KiB; with fewer, jobs would share slots sooner.
const ROOT_SLOTS_MIN: usize = if LOOM { 2 } else { 1 << 13 };
const ROOT_SLOTS_MAX: usize = if LOOM { 2 } else { 1 << 24 };
const BRANCH_BITS: u32 = if LOOM { 1 } else { 6 };
const BRANCH_SLOTS: usize = 1 << BRANCH_BITS;
/// The most entries in a bucket before its slot grows into a branch.
const BUCKET_MAX: usize = if LOOM { 2 } else { 8 };
/// How often a cut reads all slots again before it settles for one that is not atomic.
const CUT_ATTEMPTS: usize = 8;

/// Marked jobs and their owners.
pub(crate) struct JobMap<K, V> {
    /// Every entry reachable from here was published by [`JobMap::insert`], so its types are `Send + Sync + 'static`
    /// even where a method does not say so.
    root: Root<K, V>,
    generations: Generations,
}

/// How an insertion went through.
pub(crate) struct Inserted<'g, V> {
    pub(crate) generation: Generation,
    /// The owner that the mark was taken over from, if there was one.
    pub(crate) displaced: Option<&'g Owner<V>>,
}

/// What came of an insertion of an owned job that was not to be taken over.
pub(crate) struct Refused<'g, K, V> {
    pub(crate) entry: Box<Entry<K, V>>,
    pub(crate) owner: &'g Owner<V>,
}

/// What came of one attempt to insert.
enum Attempt<'g, K, V> {
    Published(Inserted<'g, V>),
    Refused(Refused<'g, K, V>),
    /// Another write to the slot came first.
    Outrun(Box<Entry<K, V>>),
}

/// What an insertion does with a job that has an owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfOwned {
    TakeOver,
    Refuse,
    /// Refuse, unless the owner is the one of this generation.
    RefuseUnless(Generation),
}

/// A reading of the whole map.
pub(crate) struct Cut<'g, K, V> {
    pub(crate) entries: Vec<&'g Entry<K, V>>,
    /// Set if all of them were there at one instant.
    pub(crate) atomic: bool,
}

impl<K, V> JobMap<K, V> {
    crate::sync::const_unless_loom! {
        /// With room for so many jobs. Allocates nothing yet.
        pub(crate) const fn with_capacity(jobs: usize) -> Self {
            Self { root: Root::with_capacity(jobs), generations: Generations::new() }
        }
    }

    /// The slots, unless no job was ever marked.
    #[inline]
    pub(crate) fn table(&self) -> Option<Table<'_, K, V>> {
        self.root.table()
    }

    /// The slots. Allocates them if no job was ever marked.
    pub(crate) fn table_or_made(&self) -> Table<'_, K, V> {
        self.root.table_or_made()
    }

    /// The entry that `generation` was drawn for. Runs no code of the user's.
    pub(crate) fn find_generation<'g>(
        &'g self,
        hash: u64,
        generation: Generation,
        guard: &'g EpochGuard,
    ) -> Option<&'g Entry<K, V>> {
        self.table()?.find_where(hash, guard, |entry| entry.owner.generation == generation)
    }

    /// Unlinks the entry of this hash for which `is_it` says yes, and retires it. It can be read for as long
    /// as the guard lives.
    ///
    /// Linearizes at the compare-exchange, or where there is no such entry at the load of the slot.
    pub(crate) fn remove<'g>(
        &'g self,
        hash: u64,
        guard: &'g WriteGuard,
        mut is_it: impl FnMut(&Entry<K, V>) -> bool,
    ) -> Option<&'g Entry<K, V>> {
        let table = self.table()?;
        loop {
            let leaf = table.leaf(hash);
            // SAFETY: the word was just loaded, while `guard` was live.
            let items = unsafe { leaf.slot.items(leaf.word, guard) };
            let (place, entry) = position(&items, hash, guard, &mut is_it)?;
            let left_alone = match (&items[..], place) {
                ([_, kept], 0) | ([kept, _], 1) => kept.left_alone(),
                _ => None,
            };
            let new = match left_alone {
                Some(item) => Word::lone(item),
                None if items.len() == 1 => Word::vacated(entry.owner.generation),
                None => Word::bucket(Bucket::without(&items, place)),
            };
            // SAFETY: `new` was made above and is nowhere else; `entry`, found under `guard`, is in the leaf's word
            // and not in `new`.
            if unsafe { leaf.publish(new, items.get(place), guard) } {
                return Some(entry);
            }
        }
    }

    /// Every entry, all from one instant if that can be had in a bounded number of attempts.
    ///
    /// Reads all slots, then reads them again: where both passes agree, every slot held its word from its first
    /// reading to its second, as no word comes back (see [`Word`]), and so all of them at the instant between the
    /// passes (E5). That instant is the linearization point.
    pub(crate) fn cut<'g>(&'g self, guard: &'g EpochGuard) -> Cut<'g, K, V> {
        let Some(table) = self.table() else {
            return Cut { entries: Vec::new(), atomic: true };
        };
        let mut seen = Vec::new();
        read_all(table, &mut seen);
        let atomic = (0..CUT_ATTEMPTS).any(|_| read_all(table, &mut seen));
        let mut entries = Vec::new();
        for (_, word) in seen {
            // SAFETY: the word was loaded from a slot of this map while `guard` was live.
            let items = unsafe { Slot::<K, V>::items_of(word, guard) };
            // SAFETY: the items of a bucket that was loaded while `guard` was live.
            entries.extend(items.iter().map(|item| unsafe { item.entry(guard) }));
        }
        Cut { entries, atomic }
    }

    /// Calls `each` with every entry, slot by slot.
    fn for_each_entry<'g>(&'g self, guard: &'g EpochGuard, mut each: impl FnMut(&'g Entry<K, V>)) {
        let Some(table) = self.table() else { return };
        table.for_each(|slot, word| {
            // SAFETY: `for_each` loaded the word from this slot while `guard` was live.
            let items = unsafe { slot.items(word, guard) };
            // SAFETY: an item of what was loaded while `guard` was live.
            items.iter().for_each(|item| each(unsafe { item.entry(guard) }));
        });
    }

    /// How many entries there are, counted slot by slot: exact only while nobody writes.
    pub(crate) fn len(&self, guard: &EpochGuard) -> usize {
        let mut count: usize = 0;
        self.for_each_entry(guard, |_| count = count.saturating_add(1));
        count
    }

    /// How many entries there are, and when the oldest of them was marked; counted as [`len`](Self::len) is.
    pub(crate) fn census(&self, guard: &EpochGuard) -> (usize, Option<std::time::Instant>) {
        let (mut count, mut oldest): (usize, Option<std::time::Instant>) = (0, None);
        self.for_each_entry(guard, |entry| {
            let marked_at = entry.owner.marked_at();
            count = count.saturating_add(1);
            oldest = Some(oldest.map_or(marked_at, |oldest| marked_at.min(oldest)));
        });
        (count, oldest)
    }

    /// Returns `true` if every slot was found empty. Needs no guard.
    pub(crate) fn is_empty(&self) -> bool {
        let mut empty = true;
        if let Some(table) = self.table() {
            table.for_each(|_, word| empty &= word.is_empty());
        }
        empty
    }

    /// How many insertions went through, ever.
    pub(crate) fn inserted(&self) -> u64 {
        self.generations.published()
    }
}

/// Loads all slots, and puts those that were ever used, with their places in the order, where the last reading is. Says
/// whether it was the same.
fn read_all<K, V>(table: Table<'_, K, V>, seen: &mut Vec<(usize, Word)>) -> bool {
    let (mut place, mut used, mut same) = (0_usize, 0_usize, true);
    table.for_each(|_, word| {
        place = place.wrapping_add(1);
        if word == Word::VACANT {
            return;
        }
        let now = (place, word);
        if let Some(before) = seen.get_mut(used) {
            same &= std::mem::replace(before, now) == now;
        } else {
            same = false;
            seen.push(now);
        }
        used = used.wrapping_add(1);
    });
    same &= used == seen.len();
    seen.truncate(used);
    same
}

impl<K, V> JobMap<K, V>
where
    K: Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Publishes `entry`, with a generation of its own, in the place of its job's earlier one if there is one.
    ///
    /// Linearizes at the compare-exchange.
    pub(crate) fn insert<'g>(&'g self, mut entry: Box<Entry<K, V>>, guard: &'g WriteGuard) -> Inserted<'g, V> {
        loop {
            match self.attempt(entry, IfOwned::TakeOver, guard) {
                Attempt::Published(inserted) => return inserted,
                Attempt::Outrun(back) | Attempt::Refused(Refused { entry: back, .. }) => entry = back,
            }
        }
    }

    /// Publishes `entry`, with a generation of its own, unless its job has an owner other than the `displaceable` one.
    ///
    /// Linearizes at the compare-exchange, or for a refusal at the load of the slot.
    pub(crate) fn try_insert<'g>(
        &'g self,
        mut entry: Box<Entry<K, V>>,
        displaceable: Option<Generation>,
        guard: &'g WriteGuard,
    ) -> Result<Inserted<'g, V>, Refused<'g, K, V>> {
        let if_owned = displaceable.map_or(IfOwned::Refuse, IfOwned::RefuseUnless);
        loop {
            match self.attempt(entry, if_owned, guard) {
                Attempt::Published(inserted) => return Ok(inserted),
                Attempt::Refused(refused) => return Err(refused),
                Attempt::Outrun(back) => entry = back,
            }
        }
    }

    /// One load, and one compare-exchange if the entry is to go in.
    #[inline]
    fn attempt<'g>(
        &'g self,
        mut entry: Box<Entry<K, V>>,
        if_owned: IfOwned,
        guard: &'g WriteGuard,
    ) -> Attempt<'g, K, V> {
        let hash = entry.hash();
        let leaf = self.table_or_made().leaf(hash);
        // SAFETY: the word was just loaded, while `guard` was live.
        let items = unsafe { leaf.slot.items(leaf.word, guard) };
        let found = position(&items, hash, guard, |other| other.job == entry.job);
        if let Some((_, other)) = found {
            let refused = match if_owned {
                IfOwned::TakeOver => false,
                IfOwned::Refuse => true,
                IfOwned::RefuseUnless(displaceable) => other.owner.generation != displaceable,
            };
            if refused {
                return Attempt::Refused(Refused { entry, owner: &other.owner });
            }
        }

        let generation = self.generations.draw(hash);
        entry.owner.generation = generation;
        let item = Item::owning(entry);
        let new = match found {
            Some((place, _)) => word_replacing(&items, place, item),
            None if items.is_empty() => Word::lone(item),
            None if items.len() >= BUCKET_MAX && leaf.shift < u64::BITS => {
                Word::branch(Branch::holding(&[&items[..], &[item]].concat(), leaf.shift))
            }
            None => Word::bucket(Bucket::with(&items, item)),
        };
        let replaced = found.and_then(|(place, _)| items.get(place));
        // SAFETY: `new` was made above and is nowhere else; of the leaf's entries, found under `guard`, it has
        // all but the one it replaces.
        if unsafe { leaf.publish(new, replaced, guard) } {
            return Attempt::Published(Inserted { generation, displaced: found.map(|(_, old)| &old.owner) });
        }
        self.generations.discard(hash);
        // SAFETY: the item came from the box above, and was not published after all.
        Attempt::Outrun(unsafe { Box::from_raw(item.pointer()) })
    }

    /// Puts `entry` where the mark of its generation is, if it is still there.
    ///
    /// Linearizes at the compare-exchange, or where the mark is gone at the load of the slot.
    ///
    /// # Errors
    ///
    /// Gives the entry back if the mark is gone. It is to be dropped when the guard is gone, since that runs a
    /// destructor of the user's.
    pub(crate) fn replace(&self, mut entry: Box<Entry<K, V>>, guard: &WriteGuard) -> Result<(), Box<Entry<K, V>>> {
        let (hash, generation) = (entry.hash(), entry.owner.generation);
        let table = self.table_or_made();
        loop {
            let leaf = table.leaf(hash);
            // SAFETY: the word was just loaded, while `guard` was live.
            let items = unsafe { leaf.slot.items(leaf.word, guard) };
            let found = position(&items, hash, guard, |old| old.owner.generation == generation);
            let Some((place, _)) = found else { return Err(entry) };
            let item = Item::owning(entry);
            let new = word_replacing(&items, place, item);
            // SAFETY: `new` was made above and is nowhere else; of the leaf's entries, found under `guard`, it has
            // all but the one it replaces.
            if unsafe { leaf.publish(new, items.get(place), guard) } {
                return Ok(());
            }
            // SAFETY: the item came from the box above, and was not published after all.
            entry = unsafe { Box::from_raw(item.pointer()) };
        }
    }
}

impl<K, V> Leaf<'_, K, V> {
    /// Puts `new` in the place of this leaf's word and retires what that unlinks: the old bucket, and `unlinked`.
    /// Where the slot has changed, frees `new` and says so.
    ///
    /// # Safety
    ///
    /// The word of this leaf was loaded while `guard` was live. `new` is nowhere else. `unlinked` is an entry of
    /// the leaf's word that is not in `new`, and every other entry of that word is in `new`.
    unsafe fn publish(&self, new: Word, unlinked: Option<&Item<K, V>>, guard: &WriteGuard) -> bool {
        if !self.slot.publish(self.word, new) {
            // SAFETY: `new` is nowhere else, by the caller's promise and as it was not published.
            unsafe { Slot::<K, V>::discard(new) };
            return false;
        }
        // SAFETY: this thread's compare-exchange took the word out of the slot.
        unsafe { Slot::<K, V>::retire_bucket(self.word, guard) };
        if let Some(item) = unlinked {
            let entry = item.pointer();
            // SAFETY: this thread's compare-exchange unlinked the entry, which no write can bring back: it was in
            // this slot only, and it is not in `new`. It came from a box (`Item::owning`), and its types are
            // `Send + Sync + 'static` (`JobMap::root`).
            unsafe { reclaim::retire(guard, entry.cast(), size_of::<Entry<K, V>>(), spare::free::<Entry<K, V>>) };
        }
        true
    }
}

/// The word of `items` with another one, of a new entry, at `place`.
fn word_replacing<K, V>(items: &[Item<K, V>], place: usize, item: Item<K, V>) -> Word {
    match items.len() {
        1 => Word::lone(item),
        _ => Word::bucket(Bucket::replacing(items, place, item)),
    }
}

impl<K, V> Drop for JobMap<K, V> {
    fn drop(&mut self) {
        let Some(table) = self.table() else { return };
        table.for_each(|_, word| {
            // SAFETY: loaded just now; what is reachable is not retired, and nobody retires it any more: `&mut self`,
            // so that no guard is needed (E7).
            for item in unsafe { Slot::<K, V>::items_while(word) }.iter() {
                let entry = item.pointer();
                // SAFETY: an entry is in one bucket of one slot, and nobody looks into the slot again (E7).
                drop_quietly(|| drop(unsafe { Box::from_raw(entry) }));
            }
        });
        // The slots' own drops free the buckets and the branches.
    }
}

impl<K, V> fmt::Debug for JobMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobMap").field("inserted", &self.inserted()).finish_non_exhaustive()
    }
}
