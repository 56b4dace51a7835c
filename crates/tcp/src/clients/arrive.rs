//! Segments arrive: whose each is, and whether it is acceptable (RFC 9293, 3.10.7.4, RFC 5961, RFC 7323).

use irl_wire::packet::tcp_flags;

use super::{CHALLENGES, Clients, Now};
use crate::connection::{Cold, Hot, flags};
use crate::segment::{Batch, Flow, IcmpError, Segment};
use crate::seq::Seq;
use crate::timers::earlier;
use crate::upper::{Upper, Why};

/// What a segment is, as far as its numbers tell.
enum Verdict {
    /// It may be looked into.
    Acceptable,
    /// It is ignored.
    Ignored,
    /// Its timestamp is old (RFC 7323).
    Old,
    /// It is not acceptable, and the peer is told what we expect.
    Unacceptable,
    /// It may be forged: the peer is asked (RFC 5961).
    Challenged,
    /// The peer has reset the connection.
    Reset,
}

impl<U: Upper> Clients<U> {
    /// Takes in the segments of a batch, which is empty afterwards.
    pub fn receive(&mut self, now_ns: u64, batch: &mut Batch, upper: &mut U) {
        let now = self.now(now_ns);
        let Batch { segments, data, hashes } = batch;
        hashes.clear();
        // Three steps, so that the memory of all is under way before the first is worked on.
        hashes.extend(segments.iter().map(|(segment, ..)| {
            let hash = self.index.hash(&segment.flow);
            self.index.prefetch(hash);
            hash
        }));
        for hash in hashes.iter() {
            // Hashes alone tell which; that another's line is fetched now and then does no harm.
            if let Some(slot) = self.index.find(*hash, |_| true) {
                self.slab.prefetch(slot);
            }
        }
        self.counters.segments += segments.len() as u64;
        for ((segment, start, end), hash) in segments.iter().zip(hashes.iter()) {
            let payload = data.get(*start as usize..*end as usize).unwrap_or_default();
            match self.find(*hash, &segment.flow) {
                Some(slot) => self.on_segment(slot, segment, payload, now, upper),
                None => self.on_stray(segment, payload.len() as u32, *hash, now, upper),
            }
        }
        batch.clear();
    }

    fn on_segment(&mut self, slot: u32, segment: &Segment, payload: &[u8], now: Now, upper: &mut U) {
        let (hot, cold) = self.slab.both(slot);
        match verdict(hot, cold, segment, payload.len() as u32) {
            Verdict::Acceptable => {}
            Verdict::Ignored => {
                self.counters.unacceptable += 1;
                return;
            }
            Verdict::Old => {
                self.counters.old_timestamps += 1;
                return self.on_unacceptable(slot, segment, payload, now);
            }
            Verdict::Unacceptable => return self.on_unacceptable(slot, segment, payload, now),
            Verdict::Challenged => return self.challenge(slot, now),
            Verdict::Reset => return self.end(slot, now, Why::ResetByPeer, upper),
        }
        if hot.has(flags::TIMESTAMPS) {
            let Some((value, _)) = segment.options.timestamps else {
                // RFC 7323, 3.2: such a segment is to be dropped.
                self.counters.old_timestamps += 1;
                return;
            };
            // TS.Recent is taken from what begins at or before our last acknowledgement (RFC 7323, 4.3).
            if segment.seq().at_or_before(hot.rcv_nxt - u32::from(cold.unacked)) && !earlier(value, cold.ts_recent) {
                cold.ts_recent = value;
            }
        }
        hot.unanswered = 0;
        if !self.acknowledge(slot, segment, payload.len() as u32, now) {
            return;
        }
        let brings = !payload.is_empty() || segment.has(tcp_flags::FIN);
        if brings && !self.deliver(slot, segment, payload, now, upper) {
            return;
        }
        self.settle(slot, now, upper);
    }

    /// A segment from outside of the window is answered with what we expect (RFC 9293, 3.10.7.4), and with the block that
    /// it repeats (RFC 2883).
    fn on_unacceptable(&mut self, slot: u32, segment: &Segment, payload: &[u8], now: Now) {
        self.counters.unacceptable += 1;
        let hot = self.slab.hot(slot);
        let (sack, next) = (hot.has(flags::SACK), hot.rcv_nxt);
        let end = segment.seq() + payload.len() as u32;
        if payload.is_empty() && !segment.has(tcp_flags::SYN | tcp_flags::FIN) {
            // It asks for nothing: two that answer each other's would never end.
            return self.challenge(slot, now);
        }
        if sack && !payload.is_empty() && end.at_or_before(next) {
            self.slab.extra_or_new(slot).assembly.duplicate = Some((segment.seq(), end));
        }
        self.slab.hot_mut(slot).set(flags::ACK_NOW);
        self.queue(slot);
    }

    /// Tells the peer where we are, unless that was told too often in this second already.
    pub(super) fn challenge(&mut self, slot: u32, now: Now) {
        self.counters.challenged += 1;
        if now.ms.wrapping_sub(self.challenges_since) >= 1000 {
            (self.challenges_since, self.challenges) = (now.ms, 0);
        }
        if self.challenges >= CHALLENGES {
            self.counters.challenges_skipped += 1;
            return;
        }
        self.challenges += 1;
        self.slab.hot_mut(slot).set(flags::ACK_NOW);
        self.queue(slot);
    }

    /// After a segment, or whatever else may have changed a connection: sends what may be sent now, ends what is over,
    /// and sets the timer.
    #[inline]
    pub(super) fn settle(&mut self, slot: u32, now: Now, upper: &mut U) {
        let hot = self.slab.hot(slot);
        if hot.has(flags::PEER_FIN) && hot.has(flags::OUR_FIN) && hot.fin_acknowledged() {
            // The last acknowledgement needs no connection any more.
            if self.slab.hot_mut(slot).take(flags::ACK_NOW) {
                let reply = self.bare_acknowledgement(slot, now);
                self.reply(reply);
            }
            return self.end(slot, now, Why::Finished, upper);
        }
        self.set_timer(slot, false, now);
        self.queue_if_due(slot);
        self.schedule(slot, now);
    }

    /// An ICMP error that quotes a segment of ours. `quoted_seq` is its sequence number.
    pub fn icmp(&mut self, now_ns: u64, flow: Flow, quoted_seq: u32, error: IcmpError, upper: &mut U) {
        let now = self.now(now_ns);
        let headers = self.config.headers();
        let Some(slot) = self.find(self.index.hash(&flow), &flow) else {
            self.counters.icmp_ignored += 1;
            return;
        };
        let (hot, cold) = self.slab.both(slot);
        // Who has not seen our segments cannot quote one that is outstanding (RFC 5927, 4.1).
        let quoted = Seq(quoted_seq);
        if quoted.before(hot.snd_una) || quoted.at_or_after(hot.snd_nxt) {
            self.counters.icmp_ignored += 1;
            return;
        }
        match error {
            IcmpError::Soft => {}
            IcmpError::Hard => self.end(slot, now, Why::Unreachable, upper),
            IcmpError::TooBig(mtu) => {
                // A router that does not say gets what every link of IPv4 carries, as does a lie below it (RFC 1191, 8201).
                let least = if headers == 60 { 1280 } else { 576 };
                let mss = mtu.max(least) - headers;
                if mss < cold.mss {
                    cold.mss = mss;
                    hot.set(flags::RESEND);
                    let (una, nxt) = (hot.snd_una, hot.snd_nxt.earlier(hot.snd_end));
                    if nxt.since(una) > u32::from(mss) {
                        // All that is outstanding was too big. That is no congestion.
                        self.slab.extra_or_new(slot).sent.too_big(una, nxt);
                    }
                    self.queue(slot);
                }
            }
        }
    }
}

/// Whether a segment is acceptable. In the order of RFC 9293, 3.10.7.4, with RFC 7323's check of timestamps first.
#[inline]
fn verdict<S>(hot: &Hot, cold: &Cold<S>, segment: &Segment, len: u32) -> Verdict {
    let reset = segment.has(tcp_flags::RST);
    let seq = segment.seq();
    let window = if cold.rcv_edge.after(hot.rcv_nxt) { cold.rcv_edge.since(hot.rcv_nxt) } else { 0 };
    // The way of nearly all segments.
    let plain = segment.flags & (tcp_flags::RST | tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::ACK;
    if !(plain && seq == hot.rcv_nxt && len <= window) {
        if !reset && hot.has(flags::TIMESTAMPS) && is_old(cold, segment) {
            return Verdict::Old;
        }
        if reset {
            // RFC 5961, 3.2.
            let distance = seq.since(hot.rcv_nxt);
            return match distance {
                0 => Verdict::Reset,
                _ if distance < window => Verdict::Challenged,
                _ => Verdict::Ignored,
            };
        }
        if segment.has(tcp_flags::SYN) {
            // The SYN-ACK again: our acknowledgement was lost. Anything else is challenged (RFC 5961, 4.2).
            let again = seq == cold.irs && segment.has(tcp_flags::ACK) && segment.ack() == cold.iss + 1;
            return if again { Verdict::Unacceptable } else { Verdict::Challenged };
        }
        let taken = len + u32::from(segment.has(tcp_flags::FIN));
        if !in_window(hot.rcv_nxt, window, seq, taken) {
            return Verdict::Unacceptable;
        }
        if !segment.has(tcp_flags::ACK) {
            return Verdict::Ignored;
        }
    } else if hot.has(flags::TIMESTAMPS) && is_old(cold, segment) {
        return Verdict::Old;
    }
    // RFC 5961, 5.2: what is acknowledged may be neither ahead of what we sent nor far behind.
    let ack = segment.ack();
    if ack.after(hot.snd_nxt) || ack.before(hot.snd_una - hot.snd_wnd.max(65_535)) {
        return Verdict::Challenged;
    }
    Verdict::Acceptable
}

/// PAWS (RFC 7323, 5.3): a timestamp before the latest.
#[inline]
fn is_old<S>(cold: &Cold<S>, segment: &Segment) -> bool {
    segment.options.timestamps.is_some_and(|(value, _)| earlier(value, cold.ts_recent))
}

/// The four cases of RFC 9293's table 6.
#[inline]
fn in_window(next: Seq, window: u32, seq: Seq, len: u32) -> bool {
    let inside = |seq: Seq| seq.since(next) < window;
    match (len, window) {
        (0, 0) => seq == next,
        (0, _) => inside(seq),
        // A closed window takes nothing, and what is said beside the data is heard all the same (MUST-66).
        (_, 0) => false,
        _ => inside(seq) || inside(seq + (len - 1)),
    }
}
