//! What lies above TCP in an exchange: who gets a connection, what its session does with it, and the row at its end.

use std::sync::Arc;

use arrow_array::RecordBatch;
use irl_targets::{CompiledPlan, Family, Target};
use irl_tcp::{Call, Ended, Flow, Segment, Upper};
use irl_wire::PortRange;

use super::caps::Prefixes;
use super::collect::Rows;
use super::config::{ExchangeConfig, ExchangeRows};
use super::request::{Recipient, Request};
use super::rows::Source;
use super::session::{Dialogue, Plain};
use super::sessions::{End, Sessions, State, Steps};
use super::status::{ClosedBy, Ending, Stage, Status};
use crate::answers::Ours;
use crate::listing::{Listing, turn};
use crate::passes;
use crate::shared::Shared;
use crate::stats::WorkerCounters;

/// What is counted here, and moved to the worker's counters now and then.
#[derive(Debug, Default)]
pub(super) struct Tally {
    answered: u64,
    found: u64,
    successes: u64,
    refused: u64,
    silent: u64,
    turned_away: u64,
}

/// How an answer to a SYN ended an exchange before it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// By a RST.
    Reset,
    /// By an ICMP error.
    Error,
}

/// What waits for an answer.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// A target of the plan, by its place in the answered map.
    Slot(u64),
    /// A row of the list, by the number of its probe.
    Row(u16),
}

/// The dialogues of one worker, and their rows.
pub(super) struct Dialogues {
    family: Family,
    plan: CompiledPlan,
    list: Option<Arc<Listing>>,
    ports: PortRange,
    /// How many numbers SYNs to a target leave with.
    syns: u16,
    pub(super) ours: Ours,
    request: Request,
    sessions: Sessions<Dialogue, Plain>,
    rows: Rows,
    shared: Arc<Shared>,
    prefixes: Option<Arc<Prefixes>>,
    /// When the SYN-ACKs of the batch came that TCP takes in, in their order, and the next of them.
    arrivals: Vec<(Flow, u64)>,
    next_arrival: usize,
    tally: Tally,
    /// Responses of connections that are over, in number and bytes.
    closed: u64,
    closed_bytes: u64,
}

impl Dialogues {
    pub(super) fn new(
        config: &ExchangeConfig,
        ports: PortRange,
        ours: Ours,
        shared: &Arc<Shared>,
        prefixes: Option<Arc<Prefixes>>,
    ) -> Self {
        let family = config.scan.plan.family;
        let timeout_ms = u32::try_from(config.timeout.as_millis()).unwrap_or(u32::MAX);
        Self {
            family,
            plan: config.scan.compiled.clone(),
            list: config.list.clone(),
            ports,
            syns: passes::syn_numbers(&config.scan),
            request: config.request.clone(),
            sessions: Sessions::new(config.dialogue.clone(), Plain, config.max_bytes, timeout_ms),
            rows: Rows::new(config, &ours, shared),
            ours,
            shared: Arc::clone(shared),
            prefixes,
            arrivals: Vec::new(),
            next_arrival: 0,
            tally: Tally::default(),
            closed: 0,
            closed_bytes: 0,
        }
    }

    /// The list that targets come from.
    pub(super) fn list(&self) -> Option<Arc<Listing>> {
        self.list.clone()
    }

    /// Tells `then` whom a flow leads to.
    #[inline]
    fn recipient<T>(&self, flow: &Flow, state: State, then: impl FnOnce(&Request, &Recipient<'_>) -> T) -> T {
        let target = Target { address: flow.theirs, port: flow.their_port };
        match &self.list {
            Some(list) => list.recipient(self.sessions.row(state), target, |to| then(&self.request, to)),
            None => then(&self.request, &Recipient { family: self.family, target, host: None, request: None }),
        }
    }

    /// Writes the bytes of the request to the peer of a flow that begin at `offset`.
    #[inline]
    pub(super) fn write(&self, flow: &Flow, state: State, offset: u32, into: &mut [u8]) {
        let written = self.recipient(flow, state, |request, to| request.bytes(to, offset, into));
        // TCP asks for no more than there is; if it did, nothing of another frame may leave in its place.
        into[written..].fill(0);
    }

    /// Notes down when a SYN-ACK came, before TCP takes it in.
    #[inline]
    pub(super) fn arrives(&mut self, flow: Flow, time_ns: u64) {
        if self.list.is_none() {
            // Its place in the map is looked at when TCP asks, which takes in many together.
            let target = Target { address: flow.theirs, port: flow.their_port };
            self.plan.slot_of(target).into_iter().for_each(|slot| self.shared.map.prefetch(slot));
        }
        self.arrivals.push((flow, time_ns));
    }

    /// TCP has taken in all that came.
    pub(super) fn arrived(&mut self) {
        self.arrivals.clear();
        self.next_arrival = 0;
    }

    /// When the SYN-ACK came that TCP asks about. It asks in the order they came in.
    fn arrival(&mut self, flow: &Flow) -> Option<u64> {
        let ahead = self.arrivals.get(self.next_arrival..)?;
        let at = ahead.iter().position(|(of, _)| of == flow)?;
        self.next_arrival += at + 1;
        Some(ahead[at].1)
    }

    /// What waits for this answer, if `ack` acknowledges the SYN that we send on this flow.
    fn asked(&self, flow: &Flow, ack: u32) -> Option<Asked> {
        let cookie = self.ours.builders.get(usize::from(flow.ours))?.cookie(flow.theirs, flow.their_port);
        if ack != cookie.seq().wrapping_add(1) {
            return None;
        }
        let number = self.ports.probe_num(cookie, flow.our_port)?;
        let target = Target { address: flow.theirs, port: flow.their_port };
        match &self.list {
            Some(list) => list.asked(target, number).map(|_| Asked::Row(number)),
            None if number < self.syns => {
                let slot = self.plan.slot_of(target)?;
                (!self.shared.map.has_answered(slot)).then_some(Asked::Slot(slot))
            }
            None => None,
        }
    }

    /// From the SYN to its answer, by the timestamp that the answer echoes.
    fn rtt_ns(&self, answer: &Segment, time_ns: u64) -> Option<u64> {
        let (_, echo) = answer.options.timestamps.filter(|(_, echo)| *echo != 0)?;
        self.ours.builders[usize::from(answer.flow.ours)].rtt_from_tsecr(echo, time_ns)
    }

    /// A RST or an ICMP error about a SYN of ours, for whose flow there is no connection; `ack` is the number after the
    /// SYN's. Whether that is the target's answer.
    pub(super) fn refuse(&mut self, answer: &Segment, ack: u32, how: Refused, time_ns: u64) -> bool {
        let flow = &answer.flow;
        let Some(asked) = self.asked(flow, ack) else { return false };
        let rtt_ns = self.rtt_ns(answer, time_ns);
        let (status, closed_by) = match how {
            Refused::Reset => (Status::ConnectionRefused, Some(ClosedBy::Peer)),
            Refused::Error => (Status::UnknownError, None),
        };
        let ending = Ending { status, stage: Stage::Connect, closed_by, close_ns: rtt_ns, ..Ending::default() };
        let (rows, began_ns) = (&mut self.rows, time_ns.saturating_sub(rtt_ns.unwrap_or(0)));
        let target = Target { address: flow.theirs, port: flow.their_port };
        match (asked, &self.list) {
            (Asked::Slot(slot), _) if !self.shared.map.mark(slot, false).answered => {
                rows.push(flow, began_ns, ending, None, None);
            }
            (Asked::Row(number), Some(list)) => {
                let push = |source: Source<'_>| rows.push(flow, began_ns, ending, None, Some(source));
                // The list may have given it up just now.
                if list.refuse(target, number, push).is_none() {
                    return false;
                }
            }
            _ => return false,
        }
        if let Some(prefixes) = &self.prefixes {
            prefixes.answered(flow.theirs, false);
        }
        self.tally.answered += 1;
        self.tally.refused += 1;
        true
    }

    /// A target that stayed silent to the end, reached by one of our addresses.
    pub(super) fn silent(&mut self, ours: usize, target: Target, now_ns: u64) {
        let Some(slot) = self.plan.slot_of(target) else { return };
        // Whoever answers from now on is too late.
        if self.shared.map.mark(slot, true).answered {
            return;
        }
        self.tally.silent += 1;
        let cookie = self.ours.builders[ours].cookie(target.address, target.port);
        let our_port = self.ports.source_port(cookie, 0);
        let flow = Flow { ours: ours as u16, our_port, theirs: target.address, their_port: target.port };
        let ending = Ending { status: Status::ConnectionTimeout, stage: Stage::Connect, ..Ending::default() };
        self.rows.push(&flow, now_ns, ending, None, None);
    }

    /// Tells of some of the list's targets that stayed silent, and lets go of them.
    pub(super) fn tell_listed(&mut self, now_ns: u64) {
        /// So many in one turn of the loop.
        const TURN: usize = 1024;
        let Some(list) = self.list.clone() else { return };
        for _ in 0..TURN {
            let told = list.finish_silent(|target, number, source| {
                let here = (turn(target) % self.ours.here as u64) as usize;
                let cookie = self.ours.builders[here].cookie(target.address, target.port);
                let our_port = self.ports.source_port(cookie, number);
                let flow = Flow { ours: here as u16, our_port, theirs: target.address, their_port: target.port };
                let ending = Ending { status: Status::ConnectionTimeout, stage: Stage::Connect, ..Ending::default() };
                if self.tells_silent() {
                    self.tally.silent += 1;
                    self.rows.push(&flow, now_ns, ending, None, Some(source));
                }
            });
            if told.is_none() {
                break;
            }
        }
    }

    /// Whether the silent become rows.
    pub(super) fn tells_silent(&self) -> bool {
        self.rows.selection() == ExchangeRows::All
    }

    /// Whether a batch of rows is whole.
    pub(super) fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    /// A batch of rows.
    pub(super) fn batch(&mut self) -> Option<RecordBatch> {
        self.rows.batch()
    }

    /// Bytes of responses that are not complete.
    pub(super) fn held(&self) -> u64 {
        self.sessions.held() as u64
    }

    /// How many bytes a connection more may come to take, its place in TCP's table aside: all that is kept of a response,
    /// until it is known how long they usually are.
    pub(super) fn expected_bytes(&self, max_bytes: u32) -> u64 {
        /// So many connections tell what is usual.
        const ENOUGH: u64 = 1000;
        /// And so many times as long as usual may all of those be that are open at the same time.
        const MARGIN: u64 = 4;
        match self.closed {
            ENOUGH.. => u64::from(max_bytes).min(MARGIN * (self.closed_bytes / self.closed + 1)),
            _ => u64::from(max_bytes),
        }
    }

    /// Moves what was counted to the worker's counters.
    pub(super) fn settle(&mut self, counters: &WorkerCounters) {
        self.rows.settle(counters);
        let tally = std::mem::take(&mut self.tally);
        for (counter, by) in [
            (&counters.answered, tally.answered),
            (&counters.found, tally.found),
            (&counters.successes, tally.successes),
            (&counters.refused, tally.refused),
            (&counters.silent, tally.silent),
            (&counters.turned_away, tally.turned_away),
        ] {
            if by > 0 {
                WorkerCounters::add(counter, by);
            }
        }
    }

    /// Does with a connection what its session wants.
    #[inline]
    fn carry_out(call: &mut Call<'_, State>, steps: Steps) {
        if let Some(limit) = steps.limit {
            call.limit(u32::try_from(limit).unwrap_or(u32::MAX >> 1));
        }
        if let Some(within_ms) = steps.within_ms {
            call.within(within_ms);
        }
        if steps.send > 0 {
            call.send(steps.send);
        }
        if let Some(close) = steps.close {
            call.close(close);
        }
    }
}

impl Upper for Dialogues {
    type State = State;

    fn accepts(&mut self, synack: &Segment, now_ns: u64) -> Option<State> {
        let flow = &synack.flow;
        let time_ns = self.arrival(flow).unwrap_or(now_ns);
        let asked = self.asked(flow, synack.ack)?;
        // Not marked: a later pass will find it again.
        if self.prefixes.as_ref().is_some_and(|prefixes| !prefixes.answered(flow.theirs, true)) {
            self.tally.turned_away += 1;
            return None;
        }
        let row = match (asked, &self.list) {
            (Asked::Row(number), Some(list)) => {
                list.connect(Target { address: flow.theirs, port: flow.their_port }, number)
            }
            (Asked::Slot(slot), _) => (!self.shared.map.mark(slot, true).answered).then_some(State::NO_ROW),
            (Asked::Row(_), None) => None,
        };
        let Some(row) = row else {
            // Another worker was faster, or the list gave it up just now.
            if let Some(prefixes) = &self.prefixes {
                prefixes.closed(flow.theirs);
            }
            return None;
        };
        self.tally.answered += 1;
        self.tally.found += 1;
        self.tally.successes += 1;
        Some(State::new(time_ns, self.rtt_ns(synack, time_ns), row))
    }

    fn on_connect(&mut self, call: &mut Call<'_, State>) {
        let state = *call.state();
        let length = self.recipient(&call.flow(), state, |request, to| request.len(to));
        let steps = self.sessions.on_connect(call.state(), length);
        Self::carry_out(call, steps);
    }

    fn on_data(&mut self, call: &mut Call<'_, State>, data: &[u8]) {
        let now_ns = call.now_ns();
        let steps = self.sessions.on_data(call.state(), now_ns, data);
        Self::carry_out(call, steps);
    }

    fn on_finish(&mut self, call: &mut Call<'_, State>) {
        let steps = self.sessions.on_finish(call.state());
        Self::carry_out(call, steps);
    }

    fn on_timeout(&mut self, call: &mut Call<'_, State>) {
        let steps = self.sessions.on_timeout(call.state());
        Self::carry_out(call, steps);
    }

    fn on_close(&mut self, ended: &Ended<'_, State>) {
        let flow = ended.flow;
        if let Some(prefixes) = &self.prefixes {
            prefixes.closed(flow.theirs);
        }
        let end = End {
            now_ns: ended.now_ns,
            why: ended.why,
            received: u64::from(ended.received),
            acknowledged: ended.acknowledged >= self.recipient(&flow, *ended.state, |request, to| request.len(to)),
            retransmits: ended.retransmits,
        };
        let closed = self.sessions.on_close(*ended.state, end);
        self.closed += 1;
        self.closed_bytes += closed.response.len() as u64;
        let (rows, response) = (&mut self.rows, Some(closed.response));
        match &self.list {
            Some(list) => list.finish(closed.row, |source| {
                rows.push(&flow, closed.began_ns, closed.ending, response, Some(source));
            }),
            None => rows.push(&flow, closed.began_ns, closed.ending, response, None),
        }
    }
}
