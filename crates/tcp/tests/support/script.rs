//! Runs scripts: each case from several initial sequence numbers, without and with timestamps.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use irl_tcp::{Config, Flow, Options, Segment};
use irl_wire::packet::tcp_flags::{ACK, PSH, SYN};

use super::dialogue::{Dialogue, Event};
use super::grammar::{Case, Expected, Shape, Step, Sum, What, parse};
use super::machine::Machine;
use super::segments::{absolute, bytes_at, letters};
use super::{MS, SECOND};

/// Whose segments a script is about.
pub const FLOW: Flow = Flow { ours: 3, our_port: 61_234, theirs: 0x0a01_0203, their_port: 80 };

/// Ours and the peer's: in the middle, right below the wrap, right below the change of sign, and at zero.
const FIRST: [(u32, u32); 4] =
    [(1_000_000, 5_000_000), (u32::MAX - 70, u32::MAX - 150), (0x7fff_ff80, 0x7fff_fff0), (0, 0)];
/// Where the machine's clock stands when a script begins.
const START_NS: u64 = 5_000 * SECOND;
/// TSval counts from here, close below its wrap.
const OUR_STAMPS: u32 = u32::MAX - 100;
/// How much later than written a segment may come, and how much earlier: timers have a grain of 10 ms.
const LATE_NS: u64 = 12 * MS;
const EARLY_NS: u64 = 2 * MS;

/// Runs every case of a file, and panics with all that went wrong.
pub fn run(file: &str, text: &str) {
    let mut failures = Vec::new();
    let cases = parse(file, text);
    assert!(!cases.is_empty(), "{file} has no case");
    for case in &cases {
        'variants: for (ours, theirs) in FIRST {
            for timestamps in [false, true] {
                if if timestamps { case.timestamps } else { case.plain } {
                    let outcome = catch_unwind(AssertUnwindSafe(|| Run::new(case, ours, theirs, timestamps).go()));
                    let fault = match outcome {
                        Ok(Ok(())) => continue,
                        Ok(Err(fault)) => fault,
                        Err(_) => "a panic, see above".into(),
                    };
                    let variant = if timestamps { "timestamps" } else { "plain" };
                    failures
                        .push(format!("{file}, case {:?} ({variant}, from {ours} and {theirs}):\n{fault}", case.name));
                    break 'variants;
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failed\n\n{}\n", failures.len(), failures.join("\n\n"));
}

struct Run<'a> {
    case: &'a Case,
    machine: Machine<Dialogue>,
    ours: u32,
    theirs: u32,
    timestamps: bool,
    mss: i64,
    /// The shift of the windows that the peer writes.
    scale: u8,
    trace: String,
    /// Segments that are taken in with the next.
    held: Vec<(Segment, Vec<u8>)>,
    last_ns: u64,
    /// The TSval of ours that the peer saw last.
    seen_stamp: u32,
}

impl<'a> Run<'a> {
    fn new(case: &'a Case, ours: u32, theirs: u32, timestamps: bool) -> Self {
        let dialogue = Dialogue { stream: 7, ..Dialogue::default() };
        let config = config(case);
        let mut machine = Machine::new(config, START_NS, dialogue, |dialogue, _| dialogue.asked);
        machine.base = (ours, theirs);
        let seen_stamp = ((START_NS / 1000) as u32).wrapping_add(config.timestamp_offset.unwrap_or(0));
        let trace = String::new();
        let held = Vec::new();
        Self { case, machine, ours, theirs, timestamps, mss: 0, scale: 0, trace, held, last_ns: START_NS, seen_stamp }
    }

    fn go(mut self) -> Result<(), String> {
        for step in &self.case.steps {
            self.step(step).map_err(|fault| self.report(step, &fault))?;
        }
        let last = self.case.steps.last().expect("a case has steps");
        let end = |run: &mut Self| {
            run.nothing_more()?;
            run.machine.upper.events.front().map_or(Ok(()), |event| Err(format!("one event more: {event:?}")))
        };
        end(&mut self).map_err(|fault| self.report(last, &fault))
    }

    fn report(&self, step: &Step, fault: &str) -> String {
        let events: Vec<_> = self.machine.upper.events.iter().map(|(_, event)| event).collect();
        let trace = &self.trace;
        format!("line {}: {}\n  {fault}\n  events left: {events:?}\n  so far:\n{trace}", step.line, step.text)
    }

    fn sum(&self, sum: &Sum) -> i64 {
        sum.value(self.mss, self.machine.watches.get(&FLOW).map_or(0, |watch| watch.our_edge))
    }

    /// Brings out what the machine was seen to do wrong, whatever the script says.
    fn faults(&self) -> Result<(), String> {
        let faults = [&self.machine.faults[..], &self.machine.upper.faults[..]].concat();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("\n  ")) }
    }

    fn nothing_more(&mut self) -> Result<(), String> {
        self.faults()?;
        match self.machine.out.pop_front() {
            None => Ok(()),
            Some((_, sent)) => Err(format!("expected nothing, got {sent} at {}", seconds(sent.at_ns))),
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let at_ns = if step.time.relative { self.last_ns } else { START_NS } + step.time.ns;
        if !matches!(step.what, What::Plan(..) | What::Refuse) {
            self.last_ns = at_ns;
        }
        match &step.what {
            What::Refuse => self.machine.upper.refuses = true,
            What::Plan(moment, acts) => self.machine.upper.plans.push((*moment, acts.clone())),
            What::In { shape, held } => {
                self.pass(at_ns)?;
                for number in 0..shape.count {
                    let (segment, data) = self.segment(shape, i64::from(number));
                    self.held.push((segment, data));
                    if !held {
                        self.machine.receive_all(&std::mem::take(&mut self.held));
                    }
                }
            }
            What::Icmp(what, quoted) => {
                self.pass(at_ns)?;
                let quoted = absolute(self.sum(quoted), self.ours);
                let _ = writeln!(self.trace, "    {} icmp {what:?}", seconds(at_ns));
                self.machine.icmp(FLOW, quoted, *what);
            }
            What::Quiet => self.pass(at_ns)?,
            What::Gone | What::Live => {
                self.pass(at_ns)?;
                let live = self.machine.clients.len();
                if (live == 0) != matches!(step.what, What::Gone) {
                    return Err(format!("the table has {live} connections"));
                }
            }
            What::ResetAll => {
                self.pass(at_ns)?;
                self.machine.clients.reset_all(at_ns, &mut self.machine.upper);
                self.machine.drain();
            }
            What::Event(expected) => {
                self.wait(at_ns + step.time.tolerance_ns + LATE_NS, |machine| !machine.upper.events.is_empty());
                self.event(expected, at_ns, step.time.tolerance_ns)?;
            }
            What::Out { shape, optional } => {
                self.wait(at_ns + step.time.tolerance_ns + LATE_NS, |machine| !machine.out.is_empty());
                for number in 0..shape.count {
                    match self.outgoing(shape, i64::from(number), at_ns, step.time.tolerance_ns) {
                        Err(_) if *optional => {}
                        outcome => outcome?,
                    }
                }
            }
        }
        self.faults()
    }

    /// Goes to a time, until which nothing may be sent.
    fn pass(&mut self, at_ns: u64) -> Result<(), String> {
        if at_ns > self.machine.now_ns {
            self.machine.advance_to(at_ns);
        }
        self.nothing_more()
    }

    /// Goes on until something is there, and no further than the last of its time.
    fn wait(&mut self, until_ns: u64, there: fn(&Machine<Dialogue>) -> bool) {
        while !there(&self.machine)
            && let Some(next) = self.machine.clients.next_expiry_ns()
            && next <= until_ns
        {
            let at_ns = self.machine.now_ns.max(next);
            self.machine.advance_to(at_ns);
        }
    }

    /// The segment that a line writes, or one of the row of them.
    fn segment(&mut self, shape: &Shape, number: i64) -> (Segment, Vec<u8>) {
        let len = self.sum(&shape.len);
        let seq = shape.seq.map_or(0, |seq| self.sum(&seq)) + number * len;
        let data = if len > 0 { bytes_at(7, seq.max(1) as u64 - 1, len as usize) } else { Vec::new() };
        let syn = shape.flags & SYN != 0;
        if syn && self.mss == 0 {
            let (config, v6) = (&self.machine.config, self.machine.config.v6);
            let least = if v6 { 1220 } else { 536 };
            let own = i64::from(config.mtu) - if v6 { 60 } else { 40 };
            self.mss = own.min(i64::from(shape.mss.unwrap_or(least))) - if self.timestamps { 12 } else { 0 };
            self.scale = shape.window_scale.filter(|_| config.window_scale.is_some()).unwrap_or(0).min(14);
        }
        let window = shape.window.map_or(65_535, |(window, _)| self.sum(&window)) >> if syn { 0 } else { self.scale };
        let mut options = Options {
            mss: shape.mss,
            window_scale: shape.window_scale,
            sack_permitted: shape.sack_permitted,
            ..Options::default()
        };
        if self.timestamps && !shape.no_timestamps {
            let now_ms = (self.machine.now_ns - START_NS) / MS;
            options.timestamps = Some((stamp(shape.timestamp.unwrap_or(now_ms as i64)), self.seen_stamp));
        }
        for (left, right) in &shape.sacks {
            options.sacks.push(absolute(self.sum(left), self.ours), absolute(self.sum(right), self.ours));
        }
        let segment = Segment {
            flow: FLOW,
            seq: absolute(seq, self.theirs),
            ack: shape.ack.map_or(0, |ack| absolute(self.sum(&ack), self.ours)),
            flags: shape.flags,
            window: window.clamp(0, 65_535) as u16,
            options,
        };
        let _ = writeln!(
            self.trace,
            "    {} < {} {seq}({len}) ack {:?} win {window}",
            seconds(self.machine.now_ns),
            letters(shape.flags),
            shape.ack.map(|ack| self.sum(&ack))
        );
        (segment, data)
    }

    fn outgoing(&mut self, shape: &Shape, number: i64, at_ns: u64, tolerance_ns: u64) -> Result<(), String> {
        let Some((_, sent)) = self.machine.out.front().cloned() else {
            return Err("expected a segment, got none".into());
        };
        let fail = |what: &str| Err(format!("{what}: got {sent} at {}", seconds(sent.at_ns)));
        if sent.at_ns + EARLY_NS < at_ns || sent.at_ns > at_ns + tolerance_ns + LATE_NS {
            return fail("at another time");
        }
        // PSH has to be where it is written; elsewhere it may.
        if sent.flags | PSH != shape.flags | PSH || (shape.flags & PSH != 0 && !sent.has(PSH)) {
            return fail("other flags");
        }
        let len = self.sum(&shape.len);
        let elsewhere = shape.seq.is_some_and(|seq| sent.seq != self.sum(&seq) + number * len);
        if elsewhere || i64::from(sent.len) != len {
            return fail("other data");
        }
        if sent.has(ACK) && shape.ack.is_some_and(|ack| sent.ack != self.sum(&ack)) {
            return fail("another acknowledgement");
        }
        if let Some((least, most)) = &shape.window {
            let window = self.machine.watches.get(&FLOW).map_or(0, |watch| watch.unscaled(sent.window, false));
            if !(self.sum(least)..=self.sum(most)).contains(&window) {
                return fail(&format!("another window ({window})"));
            }
        }
        let sacks: Vec<_> = shape.sacks.iter().map(|(left, right)| (self.sum(left), self.sum(right))).collect();
        if sent.sacks != sacks {
            return fail("other SACK blocks");
        }
        if let Some((value, echo)) = sent.timestamps {
            let clock = ((sent.at_ns / 1000) as u32).wrapping_add(OUR_STAMPS);
            if value.wrapping_sub(clock).cast_signed().abs() > 2_000 {
                return fail(&format!("a TSval that is not the time ({clock})"));
            }
            if shape.timestamp.is_some_and(|wanted| stamp(wanted) != echo) {
                return fail("another TSecr");
            }
            self.seen_stamp = value;
        }
        let _ = writeln!(self.trace, "    {} > {sent}", seconds(sent.at_ns));
        self.machine.out.pop_front();
        Ok(())
    }

    fn event(&mut self, expected: &Expected, at_ns: u64, tolerance_ns: u64) -> Result<(), String> {
        let mut bytes = if let Expected::Data(sum) = expected { self.sum(sum) } else { 0 };
        loop {
            let Some(&(came_ns, event)) = self.machine.upper.events.front() else {
                return Err(format!("expected {expected:?}, got nothing"));
            };
            let right = match (*expected, event) {
                (Expected::Connect, Event::Connect)
                | (Expected::Finish, Event::Finish)
                | (Expected::Timeout, Event::Timeout) => true,
                (Expected::Close(wanted), Event::Close(why)) => wanted == why,
                (Expected::Data(_), Event::Data(more)) => {
                    bytes -= more as i64;
                    bytes >= 0
                }
                _ => false,
            };
            if !right || came_ns + EARLY_NS < at_ns || came_ns > at_ns + tolerance_ns + LATE_NS {
                return Err(format!("expected {expected:?}, got {event:?} at {}", seconds(came_ns)));
            }
            let _ = writeln!(self.trace, "    {} event {event:?}", seconds(came_ns));
            self.machine.upper.events.pop_front();
            if bytes == 0 {
                return Ok(());
            }
        }
    }
}

/// The peer's clock of timestamps, so many milliseconds after the start: it wraps early.
fn stamp(ms: i64) -> u32 {
    absolute(ms, u32::MAX - 20)
}

fn seconds(ns: u64) -> String {
    format!("{:.4}", (ns.cast_signed() - START_NS.cast_signed()) as f64 / 1e9)
}

fn config(case: &Case) -> Config {
    let mut config = Config { tail_loss_probe: false, ..Config::new([1, 2], false, OUR_STAMPS) };
    for (field, value) in &case.settings {
        let value = *value;
        match &field[..] {
            "v6" => config.v6 = value != 0,
            "mtu" => config.mtu = value as u16,
            "window" => config.window = value as u32,
            "min_rto" => config.min_rto = value as u32,
            "tail_loss_probe" => config.tail_loss_probe = value != 0,
            "max_retransmits" => config.max_retransmits = value as u8,
            "delayed_ack" => config.delayed_ack = value as u32,
            "linger" => config.linger = value as u32,
            "patience" => config.patience = value as u32,
            "max_connections" => config.max_connections = value as usize,
            "max_buffered" => config.max_buffered = value as usize,
            "no_sack" => config.sack_permitted = false,
            _ => panic!("case {:?} sets {field}, which is no field of Config", case.name),
        }
    }
    config
}
