//! Segments without sense: what a stranger, a broken peer or an attacker may send, and an owner that does anything.

use std::collections::HashMap;

use irl_tcp::{Call, Close, Config, Ended, Flow, IcmpError, Options, Segment, Upper};
use irl_wire::packet::tcp_flags::{ACK, RST, SYN};

use super::machine::Machine;
use super::random::Random;
use super::segments::{Sent, absolute, byte_at, bytes_at, letters, relative};
use super::{MS, SECOND};

/// One connection of the owner's.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    received: u64,
    asked: u64,
    live: bool,
    finished: bool,
}

/// An owner that draws what it does, and keeps account of what it is told.
#[derive(Debug)]
pub struct Wild {
    random: Random,
    known: HashMap<Flow, Known>,
    pub opened: u64,
    pub closed: u64,
    pub faults: Vec<String>,
}

impl Wild {
    pub fn new(random: Random) -> Self {
        Self { random, known: HashMap::new(), opened: 0, closed: 0, faults: Vec::new() }
    }

    pub fn asked(&self, flow: Flow) -> u64 {
        self.known.get(&flow).map_or(0, |known| known.asked)
    }

    fn fault(&mut self, flow: Flow, what: &str) {
        self.faults.push(format!("{flow:?}: {what}"));
    }

    fn anything(&mut self, call: &mut Call<'_, u64>) {
        let flow = call.flow();
        if !self.known.get(&flow).is_some_and(|known| known.live) {
            self.fault(flow, "a call without a connection");
        }
        for _ in 0..self.random.below(3) {
            match self.random.below(8) {
                0..3 => {
                    let bytes = self.random.pick(&[0, 1, 100, 1460, 1461, 20_000]);
                    let taken = u64::from(call.send(bytes));
                    self.known.entry(flow).or_default().asked += taken;
                }
                3 => call.close(Close::Finish),
                4 if self.random.percent(30) => call.close(Close::Reset),
                5 => call.limit(self.random.pick(&[0, 1, 1000, 100_000])),
                _ => call.within(self.random.pick(&[0, 1, 100, 5000, 60_000])),
            }
        }
    }
}

impl Upper for Wild {
    type State = u64;

    fn accepts(&mut self, synack: &Segment, _now_ns: u64) -> Option<u64> {
        if self.known.get(&synack.flow).is_some_and(|known| known.live) {
            self.fault(synack.flow, "asked for a second connection");
        }
        if self.random.percent(5) {
            return None;
        }
        self.opened += 1;
        self.known.insert(synack.flow, Known { live: true, ..Known::default() });
        Some(u64::from(synack.flow.our_port))
    }

    fn on_connect(&mut self, call: &mut Call<'_, u64>) {
        self.anything(call);
    }

    fn on_data(&mut self, call: &mut Call<'_, u64>, data: &[u8]) {
        let flow = call.flow();
        let known = self.known.entry(flow).or_default();
        let (offset, stream) = (known.received, u64::from(flow.our_port));
        known.received += data.len() as u64;
        let finished = known.finished;
        if data.is_empty() || finished || u64::from(call.received()) != offset + data.len() as u64 {
            self.fault(flow, "no data, or data behind the end, or a wrong count");
        }
        if let Some(at) = (0..data.len()).find(|at| data[*at] != byte_at(stream, offset + *at as u64)) {
            self.fault(flow, &format!("byte {} is wrong", offset + at as u64));
        }
        self.anything(call);
    }

    fn on_finish(&mut self, call: &mut Call<'_, u64>) {
        let flow = call.flow();
        let known = self.known.entry(flow).or_default();
        if std::mem::replace(&mut known.finished, true) {
            self.fault(flow, "a second finish");
        }
        self.anything(call);
    }

    fn on_timeout(&mut self, call: &mut Call<'_, u64>) {
        self.anything(call);
    }

    fn on_close(&mut self, ended: &Ended<'_, u64>) {
        self.closed += 1;
        let known = self.known.entry(ended.flow).or_default();
        let received = known.received;
        if !std::mem::replace(&mut known.live, false) {
            self.fault(ended.flow, "an end without a connection");
        }
        if u64::from(ended.received) != received {
            self.fault(ended.flow, "an end that speaks of other data");
        }
    }
}

/// What a step is drawn from: any numbers make a step.
pub type Step = [u32; 6];

/// A table, its owner, and a stranger.
pub struct Scene {
    pub machine: Machine<Wild>,
    ours: u32,
    theirs: u32,
    taken_in: usize,
    turns: usize,
    /// What was taken in, with how much had gone out before.
    log: Vec<(usize, Segment, usize)>,
}

impl Scene {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut config = Config::new([random.next(), random.next()], random.percent(30), random.next() as u32);
        if random.percent(40) {
            config.timestamp_offset = None;
        }
        if random.percent(20) {
            config.window_scale = None;
        }
        config.sack_permitted = !random.percent(20);
        config.window = random.pick(&[1, 1000, 65_535, 256 << 10, u32::MAX]);
        config.max_connections = random.pick(&[1, 2, 100]);
        config.max_buffered = random.pick(&[0, 3000, 1 << 20]);
        config.max_retransmits = random.pick(&[0, 1, 3, 7]);
        config.min_rto = random.pick(&[0, 1, 200, 1000]);
        config.tail_loss_probe = random.percent(70);
        config.delayed_ack = random.pick(&[0, 1, 40, 499]);
        config.linger = random.pick(&[0, 1, 10_000]);
        config.patience = random.pick(&[1, 1000, 300_000]);
        config.mtu = random.pick(&[1500, 576, 1280, 9000, 65_535]);
        // The time in ms since the table was made is kept in 32 bits.
        let start_ns = random.pick(&[0, 999_999, 3600 * SECOND, u64::from(u32::MAX) * MS - 3 * SECOND]);
        let (ours, theirs) = (random.pick(&[0, 1, 7_000_000, u32::MAX - 10]), random.pick(&[0, 9, u32::MAX - 2000]));
        let machine = Machine::new(config, start_ns, Wild::new(random), |wild, flow| wild.asked(flow));
        Self { machine, ours, theirs, taken_in: 0, turns: 0, log: Vec::new() }
    }

    fn flow(&self, pick: u32) -> Flow {
        let theirs = 0x0a00_0001 + u128::from(pick % 3);
        Flow { ours: 0, our_port: 50_000 + (pick % 3) as u16, theirs, their_port: 80 }
    }

    /// One step, whatever the numbers.
    pub fn step(&mut self, step: Step) {
        let [kind, pick, place, size, extra, more] = step;
        self.turns += 1;
        match kind % 20 {
            0 | 1 => {
                let span = [MS, 10 * MS, 45 * MS, SECOND, 20 * SECOND, 400 * SECOND][place as usize % 6];
                let until_ns = self.machine.now_ns + span;
                self.machine.advance_to(until_ns);
            }
            2 => {
                let what = match extra % 3 {
                    0 => IcmpError::Soft,
                    1 => IcmpError::Hard,
                    _ => IcmpError::TooBig(size as u16),
                };
                let quoted = self.number(place, more, self.ours, 1);
                self.machine.icmp(self.flow(pick), quoted, what);
            }
            3 if extra % 16 == 0 => {
                let now_ns = self.machine.now_ns;
                self.machine.clients.reset_all(now_ns, &mut self.machine.upper);
                self.machine.drain();
                if !self.machine.clients.is_empty() {
                    self.machine.faults.push("a connection outlived reset_all".into());
                }
            }
            3..7 => self.take_in(&[self.synack(pick, size, extra, more)]),
            7..10 => {
                // A row of segments as one batch; without SYN, so that no connection begins in the middle.
                let row: Vec<_> = (0..1 + size % 5)
                    .map(|number| {
                        self.segment(
                            pick.wrapping_add(number),
                            place.rotate_left(number * 5),
                            size,
                            extra,
                            more ^ number,
                        )
                    })
                    .filter(|(segment, _)| segment.flags & SYN == 0)
                    .collect();
                self.take_in(&row);
            }
            _ => {
                let one = self.segment(pick, place, size, extra, more);
                let opens = one.0.flags & (SYN | ACK | RST) == SYN | ACK;
                if !opens || self.machine.clients.contains(&one.0.flow) {
                    self.take_in(&[one]);
                }
            }
        }
    }

    fn take_in(&mut self, segments: &[(Segment, Vec<u8>)]) {
        self.taken_in += segments.len();
        let before = self.machine.out.len();
        self.log.extend(segments.iter().map(|(segment, data)| (before, *segment, data.len())));
        self.machine.receive_all(segments);
    }

    fn synack(&self, pick: u32, size: u32, extra: u32, more: u32) -> (Segment, Vec<u8>) {
        let timestamps = (!extra.is_multiple_of(3)).then_some((more, size));
        let options = Options {
            mss: (!extra.is_multiple_of(5)).then_some([1460, 536, 0, 1, 65_535][size as usize % 5]),
            window_scale: (!extra.is_multiple_of(7)).then_some((more % 20) as u8),
            sack_permitted: !extra.is_multiple_of(11),
            timestamps,
            ..Options::default()
        };
        let window = [65_535, 0, 1, 1000][more as usize % 4];
        let flags = SYN | ACK;
        let (flow, seq, ack) = (self.flow(pick), self.theirs, self.ours.wrapping_add(1));
        (Segment { flow, seq, ack, flags, window, options }, Vec::new())
    }

    /// A number near something that matters, or anywhere.
    fn number(&self, place: u32, more: u32, base: u32, next: i64) -> u32 {
        let near = i64::from(more % 7) - 3;
        match place % 8 {
            0..4 => absolute(next, base),
            4 => absolute(next + near, base),
            5 => absolute(next + i64::from(more % 5000), base),
            6 => absolute(next - i64::from(more % 5000), base),
            _ => more,
        }
    }

    fn segment(&self, pick: u32, place: u32, size: u32, extra: u32, more: u32) -> (Segment, Vec<u8>) {
        let flow = self.flow(pick);
        let watch = self.machine.watches.get(&flow);
        let (ours, theirs) = watch.map_or((self.ours, self.theirs), |watch| (watch.ours, watch.theirs));
        let next = watch.map_or(1, |watch| match place >> 16 & 7 {
            0 => watch.our_edge,
            1 => watch.our_edge - 1,
            _ => watch.highest_ack,
        });
        let seq = self.number(place, more, theirs, next);
        let sent = watch.map_or(1, |watch| watch.sent_edge);
        let ack = self.number(place >> 4, more.rotate_left(7), ours, sent);
        let flags = match extra % 10 {
            0 => extra.rotate_left(9) as u8,
            1 => RST,
            2 => ACK | 1,
            3 => SYN | ACK,
            _ => ACK,
        };
        let len = [0, 0, 1, 10, 1448, 3000][size as usize % 6];
        let mut options = Options {
            timestamps: (!extra.is_multiple_of(13)).then_some((self.stamp(more), ours.wrapping_add(size))),
            ..Options::default()
        };
        for block in 0..more % 5 {
            let left = self.number(more.rotate_left(block), size ^ block, ours, 1 + i64::from(block) * 1500);
            options.sacks.push(left, left.wrapping_add(size % 3000));
        }
        // Its bytes are those of the stream, so that whatever is taken of it can be checked; before the stream is nothing.
        let start = i64::from(seq.wrapping_sub(theirs).cast_signed()) - 1;
        let data = bytes_at(u64::from(flow.our_port), start.max(0) as u64, len);
        let data = if start < 0 { data[..0].to_vec() } else { data };
        let window = [65_535, 0, 1, 1000][size.rotate_left(5) as usize % 4];
        (Segment { flow, seq, ack, flags, window, options }, data)
    }

    /// Mostly a clock that goes on, now and then one that jumps.
    fn stamp(&self, more: u32) -> u32 {
        let clock = (self.machine.now_ns / MS) as u32;
        if more.is_multiple_of(9) { more } else { clock.wrapping_add(0x8000_0000) }
    }

    /// Long silence; then nothing may be left. Says everything that was wrong.
    pub fn end(mut self) -> Result<(), String> {
        let mut faults = Vec::new();
        for _ in 0..200 {
            if self.machine.clients.is_empty() {
                break;
            }
            let until_ns = self.machine.now_ns + 400 * SECOND;
            self.machine.advance_to(until_ns);
        }
        let story = self.story();
        let Self { machine, taken_in, turns, .. } = self;
        let left = machine.clients.len();
        if left > 0 || machine.clients.next_expiry_ns().is_some() || machine.upper.opened != machine.upper.closed {
            faults.push(format!("{left} connections are left after long silence"));
        }
        // No amplification: whoever sends a segment gets one without data at the most, time apart.
        let bare = machine.out.iter().filter(|(_, sent)| sent.len == 0 && sent.flags & (SYN | 1) == 0).count();
        let most = taken_in + turns + machine.fired + machine.upper.opened as usize;
        if bare > most {
            faults.push(format!("{bare} segments without data for {taken_in} taken in"));
        }
        faults.extend(machine.faults.iter().take(3).cloned());
        faults.extend(machine.upper.faults.iter().take(3).cloned());
        if faults.is_empty() { Ok(()) } else { Err(format!("{}\n{:?}\n{story}", faults.join("\n"), machine.config)) }
    }

    /// What went in and out, for whoever has to find the fault.
    fn story(&self) -> String {
        let mut out = self.machine.out.iter().enumerate().peekable();
        let mut lines = Vec::new();
        let sent = |(_, (flow, sent)): (usize, &(Flow, Sent))| format!("  {} {} > {sent}", sent.at_ns, flow.our_port);
        for (before, segment, len) in &self.log {
            while let Some(one) = out.next_if(|(at, _)| at < before) {
                lines.push(sent(one));
            }
            let watch = self.machine.watches.get(&segment.flow);
            let (ours, theirs) = watch.map_or(self.machine.base, |watch| (watch.ours, watch.theirs));
            let (seq, ack) = (relative(segment.seq, theirs), relative(segment.ack, ours));
            let (flags, options) = (letters(segment.flags), segment.options);
            let window = segment.window;
            let port = segment.flow.our_port;
            lines.push(format!("  {port} < {flags} {seq}({len}) ack {ack} win {window} {options:?}"));
        }
        lines.extend(out.map(sent));
        lines.join("\n")
    }
}
