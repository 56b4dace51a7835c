//! A given frame into the engine's memory, with an Ethernet header where it has none.

use std::net::IpAddr;

use irl_link::{Hop, Network, NextHop};
use irl_wire::Mac;

use super::ETHERNET;
use super::job::Layer;

/// What became of a frame that was to be written.
pub(super) enum Written {
    Frame(usize),
    /// The next hop is being asked for.
    Later,
    /// There is no next hop, or the packet is none.
    Never,
}

/// Writes a frame into the engine's slot, with an Ethernet header where it has none.
pub(super) fn write(slot: &mut [u8], given: &[u8], layer: Layer, network: &dyn Network, hops: &dyn NextHop) -> Written {
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
fn header(slot: &mut [u8], packet: &[u8], network: &dyn Network, hops: &dyn NextHop) -> Result<usize, Written> {
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
