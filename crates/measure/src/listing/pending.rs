//! The rows of a list that are under way: whose SYN is sent when, and how often, whose answer is whose, and which wait.
//!
//! An unanswered row takes 24 bytes and a place of the index, [`PER_ROW`] bytes at most, beside what it brought.

use irl_targets::Target;

use super::batch::Batch;
use super::entries::{Entries, Entry, MOST_ATTEMPTS, MOST_BATCHES, NONE, Queue, State};
use super::index::{self, Index, hash};
use super::ports::Ports;
use crate::exchange::rows::Source;

/// The most bytes that an unanswered row takes beside what it brought: its entry, and a place of the index.
pub const PER_ROW: usize = size_of::<Entry>() + 8;

/// How rows are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How often a SYN is sent at most.
    pub(super) attempts: u8,
    /// How long the first waits for its answer; each later one twice as long as the one before it (RFC 6298, 5.5).
    pub(super) timeout_ms: u32,
    /// How many of our ports there are.
    pub(super) ports: u32,
    /// Bytes of memory at which no more is taken from the list.
    pub(super) max_memory: usize,
}

/// A SYN to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Where to.
    pub(crate) target: Target,
    /// The number of the probe: our port follows from it, the same for every time it is sent.
    pub(crate) number: u16,
}

/// A batch of which rows are under way, or not begun.
#[derive(Debug)]
struct Held {
    batch: Batch,
    /// By which it is told from others.
    serial: u32,
    bytes: usize,
    /// Rows that are not done.
    left: u32,
}

/// The rows of a list that are under way.
#[derive(Debug)]
pub(super) struct Pending {
    pace: Pace,
    entries: Entries,
    index: Index,
    ports: Ports,
    batches: Vec<Option<Held>>,
    free: Vec<u32>,
    serial: u32,
    batch_bytes: usize,
    /// The batch whose rows begin next, and which of them.
    next: Option<(u32, usize)>,
    /// Whose SYN was sent once, twice and so on.
    sent: Vec<Queue>,
    ready: Queue,
    /// Who waits for a port.
    port: Queue,
    silent: Queue,
    connected: usize,
    /// Rows that had to wait for a port.
    waits: u64,
    /// Rows whose target an earlier row had, which was not done.
    duplicates: u64,
}

impl Pending {
    pub(super) fn new(pace: Pace, now_ns: u64) -> Self {
        let pace = Pace { attempts: pace.attempts.clamp(1, MOST_ATTEMPTS), ..pace };
        Self {
            pace,
            entries: Entries::new(),
            index: Index::new(),
            ports: Ports::new(pace.ports, now_ns),
            batches: Vec::new(),
            free: Vec::new(),
            serial: 0,
            batch_bytes: 0,
            next: None,
            sent: (0..pace.attempts).map(|_| Queue::new()).collect(),
            ready: Queue::new(),
            port: Queue::new(),
            silent: Queue::new(),
            connected: 0,
            waits: 0,
            duplicates: 0,
        }
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.entries.bytes()
            + self.index.bytes()
            + self.ports.bytes()
            + self.batches.capacity() * size_of::<Option<Held>>()
            + self.batch_bytes
    }

    /// Rows that are under way.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Rows whose connection is there.
    #[cfg(test)]
    pub(super) fn connected(&self) -> usize {
        self.connected
    }

    /// Rows that had to wait for a port, and rows that had to wait for an earlier one.
    pub(super) fn waits(&self) -> (u64, u64) {
        (self.waits, self.duplicates)
    }

    /// Whether all rows of the batches so far have begun and there is memory for another one. There always is when no row
    /// is under way, or nothing would ever go on.
    pub(super) fn wants_more(&self) -> bool {
        self.next.is_none() && self.has_room() && self.batches.len() - self.free.len() < MOST_BATCHES
    }

    fn has_room(&self) -> bool {
        self.len() == 0 || (self.memory() < self.pace.max_memory && self.len() < index::MOST)
    }

    /// Whether nothing is to be sent any more unless another batch comes: all that is under way are connections, and
    /// nobody waits for their end.
    pub(super) fn is_idle(&self) -> bool {
        self.next.is_none() && self.len() == self.connected
    }

    /// Takes a batch, whose rows begin when those before it have.
    pub(super) fn add(&mut self, batch: Batch) {
        debug_assert!(self.next.is_none());
        if batch.len() == 0 {
            return;
        }
        let held = Held { bytes: batch.bytes(), serial: self.serial, left: batch.len() as u32, batch };
        self.serial = self.serial.wrapping_add(1);
        self.batch_bytes += held.bytes;
        let place = match self.free.pop() {
            Some(place) => {
                self.batches[place as usize] = Some(held);
                place
            }
            None => {
                self.batches.push(Some(held));
                // There are fewer than 2^28.
                (self.batches.len() - 1) as u32
            }
        };
        self.next = Some((place, 0));
    }

    /// Tells up to so many SYNs that are due: those whose answer did not come, then those that waited, then new ones.
    pub(super) fn take(&mut self, now_ns: u64, want: usize, into: &mut Vec<Due>) {
        let now_ms = now_ns / 1_000_000;
        if self.ports.tick(now_ns) {
            self.give_ports();
        }
        let full = into.len() + want;
        for attempt in 0..self.pace.attempts {
            let timeout_ms = self.pace.timeout_ms << attempt.min(10);
            while into.len() < full
                && let Some(number) = self.sent[usize::from(attempt)].first()
                && self.entries.get(number).waited_ms(now_ms) >= timeout_ms
            {
                self.sent[usize::from(attempt)].leave(&mut self.entries, number);
                if attempt + 1 < self.pace.attempts {
                    into.push(self.send(number, attempt + 1, now_ms));
                } else {
                    self.entries.get_mut(number).set_state(State::Silent);
                    self.silent.push(&mut self.entries, number);
                }
            }
        }
        while into.len() < full
            && let Some(number) = self.ready.pop(&mut self.entries)
        {
            into.push(self.send(number, 0, now_ms));
        }
        while into.len() < full && self.has_room() && self.next.is_some() {
            if let Some(number) = self.begin() {
                into.push(self.send(number, 0, now_ms));
            }
        }
    }

    /// The row that asks for a target by this probe, if it waits for an answer.
    pub(super) fn asked(&self, target: Target, number: u16) -> Option<u32> {
        let found = self.find(target, hash(target))?;
        let entry = self.entries.get(found);
        (entry.state() == State::Sent && entry.number == number).then_some(found)
    }

    /// A row's target has answered, and is talked with from now on.
    pub(super) fn connect(&mut self, row: u32) {
        let entry = self.entries.get_mut(row);
        debug_assert_eq!(entry.state(), State::Sent);
        entry.set_state(State::Connected);
        let attempt = usize::from(entry.attempt());
        self.sent[attempt].leave(&mut self.entries, row);
        self.connected += 1;
    }

    /// The next row that stayed silent; it is there until it is done.
    pub(super) fn silent(&self) -> Option<u32> {
        self.silent.first()
    }

    /// A row is done, by an answer that was no connection, the end of its connection, or silence. Whoever waits for it
    /// is next.
    pub(super) fn done(&mut self, row: u32) {
        let entry = *self.entries.get(row);
        match entry.state() {
            State::Sent => self.sent[usize::from(entry.attempt())].leave(&mut self.entries, row),
            State::Silent => self.silent.leave(&mut self.entries, row),
            State::Connected => self.connected -= 1,
            State::Behind | State::Port | State::Ready => {
                debug_assert!(false, "nobody knows of a row that was not sent");
                return;
            }
        }
        let hash = hash(self.target(row));
        self.ports.leave(hash);
        match entry.behind {
            NONE => {
                let Self { index, entries, batches, .. } = self;
                index.remove(hash, row, |number| hash_of(entries, batches, number));
            }
            last => {
                let next = self.entries.get(last).after;
                let behind = if next == last { NONE } else { last };
                if behind != NONE {
                    self.entries.get_mut(last).after = self.entries.get(next).after;
                }
                self.entries.get_mut(next).behind = behind;
                self.index.replace(hash, row, next);
                self.give_port(next, hash);
            }
        }
        self.entries.remove(row);
        self.release(entry.batch());
    }

    /// The target of a row.
    pub(super) fn target(&self, row: u32) -> Target {
        target_of(&self.entries, &self.batches, row)
    }

    /// Where the further columns of a row are.
    pub(super) fn source(&self, row: u32) -> Source<'_> {
        let entry = self.entries.get(row);
        let held = held(&self.batches, entry.batch());
        Source { number: held.serial, columns: &held.batch.further, row: held.batch.row(entry.row) }
    }

    /// The number of a row's probe.
    pub(super) fn number(&self, row: u32) -> u16 {
        self.entries.get(row).number
    }

    /// Targets that are not done, of all batches so far.
    pub(super) fn left(&self) -> u64 {
        self.batches.iter().flatten().map(|held| u64::from(held.left)).sum()
    }

    /// Begins the next row; `None` when it has to wait.
    fn begin(&mut self) -> Option<u32> {
        let (place, row) = self.next?;
        let held = held(&self.batches, place as usize);
        // A batch has at most 2^16 rows.
        let target = held.batch.target(row as u16);
        self.next = (row + 1 < held.batch.len()).then_some((place, row + 1));
        let number = self.entries.add(Entry::new(place, row as u16));
        let hash = hash(target);
        if let Some(first) = self.find(target, hash) {
            self.duplicates += 1;
            self.stand_behind(first, number);
            return None;
        }
        let Self { index, entries, batches, .. } = self;
        index.insert(hash, number, |number| hash_of(entries, batches, number));
        match self.ports.next(hash) {
            Some(probe) => {
                self.entries.get_mut(number).number = probe;
                Some(number)
            }
            None => {
                self.wait_for_port(number);
                None
            }
        }
    }

    fn find(&self, target: Target, hash: u64) -> Option<u32> {
        self.index.find(hash, |number| self.target(number) == target)
    }

    /// The rows behind one are a ring: the last, which it knows, leads to the first.
    fn stand_behind(&mut self, first: u32, number: u32) {
        let last = std::mem::replace(&mut self.entries.get_mut(first).behind, number);
        let after = match last {
            NONE => number,
            last => std::mem::replace(&mut self.entries.get_mut(last).after, number),
        };
        let entry = self.entries.get_mut(number);
        entry.set_state(State::Behind);
        entry.after = after;
    }

    fn send(&mut self, number: u32, attempt: u8, now_ms: u64) -> Due {
        let entry = self.entries.get_mut(number);
        entry.set_state(State::Sent);
        entry.set_sent(attempt, now_ms);
        let probe = entry.number;
        self.sent[usize::from(attempt)].push(&mut self.entries, number);
        Due { target: self.target(number), number: probe }
    }

    /// Lets a row be sent from a port that its target has not seen, as soon as there is one.
    fn give_port(&mut self, number: u32, hash: u64) {
        match self.ports.next(hash) {
            Some(probe) => {
                let entry = self.entries.get_mut(number);
                entry.number = probe;
                entry.set_state(State::Ready);
                self.ready.push(&mut self.entries, number);
            }
            None => self.wait_for_port(number),
        }
    }

    fn wait_for_port(&mut self, number: u32) {
        self.waits += 1;
        self.entries.get_mut(number).set_state(State::Port);
        self.port.push(&mut self.entries, number);
    }

    /// Time has passed: whoever waits for a port may have one.
    fn give_ports(&mut self) {
        let mut waiting = std::mem::replace(&mut self.port, Queue::new());
        let before = self.waits;
        while let Some(number) = waiting.pop(&mut self.entries) {
            self.give_port(number, hash(self.target(number)));
        }
        // Those that go on waiting were counted.
        self.waits = before;
    }

    /// One row less of a batch.
    fn release(&mut self, place: usize) {
        let Some(held) = &mut self.batches[place] else { return };
        held.left -= 1;
        if held.left == 0 {
            self.batch_bytes -= held.bytes;
            self.batches[place] = None;
            self.free.push(place as u32);
        }
    }
}

fn held(batches: &[Option<Held>], place: usize) -> &Held {
    batches[place].as_ref().expect("a batch is there until its last row is done")
}

fn target_of(entries: &Entries, batches: &[Option<Held>], number: u32) -> Target {
    let entry = entries.get(number);
    held(batches, entry.batch()).batch.target(entry.row)
}

fn hash_of(entries: &Entries, batches: &[Option<Held>], number: u32) -> u64 {
    hash(target_of(entries, batches, number))
}

#[cfg(test)]
mod tests;
