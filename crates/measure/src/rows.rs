//! Answers as columns: collected per worker, handed over as Arrow batches.

use std::fmt::Write;

use arrow_array::types::{Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_schema::DataType;
use chrono::DateTime;
use irl_link::record::options;
use irl_targets::Family;

use crate::columns::{
    self, Place, Values, addresses, bits, choices, made, numbers, optional, optional_addresses, payloads, read,
    read_bits, texts, times,
};
use crate::probe_fields::ProbeField;
use crate::schema::{self, Column};

/// What an answer turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Class {
    /// A TCP SYN-ACK.
    #[default]
    SynAck,
    /// A TCP RST.
    Rst,
    /// An ICMP error about our TCP or UDP probe.
    Icmp,
    /// An ICMP error about our echo request: destination unreachable.
    Unreach,
    /// The same: time exceeded.
    TimeExceeded,
    /// The same: source quench (IPv4).
    SourceQuench,
    /// The same: redirect (IPv4).
    Redirect,
    /// The same: any other.
    Other,
    /// An ICMP echo reply.
    EchoReply,
    /// A UDP datagram.
    Udp,
    /// One of the classes that the probe itself tells of.
    OfProbe {
        /// Which.
        index: u8,
        /// Whether the probe hoped for it.
        success: bool,
    },
}

impl Class {
    /// ZMap's word; of a probe's own class, its protocol's general one: the probe has the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SynAck => "synack",
            Self::Rst => "rst",
            Self::Icmp => "icmp",
            Self::Unreach => "unreach",
            Self::TimeExceeded => "timxceed",
            Self::SourceQuench => "sourcequench",
            Self::Redirect => "redirect",
            Self::Other => "other",
            Self::EchoReply => "echoreply",
            Self::Udp => "udp",
            Self::OfProbe { .. } => "own",
        }
    }

    /// What an ICMP error about an echo request is, by its type.
    pub fn of_error(family: Family, kind: u8) -> Self {
        match (family, kind) {
            (Family::V4, 3) | (Family::V6, 1) => Self::Unreach,
            (Family::V4, 11) | (Family::V6, 3) => Self::TimeExceeded,
            (Family::V4, 4) => Self::SourceQuench,
            (Family::V4, 5) => Self::Redirect,
            _ => Self::Other,
        }
    }

    /// Whether the probe hoped for it.
    pub fn success(self) -> bool {
        matches!(self, Self::SynAck | Self::EchoReply | Self::Udp | Self::OfProbe { success: true, .. })
    }
}

/// TCP options of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpOptions {
    /// 0 when absent.
    pub mss: u16,
    /// 255 when absent.
    pub wscale: u8,
    /// See [`options`].
    pub bits: u8,
    /// Valid when the bits say so.
    pub ts_val: u32,
    /// Valid when the bits say so.
    pub ts_ecr: u32,
}

/// What an ICMP message has for itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum: an echo's identifier and sequence number, an MTU, or nothing. They are not
    /// known of an error about a TCP probe.
    pub rest: Option<u32>,
}

/// One answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// The target.
    pub saddr: u128,
    /// Our address.
    pub daddr: u128,
    /// The target's port.
    pub sport: u16,
    /// Our port.
    pub dport: u16,
    /// Sequence number.
    pub seqnum: u32,
    /// Acknowledgement number.
    pub acknum: u32,
    /// Window.
    pub window: u16,
    /// TTL.
    pub ttl: u8,
    /// IPv4 identification.
    pub ipid: u16,
    /// What it is.
    pub class: Class,
    /// Whether the target had answered before.
    pub repeat: bool,
    /// Which probe it answers.
    pub probe_num: u16,
    /// UTC in ns.
    pub timestamp: i64,
    /// Round-trip time in ns.
    pub rtt: Option<u64>,
    /// Whether it came after the last probe.
    pub cooldown: bool,
    /// TCP options, of TCP answers.
    pub tcp: Option<TcpOptions>,
    /// Its own header, of ICMP answers.
    pub icmp: Option<Icmp>,
    /// Who sent an ICMP error; 0 where it is none.
    pub responder: u128,
    /// What the header says of the length, of UDP answers.
    pub udp_len: Option<u16>,
    /// Where the payload of an answer lies among those of the rows beside it.
    pub(crate) data: Option<Place>,
    /// The target's number in the answered map.
    pub(crate) slot: u64,
    /// The number of our address.
    pub(crate) builder: usize,
}

/// Collects the rows of a scan in columns and turns them into batches.
pub type RowBuilder = columns::RowBuilder<Row>;

impl RowBuilder {
    /// For these columns; `classes` are the names of the probe's own classes, if it has any.
    pub fn new(family: Family, columns: &[Column], classes: &[&str]) -> Self {
        let values = columns.iter().map(|column| values(*column, family, classes)).collect();
        Self::of(schema::scan(family, columns), values)
    }
}

/// The empty values of a column.
fn values(column: Column, family: Family, classes: &[&str]) -> Box<dyn Values<Row>> {
    match column {
        Column::Saddr => addresses(family, |row: &Row| row.saddr),
        Column::Daddr => addresses(family, |row: &Row| row.daddr),
        Column::Sport => numbers::<_, UInt16Type>(|row: &Row| row.sport),
        Column::Dport => numbers::<_, UInt16Type>(|row: &Row| row.dport),
        Column::Seqnum => numbers::<_, UInt32Type>(|row: &Row| row.seqnum),
        Column::Acknum => numbers::<_, UInt32Type>(|row: &Row| row.acknum),
        Column::Window => numbers::<_, UInt16Type>(|row: &Row| row.window),
        Column::Ttl => numbers::<_, UInt8Type>(|row: &Row| row.ttl),
        Column::Ipid => numbers::<_, UInt16Type>(|row: &Row| row.ipid),
        Column::Classification if classes.is_empty() => texts(|row: &Row| Some(row.class.name())),
        Column::Classification => choices(classes, |row: &Row| match row.class {
            Class::OfProbe { index, .. } => Some(usize::from(index)),
            _ => None,
        }),
        Column::Success => bits(|row: &Row| Some(row.class.success())),
        Column::Repeat => bits(|row: &Row| Some(row.repeat)),
        Column::ProbeNum => numbers::<_, UInt16Type>(|row: &Row| row.probe_num),
        Column::Timestamp => times(|row: &Row| row.timestamp),
        Column::Rtt => optional::<_, Int64Type>(|row: &Row| row.rtt.and_then(|rtt| i64::try_from(rtt).ok())),
        Column::Cooldown => bits(|row: &Row| Some(row.cooldown)),
        Column::TcpoptMss => optional::<_, UInt16Type>(|row: &Row| row.tcp.map(|tcp| tcp.mss).filter(|mss| *mss != 0)),
        Column::TcpoptWscale => {
            optional::<_, UInt8Type>(|row: &Row| row.tcp.map(|tcp| tcp.wscale).filter(|scale| *scale != 255))
        }
        Column::TcpoptSackPerm => bits(|row: &Row| row.tcp.map(|tcp| tcp.bits & options::SACK_PERMITTED != 0)),
        Column::TcpoptTsVal => optional::<_, UInt32Type>(|row: &Row| timestamps(row).map(|tcp| tcp.ts_val)),
        Column::TcpoptTsEcr => optional::<_, UInt32Type>(|row: &Row| timestamps(row).map(|tcp| tcp.ts_ecr)),
        Column::IcmpType => optional::<_, UInt8Type>(|row: &Row| row.icmp.map(|icmp| icmp.kind)),
        Column::IcmpCode => optional::<_, UInt8Type>(|row: &Row| row.icmp.map(|icmp| icmp.code)),
        Column::IcmpUnreachStr => texts(move |row| unreachable(family, row)),
        Column::Data => payloads(|row: &Row| row.data),
        Column::SaddrRaw => addresses(family, move |row: &Row| raw(family, row.saddr)),
        Column::DaddrRaw => addresses(family, move |row: &Row| raw(family, row.daddr)),
        Column::TimestampStr => made(|row: &Row, text| times_of_zmap(row.timestamp, text)),
        Column::TimestampTs => numbers::<_, Int64Type>(second),
        Column::TimestampUs => numbers::<_, UInt32Type>(microsecond),
        Column::IcmpResponder => optional_addresses(family, responder),
        Column::OfProbe(field) => of_probe(field),
    }
}

/// The empty values of a field of one probe.
fn of_probe(field: ProbeField) -> Box<dyn Values<Row>> {
    let of = move |row: &Row, payload: &[u8]| field.of(row, payload);
    let place = |row: &Row| row.data;
    // Each is taken from as many bits as its type has.
    match field.data_type() {
        DataType::Boolean => read_bits(place, of),
        DataType::UInt8 => read::<_, UInt8Type>(place, of, |value| value as u8),
        DataType::UInt16 => read::<_, UInt16Type>(place, of, |value| value as u16),
        DataType::UInt32 => read::<_, UInt32Type>(place, of, |value| value as u32),
        _ => read::<_, UInt64Type>(place, of, |value| value),
    }
}

/// An address as ZMap's raw fields have it: the 32 bits of an IPv4 address as they are on the wire, read as a number by a
/// little-endian machine. 16 bytes are in the order of the wire already.
pub(crate) fn raw(family: Family, address: u128) -> u128 {
    match family {
        Family::V4 => (address as u32).swap_bytes().into(),
        Family::V6 => address,
    }
}

/// Whole seconds since 1970.
pub(crate) fn second(row: &Row) -> i64 {
    row.timestamp.div_euclid(1_000_000_000)
}

/// The microseconds beyond them.
pub(crate) fn microsecond(row: &Row) -> u32 {
    // Less than a million.
    (row.timestamp.rem_euclid(1_000_000_000) / 1000) as u32
}

/// Who sent an ICMP error.
pub(crate) fn responder(row: &Row) -> Option<u128> {
    (row.responder != 0).then_some(row.responder)
}

/// A time as ZMap writes it, `2026-11-25T18:47:03.123+0000`; its time zone is UTC here.
fn times_of_zmap(ns: i64, text: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{}", DateTime::from_timestamp_nanos(ns).format("%Y-%m-%dT%H:%M:%S%.3f+0000"));
}

pub(crate) fn timestamps(row: &Row) -> Option<TcpOptions> {
    row.tcp.filter(|tcp| tcp.bits & options::TIMESTAMPS != 0)
}

/// ZMap's words for the codes of ICMP destination unreachable (RFC 792, 1122, 1812; ICMPv6: RFC 4443).
pub(crate) fn unreachable(family: Family, row: &Row) -> Option<&'static str> {
    let Icmp { kind, code, .. } = row.icmp?;
    match (family, kind, code) {
        (Family::V4, 3, 0) | (Family::V6, 1, 0) => Some("network unreachable"),
        (Family::V4, 3, 1) | (Family::V6, 1, 3) => Some("host unreachable"),
        (Family::V4, 3, 2) => Some("protocol unreachable"),
        (Family::V4, 3, 3) | (Family::V6, 1, 4) => Some("port unreachable"),
        (Family::V4, 3, 4) => Some("fragments required"),
        (Family::V4, 3, 5) => Some("source route failed"),
        (Family::V4, 3, 6) => Some("network unknown"),
        (Family::V4, 3, 7) => Some("host unknown"),
        (Family::V4, 3, 8) => Some("source host isolated"),
        (Family::V4, 3, 9) => Some("network admin. prohibited"),
        (Family::V4, 3, 10) => Some("host admin. prohibited"),
        (Family::V4, 3, 11) => Some("network unreachable TOS"),
        (Family::V4, 3, 12) => Some("host unreachable TOS"),
        (Family::V4, 3, 13) | (Family::V6, 1, 1) => Some("communication admin. prohibited"),
        (Family::V4, 3, 14) => Some("host precedence violation"),
        (Family::V4, 3, 15) => Some("precedence cutoff in effect"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::UInt16Type;

    use super::*;

    const RENDERED: [Column; 7] = [
        Column::Saddr,
        Column::SaddrRaw,
        Column::DaddrRaw,
        Column::TimestampStr,
        Column::TimestampTs,
        Column::TimestampUs,
        Column::IcmpResponder,
    ];

    #[test]
    fn renderings_of_ipv4_are_zmaps() {
        let mut builder = RowBuilder::new(Family::V4, &RENDERED, &[]);
        let row = |timestamp, responder| Row {
            saddr: 0x0102_0304,
            daddr: 0xc633_6407,
            timestamp,
            responder,
            ..Row::default()
        };
        builder.append(&[row(1_795_467_691_123_999_999, 0), row(-1, 0x0a00_0001)], &[]);
        let batch = builder.take();
        let of32 = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<UInt32Type>().clone();
        assert_eq!(of32("saddr").value(0), 16_909_060);
        // As `inet_aton` has 1.2.3.4 on a little-endian machine.
        assert_eq!((of32("saddr_raw").value(0), of32("daddr_raw").value(0)), (67_305_985, 0x0764_33c6));
        let texts = batch.column_by_name("timestamp_str").unwrap().as_string::<i32>().clone();
        assert_eq!(
            texts.iter().flatten().collect::<Vec<_>>(),
            ["2026-11-23T21:01:31.123+0000", "1969-12-31T23:59:59.999+0000"]
        );
        let seconds = batch.column_by_name("timestamp_ts").unwrap().as_primitive::<Int64Type>().clone();
        assert_eq!(seconds.values().as_ref(), [1_795_467_691, -1]);
        assert_eq!(of32("timestamp_us").values().as_ref(), [123_999, 999_999]);
        assert_eq!(of32("icmp_responder").iter().collect::<Vec<_>>(), [None, Some(0x0a00_0001)]);
    }

    #[test]
    fn raw_addresses_of_ipv6_are_bytes() {
        let mut builder = RowBuilder::new(Family::V6, &RENDERED, &[]);
        let address = 0xfd00 << 112 | 1;
        builder.append(&[Row { saddr: address, responder: address, ..Row::default() }, Row::default()], &[]);
        let batch = builder.take();
        for name in ["saddr_raw", "icmp_responder"] {
            let column = batch.column_by_name(name).unwrap().as_fixed_size_binary().clone();
            assert_eq!(column.value(0), address.to_be_bytes());
        }
        assert!(batch.column_by_name("icmp_responder").unwrap().is_null(1));
    }

    #[test]
    fn fields_of_a_probe_are_read_from_each_rows_own_payload() {
        let columns = [Column::by_name("dns", "dns_id").unwrap(), Column::by_name("dns", "app_success").unwrap()];
        let mut builder = RowBuilder::new(Family::V4, &columns, &["dns"]);
        let row = |data| Row { data, class: Class::OfProbe { index: 0, success: true }, ..Row::default() };
        let mut payloads: Vec<u8> = (0..24).collect();
        payloads[3] = 0;
        builder.append(&[row(Some((0, 12))), row(None), row(Some((12, 24))), row(Some((12, 23)))], &payloads);
        let batch = builder.take();
        let ids = batch.column_by_name("dns_id").unwrap().as_primitive::<UInt16Type>().clone();
        assert_eq!(ids.iter().collect::<Vec<_>>(), [Some(0x0001), None, Some(0x0c0d), None]);
        let successes = batch.column_by_name("app_success").unwrap().as_boolean().clone();
        assert_eq!(successes.iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(false), Some(false)]);
    }
}
