//! Where frames come from: targets in the plan's order, each with its next hop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use irl_link::{Hop, NextHop};
use irl_targets::{CompiledPlan, Target};
use irl_wire::{FrameBuilder, Mac};

/// Positions taken from the watermark at a time, at most.
const BLOCK: usize = 256;
/// On-link targets that wait for their neighbour's MAC.
const PARKED: usize = 4096;
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
}

/// Where frames come from: targets in the plan's order.
pub(crate) struct Supply {
    pub(crate) plan: CompiledPlan,
    pub(crate) builders: Vec<FrameBuilder>,
    pub(crate) gateway: Option<Mac>,
    pub(crate) hops: Arc<dyn NextHop>,
    pub(crate) probes: u16,
    pub(crate) batch: Vec<(u64, Target)>,
    /// The next of `batch`, and which probe of it.
    pub(crate) next: usize,
    pub(crate) probe_num: u16,
    /// On-link targets that wait for a MAC, and since when.
    pub(crate) parked: VecDeque<Parked>,
    pub(crate) unresolved: u64,
    pub(crate) taken: u64,
}

impl Supply {
    pub(crate) fn is_empty(&self, watermark: &AtomicU64) -> bool {
        self.next == self.batch.len() && self.parked.is_empty() && watermark.load(Ordering::Acquire) >= self.plan.len()
    }

    /// Builds the next frame; `None` when there is none at present.
    #[inline]
    pub(crate) fn build(&mut self, slot: &mut [u8], watermark: &AtomicU64, want: usize, now: u64) -> Option<usize> {
        loop {
            if self.next == self.batch.len() && !self.refill(watermark, want) {
                return self.build_parked(slot, now);
            }
            let (number, target) = self.batch[self.next];
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
                        self.parked.push_back(Parked { number, target, probe_num: 0, since_ns: now });
                        self.next += 1;
                        continue;
                    }
                    Hop::Pending => return self.build_parked(slot, now),
                },
            };
            let probe_num = self.probe_num;
            self.probe_num += 1;
            if self.probe_num == self.probes {
                self.probe_num = 0;
                self.next += 1;
            }
            return Some(self.write(slot, hop, number, target, probe_num, now));
        }
    }

    #[inline]
    fn write(&self, slot: &mut [u8], hop: Mac, number: u64, target: Target, probe_num: u16, now: u64) -> usize {
        let builder = match self.builders.as_slice() {
            [one] => one,
            many => &many[(number % many.len() as u64) as usize],
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
                    if probe_num + 1 < self.probes {
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

    /// Takes the next block of positions; blocks are small at low rates so that workers end together.
    fn refill(&mut self, watermark: &AtomicU64, want: usize) -> bool {
        let len = self.plan.len();
        let block = want.clamp(1, BLOCK) as u64;
        if watermark.load(Ordering::Acquire) >= len {
            return false;
        }
        let first = watermark.fetch_add(block, Ordering::AcqRel);
        self.batch.resize(block as usize, (0, Target::default()));
        let count = self.plan.fill(first, &mut self.batch);
        self.batch.truncate(count);
        self.next = 0;
        self.taken += count as u64;
        count > 0
    }
}
