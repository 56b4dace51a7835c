//! Membership of a destination in the allowed set, fast.

use irl_targets::PrefixSet;

/// For IPv4: two bits for each /16 (16 KiB, so that it stays in the first-level cache), and ranges where a /16 is
/// neither wholly in nor wholly out.
#[derive(Debug)]
pub(super) struct WordTable {
    /// Four /16 a byte: [`NONE`], [`ALL`] or [`MIXED`].
    blocks: Box<[u8; 1 << 14]>,
    /// Of each mixed /16, in their order: the number and where its ranges begin.
    mixed: Vec<(u16, u32)>,
    /// Inclusive ranges inside the mixed /16s, cut at their borders.
    ranges: Vec<(u32, u32)>,
}

const NONE: u8 = 0;
const ALL: u8 = 1;
const MIXED: u8 = 2;

impl WordTable {
    pub(super) fn new(set: &PrefixSet) -> Self {
        let mut table = Self { blocks: Box::new([0; 1 << 14]), mixed: Vec::new(), ranges: Vec::new() };
        for &(first, last) in set.ranges() {
            // A set of IPv4 addresses has no value above 32 bits.
            table.add(first as u32, last as u32);
        }
        table
    }

    /// Ranges come in order and do not touch.
    fn add(&mut self, first: u32, last: u32) {
        for block in first >> 16..=last >> 16 {
            let (low, high) = (first.max(block << 16), last.min(block << 16 | 0xffff));
            if high - low == 0xffff {
                self.set(block as u16, ALL);
                continue;
            }
            if self.state(block as u16) != MIXED {
                self.set(block as u16, MIXED);
                self.mixed.push((block as u16, self.ranges.len() as u32));
            }
            self.ranges.push((low, high));
        }
    }

    fn set(&mut self, block: u16, state: u8) {
        self.blocks[usize::from(block >> 2)] |= state << (2 * (block & 3));
    }

    #[inline]
    fn state(&self, block: u16) -> u8 {
        self.blocks[usize::from(block >> 2)] >> (2 * (block & 3)) & 3
    }

    #[inline]
    pub(super) fn contains(&self, address: u32) -> bool {
        match self.state((address >> 16) as u16) {
            ALL => true,
            NONE => false,
            _ => self.contains_mixed(address),
        }
    }

    fn contains_mixed(&self, address: u32) -> bool {
        let Ok(at) = self.mixed.binary_search_by_key(&((address >> 16) as u16), |&(block, _)| block) else {
            return false;
        };
        let start = self.mixed[at].1 as usize;
        let end = self.mixed.get(at + 1).map_or(self.ranges.len(), |&(_, next)| next as usize);
        in_ranges(&self.ranges[start..end], address)
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
            ranges in prop::collection::vec((any::<u32>(), 0u32..200_000), 0..40),
            probes in prop::collection::vec(any::<u32>(), 50),
        ) {
            let ranges = ranges.iter().map(|&(first, more)| (first.into(), first.saturating_add(more).into())).collect();
            let set = PrefixSet::from_ranges(Family::V4, ranges);
            let table = WordTable::new(&set);
            let wide = RangeTable::new(&set);
            let borders = set.ranges().iter().flat_map(|&(first, last)| {
                let (first, last) = (first as u32, last as u32);
                [first.wrapping_sub(1), first, last, last.wrapping_add(1), first | 0xffff, last & 0xffff_0000]
            });
            for address in borders.chain(probes) {
                prop_assert_eq!(table.contains(address), set.contains(address.into()));
                prop_assert_eq!(wide.contains(address.into()), set.contains(address.into()));
            }
        }
    }
}
