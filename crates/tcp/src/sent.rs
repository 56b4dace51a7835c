//! What the peer has of the data that we sent, and what has to be sent again (RFC 6675, RFC 5681, RFC 6582).

use crate::ranges::Ranges;
use crate::seq::Seq;

/// RFC 6675's DupThresh.
pub(crate) const DUPLICATES: u8 = 3;
/// The most SACKed ranges that are remembered; a peer that tells more is believed in part.
const RANGES: usize = 32;

/// How losses are being made good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There are none that we know of.
    #[default]
    Open,
    /// Duplicate acknowledgements tell that something is missing (fast recovery).
    Recovery,
    /// The retransmission timer ran out: everything that is not SACKed is sent again, in slow start.
    Loss,
}

/// The sender's scoreboard.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) phase: Phase,
    pub(crate) ssthresh: u32,
    /// What was outstanding when this phase began.
    pub(crate) recover: Seq,
    /// Behind the last byte that was sent again in this phase.
    pub(crate) resent: Seq,
    /// What a tail loss probe overtook: everything before this that the peer has not told of is lost. It left two
    /// round-trip times earlier than what was told of, longer than anything is held up by being reordered.
    overtaken: Option<Seq>,
    sacked: Ranges,
}

impl Default for Sent {
    fn default() -> Self {
        Self {
            phase: Phase::Open,
            ssthresh: u32::MAX,
            recover: Seq(0),
            resent: Seq(0),
            overtaken: None,
            sacked: Ranges::default(),
        }
    }
}

impl Sent {
    /// Takes in a SACK block. Returns whether it told something new.
    pub(crate) fn sacked(&mut self, una: Seq, nxt: Seq, left: Seq, right: Seq) -> bool {
        // A block outside of what is outstanding tells of a duplicate (RFC 2883), or of nothing.
        let sensible = left.before(right) && left.at_or_after(una) && right.at_or_before(nxt);
        if !sensible || self.sacked.covers(left, right) || self.sacked.len() >= RANGES {
            return false;
        }
        self.sacked.insert(left, right);
        true
    }

    /// A tail loss probe, which was the last segment before `nxt`, was told of by now: what it overtook is lost.
    pub(crate) fn probe_told(&mut self, nxt: Seq) {
        let last = self.sacked.iter().next_back();
        self.overtaken = last.filter(|(_, end)| *end == nxt).map(|(start, _)| start).or(self.overtaken);
    }

    pub(crate) fn advance(&mut self, una: Seq) {
        self.overtaken = self.overtaken.filter(|end| end.after(una));
        self.sacked.remove_before(una);
        self.resent = self.resent.later(una);
    }

    /// Begins to make a loss good; `flight` bytes are outstanding.
    pub(crate) fn enter(&mut self, phase: Phase, una: Seq, nxt: Seq, flight: u32, mss: u32) {
        // A second timeout for the same data does not halve again (RFC 5681, section 3.1).
        if self.phase != Phase::Loss {
            self.ssthresh = (flight / 2).max(2 * mss);
        }
        if phase == Phase::Loss {
            // The peer may have dropped what it had SACKed (RFC 2018, section 8).
            self.sacked.clear();
            self.overtaken = None;
        }
        (self.phase, self.recover, self.resent) = (phase, nxt, una);
    }

    /// What is outstanding did not fit a link on its way, and is sent again in smaller segments.
    pub(crate) fn too_big(&mut self, una: Seq, nxt: Seq) {
        self.sacked.clear();
        self.overtaken = None;
        (self.phase, self.recover, self.resent) = (Phase::Loss, nxt, una);
    }

    /// RFC 6675's IsLost: three ranges above, or more than two segments' worth of bytes. Or a tail loss probe overtook it.
    fn is_lost(&self, seq: Seq, mss: u32) -> bool {
        if self.overtaken.is_some_and(|end| seq.before(end)) {
            return true;
        }
        let (mut ranges, mut bytes) = (0, 0);
        for (start, end) in self.sacked.iter().rev() {
            if end.at_or_before(seq) {
                break;
            }
            ranges += 1;
            bytes += end.since(start.later(seq));
            if ranges >= u32::from(DUPLICATES) || bytes > (u32::from(DUPLICATES) - 1) * mss {
                return true;
            }
        }
        false
    }

    /// Whether what begins at `una` counts as lost.
    pub(crate) fn first_is_lost(&self, una: Seq, mss: u32) -> bool {
        self.is_lost(una, mss)
    }

    /// The holes: what is outstanding and not SACKed.
    fn holes(&self, una: Seq, nxt: Seq) -> impl Iterator<Item = (Seq, Seq)> + '_ {
        let ends = self.sacked.iter().map(|(_, end)| end);
        let starts = self.sacked.iter().map(|(start, _)| start).chain([nxt]);
        std::iter::once(una).chain(ends).zip(starts).filter(|(start, end)| start.before(*end))
    }

    /// RFC 6675's pipe: how many bytes are thought to be on their way.
    pub(crate) fn pipe(&self, una: Seq, nxt: Seq, mss: u32) -> u32 {
        let mut pipe = 0;
        for (start, end) in self.holes(una, nxt) {
            let sent_again = self.resent.earlier(end);
            if sent_again.after(start) {
                pipe += sent_again.since(start);
            }
            let lost = match self.phase {
                Phase::Loss => start.before(self.recover),
                _ => self.is_lost(start, mss),
            };
            if !lost {
                pipe += end.since(start);
            } else if self.phase == Phase::Loss && end.after(self.recover) {
                pipe += end.since(self.recover.later(start));
            }
        }
        pipe
    }

    /// What is to be sent again next (RFC 6675's NextSeg, rules 1 and 3), at most a segment's worth; `sure` tells the first
    /// from the third: what is lost from what may be.
    pub(crate) fn next(&self, una: Seq, nxt: Seq, mss: u32, sure: bool) -> Option<(Seq, Seq)> {
        let highest = self.sacked.iter().next_back().map(|(_, end)| end);
        for (start, end) in self.holes(una, nxt) {
            let start = start.later(self.resent);
            let end = match self.phase {
                Phase::Loss => end.earlier(self.recover),
                _ => end,
            };
            if !start.before(end) {
                continue;
            }
            let due = match self.phase {
                Phase::Open => false,
                Phase::Loss => sure,
                Phase::Recovery if sure => self.is_lost(start, mss),
                Phase::Recovery => highest.is_some_and(|highest| start.before(highest)),
            };
            return due.then(|| (start, end.earlier(start + mss)));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 100;

    fn told(blocks: &[(u32, u32)]) -> Sent {
        let mut sent = Sent::default();
        for (left, right) in blocks {
            sent.sacked(Seq(0), Seq(10_000), Seq(*left), Seq(*right));
        }
        sent
    }

    #[test]
    fn lost_is_what_three_ranges_or_more_than_two_segments_lie_above() {
        assert!(!told(&[(100, 300)]).first_is_lost(Seq(0), MSS));
        assert!(told(&[(100, 301)]).first_is_lost(Seq(0), MSS));
        assert!(told(&[(100, 110), (200, 210), (300, 310)]).first_is_lost(Seq(0), MSS));
        assert!(!told(&[(100, 110), (200, 210), (300, 310)]).is_lost(Seq(150), MSS));
    }

    #[test]
    fn blocks_outside_of_what_is_outstanding_are_not_believed() {
        let mut sent = Sent::default();
        for (left, right) in [(900, 950), (2000, 2500), (1500, 1400), (999, 1001)] {
            assert!(!sent.sacked(Seq(1000), Seq(2000), Seq(left), Seq(right)), "{left}..{right}");
        }
        assert!(sent.sacked(Seq(1000), Seq(2000), Seq(1000), Seq(2000)));
        assert!(!sent.sacked(Seq(1000), Seq(2000), Seq(1200), Seq(1300)), "nothing new");
    }

    #[test]
    fn recovery_sends_the_holes_in_order_and_each_once() {
        let mut sent = told(&[(100, 200), (300, 400), (500, 900)]);
        sent.enter(Phase::Recovery, Seq(0), Seq(1000), 1000, MSS);
        let mut holes = Vec::new();
        while let Some((start, end)) = sent.next(Seq(0), Seq(1000), MSS, true) {
            holes.push((start.0, end.0));
            sent.resent = end;
        }
        assert_eq!(holes, [(0, 100), (200, 300), (400, 500)]);
        assert_eq!(sent.next(Seq(0), Seq(1000), MSS, false), None, "nothing is SACKed above 900");
        assert_eq!((sent.ssthresh, sent.recover), (500, Seq(1000)));
    }

    #[test]
    fn the_pipe_holds_what_is_neither_sacked_nor_lost_and_what_was_sent_again() {
        let mut sent = told(&[(100, 200), (300, 400), (500, 900)]);
        sent.enter(Phase::Recovery, Seq(0), Seq(1000), 1000, MSS);
        assert_eq!(sent.pipe(Seq(0), Seq(1000), MSS), 100, "the last hundred");
        sent.resent = Seq(100);
        assert_eq!(sent.pipe(Seq(0), Seq(1000), MSS), 200);
        sent.enter(Phase::Loss, Seq(0), Seq(1000), 1000, MSS);
        assert_eq!(sent.pipe(Seq(0), Seq(1200), MSS), 200, "after a timeout only what was sent since");
        assert_eq!(sent.next(Seq(0), Seq(1200), MSS, true), Some((Seq(0), Seq(100))));
        sent.resent = Seq(1000);
        assert_eq!(sent.next(Seq(0), Seq(1200), MSS, true), None, "new data are not sent again");
        assert_eq!(sent.ssthresh, 500, "a loss in the recovery of one halves from what is outstanding");
    }
}
