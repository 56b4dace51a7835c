//! Frames whose payload is written anew for each target: their lengths differ, and nothing of a checksum is known before.

use super::{FrameBuilder, Ours, Probed};
use crate::checksum;
use crate::mac::Mac;
use crate::probe::{Template, Values};

const UDP: u8 = 17;
/// What UDP's header takes.
const HEADER: usize = 8;

impl FrameBuilder {
    /// Writes the frame of a UDP probe with this payload, filled in, into the front of `slot` and returns its length.
    #[inline(never)]
    pub(super) fn build_filled(&self, filling: &Template, slot: &mut [u8], next_hop: Mac, probed: Probed) -> usize {
        let Probed { target, port, probe_num, cookie, source_port } = probed;
        let (v6, ours) = match self.ours {
            Ours::V4(ours) => (false, u128::from(ours)),
            Ours::V6(ours) => (true, ours),
        };
        let headers = self.template.len();
        slot[..headers].copy_from_slice(&self.template);
        let values = Values { v6, ours, our_port: source_port, target, target_port: port, cookie, probe_num };
        let end = headers + filling.write(&mut slot[headers..], &values);
        let frame = &mut slot[..end];
        // A template fits a frame of 1,500 bytes.
        let (length, total) = ((end - self.transport) as u16, (end - self.network) as u16);
        let at = self.network + if v6 { 4 } else { 2 };
        let counted = if v6 { length } else { total };
        frame[at..at + 2].copy_from_slice(&counted.to_be_bytes());
        self.address(frame, next_hop, target, cookie.ip_id(), 0);
        if !v6 {
            let header = &mut frame[self.network..self.transport];
            header[10..12].fill(0);
            let sum = checksum::finish(checksum::add(0, header));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let datagram = &mut frame[self.transport..];
        datagram[..2].copy_from_slice(&source_port.to_be_bytes());
        datagram[2..4].copy_from_slice(&port.to_be_bytes());
        datagram[4..HEADER].fill(0);
        datagram[4..6].copy_from_slice(&length.to_be_bytes());
        let pseudo = match self.ours {
            Ours::V4(ours) => checksum::pseudo_v4(ours, target as u32, UDP, length),
            Ours::V6(ours) => checksum::pseudo_v6(ours, target, UDP, u32::from(length)),
        };
        let sum = match checksum::finish(checksum::add(pseudo, datagram)) {
            // Zero would say that there is none (RFC 768).
            0 => 0xffff,
            sum => sum,
        };
        datagram[6..HEADER].copy_from_slice(&sum.to_be_bytes());
        end
    }
}
