//! A run in progress, for `irlstack.Run`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_schema::ArrowError;
use irl_measure::run::Next;
use irl_measure::stats::Stats;
use irl_measure::{Run, metadata};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use serde_json::Value;

use crate::arrow::{PyBatch, stream};
use crate::errors::{Error, Result};
use crate::output::AboutLike;
use crate::policy::OptOutLike;

/// How long a call may go without looking for Ctrl-C.
pub(crate) const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// A run in progress. Use `irlstack.Run`.
#[pyclass(frozen, weakref, module = "irlstack._core", name = "RawRun")]
pub(crate) struct PyRun {
    pub(crate) run: Arc<Run>,
}

impl Drop for PyRun {
    fn drop(&mut self) {
        // Workers may be waiting for the interpreter to log something, so it must not be held while they are waited for.
        Python::attach(|py| py.detach(|| self.run.stop()));
    }
}

#[pymethods]
impl PyRun {
    /// The next batch; None at the end. Ctrl-C is heard while waiting.
    fn next_batch(&self, py: Python<'_>) -> Result<Option<PyBatch>> {
        loop {
            py.check_signals()?;
            match py.detach(|| self.run.next_batch(SIGNAL_INTERVAL))? {
                Next::Batch(batch) => return Ok(Some(PyBatch(batch))),
                Next::Nothing => {}
                Next::End => return Ok(None),
            }
        }
    }

    /// Whether the run is over, and the next batch if there is one within `timeout` seconds.
    fn poll(&self, py: Python<'_>, timeout: f64) -> Result<(bool, Option<PyBatch>)> {
        let end = Instant::now() + Duration::try_from_secs_f64(timeout).unwrap_or_default();
        loop {
            py.check_signals()?;
            let left = end.saturating_duration_since(Instant::now());
            match py.detach(|| self.run.next_batch(left.min(SIGNAL_INTERVAL)))? {
                Next::Batch(batch) => return Ok((false, Some(PyBatch(batch)))),
                Next::Nothing if left.is_zero() => return Ok((false, None)),
                Next::Nothing => {}
                Next::End => return Ok((true, None)),
            }
        }
    }

    /// Stops everything; no frame leaves once this returns.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.run.stop());
    }

    /// Stops sending; answers are still received for the cooldown.
    fn stop_sending(&self) {
        self.run.stop_sending();
    }

    /// Changes the rate; 0 = as fast as our own loss allows.
    fn set_rate(&self, per_second: f64) -> Result<()> {
        Ok(self.run.set_rate(per_second)?)
    }

    /// Denies what an opt-out file (`irlstack.optout.OptOut`) says now, beside what was denied when the run began:
    /// replaces what was denied so before. It is named in the metadata.
    fn deny(&self, optout: OptOutLike) -> Result<()> {
        let policy = &self.run.config().policy;
        policy.deny(&optout.sets()?);
        policy.note_optout(optout.file());
        Ok(())
    }

    /// The counters so far, as JSON.
    fn stats(&self) -> Result<String> {
        json(&self.run.stats())
    }

    /// The same with where the run is and what it is, as JSON, for those who watch it from outside.
    fn snapshot(&self, py: Python<'_>) -> Result<String> {
        py.detach(|| json(&snapshot(&self.run)))
    }

    /// The metadata document so far, as JSON.
    fn metadata(&self, about: AboutLike) -> Result<String> {
        json(&metadata::document(&self.run, &about.about()?))
    }

    /// Positions of this shard handed out so far.
    fn watermark(&self) -> u64 {
        self.run.watermark()
    }

    /// Whether the workers are done.
    fn is_finished(&self) -> bool {
        self.run.is_finished()
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyCapsule>> {
        pyo3_arrow::ffi::to_schema_pycapsule(py, self.run.schema().as_ref())
            .map_err(|error| Error::Python(error.into()))
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> Result<Bound<'py, PyCapsule>> {
        stream(py, &self.run.schema(), Rows { run: Arc::clone(&self.run) }, requested_schema)
    }
}

/// What a run is and where it is. It stays small however long the run goes on, unlike the metadata.
fn snapshot(run: &Run) -> Value {
    let (engine, config, (waiting, most)) = (run.engine(), run.config(), run.queue());
    let workers = run.workers().into_iter().map(|(interface, stats)| {
        let Stats { probes_sent, received, overruns, .. } = stats;
        serde_json::json!({"iface": interface, "probes_sent": probes_sent, "received": received, "overruns": overruns})
    });
    serde_json::json!({
        "stats": run.stats(),
        "finished": run.is_finished(),
        "start_s": run.times().start as f64 / 1e9,
        "rate_now": run.rate_now(),
        "watermark": run.watermark(),
        "positions": config.compiled.len(),
        "queue": waiting,
        "queue_most": most,
        "workers": workers.collect::<Vec<_>>(),
        "filter": run.filter_counters().into_iter().collect::<BTreeMap<_, _>>(),
        "engine": engine.engine,
        "iface": engine.interface,
        "synthetic": engine.synthetic,
        "probe_module": config.plan.probe.name,
        "plan_fingerprint": config.compiled.fingerprint(),
        "shard_num": config.compiled.shard_number(),
        "total_shards": config.compiled.shards(),
    })
}

/// A value as JSON; ours always have that form.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::config(error.to_string()))
}

/// The rows as an Arrow library pulls them; letting go of it stops the frames.
struct Rows {
    run: Arc<Run>,
}

impl Iterator for Rows {
    type Item = std::result::Result<arrow_array::RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // The consumer may or may not hold the interpreter; either way signals are looked at and it is let go of.
            let pulled = Python::attach(|py| {
                py.check_signals()?;
                py.detach(|| self.run.next_batch(SIGNAL_INTERVAL)).map_err(|error| PyErr::from(Error::from(error)))
            });
            match pulled {
                Ok(Next::Batch(batch)) => return Some(Ok(batch)),
                Ok(Next::Nothing) => {}
                Ok(Next::End) => return None,
                Err(error) => return Some(Err(ArrowError::ExternalError(Box::new(error)))),
            }
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.run.stop();
    }
}
