//! A stack: an opened interface with engine, filter, our addresses and our neighbours.

mod device;
mod ladder;
mod ports;
mod several;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use irl_targets::address_bits;
use irl_wire::Mac;

use crate::engine::Worker;
use crate::error::LinkError;
use crate::filter::{AddressKind, FilterCounters, OwnAddress};
use crate::live::{DEFAULT_BATCH, MAX_BATCH};
use crate::neighbour::{Dad, Neighbours};
use crate::netdev::{Interface, Namespace};
use crate::network::{DeviceCounters, EngineInfo, Hop, LinkEndpoint, Network, NextHop, WorkerRequest};
use crate::packet::bare;
use crate::policy::{Arena, Gate, Policy, PolicySettings, lab_of_namespace};
use crate::record::Record;

pub use ladder::EngineChoice;
use ladder::{Ladder, Transmit};
use shared::{Shared, lock};

/// How to open a stack. The default is the interface, source and gateway of the default route, the best engine, and
/// fast duplicate-address detection.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// The interface; where the route leads when it is not given.
    pub interface: Option<String>,
    /// Our addresses: spare ones on the link, or the host's own. Empty for the one the kernel would take.
    pub sources: Vec<IpAddr>,
    /// Sources of the same run on other interfaces: nothing leaves from them here, but answers to them that come in here
    /// are taken, too.
    pub elsewhere: Vec<IpAddr>,
    /// An address among the targets, which decides route and family where interface or source are not given.
    pub towards: Option<IpAddr>,
    /// Where every frame goes; resolved by ARP or neighbour discovery when it is not given.
    pub gateway_mac: Option<Mac>,
    /// Where frames come from; the interface's own MAC when it is not given. Neighbours are told of the interface's own
    /// in any case, so that their answers arrive.
    pub source_mac: Option<Mac>,
    /// A VLAN tag that frames carry.
    pub vlan: Option<u16>,
    /// Whether the device has to be one without Ethernet, whose packets begin with the IP header. Such a device is known
    /// for one in any case.
    pub ip_layer: bool,
    /// The engine.
    pub engine: EngineChoice,
    /// Frames a second that will be asked for, 0 for as many as go; helps to choose the engine.
    pub rate: Option<f64>,
    /// Frames that the engine `live` hands to the kernel at a time: 1 to [`MAX_BATCH`](crate::live::MAX_BATCH).
    pub batch: u32,
    /// Whether the filter may be attached.
    pub filter: bool,
    /// Duplicate-address detection for spare addresses.
    pub dad: Dad,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            interface: None,
            sources: Vec::new(),
            elsewhere: Vec::new(),
            towards: None,
            gateway_mac: None,
            source_mac: None,
            vlan: None,
            ip_layer: false,
            engine: EngineChoice::default(),
            rate: None,
            batch: DEFAULT_BATCH,
            filter: true,
            dad: Dad::default(),
        }
    }
}

/// Our addresses and what they are to the host.
#[derive(Clone, Debug, Default)]
struct Addresses {
    all: Vec<OwnAddress>,
}

/// An opened interface. Dropping the last stack on an interface detaches the filter.
pub struct Stack {
    interface: Interface,
    namespace: Namespace,
    addresses: Addresses,
    host_addresses: Vec<IpAddr>,
    next_hop: Arc<StackHop>,
    mac: Mac,
    vlan: Option<u16>,
    shared: Arc<Shared>,
    transmit: Transmit,
    why: String,
    batch: u32,
    /// Owner numbers in use by this stack's workers.
    owners: Mutex<BTreeSet<u16>>,
    /// When the interface was last seen to be there.
    checked_ns: AtomicU64,
}

/// How often [`Network::tick`] looks whether the interface is still there.
const CHECK_INTERVAL_NS: u64 = 500_000_000;

/// The neighbours' answer, unless one MAC was given for everything.
struct StackHop {
    fixed: Option<Mac>,
    neighbours: Arc<Neighbours>,
}

impl NextHop for StackHop {
    fn lookup(&self, target: u128) -> Hop {
        match self.fixed {
            Some(mac) => Hop::Known(mac),
            None => self.neighbours.look_up(target),
        }
    }

    fn constant(&self) -> Option<Mac> {
        self.fixed
    }
}

impl Stack {
    /// Opens an interface in the calling thread's network namespace: looks for conflicts of our spare addresses and
    /// attaches the filter. Nothing else is sent.
    ///
    /// # Errors
    /// [`LinkError::UnknownInterface`], [`LinkError::Privilege`], [`LinkError::Occupied`] naming the program there,
    /// [`LinkError::AddressConflict`], [`LinkError::Config`] for sources that cannot be.
    pub fn open(config: StackConfig) -> Result<Self, LinkError> {
        let namespace = Namespace::current()?;
        let interface = match &config.interface {
            Some(name) => Interface::by_name(name)?,
            None => Interface::by_route(config.route_target())?,
        };
        if !interface.up {
            return Err(LinkError::config(format!(
                "the interface {0} is down: run ip link set {0} up",
                interface.name
            )));
        }
        config.check_device(&interface)?;
        let mac = config.source_mac.unwrap_or(interface.mac);
        if mac.is_multicast() || mac == Mac([0; 6]) {
            return Err(LinkError::config(format!("frames cannot come from {mac}: choose the MAC of one machine")));
        }
        let host_addresses = interface.host_addresses()?;
        let sources = config.sources_on(&interface)?;
        let addresses = Addresses::sort(&sources, &host_addresses);
        if !(1..=MAX_BATCH).contains(&config.batch) {
            return Err(LinkError::config(format!("a batch has 1 to {MAX_BATCH} frames, not {}", config.batch)));
        }
        let elsewhere = Addresses::sort(&config.elsewhere, &host_addresses);
        let shared = Shared::of(namespace.inode(), &interface, &addresses, &elsewhere, &config)?;
        let mut ladder = Ladder::default();
        let transmit = Transmit::choose(&interface, &namespace, &config, !shared.host_sees(), &mut ladder)?;
        ladder.take(shared.why.clone());
        let fixed = if interface.ethernet { config.gateway_mac } else { Some(bare::THEIRS) };
        let next_hop = Arc::new(StackHop { fixed, neighbours: Arc::clone(&shared.neighbours) });
        Ok(Self {
            interface,
            namespace,
            addresses,
            host_addresses,
            next_hop,
            mac,
            vlan: config.vlan,
            shared,
            transmit,
            why: ladder.text(),
            batch: config.batch,
            owners: Mutex::default(),
            checked_ns: AtomicU64::new(0),
        })
    }

    /// The interface.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Our addresses that the host does not have.
    pub fn spare_addresses(&self) -> Vec<IpAddr> {
        self.addresses.of_kind(AddressKind::Spare)
    }

    /// Our addresses that the host has too.
    pub fn shared_addresses(&self) -> Vec<IpAddr> {
        self.addresses.of_kind(AddressKind::Host)
    }

    /// A policy made for another network would let frames out that this one must not send.
    fn check_policy(&self, policy: &Policy) -> Result<(), LinkError> {
        let ours = self.policy_settings();
        let theirs = policy.settings();
        let foreign = theirs.sources.iter().find(|source| !ours.sources.contains(source));
        if let Some(foreign) = foreign {
            return Err(LinkError::config(format!(
                "the policy allows the source {foreign}, which is not this stack's"
            )));
        }
        if theirs.arena != Arena::Network && theirs.arena != ours.arena {
            return Err(LinkError::config(
                "the policy was made for a lab or the simulated link, not for this interface",
            ));
        }
        let broadcast = ours.broadcast.iter().map(|address| IpAddr::V4(*address));
        let mut never = ours.sources.into_iter().chain(ours.own).chain(broadcast);
        match never.find(|address| policy.allows(*address)) {
            Some(address) => Err(LinkError::config(format!(
                "the policy allows {address}, which this stack never sends to: begin with its policy_settings"
            ))),
            None => Ok(()),
        }
    }

    fn open_workers(&self, request: &WorkerRequest, numbers: &[u16]) -> Result<Vec<Worker>, LinkError> {
        numbers
            .iter()
            .zip(0u16..)
            .map(|(&owner, residue)| {
                let sender = self.transmit.sender(&self.interface, request.frame_len, self.batch)?;
                let receiver = self.shared.add_owner(request.owner(owner, residue))?;
                Ok(Worker { owner, gate: Gate::new(sender, Arc::clone(&request.policy)), receiver })
            })
            .collect()
    }
}

impl Network for Stack {
    fn workers(&self, request: &WorkerRequest) -> Result<Vec<Worker>, LinkError> {
        if request.count == 0 || u32::from(request.count) > request.ports.len() {
            return Err(LinkError::config(format!(
                "{} workers cannot share {} source ports: each needs at least one",
                request.count,
                request.ports.len()
            )));
        }
        self.interface.check()?;
        self.check_policy(&request.policy)?;
        self.namespace.run(|| {
            if let Some(shared) = self.shared_addresses().first() {
                ports::refuse_overlap(request, *shared)?;
            }
            let numbers = self.shared.take_numbers(request.count)?;
            let workers = self.open_workers(request, &numbers);
            match &workers {
                Ok(_) => lock(&self.owners).extend(&numbers),
                Err(_) => numbers.iter().for_each(|owner| self.shared.remove_owner(*owner)),
            }
            workers
        })
    }

    fn endpoint(&self, source: IpAddr) -> Result<LinkEndpoint, LinkError> {
        if self.addresses.all.iter().any(|each| each.address == source) {
            return Ok(LinkEndpoint { mac: self.mac, vlan: self.vlan });
        }
        Err(LinkError::config(format!("{source} is not one of this stack's addresses: name it with --source-ip")))
    }

    fn sources(&self) -> Vec<IpAddr> {
        self.addresses.list()
    }

    fn policy_settings(&self) -> PolicySettings {
        let arena = lab_of_namespace(self.namespace.inode()).map_or(Arena::Network, |name| Arena::Lab { name });
        PolicySettings {
            sources: self.addresses.list(),
            own: self.host_addresses.clone(),
            broadcast: self.interface.addresses.iter().filter_map(|address| address.broadcast).collect(),
            arena,
            ..PolicySettings::default()
        }
    }

    fn next_hop(&self) -> Arc<dyn NextHop> {
        Arc::<StackHop>::clone(&self.next_hop)
    }

    fn on_neighbour(&self, record: Record<'_>, gate: &mut Gate) -> Result<(), LinkError> {
        if !self.interface.ethernet {
            return Ok(());
        }
        self.shared.neighbours.hear(record.body, gate)
    }

    fn tick(&self, now_ns: u64, gate: &mut Gate) -> Result<(), LinkError> {
        // In a cooldown nothing is sent that would fail.
        if now_ns.saturating_sub(self.checked_ns.load(Ordering::Relaxed)) >= CHECK_INTERVAL_NS {
            self.checked_ns.store(now_ns, Ordering::Relaxed);
            self.interface.check()?;
        }
        self.shared.neighbours.tick(now_ns, gate)
    }

    fn info(&self) -> EngineInfo {
        EngineInfo {
            engine: self.transmit.name().to_owned(),
            why: self.why.clone(),
            xdp_mode: self.shared.xdp_mode.clone(),
            driver: self.interface.driver.clone(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            interface: self.interface.name.clone(),
            synthetic: false,
            unsent: false,
            ip_layer: !self.interface.ethernet,
            kernel_rst: self.shared.host_sees() && !self.shared_addresses().is_empty(),
        }
    }

    fn filter_counters(&self) -> FilterCounters {
        self.shared.filter_counters()
    }

    fn device_counters(&self) -> Option<DeviceCounters> {
        self.interface.counters().ok()
    }

    fn extra_counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.shared.neighbours.counters();
        counters.insert("conflict_probes".to_owned(), self.shared.conflict_probes);
        counters.insert("ring_dropped".to_owned(), self.shared.ring_dropped());
        counters.extend(self.transmit.counters());
        counters
    }

    fn release(&self, owners: &[u16]) {
        for owner in owners {
            // Only what is ours: another stack may have been given the number since.
            if lock(&self.owners).remove(owner) {
                self.shared.remove_owner(*owner);
            }
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let owners: Vec<u16> = lock(&self.owners).iter().copied().collect();
        self.release(&owners);
    }
}

impl StackConfig {
    /// An address whose route stands for the run's.
    fn route_target(&self) -> IpAddr {
        // TEST-NET-1 takes the default route, and nothing is ever sent there.
        self.towards.unwrap_or(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))
    }

    fn sources_on(&self, interface: &Interface) -> Result<Vec<IpAddr>, LinkError> {
        if !self.sources.is_empty() {
            let wrong = self.sources.iter().find(|source| {
                source.is_multicast()
                    || source.is_loopback()
                    || source.is_unspecified()
                    || **source == Ipv4Addr::BROADCAST
            });
            return match wrong {
                Some(wrong) => {
                    Err(LinkError::config(format!("{wrong} cannot be a source address: choose a unicast one")))
                }
                None => Ok(self.sources.clone()),
            };
        }
        let towards = self.route_target();
        let same_family = |address: &IpAddr| address.is_ipv4() == towards.is_ipv4();
        let by_route = interface.route_towards(towards)?.and_then(|route| route.source);
        by_route
            .or_else(|| interface.addresses.iter().map(|each| each.address).find(same_family))
            .map(|source| vec![source])
            .ok_or_else(|| {
                LinkError::config(format!(
                    "the interface {} has no address to send from: give one with --source-ip",
                    interface.name
                ))
            })
    }
}

/// Keeps the order of addresses stable for those who show them.
impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut addresses = self.addresses.list();
        addresses.sort_unstable_by_key(|address| address_bits(*address));
        f.debug_struct("Stack")
            .field("interface", &self.interface)
            .field("addresses", &addresses)
            .finish_non_exhaustive()
    }
}
