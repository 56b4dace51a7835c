//! Answers as columns: collected per worker, handed over as Arrow batches.

use std::sync::Arc;

use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt8Array,
    UInt16Array, UInt32Array,
};
use arrow_schema::SchemaRef;
use irl_link::record::options;
use irl_targets::Family;

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
}

impl Class {
    /// ZMap's word.
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
        matches!(self, Self::SynAck | Self::EchoReply | Self::Udp)
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
    /// Where [`RowBuilder`] keeps the payload of a UDP answer.
    pub(crate) data: Option<(usize, usize)>,
}

/// Collects rows and turns them into batches.
#[derive(Debug)]
pub struct RowBuilder {
    rows: Vec<Row>,
    /// Payloads, one behind the other.
    data: Vec<u8>,
    family: Family,
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl RowBuilder {
    /// A batch is handed over when it has so many rows.
    const FULL: usize = 65_536;
    /// Or so many bytes of payloads.
    const FULL_DATA: usize = 16 << 20;

    /// For these columns.
    pub fn new(family: Family, columns: &[Column]) -> Self {
        Self {
            rows: Vec::new(),
            data: Vec::new(),
            family,
            columns: columns.to_vec(),
            schema: schema::scan(family, columns),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether a batch is due.
    pub fn is_full(&self) -> bool {
        self.rows.len() >= Self::FULL || self.data.len() >= Self::FULL_DATA
    }

    /// Collects a row, and the payload if it has one.
    #[inline]
    pub fn push(&mut self, mut row: Row, data: Option<&[u8]>) {
        if let Some(data) = data {
            row.data = Some((self.data.len(), self.data.len() + data.len()));
            self.data.extend_from_slice(data);
        }
        self.rows.push(row);
    }

    /// What was collected, as a batch; the builder is empty afterwards and keeps its memory.
    pub fn take(&mut self) -> RecordBatch {
        let arrays = self.columns.iter().map(|column| array(*column, self.family, &self.rows, &self.data)).collect();
        self.rows.clear();
        self.data.clear();
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .expect("every array has the schema's type and one value a row")
    }
}

fn array(column: Column, family: Family, rows: &[Row], data: &[u8]) -> ArrayRef {
    let addresses = |of: fn(&Row) -> u128| -> ArrayRef {
        match family {
            Family::V4 => Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| of(row) as u32))),
            Family::V6 => {
                let mut builder = FixedSizeBinaryBuilder::with_capacity(rows.len(), 16);
                for row in rows {
                    builder.append_value(of(row).to_be_bytes()).expect("16 bytes each");
                }
                Arc::new(builder.finish())
            }
        }
    };
    let u8s = |of: fn(&Row) -> u8| -> ArrayRef { Arc::new(UInt8Array::from_iter_values(rows.iter().map(of))) };
    let u16s = |of: fn(&Row) -> u16| -> ArrayRef { Arc::new(UInt16Array::from_iter_values(rows.iter().map(of))) };
    let u32s = |of: fn(&Row) -> u32| -> ArrayRef { Arc::new(UInt32Array::from_iter_values(rows.iter().map(of))) };
    let bools =
        |of: fn(&Row) -> bool| -> ArrayRef { Arc::new(BooleanArray::from(rows.iter().map(of).collect::<Vec<_>>())) };
    match column {
        Column::Saddr => addresses(|row| row.saddr),
        Column::Daddr => addresses(|row| row.daddr),
        Column::Sport => u16s(|row| row.sport),
        Column::Dport => u16s(|row| row.dport),
        Column::Seqnum => u32s(|row| row.seqnum),
        Column::Acknum => u32s(|row| row.acknum),
        Column::Window => u16s(|row| row.window),
        Column::Ttl => u8s(|row| row.ttl),
        Column::Ipid => u16s(|row| row.ipid),
        Column::Classification => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.class.name()))),
        Column::Success => bools(|row| row.class.success()),
        Column::Repeat => bools(|row| row.repeat),
        Column::ProbeNum => u16s(|row| row.probe_num),
        Column::Timestamp => Arc::new(
            TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.timestamp)).with_timezone("UTC"),
        ),
        Column::Rtt => {
            Arc::new(rows.iter().map(|row| row.rtt.and_then(|rtt| i64::try_from(rtt).ok())).collect::<Int64Array>())
        }
        Column::Cooldown => bools(|row| row.cooldown),
        Column::TcpoptMss => {
            Arc::new(rows.iter().map(|row| row.tcp.map(|t| t.mss).filter(|mss| *mss != 0)).collect::<UInt16Array>())
        }
        Column::TcpoptWscale => Arc::new(
            rows.iter().map(|row| row.tcp.map(|t| t.wscale).filter(|scale| *scale != 255)).collect::<UInt8Array>(),
        ),
        Column::TcpoptSackPerm => Arc::new(
            rows.iter().map(|row| row.tcp.map(|t| t.bits & options::SACK_PERMITTED != 0)).collect::<BooleanArray>(),
        ),
        Column::TcpoptTsVal => {
            Arc::new(rows.iter().map(|row| timestamps(row).map(|t| t.ts_val)).collect::<UInt32Array>())
        }
        Column::TcpoptTsEcr => {
            Arc::new(rows.iter().map(|row| timestamps(row).map(|t| t.ts_ecr)).collect::<UInt32Array>())
        }
        Column::IcmpType => Arc::new(rows.iter().map(|row| row.icmp.map(|(kind, _)| kind)).collect::<UInt8Array>()),
        Column::IcmpCode => Arc::new(rows.iter().map(|row| row.icmp.map(|(_, code)| code)).collect::<UInt8Array>()),
        Column::IcmpUnreachStr => Arc::new(rows.iter().map(|row| unreachable(family, row)).collect::<StringArray>()),
        Column::Data => {
            Arc::new(rows.iter().map(|row| row.data.map(|(start, end)| &data[start..end])).collect::<BinaryArray>())
        }
    }
}

fn timestamps(row: &Row) -> Option<TcpOptions> {
    row.tcp.filter(|tcp| tcp.bits & options::TIMESTAMPS != 0)
}

/// ZMap's words for the codes of ICMP destination unreachable (RFC 792, 1122, 1812; ICMPv6: RFC 4443).
fn unreachable(family: Family, row: &Row) -> Option<&'static str> {
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
