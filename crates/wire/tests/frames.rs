//! Every frame that the builder makes says what it should, and no bytes make a parser panic.

use std::collections::BTreeMap;
use std::net::IpAddr;

use irl_wire::packet::{Arp, Ethernet, Icmp, Packet, Tcp, TcpOptions, Udp, protocol, tcp_flags};
use irl_wire::{Endpoint, FrameBuilder, Key, Mac, PortRange, Probe, SegmentBuilder, SegmentHeader, checksum};
use proptest::prelude::*;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOP: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn builder(name: &str, args: &[(&str, &str)], source: &str, ports: PortRange, vlan: Option<u16>) -> FrameBuilder {
    let args: BTreeMap<_, _> = args.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let address: IpAddr = source.parse().unwrap();
    let from = Endpoint { mac: OURS, address, ports, ttl: 77, vlan };
    FrameBuilder::new(&Probe::resolve(name, &args).unwrap(), &from, &Key::new([9; 16])).unwrap()
}

fn all() -> Vec<FrameBuilder> {
    let mut out = Vec::new();
    for vlan in [None, Some(123)] {
        for source in ["198.18.0.10", "fd00:18::10"] {
            let ports = PortRange::DEFAULT;
            out.push(builder("tcp_synscan", &[], source, ports, vlan));
            out.push(builder("tcp_synscan", &[("layout", "smallest")], source, ports, vlan));
            out.push(builder("icmp_echoscan", &[], source, ports, vlan));
            out.push(builder("udp", &[("text", "odd")], source, ports, vlan));
            out.push(builder("udp", &[("hex", "00010203")], source, ports, vlan));
        }
    }
    out
}

proptest! {
    #[test]
    fn frames_parse_to_what_was_asked_for(
        pick in 0..20_usize, target: u128, port: u16, probe_num in 0..4_u16, now_ns: u64,
    ) {
        let builder = &all()[pick];
        let v6 = pick % 10 >= 5;
        let target = if v6 { target } else { target & 0xffff_ffff };
        let mut slot = [0xaa; 2048];
        let length = builder.build(&mut slot, HOP, target, port, probe_num, now_ns);
        prop_assert_eq!(length, builder.frame_len());
        let ethernet = Ethernet::parse(&slot[..length]).unwrap();
        prop_assert_eq!((ethernet.source, ethernet.destination), (OURS, HOP));
        prop_assert_eq!(ethernet.vlan, (pick >= 10).then_some(123));
        let packet = Packet::parse(&ethernet).unwrap();
        prop_assert_eq!((packet.v6, packet.destination, packet.ttl, packet.fragment), (v6, target, 77, false));
        prop_assert!(packet.header_intact() && packet.payload_intact());
        let cookie = builder.cookie(target, port);
        if !v6 {
            prop_assert_eq!(packet.id, cookie.ip_id());
        }
        match packet.protocol {
            protocol::TCP => {
                let tcp = Tcp::parse(packet.payload).unwrap();
                prop_assert_eq!((tcp.destination_port, tcp.seq, tcp.flags), (port, cookie.seq(), tcp_flags::SYN));
                prop_assert_eq!(PortRange::DEFAULT.probe_num(cookie, tcp.source_port), Some(probe_num));
                prop_assert!(!tcp.options().malformed);
                if let Some((ts_val, _)) = tcp.options().timestamps {
                    // What a peer echoes a millisecond later is a round trip of a millisecond.
                    let rtt = builder.rtt_from_tsecr(ts_val, now_ns.saturating_add(1_000_000)).unwrap();
                    prop_assert!(now_ns > u64::MAX - 2_000_000 || (999_000..=1_001_000).contains(&rtt));
                    prop_assert_eq!(tcp.options().mss, Some(if v6 { 1440 } else { 1460 }));
                }
            }
            protocol::UDP => {
                let udp = Udp::parse(packet.payload).unwrap();
                prop_assert_eq!(udp.destination_port, port);
                prop_assert!(udp.payload == b"odd" || udp.payload == [0, 1, 2, 3]);
            }
            _ => {
                let icmp = Icmp::parse(packet.payload).unwrap();
                prop_assert_eq!(icmp.kind, if v6 { 128 } else { 8 });
                let rest = [cookie.echo_id().to_be_bytes(), cookie.echo_seq().to_be_bytes()].concat();
                prop_assert_eq!(&icmp.rest[..], &rest[..]);
                let rtt = builder.rtt_from_payload(icmp.payload, now_ns.wrapping_add(5));
                prop_assert_eq!(rtt, Some(5));
            }
        }
    }

    #[test]
    fn resets_carry_the_number_that_was_acknowledged(target: u32, port: u16, ours: u16, seq: u32) {
        let builder = &all()[0];
        let mut slot = [0; 128];
        let length = builder.build_reset(&mut slot, HOP, u128::from(target), port, ours, seq);
        let ethernet = Ethernet::parse(&slot[..length]).unwrap();
        let packet = Packet::parse(&ethernet).unwrap();
        let tcp = Tcp::parse(packet.payload).unwrap();
        prop_assert!(packet.header_intact() && packet.payload_intact());
        prop_assert_eq!((tcp.source_port, tcp.destination_port, tcp.seq, tcp.flags), (ours, port, seq, tcp_flags::RST));
    }

    #[test]
    fn sums_agree_with_a_slow_twin(bytes: Vec<u8>, start: u16) {
        let mut slow = u64::from(start);
        for pair in bytes.chunks(2) {
            slow += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while slow >> 16 != 0 {
            slow = (slow & 0xffff) + (slow >> 16);
        }
        prop_assert_eq!(checksum::finish(checksum::add(u32::from(start), &bytes)), !(slow as u16));
    }

    #[test]
    fn an_updated_checksum_still_verifies(mut bytes in proptest::collection::vec(any::<u8>(), 20), at in 0..9_usize, new: u16) {
        bytes[18..].fill(0);
        let sum = checksum::finish(checksum::add(0, &bytes));
        let old = u16::from_be_bytes([bytes[at * 2], bytes[at * 2 + 1]]);
        bytes[at * 2..at * 2 + 2].copy_from_slice(&new.to_be_bytes());
        bytes[18..].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
        prop_assert!(checksum::verifies(0, &bytes));
    }

    #[test]
    fn a_source_port_tells_which_probe_it_was(cookie: u64, first in 1..65_000_u16, len in 1..535_u16, num: u16) {
        let ports = PortRange { first, last: first + len - 1 };
        let cookie = irl_wire::Cookie(cookie);
        let port = ports.source_port(cookie, num % len);
        prop_assert!(ports.contains(port));
        prop_assert_eq!(ports.probe_num(cookie, port), Some(num % len));
    }
}

/// A SYN's probe, stored, edited and read back: how probes that are not ours arrive.
fn edited(edit: impl FnOnce(&mut serde_json::Value)) -> Result<FrameBuilder, String> {
    let ours = Probe::resolve("tcp_synscan", &BTreeMap::new()).unwrap();
    let mut stored = serde_json::to_value(&ours).unwrap();
    edit(&mut stored);
    let probe: Probe = serde_json::from_value(stored).unwrap();
    let address = "fd00:18::10".parse().unwrap();
    let from = Endpoint { mac: OURS, address, ports: PortRange::DEFAULT, ttl: 77, vlan: None };
    FrameBuilder::new(&probe, &from, &Key::new([9; 16])).map_err(|error| error.to_string())
}

#[test]
fn patches_that_would_spoil_the_checksum_are_refused() {
    let with = |offset: u16, width: u8, source: serde_json::Value| {
        edited(|probe| {
            let patch = serde_json::json!({"offset": offset, "width": width, "source": source});
            probe["patches"].as_array_mut().unwrap().push(patch);
        })
    };
    for (offset, width, source, reason) in [
        (0, 2, "source_port", "overlaps"),
        (2, 2, "target_port", "overlaps"),
        (16, 2, "target_port", "overlaps"),
        (14, 4, "microseconds", "overlaps"),
        (6, 2, "probe_number", "overlaps"),
        (15, 2, "probe_number", "even offset"),
        (14, 3, "probe_number", "even offset"),
        (40, 2, "probe_number", "even offset"),
    ] {
        let error = with(offset, width, source.into()).expect_err("two writers, or none that can be");
        assert!(error.contains(reason), "{source} at {offset}: {error}");
    }
    assert!(with(14, 2, serde_json::json!({"cookie": 64})).unwrap_err().contains("64 bits"));
    assert!(with(14, 2, serde_json::json!({"cookie": 48})).is_ok());
}

#[test]
fn what_a_template_says_where_the_builder_writes_does_not_matter() {
    let builder = edited(|probe| {
        for at in [0, 1, 2, 3, 4, 7, 16, 17, 28] {
            probe["template"][at] = 0xa5.into();
        }
        // An MSS below what IPv6 takes off.
        probe["template"][22] = 0.into();
        probe["template"][23] = 5.into();
    })
    .unwrap();
    let mut slot = [0; 128];
    let length = builder.build(&mut slot, HOP, 1, 80, 0, 1);
    let packet = Packet::parse(&Ethernet::parse(&slot[..length]).unwrap()).unwrap();
    assert!(packet.payload_intact());
    assert_eq!(Tcp::parse(packet.payload).unwrap().options().mss, Some(0));
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    let builder = builder("udp", &[("text", "odd")], "198.18.0.10", PortRange::DEFAULT, None);
    let mut slot = [0; 64];
    let mut all_ones = 0;
    for target in 0..1_000_000 {
        builder.build(&mut slot, HOP, target, 53, 0, 1);
        let checksum = [slot[40], slot[41]];
        assert_ne!(checksum, [0, 0], "to {target}: that would say there is none (RFC 768)");
        all_ones += usize::from(checksum == [0xff, 0xff]);
    }
    assert!(all_ones > 0, "the case did not come up");
}

/// Reads a frame with every parser there is; the sum keeps the compiler from leaving any out.
fn read_everything(frame: &[u8]) -> usize {
    let Some(ethernet) = Ethernet::parse(frame) else { return 0 };
    let mut seen = Arp::parse(ethernet.payload).is_some() as usize;
    // Whatever the EtherType says, both network parsers must cope.
    for packet in [Packet::parse_v4(ethernet.payload), Packet::parse_v6(ethernet.payload)].into_iter().flatten() {
        seen += usize::from(packet.header_intact()) + usize::from(packet.payload_intact());
        if let Some(tcp) = Tcp::parse(packet.payload) {
            seen += usize::from(tcp.options().malformed) + tcp.sequence_len() as usize;
        }
        seen += Udp::parse(packet.payload).map_or(0, |udp| udp.payload.len());
        seen += Icmp::parse(packet.payload).map_or(0, |icmp| icmp.payload.len());
    }
    seen + usize::from(TcpOptions::parse(frame).malformed)
}

#[test]
fn ten_million_mutated_frames_make_nothing_panic() {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let templates: Vec<Vec<u8>> = all()
        .iter()
        .map(|builder| {
            let mut slot = vec![0; 256];
            let length = builder.build(&mut slot, HOP, 0x0a00_0001, 80, 0, 1);
            slot.truncate(length);
            slot
        })
        .collect();
    let mut frame = Vec::new();
    let mut seen = 0;
    for _ in 0..10_000_000 {
        frame.clear();
        frame.extend_from_slice(&templates[(draw() % templates.len() as u64) as usize]);
        for _ in 0..draw() % 6 {
            let at = (draw() % frame.len() as u64) as usize;
            frame[at] = draw() as u8;
        }
        match draw() % 8 {
            0 => frame.truncate((draw() % 128) as usize),
            1 => frame.resize(frame.len() + (draw() % 64) as usize, draw() as u8),
            _ => {}
        }
        seen += read_everything(&frame);
    }
    assert!(seen > 10_000_000, "the parsers saw hardly anything: {seen}");
}

fn endpoint(v6: bool, vlan: Option<u16>) -> Endpoint {
    let address = if v6 { "fd00:18::10" } else { "198.18.0.10" };
    Endpoint { mac: OURS, address: address.parse().unwrap(), ports: PortRange::DEFAULT, ttl: 77, vlan }
}

proptest! {
    #[test]
    fn segments_parse_to_what_was_asked_for_and_their_checksums_are_right(
        v6: bool, tagged: bool, target: u128, ports: (u16, u16), numbers: (u32, u32), flags in 0..0x40_u8, window: u16,
        words in 0..=10_usize, fill: u8, payload in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let builder = SegmentBuilder::new(&endpoint(v6, tagged.then_some(123)));
        let target = if v6 { target } else { target & 0xffff_ffff };
        let options: Vec<u8> = (0..words * 4).map(|at| fill.wrapping_mul(31).wrapping_add(at as u8)).collect();
        let header = SegmentHeader {
            next_hop: HOP, target, port: ports.0, source_port: ports.1, seq: numbers.0, ack: numbers.1, flags, window,
            options: &options,
        };
        let mut slot = [0xaa; 2048];
        let length = builder.build(&mut slot, &header, payload.len(), |into| into.copy_from_slice(&payload));
        prop_assert_eq!(length, builder.frame_len(options.len(), payload.len()));
        prop_assert_eq!(slot[length], 0xaa);
        let ethernet = Ethernet::parse(&slot[..length]).unwrap();
        prop_assert_eq!((ethernet.source, ethernet.destination), (OURS, HOP));
        prop_assert_eq!(ethernet.vlan, tagged.then_some(123));
        let packet = Packet::parse(&ethernet).unwrap();
        prop_assert_eq!((packet.v6, packet.destination, packet.ttl), (v6, target, 77));
        prop_assert!(packet.header_intact() && packet.payload_intact());
        let tcp = Tcp::parse(packet.payload).unwrap();
        prop_assert_eq!((tcp.source_port, tcp.destination_port), (ports.1, ports.0));
        prop_assert_eq!((tcp.seq, tcp.ack, tcp.flags, tcp.window), (numbers.0, numbers.1, flags, window));
        prop_assert_eq!(tcp.options, &options[..]);
        prop_assert_eq!(tcp.payload, &payload[..]);
        let mut again = slot[..length].to_vec();
        checksum::fill(&mut again);
        prop_assert_eq!(&again[..], &slot[..length]);
    }
}

#[test]
#[should_panic(expected = "options fill their part of the header")]
fn options_that_are_not_padded_are_refused() {
    let header = SegmentHeader {
        next_hop: HOP,
        target: 1,
        port: 80,
        source_port: 61000,
        seq: 0,
        ack: 0,
        flags: 0,
        window: 0,
        options: &[1, 1, 1],
    };
    SegmentBuilder::new(&endpoint(false, None)).build(&mut [0; 128], &header, 0, |_| {});
}
