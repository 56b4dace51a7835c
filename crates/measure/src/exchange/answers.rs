//! A worker's side of exchanges: records to its TCP, TCP's segments to the gate, and SYNs within bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use irl_link::record::{Record, flags};
use irl_link::{Gate, LinkError};
use irl_targets::{Family, Target};
use irl_tcp::{Batch, Clients, Config, Flow, IcmpError, Segment};
use irl_wire::packet::tcp_flags;
use irl_wire::{Endpoint, PortRange, SegmentBuilder, SegmentHeader};

use super::caps::{Prefixes, UnderWay};
use super::config::ExchangeConfig;
use super::incoming::{self, Incoming, Refusal};
use super::upper::{Dialogues, Refused};
use crate::answers::{Answers, Here, Ours};
use crate::listing::Listing;
use crate::shared::Shared;
use crate::stats::WorkerCounters;

/// Segments sent in one turn of the loop, at most: records wait meanwhile.
const TURN: usize = 4096;
/// The longest headers of IP and TCP.
const HEADERS: usize = 40 + 60;
/// How long the resets of a run that is stopped may take to leave.
const PARTING: Duration = Duration::from_secs(2);

/// What the workers of an exchange share beside the run.
#[derive(Debug)]
pub(super) struct Bounds {
    /// What each worker's TCP is told.
    pub(super) tcp: Config,
    /// The ports that SYNs leave from.
    pub(super) ports: PortRange,
    pub(super) max_connections: u64,
    /// Bytes for connections and responses, and how many of responses each worker holds.
    pub(super) memory: u64,
    pub(super) held: Vec<AtomicU64>,
    pub(super) max_bytes: u32,
    pub(super) prefixes: Option<Arc<Prefixes>>,
}

/// What waits until TCP has taken in the segments before it.
enum Deferred {
    /// A RST, which ends a connection or refuses one, and when it came.
    Reset(Segment, u64),
    /// The same for an ICMP error.
    Error { flow: Flow, quoted_seq: u32, error: IcmpError, time_ns: u64 },
}

/// A worker's side of exchanges.
pub(super) struct Exchanges {
    family: Family,
    number: usize,
    workers: u64,
    clients: Clients<Dialogues>,
    dialogues: Dialogues,
    segments: Vec<SegmentBuilder>,
    frame_len: usize,
    batch: Batch,
    deferred: Vec<Deferred>,
    bounds: Arc<Bounds>,
    under_way: UnderWay,
    /// Why SYNs pause: for memory, for connections.
    pausing: (bool, bool),
}

impl Exchanges {
    /// Those of worker `number`. `endpoints` are those of this network's addresses.
    pub(super) fn new(
        number: usize,
        config: &ExchangeConfig,
        ours: Ours,
        endpoints: &[Endpoint],
        shared: &Arc<Shared>,
        bounds: &Arc<Bounds>,
    ) -> Self {
        Self {
            family: config.scan.plan.family,
            number,
            workers: u64::from(config.scan.workers),
            clients: Clients::new(bounds.tcp, shared.started_ns),
            dialogues: Dialogues::new(config, bounds.ports, ours, shared, bounds.prefixes.clone()),
            segments: endpoints.iter().map(SegmentBuilder::new).collect(),
            frame_len: frame_len(config.longest_request, bounds.tcp.mtu, endpoints),
            batch: Batch::new(),
            deferred: Vec::new(),
            bounds: Arc::clone(bounds),
            under_way: UnderWay::default(),
            pausing: (false, false),
        }
    }

    /// Lets TCP take in what was read.
    fn deliver(&mut self, here: &Here<'_>) {
        if !self.batch.is_empty() {
            WorkerCounters::add(&here.counters.segments_received, self.batch.len() as u64);
            self.clients.receive(here.now_ns, &mut self.batch, &mut self.dialogues);
            self.dialogues.arrived();
        }
    }

    /// A RST or ICMP error, now that TCP knows of every connection before it.
    fn decide(&mut self, deferred: Deferred, here: &Here<'_>) {
        match deferred {
            Deferred::Reset(segment, time_ns) => {
                let refuses = !self.clients.contains(&segment.flow)
                    && segment.flags & tcp_flags::ACK != 0
                    && self.dialogues.refuse(&segment, segment.ack, Refused::Reset, time_ns);
                if !refuses {
                    self.batch.push(segment, &[]);
                    self.deliver(here);
                }
            }
            Deferred::Error { flow, quoted_seq, error, time_ns } => {
                let about = Segment { flow, ..Segment::default() };
                let refuses = !self.clients.contains(&flow)
                    && self.dialogues.refuse(&about, quoted_seq.wrapping_add(1), Refused::Error, time_ns);
                if !refuses {
                    WorkerCounters::add(&here.counters.errors_received, 1);
                    self.clients.icmp(here.now_ns, flow, quoted_seq, error, &mut self.dialogues);
                }
            }
        }
    }

    /// Builds segments as long as TCP has some and the device has room.
    fn fill(&mut self, gate: &mut Gate, here: &Here<'_>, most: usize) -> Result<u64, LinkError> {
        let Self { clients, dialogues, segments, frame_len, .. } = self;
        let mut built = 0;
        let mut skipped = 0;
        while built < most && clients.has_output() {
            let filled = gate.segments(most - built, *frame_len, |slot| {
                loop {
                    let out = clients.transmit(here.now_ns)?;
                    let from = segments.get(usize::from(out.flow.ours));
                    let Some((from, next_hop)) = from.zip(dialogues.ours.hop(out.flow.theirs)) else {
                        // TCP will send it again, when the way may be known.
                        skipped += 1;
                        continue;
                    };
                    let header = SegmentHeader {
                        next_hop,
                        target: out.flow.theirs,
                        port: out.flow.their_port,
                        source_port: out.flow.our_port,
                        seq: out.seq,
                        ack: out.ack,
                        flags: out.flags,
                        window: out.window,
                        options: &out.options,
                    };
                    return Some(from.build(slot, &header, usize::from(out.len), |payload| {
                        if !payload.is_empty() {
                            dialogues.write(&out.flow, out.state, out.offset, payload);
                        }
                    }));
                }
            })?;
            if filled.built == 0 {
                break;
            }
            built += filled.built;
        }
        WorkerCounters::add(&here.counters.segments_skipped, skipped);
        Ok(built as u64)
    }

    /// Sends what TCP has, as long as there is time.
    fn part(&mut self, gate: &mut Gate, here: &Here<'_>, until: Instant) -> Result<(), LinkError> {
        while (self.clients.has_output() || gate.pending() > 0) && Instant::now() < until {
            let built = self.fill(gate, here, TURN)?;
            if gate.kick()?.accepted == 0 && built == 0 {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        Ok(())
    }

    /// How many connections more the memory is enough for, those aside that there are and may become some.
    fn room_in_memory(&self, connections: u64, opened: u64, under_way: u64) -> u64 {
        /// What a connection takes of TCP's table and of the sessions', at most.
        const CONNECTION: u64 = 256;
        self.bounds.held[self.number].store(self.dialogues.held(), Ordering::Relaxed);
        let held: u64 = self.bounds.held.iter().map(|each| each.load(Ordering::Relaxed)).sum();
        let expected = self.dialogues.expected_bytes(self.bounds.max_bytes);
        // Those that are open may still grow to what is expected of each.
        let taken = connections * CONNECTION + held.max(connections * expected);
        let more = self.bounds.memory.saturating_sub(taken) / (CONNECTION + expected);
        // A list has an order of its own: what was found in it so far says nothing of the rest.
        let share = if self.list().is_some() { 1.0 } else { self.under_way.share(opened) };
        ((more as f64 / share) as u64).saturating_sub(under_way)
    }
}

/// The longest frame of a connection whose request has so many bytes, from any of these addresses.
pub(super) fn frame_len(longest_request: u32, mtu: u16, endpoints: &[Endpoint]) -> usize {
    let tagged = endpoints.iter().any(|endpoint| endpoint.vlan.is_some());
    let ethernet = if tagged { 18 } else { 14 };
    ethernet + (HEADERS + longest_request as usize).min(usize::from(mtu))
}

impl Answers for Exchanges {
    const SAME_PORT: bool = true;

    fn take(&mut self, record: Record<'_>, here: &Here<'_>) {
        let counters = here.counters;
        let proven = record.flags & flags::COOKIE != 0;
        let crossed = |flow: &Flow| usize::from(flow.ours) >= self.dialogues.ours.here;
        match incoming::read(&record, self.family, &self.dialogues.ours) {
            Err(Refusal::Invalid) => WorkerCounters::add(&counters.invalid, 1),
            Err(Refusal::NotOurs) => WorkerCounters::add(&counters.not_ours, 1),
            // It would have to be answered by the network that it did not come in by.
            Ok(Incoming::Segment(Segment { flow, .. }, _) | Incoming::Error { flow, .. }) if crossed(&flow) => {
                WorkerCounters::add(&counters.crossed, 1);
                WorkerCounters::add(&counters.not_ours, 1);
            }
            Ok(Incoming::Segment(segment, _)) if segment.flags & tcp_flags::RST != 0 => {
                self.deferred.push(Deferred::Reset(segment, record.time_ns));
            }
            Ok(_) if !proven => WorkerCounters::add(&counters.not_ours, 1),
            Ok(Incoming::Segment(segment, payload)) => {
                if segment.flags & tcp_flags::SYN != 0 {
                    self.dialogues.arrives(segment.flow, record.time_ns);
                }
                self.batch.push(segment, payload);
                if self.batch.is_full() {
                    self.deliver(here);
                }
            }
            Ok(Incoming::Error { flow, quoted_seq, error }) => {
                self.deferred.push(Deferred::Error { flow, quoted_seq, error, time_ns: record.time_ns });
            }
        }
    }

    fn settle(&mut self, here: &Here<'_>) {
        self.deliver(here);
        let mut deferred = std::mem::take(&mut self.deferred);
        deferred.drain(..).for_each(|each| self.decide(each, here));
        self.deferred = deferred;
        self.dialogues.settle(here.counters);
    }

    fn send(&mut self, gate: &mut Gate, here: &Here<'_>) -> Result<u64, LinkError> {
        if self.clients.has_output() { self.fill(gate, here, TURN) } else { Ok(0) }
    }

    fn owes(&self) -> bool {
        self.clients.has_output()
    }

    fn room(&mut self, here: &Here<'_>) -> u64 {
        let (mut probes, mut answers, mut opened, mut closed) = (0, 0, 0, 0);
        for each in &here.shared.counters {
            let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            probes += of(&each.probes_built);
            answers += of(&each.answered);
            opened += of(&each.connections_opened);
            closed += each.connections_closed();
        }
        let under_way = self.under_way.count(here.now_ns, probes, answers);
        let connections = opened.saturating_sub(closed);
        let by_number = self.bounds.max_connections.saturating_sub(connections + under_way);
        let by_memory = self.room_in_memory(connections, opened, under_way);
        let pausing = (by_memory == 0, by_number == 0);
        WorkerCounters::add(&here.counters.memory_pauses, u64::from(pausing.0 && !self.pausing.0));
        WorkerCounters::add(&here.counters.connection_pauses, u64::from(pausing.1 && !self.pausing.1));
        self.pausing = pausing;
        if connections + under_way == 0 {
            // One at a time goes whatever the bounds are.
            return 1;
        }
        // The others take of the same.
        by_number.min(by_memory).div_ceil(self.workers)
    }

    fn list(&self) -> Option<Arc<Listing>> {
        self.dialogues.list()
    }

    fn may_probe(&mut self, target: Target, now_ns: u64) -> bool {
        self.bounds.prefixes.as_ref().is_none_or(|prefixes| prefixes.take(target.address, now_ns))
    }

    fn heard(&self, here: &Here<'_>) -> u64 {
        here.counters.answered.load(Ordering::Relaxed)
    }

    fn due(&mut self, here: &Here<'_>) {
        self.clients.expire(here.now_ns, &mut self.dialogues);
        if self.number == 0 {
            self.dialogues.tell_listed(here.now_ns);
        }
        self.dialogues.settle(here.counters);
    }

    fn next_due_ns(&self) -> Option<u64> {
        self.clients.next_expiry_ns()
    }

    fn is_busy(&self) -> bool {
        !self.clients.is_empty() || self.clients.has_output()
    }

    fn is_full(&self) -> bool {
        self.dialogues.is_full()
    }

    fn rows(&mut self) -> Option<RecordBatch> {
        self.dialogues.batch()
    }

    fn tells_silent(&self) -> bool {
        // A list tells of its own while the run goes on.
        self.dialogues.tells_silent() && self.dialogues.list().is_none()
    }

    fn silent(&mut self, ours: usize, target: Target, here: &Here<'_>) {
        self.dialogues.silent(ours, target, here.now_ns);
        self.dialogues.settle(here.counters);
    }

    fn publish(&self, counters: &WorkerCounters) {
        let tcp = self.clients.counters();
        for (counter, now) in [
            (&counters.connections_opened, tcp.opened),
            (&counters.connections_reset, tcp.reset),
            (&counters.connections_finished, tcp.finished),
            (&counters.connections_reset_by_peer, tcp.reset_by_peer),
            (&counters.connections_timed_out, tcp.timed_out),
            (&counters.connections_unreachable, tcp.unreachable),
            (&counters.connections_aborted, tcp.aborted),
            (&counters.table_full, tcp.table_full),
            (&counters.bytes_received, tcp.bytes_received),
            (&counters.retransmits, tcp.retransmits),
            (&counters.out_of_order, tcp.out_of_order),
            (&counters.out_of_order_dropped, tcp.out_of_order_dropped),
        ] {
            counter.store(now, Ordering::Relaxed);
        }
    }

    /// Resets the connections that are left: the peers would hold theirs for long.
    fn end(&mut self, gate: &mut Gate, here: &Here<'_>) -> Result<(), LinkError> {
        self.settle(here);
        let until = Instant::now() + PARTING;
        let mut first = Some(0);
        let mut parted = Ok(());
        while let Some(from) = first
            && parted.is_ok()
            && Instant::now() < until
        {
            first = self.clients.reset_from(from, here.now_ns, &mut self.dialogues);
            self.dialogues.settle(here.counters);
            parted = self.part(gate, here, until);
        }
        // Where there was no time or no device, their peers will find out; the rows are kept all the same.
        self.clients.reset_all(here.now_ns, &mut self.dialogues);
        self.dialogues.settle(here.counters);
        while self.clients.transmit(here.now_ns).is_some() {
            WorkerCounters::add(&here.counters.segments_skipped, 1);
        }
        parted
    }
}
