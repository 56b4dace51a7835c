//! What becomes of the rows of a list: which targets they are, which are none, and what is told of those.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use irl_targets::{CompiledPlan, Family, Target, address_bits};
use serde::Serialize;

use super::batch::{Batch, MOST};
use crate::error::MeasureError;

/// Rows that are no targets are told of so many times.
const TOLD: usize = 10;

/// What was counted of a list, for metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListCounts {
    /// Rows read.
    pub rows: u64,
    /// Targets in them: more than rows where each goes to several ports.
    pub targets: u64,
    /// Rows that name no target.
    pub bad: u64,
    /// The first of them, each with its line or row.
    pub first_bad: Vec<String>,
    /// Rows whose address is none of the plan's.
    pub outside: u64,
    /// Rows that had to wait until an earlier one with their target was done.
    pub duplicates: u64,
    /// Rows that had to wait because their target was reached from all of our ports within a minute.
    pub port_waits: u64,
    /// Targets that were not done when the run ended.
    pub left: u64,
}

/// What is counted while a list is read.
#[derive(Debug, Default)]
pub(super) struct Counts {
    rows: AtomicU64,
    targets: AtomicU64,
    bad: AtomicU64,
    outside: AtomicU64,
    first_bad: Mutex<Vec<String>>,
}

impl Counts {
    /// What was counted so far, of what is counted here.
    pub(super) fn read(&self) -> ListCounts {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ListCounts {
            rows: value(&self.rows),
            targets: value(&self.targets),
            bad: value(&self.bad),
            first_bad: self.first_bad.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            outside: value(&self.outside),
            ..ListCounts::default()
        }
    }
}

/// An address as a list has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub(super) family: Family,
    pub(super) bits: u128,
}

impl Address {
    pub(super) fn of(address: IpAddr) -> Self {
        Self { family: Family::of(address), bits: address_bits(address) }
    }
}

/// Takes rows, and keeps those that are targets of a plan.
pub(super) struct Sieve {
    /// What the list is called.
    pub(super) list: String,
    plan: CompiledPlan,
    family: Family,
    /// Where rows go that name no port.
    ports: Vec<u16>,
    counts: Arc<Counts>,
}

impl Sieve {
    pub(super) fn new(list: String, plan: CompiledPlan, family: Family, ports: &[u16], counts: &Arc<Counts>) -> Self {
        Self { list, plan, family, ports: ports.to_vec(), counts: Arc::clone(counts) }
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// How many rows make a batch, when all go to every port.
    pub(super) fn rows_of_batch(&self, wanted: usize) -> usize {
        (MOST / self.ports.len().max(1)).clamp(1, wanted)
    }

    /// Counts a row.
    pub(super) fn row(&self) {
        self.counts.rows.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds the targets of a row, which tells of them in a row of the further columns. Whether there are any.
    ///
    /// # Errors
    /// [`MeasureError::Config`] for an address of the other family.
    pub(super) fn keep(
        &self,
        batch: &mut Batch,
        address: Address,
        port: Option<u16>,
        row: usize,
    ) -> Result<bool, MeasureError> {
        if address.family != self.family {
            return Err(MeasureError::Config(format!(
                "{} has {} and {} addresses, and a run goes to one family: split the list in two",
                self.list, self.family, address.family
            )));
        }
        // The plan says which addresses; ports are the list's own where it has some.
        let any = self.ports.first().copied().unwrap_or_default();
        if self.plan.targets().index_of(Target { address: address.bits, port: any }).is_none() {
            self.counts.outside.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        let ports = port.as_ref().map_or(self.ports.as_slice(), std::slice::from_ref);
        for port in ports {
            batch.push(Target { address: address.bits, port: *port }, row);
        }
        self.counts.targets.fetch_add(ports.len() as u64, Ordering::Relaxed);
        Ok(!ports.is_empty())
    }

    /// A row that is no target: counted, and the first ones told of.
    pub(super) fn bad(&self, at: &str, number: u64, reason: &str) {
        self.counts.bad.fetch_add(1, Ordering::Relaxed);
        let mut first = self.counts.first_bad.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < TOLD {
            let text = format!("{} {at} {number}: {reason}", self.list);
            log::warn!("{text}");
            first.push(text);
        }
    }
}
