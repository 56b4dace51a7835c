//! What a link does to frames: it loses, delays, reorders and repeats them, each by a seeded draw, so that a run can be
//! run again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

/// What happens to the frames of one direction. The default does nothing to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Direction {
    /// The share of frames that are lost, 0 to 1.
    pub loss: f64,
    /// The share that arrives twice.
    pub duplicate: f64,
    /// The share that is held back by `reorder_ns` more than the others, so that later ones overtake.
    pub reorder: f64,
    /// How long those are held back.
    pub reorder_ns: u64,
    /// How long every frame takes.
    pub delay_ns: u64,
}

/// Both directions of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Impairment {
    /// Fixes every draw.
    pub seed: u64,
    /// From us.
    pub there: Direction,
    /// To us.
    pub back: Direction,
}

/// What a line did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounters {
    /// Frames that came.
    pub entered: u64,
    /// Frames that it lost.
    pub lost: u64,
    /// Frames that it repeated.
    pub duplicated: u64,
    /// Frames that it held back.
    pub reordered: u64,
    /// Frames that left, repetitions included.
    pub left: u64,
}

/// One direction at work: frames in, frames out when they are due. Time is an argument.
#[derive(Debug)]
pub struct Line {
    direction: Direction,
    state: u64,
    waiting: BinaryHeap<Reverse<Waiting>>,
    number: u64,
    counters: LineCounters,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due_ns: u64,
    /// Keeps frames that are due at the same time in order.
    number: u64,
    frame: Vec<u8>,
}

impl Line {
    /// A line; its draws follow from the seed.
    pub fn new(direction: Direction, seed: u64) -> Self {
        Self { direction, state: seed, waiting: BinaryHeap::new(), number: 0, counters: LineCounters::default() }
    }

    /// Puts a frame on the line; `out` gets what arrives at once.
    pub fn push(&mut self, frame: &[u8], now_ns: u64, out: &mut dyn FnMut(&[u8])) {
        self.counters.entered += 1;
        if self.happens(self.direction.loss) {
            self.counters.lost += 1;
            return;
        }
        let copies = if self.happens(self.direction.duplicate) { 2 } else { 1 };
        self.counters.duplicated += copies - 1;
        for _ in 0..copies {
            let mut delay = self.direction.delay_ns;
            if self.happens(self.direction.reorder) {
                self.counters.reordered += 1;
                delay = delay.saturating_add(self.direction.reorder_ns);
            }
            if delay == 0 {
                self.counters.left += 1;
                out(frame);
            } else {
                self.number += 1;
                let due_ns = now_ns.saturating_add(delay);
                self.waiting.push(Reverse(Waiting { due_ns, number: self.number, frame: frame.to_vec() }));
            }
        }
    }

    /// Hands over what is due.
    pub fn pop_due(&mut self, now_ns: u64, out: &mut dyn FnMut(&[u8])) {
        while self.waiting.peek().is_some_and(|Reverse(first)| first.due_ns <= now_ns) {
            if let Some(Reverse(first)) = self.waiting.pop() {
                self.counters.left += 1;
                out(&first.frame);
            }
        }
    }

    /// When the next frame is due.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse(first)| first.due_ns)
    }

    /// Frames on the line.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no frame is on the line.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What it did so far.
    pub fn counters(&self) -> LineCounters {
        self.counters
    }

    /// A draw of this probability (SplitMix64). Nothing is drawn for what never or always happens.
    fn happens(&mut self, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        // 53 bits fill an f64's mantissa.
        ((x >> 11) as f64) < probability * (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(direction: Direction, seed: u64) -> (Vec<Vec<u8>>, LineCounters) {
        let mut line = Line::new(direction, seed);
        let mut out = Vec::new();
        for number in 0..100_000_u32 {
            let now = u64::from(number) * 1000;
            line.pop_due(now, &mut |frame| out.push(frame.to_vec()));
            line.push(&number.to_be_bytes(), now, &mut |frame| out.push(frame.to_vec()));
        }
        line.pop_due(u64::MAX, &mut |frame| out.push(frame.to_vec()));
        assert!(line.is_empty() && line.next_due_ns().is_none());
        (out, line.counters())
    }

    #[test]
    fn leaves_frames_alone_by_default() {
        let (out, counters) = run(Direction::default(), 1);
        assert_eq!((out.len(), counters.lost, counters.left), (100_000, 0, 100_000));
        assert!(out.is_sorted());
    }

    #[test]
    fn loses_and_repeats_what_it_is_told_to() {
        let direction = Direction { loss: 0.02, duplicate: 0.01, ..Direction::default() };
        let (out, counters) = run(direction, 5);
        // Six standard deviations of a binomial.
        assert!((1_730..2_270).contains(&counters.lost), "{counters:?}");
        assert!((790..1_170).contains(&counters.duplicated), "{counters:?}");
        assert_eq!(out.len() as u64, 100_000 - counters.lost + counters.duplicated);
        assert_eq!(run(direction, 5).0, out, "the same seed, the same frames");
        assert_ne!(run(direction, 6).0, out, "another seed, other frames");
    }

    #[test]
    fn delays_in_order_and_reorders_the_share_it_is_told() {
        let (out, _) = run(Direction { delay_ns: 50_000, ..Direction::default() }, 1);
        assert!(out.is_sorted() && out.len() == 100_000);
        let reordering = Direction { delay_ns: 50_000, reorder: 0.1, reorder_ns: 20_000, ..Direction::default() };
        let (out, counters) = run(reordering, 1);
        assert!((9_400..10_600).contains(&counters.reordered) && !out.is_sorted() && out.len() == 100_000);
    }
}
