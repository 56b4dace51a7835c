//! Arrow record batches for Python, by the PyCapsule interface and without a dependency on an Arrow package.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::{ArrowError, DataType, Field, SchemaRef, TimeUnit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyDict, PyList, PyTuple};
use pyo3_arrow::ffi::{ArrayIterator, to_array_pycapsules, to_schema_pycapsule, to_stream_pycapsule};

use crate::errors::{Error, Result};

/// A batch of rows in Arrow's memory layout.
///
/// Every library that speaks the Arrow PyCapsule interface takes it without a copy: `polars.DataFrame(batch)`,
/// `pyarrow.record_batch(batch)`, DuckDB. Without any of them: `batch.to_pydict()`.
#[pyclass(frozen, module = "irlstack", name = "Batch")]
pub(crate) struct PyBatch(pub(crate) RecordBatch);

fn whole(batch: &RecordBatch) -> (Arc<Field>, StructArray) {
    let schema = batch.schema();
    let field = Field::new_struct("", schema.fields().clone(), false).with_metadata(schema.metadata().clone());
    (Arc::new(field), StructArray::from(batch.clone()))
}

/// A stream capsule over batches made as they are asked for.
pub(crate) fn stream<'py>(
    py: Python<'py>,
    schema: &SchemaRef,
    batches: impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send + 'static,
    requested_schema: Option<Bound<'py, PyCapsule>>,
) -> Result<Bound<'py, PyCapsule>> {
    let field = Field::new_struct("", schema.fields().clone(), false).with_metadata(schema.metadata().clone());
    let arrays = batches.map(|batch| Ok(Arc::new(StructArray::from(batch?)) as ArrayRef));
    let reader = Box::new(ArrayIterator::new(arrays, Arc::new(field)));
    to_stream_pycapsule(py, reader, requested_schema).map_err(|error| Error::Python(error.into()))
}

#[pymethods]
impl PyBatch {
    /// How many rows.
    #[getter]
    fn num_rows(&self) -> usize {
        self.0.num_rows()
    }

    /// The names of the columns, in order.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.0.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// The columns as lists, by name; a convenience for small batches and for tests.
    ///
    /// Integers, times (ns) and durations come as int, text as str, 16-byte addresses as bytes, nulls as None.
    fn to_pydict<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (field, column) in self.0.schema().fields().iter().zip(self.0.columns()) {
            dict.set_item(field.name(), column_to_list(py, column)?)?;
        }
        Ok(dict)
    }

    fn __len__(&self) -> usize {
        self.0.num_rows()
    }

    fn __repr__(&self) -> String {
        format!("Batch({} rows: {})", self.0.num_rows(), self.column_names().join(" "))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyCapsule>> {
        to_schema_pycapsule(py, self.0.schema().as_ref()).map_err(|error| Error::Python(error.into()))
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> Result<Bound<'py, PyTuple>> {
        let (field, array) = whole(&self.0);
        to_array_pycapsules(py, field, &array, requested_schema).map_err(|error| Error::Python(error.into()))
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> Result<Bound<'py, PyCapsule>> {
        stream(py, &self.0.schema(), std::iter::once(Ok(self.0.clone())), requested_schema)
    }
}

/// One column as a list; the types are those of our own schemas.
fn column_to_list<'py>(py: Python<'py>, column: &ArrayRef) -> Result<Bound<'py, PyList>> {
    macro_rules! primitive {
        ($type:ty) => {
            PyList::new(py, column.as_primitive::<$type>().iter())?
        };
    }
    Ok(match column.data_type() {
        DataType::UInt8 => primitive!(UInt8Type),
        DataType::UInt16 => primitive!(UInt16Type),
        DataType::UInt32 => primitive!(UInt32Type),
        DataType::UInt64 => primitive!(UInt64Type),
        DataType::Int64 => primitive!(Int64Type),
        DataType::Float64 => primitive!(Float64Type),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            PyList::new(py, column.as_primitive::<arrow_array::types::TimestampNanosecondType>().iter())?
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            PyList::new(py, column.as_primitive::<arrow_array::types::DurationNanosecondType>().iter())?
        }
        DataType::Boolean => PyList::new(py, column.as_boolean().iter())?,
        DataType::Utf8 => PyList::new(py, column.as_string::<i32>().iter())?,
        DataType::Binary => {
            PyList::new(py, column.as_binary::<i32>().iter().map(|value| value.map(|value| PyBytes::new(py, value))))?
        }
        DataType::FixedSizeBinary(_) => PyList::new(
            py,
            column.as_fixed_size_binary().iter().map(|value| value.map(|value| PyBytes::new(py, value))),
        )?,
        DataType::Dictionary(_, value) if **value == DataType::Utf8 => {
            let dictionary = column.as_any_dictionary();
            let keys = dictionary.normalized_keys();
            let values = dictionary.values().as_string::<i32>();
            PyList::new(py, keys.iter().enumerate().map(|(row, &key)| column.is_valid(row).then(|| values.value(key))))?
        }
        other => return Err(Error::config(format!("There is no plain Python form of {other}; use an Arrow library."))),
    })
}
