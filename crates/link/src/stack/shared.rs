//! What all stacks of a process share on one interface: the filter, the neighbours, and the numbers of owners.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::ladder::{EngineChoice, Ladder};
use super::{Addresses, StackConfig};
use crate::engine::Receiver;
use crate::error::LinkError;
use crate::filter::{AddressKind, FilterConfig, FilterCounters, KernelFilter, MAX_OWNERS, OwnAddress, OwnerConfig};
use crate::neighbour::{Dad, Neighbours, refuse_conflicts};
use crate::netdev::Interface;
use crate::packet::{Groups, PacketPump};

/// Where records come from.
enum Diversion {
    /// The XDP program.
    Kernel(Box<Mutex<KernelFilter>>),
    /// A packet socket's ring and the filter's twin.
    Pump(Arc<PacketPump>),
}

/// The filter of one interface, for as long as a stack uses it.
pub(super) struct Shared {
    diversion: Diversion,
    pub(super) neighbours: Arc<Neighbours>,
    owners: Mutex<BTreeSet<u16>>,
    addresses: Addresses,
    elsewhere: Addresses,
    pub(super) why: String,
    pub(super) xdp_mode: String,
    /// Frames of duplicate-address detection, which left before there was a gate.
    pub(super) conflict_probes: u64,
    _groups: Option<Groups>,
}

/// An interface of a namespace.
type Place = (u64, u32);

/// Each place has a lock of its own, because looking for conflicts takes a while.
static OPEN: Mutex<BTreeMap<Place, Arc<Mutex<Weak<Shared>>>>> = Mutex::new(BTreeMap::new());

impl Shared {
    /// The filter that is there already, or a new one.
    pub(super) fn of(
        namespace: u64,
        interface: &Interface,
        addresses: &Addresses,
        elsewhere: &Addresses,
        config: &StackConfig,
    ) -> Result<Arc<Self>, LinkError> {
        let place = {
            let mut open = lock(&OPEN);
            // Places that nobody uses or opens are forgotten.
            open.retain(|_, place| Arc::strong_count(place) > 1 || lock(place).strong_count() > 0);
            Arc::clone(open.entry((namespace, interface.index)).or_default())
        };
        let mut place = lock(&place);
        if let Some(shared) = place.upgrade() {
            let missing = addresses.all.iter().find(|each| !shared.addresses.all.contains(each));
            let missing = missing.or_else(|| elsewhere.all.iter().find(|each| !shared.elsewhere.all.contains(each)));
            if let Some(missing) = missing {
                return Err(LinkError::config(format!(
                    "another stack of this process is open on {} without the address {}: open one stack with all \
                     addresses, or close the other first",
                    interface.name, missing.address
                )));
            }
            return Ok(shared);
        }
        let shared = Arc::new(Self::open(interface, addresses, elsewhere, config)?);
        *place = Arc::downgrade(&shared);
        Ok(shared)
    }

    fn open(
        interface: &Interface,
        addresses: &Addresses,
        elsewhere: &Addresses,
        config: &StackConfig,
    ) -> Result<Self, LinkError> {
        let spare = addresses.of_kind(AddressKind::Spare);
        let spare_v6: Vec<_> = spare
            .iter()
            .filter_map(|address| match address {
                IpAddr::V6(v6) => Some(*v6),
                IpAddr::V4(_) => None,
            })
            .collect();
        // Without Ethernet nobody asks for an address: packets come by the other end's routes.
        let groups =
            if spare_v6.is_empty() || !interface.ethernet { None } else { Some(Groups::join(interface, &spare_v6)?) };
        // Before the filter: it would take the answers away.
        let dad = if interface.ethernet { config.dad } else { Dad::Off };
        let conflict_probes = refuse_conflicts(interface, config.vlan, &spare, dad)?;
        let sources = addresses.list();
        let neighbours = Neighbours::new(interface, config.vlan, &sources, spare.iter().copied())?;

        // Addresses of other interfaces are diverted as ours, and never answered for: they are not among the neighbours'.
        let filter = FilterConfig { addresses: addresses.all.iter().chain(&elsewhere.all).copied().collect() };
        let (diversion, why, xdp_mode) = divert(interface, &filter, config)?;
        if dad != Dad::Off {
            log::debug!("{}: {} spare addresses, none in use", interface.name, spare.len());
        }
        Ok(Self {
            diversion,
            neighbours: Arc::new(neighbours),
            owners: Mutex::default(),
            addresses: addresses.clone(),
            elsewhere: elsewhere.clone(),
            why,
            xdp_mode,
            conflict_probes,
            _groups: groups,
        })
    }

    /// Whether the host's kernel sees what is for us.
    pub(super) fn host_sees(&self) -> bool {
        matches!(self.diversion, Diversion::Pump(_))
    }

    /// So many free owner numbers, the lowest first.
    pub(super) fn take_numbers(&self, count: u16) -> Result<Vec<u16>, LinkError> {
        let mut owners = lock(&self.owners);
        let free: Vec<u16> = (0..MAX_OWNERS).filter(|owner| !owners.contains(owner)).take(count.into()).collect();
        if free.len() < usize::from(count) {
            return Err(LinkError::config(format!(
                "there are {} workers on this interface, and {count} more would be above {MAX_OWNERS}: use fewer",
                owners.len()
            )));
        }
        owners.extend(&free);
        Ok(free)
    }

    pub(super) fn add_owner(&self, config: OwnerConfig) -> Result<Box<dyn Receiver>, LinkError> {
        Ok(match &self.diversion {
            Diversion::Kernel(filter) => Box::new(lock(filter).add_owner(config)?),
            Diversion::Pump(pump) => Box::new(pump.add_owner(&config)?),
        })
    }

    pub(super) fn remove_owner(&self, owner: u16) {
        match &self.diversion {
            Diversion::Kernel(filter) => {
                if let Err(error) = lock(filter).remove_owner(owner) {
                    log::warn!("the filter could not let go of owner {owner}: {error}");
                }
            }
            Diversion::Pump(pump) => pump.remove_owner(owner),
        }
        lock(&self.owners).remove(&owner);
    }

    pub(super) fn filter_counters(&self) -> FilterCounters {
        match &self.diversion {
            Diversion::Kernel(filter) => lock(filter).counters().unwrap_or_else(|error| {
                log::warn!("the filter's counters cannot be read: {error}");
                FilterCounters::default()
            }),
            Diversion::Pump(pump) => pump.counters(),
        }
    }

    /// Frames that arrived while a packet socket's ring was full.
    pub(super) fn ring_dropped(&self) -> u64 {
        match &self.diversion {
            Diversion::Kernel(_) => 0,
            Diversion::Pump(pump) => pump.dropped(),
        }
    }
}

/// Attaches the filter, or opens a ring where that is not allowed; with the reason.
fn divert(
    interface: &Interface,
    filter: &FilterConfig,
    config: &StackConfig,
) -> Result<(Diversion, String, String), LinkError> {
    let mut ladder = Ladder::default();
    if !interface.ethernet {
        ladder.pass_over("the filter", "it reads Ethernet frames, and this device has none");
    } else if config.filter {
        if interface.has_default_route() {
            log::warn!(
                "attaching an XDP program to {}, which carries the default route: some drivers pause the link for seconds",
                interface.name
            );
        }
        match KernelFilter::attach(&interface.name, filter) {
            Ok(kernel) => {
                let mode = kernel.mode().map(|mode| mode.to_string()).unwrap_or_default();
                ladder.take("the filter receives");
                return Ok((Diversion::Kernel(Box::new(Mutex::new(kernel))), ladder.text(), mode));
            }
            Err(error @ LinkError::InterfaceGone { .. }) => return Err(error),
            Err(error @ LinkError::Occupied { .. }) if config.engine == EngineChoice::Live => return Err(error),
            Err(error) => ladder.pass_over("the filter", error),
        }
    } else {
        ladder.pass_over("the filter", "it was not wanted");
    }
    let pump = PacketPump::open(interface, filter)?;
    ladder.take("AF_PACKET receives");
    let why = ladder.text();
    log::info!("{}: {why}", interface.name);
    Ok((Diversion::Pump(pump), why, "none".to_owned()))
}

impl Addresses {
    pub(super) fn list(&self) -> Vec<IpAddr> {
        self.all.iter().map(|each| each.address).collect()
    }

    pub(super) fn of_kind(&self, kind: AddressKind) -> Vec<IpAddr> {
        self.all.iter().filter(|each| each.kind == kind).map(|each| each.address).collect()
    }

    /// Sorts our addresses into spare ones and those that the host has.
    pub(super) fn sort(sources: &[IpAddr], host: &[IpAddr]) -> Self {
        let mut all: Vec<OwnAddress> = Vec::with_capacity(sources.len());
        for &address in sources {
            let kind = if host.contains(&address) { AddressKind::Host } else { AddressKind::Spare };
            let own = OwnAddress { address, kind };
            if !all.contains(&own) {
                all.push(own);
            }
        }
        Self { all }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
