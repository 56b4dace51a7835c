//! What an answer means: whose it is, which class, whether it is the first, and whether it becomes a row.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use arrow_array::RecordBatch;
use irl_link::record::{Kind, Record, flags, options};
use irl_link::{Gate, LinkError};
use irl_targets::{CompiledPlan, Family, Target};
use irl_wire::packet::{Ethernet, Packet, Udp};
use irl_wire::probe::AnswerClass;
use irl_wire::{Mac, PortRange};

use crate::answers::{Answers, Here, Ours};
use crate::checkpoint::Marks;
use crate::columns::payload;
use crate::fields::{plain, u16_at, u32_at, u128_at};
use crate::filter::Filter;
use crate::passes;
use crate::rows::{Class, Icmp, Row, RowBuilder, TcpOptions};
use crate::scan::{RowSelection, ScanConfig};
use crate::schema::Column;
use crate::shared::Shared;
use crate::stats::WorkerCounters;
use crate::whole::Whole;

/// RSTs that wait for room in the device's queue; no more are owed.
const RESETS: usize = 65_536;
/// Answers that are settled together: their places in the answered map are fetched at the same time.
const TOGETHER: usize = 32;
/// Their protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A RST that we owe.
struct Reset {
    builder: usize,
    hop: Mac,
    target: Target,
    source_port: u16,
    seq: u32,
}

/// What was counted of the answers that are settled together.
#[derive(Default)]
struct Tally {
    answered: u64,
    successes: u64,
    found: u64,
    cooldown_successes: u64,
    cooldown_found: u64,
    rows: u64,
    repeats: u64,
    unselected: u64,
    resets_skipped: u64,
    crossed: u64,
    /// Answers of the sample that is probed again at the end: of those found before, and of those found by it.
    again: u64,
    found_now: u64,
}

impl Tally {
    fn add_to(&self, counters: &WorkerCounters) {
        for (counter, by) in [
            (&counters.answered, self.answered),
            (&counters.successes, self.successes),
            (&counters.found, self.found),
            (&counters.cooldown_successes, self.cooldown_successes),
            (&counters.cooldown_found, self.cooldown_found),
            (&counters.rows, self.rows),
            (&counters.repeats, self.repeats),
            (&counters.unselected, self.unselected),
            (&counters.resets_skipped, self.resets_skipped),
            (&counters.crossed, self.crossed),
            (&counters.recheck_found_again, self.again),
            (&counters.recheck_others_found, self.found_now),
        ] {
            WorkerCounters::add(counter, by);
        }
    }
}

/// What an answer means.
pub(crate) struct Judge {
    family: Family,
    ports: PortRange,
    probes: u16,
    /// The number of the probe that a sample gets again at the end, if there is one.
    recheck: Option<u16>,
    /// Found targets, and by which of their probes, where that tells something of losses.
    found: Vec<(u64, u16)>,
    plan: CompiledPlan,
    ours: Ours,
    /// For a probe whose answers are known by match rules.
    whole: Option<Whole>,
    selection: RowSelection,
    filter: Option<Filter>,
    /// Names of the probe's own classes, for it.
    classes: Vec<String>,
    /// Whether the payload of echo replies is wanted.
    echoes: bool,
    reset: bool,
    rows: RowBuilder,
    /// Answers that were read and not settled, and their payloads.
    answers: Vec<Row>,
    data: Vec<u8>,
    resets: VecDeque<Reset>,
    utc_minus_mono: i64,
    knows_rtt: bool,
    /// What a checkpoint wants to know, if there is one.
    marks: Option<Marks>,
}

impl Answers for Judge {
    const SAME_PORT: bool = false;

    fn take(&mut self, record: Record<'_>, here: &Here<'_>) {
        let counters = here.counters;
        if record.flags & (flags::COOKIE | flags::CLASS_MASK) == 0 {
            return WorkerCounters::add(&counters.not_ours, 1);
        }
        let mut row = Row { timestamp: self.utc_minus_mono.wrapping_add(record.time_ns as i64), ..Row::default() };
        let Some(data) = self.read(&mut row, record) else {
            return WorkerCounters::add(&counters.invalid, 1);
        };
        let Some(slot) = self.plan.slot_of(Target { address: row.saddr, port: row.sport }) else {
            return WorkerCounters::add(&counters.not_ours, 1);
        };
        here.shared.map.prefetch(slot);
        row.slot = slot;
        row.rtt = row.rtt.filter(|_| self.knows_rtt);
        row.data = data.map(|data| {
            let start = self.data.len();
            self.data.extend_from_slice(data);
            (start, self.data.len())
        });
        self.answers.push(row);
        if self.answers.len() >= TOGETHER {
            self.settle(here);
        }
    }

    /// Whether each answer is the first, whether a RST is due, whether it is a row.
    fn settle(&mut self, here: &Here<'_>) {
        if self.answers.is_empty() {
            return;
        }
        let mut answers = std::mem::take(&mut self.answers);
        let mut tally = Tally::default();
        answers.retain_mut(|row| self.becomes_row(row, here.shared, &mut tally, here.cooling));
        tally.rows = answers.len() as u64;
        if let Some(sample) = &here.shared.sample {
            sample.note(self.found.drain(..));
        }
        tally.add_to(here.counters);
        self.rows.append(&answers, &self.data);
        answers.clear();
        self.answers = answers;
        self.data.clear();
    }

    fn send(&mut self, gate: &mut Gate, _: &Here<'_>) -> Result<u64, LinkError> {
        let mut sent = 0;
        while !self.resets.is_empty() {
            let Self { resets, ours, .. } = self;
            let builders = &ours.builders;
            let filled = gate.reset(resets.len(), builders[0].reset_len(), |slot| {
                let Reset { builder, hop, target, source_port, seq } = resets.pop_front()?;
                Some(builders[builder].build_reset(slot, hop, target.address, target.port, source_port, seq))
            })?;
            if filled.built == 0 {
                break;
            }
            sent += filled.built as u64;
        }
        Ok(sent)
    }

    fn owes(&self) -> bool {
        !self.resets.is_empty()
    }

    fn heard(&self, here: &Here<'_>) -> u64 {
        here.counters.received.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    fn rows(&mut self) -> Option<RecordBatch> {
        (!self.rows.is_empty()).then(|| self.rows.take())
    }

    fn marks(&mut self) -> Marks {
        self.marks.as_mut().map(Marks::take).unwrap_or_default()
    }

    fn end(&mut self, _: &mut Gate, here: &Here<'_>) -> Result<(), LinkError> {
        WorkerCounters::add(&here.counters.resets_skipped, self.resets.len() as u64);
        Ok(())
    }
}

impl Judge {
    /// The judge of a worker that has these addresses.
    pub(crate) fn new(config: &ScanConfig, classes: &[AnswerClass], ours: Ours, shared: &Shared) -> Self {
        let ports = config.plan.source_ports;
        let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
        Self {
            family: config.plan.family,
            ports: PortRange { first: ports.first, last: ports.last },
            probes: passes::numbers(config),
            recheck: config.recheck.map(|_| passes::numbers(config) - 1),
            found: Vec::new(),
            plan: config.compiled.clone(),
            ours,
            whole: (!classes.is_empty()).then(|| Whole::new(classes, config.plan.family)),
            selection: config.rows,
            filter: config.filter.clone(),
            classes: classes.iter().map(|class| class.name.clone()).collect(),
            echoes: config.columns.contains(&Column::Data),
            reset: config.reset,
            rows: RowBuilder::new(config.plan.family, &config.columns, &names),
            answers: Vec::new(),
            data: Vec::new(),
            resets: VecDeque::new(),
            utc_minus_mono: shared.utc_minus_mono(),
            knows_rtt: shared.knows_rtt(),
            marks: config.checkpointed.then(Marks::default),
        }
    }

    fn becomes_row(&mut self, row: &mut Row, shared: &Shared, tally: &mut Tally, cooling: bool) -> bool {
        let success = row.class.success();
        let before = shared.map.mark(row.slot, success);
        row.cooldown = cooling;
        // A target is found by its first success, whatever else was heard of it before.
        row.repeat = if success { before.succeeded } else { before.answered };
        if let Some(marks) = &mut self.marks
            && !row.repeat
        {
            marks.push(row.slot, success);
        }
        if row.class == Class::SynAck && self.reset && !self.owe(row) {
            tally.resets_skipped += 1;
        }
        tally.crossed += u64::from(row.builder >= self.ours.here);
        tally.answered += u64::from(!before.answered);
        if success {
            tally.successes += 1;
            tally.found += u64::from(!row.repeat);
            if shared.sample.is_some() {
                self.found.push((row.slot, row.probe_num));
            }
            if self.recheck == Some(row.probe_num) && shared.heard.first(row.slot, row.repeat) {
                *(if row.repeat { &mut tally.again } else { &mut tally.found_now }) += 1;
            }
            if cooling {
                tally.cooldown_successes += 1;
                tally.cooldown_found += u64::from(!row.repeat);
            }
        }
        let selected = match (&self.filter, self.selection) {
            (Some(filter), _) => filter.wants(row, &self.classes, payload(&self.data, row.data)),
            (None, RowSelection::All) => true,
            (None, RowSelection::Successes) => success,
            (None, RowSelection::Success) => success && !row.repeat,
        };
        if selected && shared.results.take() {
            return true;
        }
        tally.repeats += u64::from(row.repeat);
        tally.unselected += u64::from(!row.repeat);
        false
    }

    /// Notes down that a RST is due; `false` when it cannot be sent.
    fn owe(&mut self, row: &Row) -> bool {
        if row.builder >= self.ours.here {
            // Its source is another network's, and must not leave by this one.
            return false;
        }
        let target = Target { address: row.saddr, port: row.sport };
        let hop = self.ours.hop(target.address);
        let Some(hop) = hop.filter(|_| self.resets.len() < RESETS) else { return false };
        self.resets.push_back(Reset { builder: row.builder, hop, target, source_port: row.dport, seq: row.acknum });
        true
    }

    /// Reads a record of one of our kinds into a row, and returns its payload if that is wanted; `None` when it
    /// contradicts itself or the plan.
    fn read<'a>(&self, row: &mut Row, record: Record<'a>) -> Option<Option<&'a [u8]>> {
        if let Some(whole) = &self.whole {
            let data = whole.read(row, record)?;
            self.number(row)?;
            return Some(data);
        }
        let body = record.body;
        match (record.kind, self.family) {
            (Kind::Tcp4, Family::V4) => {
                row.saddr = u128::from(u32_at(body, 0)?);
                row.daddr = u128::from(u32_at(body, 4)?);
                self.tcp(row, body.get(8..)?, record.time_ns)?;
            }
            (Kind::Tcp6, Family::V6) => {
                row.saddr = u128_at(body, 0)?;
                row.daddr = u128_at(body, 16)?;
                self.tcp(row, body.get(32..)?, record.time_ns)?;
            }
            (Kind::Icmp, _) => return self.icmp(row, body, record.time_ns),
            (Kind::Udp, _) => {
                self.udp(row, body)?;
                // Compact although payloads may be wanted: it has none.
                return Some(Some(&[]));
            }
            (Kind::Frame, _) => return self.datagram(row, body).map(Some),
            _ => return None,
        }
        Some(None)
    }

    /// The part of a TCP record that both families share.
    fn tcp(&self, row: &mut Row, body: &[u8], received_ns: u64) -> Option<()> {
        const RST: u8 = 0x04;
        const SYN: u8 = 0x02;
        const ACK: u8 = 0x10;
        row.sport = u16_at(body, 0)?;
        row.dport = u16_at(body, 2)?;
        row.seqnum = u32_at(body, 4)?;
        row.acknum = u32_at(body, 8)?;
        row.window = u16_at(body, 12)?;
        let bits = *body.get(14)?;
        row.ttl = *body.get(15)?;
        row.ipid = u16_at(body, 16)?;
        let tcp = TcpOptions {
            mss: u16_at(body, 18)?,
            wscale: *body.get(20)?,
            bits: *body.get(21)?,
            ts_val: u32_at(body, 24)?,
            ts_ecr: u32_at(body, 28)?,
        };
        row.tcp = Some(tcp);
        row.class = match bits {
            bits if bits & RST != 0 => Class::Rst,
            bits if bits & (SYN | ACK) == SYN | ACK => Class::SynAck,
            _ => return None,
        };
        self.number(row)?;
        if tcp.bits & options::TIMESTAMPS != 0 && tcp.ts_ecr != 0 {
            row.rtt = self.ours.builders[row.builder].rtt_from_tsecr(tcp.ts_ecr, received_ns);
        }
        Some(())
    }

    /// An echo's reply, or an error that quotes our probe.
    fn icmp<'a>(&self, row: &mut Row, body: &'a [u8], received_ns: u64) -> Option<Option<&'a [u8]>> {
        row.saddr = plain(self.family, u128_at(body, 0)?)?;
        row.daddr = plain(self.family, u128_at(body, 16)?)?;
        let (kind, code) = (*body.get(32)?, *body.get(33)?);
        let mut icmp = Icmp { kind, code, rest: None };
        row.ttl = *body.get(34)?;
        row.ipid = u16_at(body, 36)?;
        let (id, sequence) = (u16_at(body, 38)?, u16_at(body, 40)?);
        let quoted = *body.get(35)?;
        icmp.rest = match quoted {
            0 => u32_at(body, 38),
            TCP => None,
            _ => u32_at(body, 44),
        };
        row.icmp = Some(icmp);
        if quoted == 0 {
            row.class = Class::EchoReply;
            row.dport = id;
            row.seqnum = u32::from(sequence);
            row.builder = self.ours.number(row.daddr)?;
            let payload = body.get(64..80)?;
            row.rtt = self.ours.builders[row.builder].rtt_from_payload(payload, received_ns);
            row.probe_num = u16_at(payload, 8).filter(|number| *number < self.probes).unwrap_or(0);
            // Of a longer payload than we send the record has as much as we send.
            let length = usize::from(u16_at(body, 42)?).min(payload.len());
            return Some(self.echoes.then(|| &payload[..length]));
        }
        row.class = Class::Icmp;
        // The row is about whom we probed, not about the router that answered for it.
        row.responder = row.saddr;
        row.saddr = plain(self.family, u128_at(body, 48)?)?;
        row.dport = id;
        if !matches!(quoted, 1 | 58) {
            row.sport = sequence;
            row.seqnum = u32_at(body, 44)?;
            return self.number(row).map(|()| None);
        }
        row.class = Class::of_error(self.family, kind);
        row.seqnum = u32::from(sequence);
        row.builder = self.ours.number(row.daddr)?;
        Some(None)
    }

    fn udp(&self, row: &mut Row, body: &[u8]) -> Option<()> {
        row.class = Class::Udp;
        row.saddr = plain(self.family, u128_at(body, 0)?)?;
        row.daddr = plain(self.family, u128_at(body, 16)?)?;
        row.sport = u16_at(body, 32)?;
        row.dport = u16_at(body, 34)?;
        row.udp_len = u16_at(body, 36);
        row.ttl = *body.get(38)?;
        row.ipid = u16_at(body, 40)?;
        self.number(row)
    }

    /// A whole frame: what the filter hands over where the payload of UDP answers is wanted.
    fn datagram<'a>(&self, row: &mut Row, frame: &'a [u8]) -> Option<&'a [u8]> {
        let packet = Packet::parse(&Ethernet::parse(frame)?)?;
        let datagram = Udp::parse(packet.payload)?;
        if packet.protocol != UDP || packet.v6 != (self.family == Family::V6) {
            return None;
        }
        row.class = Class::Udp;
        (row.saddr, row.daddr) = (packet.source, packet.destination);
        (row.sport, row.dport) = (datagram.source_port, datagram.destination_port);
        (row.ttl, row.ipid) = (packet.ttl, packet.id);
        row.udp_len = u16_at(packet.payload, 4);
        self.number(row)?;
        Some(datagram.payload)
    }

    /// Which address of ours was answered, and which of our probes: our port tells.
    fn number(&self, row: &mut Row) -> Option<()> {
        row.builder = self.ours.number(row.daddr)?;
        let cookie = self.ours.builders[row.builder].cookie(row.saddr, row.sport);
        row.probe_num = self.ports.probe_num(cookie, row.dport).filter(|number| *number < self.probes)?;
        Some(())
    }
}
