//! ARP and neighbour discovery on any frame, as it came and with the checksum made right.
#![no_main]

use irl_link::Heard;
use irl_wire::checksum;
use irl_wire::packet::{Ethernet, Packet, protocol};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    hear(frame);
    let Some(packet) = Ethernet::parse(frame).and_then(|ethernet| Packet::parse(&ethernet)) else { return };
    if packet.protocol == protocol::ICMPV6 && packet.payload.len() >= 4 {
        let mut sealed = frame.to_vec();
        let at = packet.payload.as_ptr().addr() - frame.as_ptr().addr();
        sealed[at + 2..at + 4].fill(0);
        let sum = checksum::add(packet.pseudo_sum(), &sealed[at..at + packet.payload.len()]);
        sealed[at + 2..at + 4].copy_from_slice(&checksum::finish(sum).to_be_bytes());
        hear(&sealed);
    }
});

fn hear(frame: &[u8]) {
    if let Some(Heard::Question { mac, .. } | Heard::Answer { mac, .. }) = Heard::parse(frame) {
        assert!(!mac.is_multicast());
    }
}
