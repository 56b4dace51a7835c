//! Whole frames: read as views that never panic, and written header by header.
//!
//! A [`Packet`] is what a frame says of itself, checked for lengths and nothing else; transport views sit on its
//! payload. An [`Envelope`] writes Ethernet and IP around a transport segment and finishes its checksums.

use crate::checksum;
use crate::mac::Mac;

/// EtherTypes.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A VLAN tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// TCP flags.
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// The most IPv6 extension headers that are skipped.
const MAX_EXTENSIONS: usize = 8;

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

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// See [`tcp_flags`].
    pub flags: u8,
    /// Window, unscaled.
    pub window: u16,
    /// The options' bytes.
    pub options: &'a [u8],
    /// The data.
    pub payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// Reads a segment; `None` when it is shorter than its header says.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<20>()?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        Some(Self {
            source_port: u16::from_be_bytes([fixed[0], fixed[1]]),
            destination_port: u16::from_be_bytes([fixed[2], fixed[3]]),
            seq: u32_at(bytes, 4)?,
            ack: u32_at(bytes, 8)?,
            flags: fixed[13],
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            options: bytes.get(20..header_len)?,
            payload: bytes.get(header_len..)?,
        })
    }

    /// The options, up to the first that is malformed.
    pub fn options(&self) -> TcpOptions {
        TcpOptions::parse(self.options)
    }

    /// How much sequence space the segment takes.
    pub fn sequence_len(&self) -> u32 {
        self.payload.len() as u32
            + u32::from(self.flags & tcp_flags::SYN != 0)
            + u32::from(self.flags & tcp_flags::FIN != 0)
    }
}

/// TCP options that measurements look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptions {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale.
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
    /// An option had a length of 0 or 1, or reached past the header: parsing stopped there.
    pub malformed: bool,
}

impl TcpOptions {
    /// Reads options; unknown ones are skipped (RFC 9293, MUST-6), a bad length ends it (MUST-7).
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        loop {
            let length = match *bytes {
                [] | [0, ..] => return options,
                [1, ..] => 1,
                [_, length, ..] if length >= 2 && usize::from(length) <= bytes.len() => usize::from(length),
                _ => {
                    options.malformed = true;
                    return options;
                }
            };
            match bytes[..length] {
                [2, 4, a, b] => options.mss = Some(u16::from_be_bytes([a, b])),
                [3, 3, shift] => options.window_scale = Some(shift),
                [4, 2] => options.sack_permitted = true,
                [8, 10, a, b, c, d, e, f, g, h] => {
                    options.timestamps = Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
                }
                _ => {}
            }
            bytes = &bytes[length..];
        }
    }
}

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// The data, as long as the header says.
    pub payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Reads a datagram; `None` when lengths contradict.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<8>()?;
        let length = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        Some(Self {
            source_port: u16::from_be_bytes([fixed[0], fixed[1]]),
            destination_port: u16::from_be_bytes([fixed[2], fixed[3]]),
            payload: bytes.get(8..length)?,
        })
    }
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp<'a> {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum: identifier and sequence number, an MTU, or nothing.
    pub rest: [u8; 4],
    /// What follows.
    pub payload: &'a [u8],
}

impl<'a> Icmp<'a> {
    /// Reads a message; `None` when it is shorter than its header.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, payload) = bytes.split_first_chunk::<8>()?;
        Some(Self { kind: fixed[0], code: fixed[1], rest: [fixed[4], fixed[5], fixed[6], fixed[7]], payload })
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

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    bytes.get(at..at + 16).and_then(|b| b.try_into().ok()).map(u128::from_be_bytes)
}
