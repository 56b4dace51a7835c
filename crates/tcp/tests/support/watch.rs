//! A watch on one connection: what went in bounds what may come out, whatever the script.
//!
//! It knows nothing of states. It checks that nothing is acknowledged that did not come, that the right edge of the
//! window never moves left, that nothing is sent beyond the peer's window or beyond what was asked for, that SACK
//! blocks name what came, and that a stray draws one segment at the most.

use irl_tcp::Segment;
use irl_wire::packet::tcp_flags::{ACK, FIN, RST, SYN};

use super::segments::{Sent, relative};

/// What is known of a connection from outside.
#[derive(Debug)]
pub struct Watch {
    pub ours: u32,
    pub theirs: u32,
    /// What came, as pieces of the peer's stream from its SYN, sorted and apart.
    pieces: Vec<(i64, i64)>,
    /// What began before the stream: no peer sends it, but it came, and a D-SACK may say so.
    before: Vec<(i64, i64)>,
    /// Where the peer's FINs stand: right behind their data.
    fins: Vec<i64>,
    /// The peer's scale, and ours when the peer had one.
    scales: Option<(u8, u8)>,
    /// As far as any segment of the peer's ever let us send, and as far as we have.
    peer_edge: i64,
    pub sent_edge: i64,
    /// As far as we ever let the peer send.
    pub our_edge: i64,
    pub highest_ack: i64,
    timestamps: bool,
    sack_permitted: bool,
    our_fin: Option<i64>,
}

impl Watch {
    /// From the SYN-ACK, and what our SYN offered.
    pub fn new(synack: &Segment, our_scale: Option<u8>, syn_window: u16, asked_timestamps: bool) -> Self {
        let scales = synack.options.window_scale.zip(our_scale).map(|(theirs, ours)| (theirs.min(14), ours));
        Self {
            ours: synack.ack.wrapping_sub(1),
            theirs: synack.seq,
            pieces: Vec::new(),
            before: Vec::new(),
            fins: Vec::new(),
            scales,
            peer_edge: 1 + i64::from(synack.window),
            sent_edge: 1,
            our_edge: 1 + i64::from(syn_window),
            highest_ack: 1,
            timestamps: asked_timestamps && synack.options.timestamps.is_some(),
            sack_permitted: synack.options.sack_permitted,
            our_fin: None,
        }
    }

    /// Notes what goes in.
    pub fn received(&mut self, segment: &Segment, len: usize) {
        let syn = segment.flags & SYN != 0;
        let start = relative(segment.seq, self.theirs) + i64::from(syn);
        let end = start + len as i64;
        if len > 0 && start < 1 {
            self.before.push((start - i64::from(syn), end));
        }
        if len > 0 && end > 1 {
            self.pieces.push((start.max(1), end));
            self.pieces.sort_unstable();
            let mut joined: Vec<(i64, i64)> = Vec::with_capacity(self.pieces.len());
            for &(left, right) in &self.pieces {
                match joined.last_mut() {
                    Some(last) if left <= last.1 => last.1 = last.1.max(right),
                    _ => joined.push((left, right)),
                }
            }
            self.pieces = joined;
        }
        if segment.flags & FIN != 0 {
            self.fins.push(end);
        }
        if segment.flags & ACK != 0 {
            let window = if syn { i64::from(segment.window) } else { self.unscaled(segment.window, true) };
            self.peer_edge = self.peer_edge.max(relative(segment.ack, self.ours) + window);
        }
    }

    /// A window in bytes.
    pub fn unscaled(&self, window: u16, theirs: bool) -> i64 {
        let (peers, ours) = self.scales.unwrap_or((0, 0));
        i64::from(window) << if theirs { peers } else { ours }
    }

    /// As far as the peer's stream may be acknowledged.
    pub fn in_order(&self) -> i64 {
        match self.pieces.first() {
            Some(&(1, right)) => right,
            _ => 1,
        }
    }

    /// What is wrong with a segment that went out, given how much of our stream was asked to be sent.
    pub fn check(&mut self, sent: &Sent, asked: u64) -> Result<(), String> {
        let fail = |what: String| Err(format!("{what}: {sent}"));
        if sent.has(SYN) {
            return fail("a SYN from a table that keeps no SYNs".into());
        }
        if sent.has(RST) {
            return if sent.len > 0 { fail("data with a RST".into()) } else { Ok(()) };
        }
        if !sent.has(ACK) {
            return fail("neither RST nor ACK".into());
        }
        let most = self.in_order();
        if sent.ack > most + 1 || sent.ack == most + 1 && !self.fins.contains(&most) {
            return fail(format!("acknowledges what did not come (in order until {most}, FINs {:?})", self.fins));
        }
        if sent.ack < self.highest_ack {
            return fail(format!("takes back the acknowledgement of {}", self.highest_ack));
        }
        self.highest_ack = sent.ack;
        let edge = sent.ack + self.unscaled(sent.window, false);
        if edge < self.our_edge {
            return fail(format!("moves the window's right edge from {} back to {edge}", self.our_edge));
        }
        self.our_edge = edge;
        let right = sent.seq + i64::from(sent.len);
        let finished = sent.len == 0 && self.our_fin == Some(right);
        if sent.seq < 1 || right > 1 + asked as i64 && !finished {
            return fail(format!("sends other than the {asked} bytes that were asked for"));
        }
        // One byte beyond a closed window is a probe (RFC 9293, MUST-36).
        if sent.len > 0 && right > self.peer_edge.max(self.sent_edge) && !(sent.len == 1 && sent.seq == self.peer_edge)
        {
            return fail(format!("sends beyond the peer's window, which ends at {}", self.peer_edge));
        }
        self.sent_edge = self.sent_edge.max(right);
        if sent.has(FIN) {
            if sent.end() != 2 + asked as i64 || self.our_fin.is_some_and(|fin| fin != sent.end()) {
                return fail(format!("a FIN before all {asked} bytes, or another than before"));
            }
            self.our_fin = Some(sent.end());
        }
        if sent.len > 0 && self.our_fin.is_some_and(|fin| right > fin - 1) {
            return fail("data behind our FIN".into());
        }
        if sent.timestamps.is_some() != self.timestamps {
            return fail(format!("timestamps negotiated: {} (RFC 7323, 3.2)", self.timestamps));
        }
        self.check_sacks(sent).or_else(fail)
    }

    fn check_sacks(&self, sent: &Sent) -> Result<(), String> {
        if sent.sacks.is_empty() {
            return Ok(());
        }
        let most = if self.timestamps { 3 } else { 4 };
        if !self.sack_permitted || sent.sacks.len() > most {
            return Err(format!("{} blocks where {most} are the most", sent.sacks.len()));
        }
        for (place, &(left, right)) in sent.sacks.iter().enumerate() {
            let within = |pieces: &[(i64, i64)], right| pieces.iter().any(|&(from, to)| from <= left && right <= to);
            let fin = self.fins.contains(&(right - 1));
            let came = within(&self.pieces, right) || fin && within(&self.pieces, right - 1);
            let came = came || place == 0 && within(&self.before, right);
            if left >= right || !came {
                return Err(format!("block {left}:{right} names what did not come"));
            }
            // Only the first may speak of what is acknowledged or repeat another: then it is a D-SACK (RFC 2883).
            if place > 0 && left <= sent.ack {
                return Err(format!("block {left}:{right} is acknowledged"));
            }
        }
        let others = &sent.sacks[1..];
        for (place, one) in others.iter().enumerate() {
            if others[place + 1..].iter().any(|other| one.0 < other.1 && other.0 < one.1) {
                return Err("blocks overlap".into());
            }
        }
        Ok(())
    }
}
