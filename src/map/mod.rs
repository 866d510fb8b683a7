//! The job map: a grow-only trie with copy-on-write buckets, and the only place, with `reclaim`, that handles pointers.
//!
//! ```text
//! JobMap ── root: 8,192 slots or more, chosen by the low bits of the hash
//!             │
//!             ├─ empty
//!             ├─ single ──► Entry { hash, job, owner }         some bits of the hash are in the word
//!             ├─ bucket ──► [ (hash, ─► Entry), ... ]      up to 8 (more if hashes are equal); copied to be changed
//!             └─ branch ──► 64 slots for the next bits, and so on; grow-only
//! ```
//!
//! Every write is an optimistic retry on one slot: load its word, make a new one, compare-exchange, and start again
//! where another write came first. Every read is one load of one slot, after a walk through branches that never change.
//! What a write unlinks it retires. A reader keeps a guard for as long as it uses what it loaded. A word that says by
//! itself that a job is not there needs none.
//!
//! Methods take the caller's [`EpochGuard`], or [`WriteGuard`]. They run no code of the user's but `Eq` of the job,
//! whose panic leaves the map as it was. Destructors of what was retired long before run quietly, when the guard is
//! dropped and the thread is no longer pinned.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "shifts stay below the bits of a hash, counts below what is in memory"
)]

mod bucket;
mod double_collect;
mod entry;
mod free_list;
mod generation;
mod layout;
mod lazy_table;
mod node;
mod table;
mod word;

use std::fmt;
use std::time::Instant;

use self::bucket::{Bucket, position};
pub(crate) use self::double_collect::Collected;
use self::double_collect::double_collect;
pub(crate) use self::entry::Entry;
use self::entry::EntryPtr;
use self::generation::Generations;
use self::layout::BUCKET_MAX;
use self::lazy_table::LazyTable;
use self::node::{Branch, Slot};
pub(crate) use self::table::Table;
use self::word::TaggedWord;
use crate::owner::{Generation, Owner};
use crate::reclaim::{EpochGuard, WriteGuard};
use crate::unwind::drop_quietly;

/// Marked jobs and their owners.
pub(crate) struct JobMap<K, V> {
    /// Every entry reachable from here was published by [`JobMap::insert`], so its types are `Send + Sync + 'static`
    /// even where a method does not say so.
    table: LazyTable<K, V>,
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
    Conflict(Box<Entry<K, V>>),
}

/// What an insertion does with a job that has an owner.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfOwned {
    TakeOver,
    Refuse,
    /// Refuse, unless the owner is the one of this generation.
    RefuseUnless(Generation),
}

impl<K, V> JobMap<K, V> {
    crate::sync::const_unless_loom! {
        /// Creates a map with room for so many jobs. Allocates nothing yet.
        pub(crate) const fn with_capacity(jobs: usize) -> Self {
            Self { table: LazyTable::with_capacity(jobs), generations: Generations::new() }
        }
    }

    /// Returns the slots, unless no job was ever marked.
    #[inline]
    pub(crate) fn table(&self) -> Option<Table<'_, K, V>> {
        self.table.get()
    }

    /// Returns the slots. Allocates them if no job was ever marked.
    pub(crate) fn table_or_init(&self) -> Table<'_, K, V> {
        self.table.get_or_init()
    }

    /// Returns the entry that `generation` was drawn for. Runs no code of the user's.
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
            let entries = unsafe { leaf.slot.entries(leaf.word, guard) };
            // Nobody there: nothing to be done, as of the load.
            let (place, entry) = position(&entries, hash, guard, &mut is_it)?;
            // Of two entries one is left: it needs no bucket, unless its ABA tags are used up.
            let collapsed = match (&entries[..], place) {
                ([_, kept], 0) | ([kept, _], 1) => kept.collapse(),
                _ => None,
            };
            let new = match collapsed {
                Some(kept) => TaggedWord::single(kept),
                // The last one: the empty word says which it was, so that it differs from all before.
                None if entries.len() == 1 => TaggedWord::cleared(entry.owner.generation),
                None => TaggedWord::bucket(Bucket::without(&entries, place)),
            };
            // Unlinked and retired, if nothing has changed since the load.
            // SAFETY: `new` was made above and is nowhere else; `entry`, found under `guard`, is in the leaf's word
            // and not in `new`. Its types are as `insert` demands (`JobMap::table`).
            if unsafe { leaf.publish(new, entries.get(place), guard) } {
                return Some(entry);
            }
        }
    }

    /// Returns every entry, all from one instant if that can be had in a bounded number of attempts: see
    /// [`Collected::atomic`].
    pub(crate) fn double_collect<'g>(&'g self, guard: &'g EpochGuard) -> Collected<'g, K, V> {
        match self.table() {
            Some(table) => double_collect(table, guard),
            None => Collected { entries: Vec::new(), atomic: true },
        }
    }

    /// Calls `each` with every entry, slot by slot.
    fn for_each_entry<'g>(&'g self, guard: &'g EpochGuard, mut each: impl FnMut(&'g Entry<K, V>)) {
        let Some(table) = self.table() else { return };
        table.for_each(|slot, word| {
            // SAFETY: `for_each` loaded the word from this slot while `guard` was live.
            let entries = unsafe { slot.entries(word, guard) };
            // SAFETY: the entries of a word that was loaded while `guard` was live.
            entries.iter().for_each(|entry| each(unsafe { entry.entry(guard) }));
        });
    }

    /// Returns how many entries there are, counted slot by slot: exact only while nobody writes.
    pub(crate) fn len(&self, guard: &EpochGuard) -> usize {
        let mut count = 0;
        self.for_each_entry(guard, |_| count += 1);
        count
    }

    /// Returns how many entries there are, and when the oldest of them was marked. Counted as [`len`](Self::len) is.
    pub(crate) fn census(&self, guard: &EpochGuard) -> (usize, Option<Instant>) {
        let (mut count, mut oldest): (usize, Option<Instant>) = (0, None);
        self.for_each_entry(guard, |entry| {
            let marked_at = entry.owner.marked_at();
            count += 1;
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

    /// Returns how many insertions went through, ever.
    pub(crate) fn inserted(&self) -> u64 {
        self.generations.published()
    }
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
                Attempt::Conflict(back) | Attempt::Refused(Refused { entry: back, .. }) => entry = back,
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
                Attempt::Conflict(back) => entry = back,
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
        // Load the slot. The compare-exchange below succeeds only while this word is in it.
        let leaf = self.table_or_init().leaf(hash);
        // SAFETY: the word was just loaded, while `guard` was live.
        let entries = unsafe { leaf.slot.entries(leaf.word, guard) };
        // Is the job owned already, and may it be taken over?
        let found = position(&entries, hash, guard, |other| other.job == entry.job);
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

        // A generation, only now: one that is drawn after the load is greater than those the load has seen (E2).
        let generation = self.generations.next(hash);
        entry.owner.generation = generation;
        // Make the new word: of the same entries, with this one in addition or in the place of the job's earlier one.
        let entry = EntryPtr::owning(entry);
        let new = match found {
            Some((place, _)) => word_replacing(&entries, place, entry),
            None if entries.is_empty() => TaggedWord::single(entry),
            // The bucket is full and the hash has more bits: the slot grows into a branch, forever.
            None if entries.len() >= BUCKET_MAX && leaf.shift < u64::BITS => {
                TaggedWord::branch(Branch::new(&[&entries[..], &[entry]].concat(), leaf.shift))
            }
            None => TaggedWord::bucket(Bucket::with(&entries, entry)),
        };
        // Publish it, and retire what it unlinks.
        let replaced = found.and_then(|(place, _)| entries.get(place));
        // SAFETY: `new` was made above and is nowhere else; of the leaf's entries, found under `guard`, it has
        // all but the one it replaces. The types are as this `impl` demands.
        if unsafe { leaf.publish(new, replaced, guard) } {
            return Attempt::Published(Inserted { generation, displaced: found.map(|(_, old)| &old.owner) });
        }
        // Another write came first. The entry goes back, for the next attempt with another generation.
        self.generations.abandon(hash);
        // SAFETY: the pointer came from the box above, and was not published after all.
        Attempt::Conflict(unsafe { Box::from_raw(entry.pointer()) })
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
        let table = self.table_or_init();
        loop {
            let leaf = table.leaf(hash);
            // SAFETY: the word was just loaded, while `guard` was live.
            let entries = unsafe { leaf.slot.entries(leaf.word, guard) };
            // Cleared or displaced since: there is no mark to be replaced.
            let found = position(&entries, hash, guard, |old| old.owner.generation == generation);
            let Some((place, _)) = found else { return Err(entry) };
            // The same generation: it is the same mark. The word differs by the entry's address.
            let new_entry = EntryPtr::owning(entry);
            let new = word_replacing(&entries, place, new_entry);
            // SAFETY: `new` was made above and is nowhere else; of the leaf's entries, found under `guard`, it has
            // all but the one it replaces. The types are as this `impl` demands.
            if unsafe { leaf.publish(new, entries.get(place), guard) } {
                return Ok(());
            }
            // SAFETY: the pointer came from the box above, and was not published after all.
            entry = unsafe { Box::from_raw(new_entry.pointer()) };
        }
    }
}

/// Returns the word of `entries` with another one, a new one, at `place`.
fn word_replacing<K, V>(entries: &[EntryPtr<K, V>], place: usize, entry: EntryPtr<K, V>) -> TaggedWord {
    match entries.len() {
        1 => TaggedWord::single(entry),
        _ => TaggedWord::bucket(Bucket::replacing(entries, place, entry)),
    }
}

impl<K, V> Drop for JobMap<K, V> {
    fn drop(&mut self) {
        let Some(table) = self.table() else { return };
        table.for_each(|_, word| {
            // SAFETY: loaded just now; what is reachable is not retired, and nobody retires it any more: `&mut self`,
            // so that no guard is needed (E7).
            for entry in unsafe { Slot::<K, V>::entries_unguarded(word) }.iter() {
                let entry = entry.pointer();
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
