//! One table of connections in virtual time, watched.

use std::collections::{HashMap, VecDeque};

use irl_tcp::{Batch, Clients, Config, Flow, IcmpError, Outgoing, Segment, Upper};
use irl_wire::packet::tcp_flags::{ACK, RST, SYN};

use super::segments::{Sent, relative};
use super::watch::Watch;

/// The table, its owner, and what has come out of it.
pub struct Machine<U: Upper<State = u64>> {
    pub clients: Clients<U>,
    pub upper: U,
    pub config: Config,
    pub now_ns: u64,
    pub out: VecDeque<(Flow, Sent)>,
    /// The same as the table gave them out.
    pub raw: VecDeque<(Flow, Outgoing<u64>)>,
    pub watches: HashMap<Flow, Watch>,
    /// How much each connection may have asked to send: what [`Watch::check`] is told.
    pub asked: fn(&U, Flow) -> u64,
    /// How often a timer made it do something.
    pub fired: usize,
    /// What should never be, in words.
    pub faults: Vec<String>,
    /// What sequence numbers of flows without a watch count from.
    pub base: (u32, u32),
    batch: Batch,
}

impl<U: Upper<State = u64>> Machine<U> {
    pub fn new(config: Config, now_ns: u64, upper: U, asked: fn(&U, Flow) -> u64) -> Self {
        Self {
            clients: Clients::new(config, now_ns),
            upper,
            config,
            now_ns,
            out: VecDeque::new(),
            raw: VecDeque::new(),
            watches: HashMap::new(),
            asked,
            fired: 0,
            faults: Vec::new(),
            base: (0, 0),
            batch: Batch::new(),
        }
    }

    /// Takes in one segment, and lets out what it causes.
    pub fn receive(&mut self, segment: Segment, data: &[u8]) {
        self.receive_all(&[(segment, data.to_vec())]);
    }

    /// Takes in segments as one batch, and lets out what they cause. (As two, where a second SYN-ACK for the same flow
    /// might be the one that is accepted: its numbers are what the watch needs.)
    pub fn receive_all(&mut self, segments: &[(Segment, Vec<u8>)]) {
        let mut opened = Vec::new();
        for (segment, data) in segments {
            let synack = segment.flags & (SYN | ACK | RST) == SYN | ACK;
            if synack && opened.contains(&segment.flow) {
                self.flush();
                opened.clear();
            }
            if synack && !self.clients.contains(&segment.flow) {
                opened.push(segment.flow);
                let (scale, window) = (self.config.window_scale, self.config.syn_window);
                let timestamps = self.config.timestamp_offset.is_some();
                self.watches.insert(segment.flow, Watch::new(segment, scale, window, timestamps));
            }
            if let Some(watch) = self.watches.get_mut(&segment.flow) {
                watch.received(segment, data.len());
            }
            self.batch.push(*segment, data);
        }
        self.flush();
    }

    fn flush(&mut self) {
        let (before, count) = (self.out.len(), self.batch.len());
        self.clients.receive(self.now_ns, &mut self.batch, &mut self.upper);
        if !self.batch.is_empty() {
            self.faults.push("a batch that was taken in is not empty".into());
        }
        let live = self.clients.len();
        self.drain();
        if live == 0 && self.out.len() - before > count {
            self.faults.push(format!("{count} segments to nobody drew {} answers", self.out.len() - before));
        }
    }

    pub fn icmp(&mut self, flow: Flow, quoted_seq: u32, what: IcmpError) {
        self.clients.icmp(self.now_ns, flow, quoted_seq, what, &mut self.upper);
        self.drain();
    }

    /// Lets time pass, and each timer fire when it wants to.
    pub fn advance_to(&mut self, until_ns: u64) {
        let mut turns = 0;
        while let Some(at) = self.clients.next_expiry_ns()
            && at <= until_ns
        {
            turns = if at <= self.now_ns { turns + 1 } else { 0 };
            assert!(turns < 1000, "the timer at {at} ns does not go away: it is {} ns", self.now_ns);
            self.now_ns = self.now_ns.max(at);
            self.clients.expire(self.now_ns, &mut self.upper);
            self.fired += 1;
            self.drain();
        }
        self.now_ns = until_ns;
    }

    /// Takes out all that wants to be sent, and checks it.
    pub fn drain(&mut self) {
        let mut count = 0;
        while let Some(out) = self.clients.transmit(self.now_ns) {
            let watch = self.watches.get_mut(&out.flow);
            let (ours, theirs) = watch.as_ref().map_or(self.base, |watch| (watch.ours, watch.theirs));
            let sent = Sent::read(&out, self.now_ns, ours, theirs);
            if let Some(watch) = watch {
                let asked = (self.asked)(&self.upper, out.flow);
                if let Err(fault) = watch.check(&sent, asked) {
                    self.faults.push(fault);
                }
            }
            let place = u64::from(out.offset) as i64 + 1;
            if sent.len > 0 && place != relative(out.seq, ours) {
                self.faults.push(format!("bytes from offset {} go out as {sent}", out.offset));
            }
            self.out.push_back((out.flow, sent));
            self.raw.push_back((out.flow, out));
            count += 1;
            assert!(count < 100_000, "output without an end");
        }
        if self.clients.has_output() {
            self.faults.push("has_output() when transmit() has nothing".into());
        }
        // Whoever lives waits for something, and so is in a queue of timers.
        if !self.clients.is_empty() && self.clients.next_expiry_ns().is_none() {
            self.faults.push(format!("{} connections, and no timer", self.clients.len()));
        }
    }
}
