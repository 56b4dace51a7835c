//! The Internet checksum (RFC 1071): whole sums, pseudo headers, and updates in place (RFC 1624).
//!
//! A *sum* here is the ones'-complement sum before its final complement, in a `u32` that is folded at the end.

/// Adds the 16-bit words of `bytes` to a sum; an odd last byte counts as the high half of a word.
#[inline]
pub fn add(mut sum: u32, bytes: &[u8]) -> u32 {
    // Four bytes a step into 64 bits: a frame of 64 KiB cannot overflow it.
    let mut wide = u64::from(sum);
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        wide += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    }
    match *words.remainder() {
        [a] => wide += u64::from(a) << 8,
        [a, b] => wide += u64::from(u16::from_be_bytes([a, b])),
        [a, b, c] => wide += u64::from(u16::from_be_bytes([a, b])) + (u64::from(c) << 8),
        _ => {}
    }
    wide = (wide & 0xffff_ffff) + (wide >> 32);
    wide = (wide & 0xffff_ffff) + (wide >> 32);
    sum = wide as u32;
    (sum & 0xffff) + (sum >> 16)
}

/// The sum of a 32-bit value's two words.
#[inline]
pub fn word32(value: u32) -> u32 {
    (value >> 16) + (value & 0xffff)
}

/// The sum of a 128-bit value's eight words.
#[inline]
pub fn word128(value: u128) -> u32 {
    word32((value >> 96) as u32) + word32((value >> 64) as u32) + word32((value >> 32) as u32) + word32(value as u32)
}

/// The checksum of a sum: folded and complemented.
#[inline]
pub fn finish(mut sum: u32) -> u16 {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The sum of the pseudo header of IPv4 (RFC 9293, 3.1).
#[inline]
pub fn pseudo_v4(source: u32, destination: u32, protocol: u8, length: u16) -> u32 {
    word32(source) + word32(destination) + u32::from(protocol) + u32::from(length)
}

/// The sum of the pseudo header of IPv6 (RFC 8200, 8.1).
#[inline]
pub fn pseudo_v6(source: u128, destination: u128, next_header: u8, length: u32) -> u32 {
    word128(source) + word128(destination) + u32::from(next_header) + word32(length)
}

/// The checksum after one 16-bit word of what it covers changed (RFC 1624, equation 3).
#[inline]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

/// Whether bytes that include their checksum, with `sum` of a pseudo header before them, are intact.
#[inline]
pub fn verifies(sum: u32, bytes: &[u8]) -> bool {
    finish(add(sum, bytes)) == 0
}

/// Writes the checksums of an Ethernet frame: of the IPv4 header, and of TCP, UDP, ICMP or ICMPv6 where the packet is
/// whole. What is cut short or something else is left as it is.
pub fn fill(frame: &mut [u8]) {
    let ip = if frame.get(12..14) == Some(&[0x81, 0x00]) { 18 } else { 14 };
    // Whether the packet was whole is the policy's question.
    let _ = match frame.get(ip - 2..ip) {
        Some([0x08, 0x00]) => fill_v4(&mut frame[ip..]),
        Some([0x86, 0xdd]) => fill_v6(&mut frame[ip..]),
        _ => None,
    };
}

fn fill_v4(packet: &mut [u8]) -> Option<()> {
    let header = usize::from(packet.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    if header < 20 || total < header || total > packet.len() {
        return None;
    }
    packet[10..12].fill(0);
    let sum = finish(add(0, &packet[..header]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let protocol = packet[9];
    // Source and destination lie side by side.
    let pseudo = add(u32::from(protocol) + (total - header) as u32, &packet[12..20]);
    fill_transport(&mut packet[header..total], protocol, if protocol == 1 { 0 } else { pseudo })
}

fn fill_v6(packet: &mut [u8]) -> Option<()> {
    let length = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
    let protocol = *packet.get(6)?;
    let pseudo = add(u32::from(protocol) + word32(length as u32), packet.get(8..40)?);
    fill_transport(packet.get_mut(40..40 + length)?, protocol, pseudo)
}

fn fill_transport(segment: &mut [u8], protocol: u8, pseudo: u32) -> Option<()> {
    let at = match protocol {
        6 => 16,
        17 => 6,
        1 | 58 => 2,
        _ => return None,
    };
    segment.get_mut(at..at + 2)?.fill(0);
    let sum = match finish(add(pseudo, segment)) {
        // RFC 768: zero means that there is none.
        0 if protocol == 17 => 0xffff,
        sum => sum,
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::fill;
    use crate::{Endpoint, FrameBuilder, Key, Mac, PortRange, Probe};

    /// Offsets of the checksums of IPv4 (if any) and of the transport.
    fn checksums(frame: &[u8]) -> Vec<usize> {
        let (network, transport, protocol) = match frame[14] >> 4 {
            4 => (Some(24), 34, frame[23]),
            _ => (None, 54, frame[20]),
        };
        let offset = match protocol {
            6 => 16,
            17 => 6,
            _ => 2,
        };
        network.into_iter().chain([transport + offset]).collect()
    }

    #[test]
    fn fill_writes_what_the_builder_writes() {
        let args = BTreeMap::from([("text".to_owned(), "odd".to_owned())]);
        for (name, args) in [("tcp_synscan", BTreeMap::new()), ("icmp_echoscan", BTreeMap::new()), ("udp", args)] {
            for address in ["198.18.0.10", "fd00::10"] {
                let probe = Probe::resolve(name, &args).unwrap();
                let address = address.parse().unwrap();
                let from = Endpoint { mac: Mac([2; 6]), address, ports: PortRange::DEFAULT, ttl: 64, vlan: None };
                let builder = FrameBuilder::new(&probe, &from, &Key::new([7; 16])).unwrap();
                let mut frame = vec![0; builder.frame_len()];
                let length = builder.build(&mut frame, Mac([4; 6]), 0x0a01_0203, 53, 0, 1_000_000);
                frame.truncate(length);
                let built = frame.clone();
                for at in checksums(&built) {
                    frame[at..at + 2].fill(0xa5);
                }
                fill(&mut frame);
                assert_eq!(frame, built, "{name} from {address}");
            }
        }
    }

    #[test]
    fn fill_leaves_alone_what_is_cut_short() {
        for length in 0..60 {
            let mut frame = vec![0x45; length];
            if length > 14 {
                frame[12..14].copy_from_slice(&[8, 0]);
            }
            let before = frame.clone();
            fill(&mut frame);
            assert_eq!(frame, before, "{length} bytes");
        }
    }
}
