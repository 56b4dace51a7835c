//! Captures of both formats, orders and resolutions, and files that are none.

use proptest::prelude::*;

use super::super::pcapng::{Direction, Packet, Writer};
use super::*;

const FRAME: [u8; 20] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 1, 2, 3, 4];
/// 2026-11-26 02:00:00.123456789 UTC.
const TIME_NS: u64 = 1_795_658_400_123_456_789;

/// What is in a capture: times, frames, bytes missing; and how it ended.
type Found = (Vec<(Option<u64>, Vec<u8>, u32)>, Option<End>);

fn read(bytes: &[u8]) -> Result<Found, String> {
    let mut reader = Reader::new(bytes, "it.pcap").map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    while let Some(packet) = reader.read().map_err(|error| error.to_string())? {
        all.push((packet.time_ns, packet.frame.to_vec(), packet.missing));
    }
    assert!(reader.read().unwrap().is_none(), "the end stays the end");
    Ok((all, reader.end()))
}

struct Bytes {
    big: bool,
    out: Vec<u8>,
}

impl Bytes {
    fn u32(mut self, values: &[u32]) -> Self {
        for value in values {
            self.out.extend_from_slice(&if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
        }
        self
    }

    fn u16(mut self, values: &[u16]) -> Self {
        for value in values {
            self.out.extend_from_slice(&if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
        }
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.out.extend_from_slice(bytes);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
        self
    }
}

fn pcap(big: bool, magic: u32, link: u32, fraction: u32, packet: &[u8]) -> Vec<u8> {
    let header = Bytes { big, out: Vec::new() }.u32(&[magic]).u16(&[2, 4]).u32(&[0, 0, 65_535, link]);
    let seconds = (TIME_NS / 1_000_000_000) as u32;
    header.u32(&[seconds, fraction, packet.len() as u32, packet.len() as u32 + 3]).bytes(packet).out
}

fn pcapng(big: bool, resolution: u8, offset_s: i64, ticks: u64) -> Vec<u8> {
    let section = Bytes { big, out: Vec::new() }.u32(&[SECTION_HEADER, 28, BYTE_ORDER_MAGIC]).u16(&[1, 0]).u32(&[
        u32::MAX,
        u32::MAX,
        28,
    ]);
    let offset = if big { offset_s.to_be_bytes() } else { offset_s.to_le_bytes() };
    let interface = section.u32(&[1, 44]).u16(&[1, 0]).u32(&[0]).u16(&[9, 1]).bytes(&[resolution]);
    let interface = interface.u16(&[14, 8]).bytes(&offset).u32(&[0, 44]);
    // A block that nobody knows comes in between.
    let unknown = interface.u32(&[0xbad, 16, 7, 16]);
    let packet = unknown.u32(&[6, 52, 0, (ticks >> 32) as u32, ticks as u32, FRAME.len() as u32, FRAME.len() as u32]);
    packet.bytes(&FRAME).u32(&[52]).out
}

#[test]
fn pcap_of_both_orders_and_resolutions_is_read() {
    let micro = TIME_NS / 1000 * 1000;
    for big in [false, true] {
        let found = read(&pcap(big, 0xa1b2_c3d4, 1, 123_456, &FRAME)).unwrap();
        assert_eq!(found, (vec![(Some(micro), FRAME.to_vec(), 3)], Some(End::Whole)));
        let found = read(&pcap(big, 0xa1b2_3c4d, 1, 123_456_789, &FRAME)).unwrap();
        assert_eq!(found, (vec![(Some(TIME_NS), FRAME.to_vec(), 3)], Some(End::Whole)));
    }
}

#[test]
fn pcapng_of_both_orders_and_all_resolutions_is_read() {
    let binary = ((u128::from(TIME_NS) << 20) / 1_000_000_000) as u64;
    let cases = [
        (9, 0, TIME_NS, TIME_NS),
        (6, 0, TIME_NS / 1000, TIME_NS / 1000 * 1000),
        (9, 5, TIME_NS - 5_000_000_000, TIME_NS),
        (12, 0, 4_000_000_000_000_001, 4_000_000_000_000),
        (0x80 | 20, 0, binary, ((u128::from(binary) * 1_000_000_000) >> 20) as u64),
    ];
    for big in [false, true] {
        for (resolution, offset_s, ticks, time_ns) in cases {
            let found = read(&pcapng(big, resolution, offset_s, ticks)).unwrap();
            assert_eq!(found, (vec![(Some(time_ns), FRAME.to_vec(), 0)], Some(End::Whole)), "{big} {resolution}");
        }
        let found = read(&pcapng(big, 0xff, 0, TIME_NS)).unwrap();
        assert_eq!(found.0, vec![(Some(0), FRAME.to_vec(), 0)], "a resolution that nobody has");
        let found = read(&pcapng(big, 127, 0, TIME_NS)).unwrap();
        assert_eq!(found.0, vec![(None, FRAME.to_vec(), 0)], "a time that cannot be");
    }
}

#[test]
fn other_link_types_become_ethernet() {
    let v6 = [0x60, 1, 2, 3];
    let dressed = |ethertype: [u8; 2], packet: &[u8]| [&[0; 12][..], &ethertype, packet].concat();
    let raw = |link, packet: &[u8]| read(&pcap(false, 0xa1b2_c3d4, link, 0, packet)).unwrap().0[0].1.clone();
    assert_eq!(raw(101, &FRAME[14..]), dressed([8, 0], &FRAME[14..]));
    assert_eq!(raw(101, &v6), dressed([0x86, 0xdd], &v6));
    assert_eq!(raw(0, &[&[2, 0, 0, 0][..], &FRAME[14..]].concat()), dressed([8, 0], &FRAME[14..]));
    assert_eq!(raw(113, &[&[0; 14][..], &[0x86, 0xdd], &v6].concat()), dressed([0x86, 0xdd], &v6));
    assert_eq!(raw(276, &[&[8, 0][..], &[0; 18], &FRAME[14..]].concat()), dressed([8, 0], &FRAME[14..]));
    assert_eq!(raw(113, &[1, 2]), dressed([0, 0], &[]), "cut within its header");
    let told = read(&pcap(false, 0xa1b2_c3d4, 127, 0, &FRAME)).unwrap_err();
    assert!(told.contains("link type 127") && told.contains("it.pcap"), "{told}");
}

#[test]
fn what_is_no_capture_is_said_to_be_none() {
    for bytes in
        [&b""[..], b"no", b"saddr,daddr\n1,2\n", &SECTION_HEADER.to_le_bytes(), &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0]]
    {
        let told = read(bytes).unwrap_err();
        assert_eq!(told, "it.pcap is no capture: pcapng and pcap files can be read");
    }
}

#[test]
fn what_contradicts_itself_is_an_error_with_its_place() {
    let damaged = |bytes: &mut Vec<u8>, at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    for (at, value, words) in [
        (32, 7, "a block of 7 bytes stands before byte 36"),
        (32, u32::MAX - 3, "a block of 4294967292 bytes"),
        (68, 40, "a block of 44 bytes that says at its end that it has 40"),
        (96, 1, "a packet of interface 1, which there is not"),
        (108, 21, "a packet of 21 bytes in a block that is shorter"),
    ] {
        let mut bytes = pcapng(false, 9, 0, TIME_NS);
        damaged(&mut bytes, at, value);
        let told = read(&bytes).unwrap_err();
        assert!(told.contains(words), "{at}: {told}");
    }
    let mut bytes = pcap(false, 0xa1b2_c3d4, 1, 0, &FRAME);
    damaged(&mut bytes, 32, u32::MAX);
    assert!(read(&bytes).unwrap_err().contains("a packet of 4294967295 bytes"));
}

#[test]
fn a_file_that_ends_within_a_packet_is_read_up_to_there() {
    let mut bytes = pcapng(false, 9, 0, TIME_NS);
    let whole = bytes.len();
    bytes.extend_from_within(whole - 52..);
    for end in whole + 1..bytes.len() {
        let (found, how) = read(&bytes[..end]).unwrap();
        assert_eq!((found.len(), how), (1, Some(End::Cut)), "{end}");
    }
    assert_eq!(read(&bytes[..whole]).unwrap().1, Some(End::Whole));
    let bytes = pcap(true, 0xa1b2_c3d4, 1, 0, &FRAME);
    for end in 25..bytes.len() {
        assert_eq!(read(&bytes[..end]).unwrap(), (vec![], Some(End::Cut)), "{end}");
    }
}

#[test]
fn captures_of_two_clocks_joined_are_refused() {
    let section = |clock: i64| {
        let mut writer = Writer::new(Vec::new(), "irlstack 0", &super::super::words(&[], clock)).unwrap();
        writer.interface("va", LINK_ETHERNET).unwrap();
        let (time_ns, direction) = (TIME_NS, Direction::Inbound);
        let packet = Packet { interface: 0, time_ns, bytes: &FRAME, length: 20, direction, comment: Some("so") };
        writer.packets([packet]).unwrap();
        writer.into_inner()
    };
    assert_eq!(Reader::new(&section(-5)[..], "it").unwrap().clock(), Some(-5));
    assert_eq!(read(&[section(5), section(5)].concat()).unwrap().0.len(), 2);
    assert!(read(&[section(5), section(6)].concat()).unwrap_err().contains("another clock"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_bytes_make_it_panic(
        big in any::<bool>(), ng in any::<bool>(), flips in prop::collection::vec((0usize..200, any::<u8>()), 0..6), end in 0usize..200
    ) {
        let mut bytes = if ng { pcapng(big, 9, 0, TIME_NS) } else { pcap(big, 0xa1b2_c3d4, 1, 0, &FRAME) };
        for (at, value) in flips {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        bytes.truncate(end.max(4));
        let _ = read(&bytes);
    }
}
