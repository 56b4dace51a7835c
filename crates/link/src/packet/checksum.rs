//! Finishes transport checksums that a local peer left to its device.

use irl_wire::checksum;

/// Fills in the TCP or UDP checksum of a whole IPv4 or IPv6 packet in an untagged frame; leaves anything else alone.
///
/// Over veth a frame of the host's own peer arrives as it left the peer's socket, with half a checksum: it never
/// crossed a wire. The kernel says so, and believes it; so do we.
pub(super) fn finish(frame: &mut [u8]) {
    let Some((ethernet, packet)) = frame.split_at_mut_checked(14) else { return };
    let (protocol, header_len, end, pseudo) = match (ethernet[12], ethernet[13]) {
        (0x08, 0x00) if packet.len() >= 20 => {
            let header_len = usize::from(packet[0] & 0x0f) * 4;
            let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
            if fragment || header_len < 20 || total < header_len || total > packet.len() {
                return;
            }
            let address = |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
            let pseudo = checksum::pseudo_v4(address(12), address(16), packet[9], (total - header_len) as u16);
            (packet[9], header_len, total, pseudo)
        }
        (0x86, 0xdd) if packet.len() >= 40 => {
            let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            if length + 40 > packet.len() {
                return;
            }
            let address = |at: usize| u128::from_be_bytes(packet[at..at + 16].try_into().expect("sixteen bytes"));
            let pseudo = checksum::pseudo_v6(address(8), address(24), packet[6], length as u32);
            (packet[6], 40, length + 40, pseudo)
        }
        _ => return,
    };
    let at = match protocol {
        6 => 16,
        17 => 6,
        _ => return,
    };
    let segment = &mut packet[header_len..end];
    if segment.len() < at + 2 {
        return;
    }
    segment[at..at + 2].fill(0);
    let sum = match checksum::finish(checksum::add(pseudo, segment)) {
        // A UDP checksum of zero would mean none.
        0 if protocol == 17 => 0xffff,
        sum => sum,
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_checksum_becomes_a_whole_one() {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0, 7, 0, 9, 0, 11, 0x12, 0x34, b'a', b'b', b'c']);
        finish(&mut frame);
        assert!(checksum::verifies(checksum::pseudo_v4(0x0a000001, 0x0a000002, 17, 11), &frame[34..]));
    }

    #[test]
    fn hostile_lengths_are_left_alone() {
        for length in 0..80 {
            for first in [0x45, 0x4f, 0x60] {
                let mut frame = vec![0xff; length];
                if length > 14 {
                    frame[12..14].copy_from_slice(if first == 0x60 { &[0x86, 0xdd] } else { &[8, 0] });
                    frame[14] = first;
                }
                finish(&mut frame);
            }
        }
    }
}
