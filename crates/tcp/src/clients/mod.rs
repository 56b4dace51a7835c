//! The table of connections: segments in, calls to their owner, segments out.
//!
//! Each file has one part: `arrive` takes segments in, `acknowledge` what they say of our data, `deliver` what they bring,
//! `transmit` says what goes out, `expire` what time does, and `open` how connections begin and end.

mod acknowledge;
mod arrive;
mod deliver;
mod expire;
mod open;
mod transmit;

use std::collections::VecDeque;

use crate::config::Config;
use crate::connection::{Hot, NO_CLASS, NONE, flags};
use crate::index::Index;
use crate::segment::{Flow, OptionBytes};
use crate::seq::Seq;
use crate::slab::Slab;
use crate::timers::{Timers, earlier};
use crate::upper::{Call, Close, Upper, Why};

/// Segments without connection that wait to be sent; what would be more is not answered, as if it had been lost.
const REPLIES: usize = 1 << 16;
/// Challenge acknowledgements a second, over all connections (RFC 5961, section 7).
const CHALLENGES: u32 = 1000;

/// What happened to all connections of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were opened.
    pub opened: u64,
    /// Those that are over: we reset them.
    pub reset: u64,
    /// Both sides finished.
    pub finished: u64,
    /// The peer reset them.
    pub reset_by_peer: u64,
    /// The peer fell silent.
    pub timed_out: u64,
    /// ICMP said that the peer is not there.
    pub unreachable: u64,
    /// They were reset with the whole table.
    pub aborted: u64,
    /// Segments that came in.
    pub segments: u64,
    /// Those that belong to no connection and open none.
    pub strays: u64,
    /// SYN-ACKs that found the table full; they were not answered, so that the peer sends them again.
    pub table_full: u64,
    /// Segments that lie outside of the window or carry nothing new.
    pub unacceptable: u64,
    /// Segments with an old timestamp, or without the timestamp that was agreed on (RFC 7323).
    pub old_timestamps: u64,
    /// Resets and SYNs that lie in the window and prove nothing (RFC 5961).
    pub challenged: u64,
    /// Challenges that were not sent because there were too many.
    pub challenges_skipped: u64,
    /// Segments that came before others they follow on.
    pub out_of_order: u64,
    /// Those of them that were dropped, for want of memory or because they were too many pieces.
    pub out_of_order_dropped: u64,
    /// Bytes that came in order.
    pub bytes_received: u64,
    /// Segments that were sent again.
    pub retransmits: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Tail loss probes: ends of flights that were sent again before that.
    pub tail_probes: u64,
    /// Probes of a closed window.
    pub window_probes: u64,
    /// Answers to segments of no connection that were not sent because too many waited.
    pub replies_dropped: u64,
    /// ICMP errors that quote a number which is not outstanding, or belong to no connection.
    pub icmp_ignored: u64,
}

impl Counters {
    /// Connections that are over.
    pub fn closed(&self) -> u64 {
        self.reset + self.finished + self.reset_by_peer + self.timed_out + self.unreachable + self.aborted
    }

    fn of(&mut self, why: Why) -> &mut u64 {
        match why {
            Why::Reset => &mut self.reset,
            Why::Finished => &mut self.finished,
            Why::ResetByPeer => &mut self.reset_by_peer,
            Why::TimedOut => &mut self.timed_out,
            Why::Unreachable => &mut self.unreachable,
            Why::Aborted => &mut self.aborted,
        }
    }
}

/// A segment that no connection is needed for.
#[derive(Clone, Copy, Debug)]
struct Reply {
    flow: Flow,
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: OptionBytes,
}

/// A moment, in the units that are needed of it.
#[derive(Clone, Copy, Debug)]
struct Now {
    ns: u64,
    /// Since the table was made; wraps.
    ms: u32,
}

/// Client connections, as many as memory holds, of one worker.
#[derive(Debug)]
pub struct Clients<U: Upper> {
    config: Config,
    index: Index,
    slab: Slab<U::State>,
    timers: Timers,
    replies: VecDeque<Reply>,
    /// Connections that have something to send.
    ready: VecDeque<u32>,
    counters: Counters,
    started_ns: u64,
    /// The last moment that was told.
    latest: Now,
    /// Bytes that wait out of order.
    buffered: usize,
    /// Challenges sent in the second that began then.
    challenges: u32,
    challenges_since: u32,
}

impl<U: Upper> Clients<U> {
    /// An empty table. `now_ns` is CLOCK_MONOTONIC, as everywhere.
    pub fn new(config: Config, now_ns: u64) -> Self {
        let ladder =
            [config.delayed_ack, config.min_rto, config.linger, config.patience, 1500, 3000, 5000, 10_000, 30_000];
        Self {
            config,
            index: Index::new(config.key),
            slab: Slab::new(),
            timers: Timers::new(&ladder),
            replies: VecDeque::new(),
            ready: VecDeque::new(),
            counters: Counters::default(),
            latest: Now { ns: now_ns, ms: 0 },
            started_ns: now_ns,
            buffered: 0,
            challenges: 0,
            challenges_since: 0,
        }
    }

    /// What it was told.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Connections there are.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no connection more is taken.
    pub fn is_full(&self) -> bool {
        self.len() >= self.config.max_connections
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.slab.memory()
            + self.index.memory()
            + self.buffered
            + self.ready.capacity() * size_of::<u32>()
            + self.replies.capacity() * size_of::<Reply>()
    }

    /// Whether [`Clients::transmit`] may have something.
    pub fn has_output(&self) -> bool {
        !self.replies.is_empty() || !self.ready.is_empty()
    }

    /// Whether a flow has a connection.
    pub fn contains(&self, flow: &Flow) -> bool {
        self.find(self.index.hash(flow), flow).is_some()
    }

    /// Lets the owner do something with a connection of its own accord. False when there is no such connection.
    pub fn visit(
        &mut self,
        now_ns: u64,
        flow: &Flow,
        upper: &mut U,
        act: impl FnOnce(&mut U, &mut Call<'_, U::State>),
    ) -> bool {
        let now = self.now(now_ns);
        let Some(slot) = self.find(self.index.hash(flow), flow) else { return false };
        if self.call(slot, now, upper, act) {
            self.settle(slot, now, upper);
        }
        true
    }

    #[inline]
    fn find(&self, hash: u32, flow: &Flow) -> Option<u32> {
        self.index.find(hash, |slot| self.slab.hot(slot).flow() == *flow)
    }

    #[inline]
    fn now(&mut self, ns: u64) -> Now {
        self.latest = Now { ns, ms: (ns.wrapping_sub(self.started_ns) / 1_000_000) as u32 };
        self.latest
    }

    /// Our TSval.
    #[inline]
    fn timestamp(&self, now: Now) -> u32 {
        ((now.ns / 1000) as u32).wrapping_add(self.config.timestamp_offset.unwrap_or(0))
    }

    /// Lets the owner do something with a connection, and carries out what it asks for. False when the connection is over.
    #[inline]
    fn call(&mut self, slot: u32, now: Now, upper: &mut U, what: impl FnOnce(&mut U, &mut Call<'_, U::State>)) -> bool {
        let (hot, cold) = self.slab.both(slot);
        let mut call = Call { hot, cold, now_ns: now.ns, now_ms: now.ms, close: None };
        what(upper, &mut call);
        match call.close {
            Some(Close::Reset) => {
                self.abort(slot, now, Why::Reset, upper);
                return false;
            }
            Some(Close::Finish) if !call.hot.has(flags::OUR_FIN) => {
                call.hot.set(flags::OUR_FIN);
                call.within(self.config.linger);
            }
            _ => {}
        }
        true
    }

    /// Puts a connection into the line of those that have something to send.
    #[inline]
    fn queue(&mut self, slot: u32) {
        let hot = self.slab.hot_mut(slot);
        if !hot.has(flags::QUEUED) {
            hot.set(flags::QUEUED);
            self.ready.push_back(slot);
        }
    }

    fn reply(&mut self, reply: Reply) {
        if self.replies.len() < REPLIES {
            self.replies.push_back(reply);
        } else {
            self.counters.replies_dropped += 1;
        }
    }

    /// When the next thing of a connection is due, its place in the queues aside.
    #[inline]
    fn due(&self, slot: u32, now: Now) -> u32 {
        let hot = self.slab.hot(slot);
        let mut due = hot.deadline;
        if hot.has(flags::TIMER) {
            let resend_at = self.slab.cold(slot).resend_at;
            due = if earlier(resend_at, due) { resend_at } else { due };
        }
        if hot.has(flags::ACK_SOON) {
            let soon = now.ms.wrapping_add(self.config.delayed_ack);
            due = if earlier(soon, due) { soon } else { due };
        }
        due
    }

    /// Sees to it that a connection comes up in the queues when its next thing is due, or before.
    #[inline]
    fn schedule(&mut self, slot: u32, now: Now) {
        let due = self.due(slot, now);
        let hot = self.slab.hot(slot);
        if hot.class != NO_CLASS {
            if !earlier(due, hot.expires) {
                return;
            }
            self.timers.leave(&mut self.slab, slot);
        }
        self.timers.enter(&mut self.slab, slot, now.ms, due);
    }

    /// What may be sent now: whether anything makes it worth asking.
    #[inline]
    fn queue_if_due(&mut self, slot: u32) {
        let hot = self.slab.hot(slot);
        let fin = hot.has(flags::OUR_FIN) && !hot.fin_sent();
        let asks = hot.has(flags::ACK_NOW | flags::RESEND | flags::PROBE | flags::TAIL_PROBE);
        if asks || hot.unsent() > 0 || fin || self.slab.cold(slot).extra != NONE {
            self.queue(slot);
        }
    }
}

/// How many data bytes lie from `from` on among what was sent.
#[inline]
fn data_sent(hot: &Hot, from: Seq) -> u32 {
    let end = hot.snd_nxt.earlier(hot.snd_end);
    if from.before(end) { end.since(from) } else { 0 }
}
