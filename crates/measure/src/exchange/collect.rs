//! The rows of one worker's exchanges, as they end.

use std::sync::Arc;

use arrow_array::RecordBatch;
use irl_tcp::Flow;

use super::config::{ExchangeConfig, ExchangeRows};
use super::rows::{Row, RowBuilder, Source};
use super::status::{Ending, Status};
use crate::answers::Ours;
use crate::shared::Shared;
use crate::stats::WorkerCounters;

/// The rows of one worker.
pub(super) struct Rows {
    selection: ExchangeRows,
    /// Our addresses.
    addresses: Vec<u128>,
    builder: RowBuilder,
    /// Batches that are whole.
    ready: Vec<RecordBatch>,
    shared: Arc<Shared>,
    /// Counted here, and moved to the worker's counters now and then.
    selected: u64,
    unselected: u64,
    exchanged: u64,
}

impl Rows {
    pub(super) fn new(config: &ExchangeConfig, ours: &Ours, shared: &Arc<Shared>) -> Self {
        Self {
            selection: config.rows,
            addresses: ours.addresses.clone(),
            builder: RowBuilder::new(config.scan.plan.family, &config.columns, &config.further()),
            ready: Vec::new(),
            shared: Arc::clone(shared),
            selected: 0,
            unselected: 0,
            exchanged: 0,
        }
    }

    /// Which exchanges become rows.
    pub(super) fn selection(&self) -> ExchangeRows {
        self.selection
    }

    /// An exchange is over, which began at that time of CLOCK_MONOTONIC, with a response if it had a connection, and its
    /// row of the list if it is of one.
    pub(super) fn push(
        &mut self,
        flow: &Flow,
        began_ns: u64,
        ending: Ending,
        response: Option<&[u8]>,
        source: Option<Source<'_>>,
    ) {
        let success = ending.status == Status::Success;
        self.exchanged += u64::from(success);
        let wanted = success || self.selection != ExchangeRows::Success;
        if !(wanted && self.shared.results.take()) {
            self.unselected += 1;
            return;
        }
        self.selected += 1;
        let row = Row {
            saddr: flow.theirs,
            daddr: self.addresses[usize::from(flow.ours)],
            sport: flow.their_port,
            dport: flow.our_port,
            timestamp: self.shared.utc_minus_mono().wrapping_add(began_ns as i64),
            ending,
            ..Row::default()
        };
        self.builder.push(row, response, source);
        if self.builder.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.builder.is_empty() {
            let batch = self.builder.take().expect("a batch is whole long before a column of it has 2 GiB");
            self.ready.push(batch);
        }
    }

    /// Whether a batch is whole.
    pub(super) fn is_full(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A batch of rows, whole or not.
    pub(super) fn batch(&mut self) -> Option<RecordBatch> {
        self.flush();
        if self.ready.is_empty() { None } else { Some(self.ready.remove(0)) }
    }

    /// Moves what was counted to the worker's counters.
    pub(super) fn settle(&mut self, counters: &WorkerCounters) {
        WorkerCounters::add(&counters.rows, std::mem::take(&mut self.selected));
        WorkerCounters::add(&counters.unselected, std::mem::take(&mut self.unselected));
        WorkerCounters::add(&counters.exchanged, std::mem::take(&mut self.exchanged));
    }
}
