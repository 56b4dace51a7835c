//! The thread of a stream: frames handed in go out at the policy's rate, frames that come are kept for the reader.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow_array::RecordBatch;
use crossbeam_channel::{Receiver as Channel, Sender as Feed};
use irl_link::record::{Kind, flags};
use irl_link::{LinkError, Network, Policy, RefusedBecause, Worker, clock};
use irl_wire::checksum::fill;

use super::job::Job;
use super::received::Received;
use super::write::{Written, write};
use super::{ETHERNET, Shared};
use crate::pacer::Pacer;

const BATCH: usize = 256;
const RECEIVED_FRAMES: usize = 1024;
const TICK_NS: u64 = 10_000_000;
/// How long an idle thread sleeps: the longest a frame handed in waits.
const IDLE: Duration = Duration::from_micros(500);

/// The thread's own.
pub(super) struct Task {
    worker: Worker,
    network: Arc<dyn Network>,
    policy: Arc<Policy>,
    pacer: Pacer,
    queue: Channel<Job>,
    feed: Feed<RecordBatch>,
    shared: Arc<Shared>,
    frame_len: usize,
    active: Option<Job>,
    /// Jobs whose last frame waits in the engine, with the count of permitted frames at which it has left.
    leaving: VecDeque<(u64, Job)>,
    permitted: u64,
    received: Received,
    /// Bytes of a received frame that the device had not: it is without Ethernet, and they were made up.
    made_up: usize,
    ticked_ns: u64,
}

impl Task {
    /// Frames of at most `frame_len` bytes come from `queue`; batches of received ones go to `feed`.
    pub(super) fn new(
        worker: Worker,
        network: Arc<dyn Network>,
        policy: Arc<Policy>,
        frame_len: usize,
        queue: Channel<Job>,
        feed: Feed<RecordBatch>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            pacer: Pacer::new(policy.rate().per_second().unwrap_or(f64::INFINITY), clock::now_ns()),
            made_up: if network.info().ip_layer { ETHERNET } else { 0 },
            worker,
            network,
            policy,
            queue,
            feed,
            shared,
            frame_len,
            active: None,
            leaving: VecDeque::new(),
            permitted: 0,
            received: Received::default(),
            ticked_ns: 0,
        }
    }

    /// Runs until the stream stops or the network fails.
    pub(super) fn run(mut self) {
        let ended = loop {
            if self.shared.stop.load(Ordering::Acquire) {
                break Ok(());
            }
            match self.turn() {
                Ok(true) => {}
                Ok(false) => {
                    if let Err(error) = self.worker.receiver.wait(IDLE) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        self.worker.gate.abandon();
        if let Err(error) = ended {
            let text = error.to_string();
            for job in self.active.iter().chain(self.leaving.iter().map(|(_, job)| job)) {
                job.completion.update(|sent| sent.error = Some(text.clone()));
            }
        }
        self.network.release(&[self.worker.owner]);
    }

    /// One round of everything; says whether there was anything to do.
    fn turn(&mut self) -> Result<bool, LinkError> {
        let now = clock::now_ns();
        let mut busy = self.hear()?;
        if now >= self.ticked_ns + TICK_NS {
            self.ticked_ns = now;
            self.network.tick(now, &mut self.worker.gate)?;
            self.flush();
        }
        if self.active.is_none() {
            self.active = self.queue.try_recv().ok();
        }
        busy |= self.build(now)?;
        if self.worker.gate.pending() > 0 {
            self.worker.gate.kick()?;
            busy = true;
        }
        self.settle();
        Ok(busy)
    }

    fn hear(&mut self) -> Result<bool, LinkError> {
        let Self { worker, network, shared, received, made_up, .. } = self;
        let Worker { receiver, gate, .. } = worker;
        let listening = shared.listening.load(Ordering::Acquire);
        let offset = utc_offset_ns();
        let mut failed = None;
        let heard = receiver.poll(BATCH, &mut |record| {
            if record.flags & flags::NEIGHBOUR != 0 {
                if let Err(error) = network.on_neighbour(record, gate) {
                    failed.get_or_insert(error);
                }
            } else if listening && record.kind == Kind::Frame {
                received.push(offset + record.time_ns as i64, record.body.get(*made_up..).unwrap_or_default());
            }
        })?;
        if self.received.len() >= RECEIVED_FRAMES {
            self.flush();
        }
        failed.map_or(Ok(heard > 0), Err)
    }

    /// Hands on what was received; a reader that is too slow loses frames, which are counted.
    fn flush(&mut self) {
        let Some(batch) = self.received.take() else { return };
        let frames = batch.num_rows() as u64;
        self.shared.received.fetch_add(frames, Ordering::Relaxed);
        if self.feed.try_send(batch).is_err() {
            self.shared.lost.fetch_add(frames, Ordering::Relaxed);
        }
    }

    /// Builds what rate, engine and neighbours allow of the active job.
    fn build(&mut self, now: u64) -> Result<bool, LinkError> {
        let Some(job) = &mut self.active else { return Ok(false) };
        let count = self.pacer.allow(now).min(BATCH as u64).min(job.todo.len() as u64) as usize;
        let before = self.worker.gate.counters().probes.refused;
        let hops = self.network.next_hop();
        let (network, longest) = (&self.network, self.frame_len);
        let mut given_up = 0;
        let mut looked_at = 0;
        let filled = self.worker.gate.fill(count, longest.min(job.longest), |slot| {
            // Each frame is looked at once a round: one that waits for its next hop goes to the back.
            while looked_at < BATCH {
                looked_at += 1;
                let index = job.todo.pop_front()?;
                match write(slot, job.frames.get(index), job.layer, network.as_ref(), hops.as_ref()) {
                    Written::Frame(length) => {
                        if job.fill_checksums {
                            fill(&mut slot[..length]);
                        }
                        return Some(length);
                    }
                    Written::Later => job.todo.push_back(index),
                    Written::Never => given_up += 1,
                }
            }
            None
        })?;
        let permitted = (filled.built - filled.refused) as u64;
        self.pacer.spend(permitted);
        self.permitted += permitted;
        job.permitted += permitted;
        if filled.refused > 0 || given_up > 0 {
            let after = self.worker.gate.counters().probes.refused;
            let because = RefusedBecause::ALL.into_iter().find(|&each| after[each as usize] > before[each as usize]);
            job.completion.update(|sent| {
                sent.refused += filled.refused as u64;
                sent.unresolved += given_up;
                if sent.refusal.is_none() {
                    sent.refusal = because.map(|because| self.policy.explain(because));
                }
            });
        }
        if job.todo.is_empty()
            && let Some(job) = self.active.take()
        {
            self.leaving.push_back((self.permitted, job));
        }
        Ok(filled.built > 0)
    }

    /// Tells jobs whose frames have left.
    fn settle(&mut self) {
        let probes = self.worker.gate.counters().probes;
        let left = probes.sent + probes.refused_by_device;
        while self.leaving.front().is_some_and(|(mark, _)| *mark <= left)
            && let Some((_, job)) = self.leaving.pop_front()
        {
            job.left();
        }
    }
}

/// What to add to the monotonic clock for UTC.
fn utc_offset_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX) - clock::now_ns() as i64
}
