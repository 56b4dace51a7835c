//! Engines without a network: `pcap:FILE` writes what would leave, `replay:FILE` judges what once came.
//!
//! The loops, the policy, the filter's decisions and the records are those of a real interface. Nothing is ever sent.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use irl_wire::Mac;

use super::pcapng::{Direction, Packet, Writer};
use super::reader::{End, Reader};
use super::{LINK_ETHERNET, words};
use crate::clock::now_ns;
use crate::engine::{Batch, Kicked, Receiver, Sender, Worker};
use crate::error::LinkError;
use crate::filter::{
    AddressKind, FilterConfig, FilterCounters, MAX_OWNERS, OwnAddress, OwnerConfig, TwinFilter, Verdict,
};
use crate::memory::{OneHop, Slots, Taken};
use crate::network::{DeviceCounters, EngineInfo, LinkEndpoint, Network, NextHop, Replayed, WorkerRequest};
use crate::null::NullSender;
use crate::policy::{Arena, Gate, PolicySettings};
use crate::record::Record;

/// Frames in a batch, and bytes of a slot.
const FRAMES: usize = 256;
const STRIDE: usize = 2048;
/// Frames read in one turn, so that no worker waits long for another's.
const FRAMES_PER_TURN: usize = 4096;
/// The longest frame that is filled up with the zeros that a rebuilt one stands for.
const LONGEST_FRAME: usize = 65_549;

/// What fixes such an engine.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// The file.
    pub path: PathBuf,
    /// Whether it is read, and not written.
    pub replay: bool,
    /// Our addresses; none where a capture says itself to whom its answers came.
    pub sources: Vec<IpAddr>,
    /// The MAC that frames come from.
    pub source_mac: Mac,
    /// The MAC that they go to.
    pub gateway_mac: Mac,
    /// The tag that they carry.
    pub vlan: Option<u16>,
    /// What wrote the file, for its section.
    pub program: String,
}

/// A network that is a file.
pub struct DiskNetwork {
    config: DiskConfig,
    next_owner: AtomicU16,
    way: Way,
}

enum Way {
    Written(Arc<Mutex<Writer<File>>>),
    Read(Arc<Tape>),
}

/// A capture that is replayed, to all workers together.
struct Tape {
    /// Until a run takes it.
    source: Mutex<Source>,
    queues: Mutex<Vec<Arc<Mutex<Queue>>>>,
    clock: Option<i64>,
    read: AtomicU64,
    cut: AtomicU64,
    untimed: AtomicU64,
    ends_cut: AtomicU64,
}

struct Source {
    reader: Reader<File>,
    twin: TwinFilter,
    first_owner: Option<u16>,
    record: Vec<u8>,
    padded: Vec<u8>,
    ended: bool,
    name: String,
}

/// Records that wait for their worker.
#[derive(Default)]
struct Queue {
    records: Vec<u8>,
    limit: usize,
}

impl DiskNetwork {
    /// Opens the file: a new one to be written, or a capture to be read.
    ///
    /// # Errors
    /// [`LinkError::Config`] for a file that is there already, or is no capture; [`LinkError::Os`].
    pub fn open(mut config: DiskConfig) -> Result<Self, LinkError> {
        let name = config.path.display().to_string();
        let failed = |what: &str| {
            let what = format!("{what} {name}");
            move |source| LinkError::os(what, source)
        };
        let way = if config.replay {
            let reader = Reader::new(File::open(&config.path).map_err(failed("reading"))?, format!("the file {name}"))?;
            if config.sources.is_empty() {
                config.sources = reader.sources().to_vec();
            }
            if config.sources.is_empty() {
                return Err(LinkError::config(format!(
                    "nothing in {name} says to which address of ours its answers came: give it with --source-ip, as it was, \
                     or in the plan"
                )));
            }
            let spare = |address: &IpAddr| OwnAddress { address: *address, kind: AddressKind::Spare };
            let twin = TwinFilter::new(&FilterConfig { addresses: config.sources.iter().map(spare).collect() })?;
            let clock = reader.clock();
            let (record, padded) = (Vec::new(), Vec::new());
            Way::Read(Arc::new(Tape {
                source: Mutex::new(Source { reader, twin, first_owner: None, record, padded, ended: false, name }),
                queues: Mutex::default(),
                clock,
                read: AtomicU64::new(0),
                cut: AtomicU64::new(0),
                untimed: AtomicU64::new(0),
                ends_cut: AtomicU64::new(0),
            }))
        } else {
            // A pipe, or a device, may be there. A file may be the only capture of a run.
            if fs::metadata(&config.path).is_ok_and(|there| there.is_file() && there.len() > 0) {
                return Err(LinkError::config(format!(
                    "{name} is there already: pcap:FILE writes a new file; to judge what is in it, say replay:{name}"
                )));
            }
            let file = File::create(&config.path).map_err(failed("writing"))?;
            let comment = format!(
                "frames that a dry run would have sent: none of them left\n{}",
                words(&config.sources, utc_ns() as i64 - now_ns() as i64)
            );
            let mut writer = Writer::new(file, &config.program, &comment).map_err(failed("writing"))?;
            writer.interface("pcap", LINK_ETHERNET).map_err(failed("writing"))?;
            Way::Written(Arc::new(Mutex::new(writer)))
        };
        Ok(Self { config, next_owner: AtomicU16::new(0), way })
    }
}

impl Tape {
    /// Moves what comes next to the queues, until one of them is full. Does nothing while another worker is at it.
    fn turn(&self) -> Result<(), LinkError> {
        let mut source = match self.source.try_lock() {
            Ok(source) => source,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let queues = lock(&self.queues);
        let full = |queue: &Arc<Mutex<Queue>>| {
            let queue = lock(queue);
            queue.records.len() > queue.limit
        };
        if source.ended || queues.iter().any(full) {
            return Ok(());
        }
        let Source { reader, twin, first_owner, record, padded, ended, name } = &mut *source;
        let first_owner = first_owner.unwrap_or_default();
        for _ in 0..FRAMES_PER_TURN {
            let captured = match reader.read() {
                Ok(Some(captured)) => captured,
                Ok(None) => {
                    *ended = true;
                    break;
                }
                Err(error) => {
                    *ended = true;
                    return Err(error);
                }
            };
            self.read.fetch_add(1, Ordering::Relaxed);
            let Some(time_ns) = captured.time_ns else {
                self.untimed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let mut frame = captured.frame;
            if captured.missing > 0 {
                let length = frame.len() + captured.missing as usize;
                // In a sample of ours what is missing stands for zeros; elsewhere nobody can tell what it was.
                if self.clock.is_none() || length > LONGEST_FRAME {
                    self.cut.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                padded.clear();
                padded.extend_from_slice(frame);
                padded.resize(length, 0);
                frame = padded;
            }
            record.clear();
            let time_ns = time_ns.wrapping_sub(self.clock.unwrap_or_default() as u64);
            let (Verdict::Record { owner } | Verdict::Copied { owner }) = twin.judge(frame, time_ns, record) else {
                continue;
            };
            let Some(queue) = queues.get(usize::from(owner.wrapping_sub(first_owner))) else { continue };
            let mut queue = lock(queue);
            // Nobody waits for it in a queue whose worker is gone.
            if queue.limit > 0 {
                queue.records.extend_from_slice(record);
            }
            if queue.records.len() > queue.limit {
                break;
            }
        }
        if *ended && reader.end() == Some(End::Cut) {
            self.ends_cut.store(1, Ordering::Relaxed);
            log::warn!("{name} ends within a packet: what came before it was judged, what came later is not there");
        }
        Ok(())
    }

    fn add_owners(&self, owners: &[OwnerConfig]) -> Result<(), LinkError> {
        let mut source = lock(&self.source);
        if source.first_owner.is_some() {
            return Err(LinkError::config("a capture is replayed to one run: open it again for another"));
        }
        for owner in owners {
            source.twin.add_owner(owner)?;
        }
        source.first_owner = owners.first().map(|owner| owner.owner);
        let queue =
            |owner: &OwnerConfig| Arc::new(Mutex::new(Queue { limit: owner.ring_bytes.max(1), ..Queue::default() }));
        *lock(&self.queues) = owners.iter().map(queue).collect();
        Ok(())
    }
}

/// Writes committed frames to the file.
struct DiskSender {
    writer: Arc<Mutex<Writer<File>>>,
    name: String,
    slots: Slots,
}

impl Sender for DiskSender {
    fn max_frame(&self) -> usize {
        self.slots.max_frame()
    }

    fn reserve(&mut self, frames: usize, frame_len: usize) -> Result<Batch<'_>, LinkError> {
        self.slots.reserve(frames, frame_len)
    }

    fn commit(&mut self, frames: usize) {
        self.slots.commit(frames);
    }

    fn kick(&mut self) -> Result<Kicked, LinkError> {
        let time_ns = utc_ns();
        let packets = self.slots.frames().map(|bytes| Packet {
            interface: 0,
            time_ns,
            bytes,
            length: bytes.len() as u32,
            direction: Direction::Outbound,
            comment: None,
        });
        let written = lock(&self.writer).packets(packets);
        written.map_err(|source| LinkError::os(format!("writing {}", self.name), source))?;
        Ok(Kicked { accepted: self.slots.clear(), refused: 0 })
    }

    fn pending(&self) -> usize {
        self.slots.pending()
    }

    fn completed(&self) -> u64 {
        self.slots.completed()
    }
}

/// One worker's share of a tape, or of nothing.
struct DiskReceiver {
    tape: Option<(Arc<Tape>, Arc<Mutex<Queue>>)>,
    taken: Taken,
}

impl Receiver for DiskReceiver {
    fn poll(&mut self, max: usize, each: &mut dyn FnMut(Record<'_>)) -> Result<usize, LinkError> {
        let Some((tape, queue)) = &self.tape else { return Ok(0) };
        let refill = |memory: &mut Vec<u8>| {
            tape.turn()?;
            std::mem::swap(memory, &mut lock(queue).records);
            Ok(())
        };
        self.taken.poll(max, refill, each)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), LinkError> {
        if !self.is_exhausted().unwrap_or(true) {
            return Ok(());
        }
        std::thread::sleep(timeout);
        Ok(())
    }

    fn overruns(&self) -> u64 {
        0
    }

    fn is_exhausted(&self) -> Option<bool> {
        let Some((tape, queue)) = &self.tape else { return Some(true) };
        // In this order: what is moved to the queue after a look at it would be missed.
        Some(self.taken.is_empty() && lock(&tape.source).ended && lock(queue).records.is_empty())
    }
}

impl Drop for DiskReceiver {
    fn drop(&mut self) {
        // The others must not wait for room in the queue of one that is gone.
        if let Some((_, queue)) = &self.tape {
            *lock(queue) = Queue::default();
        }
    }
}

impl Network for DiskNetwork {
    fn workers(&self, request: &WorkerRequest) -> Result<Vec<Worker>, LinkError> {
        let count = request.count.max(1);
        let first_owner = self.next_owner.fetch_add(count, Ordering::Relaxed) % (MAX_OWNERS - count);
        let owner = |residue: u16| request.owner(first_owner + residue, residue);
        if let Way::Read(tape) = &self.way {
            tape.add_owners(&(0..count).map(owner).collect::<Vec<_>>())?;
        }
        let worker = |number: u16| {
            let (sender, tape): (Box<dyn Sender>, _) = match &self.way {
                Way::Written(writer) => {
                    let sender = DiskSender {
                        writer: Arc::clone(writer),
                        name: self.config.path.display().to_string(),
                        slots: Slots::new(FRAMES, STRIDE),
                    };
                    (Box::new(sender), None)
                }
                Way::Read(tape) => {
                    let queue = Arc::clone(&lock(&tape.queues)[usize::from(number)]);
                    (Box::new(NullSender::new(FRAMES, STRIDE)), Some((Arc::clone(tape), queue)))
                }
            };
            Worker {
                owner: first_owner + number,
                gate: Gate::new(sender, Arc::clone(&request.policy)),
                receiver: Box::new(DiskReceiver { tape, taken: Taken::default() }),
            }
        };
        Ok((0..count).map(worker).collect())
    }

    fn endpoint(&self, source: IpAddr) -> Result<LinkEndpoint, LinkError> {
        if self.config.sources.contains(&source) {
            Ok(LinkEndpoint { mac: self.config.source_mac, vlan: self.config.vlan })
        } else {
            Err(LinkError::config(format!("{source} is not the address that frames come from")))
        }
    }

    fn sources(&self) -> Vec<IpAddr> {
        self.config.sources.clone()
    }

    fn policy_settings(&self) -> PolicySettings {
        PolicySettings { sources: self.config.sources.clone(), arena: Arena::Disk, ..PolicySettings::default() }
    }

    fn next_hop(&self) -> Arc<dyn NextHop> {
        Arc::new(OneHop(self.config.gateway_mac))
    }

    fn on_neighbour(&self, _: Record<'_>, _: &mut Gate) -> Result<(), LinkError> {
        Ok(())
    }

    fn tick(&self, _: u64, _: &mut Gate) -> Result<(), LinkError> {
        Ok(())
    }

    fn info(&self) -> EngineInfo {
        let (engine, why) = match self.way {
            Way::Written(_) => ("pcap", "asked for by name; frames go into the file and nowhere else"),
            Way::Read(_) => ("replay", "asked for by name; answers come from the file, and no frame goes anywhere"),
        };
        EngineInfo {
            engine: engine.to_owned(),
            why: why.to_owned(),
            xdp_mode: "none".to_owned(),
            interface: self.config.path.display().to_string(),
            unsent: true,
            ..EngineInfo::default()
        }
    }

    fn filter_counters(&self) -> FilterCounters {
        match &self.way {
            Way::Written(_) => FilterCounters::default(),
            Way::Read(tape) => lock(&tape.source).twin.counters().clone(),
        }
    }

    fn device_counters(&self) -> Option<DeviceCounters> {
        None
    }

    fn extra_counters(&self) -> BTreeMap<String, u64> {
        let Way::Read(tape) = &self.way else { return BTreeMap::new() };
        let counters = [
            ("capture_frames", &tape.read),
            ("capture_frames_cut", &tape.cut),
            ("capture_frames_without_time", &tape.untimed),
            ("capture_ends_cut", &tape.ends_cut),
        ];
        counters.into_iter().map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed))).collect()
    }

    fn replayed(&self) -> Option<Replayed> {
        match &self.way {
            Way::Written(_) => None,
            Way::Read(tape) => Some(Replayed { utc_minus_mono: tape.clock }),
        }
    }

    fn release(&self, _: &[u16]) {}
}

fn utc_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
