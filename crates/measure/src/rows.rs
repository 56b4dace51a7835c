//! Answers as columns: collected per worker, handed over as Arrow batches.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use irl_targets::Family;

use crate::columns::{Values, values};
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
    /// Where the payload of a UDP answer lies among those of the rows beside it.
    pub(crate) data: Option<(usize, usize)>,
    /// The target's number in the answered map.
    pub(crate) slot: u64,
    /// The number of our address.
    pub(crate) builder: usize,
}

/// Collects rows in columns and turns them into batches.
pub struct RowBuilder {
    columns: Vec<Box<dyn Values>>,
    len: usize,
    /// Bytes of payloads.
    data: usize,
    schema: SchemaRef,
}

impl RowBuilder {
    /// A batch is handed over when it has so many rows: few enough for the second-level cache of whoever reads them.
    const FULL: usize = 16_384;
    /// Or so many bytes of payloads.
    const FULL_DATA: usize = 16 << 20;

    /// For these columns.
    pub fn new(family: Family, columns: &[Column]) -> Self {
        Self {
            columns: columns.iter().map(|column| values(*column, family)).collect(),
            len: 0,
            data: 0,
            schema: schema::scan(family, columns),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a batch is due.
    pub fn is_full(&self) -> bool {
        self.len >= Self::FULL || self.data >= Self::FULL_DATA
    }

    /// Collects rows, whose payloads are `data`: a few at a time, because every column looks at all of them.
    pub(crate) fn append(&mut self, rows: &[Row], data: &[u8]) {
        for column in &mut self.columns {
            column.append(rows, data);
        }
        self.len += rows.len();
        self.data += data.len();
    }

    /// What was collected, as a batch; the builder is empty afterwards.
    pub fn take(&mut self) -> RecordBatch {
        let arrays = self.columns.iter_mut().map(|column| column.finish()).collect();
        self.len = 0;
        self.data = 0;
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .expect("every array has the schema's type and one value a row")
    }
}
