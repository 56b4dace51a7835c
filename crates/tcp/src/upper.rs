//! The user side: what is done with a connection, and what can be asked of it.

use crate::connection::{Cold, Hot, flags};
use crate::segment::{Flow, Segment};

/// How we end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// By RST, at once: RFC 9293's ABORT.
    Reset,
    /// By FIN, after all that is still to be sent. Over when the peer's FIN has come too, or after [`Config::linger`].
    ///
    /// [`Config::linger`]: crate::Config::linger
    Finish,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// We reset it.
    Reset,
    /// Both sides have finished.
    Finished,
    /// The peer reset it.
    ResetByPeer,
    /// The peer acknowledged nothing for too long, or did not end its side of what we had finished.
    TimedOut,
    /// ICMP said that there is no such peer.
    Unreachable,
    /// It was in the table when [`Clients::reset_all`](crate::Clients::reset_all) was called.
    Aborted,
}

/// The end of a connection, whose memory is gone.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a, S> {
    /// Which.
    pub flow: Flow,
    /// What its owner kept with it.
    pub state: &'a S,
    /// Why.
    pub why: Why,
    /// Bytes that came in order.
    pub received: u32,
    /// Bytes of ours that the peer acknowledged.
    pub acknowledged: u32,
    /// Segments that were sent again.
    pub retransmits: u16,
    /// Whether the peer had finished its side.
    pub peer_finished: bool,
    /// CLOCK_MONOTONIC.
    pub now_ns: u64,
}

/// Whose connections they are: is asked whether to take one, and told what happens.
///
/// The calls of one connection come in this order: `accepts`, `on_connect`, then `on_data`, `on_finish` and `on_timeout`
/// as things happen, and last, in every case, `on_close`.
pub trait Upper {
    /// Kept with each connection, in its own cache line; at most 16 bytes.
    type State: Copy + Default;

    /// Whether this SYN-ACK, which answers a SYN of ours, shall become a connection. `None` resets it.
    fn accepts(&mut self, synack: &Segment, now_ns: u64) -> Option<Self::State>;

    /// It is open: the peer's SYN is there, our acknowledgement goes out next, with the first data if there are any.
    fn on_connect(&mut self, call: &mut Call<'_, Self::State>);

    /// Data, in order, each byte once.
    fn on_data(&mut self, call: &mut Call<'_, Self::State>, data: &[u8]);

    /// The peer has finished: no more data.
    fn on_finish(&mut self, call: &mut Call<'_, Self::State>);

    /// The deadline set by [`Call::within`] has passed, or [`Config::patience`](crate::Config::patience) when none was ever
    /// set. What is neither closed nor given a new deadline is reset.
    fn on_timeout(&mut self, call: &mut Call<'_, Self::State>);

    /// It is over.
    fn on_close(&mut self, ended: &Ended<'_, Self::State>);
}

/// A connection in its owner's hands.
#[derive(Debug)]
pub struct Call<'a, S> {
    pub(crate) hot: &'a mut Hot,
    pub(crate) cold: &'a mut Cold<S>,
    pub(crate) now_ns: u64,
    pub(crate) now_ms: u32,
    pub(crate) close: Option<Close>,
}

impl<S: Copy> Call<'_, S> {
    /// The most bytes that a connection sends: half of the sequence space.
    pub const MOST: u32 = 1 << 31;

    /// Which connection.
    pub fn flow(&self) -> Flow {
        self.hot.flow()
    }

    /// CLOCK_MONOTONIC.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// What its owner keeps with it.
    pub fn state(&mut self) -> &mut S {
        &mut self.cold.state
    }

    /// So many bytes more may be sent. Returns how many of them were taken: all, unless we have finished, or it would be
    /// more than [`Call::MOST`] over the connection's life.
    pub fn send(&mut self, bytes: u32) -> u32 {
        if self.hot.has(flags::OUR_FIN) {
            return 0;
        }
        let before = self.hot.snd_end.since(self.cold.iss + 1);
        let taken = bytes.min(Self::MOST - 1 - before);
        self.hot.snd_end += taken;
        taken
    }

    /// Ends the connection. A second call can make a finish a reset, and nothing else.
    pub fn close(&mut self, close: Close) {
        if self.close != Some(Close::Reset) {
            self.close = Some(close);
        }
    }

    /// [`Upper::on_timeout`] comes when so many milliseconds have passed from now, unless this is called again.
    pub fn within(&mut self, milliseconds: u32) {
        self.hot.deadline = self.now_ms.wrapping_add(milliseconds.clamp(1, 1 << 30));
    }

    /// The window never invites more than so many bytes in all.
    pub fn limit(&mut self, bytes: u32) {
        self.cold.limit = bytes;
    }

    /// Bytes that came in order so far, these included.
    pub fn received(&self) -> u32 {
        self.cold.received(self.hot)
    }

    /// Bytes of ours that the peer has acknowledged.
    pub fn acknowledged(&self) -> u32 {
        self.cold.acknowledged(self.hot)
    }

    /// The smoothed round-trip time in microseconds, where there was one to measure.
    pub fn rtt_us(&self) -> Option<u32> {
        (self.cold.srtt_us != 0).then_some(self.cold.srtt_us)
    }

    /// Whether the peer has finished.
    pub fn peer_finished(&self) -> bool {
        self.hot.has(flags::PEER_FIN)
    }
}
