//! No frame makes the filter's twin or the responder panic, and what the filter hands over can be read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use irl_lab::{Responder, World, WorldConfig, sim};
use irl_link::filter::{AddressKind, FilterConfig, Frames, OwnAddress, OwnerConfig, Reason, TwinFilter, Verdict};
use irl_link::record::Record;
use irl_wire::probe::Protocol;
use irl_wire::{Endpoint, FrameBuilder, Key, PortRange, Probe};

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
    let mut responder = Responder::new(World::new(WorldConfig { seed: 1, everything_open: true }), sim::GATEWAY_MAC);
    let templates = answers();
    let mut state = 0x9abc_def1_1234_5678_u64;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut frame, mut record) = (Vec::new(), Vec::new());
    let mut records = 0_u64;
    for number in 0..10_000_000 {
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
