//! The frames that every baseline sends.

use std::net::Ipv4Addr;

use irl_wire::{Mac, checksum};

/// Ethernet, IPv4 and TCP headers without options.
pub(super) const FRAME_LEN: usize = 54;
pub(super) const ETHERNET: usize = 14;
const IP: usize = 20;
const TCP_PROTOCOL: u8 = 6;
const NETWORK: u32 = 0x0a00_0000;
const HOST_BITS: u32 = 24;
const FIRST_PORT: u16 = 80;
/// Odd, so that its multiples modulo 2^24 meet every host once before any twice.
const STEP: u32 = 0x9e_3779;

/// The host that is met as the so many-th.
#[inline]
pub(super) fn host(number: u64) -> u32 {
    NETWORK | ((number as u32).wrapping_mul(STEP) & ((1 << HOST_BITS) - 1))
}

/// SYNs to the hosts of 10.0.0.0/8 in a scattered order, and again on the next port when all had one.
///
/// A template is made once; of each frame only destination, sequence number and the two checksums are written, the
/// latter from the template's half-done sums.
#[derive(Debug)]
pub(super) struct Syns {
    template: [u8; FRAME_LEN],
    ip_sum: u32,
    tcp_sum: u32,
    next: u64,
}

impl Syns {
    pub(super) fn new(from: Mac, to: Mac, source: Ipv4Addr) -> Self {
        let mut frame = [0; FRAME_LEN];
        frame[..6].copy_from_slice(&to.0);
        frame[6..12].copy_from_slice(&from.0);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        let ip = &mut frame[ETHERNET..];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((FRAME_LEN - ETHERNET) as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&54321_u16.to_be_bytes());
        ip[8] = 255;
        ip[9] = TCP_PROTOCOL;
        ip[12..16].copy_from_slice(&source.octets());
        let tcp = &mut ip[IP..];
        tcp[..2].copy_from_slice(&61_000_u16.to_be_bytes());
        tcp[12] = 5 << 4;
        tcp[13] = 0x02;
        tcp[14..16].copy_from_slice(&65_535_u16.to_be_bytes());
        // Destination, its port and the sequence number are still 0 and add nothing.
        let ip_sum = checksum::add(0, &frame[ETHERNET..ETHERNET + IP]);
        let tcp_len = (FRAME_LEN - ETHERNET - IP) as u16;
        let pseudo = checksum::pseudo_v4(u32::from(source), 0, TCP_PROTOCOL, tcp_len);
        let tcp_sum = checksum::add(pseudo, &frame[ETHERNET + IP..]);
        Self { template: frame, ip_sum, tcp_sum, next: 0 }
    }

    /// The whole template, for memory that frames are then written to by [`Syns::write`].
    pub(super) fn template(&self) -> &[u8; FRAME_LEN] {
        &self.template
    }

    /// Makes the next frame out of one that was a copy of the template once.
    #[inline]
    pub(super) fn write(&mut self, frame: &mut [u8; FRAME_LEN]) -> Ipv4Addr {
        let destination = host(self.next);
        let port = FIRST_PORT.wrapping_add((self.next >> HOST_BITS) as u16);
        let sequence = destination.wrapping_mul(0x85eb_ca6b);
        self.next += 1;
        let there = checksum::word32(destination);
        let ip = checksum::finish(self.ip_sum + there);
        let tcp = checksum::finish(self.tcp_sum + there + u32::from(port) + checksum::word32(sequence));
        frame[24..26].copy_from_slice(&ip.to_be_bytes());
        frame[30..34].copy_from_slice(&destination.to_be_bytes());
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        frame[50..52].copy_from_slice(&tcp.to_be_bytes());
        destination.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_frame_has_right_checksums_and_a_destination_of_its_own() {
        let mut syns = Syns::new(Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(198, 18, 0, 1));
        let mut frame = *syns.template();
        let mut seen = HashSet::new();
        for _ in 0..100_000 {
            let destination = syns.write(&mut frame);
            assert_eq!(destination.octets()[0], 10);
            assert!(seen.insert(destination), "{destination} twice");
            let mut filled = frame;
            checksum::fill(&mut filled);
            assert_eq!(filled, frame, "a slow twin computes the same checksums");
        }
    }

    #[test]
    fn when_every_host_had_a_frame_the_next_port_begins() {
        let mut syns = Syns::new(Mac([0; 6]), Mac([0; 6]), Ipv4Addr::LOCALHOST);
        let mut frame = *syns.template();
        let first = syns.write(&mut frame);
        syns.next = 1 << HOST_BITS;
        assert_eq!(syns.write(&mut frame), first);
        assert_eq!(frame[36..38], 81_u16.to_be_bytes());
    }
}
