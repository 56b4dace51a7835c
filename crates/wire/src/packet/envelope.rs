//! Writing the headers around a segment.

use super::{Ethernet, Packet, ethertype, protocol};
use crate::checksum;
use crate::mac::Mac;

/// Ethernet and IP around a transport segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// From whom, on the link.
    pub source_mac: Mac,
    /// To whom, on the link.
    pub destination_mac: Mac,
    /// The VLAN tag's identifier, if there is one.
    pub vlan: Option<u16>,
    /// Whether it is IPv6.
    pub v6: bool,
    /// From whom.
    pub source: u128,
    /// To whom.
    pub destination: u128,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4 identification.
    pub id: u16,
}

impl Envelope {
    /// The envelope of an answer to a packet: everything turned round.
    pub fn answering(ethernet: &Ethernet<'_>, packet: &Packet<'_>, ttl: u8, id: u16) -> Self {
        Self {
            source_mac: ethernet.destination,
            destination_mac: ethernet.source,
            vlan: ethernet.vlan,
            v6: packet.v6,
            source: packet.destination,
            destination: packet.source,
            ttl,
            id,
        }
    }

    /// Bytes before the transport segment.
    pub fn len(&self) -> usize {
        14 + if self.vlan.is_some() { 4 } else { 0 } + if self.v6 { 40 } else { 20 }
    }

    /// An envelope has no empty form.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the headers before a transport segment that lies in `frame` from [`Envelope::len`] on, and computes the
    /// segment's checksum at `checksum_at` inside it. `frame` ends where the segment ends.
    ///
    /// # Panics
    /// When the segment is shorter than its checksum's place, or longer than an IP packet can be.
    pub fn seal(&self, frame: &mut [u8], protocol: u8, checksum_at: usize) {
        let start = self.len();
        let length = u16::try_from(frame.len() - start).expect("a segment is shorter than 64 KiB");
        frame[..6].copy_from_slice(&self.destination_mac.0);
        frame[6..12].copy_from_slice(&self.source_mac.0);
        let mut at = 12;
        if let Some(vlan) = self.vlan {
            frame[at..at + 2].copy_from_slice(&ethertype::VLAN.to_be_bytes());
            frame[at + 2..at + 4].copy_from_slice(&vlan.to_be_bytes());
            at += 4;
        }
        let ethertype = if self.v6 { ethertype::IPV6 } else { ethertype::IPV4 };
        frame[at..at + 2].copy_from_slice(&ethertype.to_be_bytes());
        let ip = &mut frame[at + 2..start];
        let pseudo = if self.v6 {
            ip[..4].copy_from_slice(&[0x60, 0, 0, 0]);
            ip[4..6].copy_from_slice(&length.to_be_bytes());
            ip[6..8].copy_from_slice(&[protocol, self.ttl]);
            ip[8..24].copy_from_slice(&self.source.to_be_bytes());
            ip[24..40].copy_from_slice(&self.destination.to_be_bytes());
            checksum::pseudo_v6(self.source, self.destination, protocol, u32::from(length))
        } else {
            let (source, destination) = (self.source as u32, self.destination as u32);
            ip[..2].copy_from_slice(&[0x45, 0]);
            ip[2..4].copy_from_slice(&(length + 20).to_be_bytes());
            ip[4..6].copy_from_slice(&self.id.to_be_bytes());
            ip[6..12].copy_from_slice(&[0x40, 0, self.ttl, protocol, 0, 0]);
            ip[12..16].copy_from_slice(&source.to_be_bytes());
            ip[16..20].copy_from_slice(&destination.to_be_bytes());
            let sum = checksum::finish(checksum::add(0, ip));
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            if protocol == protocol::ICMP { 0 } else { checksum::pseudo_v4(source, destination, protocol, length) }
        };
        let segment = &mut frame[start..];
        segment[checksum_at..checksum_at + 2].fill(0);
        let mut sum = checksum::finish(checksum::add(pseudo, segment));
        if protocol == protocol::UDP && sum == 0 {
            sum = 0xffff;
        }
        segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}
