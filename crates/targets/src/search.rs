//! The fast twin of a [`PrefixSet`]: select, rank and contains in a few nanoseconds.
//!
//! A first-level table indexed by the key's top bits narrows a search to the few ranges that start there; with more
//! slots than ranges most look-ups need no comparison that could be mispredicted.

use crate::prefix::PrefixSet;

/// Slots of the first-level table for small sets: 4,096 of 4 bytes stay in the first-level cache.
const MIN_SLOTS_LOG2: u32 = 12;
const MAX_SLOTS_LOG2: u32 = 20;

/// An immutable look-up structure of a set; build one where addresses are looked up by the million.
#[derive(Clone, Debug)]
pub struct PrefixIndex {
    set: PrefixSet,
    by_rank: Ranks,
    by_address: Steps<u128>,
}

/// Ranks fit in 64 bits unless the set has more than 2^64 addresses.
#[derive(Clone, Debug)]
enum Ranks {
    Narrow(NarrowRanks),
    Wide,
}

#[derive(Clone, Debug)]
pub(crate) struct NarrowRanks {
    steps: Steps<u64>,
    /// First address of a range minus its first rank, so that address = rank + base (wrapping).
    bases: Vec<u128>,
}

impl PrefixIndex {
    /// Builds the tables.
    pub fn new(set: PrefixSet) -> Self {
        let by_rank = if set.count() <= 1 << 64 {
            let mut rank = 0u128;
            let (mut keys, mut bases) = (Vec::new(), Vec::new());
            for &(first, last) in set.ranges() {
                // Below 2^64: the ranks before a range are fewer than the count.
                keys.push(rank as u64);
                bases.push(first.wrapping_sub(rank));
                rank += last - first + 1;
            }
            let last = set.count().saturating_sub(1) as u64;
            Ranks::Narrow(NarrowRanks { steps: Steps::new(keys, last), bases })
        } else {
            Ranks::Wide
        };
        let firsts = set.ranges().iter().map(|range| range.0).collect();
        let by_address = Steps::new(firsts, set.family().max());
        Self { set, by_rank, by_address }
    }

    /// The set.
    pub fn set(&self) -> &PrefixSet {
        &self.set
    }

    /// As [`PrefixSet::contains`].
    #[inline]
    pub fn contains(&self, address: u128) -> bool {
        let ranges = self.set.ranges();
        ranges.get(self.by_address.find(address)).is_some_and(|range| range.0 <= address && address <= range.1)
    }

    /// As [`PrefixSet::rank`].
    #[inline]
    pub fn rank(&self, address: u128) -> Option<u128> {
        let range = self.by_address.find(address);
        let (first, last) = *self.set.ranges().get(range)?;
        (first <= address && address <= last).then(|| self.set.before(range) + (address - first))
    }

    /// As [`PrefixSet::select`].
    ///
    /// # Panics
    /// When `rank` is not below the set's count.
    #[inline]
    pub fn select(&self, rank: u128) -> u128 {
        match &self.by_rank {
            Ranks::Narrow(narrow) => {
                assert!(rank < self.set.count(), "rank {rank} of {}", self.set.count());
                narrow.select(rank as u64)
            }
            Ranks::Wide => self.set.select(rank),
        }
    }

    /// The 64-bit ranks, where the set allows them.
    pub(crate) fn narrow(&self) -> Option<&NarrowRanks> {
        match &self.by_rank {
            Ranks::Narrow(narrow) => Some(narrow),
            Ranks::Wide => None,
        }
    }
}

impl NarrowRanks {
    /// `rank` is below the count; above it the answer means nothing.
    #[inline(always)]
    pub(crate) fn select(&self, rank: u64) -> u128 {
        self.bases[self.steps.find(rank)].wrapping_add(u128::from(rank))
    }
}

/// A key that can be shifted into a slot number.
trait Key: Copy + Ord {
    const BITS: u32;
    fn zeros(self) -> u32;
    fn slot(self, shift: u32) -> usize;
}

impl Key for u64 {
    const BITS: u32 = 64;

    fn zeros(self) -> u32 {
        self.leading_zeros()
    }

    #[inline(always)]
    fn slot(self, shift: u32) -> usize {
        (self >> shift) as usize
    }
}

impl Key for u128 {
    const BITS: u32 = 128;

    fn zeros(self) -> u32 {
        self.leading_zeros()
    }

    #[inline(always)]
    fn slot(self, shift: u32) -> usize {
        (self >> shift) as usize
    }
}

/// Sorted keys, and where those of each slot begin.
#[derive(Clone, Debug)]
struct Steps<K> {
    keys: Vec<K>,
    shift: u32,
    /// For each slot the last key at or below its start, and one slot more.
    first: Vec<u32>,
}

impl<K: Key> Steps<K> {
    /// The table for keys up to `max`.
    fn new(keys: Vec<K>, max: K) -> Self {
        let wanted = (keys.len().max(1).next_power_of_two().trailing_zeros() + 2).clamp(MIN_SLOTS_LOG2, MAX_SLOTS_LOG2);
        let shift = (K::BITS - max.zeros()).saturating_sub(wanted);
        let slots = max.slot(shift) + 1;
        let mut first = Vec::with_capacity(slots + 1);
        let mut next = 0;
        for slot in 0..=slots {
            // The last key in an earlier slot, or at this slot's very start: no later than the answer for any key here.
            while next < keys.len() && keys[next].slot(shift) < slot {
                next += 1;
            }
            first.push(next.saturating_sub(1) as u32);
        }
        Self { keys, shift, first }
    }

    /// The place of the last key at or below `key`; 0 when there is none (or no keys at all).
    #[inline(always)]
    fn find(&self, key: K) -> usize {
        let slot = key.slot(self.shift);
        let Some(&[low, high]) = self.first.get(slot..slot + 2).and_then(|pair| pair.first_chunk::<2>()) else {
            return self.keys.len().saturating_sub(1);
        };
        let (mut low, mut high) = (low as usize, high as usize);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if self.keys[middle] <= key {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low
    }
}
