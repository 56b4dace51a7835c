//! Reads just enough of a frame to judge it.

use super::RefusedBecause;

/// A frame padded to the shortest that Ethernet carries has at most this many bytes after its Ethernet header.
const SHORTEST_PAYLOAD: usize = 46;
/// Extension headers that are walked before a packet counts as malformed.
const MAX_EXTENSIONS: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
const ETHERTYPE_OLD_QINQ: u16 = 0x9100;

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ICMP_V6: u8 = 58;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// Where a whole packet comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Headers {
    V4 { source: u32, destination: u32 },
    V6 { source: u128, destination: u128 },
}

/// Source and destination of the commonest frame: an untagged IPv4 packet without options that is TCP, UDP or ICMP and
/// fills the frame. One branch instead of ten; whatever else a frame may be, [`Headers::parse`] reads.
#[inline]
pub(super) fn plain_v4(frame: &[u8]) -> Option<(u32, u32)> {
    const PROTOCOLS: u64 = 1 << TCP | 1 << UDP | 1 << ICMP;
    let header: &[u8; 34] = frame.first_chunk()?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let protocol = header[23];
    let plain = (header[0] & 1 == 0)
        & (word(12) & 0xffff_ff00 == 0x0800_4500)
        & ((word(16) >> 16) as usize == frame.len() - 14)
        & (word(20) >> 16 & 0x3fff == 0)
        & (protocol < 64)
        & (PROTOCOLS >> (protocol & 63) & 1 == 1);
    plain.then(|| (word(26), word(30)))
}

impl Headers {
    /// Reads the headers of a frame that holds exactly one whole packet of a known kind.
    #[inline]
    pub(super) fn parse(frame: &[u8]) -> Result<Self, RefusedBecause> {
        let Some((ethernet, rest)) = frame.split_first_chunk::<14>() else {
            return Err(RefusedBecause::Malformed);
        };
        if ethernet[0] & 1 != 0 {
            return Err(if ethernet[..6] == [0xff; 6] { RefusedBecause::Broadcast } else { RefusedBecause::Multicast });
        }
        match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
            ETHERTYPE_IPV4 => Self::parse_v4(rest),
            ETHERTYPE_IPV6 => Self::parse_v6(rest),
            ETHERTYPE_VLAN => Self::parse_tagged(rest),
            ETHERTYPE_SERVICE_VLAN | ETHERTYPE_OLD_QINQ => Err(RefusedBecause::StackedTags),
            _ => Err(RefusedBecause::NotIp),
        }
    }

    fn parse_tagged(rest: &[u8]) -> Result<Self, RefusedBecause> {
        let Some((tag, rest)) = rest.split_first_chunk::<4>() else {
            return Err(RefusedBecause::Malformed);
        };
        match u16::from_be_bytes([tag[2], tag[3]]) {
            ETHERTYPE_IPV4 => Self::parse_v4(rest),
            ETHERTYPE_IPV6 => Self::parse_v6(rest),
            ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN | ETHERTYPE_OLD_QINQ => Err(RefusedBecause::StackedTags),
            _ => Err(RefusedBecause::NotIp),
        }
    }

    #[inline]
    fn parse_v4(packet: &[u8]) -> Result<Self, RefusedBecause> {
        let Some(header) = packet.first_chunk::<20>() else {
            return Err(RefusedBecause::Malformed);
        };
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >> 4 != 4 || header_len < 20 || total < header_len || !fits(packet.len(), total) {
            return Err(RefusedBecause::Malformed);
        }
        // More-fragments and the offset; the reserved bit and don't-fragment say nothing here.
        if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
            return Err(RefusedBecause::Fragment);
        }
        if !matches!(header[9], TCP | UDP | ICMP | SCTP | DCCP | UDP_LITE) {
            return Err(RefusedBecause::Tunnel);
        }
        if header_len > 20 {
            // The total length covers the header, and the packet the total length.
            refuse_source_route(&packet[20..header_len])?;
        }
        Ok(Self::V4 {
            source: u32::from_be_bytes([header[12], header[13], header[14], header[15]]),
            destination: u32::from_be_bytes([header[16], header[17], header[18], header[19]]),
        })
    }

    #[inline]
    fn parse_v6(packet: &[u8]) -> Result<Self, RefusedBecause> {
        let Some((header, payload)) = packet.split_first_chunk::<40>() else {
            return Err(RefusedBecause::Malformed);
        };
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if header[0] >> 4 != 6 || !fits(packet.len(), length + 40) {
            return Err(RefusedBecause::Malformed);
        }
        if !matches!(header[6], TCP | UDP | ICMP_V6) {
            walk_extensions(header[6], &payload[..length])?;
        }
        let address = |at: usize| {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&header[at..at + 16]);
            u128::from_be_bytes(bytes)
        };
        Ok(Self::V6 { source: address(8), destination: address(24) })
    }
}

/// Whether `present` bytes are a packet of `total` bytes, or such a packet padded for Ethernet.
#[inline]
fn fits(present: usize, total: usize) -> bool {
    present == total || total < present && present <= SHORTEST_PAYLOAD
}

/// IPv4 options: loose and strict source routes name another destination.
fn refuse_source_route(mut options: &[u8]) -> Result<(), RefusedBecause> {
    while let [kind, rest @ ..] = options {
        match kind {
            0 => return Ok(()),
            1 => options = rest,
            131 | 137 => return Err(RefusedBecause::SourceRoute),
            _ => {
                let length = usize::from(*rest.first().ok_or(RefusedBecause::Malformed)?);
                options = options.get(length.max(2)..).filter(|_| length >= 2).ok_or(RefusedBecause::Malformed)?;
            }
        }
    }
    Ok(())
}

fn walk_extensions(mut next: u8, mut payload: &[u8]) -> Result<(), RefusedBecause> {
    for _ in 0..MAX_EXTENSIONS {
        match next {
            TCP | UDP | ICMP_V6 | SCTP | DCCP | UDP_LITE | NO_NEXT_HEADER => return Ok(()),
            FRAGMENT => return Err(RefusedBecause::Fragment),
            ROUTING => return Err(RefusedBecause::SourceRoute),
            HOP_BY_HOP | DESTINATION_OPTIONS => {
                let (Some(&after), Some(&units)) = (payload.first(), payload.get(1)) else {
                    return Err(RefusedBecause::Malformed);
                };
                payload = payload.get(usize::from(units) * 8 + 8..).ok_or(RefusedBecause::Malformed)?;
                next = after;
            }
            _ => return Err(RefusedBecause::Tunnel),
        }
    }
    Err(RefusedBecause::Malformed)
}
