//! The loop of one worker: take targets, build frames, hand them over, read answers, hand rows over, sleep.
//!
//! A worker owns its gate and receiver; with the others it shares the watermark, the answered map and flags, all atomic.
//! It never blocks for longer than [`NAP`], so that stopping takes milliseconds.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender as Channel;
use irl_link::record::flags;
use irl_link::{Gate, LinkError, Network, Receiver, Worker, clock};
use irl_targets::Target;

use crate::answers::{Answers, Here};
use crate::attachment::Attachment;
use crate::bounds::{Bounds, EndedBy};
use crate::device::Device;
use crate::error::MeasureError;
use crate::outbox::Outbox;
use crate::pacer::Pacer;
use crate::run::Delivery;
use crate::scan::ScanConfig;
use crate::search::{Counts, Search};
use crate::shared::{Place, Shared};
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
/// While waiting for the device, for answers under way or for next hops: look again so soon.
const SOON_NS: u64 = 50_000;

/// One worker and all it needs. What it does with answers is `A`'s.
pub(crate) struct Loop<A> {
    /// Until it ends.
    place: Option<Place>,
    number: usize,
    /// The first of its network: does the neighbours' work there.
    first: bool,
    /// Whether the run goes on by other networks when this one's interface goes.
    survivable: bool,
    workers: u64,
    /// The number of its network in a sample of frames.
    interface: u32,
    gate: Gate,
    receiver: Box<dyn Receiver>,
    network: Arc<dyn Network>,
    shared: Arc<Shared>,
    outbox: Outbox,
    supply: Supply,
    answers: A,
    pacer: Pacer,
    search: Option<Search>,
    bounds: Bounds,
    cooldown_ns: u64,
    recheck_rate: f64,
    device: Device,
    ticked_ns: u64,
    flushed_ns: u64,
    /// When this worker's last probe left; 0 while it sends.
    done_ns: u64,
    paused: bool,
    /// It is through its pass.
    walked: bool,
    /// Targets wait for next hops, or for those before them.
    starved: bool,
    built_any: bool,
}

impl<A: Answers> Loop<A> {
    pub(crate) fn new(
        number: usize,
        worker: Worker,
        config: &ScanConfig,
        shared: &Arc<Shared>,
        attachments: &[Attachment],
        answers: A,
        out: Channel<Delivery>,
    ) -> Self {
        let now = clock::now_ns();
        let attachment = &attachments[number % attachments.len()];
        let network = attachment.network();
        Self {
            place: Some(Place::new(shared)),
            number,
            first: number < attachments.len(),
            survivable: attachments.len() > 1,
            workers: u64::from(config.workers.max(1)),
            interface: (number % attachments.len()) as u32,
            gate: worker.gate,
            receiver: worker.receiver,
            network: Arc::clone(network),
            shared: Arc::clone(shared),
            outbox: Outbox::new(number, out, config.checkpointed),
            supply: Supply::new(config, attachment, answers.list(), A::SAME_PORT, shared.passes.current()),
            answers,
            pacer: Pacer::new(1.0, now),
            search: None,
            bounds: Bounds::new(config, now),
            recheck_rate: config.recheck_rate,
            cooldown_ns: config.cooldown.as_nanos() as u64,
            device: Device::new(config.retries, now),
            ticked_ns: 0,
            flushed_ns: now,
            done_ns: 0,
            paused: false,
            walked: false,
            starved: false,
            built_any: false,
        }
    }

    /// Runs to the end. Whatever happens, rows collected so far are handed over and the counters balance.
    pub(crate) fn run(mut self) {
        // A panic is a bug of ours, but the reader must not wait for ever because of it.
        let result = catch_unwind(AssertUnwindSafe(|| self.work()))
            .unwrap_or_else(|panic| Err(MeasureError::Worker(message(panic.as_ref()))));
        let ended = self.with_answers(clock::now_ns(), |answers, gate, here| answers.end(gate, here));
        // Frames that were committed and never left are given up, so that built = sent + refused holds.
        self.gate.abandon();
        self.publish();
        if result.is_ok() && !self.shared.stop.load(Ordering::Acquire) {
            self.track(clock::now_ns());
        }
        let left = self.supply.left();
        self.counters().waiting.store(0, Ordering::Relaxed);
        match result.and(ended.map_err(MeasureError::from)) {
            Err(MeasureError::Link(error @ LinkError::InterfaceGone { .. })) if self.survivable => {
                self.shared.lose(MeasureError::OneGone(error), left);
                // After what it leaves: the pass is not over before that is probed.
                self.shared.passes.lose(self.supply.pass, self.walked, clock::now_ns());
            }
            result => {
                WorkerCounters::add(&self.counters().unprobed, left.len() as u64);
                result.err().into_iter().for_each(|error| self.shared.fail(error));
            }
        }
        self.place = None;
        self.collect();
        // Nothing is sent or received any more.
        self.outbox.drain();
    }

    fn work(&mut self) -> Result<(), MeasureError> {
        loop {
            if self.shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            let now = clock::now_ns();
            let owed = self.with_answers(now, |answers, gate, here| answers.send(gate, here))?;
            let sent = if self.done_ns == 0 && !self.answers.owes() { self.send(now)? } else { 0 };
            self.kick(now)?;
            let got = if self.outbox.is_full() { 0 } else { self.receive(now)? };
            self.neighbours(now)?;
            self.hand_over(now);
            self.publish();
            self.shared.note_if_due(now);
            if self.done_ns != 0 && self.is_cool(now) {
                return self.tell_silent();
            }
            if owed == 0 && sent == 0 && got == 0 {
                self.sleep()?;
            }
        }
    }

    /// Builds and commits what the pacer, the device and the reader allow. Returns how many probes were built and, in a
    /// later pass, how many positions were looked at: 0 when there was nothing to do.
    fn send(&mut self, now: u64) -> Result<u64, MeasureError> {
        if let Some(by) = self.end_of_sending(now) {
            self.shared.end(by);
            self.done_ns = now.max(1);
            self.place.as_mut().map(Place::sends_no_more);
            return Ok(0);
        }
        // What a worker gave back whose interface went is still of this pass.
        if self.walked && !self.shared.has_returned() {
            return Ok(0);
        }
        if !self.outbox.is_empty() {
            WorkerCounters::add(&self.counters().pauses, u64::from(!self.paused));
            self.paused = true;
            return Ok(0);
        }
        self.paused = false;
        self.set_rate(now);
        let mut allowed = self.pacer.allow(now).min(BURST);
        if let Some(search) = &self.search {
            allowed = allowed.min(search.room());
        }
        let room = self.with_answers(now, |answers, _, here| answers.room(here));
        self.starved = room == 0;
        allowed = allowed.min(room);
        if allowed == 0 {
            return Ok(0);
        }
        let Self { gate, supply, shared, built_any, answers, .. } = self;
        let frame_len = supply.builders[0].frame_len();
        supply.walked = 0;
        let mut built = 0;
        // A batch may be shorter than asked for at the end of the engine's memory: go on with the next.
        while built < allowed {
            let want = (allowed - built) as usize;
            let filled = gate.fill(want, frame_len, |slot| {
                let length = supply.build(slot, shared, want, now, |target| {
                    shared.may_probe(target, now, || answers.may_probe(target, now))
                })?;
                if !*built_any {
                    *built_any = true;
                    let mut first = shared.first_frame.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert_with(|| slot[..length].to_vec());
                }
                Some(length)
            })?;
            if filled.built == 0 {
                break;
            }
            built += filled.built as u64;
        }
        let walked = supply.walked as u64;
        self.starved = built == 0 && walked == 0 && self.gate.pending() == 0;
        if built > 0 {
            // Only the first to come stores; later values are later.
            let _ = self.shared.first_frame_ns.compare_exchange(0, now, Ordering::AcqRel, Ordering::Relaxed);
            self.shared.last_frame_ns.fetch_max(now, Ordering::AcqRel);
        }
        self.pacer.spend(built);
        Ok(built + walked)
    }

    fn end_of_sending(&mut self, now: u64) -> Option<EndedBy> {
        if self.shared.halt.load(Ordering::Acquire) {
            return Some(EndedBy::Stopped);
        }
        if self.gate.pending() == 0 && self.supply.is_empty(&self.shared) {
            if !std::mem::replace(&mut self.walked, true) {
                self.publish();
                self.shared.passes.leave(now);
            }
            let all_answered = || self.shared.stats().answered >= self.supply.plan.len();
            if self.shared.passes.is_last(self.supply.pass, all_answered) {
                return Some(EndedBy::Targets);
            }
            // Whoever was ended by a bound comes to no next pass, and so nobody does. Another may be through the last one
            // before this one has entered it.
            let ended_by = EndedBy::from_u8(self.shared.ended_by.load(Ordering::Acquire));
            if let Some(by) = ended_by.filter(|by| *by != EndedBy::Targets) {
                return Some(by);
            }
            if self.shared.passes.may_go_on(self.supply.pass, now, || self.shared.stats()) {
                self.supply.next_pass(&self.shared);
                self.walked = false;
                // What the wait left unsent is not caught up on.
                self.pacer = Pacer::new(self.pacer.rate(), now);
            }
        }
        self.bounds.reached(&self.shared, now)
    }

    fn set_rate(&mut self, now: u64) {
        let mut asked = f64::from_bits(self.shared.rate.load(Ordering::Acquire));
        if self.shared.passes.again(self.supply.pass).is_some() {
            asked = if asked > 0.0 { asked.min(self.recheck_rate) } else { self.recheck_rate };
        }
        if asked > 0.0 {
            self.search = None;
            return self.pacer.set_rate(asked / self.workers as f64, now);
        }
        let counters = &self.shared.counters[self.number];
        let counts = Counts {
            probes: counters.probes_built.load(Ordering::Relaxed),
            answers: self.answers.heard(&Here { shared: &self.shared, counters, cooling: false, now_ns: now }),
            lost: self.receiver.overruns(),
            refused: counters.device_lost.load(Ordering::Relaxed),
        };
        let rate = self.search.get_or_insert_with(|| Search::new(counts, now)).step(counts, now);
        self.pacer.set_rate(rate, now);
    }

    /// Gets frames moving, and notices a device that takes none.
    fn kick(&mut self, now: u64) -> Result<(), MeasureError> {
        if self.gate.pending() == 0 {
            self.device.is_well(now);
            return Ok(());
        }
        let kicked = self.gate.kick()?;
        if self.device.kicked(kicked, self.gate.pending(), now)? {
            WorkerCounters::add(&self.counters().sendto_failures, 1);
        }
        Ok(())
    }

    fn with_answers<T>(&mut self, now_ns: u64, act: impl FnOnce(&mut A, &mut Gate, &Here<'_>) -> T) -> T {
        let Self { answers, gate, shared, number, done_ns, .. } = self;
        let here = Here { shared, counters: &shared.counters[*number], cooling: *done_ns != 0, now_ns };
        act(answers, gate, &here)
    }

    fn receive(&mut self, now_ns: u64) -> Result<usize, MeasureError> {
        let Self { receiver, answers, shared, number, interface, network, gate, done_ns, outbox, .. } = self;
        let counters = &shared.counters[*number];
        let here = Here { shared, counters, cooling: *done_ns != 0, now_ns };
        let mut failed = None;
        let got = receiver.poll(RECORDS, &mut |record| {
            WorkerCounters::add(&counters.received, 1);
            if let Some(sample) = &shared.capture
                && record.flags & flags::NEIGHBOUR == 0
            {
                sample.received(&record, *interface);
            }
            if record.flags & flags::NEIGHBOUR != 0 {
                WorkerCounters::add(&counters.neighbours, 1);
                if let Err(error) = network.on_neighbour(record, gate) {
                    failed.get_or_insert(error);
                }
            } else if record.flags & flags::FRAGMENT != 0 {
                WorkerCounters::add(&counters.fragments, 1);
            } else if record.flags & flags::BAD_CHECKSUM != 0 {
                WorkerCounters::add(&counters.invalid, 1);
            } else {
                answers.take(record, &here);
            }
        });
        answers.settle(&here);
        // What time brings is due only to those whose records were all read: who waits there is not late.
        if matches!(got, Ok(got) if got < RECORDS) {
            answers.due(&here);
        }
        let got = got?;
        shared.overruns[*number].store(receiver.overruns(), Ordering::Relaxed);
        if got < RECORDS {
            outbox.has_read(now_ns);
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(got),
        }
    }

    fn neighbours(&mut self, now: u64) -> Result<(), MeasureError> {
        if self.first && now.saturating_sub(self.ticked_ns) >= TICK_NS {
            self.ticked_ns = now;
            self.network.tick(now, &mut self.gate)?;
        }
        Ok(())
    }

    /// Moves collected rows towards the reader, without blocking.
    fn hand_over(&mut self, now: u64) {
        let full = self.answers.is_full();
        // While rows wait for the reader, small batches would only use up the places of large ones.
        if full || (self.outbox.is_empty() && now.saturating_sub(self.flushed_ns) >= FLUSH_NS) {
            self.flushed_ns = now;
            self.publish();
            self.track(now);
            self.collect();
        }
        if self.outbox.offer().is_err() {
            self.shared.stop.store(true, Ordering::Release);
        }
    }

    fn collect(&mut self) {
        self.outbox.collect(&mut self.answers, &self.shared.counters[self.number]);
    }

    fn track(&mut self, now: u64) {
        self.outbox.track(|| self.supply.place(&self.shared), &self.gate.counters().probes, now);
    }

    /// Tells of the targets that stayed silent, where that is wanted, as fast as rows are read.
    fn tell_silent(&mut self) -> Result<(), MeasureError> {
        let mut block = vec![(0, Target::default()); RECORDS];
        while self.answers.tells_silent() && !self.shared.stop.load(Ordering::Acquire) {
            let now = clock::now_ns();
            self.hand_over(now);
            if self.outbox.is_full() {
                std::thread::sleep(NAP);
                continue;
            }
            let first = self.shared.told.fetch_add(RECORDS as u64, Ordering::AcqRel);
            // Those beyond were not probed, because a bound ended the run.
            let probed = self.shared.watermark.load(Ordering::Acquire).saturating_sub(first);
            let count = self.supply.plan.fill(first, &mut block).min(usize::try_from(probed).unwrap_or(usize::MAX));
            if count == 0 {
                break;
            }
            let sources = self.supply.builders.len() as u64;
            self.with_answers(now, |answers, _, here| {
                for (number, target) in &block[..count] {
                    if !here.shared.map.has_answered(*number) {
                        answers.silent((number % sources) as usize, *target, here);
                    }
                }
            });
        }
        Ok(())
    }

    /// Whether nothing more is waited for: all workers have sent and the cooldown is over, or nothing more can come.
    fn is_cool(&self, now: u64) -> bool {
        let since = self.shared.last_frame_ns.load(Ordering::Acquire).max(self.done_ns);
        self.shared.sending.load(Ordering::Acquire) == 0
            && self.receiver.is_exhausted().unwrap_or(now.saturating_sub(since) >= self.cooldown_ns)
            && !self.outbox.is_full()
            && !self.answers.is_busy()
    }

    fn sleep(&mut self) -> Result<(), MeasureError> {
        let now = clock::now_ns();
        let until = if self.gate.pending() > 0 {
            now + SOON_NS
        } else if self.done_ns != 0 || self.paused || self.walked {
            now + NAP.as_nanos() as u64
        } else if self.starved || self.search.as_ref().is_some_and(|search| search.room() == 0) {
            self.pacer.next_ns(now).max(now + SOON_NS)
        } else {
            self.pacer.next_ns(now)
        };
        let due = self.answers.next_due_ns().map_or(u64::MAX, |due| due.max(now + SOON_NS));
        let nap = Duration::from_nanos(until.min(due).saturating_sub(now)).min(NAP);
        if nap.is_zero() {
            return Ok(());
        }
        if self.answers.is_busy() {
            // Somebody waits for us to go on.
            return Ok(self.receiver.wait(nap)?);
        }
        std::thread::sleep(nap);
        Ok(())
    }

    fn publish(&mut self) {
        let counters = &self.shared.counters[self.number];
        counters.set_gate(&self.gate.counters());
        counters.targets.store(self.supply.taken, Ordering::Relaxed);
        counters.reprobed.store(self.supply.retaken, Ordering::Relaxed);
        counters.unresolved.store(self.supply.unresolved, Ordering::Relaxed);
        counters.recheck_found_probed.store(self.supply.rechecked.0, Ordering::Relaxed);
        counters.recheck_others_probed.store(self.supply.rechecked.1, Ordering::Relaxed);
        counters.held.store(self.supply.held_back, Ordering::Relaxed);
        counters.waiting.store(self.supply.waiting(), Ordering::Relaxed);
        self.answers.publish(counters);
    }

    fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.number]
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason was given").to_owned()
}
