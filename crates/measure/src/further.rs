//! Further columns of a scan: what a program makes of its answers, a batch at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow_array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use arrow_select::concat::concat;
use irl_targets::Family;
use irl_wire::Probe;
use irl_wire::probe::FieldType;

use crate::error::MeasureError;
use crate::schema::{self, Column};

/// Makes columns of a batch.
pub trait Parse: Send + Sync {
    /// The columns of the probe's fields, in their order, each in any number of pieces; or why there are none.
    ///
    /// # Errors
    /// In words for whoever wrote the program.
    fn parse(&self, batch: &RecordBatch) -> Result<Vec<Vec<ArrayRef>>, String>;
}

/// Where an output column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pick {
    /// A column of what a program is given, by its index.
    Given(usize),
    /// A field of the probe, by its index.
    Made(usize),
}

/// Which columns there are, and in what order.
#[derive(Clone, Debug)]
pub struct Layout {
    probe: String,
    fields: Vec<Field>,
    given: Vec<Column>,
    picks: Vec<Pick>,
}

impl Layout {
    /// That of a probe with fields of its own: the columns of these names, or the default ones and all fields.
    ///
    /// # Errors
    /// [`MeasureError::Config`] when there is no such column, or a field has the name of another column.
    pub fn of(probe: &Probe, names: Option<&[String]>) -> Result<Self, MeasureError> {
        check_fields(probe)?;
        let fields: Vec<Field> =
            probe.fields().iter().map(|field| Field::new(&field.name, data_type(field.kind), true)).collect();
        // A program is given what it may need, whether that is written down or not.
        let mut given = Column::defaults().to_vec();
        given.push(Column::Data);
        let made = |name: &str| fields.iter().position(|field| field.name() == name).map(Pick::Made);
        let mut picks = Vec::new();
        match names {
            None => {
                picks.extend((0..Column::defaults().len()).map(Pick::Given));
                picks.extend((0..fields.len()).map(Pick::Made));
            }
            Some([star]) if star == "*" => {
                given = Column::ALL.to_vec();
                picks.extend((0..given.len()).map(Pick::Given));
                picks.extend((0..fields.len()).map(Pick::Made));
            }
            Some([]) => return Err(MeasureError::Config("name at least one output field".to_owned())),
            Some(names) => {
                for name in names {
                    if let Some(pick) = made(name) {
                        picks.push(pick);
                        continue;
                    }
                    let column = Column::by_name(probe.name(), name)?;
                    let index = given.iter().position(|each| *each == column).unwrap_or_else(|| {
                        given.push(column);
                        given.len() - 1
                    });
                    picks.push(Pick::Given(index));
                }
            }
        }
        Ok(Self { probe: probe.name().to_owned(), fields, given, picks })
    }

    /// The columns that a program is given.
    pub fn given(&self) -> &[Column] {
        &self.given
    }

    /// The schema of what comes out.
    pub fn schema(&self, family: Family) -> SchemaRef {
        let given = schema::scan(family, &self.given);
        let field = |pick: &Pick| match pick {
            Pick::Given(index) => given.field(*index).clone(),
            Pick::Made(index) => self.fields[*index].clone(),
        };
        let fields: Vec<Field> = self.picks.iter().map(field).collect();
        Arc::new(Schema::new_with_metadata(fields, given.metadata().clone()))
    }
}

/// Refuses fields that have the name of another column, or of one another.
///
/// # Errors
/// [`MeasureError::Config`] naming it.
pub fn check_fields(probe: &Probe) -> Result<(), MeasureError> {
    for (index, field) in probe.fields().iter().enumerate() {
        let taken = Column::ALL.iter().any(|column| column.name() == field.name)
            || probe.fields()[..index].iter().any(|other| other.name == field.name);
        if taken {
            return Err(MeasureError::Config(format!(
                "the field {} of the probe {} has the name of another column: give it one of its own",
                field.name,
                probe.name()
            )));
        }
    }
    Ok(())
}

fn data_type(kind: FieldType) -> DataType {
    match kind {
        FieldType::Bool => DataType::Boolean,
        FieldType::Uint8 => DataType::UInt8,
        FieldType::Uint16 => DataType::UInt16,
        FieldType::Uint32 => DataType::UInt32,
        FieldType::Uint64 => DataType::UInt64,
        FieldType::Int64 => DataType::Int64,
        FieldType::Float64 => DataType::Float64,
        FieldType::Utf8 => DataType::Utf8,
        FieldType::Binary => DataType::Binary,
    }
}

/// A program and the layout of what it makes.
pub struct Further {
    layout: Layout,
    schema: SchemaRef,
    parse: Box<dyn Parse>,
    failed: AtomicBool,
}

impl Further {
    /// A program that makes the layout's fields.
    pub fn new(layout: Layout, family: Family, parse: Box<dyn Parse>) -> Self {
        Self { schema: layout.schema(family), layout, parse, failed: AtomicBool::new(false) }
    }

    /// The schema of what comes out.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The batch with its fields. No row is lost when the program fails: from then on the fields are null, and the
    /// program is asked no more. The error is told once.
    pub(crate) fn extend(&self, batch: &RecordBatch) -> (RecordBatch, Option<MeasureError>) {
        let made = if self.failed.load(Ordering::Acquire) { Err(None) } else { self.made(batch).map_err(Some) };
        let (made, error) = match made {
            Ok(made) => (made, None),
            Err(why) => {
                self.failed.store(true, Ordering::Release);
                let nulls = |field: &Field| new_null_array(field.data_type(), batch.num_rows());
                let error = why.map(|why| MeasureError::Parse { probe: self.layout.probe.clone(), why });
                (self.layout.fields.iter().map(nulls).collect(), error)
            }
        };
        let column = |pick: &Pick| match pick {
            Pick::Given(index) => Arc::clone(batch.column(*index)),
            Pick::Made(index) => Arc::clone(&made[*index]),
        };
        let columns = self.layout.picks.iter().map(column).collect();
        let batch = RecordBatch::try_new(self.schema(), columns)
            .expect("what was made has the fields' types, and one value a row");
        (batch, error)
    }

    fn made(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, String> {
        let made = self.parse.parse(batch)?;
        let fields = &self.layout.fields;
        if made.len() != fields.len() {
            return Err(format!("it made {} columns where {} were declared", made.len(), fields.len()));
        }
        let whole = |(field, pieces): (&Field, Vec<ArrayRef>)| {
            let array = joined(field, &pieces)?;
            if array.len() != batch.num_rows() {
                let (has, rows) = (array.len(), batch.num_rows());
                return Err(format!("the field {} has {has} values where the batch has {rows} rows", field.name()));
            }
            Ok(array)
        };
        fields.iter().zip(made).map(whole).collect()
    }
}

/// One array of the field's type.
fn joined(field: &Field, pieces: &[ArrayRef]) -> Result<ArrayRef, String> {
    let wrong = |error: ArrowError| format!("the field {} is not {}: {error}", field.name(), field.data_type());
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut cast = Vec::new();
    for piece in pieces {
        if !is_alike(piece.data_type(), field.data_type()) {
            let (is, wanted) = (piece.data_type(), field.data_type());
            return Err(format!("the field {} is {is} where {wanted} was declared", field.name()));
        }
        cast.push(cast_with_options(piece, field.data_type(), &options).map_err(wrong)?);
    }
    match cast.as_slice() {
        [] => Ok(new_null_array(field.data_type(), 0)),
        [one] => Ok(Arc::clone(one)),
        many => concat(&many.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>()).map_err(wrong),
    }
}

/// Whether values of one type mean the same in the other; whether each fits is seen one by one.
fn is_alike(from: &DataType, to: &DataType) -> bool {
    let text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match (from, to) {
        (DataType::Null, _) => true,
        (DataType::Dictionary(_, value), to) => is_alike(value, to),
        (from, DataType::Utf8) => text(from),
        (from, DataType::Binary) => matches!(
            from,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
        ),
        (from, DataType::Float64) => from.is_numeric(),
        (from, to) if to.is_integer() => from.is_integer(),
        (from, to) => from == to,
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::UInt8Type;
    use arrow_array::{Int64Array, StringArray, UInt32Array};

    use super::*;
    use crate::rows::{Row, RowBuilder};

    struct Makes(Result<Vec<Vec<ArrayRef>>, String>);

    impl Parse for Makes {
        fn parse(&self, _: &RecordBatch) -> Result<Vec<Vec<ArrayRef>>, String> {
            self.0.clone()
        }
    }

    fn probe(fields: &str) -> Probe {
        let args = [("name", "mine"), ("protocol", "udp"), ("match", "+mine:"), ("fields", fields)];
        let args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Probe::resolve("own", &args).unwrap()
    }

    /// Two rows, and what a program makes of them.
    fn extended(made: Result<Vec<Vec<ArrayRef>>, String>) -> (Further, RecordBatch, Option<String>) {
        let layout = Layout::of(&probe("level uint8"), Some(&["sport".to_owned(), "level".to_owned()])).unwrap();
        let mut rows = RowBuilder::new(Family::V4, layout.given(), &["mine"]);
        rows.append(&[Row { sport: 1, ..Row::default() }, Row { sport: 2, ..Row::default() }], &[]);
        let further = Further::new(layout, Family::V4, Box::new(Makes(made)));
        let (batch, error) = further.extend(&rows.take());
        (further, batch, error.map(|error| error.to_string()))
    }

    #[test]
    fn what_fits_is_taken_whatever_its_width_and_in_pieces() {
        let pieces: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![7])), Arc::new(UInt32Array::from(vec![None]))];
        let (_, batch, error) = extended(Ok(vec![pieces]));
        assert_eq!(error, None);
        assert_eq!(batch.column(1).as_primitive::<UInt8Type>().iter().collect::<Vec<_>>(), [Some(7), None]);
        assert_eq!(batch.schema().field(1).data_type(), &DataType::UInt8);
    }

    #[test]
    fn what_a_broken_program_makes_is_named_and_no_row_lost() {
        let numbers = |values: Vec<i64>| vec![vec![Arc::new(Int64Array::from(values)) as ArrayRef]];
        for (made, reason) in [
            (Err("it raised".to_owned()), "it raised"),
            (Ok(numbers(vec![1])), "has 1 values where the batch has 2 rows"),
            (Ok(numbers(vec![1, 300])), "is not UInt8"),
            (Ok(Vec::new()), "made 0 columns where 1"),
            (
                Ok(vec![vec![Arc::new(StringArray::from(vec!["1", "2"])) as ArrayRef]]),
                "is Utf8 where UInt8 was declared",
            ),
        ] {
            let (further, batch, error) = extended(made);
            let error = error.expect(reason);
            assert!(error.contains(reason) && error.contains("mine"), "{error}");
            assert_eq!((batch.num_rows(), batch.column(1).null_count()), (2, 2));
            assert_eq!(further.schema(), batch.schema());
        }
    }

    #[test]
    fn a_field_has_a_name_of_its_own() {
        for fields in ["ttl uint8", "level uint8; level utf8"] {
            let error = Layout::of(&probe(fields), None).unwrap_err().to_string();
            assert!(error.contains("name of another column"), "{error}");
        }
        assert!(Layout::of(&probe("level uint8"), Some(&["nonesuch".to_owned()])).is_err());
    }
}
