//! An atomic snapshot of all slots, by a double collect: [`double_collect`].

use super::entry::Entry;
use super::node::Slot;
use super::table::Table;
use super::word::TaggedWord;
use crate::reclaim::EpochGuard;

/// How often all slots are read again before a reading is returned that is not atomic.
const ATTEMPTS: usize = 8;

/// A reading of the whole map.
pub(crate) struct Collected<'g, K, V> {
    pub(crate) entries: Vec<&'g Entry<K, V>>,
    /// Set if all of them were there at one instant.
    pub(crate) atomic: bool,
}

/// Returns every entry, all from one instant if that can be had in a bounded number of attempts.
///
/// Reads all slots, then reads them again. Where both readings agree, every slot held its word from its first reading
/// to its second, as no word comes back (see [`TaggedWord`]). So all slots held theirs at the instant between the
/// readings (E5), which is the linearization point.
pub(super) fn double_collect<'g, K, V>(table: Table<'g, K, V>, guard: &'g EpochGuard) -> Collected<'g, K, V> {
    let mut seen = Vec::new();
    collect(table, &mut seen);
    // Each reading is compared with the one before, so that one more is enough where writers pause.
    let atomic = (0..ATTEMPTS).any(|_| collect(table, &mut seen));
    // The words are followed only now: the readings above are as short as can be.
    let mut entries = Vec::new();
    for (_, word) in seen {
        // SAFETY: the word was loaded from a slot of this map while `guard` was live.
        let of_slot = unsafe { Slot::<K, V>::entries_of(word, guard) };
        // SAFETY: the entries of a word that was loaded while `guard` was live.
        entries.extend(of_slot.iter().map(|entry| unsafe { entry.entry(guard) }));
    }
    Collected { entries, atomic }
}

/// Loads all slots, and puts those that were ever used, with their places in the order, where the last reading is.
/// Returns `true` if it was the same.
fn collect<K, V>(table: Table<'_, K, V>, seen: &mut Vec<(usize, TaggedWord)>) -> bool {
    let (mut place, mut used, mut same) = (0, 0, true);
    table.for_each(|_, word| {
        place += 1;
        // Most slots were never used, and are not written down. One that is used later is one more.
        if word == TaggedWord::UNUSED {
            return;
        }
        let now = (place, word);
        if let Some(before) = seen.get_mut(used) {
            same &= std::mem::replace(before, now) == now;
        } else {
            same = false;
            seen.push(now);
        }
        used += 1;
    });
    // The last reading may have had more.
    same &= used == seen.len();
    seen.truncate(used);
    same
}
