//! Answers as columns: collected per worker, handed over as Arrow batches.

use arrow_array::types::{Int64Type, UInt8Type, UInt16Type, UInt32Type};
use irl_link::record::options;
use irl_targets::Family;

use crate::columns::{self, Place, Values, addresses, bits, choices, numbers, optional, payloads, texts, times};
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
    /// Type and code, of ICMP answers.
    pub icmp: Option<(u8, u8)>,
    /// Where the payload of a UDP answer lies among those of the rows beside it.
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
        Column::IcmpType => optional::<_, UInt8Type>(|row: &Row| row.icmp.map(|(kind, _)| kind)),
        Column::IcmpCode => optional::<_, UInt8Type>(|row: &Row| row.icmp.map(|(_, code)| code)),
        Column::IcmpUnreachStr => texts(move |row| unreachable(family, row)),
        Column::Data => payloads(|row: &Row| row.data),
    }
}

pub(crate) fn timestamps(row: &Row) -> Option<TcpOptions> {
    row.tcp.filter(|tcp| tcp.bits & options::TIMESTAMPS != 0)
}

/// ZMap's words for the codes of ICMP destination unreachable (RFC 792, 1122, 1812; ICMPv6: RFC 4443).
pub(crate) fn unreachable(family: Family, row: &Row) -> Option<&'static str> {
    let (kind, code) = row.icmp?;
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
