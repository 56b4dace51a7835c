//! What a segment says of our data: acknowledged, SACKed, missing; and the peer's window.

use super::{Clients, Now, data_sent};
use crate::connection::{Cold, Hot, NONE, flags};
use crate::segment::Segment;
use crate::sent::{DUPLICATES, Phase};
use crate::seq::Seq;
use crate::upper::Upper;

impl<U: Upper> Clients<U> {
    /// Takes in an acceptable segment's acknowledgement. False when the segment is to be dropped for it.
    #[inline]
    pub(super) fn acknowledge(&mut self, slot: u32, segment: &Segment, len: u32, now: Now) -> bool {
        let clock = self.timestamp(now);
        let least = self.config.min_rto;
        let (hot, cold) = self.slab.both(slot);
        let ack = segment.ack();
        let window = u32::from(segment.window) << cold.snd_scale;
        let newly = if ack.after(hot.snd_una) { ack.since(hot.snd_una) } else { 0 };
        let probed = hot.has(flags::TAIL_PROBED);
        let repeats = newly == 0 && len == 0 && ack == hot.snd_una && window == hot.snd_wnd && hot.outstanding() > 0;
        // A window counts from its segment's acknowledgement. Without a new one, what begins before what we expect is old
        // and may tell of an old window.
        if newly > 0 || (ack == hot.snd_una && segment.seq().at_or_after(hot.rcv_nxt)) {
            hot.snd_wnd = window;
        }
        if newly > 0 {
            let mut measured = false;
            if let Some((_, echo)) = segment.options.timestamps.filter(|_| hot.has(flags::TIMESTAMPS)) {
                measured = cold.echoed(clock, echo);
            } else if hot.take(flags::TIMED) {
                // Sent when the timer was set.
                let sent = cold.resend_at.wrapping_sub(backed_off(cold.rto(least), hot.backoff));
                cold.measured(now.ms.wrapping_sub(sent).min(60_000).saturating_mul(1000));
                measured = true;
            }
            if measured {
                // Karn: a timeout stays doubled until something is measured that was sent once (RFC 6298, section 5).
                hot.backoff = 0;
            }
            hot.snd_una = ack;
            hot.duplicate_acks = 0;
            hot.clear(flags::RESEND | flags::TIMED | flags::TAIL_PROBE | flags::TAIL_PROBED);
            if probed && hot.outstanding() == 0 && !repeats_old(segment) {
                // The probe may have made good a loss that nobody else tells of, or it was not needed, which a duplicate
                // would tell later (RFC 8985, 7.4.2): in doubt for the network.
                cold.cwnd = (cold.cwnd / 2).max(2 * u32::from(cold.mss));
            }
        }
        if cold.extra != NONE || (repeats && hot.outstanding() > 0) {
            self.make_good(slot, segment, newly, repeats, probed);
        } else if newly > 0 {
            grow(&mut cold.cwnd, u32::MAX, newly, u32::from(cold.mss));
        }
        self.set_timer(slot, newly > 0, now);
        true
    }

    /// The scoreboard's part: SACK blocks, duplicate acknowledgements, recovery.
    fn make_good(&mut self, slot: u32, segment: &Segment, newly: u32, repeats: bool, probed: bool) {
        let (hot, cold) = self.slab.both(slot);
        let (una, nxt, mss) = (hot.snd_una, hot.snd_nxt.earlier(hot.snd_end), u32::from(cold.mss));
        let sack = hot.has(flags::SACK);
        if repeats && !sack {
            hot.duplicate_acks = hot.duplicate_acks.saturating_add(1);
        }
        if cold.extra == NONE && hot.duplicate_acks == 0 && segment.options.sacks.is_empty() {
            return;
        }
        let (flight, old_cwnd) = (hot.outstanding(), cold.cwnd);
        let extra = self.slab.extra_or_new(slot);
        let sent = &mut extra.sent;
        sent.advance(una);
        let mut told = false;
        if sack {
            for (left, right) in segment.options.sacks.iter() {
                told |= sent.sacked(una, nxt, Seq(left), Seq(right));
            }
            if told && probed {
                sent.probe_told(nxt);
            }
        }
        let phase = sent.phase;
        let ssthresh = sent.ssthresh;
        let over = phase != Phase::Open && una.at_or_after(sent.recover);
        if over {
            sent.phase = Phase::Open;
        }
        let lost = sent.first_is_lost(una, mss);
        let (hot, cold) = self.slab.both(slot);
        if told && newly == 0 {
            hot.duplicate_acks = hot.duplicate_acks.saturating_add(1);
        }
        let limited = u32::from(hot.duplicate_acks.min(DUPLICATES - 1));
        match phase {
            // What was lost in the first flight of a phase that is just over is of the next one.
            Phase::Open if flight > 0 && (hot.duplicate_acks >= DUPLICATES || lost) => {
                let extra = self.slab.extra_or_new(slot);
                let flight = flight.saturating_sub(limited * mss);
                extra.sent.enter(Phase::Recovery, una, nxt, flight, mss);
                let inflated = if sack { 0 } else { u32::from(DUPLICATES) * mss };
                let cwnd = extra.sent.ssthresh + inflated;
                let (hot, cold) = self.slab.both(slot);
                cold.cwnd = cwnd;
                hot.set(flags::RESEND);
            }
            Phase::Recovery if over && sack => cold.cwnd = ssthresh,
            Phase::Recovery if over => cold.cwnd = ssthresh.min(flight.max(mss) + mss).max(2 * mss),
            Phase::Recovery if !sack && newly > 0 => {
                // A partial acknowledgement: the next hole (RFC 6582, 3.2, step 3).
                cold.cwnd = old_cwnd.saturating_sub(newly).max(mss) + mss;
                hot.set(flags::RESEND);
            }
            Phase::Recovery if !sack && repeats => cold.cwnd = old_cwnd.saturating_add(mss),
            Phase::Open | Phase::Loss if newly > 0 => grow(&mut cold.cwnd, ssthresh, newly, mss),
            _ => {}
        }
    }

    /// Runs the retransmission timer while something is outstanding, and the persist timer while a closed window holds back
    /// what we have; `restart` sets it anew (RFC 6298, 5.3).
    #[inline]
    pub(super) fn set_timer(&mut self, slot: u32, restart: bool, now: Now) {
        let least = self.config.min_rto;
        let tail = self.may_probe_tail(slot);
        let (hot, cold) = self.slab.both(slot);
        if hot.has(flags::PERSIST) {
            if hot.snd_wnd == 0 {
                return;
            }
            // The window is open: what was sent to probe it, and not taken, counts as never sent.
            hot.snd_nxt = hot.snd_una;
            hot.clear(flags::TIMER | flags::PERSIST | flags::PROBE);
        }
        if hot.outstanding() > 0 {
            if restart || !hot.has(flags::TIMER) {
                start_timer(hot, cold, least, tail, now);
            }
            return;
        }
        if hot.take(flags::TAIL) {
            // A rest is as long as ever, see `send_new`.
            cold.resend_at = now.ms.wrapping_add(backed_off(cold.rto(least), hot.backoff));
        }
        let more = hot.unsent() > 0 || (hot.has(flags::OUR_FIN) && !hot.fin_sent());
        if hot.snd_wnd == 0 && more {
            // The persist timer begins with the timeout and is doubled from there.
            hot.backoff = 0;
            cold.resend_at = now.ms.wrapping_add(cold.rto(least));
            hot.set(flags::TIMER | flags::PERSIST);
        } else {
            hot.clear(flags::TIMER);
        }
    }

    /// Whether silence is to be broken by a tail loss probe: once, and while nothing is known to be lost (RFC 8985, 7.2).
    #[inline]
    pub(super) fn may_probe_tail(&mut self, slot: u32) -> bool {
        let hot = self.slab.hot(slot);
        let spoken = flags::SACK | flags::TIMESTAMPS;
        self.config.tail_loss_probe
            && hot.flags & (spoken | flags::TAIL_PROBED) == spoken
            && hot.backoff == 0
            && (self.slab.cold(slot).extra == NONE
                || self.slab.extra(slot).is_none_or(|extra| extra.sent.phase == Phase::Open))
    }

    /// Bytes of data that were sent and not acknowledged.
    pub(super) fn flight(&self, slot: u32) -> u32 {
        let hot = self.slab.hot(slot);
        data_sent(hot, hot.snd_una)
    }
}

/// Starts the timer: for a retransmission or, where one comes before, for a tail loss probe.
#[inline]
pub(super) fn start_timer<S>(hot: &mut Hot, cold: &mut Cold<S>, least: u32, tail: bool, now: Now) {
    let timeout = backed_off(cold.rto(least), hot.backoff);
    let alone = hot.outstanding() <= u32::from(cold.mss);
    let sooner = if tail { cold.tail_timeout(alone).filter(|sooner| *sooner < timeout) } else { None };
    cold.resend_at = now.ms.wrapping_add(sooner.unwrap_or(timeout));
    hot.clear(flags::TAIL);
    hot.set(flags::TIMER | if sooner.is_some() { flags::TAIL } else { 0 });
}

/// Whether the first SACK block tells of something that came twice (RFC 2883).
fn repeats_old(segment: &Segment) -> bool {
    segment.options.sacks.iter().next().is_some_and(|(_, right)| Seq(right).at_or_before(segment.ack()))
}

/// Slow start, and congestion avoidance above the threshold (RFC 5681, 3.1).
#[inline]
fn grow(cwnd: &mut u32, ssthresh: u32, newly: u32, mss: u32) {
    let by = if *cwnd < ssthresh {
        newly.min(mss)
    } else {
        (u64::from(mss) * u64::from(mss) / u64::from((*cwnd).max(1))).max(1) as u32
    };
    *cwnd = cwnd.saturating_add(by).min(1 << 30);
}

/// A timeout doubled so many times, at most a minute (RFC 6298, 5.5).
#[inline]
pub(super) fn backed_off(rto: u32, times: u8) -> u32 {
    rto.saturating_mul(1 << times.min(16)).min(64_000)
}
