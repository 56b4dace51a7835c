//! No frame makes the filter's twin, the resolver or the responder panic, and what the filter hands over can be read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use irl_lab::{Responder, World, WorldConfig, sim};
use irl_link::filter::{AddressKind, FilterConfig, Frames, OwnAddress, OwnerConfig, Reason, TwinFilter, Verdict};
use irl_link::record::Record;
#[cfg(target_os = "linux")]
use irl_link::{Heard, record::flags};
use irl_wire::probe::Protocol;
use irl_wire::{Endpoint, FrameBuilder, Key, PortRange, Probe};
#[cfg(target_os = "linux")]
use irl_wire::{
    Mac, checksum,
    packet::{Arp, Envelope, Ethernet, Packet, ethertype, protocol},
};

const SOURCES: [&str; 2] = ["198.18.0.10", "fd00:18::10"];

/// The ports of one of three owners.
fn third(number: u16) -> PortRange {
    PortRange { first: 61_000 + number * 1_500, last: 62_499 + number * 1_500 }
}

/// Answers of a World to our own probes: frames that the filter diverts.
fn answers() -> Vec<Vec<u8>> {
    let mut responder = Responder::new(World::new(WorldConfig { seed: 1, everything_open: false }), sim::GATEWAY_MAC);
    let mut out = Vec::new();
    for source in SOURCES {
        let address: IpAddr = source.parse().unwrap();
        for (number, name) in ["tcp_synscan", "udp", "icmp_echoscan"].into_iter().enumerate() {
            let from = Endpoint { mac: sim::OUR_MAC, address, ports: third(number as u16), ttl: 64, vlan: None };
            let probe = Probe::resolve(name, &BTreeMap::new()).unwrap();
            let builder = FrameBuilder::new(&probe, &from, &Key::new([5; 16])).unwrap();
            let base = if address.is_ipv6() { 0xfd00_u128 << 112 } else { 0x0a00_0000 };
            let mut slot = [0; 256];
            for low in 0..20_000 {
                let length = builder.build(&mut slot, sim::GATEWAY_MAC, base + low * 131, 80, 0, 1_000_000);
                out.push(slot[..length].to_vec());
                responder.respond(&slot[..length], &mut |answer| out.push(answer.to_vec()));
            }
        }
    }
    out
}

fn open_world() -> Responder {
    Responder::new(World::new(WorldConfig { seed: 1, everything_open: true }), sim::GATEWAY_MAC)
}

/// Endless numbers, the same in every run.
fn draws() -> impl FnMut() -> u64 {
    let mut state = 0x9abc_def1_1234_5678_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// One of the templates with up to three of its bytes changed, and sometimes shorter or longer.
fn mutate(templates: &[Vec<u8>], draw: &mut impl FnMut() -> u64, frame: &mut Vec<u8>) {
    frame.clear();
    frame.extend_from_slice(&templates[(draw() % templates.len() as u64) as usize]);
    for _ in 0..draw() % 4 {
        let at = (draw() % frame.len() as u64) as usize;
        frame[at] = draw() as u8;
    }
    match draw() % 16 {
        0 => frame.truncate((draw() % 100) as usize),
        1 => frame.resize(frame.len() + (draw() % 40) as usize, draw() as u8),
        _ => {}
    }
}

#[test]
fn ten_million_mutated_frames_through_the_filter_and_two_through_the_responder() {
    let addresses = SOURCES.map(|source| OwnAddress { address: source.parse().unwrap(), kind: AddressKind::Spare });
    let mut filter = TwinFilter::new(&FilterConfig { addresses: addresses.to_vec() }).unwrap();
    for (number, protocol) in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp].into_iter().enumerate() {
        let number = number as u16;
        let frames = [Frames::Never, Frames::Payload, Frames::Always][usize::from(number)];
        let owner = OwnerConfig::new(number, protocol, third(number), Key::new([5; 16]));
        filter.add_owner(&OwnerConfig { frames, max_data: u32::from(number) * 1000, ..owner }).unwrap();
    }
    let mut responder = open_world();
    let templates = answers();
    let mut draw = draws();
    let (mut frame, mut record) = (Vec::new(), Vec::new());
    let mut records = 0_u64;
    for number in 0..10_000_000 {
        mutate(&templates, &mut draw, &mut frame);
        record.clear();
        if let Verdict::Record { .. } | Verdict::Copied { .. } = filter.judge(&frame, number, &mut record) {
            records += 1;
            assert!(Record::parse(&record).is_some(), "an unreadable record of {frame:02x?}");
        }
        if number % 5 == 0 {
            responder.respond(&frame, &mut |answer| assert!(answer.len() <= 2048));
        }
    }
    assert!(records > 100_000, "{records} records: the filter hardly saw an answer");
    let delivered: u64 =
        [Reason::Delivered, Reason::Neighbour, Reason::Fragment].map(|r| filter.counters().get(r)).iter().sum();
    assert_eq!(delivered, records);
}

/// ARP and neighbour discovery of every kind that concerns us, with and without a VLAN tag.
#[cfg(target_os = "linux")]
fn neighbour_frames() -> Vec<Vec<u8>> {
    let (ours4, theirs4, nobody) = (0xc612_000a_u32, 0x0a00_0001_u32, Mac([0; 6]));
    let (ours6, theirs6) = (0xfd00_0018_u128 << 96 | 0x10, 0xfd00_u128 << 112 | 1);
    let mut out = Vec::new();
    for vlan in [None, Some(7)] {
        let (to, from) = (sim::OUR_MAC, sim::GATEWAY_MAC);
        for (operation, sender, target) in
            [(1, theirs4, ours4), (1, 0, ours4), (1, ours4, ours4), (2, theirs4, ours4), (1, ours4, theirs4)]
        {
            let mut frame = [to.0, from.0].concat();
            if let Some(vlan) = vlan {
                frame.extend(ethertype::VLAN.to_be_bytes());
                frame.extend(u16::to_be_bytes(vlan));
            }
            frame.extend(ethertype::ARP.to_be_bytes());
            frame.extend(Arp { operation, sender_mac: from, sender, target_mac: nobody, target }.bytes());
            out.push(frame);
        }
        for (kind, source, destination, target, option) in [
            (135, theirs6, ours6, ours6, Some(1)),
            (135, theirs6, ours6, ours6, None),
            (135, 0, ours6, ours6, None),
            (136, theirs6, ours6, theirs6, Some(2)),
            (136, theirs6, ours6, theirs6, None),
            (136, ours6, ours6, ours6, Some(2)),
            (135, ours6, theirs6, theirs6, Some(1)),
        ] {
            let (destination_mac, source_mac) = (to, from);
            let envelope =
                Envelope { source_mac, destination_mac, vlan, v6: true, source, destination, ttl: 255, id: 0 };
            let mut frame = vec![0; envelope.len()];
            frame.extend([kind, 0, 0, 0, 0x60, 0, 0, 0]);
            frame.extend(u128::to_be_bytes(target));
            // Behind an option of another kind, so that the search for ours has something to step over.
            for kind in option.map_or_else(Vec::new, |kind| vec![14, kind]) {
                frame.extend([kind, 1]);
                frame.extend(from.0);
            }
            envelope.seal(&mut frame, protocol::ICMPV6, 2);
            out.push(frame);
        }
    }
    out
}

/// Makes a changed message's checksum right again: otherwise nothing behind the check would see it.
#[cfg(target_os = "linux")]
fn reseal(frame: &mut [u8]) {
    let Some(packet) = Ethernet::parse(frame).and_then(|ethernet| Packet::parse(&ethernet)) else { return };
    if packet.protocol != protocol::ICMPV6 || packet.payload.len() < 4 {
        return;
    }
    let at = packet.payload.as_ptr().addr() - frame.as_ptr().addr();
    let (length, pseudo) = (packet.payload.len(), packet.pseudo_sum());
    frame[at + 2..at + 4].fill(0);
    let sum = checksum::finish(checksum::add(pseudo, &frame[at..at + length]));
    frame[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
}

#[test]
#[cfg(target_os = "linux")]
fn three_million_mutated_neighbour_frames_through_the_filter_the_resolver_and_the_responder() {
    let addresses = SOURCES.map(|source| OwnAddress { address: source.parse().unwrap(), kind: AddressKind::Spare });
    let mut filter = TwinFilter::new(&FilterConfig { addresses: addresses.to_vec() }).unwrap();
    filter.add_owner(&OwnerConfig::new(0, Protocol::Tcp, third(0), Key::new([5; 16]))).unwrap();
    let mut responder = open_world();
    let templates = neighbour_frames();
    let mut draw = draws();
    let (mut frame, mut record) = (Vec::new(), Vec::new());
    let (mut handed, mut questions, mut answers) = (0_u64, 0_u64, 0_u64);
    for number in 0..3_000_000 {
        mutate(&templates, &mut draw, &mut frame);
        if draw().is_multiple_of(2) {
            reseal(&mut frame);
        }
        record.clear();
        if let Verdict::Record { .. } | Verdict::Copied { .. } = filter.judge(&frame, number, &mut record) {
            let record = Record::parse(&record).unwrap_or_else(|| panic!("an unreadable record of {frame:02x?}"));
            if record.flags & flags::NEIGHBOUR != 0 {
                handed += 1;
                assert_eq!(record.body, frame, "neighbour frames are handed over whole");
            }
        }
        // Whether the filter would hand it over or not: with the tap of `packet` it arrives as it came.
        match Heard::parse(&frame) {
            Some(Heard::Question { mac, .. }) => {
                questions += 1;
                assert!(!mac.is_multicast(), "{frame:02x?}");
            }
            Some(Heard::Answer { address, mac }) => {
                answers += 1;
                assert!(!mac.is_multicast(), "{frame:02x?}");
                assert!(!(address.is_ipv6() && address.is_multicast()), "{frame:02x?}");
            }
            None => {}
        }
        responder.respond(&frame, &mut |answer| assert!(answer.len() <= 2048));
    }
    assert!(handed > 500_000 && questions > 500_000 && answers > 500_000, "{handed} {questions} {answers}");
}
