//! The targets of a plan, in order: as Arrow batches, and as lines.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeBinaryArray, RecordBatch, UInt16Array, UInt32Array, UInt64Array};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use irl_targets::{CompiledPlan, Family, Target};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::arrow::{PyBatch, stream};
use crate::errors::{Error, Result};

/// Rows of a batch of targets.
const BATCH_ROWS: usize = 65_536;

/// Targets of a plan in order: iterate for batches, or hand it to any Arrow library.
#[pyclass(frozen, module = "irlstack", name = "Targets")]
pub(crate) struct PyTargets {
    pub(crate) plan: CompiledPlan,
    pub(crate) family: Family,
    pub(crate) has_ports: bool,
    pub(crate) first: u64,
    pub(crate) end: u64,
}

fn target_schema(family: Family) -> SchemaRef {
    let address = match family {
        Family::V4 => DataType::UInt32,
        Family::V6 => DataType::FixedSizeBinary(16),
    };
    Arc::new(Schema::new(vec![
        Field::new("position", DataType::UInt64, false),
        Field::new("address", address, false),
        Field::new("port", DataType::UInt16, false),
    ]))
}

/// Makes the batches one after the other.
struct Batches {
    plan: CompiledPlan,
    family: Family,
    schema: SchemaRef,
    next: u64,
    end: u64,
}

impl Batches {
    fn fill(&mut self) -> Option<(u64, Vec<(u64, Target)>)> {
        let rows = usize::try_from(self.end - self.next).unwrap_or(usize::MAX).min(BATCH_ROWS);
        if rows == 0 {
            return None;
        }
        let first = self.next;
        let mut targets = vec![(0, Target::default()); rows];
        let filled = self.plan.fill(first, &mut targets);
        targets.truncate(filled);
        self.next = first + filled as u64;
        Some((first, targets))
    }

    fn batch(&self, first: u64, targets: &[(u64, Target)]) -> std::result::Result<RecordBatch, ArrowError> {
        let addresses = targets.iter().map(|(_, target)| target.address);
        let address: ArrayRef = match self.family {
            Family::V4 => Arc::new(UInt32Array::from_iter_values(addresses.map(|address| address as u32))),
            Family::V6 => Arc::new(FixedSizeBinaryArray::try_from_iter(addresses.map(u128::to_be_bytes))?),
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from_iter_values(first..first + targets.len() as u64)),
            address,
            Arc::new(UInt16Array::from_iter_values(targets.iter().map(|(_, target)| target.port))),
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

impl Iterator for Batches {
    type Item = std::result::Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (first, targets) = self.fill()?;
        Some(self.batch(first, &targets))
    }
}

impl PyTargets {
    fn batches(&self) -> Batches {
        Batches {
            plan: self.plan.clone(),
            family: self.family,
            schema: target_schema(self.family),
            next: self.first,
            end: self.end,
        }
    }
}

#[pymethods]
impl PyTargets {
    fn __len__(&self) -> usize {
        usize::try_from(self.end - self.first).unwrap_or(usize::MAX)
    }

    fn __iter__(&self) -> TargetBatches {
        TargetBatches(std::sync::Mutex::new(self.batches()))
    }

    /// The same as lines of text, a chunk of bytes at a time: `192.0.2.7:80`, or the address alone without ports.
    fn lines(&self) -> TargetLines {
        TargetLines { batches: std::sync::Mutex::new(self.batches()), has_ports: self.has_ports }
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyCapsule>> {
        pyo3_arrow::ffi::to_schema_pycapsule(py, target_schema(self.family).as_ref())
            .map_err(|error| Error::Python(error.into()))
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> Result<Bound<'py, PyCapsule>> {
        let batches = self.batches();
        stream(py, &Arc::clone(&batches.schema), batches, requested_schema)
    }

    fn __repr__(&self) -> String {
        format!("<Targets {} to {} of shard {}>", self.first, self.end, self.plan.shard_number())
    }
}

/// Iterator over the batches of `Targets`.
#[pyclass(frozen, module = "irlstack._core")]
pub(crate) struct TargetBatches(std::sync::Mutex<Batches>);

#[pymethods]
impl TargetBatches {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Result<Option<PyBatch>> {
        // The lock is poisoned only if filling panicked, and then PyO3 raised that panic already.
        let batch = py.detach(|| self.0.lock().expect("no panic before").next());
        match batch {
            None => Ok(None),
            Some(batch) => Ok(Some(PyBatch(batch.map_err(|error| Error::config(error.to_string()))?))),
        }
    }
}

/// Iterator over the lines of `Targets`, in chunks.
#[pyclass(frozen, module = "irlstack._core")]
pub(crate) struct TargetLines {
    batches: std::sync::Mutex<Batches>,
    has_ports: bool,
}

#[pymethods]
impl TargetLines {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> Option<String> {
        py.detach(|| {
            let mut batches = self.batches.lock().expect("no panic before");
            let (_, targets) = batches.fill()?;
            let mut text = String::with_capacity(targets.len() * 24);
            for (_, Target { address, port }) in targets {
                // Writing to a String cannot fail.
                let _ = match (batches.family.address(address), self.has_ports || port != 0) {
                    (address, false) => writeln!(text, "{address}"),
                    (IpAddr::V4(address), true) => writeln!(text, "{address}:{port}"),
                    (IpAddr::V6(address), true) => writeln!(text, "[{address}]:{port}"),
                };
            }
            Some(text)
        })
    }
}
