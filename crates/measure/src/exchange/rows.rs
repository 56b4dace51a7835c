//! Exchanges as columns, and beside them what the list says further about each target.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::{Int64Type, UInt16Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{ArrowError, Fields, SchemaRef};
use arrow_select::interleave::interleave;
use irl_targets::Family;

use super::schema::{self, Column};
use super::status::Ending;
use crate::columns::{self, Place, Values, addresses, bits, numbers, optional, payloads, texts, times};

/// Rows that are put into columns together.
const TOGETHER: usize = 32;

/// One exchange.
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
    /// UTC in ns.
    pub timestamp: i64,
    /// How it ended.
    pub ending: Ending,
    /// Where the response lies among those of the rows beside it.
    pub(super) response: Option<Place>,
}

/// Where the further columns of a row are: a row of a batch of the list.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The batch's number, by which it is told from others.
    pub number: u32,
    /// Its further columns.
    pub columns: &'a [ArrayRef],
    /// The row.
    pub row: u32,
}

/// Collects exchanges in columns and turns them into batches.
pub struct RowBuilder {
    schema: SchemaRef,
    ours: columns::RowBuilder<Row>,
    further: Further,
    /// Rows on their way into the columns, and their responses.
    rows: Vec<Row>,
    responses: Vec<u8>,
}

impl RowBuilder {
    /// For these columns, and after them the list's further ones.
    pub fn new(family: Family, columns: &[Column], further: &Fields) -> Self {
        let values = columns.iter().map(|column| values(*column, family)).collect();
        Self {
            schema: schema::exchange(family, columns, further),
            ours: columns::RowBuilder::of(schema::exchange(family, columns, &Fields::empty()), values),
            further: Further { columns: further.len(), ..Further::default() },
            rows: Vec::with_capacity(TOGETHER),
            responses: Vec::new(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ours.is_empty() && self.rows.is_empty()
    }

    /// Whether a batch is due.
    pub fn is_full(&self) -> bool {
        self.ours.is_full()
    }

    /// Collects a row, with its response where there was a connection, and with its source where it is of a list.
    pub fn push(&mut self, row: Row, response: Option<&[u8]>, source: Option<Source<'_>>) {
        let response = response.map(|bytes| {
            let start = self.responses.len();
            self.responses.extend_from_slice(bytes);
            (start, self.responses.len())
        });
        self.rows.push(Row { response, ..row });
        if let Some(source) = source {
            self.further.push(source);
        }
        if self.rows.len() >= TOGETHER {
            self.settle();
        }
    }

    /// What was collected, as a batch; the builder is empty afterwards.
    ///
    /// # Errors
    /// [`ArrowError`] where the texts of a further column are more than an array of its type holds.
    pub fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        self.settle();
        let mut arrays = self.ours.take().columns().to_vec();
        arrays.extend(self.further.take()?);
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
    }

    fn settle(&mut self) {
        self.ours.append(&self.rows, &self.responses);
        self.rows.clear();
        self.responses.clear();
    }
}

/// The further columns of rows in the making.
#[derive(Default)]
struct Further {
    /// How many there are.
    columns: usize,
    /// The batches that the rows are of, and where each is by its number.
    batches: Vec<Vec<ArrayRef>>,
    places: HashMap<u32, usize>,
    /// For each row its batch, and its row there.
    rows: Vec<(usize, usize)>,
}

impl Further {
    fn push(&mut self, source: Source<'_>) {
        let batch = *self.places.entry(source.number).or_insert_with(|| {
            self.batches.push(source.columns.to_vec());
            self.batches.len() - 1
        });
        self.rows.push((batch, source.row as usize));
    }

    fn take(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        let batches = std::mem::take(&mut self.batches);
        self.places.clear();
        let arrays = (0..self.columns).map(|column| {
            let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch[column].as_ref()).collect();
            interleave(&arrays, &self.rows)
        });
        let arrays = arrays.collect();
        self.rows.clear();
        arrays
    }
}

/// The empty values of a column.
fn values(column: Column, family: Family) -> Box<dyn Values<Row>> {
    let ns = |ns: Option<u64>| ns.and_then(|ns| i64::try_from(ns).ok());
    match column {
        Column::Saddr => addresses(family, |row: &Row| row.saddr),
        Column::Daddr => addresses(family, |row: &Row| row.daddr),
        Column::Sport => numbers::<_, UInt16Type>(|row: &Row| row.sport),
        Column::Dport => numbers::<_, UInt16Type>(|row: &Row| row.dport),
        Column::Timestamp => times(|row: &Row| row.timestamp),
        Column::Status => texts(|row: &Row| Some(row.ending.status.name())),
        Column::Stage => texts(|row: &Row| Some(row.ending.stage.name())),
        Column::ConnectNs => optional::<_, Int64Type>(move |row: &Row| ns(row.ending.connect_ns)),
        Column::FirstByteNs => optional::<_, Int64Type>(move |row: &Row| ns(row.ending.first_byte_ns)),
        Column::CloseNs => optional::<_, Int64Type>(move |row: &Row| ns(row.ending.close_ns)),
        Column::Retransmits => numbers::<_, UInt16Type>(|row: &Row| row.ending.retransmits),
        Column::ClosedBy => texts(|row: &Row| row.ending.closed_by.map(|by| by.name())),
        Column::Bytes => numbers::<_, UInt64Type>(|row: &Row| row.ending.bytes),
        Column::Truncated => bits(|row: &Row| Some(row.ending.truncated)),
        Column::Response => payloads(|row: &Row| row.response),
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::{Int32Array, StringArray};
    use arrow_schema::{DataType, Field};

    use super::*;
    use crate::exchange::status::{ClosedBy, Stage, Status};

    #[test]
    fn rows_keep_their_order_responses_and_further_columns() {
        let further =
            Fields::from(vec![Field::new("tag", DataType::Utf8, true), Field::new("number", DataType::Int32, false)]);
        let lists: Vec<Vec<ArrayRef>> = (0..3)
            .map(|list| -> Vec<ArrayRef> {
                let tag = |row: i32| (row % 3 > 0).then(|| format!("tag {list} {row}"));
                vec![
                    Arc::new((0..40).map(tag).collect::<StringArray>()),
                    Arc::new((0..40).map(|row| list * 100 + row).collect::<Int32Array>()),
                ]
            })
            .collect();
        let mut builder = RowBuilder::new(Family::V4, &Column::ALL, &further);
        for round in 0..2 {
            assert!(builder.is_empty());
            // From the last row of the last list to the first.
            for number in (0..120u32).rev() {
                let (list, row) = (number / 40, number % 40);
                let source = Source { number: list + 7, columns: &lists[list as usize], row };
                let response = (row > 0).then(|| vec![number as u8; row as usize - 1]);
                let at = Row { saddr: u128::from(number), sport: 80, ..Row::default() };
                builder.push(at, response.as_deref(), Some(source));
            }
            let batch = builder.take().expect("it fits");
            assert_eq!(batch.num_rows(), 120, "round {round}");
            let saddr = batch["saddr"].as_primitive::<arrow_array::types::UInt32Type>();
            let response = batch["response"].as_binary::<i32>();
            let tag = batch["tag"].as_string::<i32>();
            let value = batch["number"].as_primitive::<arrow_array::types::Int32Type>();
            for place in 0..120 {
                let number = saddr.value(place);
                let (list, row) = (number / 40, number % 40);
                assert_eq!(number as usize, 119 - place);
                assert_eq!(value.value(place) as u32, list * 100 + row);
                assert_eq!(tag.is_null(place), row % 3 == 0);
                assert!(row % 3 == 0 || tag.value(place) == format!("tag {list} {row}"));
                assert_eq!(response.is_null(place), row == 0);
                assert!(row == 0 || response.value(place) == vec![number as u8; row as usize - 1]);
            }
        }
    }

    #[test]
    fn a_row_says_how_it_ended() {
        let mut builder = RowBuilder::new(Family::V6, &Column::ALL, &Fields::empty());
        let refused = Ending {
            status: Status::ConnectionRefused,
            stage: Stage::Connect,
            closed_by: Some(ClosedBy::Peer),
            close_ns: Some(5),
            ..Ending::default()
        };
        builder.push(Row { ending: refused, ..Row::default() }, None, None);
        builder.push(
            Row { ending: Ending { connect_ns: Some(9), bytes: 3, ..refused }, ..Row::default() },
            Some(b""),
            None,
        );
        let batch = builder.take().expect("it fits");
        let text = |name| batch[name].as_string::<i32>().value(0).to_owned();
        let words = ["status", "stage", "closed_by"].map(text);
        assert_eq!(words, ["connection-refused", "connect", "peer"]);
        let connect = batch["connect_ns"].as_primitive::<Int64Type>();
        assert!(connect.is_null(0) && connect.value(1) == 9);
        assert_eq!(batch["close_ns"].as_primitive::<Int64Type>().values(), &[5, 5]);
        assert_eq!(batch["bytes"].as_primitive::<UInt64Type>().values(), &[0, 3]);
        let response = batch["response"].as_binary::<i32>();
        assert!(response.is_null(0) && response.value(1).is_empty() && response.is_valid(1));
    }
}
