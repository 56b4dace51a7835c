//! What a segment brings: data in order and out of order, and the peer's FIN.

use irl_wire::packet::tcp_flags;

use super::{Clients, Now};
use crate::connection::{NONE, flags};
use crate::segment::Segment;
use crate::seq::Seq;
use crate::upper::Upper;

impl<U: Upper> Clients<U> {
    /// Hands over what is in order, keeps what is not. False when the owner has ended the connection.
    pub(super) fn deliver(&mut self, slot: u32, segment: &Segment, payload: &[u8], now: Now, upper: &mut U) -> bool {
        let (hot, cold) = self.slab.both(slot);
        let (next, edge) = (hot.rcv_nxt, cold.rcv_edge);
        if hot.has(flags::PEER_FIN) {
            // Nothing follows a FIN: what claims to is old, or a lie.
            hot.set(flags::ACK_NOW);
            return true;
        }
        // Cut to the window.
        let mut first = segment.seq();
        let mut data = payload;
        let mut fin = segment.has(tcp_flags::FIN);
        if first.before(next) {
            let old = next.since(first) as usize;
            if hot.has(flags::SACK) && !payload.is_empty() {
                let end = (first + payload.len() as u32).earlier(next);
                self.slab.extra_or_new(slot).assembly.duplicate = Some((first, end));
                self.slab.hot_mut(slot).set(flags::ACK_NOW);
            }
            data = data.get(old..).unwrap_or_default();
            first = next;
        }
        let room = if edge.after(first) { edge.since(first) as usize } else { 0 };
        if data.len() > room {
            data = &data[..room];
            fin = false;
        }
        let fin_at = first + data.len() as u32;
        if first == next {
            self.in_order(slot, data, fin.then_some(fin_at), now, upper)
        } else {
            self.out_of_order(slot, first, data, fin.then_some(fin_at));
            true
        }
    }

    fn in_order(&mut self, slot: u32, data: &[u8], fin: Option<Seq>, now: Now, upper: &mut U) -> bool {
        if self.slab.cold(slot).extra != NONE {
            return self.fill_hole(slot, data, fin, now, upper);
        }
        if !data.is_empty() && !self.hand_over(slot, data, now, upper) {
            return false;
        }
        fin.is_none() || self.finish(slot, now, upper)
    }

    /// Data in order while others wait, or may.
    fn fill_hole(&mut self, slot: u32, data: &[u8], fin: Option<Seq>, now: Now, upper: &mut U) -> bool {
        let next = self.slab.hot(slot).rcv_nxt;
        let assembly = &mut self.slab.extra_or_new(slot).assembly;
        assembly.fin = assembly.fin.or(fin);
        let waiting = !assembly.ranges.is_empty();
        if let Some(duplicate) = assembly.ranges.overlap(next, next + data.len() as u32) {
            assembly.duplicate = Some(duplicate);
        }
        if !data.is_empty() && !self.hand_over(slot, data, now, upper) {
            return false;
        }
        if waiting {
            // A hole filled is told at once (RFC 5681, 4.2).
            self.slab.hot_mut(slot).set(flags::ACK_NOW);
            let next = self.slab.hot(slot).rcv_nxt;
            // Taken out while the owner looks at it: it may end the connection meanwhile.
            let mut assembly = std::mem::take(&mut self.slab.extra_or_new(slot).assembly);
            let mut alive = true;
            if let Some(ready) = assembly.ready(next) {
                alive = self.hand_over(slot, ready, now, upper);
            }
            if !alive {
                self.buffered -= assembly.memory();
                return false;
            }
            self.buffered -= assembly.advance(self.slab.hot(slot).rcv_nxt);
            self.slab.extra_or_new(slot).assembly = assembly;
        }
        let next = self.slab.hot(slot).rcv_nxt;
        let finished = self.slab.extra(slot).is_some_and(|extra| extra.assembly.fin == Some(next));
        !finished || self.finish(slot, now, upper)
    }

    fn hand_over(&mut self, slot: u32, data: &[u8], now: Now, upper: &mut U) -> bool {
        let len = data.len() as u32;
        let (hot, cold) = self.slab.both(slot);
        hot.rcv_nxt += len;
        cold.unacked = cold.unacked.saturating_add(len.min(0xffff) as u16);
        // At least every second full segment (RFC 5681, 4.2). What a sender of small segments sends counts as well.
        let now_due = u32::from(cold.unacked) >= 2 * u32::from(cold.mss.min(1400));
        hot.set(if now_due { flags::ACK_NOW } else { flags::ACK_SOON });
        self.counters.bytes_received += u64::from(len);
        self.call(slot, now, upper, |upper, call| upper.on_data(call, data))
    }

    fn out_of_order(&mut self, slot: u32, first: Seq, data: &[u8], fin: Option<Seq>) {
        self.counters.out_of_order += 1;
        let most = self.config.max_buffered.saturating_sub(self.buffered);
        let hot = self.slab.hot_mut(slot);
        hot.set(flags::ACK_NOW);
        let next = hot.rcv_nxt;
        let assembly = &mut self.slab.extra_or_new(slot).assembly;
        assembly.fin = assembly.fin.or(fin);
        if data.is_empty() {
            return;
        }
        if let Some(duplicate) = assembly.ranges.overlap(first, first + data.len() as u32) {
            assembly.duplicate = Some(duplicate);
        }
        match assembly.keep(next, first, data, most) {
            Some(grown) => self.buffered += grown,
            None => self.counters.out_of_order_dropped += 1,
        }
    }

    fn finish(&mut self, slot: u32, now: Now, upper: &mut U) -> bool {
        let hot = self.slab.hot_mut(slot);
        hot.rcv_nxt += 1;
        hot.set(flags::PEER_FIN | flags::ACK_NOW);
        if let Some(extra) = self.slab.extra(slot) {
            // What claims to follow a FIN does not.
            self.buffered -= extra.assembly.clear();
        }
        self.call(slot, now, upper, |upper, call| upper.on_finish(call))
    }
}
