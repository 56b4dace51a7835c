//! A program's `parse`: what a user makes of the answers to a probe, as columns.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, PrimitiveBuilder, StringBuilder};
use arrow_array::types::{ArrowPrimitiveType, Float64Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, RecordBatch};
use irl_measure::further::Parse;
use irl_wire::probe::{Field, FieldType};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3_arrow::input::{AnyArray, AnyRecordBatch};

use crate::arrow::PyBatch;

/// A callable that takes a batch and returns a dict of columns, or a table.
pub(crate) struct Program {
    pub(crate) call: Py<PyAny>,
    pub(crate) fields: Vec<Field>,
}

impl Parse for Program {
    fn parse(&self, batch: &RecordBatch) -> Result<Vec<Vec<ArrayRef>>, String> {
        Python::attach(|py| {
            let made = self.call.bind(py).call1((PyBatch(batch.clone()),)).map_err(|error| told(py, &error))?;
            self.columns(&made)
        })
    }
}

/// What was raised, and where.
fn told(py: Python<'_>, error: &PyErr) -> String {
    let trace = error.traceback(py).and_then(|trace| trace.format().ok()).unwrap_or_default();
    let place = trace.lines().map(str::trim).rfind(|line| line.starts_with("File "));
    place.map_or_else(|| format!("it raised {error}"), |place| format!("it raised {error} ({place})"))
}

impl Program {
    fn columns(&self, made: &Bound<'_, PyAny>) -> Result<Vec<Vec<ArrayRef>>, String> {
        let missing = |field: &Field| format!("it made no column {}", field.name);
        if let Ok(dict) = made.cast::<PyDict>() {
            let named = |field: &Field| {
                let value = dict.get_item(&field.name).ok().flatten().ok_or_else(|| missing(field))?;
                column(field, &value)
            };
            return self.fields.iter().map(named).collect();
        }
        let table = made.extract::<AnyRecordBatch>().and_then(|any| Ok(any.into_table()?.into_inner()));
        let Ok((batches, schema)) = table else {
            let kind = made.get_type().to_string();
            return Err(format!("it returned {kind}: return a dict of columns by name, or a table"));
        };
        let named = |field: &Field| {
            let index = schema.index_of(&field.name).map_err(|_| missing(field))?;
            Ok(batches.iter().map(|batch| Arc::clone(batch.column(index))).collect())
        };
        self.fields.iter().map(named).collect()
    }
}

/// A column of an Arrow library, or any sequence of values.
fn column(field: &Field, value: &Bound<'_, PyAny>) -> Result<Vec<ArrayRef>, String> {
    let has = |name| value.hasattr(name).unwrap_or(false);
    if has("__arrow_c_array__") || has("__arrow_c_stream__") {
        let pieces = value.extract::<AnyArray>().and_then(|any| Ok(any.into_chunked_array()?.into_inner().0));
        return pieces.map_err(|error| format!("the field {} cannot be read: {error}", field.name));
    }
    let wrong = |row: usize, error: &PyErr| {
        format!("the field {} cannot have the value of row {row} in the batch: {error}", field.name)
    };
    let values = value.try_iter().map_err(|error| format!("the field {} is no sequence: {error}", field.name))?;
    let values = values.collect::<PyResult<Vec<_>>>().map_err(|error| wrong(0, &error))?;
    macro_rules! collect {
        ($builder:expr, $type:ty) => {{
            let mut builder = $builder;
            for (row, value) in values.iter().enumerate() {
                builder.append_option(value.extract::<Option<$type>>().map_err(|error| wrong(row, &error))?);
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    fn numbers<T: ArrowPrimitiveType>() -> PrimitiveBuilder<T> {
        PrimitiveBuilder::new()
    }
    Ok(vec![match field.kind {
        FieldType::Bool => collect!(BooleanBuilder::new(), bool),
        FieldType::Uint8 => collect!(numbers::<UInt8Type>(), u8),
        FieldType::Uint16 => collect!(numbers::<UInt16Type>(), u16),
        FieldType::Uint32 => collect!(numbers::<UInt32Type>(), u32),
        FieldType::Uint64 => collect!(numbers::<UInt64Type>(), u64),
        FieldType::Int64 => collect!(numbers::<Int64Type>(), i64),
        FieldType::Float64 => collect!(numbers::<Float64Type>(), f64),
        FieldType::Utf8 => collect!(StringBuilder::new(), String),
        FieldType::Binary => collect!(BinaryBuilder::new(), Vec<u8>),
    }])
}
