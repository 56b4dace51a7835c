//! Values as text: a column at a time is made ready, and then written cell by cell.

use std::fmt::Write as _;
use std::io::Write;
use std::net::Ipv6Addr;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, BinaryArray, BooleanArray, FixedSizeBinaryArray, StringArray};
use arrow_buffer::NullBuffer;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, TimeUnit};
use chrono::DateTime;
use irl_targets::Family;

/// The columns that are written as addresses.
const ADDRESSES: [&str; 3] = ["saddr", "daddr", "icmp_responder"];
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
    U64(&'a [u64]),
    I64(&'a [i64]),
    Bool(&'a BooleanArray),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Time {
        values: &'a [i64],
        prefix: Prefix,
    },
    /// A further column of a list, of whatever type.
    Further {
        formatter: ArrayFormatter<'a>,
        number: bool,
        text: String,
    },
    /// The same, of a type that has no text.
    Unknown,
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
            DataType::UInt32 if family == Family::V4 && ADDRESSES.contains(&name) => {
                Values::Address4(array.as_primitive::<UInt32Type>().values())
            }
            DataType::FixedSizeBinary(16) if ADDRESSES.contains(&name) => {
                Values::Address6(array.as_fixed_size_binary())
            }
            DataType::UInt8 => Values::U8(array.as_primitive::<UInt8Type>().values()),
            DataType::UInt16 => Values::U16(array.as_primitive::<UInt16Type>().values()),
            DataType::UInt32 => Values::U32(array.as_primitive::<UInt32Type>().values()),
            DataType::UInt64 => Values::U64(array.as_primitive::<UInt64Type>().values()),
            DataType::Int64 => Values::I64(array.as_primitive::<Int64Type>().values()),
            DataType::Boolean => Values::Bool(array.as_boolean()),
            DataType::Binary => Values::Bytes(array.as_binary()),
            DataType::Timestamp(TimeUnit::Nanosecond, Some(zone)) if &**zone == "UTC" => {
                let values = array.as_primitive::<TimestampNanosecondType>().values();
                Values::Time { values, prefix: Prefix::default() }
            }
            DataType::Utf8 => Values::Text(array.as_string()),
            other => match ArrayFormatter::try_new(array, &FormatOptions::new()) {
                Ok(formatter) => Values::Further { formatter, number: other.is_numeric(), text: String::new() },
                Err(_) => Values::Unknown,
            },
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
            Values::U64(values) => number(line, values[row]),
            Values::I64(values) => number(line, values[row]),
            Values::Text(array) => text(line, array.value(row), json),
            Values::Further { formatter, number, text: cell } => {
                cell.clear();
                // Writing to a string cannot fail.
                let _ = write!(cell, "{}", formatter.value(row));
                let digits = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
                // Not every number is one of JSON's: there is NaN.
                if *number && cell.bytes().all(digits) {
                    line.extend_from_slice(cell.as_bytes());
                } else {
                    text(line, cell, json);
                }
            }
            Values::Unknown => line.extend_from_slice(if json { b"null" } else { b"" }),
            Values::Bool(array) if json => line.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Values::Bool(array) => line.push(b'0' + u8::from(array.value(row))),
            quoted => {
                // None of these has a character that would need an escape.
                if json {
                    line.push(b'"');
                }
                quoted.bare(line, row);
                if json {
                    line.push(b'"');
                }
            }
        }
    }
}

impl Values<'_> {
    fn bare(&mut self, line: &mut Vec<u8>, row: usize) {
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
            // The others are written where it is known whether they are quoted.
            _ => {}
        }
    }
}

/// Text that may hold anything: in JSON escaped, in CSV quoted where it has to be (RFC 4180).
#[inline]
fn text(line: &mut Vec<u8>, text: &str, json: bool) {
    if json {
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(line, text);
    } else if text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        line.push(b'"');
        line.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        line.push(b'"');
    } else {
        line.extend_from_slice(text.as_bytes());
    }
}

#[inline]
fn number(line: &mut Vec<u8>, value: impl itoa::Integer) {
    line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        ArrayRef, Date32Array, FixedSizeBinaryArray, Float64Array, LargeStringArray, TimestampNanosecondArray,
        TimestampSecondArray, UInt32Array,
    };

    use super::*;

    #[test]
    fn further_columns_are_written_whatever_they_hold() {
        let array = |bytes: &[u8]| FixedSizeBinaryArray::try_from_iter([bytes].into_iter()).expect("one value");
        for (array, csv, json) in [
            (Arc::new(StringArray::from(vec!["a,\"b\"\n"])) as ArrayRef, "\"a,\"\"b\"\"\n\"", r#""a,\"b\"\n""#),
            (Arc::new(LargeStringArray::from(vec!["x,y"])), "\"x,y\"", "\"x,y\""),
            (Arc::new(Float64Array::from(vec![1.5])), "1.5", "1.5"),
            (Arc::new(Float64Array::from(vec![f64::NAN])), "NaN", "\"NaN\""),
            (Arc::new(Date32Array::from(vec![1])), "1970-01-02", "\"1970-01-02\""),
            (Arc::new(TimestampSecondArray::from(vec![1])), "1970-01-01T00:00:01", "\"1970-01-01T00:00:01\""),
            (Arc::new(array(&[1, 0xab])), "01ab", "\"01ab\""),
            (Arc::new(array(&[0; 16])), &"00".repeat(16), &format!("\"{}\"", "00".repeat(16))),
            (Arc::new(UInt32Array::from(vec![16909060])), "16909060", "16909060"),
        ] {
            let mut cells = Cells::new(&array, "tag", Family::V4);
            let (mut plain, mut object) = (Vec::new(), Vec::new());
            cells.write(&mut plain, 0, false);
            cells.write(&mut object, 0, true);
            assert_eq!((String::from_utf8_lossy(&plain), String::from_utf8_lossy(&object)), (csv.into(), json.into()));
        }
    }

    #[test]
    fn times_are_written_as_rfc_3339_to_the_nanosecond() {
        let times = [0, 1, 999_999_999, 1_000_000_000, 1_795_467_691_123_456_789, -1];
        let array = TimestampNanosecondArray::from(times.to_vec()).with_timezone("UTC");
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
