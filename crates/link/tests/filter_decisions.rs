//! What the filter decides, told on its twin, which needs no privilege; `filter_differential` shows that the kernel's
//! program decides the same.

mod support;

use std::net::SocketAddr;

use irl_link::filter::{
    Accept, AddressKind, FilterConfig, Frames, HostSocket, HostSockets, OwnAddress, OwnerConfig, Reason, TwinFilter,
    Verdict,
};
use irl_link::record::{Kind, Record, flags, options};
use irl_wire::cookie::Key;
use irl_wire::probe::{PortRange, Protocol};
use support::{Random, checksum_at, cookie, frame, icmp, ip_frame, ip_packet, octets, tcp, udp};

const SPARE: &str = "198.18.0.10";
const HOST: &str = "198.18.0.1";
const TARGET: &str = "10.0.0.7";

fn key() -> Key {
    Key::new([9; 16])
}

fn scan(protocol: Protocol) -> OwnerConfig {
    OwnerConfig::new(0, protocol, PortRange { first: 61_000, last: 61_999 }, key())
}

fn config() -> FilterConfig {
    let own = |address: &str, kind| OwnAddress { address: address.parse().expect("well formed"), kind };
    FilterConfig {
        addresses: vec![
            own(SPARE, AddressKind::Spare),
            own(HOST, AddressKind::Host),
            own("fd00::10", AddressKind::Spare),
            own("fd00::1", AddressKind::Host),
        ],
    }
}

fn filter(owner: &OwnerConfig) -> TwinFilter {
    let mut filter = TwinFilter::new(&config()).expect("no address is given twice");
    filter.add_owner(owner).expect("nobody has the ports");
    filter
}

fn to(ours: &str, protocol: u8, body: Vec<u8>) -> Vec<u8> {
    ip_frame(false, &ip_packet(&octets(TARGET), &octets(ours), protocol, &[], body, checksum_at(protocol)))
}

/// A segment from port 80 of the target, acknowledging `beyond` bytes after our SYN.
fn segment(ours: &str, port: u16, tcp_flags: u8, beyond: u32, payload: &[u8]) -> Vec<u8> {
    let seq = cookie(&key(), &octets(ours), &octets(TARGET), 80).seq();
    to(ours, 6, tcp(80, port, 7, seq.wrapping_add(1).wrapping_add(beyond), tcp_flags, &[2, 4, 5, 0xb4], payload))
}

fn judge(filter: &mut TwinFilter, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let mut out = Vec::new();
    let verdict = filter.judge(frame, 42, &mut out);
    (verdict, out)
}

fn verdict(owner: &OwnerConfig, frame: &[u8]) -> Verdict {
    judge(&mut filter(owner), frame).0
}

const OURS: Verdict = Verdict::Record { owner: 0 };

#[test]
fn a_syn_ack_with_our_cookie_becomes_a_compact_record() {
    let (verdict, bytes) = judge(&mut filter(&scan(Protocol::Tcp)), &segment(SPARE, 61_005, 0x12, 0, &[]));
    assert_eq!(verdict, OURS);
    let record = Record::parse(&bytes).expect("the twin writes records of this version");
    assert_eq!((record.kind, record.flags, record.time_ns), (Kind::Tcp4, flags::COOKIE, 42));
    assert_eq!(record.body[..4], octets(TARGET));
    assert_eq!(record.body[26..28], [5, 0xb4], "the MSS option");
}

#[test]
fn other_cookies_are_dropped_and_counted() {
    let owner = scan(Protocol::Tcp);
    for ours in [SPARE, HOST] {
        let frame = segment(ours, 61_005, 0x12, 1, &[]);
        assert_eq!(verdict(&owner, &frame), Verdict::Drop(Reason::BadCookie), "{ours}");
    }
    assert_eq!(verdict(&owner, &segment(SPARE, 61_005, 0x04, 0, &[])), Verdict::Drop(Reason::NoAcknowledgement));
    let mut filter = filter(&owner);
    judge(&mut filter, &segment(SPARE, 61_005, 0x12, 1, &[]));
    assert_eq!(filter.counters().get(Reason::BadCookie), 1);
    assert_eq!(filter.counters().dropped(), 1);
}

#[test]
fn data_is_ours_as_far_as_we_may_have_sent() {
    let owner = OwnerConfig { max_data: 100, frames: Frames::Payload, ..scan(Protocol::Tcp) };
    assert_eq!(verdict(&owner, &segment(SPARE, 61_005, 0x10, 100, &[])), OURS);
    assert_eq!(verdict(&owner, &segment(SPARE, 61_005, 0x10, 101, &[])), Verdict::Drop(Reason::BadCookie));
    let (_, bytes) = judge(&mut filter(&owner), &segment(SPARE, 61_005, 0x18, 100, b"hello"));
    assert_eq!(Record::parse(&bytes).expect("a record").kind, Kind::Frame, "payload travels with its frame");
    let (bare_reset, bytes) = judge(&mut filter(&owner), &segment(SPARE, 61_005, 0x04, 0, &[]));
    assert_eq!(bare_reset, OURS);
    assert_eq!(Record::parse(&bytes).expect("a record").flags & flags::COOKIE, 0, "a bare RST proves nothing");
}

#[test]
fn outside_the_port_range_a_host_address_is_the_hosts() {
    let owner = scan(Protocol::Tcp);
    assert_eq!(verdict(&owner, &segment(HOST, 40_000, 0x12, 0, &[])), Verdict::Pass);
    assert_eq!(verdict(&owner, &segment(SPARE, 40_000, 0x12, 0, &[])), Verdict::Drop(Reason::NoOwner));
    assert_eq!(verdict(&owner, &segment("198.18.0.77", 61_005, 0x12, 0, &[])), Verdict::Pass);
    assert_eq!(verdict(&owner, &to(HOST, 17, udp(53, 61_005, b"x"))), Verdict::Pass, "another protocol's owner");
    assert_eq!(verdict(&owner, &to(HOST, 1, icmp(8, 0, &[0; 8]))), Verdict::Pass, "pings of the host");
}

#[test]
fn a_socket_of_the_host_inside_the_range_keeps_working() {
    struct One;
    impl HostSockets for One {
        fn find(&self, protocol: Protocol, local: SocketAddr, _: SocketAddr) -> Option<HostSocket> {
            match (protocol, local.port()) {
                (Protocol::Tcp, 61_500) => Some(HostSocket::Listening),
                (Protocol::Tcp, 61_502) => Some(HostSocket::Other),
                _ => None,
            }
        }
    }
    let mut filter = TwinFilter::with_sockets(&config(), Box::new(One)).expect("no address is given twice");
    filter.add_owner(&OwnerConfig { max_data: 1 << 20, ..scan(Protocol::Tcp) }).expect("nobody has the ports");
    assert_eq!(judge(&mut filter, &segment(HOST, 61_500, 0x10, 0x7000_0000, &[])).0, Verdict::Pass);
    assert_eq!(judge(&mut filter, &segment(HOST, 61_500, 0x02, 0, &[])).0, Verdict::Pass, "a SYN to a listener");
    let near = segment(HOST, 61_500, 0x10, 5, &[]);
    assert_eq!(judge(&mut filter, &near).0, Verdict::Pass, "a chance match leaves room for doubt");
    assert_eq!(judge(&mut filter, &segment(HOST, 61_501, 0x10, 5, &[])).0, OURS);
    let refused = Verdict::Drop(Reason::BadCookie);
    let to_listener = judge(&mut filter, &segment(HOST, 61_500, 0x12, 0x7000_0000, &[])).0;
    assert_eq!(to_listener, refused, "a SYN-ACK with a wrong number is no listener's: the kernel would reset it");
    let to_connection = judge(&mut filter, &segment(HOST, 61_502, 0x12, 0x7000_0000, &[])).0;
    assert_eq!(to_connection, Verdict::Pass, "a connection of the host may be waiting for it");
    assert_eq!(filter.counters().get(Reason::HostSocket), 4);
}

#[test]
fn a_udp_answer_comes_to_the_port_its_probe_left_from() {
    let owner = OwnerConfig { probes: 2, ..scan(Protocol::Udp) };
    let mine = cookie(&key(), &octets(SPARE), &octets(TARGET), 53);
    let from = |probe| owner.ports.source_port(mine, probe);
    assert_eq!(verdict(&owner, &to(SPARE, 17, udp(53, from(0), b"answer"))), OURS);
    assert_eq!(verdict(&owner, &to(SPARE, 17, udp(53, from(1), b"answer"))), OURS);
    assert_eq!(verdict(&owner, &to(SPARE, 17, udp(53, from(2), b"answer"))), Verdict::Drop(Reason::BadCookie));
}

#[test]
fn an_echo_reply_carries_the_cookie_in_id_and_sequence() {
    let mine = cookie(&key(), &octets(SPARE), &octets(TARGET), 0);
    let [i, j] = mine.echo_id().to_be_bytes();
    let [k, l] = mine.echo_seq().to_be_bytes();
    let owner = scan(Protocol::Icmp);
    let (verdict, bytes) = judge(&mut filter(&owner), &to(SPARE, 1, icmp(0, 0, &[i, j, k, l, 1, 2, 3])));
    assert_eq!(verdict, OURS);
    let record = Record::parse(&bytes).expect("a record");
    assert_eq!((record.kind, &record.body[64..68]), (Kind::Icmp, &[1, 2, 3, 0][..]));
    let other = to(SPARE, 1, icmp(0, 0, &[i, j, k, l ^ 1]));
    assert_eq!(self::verdict(&owner, &other), Verdict::Drop(Reason::BadCookie));
}

#[test]
fn an_icmp_error_is_ours_when_it_quotes_us() {
    let owner = scan(Protocol::Tcp);
    let error = |seq_off: u32| {
        let seq = cookie(&key(), &octets(SPARE), &octets(TARGET), 80).seq().wrapping_add(seq_off);
        let probe = ip_packet(&octets(SPARE), &octets(TARGET), 6, &[], tcp(61_005, 80, seq, 0, 2, &[], &[]), Some(16));
        let body = icmp(3, 1, &[&[0; 4][..], &probe[..28]].concat());
        ip_frame(false, &ip_packet(&octets("10.9.9.9"), &octets(SPARE), 1, &[], body, Some(2)))
    };
    let (verdict, bytes) = judge(&mut filter(&owner), &error(0));
    assert_eq!(verdict, OURS);
    let record = Record::parse(&bytes).expect("a record");
    assert_eq!(record.body[12..16], octets("10.9.9.9"), "who sent the error");
    assert_eq!(record.body[60..64], octets(TARGET), "whom we had asked");
    assert_eq!(self::verdict(&owner, &error(1)), Verdict::Drop(Reason::BadCookie));
    let foreign = to(SPARE, 1, icmp(3, 1, &[0; 40]));
    assert_eq!(self::verdict(&owner, &foreign), Verdict::Drop(Reason::ForeignIcmp));
}

#[test]
fn arp_for_a_spare_address_is_taken_and_for_the_host_copied_when_it_answers() {
    let arp = |op: u8, sender: &str, target: &str| {
        let mut body = vec![0, 1, 8, 0, 6, 4, 0, op, 2, 0, 0, 0, 0, 9];
        body.extend(octets(sender));
        body.extend([0; 6]);
        body.extend(octets(target));
        frame(false, 0x0806, &body)
    };
    let owner = scan(Protocol::Tcp);
    assert_eq!(verdict(&owner, &arp(1, TARGET, SPARE)), OURS);
    assert_eq!(verdict(&owner, &arp(2, TARGET, HOST)), Verdict::Copied { owner: 0 });
    assert_eq!(verdict(&owner, &arp(1, TARGET, HOST)), Verdict::Pass);
    assert_eq!(verdict(&owner, &arp(1, SPARE, HOST)), Verdict::Copied { owner: 0 }, "somebody else has our address");
}

#[test]
fn wrong_checksums_and_broken_options_are_flagged() {
    let owner = scan(Protocol::Tcp);
    let mut frame = segment(SPARE, 61_005, 0x12, 0, &[]);
    let last = frame.len() - 3;
    frame[last] = 0; // the MSS option's length
    let (verdict, bytes) = judge(&mut filter(&owner), &frame);
    assert_eq!(verdict, OURS);
    let record = Record::parse(&bytes).expect("a record");
    assert_eq!(record.flags, flags::COOKIE | flags::BAD_CHECKSUM);
    assert_eq!(record.body[29], options::MALFORMED);
}

#[test]
fn whoever_accepts_anything_gets_the_unclaimed_too() {
    let owner = OwnerConfig { accept: Accept::Any, ..scan(Protocol::Tcp) };
    assert_eq!(verdict(&owner, &segment(SPARE, 61_005, 0x12, 999, &[])), OURS);
    assert_eq!(verdict(&owner, &segment(SPARE, 22, 0x02, 0, &[])), OURS);
    assert_eq!(verdict(&owner, &to(SPARE, 47, vec![0; 8])), OURS);
    assert_eq!(verdict(&owner, &to(HOST, 47, vec![0; 8])), Verdict::Pass);
}

#[test]
fn no_bytes_make_it_panic() {
    let mut filter = filter(&OwnerConfig { frames: Frames::Payload, max_data: u32::MAX, ..scan(Protocol::Tcp) });
    let mut random = Random::new(11);
    let good = segment(SPARE, 61_005, 0x12, 0, b"payload");
    for _ in 0..300_000 {
        let mut frame = good.clone();
        for _ in 0..random.below(6) {
            let at = random.below(frame.len());
            frame[at] = random.next() as u8;
        }
        frame.truncate(random.below(frame.len() + 1));
        judge(&mut filter, &frame);
    }
}
