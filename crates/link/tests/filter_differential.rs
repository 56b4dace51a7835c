//! The program in the kernel and its twin in Rust agree on every frame: verdict, record bytes, counters.

mod support;

use std::net::{SocketAddr, TcpListener, UdpSocket};

use irl_link::Receiver;
use irl_link::filter::{
    Accept, AddressKind, FilterConfig, Frames, HostSocket, HostSockets, KernelFilter, OwnAddress, OwnerConfig,
    TwinFilter, Verdict,
};
use irl_link::record::Record;
use irl_wire::cookie::Key;
use irl_wire::probe::{AnswerClass, Base, Expect, MatchRule, PortRange, Protocol};
use support::{
    Random, checksum_at, cookie, frame, icmp, in_own_namespace, ip, ip_frame, ip_packet, octets, root, tcp, udp,
};

/// Frames of each of the two runs.
const FRAMES: usize = 300_000;
const LISTENER: u16 = 61_050;
const DATAGRAMS: u16 = 63_010;
const OURS: [&str; 9] = [
    "198.18.0.10",
    "198.18.0.200",
    "198.18.0.1",
    "198.18.0.50",
    "fd00::10",
    "fd00::1:20",
    "fd00::1",
    "fd00::15",
    "198.18.0.10",
];

/// What the namespace of the test really has.
struct OpenSockets;

impl HostSockets for OpenSockets {
    fn find(&self, protocol: Protocol, local: SocketAddr, _: SocketAddr) -> Option<HostSocket> {
        let on_host = local.ip() == "198.18.0.1".parse::<std::net::IpAddr>().expect("well formed")
            || local.ip() == "fd00::1".parse::<std::net::IpAddr>().expect("well formed");
        match protocol {
            Protocol::Tcp if on_host && local.port() == LISTENER => Some(HostSocket::Listening),
            Protocol::Udp if on_host && local.port() == DATAGRAMS => Some(HostSocket::Other),
            _ => None,
        }
    }
}

fn key(owner: u16) -> Key {
    // Owners 0 and 1 share a measurement.
    Key::new([owner.max(1) as u8 * 17; 16])
}

fn rule(base: Base, offset: u16, width: u8, mask: u32, expect: Expect) -> MatchRule {
    MatchRule { base, offset, width, mask, expect }
}

fn class(name: &str, protocol: Protocol, rules: Vec<MatchRule>) -> AnswerClass {
    AnswerClass { name: name.to_owned(), success: true, protocol, rules }
}

fn owners(any: bool) -> Vec<OwnerConfig> {
    let make = |owner, protocol, first, last| OwnerConfig {
        ring_bytes: 1 << 16,
        ..OwnerConfig::new(owner, protocol, PortRange { first, last }, key(owner))
    };
    let all = u32::MAX;
    let classes = vec![
        class(
            "synack",
            Protocol::Tcp,
            vec![
                rule(Base::Transport, 13, 1, 0x12, Expect::Value(0x12)),
                rule(Base::Transport, 8, 4, all, Expect::Cookie { shift: 0, add: 1 }),
            ],
        ),
        class("reset", Protocol::Tcp, vec![rule(Base::Transport, 12, 2, 0x0004, Expect::Value(4))]),
        class("payload", Protocol::Tcp, vec![rule(Base::Payload, 2, 2, 0xffff, Expect::Value(0x41_42))]),
        class("quoted", Protocol::Icmp, vec![rule(Base::Quoted, 4, 2, all, Expect::Cookie { shift: 16, add: 0 })]),
        class("rest", Protocol::Udp, vec![]),
    ];
    let mut all = vec![
        OwnerConfig { modulus: 2, residue: 0, ..make(0, Protocol::Tcp, 61_000, 61_099) },
        OwnerConfig { modulus: 2, residue: 1, ..make(1, Protocol::Tcp, 61_000, 61_099) },
        OwnerConfig { max_data: 1000, frames: Frames::Payload, ..make(2, Protocol::Tcp, 62_000, 62_015) },
        OwnerConfig { probes: 2, ..make(3, Protocol::Udp, 63_000, 63_063) },
        make(4, Protocol::Icmp, 0, 0),
        OwnerConfig { probes: 8, classes: classes.clone(), ..make(5, Protocol::Tcp, 64_000, 64_015) },
        OwnerConfig { probes: 5, classes, ..make(6, Protocol::Udp, 64_100, 64_109) },
        OwnerConfig { frames: Frames::Always, ..make(7, Protocol::Tcp, 64_200, 64_200) },
    ];
    if any {
        all.push(OwnerConfig { accept: Accept::Any, ..make(8, Protocol::Tcp, 65_000, 65_010) });
    }
    all
}

/// A port of the owner, often the one the cookie asks for.
fn port(random: &mut Random, owner: &OwnerConfig, ours: &[u8], target: &[u8], target_port: u16) -> u16 {
    if random.one_in(15) {
        return if owner.protocol == Protocol::Udp { DATAGRAMS } else { LISTENER };
    }
    let len = u32::from(owner.ports.last - owner.ports.first) + 1;
    let part = u32::from(cookie(&owner.key, ours, target, target_port).port_part());
    let number = if random.one_in(3) { random.below(len as usize) as u32 } else { random.below(3) as u32 };
    owner.ports.first + ((part + number) % len) as u16
}

fn tcp_options(random: &mut Random) -> Vec<u8> {
    match random.below(7) {
        5 => vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
        0 => vec![2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7],
        1 => vec![1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        2 => vec![2, 4, 1, 2, 3, 3, 14, 0, 9, 9],
        3 => {
            let len = random.below(10) * 4;
            random.bytes(len)
        }
        4 => vec![8, 0, 2, 1],
        _ => vec![],
    }
}

/// What a probe of this owner would look like inside an ICMP error.
fn quoted(random: &mut Random, owner: &OwnerConfig, ours: &[u8], target: &[u8], target_port: u16) -> Vec<u8> {
    let mine = cookie(&owner.key, ours, target, target_port);
    let port = port(random, owner, ours, target, target_port);
    let (protocol, transport) = match owner.protocol {
        Protocol::Tcp => {
            let seq = mine.seq().wrapping_add(random.pick(&[0, 0, 1, 900, 5000]));
            (6, tcp(port, target_port, seq, 0, 2, &[], &[]))
        }
        Protocol::Udp => (17, udp(port, target_port, b"probe")),
        Protocol::Icmp => {
            let echo = cookie(&owner.key, ours, target, 0);
            let id = echo.echo_id().to_be_bytes();
            let seq = echo.echo_seq().to_be_bytes();
            (1, icmp(if ours.len() == 4 { 8 } else { 128 }, 0, &[id[0], id[1], seq[0], seq[1], 1, 2, 3, 4]))
        }
    };
    let options = if ours.len() == 4 && random.one_in(4) { vec![1; 8] } else { vec![] };
    let mut packet = ip_packet(ours, target, protocol, &options, transport, checksum_at(protocol));
    let header = if ours.len() == 4 { 20 + options.len() } else { 40 };
    if random.one_in(2) {
        packet.truncate(header + 8);
    }
    packet
}

fn transport(random: &mut Random, owner: &OwnerConfig, ours: &[u8], target: &[u8]) -> (u8, Vec<u8>) {
    let target_port = random.pick(&[80u16, 443, 53]);
    let len = random.pick(&[0usize, 0, 0, 1, 5, 33, 200, 700]);
    let payload = if random.one_in(3) { b"xxABCabc".to_vec() } else { random.bytes(len) };
    let mine = cookie(&owner.key, ours, target, target_port);
    let our_port = port(random, owner, ours, target, target_port);
    let protocol = if random.one_in(12) { random.pick(&owners(true)).protocol } else { owner.protocol };
    if random.one_in(4) {
        let mut rest = random.bytes(4);
        rest.extend(quoted(random, owner, ours, target, target_port));
        let kinds: &[u8] = if ours.len() == 4 { &[3, 11, 4, 5, 12, 8] } else { &[1, 2, 3, 4, 128, 133] };
        return (1, icmp(random.pick(kinds), random.below(16) as u8, &rest));
    }
    match protocol {
        Protocol::Tcp => {
            let ack = mine.seq().wrapping_add(random.pick(&[1, 1, 1, 0, 2, 700, 1001, 1002, 77_777]));
            let flags = random.pick(&[0x12u8, 0x12, 0x14, 0x04, 0x02, 0x10, 0x18, 0x11]);
            let payload = if random.one_in(2) { vec![] } else { payload };
            let options = tcp_options(random);
            (6, tcp(target_port, our_port, random.next() as u32, ack, flags, &options, &payload))
        }
        Protocol::Udp => (17, udp(target_port, our_port, &payload)),
        Protocol::Icmp => {
            let echo = cookie(&owner.key, ours, target, 0);
            let (id, seq) = (echo.echo_id().to_be_bytes(), echo.echo_seq().to_be_bytes());
            let rest = [&[id[0], id[1], seq[0], seq[1]][..], &payload].concat();
            (1, icmp(if ours.len() == 4 { 0 } else { 129 }, 0, &rest))
        }
    }
}

fn arp(random: &mut Random) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1 + random.below(2) as u8, 2, 0, 0, 0, 0, 9];
    let addresses = ["198.18.0.10", "198.18.0.200", "198.18.0.1", "198.18.0.50", "198.18.0.99", "10.0.0.1", "0.0.0.0"];
    body.extend(octets(random.pick(&addresses)));
    body.extend([0; 6]);
    body.extend(octets(random.pick(&addresses)));
    body
}

fn discovery(random: &mut Random) -> Vec<u8> {
    let targets = ["fd00::10", "fd00::1:20", "fd00::1", "fd00::15", "fd00::99", "fe80::1"];
    let places = ["fd00::10", "fd00::1", "fd00::15", "ff02::1", "ff02::1:ff00:10", "fe80::9"];
    let kind = random.pick(&[135u8, 136, 136, 133, 134]);
    let rest = [&[0x60, 0, 0, 0][..], &octets(random.pick(&targets)), &[1, 1, 2, 0, 0, 0, 0, 9]].concat();
    ip_packet(&octets("fd00::99"), &octets(random.pick(&places)), 1, &[], icmp(kind, 0, &rest), Some(2))
}

fn generate(random: &mut Random, owners: &[OwnerConfig]) -> Vec<u8> {
    let vlan = random.one_in(6);
    if random.one_in(20) {
        return frame(vlan, 0x0806, &arp(random));
    }
    if random.one_in(20) {
        return ip_frame(vlan, &discovery(random));
    }
    let ours = octets(random.pick(&OURS));
    let v6 = ours.len() == 16;
    let target =
        octets(if v6 { random.pick(&["fd00::99", "fd01::2"]) } else { random.pick(&["10.0.0.7", "10.9.8.7"]) });
    let owner = random.pick(owners);
    let (mut protocol, mut body) = transport(random, &owner, &ours, &target);
    if random.one_in(30) {
        protocol = random.next() as u8;
    }
    let at = checksum_at(protocol).filter(|_| !random.one_in(12));
    if v6 && random.one_in(6) {
        // A chain of extension headers; the first byte names the first one.
        let next = if protocol == 1 { 58 } else { protocol };
        let chain = match random.below(4) {
            0 => vec![0, next, 0, 5, 2, 0, 0, 0, 0],
            1 => vec![60, 0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, next, 0, 1, 4, 0, 0, 0, 0],
            2 => [&[44, next, 0][..], &[random.below(2) as u8 * 8, random.below(2) as u8], &[0, 0, 0, 1]].concat(),
            _ => vec![43, next, 0, 0, 0, 0, 0, 0, 0],
        };
        return ip_frame(vlan, &ip_packet(&target, &ours, protocol, &chain, body, at));
    }
    let options = if !v6 && random.one_in(6) { vec![1; 4 * (1 + random.below(9))] } else { vec![] };
    if random.one_in(300) {
        body.extend(random.bytes(3000));
    }
    let mut packet = ip_packet(&target, &ours, protocol, &options, body, at);
    if !v6 && random.one_in(20) {
        let flags = random.pick(&[0x2000u16, 0x2000, 0x0010, 0x2010]);
        packet[6..8].copy_from_slice(&flags.to_be_bytes());
    }
    ip_frame(vlan, &packet)
}

fn mutate(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        match random.below(5) {
            0 | 1 => {
                let at = random.below(frame.len());
                frame[at] ^= 1 << random.below(8);
            }
            2 => {
                let at = random.below(frame.len());
                frame[at] = random.next() as u8;
            }
            3 => {
                let len = random.below(frame.len() + 1).max(14);
                frame.truncate(len.min(frame.len()));
            }
            _ => {
                let len = random.below(40);
                let tail = random.bytes(len);
                frame.extend(tail);
            }
        }
    }
}

fn written(record: Record<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    Record { time_ns: 0, ..record }.write(&mut out);
    out
}

fn agree(any: bool, seed: u64) {
    ip("link set lo up");
    ip("addr add 198.18.0.1/32 dev lo");
    ip("addr add fd00::1/128 dev lo nodad");
    let _listeners = [
        TcpListener::bind(("198.18.0.1", LISTENER)).expect("the port is free in a new namespace"),
        TcpListener::bind(("fd00::1", LISTENER)).expect("the port is free in a new namespace"),
    ];
    let _datagrams = [
        UdpSocket::bind(("198.18.0.1", DATAGRAMS)).expect("the port is free in a new namespace"),
        UdpSocket::bind(("fd00::1", DATAGRAMS)).expect("the port is free in a new namespace"),
    ];
    let own = |address: &str, kind| OwnAddress { address: address.parse().expect("well formed"), kind };
    let config = FilterConfig {
        addresses: vec![
            own("198.18.0.10", AddressKind::Spare),
            own("198.18.0.200", AddressKind::Spare),
            own("198.18.0.1", AddressKind::Host),
            own("fd00::10", AddressKind::Spare),
            own("fd00::1:20", AddressKind::Spare),
            own("fd00::1", AddressKind::Host),
        ],
    };
    let owners = owners(any);
    let mut kernel = KernelFilter::load(&config).expect("the filter loads");
    let mut twin = TwinFilter::with_sockets(&config, Box::new(OpenSockets)).expect("no address is given twice");
    let mut receivers = Vec::new();
    for owner in &owners {
        receivers.push(kernel.add_owner(owner.clone()).expect("the owners' ports are apart"));
        twin.add_owner(owner).expect("the owners' ports are apart");
    }
    let mut random = Random::new(seed);
    let (mut records, mut kinds) = (0u64, [0u64; 6]);
    for number in 0..FRAMES {
        let mut frame = generate(&mut random, &owners);
        if !random.one_in(3) {
            mutate(&mut random, &mut frame);
        }
        frame.truncate(3400);
        let mut expected = Vec::new();
        let verdict = twin.judge(&frame, 0, &mut expected);
        let rehearsal = kernel.rehearse(&frame, 1).expect("the frame fits a page");
        let action = match verdict {
            Verdict::Pass | Verdict::Copied { .. } => 2,
            Verdict::Record { .. } | Verdict::Drop(_) => 1,
        };
        let mut found = Vec::new();
        for receiver in &mut receivers {
            let owner = receiver.owner();
            receiver
                .poll(usize::MAX, &mut |record| {
                    assert_eq!(record.owner, owner, "a record lies in its owner's ring");
                    kinds[record.kind as usize] += 1;
                    found.extend(written(record));
                })
                .expect("polling a ring does not fail");
        }
        records += u64::from(!found.is_empty());
        assert_eq!(
            (rehearsal.action, &found),
            (action, &expected),
            "frame {number} of seed {seed}, twin says {verdict:?}: {frame:02x?}"
        );
    }
    let counters = kernel.counters().expect("counters can be read");
    assert_eq!(&counters, twin.counters());
    eprintln!(
        "seed {seed}: {FRAMES} frames, {records} records, by kind {kinds:?}, {:?}",
        counters.iter().collect::<Vec<_>>()
    );
    for (name, count) in counters.iter().filter(|(name, _)| *name != "ring_full") {
        let expected = !any || !matches!(name, "foreign_protocol" | "foreign_icmp" | "malformed" | "no_owner");
        assert!(count > 0 || !expected, "the frames never reached {name}");
    }
    assert!(kinds[1..].iter().all(|kind| *kind > 0), "every kind of record was made: {kinds:?}");
}

#[test]
fn kernel_and_twin_agree_on_every_frame() {
    if root("kernel_and_twin_agree_on_every_frame") {
        in_own_namespace(|| agree(false, 1));
    }
}

#[test]
fn kernel_and_twin_agree_when_an_owner_takes_everything() {
    if root("kernel_and_twin_agree_when_an_owner_takes_everything") {
        in_own_namespace(|| agree(true, 2));
    }
}
