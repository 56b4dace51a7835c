//! Routes of an interface, and which of them a target takes.

use std::net::IpAddr;

use irl_targets::{Family, address_bits};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, family};
use crate::error::LinkError;

/// Where a packet goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The interface's number.
    pub interface: u32,
    /// The gateway; `None` on-link.
    pub gateway: Option<IpAddr>,
    /// The source address the kernel would take.
    pub source: Option<IpAddr>,
}

/// The unicast routes of one interface, longest prefix first.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    family: Family,
    prefix_len: u8,
    first: u128,
    last: u128,
    gateway: Option<IpAddr>,
    metric: u32,
}

impl Routes {
    pub(super) fn of(netlink: &Netlink, interface: u32) -> Result<Self, LinkError> {
        let mut entries = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            let answers = netlink
                .dump(RouteNetlinkMessage::GetRoute(question))
                .map_err(|source| LinkError::os("asking for the routes", source))?;
            entries.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => entry(message, interface),
                _ => None,
            }));
        }
        entries.sort_by_key(|entry| (std::cmp::Reverse(entry.prefix_len), entry.metric));
        Ok(Self { entries })
    }

    /// The gateway towards an address: `None` without a route, `Some(None)` on-link.
    pub fn gateway(&self, target: IpAddr) -> Option<Option<IpAddr>> {
        let (family, value) = (Family::of(target), address_bits(target));
        let entry = self.entries.iter().find(|e| e.family == family && e.first <= value && value <= e.last)?;
        Some(entry.gateway)
    }

    /// The gateway of the default route of a family.
    pub fn default_gateway(&self, family: Family) -> Option<IpAddr> {
        self.entries.iter().find(|entry| entry.family == family && entry.prefix_len == 0)?.gateway
    }

    /// The targets of a family that do not take its default route, as inclusive ranges.
    pub fn narrower(&self, family: Family) -> Vec<(u128, u128)> {
        let narrower = self.entries.iter().filter(|entry| entry.family == family && entry.prefix_len > 0);
        narrower.map(|entry| (entry.first, entry.last)).collect()
    }

    /// All gateways, each once.
    pub fn gateways(&self) -> Vec<IpAddr> {
        let mut gateways: Vec<IpAddr> = self.entries.iter().filter_map(|entry| entry.gateway).collect();
        gateways.sort_unstable();
        gateways.dedup();
        gateways
    }

    /// Whether there is a default route.
    pub fn has_default(&self) -> bool {
        self.entries.iter().any(|entry| entry.prefix_len == 0)
    }
}

fn entry(message: &RouteMessage, interface: u32) -> Option<Entry> {
    let parts = Parts::of(message);
    let main = parts.table.unwrap_or(message.header.table.into()) == u32::from(RouteHeader::RT_TABLE_MAIN);
    if !main || message.header.kind != RouteType::Unicast || parts.interface != Some(interface) {
        return None;
    }
    let family = match message.header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let prefix_len = message.header.destination_prefix_length;
    let first = parts.destination.map_or(0, address_bits);
    let host_bits = u32::from(family.bits().checked_sub(prefix_len)?);
    let last = first | 1u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
    Some(Entry { family, prefix_len, first, last, gateway: parts.gateway, metric: parts.metric })
}

pub(super) fn look_up(netlink: &Netlink, towards: IpAddr, interface: Option<u32>) -> Result<Option<Route>, LinkError> {
    let mut question = RouteMessage::default();
    question.header.address_family = family(towards);
    question.header.destination_prefix_length = Family::of(towards).bits();
    question.attributes.push(RouteAttribute::Destination(RouteAddress::from(towards)));
    if let Some(interface) = interface {
        question.attributes.push(RouteAttribute::Oif(interface));
    }
    let answer = match netlink.get(RouteNetlinkMessage::GetRoute(question)) {
        Ok(answer) => answer,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => None,
        Err(source) => return Err(LinkError::os(format!("asking for the route towards {towards}"), source)),
    };
    let Some(RouteNetlinkMessage::NewRoute(message)) = answer else { return Ok(None) };
    let parts = Parts::of(&message);
    if message.header.kind != RouteType::Unicast {
        return Ok(None);
    }
    Ok(parts.interface.map(|interface| Route { interface, gateway: parts.gateway, source: parts.source }))
}

#[derive(Default)]
struct Parts {
    destination: Option<IpAddr>,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    interface: Option<u32>,
    table: Option<u32>,
    metric: u32,
}

impl Parts {
    fn of(message: &RouteMessage) -> Self {
        let mut parts = Self::default();
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(each) => parts.destination = address(each),
                RouteAttribute::Gateway(each) => parts.gateway = address(each),
                RouteAttribute::Via(RouteVia::Inet(each)) => parts.gateway = Some(IpAddr::V4(*each)),
                RouteAttribute::Via(RouteVia::Inet6(each)) => parts.gateway = Some(IpAddr::V6(*each)),
                RouteAttribute::PrefSource(each) => parts.source = address(each),
                RouteAttribute::Oif(each) => parts.interface = Some(*each),
                RouteAttribute::Table(each) => parts.table = Some(*each),
                RouteAttribute::Priority(each) => parts.metric = *each,
                _ => {}
            }
        }
        parts
    }
}

fn address(value: &RouteAddress) -> Option<IpAddr> {
    match value {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
