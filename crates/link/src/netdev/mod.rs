//! The interface we measure on: what it is, what addresses and routes it has, what it counts.
//!
//! Everything is asked by sockets, never from /sys, because what /sys shows depends on where it was mounted, not on the
//! network namespace of the process.

mod ethtool;
mod namespace;
mod netlink;
mod routes;

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use irl_wire::Mac;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::LinkError;
use crate::network::DeviceCounters;
use crate::packet::bare;
use netlink::Netlink;

pub use namespace::{Namespace, ephemeral_ports};
pub use routes::{Route, Routes};

/// An address of an interface with its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits of its prefix.
    pub prefix_len: u8,
    /// The network's broadcast address, where there is one.
    pub broadcast: Option<Ipv4Addr>,
}

/// An XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// Its id in the kernel.
    pub id: u32,
    /// Its name; empty when the kernel doesn't tell us.
    pub name: String,
}

/// An interface, with the answers it gave when it was looked up. The socket behind it belongs to the namespace it was
/// opened in, so that [`Interface::counters`] works from any thread.
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its MAC; a made-up one where there is no Ethernet.
    pub mac: Mac,
    /// Whether frames have an Ethernet header. Those of tun, WireGuard and PPP begin with the IP header.
    pub ethernet: bool,
    /// The longest packet, without the Ethernet header.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Receive queues.
    pub rx_queues: u32,
    /// Its driver; empty where it has none.
    pub driver: String,
    /// The host's addresses on it.
    pub addresses: Vec<HostAddress>,
    netlink: Netlink,
}

impl std::fmt::Debug for Interface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Interface({} {} {} mtu {})", self.name, self.index, self.mac, self.mtu)
    }
}

impl Interface {
    /// Looks an interface up by its name, in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`LinkError::UnknownInterface`], which lists the interfaces there are; [`LinkError::Unsupported`] for one that
    /// carries neither Ethernet nor bare IP packets.
    pub fn by_name(name: &str) -> Result<Self, LinkError> {
        let netlink = Netlink::open()?;
        let links = links(&netlink)?;
        let Some(link) = links.iter().find(|link| link_name(link) == Some(name)) else {
            let known = links.iter().filter_map(link_name).map(str::to_owned).collect();
            return Err(LinkError::UnknownInterface { name: name.to_owned(), known });
        };
        Self::from_link(link, netlink)
    }

    /// The interface that packets to `towards` leave by.
    ///
    /// # Errors
    /// [`LinkError::Config`] where there is no route.
    pub fn by_route(towards: IpAddr) -> Result<Self, LinkError> {
        let netlink = Netlink::open()?;
        let Some(route) = routes::look_up(&netlink, towards, None)? else {
            return Err(LinkError::config(format!(
                "there is no route towards {towards}: name the interface with --interface"
            )));
        };
        let links = links(&netlink)?;
        let Some(link) = links.iter().find(|link| link.header.index == route.interface) else {
            return Err(LinkError::config(format!("the route towards {towards} leads to no interface")));
        };
        Self::from_link(link, netlink)
    }

    fn from_link(link: &LinkMessage, netlink: Netlink) -> Result<Self, LinkError> {
        let name = link_name(link).unwrap_or_default().to_owned();
        let ethernet = match link.header.link_layer_type {
            LinkLayerType::Ether => true,
            LinkLayerType::None | LinkLayerType::Rawip | LinkLayerType::Ppp => false,
            _ => {
                return Err(LinkError::Unsupported(format!(
                    "the interface {name} carries neither Ethernet nor bare IP packets: choose another with --interface"
                )));
            }
        };
        let mut interface = Self {
            index: link.header.index,
            mac: if ethernet { Mac([0; 6]) } else { bare::OURS },
            ethernet,
            mtu: 1500,
            up: link.header.flags.contains(LinkFlags::Up),
            rx_queues: 1,
            driver: ethtool::driver(&name).unwrap_or_default(),
            addresses: Vec::new(),
            name,
            netlink,
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Address(bytes) if ethernet => {
                    if let Ok(mac) = <[u8; 6]>::try_from(bytes.as_slice()) {
                        interface.mac = Mac(mac);
                    }
                }
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::NumRxQueues(queues) => interface.rx_queues = *queues,
                _ => {}
            }
        }
        interface.addresses = interface.look_up_addresses()?;
        Ok(interface)
    }

    fn look_up_addresses(&self) -> Result<Vec<HostAddress>, LinkError> {
        let all = self
            .netlink
            .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
            .map_err(|source| LinkError::os("asking for the interface's addresses", source))?;
        let mine = all.into_iter().filter_map(|object| match object {
            RouteNetlinkMessage::NewAddress(message) if message.header.index == self.index => Some(message),
            _ => None,
        });
        Ok(mine.filter_map(|message| host_address(&message)).collect())
    }

    /// Every address of the namespace, whichever interface has it: none of them is spare.
    ///
    /// # Errors
    /// [`LinkError::Os`].
    pub fn host_addresses(&self) -> Result<Vec<IpAddr>, LinkError> {
        let all = self
            .netlink
            .dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
            .map_err(|source| LinkError::os("asking for the host's addresses", source))?;
        Ok(all
            .into_iter()
            .filter_map(|object| match object {
                RouteNetlinkMessage::NewAddress(message) => host_address(&message).map(|each| each.address),
                _ => None,
            })
            .collect())
    }

    /// The interface's routes.
    ///
    /// # Errors
    /// [`LinkError::Os`].
    pub fn routes(&self) -> Result<Routes, LinkError> {
        Routes::of(&self.netlink, self.index)
    }

    /// What the kernel would do with a packet to `towards`, on this interface.
    ///
    /// # Errors
    /// [`LinkError::Os`].
    pub fn route_towards(&self, towards: IpAddr) -> Result<Option<Route>, LinkError> {
        routes::look_up(&self.netlink, towards, Some(self.index))
    }

    /// Whether the default route of either family leaves by this interface.
    pub fn has_default_route(&self) -> bool {
        self.routes().is_ok_and(|routes| routes.has_default())
    }

    /// The interface as it is at present.
    fn link(&self) -> Result<LinkMessage, LinkError> {
        let mut question = LinkMessage::default();
        question.header.index = self.index;
        match self.netlink.get(RouteNetlinkMessage::GetLink(question)) {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(link),
            Ok(_) => Err(LinkError::InterfaceGone { name: self.name.clone() }),
            Err(source) => Err(self.error("asking for the interface", source)),
        }
    }

    /// Whether it is there and up.
    ///
    /// # Errors
    /// [`LinkError::InterfaceGone`] when it is not.
    pub fn check(&self) -> Result<(), LinkError> {
        if self.link()?.header.flags.contains(LinkFlags::Up) {
            return Ok(());
        }
        Err(LinkError::InterfaceGone { name: self.name.clone() })
    }

    /// The device's counters.
    ///
    /// # Errors
    /// [`LinkError::InterfaceGone`].
    pub fn counters(&self) -> Result<DeviceCounters, LinkError> {
        let link = self.link()?;
        let stats = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(stats),
            _ => None,
        });
        Ok(stats.map_or_else(DeviceCounters::default, |stats| DeviceCounters {
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            rx_dropped: stats.rx_dropped,
            rx_errors: stats.rx_errors,
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            tx_dropped: stats.tx_dropped,
            tx_errors: stats.tx_errors,
        }))
    }

    /// The XDP program on the interface, if there is one.
    ///
    /// # Errors
    /// [`LinkError::InterfaceGone`].
    pub fn xdp_program(&self) -> Result<Option<AttachedProgram>, LinkError> {
        let link = self.link()?;
        let xdp = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Xdp(xdp) => Some(xdp),
            _ => None,
        });
        let id = xdp.into_iter().flatten().find_map(|each| match each {
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
            _ => None,
        });
        Ok(id.filter(|id| *id != 0).map(|id| AttachedProgram { id, name: program_name(id) }))
    }

    /// The MAC that the kernel itself knows for a neighbour on this interface.
    pub fn kernel_neighbour(&self, address: IpAddr) -> Option<Mac> {
        let mut question = NeighbourMessage::default();
        question.header.family = family(address);
        let entries = self.netlink.dump(RouteNetlinkMessage::GetNeighbour(question)).ok()?;
        entries.into_iter().find_map(|object| {
            let RouteNetlinkMessage::NewNeighbour(entry) = object else { return None };
            let usable = !matches!(
                entry.header.state,
                NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::Noarp | NeighbourState::None
            );
            let wanted = NeighbourAddress::from(address);
            let matches =
                entry.attributes.iter().any(|a| matches!(a, NeighbourAttribute::Destination(d) if *d == wanted));
            if !usable || !matches || entry.header.ifindex != self.index {
                return None;
            }
            entry.attributes.iter().find_map(|attribute| match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
                _ => None,
            })
        })
    }

    /// Gives an error of a system call its name: an interface that is gone says so in several ways.
    pub fn error(&self, what: &str, source: io::Error) -> LinkError {
        os_error(&self.name, what, source)
    }
}

/// The same for those who know only the interface's name.
pub(crate) fn os_error(interface: &str, what: &str, source: io::Error) -> LinkError {
    match source.raw_os_error() {
        Some(libc::ENXIO | libc::ENODEV | libc::ENETDOWN) => LinkError::InterfaceGone { name: interface.to_owned() },
        _ => LinkError::os(what, source),
    }
}

fn links(netlink: &Netlink) -> Result<Vec<LinkMessage>, LinkError> {
    let objects = netlink
        .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
        .map_err(|source| LinkError::os("asking for the interfaces", source))?;
    Ok(objects
        .into_iter()
        .filter_map(|object| match object {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })
        .collect())
}

fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn host_address(message: &AddressMessage) -> Option<HostAddress> {
    let (mut address, mut local, mut broadcast) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(each) => address = Some(*each),
            AddressAttribute::Local(each) => local = Some(*each),
            AddressAttribute::Broadcast(each) => broadcast = Some(*each),
            _ => {}
        }
    }
    // On a point-to-point link "address" is the peer's and "local" ours; elsewhere they are the same.
    let address = local.or(address)?;
    let prefix_len = message.header.prefix_len;
    Some(HostAddress { address, prefix_len, broadcast: broadcast.or_else(|| directed_broadcast(address, prefix_len)) })
}

/// The all-ones address of an IPv4 network, configured or not; /31 and /32 have none.
fn directed_broadcast(address: IpAddr, prefix_len: u8) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) if prefix_len < 31 => {
            Some(Ipv4Addr::from_bits(v4.to_bits() | u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0)))
        }
        _ => None,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn program_name(id: u32) -> String {
    // Costs a walk over all loaded programs, on an error's path only.
    aya::programs::loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_default()
}
