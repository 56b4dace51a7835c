//! Entries of rows that are under way, and the queues that they stand in.

/// No entry.
pub(super) const NONE: u32 = u32::MAX;
/// Entries that are made at a time, so that none of them ever moves.
const CHUNK: usize = 4096;
/// Bits of [`Entry::batch`] that are the batch's; the others are the state's.
const BATCH_BITS: u32 = 28;
/// The most batches.
pub(super) const MOST_BATCHES: usize = 1 << BATCH_BITS;

/// What a row waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// For the end of an earlier row with its target, among whose waiting ones it stands.
    Behind,
    /// For one of our ports that its target has not seen for a minute.
    Port,
    /// For its turn to be sent, behind an earlier row.
    Ready,
    /// For an answer to its SYN; how often that was sent is told by its queue.
    Sent,
    /// For the end of its connection.
    Connected,
    /// For whoever makes rows of those that stayed silent.
    Silent,
}

impl State {
    const ALL: [Self; 6] = [Self::Behind, Self::Port, Self::Ready, Self::Sent, Self::Connected, Self::Silent];
}

/// A row that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its batch, and its state in the highest bits.
    batch: u32,
    /// Its number in the batch.
    pub(super) row: u16,
    /// The number of its probe, by which our port is known.
    pub(super) number: u16,
    /// The last of the rows that wait for its end, which leads to the first of them; [`NONE`] without.
    pub(super) behind: u32,
    /// Its neighbours in its queue.
    before: u32,
    pub(super) after: u32,
    /// When its SYN was sent last, in milliseconds; how often, in the highest four bits.
    sent: u32,
}

const _: () = assert!(size_of::<Entry>() == 24);

/// Bits of a time of sending; they go round after three days, and the longest wait is hours below that.
const TIME_BITS: u32 = 28;
const TIME: u32 = (1 << TIME_BITS) - 1;
/// The most times that a SYN is sent.
pub(super) const MOST_ATTEMPTS: u8 = 1 << (32 - TIME_BITS);

impl Entry {
    pub(super) fn new(batch: u32, row: u16) -> Self {
        debug_assert!((batch as usize) < MOST_BATCHES);
        Self { batch, row, number: 0, behind: NONE, before: NONE, after: NONE, sent: 0 }
    }

    pub(super) fn batch(&self) -> usize {
        (self.batch & (MOST_BATCHES as u32 - 1)) as usize
    }

    pub(super) fn state(&self) -> State {
        State::ALL[(self.batch >> BATCH_BITS) as usize]
    }

    pub(super) fn set_state(&mut self, state: State) {
        self.batch = self.batch & (MOST_BATCHES as u32 - 1) | (state as u32) << BATCH_BITS;
    }

    /// How often its SYN was sent before the last time.
    pub(super) fn attempt(&self) -> u8 {
        (self.sent >> TIME_BITS) as u8
    }

    pub(super) fn set_sent(&mut self, attempt: u8, now_ms: u64) {
        debug_assert!(attempt < MOST_ATTEMPTS);
        self.sent = u32::from(attempt) << TIME_BITS | now_ms as u32 & TIME;
    }

    /// How long ago it was sent last, in milliseconds.
    pub(super) fn waited_ms(&self, now_ms: u64) -> u32 {
        (now_ms as u32).wrapping_sub(self.sent) & TIME
    }
}

/// Entries by their numbers; those that are let go are used again.
#[derive(Debug)]
pub(super) struct Entries {
    chunks: Vec<Box<[Entry]>>,
    /// The first of those let go; each leads to the next.
    free: u32,
    /// Entries that were ever used.
    used: usize,
    len: usize,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), free: NONE, used: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Entry>() + self.chunks.capacity() * size_of::<Box<[Entry]>>()
    }

    pub(super) fn add(&mut self, entry: Entry) -> u32 {
        self.len += 1;
        if self.free != NONE {
            let number = self.free;
            self.free = self.get(number).after;
            *self.get_mut(number) = entry;
            return number;
        }
        if self.used == self.chunks.len() * CHUNK {
            self.chunks.push(vec![entry; CHUNK].into_boxed_slice());
        }
        // The index holds fewer than 2^26.
        let number = self.used as u32;
        self.used += 1;
        *self.get_mut(number) = entry;
        number
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.len -= 1;
        let free = self.free;
        self.get_mut(number).after = free;
        self.free = number;
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> &Entry {
        &self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> &mut Entry {
        &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }
}

/// A queue of entries, first in, first out; whoever stands in it may leave it.
#[derive(Debug)]
pub(super) struct Queue {
    first: u32,
    last: u32,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { first: NONE, last: NONE }
    }

    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub(super) fn push(&mut self, entries: &mut Entries, number: u32) {
        let entry = entries.get_mut(number);
        (entry.before, entry.after) = (self.last, NONE);
        match self.last {
            NONE => self.first = number,
            last => entries.get_mut(last).after = number,
        }
        self.last = number;
    }

    pub(super) fn leave(&mut self, entries: &mut Entries, number: u32) {
        let Entry { before, after, .. } = *entries.get(number);
        match before {
            NONE => self.first = after,
            before => entries.get_mut(before).after = after,
        }
        match after {
            NONE => self.last = before,
            after => entries.get_mut(after).before = before,
        }
    }

    pub(super) fn pop(&mut self, entries: &mut Entries) -> Option<u32> {
        let first = self.first()?;
        self.leave(entries, first);
        Some(first)
    }
}
