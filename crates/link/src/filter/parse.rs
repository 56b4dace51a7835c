//! One frame taken apart, as far as the filter looks. Offsets count from the frame's start; nothing is read beyond
//! [`HEAD_LEN`], and a read past the end gives zero, so no bytes whatever make this panic.

use irl_wire::probe::Protocol;

use super::config::HEAD_LEN;

pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_VLAN: u16 = 0x8100;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(super) const ETHERTYPE_QINQ: u16 = 0x88a8;

pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const ICMP6: u8 = 58;
pub(super) const DEST_OPTIONS: u8 = 60;
const MAX_EXTENSIONS: usize = 4;
const TCP_ACK: u8 = 0x10;

/// The part of a frame that the filter looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a>(&'a [u8]);

impl<'a> Head<'a> {
    pub(super) fn of(frame: &'a [u8]) -> Self {
        Self(&frame[..frame.len().min(HEAD_LEN)])
    }

    pub(super) fn len(self) -> usize {
        self.0.len()
    }

    pub(super) fn array<const N: usize>(self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        let available = self.0.get(at..).unwrap_or_default();
        let n = available.len().min(N);
        out[..n].copy_from_slice(&available[..n]);
        out
    }

    pub(super) fn u8(self, at: usize) -> u8 {
        self.array::<1>(at)[0]
    }

    pub(super) fn u16(self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }

    pub(super) fn u32(self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    pub(super) fn u128(self, at: usize) -> u128 {
        u128::from_be_bytes(self.array(at))
    }

    /// An IP address as the host's integer.
    pub(super) fn address(self, v6: bool, at: usize) -> u128 {
        if v6 { self.u128(at) } else { u128::from(self.u32(at)) }
    }

    /// The one's complement sum of `len` bytes at `at`, on top of `seed`, folded to 16 bits.
    pub(super) fn sum(self, at: usize, len: usize, seed: u64) -> u16 {
        let bytes = self.0.get(at..at + len).unwrap_or_default();
        let mut sum = seed;
        for pair in bytes.chunks(2) {
            sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

/// Which part of a fragmented packet a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Part {
    #[default]
    Whole,
    First,
    Later,
}

/// The IP packet in a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Packet {
    pub(super) v6: bool,
    pub(super) network: usize,
    pub(super) transport: usize,
    /// What follows the transport header.
    pub(super) payload: usize,
    /// Of the IP packet (for UDP: of the datagram); what follows is padding.
    pub(super) end: usize,
    pub(super) protocol: u8,
    pub(super) ttl: u8,
    pub(super) ip_id: [u8; 2],
    pub(super) part: Part,
    /// The transport header of the packet that an ICMP error quotes.
    pub(super) quoted: Option<usize>,
}

impl Packet {
    /// Reads an IPv4 header; `None` when it is cut short or contradicts itself.
    pub(super) fn ipv4(head: Head<'_>, network: usize, frame_len: usize) -> Option<Self> {
        if network + 20 > head.len() || head.u8(network) >> 4 != 4 {
            return None;
        }
        let header = usize::from(head.u8(network) & 15) * 4;
        let total = usize::from(head.u16(network + 2));
        if header < 20 || total < header || network + total > frame_len || network + header > head.len() {
            return None;
        }
        let fragment = head.u16(network + 6);
        Some(Self {
            v6: false,
            network,
            transport: network + header,
            payload: network + total,
            end: network + total,
            protocol: head.u8(network + 9),
            ttl: head.u8(network + 8),
            ip_id: head.array(network + 4),
            part: part(fragment & 0x1fff, fragment & 0x2000 != 0),
            quoted: None,
        })
    }

    /// Reads an IPv6 header and those extension headers that may precede an answer to us.
    pub(super) fn ipv6(head: Head<'_>, network: usize, frame_len: usize) -> Option<Self> {
        if network + 40 > head.len() || head.u8(network) >> 4 != 6 {
            return None;
        }
        let end = network + 40 + usize::from(head.u16(network + 4));
        if end > frame_len {
            return None;
        }
        let mut packet = Self { v6: true, network, payload: end, end, ttl: head.u8(network + 7), ..Self::default() };
        let (mut next, mut at) = (head.u8(network + 6), network + 40);
        for _ in 0..MAX_EXTENSIONS {
            if ![HOP_BY_HOP, DEST_OPTIONS, FRAGMENT].contains(&next) {
                break;
            }
            if at + 8 > head.len() || at + 8 > end {
                return None;
            }
            let extension = next;
            next = head.u8(at);
            if extension == FRAGMENT {
                let fragment = head.u16(at + 2);
                at += 8;
                packet.part = part(fragment & 0xfff8, fragment & 1 != 0);
                if packet.part != Part::Whole {
                    break;
                }
            } else {
                at += (usize::from(head.u8(at + 1)) + 1) * 8;
            }
        }
        packet.protocol = next;
        packet.transport = at;
        (at <= end).then_some(packet)
    }

    pub(super) fn source(&self) -> usize {
        self.network + if self.v6 { 8 } else { 12 }
    }

    pub(super) fn destination(&self) -> usize {
        self.network + if self.v6 { 24 } else { 16 }
    }

    /// Whether IPv4's header checksum is wrong.
    pub(super) fn header_is_bad(&self, head: Head<'_>) -> bool {
        !self.v6 && head.sum(self.network, self.transport - self.network, 0) != 0xffff
    }

    /// Whether the transport's checksum is wrong; `None` when it reaches beyond what the filter looks at.
    pub(super) fn transport_is_bad(&self, head: Head<'_>) -> Option<bool> {
        let len = self.end - self.transport;
        if self.protocol == UDP && !self.v6 && head.u16(self.transport + 6) == 0 {
            // RFC 768: no checksum was made.
            return Some(false);
        }
        if self.transport + len > HEAD_LEN {
            return None;
        }
        let seed = if self.protocol == ICMP {
            0
        } else {
            let addresses = if self.v6 { 32 } else { 8 };
            u64::from(head.sum(self.source(), addresses, u64::from(self.protocol) + len as u64))
        };
        Some(head.sum(self.transport, len, seed) != 0xffff)
    }
}

/// RFC 6946: a fragment at 0 with nothing to follow is a whole packet.
fn part(offset: u16, more: bool) -> Part {
    match (offset, more) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later,
    }
}

/// What a frame says about whose answer it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// Of the probe that is answered or quoted.
    pub(super) protocol: Protocol,
    /// Offset of the target's address.
    pub(super) target: usize,
    pub(super) target_port: u16,
    pub(super) our_port: u16,
    /// TCP: the acknowledgement number, or the quoted sequence number; `None` without ACK.
    pub(super) seq: Option<u32>,
    pub(super) echo: (u16, u16),
}

/// What [`claim`] found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Claimed {
    Yes(Claim),
    Malformed,
    ForeignProtocol,
    ForeignIcmp,
}

/// Reads the transport header; sets the packet's payload, its end for UDP, and what it quotes.
pub(super) fn claim(head: Head<'_>, packet: &mut Packet) -> Claimed {
    let (t, length) = (packet.transport, packet.end - packet.transport);
    let base = Claim {
        protocol: Protocol::Tcp,
        target: packet.source(),
        target_port: 0,
        our_port: 0,
        seq: None,
        echo: (0, 0),
    };
    match packet.protocol {
        TCP => {
            let header = usize::from(head.u8(t + 12) >> 4) * 4;
            if length < 20 || t + 20 > head.len() || header < 20 || header > length || t + header > head.len() {
                return Claimed::Malformed;
            }
            packet.payload = t + header;
            Claimed::Yes(Claim {
                target_port: head.u16(t),
                our_port: head.u16(t + 2),
                seq: (head.u8(t + 13) & TCP_ACK != 0).then(|| head.u32(t + 8)),
                ..base
            })
        }
        UDP => {
            let udp_len = usize::from(head.u16(t + 4));
            if length < 8 || t + 8 > head.len() || udp_len < 8 || udp_len > length {
                return Claimed::Malformed;
            }
            packet.end = t + udp_len;
            packet.payload = t + 8;
            Claimed::Yes(Claim { protocol: Protocol::Udp, target_port: head.u16(t), our_port: head.u16(t + 2), ..base })
        }
        protocol if protocol == if packet.v6 { ICMP6 } else { ICMP } => {
            if length < 8 || t + 8 > head.len() {
                return Claimed::Malformed;
            }
            let kind = head.u8(t);
            if kind == if packet.v6 { 129 } else { 0 } {
                packet.payload = t + 8;
                return Claimed::Yes(Claim {
                    protocol: Protocol::Icmp,
                    echo: (head.u16(t + 4), head.u16(t + 6)),
                    ..base
                });
            }
            if !is_error(packet.v6, kind) {
                return Claimed::ForeignIcmp;
            }
            packet.payload = t + 8;
            quoted(head, packet, base).map_or(Claimed::ForeignIcmp, Claimed::Yes)
        }
        _ => Claimed::ForeignProtocol,
    }
}

fn is_error(v6: bool, kind: u8) -> bool {
    if v6 { (1..=4).contains(&kind) } else { matches!(kind, 3 | 4 | 5 | 11 | 12) }
}

/// The packet that an ICMP error quotes, if we sent it.
fn quoted(head: Head<'_>, packet: &mut Packet, base: Claim) -> Option<Claim> {
    let q = packet.transport + 8;
    let limit = packet.end.min(head.len());
    let ours = head.address(packet.v6, packet.destination());
    let (protocol, target, t) = if packet.v6 {
        if q + 48 > limit || head.u8(q) >> 4 != 6 || head.u128(q + 8) != ours {
            return None;
        }
        (head.u8(q + 6), q + 24, q + 40)
    } else {
        let header = usize::from(head.u8(q) & 15) * 4;
        let fits = q + 28 <= limit && header >= 20 && q + header + 8 <= limit;
        if !fits || head.u8(q) >> 4 != 4 || u128::from(head.u32(q + 12)) != ours || head.u16(q + 6) & 0x1fff != 0 {
            return None;
        }
        (head.u8(q + 9), q + 16, q + header)
    };
    let claim = match protocol {
        TCP | UDP => Claim {
            protocol: if protocol == TCP { Protocol::Tcp } else { Protocol::Udp },
            target,
            our_port: head.u16(t),
            target_port: head.u16(t + 2),
            seq: Some(head.u32(t + 4)),
            ..base
        },
        ICMP | ICMP6 if protocol == if packet.v6 { ICMP6 } else { ICMP } => {
            if head.u8(t) != if packet.v6 { 128 } else { 8 } {
                return None;
            }
            Claim { protocol: Protocol::Icmp, target, echo: (head.u16(t + 4), head.u16(t + 6)), ..base }
        }
        _ => return None,
    };
    packet.quoted = Some(t);
    Some(claim)
}
