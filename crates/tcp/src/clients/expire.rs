//! What time does: retransmission, window probes, delayed acknowledgements, deadlines.

use super::acknowledge::backed_off;
use super::{Clients, Now};
use crate::connection::{NONE, flags};
use crate::sent::Phase;
use crate::timers::earlier;
use crate::upper::{Upper, Why};

/// When a connection is to come up again: what every handler of a timer has to say.
enum Next {
    /// Then, in ms.
    At(u32),
    /// Never: it is over.
    Gone,
}

impl<U: Upper> Clients<U> {
    /// Does what is due.
    pub fn expire(&mut self, now_ns: u64, upper: &mut U) {
        let now = self.now(now_ns);
        while let Some(slot) = self.timers.pop(&mut self.slab, now.ms) {
            match self.on_timer(slot, now, upper) {
                Next::At(due) => self.timers.enter(&mut self.slab, slot, now.ms, due),
                Next::Gone => {}
            }
        }
    }

    /// When [`Clients::expire`] has something to do next; `None` while there are no connections.
    pub fn next_expiry_ns(&self) -> Option<u64> {
        let next = self.timers.next(&self.slab)?;
        let left = (next.wrapping_sub(self.latest.ms) as i32).max(0) as u64;
        // Their clock counts whole milliseconds since the table was made.
        let whole = self.latest.ns - self.latest.ns.wrapping_sub(self.started_ns) % 1_000_000;
        Some(whole + left * 1_000_000)
    }

    fn on_timer(&mut self, slot: u32, now: Now, upper: &mut U) -> Next {
        let (hot, cold) = self.slab.both(slot);
        if hot.take(flags::ACK_SOON) {
            hot.set(flags::ACK_NOW);
        }
        let deadline = !earlier(now.ms, hot.deadline);
        if hot.has(flags::TAIL) && !earlier(now.ms, cold.resend_at) {
            self.on_silence(slot, now);
        } else if hot.has(flags::TIMER) && !earlier(now.ms, cold.resend_at) {
            if hot.unanswered >= self.config.max_retransmits {
                self.abort(slot, now, Why::TimedOut, upper);
                return Next::Gone;
            }
            self.on_resend_timer(slot, now);
        }
        if deadline && !self.on_deadline(slot, now, upper) {
            return Next::Gone;
        }
        self.queue_if_due(slot);
        Next::At(self.due(slot, now))
    }

    /// Nothing came back for two round-trip times: the last segment is sent again, so that the peer tells what it has
    /// (RFC 8985, 7.3). Nothing is taken for lost yet.
    fn on_silence(&mut self, slot: u32, now: Now) {
        let least = self.config.min_rto;
        let (hot, cold) = self.slab.both(slot);
        hot.clear(flags::TAIL | flags::TIMED);
        hot.set(flags::TAIL_PROBE | flags::TAIL_PROBED);
        cold.resend_at = now.ms.wrapping_add(backed_off(cold.rto(least), hot.backoff));
        self.counters.tail_probes += 1;
    }

    /// Nothing came back in time (RFC 6298, 5.4 to 5.6), or the window is still closed (RFC 9293, 3.8.6.1).
    fn on_resend_timer(&mut self, slot: u32, now: Now) {
        let least = self.config.min_rto;
        let flight = self.flight(slot);
        let (hot, cold) = self.slab.both(slot);
        hot.unanswered = hot.unanswered.saturating_add(1);
        hot.backoff = hot.backoff.saturating_add(1);
        hot.clear(flags::TIMED | flags::TAIL_PROBE | flags::TAIL_PROBED);
        cold.resend_at = now.ms.wrapping_add(backed_off(cold.rto(least), hot.backoff));
        if hot.has(flags::PERSIST) {
            hot.set(flags::PROBE);
            return;
        }
        hot.set(flags::RESEND);
        hot.duplicate_acks = 0;
        self.counters.timeouts += 1;
        let mss = u32::from(cold.mss);
        let (una, nxt) = (hot.snd_una, hot.snd_nxt.earlier(hot.snd_end));
        cold.cwnd = mss;
        if flight > mss || cold.extra != NONE {
            self.slab.extra_or_new(slot).sent.enter(Phase::Loss, una, nxt, flight, mss);
        }
    }

    /// The owner's deadline, or the end of its patience with the peer's FIN.
    fn on_deadline(&mut self, slot: u32, now: Now, upper: &mut U) -> bool {
        let hot = self.slab.hot(slot);
        let passed = hot.deadline;
        if hot.has(flags::OUR_FIN) {
            self.abort(slot, now, Why::TimedOut, upper);
            return false;
        }
        if !self.call(slot, now, upper, |upper, call| upper.on_timeout(call)) {
            return false;
        }
        let hot = self.slab.hot(slot);
        if hot.deadline == passed {
            self.abort(slot, now, Why::Reset, upper);
            return false;
        }
        true
    }
}
