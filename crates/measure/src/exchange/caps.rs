//! What keeps connections within bounds: how many SYNs may still be answered, and how many connections a prefix has.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use irl_targets::Family;

/// How long a SYN is under way: as long as a TCP waits that knows nothing of the path, before it sends its SYN again
/// (RFC 6298, 2.1). What is answered later is answered all the same.
const UNDER_WAY_NS: u64 = 1_000_000_000;
/// How often is written down how many there were.
const STEP_NS: u64 = 20_000_000;

/// SYNs that may still be answered, over all workers: those of the last second, less the answers in it.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    /// When, and how many probes and answers there had been.
    history: VecDeque<(u64, u64, u64)>,
}

impl UnderWay {
    /// How many there are, given all probes and all answers so far.
    pub(super) fn count(&mut self, now_ns: u64, probes: u64, answers: u64) -> u64 {
        let begins = now_ns.saturating_sub(UNDER_WAY_NS);
        while self.history.get(1).is_some_and(|(at, ..)| *at <= begins) {
            self.history.pop_front();
        }
        if self.history.back().is_none_or(|(at, ..)| now_ns.saturating_sub(*at) >= STEP_NS) {
            self.history.push_back((now_ns, probes, answers));
        }
        // Until a second is over, all of them are under way.
        let before = self.history.front().filter(|(at, ..)| *at <= begins);
        let (sent, heard) = before.map_or((probes, answers), |(_, old, heard)| (probes - old, answers - heard));
        sent.saturating_sub(heard)
    }

    /// The share of them that will connect, at most, given all connections opened so far: as many as did of those that
    /// had their time, and four standard deviations more. The order of targets is random, so that what was found so far
    /// is a sample of what comes.
    pub(super) fn share(&self, opened: u64) -> f64 {
        let had_time = self.history.front().map_or(0, |(_, probes, _)| *probes);
        let opened = opened as f64;
        // Of a share that would have brought 16 by now, none is not seen by chance.
        ((opened + 4.0 * opened.sqrt() + 16.0) / had_time.max(1) as f64).min(1.0)
    }
}

/// Connections of each prefix, with the SYNs that may become some, over all workers (`--max-per-prefix`).
#[derive(Debug)]
pub(super) struct Prefixes {
    most: u32,
    shift: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    counts: HashMap<u128, Count>,
    /// When the SYNs are no longer under way.
    syns: VecDeque<(u64, u128)>,
}

#[derive(Debug, Default)]
struct Count {
    connections: u32,
    syns: u32,
    /// SYNs that were answered and still wait in the line.
    answered: u32,
}

impl Prefixes {
    /// At most so many for a /24 of IPv4 or a /48 of IPv6.
    pub(super) fn new(most: u32, family: Family) -> Self {
        let shift = if family == Family::V4 { 8 } else { 80 };
        Self { most, shift, state: Mutex::default() }
    }

    /// Takes a place for a SYN to this address; `false` when there is none.
    pub(super) fn take(&self, address: u128, now_ns: u64) -> bool {
        let mut state = self.state();
        while let Some((ends, prefix)) = state.syns.front().copied()
            && ends <= now_ns
        {
            state.syns.pop_front();
            let Some(count) = state.counts.get_mut(&prefix) else { continue };
            match count.answered.checked_sub(1) {
                Some(left) => count.answered = left,
                None => count.syns -= 1,
            }
            state.forget(prefix);
        }
        let prefix = address >> self.shift;
        let count = state.counts.entry(prefix).or_default();
        if count.connections + count.syns >= self.most {
            return false;
        }
        count.syns += 1;
        state.syns.push_back((now_ns + UNDER_WAY_NS, prefix));
        true
    }

    /// A SYN was answered, by a SYN-ACK that opens a connection if there is a place for it, or by anything else. Whether
    /// there was.
    pub(super) fn answered(&self, address: u128, connects: bool) -> bool {
        let mut state = self.state();
        let count = state.counts.entry(address >> self.shift).or_default();
        let reserved = count.syns > 0;
        if reserved {
            count.syns -= 1;
            count.answered += 1;
        }
        let fits = reserved || count.connections + count.syns < self.most;
        count.connections += u32::from(connects && fits);
        state.forget(address >> self.shift);
        fits
    }

    /// A connection is over.
    pub(super) fn closed(&self, address: u128) {
        let mut state = self.state();
        let prefix = address >> self.shift;
        if let Some(count) = state.counts.get_mut(&prefix) {
            count.connections -= 1;
        }
        state.forget(prefix);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Counts that are changed in one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets go of a prefix with nothing in it.
    fn forget(&mut self, prefix: u128) {
        if self.counts.get(&prefix).is_some_and(|count| (count.connections, count.syns, count.answered) == (0, 0, 0)) {
            self.counts.remove(&prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn syns_are_under_way_for_a_second_or_until_they_are_answered() {
        let mut under_way = UnderWay::default();
        let mut count = |ms: u64, probes, answers| under_way.count((5000 + ms) * MS, probes, answers);
        assert_eq!(count(0, 0, 0), 0);
        assert_eq!(count(1, 100, 0), 100);
        assert_eq!(count(100, 150, 30), 120);
        assert_eq!(count(999, 150, 30), 120);
        assert_eq!(count(1100, 150, 30), 0, "they are no longer waited for");
        assert_eq!(count(5000, 160, 31), 9);
    }

    #[test]
    fn the_share_that_connects_is_that_of_those_that_had_their_time_and_a_margin() {
        let mut under_way = UnderWay::default();
        let mut at = |ms: u64, probes, opened| {
            under_way.count((5000 + ms) * MS, probes, opened);
            under_way.share(opened)
        };
        assert_eq!((at(0, 0, 0), at(500, 1000, 0)), (1.0, 1.0), "nobody knows yet");
        assert_eq!(at(1500, 1600, 0), 0.016);
        assert_eq!(at(3000, 10_000, 100), (100.0 + 40.0 + 16.0) / 1600.0);
        assert_eq!(at(5000, 10_000, 9900), 1.0);
    }

    #[test]
    fn a_prefix_has_no_more_connections_and_syns_than_it_may() {
        let prefixes = Prefixes::new(2, Family::V4);
        let (one, other) = (0x0a00_0001, 0x0a00_0101);
        assert!(prefixes.take(one, 0) && prefixes.take(one, 0));
        assert!(!prefixes.take(one + 5, 0), "of the same /24");
        assert!(prefixes.take(other, 0), "of another");
        assert!(prefixes.answered(one, true) && prefixes.answered(one, false));
        assert!(prefixes.take(one, 10 * MS), "one refused");
        assert!(!prefixes.take(one, 10 * MS), "the other is connected");
        assert!(!prefixes.take(one, 1005 * MS), "the answered SYNs leave the line and free nothing");
        assert!(prefixes.take(one, 1010 * MS), "the third was lost");
        assert!(!prefixes.take(one, 1010 * MS));
        prefixes.closed(one);
        assert!(prefixes.take(one, 1010 * MS));
        assert!(prefixes.answered(one, true) && prefixes.answered(one, true));
        assert!(!prefixes.answered(one, true), "a late SYN-ACK finds no place");
        prefixes.closed(one);
        prefixes.closed(one);
        assert!(prefixes.take(other, 3000 * MS) && prefixes.answered(other, false) && prefixes.take(other, 4000 * MS));
        assert!(prefixes.answered(other, false) && prefixes.take(one, 6000 * MS));
        assert_eq!(prefixes.state().counts.len(), 1, "a prefix with nothing in it is forgotten");
    }
}
