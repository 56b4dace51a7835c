//! Fields that the answers of one probe have, by the names of ZMap's module of that probe. All of them are numbers, read
//! from the answer and its payload when they are chosen, and never otherwise.

use arrow_schema::DataType;

use crate::fields::{u16_at, u32_at, u64_at};
use crate::rows::Row;

/// A field of one probe's answers: a line of the table below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProbeField(u8);

/// A number of an answer and its payload; `None` where they have it not.
type Of = fn(&Row, &[u8]) -> Option<u64>;

/// What there is to say of a field.
struct Line {
    probe: &'static str,
    name: &'static str,
    data_type: DataType,
    meaning: &'static str,
    of: Of,
}

/// Lines of a probe, one for each name, type, meaning and source.
macro_rules! fields {
    ($($probe:literal => { $($name:literal $data_type:ident, $meaning:literal, $of:expr;)+ })+) => {
        static FIELDS: &[Line] = &[$($(Line {
            probe: $probe,
            name: $name,
            data_type: DataType::$data_type,
            meaning: $meaning,
            of: $of,
        },)+)+];
    };
}

fields! {
    "icmp_echoscan" => {
        "type" UInt8, "ICMP type, as icmp_type", |row, _| Some(row.icmp?.kind.into());
        "code" UInt8, "ICMP code, as icmp_code", |row, _| Some(row.icmp?.code.into());
        "icmp_id" UInt16, "an echo's identifier; of an ICMP error what it has in that place", |row, _| {
            Some((row.icmp?.rest? >> 16).into())
        };
        "seq" UInt16, "an echo's sequence number; of an ICMP error what it has in that place, such as an MTU", |row, _| {
            Some((row.icmp?.rest? & 0xffff).into())
        };
    }
    "udp" => {
        "udp_pkt_size" UInt16, "length of the datagram as its header says: 8 bytes and the payload", datagram;
    }
    "dns" => {
        "udp_len" UInt16, "length of the datagram as its header says: 8 bytes and the payload", datagram;
        "app_success" Boolean, "whether it is a response without an error, which the class dns is", |row, data| {
            // What is a success has the question's id and is a response.
            Some((row.class.success() && dns(data, 0, 15) == Some(0)).into())
        };
        "dns_id" UInt16, "DNS: the question's id", |_, data| word(data, 0);
        "dns_rd" UInt8, "DNS: recursion desired", |_, data| dns(data, 8, 1);
        "dns_tc" UInt8, "DNS: truncated", |_, data| dns(data, 9, 1);
        "dns_aa" UInt8, "DNS: authoritative", |_, data| dns(data, 10, 1);
        "dns_opcode" UInt8, "DNS: kind of query", |_, data| dns(data, 11, 15);
        "dns_qr" UInt8, "DNS: 0 a query, 1 a response", |_, data| dns(data, 15, 1);
        "dns_rcode" UInt8, "DNS: response code", |_, data| dns(data, 0, 15);
        "dns_cd" UInt8, "DNS: checking disabled", |_, data| dns(data, 4, 1);
        "dns_ad" UInt8, "DNS: authentic data", |_, data| dns(data, 5, 1);
        "dns_z" UInt8, "DNS: the reserved bit", |_, data| dns(data, 6, 1);
        "dns_ra" UInt8, "DNS: recursion available", |_, data| dns(data, 7, 1);
        "dns_qdcount" UInt16, "DNS: how many questions it has", |_, data| word(data, 4);
        "dns_ancount" UInt16, "DNS: how many answer records", |_, data| word(data, 6);
        "dns_nscount" UInt16, "DNS: how many authority records", |_, data| word(data, 8);
        "dns_arcount" UInt16, "DNS: how many additional records", |_, data| word(data, 10);
    }
    "ntp" => {
        "LI_VN_MODE" UInt8, "NTP: leap indicator (2 bits), version (3) and mode (3)", |_, data| ntp8(data, 0);
        "stratum" UInt8, "NTP: stratum", |_, data| ntp8(data, 1);
        "poll" UInt8, "NTP: poll exponent, as a byte without a sign", |_, data| ntp8(data, 2);
        "precision" UInt8, "NTP: precision exponent, as a byte without a sign", |_, data| ntp8(data, 3);
        "root_delay" UInt32, "NTP: round trip to the reference clock, in 2^-16 s", |_, data| ntp32(data, 4);
        "root_dispersion" UInt32, "NTP: dispersion to the reference clock, in 2^-16 s", |_, data| ntp32(data, 8);
        "reference_clock_identifier" UInt32, "NTP: the reference clock: a name, or an address", |_, data| ntp32(data, 12);
        "reference_timestamp" UInt64, "NTP: when the clock was last set, in 2^-32 s since 1900", |_, data| ntp64(data, 16);
        "originate_timestamp" UInt64, "NTP: the request's transmit timestamp, our cookie", |_, data| ntp64(data, 24);
        "receive_timestamp" UInt64, "NTP: when the request arrived, in 2^-32 s since 1900", |_, data| ntp64(data, 32);
        "transmit_timestamp" UInt64, "NTP: when the answer left, in 2^-32 s since 1900", |_, data| ntp64(data, 40);
    }
}

fn datagram(row: &Row, _: &[u8]) -> Option<u64> {
    row.udp_len.map(u64::from)
}

/// A word of a DNS header, if there is all of one (RFC 1035, 4.1.1).
fn word(payload: &[u8], at: usize) -> Option<u64> {
    u16_at(payload.first_chunk::<12>()?, at).map(u64::from)
}

/// Some bits of its flags.
fn dns(payload: &[u8], shift: u32, mask: u64) -> Option<u64> {
    Some(word(payload, 2)? >> shift & mask)
}

/// An NTP packet without extensions, if it is whole (RFC 5905, 7.3).
fn ntp(payload: &[u8]) -> Option<&[u8; 48]> {
    payload.first_chunk()
}

fn ntp8(payload: &[u8], at: usize) -> Option<u64> {
    ntp(payload)?.get(at).copied().map(u64::from)
}

fn ntp32(payload: &[u8], at: usize) -> Option<u64> {
    u32_at(ntp(payload)?, at).map(u64::from)
}

fn ntp64(payload: &[u8], at: usize) -> Option<u64> {
    u64_at(ntp(payload)?, at)
}

impl ProbeField {
    /// Those of this probe.
    pub(crate) fn of_probe(probe: &str) -> impl Iterator<Item = Self> {
        Self::all().filter(move |field| field.probe() == probe)
    }

    /// Those of every probe.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        // The table is shorter than a byte counts.
        (0..FIELDS.len() as u8).map(Self)
    }

    fn line(self) -> &'static Line {
        &FIELDS[usize::from(self.0)]
    }

    /// The probe whose answers have it.
    pub fn probe(self) -> &'static str {
        self.line().probe
    }

    pub(crate) fn name(self) -> &'static str {
        self.line().name
    }

    pub(crate) fn meaning(self) -> &'static str {
        self.line().meaning
    }

    pub(crate) fn data_type(self) -> DataType {
        self.line().data_type.clone()
    }

    /// Of an answer with this payload.
    pub(crate) fn of(self, row: &Row, payload: &[u8]) -> Option<u64> {
        (self.line().of)(row, payload)
    }
}

/// ZMap's fields that are not here, the first word of each line, and what to do instead.
const ELSEWHERE: &[(&str, &str)] = &[
    ("raw_data udp_payload", "take data, which is the payload of the answer"),
    (
        "dns_questions dns_answers dns_authorities dns_additionals",
        "take data, and read the records from it: a row has no lists",
    ),
    ("dns_parse_err dns_unconsumed_bytes", "only the header of a DNS message is read: take data for the rest"),
    ("rtt_us", "take rtt, in ns"),
    ("sent_timestamp_ts sent_timestamp_us", "take timestamp and rtt, whose difference it is"),
    ("recv_timestamp_ts recv_timestamp_us", "take timestamp_ts and timestamp_us"),
    ("dst_raw", "take saddr_raw: the target, of an ICMP error too"),
    (
        "server location usn st ext cache_control x_user_agent agent date",
        "it is of ZMap's module upnp: take --probe-module udp and data",
    ),
];

/// What to do instead of choosing this field of ZMap's.
pub(crate) fn instead_of(name: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(names, _)| names.split(' ').any(|each| each == name)).map(|(_, instead)| *instead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Class, Icmp};

    fn of(probe: &str, name: &str, row: &Row, payload: &[u8]) -> Option<u64> {
        let field = ProbeField::of_probe(probe).find(|field| field.name() == name);
        field.unwrap_or_else(|| panic!("{probe} has no {name}")).of(row, payload)
    }

    #[test]
    fn a_dns_header_is_read_as_rfc_1035_has_it() {
        // Id 0xabcd; QR, opcode 2, AA, TC, RD; RA, Z, AD, CD, RCODE 3; 1, 2, 3 and 4 records.
        let header = [0xab, 0xcd, 0x97, 0xf3, 0, 1, 0, 2, 0, 3, 0, 4];
        let row = Row { udp_len: Some(20), class: Class::OfProbe { index: 0, success: true }, ..Row::default() };
        for (name, value) in [
            ("dns_id", 0xabcd),
            ("dns_qr", 1),
            ("dns_opcode", 2),
            ("dns_aa", 1),
            ("dns_tc", 1),
            ("dns_rd", 1),
            ("dns_ra", 1),
            ("dns_z", 1),
            ("dns_ad", 1),
            ("dns_cd", 1),
            ("dns_rcode", 3),
            ("dns_qdcount", 1),
            ("dns_ancount", 2),
            ("dns_nscount", 3),
            ("dns_arcount", 4),
            ("udp_len", 20),
            ("app_success", 0),
        ] {
            assert_eq!(of("dns", name, &row, &header), Some(value), "{name}");
        }
        let error = Row { class: Class::OfProbe { index: 1, success: false }, ..Row::default() };
        assert_eq!(of("dns", "app_success", &row, &[0; 12]), Some(1));
        assert_eq!(of("dns", "app_success", &error, &[0; 12]), Some(0), "a stranger's is none");
        // Bit by bit: one flag is not taken for another.
        for (name, flags) in
            [("dns_tc", 0x0200u16), ("dns_aa", 0x0400), ("dns_z", 0x40), ("dns_ad", 0x20), ("dns_ra", 0x80)]
        {
            let mut header = [0; 12];
            header[2..4].copy_from_slice(&flags.to_be_bytes());
            let set: Vec<_> =
                ProbeField::of_probe("dns").filter(|field| field.of(&error, &header) == Some(1)).collect();
            assert_eq!(set.iter().map(|field| field.name()).collect::<Vec<_>>(), [name]);
        }
        assert_eq!(of("dns", "dns_id", &row, &header[..11]), None, "half a header is none");
        assert_eq!((of("dns", "app_success", &error, &[]), of("dns", "dns_qr", &error, &[])), (Some(0), None));
    }

    #[test]
    fn an_ntp_packet_is_read_as_rfc_5905_has_it() {
        let packet: [u8; 48] = std::array::from_fn(|at| at as u8);
        let row = Row::default();
        for (name, value) in [
            ("LI_VN_MODE", 0),
            ("stratum", 1),
            ("poll", 2),
            ("precision", 3),
            ("root_delay", 0x0405_0607),
            ("root_dispersion", 0x0809_0a0b),
            ("reference_clock_identifier", 0x0c0d_0e0f),
            ("reference_timestamp", 0x1011_1213_1415_1617),
            ("originate_timestamp", 0x1819_1a1b_1c1d_1e1f),
            ("receive_timestamp", 0x2021_2223_2425_2627),
            ("transmit_timestamp", 0x2829_2a2b_2c2d_2e2f),
        ] {
            assert_eq!(of("ntp", name, &row, &packet), Some(value), "{name}");
            assert_eq!(of("ntp", name, &row, &packet[..47]), None, "{name}");
        }
    }

    #[test]
    fn an_icmp_header_has_its_words_in_their_places() {
        let row = Row { icmp: Some(Icmp { kind: 3, code: 4, rest: Some(0x0102_05dc) }), ..Row::default() };
        for (name, value) in [("type", 3), ("code", 4), ("icmp_id", 0x0102), ("seq", 1500)] {
            assert_eq!(of("icmp_echoscan", name, &row, &[]), Some(value), "{name}");
            assert_eq!(of("icmp_echoscan", name, &Row::default(), &[]), None, "{name}");
        }
    }

    #[test]
    fn a_name_is_one_field_of_a_probe() {
        let names: Vec<_> = ProbeField::all().map(|field| (field.probe(), field.name())).collect();
        assert!(names.iter().enumerate().all(|(at, name)| !names[..at].contains(name)));
        assert!(names.iter().all(|(_, name)| instead_of(name).is_none()));
        assert_eq!(instead_of("rtt_us"), Some("take rtt, in ns"));
        assert_eq!(instead_of("rtt"), None);
    }
}
