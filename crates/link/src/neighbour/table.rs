//! The MACs of neighbours: known, being asked for, or silent. Bounded, whatever is probed and whoever answers.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use irl_wire::Mac;

use crate::network::Hop;

/// Neighbours remembered; beyond that the oldest is forgotten, and asked for again when it is needed.
const MOST_KNOWN: usize = 1 << 20;
/// Neighbours being asked for at a time.
const MOST_PENDING: usize = 1 << 14;
/// Questions before a neighbour counts as silent.
const QUESTIONS: u8 = 3;
/// From one question to the next.
const PATIENCE_NS: u64 = 500_000_000;
/// How long a silent neighbour is left alone.
const SILENCE_NS: u64 = 20_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Known(Mac),
    /// Asked so often.
    Asking(u8),
    /// Silent; ask again after this time.
    Silent(u64),
}

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: RwLock<Entries>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Entries {
    states: HashMap<IpAddr, State>,
    /// In the order they came.
    order: VecDeque<IpAddr>,
    pending: usize,
}

/// Who is to be asked: for the first time, and again, each in the order of time.
#[derive(Debug, Default)]
struct Waiting {
    fresh: VecDeque<IpAddr>,
    again: VecDeque<(u64, IpAddr)>,
}

impl Table {
    /// What is known of an address; it will be asked for where nothing is.
    pub(super) fn look_up(&self, address: IpAddr) -> Hop {
        match self.read().states.get(&address) {
            Some(State::Known(mac)) => return Hop::Known(*mac),
            Some(State::Asking(_)) => return Hop::Pending,
            Some(State::Silent(until)) if crate::clock::now_ns() < *until => return Hop::Unreachable,
            _ => {}
        }
        if self.write().ask(address) {
            self.waiting().fresh.push_back(address);
        }
        Hop::Pending
    }

    /// Remembers a MAC.
    pub(super) fn learn(&self, address: IpAddr, mac: Mac) {
        self.write().insert(address, State::Known(mac));
    }

    /// Remembers a MAC if the address is in the table, and says whether it was being asked for.
    pub(super) fn update(&self, address: IpAddr, mac: Mac) -> bool {
        // Most claims change nothing: a look costs less than the lock.
        match self.read().states.get(&address) {
            None => return false,
            Some(State::Known(known)) if *known == mac => return false,
            Some(_) => {}
        }
        let mut entries = self.write();
        let asked = matches!(entries.states.get(&address), Some(State::Asking(_)));
        entries.insert(address, State::Known(mac));
        asked
    }

    /// Calls `ask` for everybody who is due; it returns whether the question left. The number of those who are given
    /// up is returned.
    pub(super) fn due(&self, now_ns: u64, mut ask: impl FnMut(IpAddr) -> bool) -> u64 {
        let mut waiting = self.waiting();
        let mut unresolved = 0;
        while let Some(&(due_ns, address)) = waiting.again.front() {
            if due_ns > now_ns {
                break;
            }
            match self.asked(address) {
                Some(QUESTIONS..) => {
                    self.write().insert(address, State::Silent(now_ns + SILENCE_NS));
                    unresolved += 1;
                }
                Some(times) => {
                    if !ask(address) {
                        return unresolved;
                    }
                    self.write().insert(address, State::Asking(times + 1));
                    waiting.again.push_back((now_ns + PATIENCE_NS, address));
                }
                // It answered, or was forgotten.
                None => {}
            }
            waiting.again.pop_front();
        }
        while let Some(&address) = waiting.fresh.front() {
            if self.asked(address).is_some() {
                if !ask(address) {
                    return unresolved;
                }
                self.write().insert(address, State::Asking(1));
                waiting.again.push_back((now_ns + PATIENCE_NS, address));
            }
            waiting.fresh.pop_front();
        }
        unresolved
    }

    fn asked(&self, address: IpAddr) -> Option<u8> {
        match self.read().states.get(&address) {
            Some(State::Asking(times)) => Some(*times),
            _ => None,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Begins to ask for an address, unless somebody else just has or too many are being asked for.
    fn ask(&mut self, address: IpAddr) -> bool {
        let asking = matches!(self.states.get(&address), Some(State::Asking(_) | State::Known(_)));
        if asking || self.pending >= MOST_PENDING {
            return false;
        }
        self.insert(address, State::Asking(0));
        true
    }

    fn insert(&mut self, address: IpAddr, state: State) {
        let pending = |state: &State| usize::from(matches!(state, State::Asking(_)));
        self.pending += pending(&state);
        match self.states.insert(address, state) {
            Some(old) => self.pending -= pending(&old),
            None => self.order.push_back(address),
        }
        if self.order.len() > MOST_KNOWN
            && let Some(oldest) = self.order.pop_front()
            && let Some(old) = self.states.remove(&oldest)
        {
            self.pending -= pending(&old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn address(number: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number).to_be_bytes())
    }

    #[test]
    fn a_neighbour_is_asked_for_once_and_known_once_it_answers() {
        let table = Table::default();
        assert_eq!(table.look_up(address(1)), Hop::Pending);
        assert_eq!(table.look_up(address(1)), Hop::Pending);
        let mut asked = Vec::new();
        table.due(0, |address| {
            asked.push(address);
            true
        });
        assert_eq!(asked, [address(1)]);
        assert!(table.update(address(1), PEER));
        assert_eq!(table.look_up(address(1)), Hop::Known(PEER));
        assert_eq!(table.due(PATIENCE_NS, |_| panic!("it has answered")), 0);
    }

    #[test]
    fn a_silent_neighbour_is_asked_three_times_and_then_left_alone() {
        let table = Table::default();
        table.look_up(address(1));
        let start = crate::clock::now_ns();
        let mut asked = 0;
        let mut unresolved = 0;
        for turn in 0..6 {
            unresolved += table.due(start + turn * PATIENCE_NS, |_| {
                asked += 1;
                true
            });
        }
        assert_eq!((asked, unresolved), (3, 1));
        assert_eq!(table.look_up(address(1)), Hop::Unreachable);
        assert!(!table.update(address(1), PEER), "it comes late, and is believed");
        assert_eq!(table.look_up(address(1)), Hop::Known(PEER));
    }

    #[test]
    fn a_question_that_could_not_leave_is_not_counted_as_asked() {
        let table = Table::default();
        table.look_up(address(1));
        table.due(0, |_| false);
        let mut asked = 0;
        table.due(1, |_| {
            asked += 1;
            true
        });
        assert_eq!(asked, 1);
    }

    #[test]
    fn strangers_fill_no_table_and_pending_is_bounded() {
        let table = Table::default();
        assert!(!table.update(address(1), PEER));
        for number in 0..2 * MOST_PENDING as u32 {
            assert_eq!(table.look_up(address(number)), Hop::Pending);
        }
        assert_eq!(table.read().states.len(), MOST_PENDING);
        // Room again once somebody answers.
        table.update(address(0), PEER);
        table.look_up(address(2 * MOST_PENDING as u32));
        assert_eq!(table.read().pending, MOST_PENDING);
    }
}
