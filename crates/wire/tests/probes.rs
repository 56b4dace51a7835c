//! The probes one by one: what each sends, byte for byte, and which declarations are refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use irl_wire::packet::{Ethernet, Packet, Tcp, Udp, tcp_flags};
use irl_wire::probe::{NAMES, Template};
use irl_wire::{Cookie, Endpoint, FrameBuilder, Key, Mac, PortRange, Probe};
use proptest::prelude::*;

const HOP: Mac = Mac([2, 0, 0, 0, 0, 2]);
const V4: &str = "198.18.0.10";
const V6: &str = "fd00:18::10";

fn probe(name: &str, args: &[(&str, &str)]) -> Result<Probe, String> {
    let args: BTreeMap<_, _> = args.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Probe::resolve(name, &args).map_err(|error| error.to_string())
}

fn builder(probe: &Probe, source: &str) -> FrameBuilder {
    let address: IpAddr = source.parse().unwrap();
    let from = Endpoint { mac: Mac([2, 0, 0, 0, 0, 1]), address, ports: PortRange::DEFAULT, ttl: 64, vlan: None };
    FrameBuilder::new(probe, &from, &Key::new([9; 16])).unwrap()
}

/// A frame whose checksums were found right, and the cookie in it.
fn sent(probe: &Probe, source: &str, target: u128, port: u16, probe_num: u16) -> (Vec<u8>, Cookie) {
    let builder = builder(probe, source);
    let mut slot = [0xaa; 2048];
    let length = builder.build(&mut slot, HOP, target, port, probe_num, 1);
    assert!(length <= builder.frame_len());
    let packet = Packet::parse(&Ethernet::parse(&slot[..length]).unwrap()).unwrap();
    assert!(packet.header_intact() && packet.payload_intact(), "{} over {source}", probe.name());
    let ip = if packet.v6 { 40 } else { 20 };
    assert_eq!(14 + ip + packet.payload.len(), length, "the IP header says how long it is");
    (slot[14 + ip..length].to_vec(), builder.cookie(target, port))
}

fn payload(probe: &Probe, source: &str, target: u128, port: u16, probe_num: u16) -> (Vec<u8>, Cookie) {
    let (datagram, cookie) = sent(probe, source, target, port, probe_num);
    let udp = Udp::parse(&datagram).unwrap();
    assert_eq!((udp.destination_port, udp.payload.len()), (port, datagram.len() - 8));
    assert_eq!(PortRange::DEFAULT.probe_num(cookie, udp.source_port), Some(probe_num));
    (udp.payload.to_vec(), cookie)
}

#[test]
fn a_dns_question_is_that_of_rfc_1035_with_the_cookie_as_its_id() {
    for (question, recursion, tail) in [
        ("A,example.com", 1, &b"\x07example\x03com\0\0\x01\0\x01"[..]),
        ("aaaa:nr,a.b.", 0, b"\x01a\x01b\0\0\x1c\0\x01"),
        ("TXT,", 1, b"\0\0\x10\0\x01"),
        ("65,x", 1, b"\x01x\0\0\x41\0\x01"),
    ] {
        let probe = probe("dns", &[("question", question)]).unwrap();
        for (source, target) in [(V4, 0x0a00_0001), (V6, 0xfd00 << 112 | 1)] {
            let (payload, cookie) = payload(&probe, source, target, 53, 1);
            assert_eq!(payload[..2], (cookie.0 as u16).to_be_bytes());
            assert_eq!(payload[2..12], [recursion, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            assert_eq!(&payload[12..], tail);
        }
    }
}

#[test]
fn an_ntp_request_has_the_cookie_as_its_transmit_timestamp() {
    let (payload, cookie) = payload(&probe("ntp", &[]).unwrap(), V4, 0x0a00_0001, 123, 0);
    assert_eq!((payload.len(), payload[0]), (48, 0xe3));
    assert!(payload[1..40].iter().all(|byte| *byte == 0));
    assert_eq!(payload[40..], cookie.0.to_be_bytes());
}

#[test]
fn a_syn_ack_acknowledges_the_cookie_that_a_reset_repeats() {
    let probe = probe("tcp_synackscan", &[]).unwrap();
    for (source, target, mss) in [(V4, 0x0a00_0001, 1460), (V6, 0xfd00 << 112 | 1, 1440)] {
        let (segment, cookie) = sent(&probe, source, target, 80, 0);
        let tcp = Tcp::parse(&segment).unwrap();
        assert_eq!((tcp.flags, tcp.options().mss), (tcp_flags::SYN | tcp_flags::ACK, Some(mss)));
        assert_eq!((tcp.ack, tcp.seq), (cookie.0 as u32, (cookie.0 >> 32) as u32));
    }
}

#[test]
fn a_template_is_filled_in_for_each_target() {
    let text = "${SADDR}|${DADDR}|${SPORT}|${DPORT}|${HEX=0d0a}end";
    let probe = probe("udp", &[("template", text)]).unwrap();
    for (source, target, shown) in [(V4, 0x0a00_0007, "10.0.0.7"), (V6, 0xfd00 << 112 | 7, "fd00::7")] {
        let (datagram, _) = sent(&probe, source, target, 5353, 2);
        let udp = Udp::parse(&datagram).unwrap();
        let expected = format!("{source}|{shown}|{}|5353|\r\nend", udp.source_port);
        assert_eq!(String::from_utf8_lossy(udp.payload), expected);
    }
    let probe = self::probe("udp", &[("template", "${SADDR_N}${DADDR_N}${SPORT_N}${DPORT_N}")]).unwrap();
    let (datagram, _) = sent(&probe, V4, 0x0a00_0007, 53, 0);
    assert_eq!(datagram[8..16], [198, 18, 0, 10, 10, 0, 0, 7]);
    assert_eq!((&datagram[16..18], &datagram[18..20]), (&datagram[..2], &[0, 53][..]));
    assert_eq!(sent(&probe, V6, 7, 53, 0).0.len(), 8 + 16 + 16 + 2 + 2);
}

#[test]
fn what_a_template_draws_is_of_its_kind_and_can_be_told_again() {
    let text = "${RAND_DIGIT=40}${RAND_ALPHA=40}${RAND_ALPHANUM=40}${RAND_BYTE=400}";
    let probe = probe("udp", &[("template", text)]).unwrap();
    let of = |target, num| payload(&probe, V4, target, 53, num).0;
    let first = of(1, 0);
    assert!(first[..40].iter().all(u8::is_ascii_digit));
    assert!(first[40..80].iter().all(u8::is_ascii_alphabetic));
    assert!(first[80..120].iter().all(u8::is_ascii_alphanumeric));
    assert_eq!(first.len(), 520);
    assert_eq!(first, of(1, 0), "a plan tells what was sent");
    assert_ne!(first, of(2, 0));
    assert_ne!(first, of(1, 1));
    // 4,000 draws of a digit: each about 400 times, within five standard deviations of 19.
    let digits: Vec<u8> = (0..100).flat_map(|target| of(target, 0)[..40].to_vec()).collect();
    for digit in b'0'..=b'9' {
        let count = digits.iter().filter(|drawn| **drawn == digit).count();
        assert!((305..495).contains(&count), "{count} of the digit {}", digit - b'0');
    }
}

#[test]
fn templates_that_cannot_be_filled_in_are_refused_in_words() {
    for (text, reason) in [
        ("${NONESUCH}", "there is no such field; there are SADDR_N"),
        ("${RAND_BYTE=x}", "no number of characters"),
        ("${RAND_BYTE=1453}", "1,500 bytes"),
        ("${HEX=abc}", "even number"),
        ("${SADDR", "no } ends it"),
        ("${UNIXTIME_SEC}", "the time is left out"),
    ] {
        let error = probe("udp", &[("template", text)]).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    assert!(probe("udp", &[("template", "x"), ("text", "x")]).unwrap_err().contains("only one"));
    assert_eq!(Template::parse(b"$ {} }").unwrap().longest(false), 6);
}

proptest! {
    #[test]
    fn no_template_makes_the_reader_panic_or_a_frame_too_long(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "${SADDR}", "${DADDR}", "${SPORT}", "${DPORT_N}", "${RAND_BYTE=9}", "${RAND_ALPHANUM}", "$", "{", "}", "x", "${HEX=00}", "${",
        ]), 0..40), target: u128, port: u16,
    ) {
        if let Ok(probe) = probe("udp", &[("template", &pieces.concat())]) {
            sent(&probe, V6, target, port, 3);
            sent(&probe, V4, target & 0xffff_ffff, port, 3);
        }
    }
}

/// A probe of a user's own, well declared, with some arguments changed.
fn own(changed: &[(&str, &str)]) -> Result<Probe, String> {
    let mut args: BTreeMap<&str, &str> = BTreeMap::from([
        ("name", "mine"),
        ("protocol", "udp"),
        ("template", "00010203040506070809"),
        ("patches", "payload[2:4] = cookie; payload[6:2] = probe_num"),
        ("match", "+pong: payload[0] & 0x80 == 0x80, payload[1:4] == cookie>>8+1; other:"),
        ("fields", "level uint8; said utf8"),
    ]);
    args.extend(changed.iter().copied());
    probe("own", &args.into_iter().collect::<Vec<_>>())
}

#[test]
fn a_probe_of_ones_own_sends_its_template_with_its_patches() {
    for (source, target) in [(V4, 1), (V6, 1 << 64)] {
        let (payload, cookie) = payload(&own(&[]).unwrap(), source, target, 9, 3);
        let expected = [&[0, 1][..], &(cookie.0 as u32).to_be_bytes(), &[0, 3, 8, 9]].concat();
        assert_eq!(payload, expected);
    }
    let template = "000000000000000000000000501000000000000041";
    let tcp = [("protocol", "tcp"), ("template", template), ("patches", "transport[8:4] = cookie"), ("fields", "")];
    let rule = [("match", "+rst: transport[13] & 4 == 4, transport[4:4] == cookie")];
    let (segment, cookie) = sent(&own(&[&tcp[..], &rule].concat()).unwrap(), V4, 1, 80, 0);
    let tcp = Tcp::parse(&segment).unwrap();
    assert_eq!((tcp.flags, tcp.ack, tcp.seq, tcp.payload), (tcp_flags::ACK, cookie.0 as u32, 0, &b"A"[..]));
    let icmp = [("protocol", "icmp"), ("patches", ""), ("match", "+alive:")];
    let (message, cookie) = sent(&own(&icmp).unwrap(), V6, 1, 0, 0);
    assert_eq!((message[0], &message[4..6]), (128, &cookie.echo_id().to_be_bytes()[..]));
    assert_eq!(message[8..], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn declarations_that_cannot_work_are_refused_in_words() {
    let long = "00".repeat(1453);
    for (argument, value, reason) in [
        ("name", "1st", "begins with a letter"),
        ("protocol", "sctp", "tcp, udp or icmp"),
        ("template", "abc", "even number"),
        ("template", long.as_str(), "room for 1452"),
        ("patches", "payload[1:2] = cookie", "odd"),
        ("patches", "payload[8:4] = cookie", "ends at byte 20 of a template of 18"),
        ("patches", "payload[0:3] = cookie", "2, 4 or 8 bytes"),
        ("patches", "payload[0:4] = cookie; payload[2:2] = sport", "on another patch"),
        ("patches", "transport[4:2] = cookie", "always filled in"),
        ("patches", "payload[0:4] = cookies", "no part of the cookie"),
        ("patches", "payload[0:4] = magic", "nothing to write"),
        ("patches", "payload[65535:4] = cookie", "beyond"),
        ("match", "pong: payload[0] == 1", "no class of answers counts as a success"),
        ("match", "+pong payload[0] == 1", "write NAME: RULE"),
        ("match", "+pong: payload[0] = 1", "write PLACE == VALUE"),
        ("match", "+pong: payload[0] == 256", "no number of 1 bytes"),
        ("match", "+pong: payload[0] & 1 == 2", "never holds"),
        ("match", "+pong: payload[0:8] == 1", "1, 2 or 4 bytes"),
        ("match", "+pong: payload[9000] == 1", "at most 400"),
        ("match", "+pong: body[0] == 1", "no place"),
        ("fields", "level", "write NAME TYPE"),
        ("fields", "level uint7", "the types are bool"),
        ("nonesuch", "", "takes no argument"),
    ] {
        let error = own(&[(argument, value)]).expect_err(reason);
        assert!(error.contains(reason), "{argument}={value}: {error}");
    }
    let tcp = [("protocol", "tcp"), ("template", "0000000000000000000000005010000000000000")];
    let with = |more: &[(&'static str, &'static str)]| own(&[&tcp[..], more].concat()).unwrap_err();
    assert!(with(&[("patches", "")]).contains("no patch writes the cookie"));
    let patched = ("patches", "transport[4:4] = cookie");
    assert!(with(&[patched, ("match", "+rst: transport[13] & 4 == 4")]).contains("compares no field with the cookie"));
    assert!(own(&[("protocol", "tcp"), ("template", "00")]).unwrap_err().contains("TCP's header begins it"));
}

#[test]
fn questions_that_are_none_are_refused_in_words() {
    let long = format!("A,{}", "a.".repeat(130));
    for (question, reason) in [
        ("example.com", "write TYPE,NAME"),
        ("Q,example.com", "the types are A, NS"),
        ("A:x,example.com", "nr (no recursion)"),
        ("A,a..b", "1 to 63 bytes"),
        ("A,a;AAAA,b", "one question a run"),
        (long.as_str(), "at most 255 bytes"),
    ] {
        let error = probe("dns", &[("question", question)]).expect_err(reason);
        assert!(error.contains(reason), "{question}: {error}");
    }
}

#[test]
fn every_probe_is_resolved_by_its_name_and_says_what_it_does() {
    for (name, meaning) in NAMES {
        assert!(meaning.len() > 20, "{name}: {meaning}");
        assert_eq!(probe(name, &[]).is_ok(), name != "own", "{name}");
    }
    assert!(probe("nonesuch", &[]).unwrap_err().contains("tcp_synackscan"));
}
