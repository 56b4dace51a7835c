//! A network in this process: frames go to a [`Responder`] through a [`Line`], and answers come back through another and
//! through the filter's twin. No privilege, any system; the same loops, policy and records as on a real interface.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use irl_link::filter::{
    AddressKind, FilterConfig, FilterCounters, MAX_OWNERS, OwnAddress, OwnerConfig, Reason, TwinFilter, Verdict,
};
use irl_link::memory::{OneHop, Slots, Taken};
use irl_link::{
    Arena, Batch, DeviceCounters, EngineInfo, Gate, Kicked, LinkEndpoint, LinkError, Network, NextHop, PolicySettings,
    Receiver, Record, Sender, Worker, WorkerRequest, clock,
};
use irl_wire::Mac;

use crate::impairment::{Impairment, Line};
use crate::responder::Responder;
use crate::service::Service;
use crate::world::World;

/// Our MAC on the simulated link.
pub const OUR_MAC: Mac = Mac([0x02, 0, 0x5e, 0, 0, 0x01]);
/// The gateway's.
pub const GATEWAY_MAC: Mac = Mac([0x02, 0, 0x5e, 0, 0, 0x02]);
/// Frames in a batch.
const FRAMES: usize = 256;
/// Bytes of a slot.
const STRIDE: usize = 2048;

/// What fixes a simulated network.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The hosts.
    pub world: World,
    /// What the link does to frames.
    pub impairment: Impairment,
    /// Our addresses, all spare.
    pub sources: Vec<IpAddr>,
}

/// A simulated network.
#[derive(Debug)]
pub struct SimNetwork {
    config: SimConfig,
    service: Service,
    next_owner: AtomicU16,
    fabrics: Mutex<Vec<Arc<Fabric>>>,
}

/// What the workers of one measurement share: a half each, a queue each.
#[derive(Debug)]
struct Fabric {
    first_owner: u16,
    halves: Vec<Mutex<Half>>,
    queues: Vec<Mutex<Queue>>,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
}

/// A worker's way to the World and back.
#[derive(Debug)]
struct Half {
    there: Line,
    responder: Responder,
    back: Line,
    filter: TwinFilter,
    records: Vec<u8>,
    received: u64,
    received_bytes: u64,
}

/// Records that wait for their owner.
#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    capacity: usize,
    overruns: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking worker left behind is plain data, and still consistent enough to count.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimNetwork {
    /// A network of this configuration.
    pub fn new(config: SimConfig) -> Self {
        Self { config, service: Service::default(), next_owner: AtomicU16::new(0), fabrics: Mutex::default() }
    }

    /// The same network with another service behind its hosts' open ports.
    #[must_use]
    pub fn with_service(mut self, service: Service) -> Self {
        self.service = service;
        self
    }

    /// Its hosts.
    pub fn world(&self) -> World {
        self.config.world
    }

    fn filter_config(&self) -> FilterConfig {
        let spare = |address: &IpAddr| OwnAddress { address: *address, kind: AddressKind::Spare };
        FilterConfig { addresses: self.config.sources.iter().map(spare).collect() }
    }

    fn half(&self, worker: u16, owners: &[OwnerConfig]) -> Result<Half, LinkError> {
        let mut filter = TwinFilter::new(&self.filter_config())?;
        for owner in owners {
            filter.add_owner(owner)?;
        }
        let Impairment { seed, there, back } = self.config.impairment;
        // Each line draws from a stream of its own.
        let stream =
            |number: u64| seed.wrapping_add((u64::from(worker) * 2 + number).wrapping_mul(0xd134_2543_de82_ef95));
        Ok(Half {
            there: Line::new(there, stream(0)),
            responder: Responder::new(self.config.world, GATEWAY_MAC).with_service(self.service),
            back: Line::new(back, stream(1)),
            filter,
            records: Vec::new(),
            received: 0,
            received_bytes: 0,
        })
    }
}

impl Half {
    /// A frame of ours enters the link.
    fn send(&mut self, frame: &[u8], now: u64, queues: &Fabric) {
        let Self { there, responder, back, filter, records, received, received_bytes } = self;
        there.push(frame, now, &mut |frame| {
            responder.respond(frame, &mut |answer| {
                back.push(answer, now, &mut |answer| {
                    *received += 1;
                    *received_bytes += answer.len() as u64;
                    receive(filter, records, answer, now, queues);
                });
            });
        });
    }

    /// Moves on what is due.
    fn advance(&mut self, now: u64, queues: &Fabric) {
        let Self { there, responder, back, filter, records, received, received_bytes } = self;
        if there.is_empty() && back.is_empty() {
            return;
        }
        there.pop_due(now, &mut |frame| {
            responder.respond(frame, &mut |answer| {
                back.push(answer, now, &mut |answer| {
                    *received += 1;
                    *received_bytes += answer.len() as u64;
                    receive(filter, records, answer, now, queues);
                });
            });
        });
        back.pop_due(now, &mut |answer| {
            *received += 1;
            *received_bytes += answer.len() as u64;
            receive(filter, records, answer, now, queues);
        });
    }

    fn next_due_ns(&self) -> Option<u64> {
        self.there.next_due_ns().into_iter().chain(self.back.next_due_ns()).min()
    }
}

/// A frame reaches our end: the filter decides, the owner's queue takes the record.
fn receive(filter: &mut TwinFilter, records: &mut Vec<u8>, frame: &[u8], now: u64, fabric: &Fabric) {
    records.clear();
    let owner = match filter.judge(frame, now, records) {
        Verdict::Record { owner } | Verdict::Copied { owner } => owner,
        Verdict::Pass | Verdict::Drop(_) => return,
    };
    let Some(queue) = fabric.queues.get(usize::from(owner.wrapping_sub(fabric.first_owner))) else { return };
    let mut queue = lock(queue);
    if queue.bytes.len() + records.len() > queue.capacity {
        queue.overruns += 1;
        drop(queue);
        filter.lost(owner);
    } else {
        queue.bytes.extend_from_slice(records);
    }
}

struct SimSender {
    fabric: Arc<Fabric>,
    worker: usize,
    slots: Slots,
}

impl Sender for SimSender {
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
        let now = clock::now_ns();
        let mut half = lock(&self.fabric.halves[self.worker]);
        let mut bytes = 0;
        for frame in self.slots.frames() {
            bytes += frame.len() as u64;
            half.send(frame, now, &self.fabric);
        }
        let accepted = self.slots.clear();
        self.fabric.sent.fetch_add(accepted, Ordering::Relaxed);
        self.fabric.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(Kicked { accepted, refused: 0 })
    }

    fn pending(&self) -> usize {
        self.slots.pending()
    }

    fn completed(&self) -> u64 {
        self.slots.completed()
    }
}

struct SimReceiver {
    fabric: Arc<Fabric>,
    worker: usize,
    taken: Taken,
}

impl Receiver for SimReceiver {
    fn poll(&mut self, max: usize, each: &mut dyn FnMut(Record<'_>)) -> Result<usize, LinkError> {
        lock(&self.fabric.halves[self.worker]).advance(clock::now_ns(), &self.fabric);
        let refill = |memory: &mut Vec<u8>| {
            std::mem::swap(memory, &mut lock(&self.fabric.queues[self.worker]).bytes);
            Ok(())
        };
        self.taken.poll(max, refill, each)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), LinkError> {
        let now = clock::now_ns();
        let due = lock(&self.fabric.halves[self.worker]).next_due_ns();
        if self.taken.is_empty() && lock(&self.fabric.queues[self.worker]).bytes.is_empty() {
            let until = due.map_or(timeout, |due| Duration::from_nanos(due.saturating_sub(now)).min(timeout));
            std::thread::sleep(until);
        }
        Ok(())
    }

    fn overruns(&self) -> u64 {
        lock(&self.fabric.queues[self.worker]).overruns
    }
}

impl Network for SimNetwork {
    fn workers(&self, request: &WorkerRequest) -> Result<Vec<Worker>, LinkError> {
        let count = request.count.max(1);
        let first_owner = self.next_owner.fetch_add(count, Ordering::Relaxed) % (MAX_OWNERS - count);
        let owners: Vec<OwnerConfig> =
            (0..count).map(|residue| request.owner(first_owner + residue, residue)).collect();
        let halves = (0..count).map(|worker| self.half(worker, &owners).map(Mutex::new)).collect::<Result<_, _>>()?;
        let queue = || Mutex::new(Queue { capacity: request.ring_bytes, ..Queue::default() });
        let fabric = Arc::new(Fabric {
            first_owner,
            halves,
            queues: (0..count).map(|_| queue()).collect(),
            sent: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        });
        lock(&self.fabrics).push(Arc::clone(&fabric));
        let worker = |number: u16| {
            let worker = usize::from(number);
            let sender = SimSender { fabric: Arc::clone(&fabric), worker, slots: Slots::new(FRAMES, STRIDE) };
            let receiver = SimReceiver { fabric: Arc::clone(&fabric), worker, taken: Taken::default() };
            Worker {
                owner: first_owner + number,
                gate: Gate::new(Box::new(sender), Arc::clone(&request.policy)),
                receiver: Box::new(receiver),
            }
        };
        Ok((0..count).map(worker).collect())
    }

    fn endpoint(&self, source: IpAddr) -> Result<LinkEndpoint, LinkError> {
        if self.config.sources.contains(&source) {
            Ok(LinkEndpoint { mac: OUR_MAC, vlan: None })
        } else {
            Err(LinkError::config(format!("{source} is not an address of the simulated link")))
        }
    }

    fn sources(&self) -> Vec<IpAddr> {
        self.config.sources.clone()
    }

    fn policy_settings(&self) -> PolicySettings {
        PolicySettings { sources: self.config.sources.clone(), arena: Arena::Simulated, ..PolicySettings::default() }
    }

    fn next_hop(&self) -> Arc<dyn NextHop> {
        Arc::new(OneHop(GATEWAY_MAC))
    }

    fn on_neighbour(&self, _: Record<'_>, _: &mut Gate) -> Result<(), LinkError> {
        Ok(())
    }

    fn tick(&self, _: u64, _: &mut Gate) -> Result<(), LinkError> {
        Ok(())
    }

    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: "sim".to_owned(),
            why: "asked for by name".to_owned(),
            xdp_mode: "none".to_owned(),
            synthetic: true,
            interface: "sim".to_owned(),
            ..EngineInfo::default()
        }
    }

    fn filter_counters(&self) -> FilterCounters {
        let mut sum = FilterCounters::default();
        for fabric in lock(&self.fabrics).iter() {
            for half in &fabric.halves {
                let half = lock(half);
                for reason in Reason::ALL {
                    sum.add(reason, half.filter.counters().get(reason));
                }
                for (owner, overruns) in &half.filter.counters().overruns {
                    *sum.overruns.entry(*owner).or_default() += overruns;
                }
            }
        }
        sum
    }

    fn device_counters(&self) -> Option<DeviceCounters> {
        let mut sum = DeviceCounters::default();
        for fabric in lock(&self.fabrics).iter() {
            sum.tx_packets += fabric.sent.load(Ordering::Relaxed);
            sum.tx_bytes += fabric.sent_bytes.load(Ordering::Relaxed);
            for half in &fabric.halves {
                let half = lock(half);
                sum.rx_packets += half.received;
                sum.rx_bytes += half.received_bytes;
            }
        }
        Some(sum)
    }

    fn release(&self, _: &[u16]) {}
}
