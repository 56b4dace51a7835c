//! Where a flow's connection lies: open addressing under a keyed hash.

use crate::prefetch::prefetch;
use crate::segment::Flow;

/// Slots by flow. An entry has eight bytes: the flow's hash, and the slot plus one; 0 is no entry. Whether an entry is
/// really the flow's is asked of the caller, who has the connections.
#[derive(Debug)]
pub(crate) struct Index {
    entries: Vec<u64>,
    used: usize,
    key: [u64; 2],
}

impl Index {
    const LEAST: usize = 1024;

    pub(crate) fn new(key: [u64; 2]) -> Self {
        Self { entries: vec![0; Self::LEAST], used: 0, key }
    }

    /// A hash that only the holder of the key can tell: two rounds of multiplication to 128 bits, folded.
    #[inline]
    pub(crate) fn hash(&self, flow: &Flow) -> u32 {
        let ports = u64::from(flow.our_port) | u64::from(flow.their_port) << 16 | u64::from(flow.ours) << 32;
        let address = fold(flow.theirs as u64 ^ self.key[0], (flow.theirs >> 64) as u64 ^ self.key[1]);
        fold(address ^ self.key[1].rotate_left(32), ports ^ self.key[0].rotate_left(17)) as u32
    }

    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        prefetch(&self.entries[self.place(hash)]);
    }

    /// The first slot whose flow has this hash and `is` the one. Bounded by the entries, of which some are always free.
    #[inline]
    pub(crate) fn find(&self, hash: u32, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut place = self.place(hash);
        loop {
            let entry = self.entries[place];
            if entry == 0 {
                return None;
            }
            let slot = (entry as u32).wrapping_sub(1);
            if (entry >> 32) as u32 == hash && is(slot) {
                return Some(slot);
            }
            place = self.after(place);
        }
    }

    /// Adds a slot; the flow must not be there.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32) {
        if (self.used + 1) * 4 > self.entries.len() * 3 {
            self.grow();
        }
        self.put(u64::from(hash) << 32 | u64::from(slot + 1));
        self.used += 1;
    }

    /// Takes a slot out.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) {
        let gone = u64::from(hash) << 32 | u64::from(slot + 1);
        let mut hole = self.place(hash);
        while self.entries[hole] != gone {
            if self.entries[hole] == 0 {
                return;
            }
            hole = self.after(hole);
        }
        self.used -= 1;
        // Entries behind move up where that brings them closer to their place, so that no search ends too early.
        let mut next = hole;
        loop {
            self.entries[hole] = 0;
            loop {
                next = self.after(next);
                let entry = self.entries[next];
                if entry == 0 {
                    return;
                }
                let home = self.place((entry >> 32) as u32);
                if self.distance(home, next) >= self.distance(hole, next) {
                    self.entries[hole] = entry;
                    hole = next;
                    break;
                }
            }
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<u64>()
    }

    #[inline]
    fn place(&self, hash: u32) -> usize {
        // The hash as a fraction of the table.
        ((u64::from(hash) * self.entries.len() as u64) >> 32) as usize
    }

    #[inline]
    fn after(&self, place: usize) -> usize {
        if place + 1 == self.entries.len() { 0 } else { place + 1 }
    }

    /// How many places it is from one on to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.entries.len() - from }
    }

    fn put(&mut self, entry: u64) {
        let mut place = self.place((entry >> 32) as u32);
        while self.entries[place] != 0 {
            place = self.after(place);
        }
        self.entries[place] = entry;
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.entries);
        // By half, so that an entry never costs more than 16 bytes.
        self.entries = vec![0; old.len() + old.len() / 2];
        for entry in old {
            if entry != 0 {
                self.put(entry);
            }
        }
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn flow(number: u32) -> Flow {
        Flow { ours: 0, our_port: 61_000 + (number % 7) as u16, theirs: u128::from(number / 7), their_port: 80 }
    }

    #[test]
    fn like_a_map_through_insertions_and_removals() {
        let mut index = Index::new([3, 5]);
        let mut map = HashMap::new();
        let mut seed = 9_u64;
        for turn in 0..200_000_u32 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (seed >> 33) as u32 % 5000;
            let hash = index.hash(&flow(number));
            let found = index.find(hash, |slot| slot == number);
            assert_eq!(found, map.get(&number).copied(), "turn {turn}");
            if found.is_some() {
                index.remove(hash, number);
                map.remove(&number);
            } else {
                index.insert(hash, number);
                map.insert(number, number);
            }
        }
        assert_eq!(index.used, map.len());
        for number in map.keys() {
            assert_eq!(index.find(index.hash(&flow(*number)), |slot| slot == *number), Some(*number));
        }
    }

    #[test]
    fn removing_what_is_not_there_changes_nothing() {
        let mut index = Index::new([3, 5]);
        index.insert(7, 1);
        index.remove(7, 2);
        index.remove(8, 1);
        assert_eq!((index.used, index.find(7, |_| true)), (1, Some(1)));
    }

    #[test]
    fn chains_stay_short_and_depend_on_the_key() {
        let longest = |key: [u64; 2]| {
            let mut index = Index::new(key);
            for number in 0..(1 << 16) {
                index.insert(index.hash(&flow(number)), number);
            }
            let runs = index.entries.split(|entry| *entry == 0).map(<[u64]>::len);
            runs.max().unwrap()
        };
        assert!(longest([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]) < 200);
        let (a, b) = (Index::new([1, 2]), Index::new([1, 3]));
        assert!((0..64).any(|number| a.hash(&flow(number)) != b.hash(&flow(number))));
    }
}
