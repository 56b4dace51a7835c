//! Where frames come from: targets in the plan's order, each with its next hop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use irl_link::{Hop, NextHop};
use irl_targets::{CompiledPlan, Target};
use irl_wire::{FrameBuilder, Mac};

use crate::attachment::Attachment;
use crate::checkpoint::Place;
use crate::listing::Listing;
use crate::loss::recheck::Again;
use crate::passes;
use crate::scan::ScanConfig;
use crate::shared::Shared;

/// Positions taken from the watermark at a time, at most.
const BLOCK: usize = 256;
/// Positions of a later pass that are looked at in one turn of the loop: most may need no probe, and meanwhile nobody
/// reads answers.
const WALK: usize = 8192;
/// On-link targets that wait for their neighbour's MAC.
const PARKED: usize = 4096;
/// Targets that wait because those around them are enough for now.
const HELD: usize = 65_536;
/// Those of them that are looked at in one turn.
const LOOKED_AT: usize = 64;
/// How long a target waits for its neighbour's MAC.
const RESOLVE_NS: u64 = 3_000_000_000;

/// A target that waits for its neighbour's MAC.
#[derive(Clone, Copy)]
pub(crate) struct Parked {
    number: u64,
    target: Target,
    /// The next of its probes.
    probe_num: u16,
    since_ns: u64,
    /// The first position of its block.
    first: u64,
}

/// A target that may not be probed yet.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    number: u64,
    target: Target,
    /// The first position of its block.
    first: u64,
}

/// Where frames come from: targets in the plan's order, or of a list.
pub(crate) struct Supply {
    pub(crate) plan: CompiledPlan,
    /// Where targets come from instead of the plan. Their numbers tell of a probe and our address, see `Due::place`.
    list: Option<Arc<Listing>>,
    pub(crate) builders: Vec<FrameBuilder>,
    gateway: Option<Mac>,
    hops: Arc<dyn NextHop>,
    probes: u16,
    batch: Vec<(u64, Target)>,
    /// The first position of the block that `batch` is of.
    first: u64,
    /// The next of `batch`, and which probe of it.
    next: usize,
    probe_num: u16,
    /// On-link targets that wait for a MAC, and since when.
    parked: VecDeque<Parked>,
    /// Targets that may not be probed yet, and how many of `batch` are among those that waited and now may.
    held: VecDeque<Held>,
    /// How often a target had to wait so.
    pub(crate) held_back: u64,
    allowed: usize,
    pub(crate) unresolved: u64,
    pub(crate) taken: u64,
    /// Targets taken in later passes.
    pub(crate) retaken: u64,
    /// The number of the pass.
    pub(crate) pass: u16,
    /// Positions of a later pass looked at in this turn.
    pub(crate) walked: usize,
    /// Positions that a later pass takes next.
    stride: usize,
    /// Probes of a target in this pass.
    each: u16,
    /// Found targets and others that were taken to be probed again at the end.
    pub(crate) rechecked: (u64, u64),
    /// Whether SYNs are sent again as a TCP's are, see [`passes::syn_number`].
    again: bool,
}

impl Supply {
    /// The supply of a worker on this network, from this pass on.
    pub(crate) fn new(
        config: &ScanConfig,
        attachment: &Attachment,
        list: Option<Arc<Listing>>,
        again: bool,
        pass: u16,
    ) -> Self {
        let hops = attachment.network().next_hop();
        let probes = config.plan.probes.max(1);
        Self {
            plan: config.compiled.clone(),
            list,
            builders: attachment.builders().to_vec(),
            gateway: hops.constant(),
            hops,
            probes,
            batch: Vec::new(),
            first: 0,
            next: 0,
            probe_num: 0,
            parked: VecDeque::new(),
            held: VecDeque::new(),
            held_back: 0,
            allowed: 0,
            unresolved: 0,
            taken: 0,
            retaken: 0,
            pass,
            walked: 0,
            stride: 1,
            each: probes,
            rechecked: (0, 0),
            again,
        }
    }

    pub(crate) fn is_empty(&self, shared: &Shared) -> bool {
        self.next == self.batch.len()
            && self.parked.is_empty()
            && self.held.is_empty()
            && self.list.as_ref().is_none_or(|list| list.is_done())
            && (self.list.is_some() || shared.positions(self.pass).load(Ordering::Acquire) >= self.len(shared))
            && !shared.has_returned()
    }

    /// Positions of this pass.
    fn len(&self, shared: &Shared) -> u64 {
        shared.passes.again(self.pass).map_or(self.plan.len(), Again::count)
    }

    /// Targets that were taken and wait, for their neighbour's MAC or because those around them are enough for now.
    pub(crate) fn waiting(&self) -> u64 {
        (self.parked.len() + self.held.len()) as u64
    }

    /// Goes on to the next pass, when this one gives nothing any more.
    pub(crate) fn next_pass(&mut self, shared: &Shared) {
        self.pass += 1;
        self.each = if shared.passes.again(self.pass).is_some() { 1 } else { self.probes };
        self.stride = 1;
    }

    /// The first place of the plan that a worker with this supply may still have something to do at.
    pub(crate) fn place(&self, shared: &Shared) -> Place {
        let taken = shared.positions(self.pass).load(Ordering::Acquire).min(self.len(shared));
        let batch = (self.next < self.batch.len()).then_some(self.first);
        let parked = self.parked.iter().map(|waiting| waiting.first);
        let held = self.held.iter().map(|waiting| waiting.first);
        Place { pass: self.pass, position: parked.chain(held).chain(batch).fold(taken, u64::min) }
    }

    /// Takes out the targets of which not every probe was built.
    pub(crate) fn left(&mut self) -> Vec<(u64, Target)> {
        let parked = self.parked.drain(..).map(|waiting| (waiting.number, waiting.target));
        let held = self.held.drain(..).map(|waiting| (waiting.number, waiting.target));
        self.batch.drain(..).skip(self.next).chain(parked).chain(held).collect()
    }

    /// Builds the next frame; `None` when there is none at present. Targets that may not be probed yet wait for later.
    #[inline]
    pub(crate) fn build(
        &mut self,
        slot: &mut [u8],
        shared: &Shared,
        want: usize,
        now: u64,
        mut may_probe: impl FnMut(Target) -> bool,
    ) -> Option<usize> {
        loop {
            if self.next == self.batch.len() && !self.refill(shared, want, now, &mut may_probe) {
                return self.build_parked(slot, now);
            }
            let (number, target) = self.batch[self.next];
            if self.next >= self.allowed && self.probe_num == 0 && !may_probe(target) {
                self.held.push_back(Held { number, target, first: self.first });
                self.held_back += 1;
                self.next += 1;
                continue;
            }
            let hop = match self.gateway {
                Some(gateway) => gateway,
                None => match self.hops.lookup(target.address) {
                    Hop::Known(mac) => mac,
                    Hop::Unreachable => {
                        self.unresolved += 1;
                        self.next += 1;
                        continue;
                    }
                    Hop::Pending if self.parked.len() < PARKED => {
                        self.parked.push_back(Parked {
                            number,
                            target,
                            probe_num: 0,
                            since_ns: now,
                            first: self.first,
                        });
                        self.next += 1;
                        continue;
                    }
                    Hop::Pending => return self.build_parked(slot, now),
                },
            };
            let probe_num = self.probe_num;
            self.probe_num += 1;
            if self.probe_num == self.each {
                self.probe_num = 0;
                self.next += 1;
            }
            return Some(self.write(slot, hop, number, target, probe_num, now));
        }
    }

    #[inline]
    fn write(&self, slot: &mut [u8], hop: Mac, number: u64, target: Target, probe_num: u16, now: u64) -> usize {
        let listed = self.list.is_some();
        let turn = if listed { number >> 16 } else { number };
        let builder = match self.builders.as_slice() {
            [one] => one,
            many => &many[(turn % many.len() as u64) as usize],
        };
        let probe_num = match (listed, self.again) {
            (true, _) => number as u16,
            (false, true) => passes::syn_number(self.pass),
            // The run was refused if all passes together had more numbers than 16 bits hold.
            (false, false) => self.pass * self.probes + probe_num,
        };
        builder.build(slot, hop, target.address, target.port, probe_num, now)
    }

    /// One of the parked targets whose MAC is known by now.
    fn build_parked(&mut self, slot: &mut [u8], now: u64) -> Option<usize> {
        for _ in 0..self.parked.len().min(64) {
            let waiting = self.parked.pop_front()?;
            match self.hops.lookup(waiting.target.address) {
                Hop::Known(mac) => {
                    let Parked { number, target, probe_num, .. } = waiting;
                    if probe_num + 1 < self.each {
                        self.parked.push_front(Parked { probe_num: probe_num + 1, ..waiting });
                    }
                    return Some(self.write(slot, mac, number, target, probe_num, now));
                }
                Hop::Pending if now.saturating_sub(waiting.since_ns) < RESOLVE_NS => self.parked.push_back(waiting),
                Hop::Pending | Hop::Unreachable => self.unresolved += 1,
            }
        }
        None
    }

    /// Takes the next block of positions; blocks are small at low rates so that workers end together. After the pass's
    /// last one it takes what a worker gave back whose interface went.
    fn refill(&mut self, shared: &Shared, want: usize, now: u64, may_probe: &mut impl FnMut(Target) -> bool) -> bool {
        if let Some(list) = self.list.clone() {
            return self.refill_listed(&list, shared, want, now, may_probe);
        }
        self.allowed = 0;
        if !self.held.is_empty() {
            self.release(may_probe);
            if self.allowed > 0 || self.held.len() >= HELD {
                return self.allowed > 0;
            }
        }
        let more = match shared.passes.again(self.pass) {
            Some(again) => self.refill_again(again, shared, want),
            None if self.pass == 0 => self.refill_all(shared, want),
            None => self.refill_silent(shared, want),
        };
        if !more && shared.has_returned() && shared.positions(self.pass).load(Ordering::Acquire) >= self.len(shared) {
            shared.take_returned(want.clamp(1, BLOCK), &mut self.batch);
        }
        !self.batch.is_empty()
    }

    /// From a list: SYNs that are due, the first of a target or one again. Those that may not be sent yet go back to it, so
    /// that nobody waits for their answers. After the list's end it takes what a worker gave back whose interface went.
    fn refill_listed(
        &mut self,
        list: &Listing,
        shared: &Shared,
        want: usize,
        now: u64,
        may_probe: &mut impl FnMut(Target) -> bool,
    ) -> bool {
        self.next = 0;
        self.batch.clear();
        let mut due = Vec::new();
        if let Err(error) = list.take(now, want.clamp(1, BLOCK), &mut due) {
            // What was read before is done first, as at the list's end.
            shared.lose(error, Vec::new());
        }
        for syn in &due {
            if !may_probe(syn.target) {
                list.postpone(syn);
                self.held_back += 1;
                continue;
            }
            *(if syn.again { &mut self.retaken } else { &mut self.taken }) += 1;
            self.batch.push((syn.place(), syn.target));
        }
        if self.batch.is_empty() {
            shared.take_returned(want.clamp(1, BLOCK), &mut self.batch);
        }
        self.allowed = self.batch.len();
        !self.batch.is_empty()
    }

    /// Takes some of those that waited and may be probed now into the batch.
    #[cold]
    fn release(&mut self, may_probe: &mut impl FnMut(Target) -> bool) {
        self.next = 0;
        self.batch.clear();
        // Of several blocks.
        self.first = u64::MAX;
        for _ in 0..self.held.len().min(LOOKED_AT) {
            let Some(waiting) = self.held.pop_front() else { break };
            if may_probe(waiting.target) {
                self.first = self.first.min(waiting.first);
                self.batch.push((waiting.number, waiting.target));
            } else {
                self.held.push_back(waiting);
            }
        }
        self.allowed = self.batch.len();
    }

    /// In the first pass.
    fn refill_all(&mut self, shared: &Shared, want: usize) -> bool {
        self.next = 0;
        let count = self.take(shared, want.clamp(1, BLOCK));
        self.taken += count as u64;
        count > 0
    }

    /// In a later pass, where only the silent are taken; `false` also when enough was looked at in this turn.
    fn refill_silent(&mut self, shared: &Shared, want: usize) -> bool {
        self.next = 0;
        self.batch.clear();
        while self.batch.is_empty() && self.walked < WALK {
            let count = self.take(shared, self.stride);
            if count == 0 {
                return false;
            }
            self.walked += count;
            // Wherever the permutation leads, the map's memory is far: ask for all places before looking at the first.
            for (number, _) in &self.batch {
                shared.map.prefetch(*number);
            }
            self.batch.retain(|(number, _)| !shared.map.has_answered(*number));
            self.retaken += self.batch.len() as u64;
            // As many as will hold what is wanted, by this block's share of silent ones.
            self.stride = (2 * count * want.max(1) / (self.batch.len() + 1)).clamp(1, BLOCK);
        }
        !self.batch.is_empty()
    }

    /// In the last pass, where a sample is probed again.
    #[cold]
    fn refill_again(&mut self, again: Again, shared: &Shared, want: usize) -> bool {
        self.next = 0;
        self.batch.clear();
        let watermark = shared.positions(self.pass);
        self.first = watermark.load(Ordering::Acquire);
        if self.first >= again.count() {
            return false;
        }
        let want = want.clamp(1, BLOCK) as u64;
        self.first = watermark.fetch_add(want, Ordering::AcqRel);
        for n in self.first..(self.first + want).min(again.count()) {
            let mut one = [(0, Target::default())];
            let filled = self.plan.fill(again.position(n), &mut one);
            self.batch.extend(one.into_iter().take(filled));
        }
        let found = self.batch.iter().filter(|(number, _)| shared.map.has_succeeded(*number)).count();
        self.rechecked.0 += found as u64;
        self.rechecked.1 += (self.batch.len() - found) as u64;
        self.retaken += self.batch.len() as u64;
        !self.batch.is_empty()
    }

    /// Takes the pass's next positions into the batch, and says how many.
    fn take(&mut self, shared: &Shared, block: usize) -> usize {
        let watermark = shared.positions(self.pass);
        let first = match watermark.load(Ordering::Acquire) {
            taken if taken < self.plan.len() => watermark.fetch_add(block as u64, Ordering::AcqRel),
            taken => taken,
        };
        self.first = first;
        self.batch.resize(block, (0, Target::default()));
        let count = self.plan.fill(first, &mut self.batch);
        self.batch.truncate(count);
        count
    }
}
