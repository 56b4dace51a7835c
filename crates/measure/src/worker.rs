//! The loop of one worker: take targets, build frames, hand them over, read answers, hand rows over, sleep.
//!
//! A worker owns its gate and receiver; with the others it shares the watermark, the answered map and flags, all atomic.
//! It never blocks for longer than [`NAP`], so that stopping takes milliseconds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatch;
use crossbeam_channel::{Sender as Channel, TrySendError};
use irl_link::record::flags;
use irl_link::{Gate, Network, Receiver, Worker, clock};
use irl_wire::{FrameBuilder, PortRange};

use crate::error::MeasureError;
use crate::judge::Judge;
use crate::map::AnsweredMap;
use crate::pacer::{Aimd, Pacer};
use crate::rows::RowBuilder;
use crate::scan::ScanConfig;
use crate::stats::WorkerCounters;
use crate::supply::Supply;

/// The longest sleep.
const NAP: Duration = Duration::from_millis(5);
/// Frames built between two looks at the ring.
const BURST: u64 = 256;
/// Records read between two bursts.
const RECORDS: usize = 1024;
/// Neighbour work is done so often.
const TICK_NS: u64 = 10_000_000;
/// Rows are handed over at least so often.
const FLUSH_NS: u64 = 100_000_000;
/// Batches that wait for a slow reader before answers stay in the ring; the senders pause from the first one on.
const OUTBOX: usize = 8;
/// While searching for the fastest rate, probes whose answers may be under way.
const IN_FLIGHT: u64 = 16_384;
/// Answers that have not come after this are not under way any more.
const FORGIVE_NS: u64 = 50_000_000;

/// What the workers of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) map: AnsweredMap,
    pub(crate) watermark: AtomicU64,
    /// Nothing more leaves, nothing more is read.
    pub(crate) stop: AtomicBool,
    /// No more probes; answers are read for the cooldown.
    pub(crate) halt: AtomicBool,
    pub(crate) sending: AtomicUsize,
    pub(crate) running: AtomicUsize,
    /// Probes a second of all workers, as the bits of an f64; 0 searches.
    pub(crate) rate: AtomicU64,
    pub(crate) counters: Vec<WorkerCounters>,
    pub(crate) overruns: Vec<AtomicU64>,
    pub(crate) error: Mutex<Option<MeasureError>>,
    pub(crate) started_ns: u64,
    pub(crate) started_utc_ns: i64,
    pub(crate) first_frame_ns: AtomicU64,
    pub(crate) last_frame_ns: AtomicU64,
    pub(crate) ended_ns: AtomicU64,
}

/// One worker and all it needs.
pub(crate) struct Loop {
    number: usize,
    workers: u64,
    gate: Gate,
    receiver: Box<dyn Receiver>,
    network: Arc<dyn Network>,
    shared: Arc<Shared>,
    out: Channel<RecordBatch>,
    outbox: VecDeque<RecordBatch>,
    supply: Supply,
    judge: Judge,
    pacer: Pacer,
    aimd: Option<Aimd>,
    cooldown_ns: u64,
    deadline_ns: u64,
    max_results: u64,
    ticked_ns: u64,
    flushed_ns: u64,
    /// When this worker's last probe left; 0 while it sends.
    done_ns: u64,
    /// For the in-flight bound: when an answer or a probe last moved the balance.
    moved_ns: u64,
    forgiven: u64,
}

impl Loop {
    pub(crate) fn new(
        number: usize,
        worker: Worker,
        config: &ScanConfig,
        shared: &Arc<Shared>,
        network: &Arc<dyn Network>,
        builders: Vec<FrameBuilder>,
        out: Channel<RecordBatch>,
    ) -> Self {
        let now = clock::now_ns();
        let hops = network.next_hop();
        Self {
            number,
            workers: u64::from(config.workers.max(1)),
            gate: worker.gate,
            receiver: worker.receiver,
            network: Arc::clone(network),
            shared: Arc::clone(shared),
            out,
            outbox: VecDeque::new(),
            supply: Supply {
                plan: config.compiled.clone(),
                builders: builders.clone(),
                gateway: hops.constant(),
                hops: Arc::clone(&hops),
                probes: config.plan.probes.max(1),
                batch: Vec::new(),
                next: 0,
                probe_num: 0,
                parked: VecDeque::new(),
                unresolved: 0,
                taken: 0,
            },
            judge: Judge {
                family: config.plan.family,
                ports: PortRange { first: config.plan.source_ports.first, last: config.plan.source_ports.last },
                probes: config.plan.probes.max(1),
                plan: config.compiled.clone(),
                ours: config.sources.iter().map(|source| irl_targets::address_bits(*source)).collect(),
                builders,
                selection: config.rows,
                reset: config.reset,
                gateway: hops.constant(),
                hops,
                rows: RowBuilder::new(config.plan.family, &config.columns),
                resets: VecDeque::new(),
                utc_minus_mono: shared.started_utc_ns - shared.started_ns as i64,
            },
            pacer: Pacer::new(1.0, now),
            aimd: None,
            cooldown_ns: config.cooldown.as_nanos() as u64,
            deadline_ns: config.max_runtime.map_or(u64::MAX, |time| now.saturating_add(time.as_nanos() as u64)),
            max_results: config.max_results.unwrap_or(u64::MAX),
            ticked_ns: 0,
            flushed_ns: now,
            done_ns: 0,
            moved_ns: now,
            forgiven: 0,
        }
    }

    /// Runs to the end. Whatever happens, rows collected so far are handed over and the counters balance.
    pub(crate) fn run(mut self) {
        let result = self.work();
        let shared = Arc::clone(&self.shared);
        // Frames that were committed and never left are given up, so that built = sent + refused holds.
        self.gate.abandon();
        self.publish();
        if let Err(error) = result {
            shared.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            shared.stop.store(true, Ordering::Release);
        }
        if self.done_ns == 0 {
            shared.sending.fetch_sub(1, Ordering::AcqRel);
        }
        if shared.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.ended_ns.store(clock::now_ns(), Ordering::Release);
        }
        self.collect();
        while let Some(batch) = self.outbox.pop_front() {
            // Ends when the reader reads or goes away; nothing is sent or received any more.
            if self.out.send(batch).is_err() {
                break;
            }
        }
    }

    fn work(&mut self) -> Result<(), MeasureError> {
        loop {
            if self.shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            let now = clock::now_ns();
            let sent = if self.done_ns == 0 { self.send(now)? } else { 0 };
            self.send_resets()?;
            if self.gate.pending() > 0 {
                self.gate.kick()?;
            }
            let got = if self.outbox.len() < OUTBOX { self.receive()? } else { 0 };
            self.neighbours(now)?;
            self.hand_over(now);
            self.publish();
            if self.done_ns != 0 && self.is_cool(now) {
                return Ok(());
            }
            if sent == 0 && got == 0 {
                self.sleep();
            }
        }
    }

    /// Builds and commits what the pacer, the device and the reader allow. Returns how many probes were built.
    fn send(&mut self, now: u64) -> Result<u64, MeasureError> {
        if self.shared.halt.load(Ordering::Acquire)
            || now >= self.deadline_ns
            || self.found() >= self.max_results
            || (self.supply.is_empty(&self.shared.watermark) && self.gate.pending() == 0)
        {
            self.finish_sending(now);
            return Ok(0);
        }
        if !self.outbox.is_empty() {
            WorkerCounters::add(&self.counters().pauses, 1);
            return Ok(0);
        }
        self.set_rate(now);
        let mut allowed = self.pacer.allow(now).min(BURST);
        if self.aimd.is_some() {
            allowed = allowed.min(self.window(now));
        }
        if allowed == 0 {
            return Ok(0);
        }
        let Self { gate, supply, shared, .. } = self;
        let frame_len = supply.builders[0].frame_len();
        let mut built = 0_u64;
        // A batch may be shorter than asked for at the end of the engine's memory: go on with the next.
        while built < allowed {
            let want = (allowed - built) as usize;
            let filled = gate.fill(want, frame_len, |slot| supply.build(slot, &shared.watermark, want, now))?;
            if filled.built == 0 {
                break;
            }
            built += filled.built as u64;
        }
        if built > 0 {
            gate.kick()?;
            // Only the first to come stores; later values are later.
            let _ = shared.first_frame_ns.compare_exchange(0, now, Ordering::AcqRel, Ordering::Relaxed);
            shared.last_frame_ns.fetch_max(now, Ordering::AcqRel);
            self.moved_ns = now;
        }
        self.pacer.spend(built, now);
        Ok(built)
    }

    fn finish_sending(&mut self, now: u64) {
        self.done_ns = now.max(1);
        self.shared.sending.fetch_sub(1, Ordering::AcqRel);
    }

    fn set_rate(&mut self, now: u64) {
        let asked = f64::from_bits(self.shared.rate.load(Ordering::Acquire));
        if asked > 0.0 {
            self.aimd = None;
            self.pacer.set_rate(asked / self.workers as f64, now);
        } else {
            let lost = self.receiver.overruns();
            let aimd = self.aimd.get_or_insert_with(|| Aimd::new(now));
            let rate = aimd.step(lost, now);
            self.pacer.set_rate(rate, now);
        }
    }

    /// How many more probes may be under way: the searched rate must not outrun answers that a full ring would lose.
    fn window(&mut self, now: u64) -> u64 {
        let counters = self.counters();
        let built = counters.probes_built.load(Ordering::Relaxed);
        let received = counters.received.load(Ordering::Relaxed);
        let under_way = built.saturating_sub(received).saturating_sub(self.forgiven);
        if under_way >= IN_FLIGHT && now.saturating_sub(self.moved_ns) > FORGIVE_NS / 10 {
            // Whoever has not answered by now is silent.
            self.forgiven = built - received;
            self.moved_ns = now;
            return IN_FLIGHT;
        }
        IN_FLIGHT.saturating_sub(under_way)
    }

    fn send_resets(&mut self) -> Result<(), MeasureError> {
        while !self.judge.resets.is_empty() {
            let Judge { resets, builders, .. } = &mut self.judge;
            let filled = self.gate.reset(resets.len(), builders[0].reset_len(), |slot| {
                let reset = resets.pop_front()?;
                Some(builders[reset.builder].build_reset(
                    slot,
                    reset.hop,
                    reset.target.address,
                    reset.target.port,
                    reset.source_port,
                    reset.seq,
                ))
            })?;
            if filled.built == 0 {
                break;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<usize, MeasureError> {
        let Self { receiver, judge, shared, number, network, gate, done_ns, .. } = self;
        let counters = &shared.counters[*number];
        let cooling = *done_ns != 0;
        let mut failed = None;
        let got = receiver.poll(RECORDS, &mut |record| {
            WorkerCounters::add(&counters.received, 1);
            if record.flags & flags::NEIGHBOUR != 0 {
                WorkerCounters::add(&counters.neighbours, 1);
                if let Err(error) = network.on_neighbour(record, gate) {
                    failed.get_or_insert(error);
                }
            } else {
                judge.judge(record, &shared.map, counters, cooling);
            }
        })?;
        shared.overruns[*number].store(receiver.overruns(), Ordering::Relaxed);
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(got),
        }
    }

    fn neighbours(&mut self, now: u64) -> Result<(), MeasureError> {
        if self.number == 0 && now.saturating_sub(self.ticked_ns) >= TICK_NS {
            self.ticked_ns = now;
            self.network.tick(now, &mut self.gate)?;
        }
        Ok(())
    }

    /// Moves collected rows towards the reader, without blocking.
    fn hand_over(&mut self, now: u64) {
        let full = self.judge.rows.len() >= RowBuilder::FULL;
        if full || now.saturating_sub(self.flushed_ns) >= FLUSH_NS {
            self.flushed_ns = now;
            self.collect();
        }
        while let Some(batch) = self.outbox.pop_front() {
            match self.out.try_send(batch) {
                Ok(()) => {}
                Err(TrySendError::Full(batch)) => {
                    self.outbox.push_front(batch);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => {
                    // Nobody will ever read: stop at once.
                    self.shared.stop.store(true, Ordering::Release);
                    break;
                }
            }
        }
    }

    fn collect(&mut self) {
        if !self.judge.rows.is_empty() {
            let batch = self.judge.rows.take();
            self.outbox.push_back(batch);
        }
    }

    /// Whether nothing more is waited for: all workers have sent and the cooldown is over.
    fn is_cool(&self, now: u64) -> bool {
        self.shared.sending.load(Ordering::Acquire) == 0
            && now.saturating_sub(self.shared.last_frame_ns.load(Ordering::Acquire).max(self.done_ns))
                >= self.cooldown_ns
            && self.outbox.len() < OUTBOX
    }

    fn sleep(&mut self) {
        let now = clock::now_ns();
        let until = if self.gate.pending() > 0 || (self.aimd.is_some() && self.done_ns == 0) {
            // The device is full or answers are under way: look again soon.
            now + 50_000
        } else if self.done_ns == 0 && self.outbox.is_empty() {
            self.pacer.next_ns(now)
        } else {
            now + NAP.as_nanos() as u64
        };
        let nap = Duration::from_nanos(until.saturating_sub(now)).min(NAP);
        if !nap.is_zero() {
            std::thread::sleep(nap);
        }
    }

    fn publish(&mut self) {
        let counters = &self.shared.counters[self.number];
        counters.set_gate(&self.gate.counters());
        counters.targets.store(self.supply.taken, Ordering::Relaxed);
        counters.unresolved.store(self.supply.unresolved, Ordering::Relaxed);
    }

    fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.number]
    }

    fn found(&self) -> u64 {
        if self.max_results == u64::MAX {
            return 0;
        }
        self.shared.counters.iter().map(|each| each.found.load(Ordering::Relaxed)).sum()
    }
}
