//! A list of targets that is read while an exchange goes on.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use irl_measure::listing::{Input, ListConfig, Listing};
use irl_wire::PortRange;
use pyo3::prelude::*;
use pyo3_arrow::PyRecordBatchReader;

use crate::errors::{Error, Result};
use crate::numbers::bounded;
use crate::plan::PyPlan;
use crate::ports::has_ports;

/// How long the first SYN of a row waits for its answer; each later one waits twice as long as the one before it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A list of targets, opened, and read while an exchange goes on. Used up by one run.
#[pyclass(frozen, module = "irlstack._core", name = "RawList")]
pub(crate) struct PyList(pub(crate) Arc<Listing>);

/// Where a list comes from.
#[derive(FromPyObject)]
enum Source {
    Text(Vec<u8>),
    Path(PathBuf),
    Table(PyRecordBatchReader),
}

#[pymethods]
impl PyList {
    /// Opens a list whose targets may lie where the plan's do, on the plan's ports where rows name none.
    #[new]
    #[pyo3(signature = (source, plan, reprobe=2, max_memory=512 << 20, request_column=None))]
    fn new(
        py: Python<'_>,
        source: Source,
        plan: &PyPlan,
        reprobe: i128,
        max_memory: u64,
        request_column: Option<String>,
    ) -> Result<Self> {
        let reprobe: u8 = bounded("reprobe", Some(reprobe))?.unwrap_or_default();
        let compiled = plan.compiled(py, 0)?;
        let of = &plan.plan;
        if of.shards > 1 {
            return Err(Error::config("A list has no shards: cut it into several lists."));
        }
        let ours = PortRange { first: of.source_ports.first, last: of.source_ports.last };
        let config = ListConfig {
            plan: compiled,
            family: of.family,
            ports: if has_ports(&of.ports) { of.ports.as_slice().to_vec() } else { Vec::new() },
            our_ports: ours.len(),
            attempts: reprobe.saturating_add(1),
            timeout: TIMEOUT,
            max_memory,
            request: request_column,
        };
        let input = match source {
            Source::Text(text) => Input::Text("the list".to_owned(), Box::new(Cursor::new(text))),
            Source::Path(path) => Input::Path(path),
            Source::Table(reader) => Input::Table(reader.into_reader()?),
        };
        Ok(Self(Arc::new(py.detach(|| Listing::open(input, &config))?)))
    }

    /// The names of its further columns, which pass through to the results.
    fn columns(&self) -> Vec<String> {
        self.0.columns().iter().map(|field| field.name().clone()).collect()
    }
}
