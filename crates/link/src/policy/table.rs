//! Membership of a destination in the allowed set, fast.

use irl_targets::PrefixSet;

/// For IPv4, a tree without any search: two bits for each /16 (16 KiB, so that they stay in the first-level cache); for
/// a /16 that is neither wholly in nor wholly out, two bits for each of its /24 (one cache line); for such a /24, a bit
/// for each address.
#[derive(Debug)]
pub(super) struct WordTable {
    wide: Box<States<{ 1 << 14 }>>,
    /// Of each /16 that is mixed, its number in `narrow`.
    index: Box<[u16; 1 << 16]>,
    narrow: Vec<Block>,
    leaves: Vec<[u64; 4]>,
}

/// The /24s of one /16.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Block {
    states: States<64>,
    /// Of each /24 that is mixed, its number in `leaves`, in their order from here on.
    first_leaf: u32,
}

/// Four states a byte: [`NONE`], [`ALL`] or [`MIXED`].
#[derive(Clone, Debug)]
struct States<const BYTES: usize>([u8; BYTES]);

const NONE: u8 = 0;
const ALL: u8 = 1;
const MIXED: u8 = 2;

impl<const BYTES: usize> States<BYTES> {
    /// Numbers wrap at the table's size, which no caller's exceed.
    #[inline]
    fn get(&self, number: u32) -> u8 {
        self.0[number as usize / 4 % BYTES] >> (2 * (number & 3)) & 3
    }

    fn set(&mut self, number: u32, state: u8) {
        self.0[number as usize / 4 % BYTES] |= state << (2 * (number & 3));
    }
}

impl WordTable {
    pub(super) fn new(set: &PrefixSet) -> Self {
        let mut table = Self {
            wide: Box::new(States([0; 1 << 14])),
            index: Box::new([0; 1 << 16]),
            narrow: Vec::new(),
            leaves: Vec::new(),
        };
        for &(first, last) in set.ranges() {
            // A set of IPv4 addresses has no value above 32 bits.
            table.add(first as u32, last as u32);
        }
        table
    }

    /// Ranges come in order and do not touch.
    fn add(&mut self, first: u32, last: u32) {
        for wide in first >> 16..=last >> 16 {
            let (low, high) = (first.max(wide << 16), last.min(wide << 16 | 0xffff));
            if high - low == 0xffff {
                self.wide.set(wide, ALL);
                continue;
            }
            if self.wide.get(wide) != MIXED {
                self.wide.set(wide, MIXED);
                self.index[wide as usize] = self.narrow.len() as u16;
                self.narrow.push(Block { states: States([0; 64]), first_leaf: self.leaves.len() as u32 });
            }
            self.add_narrow(low, high);
        }
    }

    /// Inside one /16, whose block is the last.
    fn add_narrow(&mut self, first: u32, last: u32) {
        let Some(block) = self.narrow.last_mut() else { return };
        for narrow in first >> 8..=last >> 8 {
            let (low, high) = (first.max(narrow << 8), last.min(narrow << 8 | 0xff));
            if high - low == 0xff {
                block.states.set(narrow & 0xff, ALL);
                continue;
            }
            if block.states.get(narrow & 0xff) != MIXED {
                block.states.set(narrow & 0xff, MIXED);
                self.leaves.push([0; 4]);
            }
            if let Some(leaf) = self.leaves.last_mut() {
                (low..=high).for_each(|address| leaf[address as usize >> 6 & 3] |= 1 << (address & 63));
            }
        }
    }

    #[inline]
    pub(super) fn contains(&self, address: u32) -> bool {
        match self.wide.get(address >> 16) {
            ALL => true,
            NONE => false,
            _ => self.contains_narrow(address),
        }
    }

    #[inline]
    fn contains_narrow(&self, address: u32) -> bool {
        let block = &self.narrow[usize::from(self.index[address as usize >> 16])];
        match block.states.get(address >> 8 & 0xff) {
            ALL => true,
            NONE => false,
            _ => self.contains_single(block, address),
        }
    }

    fn contains_single(&self, block: &Block, address: u32) -> bool {
        let mixed_before = (0..address >> 8 & 0xff).filter(|narrow| block.states.get(*narrow) == MIXED).count();
        let leaf = &self.leaves[block.first_leaf as usize + mixed_before];
        leaf[address as usize >> 6 & 3] >> (address & 63) & 1 == 1
    }
}

/// For IPv6: the ranges themselves.
#[derive(Debug)]
pub(super) struct RangeTable {
    ranges: Vec<(u128, u128)>,
}

impl RangeTable {
    pub(super) fn new(set: &PrefixSet) -> Self {
        Self { ranges: set.ranges().to_vec() }
    }

    #[inline]
    pub(super) fn contains(&self, address: u128) -> bool {
        in_ranges(&self.ranges, address)
    }
}

#[inline]
fn in_ranges<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after > 0 && address <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use irl_targets::Family;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Near the borders of its ranges and anywhere else, the table says what the set says.
        #[test]
        fn table_agrees_with_the_set(
            wide in prop::collection::vec((any::<u32>(), 0u32..200_000), 0..40),
            narrow in prop::collection::vec((0u32..200_000, 0u32..300), 0..80),
            probes in prop::collection::vec(any::<u32>(), 50),
        ) {
            let ranges = wide.iter().chain(&narrow).map(|&(first, more)| (first.into(), first.saturating_add(more).into())).collect();
            let set = PrefixSet::from_ranges(Family::V4, ranges);
            let table = WordTable::new(&set);
            let wide = RangeTable::new(&set);
            let borders = set.ranges().iter().flat_map(|&(first, last)| {
                let (first, last) = (first as u32, last as u32);
                [first.wrapping_sub(1), first, last, last.wrapping_add(1), first | 0xffff, last & 0xffff_0000, first | 0xff]
            });
            for address in borders.chain(probes) {
                prop_assert_eq!(table.contains(address), set.contains(address.into()));
                prop_assert_eq!(wide.contains(address.into()), set.contains(address.into()));
            }
        }
    }
}
