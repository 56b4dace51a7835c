//! Which row asks for a target: open addressing with linear probing, four bytes a place.
//!
//! The targets themselves stay where they came, in their batches: a place holds the number of a row's entry and six bits
//! of its target's hash, so that few entries are looked at in vain.

use irl_targets::Target;

/// Entries are numbered with so many bits.
const BITS: u32 = 26;
/// The most entries.
pub(super) const MOST: usize = (1 << BITS) - 1;
const NUMBER: u32 = (1 << BITS) - 1;
const EMPTY: u32 = u32::MAX;
/// At most 7 in 10 places are taken, and it grows by a quarter: a place in it costs 7.2 bytes at most.
const FULL: (usize, usize) = (7, 10);

/// Numbers of entries by their targets.
#[derive(Debug)]
pub(super) struct Index {
    places: Vec<u32>,
    len: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { places: vec![EMPTY; 64], len: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<u32>()
    }

    /// The entry whose target, of this hash, is the one sought.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut place = self.home(hash);
        loop {
            match self.places[place] {
                EMPTY => return None,
                held if held & !NUMBER == tag && is_it(held & NUMBER) => return Some(held & NUMBER),
                _ => place = self.after(place),
            }
        }
    }

    /// Adds an entry whose target is not there. `hash_of` tells the hashes of all.
    pub(super) fn insert(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.len + 1) * FULL.1 > self.places.len() * FULL.0 {
            let larger = self.places.len() + self.places.len() / 4;
            let old = std::mem::replace(&mut self.places, vec![EMPTY; larger]);
            for held in old.into_iter().filter(|held| *held != EMPTY) {
                self.put(hash_of(held & NUMBER), held & NUMBER);
            }
        }
        self.put(hash, number);
        self.len += 1;
    }

    fn put(&mut self, hash: u64, number: u32) {
        let mut place = self.home(hash);
        while self.places[place] != EMPTY {
            place = self.after(place);
        }
        self.places[place] = tag(hash) | number;
    }

    /// Lets another entry of the same target take an entry's place.
    pub(super) fn replace(&mut self, hash: u64, number: u32, by: u32) {
        if let Some(place) = self.place_of(hash, number) {
            self.places[place] = tag(hash) | by;
        }
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        let Some(mut gap) = self.place_of(hash, number) else { return };
        self.len -= 1;
        // What lies behind moves up to where it would be found.
        let mut place = self.after(gap);
        while self.places[place] != EMPTY {
            let home = self.home(hash_of(self.places[place] & NUMBER));
            if self.distance(home, place) >= self.distance(gap, place) {
                self.places[gap] = self.places[place];
                gap = place;
            }
            place = self.after(place);
        }
        self.places[gap] = EMPTY;
    }

    fn place_of(&self, hash: u64, number: u32) -> Option<usize> {
        let mut place = self.home(hash);
        loop {
            match self.places[place] {
                EMPTY => return None,
                held if held == tag(hash) | number => return Some(place),
                _ => place = self.after(place),
            }
        }
    }

    fn home(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.places.len() as u128) >> 64) as usize
    }

    fn after(&self, place: usize) -> usize {
        if place + 1 == self.places.len() { 0 } else { place + 1 }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.places.len() - from }
    }
}

/// Six bits that the home does not depend on; never those of an empty place together with the highest number.
fn tag(hash: u64) -> u32 {
    (hash as u32) << BITS
}

/// Spreads targets. Lists are the user's own, so nobody chooses them against it.
pub(super) fn hash(target: Target) -> u64 {
    let high = (target.address >> 64) as u64 ^ u64::from(target.port) << 48;
    let mixed = (target.address as u64 ^ high.rotate_left(32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = ((mixed ^ mixed >> 29).wrapping_add(high)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_is_there_and_nothing_else(steps in proptest::collection::vec((0u32..60, any::<bool>()), 1..400)) {
            // Few homes, so that entries stand in each other's way.
            let hash_of = |number: u32| u64::from(number % 7) << 61 | u64::from(number % 3);
            let (mut index, mut model) = (Index::new(), BTreeSet::new());
            for (number, add) in steps {
                if add && model.insert(number) {
                    index.insert(hash_of(number), number, hash_of);
                } else if !add && model.remove(&number) {
                    index.remove(hash_of(number), number, hash_of);
                }
                for number in 0..60 {
                    let found = index.find(hash_of(number), |candidate| candidate == number);
                    prop_assert_eq!(found, model.contains(&number).then_some(number));
                }
            }
        }
    }

    #[test]
    fn a_place_costs_what_is_said() {
        let mut index = Index::new();
        let hash_of = |number: u32| hash(Target { address: number.into(), port: 80 });
        for number in 0..200_000 {
            index.insert(hash_of(number), number, hash_of);
            assert!(number < 1000 || index.bytes() * 10 <= (number as usize + 1) * 72, "{number}");
        }
        assert!((0..200_000).all(|number| index.find(hash_of(number), |found| found == number) == Some(number)));
    }
}
