//! What a sample keeps, and that the file says it truly.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use proptest::prelude::*;

use super::super::{Captured, Reader};
use super::*;
use crate::filter::{Accept, AddressKind, FilterConfig, OwnAddress, OwnerConfig, TwinFilter, Verdict};
use crate::record::{flags, options};
use irl_wire::probe::{PortRange, Protocol};
use irl_wire::{Endpoint, FrameBuilder, Key, Probe};

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const GATEWAY: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn interface(ip_layer: bool) -> SampledInterface {
    SampledInterface { name: "va".into(), ours: OURS, gateway: Some(GATEWAY), vlan: None, ip_layer }
}

fn sample(name: &str, size: usize, ip_layer: bool) -> Sample {
    let path = std::env::temp_dir().join(format!("irl-sample-{}-{name}.pcapng", std::process::id()));
    let interfaces = vec![interface(ip_layer)];
    let sources = vec!["198.18.0.10".parse().unwrap(), "fd00::10".parse().unwrap()];
    Sample::new(SampleConfig { path, size, seed: 7, interfaces, sources, utc_minus_mono: 1_000_000_000_000 }).unwrap()
}

/// What is in the file, which goes.
fn read_back(sample: &Sample) -> Vec<(u64, Vec<u8>, u32)> {
    sample.write("irlstack 0", "a test").unwrap();
    let path = &sample.config().path;
    let mut reader = Reader::new(File::open(path).unwrap(), "it").unwrap();
    assert_eq!(reader.clock(), Some(1_000_000_000_000));
    assert_eq!(reader.sources(), sample.config().sources);
    let mut all = Vec::new();
    while let Some(Captured { time_ns, frame, missing }) = reader.read().unwrap() {
        all.push((time_ns.unwrap(), frame.to_vec(), missing));
    }
    std::fs::remove_file(path).unwrap();
    all
}

fn builder(probe: &str) -> FrameBuilder {
    let probe = Probe::resolve(probe, &BTreeMap::new()).unwrap();
    let ports = PortRange { first: 61_000, last: 65_535 };
    let from = Endpoint { mac: OURS, address: "198.18.0.10".parse().unwrap(), ports, ttl: 255, vlan: None };
    FrameBuilder::new(&probe, &from, &Key::new([3; 16])).unwrap()
}

fn syn(target: u32) -> Vec<u8> {
    let builder = builder("tcp_synscan");
    let mut frame = vec![0; builder.frame_len()];
    let length = builder.build(&mut frame, GATEWAY, u128::from(target), 80, 0, 5);
    frame.truncate(length);
    frame
}

/// What a SYN-ACK's record is, as the filter writes it.
fn answer(target: u32, time_ns: u64) -> Vec<u8> {
    let syn = syn(target);
    let mut body = [0; 40];
    body[..4].copy_from_slice(&syn[30..34]);
    body[4..8].copy_from_slice(&syn[26..30]);
    body[8..10].copy_from_slice(&syn[36..38]);
    body[10..12].copy_from_slice(&syn[34..36]);
    (body[22], body[23], body[28]) = (0x12, 64, 255);
    let mut out = Vec::new();
    Record { kind: Kind::Tcp4, flags: 0, owner: 0, time_ns, body: &body }.write(&mut out);
    out
}

fn target(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
}

#[test]
fn it_holds_all_frames_of_one_in_so_many_targets_and_the_answers_to_them() {
    let sample = sample("share", 200, false);
    let targets = 0x0a00_0000_u32..0x0a00_0000 + 20_000;
    for target in targets.clone() {
        // Each is probed twice, and one in ten answers.
        for _ in 0..2 {
            sample.sent(&syn(target), 0);
        }
        if target % 10 == 0 {
            sample.received(&Record::parse(&answer(target, 1 + u64::from(target))).unwrap(), 0);
        }
    }
    let all = read_back(&sample);
    let end = sample.end().unwrap();
    let sent: Vec<u32> =
        all.iter().filter(|(_, frame, _)| frame[6..12] == OURS.0).map(|(_, f, _)| target(f, 30)).collect();
    let answered: BTreeSet<u32> =
        all.iter().filter(|(_, frame, _)| frame[..6] == OURS.0).map(|(_, frame, _)| target(frame, 26)).collect();
    assert_eq!((sent.len(), answered.len()), (end.sent.frames as usize, end.received.frames as usize));
    assert!(sent.len() <= 200 && answered.len() <= 200 && answered.len() > 50, "{end:?}");
    assert!(end.sent.one_in >= 200 && end.received.one_in >= 10 && end.sent.one_in > end.received.one_in, "{end:?}");
    // About as many as the share says: twice 20,000 / one_in.
    let expected = 40_000.0 / end.sent.one_in as f64;
    assert!((sent.len() as f64 - expected).abs() < 6.0 * (2.0 * expected).sqrt(), "{} {expected}", sent.len());
    let distinct: BTreeSet<u32> = sent.iter().copied().collect();
    assert_eq!(distinct.len() * 2, sent.len(), "both probes of each");
    assert!(distinct.iter().filter(|target| **target % 10 == 0).all(|target| answered.contains(target)));
    // They come from all over the run.
    for quarter in 0..4 {
        let range = 0x0a00_0000 + quarter * 5000..0x0a00_0000 + (quarter + 1) * 5000;
        assert!(distinct.iter().any(|target| range.contains(target)), "none of quarter {quarter}");
    }
}

#[test]
fn one_that_repeats_itself_for_ever_takes_no_others_place() {
    let sample = sample("flood", 100, false);
    for _ in 0..10_000 {
        sample.received(&Record::parse(&answer(1, 9)).unwrap(), 0);
    }
    for target in 2..50 {
        sample.received(&Record::parse(&answer(target, 9)).unwrap(), 0);
    }
    let all = read_back(&sample);
    let end = sample.end().unwrap().received;
    assert_eq!(all.len(), 16 + 48);
    assert_eq!((end.one_in, end.left_out), (1, 10_000 - 16));
}

#[test]
fn without_ethernet_packets_begin_with_the_ip_header_and_are_written_so() {
    let sample = sample("bare", 10, true);
    let frame = syn(5);
    sample.sent(&frame, 0);
    sample.write("irlstack 0", "a test").unwrap();
    let bytes = std::fs::read(&sample.config().path).unwrap();
    std::fs::remove_file(&sample.config().path).unwrap();
    let packet = &frame[14..];
    assert!(bytes.windows(packet.len()).any(|window| window == packet));
    assert!(!bytes.windows(frame.len()).any(|window| window == frame));
    // The interface's block follows the section's header; its link type stands behind its type and length.
    let block = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    assert_eq!(bytes[block + 8..block + 10], 101u16.to_le_bytes());
}

/// A record comes out of the filter again as it went into the file: nothing that it has is lost or changed on the way.
fn goes_round(kind: Kind, protocol: Protocol, body: &[u8], ours: &str) {
    let record = Record { kind, flags: 0, owner: 0, time_ns: 77, body };
    let (mut frame, length) = rebuilt::frame(&record, &interface(false)).unwrap();
    assert!(frame.len() <= length as usize);
    frame.resize(length as usize, 0);
    let address = OwnAddress { address: ours.parse().unwrap(), kind: AddressKind::Spare };
    let mut twin = TwinFilter::new(&FilterConfig { addresses: vec![address] }).unwrap();
    let ports = PortRange { first: 1, last: 65_535 };
    // Echo identifiers are owned by whoever checks their cookie.
    let accept = if protocol == Protocol::Icmp { Accept::Cookie } else { Accept::Any };
    let owner = OwnerConfig { accept, ..OwnerConfig::new(0, protocol, ports, Key::new([3; 16])) };
    twin.add_owner(&owner).unwrap();
    let mut out = Vec::new();
    assert_eq!(twin.judge(&frame, 77, &mut out), Verdict::Record { owner: 0 }, "{kind:?} {frame:02x?}");
    let again = Record::parse(&out).unwrap();
    assert_eq!((again.kind, again.time_ns), (kind, 77));
    assert_eq!(again.flags & flags::BAD_CHECKSUM, 0, "{kind:?} {frame:02x?}");
    assert_eq!(again.body, body, "{kind:?} {frame:02x?}");
}

/// The identifier and sequence number of an echo to a target, one after the other.
fn echo_numbers(ours: [u8; 16], target: [u8; 16], v6: bool) -> [u8; 4] {
    let (ours, target) = (u128::from_be_bytes(ours), u128::from_be_bytes(target));
    let key = Key::new([3; 16]);
    let cookie = if v6 { key.v6(ours, target, 0) } else { key.v4(ours as u32, target as u32, 0) };
    let ([a, b], [c, d]) = (cookie.echo_id().to_be_bytes(), cookie.echo_seq().to_be_bytes());
    [a, b, c, d]
}

fn mapped(address: [u8; 4]) -> [u8; 16] {
    let mut out = [0; 16];
    out[10..12].fill(0xff);
    out[12..].copy_from_slice(&address);
    out
}

proptest! {
    #[test]
    fn a_tcp_record_goes_round(mut part in prop::array::uniform32(any::<u8>()), v6 in any::<bool>(), bits in 0u8..4, payload in 0u16..400) {
        part[14] |= 0x10; // An ACK, since nobody else is answered.
        part[21] = bits;
        part[22..24].copy_from_slice(&payload.to_be_bytes());
        if bits & options::TIMESTAMPS == 0 {
            part[24..32].fill(0);
        }
        (part[2], part[3]) = (0xf0, 1);
        if v6 {
            part[16..18].fill(0);
            let body = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &"fd00::10".parse::<std::net::Ipv6Addr>().unwrap().octets(), &part].concat();
            goes_round(Kind::Tcp6, Protocol::Tcp, &body, "fd00::10");
        } else {
            let body = [&[10, 1, 2, 3][..], &[198, 18, 0, 10], &part].concat();
            goes_round(Kind::Tcp4, Protocol::Tcp, &body, "198.18.0.10");
        }
    }

    #[test]
    fn a_udp_record_goes_round(ports in prop::array::uniform4(1u8..), ttl in any::<u8>(), id in any::<[u8; 2]>(), payload in 0u16..400) {
        let length = (payload + 8).to_be_bytes();
        let mut body = [&mapped([10, 1, 2, 3])[..], &mapped([198, 18, 0, 10]), &ports, &length, &[ttl, 0], &id, &[0, 0]].concat();
        body.extend_from_slice(&payload.to_be_bytes());
        body.extend_from_slice(&[0, 0]);
        goes_round(Kind::Udp, Protocol::Udp, &body, "198.18.0.10");
    }

    #[test]
    fn an_echo_record_goes_round(mut payload in any::<[u8; 16]>(), length in 0u16..400, v6 in any::<bool>()) {
        payload[usize::from(length.min(16))..].fill(0);
        let (source, ours, kind) = if v6 {
            ("2001:db8::9".parse::<std::net::Ipv6Addr>().unwrap().octets(), "fd00::10".parse::<std::net::Ipv6Addr>().unwrap().octets(), 129)
        } else {
            (mapped([10, 1, 2, 3]), mapped([198, 18, 0, 10]), 0)
        };
        let mut body = [&source[..], &ours, &[kind, 0, 60, 0, 0, 0], &echo_numbers(ours, source, v6)].concat();
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&[0; 20]);
        body.extend_from_slice(&payload);
        goes_round(Kind::Icmp, Protocol::Icmp, &body, if v6 { "fd00::10" } else { "198.18.0.10" });
    }

    #[test]
    fn an_error_record_goes_round(word in any::<[u8; 4]>(), which in 0usize..3, v6 in any::<bool>(), more in 0u16..100) {
        let protocol = if v6 { [6, 17, 58] } else { [6, 17, 1] }[which];
        let (source, ours, target, kind, least) = if v6 {
            let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
            (octets("2001:db8::9"), octets("fd00::10"), octets("2001:db8::7"), 1, 48)
        } else {
            (mapped([10, 9, 9, 9]), mapped([198, 18, 0, 10]), mapped([10, 1, 2, 3]), 3, 28)
        };
        let mut body = [&source[..], &ours, &[kind, 1, 60, protocol, 0, 0]].concat();
        body.extend_from_slice(&if which == 2 { echo_numbers(ours, target, v6) } else { [0xf0, 1, 0, 80] });
        body.extend_from_slice(&(least + more).to_be_bytes());
        body.extend_from_slice(&word);
        body.extend_from_slice(&target);
        body.extend_from_slice(&[0; 16]);
        let of = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp][which];
        goes_round(Kind::Icmp, of, &body, if v6 { "fd00::10" } else { "198.18.0.10" });
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let body = [&[10, 1, 2, 3, 198, 18, 0, 10][..], &[0; 32]].concat();
    let record = Record { kind: Kind::Tcp4, flags: flags::BAD_CHECKSUM, owner: 0, time_ns: 1, body: &body };
    let (frame, _) = rebuilt::frame(&record, &interface(false)).unwrap();
    let packet = irl_wire::packet::Packet::parse_v4(&frame[14..]).unwrap();
    assert!(packet.header_intact() && !packet.payload_intact());
    assert!(rebuilt::comment(&record).contains("checksum"));
}
