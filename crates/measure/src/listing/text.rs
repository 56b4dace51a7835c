//! Lists as text: CSV with a header, lines of `address` or `address:port`, and ZGrab2's `ip,domain,tag,port`.

use std::io::BufReader;
use std::net::Ipv4Addr;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::StringBuilder;
use arrow_schema::{DataType, Field, Fields};
use irl_targets::parse_target;

use super::batch::Batch;
use super::names::Names;
use super::records::{Bytes, Next, Records};
use super::sieve::{Address, Sieve};
use crate::error::MeasureError;

/// Rows of a batch, at most.
const ROWS: usize = 8192;
/// ZGrab2's fields, where there is no header.
const ZGRAB: [&str; 4] = ["ip", "domain", "tag", "port"];

/// A list of text that is read in batches.
pub(super) struct Text {
    records: Records,
    sieve: Sieve,
    layout: Layout,
    /// The first record is a row, and was not taken.
    first: Option<u64>,
    ended: bool,
}

struct Layout {
    names: Names,
    /// How many fields a row has; [`Layout::least`] where it may have fewer.
    fields: usize,
    least: usize,
    further: Vec<usize>,
    columns: Fields,
}

impl Layout {
    /// Of columns that a header names.
    fn of_header(header: &[&str], request: Option<&str>, list: &str) -> Result<Self, MeasureError> {
        let names = Names::find(header, request, list)?;
        Ok(Self::new(header, names, header.len()))
    }

    /// Of a list without header whose first row has so many fields.
    fn without_header(fields: usize, request: Option<&str>, list: &str) -> Result<Self, MeasureError> {
        let names = if fields == 1 { &ZGRAB[..1] } else { &ZGRAB[..] };
        Ok(Self::new(names, Names::find(names, request, list)?, 1))
    }

    fn new(header: &[&str], names: Names, least: usize) -> Self {
        let further = names.further(header.len());
        let columns = further.iter().map(|column| Field::new(header[*column].trim(), DataType::Utf8, true)).collect();
        Self { names, fields: header.len(), least, further, columns }
    }
}

impl Text {
    /// Reads the first record, which tells what the list is like. `request` names the column of requests.
    ///
    /// # Errors
    /// [`MeasureError::Config`] where it is neither a target nor a header with a column of addresses, and
    /// [`MeasureError::Input`].
    pub(super) fn open(reader: Bytes, sieve: Sieve, request: Option<&str>) -> Result<Self, MeasureError> {
        let mut records = Records::new(BufReader::with_capacity(1 << 18, reader));
        let list = &sieve.list;
        let number = loop {
            match records.next().map_err(|source| MeasureError::input(list, source))? {
                Next::Record(number) => break number,
                Next::Bad(line, reason) => sieve.bad("line", line, reason),
                Next::End => return Err(MeasureError::Config(format!("{list} is empty: name a target a line"))),
            }
        };
        let fields: Vec<&str> = records.fields().collect();
        let (layout, first) = if fields.iter().any(|field| Names::is_address(field)) {
            (Layout::of_header(&fields, request, list)?, None)
        } else if fields.len() <= ZGRAB.len() && parse_target(fields[0]).is_ok() {
            (Layout::without_header(fields.len(), request, list)?, Some(number))
        } else {
            return Err(MeasureError::Config(format!(
                "line {number} of {list} is neither a target nor a header: a list has a header that names a column ip, \
                 address or saddr, or lines of 192.0.2.7, 192.0.2.7:80 or ip,domain,tag,port"
            )));
        };
        Ok(Self { records, sieve, layout, first, ended: false })
    }

    /// The further columns.
    pub(super) fn columns(&self) -> &Fields {
        &self.layout.columns
    }

    /// Which column is which.
    pub(super) fn names(&self) -> &Names {
        &self.layout.names
    }

    /// Takes the record into the batch.
    fn row(
        &self,
        number: u64,
        batch: &mut Batch,
        builders: &mut [StringBuilder],
        row: usize,
    ) -> Result<bool, MeasureError> {
        self.sieve.row();
        let Layout { names, fields, least, further, .. } = &self.layout;
        let there = self.records.len();
        if there > *fields || there < *least {
            let reason = match (least == fields, *fields) {
                (true, _) => format!("it has {there} fields where the header has {fields}"),
                (false, 1) => format!("it has {there} fields where the first line has one"),
                (false, _) => format!("it has {there} fields where ip,domain,tag,port are {fields}"),
            };
            self.sieve.bad("line", number, &reason);
            return Ok(false);
        }
        let field = |column: usize| if column < there { self.records.field(column) } else { "" };
        let read = || {
            let (address, own) = target(field(names.address).trim())?;
            let port = port(names.port.map(field).unwrap_or_default().trim())?;
            Ok((address, port.or(own)))
        };
        let (address, port) = match read() {
            Ok(target) => target,
            Err(reason) => {
                let reason: String = reason;
                self.sieve.bad("line", number, &reason);
                return Ok(false);
            }
        };
        let kept = self.sieve.keep(batch, address, port, row)?;
        if kept {
            for (builder, column) in builders.iter_mut().zip(further) {
                // Text has no other null than nothing.
                builder.append_option(Some(field(*column)).filter(|value| !value.is_empty()));
            }
        }
        Ok(kept)
    }

    /// The next batch; `None` at the end.
    fn batch(&mut self) -> Result<Option<Batch>, MeasureError> {
        let most = self.sieve.rows_of_batch(ROWS);
        let mut batch = Batch::new(self.sieve.family());
        let mut builders: Vec<StringBuilder> = self.layout.further.iter().map(|_| StringBuilder::new()).collect();
        let mut rows = 0;
        // What has come goes on its way, and does not wait for what has not.
        while rows < most && !self.ended && (rows == 0 || self.records.is_next_there()) {
            let number = match self.first.take() {
                Some(number) => number,
                None => match self.records.next().map_err(|source| MeasureError::input(&self.sieve.list, source))? {
                    Next::Record(number) => number,
                    Next::Bad(line, reason) => {
                        self.sieve.row();
                        self.sieve.bad("line", line, reason);
                        continue;
                    }
                    Next::End => {
                        self.ended = true;
                        break;
                    }
                },
            };
            match self.row(number, &mut batch, &mut builders, rows) {
                Ok(kept) => rows += usize::from(kept),
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        batch.further = builders.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef).collect();
        batch.shrink();
        Ok((batch.len() > 0).then_some(batch))
    }
}

impl Iterator for Text {
    type Item = Result<Batch, MeasureError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended { None } else { self.batch().transpose() }
    }
}

/// Reads an address, alone or with a port, or as the integer that scans have in Arrow.
pub(super) fn target(text: &str) -> Result<(Address, Option<u16>), String> {
    if text.is_empty() {
        return Err("it names no address; names are not resolved here".to_owned());
    }
    if let Ok(bits) = text.parse::<u32>() {
        return Ok((Address::of(Ipv4Addr::from_bits(bits).into()), None));
    }
    let (family, target) = parse_target(text).map_err(|error| error.to_string())?;
    Ok((Address { family, bits: target.address }, Some(target.port).filter(|port| *port != 0)))
}

/// Reads a port; there is none in empty text.
pub(super) fn port(text: &str) -> Result<Option<u16>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let port = text.parse().ok().filter(|port| *port != 0);
    port.map(Some).ok_or_else(|| format!("{text:?} is no port; ports are 1 to 65535"))
}
