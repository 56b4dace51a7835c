//! The link layer: Ethernet with at most one VLAN tag, and ARP.

use super::{ethertype, u32_at};
use crate::mac::Mac;

/// The link layer of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet<'a> {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// The identifier of its VLAN tag, if it has one.
    pub vlan: Option<u16>,
    /// What follows.
    pub ethertype: u16,
    /// The rest.
    pub payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// Reads the link layer; at most one VLAN tag is looked through.
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let (header, mut payload) = frame.split_first_chunk::<14>()?;
        let mut ethertype = u16::from_be_bytes([header[12], header[13]]);
        let mut vlan = None;
        if ethertype == ethertype::VLAN {
            let (tag, rest) = payload.split_first_chunk::<4>()?;
            vlan = Some(u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff);
            ethertype = u16::from_be_bytes([tag[2], tag[3]]);
            payload = rest;
        }
        let mac = |at: usize| Mac(std::array::from_fn(|i| header[at + i]));
        Some(Self { destination: mac(0), source: mac(6), vlan, ethertype, payload })
    }
}

/// An ARP packet for IPv4 over Ethernet (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 request, 2 reply.
    pub operation: u16,
    /// The sender's MAC.
    pub sender_mac: Mac,
    /// The sender's address.
    pub sender: u32,
    /// The target's MAC; nothing in a request.
    pub target_mac: Mac,
    /// The target's address.
    pub target: u32,
}

impl Arp {
    /// Bytes of a packet.
    pub const LEN: usize = 28;

    /// Reads a packet; `None` for other hardware or protocols.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<{ Self::LEN }>()?;
        if fixed[..6] != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        let mac = |at: usize| Mac(std::array::from_fn(|i| fixed[at + i]));
        Some(Self {
            operation: u16::from_be_bytes([fixed[6], fixed[7]]),
            sender_mac: mac(8),
            sender: u32_at(fixed, 14)?,
            target_mac: mac(18),
            target: u32_at(fixed, 24)?,
        })
    }

    /// The packet's bytes.
    pub fn bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..6].copy_from_slice(&[0, 1, 8, 0, 6, 4]);
        out[6..8].copy_from_slice(&self.operation.to_be_bytes());
        out[8..14].copy_from_slice(&self.sender_mac.0);
        out[14..18].copy_from_slice(&self.sender.to_be_bytes());
        out[18..24].copy_from_slice(&self.target_mac.0);
        out[24..28].copy_from_slice(&self.target.to_be_bytes());
        out
    }
}
