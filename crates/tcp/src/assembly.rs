//! Data that came before others they follow on.

use crate::ranges::Ranges;
use crate::segment::Sacks;
use crate::seq::Seq;

/// What waits, and which parts of it are there.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    /// Bytes from `base` on, with holes.
    buffer: Vec<u8>,
    base: Seq,
    pub(crate) ranges: Ranges,
    /// A number of each range that came lately, the latest first: in this order they are told, and told again (RFC 2018,
    /// section 4).
    recent: [Option<Seq>; 4],
    /// What came twice, to be told once (RFC 2883).
    pub(crate) duplicate: Option<(Seq, Seq)>,
    /// The number of a FIN that came before data it follows.
    pub(crate) fin: Option<Seq>,
}

impl Assembly {
    /// The most ranges that are kept; a segment that would make one more is dropped.
    const RANGES: usize = 64;

    /// Keeps data that begin beyond `next`, and returns by how many bytes the memory grew; `None` when they are not kept,
    /// because that would be more than `most` bytes or too many pieces.
    pub(crate) fn keep(&mut self, next: Seq, seq: Seq, data: &[u8], most: usize) -> Option<usize> {
        if self.ranges.is_empty() {
            self.base = next;
        }
        let start = seq.since(self.base) as usize;
        let end = start + data.len();
        let last = seq + data.len() as u32;
        if self.ranges.len() >= Self::RANGES && self.ranges.overlap(seq - 1, last + 1).is_none() {
            return None;
        }
        let before = self.buffer.capacity();
        if end > self.buffer.len() {
            // Grown by halves, as a vector does, but not beyond what is allowed.
            let wanted = end.max(before + before / 2).min(end.max(before) + 65_536);
            if wanted > before {
                if wanted - before > most {
                    return None;
                }
                self.buffer.reserve_exact(wanted - self.buffer.len());
            }
            self.buffer.resize(end, 0);
        }
        self.buffer[start..end].copy_from_slice(data);
        self.ranges.insert(seq, last);
        self.recent.rotate_right(1);
        self.recent[0] = Some(seq);
        Some(self.buffer.capacity() - before)
    }

    /// What follows on `next` without a hole, if there is anything.
    pub(crate) fn ready(&self, next: Seq) -> Option<&[u8]> {
        let (_, end) = self.holding(next)?;
        self.buffer.get(next.since(self.base) as usize..end.since(self.base) as usize)
    }

    /// Forgets what lies before `next`, and returns by how many bytes the memory shrank.
    pub(crate) fn advance(&mut self, next: Seq) -> usize {
        self.ranges.remove_before(next);
        let before = self.buffer.capacity();
        if self.ranges.is_empty() {
            self.buffer = Vec::new();
            self.recent = [None; 4];
        } else {
            let gone = (next.since(self.base) as usize).min(self.buffer.len());
            self.buffer.drain(..gone);
            self.base += gone as u32;
        }
        before - self.buffer.capacity()
    }

    /// Forgets everything, and returns by how many bytes the memory shrank.
    pub(crate) fn clear(&mut self) -> usize {
        let before = self.buffer.capacity();
        *self = Self { duplicate: self.duplicate, ..Self::default() };
        before
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// The blocks to be told, in their order: what came twice (RFC 2883), what came last, the others by how lately they
    /// came, as far as that is remembered.
    pub(crate) fn sacks(&mut self, next: Seq) -> Sacks {
        let mut sacks = Sacks::default();
        if let Some((left, right)) = self.duplicate.take() {
            sacks.push(left.0, right.0);
            // A duplicate within a block is followed by that block (RFC 2883, section 4).
            if let Some((start, end)) = self.holding(left).filter(|_| left.at_or_after(next)) {
                sacks.push(start.0, end.0);
            }
        }
        let recent = self.recent.iter().flatten().filter_map(|seq| self.holding(*seq));
        for (left, right) in recent.chain(self.ranges.iter().rev()) {
            if !sacks.iter().any(|block| block == (left.0, right.0)) {
                sacks.push(left.0, right.0);
            }
        }
        sacks
    }

    /// The range that holds a number.
    fn holding(&self, seq: Seq) -> Option<(Seq, Seq)> {
        self.ranges.iter().find(|(start, end)| start.at_or_before(seq) && seq.before(*end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_become_the_stream() {
        let stream: Vec<u8> = (0..=255).collect();
        let base = Seq(u32::MAX - 99);
        let mut assembly = Assembly::default();
        for start in [200, 40, 120, 80, 160, 41] {
            assembly.keep(base, base + start, &stream[start as usize..start as usize + 40], 1 << 20).unwrap();
        }
        assert_eq!(assembly.ready(base), None, "the first 40 are missing");
        let next = base + 40;
        assert_eq!(assembly.ready(next).unwrap(), &stream[40..240]);
        assert_eq!(assembly.ready(base + 120).unwrap(), &stream[120..240], "wherever one comes in");
        assert!(assembly.memory() >= 240);
        assembly.advance(base + 240);
        assert!(assembly.ranges.is_empty() && assembly.memory() == 0);
    }

    #[test]
    fn the_latest_block_is_told_first_and_a_duplicate_before_it() {
        let mut assembly = Assembly::default();
        for (seq, length) in [(100, 10), (300, 10), (200, 10)] {
            assembly.keep(Seq(0), Seq(seq), &vec![0; length], 1 << 20).unwrap();
        }
        let told = |assembly: &mut Assembly| assembly.sacks(Seq(0)).iter().collect::<Vec<_>>();
        assert_eq!(told(&mut assembly), [(200, 210), (300, 310), (100, 110)]);
        assembly.keep(Seq(0), Seq(110), &[0; 5], 1 << 20).unwrap();
        assert_eq!(told(&mut assembly), [(100, 115), (200, 210), (300, 310)], "the others as they came");
        assembly.duplicate = Some((Seq(302), Seq(305)));
        assert_eq!(told(&mut assembly), [(302, 305), (300, 310), (100, 115), (200, 210)]);
        assert_eq!(told(&mut assembly).len(), 3, "it is told once");
    }

    #[test]
    fn memory_and_pieces_are_bounded() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.keep(Seq(0), Seq(5000), &[1; 100], 1000), None);
        let kept = (0..200).filter(|n| assembly.keep(Seq(0), Seq(10 + 2 * n), &[1], 1 << 20).is_some()).count();
        assert_eq!(kept, Assembly::RANGES);
        assert!(assembly.keep(Seq(0), Seq(11), &[1], 1 << 20).is_some(), "what joins two pieces is welcome");
        assert!(assembly.ranges.len() == Assembly::RANGES - 1);
    }
}
