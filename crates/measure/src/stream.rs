//! Frames that somebody else builds: sent as they are given, received as they come (`Stack.send`, `Stack.receive`).
//!
//! One thread owns the worker. What it is given is already a copy, so that nobody can change a frame between the
//! policy's judgement, which happens in the engine's own memory, and the wire.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, TimestampNanosecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use crossbeam_channel::{Receiver as Channel, SendTimeoutError, Sender as Feed, bounded};
use irl_link::filter::{Accept, Frames};
use irl_link::record::{Kind, flags};
use irl_link::{Hop, LinkError, Network, Policy, RefusedBecause, Worker, WorkerRequest, clock};
use irl_wire::checksum::fill;
use irl_wire::{Key, Mac, PortRange, Protocol};

use crate::error::MeasureError;
use crate::pacer::Pacer;

/// The version of the columns of received frames.
pub const VERSION: u32 = 1;

const BATCH: usize = 256;
const JOBS: usize = 64;
const RECEIVED_BATCHES: usize = 64;
const RECEIVED_FRAMES: usize = 1024;
const TICK_NS: u64 = 10_000_000;
const ETHERNET: usize = 14;
/// How long an idle thread sleeps: the longest a frame handed in waits.
const IDLE: Duration = Duration::from_micros(500);

/// Frames in one piece of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameBatch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl FrameBatch {
    /// Adds a frame.
    pub fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    /// How many frames.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    fn longest(&self) -> usize {
        (0..self.len()).map(|index| self.get(index).len()).max().unwrap_or(0)
    }
}

/// What frames begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header: Ethernet is added, the next hop resolved.
    Ip,
}

/// What became of the frames of one [`Stream::send`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames the device took.
    pub sent: u64,
    /// Frames refused by the policy.
    pub refused: u64,
    /// Why the first of them was.
    pub refusal: Option<String>,
    /// Frames whose next hop nobody resolved.
    pub unresolved: u64,
    /// Frames given up because the device failed or the stream was closed.
    pub failed: u64,
    /// What failed.
    pub error: Option<String>,
    /// Whether nothing more will come of them.
    pub done: bool,
}

/// Tells when the frames of one [`Stream::send`] have left. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Completion {
    inner: Arc<(Mutex<Sent>, Condvar)>,
}

impl Completion {
    /// Waits until the frames have left, at most for `timeout`, and says what is known.
    pub fn wait(&self, timeout: Duration) -> Sent {
        let (state, changed) = &*self.inner;
        let guard = lock(state);
        let (guard, _) =
            changed.wait_timeout_while(guard, timeout, |sent| !sent.done).unwrap_or_else(PoisonError::into_inner);
        guard.clone()
    }

    /// What is known now.
    pub fn state(&self) -> Sent {
        lock(&self.inner.0).clone()
    }

    fn update(&self, change: impl FnOnce(&mut Sent)) {
        change(&mut lock(&self.inner.0));
        self.inner.1.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain data, changed in one step: whatever panicked elsewhere left it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The columns of received frames: when (UTC, ns) and the frame from its Ethernet header on.
pub fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let metadata = [("irlstack.schema".to_owned(), format!("frames {VERSION}"))].into();
    let fields = vec![Field::new("timestamp", time, false), Field::new("frame", DataType::Binary, false)];
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// Frames in both directions on a network. Dropping it stops them.
pub struct Stream {
    jobs: Feed<Job>,
    batches: Channel<RecordBatch>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Somebody reads: until then nothing is kept.
    listening: AtomicBool,
    received: AtomicU64,
    lost: AtomicU64,
}

impl Stream {
    /// Opens a worker and its thread. What arrives on `ports` of our addresses, and on spare addresses whatever nobody
    /// else has a claim to, can be received. Frames are at most `frame_len` bytes long.
    ///
    /// # Errors
    /// Those of [`Network::workers`].
    pub fn start(
        network: Arc<dyn Network>,
        policy: Arc<Policy>,
        ports: PortRange,
        frame_len: usize,
    ) -> Result<Self, MeasureError> {
        let request = WorkerRequest {
            accept: Accept::Any,
            frames: Frames::Always,
            frame_len,
            // No cookie is looked for, so no key is needed.
            ..WorkerRequest::new(Arc::clone(&policy), Key::new([0; 16]), ports, Protocol::Tcp)
        };
        let mut workers = network.workers(&request)?;
        let worker =
            workers.pop().ok_or_else(|| MeasureError::Config("the network handed out no worker".to_owned()))?;
        let (jobs, queue) = bounded(JOBS);
        let (feed, batches) = bounded(RECEIVED_BATCHES);
        let shared = Arc::new(Shared::default());
        let now = clock::now_ns();
        let task = Task {
            pacer: Pacer::new(policy.rate().per_second().unwrap_or(f64::INFINITY), now),
            worker,
            network,
            policy,
            queue,
            feed,
            shared: Arc::clone(&shared),
            frame_len,
            active: None,
            leaving: VecDeque::new(),
            permitted: 0,
            received: Received::default(),
            ticked_ns: 0,
        };
        let thread = std::thread::Builder::new()
            .name("irl-stream".to_owned())
            .spawn(move || task.run())
            .map_err(|source| LinkError::os("starting a worker thread", source))?;
        Ok(Self { jobs, batches, shared, thread: Mutex::new(Some(thread)) })
    }

    /// Takes frames to send. Several calls may be outstanding; when too many are, this one waits at most for `timeout`
    /// and then gives the frames back.
    ///
    /// # Errors
    /// The frames, when the queue stayed full.
    pub fn send(
        &self,
        frames: FrameBatch,
        layer: Layer,
        fill_checksums: bool,
        timeout: Duration,
    ) -> Result<Completion, FrameBatch> {
        let completion = Completion::default();
        let job = Job::new(frames, layer, fill_checksums, completion.clone());
        match self.jobs.send_timeout(job, timeout) {
            Ok(()) => Ok(completion),
            Err(SendTimeoutError::Timeout(mut job)) => Err(std::mem::take(&mut job.frames)),
            // Dropping the job tells its completion that it failed.
            Err(SendTimeoutError::Disconnected(_)) => Ok(completion),
        }
    }

    /// The next frames received, waiting at most `timeout`; `None` when there are none. Frames are kept from the first
    /// call on.
    pub fn receive(&self, timeout: Duration) -> Option<RecordBatch> {
        self.shared.listening.store(true, Ordering::Release);
        self.batches.recv_timeout(timeout).ok()
    }

    /// Frames received, and of them those lost because nobody read them in time.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.received.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }

    /// Stops: no frame leaves once this returns.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = lock(&self.thread).take() {
            // A panic of the thread was told to the completions of the jobs that it dropped.
            let _ = thread.join();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Frames on their way, and what became of them so far.
struct Job {
    frames: FrameBatch,
    layer: Layer,
    fill_checksums: bool,
    completion: Completion,
    /// Bytes of the longest frame, headers that are added included.
    longest: usize,
    /// Frames not built yet, by number.
    todo: VecDeque<usize>,
    permitted: u64,
}

impl Job {
    fn new(frames: FrameBatch, layer: Layer, fill_checksums: bool, completion: Completion) -> Self {
        let todo = (0..frames.len()).collect();
        let longest = frames.longest() + ETHERNET + 4;
        Self { frames, layer, fill_checksums, completion, longest, todo, permitted: 0 }
    }

    fn left(&self) {
        self.completion.update(|sent| {
            sent.sent = self.permitted;
            sent.done = true;
        });
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let open = self.todo.len() as u64 + self.permitted;
        self.completion.update(|sent| {
            if !sent.done {
                sent.done = true;
                sent.failed = open;
                sent.error.get_or_insert_with(|| "the stack was closed, or its interface is gone".to_owned());
            }
        });
    }
}

/// Frames on their way to the reader.
#[derive(Default)]
struct Received {
    times: Vec<i64>,
    frames: Vec<u8>,
    ends: Vec<usize>,
}

impl Received {
    fn take(&mut self) -> Option<RecordBatch> {
        if self.times.is_empty() {
            return None;
        }
        let mut start = 0;
        let frames = self.ends.drain(..).map(|end| {
            let frame = &self.frames[start..end];
            start = end;
            frame
        });
        let frames: ArrayRef = Arc::new(BinaryArray::from_iter_values(frames));
        let times = TimestampNanosecondArray::from(std::mem::take(&mut self.times)).with_timezone("UTC");
        self.frames.clear();
        RecordBatch::try_new(schema(), vec![Arc::new(times), frames]).ok()
    }
}

/// The thread's own.
struct Task {
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
    ticked_ns: u64,
}

impl Task {
    fn run(mut self) {
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
        let Self { worker, network, shared, received, .. } = self;
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
                received.times.push(offset + record.time_ns as i64);
                received.frames.extend_from_slice(record.body);
                received.ends.push(received.frames.len());
            }
        })?;
        if self.received.times.len() >= RECEIVED_FRAMES {
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

enum Written {
    Frame(usize),
    /// The next hop is being asked for.
    Later,
    /// There is no next hop, or the packet is none.
    Never,
}

/// Writes a frame into the engine's slot, with an Ethernet header where it has none.
fn write(slot: &mut [u8], given: &[u8], layer: Layer, network: &dyn Network, hops: &dyn irl_link::NextHop) -> Written {
    let start = match layer {
        Layer::Ethernet => 0,
        Layer::Ip => match header(slot, given, network, hops) {
            Ok(length) => length,
            Err(written) => return written,
        },
    };
    match slot.get_mut(start..start + given.len()) {
        Some(place) => place.copy_from_slice(given),
        None => return Written::Never,
    }
    Written::Frame(start + given.len())
}

/// The Ethernet header for a packet; a packet that is none gets a header too, so that the policy refuses it by name.
fn header(
    slot: &mut [u8],
    packet: &[u8],
    network: &dyn Network,
    hops: &dyn irl_link::NextHop,
) -> Result<usize, Written> {
    let (source, target, ethertype) = match (packet.first().map_or(0, |first| first >> 4), packet.len()) {
        (6, 40..) => (address6(&packet[8..24]), address6(&packet[24..40]), [0x86, 0xdd]),
        (_, 20..) => (address4(&packet[12..16]), address4(&packet[16..20]), [0x08, 0x00]),
        _ => (IpAddr::V4(0.into()), IpAddr::V4(0.into()), [0x08, 0x00]),
    };
    // A source that is not ours is refused by the policy, which needs a frame to judge.
    let link = network.endpoint(source).ok();
    let hop = match hops.constant() {
        Some(mac) => mac,
        None if link.is_none() => Mac([0; 6]),
        None => match hops.lookup(irl_targets::address_bits(target)) {
            Hop::Known(mac) => mac,
            Hop::Pending => return Err(Written::Later),
            Hop::Unreachable => return Err(Written::Never),
        },
    };
    let ours = link.map_or(Mac([0; 6]), |link| link.mac);
    let vlan = link.and_then(|link| link.vlan);
    let length = if vlan.is_some() { ETHERNET + 4 } else { ETHERNET };
    let Some(place) = slot.get_mut(..length) else { return Err(Written::Never) };
    place[..6].copy_from_slice(&hop.0);
    place[6..12].copy_from_slice(&ours.0);
    if let Some(tag) = vlan {
        place[12..14].copy_from_slice(&[0x81, 0x00]);
        place[14..16].copy_from_slice(&tag.to_be_bytes());
    }
    place[length - 2..].copy_from_slice(&ethertype);
    Ok(length)
}

fn address4(bytes: &[u8]) -> IpAddr {
    let bytes: [u8; 4] = bytes.try_into().unwrap_or_default();
    IpAddr::from(bytes)
}

fn address6(bytes: &[u8]) -> IpAddr {
    let bytes: [u8; 16] = bytes.try_into().unwrap_or_default();
    IpAddr::from(bytes)
}

/// What to add to the monotonic clock for UTC.
fn utc_offset_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX) - clock::now_ns() as i64
}
