//! What goes out, one segment at a time.

use irl_wire::packet::tcp_flags;

use super::acknowledge::start_timer;
use super::open::initial_window;
use super::{Clients, Now, Reply, data_sent};
use crate::connection::{NONE, flags};
use crate::segment::{OptionBytes, Outgoing};
use crate::sent::{DUPLICATES, Phase};
use crate::seq::Seq;
use crate::timers::earlier;
use crate::upper::Upper;

/// Bytes that timestamps take of each segment.
const TIMESTAMPS_LEN: u32 = 12;

impl<U: Upper> Clients<U> {
    /// The next segment to be sent. It counts as sent from then on: ask only when it can be.
    pub fn transmit(&mut self, now_ns: u64) -> Option<Outgoing<U::State>> {
        if let Some(reply) = self.replies.pop_front() {
            let Reply { flow, seq, ack, flags, window, options } = reply;
            let state = U::State::default();
            return Some(Outgoing { flow, seq, ack, flags, window, options, offset: 0, len: 0, state });
        }
        let now = self.now(now_ns);
        while let Some(slot) = self.ready.front().copied() {
            // The slot may have been given to another since.
            if self.slab.hot(slot).has(flags::QUEUED) {
                if let Some(outgoing) = self.next_segment(slot, now) {
                    return Some(outgoing);
                }
                self.slab.hot_mut(slot).clear(flags::QUEUED);
            }
            self.ready.pop_front();
            if let Some(next) = self.ready.front() {
                self.slab.prefetch(*next);
            }
        }
        None
    }

    /// What a connection sends now: first again, then for the first time, then acknowledgements alone.
    fn next_segment(&mut self, slot: u32, now: Now) -> Option<Outgoing<U::State>> {
        let hot = self.slab.hot_mut(slot);
        if hot.take(flags::RESEND) && hot.outstanding() > 0 {
            let from = hot.snd_una;
            return Some(self.send_again(slot, from, None, now));
        }
        if self.slab.cold(slot).extra != NONE
            && let Some(again) = self.recover(slot, now)
        {
            return Some(again);
        }
        if self.slab.hot_mut(slot).take(flags::TAIL_PROBE) {
            let most = self.most(slot);
            let hot = self.slab.hot(slot);
            // All before the last segment are full.
            let before = data_sent(hot, hot.snd_una).saturating_sub(1) / most * most;
            let from = hot.snd_una + before;
            return Some(self.send_again(slot, from, None, now));
        }
        if let Some(fresh) = self.send_new(slot, now) {
            return Some(fresh);
        }
        if self.slab.hot_mut(slot).take(flags::PROBE) {
            return Some(self.probe(slot, now));
        }
        if self.slab.hot(slot).has(flags::ACK_NOW) {
            let seq = self.slab.hot(slot).snd_nxt;
            return Some(self.segment(slot, seq, 0, 0, now));
        }
        None
    }

    /// The most data bytes of a segment.
    fn most(&self, slot: u32) -> u32 {
        let options = if self.slab.hot(slot).has(flags::TIMESTAMPS) { TIMESTAMPS_LEN } else { 0 };
        u32::from(self.slab.cold(slot).mss) - options
    }

    /// A segment from `from` on that was sent before, up to `to` at most.
    fn send_again(&mut self, slot: u32, from: Seq, to: Option<Seq>, now: Now) -> Outgoing<U::State> {
        let most = self.most(slot);
        let hot = self.slab.hot_mut(slot);
        hot.clear(flags::TIMED);
        let sent = data_sent(hot, from);
        let len = to.map_or(sent, |to| to.since(from).min(sent)).min(most);
        let last = from + len == hot.snd_end;
        let mut set = if last && hot.fin_sent() { tcp_flags::FIN } else { 0 };
        if last && len > 0 {
            set |= tcp_flags::PSH;
        }
        let cold = self.slab.cold_mut(slot);
        cold.retransmits = cold.retransmits.saturating_add(1);
        self.counters.retransmits += 1;
        if let Some(extra) = self.slab.extra(slot) {
            extra.sent.resent = extra.sent.resent.later(from + len);
        }
        self.segment(slot, from, len, set, now)
    }

    /// What the scoreboard wants to be sent again, as far as the congestion window goes.
    fn recover(&mut self, slot: u32, now: Now) -> Option<Outgoing<U::State>> {
        let (hot, cold) = self.slab.both(slot);
        let (una, nxt) = (hot.snd_una, hot.snd_nxt.earlier(hot.snd_end));
        let (mss, cwnd) = (u32::from(cold.mss), cold.cwnd);
        let fresh = hot.unsent() > 0;
        let sent = &self.slab.extra(slot)?.sent;
        // Without SACK a loss is made good hole by hole, as acknowledgements come.
        if sent.phase == Phase::Open || sent.pipe(una, nxt, mss) + mss > cwnd.max(mss) {
            return None;
        }
        let sure = sent.next(una, nxt, mss, true);
        let (from, to) = match sure {
            Some(range) => range,
            None if fresh => return None,
            None => sent.next(una, nxt, mss, false)?,
        };
        Some(self.send_again(slot, from, Some(to), now))
    }

    /// Data, or our FIN, that were never sent.
    fn send_new(&mut self, slot: u32, now: Now) -> Option<Outgoing<U::State>> {
        let most = self.most(slot);
        let in_flight = self.in_flight(slot);
        let least = self.config.min_rto;
        let tail = self.may_probe_tail(slot);
        let (hot, cold) = self.slab.both(slot);
        let unsent = hot.unsent();
        let finishes = hot.has(flags::OUR_FIN) && !hot.fin_sent();
        if unsent == 0 && !finishes {
            return None;
        }
        let offered = hot.snd_una + hot.snd_wnd;
        let window = if offered.after(hot.snd_nxt) { offered.since(hot.snd_nxt) } else { 0 };
        let alone = hot.outstanding() == 0;
        if alone && earlier(cold.resend_at, now.ms) {
            // After a rest of a timeout or more it begins with the first flight's size again (RFC 5681, 4.1).
            cold.cwnd = cold.cwnd.min(initial_window(cold.mss));
        }
        // The first two duplicate acknowledgements let a new segment go each (RFC 3042).
        let duplicates = if hot.duplicate_acks < DUPLICATES { u32::from(hot.duplicate_acks) } else { 0 };
        let congestion = (cold.cwnd + duplicates * u32::from(cold.mss)).saturating_sub(in_flight);
        let len = unsent.min(most).min(window).min(congestion);
        // No silly segments (RFC 9293, 3.8.6.2.1): full ones, the last one, or one at a time.
        if unsent > 0 && (len == 0 || (len < unsent && len < most && hot.outstanding() > 0)) {
            return None;
        }
        let last = len == unsent;
        let fin = finishes && last && (len > 0 || window > 0 || hot.outstanding() == 0);
        if len == 0 && !fin {
            return None;
        }
        let seq = hot.snd_nxt;
        hot.snd_nxt += len + u32::from(fin);
        if alone {
            // The timer starts with the first that is outstanding.
            hot.clear(flags::PERSIST);
            hot.set(flags::TIMED);
            start_timer(hot, cold, least, tail, now);
        }
        let mut set = if fin { tcp_flags::FIN } else { 0 };
        if last && len > 0 {
            set |= tcp_flags::PSH;
        }
        let outgoing = self.segment(slot, seq, len, set, now);
        if alone {
            self.schedule(slot, now);
        }
        Some(outgoing)
    }

    /// What counts against the congestion window.
    fn in_flight(&mut self, slot: u32) -> u32 {
        let (hot, cold) = self.slab.both(slot);
        let (una, nxt, mss) = (hot.snd_una, hot.snd_nxt.earlier(hot.snd_end), u32::from(cold.mss));
        let (outstanding, sack) = (hot.outstanding(), hot.has(flags::SACK));
        match self.slab.extra(slot) {
            Some(extra) if extra.sent.phase == Phase::Loss || (extra.sent.phase == Phase::Recovery && sack) => {
                extra.sent.pipe(una, nxt, mss)
            }
            _ => outstanding,
        }
    }

    /// One byte into a closed window (RFC 9293, MUST-35), or our FIN when that is all there is.
    fn probe(&mut self, slot: u32, now: Now) -> Outgoing<U::State> {
        self.counters.window_probes += 1;
        let hot = self.slab.hot_mut(slot);
        // The same byte each time, until it is taken.
        let seq = hot.snd_una;
        let len = hot.snd_end.since(seq).min(1);
        let fin = len == 0 && hot.has(flags::OUR_FIN);
        hot.snd_nxt = seq + (len + u32::from(fin));
        self.segment(slot, seq, len, if fin { tcp_flags::FIN } else { 0 }, now)
    }

    /// A segment of a connection, with the acknowledgement that every one carries.
    fn segment(&mut self, slot: u32, seq: Seq, len: u32, set: u8, now: Now) -> Outgoing<U::State> {
        let window = self.window(slot);
        let options = self.options(slot, now);
        let (hot, cold) = self.slab.both(slot);
        hot.clear(flags::ACK_NOW | flags::ACK_SOON);
        cold.unacked = 0;
        Outgoing {
            flow: hot.flow(),
            seq: seq.0,
            ack: hot.rcv_nxt.0,
            flags: tcp_flags::ACK | set,
            window,
            options,
            offset: seq.since(cold.iss + 1),
            // At most an MSS, which has 16 bits.
            len: len as u16,
            state: cold.state,
        }
    }

    /// An acknowledgement that goes out when its connection may be gone.
    pub(super) fn bare_acknowledgement(&mut self, slot: u32, now: Now) -> Reply {
        let window = self.window(slot);
        let options = self.options(slot, now);
        let hot = self.slab.hot(slot);
        let (seq, ack) = (hot.snd_nxt.0, hot.rcv_nxt.0);
        Reply { flow: hot.flow(), seq, ack, flags: tcp_flags::ACK, window, options }
    }

    /// The window to be told. Its right edge never moves left (RFC 9293, SHLD-14): what a scaled window cannot say exactly
    /// is rounded up.
    fn window(&mut self, slot: u32) -> u16 {
        let most = self.config.window;
        let (hot, cold) = self.slab.both(slot);
        let scale = cold.rcv_scale;
        let wanted = cold.limit.saturating_sub(cold.received(hot)).min(most).min(0xffff << scale);
        let edge = (hot.rcv_nxt + wanted).later(cold.rcv_edge);
        let told = edge.since(hot.rcv_nxt).div_ceil(1 << scale).min(0xffff);
        cold.rcv_edge = (hot.rcv_nxt + (told << scale)).later(cold.rcv_edge);
        told as u16
    }

    fn options(&mut self, slot: u32, now: Now) -> OptionBytes {
        let mut options = OptionBytes::NONE;
        let clock = self.timestamp(now);
        let (hot, cold) = self.slab.both(slot);
        let next = hot.rcv_nxt;
        if hot.has(flags::TIMESTAMPS) {
            options.push_timestamps(clock, cold.ts_recent);
        }
        if hot.has(flags::SACK)
            && let Some(extra) = self.slab.extra(slot)
        {
            options.push_sacks(&extra.assembly.sacks(next));
        }
        options
    }
}
