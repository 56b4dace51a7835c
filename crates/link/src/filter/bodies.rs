//! Compact record bodies, byte for byte as `record.rs` describes them.

use irl_wire::probe::Protocol;

use super::parse::{Claim, Head, ICMP6, Packet};
use crate::record::options;

/// An address where one layout serves both families: IPv4 mapped into IPv6.
fn mapped(head: Head<'_>, packet: &Packet, at: usize) -> [u8; 16] {
    if packet.v6 {
        return head.array(at);
    }
    let mut out = [0; 16];
    out[10..12].fill(0xff);
    out[12..].copy_from_slice(&head.array::<4>(at));
    out
}

fn payload_len(packet: &Packet) -> [u8; 2] {
    ((packet.end - packet.payload) as u16).to_be_bytes()
}

/// What the options of a TCP segment say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TcpOptions {
    mss: [u8; 2],
    window_scale: Option<u8>,
    bits: u8,
    timestamps: [u8; 8],
    /// SACK blocks were there: more than the compact record holds.
    pub(super) sacks: bool,
}

impl TcpOptions {
    /// Reads them like a hostile peer wrote them.
    pub(super) fn parse(head: Head<'_>, packet: &Packet) -> Self {
        let mut found = Self::default();
        let (mut at, end) = (packet.transport + 20, packet.payload);
        while at < end {
            let kind = head.u8(at);
            if kind == 0 {
                break;
            }
            if kind == 1 {
                at += 1;
                continue;
            }
            let length = if at + 1 < end { usize::from(head.u8(at + 1)) } else { 0 };
            if length < 2 || at + length > end {
                found.bits |= options::MALFORMED;
                break;
            }
            match (kind, length) {
                (2, 4) => found.mss = head.array(at + 2),
                (3, 3) => found.window_scale = Some(head.u8(at + 2)),
                (4, 2) => found.bits |= options::SACK_PERMITTED,
                (8, 10) => {
                    found.bits |= options::TIMESTAMPS;
                    found.timestamps = head.array(at + 2);
                }
                (5, _) => found.sacks = true,
                _ => {}
            }
            at += length;
        }
        found
    }
}

/// A TCP4 or TCP6 body.
pub(super) fn tcp(head: Head<'_>, packet: &Packet, found: &TcpOptions, out: &mut Vec<u8>) {
    let t = packet.transport;
    if packet.v6 {
        out.extend_from_slice(&head.array::<32>(packet.source()));
    } else {
        out.extend_from_slice(&head.array::<8>(packet.source()));
    }
    out.extend_from_slice(&head.array::<12>(t));
    out.extend_from_slice(&head.array::<2>(t + 14));
    out.extend_from_slice(&[head.u8(t + 13), packet.ttl]);
    out.extend_from_slice(&packet.ip_id);
    out.extend_from_slice(&found.mss);
    out.extend_from_slice(&[found.window_scale.unwrap_or(255), found.bits]);
    out.extend_from_slice(&payload_len(packet));
    out.extend_from_slice(&found.timestamps);
}

/// A UDP body.
pub(super) fn udp(head: Head<'_>, packet: &Packet, out: &mut Vec<u8>) {
    out.extend_from_slice(&mapped(head, packet, packet.source()));
    out.extend_from_slice(&mapped(head, packet, packet.destination()));
    out.extend_from_slice(&head.array::<6>(packet.transport));
    out.extend_from_slice(&[packet.ttl, 0]);
    out.extend_from_slice(&packet.ip_id);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&payload_len(packet));
    out.extend_from_slice(&[0, 0]);
}

/// An ICMP body.
pub(super) fn icmp(head: Head<'_>, packet: &Packet, claim: &Claim, out: &mut Vec<u8>) {
    let t = packet.transport;
    out.extend_from_slice(&mapped(head, packet, packet.source()));
    out.extend_from_slice(&mapped(head, packet, packet.destination()));
    let protocol = match (packet.quoted, claim.protocol) {
        (None, _) => 0,
        (Some(_), Protocol::Tcp) => super::parse::TCP,
        (Some(_), Protocol::Udp) => super::parse::UDP,
        (Some(_), Protocol::Icmp) if packet.v6 => ICMP6,
        (Some(_), Protocol::Icmp) => super::parse::ICMP,
    };
    out.extend_from_slice(&[head.u8(t), head.u8(t + 1), packet.ttl, protocol]);
    out.extend_from_slice(&packet.ip_id);
    let (id, sequence) = match (packet.quoted, claim.protocol) {
        (Some(_), Protocol::Tcp | Protocol::Udp) => (claim.our_port, claim.target_port),
        _ => claim.echo,
    };
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&payload_len(packet));
    if packet.quoted.is_some() {
        let word = match (claim.protocol, claim.seq) {
            (Protocol::Tcp, Some(seq)) => seq.to_be_bytes(),
            _ => head.array(t + 4),
        };
        out.extend_from_slice(&word);
        out.extend_from_slice(&mapped(head, packet, claim.target));
        out.extend_from_slice(&[0; 16]);
    } else {
        out.extend_from_slice(&[0; 20]);
        let mut payload = head.array::<16>(packet.payload);
        let present = (packet.end - packet.payload).min(16);
        payload[present..].fill(0);
        out.extend_from_slice(&payload);
    }
}
