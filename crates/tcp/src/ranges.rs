//! A few ranges of sequence numbers, apart from each other and in order.

use crate::seq::Seq;

/// Ranges of sequence numbers, each from its first up to before its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(Seq, Seq)>);

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (Seq, Seq)> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a range, joined with those it meets, and returns what it has become.
    pub(crate) fn insert(&mut self, first: Seq, last: Seq) -> (Seq, Seq) {
        let from = self.0.partition_point(|(_, end)| end.before(first));
        let to = self.0.partition_point(|(start, _)| start.at_or_before(last));
        let joined = match self.0.get(from..to) {
            Some([(start, _), .., (_, end)]) => (first.earlier(*start), last.later(*end)),
            Some([(start, end)]) => (first.earlier(*start), last.later(*end)),
            _ => (first, last),
        };
        self.0.splice(from..to.max(from), [joined]);
        joined
    }

    /// Whether all of a range is there.
    pub(crate) fn covers(&self, first: Seq, last: Seq) -> bool {
        self.0.iter().any(|(start, end)| start.at_or_before(first) && last.at_or_before(*end))
    }

    /// The part of a range that is there already, from where it first is.
    pub(crate) fn overlap(&self, first: Seq, last: Seq) -> Option<(Seq, Seq)> {
        let met = self.0.iter().find(|(start, end)| start.before(last) && first.before(*end))?;
        Some((first.later(met.0), last.earlier(met.1)))
    }

    /// Forgets everything before `edge`.
    pub(crate) fn remove_before(&mut self, edge: Seq) {
        self.0.retain_mut(|(start, end)| {
            *start = start.later(edge);
            start.before(*end)
        });
    }

    /// How many numbers they hold in all.
    #[cfg(test)]
    pub(crate) fn total(&self) -> u32 {
        self.0.iter().map(|(start, end)| end.since(*start)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(of: &[(u32, u32)]) -> Ranges {
        let mut ranges = Ranges::default();
        for (first, last) in of {
            ranges.insert(Seq(*first), Seq(*last));
        }
        ranges
    }

    fn plain(ranges: &Ranges) -> Vec<(u32, u32)> {
        ranges.iter().map(|(first, last)| (first.0, last.0)).collect()
    }

    #[test]
    fn ranges_that_meet_are_one() {
        assert_eq!(plain(&ranges(&[(30, 40), (10, 20), (50, 60)])), [(10, 20), (30, 40), (50, 60)]);
        assert_eq!(plain(&ranges(&[(10, 20), (30, 40), (20, 30)])), [(10, 40)]);
        assert_eq!(plain(&ranges(&[(10, 20), (30, 40), (15, 55), (50, 60)])), [(10, 60)]);
        assert_eq!(plain(&ranges(&[(10, 20), (12, 15)])), [(10, 20)]);
        assert_eq!(plain(&ranges(&[(u32::MAX - 5, 5), (5, 9)])), [(u32::MAX - 5, 9)]);
    }

    #[test]
    fn like_a_set_of_numbers() {
        use std::collections::BTreeSet;
        let mut seed = 1_u64;
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 33) % below) as u32
        };
        for _ in 0..300 {
            // Around the end of the number space.
            let base = Seq(u32::MAX - 100);
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for _ in 0..draw(12) {
                let (first, length) = (draw(200), 1 + draw(20));
                ranges.insert(base + first, base + (first + length));
                set.extend(first..first + length);
            }
            let edge = draw(200);
            ranges.remove_before(base + edge);
            set.retain(|number| *number >= edge);
            assert_eq!(ranges.total() as usize, set.len());
            for (first, length) in [(draw(200), 1 + draw(10)), (edge, 5)] {
                let all = (first..first + length).all(|number| set.contains(&number));
                assert_eq!(ranges.covers(base + first, base + (first + length)), all);
                let some = (first..first + length).find(|number| set.contains(number));
                assert_eq!(
                    ranges.overlap(base + first, base + (first + length)).map(|(at, _)| at),
                    some.map(|at| base + at)
                );
            }
        }
    }
}
