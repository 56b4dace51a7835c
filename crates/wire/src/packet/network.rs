//! The network layer: IPv4 and IPv6 as one view.

use super::{Ethernet, ethertype, protocol, u32_at, u128_at};
use crate::checksum;

/// The most IPv6 extension headers that are skipped.
const MAX_EXTENSIONS: usize = 8;

/// The network layer of a packet, IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Whether it is IPv6.
    pub v6: bool,
    /// From whom.
    pub source: u128,
    /// To whom.
    pub destination: u128,
    /// The transport's protocol number, behind any extension headers.
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4 identification; 0 for IPv6.
    pub id: u16,
    /// Whether this is a fragment.
    pub fragment: bool,
    /// The IP header itself, options and extension headers included.
    pub header: &'a [u8],
    /// The transport header and what follows, as long as the IP header says.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads an IPv4 or IPv6 packet; `None` when it is neither, or cut short.
    pub fn parse(ethernet: &Ethernet<'a>) -> Option<Self> {
        match ethernet.ethertype {
            ethertype::IPV4 => Self::parse_v4(ethernet.payload),
            ethertype::IPV6 => Self::parse_v6(ethernet.payload),
            _ => None,
        }
    }

    /// Reads an IPv4 packet.
    pub fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<20>()?;
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if fixed[0] >> 4 != 4 || header_len < 20 || total < header_len {
            return None;
        }
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0;
        Some(Self {
            v6: false,
            source: u128::from(u32_at(bytes, 12)?),
            destination: u128::from(u32_at(bytes, 16)?),
            protocol: fixed[9],
            ttl: fixed[8],
            id: u16::from_be_bytes([fixed[4], fixed[5]]),
            fragment,
            header: bytes.get(..header_len)?,
            payload: bytes.get(header_len..total)?,
        })
    }

    /// Reads an IPv6 packet.
    pub fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<40>()?;
        let total = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let bytes = bytes.get(..total)?;
        if fixed[0] >> 4 != 6 {
            return None;
        }
        let (mut next, mut at, mut fragment) = (fixed[6], 40, false);
        for _ in 0..MAX_EXTENSIONS {
            match next {
                // Hop-by-hop, routing, destination options: length in units of 8 bytes beyond the first.
                0 | 43 | 60 => {
                    let extension = bytes.get(at..at + 2)?;
                    next = extension[0];
                    at += 8 + usize::from(extension[1]) * 8;
                }
                44 => {
                    next = *bytes.get(at)?;
                    fragment = true;
                    at += 8;
                }
                _ => break,
            }
        }
        Some(Self {
            v6: true,
            source: u128_at(bytes, 8)?,
            destination: u128_at(bytes, 24)?,
            protocol: next,
            ttl: fixed[7],
            id: 0,
            fragment,
            header: bytes.get(..at)?,
            payload: bytes.get(at..)?,
        })
    }

    /// The sum of the pseudo header that the transport's checksum covers; 0 for ICMP over IPv4, which has none.
    pub fn pseudo_sum(&self) -> u32 {
        match (self.v6, self.protocol) {
            (false, protocol::ICMP) => 0,
            (false, number) => checksum::pseudo_v4(
                self.source as u32,
                self.destination as u32,
                number,
                // An IPv4 payload is shorter than 64 KiB.
                self.payload.len() as u16,
            ),
            (true, number) => checksum::pseudo_v6(self.source, self.destination, number, self.payload.len() as u32),
        }
    }

    /// Whether the IPv4 header's checksum is right; true for IPv6, which has none.
    pub fn header_intact(&self) -> bool {
        self.v6 || checksum::verifies(0, self.header)
    }

    /// Whether the transport's checksum is right.
    pub fn payload_intact(&self) -> bool {
        if self.protocol == protocol::UDP && !self.v6 && self.payload.get(6..8) == Some(&[0, 0]) {
            return true;
        }
        checksum::verifies(self.pseudo_sum(), self.payload)
    }
}
