//! CSV, JSON lines and plain lines: each batch is in the file when [`Sink::write`] returns.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use chrono::{DateTime, SecondsFormat};
use irl_targets::Family;

use super::{Format, Sink};
use crate::error::MeasureError;

/// A text output.
pub(super) struct Text {
    path: PathBuf,
    out: BufWriter<Box<dyn Write + Send>>,
    format: Format,
    family: Family,
    names: Vec<String>,
}

impl Text {
    pub(super) fn open(
        path: PathBuf,
        format: Format,
        family: Family,
        schema: &SchemaRef,
        header: bool,
    ) -> Result<Self, MeasureError> {
        let inner: Box<dyn Write + Send> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(&path).map_err(|error| MeasureError::output(&path, error))?)
        };
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut text = Self { path, out: BufWriter::with_capacity(1 << 16, inner), format, family, names };
        if format == Format::Csv && header {
            let line = text.names.join(",");
            writeln!(text.out, "{line}").and_then(|()| text.out.flush()).map_err(|error| text.failed(error))?;
        }
        Ok(text)
    }

    fn failed(&self, error: io::Error) -> MeasureError {
        MeasureError::output(&self.path, error)
    }

    fn rows(&mut self, batch: &RecordBatch) -> io::Result<()> {
        let columns: Vec<Cells<'_>> =
            batch.columns().iter().zip(&self.names).map(|(array, name)| Cells::new(array, name, self.family)).collect();
        let mut line = Vec::with_capacity(256);
        for row in 0..batch.num_rows() {
            line.clear();
            match self.format {
                Format::Lines => columns[0].write(&mut line, row, false)?,
                Format::JsonLines => {
                    line.push(b'{');
                    for (column, name) in columns.iter().zip(&self.names) {
                        if line.len() > 1 {
                            line.push(b',');
                        }
                        write!(line, "\"{name}\":")?;
                        column.write(&mut line, row, true)?;
                    }
                    line.push(b'}');
                }
                _ => {
                    for (number, column) in columns.iter().enumerate() {
                        if number > 0 {
                            line.push(b',');
                        }
                        column.write(&mut line, row, false)?;
                    }
                }
            }
            line.push(b'\n');
            self.out.write_all(&line)?;
        }
        self.out.flush()
    }
}

impl Sink for Text {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), MeasureError> {
        self.rows(batch).map_err(|error| self.failed(error))
    }

    fn finish(mut self: Box<Self>, _metadata: &str) -> Result<(), MeasureError> {
        self.out.flush().map_err(|error| self.failed(error))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// A column, ready to be written cell by cell.
enum Cells<'a> {
    Address4(&'a [u32]),
    Address6(&'a arrow_array::FixedSizeBinaryArray),
    U8(&'a arrow_array::UInt8Array),
    U16(&'a arrow_array::UInt16Array),
    U32(&'a arrow_array::UInt32Array),
    I64(&'a arrow_array::Int64Array),
    Bool(&'a arrow_array::BooleanArray),
    Text(&'a arrow_array::StringArray),
    Time(&'a arrow_array::TimestampNanosecondArray),
}

impl<'a> Cells<'a> {
    fn new(array: &'a dyn Array, name: &str, family: Family) -> Self {
        match array.data_type() {
            DataType::UInt32 if family == Family::V4 && matches!(name, "saddr" | "daddr") => {
                Self::Address4(array.as_primitive::<UInt32Type>().values())
            }
            DataType::FixedSizeBinary(_) => Self::Address6(array.as_fixed_size_binary()),
            DataType::UInt8 => Self::U8(array.as_primitive::<UInt8Type>()),
            DataType::UInt16 => Self::U16(array.as_primitive::<UInt16Type>()),
            DataType::UInt32 => Self::U32(array.as_primitive::<UInt32Type>()),
            DataType::Int64 => Self::I64(array.as_primitive::<Int64Type>()),
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Timestamp(..) => Self::Time(array.as_primitive::<TimestampNanosecondType>()),
            // The schema module has no other types.
            _ => Self::Text(array.as_string::<i32>()),
        }
    }

    fn write(&self, line: &mut Vec<u8>, row: usize, json: bool) -> io::Result<()> {
        fn number(line: &mut Vec<u8>, value: impl itoa::Integer) {
            line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
        let null = match self {
            Self::Address4(_) | Self::Address6(_) => false,
            Self::U8(array) => array.is_null(row),
            Self::U16(array) => array.is_null(row),
            Self::U32(array) => array.is_null(row),
            Self::I64(array) => array.is_null(row),
            Self::Bool(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Time(array) => array.is_null(row),
        };
        if null {
            line.extend_from_slice(if json { b"null" } else { b"" });
            return Ok(());
        }
        let quote: &[u8] = if json { b"\"" } else { b"" };
        match self {
            Self::Address4(values) => {
                line.extend_from_slice(quote);
                write!(line, "{}", Ipv4Addr::from_bits(values[row]))?;
                line.extend_from_slice(quote);
            }
            Self::Address6(array) => {
                let octets: [u8; 16] = array.value(row).try_into().map_err(io::Error::other)?;
                line.extend_from_slice(quote);
                write!(line, "{}", Ipv6Addr::from(octets))?;
                line.extend_from_slice(quote);
            }
            Self::U8(array) => number(line, array.value(row)),
            Self::U16(array) => number(line, array.value(row)),
            Self::U32(array) => number(line, array.value(row)),
            Self::I64(array) => number(line, array.value(row)),
            // ZMap's booleans are 0 and 1 in CSV, and true and false in JSON.
            Self::Bool(array) if json => write!(line, "{}", array.value(row))?,
            Self::Bool(array) => line.push(b'0' + u8::from(array.value(row))),
            Self::Text(array) => {
                line.extend_from_slice(quote);
                line.extend_from_slice(array.value(row).as_bytes());
                line.extend_from_slice(quote);
            }
            Self::Time(array) => {
                let time = DateTime::from_timestamp_nanos(array.value(row));
                line.extend_from_slice(quote);
                write!(line, "{}", time.to_rfc3339_opts(SecondsFormat::Nanos, true))?;
                line.extend_from_slice(quote);
            }
        }
        Ok(())
    }
}
