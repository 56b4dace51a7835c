//! One connection: a hot line that every segment needs, a cold line for what is rarer, and what only few have.

use crate::assembly::Assembly;
use crate::segment::Flow;
use crate::sent::Sent;
use crate::seq::Seq;

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;
/// No class of timers: see [`crate::timers`].
pub(crate) const NO_CLASS: u8 = u8::MAX;

/// A round-trip time above this is not believed.
const MOST_RTT_US: u32 = 60_000_000;

/// Bits of [`Hot::flags`].
pub(crate) mod flags {
    /// The slot holds a connection.
    pub(crate) const LIVE: u16 = 1;
    /// Its owner has finished: our FIN follows the last byte to be sent.
    pub(crate) const OUR_FIN: u16 = 1 << 1;
    /// The peer's FIN has come, and all before it.
    pub(crate) const PEER_FIN: u16 = 1 << 2;
    /// It stands in the line of those that have something to send.
    pub(crate) const QUEUED: u16 = 1 << 3;
    /// An acknowledgement is due at once.
    pub(crate) const ACK_NOW: u16 = 1 << 4;
    /// One is due soon.
    pub(crate) const ACK_SOON: u16 = 1 << 5;
    /// What begins at `snd_una` is sent again.
    pub(crate) const RESEND: u16 = 1 << 6;
    /// A byte is sent although the peer's window is closed.
    pub(crate) const PROBE: u16 = 1 << 7;
    /// Both sides speak SACK.
    pub(crate) const SACK: u16 = 1 << 8;
    /// Both sides speak timestamps.
    pub(crate) const TIMESTAMPS: u16 = 1 << 9;
    /// What is outstanding was sent once, at one time, so that its acknowledgement tells the round-trip time.
    pub(crate) const TIMED: u16 = 1 << 10;
    /// A retransmission timer runs, until [`Cold::resend_at`](super::Cold::resend_at).
    pub(crate) const TIMER: u16 = 1 << 11;
    /// The peer's window is closed on data that we have: the timer is the persist timer.
    pub(crate) const PERSIST: u16 = 1 << 12;
    /// The timer is up before the retransmission timeout is, for a tail loss probe.
    pub(crate) const TAIL: u16 = 1 << 13;
    /// That probe is due: the last segment is sent again.
    pub(crate) const TAIL_PROBE: u16 = 1 << 14;
    /// One was sent, and nothing new was acknowledged since.
    pub(crate) const TAIL_PROBED: u16 = 1 << 15;
}

/// What every segment of a connection needs: one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Hot {
    pub(crate) theirs: u128,
    pub(crate) their_port: u16,
    pub(crate) our_port: u16,
    pub(crate) ours: u16,
    pub(crate) flags: u16,
    /// The first byte that the peer has not acknowledged.
    pub(crate) snd_una: Seq,
    /// The next byte to be sent for the first time.
    pub(crate) snd_nxt: Seq,
    /// Behind the last byte that may be sent; our FIN's number.
    pub(crate) snd_end: Seq,
    /// The peer's window, in bytes.
    pub(crate) snd_wnd: u32,
    /// The next byte that we expect.
    pub(crate) rcv_nxt: Seq,
    /// Neighbours in the queue of its timer class; `next` also in the list of free slots.
    pub(crate) next: u32,
    pub(crate) prev: u32,
    /// When its place in that queue is up, in ms.
    pub(crate) expires: u32,
    /// The owner's deadline, in ms.
    pub(crate) deadline: u32,
    /// Which queue.
    pub(crate) class: u8,
    /// How often the retransmission timeout was doubled.
    pub(crate) backoff: u8,
    pub(crate) duplicate_acks: u8,
    /// What was sent in a row without anything acceptable in return.
    pub(crate) unanswered: u8,
}

const _: () = assert!(size_of::<Hot>() == 64);

impl Hot {
    pub(crate) const FREE: Self = Self {
        theirs: 0,
        their_port: 0,
        our_port: 0,
        ours: 0,
        flags: 0,
        snd_una: Seq(0),
        snd_nxt: Seq(0),
        snd_end: Seq(0),
        snd_wnd: 0,
        rcv_nxt: Seq(0),
        next: NONE,
        prev: NONE,
        expires: 0,
        deadline: 0,
        class: NO_CLASS,
        backoff: 0,
        duplicate_acks: 0,
        unanswered: 0,
    };

    #[inline]
    pub(crate) fn flow(&self) -> Flow {
        Flow { ours: self.ours, our_port: self.our_port, theirs: self.theirs, their_port: self.their_port }
    }

    #[inline]
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, flag: u16) {
        self.flags |= flag;
    }

    #[inline]
    pub(crate) fn clear(&mut self, flag: u16) {
        self.flags &= !flag;
    }

    /// Clears a flag and says whether it was set.
    #[inline]
    pub(crate) fn take(&mut self, flag: u16) -> bool {
        let had = self.has(flag);
        self.clear(flag);
        had
    }

    /// Sequence numbers sent and not acknowledged, a FIN's included.
    #[inline]
    pub(crate) fn outstanding(&self) -> u32 {
        self.snd_nxt.since(self.snd_una)
    }

    /// Bytes that were never sent.
    #[inline]
    pub(crate) fn unsent(&self) -> u32 {
        if self.fin_sent() { 0 } else { self.snd_end.since(self.snd_nxt) }
    }

    #[inline]
    pub(crate) fn fin_sent(&self) -> bool {
        self.snd_nxt.after(self.snd_end)
    }

    /// Our FIN was sent and acknowledged.
    #[inline]
    pub(crate) fn fin_acknowledged(&self) -> bool {
        self.snd_una.after(self.snd_end)
    }
}

/// What is needed less often: the second cache line, of which the owner has the last 16 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Cold<S> {
    pub(crate) iss: Seq,
    pub(crate) irs: Seq,
    /// Behind the last byte that the peer was ever invited to send.
    pub(crate) rcv_edge: Seq,
    /// RFC 7323's TS.Recent.
    pub(crate) ts_recent: u32,
    /// Smoothed round-trip time in us, 0 before there is one, and its variation (RFC 6298).
    pub(crate) srtt_us: u32,
    pub(crate) rttvar_us: u32,
    /// When the retransmission or persist timer runs out, in ms.
    pub(crate) resend_at: u32,
    /// Congestion window, in bytes.
    pub(crate) cwnd: u32,
    /// The most bytes that the owner wants.
    pub(crate) limit: u32,
    /// Its place among those with more: see [`Extra`].
    pub(crate) extra: u32,
    /// The most bytes behind a header without options.
    pub(crate) mss: u16,
    /// Bytes received since we last acknowledged; saturates.
    pub(crate) unacked: u16,
    /// Segments sent again.
    pub(crate) retransmits: u16,
    /// Window scales.
    pub(crate) snd_scale: u8,
    pub(crate) rcv_scale: u8,
    pub(crate) state: S,
}

impl<S> Cold<S> {
    /// Bytes that came in order.
    #[inline]
    pub(crate) fn received(&self, hot: &Hot) -> u32 {
        hot.rcv_nxt.since(self.irs + 1) - u32::from(hot.has(flags::PEER_FIN))
    }

    /// Bytes of ours that were acknowledged.
    #[inline]
    pub(crate) fn acknowledged(&self, hot: &Hot) -> u32 {
        hot.snd_una.since(self.iss + 1) - u32::from(hot.fin_acknowledged())
    }

    /// RFC 6298's RTO without back-off, in ms.
    #[inline]
    pub(crate) fn rto(&self, least: u32) -> u32 {
        if self.srtt_us == 0 {
            return 1000.max(least);
        }
        let us = self.srtt_us.saturating_add(self.rttvar_us.saturating_mul(4).max(1000));
        us.div_ceil(1000).max(least)
    }

    /// How long the peer may be silent before the end of a flight is sent again, in ms; `alone` where that is one segment,
    /// whose acknowledgement may wait (RFC 8985, 7.2). `None` before there is a round-trip time.
    #[inline]
    pub(crate) fn tail_timeout(&self, alone: bool) -> Option<u32> {
        /// RFC 8985's WCDelAckT, what is taken for the longest that acknowledgements are delayed.
        const DELAYED_ACK_MS: u32 = 200;
        let wait = self.srtt_us.saturating_mul(2).div_ceil(1000) + if alone { DELAYED_ACK_MS } else { 0 };
        (self.srtt_us > 0).then_some(wait)
    }

    /// Measures the round-trip time by what the peer echoes of our clock. Whether that is credible: it may be anything.
    #[inline]
    pub(crate) fn echoed(&mut self, clock: u32, echo: u32) -> bool {
        let rtt = clock.wrapping_sub(echo);
        let credible = rtt <= MOST_RTT_US;
        if credible {
            self.measured(rtt);
        }
        credible
    }

    /// Takes a measured round-trip time into account (RFC 6298, 2.2 and 2.3).
    pub(crate) fn measured(&mut self, rtt_us: u32) {
        let rtt = rtt_us.clamp(1, MOST_RTT_US);
        if self.srtt_us == 0 {
            (self.srtt_us, self.rttvar_us) = (rtt, rtt / 2);
        } else {
            let error = self.srtt_us.abs_diff(rtt);
            self.rttvar_us = self.rttvar_us - self.rttvar_us / 4 + error / 4;
            self.srtt_us = (self.srtt_us - self.srtt_us / 8 + rtt / 8).max(1);
        }
    }
}

/// What a connection has only once data came out of order, or something that took several segments was lost.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) assembly: Assembly,
    pub(crate) sent: Sent,
}
