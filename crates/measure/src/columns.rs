//! Rows in the making, column by column: values are taken from a few rows at a time, while those are in the first-level
//! cache, and become Arrow arrays without being copied again.

use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, PrimitiveBuilder, StringBuilder,
};
use arrow_array::types::{ArrowPrimitiveType, TimestampNanosecondType, UInt32Type};
use arrow_array::{ArrayRef, FixedSizeBinaryArray, PrimitiveArray, RecordBatch};
use arrow_schema::SchemaRef;
use irl_targets::Family;

/// The values of a column of rows `R`, collected.
pub(crate) trait Values<R>: Send {
    /// Takes the column's values of some rows, whose payloads are `data`.
    fn append(&mut self, rows: &[R], data: &[u8]);

    /// What was collected, as an array; nothing is left.
    fn finish(&mut self) -> ArrayRef;
}

/// Where the payload of a row lies among those of the rows beside it.
pub(crate) type Place = (usize, usize);

/// Collects rows in columns and turns them into batches.
pub struct RowBuilder<R> {
    columns: Vec<Box<dyn Values<R>>>,
    len: usize,
    /// Bytes of payloads.
    data: usize,
    schema: SchemaRef,
}

impl<R> RowBuilder<R> {
    /// A batch is handed over when it has so many rows: few enough for the second-level cache of whoever reads them.
    const FULL: usize = 16_384;
    /// Or so many bytes of payloads.
    const FULL_DATA: usize = 16 << 20;

    /// For these columns, of which the schema tells.
    pub(crate) fn of(schema: SchemaRef, columns: Vec<Box<dyn Values<R>>>) -> Self {
        Self { columns, len: 0, data: 0, schema }
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
    pub(crate) fn append(&mut self, rows: &[R], data: &[u8]) {
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

struct Numbers<T: ArrowPrimitiveType, F> {
    values: Vec<T::Native>,
    of: F,
}

fn numbers_of<R, T: ArrowPrimitiveType, F: Fn(&R) -> T::Native>(of: F) -> Numbers<T, F> {
    Numbers { values: Vec::new(), of }
}

/// Numbers that are always there.
pub(crate) fn numbers<R, T: ArrowPrimitiveType>(of: impl Fn(&R) -> T::Native + Send + 'static) -> Box<dyn Values<R>> {
    Box::new(numbers_of::<R, T, _>(of))
}

impl<T: ArrowPrimitiveType, F> Numbers<T, F> {
    fn array(&mut self) -> PrimitiveArray<T> {
        // As many come again.
        let next = Vec::with_capacity(self.values.len());
        PrimitiveArray::new(std::mem::replace(&mut self.values, next).into(), None)
    }
}

impl<R, T: ArrowPrimitiveType, F: Fn(&R) -> T::Native + Send> Values<R> for Numbers<T, F> {
    fn append(&mut self, rows: &[R], _: &[u8]) {
        self.values.extend(rows.iter().map(&self.of));
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.array())
    }
}

/// UTC in ns.
pub(crate) fn times<R>(of: impl Fn(&R) -> i64 + Send + 'static) -> Box<dyn Values<R>> {
    Box::new(Times(numbers_of(of)))
}

/// Numbers that are UTC in ns.
struct Times<F>(Numbers<TimestampNanosecondType, F>);

impl<R, F: Fn(&R) -> i64 + Send> Values<R> for Times<F> {
    fn append(&mut self, rows: &[R], data: &[u8]) {
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

/// Numbers that may be missing.
pub(crate) fn optional<R, T: ArrowPrimitiveType>(
    of: impl Fn(&R) -> Option<T::Native> + Send + 'static,
) -> Box<dyn Values<R>> {
    Box::new(Optional::<T, _> { builder: PrimitiveBuilder::new(), of })
}

impl<R, T: ArrowPrimitiveType, F: Fn(&R) -> Option<T::Native> + Send> Values<R> for Optional<T, F> {
    fn append(&mut self, rows: &[R], _: &[u8]) {
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

/// Booleans.
pub(crate) fn bits<R>(of: impl Fn(&R) -> Option<bool> + Send + 'static) -> Box<dyn Values<R>> {
    Box::new(Bits { builder: BooleanBuilder::new(), of })
}

impl<R, F: Fn(&R) -> Option<bool> + Send> Values<R> for Bits<F> {
    fn append(&mut self, rows: &[R], _: &[u8]) {
        // Not by `extend`, which makes an array of them first.
        for row in rows {
            self.builder.append_option((self.of)(row));
        }
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

struct Texts<F> {
    builder: StringBuilder,
    of: F,
}

/// Words of a fixed set.
pub(crate) fn texts<R>(of: impl Fn(&R) -> Option<&'static str> + Send + 'static) -> Box<dyn Values<R>> {
    Box::new(Texts { builder: StringBuilder::new(), of })
}

impl<R, F: Fn(&R) -> Option<&'static str> + Send> Values<R> for Texts<F> {
    fn append(&mut self, rows: &[R], _: &[u8]) {
        self.builder.extend(rows.iter().map(&self.of));
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

/// Some of these words, which are known when the run begins; an empty one where there is none.
pub(crate) fn choices<R>(words: &[&str], of: impl Fn(&R) -> Option<usize> + Send + 'static) -> Box<dyn Values<R>> {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    Box::new(Choices { words, builder: StringBuilder::new(), of })
}

struct Choices<F> {
    words: Vec<String>,
    builder: StringBuilder,
    of: F,
}

impl<R, F: Fn(&R) -> Option<usize> + Send> Values<R> for Choices<F> {
    fn append(&mut self, rows: &[R], _: &[u8]) {
        for row in rows {
            let word = (self.of)(row).and_then(|index| self.words.get(index));
            self.builder.append_value(word.map_or("", String::as_str));
        }
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

/// Texts that are made row by row, each written by `of` to the end of what is there.
pub(crate) fn made<R>(of: impl Fn(&R, &mut String) + Send + 'static) -> Box<dyn Values<R>> {
    Box::new(Made { builder: StringBuilder::new(), text: String::new(), of })
}

struct Made<F> {
    builder: StringBuilder,
    text: String,
    of: F,
}

impl<R, F: Fn(&R, &mut String) + Send> Values<R> for Made<F> {
    fn append(&mut self, rows: &[R], _: &[u8]) {
        for row in rows {
            self.text.clear();
            (self.of)(row, &mut self.text);
            self.builder.append_value(&self.text);
        }
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

/// Numbers that are read from a row and its payload, and may be missing.
pub(crate) fn read<R, T: ArrowPrimitiveType>(
    place: impl Fn(&R) -> Option<Place> + Send + 'static,
    of: impl Fn(&R, &[u8]) -> Option<u64> + Send + 'static,
    narrowed: fn(u64) -> T::Native,
) -> Box<dyn Values<R>> {
    let append =
        move |builder: &mut PrimitiveBuilder<T>, value: Option<u64>| builder.append_option(value.map(narrowed));
    Box::new(Read { builder: PrimitiveBuilder::new(), place, of, append })
}

/// The same that are 0 or 1.
pub(crate) fn read_bits<R>(
    place: impl Fn(&R) -> Option<Place> + Send + 'static,
    of: impl Fn(&R, &[u8]) -> Option<u64> + Send + 'static,
) -> Box<dyn Values<R>> {
    let append = |builder: &mut BooleanBuilder, value: Option<u64>| builder.append_option(value.map(|bit| bit != 0));
    Box::new(Read { builder: BooleanBuilder::new(), place, of, append })
}

struct Read<B, P, F, A> {
    builder: B,
    place: P,
    of: F,
    append: A,
}

impl<R, B, P, F, A> Values<R> for Read<B, P, F, A>
where
    B: ArrayBuilder,
    P: Fn(&R) -> Option<Place> + Send,
    F: Fn(&R, &[u8]) -> Option<u64> + Send,
    A: Fn(&mut B, Option<u64>) + Send,
{
    fn append(&mut self, rows: &[R], data: &[u8]) {
        for row in rows {
            let payload = payload(data, (self.place)(row));
            (self.append)(&mut self.builder, (self.of)(row, payload));
        }
    }

    fn finish(&mut self) -> ArrayRef {
        self.builder.finish()
    }
}

/// The payload at a place; an empty one where there is none.
pub(crate) fn payload(data: &[u8], place: Option<Place>) -> &[u8] {
    place.and_then(|(start, end)| data.get(start..end)).unwrap_or_default()
}

/// Addresses of a family that may be missing.
pub(crate) fn optional_addresses<R>(
    family: Family,
    of: impl Fn(&R) -> Option<u128> + Send + 'static,
) -> Box<dyn Values<R>> {
    match family {
        Family::V4 => optional::<_, UInt32Type>(move |row| of(row).map(|address| address as u32)),
        Family::V6 => Box::new(OptionalAddresses6 { builder: FixedSizeBinaryBuilder::new(16), of }),
    }
}

struct OptionalAddresses6<F> {
    builder: FixedSizeBinaryBuilder,
    of: F,
}

impl<R, F: Fn(&R) -> Option<u128> + Send> Values<R> for OptionalAddresses6<F> {
    fn append(&mut self, rows: &[R], _: &[u8]) {
        for row in rows {
            match (self.of)(row) {
                // An address has as many bytes as the column.
                Some(address) => {
                    self.builder.append_value(address.to_be_bytes()).unwrap_or_else(|_| self.builder.append_null())
                }
                None => self.builder.append_null(),
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

/// Addresses of a family.
pub(crate) fn addresses<R>(family: Family, of: impl Fn(&R) -> u128 + Send + 'static) -> Box<dyn Values<R>> {
    match family {
        Family::V4 => numbers::<_, UInt32Type>(move |row| of(row) as u32),
        Family::V6 => Box::new(Addresses6 { bytes: Vec::new(), of }),
    }
}

/// IPv6 addresses, 16 bytes each.
struct Addresses6<F> {
    bytes: Vec<u8>,
    of: F,
}

impl<R, F: Fn(&R) -> u128 + Send> Values<R> for Addresses6<F> {
    fn append(&mut self, rows: &[R], _: &[u8]) {
        for row in rows {
            self.bytes.extend_from_slice(&(self.of)(row).to_be_bytes());
        }
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(FixedSizeBinaryArray::new(16, std::mem::take(&mut self.bytes).into(), None))
    }
}

/// Payloads, by their places.
pub(crate) fn payloads<R>(of: impl Fn(&R) -> Option<Place> + Send + 'static) -> Box<dyn Values<R>> {
    Box::new(Payloads { builder: BinaryBuilder::new(), of })
}

struct Payloads<F> {
    builder: BinaryBuilder,
    of: F,
}

impl<R, F: Fn(&R) -> Option<Place> + Send> Values<R> for Payloads<F> {
    fn append(&mut self, rows: &[R], data: &[u8]) {
        self.builder.extend(rows.iter().map(|row| (self.of)(row).and_then(|(start, end)| data.get(start..end))));
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}
