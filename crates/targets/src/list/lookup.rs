//! A list's entries, each once, and the table that finds one.

use std::hint::black_box;
use std::ops::Range;

use super::entries::Entries;
use crate::family::Family;
use crate::target_set::Target;

/// Entries without duplicates, and which of them holds a given target.
#[derive(Clone, Debug)]
pub(crate) struct Lookup {
    pub(crate) entries: Entries,
    /// Open addressing with linear probing: entry numbers, [`EMPTY`] where there is none.
    table: Vec<u32>,
    pub(crate) duplicates: u64,
}

const EMPTY: u32 = u32::MAX;

impl Lookup {
    /// Keeps the entries that `keep` admits, each once, in their order.
    pub(crate) fn new(mut entries: Entries, keep: impl Fn(u128) -> bool) -> Self {
        let len = entries.len();
        let table = vec![EMPTY; len + len / 2 + 1];
        let mut kept = 0;
        let mut lookup = Self { entries: Entries::new(Family::V4), table, duplicates: 0 };
        for first in (0..len).step_by(AHEAD) {
            let batch = first..len.min(first + AHEAD);
            lookup.touch(&entries, batch.clone());
            for entry in batch {
                let target = Target { address: entries.address(entry), port: entries.port(entry) };
                if !keep(target.address) {
                    continue;
                }
                match lookup.slot(&entries, target) {
                    Ok(_) => lookup.duplicates += 1,
                    Err(empty) => {
                        // Lists are shorter than u32::MAX, which the parser has checked.
                        lookup.table[empty] = kept as u32;
                        entries.shift(entry, kept);
                        kept += 1;
                    }
                }
            }
        }
        entries.truncate(kept);
        lookup.entries = entries;
        lookup
    }

    /// Reads what looking up these entries will read. Tables of long lists are larger than any cache, and loads that do
    /// not depend on each other wait for memory together.
    fn touch(&self, entries: &Entries, batch: Range<usize>) {
        let mut slots = [0; AHEAD];
        let mut read = 0;
        for (slot, entry) in slots.iter_mut().zip(batch.clone()) {
            *slot = self.first_slot(Target { address: entries.address(entry), port: entries.port(entry) });
            read ^= self.table[*slot];
        }
        black_box(read);
        let mut read = 0;
        for (&slot, _) in slots.iter().zip(batch) {
            let run = self.table[slot..].iter().take(RUN).take_while(|&&entry| entry != EMPTY);
            read = run.fold(read, |read, &entry| read ^ entries.address(entry as usize));
        }
        black_box(read);
    }

    /// The entry of this target, if it is in the list.
    pub(crate) fn find(&self, target: Target) -> Option<usize> {
        self.slot(&self.entries, target).ok()
    }

    fn first_slot(&self, target: Target) -> usize {
        ((u128::from(hash(target)) * self.table.len() as u128) >> 64) as usize
    }

    /// The entry that equals the target, or the free slot where it belongs. A third of the table is free, so it ends.
    fn slot(&self, entries: &Entries, target: Target) -> std::result::Result<usize, usize> {
        let mut slot = self.first_slot(target);
        loop {
            let entry = self.table[slot];
            if entry == EMPTY {
                return Err(slot);
            }
            let entry = entry as usize;
            if entries.address(entry) == target.address && entries.port(entry) == target.port {
                return Ok(entry);
            }
            slot = if slot + 1 == self.table.len() { 0 } else { slot + 1 };
        }
    }
}

/// How many entries are looked up at a time.
const AHEAD: usize = 64;
/// How many taken slots in a row are looked at ahead of time; few runs are longer.
const RUN: usize = 16;

/// Spreads targets over the table. Lists are the user's own, so nobody chooses them against it.
fn hash(target: Target) -> u64 {
    let high = (target.address >> 64) as u64 ^ u64::from(target.port) << 48;
    let mixed = (target.address as u64 ^ high.rotate_left(32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ mixed >> 29).wrapping_add(high)).wrapping_mul(0x94d0_49bb_1331_11eb)
}
