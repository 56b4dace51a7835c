//! One column of rows in the making: values are taken from a few rows at a time, while those are in the first-level
//! cache, and become an Arrow array without being copied again.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, PrimitiveBuilder, StringBuilder};
use arrow_array::types::{ArrowPrimitiveType, Int64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{ArrayRef, FixedSizeBinaryArray, PrimitiveArray};
use irl_link::record::options;
use irl_targets::Family;

use crate::rows::{Row, TcpOptions};
use crate::schema::Column;

/// The values of a column, collected.
pub(crate) trait Values: Send {
    /// Takes the column's values of some rows, whose payloads are `data`.
    fn append(&mut self, rows: &[Row], data: &[u8]);

    /// What was collected, as an array; nothing is left.
    fn finish(&mut self) -> ArrayRef;
}

/// The empty values of a column.
pub(crate) fn values(column: Column, family: Family) -> Box<dyn Values> {
    match column {
        Column::Saddr => addresses(family, |row| row.saddr),
        Column::Daddr => addresses(family, |row| row.daddr),
        Column::Sport => numbers::<UInt16Type>(|row| row.sport),
        Column::Dport => numbers::<UInt16Type>(|row| row.dport),
        Column::Seqnum => numbers::<UInt32Type>(|row| row.seqnum),
        Column::Acknum => numbers::<UInt32Type>(|row| row.acknum),
        Column::Window => numbers::<UInt16Type>(|row| row.window),
        Column::Ttl => numbers::<UInt8Type>(|row| row.ttl),
        Column::Ipid => numbers::<UInt16Type>(|row| row.ipid),
        Column::Classification => texts(|row| Some(row.class.name())),
        Column::Success => bits(|row| Some(row.class.success())),
        Column::Repeat => bits(|row| Some(row.repeat)),
        Column::ProbeNum => numbers::<UInt16Type>(|row| row.probe_num),
        Column::Timestamp => Box::new(Times(numbers_of(|row| row.timestamp))),
        Column::Rtt => optional::<Int64Type>(|row| row.rtt.and_then(|rtt| i64::try_from(rtt).ok())),
        Column::Cooldown => bits(|row| Some(row.cooldown)),
        Column::TcpoptMss => optional::<UInt16Type>(|row| row.tcp.map(|tcp| tcp.mss).filter(|mss| *mss != 0)),
        Column::TcpoptWscale => {
            optional::<UInt8Type>(|row| row.tcp.map(|tcp| tcp.wscale).filter(|scale| *scale != 255))
        }
        Column::TcpoptSackPerm => bits(|row| row.tcp.map(|tcp| tcp.bits & options::SACK_PERMITTED != 0)),
        Column::TcpoptTsVal => optional::<UInt32Type>(|row| timestamps(row).map(|tcp| tcp.ts_val)),
        Column::TcpoptTsEcr => optional::<UInt32Type>(|row| timestamps(row).map(|tcp| tcp.ts_ecr)),
        Column::IcmpType => optional::<UInt8Type>(|row| row.icmp.map(|(kind, _)| kind)),
        Column::IcmpCode => optional::<UInt8Type>(|row| row.icmp.map(|(_, code)| code)),
        Column::IcmpUnreachStr => texts(move |row| unreachable(family, row)),
        Column::Data => Box::new(Payloads(BinaryBuilder::new())),
    }
}

struct Numbers<T: ArrowPrimitiveType, F> {
    values: Vec<T::Native>,
    of: F,
}

fn numbers_of<T: ArrowPrimitiveType, F: Fn(&Row) -> T::Native>(of: F) -> Numbers<T, F> {
    Numbers { values: Vec::new(), of }
}

fn numbers<T: ArrowPrimitiveType>(of: impl Fn(&Row) -> T::Native + Send + 'static) -> Box<dyn Values> {
    Box::new(numbers_of::<T, _>(of))
}

impl<T: ArrowPrimitiveType, F> Numbers<T, F> {
    fn array(&mut self) -> PrimitiveArray<T> {
        // As many come again.
        let next = Vec::with_capacity(self.values.len());
        PrimitiveArray::new(std::mem::replace(&mut self.values, next).into(), None)
    }
}

impl<T: ArrowPrimitiveType, F: Fn(&Row) -> T::Native + Send> Values for Numbers<T, F> {
    fn append(&mut self, rows: &[Row], _: &[u8]) {
        self.values.extend(rows.iter().map(&self.of));
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.array())
    }
}

/// Numbers that are UTC in ns.
struct Times<F>(Numbers<TimestampNanosecondType, F>);

impl<F: Fn(&Row) -> i64 + Send> Values for Times<F> {
    fn append(&mut self, rows: &[Row], data: &[u8]) {
        self.0.append(rows, data);
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.array().with_timezone("UTC"))
    }
}

struct Optional<T: ArrowPrimitiveType, F> {
    builder: PrimitiveBuilder<T>,
    of: F,
}

fn optional<T: ArrowPrimitiveType>(of: impl Fn(&Row) -> Option<T::Native> + Send + 'static) -> Box<dyn Values> {
    Box::new(Optional::<T, _> { builder: PrimitiveBuilder::new(), of })
}

impl<T: ArrowPrimitiveType, F: Fn(&Row) -> Option<T::Native> + Send> Values for Optional<T, F> {
    fn append(&mut self, rows: &[Row], _: &[u8]) {
        self.builder.extend(rows.iter().map(&self.of));
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

struct Bits<F> {
    builder: BooleanBuilder,
    of: F,
}

fn bits(of: impl Fn(&Row) -> Option<bool> + Send + 'static) -> Box<dyn Values> {
    Box::new(Bits { builder: BooleanBuilder::new(), of })
}

impl<F: Fn(&Row) -> Option<bool> + Send> Values for Bits<F> {
    fn append(&mut self, rows: &[Row], _: &[u8]) {
        self.builder.extend(rows.iter().map(&self.of));
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

struct Texts<F> {
    builder: StringBuilder,
    of: F,
}

fn texts(of: impl Fn(&Row) -> Option<&'static str> + Send + 'static) -> Box<dyn Values> {
    Box::new(Texts { builder: StringBuilder::new(), of })
}

impl<F: Fn(&Row) -> Option<&'static str> + Send> Values for Texts<F> {
    fn append(&mut self, rows: &[Row], _: &[u8]) {
        self.builder.extend(rows.iter().map(&self.of));
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

fn addresses(family: Family, of: impl Fn(&Row) -> u128 + Send + 'static) -> Box<dyn Values> {
    match family {
        Family::V4 => numbers::<UInt32Type>(move |row| of(row) as u32),
        Family::V6 => Box::new(Addresses6 { bytes: Vec::new(), of }),
    }
}

/// IPv6 addresses, 16 bytes each.
struct Addresses6<F> {
    bytes: Vec<u8>,
    of: F,
}

impl<F: Fn(&Row) -> u128 + Send> Values for Addresses6<F> {
    fn append(&mut self, rows: &[Row], _: &[u8]) {
        for row in rows {
            self.bytes.extend_from_slice(&(self.of)(row).to_be_bytes());
        }
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(FixedSizeBinaryArray::new(16, std::mem::take(&mut self.bytes).into(), None))
    }
}

struct Payloads(BinaryBuilder);

impl Values for Payloads {
    fn append(&mut self, rows: &[Row], data: &[u8]) {
        self.0.extend(rows.iter().map(|row| row.data.and_then(|(start, end)| data.get(start..end))));
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
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
