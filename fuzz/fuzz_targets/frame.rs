//! Every parser of the wire crate on any bytes.
#![no_main]

use irl_wire::packet::{Arp, Ethernet, Icmp, Packet, Tcp, TcpOptions, Udp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let _ = TcpOptions::parse(frame);
    let Some(ethernet) = Ethernet::parse(frame) else { return };
    let _ = Arp::parse(ethernet.payload);
    for packet in [Packet::parse_v4(ethernet.payload), Packet::parse_v6(ethernet.payload)].into_iter().flatten() {
        let _ = (packet.header_intact(), packet.payload_intact());
        let _ = Tcp::parse(packet.payload).map(|tcp| (tcp.options(), tcp.sequence_len()));
        let _ = (Udp::parse(packet.payload), Icmp::parse(packet.payload));
    }
});
