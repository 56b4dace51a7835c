//! Frames of devices without Ethernet, such as tun and WireGuard.
//!
//! Inside the house every frame has an Ethernet header, so that one policy judges and one filter reads them all. Here,
//! at the socket, it is taken off what is sent and made up for what arrives; nobody else ever sees these MACs.

use std::mem::zeroed;

use irl_wire::Mac;

use crate::netdev::Interface;

/// Our end of a device without Ethernet, and the other.
pub(crate) const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(crate) const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// Bytes that are taken off a frame.
pub(super) const HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// Appends a packet to `frame` with the header that it came without.
pub(super) fn dress(packet: &[u8], frame: &mut Vec<u8>) {
    frame.extend_from_slice(&OURS.0);
    frame.extend_from_slice(&THEIRS.0);
    frame.extend_from_slice(if is_ipv6(packet) { &IPV6 } else { &IPV4 });
    frame.extend_from_slice(packet);
}

fn is_ipv6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6)
}

/// Where packets of either family go: without a header it is the address that says what they are, which WireGuard and
/// PPP want to know.
pub(super) struct Ways([libc::sockaddr_ll; 2]);

impl Ways {
    pub(super) fn of(interface: &Interface) -> Self {
        Self([IPV4, IPV6].map(|ethertype| {
            // SAFETY: a sockaddr_ll of zeros is a valid one.
            let mut address: libc::sockaddr_ll = unsafe { zeroed() };
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = u16::from_ne_bytes(ethertype);
            address.sll_ifindex = interface.index as i32;
            address
        }))
    }

    /// The one for this packet.
    pub(super) fn for_packet(&mut self, packet: &[u8]) -> *mut libc::sockaddr_ll {
        &raw mut self.0[usize::from(is_ipv6(packet))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_gets_the_header_of_its_family() {
        for (first, ethertype) in [(0x45, 0x0800), (0x60, 0x86dd)] {
            let mut frame = Vec::new();
            dress(&[first, 1, 2], &mut frame);
            let read = irl_wire::packet::Ethernet::parse(&frame).unwrap();
            assert_eq!((read.destination, read.source, read.vlan), (OURS, THEIRS, None));
            assert_eq!((read.ethertype, read.payload), (ethertype, &[first, 1, 2][..]));
        }
    }
}
