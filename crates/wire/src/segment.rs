//! Frames of connections: TCP segments with options and payload, from a template of one of our addresses.

use std::net::IpAddr;

use crate::builder::{self, Endpoint, Ours};
use crate::checksum;
use crate::mac::Mac;
use crate::probe::Protocol;

const HEADER_LEN: usize = 20;
/// The most bytes of options that a TCP header has room for.
pub const MAX_OPTIONS: usize = 40;

/// What a segment says, payload aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader<'a> {
    /// Where the frame goes on the link.
    pub next_hop: Mac,
    /// The peer's address.
    pub target: u128,
    /// The peer's port.
    pub port: u16,
    /// Ours.
    pub source_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// See [`tcp_flags`](crate::packet::tcp_flags).
    pub flags: u8,
    /// Window, as it is on the wire.
    pub window: u16,
    /// Whole options, padded to a multiple of four bytes, [`MAX_OPTIONS`] at most.
    pub options: &'a [u8],
}

/// Builds the segments of connections from one address.
#[derive(Clone, Debug)]
pub struct SegmentBuilder {
    /// Headers, with zeros where something is patched.
    template: Vec<u8>,
    ours: Ours,
    /// Offset of the IP header.
    network: usize,
    /// Offset of the TCP header.
    transport: usize,
    /// The IPv4 header's sum without length, identification and destination.
    network_sum: u32,
    /// The pseudo header's without length and destination.
    pseudo_sum: u32,
}

impl SegmentBuilder {
    /// Prepares the headers for one of our addresses.
    pub fn new(from: &Endpoint) -> Self {
        let (mut template, network) = builder::frame(from, Protocol::Tcp, &[0; HEADER_LEN]);
        let transport = template.len() - HEADER_LEN;
        let length = if from.address.is_ipv6() { network + 4 } else { network + 2 };
        template[length..length + 2].fill(0);
        let (ours, pseudo_sum) = match from.address {
            IpAddr::V4(address) => (Ours::V4(address.into()), checksum::pseudo_v4(address.into(), 0, 6, 0)),
            IpAddr::V6(address) => (Ours::V6(address.into()), checksum::pseudo_v6(address.into(), 0, 6, 0)),
        };
        Self {
            network_sum: checksum::add(0, &template[network..transport]),
            pseudo_sum,
            ours,
            template,
            network,
            transport,
        }
    }

    /// The length of a frame with so many bytes of options and payload, without FCS.
    #[inline]
    pub fn frame_len(&self, options: usize, payload: usize) -> usize {
        self.template.len() + options + payload
    }

    /// Writes a segment into the front of `slot` and returns its length. `write` fills the payload, which is `payload`
    /// bytes long and holds whatever was there before.
    ///
    /// # Panics
    /// When the slot is shorter than [`SegmentBuilder::frame_len`], or the options are no multiple of four bytes or
    /// longer than [`MAX_OPTIONS`].
    #[inline]
    pub fn build(
        &self,
        slot: &mut [u8],
        header: &SegmentHeader<'_>,
        payload: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> usize {
        let options = header.options;
        assert!(
            options.len().is_multiple_of(4) && options.len() <= MAX_OPTIONS,
            "options fill their part of the header"
        );
        let frame = &mut slot[..self.frame_len(options.len(), payload)];
        let (headers, rest) = frame.split_at_mut(self.template.len());
        headers.copy_from_slice(&self.template);
        rest[..options.len()].copy_from_slice(options);
        write(&mut rest[options.len()..]);
        // A frame is shorter than 64 KiB, or the slot would be.
        let length = (HEADER_LEN + rest.len()) as u16;
        headers[..6].copy_from_slice(&header.next_hop.0);
        let (ip, tcp) = headers[self.network..].split_at_mut(self.transport - self.network);
        let destination = self.address(ip, header, length);
        tcp[..2].copy_from_slice(&header.source_port.to_be_bytes());
        tcp[2..4].copy_from_slice(&header.port.to_be_bytes());
        tcp[4..8].copy_from_slice(&header.seq.to_be_bytes());
        tcp[8..12].copy_from_slice(&header.ack.to_be_bytes());
        // At most 60 bytes, so that the offset fits its four bits.
        let offset_and_flags = u16::from_be_bytes([((HEADER_LEN + options.len()) << 2) as u8, header.flags]);
        tcp[12..14].copy_from_slice(&offset_and_flags.to_be_bytes());
        tcp[14..16].copy_from_slice(&header.window.to_be_bytes());
        let sum = self.pseudo_sum
            + destination
            + u32::from(length)
            + u32::from(header.source_port)
            + u32::from(header.port)
            + checksum::word32(header.seq)
            + checksum::word32(header.ack)
            + u32::from(offset_and_flags)
            + u32::from(header.window);
        // Options end at an even offset, so that they and the payload are summed in one go.
        let sum = checksum::finish(checksum::add(sum, rest));
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        frame.len()
    }

    /// Writes lengths, destination and what goes with them; returns the sum of the destination for the pseudo header.
    #[inline(always)]
    fn address(&self, ip: &mut [u8], header: &SegmentHeader<'_>, length: u16) -> u32 {
        match self.ours {
            Ours::V4(_) => {
                let target = header.target as u32;
                let sum = checksum::word32(target);
                let total = length + 20;
                // Nobody may fragment it, so that any identification will do (RFC 6864, 4.1).
                let id = header.seq as u16;
                ip[2..4].copy_from_slice(&total.to_be_bytes());
                ip[4..6].copy_from_slice(&id.to_be_bytes());
                let checksum = checksum::finish(self.network_sum + u32::from(total) + u32::from(id) + sum);
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                ip[16..20].copy_from_slice(&target.to_be_bytes());
                sum
            }
            Ours::V6(_) => {
                ip[4..6].copy_from_slice(&length.to_be_bytes());
                ip[24..40].copy_from_slice(&header.target.to_be_bytes());
                checksum::word128(header.target)
            }
        }
    }
}
