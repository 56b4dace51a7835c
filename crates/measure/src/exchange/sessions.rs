//! The dialogues of one worker: what is kept of each for its row, and how it ended.
//!
//! While nothing has come, all there is of an exchange is [`State`], 16 bytes beside its connection. From the first data on
//! it has an entry, with the response so far, in memory that is used again.

use super::session::{Action, Close, Dialogue, Layer, Plain, Session, Why};
use super::status::{ClosedBy, Ending, Stage, Status};

/// Entries are told from rows by this bit of a slot.
const ENTRY: u32 = 1 << 31;
/// Buffers that are kept for later responses, and the largest that is.
const SPARE: usize = 256;
const SPARE_BYTES: usize = 16 << 10;

/// What is kept of an exchange beside its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// When the SYN-ACK came.
    synack_ns: u64,
    /// From the SYN to it, in microseconds and one more; 0 where the SYN-ACK did not tell.
    connect_us_1: u32,
    /// The row of the list, or with [`ENTRY`] an entry.
    slot: u32,
}

const _: () = assert!(size_of::<State>() == 16);

impl State {
    /// The row of an exchange that has none: its target is of no list.
    pub const NO_ROW: u32 = ENTRY - 1;

    /// Of a SYN-ACK that came now, so long after its SYN where it told, and the row of the list that it answers.
    pub fn new(now_ns: u64, rtt_ns: Option<u64>, row: u32) -> Self {
        debug_assert!(row < ENTRY);
        let connect_us_1 = rtt_ns.map_or(0, |ns| u32::try_from(ns / 1000 + 1).unwrap_or(u32::MAX));
        Self { synack_ns: now_ns, connect_us_1, slot: row }
    }

    /// From the SYN to the SYN-ACK.
    fn connect_ns(self) -> Option<u64> {
        (self.connect_us_1 > 0).then(|| u64::from(self.connect_us_1 - 1) * 1000)
    }

    /// When the SYN left, where that is known.
    fn syn_ns(self) -> Option<u64> {
        self.connect_ns().map(|connect| self.synack_ns.saturating_sub(connect))
    }
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// So many more bytes of the request may go.
    pub send: u32,
    /// So long from now [`Sessions::on_timeout`] is due.
    pub within_ms: Option<u32>,
    /// More bytes than this need not be taken from the peer.
    pub limit: Option<u64>,
    /// It is to be closed.
    pub close: Option<Close>,
}

/// The end of a connection, as TCP tells it.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// When.
    pub now_ns: u64,
    /// Why.
    pub why: Why,
    /// Bytes that came, in order.
    pub received: u64,
    /// Whether the peer has acknowledged the whole request.
    pub acknowledged: bool,
    /// Segments of ours that were sent again.
    pub retransmits: u16,
}

/// An exchange that is over.
#[derive(Clone, Copy, Debug)]
pub struct Closed<'a> {
    /// Its row of the list; [`State::NO_ROW`] where there is none.
    pub row: u32,
    /// When its SYN left, or else when the SYN-ACK came.
    pub began_ns: u64,
    /// How it ended.
    pub ending: Ending,
    /// What was kept of the response.
    pub response: &'a [u8],
}

/// What is kept of an exchange from the first data or from its end on, whichever is first.
#[derive(Debug, Default)]
struct Entry<M> {
    row: u32,
    /// When the first data came; 0 while none has.
    first_byte_ns: u64,
    /// How the dialogue ended, and by whom.
    verdict: Option<(Status, ClosedBy)>,
    truncated: bool,
    memory: M,
    response: Vec<u8>,
}

/// The dialogues of one worker.
#[derive(Debug)]
pub struct Sessions<S: Session = Dialogue, L: Layer = Plain> {
    session: S,
    layer: L,
    max_bytes: u32,
    timeout_ms: u32,
    entries: Vec<Entry<S::Memory>>,
    free: Vec<u32>,
    spare: Vec<Vec<u8>>,
    /// The response that was handed out last.
    last: Vec<u8>,
    /// Bytes of all buffers.
    buffers: usize,
}

impl<S: Session, L: Layer> Sessions<S, L> {
    /// None yet. A response is cut at `max_bytes`; a dialogue is given up `timeout_ms` after the SYN-ACK.
    pub fn new(session: S, layer: L, max_bytes: u32, timeout_ms: u32) -> Self {
        let (entries, free, spare, last) = Default::default();
        Self { session, layer, max_bytes, timeout_ms, entries, free, spare, last, buffers: 0 }
    }

    /// Bytes of memory that it holds.
    pub fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<Entry<S::Memory>>() + self.free.capacity() * size_of::<u32>() + self.buffers
    }

    /// Bytes of responses that are not complete: its memory without what is kept to be used again.
    pub fn held(&self) -> usize {
        self.buffers - self.last.capacity() - self.spare.iter().map(Vec::capacity).sum::<usize>()
    }

    /// The row of the list of an exchange; [`State::NO_ROW`] where there is none.
    pub fn row(&self, state: State) -> u32 {
        self.entry(state).map_or(state.slot, |entry| entry.row)
    }

    /// The connection is there.
    pub fn on_connect(&mut self, state: &mut State, request_len: u32) -> Steps {
        let action = self.session.on_connect(request_len);
        // One byte more than is kept tells a response that is cut from one that ends there.
        let cut = u64::from(self.max_bytes) + 1;
        let longest = self.session.longest().map_or(cut, |longest| cut.min(u64::from(longest)));
        Steps {
            within_ms: Some(self.timeout_ms),
            limit: Some(self.layer.sealed_len(longest)),
            ..self.steps(state, action, ClosedBy::Us)
        }
    }

    /// The next bytes, in order.
    pub fn on_data(&mut self, state: &mut State, now_ns: u64, wire: &[u8]) -> Steps {
        let number = self.begin(state);
        let entry = &mut self.entries[number];
        if entry.verdict.is_some() {
            // Its FIN is on the way, and what the peer still had to say is not asked for.
            return Steps::default();
        }
        if entry.first_byte_ns == 0 {
            entry.first_byte_ns = now_ns.max(1);
        }
        let data = self.layer.open(number as u32, wire);
        let (mut action, mut keep) = self.session.on_data(&mut entry.memory, data);
        let room = (self.max_bytes as usize).saturating_sub(entry.response.len());
        if keep > room {
            keep = room;
            entry.truncated = true;
            action = Action::Close(self.session.close(), Status::Success);
        }
        let before = entry.response.capacity();
        if before == 0 {
            entry.response.reserve_exact(keep);
        }
        entry.response.extend_from_slice(&data[..keep]);
        self.buffers += entry.response.capacity() - before;
        self.steps(state, action, ClosedBy::Us)
    }

    /// The peer's FIN: no more data comes.
    pub fn on_finish(&mut self, state: &mut State) -> Steps {
        let entry = self.entry(*state);
        if entry.is_some_and(|entry| entry.verdict.is_some()) {
            return Steps::default();
        }
        let action = self.session.on_finish(entry.map_or(0, |entry| entry.response.len()));
        self.steps(state, action, ClosedBy::Peer)
    }

    /// The dialogue's time is up.
    pub fn on_timeout(&mut self, state: &mut State) -> Steps {
        if self.entry(*state).is_some_and(|entry| entry.verdict.is_some()) {
            return Steps::default();
        }
        let action = self.session.on_timeout();
        self.steps(state, action, ClosedBy::Us)
    }

    /// The connection is no more: what its row says.
    pub fn on_close(&mut self, state: State, end: End) -> Closed<'_> {
        self.buffers -= self.last.capacity();
        let mut last = std::mem::take(&mut self.last);
        if last.capacity() <= SPARE_BYTES && self.spare.len() < SPARE && last.capacity() > 0 {
            self.buffers += last.capacity();
            last.clear();
            self.spare.push(last);
        }
        let entry = match self.number(state) {
            Some(number) => {
                self.free.push(number as u32);
                std::mem::take(&mut self.entries[number])
            }
            None => Entry { row: state.slot, ..Entry::default() },
        };
        let syn_ns = state.syn_ns();
        let since_syn = |ns: u64| syn_ns.map(|syn| ns.saturating_sub(syn));
        let (status, closed_by) = match (entry.verdict, end.why) {
            (Some((status, by)), _) => (status, Some(by)),
            (None, Why::ResetByPeer | Why::Finished) => (Status::ConnectionClosed, Some(ClosedBy::Peer)),
            (None, Why::TimedOut) => (Status::IoTimeout, None),
            (None, Why::Unreachable) => (Status::UnknownError, None),
            (None, Why::Reset | Why::Aborted) => (Status::UnknownError, Some(ClosedBy::Us)),
        };
        let stage = match () {
            () if status == Status::Success => Stage::Close,
            () if end.acknowledged || end.received > 0 => Stage::Response,
            () => Stage::Request,
        };
        self.last = entry.response;
        Closed {
            row: entry.row,
            began_ns: syn_ns.unwrap_or(state.synack_ns),
            ending: Ending {
                status,
                stage,
                closed_by,
                connect_ns: state.connect_ns(),
                first_byte_ns: Some(entry.first_byte_ns).filter(|ns| *ns > 0).and_then(since_syn),
                close_ns: since_syn(end.now_ns),
                retransmits: end.retransmits,
                bytes: end.received,
                truncated: entry.truncated,
            },
            response: &self.last,
        }
    }

    /// Turns a session's wish into what TCP does, and remembers the end of a dialogue.
    fn steps(&mut self, state: &mut State, action: Action, by: ClosedBy) -> Steps {
        match action {
            Action::Expect => Steps::default(),
            Action::Send(bytes) => {
                // A request of 4 GiB and more was cut by whoever gave its length.
                let send = u32::try_from(self.layer.sealed_len(u64::from(bytes))).unwrap_or(u32::MAX);
                Steps { send, ..Steps::default() }
            }
            Action::Close(close, status) => {
                let number = self.begin(state);
                self.entries[number].verdict = Some((status, by));
                Steps { close: Some(close), ..Steps::default() }
            }
        }
    }

    fn number(&self, state: State) -> Option<usize> {
        (state.slot & ENTRY != 0).then_some((state.slot & !ENTRY) as usize)
    }

    fn entry(&self, state: State) -> Option<&Entry<S::Memory>> {
        self.number(state).map(|number| &self.entries[number])
    }

    /// The number of the exchange's entry, which it has from now on.
    fn begin(&mut self, state: &mut State) -> usize {
        if let Some(number) = self.number(*state) {
            return number;
        }
        let response = self.spare.pop().unwrap_or_default();
        let entry = Entry { row: state.slot, response, ..Entry::default() };
        let number = match self.free.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number as usize
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        // There are fewer connections than 2^31.
        state.slot = ENTRY | number as u32;
        number
    }
}

#[cfg(test)]
mod tests;
