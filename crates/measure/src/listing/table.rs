//! Lists as Arrow: Parquet files, and whatever hands over record batches.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt16Type;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchReader};
use arrow_cast::cast;
use arrow_schema::{DataType, Fields, Schema};

use super::batch::{self, Batch};
use super::names::Names;
use super::sieve::{Address, Sieve};
use super::text;
use crate::error::MeasureError;

/// Rows of a batch, at most.
pub(super) const ROWS: usize = 8192;

/// A list of record batches.
pub(super) struct Table {
    reader: Box<dyn RecordBatchReader + Send>,
    sieve: Sieve,
    names: Names,
    further: Vec<usize>,
    columns: Fields,
    /// What was read of the reader and not taken.
    rest: Option<RecordBatch>,
    /// Rows before it.
    before: u64,
    ended: bool,
}

impl Table {
    /// `request` names the column of requests.
    ///
    /// # Errors
    /// [`MeasureError::Config`] where there is no column of addresses.
    pub(super) fn open(
        reader: Box<dyn RecordBatchReader + Send>,
        sieve: Sieve,
        request: Option<&str>,
    ) -> Result<Self, MeasureError> {
        let schema = reader.schema();
        let fields: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let names = Names::find(&fields, request, &sieve.list)?;
        types(&schema, &names, &sieve.list)?;
        let further = names.further(fields.len());
        let columns = further.iter().map(|column| Arc::clone(&schema.fields()[*column])).collect();
        Ok(Self { reader, sieve, names, further, columns, rest: None, before: 0, ended: false })
    }

    /// The further columns.
    pub(super) fn columns(&self) -> &Fields {
        &self.columns
    }

    /// Which column is which.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// The next rows; `None` at the end.
    fn rows(&mut self) -> Result<Option<RecordBatch>, MeasureError> {
        let most = self.sieve.rows_of_batch(ROWS);
        let rows = match self.rest.take() {
            Some(rest) => rest,
            None => match self.reader.next().transpose() {
                Ok(Some(rows)) => rows,
                Ok(None) => return Ok(None),
                Err(error) => return Err(MeasureError::input(&self.sieve.list, std::io::Error::other(error))),
            },
        };
        if rows.num_rows() <= most {
            return Ok(Some(rows));
        }
        self.rest = Some(rows.slice(most, rows.num_rows() - most));
        Ok(Some(rows.slice(0, most)))
    }

    fn batch(&mut self) -> Result<Option<Batch>, MeasureError> {
        loop {
            let Some(rows) = self.rows()? else { return Ok(None) };
            let batch = self.sift(&rows)?;
            self.before += rows.num_rows() as u64;
            if batch.len() > 0 {
                return Ok(Some(batch));
            }
        }
    }

    fn sift(&self, rows: &RecordBatch) -> Result<Batch, MeasureError> {
        let failed = |error| MeasureError::input(&self.sieve.list, std::io::Error::other(error));
        let addresses = rows.column(self.names.address);
        let integers = addresses.data_type().is_integer();
        // What is no address or port of that width becomes null, and with that a row that is no target.
        let addresses =
            if integers { cast(addresses, &DataType::UInt32).map_err(failed)? } else { Arc::clone(addresses) };
        let ports = match self.names.port.map(|port| rows.column(port)) {
            Some(ports) if ports.data_type().is_integer() => Some(cast(ports, &DataType::UInt16).map_err(failed)?),
            ports => ports.cloned(),
        };
        let mut batch = Batch::new(self.sieve.family());
        for row in 0..rows.num_rows() {
            self.sieve.row();
            let named = match (&ports, self.names.port) {
                (Some(ports), Some(column)) => port(ports, rows.column(column), row),
                _ => Ok(None),
            };
            let target = named.and_then(|port| {
                let (address, own) = address(&addresses, row)?;
                Ok((address, port.or(own)))
            });
            match target {
                Ok((address, port)) => {
                    self.sieve.keep(&mut batch, address, port, row)?;
                }
                Err(reason) => self.sieve.bad("row", self.before + row as u64 + 1, &reason),
            }
        }
        batch.further = self.further.iter().map(|column| Arc::clone(rows.column(*column))).collect();
        batch.shrink();
        Ok(batch)
    }
}

impl Iterator for Table {
    type Item = Result<Batch, MeasureError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let batch = self.batch();
        self.ended = !matches!(batch, Ok(Some(_)));
        batch.transpose()
    }
}

/// Whether addresses, ports and requests are of types that can be read.
fn types(schema: &Schema, names: &Names, list: &str) -> Result<(), MeasureError> {
    let texts = |of: &DataType| matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let check = |column: usize, good: bool, wanted: &str| {
        let field = schema.field(column);
        match good {
            true => Ok(()),
            false => Err(MeasureError::Config(format!(
                "column {} of {list} is of type {}: it has to be {wanted}",
                field.name(),
                field.data_type()
            ))),
        }
    };
    let of = |column: usize| schema.field(column).data_type();
    let address = of(names.address);
    let good = texts(address)
        || address.is_integer()
        || is_binary(address)
        || matches!(address, DataType::FixedSizeBinary(16));
    check(names.address, good, "text, integers (IPv4) or 16 bytes (IPv6)")?;
    if let Some(port) = names.port {
        check(port, of(port).is_integer() || texts(of(port)), "integers or text")?;
    }
    if let Some(request) = names.request {
        check(request, texts(of(request)) || is_binary(of(request)), "text or binary")?;
    }
    Ok(())
}

fn address(addresses: &ArrayRef, row: usize) -> Result<(Address, Option<u16>), String> {
    if addresses.is_null(row) {
        return Err("it names no address".to_owned());
    }
    match addresses.data_type() {
        DataType::UInt32 => {
            let bits = addresses.as_primitive::<arrow_array::types::UInt32Type>().value(row);
            Ok((Address::of(Ipv4Addr::from_bits(bits).into()), None))
        }
        DataType::FixedSizeBinary(_) => {
            let octets = <[u8; 16]>::try_from(addresses.as_fixed_size_binary().value(row)).unwrap_or_default();
            Ok((Address::of(Ipv6Addr::from(octets).into()), None))
        }
        of if is_binary(of) => {
            let octets = <[u8; 16]>::try_from(batch::bytes(addresses, row).unwrap_or_default());
            let octets = octets.map_err(|_| "its address is not of 16 bytes".to_owned())?;
            Ok((Address::of(Ipv6Addr::from(octets).into()), None))
        }
        _ => text::target(batch::text(addresses, row).unwrap_or_default().trim()),
    }
}

/// The port of a row, if it names one: `original` tells null from what became so.
fn port(ports: &ArrayRef, original: &ArrayRef, row: usize) -> Result<Option<u16>, String> {
    if original.is_null(row) {
        return Ok(None);
    }
    if ports.data_type() == &DataType::UInt16 {
        let wrong = || "its port is not one of 0 to 65535".to_owned();
        let port = ports.is_valid(row).then(|| ports.as_primitive::<UInt16Type>().value(row)).ok_or_else(wrong)?;
        return Ok(Some(port).filter(|port| *port != 0));
    }
    text::port(batch::text(ports, row).unwrap_or_default().trim())
}

fn is_binary(of: &DataType) -> bool {
    matches!(of, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}
