//! How connections begin and end.

use irl_wire::packet::tcp_flags;

use super::{Clients, Now, REPLIES, Reply};
use crate::connection::{Cold, Hot, NO_CLASS, NONE, flags};
use crate::segment::{Flow, OptionBytes, Segment};
use crate::upper::{Ended, Upper, Why};

/// A smaller MSS is not believed: it would make a segment of every few bytes.
const LEAST_MSS: u16 = 64;

impl<U: Upper> Clients<U> {
    /// A segment of no connection: the SYN-ACK that opens one, or something to be reset (RFC 9293, 3.10.7.1).
    pub(super) fn on_stray(&mut self, segment: &Segment, len: u32, hash: u32, now: Now, upper: &mut U) {
        const ANSWER: u8 = tcp_flags::SYN | tcp_flags::ACK;
        if segment.has(tcp_flags::RST) {
            self.counters.strays += 1;
            return;
        }
        if segment.flags & (ANSWER | tcp_flags::FIN) == ANSWER {
            if self.is_full() {
                self.counters.table_full += 1;
                return;
            }
            if let Some(state) = upper.accepts(segment, now.ns) {
                return self.open(segment, hash, state, now, upper);
            }
        }
        self.counters.strays += 1;
        let reset = if segment.has(tcp_flags::ACK) {
            reset(segment.flow, segment.ack, None)
        } else {
            let taken = len + u32::from(segment.has(tcp_flags::SYN)) + u32::from(segment.has(tcp_flags::FIN));
            reset(segment.flow, 0, Some(segment.seq.wrapping_add(taken)))
        };
        self.reply(reset);
    }

    fn open(&mut self, segment: &Segment, hash: u32, state: U::State, now: Now, upper: &mut U) {
        let Flow { ours, our_port, theirs, their_port } = segment.flow;
        let config = &self.config;
        let options = &segment.options;
        let timestamps = options.timestamps.filter(|_| config.timestamp_offset.is_some());
        let scales = options.window_scale.zip(config.window_scale);
        // RFC 9293, MUST-15 and MUST-16.
        let theirs_mss = options.mss.unwrap_or(if config.v6 { 1220 } else { 536 });
        let mss = theirs_mss.min(config.mtu - config.headers()).max(LEAST_MSS);
        let mut set = flags::LIVE | flags::ACK_NOW;
        if options.sack_permitted && config.sack_permitted {
            set |= flags::SACK;
        }
        if timestamps.is_some() {
            set |= flags::TIMESTAMPS;
        }
        let clock = self.timestamp(now);
        let slot = self.slab.take();
        let (hot, cold) = self.slab.both(slot);
        let first = segment.ack();
        *hot = Hot {
            theirs,
            their_port,
            our_port,
            ours,
            flags: set,
            snd_una: first,
            snd_nxt: first,
            snd_end: first,
            // The window of a SYN is never scaled (RFC 7323, 2.2).
            snd_wnd: u32::from(segment.window),
            rcv_nxt: segment.seq() + 1,
            next: NONE,
            prev: NONE,
            expires: 0,
            deadline: now.ms.wrapping_add(config.patience),
            class: NO_CLASS,
            backoff: 0,
            duplicate_acks: 0,
            unanswered: 0,
        };
        *cold = Cold {
            iss: first - 1,
            irs: segment.seq(),
            rcv_edge: segment.seq() + 1 + u32::from(config.syn_window),
            ts_recent: timestamps.map_or(0, |(value, _)| value),
            srtt_us: 0,
            rttvar_us: 0,
            resend_at: 0,
            cwnd: initial_window(mss),
            limit: u32::MAX >> 1,
            extra: NONE,
            mss,
            unacked: 0,
            retransmits: 0,
            // A shift above 14 counts as 14 (RFC 7323, 2.3).
            snd_scale: scales.map_or(0, |(theirs, _)| theirs.min(14)),
            rcv_scale: scales.map_or(0, |(_, ours)| ours.min(14)),
            state,
        };
        if let Some((_, echo)) = timestamps {
            cold.echoed(clock, echo);
        }
        self.index.insert(hash, slot);
        self.counters.opened += 1;
        if self.call(slot, now, upper, |upper, call| upper.on_connect(call)) {
            self.settle(slot, now, upper);
        }
    }

    /// Resets the peer and ends the connection.
    pub(super) fn abort(&mut self, slot: u32, now: Now, why: Why, upper: &mut U) {
        let hot = self.slab.hot(slot);
        self.reply(reset(hot.flow(), hot.snd_nxt.0, Some(hot.rcv_nxt.0)));
        self.end(slot, now, why, upper);
    }

    /// Ends the connection without a word to the peer.
    pub(super) fn end(&mut self, slot: u32, now: Now, why: Why, upper: &mut U) {
        if let Some(extra) = self.slab.extra(slot) {
            self.buffered -= extra.assembly.memory();
            self.slab.drop_extra(slot);
        }
        self.timers.leave(&mut self.slab, slot);
        let hot = *self.slab.hot(slot);
        let cold = self.slab.cold(slot);
        let flow = hot.flow();
        upper.on_close(&Ended {
            flow,
            state: &cold.state,
            why,
            received: cold.received(&hot),
            acknowledged: cold.acknowledged(&hot),
            retransmits: cold.retransmits,
            peer_finished: hot.has(flags::PEER_FIN),
            now_ns: now.ns,
        });
        *self.counters.of(why) += 1;
        self.index.remove(self.index.hash(&flow), slot);
        self.slab.release(slot);
    }

    /// Resets every connection: what a program does that ends.
    pub fn reset_all(&mut self, now_ns: u64, upper: &mut U) {
        let now = self.now(now_ns);
        for slot in 0..self.slab.slots() {
            if self.slab.hot(slot).has(flags::LIVE) {
                self.abort(slot, now, Why::Aborted, upper);
            }
        }
    }

    /// The same in pieces, from the place in the table that the piece before it returned, 0 for the first: as many as there
    /// is room for their resets, which have to be sent in between. `None` when no connection is left.
    pub fn reset_from(&mut self, first: u32, now_ns: u64, upper: &mut U) -> Option<u32> {
        let now = self.now(now_ns);
        for slot in first..self.slab.slots() {
            if self.replies.len() >= REPLIES {
                return Some(slot);
            }
            if self.slab.hot(slot).has(flags::LIVE) {
                self.abort(slot, now, Why::Aborted, upper);
            }
        }
        None
    }
}

/// RFC 6928's initial window.
pub(super) fn initial_window(mss: u16) -> u32 {
    let mss = u32::from(mss);
    (10 * mss).min((2 * mss).max(14_600))
}

/// A RST; with ACK where there is something to acknowledge.
pub(super) fn reset(flow: Flow, seq: u32, ack: Option<u32>) -> Reply {
    let flags = tcp_flags::RST | if ack.is_some() { tcp_flags::ACK } else { 0 };
    Reply { flow, seq, ack: ack.unwrap_or(0), flags, window: 0, options: OptionBytes::NONE }
}
