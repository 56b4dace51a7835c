//! Values as text: a column at a time is made ready, and then written cell by cell.

use std::io::Write;
use std::net::Ipv6Addr;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{Array, BinaryArray, BooleanArray, FixedSizeBinaryArray, StringArray};
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;
use chrono::DateTime;
use irl_targets::Family;

const NS_PER_S: i64 = 1_000_000_000;

/// A column, ready to be written cell by cell.
pub(super) struct Cells<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Address4(&'a [u32]),
    Address6(&'a FixedSizeBinaryArray),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    I64(&'a [i64]),
    Bool(&'a BooleanArray),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Time { values: &'a [i64], prefix: Prefix },
}

/// The part of a time before its fraction, for the second it was last made for: answers come in the order of time.
#[derive(Default)]
struct Prefix {
    second: Option<i64>,
    text: String,
}

impl Prefix {
    fn of(&mut self, second: i64) -> &[u8] {
        if self.second != Some(second) {
            self.second = Some(second);
            let time = DateTime::from_timestamp(second, 0).unwrap_or_default();
            self.text = time.format("%Y-%m-%dT%H:%M:%S.").to_string();
        }
        self.text.as_bytes()
    }
}

impl<'a> Cells<'a> {
    pub(super) fn new(array: &'a dyn Array, name: &str, family: Family) -> Self {
        let values = match array.data_type() {
            DataType::UInt32 if family == Family::V4 && matches!(name, "saddr" | "daddr") => {
                Values::Address4(array.as_primitive::<UInt32Type>().values())
            }
            DataType::FixedSizeBinary(_) => Values::Address6(array.as_fixed_size_binary()),
            DataType::UInt8 => Values::U8(array.as_primitive::<UInt8Type>().values()),
            DataType::UInt16 => Values::U16(array.as_primitive::<UInt16Type>().values()),
            DataType::UInt32 => Values::U32(array.as_primitive::<UInt32Type>().values()),
            DataType::Int64 => Values::I64(array.as_primitive::<Int64Type>().values()),
            DataType::Boolean => Values::Bool(array.as_boolean()),
            DataType::Binary => Values::Bytes(array.as_binary()),
            DataType::Timestamp(..) => {
                let values = array.as_primitive::<TimestampNanosecondType>().values();
                Values::Time { values, prefix: Prefix::default() }
            }
            // The schema module has no other types.
            _ => Values::Text(array.as_string()),
        };
        Self { nulls: array.nulls(), values }
    }

    /// Appends a cell: in CSV nothing for null and 0 or 1 for a boolean, as ZMap writes them; bytes in hexadecimal.
    pub(super) fn write(&mut self, line: &mut Vec<u8>, row: usize, json: bool) {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            line.extend_from_slice(if json { b"null" } else { b"" });
            return;
        }
        match &mut self.values {
            Values::U8(values) => number(line, values[row]),
            Values::U16(values) => number(line, values[row]),
            Values::U32(values) => number(line, values[row]),
            Values::I64(values) => number(line, values[row]),
            Values::Bool(array) if json => line.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Values::Bool(array) => line.push(b'0' + u8::from(array.value(row))),
            quoted => {
                // None of these has a character that would need an escape.
                if json {
                    line.push(b'"');
                }
                quoted.text(line, row);
                if json {
                    line.push(b'"');
                }
            }
        }
    }
}

impl Values<'_> {
    fn text(&mut self, line: &mut Vec<u8>, row: usize) {
        match self {
            Self::Address4(values) => {
                let [a, b, c, d] = values[row].to_be_bytes();
                number(line, a);
                for octet in [b, c, d] {
                    line.push(b'.');
                    number(line, octet);
                }
            }
            Self::Address6(array) => {
                let octets: [u8; 16] = array.value(row).try_into().unwrap_or_default();
                // Writing to memory cannot fail.
                let _ = write!(line, "{}", Ipv6Addr::from(octets));
            }
            Self::Text(array) => line.extend_from_slice(array.value(row).as_bytes()),
            Self::Bytes(array) => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                line.extend(
                    array
                        .value(row)
                        .iter()
                        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
                );
            }
            Self::Time { values, prefix } => {
                line.extend_from_slice(prefix.of(values[row].div_euclid(NS_PER_S)));
                let mut fraction = values[row].rem_euclid(NS_PER_S);
                let mut digits = *b"000000000Z";
                for digit in digits[..9].iter_mut().rev() {
                    *digit = b'0' + (fraction % 10) as u8;
                    fraction /= 10;
                }
                line.extend_from_slice(&digits);
            }
            // Numbers and booleans are written without quotes.
            Self::U8(_) | Self::U16(_) | Self::U32(_) | Self::I64(_) | Self::Bool(_) => {}
        }
    }
}

#[inline]
fn number(line: &mut Vec<u8>, value: impl itoa::Integer) {
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use arrow_array::TimestampNanosecondArray;

    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_to_the_nanosecond() {
        let times = [0, 1, 999_999_999, 1_000_000_000, 1_795_467_691_123_456_789, -1];
        let array = TimestampNanosecondArray::from(times.to_vec());
        let mut cells = Cells::new(&array, "timestamp", Family::V4);
        let mut line = Vec::new();
        for (row, ns) in times.into_iter().enumerate() {
            line.clear();
            cells.write(&mut line, row, false);
            let expected = DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
            assert_eq!(String::from_utf8_lossy(&line), expected);
        }
    }
}
