//! A network to measure: an opened interface (`Stack`), or the lab's simulated link. The loops know only this.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use irl_wire::probe::AnswerClass;
use irl_wire::{Key, Mac, PortRange, Protocol};

use crate::engine::Worker;
use crate::error::LinkError;
use crate::filter::{Accept, DEFAULT_RING_BYTES, FilterCounters, Frames, OwnerConfig};
use crate::policy::{Gate, Policy, PolicySettings};
use crate::record::Record;

/// What a measurement asks of a network: so many workers that share these ports and this cookie.
#[derive(Clone, Debug)]
pub struct WorkerRequest {
    /// How many workers; one a core.
    pub count: u16,
    /// What their gates go by.
    pub policy: Arc<Policy>,
    /// The cookie's key.
    pub key: Key,
    /// The source ports of the whole measurement; worker i owns those that leave remainder i.
    pub ports: PortRange,
    /// The protocol of the probes.
    pub protocol: Protocol,
    /// Probes a target.
    pub probes: u16,
    /// The most bytes of sequence space used after the SYN; 0 for a scan.
    pub max_data: u32,
    /// What counts as an answer.
    pub accept: Accept,
    /// When whole frames are wanted instead of compact records.
    pub frames: Frames,
    /// Match rules of own probes; empty for the built-in ones.
    pub classes: Vec<AnswerClass>,
    /// Ring buffer of each worker, in bytes.
    pub ring_bytes: usize,
    /// The longest frame the workers will build, in bytes from the Ethernet header on.
    pub frame_len: usize,
}

impl WorkerRequest {
    /// A request for one worker with compact records and the built-in cookie check; set further fields as needed.
    pub fn new(policy: Arc<Policy>, key: Key, ports: PortRange, protocol: Protocol) -> Self {
        Self {
            count: 1,
            policy,
            key,
            ports,
            protocol,
            probes: 1,
            max_data: 0,
            accept: Accept::default(),
            frames: Frames::default(),
            classes: Vec::new(),
            ring_bytes: DEFAULT_RING_BYTES,
            frame_len: 128,
        }
    }

    /// What the filter is told of the worker that has this residue, and of its owner number.
    pub fn owner(&self, owner: u16, residue: u16) -> OwnerConfig {
        OwnerConfig {
            owner,
            protocol: self.protocol,
            ports: self.ports,
            modulus: self.count.max(1),
            residue,
            key: self.key,
            probes: self.probes,
            max_data: self.max_data,
            accept: self.accept,
            frames: self.frames,
            classes: self.classes.clone(),
            ring_bytes: self.ring_bytes,
        }
    }
}

/// How our frames look on the link: what a frame builder needs beside address and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkEndpoint {
    /// Our MAC.
    pub mac: Mac,
    /// The one VLAN tag that frames carry, if any.
    pub vlan: Option<u16>,
}

/// What is known of the way to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// Send to this MAC.
    Known(Mac),
    /// It is being resolved: try again later.
    Pending,
    /// Nobody answers, or there is no route.
    Unreachable,
}

/// Finds the MAC that a target's frames go to.
pub trait NextHop: Send + Sync {
    /// The way to a target; asks for it where it is not known. Cheap, and never blocks.
    fn lookup(&self, target: u128) -> Hop;

    /// The MAC for every target, where one holds (all off-link): saves the look-up.
    fn constant(&self) -> Option<Mac>;
}

/// What an engine is, and why it was chosen: for metadata and `doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineInfo {
    /// `live`, `packet`, `xdp`, `sim`, `pcap` or `replay`.
    pub engine: String,
    /// Why this one: what the better ones lacked.
    pub why: String,
    /// How the filter is attached (`native`, `native with fragments`, `generic`), or `none`.
    pub xdp_mode: String,
    /// The device's driver.
    pub driver: String,
    /// The kernel's release.
    pub kernel: String,
    /// The interface's name.
    pub interface: String,
    /// Whether answers are made up by the simulated link.
    pub synthetic: bool,
    /// Whether no frame goes anywhere: into a file at most.
    pub unsent: bool,
    /// Whether the device is without Ethernet, and packets begin with the IP header.
    pub ip_layer: bool,
    /// Whether the host's kernel may answer replies to us with RSTs of its own.
    pub kernel_rst: bool,
}

impl EngineInfo {
    /// What several networks of one run are, in one: where they differ, one after the other.
    pub fn of_all(networks: impl IntoIterator<Item = Self>) -> Self {
        let all: Vec<Self> = networks.into_iter().collect();
        let [first, _, ..] = all.as_slice() else {
            return all.into_iter().next().unwrap_or_default();
        };
        let each = |of: fn(&Self) -> &str| {
            let mut texts: Vec<&str> = all.iter().map(of).collect();
            let mut seen = HashSet::new();
            texts.retain(|text| seen.insert(*text));
            texts.join(", ")
        };
        Self {
            engine: each(|info| &info.engine),
            why: all.iter().map(|info| format!("{}: {}", info.interface, info.why)).collect::<Vec<_>>().join("; "),
            xdp_mode: each(|info| &info.xdp_mode),
            driver: each(|info| &info.driver),
            kernel: first.kernel.clone(),
            interface: all.iter().map(|info| info.interface.as_str()).collect::<Vec<_>>().join(","),
            synthetic: all.iter().any(|info| info.synthetic),
            unsent: all.iter().all(|info| info.unsent),
            ip_layer: all.iter().any(|info| info.ip_layer),
            kernel_rst: all.iter().any(|info| info.kernel_rst),
        }
    }
}

/// The times of answers that came once, and are judged again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// What was added then to the monotonic clock, which probes carry, for UTC. Where it is not known, the records' times
    /// are UTC, and no round-trip time can be told.
    pub utc_minus_mono: Option<i64>,
}

/// The device's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames received and dropped.
    pub rx_dropped: u64,
    /// Frames with receive errors.
    pub rx_errors: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames not sent.
    pub tx_dropped: u64,
    /// Frames with send errors.
    pub tx_errors: u64,
}

impl DeviceCounters {
    /// Adds another device's counters.
    pub fn add(&mut self, other: &Self) {
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.rx_dropped += other.rx_dropped;
        self.rx_errors += other.rx_errors;
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.tx_dropped += other.tx_dropped;
        self.tx_errors += other.tx_errors;
    }
}

/// An opened network. Shared by everything that measures on it at the same time.
pub trait Network: Send + Sync {
    /// Workers for a measurement: senders, receivers, and a filter that steers to them.
    ///
    /// # Errors
    /// [`LinkError::Config`] when ports overlap with what another measurement on this network uses.
    fn workers(&self, request: &WorkerRequest) -> Result<Vec<Worker>, LinkError>;

    /// How frames from this source look on the link.
    ///
    /// # Errors
    /// [`LinkError::Config`] when the source is not ours.
    fn endpoint(&self, source: IpAddr) -> Result<LinkEndpoint, LinkError>;

    /// Our addresses.
    fn sources(&self) -> Vec<IpAddr>;

    /// Policy settings with everything that the network knows (sources, own and broadcast addresses, the arena); what
    /// a person has to say (rate, contact, deny file, authorisation) is left for the caller to fill in.
    fn policy_settings(&self) -> PolicySettings;

    /// Finds next hops.
    fn next_hop(&self) -> Arc<dyn NextHop>;

    /// Handles a record with the NEIGHBOUR flag. Answers leave through the gate.
    ///
    /// # Errors
    /// Those of the gate, and [`LinkError::AddressConflict`] when somebody else claims an address of ours.
    fn on_neighbour(&self, record: Record<'_>, gate: &mut Gate) -> Result<(), LinkError>;

    /// Does what is due: asks for next hops, again where needed. One worker calls it about every 10 ms.
    ///
    /// # Errors
    /// Those of the gate, and [`LinkError::InterfaceGone`].
    fn tick(&self, now_ns: u64, gate: &mut Gate) -> Result<(), LinkError>;

    /// What the engine is.
    fn info(&self) -> EngineInfo;

    /// The filter's counters.
    fn filter_counters(&self) -> FilterCounters;

    /// The device's counters; `None` where there is no device.
    fn device_counters(&self) -> Option<DeviceCounters>;

    /// Further counters worth keeping, by name.
    fn extra_counters(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    /// What is known of the times of answers that are replayed; `None` for those that come now.
    fn replayed(&self) -> Option<Replayed> {
        None
    }

    /// Gives owners back after their cooldown; their receivers get nothing more.
    fn release(&self, owners: &[u16]);
}
