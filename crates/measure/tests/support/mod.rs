//! A network of a test's own making: closures say what the device takes, what comes back, and where next hops are.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{UInt16Type, UInt32Type};
use irl_link::filter::FilterCounters;
use irl_link::memory::Taken;
use irl_link::record::{Kind, flags};
use irl_link::{
    Arena, Batch, DeviceCounters, EngineInfo, Gate, Hop, Kicked, LinkEndpoint, LinkError, Network, NextHop, NullSender,
    PolicySettings, Receiver, Record, Sender, Targets, Worker, WorkerRequest, clock,
};
use irl_measure::scan::Next;
use irl_measure::{Scan, ScanConfig, ScanRate};
use irl_targets::{Plan, PrefixSet};
use irl_wire::Mac;

pub const SOURCE: &str = "198.18.0.10";
pub const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// When the frames that are being answered left: records have this time.
static NOW_NS: AtomicU64 = AtomicU64::new(0);

/// Frame in, records out.
pub type Answer = Box<dyn Fn(&[u8], &mut Vec<u8>) + Send + Sync>;
/// How many of so many frames the device takes now.
pub type Take = Box<dyn Fn(usize) -> Result<usize, LinkError> + Send + Sync>;
/// Where a target's frames go.
pub type Way = Box<dyn Fn(u128) -> Hop + Send + Sync>;

/// The network.
pub struct Scripted {
    pub answer: Answer,
    pub take: Take,
    /// `None`: everything goes to [`GATEWAY`].
    pub way: Option<Way>,
    /// Nothing is looked at: frames are counted and thrown away.
    pub null: bool,
    /// Bytes of records that wait at most; more are overruns.
    pub ring: usize,
    pub sent: AtomicU64,
    pub released: AtomicU64,
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            answer: Box::new(|_, _| {}),
            take: Box::new(Ok),
            way: None,
            null: false,
            ring: usize::MAX,
            sent: AtomicU64::new(0),
            released: AtomicU64::new(0),
        }
    }
}

impl Scripted {
    /// Everybody answers every SYN.
    pub fn open() -> Self {
        Self { answer: Box::new(syn_ack), ..Self::default() }
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

/// A scan of `targets`, port 80, on a network of this file.
pub fn config(targets: &str, rate: ScanRate) -> ScanConfig {
    let source: IpAddr = SOURCE.parse().unwrap();
    let plan = Plan::builder().target(targets).ports("80".parse().unwrap()).seed(5).sources([source]).build().unwrap();
    let settings = PolicySettings { sources: vec![source], arena: Arena::Simulated, ..PolicySettings::default() };
    let items = [PrefixSet::parse_items([targets]).unwrap()];
    let policy = Arc::new(settings.authorise(Targets::Items(&items)).unwrap());
    let compiled = plan.compile(0).unwrap();
    let mut config = ScanConfig::new(plan, compiled, policy, vec![source], rate);
    config.cooldown = Duration::from_millis(50);
    config
}

/// Whether a frame is a SYN probe of ours.
pub fn is_syn(frame: &[u8]) -> bool {
    frame.get(23) == Some(&6) && frame.get(47) == Some(&0x02)
}

/// The record of a SYN-ACK to a SYN of ours.
pub fn syn_ack(frame: &[u8], out: &mut Vec<u8>) {
    if is_syn(frame) {
        record(out, Kind::Tcp4, flags::COOKIE, &tcp_body(frame, 0x12));
    }
}

/// The body of a TCP answer to a SYN of ours, with these TCP flags.
pub fn tcp_body(frame: &[u8], bits: u8) -> [u8; 40] {
    let mut body = [0; 40];
    body[..4].copy_from_slice(&frame[30..34]);
    body[4..8].copy_from_slice(&frame[26..30]);
    body[8..10].copy_from_slice(&frame[36..38]);
    body[10..12].copy_from_slice(&frame[34..36]);
    let seq = u32::from_be_bytes(frame[38..42].try_into().unwrap());
    body[16..20].copy_from_slice(&seq.wrapping_add(1).to_be_bytes());
    body[20..22].copy_from_slice(&65_535_u16.to_be_bytes());
    body[22] = bits;
    body[23] = 64;
    body[28] = 255;
    if frame.len() >= 74 {
        body[29] = 2;
        body[36..40].copy_from_slice(&frame[62..66]);
    }
    body
}

/// Appends a record as the filter would write it.
pub fn record(out: &mut Vec<u8>, kind: Kind, flags: u16, body: &[u8]) {
    let time_ns = NOW_NS.load(Ordering::Relaxed);
    Record { kind, flags, owner: 0, time_ns, body }.write(out);
}

/// What the halves of a worker share.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    overruns: u64,
}

const SLOTS: usize = 1024;
const STRIDE: usize = 256;

struct ScriptedSender {
    network: Arc<Scripted>,
    records: Arc<Mutex<Records>>,
    bytes: Vec<u8>,
    lengths: Vec<u16>,
    head: usize,
    pending: usize,
    completed: u64,
    scratch: Vec<u8>,
}

impl Sender for ScriptedSender {
    fn max_frame(&self) -> usize {
        STRIDE
    }

    fn reserve(&mut self, frames: usize, _: usize) -> Result<Batch<'_>, LinkError> {
        let tail = (self.head + self.pending) % SLOTS;
        let frames = frames.min(SLOTS - self.pending).min(SLOTS - tail);
        Ok(Batch::new(&mut self.bytes[tail * STRIDE..], &mut self.lengths[tail..tail + frames], STRIDE))
    }

    fn commit(&mut self, frames: usize) {
        self.pending += frames;
    }

    fn kick(&mut self) -> Result<Kicked, LinkError> {
        let taken = (self.network.take)(self.pending)?;
        let refused = u64::from(taken < self.pending);
        NOW_NS.store(clock::now_ns(), Ordering::Relaxed);
        let mut records = self.records.lock().unwrap();
        for _ in 0..taken {
            let at = self.head * STRIDE;
            self.scratch.clear();
            (self.network.answer)(&self.bytes[at..at + usize::from(self.lengths[self.head])], &mut self.scratch);
            if records.bytes.len() + self.scratch.len() > self.network.ring {
                records.overruns += 1;
            } else {
                records.bytes.extend_from_slice(&self.scratch);
            }
            self.head = (self.head + 1) % SLOTS;
        }
        self.pending -= taken;
        self.completed += taken as u64;
        self.network.sent.fetch_add(taken as u64, Ordering::SeqCst);
        Ok(Kicked { accepted: taken as u64, refused })
    }

    fn pending(&self) -> usize {
        self.pending
    }

    fn completed(&self) -> u64 {
        self.completed
    }
}

struct ScriptedReceiver {
    records: Arc<Mutex<Records>>,
    taken: Taken,
}

impl Receiver for ScriptedReceiver {
    fn poll(&mut self, max: usize, each: &mut dyn FnMut(Record<'_>)) -> Result<usize, LinkError> {
        let refill = |memory: &mut Vec<u8>| {
            std::mem::swap(memory, &mut self.records.lock().unwrap().bytes);
            Ok(())
        };
        self.taken.poll(max, refill, each)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), LinkError> {
        std::thread::sleep(timeout);
        Ok(())
    }

    fn overruns(&self) -> u64 {
        self.records.lock().unwrap().overruns
    }
}

struct Ways(Arc<Scripted>);

impl NextHop for Ways {
    fn lookup(&self, target: u128) -> Hop {
        self.0.way.as_ref().map_or(Hop::Known(GATEWAY), |way| way(target))
    }

    fn constant(&self) -> Option<Mac> {
        self.0.way.is_none().then_some(GATEWAY)
    }
}

/// [`Scripted`] as a [`Network`].
pub struct Handle(pub Arc<Scripted>);

impl Network for Handle {
    fn workers(&self, request: &WorkerRequest) -> Result<Vec<Worker>, LinkError> {
        let worker = |owner| {
            let records = Arc::default();
            let sender: Box<dyn Sender> = if self.0.null {
                Box::new(NullSender::default())
            } else {
                Box::new(ScriptedSender {
                    network: Arc::clone(&self.0),
                    records: Arc::clone(&records),
                    bytes: vec![0; SLOTS * STRIDE],
                    lengths: vec![0; SLOTS],
                    head: 0,
                    pending: 0,
                    completed: 0,
                    scratch: Vec::new(),
                })
            };
            Worker {
                owner,
                gate: Gate::new(sender, Arc::clone(&request.policy)),
                receiver: Box::new(ScriptedReceiver { records, taken: Taken::default() }),
            }
        };
        Ok((0..request.count).map(worker).collect())
    }

    fn endpoint(&self, _: IpAddr) -> Result<LinkEndpoint, LinkError> {
        Ok(LinkEndpoint { mac: OUR_MAC, vlan: None })
    }

    fn sources(&self) -> Vec<IpAddr> {
        vec![SOURCE.parse().unwrap()]
    }

    fn policy_settings(&self) -> PolicySettings {
        PolicySettings { sources: self.sources(), arena: Arena::Simulated, ..PolicySettings::default() }
    }

    fn next_hop(&self) -> Arc<dyn NextHop> {
        Arc::new(Ways(Arc::clone(&self.0)))
    }

    fn on_neighbour(&self, _: Record<'_>, _: &mut Gate) -> Result<(), LinkError> {
        Ok(())
    }

    fn tick(&self, _: u64, _: &mut Gate) -> Result<(), LinkError> {
        Ok(())
    }

    fn info(&self) -> EngineInfo {
        EngineInfo { engine: "scripted".to_owned(), synthetic: true, ..EngineInfo::default() }
    }

    fn filter_counters(&self) -> FilterCounters {
        FilterCounters::default()
    }

    fn device_counters(&self) -> Option<DeviceCounters> {
        Some(DeviceCounters { tx_packets: self.0.sent(), ..DeviceCounters::default() })
    }

    fn extra_counters(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    fn release(&self, owners: &[u16]) {
        self.0.released.fetch_add(owners.len() as u64, Ordering::SeqCst);
    }
}

/// Reads a scan to its end: address and probe number of each row.
pub fn drain(scan: &Scan) -> Vec<(u32, u16)> {
    let mut rows = Vec::new();
    loop {
        match scan.next_batch(Duration::from_secs(1)).unwrap() {
            Next::Batch(batch) => {
                let addresses = batch.column_by_name("saddr").unwrap().as_primitive::<UInt32Type>().values();
                let numbers = batch.column_by_name("probe_num").unwrap().as_primitive::<UInt16Type>().values();
                rows.extend(addresses.iter().copied().zip(numbers.iter().copied()));
            }
            Next::Nothing => {}
            Next::End => break,
        }
    }
    assert_eq!(scan.stats().imbalances(scan.device()), Vec::<String>::new());
    rows
}
